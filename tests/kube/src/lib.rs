//! The page `guide::kube`, compiled, and a cluster in memory that holds it to its word.

// --- The code of the page, letter by letter ---
use kube_client::client::ConfigExt as _;
use kube_client::{Client, Config};
use tower::{BoxError, ServiceBuilder};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{AuthLayer, RetryPolicy, TokenSource};

fn cluster(config: &Config, source: impl TokenSource) -> Result<Client, BoxError> {
    let http = HyperClient::new();
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(source, config.cluster_url.to_string())?)
        .service(http);
    Ok(Client::new(service, config.default_namespace.as_str()))
}
// --- The end of it ---

/// Keeps the page's function in use where tests are not compiled.
pub fn connect(config: &Config, source: impl TokenSource) -> Result<Client, BoxError> {
    cluster(config, source)
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use tower::service_fn;
    use tower_oauth2::ClientCredentials;
    use tower_oauth2::test_util::{FakeApi, FakeAuthorizationServer, FakeClient};

    use super::*;

    #[tokio::test]
    async fn a_revoked_token_is_replaced_below_a_client_of_kubes() {
        let client = FakeClient::confidential("operator", "hunter2");
        let server = FakeAuthorizationServer::builder().client(client).start().await.unwrap();
        let pods = service_fn(async |request: Request<tower_oauth2::Body>| {
            Ok::<_, BoxError>(Response::new(tower_oauth2::Body::from(format!(
                "{{\"path\":\"{}\"}}",
                request.uri().path()
            ))))
        });
        let api = FakeApi::builder(&server).service(pods).start().await.unwrap();
        let source = ClientCredentials::builder(server.token_url(), "operator", "hunter2").build().unwrap();
        let client = cluster(&Config::new(api.origin().parse().unwrap()), source).unwrap();
        for _ in 0..2 {
            let request = Request::get("/api/v1/pods").body(Vec::new()).unwrap();
            let answer: serde_json::Value = client.request(request).await.unwrap();
            assert_eq!(answer["path"], "/api/v1/pods");
            server.revoke_all();
        }
        let counts = api.counts();
        assert_eq!((counts.ok, counts.revoked, server.counts().tokens), (2, 1, 2));
    }
}
