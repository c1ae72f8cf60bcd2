//! How a gRPC service finds out whether a token is good: it asks the server that issued it (RFC 7662).

#![allow(unreachable_pub, reason = "several tests share it")]

use http::Request;
use http_body_util::BodyExt as _;
use tonic::metadata::MetadataMap;
use tower::{BoxError, ServiceExt as _};
use tower_oauth2::Body;
use tower_oauth2::transport::HyperClient;

/// An authorization server's introspection endpoint, as one of its clients sees it.
#[derive(Clone, Debug)]
pub struct Introspection {
    pub url: String,
    pub client_id: &'static str,
    pub client_secret: &'static str,
    pub http_client: HyperClient,
}

impl Introspection {
    /// Returns whether the token of a call is good; one without a token has none that is.
    pub async fn is_active(&self, call: &MetadataMap) -> Result<bool, BoxError> {
        let header = call.get("authorization").map(|value| value.to_str()).transpose()?;
        let Some(token) = header.and_then(|header| header.strip_prefix("Bearer ")) else { return Ok(false) };
        let form = [("token", token), ("client_id", self.client_id), ("client_secret", self.client_secret)];
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = Request::post(&self.url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(form))?;
        let response = self.http_client.clone().oneshot(request).await?;
        let response = response.into_body().collect().await?.to_bytes();
        let response: serde_json::Value = serde_json::from_slice(&response)?;
        Ok(response["active"] == true)
    }
}
