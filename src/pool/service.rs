//! The service of a pool, which gives each request a token.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower::{BoxError, ServiceExt as _};
use tower_layer::Layer;
use tower_service::Service;

use super::token_pool::{PoolShared, TokenChoice, TokenLoan, TokenPool};
use crate::auth::AuthOverride;
use crate::clock;
use crate::extensions::Deadline;
use crate::retry::{Before, RequestBody, RetryOptions, RetryReport, StopReason};

/// Gives each request a token of a [`TokenPool`]. The rules are on the page of the [module](super).
///
/// # Cancel safety
///
/// Dropping the future of a response drops the request, and gives its room back.
#[derive(Clone, Debug)]
#[allow(
    unnameable_types,
    reason = "it is the service of the layer, and goes behind ApiService where it must be named"
)]
pub struct PoolService<S> {
    inner: S,
    pool: TokenPool,
}

/// Boxed, since it is an `async` block: a request may wait in line and go to one token after the other.
type PoolFuture<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// How often a request that all tokens have refused is sent again when one has room.
const WAITS: usize = 2;

// --- The layer ---

impl<S> Layer<S> for TokenPool {
    type Service = PoolService<S>;

    fn layer(&self, inner: S) -> PoolService<S> {
        PoolService { inner, pool: self.clone() }
    }
}

// --- PoolService ---

impl<S, B, RB> Service<Request<B>> for PoolService<S>
where
    S: Service<Request<RequestBody<B>>, Response = Response<RB>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError> + Send,
    RB: Send + 'static,
{
    type Response = Response<RB>;
    type Error = BoxError;
    type Future = PoolFuture<Response<RB>>;

    /// Forwards. A request that waits for a token gives up what `poll_ready` reserved.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let spare = self.inner.clone();
        let ready = mem::replace(&mut self.inner, spare.clone());
        let sending = Sending { pool: Arc::clone(&self.pool.inner), spare };
        Box::pin(sending.send(ready, request))
    }
}

struct Sending<S> {
    pool: Arc<PoolShared>,
    spare: S,
}

impl<S> Sending<S> {
    async fn send<B, RB>(self, mut ready: S, request: Request<B>) -> Result<Response<RB>, BoxError>
    where
        S: Service<Request<RequestBody<B>>, Response = Response<RB>> + Clone,
        S::Error: Into<BoxError>,
        B: Body + Unpin,
        B::Error: Into<BoxError>,
    {
        let (mut head, body) = request.into_parts();
        // Only what is in memory is shared; what else can be sent again is for the retry layer below.
        let mut body = RequestBody::new(body);
        let latest = clock::after(clock::now(), self.pool.longest_wait);
        let deadline =
            head.extensions.get::<Deadline>().map(|deadline| Instant::from_std(deadline.instant()));
        let latest = deadline.map_or(latest, |deadline| deadline.min(latest));
        let own = head.extensions.get::<AuthOverride>().cloned().unwrap_or_else(AuthOverride::layer);
        if !own.leaves_choice() {
            return ready.call(Request::from_parts(head, body)).await.map_err(Into::into);
        }
        let mut service = Some(ready);
        let mut left = self.pool.size() + WAITS;
        loop {
            let loan = match self.pool.at_once() {
                Some(loan) => loan,
                None => {
                    // A request that waits holds nothing that others wait for.
                    service = None;
                    self.pool.in_line(latest).await
                }
            };
            let spare = if left == 0 { None } else { body.shared() };
            let mut request = Request::from_parts(head.clone(), body);
            request.extensions_mut().insert(own.clone().choosing(loan.member.lent.clone()));
            request.extensions_mut().insert(loan.member.credential.clone());
            let response = match service.take() {
                Some(mut ready) => ready.call(request).await,
                None => self.spare.clone().oneshot(request).await,
            };
            let response = response.map_err(Into::into)?;
            // The pool has learned from it when it came. That may be a while ago: a retry may have got no response since.
            let is_refused = loan.member.limits.is_refusal(response.status(), response.headers());
            let report = response.extensions().get::<RetryReport>();
            let Some(spare) = spare.filter(|_| is_refused && report.is_none_or(may_be_sent_again)) else {
                return Ok(response);
            };
            if clock::now() >= latest {
                return Ok(response);
            }
            if report.is_some_and(RetryReport::may_have_acted) {
                head.extensions.get_or_insert_default::<RetryOptions>().come_after(Before::Doubt);
            }
            let from = loan.member.credential.as_str();
            tracing::debug!(from, "the request goes to the next token of the pool that has room");
            (body, left) = (spare, left - 1);
        }
    }
}

/// Returns whether a request that was refused for a limit may be sent again: nothing but the wait kept it from that.
fn may_be_sent_again(report: &RetryReport) -> bool {
    matches!(
        report.stop_reason(),
        StopReason::AttemptsExhausted
            | StopReason::DelayExceedsCap { .. }
            | StopReason::DeadlineTooClose { .. }
            | StopReason::WaitsExhausted { .. }
    )
}

// --- Waiting ---

impl PoolShared {
    /// Returns a token if there is room, and if no other request waits for it.
    fn at_once(self: &Arc<Self>) -> Option<TokenLoan> {
        if self.is_waited_for() {
            return None;
        }
        match self.choose() {
            TokenChoice::Token(loan) => Some(loan),
            TokenChoice::Wait { .. } => None,
        }
    }

    /// Waits in line for a token with room, no longer than to `latest`.
    async fn in_line(self: &Arc<Self>, latest: Instant) -> TokenLoan {
        struct InLine<'a>(&'a PoolShared);

        impl Drop for InLine<'_> {
            fn drop(&mut self) {
                self.0.waiting.fetch_sub(1, Relaxed);
            }
        }

        // Behind others it would learn too late that it waits in vain.
        if self.opens_at().is_some_and(|at| at >= latest) {
            return self.lend_any();
        }
        self.waiting.fetch_add(1, Relaxed);
        let _in_line = InLine(self);
        let turn = async {
            // First come, first served. It is never closed.
            let _turn = self.line.acquire().await;
            loop {
                match self.choose() {
                    TokenChoice::Token(loan) => return loan,
                    TokenChoice::Wait { until, starting } => {
                        TokenChoice::wait(until, starting, &self.freed).await
                    }
                }
            }
        };
        tokio::time::timeout_at(latest, turn).await.unwrap_or_else(|_| self.lend_any())
    }
}
