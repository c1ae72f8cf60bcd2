use tower_oauth2::grants::jwt::{Assertion, SigningKey};
use tower_oauth2::transport::HttpTransport;
use tower_oauth2::{ClientAuth, ClientCredentials, Error};

pub fn okta(key: SigningKey, http: impl HttpTransport) -> Result<ClientCredentials, Error> {
    let assertion = Assertion::by_key(key).token_url_as_audience(true);
    let auth = ClientAuth::private_key_jwt(assertion);
    ClientCredentials::builder("https://example.okta.com/oauth2/v1/token", "CLIENT-ID", auth)
        .scope("okta.users.read")
        .build_with(http)
}
