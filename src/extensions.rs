//! Values by which the layers inform each other and the caller, in the extensions of a request or a response.
//!
//! Each is a small value without a secret in it: what an API says is blanked out where it echoes the token, or what came
//! with it. A type that only one module writes and reads is in that module:
//! [`AuthOverride`](crate::auth::AuthOverride) with auth, [`RetryOptions`](crate::retry::RetryOptions) and
//! [`RetryReport`](crate::retry::RetryReport) with retry.
//!
//! | type | on | written by | read by |
//! |---|---|---|---|
//! | [`AuthOverride`](crate::auth::AuthOverride) | request | caller | auth |
//! | [`RetryOptions`](crate::retry::RetryOptions) | request | caller | retry |
//! | [`BodyFactory`](crate::retry::BodyFactory) | request | caller | retry |
//! | [`Deadline`] | request | caller | retry |
//! | [`CredentialId`] | request | caller | retry's budget and gate |
//! | [`Attempt`] | request | retry, on replays only | inner layers |
//! | [`TokenRejected`], [`TokenWithheld`], [`ScopeMissing`] | response | auth | retry, caller |
//! | [`Challenges`] | response | auth | caller |
//! | [`RetryReport`](crate::retry::RetryReport) | response | retry, when something was replayed or refused | caller |

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::Extensions;

use crate::clock;
use crate::headers::challenge::Challenge;

/// Marks a response on which an API refused the token that auth had put on the request.
///
/// Auth sets it. Of two auth layers the inner one is asked first: where it found its own token to be at fault, the outer one
/// leaves the marker, and its own token, alone. The retry layer replays on its word and takes it off; the
/// [`RetryReport`](crate::retry::RetryReport) keeps it.
///
/// # Examples
///
/// ```
/// use http::Response;
/// use tower_oauth2::extensions::{RejectionVerdict, TokenRejected};
///
/// /// Why a 401 came back although requests are retried.
/// fn explain<B>(response: &Response<B>) -> Option<&'static str> {
///     let rejected = response.extensions().get::<TokenRejected>()?;
///     Some(match rejected.verdict() {
///         RejectionVerdict::Invalidated | RejectionVerdict::Superseded => "another token is used from now on",
///         RejectionVerdict::NotRefreshable => "another token would not help",
///         _ => "too many tokens were rejected in a short time",
///     })
/// }
/// # assert_eq!(explain(&Response::new(())), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRejected {
    verdict: RejectionVerdict,
    error: Option<String>,
    description: Option<String>,
    /// The number of the token, for the log.
    token: Option<u64>,
    /// When the token was asked for.
    obtained: Option<Instant>,
}

/// The effect of a refusal on the token that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectionVerdict {
    /// The token was dropped; a replay will carry a new one.
    Invalidated,
    /// A newer token was there already; a replay will carry it.
    Superseded,
    /// The challenge does not blame the token: another scope, another scheme, or a request that is wrong in itself.
    NotRefreshable,
    /// Tokens were rejected too often of late; this one is kept and the refusal returned.
    Braked,
}

impl TokenRejected {
    /// Creates the marker. `error` and `description` must be cleaned already.
    pub(crate) fn new(verdict: RejectionVerdict, error: Option<String>, description: Option<String>) -> Self {
        Self { verdict, error, description, token: None, obtained: None }
    }

    /// Adds which token was refused, by the number that the log has of it, and when it was asked for.
    pub(crate) fn of_token(mut self, id: u64, obtained: Instant) -> Self {
        self.token = Some(id);
        self.obtained = Some(obtained);
        self
    }

    /// Returns the number of the token.
    pub(crate) fn token_id(&self) -> Option<u64> {
        self.token
    }

    /// Returns whether the token was asked for before that instant.
    pub(crate) fn is_older_than(&self, instant: Instant) -> bool {
        self.obtained.is_some_and(|obtained| obtained < instant)
    }

    /// Returns what the refusal meant for the token.
    #[must_use]
    pub fn verdict(&self) -> RejectionVerdict {
        self.verdict
    }

