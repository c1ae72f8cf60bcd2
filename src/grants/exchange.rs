//! What most sources are: an endpoint, and what it is sent each time.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::grants::endpoint::client::EndpointClient;
use crate::grants::parameters::Parameters;
use crate::source::TokenRequest;
use crate::token::AccessToken;

/// An endpoint, and the parameters of every request. Clones share both.
#[derive(Clone)]
pub(crate) struct Exchange {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: EndpointClient,
    parameters: Parameters,
}

impl Exchange {
    pub(crate) fn new(endpoint: EndpointClient, parameters: Parameters) -> Self {
        Self { inner: Arc::new(Inner { endpoint, parameters }) }
    }

    pub(crate) async fn token(&self, request: &TokenRequest) -> Result<AccessToken, Error> {
        self.inner.endpoint.exchange(&self.inner.parameters, request).await
    }

    pub(crate) fn has_changed(&self) -> bool {
        self.inner.endpoint.has_changed()
    }

    /// Writes the debug output of the source of that name.
    pub(crate) fn fmt_as(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("endpoint", &self.inner.endpoint)
            .field("parameters", &self.inner.parameters)
            .finish()
    }
}
