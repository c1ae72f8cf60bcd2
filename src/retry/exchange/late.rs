//! A gRPC response that says at its end what became of the call: a look at whether the end has come already.

use std::task::{Context, Waker};

use http::{HeaderMap, Response};
use http_body::{Body, Frame};
use tower::BoxError;

use crate::extensions::LateRefusal;
use crate::headers::grpc;
use crate::retry::retry_body::{KeptBody, ResponseBody};

/// Polls the body of a response once, which never waits: one that has not begun is returned as it is. A frame that was read
/// goes with it. Where it was the trailers, they are returned; if they refuse the token, auth has been told, and the response
/// carries its marker. Where data comes first, the body tells auth by itself when it comes to the trailers.
#[cold]
pub(super) fn look<RB>(response: Response<RB>) -> (Response<ResponseBody<RB>>, Option<HeaderMap>)
where
    RB: Body<Error: Into<BoxError>>,
{
    let (mut head, body) = response.into_parts();
    let refusal = head.extensions.remove::<LateRefusal>();
    let mut kept = KeptBody::new(body);
    // No task waits for it here. The one that reads on polls again, and is woken.
    let _ = kept.read.poll_read(&mut Context::from_waker(Waker::noop()));
    let trailers = kept.read.frames().front().and_then(Frame::trailers_ref).cloned();
    match (&trailers, refusal) {
        (Some(trailers), Some(refusal)) if grpc::is_unauthenticated(trailers) => {
            head.extensions.insert(refusal.tell());
        }
        (Some(trailers), Some(refusal)) if grpc::is_acceptance(trailers) => refusal.accepted(),
        (Some(_), _) | (None, None) => {}
        (None, Some(refusal)) => kept.refusal = Some(refusal),
    }
    (Response::from_parts(head, ResponseBody::kept(kept)), trailers)
}
