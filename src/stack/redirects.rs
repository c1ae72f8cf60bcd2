//! Which redirects are followed.

use http::{HeaderName, HeaderValue, Request};
use http_body::Body;
use tower::BoxError;
use tower_http::follow_redirect::policy::{Action, Attempt, Policy};

use crate::origin::Origin;
use crate::retry::{RequestBody, RetryOptions, is_condition, is_key, is_safe};

/// Follows redirects within the origin of the request, so many times. A tower-http policy for `FollowRedirect`.
///
/// Even a hop to another origin that may have tokens is not followed: what else the request carries, a cookie or a
/// header of the caller's own, was meant for this one.
#[derive(Clone, Copy, Debug)]
pub(super) struct SameOrigin {
    left: u32,
    /// The next request is a GET, and the one before was none.
    became_get: bool,
    /// The one before did something.
    did_work: bool,
}

impl SameOrigin {
    pub(super) fn up_to(most: u32) -> Self {
        Self { left: most, became_get: false, did_work: false }
    }
}

impl<B, E> Policy<RequestBody<B>, E> for SameOrigin
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    fn redirect(&mut self, attempt: &Attempt<'_>) -> Result<Action, E> {
        let from = Origin::of(attempt.previous());
        let same = from.is_some() && from == Origin::of(attempt.location());
        match (same, self.left.checked_sub(1)) {
            (true, Some(left)) => {
                self.left = left;
                self.became_get = attempt.method() != attempt.previous_method();
                self.did_work = self.became_get && !is_safe(attempt.previous_method());
                Ok(Action::Follow)
            }
            (false, _) | (true, None) => Ok(Action::Stop),
        }
    }

    /// Takes from a request that became a GET what was about its content (RFC 9110 §15.4), its conditions, since what they were about
    /// has been changed by the request before, and the key of that: a server that knows the key may return the redirect again.
    fn on_request(&mut self, request: &mut Request<RequestBody<B>>) {
        if !self.became_get {
            return;
        }
        let is_of_content = |name: &str| {
            let others = ["digest", "repr-digest", "last-modified", "trailer", "expect"];
            name.starts_with("content-") || others.contains(&name)
        };
        let is_gone = |(name, value): &(&HeaderName, &HeaderValue)| {
            let text = name.as_str();
            is_of_content(text) || is_key(text) || is_condition(text, value)
        };
        let gone: Vec<_> = request.headers().iter().filter(is_gone).map(|(name, _)| name.clone()).collect();
        for name in gone {
            request.headers_mut().remove(name);
        }
        if self.did_work {
            let options = request.extensions().get::<RetryOptions>().cloned().unwrap_or_default();
            request.extensions_mut().insert(options.after_work());
        }
    }

    fn clone_body(&self, body: &RequestBody<B>) -> Option<RequestBody<B>> {
        body.shared()
    }
}
