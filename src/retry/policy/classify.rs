//! Classifies errors of the inner service: whether the server may have begun with the request.

use std::error::Error as StdError;
use std::fmt;

use crate::error::{Futile, Lasting, Unsent, chain};

/// The class of an error of the inner service, by what it proves about the request.
///
/// The transport knows best; see [`RetryPolicyBuilder::classifier`](crate::retry::RetryPolicyBuilder::classifier).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// The server provably did no work: the request was not sent, or the server said that it did not look at it. It is
    /// sent again even if its method is not idempotent.
    Unsent,
    /// It is not known how far it came. It is sent again if it may be repeated.
    Ambiguous,
    /// Sending it again would end in the same way. It is not.
    Fatal,
}

/// Tells errors apart for the caller.
pub(in crate::retry) type ClassifierFn = dyn Fn(&(dyn StdError + 'static)) -> Failure + Send + Sync;

impl Failure {
    /// Tells an error apart by the markers in its chain: [`Unsent`] means unsent. Without one it is ambiguous.
    ///
    /// This is what a policy does by default. Your own classifier may ask it about the errors that it does not know.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_oauth2::retry::{Failure, Unsent};
    ///
    /// assert_eq!(Failure::of(&Unsent::new("the line is cut")), Failure::Unsent);
    /// assert_eq!(Failure::of(&std::io::Error::other("the line was cut")), Failure::Ambiguous);
    /// ```
    #[must_use]
    pub fn of(error: &(dyn StdError + 'static)) -> Self {
        for error in chain(error) {
            if error.is::<Lasting>() || error.is::<Futile>() {
                return Self::Fatal;
            }
            if error.is::<Unsent>() {
                // What keeps a connection from being made stands below.
                return if has::<Lasting>(error) { Self::Fatal } else { Self::Unsent };
            }
        }
        Self::Ambiguous
    }

    /// Returns whether the server provably did no work. That another attempt would end alike is no proof: a response that this side
    /// does not take came after the work.
    pub(in crate::retry) fn did_no_work(self, error: &(dyn StdError + 'static)) -> bool {
        self == Self::Unsent || self == Self::Fatal && (has::<Unsent>(error) || has::<Lasting>(error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsent => "the request was not sent",
            Self::Ambiguous => "the request may have been sent",
            Self::Fatal => "the request cannot be sent",
        })
    }
}

/// Returns whether the error or one of its sources is an `E`.
pub(in crate::retry) fn has<E: StdError + 'static>(error: &(dyn StdError + 'static)) -> bool {
    chain(error).any(<dyn StdError>::is::<E>)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use tower::BoxError;

    use super::*;
    use crate::error::{Error, OfTheBody};
    use crate::retry::policy::rules::RetryRules;

    #[test]
    fn the_marker_is_found_below_other_errors_and_gives_way_to_what_lasts() {
        let unsent = || Unsent::new("refused");
        let lasting = || Lasting { advice: "mend it", source: "a bad certificate".into() };
        let above = |source: BoxError| Lasting { advice: "", source };
        assert_eq!(Failure::of(&unsent()), Failure::Unsent);
        assert_eq!(Failure::of(&lasting()), Failure::Fatal);
        assert_eq!(Failure::of(&Unsent::new(lasting())), Failure::Fatal);
        assert_eq!(Failure::of(&above(Box::new(unsent()))), Failure::Fatal);
        assert_eq!(Failure::of(&Unsent::new(unsent())), Failure::Unsent);
        assert_eq!(Failure::of(&io::Error::from(io::ErrorKind::ConnectionReset)), Failure::Ambiguous);
    }

    #[test]
    fn what_ended_the_request_body_says_nothing_of_the_request() {
        let carried = |source: BoxError| Error::transient("a transport failed").with_source(source);
        let of_the_body = carried(OfTheBody::new(Unsent::new("another request")).into());
        assert_eq!(Failure::of(&of_the_body), Failure::Ambiguous);
        let unsent = Unsent::new(OfTheBody::new(Lasting { advice: "", source: "of another".into() }));
        assert_eq!(Failure::of(&unsent), Failure::Unsent);
    }

    #[test]
    fn a_chain_that_never_ends_is_left_in_the_end() {
        #[derive(Debug)]
        struct Circle;
        impl fmt::Display for Circle {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("around")
            }
        }
        impl StdError for Circle {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                Some(self)
            }
        }
        assert_eq!(Failure::of(&Circle), Failure::Ambiguous);
    }

    #[test]
    fn a_classifier_of_the_callers_own_is_asked_instead() {
        let by_markers = RetryRules::default();
        let fatal = RetryRules { classifier: Some(Arc::new(|_| Failure::Fatal)), ..by_markers.clone() };
        assert_eq!(fatal.classify(&Unsent::new("refused")), Failure::Fatal);
        assert_eq!(by_markers.classify(&Unsent::new("refused")), Failure::Unsent);
    }
}
