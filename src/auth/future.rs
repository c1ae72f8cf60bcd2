//! The future of a response: the inner one watched, or a wait for a token before it.

use std::cell::LazyCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Once};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::BoxError;
use tower_service::Service;

use super::rules::Rules;
use super::terms::Rejection;
use super::ticket::Ticket;
use super::verdict::{Sent, judge, missing_scope};
use crate::cache::{Acquire, Snapshot, TokenCache};
use crate::clock;
use crate::error::Error;
use crate::extensions::{
    Challenges, Deadline, LateRefusal, PastRetry, RejectionVerdict, ScopeMissing, SentToken, TokenRejected,
    TokenWithheld,
};
use crate::headers::{challenge, grpc};
use crate::retry::RetryReport;
use crate::runtime::with_timer;
use crate::text::Redactor;

/// So much of the time of a request is left over, so that its error arrives before it is given up.
const MARGIN: Duration = Duration::from_millis(100);

pin_project! {
    /// The future of [`AuthService`](super::AuthService).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the request. A token request that it waited for goes on for everybody else.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        sent: Option<S::Future>,
        watch: Watch,
        // Boxed: a request that waits is rare, and its size would slow down every other.
        waiting: Option<Box<Waiting<S, B>>>,
    }
}

/// The handling of the response.
pub(super) enum Watch {
    /// Nothing: markers of a layer below stay.
    Nothing,
    /// It is read for what it says about this token.
    Ticket(Arc<Ticket>),
    /// It is marked.
    Withheld(Box<TokenWithheld>),
    /// There will be none.
    Failed(Error),
}

/// A request that waits for a token, and then for a service that was not polled ready yet.
pub(super) struct Waiting<S, B> {
    service: S,
    request: Option<Request<B>>,
    acquire: Option<Acquire>,
    snapshot: Option<Arc<Snapshot>>,
    cache: TokenCache,
    validity: Option<Duration>,
    rules: Arc<Rules>,
    /// The deadline of the request, and the end of its wait for a token: a little earlier, so that its caller learns what was
    /// waited for.
    deadline: Option<Instant>,
    end: Option<Instant>,
    /// When the token in use has to do, if it is valid: with half of the time left. Then the end.
    over: Option<Pin<Box<Sleep>>>,
    makes_do: bool,
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    #[inline]
    pub(super) fn sent(future: S::Future, watch: Watch) -> Self {
        Self { sent: Some(future), watch, waiting: None }
    }

    pub(super) fn failed(error: Error) -> Self {
        Self { sent: None, watch: Watch::Failed(error), waiting: None }
    }

    pub(super) fn waiting(
        service: S,
        request: Request<B>,
        acquire: Acquire,
        cache: TokenCache,
        validity: Option<Duration>,
        rules: Arc<Rules>,
    ) -> Self {
        let deadline = request.extensions().get().map(|at: &Deadline| Instant::from_std(at.instant()));
        let left = deadline.map_or(Duration::ZERO, |at| at.saturating_duration_since(clock::now()));
        let before = |margin| deadline.map(|at| at.checked_sub(margin).unwrap_or(at));
        let end = before(MARGIN.min(left / 10));
        let over = before(left / 2).and_then(|half| with_timer(|| Box::pin(sleep_until(half))).ok());
        let waiting = Waiting {
            service,
            request: Some(request),
            acquire: Some(acquire),
            snapshot: None,
            cache,
            validity,
            rules,
            deadline,
            end,
            over,
            makes_do: false,
        };
        Self { sent: None, watch: Watch::Nothing, waiting: Some(Box::new(waiting)) }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let Some(sent) = this.sent.as_mut().as_pin_mut() {
                let mut response = ready!(sent.poll(context)).map_err(Into::into)?;
                this.watch.read(&mut response);
                return Poll::Ready(Ok(response));
            }
            let Some(waiting) = this.waiting else {
                let error = match std::mem::replace(this.watch, Watch::Nothing) {
                    Watch::Failed(error) => error,
                    Watch::Nothing | Watch::Ticket(_) | Watch::Withheld(_) => {
                        Error::config("the future of a response was polled again after it had ended")
                    }
                };
                return Poll::Ready(Err(error.into()));
            };
            let (future, watch) = match ready!(waiting.poll(context)) {
                Ok(sent) => sent,
                Err(error) => {
                    *this.waiting = None;
                    return Poll::Ready(Err(error));
                }
            };
            this.sent.set(Some(future));
            *this.watch = watch;
            *this.waiting = None;
        }
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("waiting", &self.waiting.is_some()).finish_non_exhaustive()
    }
}

// --- Waiting ---

