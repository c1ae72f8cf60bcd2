//! The base URL, and what is joined under it.

use std::fmt;

use http::Uri;

use crate::error::Error;
use crate::origin::Origin;

/// A base URL: an origin and a path, without a slash at its end.
pub(super) struct Base {
    origin: Origin,
    path: String,
}

/// Leaves room for the longest host in what `http` takes for a URI.
const LONGEST: usize = 65_000;

impl Base {
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        let refuse = |what: &str| Error::config(format!("the base URL {what}"));
        // Whether plain http is meant, auth asks where a token is to go over it.
        let (origin, path) = Origin::of_base_url(url)?;
        if path.contains('?') {
            return Err(refuse("has a query; leave it out, and give it to each request"));
        }
        check_path(path.strip_prefix('/').unwrap_or(path)).map_err(refuse)?;
        let path = path.trim_end_matches('/').to_owned();
        Ok(Self { origin, path })
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Returns the base at the root of its origin, under which a path begins with that of this one.
    pub(super) fn root(&self) -> Self {
        Self { origin: self.origin.clone(), path: String::new() }
    }

    /// Returns what a path under the base, as [`split`] returns it, is from the root on, without the slash at its beginning.
    pub(super) fn path_from_root(&self, path: &str) -> String {
        let whole = format!("{}{path}", self.path);
        whole.strip_prefix('/').map_or(String::new(), str::to_owned)
    }

    /// Returns whether a path from the root on, without the slash at its beginning, is that of the base or below it.
    pub(super) fn holds(&self, path: &str) -> bool {
        let base = self.path.strip_prefix('/').unwrap_or_default();
        base.is_empty()
            || path.strip_prefix(base).is_some_and(|below| below.is_empty() || below.starts_with('/'))
    }

    /// Joins a path that was checked, as [`split`] returns it, and a query under the base.
    pub(super) fn join(&self, path: &str, query: &str) -> Result<Uri, &'static str> {
        let mut target = format!("{}{path}", self.path);
        if target.is_empty() {
            target.push('/');
        }
        if !query.is_empty() {
            target.push('?');
            target.push_str(query);
        }
        // Some versions of `http` count it in 16 bits and do not look.
        if target.len() > LONGEST {
            return Err("is longer, with its query, than the 65,000 bytes that a URL may have");
        }
        let origin = &self.origin;
        let authority = match (origin.is_https(), origin.port()) {
            (true, 443) | (false, 80) => origin.host().to_owned(),
            (_, port) => format!("{}:{port}", origin.host()),
        };
        let uri = Uri::builder().scheme(origin.scheme()).authority(authority).path_and_query(target).build();
        uri.map_err(|_| "holds a character that no URL may have; encode it, as segment() and query() do")
    }
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base({self})")
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.path)
    }
}

/// Takes a path apart that a caller gave: the part under the base, which is empty or begins with a slash, and the query.
pub(super) fn split(path: &str) -> Result<(String, &str), &'static str> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    if path.starts_with("//") {
        return Err("names another server; a path has one slash at its beginning, or none");
    }
    if path.split_once(":/").is_some_and(|(scheme, _)| is_scheme(scheme)) {
        return Err("is a whole URL; give the part behind the base URL");
    }
    let below = path.strip_prefix('/').unwrap_or(path);
    check_path(below)?;
    check_characters(query)?;
    Ok((if path.is_empty() { String::new() } else { format!("/{below}") }, query))
}

/// Encodes one segment of a path (RFC 3986 §3.3): all but what may stand anywhere.
pub(super) fn encode_segment(segment: &str) -> Result<String, &'static str> {
    if segment.is_empty() {
        return Err("has an empty segment, which would make it another path");
    }
    let mut encoded = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            _ => {
                encoded.push('%');
                encoded.extend(
                    [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789ABCDEF"[usize::from(digit)])),
                );
            }
        }
    }
    check_path(&encoded)?;
    Ok(encoded)
}

/// Refuses what a server, a proxy or a client on the way may take for another path than the one that stands there.
pub(super) fn check_path(path: &str) -> Result<(), &'static str> {
    check_characters(path)?;
    let no_text = "holds encoded bytes that are no UTF-8";
    let decoded = decode_once(path.as_bytes());
    if std::str::from_utf8(&decoded).map_err(|_| no_text)?.contains(|c: char| c.is_ascii_control()) {
        return Err("holds an encoded control character");
    }
    // Some decode what others have decoded already. What that makes of a percent sign in a name, as in "50%fat", need be no text,
    // but no dots either: some end a name at a control character, and some leave out what they cannot read.
    let decoded = decode_all(path.as_bytes());
    if decoded.windows(2).any(is_overlong) {
        return Err(no_text);
    }
    let decoded = String::from_utf8_lossy(&decoded);
    let ends_piece = |c: char| matches!(c, '/' | '\\' | char::REPLACEMENT_CHARACTER) || c.is_ascii_control();
    // Some cut parameters off before they look at the dots, or spaces, or what looks like a query once it is decoded.
    let climbs = |piece: &str| matches!(piece.split([';', '?', '#']).next().map(str::trim), Some("." | ".."));
    if decoded.split(ends_piece).any(climbs) {
        return Err("holds a segment of dots, which would lead out from under the base URL");
    }
    Ok(())
}

