//! A store in Redis, or in a server that speaks its protocol.

mod link;
mod scripts;
mod server;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, ErrorKind, FromRedisValue, ServerErrorKind, ToRedisArgs};

use self::link::Link;
use self::scripts::{Script, Scripts};
use self::server::Server;
use crate::clock::FARTHEST;
use crate::error::Error;
use crate::store::token_store::{Acquired, Entry, StoreKey, TokenStore, Write};

/// A store in Redis 6 or later, in Valkey, or in a service that speaks their protocol (feature `redis`).
///
/// 1. One connection serves all keys and all clones. The first call opens it, and the next call after it broke opens another.
/// 2. Each call is one round trip: a script, called by its hash.
/// 3. Every key has an expiry. Nothing is left behind by tenants that are gone.
/// 4. Waiters are woken by a message on one channel per [prefix](Self::prefix). If the user has no right to it,
///    the store is polled.
/// 5. Replicas are never read. One that becomes the primary may lack the last writes. Fences go by the clock of the server, and so
///    do not repeat, as long as the clocks of the servers differ by less than a failover takes.
///
/// # Sentinel and Cluster
///
/// With `redis+sentinel://user:password@host1,host2:26380/service/0` the store asks the Sentinels for the primary of `service`
/// whenever it connects. A Sentinel that requires a password is given that of the URL. After a failover the connection breaks,
/// or the old primary refuses a write, and the next call goes to the new one. If a Sentinel names a server that cannot be
/// reached or is a replica, the next Sentinel is asked.
///
/// With `redis+cluster://user:password@host1,host2:7001` (feature `redis-cluster`) the store has one connection to each node,
/// finds the other nodes by those of the URL, and follows the slots when they move. An entry and its lease have one hash tag, so
/// they are on one node. While a node is away and no replica has taken over, its keys have no store, and if the cluster requires
/// full coverage (its default), neither have the others. If the response to a call is lost with a node, the call is sent again:
/// a lease that was taken by the lost one is then held until its time is over, and the others wait for that long.
///
/// Both have TLS with `rediss+sentinel` and `rediss+cluster`. The certificates must then be valid for the addresses that the
/// Sentinels or the nodes name, and those must be reachable from here.
///
/// The user needs the commands `EVALSHA`, `EVAL`, `HMGET`, `HGET`, `HSET`, `GET`, `SET`, `DEL`, `PTTL`, `PEXPIRE` and `TIME` on keys that
/// begin with the prefix, and `SUBSCRIBE` and `PUBLISH` on its channel. In a cluster it needs `PING`, `ASKING` and `CLUSTER SLOTS` as well.
/// Behind Sentinels it should have `ROLE`: without it the first Sentinel that responds is believed.
///
/// # TLS
///
/// A URL with `rediss://` is verified against the certificates of the platform, or against those you
/// [give](Self::root_certificates). The cryptography is that of the process; if none is
/// installed, the first call installs ring's.
///
/// # Examples
///
/// ```no_run
/// use tower_oauth2::store::RedisStore;
///
/// let store = RedisStore::connect("rediss://billing:S3CR3T@cache.example.com")?;
/// # let _ = store;
/// # Ok::<_, tower_oauth2::Error>(())
/// ```
#[derive(Clone)]
pub struct RedisStore {
    shared: Arc<RedisShared>,
}

struct RedisShared {
    link: Link,
    prefix: String,
    scripts: Scripts,
}

