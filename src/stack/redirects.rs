//! Which redirects are followed.

use http::{HeaderName, HeaderValue, Request};
use http_body::Body;
use tower::BoxError;
use tower_http::follow_redirect::policy::{Action, Attempt, Policy};

use crate::origin::Origin;
use crate::retry::{Before, RequestBody, RetryOptions, is_condition, is_key, is_safe};

/// Follows redirects within the origin of the request, so many times. A tower-http policy for `FollowRedirect`.
///
/// Even a hop to another origin that may have tokens is not followed: what else the request carries, a cookie or a
/// header of the caller's own, was meant for this one.
#[derive(Clone, Copy, Debug)]
pub(super) struct SameOrigin {
    left: u32,
    /// None before the first.
    hop: Option<Hop>,
}

/// A redirect that is followed.
#[derive(Clone, Copy, Debug)]
struct Hop {
    /// The next request is a GET, and the one before was none.
    became_get: bool,
    /// The one before did something.
    did_work: bool,
}

impl SameOrigin {
    pub(super) fn up_to(most: u32) -> Self {
        Self { left: most, hop: None }
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
                let became_get = attempt.method() != attempt.previous_method();
                let did_work = became_get && !is_safe(attempt.previous_method());
                self.hop = Some(Hop { became_get, did_work });
                Ok(Action::Follow)
            }
            (false, _) | (true, None) => Ok(Action::Stop),
        }
    }

    /// Takes from a request that became a GET what was about its content (RFC 9110 §15.4), its conditions, since what they were about
    /// has been changed by the request before, and the key of that: a server that knows the key may return the redirect again.
    ///
    /// Whether the server did something before, or may have, goes along with each.
    fn on_request(&mut self, request: &mut Request<RequestBody<B>>) {
        let Some(hop) = self.hop else {
            if !is_safe(request.method()) {
                request.extensions_mut().get_or_insert_default::<RetryOptions>().watch();
            }
            return;
        };
        // A request that was safe from the start did nothing, and may have none.
        if let Some(options) = request.extensions_mut().get_mut::<RetryOptions>() {
            if hop.did_work {
                options.come_after(Before::Work);
            } else if options.left_doubt() {
                options.come_after(Before::Doubt);
            }
            options.report_as_unsent();
        }
        if !hop.became_get {
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
    }

    fn clone_body(&self, body: &RequestBody<B>) -> Option<RequestBody<B>> {
        body.shared()
    }
}
