//! Where a token may go.
//!
//! A credential belongs to an origin: scheme, host and port (RFC 9110 §4.3.1). A URL that differs in one of them names
//! another server, however much alike it looks.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use http::Uri;
use http::uri::Scheme;

use crate::error::Error;
use crate::text;

/// Scheme, host and port of a server: the place to which a token may go. Cheap to clone.
///
/// Two origins are equal if all three are; the default port may be spelled out or not, and case does not matter. A dot
/// at the end of the host does.
///
/// Text becomes one by `parse`: `https://api.example.com` or `https://api.example.com:8443`, with a slash behind it or without.
/// Where an origin is asked for, such text will do. Plain http is for loopback alone: 127.0.0.0/8, `[::1]` and exactly
/// `localhost`.
///
/// # Errors
///
/// `parse` returns a configuration error that says what to change: no scheme, a scheme other than https and http, plain http to
/// another machine, a user name, a path, a query, a fragment, a wildcard, a port that is none, an empty host, or a character
/// that no host may have (names outside ASCII are written in Punycode).
///
/// # Examples
///
/// ```
/// use tower_oauth2::{ErrorKind, Origin};
///
/// let origin: Origin = "https://API.example.com:443".parse()?;
/// assert_eq!(origin.to_string(), "https://api.example.com");
/// assert_eq!(origin, "https://api.example.com".parse()?);
///
/// let error = "http://api.example.com".parse::<Origin>().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Config);
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
#[derive(Clone)]
pub struct Origin {
    inner: Arc<OriginParts>,
}

struct OriginParts {
    scheme: Scheme,
    /// Lower case; an IPv6 address in brackets and in its shortest form.
    host: String,
    port: u16,
    /// The authority as most requests write it: without the default port.
    short: String,
    /// The authority with its port.
    long: String,
}

impl Origin {
    pub(crate) fn parse(origin: &str) -> Result<Self, Error> {
        Self::parse_with_insecure_http(origin)?
            .without_insecure_http("the origin", "Origin::parse_with_insecure_http")
    }

    /// Reads an origin as `parse` does, with plain http allowed to every host.
    ///
    /// Anyone on the network path can read the token then (RFC 6750 §5.3 demands TLS). For closed networks only.
    ///
    /// # Errors
    ///
    /// As `parse`, but for plain http.
    pub fn parse_with_insecure_http(origin: &str) -> Result<Self, Error> {
        Self::read(origin).map_err(|flaw| refused("the origin", flaw))
    }

    /// Takes a base URL apart: its origin, with plain http allowed to every host, and all that follows.
    pub(crate) fn of_base_url(url: &str) -> Result<(Self, &str), Error> {
        let (origin, rest) = Self::split_url(text::visible(url));
        let origin = Self::read(origin).map_err(|flaw| refused("the base URL", flaw))?;
        Ok((origin, rest))
    }

    /// Refuses plain http to another machine. The message calls the origin `what`, and says which call allows it.
    pub(crate) fn without_insecure_http(self, what: &str, allowed_by: &str) -> Result<Self, Error> {
        if self.is_https() || self.is_loopback() {
            return Ok(self);
        }
        Err(Error::config(format!(
            "{what} {self} is plain http, over which the token can be read on the way; use https, or {allowed_by} if \
             that is meant"
        )))
    }

    /// Returns the scheme: `https` or `http`.
    #[must_use]
    pub(crate) fn scheme(&self) -> &str {
        self.inner.scheme.as_str()
    }

