//! The same decisions for tower's own retry layer.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tokio::time::{Instant, Sleep};
use tower::BoxError;
use tower::retry::Policy;

use super::exchange::outcome::refused;
use super::exchange::progress::Progress;
use super::exchange::timeouts;
use super::limits::account::Target;
use super::limits::budget::RetryBudget;
use super::policy::builder::RetryPolicy;
use super::policy::classify::Failure;
use super::policy::decide::Decision;
use super::policy::idempotency::Repeat;
use super::policy::options::RetryOptions;
use super::policy::view::{Outcome, View};
use super::report::{self, Replayed, RetryReport, StopReason};
use crate::backoff::Chance;
use crate::extensions::{Attempt, TokenRejected};
use crate::headers::grpc;
use crate::runtime;

/// A [`RetryPolicy`] for [`tower::retry::RetryLayer`], for those who must keep that: requests are cloned, body and all.
///
/// It decides as the [`RetryService`](super::RetryService) does: the same answers and errors, hints, jitter, deadlines,
/// budget, replays on auth's word, [`Attempt`] on resends, [`RetryReport`]s. What a policy of tower's cannot do:
///
/// - It retries what can be cloned: not streams. Every attempt costs a clone of the request, the last one too.
/// - It makes no requests wait for each other's 429.
/// - It does not drain a refused response, so that its connection is often lost.
/// - Where a replay ends in an error, or finds the inner service broken, that is what the caller gets; the answer before is
///   gone by then. An error that says "not sent" is replaced by one that does not, if an earlier attempt may have arrived.
/// - It reads no trailers, so a gRPC status counts in the headers only.
/// - It ends no attempt in flight: a deadline is looked at before waits, and `attempt_timeout` is not. It sets no
///   `Idempotency-Key`.
/// - It does not bound how long a replay waits for the inner service to be ready. Where a limit inside is taken up by
///   instances that were polled ready and are not called, that is for ever: put limits outside.
///
/// The inner service's error must be the boxed one: `map_err(BoxError::from)`.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response, StatusCode};
/// use http_body_util::Full;
/// use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};
/// use tower_oauth2::RetryPolicy;
/// use tower_oauth2::extensions::Attempt;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?.block_on(async {
/// // A server that is busy at first.
/// let server = service_fn(|request: Request<Full<Bytes>>| async move {
///     let status = match request.extensions().get::<Attempt>() {
///         None => StatusCode::TOO_MANY_REQUESTS,
///         Some(_) => StatusCode::CREATED,
///     };
///     Ok::<_, BoxError>(Response::builder().status(status).body(())?)
/// });
/// let client = ServiceBuilder::new().retry(RetryPolicy::default().for_tower()).service(server);
///
/// let request = Request::post("https://api.example.com/orders").body(Full::from("one more"))?;
/// assert_eq!(client.oneshot(request).await?.status(), StatusCode::CREATED);
/// # Ok::<_, BoxError>(()) })?;
/// # Ok::<_, BoxError>(())
/// ```
#[derive(Clone)]
pub struct TowerPolicy {
    policy: RetryPolicy,
    /// tower clones the policy for each request; in the one that it clones from this stays as it is.
    progress: Progress,
    deadline: Option<Instant>,
}

/// The wait of a [`TowerPolicy`] before it sends a request again.
///
/// Outside a tokio runtime, and in one without a timer, none is made:
/// [`StopReason::NoTimer`](super::StopReason::NoTimer).
pub struct TowerWait {
    /// None for no wait.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl RetryPolicy {
    /// Makes a policy for [`tower::retry::RetryLayer`]. The policy itself is a layer that can do more; see [`TowerPolicy`].
    #[cfg_attr(docsrs, doc(cfg(feature = "tower-retry")))]
    #[must_use]
    pub fn for_tower(&self) -> TowerPolicy {
        TowerPolicy { policy: self.clone(), progress: Progress::first(), deadline: None }
    }
}

impl<B, RB> Policy<Request<B>, Response<RB>, BoxError> for TowerPolicy
where
    B: Clone,
{
    type Future = TowerWait;

    fn retry(
        &mut self,
        request: &mut Request<B>,
        result: &mut Result<Response<RB>, BoxError>,
    ) -> Option<TowerWait> {
        // Nearly every answer: there is nothing to say of it.
        if let Ok(response) = result
            && self.progress.history.is_empty()
            && self.policy.rules().is_final(response, None)
        {
            return None;
        }
        match self.decide(request, result) {
            Ok(wait) => {
                request.extensions_mut().insert(Attempt::new(self.progress.sent));
                self.progress.sent += 1;
                Some(wait)
            }
            Err(stop) => {
                self.finish(request, result, stop);
                None
            }
        }
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        if self.progress.history.is_empty() {
            // A resend of a retry layer further out: two of them must not multiply.
            if request.extensions().get::<Attempt>().is_some() {
                return None;
            }
            let rules = self.policy.rules();
            let options = request.extensions().get::<RetryOptions>();
            if let Some(slot) = options.and_then(|options| options.slot.as_ref()) {
                slot.clear();
            }
            if let Some(budget) = &rules.budget {
                budget.deposit(target(request));
            }
            // tower clones the policy for this request next.
            self.deadline = timeouts::deadline(rules, request.extensions());
        }
        Some(request.clone())
    }
}

