//! The error of a request of a client.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use http::{Extensions, HeaderMap, StatusCode};
use tower::BoxError;

use super::decode;
use crate::error::{Error, Lasting, Unsent, chain, in_the_way, of_the_body};
use crate::extensions::ScopeMissing;
use crate::retry::{RetryReport, StopReason, TimedOut};
use crate::text;

/// Why a request of an [`ApiClient`](super::ApiClient) failed.
///
/// `Display` says what failed, on whose side, and why, in the words of the innermost cause. It shows of the URL its origin
/// alone, and so does `Debug`, which has the words of all causes. The error of the service below is the source.
///
/// The kinds are those of reqwest's error: [`is_builder`](Self::is_builder), [`is_request`](Self::is_request),
/// [`is_status`](Self::is_status), [`is_body`](Self::is_body) and [`is_decode`](Self::is_decode), and ours,
/// [`is_pages`](Self::is_pages), exclude each other; [`is_timeout`](Self::is_timeout) and [`is_connect`](Self::is_connect) say more about a request or a body that failed.
///
/// # Examples
///
/// ```
/// use tower_oauth2::client::ApiError;
///
/// fn log(error: &ApiError) {
///     match error {
///         error if error.is_timeout() => println!("it took too long: {error}"),
///         error if error.token_error().is_some() => println!("there is no token: {error}"),
///         error if error.is_status() => println!("the API refused: {:?}", error.status()),
///         error => println!("{error}"),
///     }
/// }
/// ```
#[doc(alias = "HttpError")]
pub struct ApiError {
    kind: ApiErrorKind,
    message: String,
    source: Option<BoxError>,
}

#[derive(Debug)]
enum ApiErrorKind {
    Builder,
    Request,
    Status(RefusedStatus),
    Body,
    Decode,
    Pages,
}

/// A response whose status is an error, as far as the layers know it.
#[derive(Debug)]
struct RefusedStatus {
    status: StatusCode,
    report: Option<RetryReport>,
    scope: Option<ScopeMissing>,
}

impl ApiError {
    pub(super) fn path(reason: &str) -> Self {
        Self::new(ApiErrorKind::Builder, format!("the request was not sent: its path {reason}"))
    }

    pub(super) fn builder(reason: &str, source: impl Into<BoxError>) -> Self {
        Self::new(ApiErrorKind::Builder, format!("the request was not sent: {reason}")).with_source(source)
    }

    pub(super) fn send(to: &str, source: BoxError) -> Self {
        let error = Self::new(ApiErrorKind::Request, String::new()).with_source(source);
        let message = if let Some(error) = error.token_error() {
            format!("the request to {to} was not sent: {error}")
        } else if let (Some(TimedOut::Deadline), Some(Unsent { .. })) = (error.find(), error.find()) {
            format!(
                "the request to {to} was not sent: it waited for its turn until the deadline, which the timeout of the request or the total_timeout of the client sets; raise the concurrency_limit of the client, or that deadline"
            )
        } else if let Some(TimedOut::Deadline) = error.find() {
            format!(
                "the API at {to} did not respond before the deadline, which the timeout of the request or the total_timeout of the client sets"
            )
        } else if let Some(TimedOut::Attempt { limit }) = error.find() {
            format!("the API at {to} did not respond within {limit:?}, the attempt_timeout of the client")
        } else if let Some(why) = error.source().and_then(of_the_body) {
            format!("the body of the request to {to} could not be sent: {why}; check what it is read from")
        } else if error.is_connect() {
            let lasting = error.find().map(|Lasting { advice, .. }| *advice);
            let advice = lasting.or_else(|| error.source().and_then(in_the_way));
            let (root, advice) = (error.root(), advice.unwrap_or("check its address, and the way there"));
            format!("the API at {to} cannot be reached: {root}; {advice}")
        } else {
            format!("the request to {to} failed: {}", error.root())
        };
        Self { message, ..error }
    }

    pub(super) fn status_of(origin: &str, status: StatusCode, known: &Extensions) -> Self {
        let (report, scope) = (known.get::<RetryReport>().cloned(), known.get::<ScopeMissing>().cloned());
        let refused = RefusedStatus { status, report, scope };
        let message = format!("the API at {origin} returned {status}{}", refused.reason());
        Self::new(ApiErrorKind::Status(refused), message)
    }

