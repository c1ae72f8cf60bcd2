//! The hook for a provider's habits: what a response without a token means.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use crate::error::ErrorKind;
use crate::grants::response::codes::is_oauth_code;

/// A response of the token endpoint without a token, as a classifier sees it.
///
/// The code and the description were cleaned: no control characters, no secret of this exchange, at most 256
/// characters. The headers are as they came.
///
/// # Examples
///
/// ```
/// use tower_oauth2::ErrorKind;
/// use tower_oauth2::grants::Refusal;
///
/// /// A provider that has a code of its own for its maintenance.
/// fn maintenance(refusal: &Refusal<'_>) -> Option<ErrorKind> {
///     (refusal.code() == Some("maintenance")).then_some(ErrorKind::Transient)
/// }
///
/// let builder = tower_oauth2::ClientCredentials::builder("https://login.example.com/token", "id", "secret")
///     .classifier(maintenance);
/// # let _ = builder;
/// ```
#[derive(Clone, Copy)]
pub struct Refusal<'a> {
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) code: Option<&'a str>,
    pub(crate) description: Option<&'a str>,
}

impl<'a> Refusal<'a> {
    /// Returns the code, if it is one of OAuth 2.0's kind. Text of a gateway in its place proves nothing.
    pub(crate) fn oauth_code(&self) -> Option<&'a str> {
        self.code.filter(|code| is_oauth_code(code))
    }

    /// Returns the status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the headers of the response.
    #[must_use]
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// Returns the error code, such as `invalid_client` (RFC 6749 §5.2), if the body held one.
    #[must_use]
    pub fn code(&self) -> Option<&'a str> {
        self.code
    }

    /// Returns the server's own description, if the body held one.
    #[must_use]
    pub fn description(&self) -> Option<&'a str> {
        self.description
    }
}

impl fmt::Debug for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal")
            .field("status", &self.status)
            .field("code", &self.code)
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

// --- Classifier ---

/// A closure that names the class, or leaves it to the rules.
#[derive(Clone)]
pub(crate) struct Classifier(pub(crate) Arc<ClassifyFn>);

type ClassifyFn = dyn Fn(&Refusal<'_>) -> Option<ErrorKind> + Send + Sync;

impl fmt::Debug for Classifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Classifier").finish_non_exhaustive()
    }
}
