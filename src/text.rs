//! Foreign text made fit to show: what a server says may stand in a log or an error only after this.

mod duration;
mod redactor;

pub(crate) use self::duration::show_duration;
pub(crate) use self::redactor::Redactor;

/// The longest piece of foreign text that is shown, in characters.
pub(crate) const MAX_SHOWN: usize = 256;

/// Returns `text` on one line, without control characters and cut to [`MAX_SHOWN`] characters.
pub(crate) fn clean(text: &str) -> String {
    cut(text, MAX_SHOWN)
}

/// Returns `text` with each URL in it cut down to its scheme, host and port. The rest of a URL may be a secret.
pub(crate) fn origins_only(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, url) = rest.split_at(at + 3);
        push_without_user(&mut shown, before);
        // User and password go first: any characters may stand in them.
        let run = url.split(|c: char| c.is_whitespace() || c.is_control()).next().unwrap_or_default();
        let (user, url) = match run.rfind('@') {
            Some(at) => (Some(&run[..at]), &url[at + 1..]),
            None => (None, url),
        };
        let (mut host, mut after) = host_of(url);
        // What is no port is the begin of a password. Its rest is behind a space, if there is an `@`.
        if user.is_none()
            && without_wrong_port(host) != host
            && let Some(at) = after.split("://").next().and_then(|behind| behind.find('@'))
        {
            let word = after[at..].split(char::is_whitespace).next().unwrap_or_default();
            (host, after) = host_of(&after[at + word.rfind('@').unwrap_or_default() + 1..]);
        }
        rest = after;
        // An `@` behind the host is one of a path or a query, and then it is not known where the host is.
        if user.is_none_or(|user| !user.contains(['/', '?', '#', '\\'])) {
            shown.push_str(without_wrong_port(host));
        }
    }
    push_without_user(&mut shown, rest);
    shown
}

/// Cuts down what is meant as one URL to its origin, whatever is wrong with it: what stands before an `@` may be a password, which
/// any characters may stand in.
pub(crate) fn origin_only(url: &str) -> String {
    let mut shown = without_user(url);
    // What is behind its end is the rest of a path or of a query.
    shown.truncate(shown.find(ends_url).unwrap_or(shown.len()));
    shown
}

fn without_user(url: &str) -> String {
    let Some(at) = url.rfind('@') else { return origins_only(url) };
    let (user, host) = (&url[..at], &url[at + 1..]);
    let (scheme, user) = match user.find("://") {
        Some(end) => user.split_at(end + 3),
        None => ("", user),
    };
    match user.contains(['/', '?', '#', '\\']) && !scheme.is_empty() {
        true => scheme.to_owned(),
        false => origins_only(&format!("{scheme}{host}")),
    }
}

fn ends_url(c: char) -> bool {
    c.is_whitespace() || c.is_control() || "\"'<>(){}`".contains(c)
}

/// Takes the host and the port off a URL without its scheme and its user. Returns them, and what is behind the whole URL.
fn host_of(url: &str) -> (&str, &str) {
    let (url, after) = url.split_at(url.find(ends_url).unwrap_or(url.len()));
    (url.split(['/', '?', '#', '\\']).next().unwrap_or_default(), after)
}

/// Adds a text, without what stands before an `@` in its words and may be a user and a password.
fn push_without_user(shown: &mut String, text: &str) {
    for word in text.split_inclusive(char::is_whitespace) {
        let host = word.rsplit_once('@').filter(|(user, _)| user.contains(':')).map(|(_, host)| host);
        shown.push_str(host.unwrap_or(word));
    }
}

/// A port that is no number is the begin of a password, of which the rest was not found.
fn without_wrong_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.bytes().all(|byte| byte.is_ascii_digit() || byte == b']') => {
            if host.starts_with('[') { host } else { name }
        }
        Some(_) | None => host,
    }
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

/// Takes off what an editor or a shell leaves at the ends of a secret or a name, and what cannot be seen: line ends, tabs,
/// control characters, a byte order mark, characters without width, spaces outside ASCII. A plain space may be meant.
pub(crate) fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c != ' ' && (c.is_whitespace() || printable(c) != c))
}