    pub(super) fn body(of: &str, source: impl Into<BoxError>) -> Self {
        let error = Self::new(ApiErrorKind::Body, String::new()).with_source(source);
        let message = match error.find() {
            Some(TimedOut::Deadline) => format!(
                "the response of {of} was not there to its end before the deadline, which the timeout of the request sets"
            ),
            Some(TimedOut::Attempt { .. }) | None => {
                format!("the response of {of} broke off: {}", error.root())
            }
        };
        Self { message, ..error }
    }

    pub(super) fn decode(of: &str, headers: &HeaderMap, source: &serde_json::Error) -> Self {
        Self::new(ApiErrorKind::Decode, decode::message(of, headers, source, "check the type it is read as"))
    }

    /// Where an object came, and nothing says which member of it holds the items.
    pub(super) fn decode_unnamed_items(of: &str, headers: &HeaderMap, source: &serde_json::Error) -> Self {
        let cure = "if the items are in a member, name it by Next::items";
        Self::new(ApiErrorKind::Decode, decode::message(of, headers, source, cure))
    }

    pub(super) fn pages(message: &str) -> Self {
        Self::new(ApiErrorKind::Pages, message.to_owned())
    }

    pub(super) fn caused_by(self, source: impl Into<BoxError>) -> Self {
        self.with_source(source)
    }

    fn new(kind: ApiErrorKind, message: String) -> Self {
        Self { kind, message, source: None }
    }

    fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(without_url(source.into()));
        self
    }

    /// Returns whether the request could not be made: a path that would leave the base URL, a header that is not one, a value
    /// that JSON cannot hold. Nothing was sent.
    #[must_use]
    pub fn is_builder(&self) -> bool {
        matches!(self.kind, ApiErrorKind::Builder)
    }

    /// Returns whether there was no response: no token, no connection, or no time left.
    #[must_use]
    pub fn is_request(&self) -> bool {
        matches!(self.kind, ApiErrorKind::Request)
    }

    /// Returns whether a timeout ended the request or the body: that of an attempt, the total one, a
    /// [`Deadline`](crate::extensions::Deadline), one of the connection, or a `TimeoutLayer` of tower among layers of your own.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.any(is_timeout)
    }

    /// Returns whether there was no connection to the API, or to the proxy on the way.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        self.token_error().is_none() && self.any(is_connect)
    }

    /// Returns whether [`error_for_status`](super::ApiResponse::error_for_status) made an error of a status.
    #[must_use]
    pub fn is_status(&self) -> bool {
        matches!(self.kind, ApiErrorKind::Status(..))
    }

    /// Returns whether the response broke off. A body of a *request* that fails is [`is_request`](Self::is_request).
    #[must_use]
    pub fn is_body(&self) -> bool {
        matches!(self.kind, ApiErrorKind::Body)
    }

    /// Returns whether the response was not the JSON that was asked for.
    #[must_use]
    pub fn is_decode(&self) -> bool {
        matches!(self.kind, ApiErrorKind::Decode)
    }

    /// Returns whether [pages](super::pages) cannot go on, since what comes next cannot be told, leads elsewhere, or has come
    /// already.
    #[must_use]
    pub fn is_pages(&self) -> bool {
        matches!(self.kind, ApiErrorKind::Pages)
    }

    /// Returns the status that [`error_for_status`](super::ApiResponse::error_for_status) made an error of.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.refused().map(|refused| refused.status)
    }

    /// Returns what the retry layer said about the response with that status. For the report on a request without a response
    /// give it a [`ReportSlot`](crate::retry::ReportSlot) by [`RetryOptions::report_to`](crate::retry::RetryOptions::report_to).
    #[must_use]
    pub fn retry_report(&self) -> Option<&RetryReport> {
        self.refused()?.report.as_ref()
    }

    /// Returns the scope that the API wants, if the response with that status says that the scope of the token is not enough.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_oauth2::client::ApiError;
    ///
    /// fn scope_to_ask_for(error: &ApiError) -> Option<&str> {
    ///     error.scope_missing()?.scope()
    /// }
    /// ```
    #[must_use]
    pub fn scope_missing(&self) -> Option<&ScopeMissing> {
        self.refused()?.scope.as_ref()
    }

    /// Returns the error of the auth layer that kept the request from being sent: there was no token, or the layer refused the
    /// request, since its origin is not on the list, say.
    #[must_use]
    pub fn token_error(&self) -> Option<&Error> {
        self.find()
    }

    fn refused(&self) -> Option<&RefusedStatus> {
        match &self.kind {
            ApiErrorKind::Status(refused) => Some(refused),
            ApiErrorKind::Builder
            | ApiErrorKind::Request
            | ApiErrorKind::Body
            | ApiErrorKind::Decode
            | ApiErrorKind::Pages => None,
        }
    }

    fn find<E: StdError + 'static>(&self) -> Option<&E> {
        self.source.as_deref().and_then(|source| chain(source).find_map(|error| error.downcast_ref()))
    }

    /// Returns what the innermost cause says.
    fn root(&self) -> String {
        let root = self.source.as_deref().and_then(|source| chain(source).last());
        match root {
            // It shows the whole URL.
            #[cfg(feature = "reqwest")]
            Some(error) if error.is::<reqwest::Error>() => "see the cause".to_owned(),
            // Others may, too, and in several lines.
            root => root.map_or(String::new(), words_of),
        }
    }

    fn any(&self, is: fn(&(dyn StdError + 'static)) -> bool) -> bool {
        self.source.as_deref().is_some_and(|source| chain(source).any(is))
    }
}

impl RefusedStatus {
    /// Returns the end of the message: the scope that is missing, else why the request was not sent again.
    fn reason(&self) -> String {
        if let Some(missing) = &self.scope {
            let with = missing.scope().map_or("more scope".to_owned(), |scope| format!("the scope {scope}"));
            return format!(
                ": it wants a token with {with}; allow it to the client at the authorization server, and ask for it"
            );
        }
        match self.report.as_ref().map(RetryReport::stop_reason) {
            None | Some(StopReason::Final) => String::new(),
            Some(reason) => format!(", and the request was not sent again: {reason}"),
        }
    }
}

/// Takes the URL out of an error of reqwest, which shows it with its query.
fn without_url(error: BoxError) -> BoxError {
    #[cfg(feature = "reqwest")]
    let error = error.downcast::<reqwest::Error>().map_or_else(|other| other, |own| own.without_url().into());
    error
}

/// Returns what an error of others says, in one line, and of each URL the origin.
pub(super) fn words_of(error: &(dyn StdError + 'static)) -> String {
    text::one_line(&text::origins_only(&error.to_string()))
}

fn is_timeout(error: &(dyn StdError + 'static)) -> bool {
    #[cfg(feature = "reqwest")]
    if error.downcast_ref().is_some_and(reqwest::Error::is_timeout) {
        return true;
    }
    // HTTP/2 asks for a sign of life, and ends the connection if none comes.
    #[cfg(any(feature = "hyper-client", feature = "reqwest"))]
    if error.downcast_ref().is_some_and(hyper::Error::is_timeout) {
        return true;
    }
    error.is::<TimedOut>()
        || error.is::<tower::timeout::error::Elapsed>()
        || error.is::<tokio::time::error::Elapsed>()
        || error.downcast_ref().is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::TimedOut)
}

fn is_connect(error: &(dyn StdError + 'static)) -> bool {
    if error.is::<Lasting>() {
        return true;
    }
    #[cfg(feature = "hyper-client")]
    if error.downcast_ref().is_some_and(hyper_util::client::legacy::Error::is_connect) {
        return true;
    }
    #[cfg(feature = "reqwest")]
    if error.downcast_ref().is_some_and(reqwest::Error::is_connect) {
        return true;
    }
    use io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable,
    };
    let refused = [AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable];
    error.downcast_ref().is_some_and(|error: &io::Error| refused.contains(&error.kind()))
}

impl fmt::Debug for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // That of another crate's error may have the whole URL, and a key in its query.
        let causes = self.source.as_deref().into_iter().flat_map(|source| chain(source));
        let causes: Vec<_> = causes.map(|cause| text::origins_only(&cause.to_string())).collect();
        f.debug_struct("ApiError")
            .field("kind", &self.kind)
            .field("message", &self.message)
            .field("causes", &causes)
            .finish()
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for ApiError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
