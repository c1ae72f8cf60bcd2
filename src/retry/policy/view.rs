//! One outcome of a request, with all that the decision on it depends on.

use std::time::{Duration, Instant};

use http::{HeaderMap, Response, StatusCode};

use super::classify::Failure;
use super::idempotency::Repeatability;
use super::options::RetryOptions;
use crate::clock;
use crate::extensions::TokenRejected;
use crate::headers::grpc::{self, GrpcStatus};
use crate::retry::replay_body::NotReplayable;

/// One response or failure, and what went before it.
#[derive(Clone)]
pub(in crate::retry) struct OutcomeView<'a> {
    pub(in crate::retry) outcome: Outcome<'a>,
    pub(in crate::retry) repeat: Repeatability,
    /// The request is a gRPC call.
    pub(in crate::retry) is_grpc: bool,
    pub(in crate::retry) body: Result<(), NotReplayable>,
    pub(in crate::retry) earlier: EarlierAttempts,
    /// Without a deadline the policy's total wait counts.
    pub(in crate::retry) time_left: Option<Duration>,
    pub(in crate::retry) options: Option<&'a RetryOptions>,
}

/// The attempts before, as far as the decision depends on them.
#[derive(Clone, Copy, Default)]
pub(in crate::retry) struct EarlierAttempts {
    pub(in crate::retry) retries: u32,
    /// Retries since a gRPC server said when to come; the policy's own waits grow with these.
    pub(in crate::retry) backoffs: u32,
    pub(in crate::retry) auth_replays: u32,
    /// When a token was refused last.
    pub(in crate::retry) refused_at: Option<Instant>,
    pub(in crate::retry) waited: Duration,
    /// The server may have acted on one whose response is not returned.
    pub(in crate::retry) in_doubt: bool,
}

/// The outcome of an attempt.
#[derive(Clone, Copy)]
pub(in crate::retry) enum Outcome<'a> {
    Response(ReceivedResponse<'a>),
    /// With the wait that a proxy on the way asks for.
    Failure(Failure, Option<Duration>),
    /// There was no token, and this long there will be none, as far as is known. Nothing was sent.
    NoToken(Option<Duration>),
}

/// A response, as far as the decision depends on it.
#[derive(Clone, Copy)]
pub(in crate::retry) struct ReceivedResponse<'a> {
    pub(in crate::retry) status: StatusCode,
    pub(in crate::retry) rejected: Option<&'a TokenRejected>,
    pub(in crate::retry) headers: &'a HeaderMap,
    pub(in crate::retry) grpc: Option<GrpcStatus>,
    /// When it was looked at, as the time since the Unix epoch.
    pub(in crate::retry) now: Duration,
}

impl<'a> OutcomeView<'a> {
    /// Creates the view of a first attempt without a deadline, whose body can be sent again.
    pub(in crate::retry) fn of(outcome: Outcome<'a>, repeat: Repeatability) -> Self {
        Self {
            outcome,
            repeat,
            is_grpc: false,
            body: Ok(()),
            earlier: EarlierAttempts::default(),
            time_left: None,
            options: None,
        }
    }
}

// --- Outcome ---

impl<'a> Outcome<'a> {
    /// Returns the status of the response, if there was one.
    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Response(received) => Some(received.status),
            Self::Failure(..) | Self::NoToken(_) => None,
        }
    }

    /// Reads a response, with the trailers of one without data.
    pub(in crate::retry) fn of<B>(response: &'a Response<B>, trailers: Option<&'a HeaderMap>) -> Self {
        Self::Response(ReceivedResponse {
            status: response.status(),
            rejected: response.extensions().get(),
            // What comes with the status.
            headers: trailers.unwrap_or(response.headers()),
            grpc: grpc_status(response, trailers),
            now: clock::unix_time(),
        })
    }
}

/// Reads what a gRPC response says of its call: in its trailers if it is one without data.
pub(super) fn grpc_status<B>(response: &Response<B>, trailers: Option<&HeaderMap>) -> Option<GrpcStatus> {
    if grpc::is_grpc(response) { grpc::read(trailers.unwrap_or(response.headers())) } else { None }
}
