//! The grants, one file each: what a source sends besides what all of them send.

/// Implements a grant whose requests say the same each time: the client of its endpoint knows all of it.
macro_rules! plain_grant {
    ($grant:ident, $kind:literal) => {
        use $crate::error::Error;
        use $crate::grants::builder::Grant;
        use $crate::grants::endpoint::client::EndpointClient;
        use $crate::grants::endpoint::deadline::Deadline;
        use $crate::source::{SourceIdentity, TokenRequest, TokenSource};
        use $crate::token::AccessToken;

        impl TokenSource for $grant {
            async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
                let (client, redactor) = (&self.client, EndpointClient::redactor(&request));
                let exchange = client.exchange(&client.parameters, None, redactor, Deadline::of(&request));
                exchange.await.map_err(|refused| refused.error)
            }

            fn name(&self) -> Option<String> {
                self.client.name()
            }

            fn has_changed(&self) -> bool {
                self.client.has_changed()
            }

            fn identity(&self) -> Option<SourceIdentity> {
                self.client.identity($kind)
            }
        }

        impl Grant for $grant {
            type Settings = ();

            fn assemble((): (), client: EndpointClient) -> Result<Self, Error> {
                Ok(Self { client: Arc::new(client) })
            }
        }
    };
}

mod client_credentials;
mod custom;
#[cfg(feature = "jwt")]
mod jwt_bearer;
pub(crate) mod refresh_token;
mod token_exchange;

pub use self::client_credentials::ClientCredentials;
pub use self::custom::CustomGrant;
#[cfg(feature = "jwt")]
#[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
pub use self::jwt_bearer::JwtBearer;
pub use self::refresh_token::RefreshTokenGrant;
pub use self::token_exchange::{SecurityToken, TokenExchange, TokenType};