    /// Returns whether a replay would carry another token.
    ///
    /// # Examples
    ///
    /// Under an [`AuthLayer`](crate::AuthLayer) without the retry layer, a program sends a refused request again by itself:
    ///
    /// ```
    /// use http::Response;
    /// use tower_oauth2::extensions::TokenRejected;
    ///
    /// fn is_worth_another_try<B>(response: &Response<B>) -> bool {
    ///     response.extensions().get().is_some_and(TokenRejected::may_replay)
    /// }
    /// # assert!(!is_worth_another_try(&Response::new(())));
    /// ```
    #[must_use]
    pub fn may_replay(&self) -> bool {
        matches!(self.verdict, RejectionVerdict::Invalidated | RejectionVerdict::Superseded)
    }

    /// Returns the error code of the challenge, such as `invalid_token` (RFC 6750 §3.1), cleaned.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Returns the description of the challenge, cleaned and cut to 256 characters.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }
}

/// Put by auth on a gRPC response that will say only in its trailers what became of the call. The reader of those tells
/// auth by it that they refuse the token, and gets the marker that auth would have set.
#[derive(Clone)]
pub(crate) struct LateRefusal {
    sent: Arc<dyn SentToken>,
    /// That of an auth layer below.
    below: Option<Box<LateRefusal>>,
}

/// A token that was sent, and what must know if it is refused. A trait, so that what is shared already can be handed on
/// as it is: nearly every gRPC response carries one.
pub(crate) trait SentToken: Send + Sync {
    /// Takes the word that the token was accepted.
    fn accepted(&self);

    /// Takes the word that the token was refused.
    fn refused(&self) -> TokenRejected;
}

impl LateRefusal {
    pub(crate) fn new(sent: Arc<dyn SentToken>, below: Option<Self>) -> Self {
        Self { sent, below: below.map(Box::new) }
    }

    /// Tells auth that the token was refused: the layer below first, as in the headers.
    pub(crate) fn tell(&self) -> TokenRejected {
        let below = self.below.as_ref().map(|below| below.tell());
        below.filter(TokenRejected::may_replay).unwrap_or_else(|| self.sent.refused())
    }

    /// Tells auth that the token was accepted.
    pub(crate) fn accepted(&self) {
        self.sent.accepted();
        if let Some(below) = &self.below {
            below.accepted();
        }
    }
}

/// Put by the retry layer on a 401 that auth did not mark below it. An auth layer above that has sent the token warns of the
/// order of the two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PastRetry;

/// Marks a response to a request that was sent without a token on purpose.
///
/// # Examples
///
/// ```
/// use http::{Request, Response};
/// use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};
/// use tower_oauth2::extensions::{TokenWithheld, WithheldReason};
/// use tower_oauth2::{AccessToken, AuthLayer};
///
/// let http_client = service_fn(async |_: Request<()>| Ok::<_, BoxError>(Response::new(())));
/// let token = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
/// let client = AuthLayer::for_origin(token, "https://api.example.com")?.layer(http_client);
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let response = client.oneshot(Request::get("https://other.example.com/").body(())?).await?;
/// let withheld = response.extensions().get::<TokenWithheld>().map(TokenWithheld::reason);
/// assert_eq!(withheld, Some(WithheldReason::ForeignOrigin));
/// # Ok::<_, BoxError>(()) })?;
/// # Ok::<_, BoxError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenWithheld {
    reason: WithheldReason,
    origin: Option<String>,
}

/// Why a request was sent without a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WithheldReason {
    /// The request's origin is not on the list.
    ForeignOrigin,
    /// The request's origin is not one of those that the token's cache is [for](crate::cache::TokenCacheBuilder::only_for), or not
    /// the one that the token [names](crate::AuthLayer::for_origin_named_by).
    NotOfThisToken,
    /// The request's `Host` header names another host than its URI.
    HostMismatch,
    /// The request's URI carries a user name or a password.
    UserInfo,
    /// The request is a `CONNECT`, which addresses a proxy.
    Connect,
    /// The request would go over plain http.
    Plaintext,
}

impl TokenWithheld {
    pub(crate) fn new(reason: WithheldReason, origin: Option<String>) -> Self {
        Self { reason, origin }
    }

