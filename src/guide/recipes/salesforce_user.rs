use tower_oauth2::Error;
use tower_oauth2::grants::JwtBearer;
use tower_oauth2::grants::jwt::Assertion;
use tower_oauth2::transport::HttpTransport;

pub fn salesforce_user(assertion: Assertion, http: impl HttpTransport) -> Result<JwtBearer, Error> {
    let login = "https://login.salesforce.com";
    let assertion = assertion.issuer("CONSUMER-KEY").subject("robot@example.com").audience(login);
    JwtBearer::builder(format!("{login}/services/oauth2/token"), assertion).build_with(http)
}
