//! The service below a client, with its type hidden.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use http::{Request, Response};
use tokio::time::Instant;
use tower::{BoxError, ServiceExt as _};
use tower_service::Service;

use crate::body::Body;
use crate::cache::TokenCache;
use crate::error::Unsent;
use crate::extensions::{BodyDeadline, Deadline};
use crate::http_transport::HttpTransport;
use crate::retry::TimedOut;
use crate::runtime::until;

/// The layers and the HTTP client below an [`ApiClient`](super::ApiClient), with their types hidden. A tower service itself.
///
/// Clones share it. A request with a body in memory costs two allocations more than one of the layers themselves.
///
/// # Examples
///
/// A field for a client over any layers: `ApiClient` is short for `ApiClient<ApiService>`, and [`new`](Self::new) makes one.
///
/// ```
/// use tower_oauth2::ApiClient;
///
/// #[derive(Clone)]
/// struct AppState {
///     api: ApiClient,
/// }
/// # let _ = |state: AppState| state.api;
/// ```
#[derive(Clone)]
pub struct ApiService {
    tokens: TokenCache,
    service: Arc<dyn ErasedLayers>,
    total_timeout: Option<Duration>,
}

type ErasedFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

/// An HTTP service whose types are hidden.
trait ErasedLayers: Send + Sync {
    fn send(&self, request: Request<Body>) -> ErasedFuture;
}

impl<S: HttpTransport> ErasedLayers for S {
    fn send(&self, request: Request<Body>) -> ErasedFuture {
        let mut service = self.clone();
        Box::pin(async move {
            let deadline = request.extensions().get::<Deadline>().copied();
            let mut response = send_in_time(&mut service, request).await?.map(Body::new);
            if let Some(deadline) = deadline {
                response.extensions_mut().insert(BodyDeadline(deadline));
            }
            Ok(response)
        })
    }
}

/// Sends a request, and waits for its response until its deadline. The retries look at that too, but only once they have the request,
/// which may have to wait for that at a limit; and there may be none.
/// It borrows the service, since a future that has its own of both would be twice as large.
pub(super) async fn send_in_time<S>(service: &mut S, request: Request<Body>) -> Result<S::Response, BoxError>
where
    S: Service<Request<Body>, Error: Into<BoxError>>,
{
    let deadline = request.extensions().get().map(|deadline: &Deadline| deadline.of_outer_layers());
    match until(deadline, service.ready()).await {
        Some(ready) => drop(ready.map_err(Into::into)?),
        None => return Err(Unsent::new(TimedOut::Deadline).into()),
    }
    in_time(deadline, service.call(request)).await
}

/// Waits for a result until `end`, and makes an error of it if that passes first.
pub(super) fn in_time<T, E: Into<BoxError>>(
    end: Option<Instant>,
    future: impl Future<Output = Result<T, E>>,
) -> impl Future<Output = Result<T, BoxError>> {
    until(end, future).map(|outcome| match outcome {
        Some(outcome) => outcome.map_err(Into::into),
        None => Err(TimedOut::Deadline.into()),
    })
}

impl ApiService {
    /// Hides the type of layers of your own, so that an `ApiClient` over them needs no parameter either. `tokens` is the
    /// cache that [`ApiClient::tokens`](super::ApiClient::tokens) returns.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower::ServiceBuilder;
    /// use tower_oauth2::client::ApiService;
    /// use tower_oauth2::{AccessToken, ApiClient, AuthLayer, RetryPolicy, TokenCache};
    /// # use tower_oauth2::Body;
    /// # let http_client = tower::service_fn(async |_: http::Request<tower_oauth2::retry::RequestBody<Body>>| {
    /// #     Ok::<_, tower::BoxError>(http::Response::new(Body::empty()))
    /// # });
    ///
    /// let tokens = TokenCache::new(AccessToken::bearer("mF_9.B5f-4.1JqM")?);
    /// let layers = ServiceBuilder::new()
    ///     .layer(RetryPolicy::default())
    ///     .layer(AuthLayer::for_origin(tokens.clone(), "https://api.example.com")?)
    ///     .service(http_client);
    /// let api: ApiClient = ApiClient::new("https://api.example.com/v2", ApiService::new(tokens, layers))?;
    /// # Ok::<(), tower_oauth2::Error>(())
    /// ```
    pub fn new(tokens: TokenCache, service: impl HttpTransport) -> Self {
        Self { tokens, service: Arc::new(service), total_timeout: None }
    }

    /// Sets how long each request may take. The layers are told by a [`Deadline`].
    #[cfg(feature = "stack")]
    pub(super) fn total_timeout(self, total_timeout: Option<Duration>) -> Self {
        Self { total_timeout, ..self }
    }

    pub(super) fn tokens(&self) -> &TokenCache {
        &self.tokens
    }
}

impl Service<Request<Body>> for ApiService {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = ErasedFuture;

    /// Always ready: a request waits for the layers in its own future.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> ErasedFuture {
        if let Some(timeout) = self.total_timeout {
            Deadline::narrow(request.extensions_mut(), timeout);
        }
        self.service.send(request)
    }
}

impl fmt::Debug for ApiService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiService").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}
