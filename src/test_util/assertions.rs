//! Verifies assertions as an authorization server does: RFC 7523 §3, and that none of them comes twice.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

use super::client::Verifier;
use crate::clock;

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
    pub(super) fn name(&self, issuer: &str) {
        self.issuer.get_or_init(|| issuer.to_owned());
    }

    /// Returns the server's name.
    pub(super) fn issuer(&self) -> &str {
        self.issuer.get().map_or("", String::as_str)
    }

    /// Returns whether `jwt` proves that its bearer is `client`, now and for the first time.
    pub(super) fn prove(&self, jwt: &str, client: &str, verifies: &Verifier) -> bool {
        let Some(claims) = self.current(jwt, verifies) else { return false };
        if claims["iss"] != client || claims["sub"] != client {
            return false;
        }
        let Some(name) = claims["jti"].as_str() else { return false };
        // Every change under the lock is a single step, so what a panic leaves behind is sound.
        let is_new = self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        if is_new { &self.accepted } else { &self.replays }.fetch_add(1, Relaxed);
        is_new
    }

    /// Returns the claims of a JWT whose signature holds, that is meant for this server, and that holds now.
    pub(super) fn current(&self, jwt: &str, verifies: &Verifier) -> Option<Value> {
        let claims = verifies(jwt).then(|| claims(jwt))??;
        let issuer = self.issuer.get()?;
        let is_ours = claims["aud"] == *issuer || claims["aud"] == format!("{issuer}/token");
        let now = clock::unix_time().as_secs();
        let ends = claims["exp"].as_u64()?;
        (is_ours && now < ends && ends <= now + LONGEST).then_some(claims)
    }

    /// Returns how many assertions were accepted, and how many came a second time.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.accepted.load(Relaxed), self.replays.load(Relaxed))
    }
}

/// Reads the claims of a JWT.
fn claims(jwt: &str) -> Option<Value> {
    let mut parts = jwt.split('.');
    let (_header, claims) = (parts.next()?, parts.next()?);
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}
