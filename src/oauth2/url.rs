//! The URL of an endpoint: whether secrets can be sent there.

use http::Uri;
use http::uri::InvalidUri;

use crate::error::TokenError;
use crate::oauth2::answer::Naming;
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
}

/// Reads the URL of an endpoint as text, since `Uri` drops a fragment without a word.
pub(crate) fn read(url: &str, plain_http: PlainHttp) -> Result<(Uri, Origin), Flaw> {
    if url.contains('#') {
        return Err(Flaw::Fragment);
    }
    let uri: Uri = url.parse().map_err(Flaw::NoUrl)?;
    let (Some(_), Some(authority)) = (uri.scheme(), uri.authority()) else { return Err(Flaw::NoHost) };
    if authority.as_str().contains('@') {
        return Err(Flaw::UserInfo);
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
    /// Makes the error of a setting. The URL is not repeated: it may hold what nobody should read.
    pub(crate) fn in_setting(self, naming: Naming) -> TokenError {
        let Naming { field, example, .. } = naming;
        let refuse = |what: &str| TokenError::config(format!("{field}: {what}"));
        match self {
            Self::Fragment => {
                refuse("it has a fragment, which RFC 6749 §3.2 forbids; remove the # and what follows")
            }
            Self::NoUrl(error) => {
                refuse(&format!("it is no URL; give it whole, such as {example}")).with_source(error)
            }
            Self::NoHost => refuse(&format!("it has no scheme and host; give it whole, such as {example}")),
            Self::UserInfo => {
                refuse("it holds a user name or a password; give them as client_id and client_secret")
            }
            Self::Unaskable => refuse(
                "its scheme, host or port is none that can be asked; begin it with https:// and the host",
            ),
            Self::PlainHttp => refuse(
                "plain http would show the client secret to everybody on the way; use https \
                 (with_insecure_http allows it all the same)",
            ),
        }
    }

    /// Completes a sentence about a URL that somebody else wrote.
    pub(crate) fn elsewhere(&self) -> &'static str {
        match self {
            Self::Fragment => "has a fragment, which RFC 6749 §3.2 forbids",
            Self::NoUrl(_) | Self::NoHost => "is no absolute URL",
            Self::UserInfo => "holds a user name or a password",
            Self::Unaskable => "has a scheme, host or port that cannot be asked",
            Self::PlainHttp => "is plain http, which would show the client secret to everybody on the way",
        }
    }
}
