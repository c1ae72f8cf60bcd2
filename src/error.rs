//! The one error of this crate: what failed, whose side it is, and whether waiting can help.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use tower::BoxError;

use crate::clock;
use crate::text;

/// The reason why there is no token.
///
/// Cheap to clone: all callers that waited for the same token get the same error. It is found in the
/// [`BoxError`] of a service by `downcast_ref::<Error>()`, and in any other error by [`find_in`](Self::find_in). Callers decide by [`kind`](Self::kind), never by text. Neither `Display` nor `Debug` ever shows a token, a secret or a raw response.
///
/// # Examples
///
/// Your own source says whose side failed:
///
/// ```
/// use tower_oauth2::{Error, ErrorKind};
///
/// fn read(file: &str) -> Result<String, Error> {
///     std::fs::read_to_string(file)
///         .map_err(|error| Error::new(ErrorKind::Config, format!("cannot read the token file {file}")).with_source(error))
/// }
///
/// let error = read("/does/not/exist").unwrap_err();
/// assert!(error.kind() == ErrorKind::Config && !error.is_temporary());
/// ```
#[derive(Clone)]
pub struct Error {
    inner: Arc<ErrorParts>,
}

#[derive(Clone)]
struct ErrorParts {
    kind: ErrorKind,
    message: String,
    code: Option<String>,
    description: Option<String>,
    uri: Option<String>,
    status: Option<StatusCode>,
    /// When the server may be asked again, as it says itself.
    throttled_until: Option<Instant>,
    /// When the cache asks its source again.
    retry_at: Option<Instant>,
    /// Whether the party that decides has not said so: something on the way to it has, or nothing has.
    is_hearsay: bool,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The kind of an [`Error`]: which side failed, and so what may help. `Display` is its name in one word, for a metric or a log.
///
/// The [table of the OAuth 2.0 sources](crate::grants#what-a-response-means) says which response is of which kind.
///
/// # Examples
///
/// ```
/// use tower_oauth2::{Error, ErrorKind};
///
/// fn alert(error: &Error) -> &'static str {
///     match error.kind() {
///         ErrorKind::Config | ErrorKind::Grant => "wake someone up",
///         ErrorKind::Throttled | ErrorKind::Transient => "wait",
///         _ => "look at the log",
///     }
/// }
///
/// assert_eq!(alert(&Error::new(ErrorKind::Throttled, "slow down")), "wait");
/// assert_eq!(ErrorKind::Transient.to_string(), "transient");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Something was set up wrong, and an operator must change it: the configuration here, or what the authorization
    /// server knows of the client. So a refused client (`invalid_client`), scope or parameter is of this kind.
    Config,
    /// The authorization server refused the grant (`invalid_grant`), or gave a reason of its own: waiting does not help.
    Grant,
    /// The authorization server throttles the client.
    Throttled,
    /// A failure that may pass by itself: network, timeout, server error.
    Transient,
    /// The other side said something that is not OAuth 2.0.
    Protocol,
}

/// Marks an error of a connection that would fail in the same way tomorrow: a transport of this crate puts it into the chain of
/// its error, and the token endpoint finds it there.
#[derive(Debug)]
#[cfg_attr(
    not(any(feature = "hyper-client", feature = "reqwest")),
    allow(dead_code, reason = "other transports cannot tell")
)]
pub(crate) struct Lasting {
    /// The remedy, for the message.
    pub(crate) advice: &'static str,
    pub(crate) source: BoxError,
}

/// Marks an error of a request that would end in the same way again: what this side cannot send, or does not take.
#[derive(Debug)]
#[cfg_attr(not(feature = "hyper-client"), allow(dead_code, reason = "other transports cannot tell"))]
pub(crate) struct Futile {
    /// The cause and the remedy, for the message.
    pub(crate) advice: &'static str,
    pub(crate) source: BoxError,
}

