//! Classifies errors of hyper's client by what they prove about the request.
//!
//! | error | why it says so | failure |
//! |---|---|---|
//! | connecting failed, TLS included | no connection, so no byte of the request went out | unsent |
//! | the server refused the client certificate | with TLS 1.3 it may say so when the request was written, but it has read nothing of it | unsent |
//! | either of the two, and rustls says that it will fail again | a certificate that is not trusted does not get better by waiting; one that is expired or not yet valid may. Nor does one that is missing | fatal |
//! | a connection was made and broke before it took the request | hyper gave the request back, or never had a connection for it | unsent |
//! | h2: `REFUSED_STREAM` from the server | no work was done (RFC 9113 §8.7) | unsent |
//! | h2: `GOAWAY` from the server | it ends those streams only that it says it did not and will not look at (RFC 9113 §6.8) | unsent |
//! | h2: `HTTP_1_1_REQUIRED` from the server | over h2 it would say so again (RFC 9113 §7) | fatal |
//! | the client itself refuses: a method, a version or a URI that it cannot send | it would again | fatal |
//! | this side refuses the response: too many headers, or a stream that it resets for what stands in them | it would again | fatal |
//! | a reset, an end, a broken response, a timeout after the request was taken | it is not known how far it came | ambiguous |
//!
//! An end right after the request was written is ambiguous too, also on a connection that had been idle: the server may have
//! read it before it closed. hyper gives back what it did not begin to write, and its pooled client sends that once more by
//! itself on another connection.

use std::error::Error as StdError;

use hyper_util::client::legacy;

use crate::error::{Futile, Lasting, chain};
use crate::retry::Failure;
use crate::transport::lasting;

/// The message of hyper for a head with more headers, or more bytes, than it takes.
const TOO_LARGE: &str = "message head is too large";

/// Tells the errors of hyper and of hyper-util's pooled client apart; what it does not know, as [`Failure::of`] does.
///
/// The client beside it marks its errors itself. This is for your own client:
///
#[cfg_attr(feature = "hyper-client", doc = "```")]
#[cfg_attr(not(feature = "hyper-client"), doc = "```text")]
/// use tower_oauth2::RetryPolicy;
/// use tower_oauth2::transport::classify_hyper;
///
/// let policy = RetryPolicy::builder().classifier(classify_hyper).build()?;
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
#[must_use]
#[cfg_attr(not(feature = "hyper-client"), allow(unreachable_pub, reason = "handed out with that client"))]
pub fn classify_hyper(error: &(dyn StdError + 'static)) -> Failure {
    if chain(error).any(|error| error.is::<Lasting>() || error.is::<Futile>()) {
        return Failure::Fatal;
    }
    for error in chain(error) {
        if let Some(error) = error.downcast_ref::<legacy::Error>() {
            if error.is_connect() {
                return Failure::Unsent;
            }
            // What the client refuses has no cause but itself.
            if error.source().is_none() {
                return Failure::Fatal;
            }
            // It is there as soon as the request has a connection to go by.
            if error.connect_info().is_none() {
                return Failure::Unsent;
            }
        } else if let Some(error) = error.downcast_ref::<hyper::Error>() {
            if error.is_canceled() {
                return Failure::Unsent;
            }
            // hyper has a predicate for this in servers only.
            if error.is_parse() && error.to_string() == TOO_LARGE {
                return Failure::Fatal;
            }
            if error.is_user() {
                // What stands below is an error of the request body, and says nothing of this connection.
                return Failure::Ambiguous;
            }
            if lasting::refusal(error).is_some() {
                return if lasting::advice(error).is_some() { Failure::Fatal } else { Failure::Unsent };
            }
        } else if let Some(error) = error.downcast_ref::<h2::Error>() {
            let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return if is_for_http1(error) {
                Failure::Fatal
            } else if error.is_remote() && (refused || error.is_go_away()) {
                Failure::Unsent
            } else if error.is_library() && error.is_reset() {
                Failure::Fatal
            } else {
                Failure::Ambiguous
            };
        }
    }
    Failure::of(error)
}

/// Returns whether the server wants the request over HTTP/1.1.
pub(super) fn is_for_http1(error: &h2::Error) -> bool {
    error.is_remote() && error.reason() == Some(h2::Reason::HTTP_1_1_REQUIRED)
}
