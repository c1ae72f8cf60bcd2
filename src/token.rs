//! The access token: an immutable snapshot that is cheap to clone and never shows its secret.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use crate::claims::Claims;
use crate::clock::Moment;
use crate::error::Error;
use crate::text::{Redactor, is_tchar};

/// An access token with what is known about it.
///
/// A source makes one and the cache returns clones, which share everything. Two tokens are told apart by an
/// identity that the cache gives them, never by their secrets.
///
/// It is a [`TokenSource`](crate::TokenSource) too, for an API key, for a token that you have already, and for tests:
/// `ApiClient::connect("https://api.example.com", AccessToken::bearer(key)?)`.
///
/// A `HeaderValue` cannot be wiped from memory: the secret itself is zeroed when the last clone is dropped, the
/// finished header that is sent is not.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_oauth2::AccessToken;
///
/// let token = AccessToken::bearer("mF_9.B5f-4.1JqM")?
///     .with_lifetime(Duration::from_secs(3600))
///     .with_scopes(["analytics:read"]);
/// assert_eq!(token.lifetime(), Some(Duration::from_secs(3600)));
/// assert!(!format!("{token:?}").contains("mF_9"));
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
#[derive(Clone)]
#[doc(alias = "api_key")]
pub struct AccessToken {
    inner: Arc<TokenParts>,
}

#[derive(Clone)]
struct TokenParts {
    scheme: Arc<str>,
    secret: SecretString,
    with_scheme: HeaderValue,
    bare: HeaderValue,
    life: TokenLife,
    requested: Option<Moment>,
    scopes: Option<Arc<[String]>>,
    refresh_token: Option<SecretString>,
    extra: BTreeMap<String, SecretString>,
    seal: Option<TokenSeal>,
}

/// The lifetime of a token as its source stated it.
#[derive(Clone, Copy)]
enum TokenLife {
    Unknown,
    Lasts(Duration),
    EndsAt(SystemTime),
}

/// The data that a cache adds to a token of its source.
#[derive(Clone, Copy)]
struct TokenSeal {
    id: u64,
    obtained: Moment,
    expiry: Option<Moment>,
}