/// Marks an error of a request of which the server did no work: it was never sent, or the server said that it did not
/// look at it. So it may be sent again, even if its method is not idempotent.
///
/// The retry layer looks for it in the chain of an error, and takes its word. A transport puts it around what it can prove,
/// and around nothing else: an error after which the server may have begun is not one of these. That of this crate does
/// ([`transport`](crate::transport)).
///
/// # Examples
///
/// ```
/// use http::{Request, Response};
/// use tower::{BoxError, ServiceExt as _, service_fn};
/// use tower_oauth2::retry::Unsent;
///
/// // A transport that fails only before it sends anything.
/// let transport = service_fn(async |_: Request<()>| Err::<Response<()>, BoxError>("the line is cut".into()));
/// let transport = transport.map_err(Unsent::new);
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let error = transport.oneshot(Request::new(())).await.unwrap_err();
/// assert_eq!(error.to_string(), "the request was not sent");
/// # });
/// # Ok::<_, BoxError>(())
/// ```
#[derive(Debug)]
pub struct Unsent {
    source: BoxError,
    /// How long a proxy on the way asks to be left alone.
    wait: Option<Duration>,
}

/// Marks an error of a request body, which says nothing about the connection that it ended: what stands below may have come
/// from another request altogether, where it meant something else.
#[derive(Debug)]
pub(crate) struct OfTheBody {
    source: BoxError,
}

// --- Error ---

impl Error {
    /// Creates an error of a [kind](ErrorKind), which decides when a cache asks its source again. `message` says what failed, and
    /// what to do about it. No secret may be in it.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = text::one_line(&message.into());
        let inner = ErrorParts {
            kind,
            message,
            code: None,
            description: None,
            uri: None,
            status: None,
            throttled_until: None,
            retry_at: None,
            is_hearsay: false,
            source: None,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Adds what caused the error. It is not part of `Display`; it is found by walking `source()`.
    ///
    /// The source's own text must hold no secret.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.edit().source = Some(Arc::from(source.into()));
        self
    }

    /// Adds the machine-readable code, such as `invalid_client` (RFC 6749 §5.2).
    #[must_use]
    pub fn with_code(mut self, code: impl AsRef<str>) -> Self {
        self.edit().code = Some(text::clean(code.as_ref()));
        self
    }

    /// Adds the server's own description. Control characters are removed, and it is cut to 256 characters.
    ///
    /// It is shown, as the message and the code are: a source that passes on what a server says takes the secrets out
    /// of it first, since a server may echo them.
    ///
    /// # Examples
    ///
    /// An error of a source of your own:
    ///
    /// ```
    /// use tower_oauth2::{Error, ErrorKind};
    ///
    /// let error = Error::new(ErrorKind::Grant, "the vault refused the role")
    ///     .with_code("role_locked")
    ///     .with_description("locked until an administrator opens it")
    ///     .with_uri("https://vault.example.com/errors/role_locked");
    /// assert_eq!(error.code(), Some("role_locked"));
    /// assert_eq!(error.description(), Some("locked until an administrator opens it"));
    /// assert_eq!(error.uri(), Some("https://vault.example.com/errors/role_locked"));
    /// ```
    #[must_use]
    pub fn with_description(mut self, description: impl AsRef<str>) -> Self {
        self.edit().description = Some(text::clean(description.as_ref()));
        self
    }

    /// Adds the address of a page about the error (RFC 6749 §5.2, `error_uri`).
    #[must_use]
    pub fn with_uri(mut self, uri: impl AsRef<str>) -> Self {
        self.edit().uri = Some(text::clean(uri.as_ref()));
        self
    }

