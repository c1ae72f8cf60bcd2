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

use http::HeaderValue;

/// Reads the value of `Content-Length`.
pub(crate) fn content_length(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok()?.parse().ok()
}
