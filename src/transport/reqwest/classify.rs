//! Classifies errors of reqwest by what they prove about the request.
//!
//! | error | why it says so | failure |
//! |---|---|---|
//! | the request could not be built: a URL that reqwest cannot read, a scheme that it does not speak | it would not be built again | fatal |
//! | `https`, and reqwest was built without TLS | it will not learn it | fatal |
//! | too many redirects, where its own are on | the next attempt would walk in the same circle | fatal |
//! | connecting failed, the time for it included | no byte of the request went out | unsent |
//! | a timeout of the request as a whole | it is not known how far it came | ambiguous |
//! | any other error, from hyper below it | | as `classify_hyper` says |

use std::error::Error as StdError;

use crate::error::chain;
use crate::retry::Failure;
use crate::transport::classify::classify_hyper;
use crate::transport::lasting;

/// reqwest's connector without TLS is hyper's, which has no type for this.
const NO_TLS: &str = "invalid URL, scheme is not http";

/// Tells the errors of reqwest apart; what it does not know, as [`Failure::of`] does.
///
/// # Examples
///
/// ```
/// use tower_oauth2::RetryPolicy;
/// use tower_oauth2::transport::classify_reqwest;
///
/// let policy = RetryPolicy::builder().classifier(classify_reqwest).build()?;
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
#[must_use]
pub fn classify_reqwest(error: &(dyn StdError + 'static)) -> Failure {
    let native = chain(error).find_map(|error| error.downcast_ref::<reqwest::Error>());
    if native.is_some_and(|error| error.is_builder() || error.is_redirect()) {
        return Failure::Fatal;
    }
    match classify_hyper(error) {
        Failure::Unsent if advice(error).is_some() => Failure::Fatal,
        failure => failure,
    }
}

/// Says what to do about a connection that cannot be made, today and tomorrow.
pub(super) fn advice(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    if chain(error).any(|error| error.to_string() == NO_TLS) {
        return Some("reqwest was built without TLS; switch on one of its features for it, such as `rustls`");
    }
    lasting::advice(error)
}
