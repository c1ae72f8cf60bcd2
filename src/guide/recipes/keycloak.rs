use tower_oauth2::transport::HttpTransport;
use tower_oauth2::{ClientCredentials, Error, Secret};

pub fn keycloak(secret: Secret, http: impl HttpTransport) -> Result<ClientCredentials, Error> {
    let url = "https://id.example.com/realms/shop/protocol/openid-connect/token";
    ClientCredentials::builder(url, "CLIENT-ID", secret).build_with(http)
}
