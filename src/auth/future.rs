//! The future of a response: the inner one with an eye on its answer, or a wait for a token before it.

use std::cell::LazyCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::BoxError;
use tower_service::Service;

use super::rules::Rules;
use super::terms::Rejection;
use super::ticket::Ticket;
use super::verdict::{Sent, judge, missing_scope};
use crate::cache::{Acquire, Snapshot, TokenCache};
use crate::clock;
use crate::error::TokenError;
use crate::extensions::{
    LateRefusal, RejectionVerdict, ScopeMissing, SentToken, TokenRejected, TokenWithheld,
};
use crate::headers::{challenge, grpc};
use crate::text::Redactor;

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

/// What is done with the answer.
pub(super) enum Watch {
    /// Nothing, but for markers that came from elsewhere.
    Nothing,
    /// It is read for what it says about this token.
    Ticket(Arc<Ticket>),
    /// It is marked.
    Withheld(Box<TokenWithheld>),
    /// There will be none.
    Failed(TokenError),
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
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    #[inline]
    pub(super) fn sent(future: S::Future, watch: Watch) -> Self {
        Self { sent: Some(future), watch, waiting: None }
    }

    pub(super) fn failed(error: TokenError) -> Self {
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
        let (request, acquire) = (Some(request), Some(acquire));
        let waiting = Waiting { service, request, acquire, snapshot: None, cache, validity, rules };
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
                let response = ready!(sent.poll(context)).map_err(Into::into)?;
                return Poll::Ready(Ok(this.watch.read(response)));
            }
            let Some(waiting) = this.waiting else {
                let error = match std::mem::replace(this.watch, Watch::Nothing) {
                    Watch::Failed(error) => error,
                    Watch::Nothing | Watch::Ticket(_) | Watch::Withheld(_) => {
                        TokenError::config("the future of a response was polled again after it had ended")
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
                let snapshot = ready!(Pin::new(acquire).poll(context))?;
                self.snapshot = Some(snapshot);
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
                        Poll::Pending => {
                            // Before another wait what was reserved is given up again. The wish for a long life was
                            // looked at; a readiness that takes longer every time must not become a loop.
                            self.service = self.service.clone();
                            self.validity = None;
                            self.acquire = Some(acquire);
                            continue;
                        }
                    }
                }
            };
            let ticket = self.rules.ticket_for(snapshot, &self.cache);
            let Some(mut request) = self.request.take() else {
                return Poll::Ready(Err(TokenError::config("a request was sent twice by one future").into()));
            };
            let watch = ticket.put_on(&mut request);
            return Poll::Ready(Ok((self.service.call(request), watch)));
        }
    }
}

// --- Watch ---

impl Watch {
    #[inline]
    fn read<R>(&mut self, mut response: Response<R>) -> Response<R> {
        if !response.extensions().is_empty() {
            forget_markers(&mut response);
        }
        match self {
            Self::Nothing | Self::Failed(_) => {}
            Self::Ticket(ticket) => {
                if ticket.terms.is_suspicious(&response) {
                    ticket.inspect(&mut response);
                } else if response.status().is_success() {
                    ticket.snapshot.accept();
                }
                if grpc::is_late(&response) {
                    ticket.await_trailers(&mut response);
                }
            }
            Self::Withheld(marker) => {
                response.extensions_mut().insert(TokenWithheld::clone(marker));
            }
        }
        response
    }
}

/// A marker that auth did not set is a lie, or one of an inner layer for another request.
#[cold]
fn forget_markers<R>(response: &mut Response<R>) {
    let extensions = response.extensions_mut();
    extensions.remove::<TokenRejected>();
    extensions.remove::<TokenWithheld>();
    extensions.remove::<ScopeMissing>();
    extensions.remove::<LateRefusal>();
}

impl Ticket {
    /// Puts the token on a request. What comes back is what is to be done with the answer.
    #[inline]
    pub(super) fn put_on<B>(self: Arc<Self>, request: &mut Request<B>) -> Watch {
        match self.terms.stamp(request.headers_mut(), self.value.clone()) {
            true => Watch::Ticket(self),
            false => Watch::Nothing,
        }
    }

    /// Lets whoever reads the trailers of a gRPC answer tell that they refuse the token.
    #[cold]
    fn await_trailers<R>(self: &Arc<Self>, response: &mut Response<R>) {
        let ticket = Arc::clone(self);
        response.extensions_mut().insert(LateRefusal::new(ticket));
    }

    /// Reads an answer that may say something about the token, drops the token if it is to blame, and marks the answer.
    #[cold]
    fn inspect<R>(&self, response: &mut Response<R>) {
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

        if let Some(scope) = missing_scope(&challenges, token.scheme())
            && (refusal != Rejection::No || response.status() == http::StatusCode::FORBIDDEN)
        {
            // Whoever asks for more scope has taken the token itself.
            self.snapshot.accept();
            response.extensions_mut().insert(ScopeMissing::new(scope.map(clean)));
        }
        let blamed = match refusal {
            Rejection::No => {
                if response.status().is_success() {
                    self.snapshot.accept();
                }
                return;
            }
            Rejection::OfTheToken => Some(true),
            Rejection::OfTheRequest => Some(false),
            Rejection::ByTheRules => None,
        };
        let sent = Sent {
            scheme: token.scheme(),
            accepted: self.snapshot.was_accepted(),
            age: token
                .obtained()
                .map_or(Duration::ZERO, |obtained| clock::now().saturating_duration_since(obtained.mono)),
            superseded: self.snapshot.is_retired(),
        };
        let judgement = judge(&challenges, sent, self.terms.strict);
        let verdict = match blamed.unwrap_or(judgement.blamed) {
            true => self.cache.reject(token),
            false => RejectionVerdict::NotRefreshable,
        };
        let (error, description) = (judgement.error.map(clean), judgement.description.map(clean));
        tracing::debug!(status = %response.status(), ?verdict, error, "an API refused a token");
        response.extensions_mut().insert(TokenRejected::new(verdict, error, description));
    }
}

impl SentToken for Ticket {
    fn refused(&self) -> TokenRejected {
        let verdict = self.cache.reject(self.snapshot.token());
        tracing::debug!(?verdict, "an API refused a token in its trailers");
        TokenRejected::new(verdict, None, None)
    }
}

/// Polls without a task that could be woken: whoever goes on with a pending one polls it again with its own.
pub(super) fn poll_once(acquire: &mut Acquire) -> Poll<<Acquire as Future>::Output> {
    Pin::new(acquire).poll(&mut Context::from_waker(std::task::Waker::noop()))
}
