//! The report on a request, for its caller.

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::replay_body::NotReplayable;
use crate::extensions::TokenRejected;

/// How a request went, in the extensions of its response: only there if something was replayed or refused to be,
/// or if the request was held at the [`RetryGate`](super::RetryGate).
///
/// # Examples
///
/// ```
/// use tower_oauth2::retry::{RetryReport, StopReason};
///
/// fn explain<B>(response: &http::Response<B>) -> String {
///     match response.extensions().get::<RetryReport>() {
///         None => "served at once".to_owned(),
///         Some(report) => format!("sent {} times; {}", report.attempts(), report.stop_reason()),
///     }
/// }
/// # assert_eq!(explain(&http::Response::new(())), "served at once");
/// ```
#[derive(Clone)]
pub struct RetryReport {
    details: Arc<ReportDetails>,
}

/// The contents of a report.
pub(super) struct ReportDetails {
    pub(super) attempts: u32,
    pub(super) held: Duration,
    pub(super) history: Vec<Replayed>,
    pub(super) stop_reason: StopReason,
    pub(super) requested_delay: Option<Duration>,
    pub(super) rejected: Option<TokenRejected>,
    pub(super) in_doubt: bool,
    pub(super) error: Option<Arc<dyn StdError + Send + Sync>>,
}

/// One response or error that was not returned, and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    pub(super) status: Option<StatusCode>,
    pub(super) reason: ReplayReason,
    pub(super) delay: Duration,
    pub(super) requested_delay: Option<Duration>,
    /// The header that asks for that delay.
    pub(super) requested_by: Option<HeaderName>,
}

/// Why a request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplayReason {
    /// The token was refused, and the replay will carry another one.
    TokenRejected,
    /// The server had too much to do and refused the request: 429, or what the
    /// [`RateLimitProfile`](super::RateLimitProfile) counts as one.
    Throttled,
    /// The server could not serve the request just now, and the method may be repeated: 408, 425, 5xx, and what else
    /// says when to come back.
    Unavailable,
    /// The inner service failed, and the server did no work: see [`Failure::Unsent`](super::Failure::Unsent).
    Unsent,
    /// The inner service failed, it is not known how far the request came, and the method may be repeated.
    Ambiguous,
    /// There was no token for the request, so it was not sent; see
    /// [`retry_token_failures`](super::RetryPolicyBuilder::retry_token_failures).
    TokenUnavailable,
}

/// Why a response was returned and the request not sent again.
///
/// # Examples
///
/// ```
/// # use http::{Request, Response};
/// # use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};
/// use tower_oauth2::RetryPolicy;
/// use tower_oauth2::retry::{RetryReport, StopReason};
/// # use tower_oauth2::Body;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// # let api = service_fn(async |_| Ok::<_, BoxError>(Response::builder().status(503).body(Body::empty())?));
/// # let request = Request::post("https://api.example.com/orders").body(Body::empty())?;
/// let response = RetryPolicy::default().layer(api).oneshot(request).await?;
/// let reason = response.extensions().get().map(RetryReport::stop_reason);
/// match reason {
///     Some(StopReason::NotIdempotent) => println!("give the request an idempotency key"),
///     Some(StopReason::DelayExceedsCap { requested, .. }) => println!("come back in {requested:?}"),
///     Some(other) => println!("{other}"),
///     None => println!("no retry layer sent it"),
/// }
/// assert_eq!(reason, Some(&StopReason::NotIdempotent));
/// # Ok::<_, BoxError>(()) })?;
/// # Ok::<_, BoxError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The response is one to return: a success, or a failure that no replay would change.
    Final,
    /// The caller's [`RetryOptions`](super::RetryOptions) forbid it.
    TurnedOff,
    /// The method may not be repeated, and there is no idempotency key (RFC 9110 §9.2.2).
    NotIdempotent,
    /// The request body cannot be sent again.
    #[non_exhaustive]
    NotReplayable {
        /// Why it cannot.
        cause: NotReplayable,
    },
    /// All retries are used up.
    AttemptsExhausted,
    /// A replay carried another token, and that was refused too.
    AuthReplaysExhausted,
    /// The challenge does not blame the token, so a new one would not help.
    #[non_exhaustive]
    ChallengeNotRefreshable {
        /// The error code of the challenge, such as `insufficient_scope`.
        error: Option<String>,
    },
    /// Tokens were refused too often of late, so this one was kept.
    Braked,
    /// The server said that the request is not to be sent again: `x-should-retry: false`, `stripe-should-retry: false`, a header of
    /// the [`RateLimitProfile`](super::RateLimitProfile), or gRPC's `grpc-retry-pushback-ms`.
    DoNotRetry,
    /// There were too many retries of late for the requests there were: the
    /// [`RetryBudget`](super::RetryBudget) was spent.
    BudgetExhausted,
    /// The server asked for more patience than the policy has.
    #[non_exhaustive]
    DelayExceedsCap {
        /// The wait that the server asked for.
        requested: Duration,
    },
    /// The wait would not end before the [`Deadline`](crate::extensions::Deadline).
    #[non_exhaustive]
    DeadlineTooClose {
        /// The wait that would have been needed.
        needed: Duration,
    },
    /// The deadline passed: while an attempt was in flight, which was ended, or before the next one could be sent.
    DeadlineExceeded,
    /// The waits of this request would be more in all than the policy allows.
    #[non_exhaustive]
    WaitsExhausted {
        /// The wait that would have been needed.
        needed: Duration,
    },
    /// Auth refused to send the attempt: there was no token for it, or it may not have one. Where an earlier response is
    /// returned, [`RetryReport::error`] says why; where there is none the service's own error does.
    TokenUnavailable,
    /// The [`BodyFactory`](super::BodyFactory) did not open the body for the attempt. [`RetryReport::error`] says why.
    BodyNotReopened,
    /// A retry may have to wait, and the request was sent outside a tokio runtime, or in one without a timer.
    NoTimer,
    /// The inner service did not become ready, so the attempt was not sent. For the reason as the line before.
    NotReady,
    /// The inner service failed in a way that another attempt would not change; its error was returned.
    Failed,
}

