//! What an authorization server makes of assertions: RFC 7523 §3, and that none of them comes twice.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::jwt::PublicKey;

/// An assertion may live no longer than this.
const LONGEST: u64 = 3600;

/// The assertions that came to one server.
#[derive(Debug, Default)]
pub(super) struct Assertions {
    /// The server's own name, which it knows when it has a port.
    issuer: OnceLock<String>,
    seen: Mutex<HashSet<String>>,
    accepted: AtomicU64,
    replays: AtomicU64,
}

impl Assertions {
    /// Tells the server its name.
    pub(super) fn name(&self, issuer: String) {
        self.issuer.get_or_init(|| issuer);
    }

    /// Returns whether `jwt` proves that its bearer is `client`, now and for the first time.
    pub(super) fn prove(&self, jwt: &str, client: &str, key: &PublicKey) -> bool {
        let Some(claims) = self.current(jwt, key) else { return false };
        if claims["iss"] != client || claims["sub"] != client {
            return false;
        }
        let Some(name) = claims["jti"].as_str() else { return false };
        // Every change under the lock is a single step, so what a panic leaves behind is sound.
        let is_new = self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        if is_new { &self.accepted } else { &self.replays }.fetch_add(1, Relaxed);
        is_new
    }

    /// Returns the claims of a JWT that `key` signed, that is meant for this server, and that holds now.
    pub(super) fn current(&self, jwt: &str, key: &PublicKey) -> Option<Value> {
        let claims = key.verify(jwt)?;
        let issuer = self.issuer.get()?;
        let is_ours = claims["aud"] == *issuer || claims["aud"] == format!("{issuer}/token");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let ends = claims["exp"].as_u64()?;
        (is_ours && now < ends && ends <= now + LONGEST).then_some(claims)
    }

    /// Returns how many assertions were accepted, and how many came a second time.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.accepted.load(Relaxed), self.replays.load(Relaxed))
    }
}
