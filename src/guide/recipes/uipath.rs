use tower_oauth2::transport::HttpTransport;
use tower_oauth2::{ClientAuth, ClientCredentials, Error, Secret};

pub fn uipath(secret: Secret, http: impl HttpTransport) -> Result<ClientCredentials, Error> {
    let url = "https://cloud.uipath.com/identity_/connect/token";
    ClientCredentials::builder(url, "APP-ID", ClientAuth::post(secret))
        .scope("OR.Jobs OR.Queues.Read")
        .build_with(http)
}