    /// Returns why the token was withheld.
    #[must_use]
    pub fn reason(&self) -> WithheldReason {
        self.reason
    }

    /// Returns the origin of the request, as far as it has one.
    #[must_use]
    pub fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }
}

impl fmt::Display for WithheldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ForeignOrigin => "its origin is not on the list",
            Self::NotOfThisToken => "its origin is not one that this token is for",
            Self::HostMismatch => "its Host header names another host than its URI",
            Self::UserInfo => "its URI carries a user name or a password",
            Self::Connect => "CONNECT addresses a proxy",
            Self::Plaintext => "it would go over plain http",
        })
    }
}

/// Marks a response whose API wants a scope that the token does not have (RFC 6750 §3.1, `insufficient_scope`).
///
/// # Examples
///
/// ```
/// use http::Response;
/// use tower_oauth2::extensions::ScopeMissing;
///
/// fn missing_scope<B>(response: &Response<B>) -> Option<&str> {
///     response.extensions().get::<ScopeMissing>()?.scope()
/// }
/// # assert_eq!(missing_scope(&Response::new(())), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeMissing {
    scope: Option<String>,
}

impl ScopeMissing {
    pub(crate) fn new(scope: Option<String>) -> Self {
        Self { scope }
    }

    /// Returns the scope that the API asks for, cleaned, if it said so.
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }
}

/// Marks a response that refuses the token or asks for more scope with its challenges (RFC 9110 §11.6.1), for what is built on them: a claims
/// challenge, the metadata of a protected resource (RFC 9728 §5.1).
///
/// Auth sets it beside [`TokenRejected`] and [`ScopeMissing`], if the response has a challenge. Where the API echoes the token, the value is cleaned; challenges
/// beyond the first 8 KiB are left out. [`Challenge::read`] reads those of any response, as they are.
///
/// # Examples
///
/// ```
/// use tower_oauth2::extensions::Challenges;
///
/// /// Returns where the API says how to get a token for it.
/// fn resource_metadata<B>(response: &http::Response<B>) -> Option<&str> {
///     let challenges = response.extensions().get::<Challenges>()?;
///     challenges.param("bearer", "resource_metadata")
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenges(Arc<[Challenge]>);

impl Challenges {
    /// Creates the marker of challenges without secrets.
    pub(crate) fn new(challenges: Vec<Challenge>) -> Self {
        Self(challenges.into())
    }

    /// Returns a parameter of the first challenge of a scheme that has it. Both names are in lower case.
    #[must_use]
    pub fn param(&self, scheme: &str, name: &str) -> Option<&str> {
        let of_scheme = self.iter().filter(|challenge| challenge.scheme() == scheme);
        of_scheme.into_iter().find_map(|challenge| challenge.param(name))
    }
}

/// The challenges in their order.
impl Deref for Challenges {
    type Target = [Challenge];

    fn deref(&self) -> &[Challenge] {
        &self.0
    }
}

/// By when the head of the response must be there. No wait is begun that would not end before it, and an attempt that
/// is in flight then is ended: see the rules of [retry](crate::retry). An [`ApiClient`](crate::client::ApiClient) ends the reading of
/// the body then, too.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use http::Request;
/// use tower_oauth2::extensions::Deadline;
///
/// let mut request = Request::get("https://api.example.com/orders").body(())?;
/// request.extensions_mut().insert(Deadline::within(Duration::from_secs(2)));
/// # Ok::<_, http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

/// Put by an [`ApiClient`](crate::client::ApiClient) on a response: by when its body must have been read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyDeadline(pub(crate) Deadline);

/// Two timers of one instant do not always fire together.
const LATER: Duration = Duration::from_millis(10);

impl Deadline {
    /// Sets the deadline at `instant`.
    #[must_use]
    pub fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// Sets the deadline `within` from now, or as far away as a clock can say.
    #[must_use]
    pub fn within(within: Duration) -> Self {
        Self(clock::after(clock::now(), within).into())
    }

    /// Sets the deadline of a request `within` from now, unless it has an earlier one. Returns the one that it has then.
    pub(crate) fn narrow(extensions: &mut Extensions, within: Duration) -> Self {
        let ours = Self::within(within);
        // In place: each layer with a timeout of its own does so, for every request.
        let deadline = extensions.get_or_insert(ours);
        *deadline = ours.min(*deadline);
        *deadline
    }

