//! Whether the refusal of an API may pass by itself, by its status and headers.

use http::{HeaderMap, StatusCode};

use crate::clock;
use crate::error::{Error, is_passing};
use crate::headers::rate_limit;

/// Makes an error of a response that may be another one in a while, with the time if the server names one. None if it lasts, as
/// far as its status says.
pub(super) fn error(message: &str, status: StatusCode, headers: &HeaderMap) -> Option<Error> {
    let error = match rate_limit::wait(status, headers, clock::unix_time()) {
        Some(wait) => Error::throttled(message).with_retry_after(wait),
        None if status == StatusCode::TOO_MANY_REQUESTS => Error::throttled(message),
        None if is_passing(status) => Error::transient(message),
        None => return None,
    };
    Some(error.with_status(status))
}
