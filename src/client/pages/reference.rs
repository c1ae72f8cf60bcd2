//! Where a URL of a response leads (RFC 3986 §5), if that is under the base URL.
//!
//! 1. The base of a relative reference is the URL of the request that brought it.
//! 2. The result must be under one of the bases: its origin, and its path or one below. Anything else is an error.
//! 3. `http` stands for `https` where all else is that of a base: servers behind a proxy write what they see themselves.
//! 4. Spaces and letters outside ASCII are encoded, and a fragment is cut off. Control characters and backslashes are errors,
//!    as are segments of dots that are encoded.

use super::super::base::{Base, check_path};
use crate::origin::Origin;

/// A place under a base.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which of the bases it is.
    pub(super) base: usize,
    /// From the root of the origin on, without the slash at its beginning.
    pub(super) path: String,
    pub(super) query: String,
}

/// Follows a reference from a place under one of the bases.
pub(super) fn resolve(reference: &str, from: &Place, bases: &[&Base]) -> Result<Place, String> {
    let reference = reference.trim_ascii();
    if reference.chars().any(char::is_control) {
        return Err("holds a control character".to_owned());
    }
    if reference.contains('\\') {
        return Err("holds a backslash, which some take for a slash".to_owned());
    }
    let reference = reference.split_once('#').map_or(reference, |(before, _)| before);
    let here = bases[from.base].origin();
    let (origin, rest) = split_origin(reference, here)?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (path, query) = match (&origin, path) {
        (None, "") if rest.is_empty() => (format!("/{}", from.path), from.query.clone()),
        (None, "") => (format!("/{}", from.path), query.to_owned()),
        (None, path) if !path.starts_with('/') => {
            let folder = from.path.rfind('/').map_or("", |at| &from.path[..=at]);
            (format!("/{folder}{path}"), query.to_owned())
        }
        (_, path) => (path.to_owned(), query.to_owned()),
    };
    let (path, query) = (encode(&without_dots(&path)), encode(&query));
    let path = path.strip_prefix('/').unwrap_or(&path).to_owned();
    check_path(&path).map_err(str::to_owned)?;
    let origin = origin.as_ref().unwrap_or(here);
    let is_there = |base: &&Base| base.origin() == origin || is_same_but_for_tls(origin, base.origin());
    if !bases.iter().any(is_there) {
        // The host is the server's word.
        let origin = crate::text::clean(&origin.to_string());
        return Err(format!(
            "leads to {origin}, which is not {here}; if tokens may go there, name it by Next::also_under"
        ));
    }
    let base = bases.iter().position(|base| is_there(base) && base.holds(&path));
    let base = base.ok_or_else(|| {
        format!(
            "leads out from under the base URL {}; if that is meant, name the other base by Next::also_under",
            bases[from.base]
        )
    })?;
    Ok(Place { base, path, query })
}

/// Takes the origin off a reference, if it has one.
fn split_origin<'a>(reference: &'a str, here: &Origin) -> Result<(Option<Origin>, &'a str), String> {
    let scheme_end = reference.find("://").filter(|end| !reference[..*end].contains(['/', '?']));
    let (scheme, rest) = match (scheme_end, reference.strip_prefix("//")) {
        (Some(end), _) => (&reference[..end], &reference[end + 3..]),
        (None, Some(rest)) => (here.scheme(), rest),
        (None, None) => return Ok((None, reference)),
    };
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // Where a token may go over plain http, auth asks.
    let origin = Origin::parse_with_insecure_http(&format!("{scheme}://{authority}"));
    origin.map(|origin| (Some(origin), rest)).map_err(|_| {
        "is not of http or https, or has a user name, or a host or a port that is none".to_owned()
    })
}

fn is_same_but_for_tls(origin: &Origin, base: &Origin) -> bool {
    !origin.is_https()
        && base.is_https()
        && origin.host() == base.host()
        && (origin.port() == 80 || origin.port() == base.port())
}

/// RFC 3986 §5.2.4.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                // What ends in dots is a folder.
                if is_last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