fn check_characters(text: &str) -> Result<(), &'static str> {
    if text.contains('\\') {
        return Err("holds a backslash, which some take for a slash; encode it");
    }
    if text.contains('#') {
        return Err("holds a fragment, which is never sent; leave it out, or encode the number sign");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            "holds a space, a control character or a letter outside ASCII; encode it, as segment() and query() do",
        );
    }
    Ok(())
}

/// Returns whether a character begins here that takes more bytes than it needs. Some read dots and slashes written like that.
fn is_overlong(bytes: &[u8]) -> bool {
    matches!(bytes, [0xC0 | 0xC1, _] | [0xE0, 0x80..=0x9F] | [0xF0, 0x80..=0x8F])
}

/// Decodes what is percent-encoded, as a server does.
fn decode_once(mut text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    while let Some((&byte, rest)) = text.split_first() {
        let encoded = text.first_chunk().and_then(decoded_byte);
        decoded.push(encoded.unwrap_or(byte));
        text = if encoded.is_some() { &text[3..] } else { rest };
    }
    decoded
}

/// Decodes what is percent-encoded, and what comes of that, to the end: some decode what others have decoded already. In one
/// go, since a path may be encoded as often as it is long.
fn decode_all(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    for &byte in text {
        decoded.push(byte);
        // What comes of three may be the last of three others.
        while let Some(byte) = decoded.last_chunk().and_then(decoded_byte) {
            decoded.truncate(decoded.len() - 3);
            decoded.push(byte);
        }
    }
    decoded
}

fn decoded_byte(&[sign, high, low]: &[u8; 3]) -> Option<u8> {
    let digit = |byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    (sign == b'%').then_some(digit(high)? << 4 | digit(low)?)
}