/// Takes plain spaces off as well, for what holds none at its ends.
pub(crate) fn visible(text: &str) -> &str {
    trimmed(text.trim()).trim()
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
///
/// Endpoints that know nothing of RFC 6749 write `accessToken`, and mean the same.
pub(crate) fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "");
    !name.ends_with("tokentype") && ["token", "secret", "assertion"].iter().any(|word| name.contains(word))
}

/// A character of a token in RFC 9110 §5.6.2.
pub(crate) fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_url_its_origin_is_shown() {
        for (said, shown) in [
            ("no URL here: refused", "no URL here: refused"),
            ("for url (https://a.example:8443/token?key=K#f): no", "for url (https://a.example:8443): no"),
            ("proxy http://user:pass@proxy:3128 says no", "proxy http://proxy:3128 says no"),
            ("http://user:pa/ss@proxy/ and \"https://b?k\"", "http:// and \"https://b\""),
            ("https://user:S3CR3T'x@host: no", "https://host: no"),
            ("https://user:S3CR3T\"<x>@host/path", "https://host"),
            ("<https://user:S3(CR3T)@host>", "<https://host>"),
            ("https://a/?mail=b@c", "https://"),
            ("https://a://b?c", "https://a:"),
            ("://", "://"),
            ("the proxy user:S3CR3T@proxy:3128 says no", "the proxy proxy:3128 says no"),
            (
                "https://[2001:db8::1]:8443/t and https://[2001:db8::a]/t",
                "https://[2001:db8::1]:8443 and https://[2001:db8::a]",
            ),
            ("https://user:S3CR3T more", "https://user more"),
            ("for https://user:S3 CR\n3T@host: no, see https://b/?k", "for https://host: no, see https://b"),
            ("https://user:S3/C R3T@host:8443/p?k: no", "https://host:8443 no"),
            ("https://user:S3 C@R3T@host: no", "https://host: no"),
            ("https://user:S3 C@R/3T@host/p: no", "https://host no"),
            (
                "http://proxy:3128 says: ask admin@example.com",
                "http://proxy:3128 says: ask admin@example.com",
            ),
            ("robot@project.example is unknown", "robot@project.example is unknown"),
        ] {
            assert_eq!(origins_only(said), shown, "{said}");
        }
    }

    #[test]
    fn of_what_is_meant_as_a_url_no_password_is_shown_whatever_is_wrong_with_it() {
        for (given, shown) in [
            ("https://user:S3CR3T x@host/p", "https://host"),
            ("https://user:S3CR3T\nx@host", "https://host"),
            ("https://user:S3CR3T\u{a0}x@host", "https://host"),
            ("https:/user:S3CR3T@host", "host"),
            ("https:\\\\user:S3CR3T@host", "host"),
            ("//user:S3CR3T@host", "host"),
            ("user:S3CR3T@host", "host"),
            ("S3CR3T@host", "host"),
            ("https://user:S3/CR3T@host", "https://"),
            ("https://login.example.com/tenant?key=K", "https://login.example.com"),
            ("https://login.example.com/tenant?key=K S3CR3T", "https://login.example.com"),
            ("https://login.example.com/tenant\nS3CR3T", "https://login.example.com"),
            ("https://user@login.example.com/tenant S3CR3T", "https://login.example.com"),
            ("login.example.com", "login.example.com"),
        ] {
            assert_eq!(origin_only(given), shown, "{given:?}");
        }
    }

    #[test]
    fn a_secret_is_told_by_its_name_however_that_is_written() {
        for name in ["access_token", "accessToken", "id_token", "clientSecret", "assertion", "TOKEN"] {
            assert!(names_a_secret(name), "{name}");
        }
        for name in ["token_type", "tokenType", "issued_token_type", "scope", "expires_in", "instance_url"] {
            assert!(!names_a_secret(name), "{name}");
        }
    }

    #[test]
    fn control_characters_become_spaces_and_long_text_is_cut() {
        assert_eq!(clean("a\r\nb\u{1b}[31mc\u{202e}d"), "a  b [31mc d");
        let long = clean(&"x".repeat(10_000));
        assert_eq!(long.chars().count(), MAX_SHOWN);
        assert!(long.ends_with('…'));
    }
}