    /// Returns the host in lower case; an IPv6 address stands in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.inner.host
    }

    /// Returns the port, spelled out or not.
    pub(crate) fn port(&self) -> u16 {
        self.inner.port
    }

    /// Returns whether the scheme is https.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.inner.scheme == Scheme::HTTPS
    }

    /// Returns whether the host is this machine: 127.0.0.0/8, `[::1]` or exactly `localhost`. Names are not looked up.
    #[must_use]
    pub(crate) fn is_loopback(&self) -> bool {
        let host = self.host();
        host == "localhost"
            || host.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
            || ipv6(host).is_some_and(|address| address.is_loopback())
    }

    /// Returns whether a request to `uri` goes to this origin. A URI with a user name or without an authority never
    /// does.
    ///
    /// This is asked for every request, so the authority is compared as a whole and not taken apart.
    #[inline]
    pub(crate) fn matches(&self, uri: &Uri) -> bool {
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return false;
        };
        let inner = &*self.inner;
        *scheme == inner.scheme && (authority.as_str() == inner.short || inner.is_same(authority.as_str()))
    }

    /// Returns whether a `Host` header names this origin's server (RFC 9110 §7.2).
    pub(crate) fn is_host(&self, host: &[u8]) -> bool {
        let inner = &*self.inner;
        host == inner.short.as_bytes() || std::str::from_utf8(host).is_ok_and(|host| inner.is_same(host))
    }

    /// Returns the origin of a request, plain http to wherever included, for messages and keys. A URI with a user name,
    /// without an authority, or of another scheme has none.
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let authority = uri.authority()?.as_str();
        if authority.contains('@') {
            return None;
        }
        Self::build(uri.scheme()?.clone(), authority).ok()
    }

    /// Splits a URL into its origin, which may be wrong, and all that follows.
    pub(crate) fn split_url(url: &str) -> (&str, &str) {
        let host = url.find("://").map_or(0, |at| at + 3);
        url.split_at(url[host..].find(['/', '?', '#', '\\']).map_or(url.len(), |at| host + at))
    }

    fn read(origin: &str) -> Result<Self, &'static str> {
        let Some((scheme, rest)) = origin.split_once("://") else {
            return Err("has no scheme; begin it with https://");
        };
        let scheme = match scheme {
            _ if scheme.eq_ignore_ascii_case("https") => Scheme::HTTPS,
            _ if scheme.eq_ignore_ascii_case("http") => Scheme::HTTP,
            _ => return Err("has a scheme that is neither https nor http; begin it with https://"),
        };
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("has a user name or a password in it; take out all up to the @");
        }
        if !matches!(tail, "" | "/") {
            return Err(
                "goes on behind the host; leave out path, query and fragment, as the token goes to all or none of a \
                 server",
            );
        }
        Self::build(scheme, authority)
    }

    /// Makes an origin of a scheme and an authority without a user name.
    fn build(scheme: Scheme, authority: &str) -> Result<Self, &'static str> {
        let default = match scheme.as_str() {
            "https" => 443,
            "http" => 80,
            _ => return Err("has a scheme that is neither https nor http; begin it with https://"),
        };
        let bracket = authority.rfind(']').map_or(0, |at| at + 1);
        let (host, port) = match authority[bracket..].split_once(':') {
            Some((between, port)) => (&authority[..bracket + between.len()], Some(port)),
            None => (authority, None),
        };
        // First, since of an IPv6 address without brackets it says more.
        let port = port.map_or(Ok(default), read_port)?;
        let host = check_host(host)?;
        let long = format!("{host}:{port}");
        let short = if port == default { host.clone() } else { long.clone() };
        Ok(Self { inner: Arc::new(OriginParts { scheme, host, port, short, long }) })
    }
}

impl OriginParts {
    /// Compares with an authority that is not written as most requests write it.
    #[cold]
    fn is_same(&self, authority: &str) -> bool {
        if authority.eq_ignore_ascii_case(&self.short) || authority.eq_ignore_ascii_case(&self.long) {
            return true;
        }
        // Another spelling of the same address. Behind the bracket stands nothing or a port.
        match authority.rfind(']').map(|at| authority.split_at(at + 1)) {
            Some((host, port)) if ipv6(host).is_some() && ipv6(host) == ipv6(&self.host) => {
                [&self.short, &self.long]
                    .into_iter()
                    .any(|whole| whole.strip_prefix(&self.host) == Some(port))
            }
            _ => false,
        }
    }
}

impl FromStr for Origin {
    type Err = Error;

    fn from_str(origin: &str) -> Result<Self, Error> {
        Self::parse(origin)
    }
}

impl TryFrom<&str> for Origin {
    type Error = Error;

    fn try_from(origin: &str) -> Result<Self, Error> {
        Self::parse(origin)
    }
}

impl TryFrom<&String> for Origin {
    type Error = Error;

