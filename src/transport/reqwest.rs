//! reqwest's client under the layers, and at the token endpoint.

mod body;
mod classify;
mod client;

pub use self::classify::classify_reqwest;
pub use self::client::ReqwestClient;
