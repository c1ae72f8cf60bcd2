//! Whether the refusal of an API may pass by itself, by its status and headers.

use http::{HeaderMap, StatusCode};

use crate::clock;
use crate::error::Error;
use crate::headers::rate_limit;

/// Makes an error of a response that may be another one in a while, with the time if the server names one. None if it lasts, as
/// far as its status says.
pub(super) fn error(message: &str, status: StatusCode, headers: &HeaderMap) -> Option<Error> {
    let error = match rate_limit::wait(status, headers, clock::unix_time()) {
        Some(wait) => Error::throttled(message).with_retry_after(wait),
        None => match status.as_u16() {
            429 => Error::throttled(message),
            408 | 409 | 421 | 423 | 425 | 500..=599 => Error::transient(message),
            _ => return None,
        },
    };
    Some(error.with_status(status))
}