impl TowerPolicy {
    fn decide<B, RB>(
        &mut self,
        request: &Request<B>,
        result: &Result<Response<RB>, BoxError>,
    ) -> Result<TowerWait, StopReason> {
        let rules = self.policy.rules();
        let failure = match result {
            Ok(_) => None,
            Err(error) => match refused(&**error) {
                Some(stop) => {
                    self.progress.sent -= 1;
                    return Err(stop);
                }
                None => Some(rules.classifier.classify(&**error)),
            },
        };
        let repeat = Repeat::as_it_is(request.method(), request.headers());
        let view = match (result, failure) {
            (Ok(response), _) => View::answered(response, repeat),
            (Err(_), Some(failure)) => View::of(Outcome::Failure(failure), repeat),
            (Err(_), None) => return Err(StopReason::Failed),
        };
        let view = self
            .progress
            .complete(view)
            .time_left(timeouts::left(self.deadline))
            .options(request.extensions().get());
        let view = if grpc::is_grpc_content(request.headers()) { view.grpc() } else { view };
        let (delay, reason, requested_delay, requested_by) =
            match self.policy.decide(&view, Chance::default().fraction()) {
                Decision::Stop(stop) => return Err(stop),
                Decision::Replay { delay, reason, requested_delay, requested_by } => {
                    (delay, reason, requested_delay, requested_by)
                }
            };
        runtime::current().map_err(|_| StopReason::NoTimer)?;
        let budget = RetryBudget::pay(rules.budget.as_ref(), target(request), reason)?;
        let status = result.as_ref().ok().map(Response::status);
        let replayed = Replayed { status, failure, reason, delay, requested_delay };
        replayed.tell(requested_by.as_ref(), budget, false, self.progress.sent);
        self.progress.in_doubt |= repeat != Repeat::Safe && replayed.may_have_acted();
        self.progress.note(replayed, requested_by.is_some_and(|header| header == grpc::PUSHBACK));
        Ok(TowerWait { sleep: (!delay.is_zero()).then(|| Box::pin(tokio::time::sleep(delay))) })
    }

    /// Tells what became of a request.
    fn finish<B, RB>(
        &mut self,
        request: &Request<B>,
        result: &mut Result<Response<RB>, BoxError>,
        stop_reason: StopReason,
    ) {
        let mut progress = mem::replace(&mut self.progress, Progress::first());
        if let Err(error) = result
            && refused(&**error).is_none()
        {
            let classifier = &self.policy.rules().classifier;
            let repeat = Repeat::as_it_is(request.method(), request.headers());
            if classifier.classify(&**error) == Failure::Ambiguous {
                progress.in_doubt |= repeat != Repeat::Safe;
            } else if progress.in_doubt {
                // The earlier error is gone, and this one would speak for that attempt as well.
                *error = "the request was not sent again, and an earlier attempt may have arrived".into();
            }
        }
        let requested_delay = match result {
            Ok(response) => self.policy.requested_delay(&View::answered(response, Repeat::Unsafe)),
            Err(_) => None,
        };
        let rejected =
            result.as_mut().ok().and_then(|response| response.extensions_mut().remove::<TokenRejected>());
        let options = request.extensions().get::<RetryOptions>();
        let report =
            RetryReport::new(report::Inner { requested_delay, rejected, ..progress.end(stop_reason) });
        report.tell(options.and_then(|options| options.slot.as_ref()));
        if let Ok(response) = result {
            response.extensions_mut().insert(report);
        }
    }
}

impl fmt::Debug for TowerPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TowerPolicy").field("policy", &self.policy).finish_non_exhaustive()
    }
}

fn target<B>(request: &Request<B>) -> Target<'_> {
    Target { uri: request.uri(), credential: request.extensions().get() }
}

// --- TowerWait ---

impl Future for TowerWait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().poll(cx),
            None => Poll::Ready(()),
        }
    }
}

impl fmt::Debug for TowerWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TowerWait").finish_non_exhaustive()
    }
}
