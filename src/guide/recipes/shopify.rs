use tower_oauth2::transport::HttpTransport;
use tower_oauth2::{ClientAuth, ClientCredentials, Error, Secret};

pub fn shopify(secret: Secret, http: impl HttpTransport) -> Result<ClientCredentials, Error> {
    let url = "https://example.myshopify.com/admin/oauth/access_token";
    ClientCredentials::builder(url, "CLIENT-ID", ClientAuth::post(secret))
        .required_scope("read_orders")
        .build_with(http)
}
