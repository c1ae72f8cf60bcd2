use tower_oauth2::transport::HttpTransport;
use tower_oauth2::{ClientAuth, ClientCredentials, Error, Secret};

pub fn salesforce_client(secret: Secret, http: impl HttpTransport) -> Result<ClientCredentials, Error> {
    let url = "https://example.my.salesforce.com/services/oauth2/token";
    ClientCredentials::builder(url, "CONSUMER-KEY", ClientAuth::post(secret)).build_with(http)
}
