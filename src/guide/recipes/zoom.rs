use tower_oauth2::grants::CustomGrant;
use tower_oauth2::transport::HttpTransport;
use tower_oauth2::{Error, Secret};

pub fn zoom(secret: Secret, http: impl HttpTransport) -> Result<CustomGrant, Error> {
    CustomGrant::builder("https://zoom.us/oauth/token", "account_credentials")
        .client("CLIENT-ID", secret)
        .param("account_id", "ACCOUNT-ID")
        .build_with(http)
}
