//! Tokens that a fleet of processes shares, and that outlive a process.
//!
//! [`Shared`] makes one token request for all processes. It stands on a [`TokenStore`], which keeps small values
//! under keys, and lends one lease per key.
//!
//! # What happens when a process needs a token
//!
//! 1. It reads the store: one round trip. A token that has some life left is taken, unless it is the one that was rejected, or
//!    the one that the process has already and wants to renew.
//! 2. Otherwise the process takes the lease, reads again, fetches from the source, writes and ends the lease. The lease is
//!    extended while the fetch goes on.
//! 3. A process that does not get the lease waits for the token of the one that has it, until its own deadline. If the
//!    holder dies, the next process goes on when the lease has run out. If the holder's token request fails, the next process
//!    tries. After three failures, or one 429, all processes that wait get the error of the last one. A failure does not
//!    count if the process had no more time.
//! 4. A process that was away for so long that another one has taken the lease cannot write any more. It returns the token
//!    of the other.
//! 5. After a rejection the token is marked in the store before another one is fetched. So no other process takes it, and
//!    all of them make one token request.
//! 6. The caches of a fleet renew their tokens at times that differ by jitter. The first one fetches, and the others read
//!    what it wrote.
//! 7. The store keeps how much of the life of a token is left, and for how long it has kept it. The clocks of the processes
//!    are not compared.
//! 8. If a call to the store fails or takes longer than 250 ms, the store is left out for this fetch, and the process
//!    fetches for itself. The same holds for a value that cannot be opened, and for one that is older than what the process has
//!    seen.
//! 9. A process logs one warning when a store begins to fail, for all keys together if the store has a
//!    [name](TokenStore::name). When the store has worked for 30 s, it logs one line at level info.
//!
//! All processes have the same store and the same key (`openssl rand -base64 32`):
//!
#![cfg_attr(all(feature = "file-store", feature = "hyper-client", feature = "stack"), doc = "```no_run")]
#![cfg_attr(not(all(feature = "file-store", feature = "hyper-client", feature = "stack")), doc = "```text")]
//! use tower_oauth2::store::{FileStore, SealingKey, Shared};
//! use tower_oauth2::{ApiClient, ClientCredentials, Secret};
//!
//! # fn example() -> Result<(), tower_oauth2::Error> {
//! let secret = Secret::from_env("CLIENT_SECRET");
//! let source = ClientCredentials::builder("https://login.example.com/token", "billing", secret).build()?;
//! let store = FileStore::open("/var/lib/billing/tokens")?;
//! let shared = Shared::builder(source, store, SealingKey::from_env("TOKEN_SEALING_KEY")?).build()?;
//! let api = ApiClient::connect("https://api.example.com/v2", shared)?;
//! # Ok(())
//! # }
//! ```
//!
//! Processes with different sealing keys, client ids or scopes share nothing, and no message says so. To check, set
//! `RUST_LOG=tower_oauth2=debug`: the line `wrote what the processes share` has a `key`, which must be the same everywhere.
//! To fail at the start if the store cannot be reached, load the key from a clone of it: `store.load(shared.key()).await?`.
//!
//! Within one process, and for a source that cannot say which tokens it fetches:
//!
//! ```
//! use std::time::Duration;
//! use tower_oauth2::store::{MemoryStore, SealingKey, Shared, StoreKey};
//! use tower_oauth2::{AccessToken, TokenCache, source_fn};
//!
//! // A closure cannot say which tokens it fetches, so they get a name.
//! let source = source_fn(|_request| async { AccessToken::bearer("from-somewhere") });
//! let shared = Shared::builder(source, MemoryStore::new(), SealingKey::new([7; 32]))
//!     .key(StoreKey::new("billing-eu")?)
//!     .lease(Duration::from_secs(5))
//!     .build()?;
//! let cache = TokenCache::new(shared);
//! # let _ = cache;
//! # Ok::<_, tower_oauth2::Error>(())
//! ```
//!
//! # Refresh tokens
//!
//! A [`RefreshTokenGrant`](crate::RefreshTokenGrant) below `Shared` keeps its refresh token in the store as well: a server that
//! issues a new one each time ends the login if two processes send the same one.
//!
//! 1. The process with the lease exchanges the newest refresh token of the store, whichever it was started with. It may be
//!    started without one.
//! 2. Before it sends the request it notes in the store that it will. The new refresh token is in the store before the access
//!    token is returned. If the store does not take it then, the process goes on to write for a minute, and keeps the lease.
//! 3. If the store does not work, the refresh token is not sent, and the fetch fails. A token in use stays in use. The builder
//!    can allow it (`refresh_without_store`). The same holds if another process wrote a value that this one cannot open: it may
//!    have exchanged the refresh token.
//! 4. A process may be killed at any time but one: after the server has taken the request, and before the new refresh token
//!    is in the store. Then the next process waits until the lease has run out, and sends the old one once more. Some
//!    servers allow for that. Otherwise the login has ended, and all processes get one error that says so.
//! 5. After a new login, [`replace`](crate::RefreshTokenGrant::replace) in one process goes before what the store has, and the others
//!    follow. So does a process that is started with the new refresh token, once the old login has ended.
//! 6. The store must keep what it was given: one that loses its data loses the login, unless a process that runs has it in
//!    memory. [`on_rotate`](crate::grants::GrantBuilder::on_rotate) is called as well, in the process that exchanged.
//!
//! # What the store can learn and do
//!
//! Values are sealed with XChaCha20-Poly1305 under a key that the processes have and the store has not, and bound to the key of
//! the entry, its version and the fence of its writer. The name of an entry is an HMAC of all that decides which tokens
//! come. So a reader of the store, of its backups or of the network to it learns how many tokens there are, how long they are
//! and when they are renewed. A writer can remove a value or put back an old one. A value that was changed or moved is
//! refused, and one that is older than a process has seen. A process that has just started cannot know what there was before,
//! and takes an old value: a token that has expired, or a refresh token that is spent.
//!
//! This does not protect against a process or a person with the sealing key, who can read all tokens, nor against a store that
//! gives the lease to two processes.
//!
//! # What a store must do
//!
//! 1. [`load`](TokenStore::load) returns the newest [`Entry`], or one that was the newest a moment ago. Its age is measured
//!    by the clock of the store, so that processes whose clocks differ agree on it.
//! 2. [`swap`](TokenStore::swap) writes in one step and only if two things hold: the entry still has the version that the
//!    writer has seen, and no lease was taken after the writer's ([`Write::fence`]).
//! 3. [`acquire`](TokenStore::acquire) gives a lease to one caller at a time. Each lease of a key has a higher
//!    fence than all before it, also after the store lost its data. A lease ends by itself.
//! 4. [`extend`](TokenStore::extend) and [`release`](TokenStore::release) act on that lease and on no other.
//! 5. [`changed`](TokenStore::changed) may wake a waiter too often, never too late by more than the waiter's own poll. A
//!    store that cannot wake waiters leaves it as it is, and is polled.
//! 6. A call that fails leaves the entry whole: as it was, or as it was to be. A store keeps bytes and never reads them.

mod any;
mod builder;
mod calls;
#[cfg(feature = "file-store")]
mod file;
mod holder;
mod memory;
mod outage;
mod record;
#[cfg(feature = "redis")]
mod redis;
mod sealing;
mod shared;
mod token_store;
mod value;

pub use self::any::from_url;
pub use self::builder::SharedBuilder;
#[cfg(feature = "file-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "file-store")))]
pub use self::file::FileStore;
pub use self::memory::MemoryStore;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use self::redis::RedisStore;
pub use self::sealing::SealingKey;
pub use self::shared::Shared;
pub use self::token_store::{Acquired, Entry, StoreKey, TokenStore, Write};
