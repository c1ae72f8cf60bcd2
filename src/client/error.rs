//! What can go wrong with a request of a handle.

use std::error::Error;
use std::fmt;

use http::StatusCode;
use tower::BoxError;

use crate::error::{TokenError, chain};
use crate::retry::RetryReport;

/// Why a request of an [`ApiClient`](super::ApiClient) came to nothing.
///
/// `Display` says what failed, whose side it is and what to check, and shows no more of the URL than its origin. What the
/// service below said is the source.
#[derive(Debug)]
pub struct ApiError {
    kind: Kind,
    message: String,
    source: Option<BoxError>,
}

#[derive(Debug)]
enum Kind {
    Path,
    Request,
    Transport,
    Status(StatusCode, Option<RetryReport>),
    Body,
    Decode,
}

impl ApiError {
    pub(super) fn path(reason: &str) -> Self {
        Self::new(Kind::Path, format!("the request was not sent: its path {reason}"))
    }

    pub(super) fn request(reason: &str, source: impl Into<BoxError>) -> Self {
        Self::new(Kind::Request, format!("the request was not sent: {reason}")).with_source(source)
    }

    pub(super) fn transport(to: &str, source: BoxError) -> Self {
        let message = match in_chain(&*source) {
            Some(_) => format!("the request to {to} was not sent; see the cause"),
            None => format!("the request to {to} brought no answer; check the way there, and see the cause"),
        };
        Self::new(Kind::Transport, message).with_source(source)
    }

    pub(super) fn status(of: &str, status: StatusCode, report: Option<RetryReport>) -> Self {
        Self::new(Kind::Status(status, report), format!("{of} answered {status}"))
    }

    pub(super) fn body(of: &str, source: impl Into<BoxError>) -> Self {
        Self::new(Kind::Body, format!("the answer of {of} broke off")).with_source(source)
    }

    pub(super) fn decode(of: &str, source: serde_json::Error) -> Self {
        let (line, column) = (source.line(), source.column());
        let message = format!(
            "the answer of {of} is not the JSON that was asked for, at line {line}, column {column}; check the type it is \
             read as"
        );
        Self::new(Kind::Decode, message).with_source(source)
    }

    fn new(kind: Kind, message: String) -> Self {
        Self { kind, message, source: None }
    }

    fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns whether the path was refused, since it would have left the base URL or cannot be sent.
    #[must_use]
    pub fn is_path(&self) -> bool {
        matches!(self.kind, Kind::Path)
    }

    /// Returns whether the request could not be made: a header that is none, a value that JSON cannot hold.
    #[must_use]
    pub fn is_request(&self) -> bool {
        matches!(self.kind, Kind::Request)
    }

    /// Returns whether the service below brought no answer: no token, no connection, no patience left.
    #[must_use]
    pub fn is_transport(&self) -> bool {
        matches!(self.kind, Kind::Transport)
    }

    /// Returns whether the answer broke off.
    #[must_use]
    pub fn is_body(&self) -> bool {
        matches!(self.kind, Kind::Body)
    }

    /// Returns whether the answer was not the JSON that was asked for.
    #[must_use]
    pub fn is_decode(&self) -> bool {
        matches!(self.kind, Kind::Decode)
    }

    /// Returns the status that [`error_for_status`](super::ApiResponse::error_for_status) made an error of.
    #[must_use]
    pub fn status_code(&self) -> Option<StatusCode> {
        match self.kind {
            Kind::Status(status, _) => Some(status),
            Kind::Path | Kind::Request | Kind::Transport | Kind::Body | Kind::Decode => None,
        }
    }

    /// Returns what the retry layer said about the answer with that status.
    #[must_use]
    pub fn retry_report(&self) -> Option<&RetryReport> {
        match &self.kind {
            Kind::Status(_, report) => report.as_ref(),
            Kind::Path | Kind::Request | Kind::Transport | Kind::Body | Kind::Decode => None,
        }
    }

    /// Returns why there was no token, or what else the layers had against it, if that kept the request from being sent.
    #[must_use]
    pub fn token_error(&self) -> Option<&TokenError> {
        self.source.as_deref().and_then(|source| in_chain(source))
    }
}

fn in_chain<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a TokenError> {
    chain(error).find_map(|error| error.downcast_ref())
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ApiError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
