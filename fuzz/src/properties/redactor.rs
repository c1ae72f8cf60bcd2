//! Secrets in what a peer echoes.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::input;
use crate::text::{MAX_SHOWN, Redactor};

const REDACTED: &str = "[redacted]";

/// Input: a secret, then a text in which control characters stand for the secret in one form or another.
///
/// Nothing of the secret is shown, in none of the forms; what is shown is one short line, and it is the text itself
/// where there is no secret.
pub fn redactor(data: &[u8]) {
    let (secret, rest) = input::text_line(data);
    let template = String::from_utf8_lossy(rest);
    let mut redactor = Redactor::default();
    redactor.add(&secret);
    let long = secret.chars().count() >= 4;

    let mut text = String::new();
    let mut echoed = Vec::new();
    for c in template.chars() {
        match echo(&secret, c).filter(|_| long || c == '\u{1}') {
            Some(echo) => {
                text.push_str(&echo);
                echoed.push(echo);
            }
            None => text.push(c),
        }
    }
    let shown = redactor.clean(&text);
    assert!(shown.chars().count() <= MAX_SHOWN);
    assert!(!shown.chars().any(char::is_control));
    assert!(!leaks(&secret, &shown), "{secret:?} in {text:?} is shown as {shown:?}");
    for echo in &echoed {
        assert!(!leaks_whole(echo, &shown), "{echo:?} in {text:?} is shown as {shown:?}");
        assert!(secret.is_empty() || redactor.finds(echo), "{echo:?} of {secret:?}");
    }
    assert_eq!(Redactor::default().clean(&text), crate::text::clean(&cut(&text)));
}

/// Returns whether eight bytes of a secret are shown, or all of a shorter one.
pub(super) fn leaks(secret: &str, shown: &str) -> bool {
    let (secret, shown) = (secret.to_ascii_lowercase(), shown.to_ascii_lowercase());
    shown.split(REDACTED).any(|shown| match secret.as_bytes() {
        [] => false,
        short if short.len() < 8 => shown.contains(&secret),
        long => long.windows(8).any(|piece| shown.as_bytes().windows(8).any(|window| window == piece)),
    })
}

fn leaks_whole(echo: &str, shown: &str) -> bool {
    !echo.is_empty() && shown.split(REDACTED).any(|shown| shown.contains(echo))
}

/// The secret as a peer may write it.
fn echo(secret: &str, form: char) -> Option<String> {
    let hex = |prefix: &str| secret.bytes().map(|byte| format!("{prefix}{byte:02X}")).collect::<String>();
    Some(match form {
        '\u{1}' => secret.to_owned(),
        '\u{2}' => hex("").to_lowercase(),
        '\u{3}' => hex(""),
        '\u{4}' => STANDARD.encode(secret),
        '\u{5}' => URL_SAFE_NO_PAD.encode(format!("k={secret}&more")),
        '\u{6}' => hex("%"),
        '\u{7}' => form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
        '\u{e}' => hex("%25"),
        '\u{f}' => serde_json::Value::from(secret).to_string(),
        '\u{10}' => format!("{secret:?}"),
        '\u{11}' => secret.chars().map(|c| format!("&#{};", u32::from(c))).collect(),
        '\u{12}' => secret.to_ascii_uppercase(),
        _ => return None,
    })
}

/// So much of a text is looked at.
fn cut(text: &str) -> String {
    // What is shown is far less than what is looked at.
    text.chars().take(2 * MAX_SHOWN).collect()
}
