use tower_oauth2::grants::CustomGrant;
use tower_oauth2::transport::HttpTransport;
use tower_oauth2::{Error, Secret};

pub fn vault(secret_id: Secret, http: impl HttpTransport) -> Result<CustomGrant, Error> {
    CustomGrant::json("https://vault.example.com/v1/auth/approle/login")
        .param("role_id", "ROLE-ID")
        .secret_param("secret_id", secret_id)
        .response_member("access_token", "/auth/client_token")
        .response_member("expires_in", "/auth/lease_duration")
        .build_with(http)
}
