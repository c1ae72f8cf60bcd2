use tower_oauth2::grants::CustomGrant;
use tower_oauth2::transport::HttpTransport;
use tower_oauth2::{Error, FileToken};

pub fn kubernetes_token_request(pod: FileToken, http: impl HttpTransport) -> Result<CustomGrant, Error> {
    let account = "https://kubernetes.default.svc/api/v1/namespaces/shop/serviceaccounts/billing";
    CustomGrant::json(format!("{account}/token"))
        .authorized_by(pod)
        .param_json("spec", r#"{ "audiences": ["vault"], "expirationSeconds": 3600 }"#)
        .response_member("access_token", "/status/token")
        .response_member("expires_at", "/status/expirationTimestamp")
        .build_with(http)
}
