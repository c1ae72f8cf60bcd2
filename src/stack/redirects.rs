//! Which redirects are followed.

use http_body::Body;
use tower::BoxError;
use tower_http::follow_redirect::policy::{Action, Attempt, Policy};

use crate::origin::Origin;
use crate::retry::RequestBody;

/// Follows redirects within the origin of the request, so many times. A tower-http policy for `FollowRedirect`.
///
/// Even a hop to another origin that may have tokens is not followed: what else the request carries, a cookie or a
/// header of the caller's own, was meant for this one.
#[derive(Clone, Copy, Debug)]
pub(super) struct SameOrigin {
    left: u32,
}

impl SameOrigin {
    pub(super) fn up_to(most: u32) -> Self {
        Self { left: most }
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
                Ok(Action::Follow)
            }
            (false, _) | (true, None) => Ok(Action::Stop),
        }
    }

    fn clone_body(&self, body: &RequestBody<B>) -> Option<RequestBody<B>> {
        body.shared()
    }
}
