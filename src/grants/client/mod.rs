//! The client: what proves it, and how it authenticates.

pub(crate) mod auth;
pub(crate) mod secret;
