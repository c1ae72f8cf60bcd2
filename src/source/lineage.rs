//! A refresh token that several processes live on: where the one that exchanges it finds the newest, and says what became of it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use secrecy::SecretString;

use crate::error::Error;

/// A refresh token and those before it, as processes share them.
#[derive(Clone)]
pub(crate) struct SharedRefreshToken {
    /// The one with which it began: what a process is started with may be this, which was spent long ago.
    pub(crate) first: SecretString,
    pub(crate) newest: SecretString,
    /// Whether a request may have left whose response was not read.
    pub(crate) is_in_doubt: bool,
    /// Why it is of no use any more.
    pub(crate) ended: Option<Error>,
}

/// Where the refresh token is kept for all processes, for as long as one of them alone may exchange it.
pub(crate) trait LineageStore: Send + Sync {
    /// Returns what the processes know, if there is anything.
    fn newest(&self) -> Option<SharedRefreshToken>;

    /// Notes durably that this token is about to be sent. With an error it must not be sent. Returns whether it is noted: it
    /// may be allowed to do without.
    fn before_exchange(&self, token: SharedRefreshToken) -> LineageFuture<'_>;

    /// Says what is the newest now. It is durable before the access token is returned.
    fn after_exchange(&self, token: SharedRefreshToken);
}

pub(crate) type LineageFuture<'a> = Pin<Box<dyn Future<Output = Result<bool, Error>> + Send + 'a>>;

impl fmt::Debug for dyn LineageStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LineageStore")
    }
}
