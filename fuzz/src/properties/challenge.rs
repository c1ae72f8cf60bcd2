//! `WWW-Authenticate`.

use crate::headers::challenge::{Challenge, parse};

/// The most challenges, and the most parameters of one.
const MOST: usize = 32;

/// Input: the lines of the field.
///
/// What was read keeps to its limits, is made of what the grammar allows, and is read again from its plainest form.
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
}

/// A word of RFC 9110 §5.6.2, in lower case.
fn is_word(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "!#$%&'*+-.^_`|~".contains(c);
    !text.is_empty() && text.chars().all(allowed)
}

fn write(challenge: &Challenge) -> String {
    let quoted = |value: &str| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
    let params: Vec<_> =
        challenge.params().map(|(name, value)| format!("{name}={}", quoted(value))).collect();
    let rest = challenge.token68().map_or_else(|| params.join(", "), str::to_owned);
    format!("{} {rest}", challenge.scheme()).trim_end().to_owned()
}
