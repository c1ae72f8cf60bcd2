//! The log lines, events and metrics of a cache.

use std::time::Duration;

use super::events::CacheEvent;
use super::memory::Failure;
use super::shared::CacheShared;
use crate::clock;
use crate::error::{Error, ErrorKind};
use crate::extensions::RejectionVerdict;
use crate::telemetry;
use crate::text::show_duration;
use crate::token::AccessToken;

/// A fetch that has ended, as far as it is told of.
pub(super) struct Landing<'a> {
    /// Whether a valid token was in use.
    pub(super) had_token: bool,
    /// How long the fetch took.
    pub(super) took: Duration,
    /// The row of failures before it.
    pub(super) before: Option<&'a Failure>,
}

/// Tells of a token that arrived.
pub(super) fn fetched(shared: &CacheShared, token: &AccessToken, landing: &Landing<'_>) {
    let name = shared.settings.name.as_ref();
    telemetry::token_request(name, None, landing.took);
    if let Some(expiry) = token.expiry() {
        telemetry::token_expiry(name, Duration::from_nanos(expiry.wall));
    }
    log_fetched(name.map(|name| &**name), token, landing.took, landing.before);
    let expires_at = token.expires_at();
    shared.tell(|| match landing.had_token {
        true => CacheEvent::Renewed { expires_at },
        false => CacheEvent::Fetched { expires_at },
    });
    if landing.before.is_some() {
        shared.tell(|| CacheEvent::Recovered);
    }
}

/// Tells of a token request that failed. `valid_for` is how long the token in use is good for, if there is one, and
/// unknown if it has no known end.
pub(super) fn failed(
    shared: &CacheShared,
    error: &Error,
    valid_for: Option<Option<Duration>>,
    retry_in: Option<Duration>,
    landing: &Landing<'_>,
) {
    let name = shared.settings.name.as_ref();
    telemetry::token_request(name, Some(error.kind()), landing.took);
    log_failed(name.map(|name| &**name), error, valid_for, retry_in, landing.before);
    match (valid_for, landing.before) {
        (Some(_), None) => shared.tell(|| CacheEvent::Degraded { error: error.clone() }),
        (None, before) if !before.is_some_and(|failure| failure.is_down) => {
            shared.tell(|| CacheEvent::Failing { error: error.clone() });
        }
        (Some(_) | None, _) => {}
    }
}

/// Counts a token request that was given up before it ended.
pub(super) fn unheard(shared: &CacheShared, failure: Option<ErrorKind>, landing: &Landing<'_>) {
    telemetry::token_request(shared.settings.name.as_ref(), failure, landing.took);
    tracing::debug!(?failure, "a token request that was given up has ended");
}

/// Tells of a token that an API rejected. `is_news` says that a brake has just closed.
pub(super) fn rejected(shared: &CacheShared, verdict: RejectionVerdict, is_news: bool) {
    if is_news {
        tracing::warn!(
            cache = shared.settings.name.as_deref(),
            "too many tokens were rejected: they are kept for now and the refusals returned; check that the API \
             trusts the issuer of the tokens, and that all of its nodes do"
        );
    }
    telemetry::token_rejected(shared.settings.name.as_ref(), verdict);
    shared.tell(|| CacheEvent::Rejected { verdict });
}

/// Logs a token that arrived. `failure` is the row of failures that it ended.
fn log_fetched(cache: Option<&str>, token: &AccessToken, took: Duration, failure: Option<&Failure>) {
    let id = token.id();
    let (lifetime, took) = (token.lifetime().map(show_duration), show_duration(took));
    let scopes = token.scopes().filter(|scopes| !scopes.is_empty()).map(|scopes| scopes.join(" "));
    match failure {
        Some(failure) => tracing::info!(
            cache,
            id,
            lifetime,
            scopes,
            took,
            failures = failure.streak,
            outage = show_duration(clock::now().saturating_duration_since(failure.began)),
            "got a token: token requests succeed again"
        ),
        None => tracing::info!(cache, id, lifetime, scopes, took, "got a token"),
    }
}

/// Logs a token request that failed: once when a row of failures begins while a token is in use (`valid_for`), once when
/// requests begin to fail, and each other one for debugging.
fn log_failed(
    cache: Option<&str>,
    error: &Error,
    valid_for: Option<Option<Duration>>,
    retry_in: Option<Duration>,
    before: Option<&Failure>,
) {
    let kind = error.kind();
    let retry_in = retry_in.map(show_duration);
    let failures = before.map_or(0, |failure| failure.streak) + 1;
    match (valid_for, before) {
        (None, before) if !before.is_some_and(|failure| failure.is_down) => tracing::error!(
            cache, %error, %kind, failures, retry_in,
            "no valid token: requests fail until a token request succeeds"
        ),
        (Some(Some(left)), None) => tracing::warn!(
            cache, %error, %kind, retry_in, valid_for = show_duration(left),
            "the token could not be renewed: requests go on with the current one until it expires"
        ),
        (Some(None), None) => tracing::warn!(
            cache, %error, %kind, retry_in,
            "the token could not be renewed: requests go on with the current one, whose expiry is not known"
        ),
        (Some(_) | None, _) => {
            tracing::debug!(cache, %error, %kind, failures, retry_in, "the token request failed again");
        }
    }
}
