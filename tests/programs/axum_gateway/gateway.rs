//! The gateway: who calls, with whose token it calls on, and how it ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Router, response::Response, routing::get};
use tokio::net::TcpListener;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::auth::{AuthOverride, AuthService};
use tower_oauth2::cache::TokenCacheBuilder;
use tower_oauth2::extensions::CredentialId;
use tower_oauth2::retry::RetryService;
use tower_oauth2::tenants::TenantCaches;
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{AuthLayer, Error, ErrorKind, RetryPolicy, TokenCache};

/// How long token requests may go on at the end, and tokens be revoked.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Headers for the gateway itself: who calls it, by which name, and hop by hop (RFC 9110 §7.6.1).
const OURS: &str = "authorization,cookie,host,connection,keep-alive,proxy-authenticate,proxy-authorization,\
                    proxy-connection,te,trailer,transfer-encoding,upgrade";

/// The paths of the upstream that are open to any caller, in the gateway's own name. It lists what is allowed, not what is not: a
/// path can be written in many ways, and the gateway's token may open more than a caller should see.
const SHARED: [&str; 2] = ["/headers", "/echo"];

/// `/mine/...` is the part of the upstream that belongs to the caller's tenant, and `/ready` is for load balancers.
#[derive(Clone)]
pub(crate) struct Gateway {
    upstream: String,
    /// One for all requests: clones share connections.
    client: RetryService<AuthService<HyperClient>>,
    own: TokenCache,
    tenants: TenantCaches<String>,
    /// Which tenant a caller's key belongs to. It stands for however you know your callers.
    callers: Arc<HashMap<String, String>>,
    is_leaving: Arc<AtomicBool>,
}

impl Gateway {
    pub(crate) fn new(
        upstream: String,
        own: TokenCache,
        tenant: impl Fn(&String) -> Result<TokenCacheBuilder, Error> + Send + Sync + 'static,
        callers: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let auth = AuthLayer::for_origin(own.clone(), upstream.as_str())?.replace_authorization(true);
        let client =
            ServiceBuilder::new().layer(RetryPolicy::default()).layer(auth).service(HyperClient::new());
        let callers = Arc::new(callers.into_iter().collect());
        let is_leaving = Arc::default();
        Ok(Self { upstream, client, own, tenants: TenantCaches::new(tenant), callers, is_leaving })
    }

    /// Serves until `stop`, then says so to load balancers and serves on for the time of `notice`. Then it finishes what is on
    /// its way, and gives its tokens back.
    pub(crate) async fn run(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
        notice: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), BoxError> {
        // There is a token before the first request, and a wrong secret shows at once: in `/ready`.
        self.own.keep_warm()?;
        let is_leaving = Arc::clone(&self.is_leaving);
        let left = async move {
            stop.await;
            is_leaving.store(true, Relaxed);
            notice.await;
        };
        let router = Router::new().route("/ready", get(ready)).fallback(forward).with_state(self.clone());
        axum::serve(listener, router).with_graceful_shutdown(left).await?;
        // Only now is no token needed any more.
        let (own, tenants) = tokio::join!(self.own.shutdown(LAST_WORDS), self.tenants.shutdown(LAST_WORDS));
        own.and(tenants).map_err(Into::into)
    }

    fn tenant(&self, headers: &HeaderMap) -> Option<&str> {
        let key = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
        self.callers.get(key).map(String::as_str)
    }
}

/// For a load balancer: whether a request would find a token. There is no secret in it. The tenants' caches are left out:
/// where one of them has lost its credentials, the others should not lose the gateway.
async fn ready(State(gateway): State<Gateway>) -> (StatusCode, String) {
    let status = gateway.own.status();
    let is_ready = status.is_ready() && !gateway.is_leaving.load(Relaxed);
    let code = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, format!("{}\n", status.health()))
}

async fn forward(State(gateway): State<Gateway>, request: Request) -> Result<Response, StatusCode> {
    let tenant = gateway.tenant(request.headers()).ok_or(StatusCode::UNAUTHORIZED)?.to_owned();
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    if climbs(head.uri.path()) {
        return Err(StatusCode::BAD_REQUEST);
    }

    // What else came along, in the extensions, belongs to the server: the request upstream is a new one.
    let mut onward = Request::new(body);
    let path = match path.strip_prefix("/mine/") {
        Some(rest) => {
            let cache = gateway.tenants.get(&tenant).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
            onward.extensions_mut().insert(AuthOverride::cache(cache));
            onward.extensions_mut().insert(CredentialId::new(tenant.as_str()));
            format!("/tenants/{tenant}/{rest}")
        }
        None if SHARED.contains(&head.uri.path()) => path.to_owned(),
        None => return Err(StatusCode::NOT_FOUND),
    };
    *onward.method_mut() = head.method;
    *onward.uri_mut() = (gateway.upstream + &path).parse().map_err(|_| StatusCode::BAD_REQUEST)?;
    *onward.headers_mut() = head.headers;
    strip(onward.headers_mut());

    let mut response = gateway.client.oneshot(onward).await.map_err(|error| status_of(&error))?;
    strip(response.headers_mut());
    Ok(response.map(Body::new))
}

/// Returns whether a path would lead out of where it is put, once a server upstream has resolved it. An encoded sign, which
/// could be anything after the second reading, counts as one that does.
fn climbs(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    ["%2e", "%2f", "%5c", "%25", "\\", ";"].iter().any(|sign| path.contains(sign))
        || path.split('/').any(|segment| segment == ".." || segment == ".")
}

fn strip(headers: &mut HeaderMap) {
    let listed = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = listed.chain([OURS]).collect::<Vec<_>>().join(",");
    names.split(',').for_each(|name| drop(headers.remove(name.trim())));
}

/// What a caller is told of an error. All else is for the log.
fn status_of(error: &BoxError) -> StatusCode {
    match error.downcast_ref::<Error>() {
        Some(error) if error.kind() == ErrorKind::Throttled => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_GATEWAY,
    }
}
