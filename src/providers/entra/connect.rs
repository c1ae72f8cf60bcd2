//! A client of an API that responds to its claims challenges.

use super::claims::ClaimsChallenge;
use super::settings::{Entra, Identity};
use crate::client::ApiClient;
use crate::error::Error;
use crate::http_transport::HttpTransport;

impl Entra {
    /// Connects to an API, such as `https://graph.microsoft.com/v1.0`, and responds to its claims challenges. Nothing is sent
    /// before the first request.
    ///
    /// # Errors
    ///
    /// As [`tokens`](Self::tokens), and a base URL that is not of https.
    #[cfg(all(feature = "hyper-client", feature = "stack"))]
    #[cfg_attr(docsrs, doc(cfg(all(feature = "hyper-client", feature = "stack"))))]
    pub fn connect(&self, base_url: impl AsRef<str>) -> Result<ApiClient, Error> {
        self.connect_with(base_url, crate::transport::HyperClient::new())
    }

    /// Connects over an HTTP client of your own, which serves the token requests too.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    #[cfg_attr(docsrs, doc(cfg(feature = "stack")))]
    pub fn connect_with(
        &self,
        base_url: impl AsRef<str>,
        http: impl HttpTransport,
    ) -> Result<ApiClient, Error> {
        let (base_url, mut entra) = (base_url.as_ref(), self.clone());
        let origin = ApiClient::new(base_url, ())?.origin().to_string();
        entra.scope.get_or_insert_with(|| format!("{origin}/.default"));
        let Identity::App { .. } = &entra.identity else {
            return ApiClient::builder(base_url, entra.tokens(http.clone())?.build()).build_with(http);
        };
        let claims = ClaimsChallenge::new();
        let source = claims.source(entra.client_credentials()?, http.clone())?;
        ApiClient::builder(base_url, source).auth(|layer| layer.rejection(claims.rule())).build_with(http)
    }
}
