//! The data that is sealed: a token, with how much of its life is left, and the refresh token that processes share.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::source::{FetchReason, SharedRefreshToken, TokenRequest};
use crate::token::AccessToken;

/// The data that processes share under one key.
#[derive(Clone, Default)]
pub(super) struct StoredValue {
    pub(super) token: Option<AccessToken>,
    /// Whether an API rejected the token.
    pub(super) is_rejected: bool,
    pub(super) refresh_token: Option<SharedRefreshToken>,
    /// How many token requests have failed so far.
    pub(super) failures: u64,
    /// The error of the last token request, if it failed.
    pub(super) failure: Option<Error>,
}

/// A refresh token outlives the access tokens, and a store that drops it loses the login.
const REFRESH_TOKEN_KEPT: Duration = Duration::from_secs(365 * 86_400);

/// A token whose end is not known is used until it is rejected. One that is dropped is fetched again.
const ENDLESS_KEPT: Duration = Duration::from_secs(7 * 86_400);

/// Processes that wait for a token each try in turn, until so many token requests have failed: the cause may be with one of
/// them.
const ENOUGH_FAILURES: u64 = 3;

/// An entry is kept this much longer than its token lives.
const KEPT_LONGER: Duration = Duration::from_secs(60);

impl StoredValue {
    /// Returns the token if it serves the request: it has some life left, it is not the rejected one, and not the one that
    /// the caller has already and wants another for.
    pub(super) fn serves(&self, request: &TokenRequest, now: Moment) -> Option<&AccessToken> {
        let token =
            self.token.as_ref().filter(|token| !self.is_rejected && token.is_worth_handing_out(now))?;
        let is = |other: Option<&AccessToken>| other.is_some_and(|other| other.expose() == token.expose());
        let serves = match request.reason() {
            FetchReason::Initial => true,
            FetchReason::Rejected if request.rejected().is_some() => true,
            FetchReason::Expiring | FetchReason::Expired | FetchReason::Rejected => !is(request.previous()),
            FetchReason::Forced => request.previous().is_some() && !is(request.previous()),
        };
        (serves && !is(request.rejected())).then_some(token)
    }

    /// Returns whether the token is the one that was rejected, and is not marked yet.
    pub(super) fn needs_mark(&self, rejected: Option<&AccessToken>) -> bool {
        let (Some(token), Some(rejected)) = (&self.token, rejected) else { return false };
        !self.is_rejected && token.expose() == rejected.expose()
    }

    /// Returns the error for a process that waits since that many failures, if one more token request would help no one.
    pub(super) fn failed_since(&self, failures: u64) -> Option<&Error> {
        let error = self.failure.as_ref()?;
        let enough = if error.is_throttled() { 1 } else { ENOUGH_FAILURES };
        (self.failures.saturating_sub(failures) >= enough).then_some(error)
    }

    /// Returns how long a store has to keep it.
    pub(super) fn keep_for(&self, now: Moment) -> Duration {
        if self.refresh_token.is_some() {
            return REFRESH_TOKEN_KEPT;
        }
        let end = self.token.as_ref().map(|token| token.span(now, now).1);
        end.map_or(KEPT_LONGER, |end| end.map_or(ENDLESS_KEPT, |end| now.until(end) + KEPT_LONGER))
    }

    pub(super) fn encode(&self, now: Moment) -> Zeroizing<Vec<u8>> {
        let token = self.token.as_ref().map(|token| StoredToken::of(token, now));
        let stored = Stored {
            token,
            is_rejected: self.is_rejected,
            refresh_token: self.refresh_token.as_ref().map(|token| StoredRefreshToken::of(token, now)),
            failures: self.failures,
            failure: self.failure.as_ref().map(|error| StoredError::of(error, now)),
        };
        // Room for all of it: a buffer that grows leaves a copy behind that is not wiped.
        let mut text = Zeroizing::new(Vec::with_capacity(1024 + 6 * stored.len()));
        serde_json::to_writer(&mut *text, &stored).expect("strings and numbers can be written");
        text
    }

    /// Reads a value that was written `age` before `began` at the latest.
    pub(super) fn decode(text: &[u8], age: Duration, began: Moment) -> Result<Self, Error> {
        // The text of a syntax error is left out: it may show a part of the value.
        let unreadable = || Error::protocol("the stored value cannot be used: a newer version wrote it");
        let Stored { token, is_rejected, refresh_token, failures, failure } =
            serde_json::from_slice(text).map_err(|_| unreadable())?;
        Ok(Self {
            token: token.map(|token| token.into_token(age, began)).transpose()?,
            is_rejected,
            refresh_token: refresh_token.map(|token| token.into_token(age)),
            failures,
            failure: failure.map(|error| error.into_error(age)),
        })
    }
}

