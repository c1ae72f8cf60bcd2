use tower_oauth2::transport::HttpTransport;
use tower_oauth2::{ClientCredentials, Error, Secret};

pub fn cognito(secret: Secret, http: impl HttpTransport) -> Result<ClientCredentials, Error> {
    let url = "https://example.auth.eu-central-1.amazoncognito.com/oauth2/token";
    ClientCredentials::builder(url, "CLIENT-ID", secret).scope("reports/read").build_with(http)
}