impl<S, B> Waiting<S, B>
where
    S: Service<Request<B>> + Clone,
    S::Error: Into<BoxError>,
{
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(S::Future, Watch), BoxError>> {
        loop {
            if let Some(acquire) = &mut self.acquire {
                match (Pin::new(acquire).poll(context), &mut self.over) {
                    (Poll::Ready(snapshot), _) => self.snapshot = Some(snapshot?),
                    (Poll::Pending, None) => return Poll::Pending,
                    (Poll::Pending, Some(over)) => {
                        ready!(over.as_mut().poll(context));
                        // A token that is only too close to its end may serve; a fetch that hangs serves nobody.
                        self.makes_do = true;
                        if self.cache.valid().is_none() {
                            match self.end.take() {
                                Some(end) => over.as_mut().reset(end),
                                None => return Poll::Ready(Err(too_late(&self.cache).into())),
                            }
                            continue;
                        }
                    }
                }
                self.acquire = None;
            }
            ready!(self.service.poll_ready(context)).map_err(Into::into)?;
            // Readiness may have taken long: a limit, a buffer. A token that ended meanwhile is not sent, nor one that
            // no longer lives as long as the request wants; only the cache can say that.
            let snapshot = match self.snapshot.take() {
                Some(snapshot) if self.validity.is_none() && snapshot.is_fresh() => snapshot,
                Some(_) | None => {
                    let mut acquire = self.cache.acquire(self.validity);
                    match poll_once(&mut acquire) {
                        Poll::Ready(snapshot) => snapshot?,
                        Poll::Pending => match self.cache.valid().filter(|_| self.makes_do) {
                            Some(valid) => valid,
                            None => {
                                // Before another wait what was reserved is given up again. The wish for a long life was
                                // looked at; a readiness that takes longer every time must not become a loop.
                                self.service = self.service.clone();
                                self.validity = None;
                                self.acquire = Some(acquire);
                                continue;
                            }
                        },
                    }
                }
            };
            let ticket = self.rules.ticket_for(snapshot, &self.cache);
            let Some(mut request) = self.request.take() else {
                return Poll::Ready(Err(Error::config("a request was sent twice by one future").into()));
            };
            // It would be ended as soon as it is sent.
            if self.deadline.is_some_and(|deadline| deadline <= clock::now()) {
                let error = "the deadline of the request passed while it waited for a token; it was not sent";
                return Poll::Ready(Err(Error::transient(error).into()));
            }
            let watch = self.rules.put_on(ticket, &mut request)?;
            return Poll::Ready(Ok((self.service.call(request), watch)));
        }
    }
}

/// The error of a request for which there is no token in time.
fn too_late(cache: &TokenCache) -> Error {
    let mut line = "no token came before the deadline of the request; the token request goes on".to_owned();
    if let Some(error) = cache.status().last_error() {
        line = format!("{line}, after one that failed: {error}");
    }
    Error::transient(line).with_source(io::Error::from(io::ErrorKind::TimedOut))
}

// --- Watch ---

impl Watch {
    #[inline]
    fn read<R>(&mut self, response: &mut Response<R>) {
        if !response.extensions().is_empty() {
            Marked::check(response);
        }
        match self {
            Self::Nothing | Self::Failed(_) => {}
            Self::Ticket(ticket) => {
                if let Some(observer) = &ticket.observer {
                    observer.see(response.status(), response.headers());
                }
                if ticket.terms.is_suspicious(response) {
                    ticket.inspect(response);
                } else if grpc::is_late(response) {
                    ticket.await_trailers(response);
                } else {
                    ticket.accepted_by(response);
                }
            }
            Self::Withheld(marker) => {
                Marked::put(TokenWithheld::clone(marker), response);
            }
        }
    }
}

/// Stands beside the markers that an auth layer sets, and tells one above that they are of this response: a service between
/// that keeps responses, as an HTTP cache does, or that makes markers up, cannot have it for itself.
#[derive(Clone)]
struct Marked {
    held_once: Arc<()>,
}

impl Marked {
    fn put<R, M: Clone + Send + Sync + 'static>(marker: M, response: &mut Response<R>) {
        response.extensions_mut().insert(marker);
        response.extensions_mut().insert(Self { held_once: Arc::new(()) });
    }

    /// Leaves the markers of a layer below, and removes all others: a lie could have a request sent twice.
    #[cold]
    fn check<R>(response: &mut Response<R>) {
        let extensions = response.extensions_mut();
        if extensions.get::<RetryReport>().is_some_and(|report| report.token_rejected().is_none()) {
            warn_of_retries_below();
        }
        if extensions.get_mut::<Self>().is_some_and(|marked| Arc::get_mut(&mut marked.held_once).is_some()) {
            return;
        }
        extensions.remove::<Self>();
        extensions.remove::<TokenRejected>();
        extensions.remove::<TokenWithheld>();
        extensions.remove::<ScopeMissing>();
        extensions.remove::<Challenges>();
    }
}

