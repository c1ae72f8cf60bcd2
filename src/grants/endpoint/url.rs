//! The URL of an endpoint: whether secrets can be sent there.

use http::Uri;
use http::uri::InvalidUri;

use crate::error::Error;
use crate::grants::response::wording::Naming;
use crate::origin::Origin;

/// To whom plain http is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlainHttp {
    Everybody,
    Loopback,
    Nobody,
}

/// Why nothing is sent to a URL.
#[derive(Debug)]
pub(crate) enum Flaw {
    Fragment,
    NoUrl(InvalidUri),
    NoHost,
    UserInfo,
    Unaskable,
    PlainHttp,
    /// It has a parameter in its query that belongs into the body.
    Parameter(&'static str),
    /// It has dots in its path, which some clients resolve and others do not.
    Dots,
    NonAscii,
}

/// What must not stand in a URL, since URLs are logged (RFC 6749 §2.3.1), or stands in the body already.
const BODY_PARAMETERS: [&str; 6] =
    ["grant_type", "client_secret", "client_assertion", "assertion", "refresh_token", "password"];

/// Reads the URL of an endpoint as text, since `Uri` drops a fragment without a word.
pub(crate) fn read(url: &str, plain_http: PlainHttp) -> Result<(Uri, Origin), Flaw> {
    if url.contains('#') {
        return Err(Flaw::Fragment);
    }
    if !url.is_ascii() {
        return Err(Flaw::NonAscii);
    }
    let uri: Uri = url.parse().map_err(Flaw::NoUrl)?;
    let (Some(_), Some(authority)) = (uri.scheme(), uri.authority()) else { return Err(Flaw::NoHost) };
    if authority.as_str().contains('@') {
        return Err(Flaw::UserInfo);
    }
    let is_dots = |segment: &str| {
        let segment = segment.to_ascii_lowercase().replace("%2e", ".");
        segment == "." || segment == ".."
    };
    if uri.path().split('/').any(is_dots) {
        return Err(Flaw::Dots);
    }
    let names = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    if let Some(name) =
        names.into_iter().find_map(|(name, _)| BODY_PARAMETERS.into_iter().find(|own| *own == name))
    {
        return Err(Flaw::Parameter(name));
    }
    let origin = Origin::of(&uri).ok_or(Flaw::Unaskable)?;
    let is_allowed = match plain_http {
        PlainHttp::Everybody => true,
        PlainHttp::Loopback => origin.is_loopback(),
        PlainHttp::Nobody => false,
    };
    if origin.is_https() || is_allowed { Ok((uri, origin)) } else { Err(Flaw::PlainHttp) }
}

impl Flaw {
    /// Makes the error of a setting. The URL is not repeated: it may hold a secret.
    pub(crate) fn in_setting(self, naming: Naming) -> Error {
        let Naming { field, example, .. } = naming;
        let refuse = |what: &str| Error::config(format!("{field}: {what}"));
        match self {
            Self::Fragment => {
                refuse("it has a fragment, which RFC 6749 §3.2 forbids; remove the # and what follows")
            }
            Self::NoUrl(error) => {
                refuse(&format!("it is not a URL; give it whole, such as {example}")).with_source(error)
            }
            Self::NoHost => refuse(&format!("it has no scheme and host; give it whole, such as {example}")),
            Self::UserInfo => {
                refuse("it holds a user name or a password; give them as client_id and client_secret")
            }
            Self::Unaskable => {
                refuse("its scheme, host or port cannot be used; begin it with https:// and the host")
            }
            Self::Parameter(name) => refuse(&format!(
                "it has {name} in its query, and URLs are logged; give it to the builder, and remove it here"
            )),
            Self::Dots => refuse("its path has a segment of dots, also as %2e; write the path without"),
            Self::NonAscii => refuse(
                "it has a character outside ASCII; percent-encode it, and write a host in its xn-- form",
            ),
            Self::PlainHttp => refuse(
                "plain http would show the client secret to everyone on the network path; use https \
                 (insecure_http(true) allows it all the same)",
            ),
        }
    }

    /// Completes a sentence about a URL in metadata.
    pub(crate) fn elsewhere(&self) -> &'static str {
        match self {
            Self::Fragment => "has a fragment, which RFC 6749 §3.2 forbids",
            Self::NoUrl(_) | Self::NoHost => "is not an absolute URL",
            Self::UserInfo => "holds a user name or a password",
            Self::Unaskable => "has a scheme, host or port that cannot be asked",
            Self::Parameter(_) => "has a parameter in its query that belongs into the body",
            Self::Dots => "has a segment of dots in its path",
            Self::NonAscii => "has a character outside ASCII",
            Self::PlainHttp => {
                "is plain http, which would show the client secret to everyone on the network path"
            }
        }
    }
}
