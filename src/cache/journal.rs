//! The log lines of a cache: what an operator reads of an outage.

use std::fmt;
use std::time::Duration;

use super::memory::Failure;
use crate::clock;
use crate::error::Error;
use crate::token::AccessToken;

/// Logs a token that arrived. `failure` is the row of failures that it ended.
pub(super) fn fetched(cache: Option<&str>, token: &AccessToken, took: Duration, failure: Option<&Failure>) {
    let id = token.id();
    let (lifetime, took) = (token.lifetime().map(show), show(took));
    let scopes = token.scopes().map(|scopes| scopes.join(" "));
    match failure {
        Some(failure) => tracing::info!(
            cache,
            id,
            lifetime,
            scopes,
            took,
            failures = failure.streak,
            outage = show(clock::now().saturating_duration_since(failure.began)),
            "got a token: token requests succeed again"
        ),
        None => tracing::info!(cache, id, lifetime, scopes, took, "got a token"),
    }
}

/// Logs a token request that failed: once when a row of failures begins while a token is in use (`valid_for`), once when
/// requests begin to fail, and each other one for debugging.
pub(super) fn failed(
    cache: Option<&str>,
    error: &Error,
    valid_for: Option<Option<Duration>>,
    retry_in: Option<Duration>,
    before: Option<&Failure>,
) {
    let kind = error.kind();
    let retry_in = retry_in.map(show);
    let failures = before.map_or(0, |failure| failure.streak) + 1;
    match (valid_for, before) {
        (None, before) if !before.is_some_and(|failure| failure.is_down) => tracing::error!(
            cache, %error, %kind, failures, retry_in,
            "no valid token: requests fail until a token request succeeds"
        ),
        (Some(Some(left)), None) => tracing::warn!(
            cache, %error, %kind, retry_in, valid_for = show(left),
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

/// Shows a duration as people say it: `850ms`, `4.7s`, `42s`, `2h5m`.
fn show(duration: Duration) -> String {
    struct Shown(Duration);
    impl fmt::Display for Shown {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let seconds = self.0.as_secs();
            match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
                (0, 0, 0) => write!(f, "{}ms", self.0.as_millis()),
                (0, 0, 1..10) => write!(f, "{:.1}s", self.0.as_secs_f64()),
                (0, 0, seconds) => write!(f, "{seconds}s"),
                (0, minutes, 0) => write!(f, "{minutes}m"),
                (0, minutes, seconds) => write!(f, "{minutes}m{seconds}s"),
                (hours, 0, _) => write!(f, "{hours}h"),
                (hours, minutes, _) => write!(f, "{hours}h{minutes}m"),
            }
        }
    }
    Shown(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_shown_in_its_largest_units() {
        let shown = [0, 850, 4_711, 42_000, 60_000, 95_000, 3_600_000, 7_500_000, 90_061_000]
            .map(|millis| show(Duration::from_millis(millis)));
        assert_eq!(shown, ["0ms", "850ms", "4.7s", "42s", "1m", "1m35s", "1h", "2h5m", "25h1m"]);
    }
}
