//! Foreign text made fit to show: what a server says may stand in a log or an error only after this.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

/// The longest piece of foreign text that is shown, in characters.
pub(crate) const MAX_SHOWN: usize = 256;

/// What stands in the place of a secret.
const REDACTED: &str = "[redacted]";

/// A secret shorter than this is not searched for: it would blank out ordinary words.
const SHORTEST_NEEDLE: usize = 4;

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

/// Knows the secrets of one exchange in every form in which a peer may echo them.
///
/// Whoever shows foreign text passes it through [`Redactor::clean`] first: secrets are replaced *before* the text
/// is cut, so that no half of one survives at the edge.
#[derive(Clone, Default)]
pub(crate) struct Redactor {
    needles: Vec<String>,
}

impl Redactor {
    /// Adds a secret: raw, form-encoded, percent-encoded, and in the alphabets of base64.
    pub(crate) fn add(&mut self, secret: &str) {
        if secret.chars().count() < SHORTEST_NEEDLE {
            return;
        }
        let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let percent = form.replace('+', "%20");
        for needle in [
            secret.to_owned(),
            form,
            percent,
            STANDARD.encode(secret),
            STANDARD_NO_PAD.encode(secret),
            URL_SAFE.encode(secret),
            URL_SAFE_NO_PAD.encode(secret),
            json_escaped(secret),
        ] {
            if !self.needles.contains(&needle) {
                self.needles.push(needle);
            }
        }
        // The longest first: a needle inside another must not leave the rest of it standing.
        self.needles.sort_by_key(|needle| std::cmp::Reverse(needle.len()));
    }

    /// Adds client credentials: the secret alone, and the pair as HTTP Basic writes it, encoded and raw.
    pub(crate) fn add_basic(&mut self, id: &str, secret: &str) {
        self.add(secret);
        let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        self.add(&format!("{}:{}", encode(id), encode(secret)));
        self.add(&format!("{id}:{secret}"));
    }

    /// Returns `text` with every known secret replaced, then made fit to show as [`clean`] does.
    pub(crate) fn clean(&self, text: &str) -> String {
        // What is beyond any limit need not be searched; the margin keeps a secret whole that begins within it.
        let longest = self.needles.first().map_or(0, String::len);
        let mut end = text.len().min(MAX_SHOWN * 4 + longest * 4);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut shown = Cow::Borrowed(&text[..end]);
        for needle in &self.needles {
            if let Some(replaced) = replace_ignoring_case(&shown, needle) {
                shown = Cow::Owned(replaced);
            }
        }
        clean(&shown)
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").finish_non_exhaustive()
    }
}

impl Drop for Redactor {
    fn drop(&mut self) {
        use secrecy::zeroize::Zeroize as _;
        self.needles.zeroize();
    }
}

/// Percent-escapes come in either case, so the comparison ignores it for ASCII.
fn replace_ignoring_case(text: &str, needle: &str) -> Option<String> {
    let (hay, pin) = (text.as_bytes(), needle.as_bytes());
    if pin.is_empty() || hay.len() < pin.len() {
        return None;
    }
    let mut out = String::new();
    let (mut from, mut at, mut found) = (0, 0, false);
    while at + pin.len() <= hay.len() {
        if text.is_char_boundary(at) && hay[at..at + pin.len()].eq_ignore_ascii_case(pin) {
            out.push_str(&text[from..at]);
            out.push_str(REDACTED);
            at += pin.len();
            from = at;
            found = true;
        } else {
            at += 1;
        }
    }
    found.then(|| {
        out.push_str(&text[from..]);
        out
    })
}

/// A character of a token in RFC 9110 §5.6.2.
pub(crate) fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn json_escaped(secret: &str) -> String {
    let quoted = serde_json::Value::from(secret).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(secrets: &[&str]) -> Redactor {
        let mut redactor = Redactor::default();
        for secret in secrets {
            redactor.add(secret);
        }
        redactor
    }

    #[test]
    fn control_characters_become_spaces_and_long_text_is_cut() {
        assert_eq!(clean("a\r\nb\u{1b}[31mc\u{202e}d"), "a  b [31mc d");
        let long = clean(&"x".repeat(10_000));
        assert_eq!(long.chars().count(), MAX_SHOWN);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn a_secret_is_found_in_every_form() {
        let secret = "S3cr&t /+ü\"x";
        let redactor = redactor(&[secret]);
        for echoed in [
            secret.to_owned(),
            form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
            form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>().to_lowercase(),
            STANDARD.encode(secret),
            URL_SAFE_NO_PAD.encode(secret),
            serde_json::Value::from(secret).to_string(),
        ] {
            let shown = redactor.clean(&format!("you sent <{echoed}> to me"));
            assert!(shown.contains(REDACTED) && !shown.contains(&echoed), "{echoed} -> {shown}");
        }
    }

    #[test]
    fn a_secret_at_the_edge_of_the_cut_leaves_no_half() {
        let secret = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
        for lead in 200..260 {
            let shown =
                redactor(&[secret]).clean(&format!("{}{secret}{}", "-".repeat(lead), "-".repeat(900)));
            assert!(!shown.contains("ABCD"), "{lead}: {shown}");
        }
    }

    #[test]
    fn basic_credentials_are_found_as_the_header_carries_them() {
        let mut redactor = Redactor::default();
        redactor.add_basic("my:client", "pa ss");
        for pair in ["my%3Aclient:pa+ss", "my:client:pa ss"] {
            let echoed = STANDARD.encode(pair);
            assert_eq!(redactor.clean(&format!("Basic {echoed}")), "Basic [redacted]");
        }
    }

    #[test]
    fn a_secret_inside_another_does_not_uncover_it() {
        let shown = redactor(&["alpha", "alphabet-soup"]).clean("got alphabet-soup and alpha");
        assert_eq!(shown, "got [redacted] and [redacted]");
    }

    #[test]
    fn text_outside_ascii_survives() {
        assert_eq!(redactor(&["geheim"]).clean("Fehler: übergeheimß"), "Fehler: über[redacted]ß");
    }
}
