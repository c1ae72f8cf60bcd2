//! Reads response headers into values.
//!
//! Pure functions of bytes and a clock reading: they never panic, take time linear in their input, and read what can be
//! read where a part is broken.

pub(crate) mod challenge;
pub(crate) mod grpc;
pub(crate) mod profile;
pub(crate) mod rate_limit;
pub(crate) mod retry_after;
mod structured;
pub(crate) mod time;

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderName, HeaderValue};

/// Reads the value of `Content-Length`.
pub(crate) fn content_length(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok()?.parse().ok()
}

/// Marks the value of a header that carries credentials, so that no log shows it.
pub(crate) fn mark_credential(name: &HeaderName, value: &mut HeaderValue) {
    if [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE].contains(name) {
        value.set_sensitive(true);
    }
}
