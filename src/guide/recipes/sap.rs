use tower_oauth2::transport::HttpTransport;
use tower_oauth2::{ClientCredentials, Error, Secret};

pub fn sap(secret: Secret, http: impl HttpTransport) -> Result<ClientCredentials, Error> {
    let url = "https://example.accounts.ondemand.com/oauth2/token";
    ClientCredentials::builder(url, "sb-app!t1", secret).build_with(http)
}
