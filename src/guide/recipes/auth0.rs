use tower_oauth2::transport::HttpTransport;
use tower_oauth2::{ClientAuth, ClientCredentials, Error, Secret};

pub fn auth0(secret: Secret, http: impl HttpTransport) -> Result<ClientCredentials, Error> {
    let url = "https://example.eu.auth0.com/oauth/token";
    ClientCredentials::builder(url, "CLIENT-ID", ClientAuth::post(secret))
        .audience("https://api.example.com/")
        .build_with(http)
}
