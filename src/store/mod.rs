//! Tokens that a fleet of processes shares, and that outlive a process.
//!
//! A [`TokenStore`] keeps small values under keys, and lends one lease per key. What stands on it makes one token
//! request for all processes.
//!
//! # What a store must do
//!
//! 1. [`load`](TokenStore::load) returns the newest [`Entry`], or one that was the newest a moment ago. Its age is measured
//!    by the clock of the store, so that processes whose clocks differ agree on it.
//! 2. [`swap`](TokenStore::swap) writes in one step and only if two things hold: the entry still has the version that the
//!    writer has seen, and no lease was taken after the writer's ([`Write::fence`]).
//! 3. [`acquire`](TokenStore::acquire) gives a lease to one caller at a time. Each lease of a key has a higher
//!    [fence](Lease::fence) than all before it, also after the store lost its data. A lease ends by itself.
//! 4. [`extend`](TokenStore::extend) and [`release`](TokenStore::release) act on that lease and on no other.
//! 5. [`changed`](TokenStore::changed) may wake a waiter too often, never too late by more than the waiter's own poll. A
//!    store that cannot wake waiters leaves it as it is, and is polled.
//! 6. A call that fails leaves the entry whole: as it was, or as it was to be. A store keeps bytes and never reads them.

mod any;
#[cfg(feature = "file-store")]
mod file;
#[cfg(feature = "store")]
mod builder;
#[cfg(feature = "store")]
mod calls;
#[cfg(feature = "store")]
mod holder;
mod memory;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "store")]
mod sealing;
#[cfg(feature = "store")]
mod shared;
mod token_store;
#[cfg(feature = "store")]
mod value;

pub use self::any::{AnyStore, from_url};
#[cfg(feature = "file-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "file-store")))]
pub use self::file::FileStore;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use self::redis::{RedisStore, RedisStoreBuilder};
#[cfg(feature = "store")]
#[cfg_attr(docsrs, doc(cfg(feature = "store")))]
pub use self::builder::SharedBuilder;
pub use self::memory::MemoryStore;
#[cfg(feature = "store")]
#[cfg_attr(docsrs, doc(cfg(feature = "store")))]
pub use self::sealing::SealingKey;
#[cfg(feature = "store")]
#[cfg_attr(docsrs, doc(cfg(feature = "store")))]
pub use self::shared::Shared;
pub use self::token_store::{Acquired, Entry, Lease, StoreKey, TokenStore, Write};
