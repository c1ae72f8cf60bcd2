//! What is known of one outcome of a request, to be decided on.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method, Response, StatusCode};

use super::classify::Failure;
use super::idempotency::Repeat;
use super::options::RetryOptions;
use crate::clock;
use crate::extensions::TokenRejected;
use crate::headers::grpc::{self, GrpcStatus};
use crate::retry::replay_body::NotReplayable;

/// What [`RetryPolicy::decide`](crate::retry::RetryPolicy::decide) looks at: one response or failure, and what went before it.
///
/// Defaults: a first attempt without a deadline, whose body can be sent again, under the policy's own rules.
#[derive(Clone, Debug)]
#[must_use = "a view is there to be decided on"]
pub struct View<'a> {
    pub(in crate::retry) outcome: Outcome<'a>,
    pub(in crate::retry) repeat: Repeat,
    /// The request is a gRPC call.
    pub(in crate::retry) is_grpc: bool,
    /// The server may have acted on an earlier attempt.
    pub(in crate::retry) in_doubt: bool,
    pub(in crate::retry) body: Result<(), NotReplayable>,
    pub(in crate::retry) retries: u32,
    /// How many waits of the policy's own length there were in a row; none: as many as there were retries.
    pub(in crate::retry) backoffs: Option<u32>,
    pub(in crate::retry) auth_replays: u32,
    pub(in crate::retry) waited: Duration,
    pub(in crate::retry) time_left: Option<Duration>,
    pub(in crate::retry) options: Option<&'a RetryOptions>,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug)]
pub(in crate::retry) enum Outcome<'a> {
    Answer(Answer<'a>),
    Failure(Failure),
}

/// What an answer says.
#[derive(Clone, Copy, Debug)]
pub(in crate::retry) struct Answer<'a> {
    pub(in crate::retry) status: StatusCode,
    pub(in crate::retry) rejected: Option<&'a TokenRejected>,
    pub(in crate::retry) headers: Headers<'a>,
    pub(in crate::retry) is_grpc: bool,
    pub(in crate::retry) grpc: Option<GrpcStatus>,
    /// When it was looked at, as the time since the Unix epoch.
    pub(in crate::retry) now: Duration,
}

/// The headers of an answer, not to be shown: there may be secrets among them.
#[derive(Clone, Copy)]
pub(in crate::retry) struct Headers<'a>(pub(in crate::retry) &'a HeaderMap);

impl<'a> View<'a> {
    /// Creates the view of the answer to a request with `method`.
    ///
    /// It reads the clock, against which a server's points in time are measured if it does not say its own, and the
    /// marker of auth. What the server asks for is read by the policy that decides.
    pub fn new<B>(response: &'a Response<B>, method: &Method) -> Self {
        Self::answered(response, Repeat::of_method(method))
    }

    /// Creates the view of a request with `method` that ended in an error.
    pub fn failed(failure: Failure, method: &Method) -> Self {
        Self::of(Outcome::Failure(failure), Repeat::of_method(method))
    }

    pub(in crate::retry) fn answered<B>(response: &'a Response<B>, repeat: Repeat) -> Self {
        let is_grpc = grpc::is_grpc(response);
        let answer = Answer {
            status: response.status(),
            rejected: response.extensions().get(),
            headers: Headers(response.headers()),
            is_grpc,
            grpc: if is_grpc { grpc::read(response.headers()) } else { None },
            now: clock::unix_time(),
        };
        Self::of(Outcome::Answer(answer), repeat)
    }

    pub(in crate::retry) fn of(outcome: Outcome<'a>, repeat: Repeat) -> Self {
        Self {
            outcome,
            repeat,
            is_grpc: false,
            in_doubt: false,
            body: Ok(()),
            retries: 0,
            backoffs: None,
            auth_replays: 0,
            waited: Duration::ZERO,
            time_left: None,
            options: None,
        }
    }

    /// Says that the request is a gRPC call. A 502, 503 or 504 without a gRPC status then counts as `UNAVAILABLE`, which is
    /// retried whatever the method.
    pub fn grpc(mut self) -> Self {
        self.is_grpc = true;
        self
    }

    /// Adds the trailers of a gRPC answer without data, which say what became of the call. Of any other answer they are not
    /// read.
    pub fn trailers(mut self, trailers: &HeaderMap) -> Self {
        if let Outcome::Answer(answer) = &mut self.outcome
            && answer.is_grpc
        {
            answer.grpc = grpc::read(trailers);
        }
        self
    }

    /// Says that the request has an `Idempotency-Key`, so that it may be repeated whatever its method.
    pub fn idempotency_key(mut self) -> Self {
        self.repeat = Repeat::Keyed;
        self
    }

    pub(in crate::retry) fn repeat(mut self, repeat: Repeat) -> Self {
        self.repeat = repeat;
        self
    }

    /// Says that the server may have acted on an earlier attempt: that ended in an error, or in a response after which this
    /// is not known. A 409 to a request with an `Idempotency-Key` is then waited for, since it may say that the earlier
    /// attempt is still at work.
    pub fn in_doubt(mut self) -> Self {
        self.in_doubt = true;
        self
    }

    /// Sets whether the request body can be sent again.
    pub fn body(mut self, replayable: Result<(), NotReplayable>) -> Self {
        self.body = replayable;
        self
    }

    /// Sets how often the request was sent again, replays with a new token not counted.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Sets how often the wait was doubled so far, where that is not once per retry: after a gRPC server said how long to
    /// wait, the policy's own waits begin anew.
    pub fn backoffs(mut self, backoffs: u32) -> Self {
        self.backoffs = Some(backoffs);
        self
    }

    /// Sets how often the request was replayed with a new token.
    pub fn auth_replays(mut self, replays: u32) -> Self {
        self.auth_replays = replays;
        self
    }

    /// Sets how long was waited for this request so far.
    pub fn waited(mut self, waited: Duration) -> Self {
        self.waited = waited;
        self
    }

    /// Sets the time left until the request's deadline. Without one, the policy's total wait counts.
    pub fn time_left(mut self, left: Option<Duration>) -> Self {
        self.time_left = left;
        self
    }

    /// Sets when the response came, by the clock of this side. Without it that is the time at which the view was made.
    pub fn received(mut self, at: SystemTime) -> Self {
        if let Outcome::Answer(answer) = &mut self.outcome {
            answer.now = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        }
        self
    }

    /// Sets what the caller wants for this request.
    pub fn options(mut self, options: Option<&'a RetryOptions>) -> Self {
        self.options = options;
        self
    }
}

// --- Headers ---

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}
