use tower_oauth2::grants::{SecurityToken, TokenExchange, TokenType};
use tower_oauth2::transport::HttpTransport;
use tower_oauth2::{Error, Secret};

pub fn keycloak_exchange(
    user_token: Secret,
    secret: Secret,
    http: impl HttpTransport,
) -> Result<TokenExchange, Error> {
    let url = "https://id.example.com/realms/shop/protocol/openid-connect/token";
    let subject = SecurityToken::new(user_token, TokenType::ACCESS_TOKEN);
    let builder = TokenExchange::builder(url, subject).client("CLIENT-ID", secret);
    builder.audience("reports").build_with(http)
}