impl Ticket {
    /// Puts the token on a request. Returns how to handle the response.
    #[inline]
    pub(super) fn put_on<B>(self: Arc<Self>, request: &mut Request<B>) -> Watch {
        match self.terms.stamp(request.headers_mut(), self.value.clone()) {
            true => Watch::Ticket(self),
            false => Watch::Nothing,
        }
    }

    /// Notes that an API took the token, if this response says so. The hot path: as a rule it is known already.
    #[inline]
    fn accepted_by<R>(&self, response: &Response<R>) {
        if !self.snapshot.is_accepted() && self.terms.is_acceptance(response) {
            self.cache.accepted(&self.snapshot);
        }
    }

    /// Lets the reader of the trailers of a gRPC response tell that they refuse the token.
    #[cold]
    fn await_trailers<R>(self: &Arc<Self>, response: &mut Response<R>) {
        let below = response.extensions_mut().remove::<LateRefusal>();
        response.extensions_mut().insert(LateRefusal::new(Arc::<Self>::clone(self), below));
    }

    /// Reads a response that may say something about the token, drops the token if it is to blame, and marks the response.
    #[cold]
    fn inspect<R>(self: &Arc<Self>, response: &mut Response<R>) {
        // A layer below has found its own token to be at fault, and dropped it: nothing speaks against this one.
        if response.extensions().get::<TokenRejected>().is_some_and(TokenRejected::may_replay) {
            return;
        }
        if response.extensions_mut().remove::<PastRetry>().is_some() {
            warn_of_retries_below();
        }
        let refusal = self.terms.refusal(response);
        let challenges = challenge::of(response.headers());
        let token = self.snapshot.token();
        // Made only where there is something to show: a server that refuses everything must not cost more than that.
        let redactor = LazyCell::new(|| {
            let mut redactor = Redactor::default();
            token.teach(&mut redactor);
            redactor
        });
        let clean = |text: &str| redactor.clean(text);

        let missing = missing_scope(&challenges, token.scheme())
            .filter(|_| refusal != Rejection::None || response.status() == http::StatusCode::FORBIDDEN);
        if !challenges.is_empty() && (refusal != Rejection::None || missing.is_some()) {
            Marked::put(Challenges::new(challenge::without_secrets(&challenges, &redactor)), response);
        }
        if let Some(scope) = missing {
            // An API that asks for more scope has taken the token itself.
            self.cache.accepted(&self.snapshot);
            Marked::put(ScopeMissing::new(scope.map(clean)), response);
        }
        let blamed = match refusal {
            Rejection::None => {
                match grpc::is_late(response) {
                    true => self.await_trailers(response),
                    false => self.accepted_by(response),
                }
                return;
            }
            Rejection::Token => Some(true),
            Rejection::Request => Some(false),
            Rejection::Standard => None,
        };
        let sent = Sent { scheme: token.scheme(), suspect: self.cache.is_suspect(&self.snapshot) };
        let judgement = judge(&challenges, sent, self.terms.strict);
        let verdict = match blamed.unwrap_or(judgement.blamed) {
            true => self.cache.reject(token),
            false => RejectionVerdict::NotRefreshable,
        };
        let (error, description) = (judgement.error.map(clean), judgement.description.map(clean));
        let (id, obtained) = (token.id(), self.snapshot.obtained());
        tracing::debug!(id, status = response.status().as_u16(), ?verdict, error, "an API refused a token");
        Marked::put(TokenRejected::new(verdict, error, description).of_token(id, obtained), response);
    }
}

/// Warns once, where it can be seen: the retry layer below has a report to make, or has marked a 401.
fn warn_of_retries_below() {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        tracing::warn!(
            "auth stands above retry: a request is sent again with the same token, and not at all when the token is refused; \
             put RetryPolicy above AuthLayer, or use Stack"
        );
    });
}

impl SentToken for Ticket {
    fn accepted(&self) {
        if !self.snapshot.is_accepted() {
            self.cache.accepted(&self.snapshot);
        }
    }

    fn refused(&self) -> TokenRejected {
        let token = self.snapshot.token();
        let (id, obtained) = (token.id(), self.snapshot.obtained());
        let verdict = self.cache.reject(token);
        tracing::debug!(id, ?verdict, "an API refused a token in its trailers");
        TokenRejected::new(verdict, None, None).of_token(id, obtained)
    }
}

/// Polls without a task that could be woken: the task that goes on with a pending one polls it again with its own.
pub(super) fn poll_once(acquire: &mut Acquire) -> Poll<<Acquire as Future>::Output> {
    Pin::new(acquire).poll(&mut Context::from_waker(std::task::Waker::noop()))
}
