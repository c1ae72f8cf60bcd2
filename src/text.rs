//! Foreign text made fit to show: what a server says may stand in a log or an error only after this.

mod redactor;

pub(crate) use self::redactor::Redactor;

/// The longest piece of foreign text that is shown, in characters.
pub(crate) const MAX_SHOWN: usize = 256;

/// Returns `text` on one line, without control characters and cut to [`MAX_SHOWN`] characters.
pub(crate) fn clean(text: &str) -> String {
    cut(text, MAX_SHOWN)
}

/// Returns a message of our own on one line. It may be longer than foreign text, but not without bound.
pub(crate) fn one_line(message: &str) -> String {
    cut(message, 4 * MAX_SHOWN)
}

fn cut(text: &str, limit: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(limit));
    for (count, c) in text.chars().map(printable).enumerate() {
        if count == limit {
            // The last character makes room, so that the whole keeps to the limit.
            shown.pop();
            shown.push('…');
            break;
        }
        shown.push(c);
    }
    shown
}

/// A control character, or one that changes the direction of what follows, becomes a space.
fn printable(c: char) -> char {
    match c {
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => ' ',
        c if c.is_control() => ' ',
        c => c,
    }
}

/// Returns whether a member of this name is likely to hold a secret.
pub(crate) fn names_a_secret(name: &str) -> bool {
    !name.ends_with("token_type") && ["token", "secret", "assertion"].iter().any(|word| name.contains(word))
}

/// A character of a token in RFC 9110 §5.6.2.
pub(crate) fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_spaces_and_long_text_is_cut() {
        assert_eq!(clean("a\r\nb\u{1b}[31mc\u{202e}d"), "a  b [31mc d");
        let long = clean(&"x".repeat(10_000));
        assert_eq!(long.chars().count(), MAX_SHOWN);
        assert!(long.ends_with('…'));
    }
}