// --- As it is written ---

#[derive(Default, Serialize, Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    token: Option<StoredToken<'a>>,
    is_rejected: bool,
    #[serde(borrow)]
    refresh_token: Option<StoredRefreshToken<'a>>,
    #[serde(default)]
    failures: u64,
    failure: Option<StoredError>,
}

#[derive(Serialize, Deserialize)]
struct StoredToken<'a> {
    #[serde(borrow)]
    scheme: Cow<'a, str>,
    #[serde(borrow)]
    secret: Cow<'a, str>,
    /// The whole life, and what was left of it when it was written. No clock of another machine is in it.
    life: Option<(Duration, Duration)>,
    scopes: Option<Vec<String>>,
    refresh_token: Option<Cow<'a, str>>,
    #[serde(borrow)]
    extra: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
struct StoredRefreshToken<'a> {
    #[serde(borrow)]
    first: Cow<'a, str>,
    #[serde(borrow)]
    newest: Cow<'a, str>,
    is_in_doubt: bool,
    ended: Option<StoredError>,
}

/// Why a token request failed, or why a refresh token is of no use any more.
#[derive(Serialize, Deserialize)]
struct StoredError {
    kind: Option<StoredKind>,
    message: String,
    code: Option<String>,
    status: Option<u16>,
    /// For how long the server asked for patience when it was written.
    wait: Option<Duration>,
}

#[derive(Serialize, Deserialize)]
enum StoredKind {
    Config,
    Grant,
    Throttled,
    Transient,
    Protocol,
}

impl Stored<'_> {
    fn len(&self) -> usize {
        let token = self.token.iter().map(|token| {
            let extra: usize = token.extra.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
            let scopes: usize = token.scopes.iter().flatten().map(|scope| scope.len() + 4).sum();
            token.secret.len() + token.refresh_token.as_ref().map_or(0, |token| token.len()) + extra + scopes
        });
        let refresh_token = self.refresh_token.iter().map(|token| {
            token.first.len()
                + token.newest.len()
                + token.ended.as_ref().map_or(0, |ended| ended.message.len())
        });
        let failure = self.failure.iter().map(|failure| failure.message.len());
        token.chain(refresh_token).chain(failure).sum()
    }
}

impl<'a> StoredToken<'a> {
    fn of(token: &'a AccessToken, now: Moment) -> Self {
        let (from, end) = token.span(now, now);
        Self {
            scheme: token.scheme().into(),
            secret: token.expose().into(),
            life: end.map(|end| (from.until(end), now.until(end))),
            scopes: token.scopes().map(<[String]>::to_vec),
            refresh_token: token.expose_refresh_token().map(Cow::Borrowed),
            extra: token
                .extras()
                .map(|(name, value)| (name.into(), Cow::Borrowed(value.expose_secret())))
                .collect(),
        }
    }

    fn into_token(self, age: Duration, began: Moment) -> Result<AccessToken, Error> {
        let mut token = AccessToken::of(&self.scheme, self.secret.into_owned().into())?.requested(began);
        if let Some((life, left)) = self.life {
            // It counts from before the store was asked, which is earlier than when the store looked at its clock.
            let left = left.min(life).saturating_sub(age);
            let from = began.checked_sub(life - left);
            token = match from {
                Some(from) => token.with_lifetime(life).requested(from),
                None => token.with_lifetime(left),
            };
        }
        if let Some(scopes) = self.scopes {
            token = token.with_scopes(scopes);
        }
        if let Some(refresh_token) = self.refresh_token {
            token = token.with_refresh_token(refresh_token);
        }
        Ok(self.extra.into_iter().fold(token, |token, (name, value)| token.with_extra(name, value)))
    }
}

impl<'a> StoredRefreshToken<'a> {
    fn of(token: &'a SharedRefreshToken, now: Moment) -> Self {
        Self {
            first: token.first.expose_secret().into(),
            newest: token.newest.expose_secret().into(),
            is_in_doubt: token.is_in_doubt,
            ended: token.ended.as_ref().map(|error| StoredError::of(error, now)),
        }
    }

    fn into_token(self, age: Duration) -> SharedRefreshToken {
        let secret = |text: Cow<'_, str>| SecretString::from(text.into_owned());
        SharedRefreshToken {
            first: secret(self.first),
            newest: secret(self.newest),
            is_in_doubt: self.is_in_doubt,
            ended: self.ended.map(|error| error.into_error(age)),
        }
    }
}

