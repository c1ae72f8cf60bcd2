//! The service: finds out what a request gets, and puts it on.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tower::BoxError;
use tower_service::Service;

use super::future::{ResponseFuture, Watch, poll_once};
use super::rules::{Route, Rules};
use super::ticket::Ticket;
use crate::cache::TokenCache;
use crate::error::Error;

/// Puts access tokens on outgoing requests, and watches the responses: see [`AuthLayer`](super::AuthLayer).
///
/// A request whose token is at hand goes to the instance that was polled ready. Where it has to wait for a token that
/// instance is given up first, together with everything that it reserved, and a clone is polled ready afterwards; so a token
/// request may go through the same limited client.
///
/// # Examples
///
/// A field names the type by the client below:
///
/// ```
/// use tower::{Layer as _, ServiceExt as _};
/// use tower_oauth2::auth::AuthService;
/// # use http::{Request, Response};
/// # use tower::BoxError;
/// # use tower_oauth2::{AccessToken, AuthLayer, Body};
/// # type Client = tower::util::BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;
/// # let http_client = Client::new(tower::service_fn(async |request: Request<Body>| {
/// #     assert_eq!(request.headers()["authorization"], "Bearer mF_9.B5f-4.1JqM");
/// #     Ok(Response::new(Body::empty()))
/// # }));
///
/// #[derive(Clone)]
/// struct Orders {
///     api: AuthService<Client>,
/// }
///
/// let token = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
/// let layer = AuthLayer::for_origin(token, "https://api.example.com")?;
/// let orders = Orders { api: layer.layer(http_client) };
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let request = Request::get("https://api.example.com/orders").body(Body::empty())?;
/// orders.api.oneshot(request).await?;
/// # Ok::<_, BoxError>(()) })?;
/// # Ok::<_, BoxError>(())
/// ```
pub struct AuthService<S> {
    inner: S,
    rules: Arc<Rules>,
    /// This instance's own copy of the ticket, from its second use on. Never a ticket of an override.
    own: Option<Arc<Ticket>>,
    used: bool,
}

impl<S> AuthService<S> {
    pub(super) fn new(inner: S, rules: Arc<Rules>) -> Self {
        Self { inner, rules, own: None, used: false }
    }

    /// Returns the layer's ticket if it is fresh. The hot path: an instance that is used once reads what all share, one
    /// that is used again touches only what is its own.
    #[inline]
    fn ticket(&mut self) -> Option<Arc<Ticket>> {
        if let Some(own) = &self.own
            && own.snapshot.is_fresh()
        {
            return Some(Arc::clone(own));
        }
        self.shared_ticket()
    }

    fn shared_ticket(&mut self) -> Option<Arc<Ticket>> {
        let shared = self.rules.ticket()?;
        if !mem::replace(&mut self.used, true) {
            return Some(shared);
        }
        let own = shared.private();
        self.own = Some(Arc::clone(&own));
        Some(own)
    }
}

impl<S: Clone> AuthService<S> {
    /// Gives up the instance that was polled ready, and what it reserved with it.
    fn release(&mut self) -> S {
        let spare = self.inner.clone();
        drop(mem::replace(&mut self.inner, spare.clone()));
        spare
    }
}

impl<S: Clone> Clone for AuthService<S> {
    /// A clone shares by reference count. It takes no ticket along: most clones serve one request.
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), rules: Arc::clone(&self.rules), own: None, used: false }
    }
}

impl<S: fmt::Debug> fmt::Debug for AuthService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthService")
            .field("inner", &self.inner)
            .field("options", self.rules.options())
            .finish_non_exhaustive()
    }
}

impl<S, B, R> Service<Request<B>> for AuthService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B>;

    /// Forwards. Nothing of a token is reserved here: no service knows where the next request goes.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // Most requests end here. The rest is a function of its own, so that a request is not moved about before it is
        // known which way it goes: it is large.
        if self.rules.is_default(&request)
            && let Some(ticket) = self.ticket()
        {
            let watch = ticket.put_on(&mut request);
            return ResponseFuture::sent(self.inner.call(request), watch);
        }
        self.call_otherwise(request)
    }
}

impl<S: Clone> AuthService<S> {
    #[cold]
    fn call_otherwise<B>(&mut self, mut request: Request<B>) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        match self.rules.route(&mut request) {
            Route::Token { cache, validity } => self.fetch(request, cache, validity),
            Route::Pass => {
                self.rules.terms().strip(request.headers_mut());
                ResponseFuture::sent(self.inner.call(request), Watch::Nothing)
            }
            Route::Withhold(reason, cache) => {
                let watch = self.rules.send_without(reason, cache.as_ref(), &mut request);
                ResponseFuture::sent(self.inner.call(request), watch)
            }
            Route::Refuse(error) => self.fail(error),
        }
    }

    /// Gets a token that is not at hand: at once if the cache has it, or by a wait.
    fn fetch<B>(
        &mut self,
        mut request: Request<B>,
        cache: Option<TokenCache>,
        validity: Option<Duration>,
    ) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        let Some(cache) = cache.or_else(|| self.rules.cache().cloned()) else {
            return self.fail(Error::config(
                "the layer has no token of its own; name a cache in the request's AuthOverride",
            ));
        };
        let mut acquire = cache.acquire(validity);
        match poll_once(&mut acquire) {
            Poll::Ready(Ok(snapshot)) => {
                let ticket = self.rules.ticket_for(snapshot, &cache);
                match self.rules.put_on(ticket, &mut request) {
                    Ok(watch) => ResponseFuture::sent(self.inner.call(request), watch),
                    Err(error) => self.fail(error),
                }
            }
            Poll::Ready(Err(error)) => self.fail(error),
            Poll::Pending => {
                let spare = self.release();
                ResponseFuture::waiting(spare, request, acquire, cache, validity, Arc::clone(&self.rules))
            }
        }
    }

    /// Ends a request that is not sent. Fails closed: no token, no request.
    fn fail<B>(&mut self, error: Error) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        drop(self.release());
        ResponseFuture::failed(error)
    }
}
