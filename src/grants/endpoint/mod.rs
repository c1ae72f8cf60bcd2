//! Endpoints: where they are, and how requests are sent there until there is a response that stands.
//!
//! A token request goes from [`client`] (attempts and retries) by way of [`location`] (where to) to [`transport`] (one
//! attempt); its response is read in [`response::token`](crate::grants::response::token), and judged in
//! [`response::verdict`](crate::grants::response::verdict).

pub(crate) mod client;
pub(crate) mod deadline;
pub(crate) mod doubt;
pub(crate) mod identifiers;
pub(crate) mod location;
pub(crate) mod target;
pub(crate) mod transport;
pub(crate) mod url;
