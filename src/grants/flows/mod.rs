//! The grants, one file each: what a source sends besides what all of them send.

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
