//! The grants, one file each: what a source sends besides what all of them send.

mod client_credentials;

pub use self::client_credentials::{ClientCredentials, ClientCredentialsBuilder, ClientCredentialsGrant};