    /// Returns when a layer above the retries ends the request. They end it at the deadline, and know what to return then.
    pub(crate) fn of_outer_layers(self) -> tokio::time::Instant {
        clock::after(self.0.into(), LATER)
    }

    /// Returns when it is.
    ///
    /// # Examples
    ///
    /// A layer of your own asks how much time is left:
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use http::Extensions;
    /// use tower_oauth2::extensions::Deadline;
    ///
    /// fn time_left(extensions: &Extensions) -> Option<Duration> {
    ///     let deadline: &Deadline = extensions.get()?;
    ///     Some(deadline.instant().saturating_duration_since(Instant::now()))
    /// }
    ///
    /// let mut extensions = Extensions::new();
    /// assert_eq!(time_left(&extensions), None);
    /// extensions.insert(Deadline::within(Duration::from_secs(2)));
    /// assert!(time_left(&extensions) <= Some(Duration::from_secs(2)));
    /// ```
    #[must_use]
    pub fn instant(self) -> Instant {
        self.0
    }
}

/// Names the credential that a request is sent with: a tenant, a user, an API key. Opaque, and cheap to clone.
///
/// Servers limit rates per credential. Where requests of one client are sent with several, this tells them apart, so that
/// the retries and the waits of one are not those of another. If you put an
/// [`AuthOverride`](crate::auth::AuthOverride) on a request, put this beside it. It is shown by
/// [`GateStatus`](crate::retry::GateStatus), so it is a name and never the secret itself.
///
/// # Examples
///
/// ```
/// use tower_oauth2::extensions::CredentialId;
///
/// let mut request = http::Request::get("https://api.example.com/reports").body(())?;
/// request.extensions_mut().insert(CredentialId::new("tenant-7"));
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CredentialId(Arc<str>);

impl CredentialId {
    /// Creates the id from a name that is not a secret.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CredentialId({})", &*self.0)
    }
}

/// Put by the sources on what they ask an authorization server: a client secret may be in it, and a redirect that is
/// followed below would take it along. A transport that may do so refuses such a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FollowNothing;

/// Put by the sources on a request beside which another one may begin: a transport says here how the connection of this
/// one is kept from being used again.
#[derive(Clone, Default)]
pub(crate) struct SlowConnection {
    abandon: Arc<Mutex<Option<AbandonFn>>>,
}

type AbandonFn = Box<dyn Fn() + Send>;

impl SlowConnection {
    /// Sets what is done when the connection is not to be used again.
    #[cfg_attr(not(feature = "hyper-client"), allow(dead_code, reason = "other transports do not say it"))]
    pub(crate) fn on_abandon(&self, abandon: impl Fn() + Send + 'static) {
        *self.abandon.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(abandon));
    }

    /// Keeps further requests off the connection. Requests in flight on it go on.
    pub(crate) fn abandon(&self) {
        if let Some(abandon) = &*self.abandon.lock().unwrap_or_else(PoisonError::into_inner) {
            abandon();
        }
    }
}

/// Marks a request that is sent again. Absence means the first attempt.
///
/// # Examples
///
/// ```
/// use http::Request;
/// use tower_oauth2::extensions::Attempt;
///
/// /// What a layer below the retries adds for the server's log.
/// fn note<B>(mut request: Request<B>) -> Request<B> {
///     if let Some(attempt) = request.extensions().get::<Attempt>().copied() {
///         let count = attempt.resend_count().into();
///         request.headers_mut().insert("x-retry-count", count);
///     }
///     request
/// }
/// # assert!(note(Request::new(())).headers().is_empty());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    resend_count: u32,
}

impl Attempt {
    /// Creates the marker of the `resend_count`-th resend.
    pub(crate) fn new(resend_count: u32) -> Self {
        Self { resend_count }
    }

    /// Returns how often the request was sent before: 1 on the first replay. OpenTelemetry calls this
    /// `http.request.resend_count`.
    #[must_use]
    pub fn resend_count(self) -> u32 {
        self.resend_count
    }
}
