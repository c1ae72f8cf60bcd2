//! An axum service that calls an upstream with tokens of its own: what callers prove to *it* with goes no further.

#![allow(clippy::print_stdout, reason = "an example shows what it did")]

mod support;

use std::process::ExitCode;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Router, response::Response, routing::get};
use http_body_util::BodyExt as _;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::auth::AuthService;
use tower_oauth2::retry::{ReplayBody, RetryService};
use tower_oauth2::{AuthLayer, ClientCredentials, RetryPolicy, TokenCache, transport::hyper::Client};

/// One for all requests: clones share connections and tokens.
#[derive(Clone)]
struct Gateway {
    client: RetryService<AuthService<Client<ReplayBody<Body>>>>,
    cache: TokenCache,
    upstream: String,
}

/// Headers for the gateway itself: who calls it, by which name, and hop by hop (RFC 9110 §7.6.1).
const OURS: &str = "authorization,cookie,host,connection,keep-alive,proxy-authenticate,proxy-authorization,\
                    proxy-connection,te,trailer,transfer-encoding,upgrade";

fn strip(headers: &mut HeaderMap) {
    let listed = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = listed.chain([OURS]).collect::<Vec<_>>().join(",");
    names.split(',').for_each(|name| drop(headers.remove(name.trim())));
}

async fn forward(State(gateway): State<Gateway>, mut request: Request) -> Result<Response, StatusCode> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = (gateway.upstream + path).parse().map_err(|_| StatusCode::BAD_REQUEST)?;
    strip(request.headers_mut());
    let mut answer = gateway.client.oneshot(request).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    strip(answer.headers_mut());
    Ok(answer.map(Body::new))
}

/// For a load balancer: whether a request would find a token. There is no secret in it.
async fn health(State(gateway): State<Gateway>) -> (StatusCode, String) {
    let status = gateway.cache.status();
    let code = if status.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, format!("{:?}\n", status.health()))
}

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let client = support::Client::confidential("gateway", "hunter2");
    let server = support::AuthorizationServer::builder().client(client).start().await?;
    let upstream = support::Api::builder(&server).start().await?;
    let cache = ClientCredentials::builder(server.token_url(), "gateway", "hunter2").build()?.into();
    let auth = AuthLayer::for_origin(TokenCache::clone(&cache), upstream.origin())?;
    let client = ServiceBuilder::new().layer(RetryPolicy::default()).layer(auth).service(Client::new());
    let state = Gateway { client, cache, upstream: upstream.origin() };
    let router = Router::new().route("/health", get(health)).fallback(forward).with_state(state);
    let gateway = support::Listener::start(router).await?;

    // A caller whose proofs must not come through. The upstream answers with the headers that it got.
    let (caller, url) = (Client::<Body>::new(), gateway.origin());
    let mut request = Request::get(format!("{url}/headers")).header("connection", "x-hop");
    for name in ["authorization", "cookie", "host", "x-hop", "keep-alive", "te", "x-kept"] {
        request = request.header(name, "planted");
    }
    let answer = caller.clone().oneshot(request.body(Body::empty())?).await?.collect().await?;
    let answer = String::from_utf8(answer.to_bytes().into())?;
    let health = caller.oneshot(Request::get(url + "/health").body(Body::empty())?).await?.status();

    let kept = answer.matches("x-kept: planted").count();
    let planted = answer.matches("planted").count() - kept;
    println!("axum_gateway: secrets_passed_on={planted} others_passed_on={kept} health={health}");
    Ok(ExitCode::from(u8::from((planted, kept, health) != (0, 1, StatusCode::OK))))
}