    /// Adds the HTTP status of the response.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.edit().status = Some(status);
        self
    }

    /// Makes the error a throttled one that passes after `wait`.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        let inner = self.edit();
        inner.kind = ErrorKind::Throttled;
        inner.throttled_until = clock::now().checked_add(wait).map(Into::into);
        self
    }

    /// Returns when the server may be asked again, as it said itself.
    pub(crate) fn throttled_until(&self) -> Option<Instant> {
        self.inner.throttled_until
    }

    /// Returns when the cache that returned the error asks its source again.
    pub(crate) fn cache_retries_at(&self) -> Option<Instant> {
        self.inner.retry_at
    }

    /// Tells when the cache asks its source again.
    pub(crate) fn with_retry_at(mut self, instant: Instant) -> Self {
        self.edit().retry_at = Some(instant);
        self
    }

    /// Finds an `Error` in the chain of another error, such as the [`BoxError`] of a service: the error itself or any of its
    /// sources.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower::BoxError;
    /// use tower_oauth2::{Error, ErrorKind};
    ///
    /// let error: BoxError = Error::new(ErrorKind::Config, "the client id is empty").into();
    /// assert!(Error::find_in(&*error).is_some_and(|error| error.kind() == ErrorKind::Config));
    ///
    /// let error: BoxError = "something else".into();
    /// assert!(Error::find_in(&*error).is_none());
    /// ```
    #[must_use]
    pub fn find_in<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        chain(error).find_map(|error| error.downcast_ref())
    }

    /// Returns what kind of error it is: whose side failed, and so what may help.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Returns the machine-readable code, such as `invalid_client`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.inner.code.as_deref()
    }

    /// Returns the server's own description, cleaned.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.inner.description.as_deref()
    }

    /// Returns the address of a page about the error, cleaned.
    #[must_use]
    pub fn uri(&self) -> Option<&str> {
        self.inner.uri.as_deref()
    }

    /// Returns the HTTP status of the response.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.inner.status
    }

    /// Returns when to come back, so that a caller can pass it on (as `Retry-After`, say).
    ///
    /// - From a [cache](crate::TokenCache): when it asks its source again. Until then it returns this error at once.
    /// - From a source: when the server may be asked again, if the server said so (a [throttled](ErrorKind::Throttled)
    ///   error).
    #[must_use]
    pub fn retry_at(&self) -> Option<Instant> {
        self.inner.retry_at.or(self.inner.throttled_until)
    }

    /// Returns whether waiting can help: throttled or transient.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.is_throttled() || self.is_transient()
    }

    /// An error of a setting, or of the client at the authorization server.
    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    pub(crate) fn grant(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Grant, message)
    }

    pub(crate) fn throttled(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Throttled, message)
    }

    pub(crate) fn transient(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Transient, message)
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Protocol, message)
    }

    pub(crate) fn is_config(&self) -> bool {
        self.kind() == ErrorKind::Config
    }

    pub(crate) fn is_grant(&self) -> bool {
        self.kind() == ErrorKind::Grant
    }

    pub(crate) fn is_throttled(&self) -> bool {
        self.kind() == ErrorKind::Throttled
    }

    pub(crate) fn is_transient(&self) -> bool {
        self.kind() == ErrorKind::Transient
    }

    pub(crate) fn is_protocol(&self) -> bool {
        self.kind() == ErrorKind::Protocol
    }

    /// Says that it comes from the way to the server, or from a response that is not OAuth 2.0: an operator may have to look
    /// at it, but it proves nothing about the grant.
    pub(crate) fn hearsay(mut self) -> Self {
        self.edit().is_hearsay = true;
        self
    }

    /// Returns whether the source has failed for good, by the word of the server or by its own settings.
    pub(crate) fn is_final(&self) -> bool {
        (self.is_config() || self.is_grant()) && !self.inner.is_hearsay
    }

    /// Makes it another kind; all the rest stays, but the time until which a server is throttled.
    pub(crate) fn reclassified(mut self, kind: ErrorKind) -> Self {
        let inner = self.edit();
        inner.kind = kind;
        if kind != ErrorKind::Throttled {
            inner.throttled_until = None;
        }
        self
    }

    /// Says it in other words; the kind, the code and all the rest stay.
    pub(crate) fn reworded(mut self, message: impl Into<String>) -> Self {
        self.edit().message = text::one_line(&message.into());
        self
    }

    fn edit(&mut self) -> &mut ErrorParts {
        Arc::make_mut(&mut self.inner)
    }
}

/// An infallible conversion has no error to convert; so an [`Origin`](crate::Origin) stands where a string may stand.
impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.inner;
        f.debug_struct("Error")
            .field("kind", &inner.kind)
            .field("message", &inner.message)
            .field("code", &inner.code)
            .field("description", &inner.description)
            .field("status", &inner.status)
            .field("source", &inner.source)
            .finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}

// --- ErrorKind ---

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "config",
            Self::Grant => "grant",
            Self::Throttled => "throttled",
            Self::Transient => "transient",
            Self::Protocol => "protocol",
        })
    }
}