/// Identities come from one source for the whole process, so those of two caches never meet.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl AccessToken {
    /// Creates a bearer token (RFC 6750).
    ///
    /// # Errors
    ///
    /// A protocol error if `secret` is empty or holds anything but visible ASCII without quotes and commas: a space (is
    /// the scheme still in front?), a line end, a control character. RFC 6750 §2.1 allows less, but servers that hand
    /// out `!` or `|` exist.
    pub fn bearer(secret: impl Into<String>) -> Result<Self, Error> {
        Self::with_scheme("Bearer", secret)
    }

    /// Creates a token of another scheme: the word before the token in `Authorization` (RFC 9110 §11.6.2).
    ///
    /// # Errors
    ///
    /// As [`bearer`](Self::bearer); a configuration error if `scheme` is not a token of RFC 9110 §5.6.2.
    pub fn with_scheme(scheme: &str, secret: impl Into<String>) -> Result<Self, Error> {
        Self::of(scheme, secret.into().into())
    }

    /// Creates a token from a secret that is kept as one.
    pub(crate) fn of(scheme: &str, secret: SecretString) -> Result<Self, Error> {
        if scheme.is_empty() || !scheme.bytes().all(is_tchar) {
            return Err(Error::config(
                "the authentication scheme must be one word of letters, digits and -._",
            ));
        }
        check(secret.expose_secret())?;
        let line = Bytes::from(format!("{scheme} {}", secret.expose_secret()));
        // A slice shares the allocation; both halves were checked above, so neither conversion can fail.
        let bare = line.slice(scheme.len() + 1..);
        let header = |bytes| {
            let mut value = HeaderValue::from_maybe_shared(bytes)
                .map_err(|_| Error::protocol("the token cannot stand in a header"))?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        };
        let inner = TokenParts {
            scheme: scheme.into(),
            with_scheme: header(line)?,
            bare: header(bare)?,
            secret,
            life: TokenLife::Unknown,
            requested: None,
            scopes: None,
            refresh_token: None,
            extra: BTreeMap::new(),
            seal: None,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Sets how long the token lives, counted from before the token request was sent.
    ///
    /// Default: unknown. Then the `exp` of a JWT counts, or the token is used until it is rejected.
    #[must_use]
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.edit().life = TokenLife::Lasts(lifetime);
        self
    }

    /// Sets when the token ends, for sources that learn an instant and not a lifetime.
    #[must_use]
    pub fn with_expires_at(mut self, instant: SystemTime) -> Self {
        self.edit().life = TokenLife::EndsAt(instant);
        self
    }

    /// Sets the scopes that were granted.
    #[must_use]
    pub fn with_scopes<I>(mut self, scopes: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.edit().scopes = Some(scopes.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the refresh token that came with the token.
    #[must_use]
    pub fn with_refresh_token(self, refresh_token: impl Into<String>) -> Self {
        self.refresh_secret_of(refresh_token.into().into())
    }

    /// Sets the refresh token, which is kept as a secret already.
    pub(crate) fn refresh_secret_of(mut self, refresh_token: SecretString) -> Self {
        self.edit().refresh_token = Some(refresh_token);
        self
    }

    /// Sets another string member of the token response, kept as a secret.
    #[must_use]
    pub fn with_extra(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.edit().extra.insert(name.into(), value.into().into());
        self
    }

    /// Returns the scheme, such as `Bearer`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.inner.scheme
    }

    /// Returns the token itself, as text. Do not log it: it is all that a request needs to be authorized.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.inner.secret.expose_secret()
    }

    pub(crate) fn secret(&self) -> &SecretString {
        &self.inner.secret
    }

    /// Returns the finished value of an `Authorization` header, marked sensitive.
    #[must_use]
    pub fn header_value(&self) -> &HeaderValue {
        &self.inner.with_scheme
    }

    /// Returns the finished value of a header that takes the token without a scheme, marked sensitive.
    pub(crate) fn bare_header_value(&self) -> &HeaderValue {
        &self.inner.bare
    }

    /// Returns how long the token lives in all, if the source said so.
    #[must_use]
    pub fn lifetime(&self) -> Option<Duration> {
        match self.inner.life {
            TokenLife::Lasts(lifetime) => Some(lifetime),
            TokenLife::Unknown | TokenLife::EndsAt(_) => None,
        }
    }

    /// Returns when the token ends by the wall clock, if that is known. A token that no cache has taken in yet knows it
    /// only if its source did.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        match (&self.inner.seal, self.inner.life) {
            (Some(seal), _) => UNIX_EPOCH.checked_add(Duration::from_nanos(seal.expiry?.wall)),
            (None, TokenLife::EndsAt(instant)) => Some(instant),
            (None, TokenLife::Unknown | TokenLife::Lasts(_)) => None,
        }
    }

    /// Returns the scopes that were granted, if the source said so.
    #[must_use]
    pub fn scopes(&self) -> Option<&[String]> {
        self.inner.scopes.as_deref()
    }

    /// Returns the refresh token that came with the token, as text. Do not log it.
    #[must_use]
    pub fn expose_refresh_token(&self) -> Option<&str> {
        self.refresh_secret().map(ExposeSecret::expose_secret)
    }

    pub(crate) fn refresh_secret(&self) -> Option<&SecretString> {
        self.inner.refresh_token.as_ref()
    }

    /// Returns another string member of the token response, such as `instance_url`, as text. It may be a secret too, as
    /// `id_token` is.
    #[must_use]
    pub fn expose_extra(&self, name: &str) -> Option<&str> {
        self.extra(name).map(ExposeSecret::expose_secret)
    }

    pub(crate) fn extra(&self, name: &str) -> Option<&SecretString> {
        self.inner.extra.get(name)
    }

    /// Returns the other string members of the token response.
    #[cfg(feature = "store")]
    pub(crate) fn extras(&self) -> impl Iterator<Item = (&str, &SecretString)> {
        self.inner.extra.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Says from which moment the lifetime counts. Without it the cache counts from the start of its fetch.
    #[must_use]
    pub(crate) fn requested(mut self, moment: Moment) -> Self {
        self.edit().requested = Some(moment);
        self
    }

    /// Has the lifetime count from `started`, if nothing better is known.
    #[cfg(feature = "store")]
    #[must_use]
    pub(crate) fn counted_from(self, started: Moment) -> Self {
        if self.inner.seal.is_some() || self.inner.requested.is_some() {
            self
        } else {
            self.requested(started)
        }
    }

    /// Takes the token into a cache: gives it its identity and fixes its end on both clocks.
    ///
    /// A token that another cache sealed keeps its identity and end, so that caches can stand behind one another and a
    /// rejection reaches the first of them.
    #[must_use]
    pub(crate) fn sealed(mut self, started: Moment, now: Moment) -> Self {
        if self.inner.seal.is_some() {
            return self;
        }
        let (from, expiry) = self.span(started, now);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        self.edit().seal = Some(TokenSeal { id, obtained: from, expiry });
        self
    }

    /// Returns whether a token that waits to be used has more left than a cache would want of it: a twentieth of its
    /// life, at most 10 seconds.
    pub(crate) fn is_worth_handing_out(&self, now: Moment) -> bool {
        let (from, Some(end)) = self.span(now, now) else { return true };
        now.until(end) > (from.until(end) / 20).min(Duration::from_secs(10))
    }

    /// Returns from when the lifetime counts, and when it ends, if that is known. Without better knowledge it counts from
    /// `started`.
    pub(crate) fn span(&self, started: Moment, now: Moment) -> (Moment, Option<Moment>) {
        if let Some(seal) = self.inner.seal {
            return (seal.obtained, seal.expiry);
        }
        let from = self.inner.requested.unwrap_or(started);
        (from, self.end(from, now))
    }

    /// Returns when the token ends whose lifetime counts from `from`, if that is known.
    fn end(&self, from: Moment, now: Moment) -> Option<Moment> {
        match self.inner.life {
            TokenLife::Lasts(lifetime) => Some(from.saturating_add(lifetime)),
            TokenLife::EndsAt(instant) => Some(
                now.saturating_add(
                    instant
                        .duration_since(UNIX_EPOCH)
                        .unwrap_or_default()
                        .saturating_sub(Duration::from_nanos(now.wall)),
                ),
            ),
            TokenLife::Unknown => Claims::read(self.inner.secret.expose_secret())
                .and_then(|claims| claims.lifetime(Duration::from_nanos(now.wall)))
                .map(|lifetime| from.saturating_add(lifetime)),
        }
    }

    /// Returns the token without the refresh token that came with it.
    #[must_use]
    pub(crate) fn without_refresh_token(mut self) -> Self {
        self.edit().refresh_token = None;
        self
    }

    /// Returns the identity, zero before a cache gave one.
    pub(crate) fn id(&self) -> u64 {
        self.inner.seal.map_or(0, |seal| seal.id)
    }

    /// Returns the moment from which the lifetime counts.
    pub(crate) fn obtained(&self) -> Option<Moment> {
        self.inner.seal.map(|seal| seal.obtained)
    }

    /// Returns the end of the token on both clocks.
    pub(crate) fn expiry(&self) -> Option<Moment> {
        self.inner.seal.and_then(|seal| seal.expiry)
    }

    /// Tells the redactor the secrets that came with the token, itself included.
    pub(crate) fn teach(&self, redactor: &mut Redactor) {
        let inner = &*self.inner;
        redactor.add(inner.secret.expose_secret());
        if let Some(refresh_token) = &inner.refresh_token {
            redactor.learn("refresh_token", refresh_token.expose_secret());
        }
        for (name, value) in &inner.extra {
            redactor.learn(name, value.expose_secret());
        }
    }

    fn edit(&mut self) -> &mut TokenParts {
        Arc::make_mut(&mut self.inner)
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("id", &self.id())
            .field("scheme", &self.inner.scheme)
            .field("lifetime", &self.lifetime())
            .field("expires", &self.expires_at())
            .field("scopes", &self.inner.scopes)
            .field("refresh_token", &self.inner.refresh_token.is_some())
            .finish_non_exhaustive()
    }
}

