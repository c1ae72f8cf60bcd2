//! The grants, one file each: what a source sends besides what all of them send.

mod client_credentials;
mod refresh_token;

pub use self::client_credentials::{ClientCredentials, ClientCredentialsBuilder, ClientCredentialsGrant};
pub use self::refresh_token::{RefreshToken, RefreshTokenBuilder, RefreshTokenGrant};
