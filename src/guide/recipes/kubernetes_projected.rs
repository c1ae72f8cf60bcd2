use std::path::PathBuf;

use tower_oauth2::transport::HttpTransport;
use tower_oauth2::{ApiClient, Error, FileToken};

pub fn kubernetes_projected(path: PathBuf, http: impl HttpTransport) -> Result<ApiClient, Error> {
    ApiClient::builder("https://reports.shop.svc", FileToken::new(path)).build_with(http)
}