/// How this crate's transport, hyper-util and rustls begin about what is in the way, and what to do about it. It may pass, so
/// nothing marks it as lasting.
const IN_THE_WAY: [(&str, &str); 6] = [
    ("the proxy cannot be reached", CHECK_PROXY),
    ("tunnel error: failed to create underlying connection", CHECK_PROXY),
    ("the proxy returned", REFUSED_TUNNEL),
    ("tunnel error: unsuccessful", REFUSED_TUNNEL),
    ("invalid peer certificate: certificate expired", CHECK_CLOCK),
    ("invalid peer certificate: certificate not valid yet", CHECK_CLOCK),
];
const CHECK_PROXY: &str = "the proxy cannot be reached; check its host and port, and the network route to it";
const REFUSED_TUNNEL: &str = "the proxy refuses the connection, which may be temporary";
const CHECK_CLOCK: &str = "check this machine's clock, and whether the server's certificate was renewed";

/// Says what to do about what is in the way to a server, by the words of an error or of one below it.
pub(crate) fn in_the_way(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    chain(error).find_map(|error| {
        let said = error.to_string();
        IN_THE_WAY.iter().find(|(start, _)| said.starts_with(start)).map(|(_, advice)| *advice)
    })
}

/// Returns whether a status is about the moment, whatever else is said: the same request may be granted in a while.
pub(crate) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 409 | 421 | 423 | 425 | 500..=599)
}

// --- Unsent ---

impl Unsent {
    /// Marks `source`.
    pub fn new(source: impl Into<BoxError>) -> Self {
        Self { source: source.into(), wait: None }
    }

    #[cfg(feature = "hyper-client")]
    pub(crate) fn with_wait(self, wait: Option<Duration>) -> Self {
        Self { wait, ..self }
    }

    /// Returns the wait that stands in the chain of an error.
    pub(crate) fn wait_in(error: &(dyn StdError + 'static)) -> Option<Duration> {
        chain(error).find_map(|error| error.downcast_ref::<Self>()?.wait)
    }
}

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request was not sent")
    }
}

impl StdError for Unsent {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

// --- OfTheBody ---

impl OfTheBody {
    pub(crate) fn new(source: impl Into<BoxError>) -> Self {
        Self { source: source.into() }
    }
}

impl fmt::Display for OfTheBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)
    }
}

impl StdError for OfTheBody {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

// --- Lasting ---

impl fmt::Display for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection can be made this way: {}", self.advice)
    }
}

impl StdError for Lasting {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

// --- Futile ---

impl fmt::Display for Futile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.advice)
    }
}

impl StdError for Futile {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

/// A chain of errors is looked at so far. One that is longer goes in a circle.
const DEPTH: usize = 16;

/// Walks the chain of an error of the transport, down to where a request body has failed: what stands below that says
/// nothing about the connection.
pub(crate) fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    whole_chain(error).take_while(|error| !error.is::<OfTheBody>())
}

/// Returns the error of a request body in the chain of an error of the transport.
pub(crate) fn of_the_body<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    whole_chain(error).find(|error| error.is::<OfTheBody>())
}

fn whole_chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source()).take(DEPTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_line_without_the_source() {
        let error = Error::transient("the token endpoint\r\ndid not answer").with_source("connection reset");
        assert_eq!(error.to_string(), "the token endpoint  did not answer");
        assert_eq!(error.source().unwrap().to_string(), "connection reset");
    }

    #[test]
    fn every_kind_has_one_predicate() {
        let errors = [
            Error::config("a"),
            Error::grant("b"),
            Error::throttled("c"),
            Error::transient("d"),
            Error::protocol("e"),
        ];
        for (at, error) in errors.iter().enumerate() {
            let answers = [
                error.is_config(),
                error.is_grant(),
                error.is_throttled(),
                error.is_transient(),
                error.is_protocol(),
            ];
            assert_eq!(answers.iter().position(|answer| *answer), Some(at));
            assert_eq!(answers.iter().filter(|answer| **answer).count(), 1);
            assert_eq!(error.is_temporary(), at == 2 || at == 3);
        }
    }

    #[test]
    fn a_kind_is_shown_by_its_name() {
        for (kind, name) in [
            (ErrorKind::Config, "config"),
            (ErrorKind::Grant, "grant"),
            (ErrorKind::Throttled, "throttled"),
            (ErrorKind::Transient, "transient"),
            (ErrorKind::Protocol, "protocol"),
        ] {
            assert_eq!(kind.to_string(), name);
        }
    }

    #[test]
    fn a_wait_of_any_length_does_not_overflow() {
        let error = Error::throttled("later").with_retry_after(Duration::MAX);
        assert_eq!((error.kind(), error.retry_at()), (ErrorKind::Throttled, None));
    }
}
