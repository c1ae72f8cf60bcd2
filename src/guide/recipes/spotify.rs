use tower_oauth2::transport::HttpTransport;
use tower_oauth2::{ClientCredentials, Error, Secret};

pub fn spotify(secret: Secret, http: impl HttpTransport) -> Result<ClientCredentials, Error> {
    ClientCredentials::builder("https://accounts.spotify.com/api/token", "CLIENT-ID", secret).build_with(http)
}