    fn try_from(origin: &String) -> Result<Self, Error> {
        Self::parse(origin)
    }
}

impl TryFrom<String> for Origin {
    type Error = Error;

    fn try_from(origin: String) -> Result<Self, Error> {
        Self::parse(&origin)
    }
}

/// The URI may be an origin alone, or with a slash; what goes on behind the host is refused.
impl TryFrom<&Uri> for Origin {
    type Error = Error;

    fn try_from(uri: &Uri) -> Result<Self, Error> {
        Self::parse(&uri.to_string())
    }
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        let (one, other) = (&*self.inner, &*other.inner);
        one.scheme == other.scheme && one.long == other.long
    }
}

impl Eq for Origin {}

impl Hash for Origin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.scheme().hash(state);
        self.inner.long.hash(state);
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.inner.short)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({self})")
    }
}

/// The text that was refused is not repeated: it may hold a password.
fn refused(what: &str, flaw: &str) -> Error {
    Error::config(format!("{what} {flaw}"))
}

/// Returns the host as it is compared.
fn check_host(host: &str) -> Result<String, &'static str> {
    if host.starts_with('[') {
        return match ipv6(host) {
            Some(address) => Ok(format!("[{address}]")),
            None => Err("has brackets around something that is no IPv6 address"),
        };
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let labels = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        Err("has no host; write it behind the ://")
    } else if host.contains('*') {
        Err("has a wildcard in its host; name every origin by itself")
    } else if !host.is_ascii() {
        Err("has a host outside ASCII; write it in Punycode, beginning with xn--")
    } else if host.bytes().any(|byte| byte.is_ascii_whitespace()) {
        Err("has a space or a line end in it; if it was read from a file or a variable, trim it")
    } else if !host.bytes().all(allowed) {
        Err("has a character in its host that no host may have")
    } else if labels.split('.').any(str::is_empty) {
        Err("has two dots in a row or one in front of its host")
    } else {
        Ok(host.to_ascii_lowercase())
    }
}

fn read_port(port: &str) -> Result<u16, &'static str> {
    if port.contains(':') {
        return Err("has several colons in it; write an IPv6 address in brackets");
    }
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(number) if digits && number != 0 => Ok(number),
        _ => Err("has a port that is no number from 1 to 65535"),
    }
}

