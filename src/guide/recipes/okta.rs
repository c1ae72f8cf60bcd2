use tower_oauth2::grants::jwt::Assertion;
use tower_oauth2::transport::HttpTransport;
use tower_oauth2::{ClientAuth, ClientCredentials, Error};

pub fn okta(assertion: Assertion, http: impl HttpTransport) -> Result<ClientCredentials, Error> {
    let auth = ClientAuth::private_key_jwt(assertion.token_url_as_audience(true));
    ClientCredentials::builder("https://example.okta.com/oauth2/v1/token", "CLIENT-ID", auth)
        .scope("okta.users.read")
        .build_with(http)
}
