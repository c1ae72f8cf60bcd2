use tower_oauth2::transport::HttpTransport;
use tower_oauth2::{ApiClient, Error, ErrorKind, Origin, TokenCache};

pub async fn salesforce_api(tokens: TokenCache, http: impl HttpTransport) -> Result<ApiClient, Error> {
    let token = tokens.get().await?;
    let instance: Origin = token.expose_extra("instance_url").unwrap_or_default().parse()?;
    if !instance.is_https() || !instance.host().ends_with(".salesforce.com") {
        return Err(Error::new(ErrorKind::Config, format!("{instance} is not a host of Salesforce")));
    }
    ApiClient::builder(format!("{instance}/services/data"), tokens).build_with(http)
}
