//! A source in memory that gives what a test ordered, and else makes tokens up.

use std::collections::VecDeque;
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::Error;
use crate::source::{TokenRequest, TokenSource};
use crate::token::AccessToken;

/// A [`TokenSource`] that returns scripted results and records its requests. Clones share both: one goes into a
/// cache or a layer, the other stays in the test.
///
/// Without a script it returns `token-1`, `token-2` and so on, by the number of the fetch. Defaults: a life of an
/// hour, no latency.
///
/// # Examples
///
/// ```
/// use tower_oauth2::test_util::ScriptedSource;
/// use tower_oauth2::{FetchReason, TokenCache, Error, ErrorKind};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let source = ScriptedSource::new();
/// let cache = TokenCache::new(source.clone());
/// let first = cache.get().await?;
/// assert_eq!(first.header_value(), "Bearer token-1");
///
/// cache.reject(&first);
/// source.return_next(Err(Error::new(ErrorKind::Grant, "the client was removed")));
/// assert_eq!(cache.get().await.unwrap_err().kind(), ErrorKind::Grant);
/// assert_eq!(source.requests()[1].reason(), FetchReason::Rejected);
/// # Ok::<_, Error>(())
/// # })?;
/// # Ok::<_, tower::BoxError>(())
/// ```
#[derive(Clone)]
pub struct ScriptedSource {
    name: String,
    lifetime: Duration,
    latency: Duration,
    shared: Arc<Mutex<SourceShared>>,
}

#[derive(Default)]
struct SourceShared {
    steps: VecDeque<Step>,
    requests: Vec<TokenRequest>,
    /// The result of every fetch for which none was set.
    outage: Option<Error>,
}

/// The outcome of one fetch.
enum Step {
    Give(Result<AccessToken, Error>),
    Hang,
}

impl ScriptedSource {
    /// Creates a source without a script.
    #[must_use]
    pub fn new() -> Self {
        Self {
            name: "token".to_owned(),
            lifetime: Duration::from_secs(3600),
            latency: Duration::ZERO,
            shared: Arc::default(),
        }
    }

    /// Sets the name of the tokens: `north-1`, `north-2` and so on for `north`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the lifetime of the tokens.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Sets how long each fetch takes.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Sets the result of the next fetch, after those that were set before.
    pub fn return_next(&self, outcome: Result<AccessToken, Error>) {
        self.shared().steps.push_back(Step::Give(outcome));
    }

    /// Makes the next fetch hang, after the results that were set before.
    pub fn hang_next(&self) {
        self.shared().steps.push_back(Step::Hang);
    }

    /// Makes every fetch fail from now on for which no result was set, until [`recover`](Self::recover).
    pub fn fail_with(&self, error: Error) {
        self.shared().outage = Some(error);
    }

    /// Ends the failures of [`fail_with`](Self::fail_with).
    pub fn recover(&self) {
        self.shared().outage = None;
    }

    /// Returns how often a token was fetched, or tried to be.
    #[must_use]
    pub fn fetches(&self) -> usize {
        self.shared().requests.len()
    }

    /// Returns the requests so far, one for each fetch.
    #[must_use]
    pub fn requests(&self) -> Vec<TokenRequest> {
        self.shared().requests.clone()
    }

    // Every change under the lock is a single step, so what a panicking test leaves behind is sound.
    fn shared(&self) -> MutexGuard<'_, SourceShared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenSource for ScriptedSource {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        let (number, step) = {
            let mut shared = self.shared();
            shared.requests.push(request);
            let outage = shared.outage.clone();
            let step = shared.steps.pop_front().or_else(|| outage.map(|error| Step::Give(Err(error))));
            (shared.requests.len(), step)
        };
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
        match step {
            None => Ok(AccessToken::bearer(format!("{}-{number}", self.name))?.with_lifetime(self.lifetime)),
            Some(Step::Give(outcome)) => outcome,
            Some(Step::Hang) => pending().await,
        }
    }
}

impl Default for ScriptedSource {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ScriptedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedSource").field("fetches", &self.fetches()).finish_non_exhaustive()
    }
}
