//! Forwards requests from axum to an API, with the gateway's token in place of the caller's. Bodies are streamed.
//!
//! ```sh
//! cargo run --example axum_gateway
//! ```

#![allow(clippy::print_stdout, reason = "an example prints")]

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::{Router, routing::any};
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::auth::AuthService;
use tower_oauth2::retry::RetryService;
use tower_oauth2::test_util::{FakeApi, FakeAuthorizationServer, FakeClient, Loopback};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{AuthLayer, ClientCredentials, RetryPolicy, TokenCache};

/// Headers that stay here: the caller's proof, the gateway's name, and those of one connection (RFC 9110 §7.6.1).
const OURS: &str = "authorization,cookie,host,connection,keep-alive,proxy-authenticate,proxy-authorization,\
                    proxy-connection,te,trailer,transfer-encoding,upgrade";

/// Clones share connections and the token.
#[derive(Clone)]
struct Gateway {
    upstream: String,
    client: RetryService<AuthService<HyperClient>>,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // These stand for your provider and your API.
    let client = FakeClient::confidential("gateway", "hunter2");
    let provider = FakeAuthorizationServer::builder().client(client).start().await?;
    let reports = Router::new().route("/reports", any(async |body: String| format!("a report on {body}")));
    let upstream = FakeApi::builder(&provider).service(reports).start().await?;

    let source = ClientCredentials::builder(provider.token_url(), "gateway", "hunter2").build()?;
    let tokens = TokenCache::new(source);
    // The token is there before the first request, and a wrong secret ends the program here.
    tokens.get().await?;
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(tokens, upstream.origin())?)
        .service(HyperClient::new());
    let gateway = Gateway { upstream: upstream.origin(), client };
    let app = Router::new().route("/reports", any(forward)).with_state(gateway);

    // In a program of yours: `axum::serve(listener, app).await?`.
    let server = Loopback::start(app).await?;
    let caller = reqwest::Client::new().post(format!("{}/reports", server.origin()));
    let response = caller.bearer_auth("a key of the caller").body("November").send().await?;
    println!("{}: {}", response.status(), response.text().await?);
    Ok(())
}

/// Check here who calls, and whether the call is allowed.
async fn forward(State(gateway): State<Gateway>, mut request: Request) -> Result<Response, StatusCode> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = (gateway.upstream + path).parse().map_err(|_| StatusCode::BAD_REQUEST)?;
    strip(request.headers_mut());
    match gateway.client.oneshot(request).await {
        Ok(mut response) => {
            strip(response.headers_mut());
            Ok(response.map(Body::new))
        }
        Err(error) => {
            println!("the API could not be called: {error}");
            Err(StatusCode::BAD_GATEWAY)
        }
    }
}

fn strip(headers: &mut HeaderMap) {
    let listed = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = listed.chain([OURS]).collect::<Vec<_>>().join(",");
    names.split(',').for_each(|name| drop(headers.remove(name.trim())));
}
