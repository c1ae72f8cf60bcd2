//! The end of what takes too long: an attempt, or the request as a whole.

use std::error::Error;
use std::fmt;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Extensions;
use tokio::time::{Instant, Sleep};

use crate::extensions::Deadline;
use crate::retry::policy::rules::RetryRules;
use crate::{clock, runtime};

/// There was no response in time.
///
/// It is found in the error of the service by `downcast_ref`. If there was a response before, that is returned instead.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// # use http::{Request, Response};
/// # use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};
/// use tower_oauth2::RetryPolicy;
/// use tower_oauth2::retry::TimedOut;
/// # use tower_oauth2::Body;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?.block_on(async {
/// # let slow_api = service_fn(|_| std::future::pending::<Result<Response<Body>, BoxError>>());
/// # let request = Request::get("https://api.example.com/orders").body(Body::empty())?;
/// let policy = RetryPolicy::builder().attempt_timeout(Duration::from_secs(2)).max_retries(0).build()?;
/// let error = policy.layer(slow_api).oneshot(request).await.unwrap_err();
/// let said = match error.downcast_ref() {
///     Some(TimedOut::Deadline) => "the request took too long".to_owned(),
///     Some(TimedOut::Attempt { limit, .. }) => format!("an attempt took more than {limit:?}"),
///     _ => error.to_string(),
/// };
/// assert_eq!(said, "an attempt took more than 2s");
/// # Ok::<_, BoxError>(()) })?;
/// # Ok::<_, BoxError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimedOut {
    /// The deadline of the request passed: its own, or that of
    /// [`total_timeout`](crate::retry::RetryPolicyBuilder::total_timeout).
    Deadline,
    /// An attempt took longer than [`attempt_timeout`](crate::retry::RetryPolicyBuilder::attempt_timeout), and it was the last one.
    #[non_exhaustive]
    Attempt {
        /// How long an attempt may take.
        limit: Duration,
    },
}

/// Returns when a request that begins now must be done: by the policy, or earlier if it says so itself. The layers below see it, so
/// that one that waits for a token ends with an error of its own.
#[inline]
pub(in crate::retry) fn deadline(rules: &RetryRules, extensions: &mut Extensions) -> Option<Instant> {
    let deadline = match rules.total_timeout {
        Some(timeout) => Some(Deadline::narrow(extensions, timeout)),
        None => extensions.get().copied(),
    };
    deadline.map(|deadline| Instant::from_std(deadline.instant()))
}

/// Returns the time left until a deadline.
pub(in crate::retry) fn left(deadline: Option<Instant>) -> Option<Duration> {
    Some(deadline?.saturating_duration_since(clock::now()))
}

/// Returns whether a deadline has passed, so that an attempt would be ended as soon as it is sent.
#[inline]
pub(in crate::retry) fn is_over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= clock::now())
}

/// Is ready when the attempt in flight has no time left. `timer` is made when an attempt has to be waited for;
/// where nothing is limited there is none, and the clock is not looked at.
pub(in crate::retry) fn poll_over(
    timer: &mut Option<Pin<Box<Sleep>>>,
    deadline: Option<Instant>,
    attempt_timeout: Option<Duration>,
    cx: &mut Context<'_>,
) -> Poll<TimedOut> {
    let sleep = match timer {
        Some(sleep) => sleep,
        None => {
            let attempt = attempt_timeout.map(|limit| clock::after(clock::now(), limit));
            let end = match (attempt, deadline) {
                (Some(attempt), Some(deadline)) => attempt.min(deadline),
                (Some(end), None) | (None, Some(end)) => end,
                (None, None) => return Poll::Pending,
            };
            // Without a timer nothing can be bounded. The request is sent all the same.
            if runtime::current().is_err() {
                return Poll::Pending;
            }
            timer.insert(Box::pin(tokio::time::sleep_until(end)))
        }
    };
    ready!(sleep.as_mut().poll(cx));
    Poll::Ready(match attempt_timeout.filter(|_| !is_over(deadline)) {
        Some(limit) => TimedOut::Attempt { limit },
        None => TimedOut::Deadline,
    })
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadline => f.write_str("the request's deadline passed before there was a response"),
            Self::Attempt { limit } => write!(f, "there was no response to the attempt within {limit:?}"),
        }
    }
}

impl Error for TimedOut {}
