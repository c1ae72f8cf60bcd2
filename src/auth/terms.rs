//! How a token is put on a request, and which responses say something about it.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};

use crate::headers::grpc;
use crate::token::AccessToken;

/// The verdict of a rule of your own on a response.
///
/// # Examples
///
/// An API that says 403 when a session has ended:
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tower_oauth2::auth::Rejection;
/// use tower_oauth2::{AccessToken, AuthLayer};
///
/// let token = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
/// let layer = AuthLayer::for_origin(token, "https://api.example.com")?.rejection(
///     |status: StatusCode, headers: &HeaderMap| match status {
///         StatusCode::FORBIDDEN if headers.contains_key("x-session-ended") => Rejection::Token,
///         _ => Rejection::Standard,
///     },
/// );
/// # let _ = layer;
/// # Ok::<_, tower_oauth2::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rejection {
    /// The layer's own rules apply.
    Standard,
    /// The token was rejected. Another one may help.
    Token,
    /// The request was refused for another reason. Another token does not help.
    Request,
    /// The response does not reject anything.
    None,
}

pub(super) type RejectionRule = dyn Fn(StatusCode, &HeaderMap) -> Rejection + Send + Sync;

/// The settings of a layer about headers and responses. A ticket takes them along.
#[derive(Clone)]
pub(super) struct Terms {
    pub(super) header: HeaderName,
    pub(super) standard: bool,
    pub(super) bare: bool,
    pub(super) replace: bool,
    pub(super) strict: bool,
    pub(super) statuses: Vec<StatusCode>,
    pub(super) rejection: Option<Arc<RejectionRule>>,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            header: AUTHORIZATION,
            standard: true,
            bare: false,
            replace: false,
            strict: false,
            statuses: vec![StatusCode::UNAUTHORIZED],
            rejection: None,
        }
    }
}

impl Terms {
    /// Sends the token in this header, without its scheme if `bare`.
    pub(super) fn send_in(&mut self, name: HeaderName, bare: bool) {
        self.standard = name == AUTHORIZATION;
        self.bare = bare;
        self.header = name;
    }

    /// A caller's own header wins over everything that is said of ours.
    pub(super) fn is_callers_own(&self, headers: &HeaderMap) -> bool {
        !self.replace && headers.contains_key(&self.header)
    }

    /// Returns the header value of a token as this layer sends it.
    pub(super) fn value<'a>(&self, token: &'a AccessToken) -> &'a HeaderValue {
        if self.bare { token.bare_header_value() } else { token.header_value() }
    }

    /// Puts the token on a request. Returns whether it is on: a caller's own header wins, unless the layer was told to
    /// replace it.
    #[inline]
    pub(super) fn stamp(&self, headers: &mut HeaderMap, value: HeaderValue) -> bool {
        if self.replace {
            if !self.standard {
                headers.remove(AUTHORIZATION);
            }
            headers.insert(&self.header, value);
            return true;
        }
        // One look into the map where a look before the insertion would be two; a name that is known here is not cloned.
        let had_one = match self.standard {
            true => headers.append(AUTHORIZATION, value),
            false => headers.append(&self.header, value),
        };
        if had_one {
            take_last(headers, &self.header);
        }
        !had_one
    }

    /// Takes off what a gateway must not forward, from a request that gets no token: the header of the token, and
    /// `Authorization` in any case.
    #[inline]
    pub(super) fn strip(&self, headers: &mut HeaderMap) {
        if self.replace {
            headers.remove(&self.header);
            if !self.standard {
                headers.remove(AUTHORIZATION);
            }
        }
    }

    /// Returns whether a response needs a closer look. The hot path of every response.
    #[inline]
    pub(super) fn is_suspicious<R>(&self, response: &Response<R>) -> bool {
        let status = response.status();
        if status.is_success() && response.version() != Version::HTTP_2 && self.rejection.is_none() {
            return false;
        }
        status == StatusCode::UNAUTHORIZED
            || status == StatusCode::FORBIDDEN
            || self.rejection.is_some()
            || self.statuses.contains(&status)
            || is_grpc_unauthenticated(response)
    }

    /// Returns whether an API that responds so has taken the token: with any status but a refusal, and those of a server that
    /// may not have looked at it. One that limits rates does not, and one that redirects may lead to a page for signing in.
    #[cold]
    pub(super) fn is_acceptance<R>(&self, response: &Response<R>) -> bool {
        let status = response.status();
        if grpc::is_grpc(response) && status.is_success() {
            return grpc::is_acceptance(response.headers());
        }
        let says_nothing = matches!(status.as_u16(), 401 | 403 | 407 | 408 | 421 | 425 | 429 | 431)
            || (status.is_redirection() && status != StatusCode::NOT_MODIFIED)
            || status.is_server_error();
        !says_nothing && !self.statuses.contains(&status)
    }

    /// Returns what kind of refusal a response is, if it is one.
    pub(super) fn refusal<R>(&self, response: &Response<R>) -> Rejection {
        let (status, headers) = (response.status(), response.headers());
        match self.rejection.as_ref().map_or(Rejection::Standard, |rule| rule(status, headers)) {
            Rejection::Standard => {}
            decided @ (Rejection::Token | Rejection::Request | Rejection::None) => return decided,
        }
        if is_grpc_unauthenticated(response) {
            return Rejection::Token;
        }
        if self.statuses.contains(&status) { Rejection::Standard } else { Rejection::None }
    }
}

/// Takes the value that was appended last off again.
#[cold]
fn take_last(headers: &mut HeaderMap, name: &HeaderName) {
    let mut values: Vec<_> = headers.get_all(name).iter().cloned().collect();
    values.pop();
    headers.remove(name);
    for value in values {
        headers.append(name, value);
    }
}

/// gRPC says UNAUTHENTICATED (16) with an HTTP status of 200. In the headers it means that no data follows; only there
/// can it be seen without reading the body.
#[inline]
fn is_grpc_unauthenticated<R>(response: &Response<R>) -> bool {
    grpc::is_grpc(response) && grpc::is_unauthenticated(response.headers())
}