/// Encodes what no URL may have, and nothing that is encoded already.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '"' | '<' | '>' | '`' | '{' | '|' | '}' | '^' => {
                encoded.push_str(&format!("%{:02X}", u32::from(char)))
            }
            char if char.is_ascii_graphic() => encoded.push(char),
            char => {
                for byte in char.encode_utf8(&mut [0; 4]).bytes() {
                    encoded.push_str(&format!("%{byte:02X}"));
                }
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::Url;

    use super::*;

    const HERE: &str = "https://api.example.com/v2/users/all?page=1";

    fn from() -> Place {
        Place { base: 0, path: "v2/users/all".to_owned(), query: "page=1".to_owned() }
    }

    fn follow(reference: &str) -> Result<String, String> {
        let base = Base::parse("https://api.example.com/v2").unwrap();
        let other = Base::parse("https://files.example.com:8443").unwrap();
        let place = resolve(reference, &from(), &[&base, &other])?;
        let origin = [&base, &other][place.base].origin();
        let query = if place.query.is_empty() { String::new() } else { format!("?{}", place.query) };
        Ok(format!("{origin}/{}{query}", place.path))
    }

    #[test]
    fn a_reference_is_followed_as_rfc_3986_says() {
        for (reference, url) in [
            ("https://api.example.com/v2/users?page=2", "https://api.example.com/v2/users?page=2"),
            ("HTTPS://API.example.com:443/v2/users?page=2", "https://api.example.com/v2/users?page=2"),
            ("//api.example.com/v2/x", "https://api.example.com/v2/x"),
            ("/v2/users?page=2", "https://api.example.com/v2/users?page=2"),
            ("/v2", "https://api.example.com/v2"),
            ("/v2/", "https://api.example.com/v2/"),
            ("/v2?page=2", "https://api.example.com/v2?page=2"),
            ("?page=2", "https://api.example.com/v2/users/all?page=2"),
            ("", "https://api.example.com/v2/users/all?page=1"),
            ("#top", "https://api.example.com/v2/users/all?page=1"),
            ("some?page=2#top", "https://api.example.com/v2/users/some?page=2"),
            ("../groups", "https://api.example.com/v2/groups"),
            ("./b/../c", "https://api.example.com/v2/users/c"),
            ("items:next?at=a:b", "https://api.example.com/v2/users/items:next?at=a:b"),
            ("x?to=https://evil.com", "https://api.example.com/v2/users/x?to=https://evil.com"),
            ("  /v2/a  ", "https://api.example.com/v2/a"),
            ("/v2/Müller?q=a b&s={\"x\"}", "https://api.example.com/v2/M%C3%BCller?q=a%20b&s=%7B%22x%22%7D"),
            ("/v2/a%20b?c=%2F", "https://api.example.com/v2/a%20b?c=%2F"),
            // The proxy in front ends TLS.
            ("http://api.example.com/v2/x", "https://api.example.com/v2/x"),
            ("http://api.example.com:443/v2/x", "https://api.example.com/v2/x"),
            ("https://files.example.com:8443/any/where?x", "https://files.example.com:8443/any/where?x"),
            ("http://files.example.com/y", "https://files.example.com:8443/y"),
        ] {
            assert_eq!(follow(reference).as_deref(), Ok(url), "{reference:?}");
        }
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        for (reference, why) in [
            ("https://evil.com/v2/users", "leads to https://evil.com,"),
            ("//evil.com/v2/users", "leads to https://evil.com,"),
            ("https://api.example.com.evil.com/v2", "leads to"),
            ("https://api.example.com:8443/v2", "leads to"),
            ("http://api.example.com:8080/v2", "leads to"),
            ("http://evil.com/v2", "leads to"),
            ("https://api.example.com@evil.com/v2", "user name"),
            ("https://user:pass@api.example.com/v2", "user name"),
            ("ftp://api.example.com/v2", "not of http"),
            ("https:///v2", "not of http"),
            ("/v1/users", "out from under"),
            ("/v22/users", "out from under"),
            ("/V2/users", "out from under"),
            ("/", "out from under"),
            ("../../v1", "out from under"),
            ("../../../../v1", "out from under"),
            ("https://api.example.com", "out from under"),
            ("https://api.example.com/v2/../v1", "out from under"),
            ("/v2/%2e%2e/v1", "dots"),
            ("/v2/..%2fv1", "dots"),
            ("/v2/..;/v1", "dots"),
            ("/v2\\..\\v1", "backslash"),
            ("/v2/a\nHost: evil.com", "control"),
        ] {
            let error = follow(reference).unwrap_err();
            assert!(error.contains(why), "{reference:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_followed_leaves_the_bases(pieces in proptest::collection::vec(prop_oneof![
            proptest::sample::select(vec![
                "..", ".", "/", "\\", "//", "%2e", "%2f", "%5c", ";", "?", "#", ":", "@", "https:", "https://", "http://",
                "evil.com", "api.example.com", "v2", "\t", " ", "é", "a",
            ]).prop_map(str::to_owned),
            "[ -~]{0,3}",
        ], 0..8)) {
            let reference = pieces.concat();
            if let Ok(url) = follow(&reference) {
                let url = Url::parse(&url).unwrap();
                let (host, path) = (url.host_str().unwrap(), url.path());
                let is_under = path == "/v2" || path.starts_with("/v2/");
                let is_file = (host, url.port()) == ("files.example.com", Some(8443));
                prop_assert!(host == "api.example.com" && is_under || is_file, "{url} by {reference:?}");
                // Where a browser ends up elsewhere, so must we not have been.
                let browser = Url::parse(HERE).unwrap().join(&reference);
                if let Ok(browser) = browser && browser.scheme() == "https" && !reference.contains(':') {
                    prop_assert_eq!(browser.host_str(), Some(host), "{}", reference);
                }
            }
        }
    }
}
