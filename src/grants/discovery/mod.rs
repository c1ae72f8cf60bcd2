//! Issuers: where their metadata are, what they say, and how long it holds.

pub(crate) mod cache;
pub(crate) mod fetch;
pub(crate) mod issuer;
pub(crate) mod metadata;