/// Reads an IPv6 address in brackets.
pub(crate) fn ipv6(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::vectors;

    fn origin(text: &str) -> Origin {
        Origin::parse(text).unwrap()
    }

    fn goes(to: &str, target: &str) -> bool {
        target.parse().is_ok_and(|uri| origin(to).matches(&uri))
    }

    /// Resolves a target as a redirect does (RFC 3986 §5.2), as far as the vectors need it. A target that is no URI
    /// cannot be requested at all.
    fn resolve(from: &str, to: &str) -> Option<Uri> {
        let from: Uri = from.parse().unwrap();
        let (scheme, authority) = (from.scheme().unwrap(), from.authority().unwrap());
        match to {
            _ if to.starts_with("//") => format!("{scheme}:{to}").parse().ok(),
            _ if to.starts_with('/') => format!("{scheme}://{authority}{to}").parse().ok(),
            _ => to.parse().ok(),
        }
    }

    #[test]
    fn every_vector_of_redirect_origin_passes() {
        let vectors = vectors::rows("redirect_origin");
        assert_eq!(vectors.len(), 14);
        for vector in vectors {
            let [from, to] = ["from_url", "to_url"].map(|name| vector["input"][name].as_str().unwrap());
            // RO-015 asks for a list that is not where the request came from.
            let allowed = if vector["id"] == "RO-015" { "https://api.example.com/a" } else { from };
            let allowed = Origin::of(&allowed.parse().unwrap()).unwrap();
            let sent = resolve(from, to).is_some_and(|uri| allowed.matches(&uri));
            assert_eq!(Some(sent), vector["expect"]["send_token"].as_bool(), "{}", vector["id"]);
        }
    }

    // RO-014: a browser reads the backslash as the end of the host, others as a part of a user name.
    #[test]
    fn a_backslash_in_the_authority_gets_no_token() {
        for to in ["https://evil.net\\@api.example.com/", "https://api.example.com\\@evil.net/"] {
            assert!(!goes("https://api.example.com", to), "{to}");
            assert!(!goes("https://evil.net", to), "{to}");
            assert!(Origin::parse(to).is_err(), "{to}");
        }
    }

    #[test]
    fn other_spellings_of_the_same_origin_match() {
        for to in [
            "https://api.example.com",
            "https://api.example.com/a?b=c",
            "https://API.Example.COM/",
            "https://api.example.com:443/",
            "https://API.EXAMPLE.COM:443/",
            "HTTPS://api.example.com/",
        ] {
            assert!(goes("https://api.example.com", to), "{to}");
            assert!(goes("https://Api.Example.com:443/", to), "{to}");
        }
        assert!(goes("http://localhost", "http://LOCALHOST:80/"));
        assert!(goes("http://127.0.0.1:8080", "http://127.0.0.1:8080/a"));
        for to in
            ["https://[2001:db8::1]/", "https://[2001:DB8::1]:443/", "https://[2001:db8:0:0:0:0:0:1]:443/"]
        {
            assert!(goes("https://[2001:db8::0:1]", to), "{to}");
            assert!(!goes("https://[2001:db8::0:1]:8443", to), "{to}");
        }
        assert!(goes("https://[2001:db8::1]:8443", "https://[2001:db8::0:1]:8443/"));
    }

    #[test]
    fn other_origins_and_tricks_do_not_match() {
        for to in [
            "http://api.example.com/",
            "https://api.example.com:8443/",
            "https://api.example.com:80/",
            "https://api.example.com.:443/",
            "https://xapi.example.com/",
            "https://example.com/",
            "https://api.example.com.evil.net/",
            "https://api.example.com@evil.net/",
            "https://user@api.example.com/",
            "https://user:password@api.example.com:443/",
            "https://@api.example.com/",
            "https://api.example.com:/",
            "https://api.example.com:0443/",
            "/only/a/path",
            "*",
            "api.example.com:443",
            "wss://api.example.com/",
        ] {
            assert!(!goes("https://api.example.com", to), "{to}");
        }
        assert!(!goes("https://[2001:db8::1]", "https://[2001:db8::2]/"));
        assert!(!goes("https://[2001:db8::1]", "https://[2001:db8:0::1]:8443/"));
    }

    #[test]
    fn a_refusal_names_what_is_wrong_and_repeats_no_password() {
        for (text, why) in [
            ("api.example.com", "no scheme"),
            ("localhost:8080", "no scheme"),
            ("", "no scheme"),
            ("ftp://api.example.com", "neither https nor http"),
            (" https://api.example.com", "neither https nor http"),
            ("https://user:hunter2@api.example.com", "user name"),
            ("https://api.example.com@evil.net", "user name"),
            ("https://user:hunter2/x@api.example.com", "behind the host"),
            ("https://api.example.com/v1", "behind the host"),
            ("https://api.example.com//", "behind the host"),
            ("https://api.example.com?x=hunter2", "behind the host"),
            ("https://api.example.com#x", "behind the host"),
            ("https://api.example.com\\", "behind the host"),
            ("https://api.example.com:", "port"),
            ("https://api.example.com:0", "port"),
            ("https://api.example.com:+1", "port"),
            ("https://api.example.com:65536", "port"),
            ("https://api.example.com:hunter2", "port"),
            ("https://2001:db8::1", "brackets"),
            ("https://[2001:db8::g]", "brackets"),
            ("https://[::1]x", "brackets"),
            ("https://[::1%25eth0]", "brackets"),
            ("https://*.example.com", "wildcard"),
            ("https://*", "wildcard"),
            ("https://", "no host"),
            ("https:///", "no host"),
            ("https://:443", "no host"),
            ("https://bücher.example", "Punycode"),
            ("https://api.example.com\n", "trim it"),
            ("https://api example.com", "trim it"),
            ("https://api.example.com%2e", "character"),
            ("https://::1", "brackets"),
            ("https://api..example.com", "dots"),
            ("https://.example.com", "dots"),
            ("https://.", "dots"),
            ("http://api.example.com", "plain http"),
            ("http://localhost.example.com", "plain http"),
            ("http://localhost.", "plain http"),
            ("http://127.1", "plain http"),
            ("http://127.0.0.1.example.com", "plain http"),
            ("http://0.0.0.0", "plain http"),
            ("http://[::]", "plain http"),
            ("http://[::ffff:127.0.0.1]", "plain http"),
        ] {
            let error = Origin::parse(text).expect_err(text);
            assert!(error.is_config() && error.to_string().contains(why), "{text}: {error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn plain_http_is_for_loopback_unless_asked_for_out_loud() {
        for text in [
            "http://localhost:3000",
            "http://LOCALHOST",
            "http://127.0.0.1",
            "http://127.9.8.7:1",
            "http://[::1]",
        ] {
            assert!(origin(text).is_loopback() && !origin(text).is_https(), "{text}");
        }
        let loud = Origin::parse_with_insecure_http("http://api.internal:8080").unwrap();
        assert_eq!((loud.scheme(), loud.host(), loud.port()), ("http", "api.internal", 8080));
        assert!(loud.matches(&"http://api.internal:8080/".parse().unwrap()) && !loud.is_loopback());
        assert!(Origin::parse_with_insecure_http("http://user@api.internal").is_err());
    }

    #[test]
    fn equal_origins_hash_and_print_alike() {
        let same = ["https://a.example", "https://A.example:443/", "HTTPS://a.EXAMPLE:0443"].map(origin);
        assert_eq!(same.iter().collect::<HashSet<_>>().len(), 1);
        let all = [
            "https://a.example",
            "https://a.example.",
            "https://a.example:80",
            "http://localhost",
            "https://localhost:80",
        ];
        assert_eq!(all.map(origin).iter().collect::<HashSet<_>>().len(), all.len());
        assert_eq!(format!("{0} {0:?}", same[1]), "https://a.example Origin(https://a.example)");
        assert_eq!(origin("https://[0:0::1]:8443").to_string(), "https://[::1]:8443");
    }

    #[test]
    fn the_origin_of_a_request_is_told_only_where_there_is_one() {
        let of = |uri: &str| Origin::of(&uri.parse().unwrap()).map(|origin| origin.to_string());
        assert_eq!(of("http://Evil.Example:80/a?b").as_deref(), Some("http://evil.example"));
        for uri in ["/path", "https://user@a.example/", "ftp://a.example/", "a.example:443"] {
            assert_eq!(of(uri), None, "{uri}");
        }
    }

    proptest! {
        #[test]
        fn an_origin_is_read_back_from_what_it_prints(
            scheme in "https?", host in "([a-z0-9-]{1,8}\\.){0,3}[a-z]{1,8}\\.?", port in proptest::option::of(1..=u16::MAX),
        ) {
            let text = match port {
                Some(port) => format!("{scheme}://{host}:{port}"),
                None => format!("{scheme}://{host}"),
            };
            let origin = Origin::parse_with_insecure_http(&text).unwrap();
            prop_assert_eq!(&Origin::parse_with_insecure_http(&origin.to_string()).unwrap(), &origin);
            prop_assert!(origin.matches(&text.parse().unwrap()));
            prop_assert!(origin.matches(&text.to_uppercase().parse().unwrap()));
            prop_assert_eq!(Origin::of(&text.parse().unwrap()), Some(origin));
        }

        #[test]
        fn matching_is_equality_of_what_was_parsed(
            one in "https?://[aA]?(b\\.)?[cC](:443|:80|:8)?", other in "https?://(u@)?[aA]?(b\\.)?[cC](:443|:80|:8)?",
        ) {
            let (one, uri) = (Origin::parse_with_insecure_http(&one).unwrap(), other.parse().unwrap());
            prop_assert_eq!(one.matches(&uri), Origin::of(&uri) == Some(one));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(https?://)?.{0,20}[\\]\\[:@/.]?.{0,5}") {
            let _ = Origin::parse_with_insecure_http(&text);
            if let Ok(uri) = text.parse() {
                let _ = Origin::of(&uri);
                prop_assert!(!origin("https://api.example.com").matches(&uri) || text.contains("api.example.com"));
            }
        }
    }
}
