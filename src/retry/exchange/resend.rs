//! The material of further attempts.

use http::Request;
use http_body::Body;
use tower::BoxError;

use super::head::HeadSnapshot;
use crate::extensions::Attempt;
use crate::retry::policy::options::RetryOptions;
use crate::retry::policy::rules::RetryRules;
use crate::retry::replay_body::{NotReplayable, RequestBody};

/// The material of further attempts. Dropping it leaves the attempt in flight alone.
pub(super) struct Resend<B> {
    pub(super) head: HeadSnapshot,
    /// The original of the body; or why there is none: it is sent once, though the request may have to wait for that, or no other
    /// attempt can follow.
    body: Result<RequestBody<B>, NotReplayable>,
}

impl<B> Resend<B> {
    /// Of a request that may have to wait, and is sent once.
    pub(super) fn once(head: HeadSnapshot) -> Self {
        Self { head, body: Err(NotReplayable::Released) }
    }

    /// Says whether another attempt can be made.
    pub(super) fn replayable(&self) -> Result<(), NotReplayable> {
        match &self.body {
            Ok(original) => original.replayable(),
            Err(why) => Err(*why),
        }
    }

    /// Makes the request of the next attempt, and ends the one before: an upload that goes on during the wait would be in vain. A
    /// factory opens its body later. `sent`: how many attempts there were.
    pub(super) fn claim(&self, sent: u32) -> Result<Request<RequestBody<B>>, NotReplayable> {
        let body = self.body.as_ref().map_err(|why| *why)?.replay()?;
        let mut head = self.head.head();
        if sent > 0 {
            head.extensions.insert(Attempt::new(sent));
        }
        Ok(Request::from_parts(head, body))
    }

    /// Frees the body: no attempt follows the next one.
    pub(super) fn release(&mut self) {
        if self.body.is_ok() {
            self.body = Err(NotReplayable::Released);
        }
    }
}

impl<B> Resend<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    /// Makes the body of the first attempt, and keeps what the others are made of.
    #[inline]
    pub(super) fn of(
        head: HeadSnapshot,
        body: B,
        rules: &RetryRules,
        options: Option<&RetryOptions>,
    ) -> (RequestBody<B>, Self) {
        // Also where a redirect made a GET of an upload, which still has the factory of the upload.
        if body.is_end_stream() {
            return (RequestBody::default(), Self { head, body: Ok(RequestBody::default()) });
        }
        let original = original(&head, body, rules, options);
        match original.replay() {
            Ok(first) => (first, Self { head, body: Ok(original) }),
            Err(why) => (original, Self { head, body: Err(why) }),
        }
    }
}

#[inline]
fn original<B>(
    head: &HeadSnapshot,
    body: B,
    rules: &RetryRules,
    options: Option<&RetryOptions>,
) -> RequestBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    let exact = body.size_hint().exact();
    if let Some(factory) = head.factory() {
        // A transport goes by the header. Without one, what the first body says of its length is what is sent.
        return RequestBody::reopenable(body, factory.clone(), head.content_length().or(exact));
    }
    let is_grpc = || head.is_grpc();
    let mut limits = rules.limits(options, &is_grpc);
    // The length of a stream may be known all the same: a multipart form has it in its header.
    if exact.is_none()
        && let Some(length) = head.content_length()
    {
        if length > limits.exact {
            return RequestBody::once(body, NotReplayable::TooLong);
        }
        limits.stream = limits.exact;
    }
    RequestBody::recording(body, limits)
}
