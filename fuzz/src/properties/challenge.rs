//! `WWW-Authenticate`.

use crate::headers::challenge::{Challenge, parse};

/// The most challenges, and the most parameters of one.
const MOST: usize = 32;

/// Input: the lines of the field.
///
/// What was read keeps to its limits, is made of what the grammar allows, and is read again from its plainest form. And
/// the input itself is read back as the value of a parameter.
pub fn challenge(data: &[u8]) {
    let read = parse(data.split(|byte| *byte == b'\n'));
    assert!(read.len() <= MOST);
    for challenge in &read {
        assert!(is_word(challenge.scheme()), "{:?}", challenge.scheme());
        assert!(challenge.params().count() <= MOST);
        assert!(challenge.params().all(|(name, _)| is_word(name)));
        assert!(challenge.token68().is_none() || challenge.params().next().is_none());
        for (name, _) in challenge.params() {
            let first = challenge.params().find(|param| param.0 == name);
            assert_eq!(challenge.param(name), first.map(|param| param.1));
        }
    }
    let written: Vec<String> = read.iter().map(write).collect();
    let again = parse(written.iter().map(String::as_bytes));
    assert_eq!(again.iter().map(write).collect::<Vec<_>>(), written);
    let again = parse([written.join(", ").as_bytes()]);
    assert_eq!(again.iter().map(write).collect::<Vec<_>>(), written);

    let value = String::from_utf8_lossy(data);
    let again = parse([format!("Bearer realm={}, error=x", quoted(&value)).as_bytes()]);
    let params: Vec<_> = again.iter().flat_map(Challenge::params).collect();
    assert_eq!(params, [("realm", &*value), ("error", "x")]);
}

/// A word of RFC 9110 §5.6.2, in lower case.
fn is_word(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "!#$%&'*+-.^_`|~".contains(c);
    !text.is_empty() && text.chars().all(allowed)
}

fn write(challenge: &Challenge) -> String {
    let params = challenge.params().map(|(name, value)| format!("{name}={}", quoted(value)));
    let rest = match challenge.token68() {
        Some(token68) => token68.to_owned(),
        None => params.collect::<Vec<_>>().join(", "),
    };
    format!("{} {rest}", challenge.scheme()).trim_end().to_owned()
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}