/// A place for the [`RetryReport`] of a request, which the caller can read also where there is no response to carry it.
///
/// Clones share the place. A request that is sent with it forgets the report before. See [`RetryOptions::report_to`](super::RetryOptions::report_to).
///
/// # Examples
///
/// ```
/// use tower_oauth2::ApiClient;
/// use tower_oauth2::retry::{ReportSlot, RetryOptions};
///
/// /// Returns whether the order may have been placed although there is no response.
/// async fn may_be_placed(api: &ApiClient) -> bool {
///     let slot = ReportSlot::new();
///     let sent = api.post("orders").extension(RetryOptions::new().report_to(&slot)).send().await;
///     sent.is_err() && slot.take().is_some_and(|report| report.may_have_acted())
/// }
/// # let _ = may_be_placed;
/// ```
#[derive(Clone, Debug, Default)]
pub struct ReportSlot {
    report: Arc<Mutex<Option<RetryReport>>>,
}

// --- RetryReport ---

impl RetryReport {
    pub(super) fn new(details: ReportDetails) -> Self {
        Self { details: Arc::new(details) }
    }

    /// Returns how often the request was sent.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.details.attempts
    }

    /// Returns how long the request waited at the [`RetryGate`](super::RetryGate) in all, because of a response to it or to
    /// another request.
    #[must_use]
    pub fn held(&self) -> Duration {
        self.details.held
    }

    /// Returns the responses that were not returned, oldest first.
    #[must_use]
    pub fn history(&self) -> &[Replayed] {
        &self.details.history
    }

    /// Returns why it ended there.
    #[must_use]
    pub fn stop_reason(&self) -> &StopReason {
        &self.details.stop_reason
    }

    /// Returns whether the server may have acted on an attempt of which you do not have the response: it never came, or was
    /// one of those that say "not now", such as a 503 or 504, and was replaced. Never for a safe method.
    ///
    /// A 404 to a DELETE, a 412 to a conditional PUT or a 409 to a POST may then be the trace of your own earlier attempt,
    /// and the work done. Do not send such a request again with another `Idempotency-Key`.
    #[must_use]
    pub fn may_have_acted(&self) -> bool {
        self.details.in_doubt
    }

    /// Returns how long the server wants to be left alone, as the response that was returned says.
    #[must_use]
    pub fn requested_delay(&self) -> Option<Duration> {
        self.details.requested_delay
    }

    /// Returns the marker that was on the response. It is here and no longer on the response, so that an outer
    /// retry layer does not act on it a second time.
    #[must_use]
    pub fn token_rejected(&self) -> Option<&TokenRejected> {
        self.details.rejected.as_ref()
    }

    /// Returns why the last replay could not be sent or was ended, where an earlier outcome is returned in its place: a
    /// [`Error`](crate::Error), the error of a service that did not become ready, or that of a timeout. Where a
    /// timeout is what is returned, this is the error before it.
    #[must_use]
    pub fn error(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.details.error.as_deref()
    }
}