impl RedisStore {
    /// Creates a store from a URL: `redis://user:password@host:6379/0`, `rediss://` (TLS), `valkey://`, `valkeys://`, or one of
    /// several hosts as above. It connects at its first call.
    ///
    /// # Errors
    ///
    /// A configuration error if the URL is none of Redis. It is not repeated in the message, since it holds the password.
    pub fn connect(url: impl AsRef<str>) -> Result<Self, Error> {
        let server = Server::parse(url.as_ref())?;
        if server.is_tls() && rustls::crypto::CryptoProvider::get_default().is_none() {
            // Another thread may have been faster, with a provider that serves as well.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        Ok(Self::new(server, "tower-oauth2:".to_owned()))
    }

    /// Sets what all keys and the channel begin with, `tower-oauth2:` by default. Programs with different prefixes share nothing.
    /// Set it before you clone the store: it gets a connection of its own.
    ///
    /// # Errors
    ///
    /// A configuration error if the prefix holds a brace or a character that is not visible ASCII.
    pub fn prefix(self, prefix: impl Into<String>) -> Result<Self, Error> {
        let prefix = prefix.into();
        if !prefix.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}')) {
            return Err(Error::config("the prefix of the token store must be visible ASCII without braces"));
        }
        Ok(Self::new(Server::clone(&self.shared.link.server), prefix))
    }

    /// Trusts these certificates (PEM) alone, and not those of the platform. Set them before you clone the store: it gets a
    /// connection of its own.
    ///
    /// # Errors
    ///
    /// A configuration error if the store is one without TLS.
    pub fn root_certificates(self, pem: impl Into<Vec<u8>>) -> Result<Self, Error> {
        let server = Server::clone(&self.shared.link.server);
        if !server.is_tls() {
            return Err(Error::config(
                "root certificates are for a token store with TLS; its URL begins with rediss://",
            ));
        }
        Ok(Self::new(server.with_root_certificates(pem.into()), self.shared.prefix.clone()))
    }

    fn new(server: Server, prefix: String) -> Self {
        let shared = RedisShared { link: Link::new(server), prefix, scripts: Scripts::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Calls a script.
    async fn call<T: FromRedisValue>(
        &self,
        script: &Script,
        key: &StoreKey,
        arguments: impl ToRedisArgs + Send + Sync,
    ) -> Result<T, Error> {
        let link = &self.shared.link;
        let open = link.open().await?;
        let command = |name, script: &str| self.shared.command(name, script, key, &arguments);
        let mut result = open.query(&command("EVALSHA", &script.hash)).await;
        if is_unknown_script(&result) {
            // A server keeps the script from now on.
            result = open.query(&command("EVAL", script.text)).await;
        }
        result.map_err(|error| link.failed(error))
    }
}

impl RedisShared {
    /// Returns the key of an entry. The text in braces decides about the node of a cluster.
    fn entry(&self, key: &StoreKey) -> String {
        format!("{}{{{}}}", self.prefix, key.as_str())
    }

    fn channel(&self) -> String {
        format!("{}changed", self.prefix)
    }

    /// A command that runs a script, given by its hash or by its text, on an entry and its lease.
    fn command(&self, name: &str, script: &str, key: &StoreKey, arguments: &impl ToRedisArgs) -> Cmd {
        let entry = self.entry(key);
        let lease = format!("{entry}:lease");
        let mut command = redis::cmd(name);
        command.arg(script).arg(2).arg(entry).arg(lease).arg(arguments);
        command
    }
}

impl TokenStore for RedisStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Entry>, Error> {
        let no_arguments: [&str; 0] = [];
        let found: Option<(u64, u64, u64, Vec<u8>)> =
            self.call(&self.shared.scripts.load, key, &no_arguments[..]).await?;
        Ok(found.map(|(version, fence, age, value)| Entry {
            version,
            fence,
            age: Duration::from_millis(age),
            value: Bytes::from(value),
        }))
    }

    async fn swap(&self, key: &StoreKey, write: Write) -> Result<bool, Error> {
        let numbers = (write.replaces, write.version, write.fence, millis(write.keep_for));
        let arguments = (numbers, &write.value[..], self.shared.channel(), key.as_str());
        self.call(&self.shared.scripts.swap, key, arguments).await
    }

    async fn acquire(&self, key: &StoreKey, period: Duration) -> Result<Acquired, Error> {
        let (fence, left): (u64, u64) = self.call(&self.shared.scripts.acquire, key, millis(period)).await?;
        Ok(match fence {
            0 => Acquired::Held(Duration::from_millis(left).min(period)),
            fence => Acquired::Taken(fence),
        })
    }

    async fn extend(&self, key: &StoreKey, fence: u64, period: Duration) -> Result<bool, Error> {
        self.call(&self.shared.scripts.extend, key, (fence, millis(period))).await
    }

    async fn release(&self, key: &StoreKey, fence: u64) -> Result<(), Error> {
        let arguments = (fence, self.shared.channel(), key.as_str());
        self.call::<bool>(&self.shared.scripts.release, key, arguments).await.map(drop)
    }

    async fn changed(&self, key: &StoreKey, version: u64) -> Result<(), Error> {
        let link = &self.shared.link;
        let mut changes = link.changes.subscribe();
        let open = link.open().await?;
        open.subscribe(&self.shared.channel()).await.map_err(|error| link.failed(error))?;
        // Only now: a write before the subscription woke nothing.
        if self.load(key).await?.map_or(0, |entry| entry.version) != version {
            return Ok(());
        }
        loop {
            match changes.recv().await {
                Ok(changed) if !changed.is_empty() && changed != key.as_str() => {}
                // This one, any, or more than were read.
                _ => return Ok(()),
            }
        }
    }

    fn name(&self) -> Option<String> {
        Some(format!("{}/{}", self.shared.link.server, self.shared.prefix))
    }
}

/// Returns whether the server does not have the script that it was to call.
fn is_unknown_script<T>(result: &Result<T, redis::RedisError>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
}

/// Whole milliseconds, at least one, and no more than the server can add to its clock.
fn millis(period: Duration) -> u64 {
    u64::try_from(period.min(FARTHEST).as_millis()).unwrap_or(u64::MAX).max(1)
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("server", &self.shared.link.server.to_string())
            .field("prefix", &self.shared.prefix)
            .finish_non_exhaustive()
    }
}
