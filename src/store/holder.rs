//! The process that holds the lease of an entry: what it knows of the entry, and how it writes there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::time::{Instant, sleep};

use super::calls::{Away, Calls, Read};
use super::token_store::TokenStore;
use super::value::StoredValue;
use crate::backoff::Chance;
use crate::clock;
use crate::error::Error;
use crate::source::{LineageFuture, LineageStore, SharedRefreshToken};
use crate::token::AccessToken;

/// Holds the lease of an entry while a token is fetched; without a lease where the store is left out.
pub(super) struct Holder<T> {
    calls: Arc<Calls<T>>,
    /// The fence of the lease.
    fence: Option<u64>,
    /// Whether a refresh token may be sent where the store does not work.
    is_optional: bool,
    known: Mutex<Known>,
}

struct Known {
    /// The version that is in the store.
    version: u64,
    /// The value in the store.
    value: StoredValue,
    /// The newest refresh token since then.
    newest: Option<SharedRefreshToken>,
    /// The value that the store did not take and must have.
    unwritten: Option<StoredValue>,
}

/// The pauses of a write that is tried again, and for how long it is.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_TRYING: Duration = Duration::from_secs(60);

impl<T: TokenStore> Holder<T> {
    pub(super) fn new(calls: Arc<Calls<T>>, fence: Option<u64>, read: Read, is_optional: bool) -> Self {
        let known = Known { version: read.version, value: read.value, newest: None, unwritten: None };
        Self { calls, fence, is_optional, known: Mutex::new(known) }
    }

    /// Lets the other processes know that the token is of no use, before another one is fetched. Returns false if another
    /// process has written.
    pub(super) async fn mark_rejected(&self, rejected: Option<&AccessToken>) -> Result<bool, Away> {
        let value = self.known().value.clone();
        if !value.needs_mark(rejected) {
            return Ok(true);
        }
        self.write(StoredValue { is_rejected: true, ..value }).await
    }

    /// Publishes a new token, or why there is none if that concerns the others, and what became of the refresh token.
    /// Returns false if another process has written.
    pub(super) async fn publish(&self, result: Result<AccessToken, Option<Error>>) -> Result<bool, Away> {
        let refresh_token = self.newest();
        let before = self.known().value.clone();
        let value = match result {
            Ok(token) => StoredValue {
                token: Some(token),
                is_rejected: false,
                refresh_token,
                failures: before.failures,
                failure: None,
            },
            Err(Some(error)) => {
                StoredValue { refresh_token, failures: before.failures + 1, failure: Some(error), ..before }
            }
            Err(None) => StoredValue { refresh_token, ..before },
        };
        let written = self.write(value.clone()).await;
        if written.is_err() && self.has_news() {
            self.known().unwritten = Some(value);
        }
        written
    }

    /// Returns whether the refresh token is another than the store knows, or in another state.
    pub(super) fn has_news(&self) -> bool {
        let known = self.known();
        match (&known.newest, &known.value.refresh_token) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(newest), Some(stored)) => {
                newest.newest.expose_secret() != stored.newest.expose_secret()
                    || newest.is_in_doubt != stored.is_in_doubt
                    || newest.ended.is_some() != stored.ended.is_some()
            }
        }
    }

    /// Returns whether the newest refresh token is in the memory of this process alone.
    pub(super) fn is_unwritten(&self) -> bool {
        self.known().unwritten.is_some()
    }

    /// Writes until the store takes it, or another process has written: without it the others would send a refresh token that
    /// is spent.
    pub(super) async fn keep_writing(&self, period: Duration) {
        let (chance, end) = (Chance::default(), clock::after(clock::now(), LONGEST_TRYING));
        for round in 0.. {
            let Some(value) = self.known().unwritten.clone() else { return };
            sleep(chance.equal_jitter(FIRST_PAUSE, LONGEST_PAUSE, round)).await;
            if let Some(fence) = self.fence {
                self.calls.extend(fence, period).await;
            }
            if self.write(value).await.is_ok() {
                self.known().unwritten = None;
            } else if clock::now() >= end {
                return;
            }
        }
    }

    /// Lets the lease run on, until `end`.
    pub(super) async fn tend(&self, period: Duration, end: Instant) {
        loop {
            let next = clock::after(clock::now(), period / 3);
            tokio::time::sleep_until(next.min(end)).await;
            if next >= end {
                return;
            }
            if let Some(fence) = self.fence {
                self.calls.extend(fence, period).await;
            }
        }
    }

    pub(super) async fn release(&self) {
        if let Some(fence) = self.fence {
            self.calls.release(fence).await;
        }
    }

    /// Returns false if another process has written since.
    async fn write(&self, value: StoredValue) -> Result<bool, Away> {
        let Some(fence) = self.fence else { return Ok(false) };
        let replaces = self.known().version;
        let version = match self.calls.swap(replaces, fence, &value).await? {
            Some(version) => version,
            // An earlier write under this lease may have arrived although its reply did not.
            None => {
                let there = self.calls.load().await?;
                if there.fence != fence {
                    return Ok(false);
                }
                let Some(version) = self.calls.swap(there.version, fence, &value).await? else {
                    return Ok(false);
                };
                version
            }
        };
        let mut known = self.known();
        (known.version, known.value) = (version, value);
        Ok(true)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Every change under this lock is a few assignments.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: TokenStore> LineageStore for Holder<T> {
    fn newest(&self) -> Option<SharedRefreshToken> {
        let known = self.known();
        known.newest.clone().or_else(|| known.value.refresh_token.clone())
    }

    fn before_exchange(&self, token: SharedRefreshToken) -> LineageFuture<'_> {
        Box::pin(async move {
            if self.fence.is_none() {
                return Ok(false);
            }
            let token = SharedRefreshToken { is_in_doubt: true, ..token };
            let value = StoredValue { refresh_token: Some(token), ..self.known().value.clone() };
            match self.write(value).await {
                Ok(true) => Ok(true),
                Ok(false) => Err(Error::transient(
                    "another process has taken over the refresh token; nothing was sent, and the next fetch gets its token",
                )),
                Err(Away(_)) if self.is_optional => Ok(false),
                Err(Away(error)) => Err(refused(&error)),
            }
        })
    }

    fn after_exchange(&self, token: SharedRefreshToken) {
        self.known().newest = Some(token);
    }
}

/// The error of a fetch whose refresh token must not be sent without the store.
pub(super) fn refused(cause: &Error) -> Error {
    Error::transient(
        "the token store is out of order, so the refresh token that it keeps is not sent: sent twice, it would end the login",
    )
    .with_source(cause.clone())
}