impl fmt::Debug for RetryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The error is left out: it may come from any crate, and its text may say anything.
        f.debug_struct("RetryReport")
            .field("attempts", &self.details.attempts)
            .field("held", &self.details.held)
            .field("history", &self.details.history)
            .field("stop_reason", &self.details.stop_reason)
            .field("requested_delay", &self.details.requested_delay)
            .field("may_have_acted", &self.details.in_doubt)
            .finish_non_exhaustive()
    }
}

// --- Replayed ---

impl Replayed {
    /// Whether the server may have acted on the attempt. With a 4xx it says that it did not, but for a 408, which a gateway may
    /// send for the server behind it. `is_strict`: a 429 is not believed.
    pub(super) fn may_have_acted(&self, is_strict: bool) -> bool {
        match self.reason {
            ReplayReason::Unavailable => self
                .status
                .is_none_or(|status| !status.is_client_error() || status == StatusCode::REQUEST_TIMEOUT),
            ReplayReason::Ambiguous => true,
            ReplayReason::Throttled => is_strict,
            ReplayReason::TokenRejected | ReplayReason::Unsent | ReplayReason::TokenUnavailable => false,
        }
    }

    /// Returns the status of the response; none where there was an error instead.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.status
    }

    /// Returns why the request was sent again.
    #[must_use]
    pub fn reason(&self) -> ReplayReason {
        self.reason
    }

    /// Returns how long was waited before that.
    #[must_use]
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// Returns what the server had asked for, or how long the cache waits before it fetches a token again; none where the wait
    /// was the policy's own.
    #[must_use]
    pub fn requested_delay(&self) -> Option<Duration> {
        self.requested_delay
    }
}

// --- ReplayReason ---

impl fmt::Display for ReplayReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TokenRejected => "the token was refused",
            Self::Throttled => "the server asked for patience",
            Self::Unavailable => "the server could not serve the request",
            Self::Unsent => "the request was not sent",
            Self::Ambiguous => "there was no response, and the request may have been sent",
            Self::TokenUnavailable => "there was no token for it",
        })
    }
}

// --- StopReason ---

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Final => f.write_str("the response is final"),
            Self::TurnedOff => f.write_str("the caller forbids replays"),
            Self::NotIdempotent => f.write_str("the method may not be repeated"),
            Self::NotReplayable { cause } => write!(f, "{cause}"),
            Self::AttemptsExhausted => f.write_str("all retries are used up"),
            Self::AuthReplaysExhausted => f.write_str("the new token was refused too"),
            Self::ChallengeNotRefreshable { error: None } => f.write_str("a new token would not help"),
            Self::ChallengeNotRefreshable { error: Some(error) } => {
                write!(f, "a new token would not help against {error}")
            }
            Self::Braked => f.write_str("tokens were refused too often of late"),
            Self::DoNotRetry => f.write_str("the server says not to retry"),
            Self::BudgetExhausted => f.write_str("the budget for retries is spent"),
            Self::DelayExceedsCap { requested } => {
                write!(f, "the server asked for {requested:?}, more than the policy waits")
            }
            Self::DeadlineTooClose { needed } => write!(f, "a wait of {needed:?} would miss the deadline"),
            Self::DeadlineExceeded => f.write_str("the deadline passed"),
            Self::WaitsExhausted { needed } => {
                write!(f, "a wait of {needed:?} would make the waits too long in all")
            }
            Self::TokenUnavailable => f.write_str("there was no token for it"),
            Self::BodyNotReopened => f.write_str("the request body was not opened again"),
            Self::NoTimer => f.write_str("a retry needs a tokio runtime with a timer, and there is none"),
            Self::NotReady => f.write_str("the inner service was not ready"),
            Self::Failed => f.write_str("the inner service failed"),
        }
    }
}

// --- ReportSlot ---

impl ReportSlot {
    /// Creates an empty place.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the report out, if one was put here.
    #[must_use]
    pub fn take(&self) -> Option<RetryReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Forgets what another request left here.
    pub(super) fn clear(&self) {
        drop(self.take());
    }

    pub(super) fn put(&self, report: RetryReport) {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
    }
}