impl StoredError {
    fn of(error: &Error, now: Moment) -> Self {
        let kind = match error.kind() {
            ErrorKind::Config => StoredKind::Config,
            ErrorKind::Grant => StoredKind::Grant,
            ErrorKind::Throttled => StoredKind::Throttled,
            ErrorKind::Transient => StoredKind::Transient,
            ErrorKind::Protocol => StoredKind::Protocol,
        };
        Self {
            kind: Some(kind),
            message: error.to_string(),
            code: error.code().map(str::to_owned),
            status: error.status().map(|status| status.as_u16()),
            wait: error
                .throttled_until()
                .map(|until| Instant::from_std(until).saturating_duration_since(now.mono)),
        }
    }

    /// Reads an error that was written so long ago.
    fn into_error(self, age: Duration) -> Error {
        let mut error = match self.kind {
            Some(StoredKind::Config) => Error::config(self.message),
            Some(StoredKind::Throttled) => Error::throttled(self.message),
            Some(StoredKind::Transient) => Error::transient(self.message),
            Some(StoredKind::Protocol) => Error::protocol(self.message),
            Some(StoredKind::Grant) | None => Error::grant(self.message),
        };
        if let Some(wait) = self.wait {
            error = error.with_retry_after(wait.saturating_sub(age));
        }
        if let Some(code) = self.code {
            error = error.with_code(code);
        }
        match self.status.and_then(|status| http::StatusCode::from_u16(status).ok()) {
            Some(status) => error.with_status(status),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallClock;

    #[test]
    fn a_value_comes_back_as_it_was() {
        let now = WallClock::default().moment();
        let ended = Error::grant("the token \"endpoint\" said no").with_code("invalid_grant");
        let ended = ended.with_status(http::StatusCode::BAD_REQUEST);
        let refresh_token = SharedRefreshToken {
            first: "RT1".into(),
            newest: "R \"T\\ 2".into(),
            is_in_doubt: true,
            ended: Some(ended),
        };
        let token = AccessToken::bearer("AT").unwrap();
        let failure = Error::throttled("slow down").with_retry_after(Duration::from_secs(60));
        let value = StoredValue {
            token: Some(token),
            is_rejected: true,
            refresh_token: Some(refresh_token),
            failures: 7,
            failure: Some(failure.with_status(http::StatusCode::TOO_MANY_REQUESTS)),
        };
        let text = value.encode(now);
        assert!(text.len() <= 1024, "{}", text.len());
        let read = StoredValue::decode(&text, Duration::ZERO, now).unwrap();
        assert_eq!(read.token.unwrap().expose(), "AT");
        assert!(read.is_rejected);
        let (failures, failure) = (read.failures, read.failure.unwrap());
        let read = read.refresh_token.unwrap();
        assert_eq!((read.first.expose_secret(), read.newest.expose_secret()), ("RT1", "R \"T\\ 2"));
        assert!(read.is_in_doubt);
        let ended = read.ended.unwrap();
        assert_eq!(ended.to_string(), "the token \"endpoint\" said no");
        assert_eq!(
            (ended.code(), ended.status()),
            (Some("invalid_grant"), Some(http::StatusCode::BAD_REQUEST))
        );
        assert!(ended.is_final());
        assert_eq!((failures, failure.to_string().as_str()), (7, "slow down"));
        assert_eq!(failure.status(), Some(http::StatusCode::TOO_MANY_REQUESTS));
        let wait = failure.retry_at().unwrap().saturating_duration_since(now.mono.into_std());
        assert!(wait > Duration::from_secs(55) && wait <= Duration::from_secs(61), "{wait:?}");
    }

    #[test]
    fn the_kind_of_an_error_comes_back() {
        let now = WallClock::default().moment();
        for error in [
            Error::config("x"),
            Error::grant("x"),
            Error::throttled("x"),
            Error::transient("x"),
            Error::protocol("x"),
        ] {
            let read = StoredError::of(&error, now).into_error(Duration::ZERO);
            assert_eq!((read.kind(), read.retry_at()), (error.kind(), None));
        }
    }

    #[test]
    fn three_token_requests_that_fail_are_enough_and_one_that_is_throttled() {
        let after = |failures, failure| StoredValue { failures, failure, ..StoredValue::default() };
        let transient = || Some(Error::transient("x"));
        for (value, since, is_enough) in [
            (after(0, None), 0, false),
            (after(1, transient()), 0, false),
            (after(3, transient()), 0, true),
            (after(9, transient()), 7, false),
            (after(9, transient()), 6, true),
            // A token came since then.
            (after(9, None), 6, false),
            (after(1, Some(Error::throttled("x"))), 0, true),
            (after(1, Some(Error::throttled("x"))), 1, false),
            // The store has lost what it had.
            (after(1, transient()), 5, false),
        ] {
            assert_eq!(value.failed_since(since).is_some(), is_enough, "{} since {since}", value.failures);
        }
    }

    #[test]
    fn a_value_that_was_written_before_failures_were_noted_is_read() {
        let now = WallClock::default().moment();
        let ended = r#"{"message":"ended","code":"invalid_grant","status":400}"#;
        let refresh_token = format!(r#"{{"first":"1","newest":"2","is_in_doubt":false,"ended":{ended}}}"#);
        let text = format!(r#"{{"token":null,"is_rejected":false,"refresh_token":{refresh_token}}}"#);
        let read = StoredValue::decode(text.as_bytes(), Duration::ZERO, now).unwrap();
        assert!(read.refresh_token.unwrap().ended.unwrap().is_final());
        assert!(read.failures == 0 && read.failure.is_none());
    }

    #[test]
    fn a_text_that_is_another_is_an_error_that_shows_nothing_of_it() {
        let now = WallClock::default().moment();
        for text in ["", "{}", "[]", "{\"token\":\"S3CR3T\"}", "S3CR3T"] {
            let error = StoredValue::decode(text.as_bytes(), Duration::ZERO, now).err().unwrap();
            assert!(error.is_protocol() && !format!("{error:?}").contains("S3CR3T"), "{error:?}");
        }
    }

    #[test]
    fn the_buffer_of_a_large_value_does_not_grow() {
        let now = WallClock::default().moment();
        let token = AccessToken::bearer("A".repeat(9000)).unwrap().with_extra("id", "\u{1}".repeat(9000));
        let token = token.with_scopes(vec!["\"".repeat(2000); 3]);
        let value =
            StoredValue { token: Some(token.with_refresh_token("R".repeat(9000))), ..StoredValue::default() };
        let stored = StoredToken::of(value.token.as_ref().unwrap(), now);
        let room = 1024 + 6 * Stored { token: Some(stored), ..Stored::default() }.len();
        let text = value.encode(now);
        assert!(text.len() <= room && text.capacity() == room, "{} of {room}", text.len());
    }

    #[test]
    fn a_stored_token_serves_some_requests_and_not_others() {
        let now = WallClock::default().moment();
        let token = |secret| AccessToken::bearer(secret).unwrap();
        let (stored, other) = (token("stored"), token("other"));
        let value = StoredValue { token: Some(stored.clone()), ..StoredValue::default() };
        let cases = [
            (FetchReason::Initial, None, None, true),
            (FetchReason::Initial, Some(&stored), None, true),
            (FetchReason::Expiring, Some(&stored), None, false),
            (FetchReason::Expiring, Some(&other), None, true),
            (FetchReason::Expired, Some(&stored), None, false),
            (FetchReason::Expired, Some(&other), None, true),
            (FetchReason::Expiring, Some(&other), Some(&stored), false),
            (FetchReason::Rejected, Some(&stored), Some(&stored), false),
            (FetchReason::Rejected, Some(&stored), Some(&other), true),
            (FetchReason::Rejected, Some(&stored), None, false),
            (FetchReason::Rejected, Some(&other), None, true),
            (FetchReason::Forced, None, None, false),
            (FetchReason::Forced, Some(&stored), None, false),
            (FetchReason::Forced, Some(&other), None, true),
        ];
        for (reason, previous, rejected, serves) in cases {
            let request = TokenRequest::new(reason).with_previous(previous.cloned());
            let request = request.with_rejected(rejected.cloned());
            assert_eq!(value.serves(&request, now).is_some(), serves, "{request:?}");
            let marked = StoredValue { is_rejected: true, ..value.clone() };
            assert!(marked.serves(&request, now).is_none() && !marked.needs_mark(rejected));
            assert_eq!(value.needs_mark(rejected), rejected.is_some_and(|token| token.expose() == "stored"));
            assert!(StoredValue::default().serves(&request, now).is_none());
        }
    }

    #[test]
    fn a_login_is_kept_longer_than_a_token() {
        let now = WallClock::default().moment();
        let token = AccessToken::bearer("AT").unwrap();
        let endless = StoredValue { token: Some(token.clone()), ..StoredValue::default() };
        let short = token.with_lifetime(Duration::from_secs(100)).requested(now);
        let short = StoredValue { token: Some(short), ..StoredValue::default() };
        assert_eq!((endless.keep_for(now), short.keep_for(now)), (ENDLESS_KEPT, Duration::from_secs(160)));
        let refresh_token =
            SharedRefreshToken { first: "1".into(), newest: "1".into(), is_in_doubt: false, ended: None };
        let login = StoredValue { refresh_token: Some(refresh_token), ..short };
        assert_eq!(login.keep_for(now), REFRESH_TOKEN_KEPT);
    }
}
