//! A `TokenStore` of your own: tokens in the keychain of the operating system, by the crate `keyring`.
//!
//! ```sh
//! cargo run --example keychain --features store
//! ```
//!
//! On Linux this is the Secret Service. On a machine without a keychain, a mock in memory takes its place.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "an example prints and reads the clock")]

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};
use std::{env, process};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use keyring_core::{Entry as Secret, Error as KeychainError, mock, set_default_store};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tower::BoxError;
use tower_oauth2::store::{Acquired, Entry, SealingKey, Shared, StoreKey, TokenStore, Write};
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient, check_token_store};
use tower_oauth2::{ClientCredentials, Error, ErrorKind, TokenCache};

/// A keychain has no compare-and-swap. So each call locks a file, reads the secret of its key, and writes it back if it has
/// changed. Leases hold for all processes with the same service and directory. On Windows a secret has at most 2,560 bytes, so
/// a long token is refused there.
#[derive(Clone)]
struct Keychain {
    service: String,
    /// A directory that only this user can write to. It has an empty file for each key.
    locks: PathBuf,
}

/// The content of a secret, as JSON. Times are since the Unix epoch, by the machine's clock.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
struct Slot {
    /// Zero if there is no entry.
    version: u64,
    /// The fence of the lease under which the entry was written.
    writer: u64,
    written: Duration,
    /// In base64, which JSON can hold.
    value: String,
    /// The fence of the newest lease.
    fence: u64,
    leased_until: Duration,
}

impl Keychain {
    /// Lets `change` read a slot and change it, while no other call does the same.
    async fn turn<T, F>(&self, key: &StoreKey, change: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Slot, Duration) -> T + Send + 'static,
    {
        let (keychain, key) = (self.clone(), key.clone());
        // Locks and keychains block: the thread of an async task must not wait for them.
        let turn = spawn_blocking(move || -> Result<T, BoxError> {
            let lock = File::create(keychain.locks.join(key.as_str()))?;
            lock.lock()?;
            let secret = Secret::new(&keychain.service, key.as_str())?;
            let before: Slot = match secret.get_secret() {
                // A secret that another program has overwritten is a miss.
                Ok(json) => serde_json::from_slice(&json).unwrap_or_default(),
                Err(KeychainError::NoEntry) => Slot::default(),
                Err(error) => return Err(error.into()),
            };
            let mut slot = before.clone();
            let outcome = change(&mut slot, UNIX_EPOCH.elapsed()?);
            if slot != before {
                secret.set_secret(&serde_json::to_vec(&slot)?)?;
            }
            Ok(outcome)
        });
        // Only the text of the error: its Debug output can show the secret.
        let failed = |error: BoxError| {
            Error::new(ErrorKind::Transient, "the keychain failed").with_source(error.to_string())
        };
        turn.await.map_err(BoxError::from).flatten().map_err(failed)
    }
}

impl TokenStore for Keychain {
    async fn load(&self, key: &StoreKey) -> Result<Option<Entry>, Error> {
        let read = |slot: &mut Slot, now: Duration| {
            let value = BASE64_STANDARD.decode(&slot.value).unwrap_or_default();
            let age = now.saturating_sub(slot.written);
            (slot.version != 0).then(|| Entry {
                version: slot.version,
                fence: slot.writer,
                age,
                value: value.into(),
            })
        };
        self.turn(key, read).await
    }

    async fn swap(&self, key: &StoreKey, write: Write) -> Result<bool, Error> {
        let replace = move |slot: &mut Slot, now| {
            if slot.version != write.replaces || write.fence < slot.fence {
                return false;
            }
            (slot.version, slot.writer, slot.written) = (write.version, write.fence, now);
            slot.value = BASE64_STANDARD.encode(write.value);
            true
        };
        self.turn(key, replace).await
    }

    async fn acquire(&self, key: &StoreKey, period: Duration) -> Result<Acquired, Error> {
        let take = move |slot: &mut Slot, now: Duration| {
            if now < slot.leased_until {
                return Acquired::Held(slot.leased_until - now);
            }
            // By the clock, so that the number is new even if the user deleted the secret.
            let clock = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
            slot.fence = slot.fence.saturating_add(1).max(clock);
            slot.leased_until = now.saturating_add(period);
            Acquired::Taken(slot.fence)
        };
        self.turn(key, take).await
    }

    async fn extend(&self, key: &StoreKey, fence: u64, period: Duration) -> Result<bool, Error> {
        let prolong = move |slot: &mut Slot, now: Duration| {
            let is_running = slot.fence == fence && now < slot.leased_until;
            if is_running {
                slot.leased_until = now.saturating_add(period);
            }
            is_running
        };
        self.turn(key, prolong).await
    }

    async fn release(&self, key: &StoreKey, fence: u64) -> Result<(), Error> {
        self.extend(key, fence, Duration::ZERO).await.map(drop)
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    if let Err(error) = spawn_blocking(keyring::Entry::store_status).await? {
        println!("there is no keychain, so a mock in memory takes its place: {error}");
        set_default_store(mock::Store::new()?);
    }
    let service = format!("tower-oauth2-keychain-{}", process::id());
    let store = Keychain { locks: env::temp_dir().join(&service), service };
    tokio::fs::create_dir(&store.locks).await?;
    // It writes values that are too large for a secret on Windows.
    if !cfg!(windows) {
        check_token_store(store.clone(), "keychain", false).await;
        println!("check_token_store: passed");
    }
    // This stands for your provider.
    let client = FakeClient::confidential("tool", "hunter2");
    let provider = FakeAuthorizationServer::builder().client(client).start().await?;
    for _ in 0..2 {
        let grant = ClientCredentials::builder(provider.token_url(), "tool", "hunter2").build()?;
        // The keychain encrypts its secrets. A user may have to unlock it, which takes time.
        let shared = Shared::builder(grant, store.clone(), SealingKey::insecure_plaintext());
        let shared = shared.store_timeout(Duration::from_secs(2)).build()?;
        TokenCache::new(shared).get().await?;
    }
    println!("two caches, token requests: {}", provider.counts().tokens);
    // The keychain is left as it was. A tool of yours keeps its secrets, for its next start.
    spawn_blocking(move || {
        for lock in fs::read_dir(&store.locks)? {
            Secret::new(&store.service, &lock?.file_name().to_string_lossy())?.delete_credential()?;
        }
        Ok(fs::remove_dir_all(&store.locks)?)
    })
    .await?
}
