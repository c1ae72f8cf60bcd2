//! The URL of an endpoint: whether secrets can be sent there.

use http::Uri;

use crate::origin::Origin;

/// Parameters that must not stand in a URL, since URLs are logged (RFC 6749 §2.3.1), or stand in the body already.
const BODY_PARAMETERS: [&str; 8] = [
    "grant_type",
    "client_secret",
    "client_assertion",
    "assertion",
    "refresh_token",
    "password",
    "subject_token",
    "actor_token",
];

/// Reads the URL of an endpoint as text, since `Uri` drops a fragment without a word.
///
/// # Errors
///
/// The end of a sentence about the URL: why nothing is sent there, and the remedy. The URL itself is not repeated: it may hold a
/// secret.
pub(crate) fn read(url: &str, allows_http: impl Fn(&Origin) -> bool) -> Result<(Uri, Origin), String> {
    let flaw = |what: &str, remedy: &str| Err(format!("{what}; {remedy}"));
    if url.contains('#') {
        return flaw("has a fragment, which RFC 6749 §3.2 forbids", "remove the # and what follows");
    }
    if !url.is_ascii() {
        return flaw("has a character outside ASCII", "percent-encode it, and write a host in its xn-- form");
    }
    if url.contains('\\') {
        // Some clients take it for a slash, and others do not.
        return flaw("has a backslash", "write a slash, or percent-encode it");
    }
    let uri = url.parse::<Uri>().ok().filter(|uri| uri.scheme().is_some());
    let Some((uri, authority)) = uri.and_then(|uri| Some((uri.clone(), uri.into_parts().authority?))) else {
        return flaw("is not an absolute URL", "give it whole, such as https://login.example.com/oauth");
    };
    if authority.as_str().contains('@') {
        return flaw("holds a user name or a password", "give them as client_id and client_secret");
    }
    let is_dots = |segment: &str| {
        let segment = segment.to_ascii_lowercase().replace("%2e", ".");
        segment == "." || segment == ".."
    };
    if uri.path().split('/').any(is_dots) {
        // Some clients resolve them, and others do not.
        return flaw("has a segment of dots in its path, also as %2e", "write the path without");
    }
    let mut names = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).map(|(name, _)| name);
    let is_of_body = |name: &str| BODY_PARAMETERS.iter().any(|ours| ours.eq_ignore_ascii_case(name));
    if let Some(name) = names.find(|name| is_of_body(name)) {
        let what = format!("has {name} in its query, and URLs are logged");
        return flaw(&what, "give it to the builder, and remove it here");
    }
    let Some(origin) = Origin::of(&uri) else {
        return flaw("has a scheme, host or port that cannot be used", "begin it with https:// and the host");
    };
    if origin.is_https() || allows_http(&origin) {
        return Ok((uri, origin));
    }
    flaw(
        "is plain http, which would show the client secret to everyone on the network path",
        "use https (insecure_http(true) allows it all the same)",
    )
}