/// Visible ASCII without quotes and commas: what can stand in a header beside a scheme and be read back from a list.
fn check(secret: &str) -> Result<(), Error> {
    if secret.is_empty() {
        return Err(Error::protocol("the access token is empty"));
    }
    match secret.bytes().find(|byte| !byte.is_ascii_graphic() || matches!(byte, b'"' | b',')) {
        None => Ok(()),
        Some(b' ') => Err(Error::protocol(
            "the access token contains a space; if a scheme stands in front of it, give the token alone",
        )),
        Some(b'\r' | b'\n' | b'\t') => Err(Error::protocol(
            "the access token contains a line end or a tab; if it was read from a file, trim it",
        )),
        Some(_) => Err(Error::protocol("the access token contains a character that no header may carry")),
    }
}

/// Returns whether `secret` is a `b64token` of RFC 6750 §2.1.
pub(crate) fn is_b64token(secret: &str) -> bool {
    let body = secret.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

/// Seals a token as a cache would at this moment. Only for tests.
#[cfg(test)]
pub(crate) fn sealed_now(token: AccessToken) -> AccessToken {
    let now = crate::clock::WallClock::default().moment();
    token.sealed(now, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, vectors};

    #[test]
    fn the_header_is_finished_and_sensitive() {
        let token = AccessToken::bearer("mF_9.B5f-4.1JqM").unwrap();
        assert_eq!(token.header_value(), "Bearer mF_9.B5f-4.1JqM");
        assert_eq!(token.bare_header_value(), "mF_9.B5f-4.1JqM");
        assert!(token.header_value().is_sensitive() && token.bare_header_value().is_sensitive());
        assert_eq!(AccessToken::with_scheme("Token", "x").unwrap().header_value(), "Token x");
    }

    #[test]
    fn what_no_header_may_carry_is_refused_and_not_repeated() {
        for secret in [
            "",
            "S3CR3T abc",
            "S3CR3T\r\nX-Evil: 1",
            "S3CR3T\0",
            "S3CR3Té",
            "S3CR3T\"",
            "S3CR3T,b",
            "Bearer S3CR3T",
        ] {
            let error = AccessToken::bearer(secret).unwrap_err();
            assert!(error.is_protocol() && !format!("{error} {error:?}").contains("S3CR3T"), "{error}");
        }
        assert!(AccessToken::with_scheme("Two words", "x").unwrap_err().is_config());
        assert!(AccessToken::with_scheme("", "x").unwrap_err().is_config());
    }

    // Servers hand out tokens beyond RFC 6750's b64token, so by policy these are refused by the strict grammar alone:
    // BT-008 and BT-009 (equals signs), BT-018 (a pipe), BT-019 (a percent sign).
    #[test]
    fn every_vector_of_bearer_syntax_passes() {
        let mut accepted_beyond_the_grammar = Vec::new();
        let vectors = vectors::read("bearer_syntax");
        assert_eq!(vectors.len(), 20);
        for vector in vectors {
            let text = vector["input"]["token"].as_str().unwrap();
            let valid = vector["expect"]["valid"].as_bool().unwrap();
            assert_eq!(is_b64token(text), valid, "{}", vector["id"]);
            match AccessToken::bearer(text) {
                Ok(token) if valid => {
                    assert_eq!(token.header_value(), vector["expect"]["authorization"].as_str().unwrap());
                }
                Ok(token) => {
                    assert_eq!(token.header_value(), &format!("Bearer {text}"));
                    accepted_beyond_the_grammar.push(vector["id"].as_str().unwrap().to_owned());
                }
                Err(error) => assert!(!valid && error.is_protocol(), "{}: {error}", vector["id"]),
            }
        }
        assert_eq!(accepted_beyond_the_grammar, ["BT-008", "BT-009", "BT-018", "BT-019"]);
    }

    #[test]
    fn debug_shows_no_secret_in_any_form() {
        let token = AccessToken::bearer("S3CR3T-A")
            .unwrap()
            .with_refresh_token("S3CR3T-R")
            .with_extra("x", "S3CR3T-X");
        for shown in [format!("{token:?}"), format!("{token:#?}")] {
            assert!(!shown.contains("S3CR3T"), "{shown}");
        }
    }

    #[test]
    fn a_sealed_token_has_an_identity_that_no_other_has() {
        let token = AccessToken::bearer("same").unwrap();
        let (one, two) = (sealed_now(token.clone()), sealed_now(token.clone()));
        assert!(one.id() != 0 && one.id() != two.id() && token.id() == 0);
        assert_eq!(sealed_now(one.clone()).id(), one.id());
    }

    #[test]
    fn an_instant_in_the_past_ends_at_once_and_one_far_away_does_not_overflow() {
        let past = sealed_now(AccessToken::bearer("a").unwrap().with_expires_at(UNIX_EPOCH));
        assert!(clock::WallClock::default().moment().reached(past.expiry().unwrap()));
        let far = sealed_now(AccessToken::bearer("a").unwrap().with_lifetime(Duration::MAX));
        assert!(!clock::WallClock::default().moment().reached(far.expiry().unwrap()));
    }
}
