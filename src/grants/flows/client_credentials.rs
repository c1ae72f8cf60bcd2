//! The client credentials grant: a service asks for a token in its own name (RFC 6749 §4.4).

use std::sync::Arc;

use crate::grants::builder::GrantBuilder;
use crate::grants::client::auth::ClientAuth;
use crate::grants::endpoint::location::Endpoint;
use crate::grants::response::expected::Terms;

/// Gets tokens by the client credentials grant (RFC 6749 §4.4): a service in its own name, without a user.
///
/// Cheap to clone. It fetches and does not cache: put it into a [`TokenCache`](crate::TokenCache), or give it to an
/// [`AuthLayer`](crate::AuthLayer), which does.
///
/// A refresh token that comes along is not used: there should be none (RFC 6749 §4.4.3), and the credentials do as well.
///
/// # Cancel safety
///
/// Dropping a fetch drops its request. A token that the server issued meanwhile is lost, and no more than that.
///
/// # Examples
///
/// ```
/// use tower_oauth2::{ClientCredentials, Secret};
/// # use bytes::Bytes;
/// # let http_client = tower::service_fn(|_request: http::Request<tower_oauth2::Body>| async {
/// #     Ok::<_, tower::BoxError>(http::Response::new(tower_oauth2::Body::empty()))
/// # });
///
/// let source = ClientCredentials::builder(
///     "https://login.example.com/oauth/token",
///     "billing",
///     Secret::from_env("BILLING_SECRET"),
/// )
/// .scope("analytics:read")
/// .build_with(http_client)?;
/// # let _ = source;
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClientCredentials {
    client: Arc<EndpointClient>,
}

impl ClientCredentials {
    /// Starts with what is required: the token endpoint, the client, and how it authenticates.
    pub fn builder(
        endpoint: impl Into<Endpoint>,
        client_id: impl Into<String>,
        auth: impl Into<ClientAuth>,
    ) -> GrantBuilder<Self> {
        GrantBuilder::new(endpoint, Terms::default(), ())
            .granting("client_credentials")
            .client(client_id, auth)
    }
}

plain_grant!(ClientCredentials, "client credentials");