/// RFC 3986 §3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::Url;

    use super::*;

    fn join(base: &str, path: &str) -> Result<String, &'static str> {
        let base = Base::parse(base).unwrap();
        let (path, query) = split(path)?;
        Ok(base.join(&path, query)?.to_string())
    }

    #[test]
    fn a_path_is_joined_under_the_base_whatever_the_slashes() {
        for base in
            ["https://api.example.com/v2", "https://api.example.com/v2/", "https://API.example.com:443/v2"]
        {
            for (path, joined) in [
                ("reports", "https://api.example.com/v2/reports"),
                ("/reports", "https://api.example.com/v2/reports"),
                ("/reports/7?all=1&at=a/../b", "https://api.example.com/v2/reports/7?all=1&at=a/../b"),
                ("reports/", "https://api.example.com/v2/reports/"),
                ("a//b", "https://api.example.com/v2/a//b"),
                ("", "https://api.example.com/v2"),
                ("/", "https://api.example.com/v2/"),
                ("/?page=2", "https://api.example.com/v2/?page=2"),
                ("?page=2", "https://api.example.com/v2?page=2"),
                ("items:batchGet", "https://api.example.com/v2/items:batchGet"),
                ("a%2Fb%20c/...", "https://api.example.com/v2/a%2Fb%20c/..."),
                ("when/12:30/x", "https://api.example.com/v2/when/12:30/x"),
            ] {
                assert_eq!(join(base, path).unwrap(), joined, "{base} and {path}");
            }
        }
        assert_eq!(join("http://127.0.0.1:8080", "").unwrap(), "http://127.0.0.1:8080/");
        assert_eq!(join("http://[::1]:8080", "a").unwrap(), "http://[::1]:8080/a");
    }

    #[test]
    fn what_would_leave_the_base_is_refused() {
        for path in [
            "//evil.com",
            "///evil.com",
            "https://evil.com",
            "HTTPS://evil.com/",
            "https:/evil.com",
            "file:///etc/passwd",
            "..",
            "../x",
            "/../x",
            "a/../../x",
            "a/..",
            "./x",
            "a/./b",
            "..;/x",
            "..;v=1/x",
            "\\\\evil.com",
            "/\\evil.com",
            "a\\..\\x",
            "%2e%2e/x",
            "%2E./x",
            ".%2e%2fx",
            "a%2f..%2fx",
            "a/..%5cx",
            "%5c..",
            "%252e%252e/x",
            "%25252e%252e%2fx",
            "..%00/x",
            "..%c0%af",
            "%c0%ae%c0%ae/x",
            "a b",
            "a\tb",
            "a\nHost: evil.com",
            "a#b",
            "a?b#c",
            "a?b c",
            "täglich",
        ] {
            assert!(join("https://api.example.com/v2", path).is_err(), "{path:?} was joined");
        }
    }

    #[test]
    fn a_base_url_is_an_origin_and_a_path() {
        for base in [
            "api.example.com",
            "/v2",
            "ftp://api.example.com",
            "https://",
            "https://user:secret@api.example.com/v2",
            "https://api.example.com/v2?key=secret",
            "https://api.example.com/v2#top",
            "https://api.example.com/v2/../v1",
            "https://api.example.com/a b",
            "https://api.example.com\\@evil.com",
        ] {
            let error = Base::parse(base).err().unwrap_or_else(|| panic!("{base} was taken"));
            assert!(error.is_config() && !format!("{error:?}").contains("secret"), "{error:?}");
        }
    }

    #[test]
    fn a_segment_is_encoded_and_stays_one() {
        for (segment, encoded) in [
            ("ann", "ann"),
            ("ann/bob", "ann%2Fbob"),
            ("a?b=c&d#e", "a%3Fb%3Dc%26d%23e"),
            ("100%", "100%25"),
            ("50%fat", "50%25fat"),
            ("5%10", "5%2510"),
            ("über", "%C3%BCber"),
            ("...", "..."),
            ("a..b", "a..b"),
        ] {
            assert_eq!(encode_segment(segment).unwrap(), encoded);
        }
        for segment in [
            "", ".", "..", "../x", "a/..", "..\\x", "%2e%2e", "..;x", "\0", "a\nb", "..%00", "%0a..",
            "%c0%ae",
        ] {
            assert!(encode_segment(segment).is_err(), "{segment:?} was taken");
        }
    }

    /// Returns the URLs that a lenient client or server may read from this one: the rules of browsers, and repeated decoding.
    fn resolved(url: &str) -> Vec<Url> {
        let mut seen = vec![Url::parse(url).unwrap()];
        for _ in 0..8 {
            let last = &seen[seen.len() - 1];
            let decoded =
                decode(last.path().as_bytes()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            let Some(decoded) = decoded else { break };
            let next = Url::parse(&format!("{}{decoded}", last.origin().ascii_serialization())).unwrap();
            seen.push(next);
        }
        seen
    }

    /// A path may be a user's own text, and as long as that. Going over it again for each layer would take hours.
    #[test]
    fn a_path_that_is_encoded_many_times_over_costs_no_more_than_its_length() {
        let deep = |encoded: &str| format!("%{}{encoded}", "25".repeat(500_000));
        assert!(check_path(&deep("41")).is_ok());
        assert!(check_path(&deep("2e%2e/x")).is_err());
        assert!(encode_segment(&deep("2e%2e")).is_err());
    }

    #[test]
    fn a_url_that_is_too_long_is_told_as_that() {
        let base = "https://api.example.com/v2";
        for (path, query) in [("a".repeat(65_535), String::new()), ("a".to_owned(), "b".repeat(65_535))] {
            let error = Base::parse(base).unwrap().join(&path, &query).unwrap_err();
            assert!(error.contains("longer"), "{error}");
        }
        assert!(join(base, &"a".repeat(60_000)).is_ok());
    }

    /// Decodes what is percent-encoded once. Returns nothing if nothing is.
    fn decode(text: &[u8]) -> Option<Vec<u8>> {
        let decoded = decode_once(text);
        (decoded.len() < text.len()).then_some(decoded)
    }

    proptest! {
        #[test]
        fn nothing_that_is_joined_leaves_the_base(pieces in proptest::collection::vec(prop_oneof![
            proptest::sample::select(vec![
                "..", ".", "/", "\\", "//", "%2e", "%2E", "%2f", "%2F", "%5c", "%25", "%252e", "%c0%ae", "%00", ";",
                "?", "#", ":", "@", "https:", "https://", "evil.com", "%", "\t", "\r\n", " ", "é", "2e", "a",
            ]).prop_map(str::to_owned),
            "[ -~]{0,3}",
        ], 0..8)) {
            let path = pieces.concat();
            let once = std::iter::successors(Some(path.clone().into_bytes()), |bytes| decode(bytes));
            prop_assert_eq!(once.last(), Some(decode_all(path.as_bytes())));
            if let Ok(joined) = join("https://api.example.com/v2", &path) {
                for url in resolved(&joined) {
                    prop_assert_eq!(url.host_str(), Some("api.example.com"), "{} by {}", url, path);
                    prop_assert_eq!((url.port(), url.username()), (None, ""));
                    prop_assert!(url.path() == "/v2" || url.path().starts_with("/v2/"), "{} by {}", url, path);
                }
            }
            // Whatever it is, as one segment it stays under the base and is one segment.
            if let Ok(segment) = encode_segment(&path) {
                prop_assert!(!segment.contains(['/', '?', '#']));
                let base = Base::parse("https://api.example.com/v2").unwrap();
                let joined = base.join(&format!("/{segment}"), "").unwrap().to_string();
                prop_assert_eq!(decode(segment.as_bytes()).unwrap_or(segment.into_bytes()), path.into_bytes());
                for url in resolved(&joined) {
                    prop_assert!(url.path().starts_with("/v2/"), "{url}");
                }
            }
        }
    }
}
