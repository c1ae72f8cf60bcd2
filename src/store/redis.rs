//! A store in Redis, or in a server that speaks its protocol.

mod scripts;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{
    Client, ConnectionInfo, FromRedisValue, IntoConnectionInfo as _, ProtocolVersion, PushInfo, PushKind,
    RedisError, ScriptInvocation, TlsCertificates, Value,
};
use tokio::sync::broadcast;

use self::scripts::Scripts;
use crate::clock::FARTHEST;
use crate::error::Error;
use crate::runtime;
use crate::store::token_store::{Acquired, Entry, Lease, StoreKey, TokenStore, Write};

/// How long a connection attempt and a response may take. Who waits for a token has a shorter timeout of its own.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a connection is tried again before the calls that wait for it fail. The next call begins anew.
const RECONNECTS: usize = 2;
/// Messages that a slow waiter may be behind by. It is woken for nothing then.
const BACKLOG: usize = 256;

/// A store in Redis 6 or later, in Valkey, or in a service that speaks their protocol (feature `redis`).
///
/// 1. One connection serves all keys and all clones. It is made by the first call, and again when it breaks.
/// 2. Each call is one round trip: a script, called by its hash.
/// 3. Every key has an expiry. Nothing is left behind by tenants that are gone.
/// 4. Waiters are woken by a message on one channel per [prefix](RedisStoreBuilder::prefix). If the user has no right to it,
///    the store is polled.
/// 5. An entry and its lease have one hash tag, so a proxy or a service may spread the keys over a cluster. This store
///    itself talks to one address: the primary, or the proxy before a cluster or a Sentinel. Replicas that become the
///    primary may have lost the last writes; fences and versions go by the server's clock and so never repeat.
///
/// The user needs the commands `EVALSHA`, `SCRIPT LOAD`, `HMGET`, `HGET`, `HSET`, `GET`, `SET`, `DEL`, `PTTL`, `PEXPIRE` and `TIME` on
/// keys that begin with the prefix, and `SUBSCRIBE` and `PUBLISH` on its channel.
///
/// # TLS
///
/// A URL with `rediss://` is verified against the certificates of the platform, or against those you
/// [give](RedisStoreBuilder::root_certificates). The cryptography is that of the process; if none is
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
    info: ConnectionInfo,
    root_certificates: Option<Vec<u8>>,
    prefix: String,
    scripts: Scripts,
    manager: OnceLock<ConnectionManager>,
    /// Keys that have changed; an empty one means that any may have.
    changes: broadcast::Sender<String>,
    subscribed: tokio::sync::OnceCell<()>,
}

/// Builds a [`RedisStore`].
///
/// # Defaults
///
/// - prefix: `tower-oauth2:`
/// - root certificates: those of the platform
#[derive(Clone)]
pub struct RedisStoreBuilder {
    url: String,
    prefix: String,
    root_certificates: Option<Vec<u8>>,
}

impl RedisStore {
    /// Creates a store from a URL such as `redis://user:password@host:6379/0`, with the defaults of the
    /// [builder](Self::builder). It connects at its first call.
    ///
    /// # Errors
    ///
    /// A configuration error if the URL is none of Redis. It is not repeated in the message, since it holds the password.
    pub fn connect(url: impl Into<String>) -> Result<Self, Error> {
        Self::builder(url).build()
    }

    /// Starts with the URL: `redis://`, `rediss://` (TLS), `valkey://` or `valkeys://`.
    #[must_use]
    pub fn builder(url: impl Into<String>) -> RedisStoreBuilder {
        RedisStoreBuilder { url: url.into(), prefix: "tower-oauth2:".to_owned(), root_certificates: None }
    }

    /// Calls a script.
    async fn call<T: FromRedisValue>(
        &self,
        mut call: ScriptInvocation<'_>,
        key: &StoreKey,
    ) -> Result<T, Error> {
        let entry = self.shared.entry(key);
        call.key(&entry).key(format!("{entry}:lease"));
        let mut connection = self.connection()?;
        call.invoke_async(&mut connection).await.map_err(|error| self.failed(error))
    }

    fn connection(&self) -> Result<ConnectionManager, Error> {
        if let Some(manager) = self.shared.manager.get() {
            return Ok(manager.clone());
        }
        runtime::current()?;
        let manager = self.open().map_err(|error| self.failed(error))?;
        Ok(self.shared.manager.get_or_init(|| manager).clone())
    }

    fn open(&self) -> Result<ConnectionManager, RedisError> {
        let info = self.shared.info.clone();
        let client = match &self.shared.root_certificates {
            Some(pem) => {
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) };
                Client::build_with_tls(info, certificates)?
            }
            None => Client::open(info)?,
        };
        let changes = self.shared.changes.clone();
        // Without a receiver nothing waits for a message.
        let pushed = move |push: PushInfo| changes.send(changed_key(&push).unwrap_or_default()).map(drop);
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CONNECT_TIMEOUT))
            .set_number_of_retries(RECONNECTS)
            .set_push_sender(pushed)
            .set_automatic_resubscription();
        ConnectionManager::new_lazy_with_config(client, config)
    }

    /// Says what failed, where, and as far as known what to do. What the server says names keys and users, no values.
    fn failed(&self, error: RedisError) -> Error {
        let address = self.shared.info.addr();
        let code = error.code().unwrap_or_default();
        let advice = match code {
            "OOM" => "; its memory is full, see maxmemory",
            "READONLY" => "; it is a replica, give the address of the primary",
            "NOAUTH" | "WRONGPASS" => "; check user and password",
            "NOPERM" => "; the user lacks a right, see the list at RedisStore",
            "MOVED" | "ASK" => "; it is one node of a cluster, give the address of a proxy",
            _ => "",
        };
        Error::transient(format!("the token store at redis://{address} failed{advice}")).with_source(error)
    }
}

impl RedisStoreBuilder {
    /// Sets what all keys and the channel begin with. Programs with different prefixes share nothing.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Trusts these certificates (PEM) alone, and not those of the platform.
    #[must_use]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates = Some(pem.into());
        self
    }

    /// Builds the store. It connects at its first call.
    ///
    /// # Errors
    ///
    /// A configuration error if the URL is none of Redis, the prefix holds a brace or a character that is not visible ASCII,
    /// or certificates were given for a URL without TLS.
    pub fn build(self) -> Result<RedisStore, Error> {
        let info = self.url.into_connection_info().map_err(|_error| {
            Error::config(
                "the URL of the token store is not one of Redis; it looks like redis://user:password@host:6379/0, or \
                 rediss://… for TLS",
            )
        })?;
        let is_tls = matches!(info.addr(), redis::ConnectionAddr::TcpTls { .. });
        if self.root_certificates.is_some() && !is_tls {
            return Err(Error::config(
                "root certificates are for a token store with TLS; its URL begins with rediss://",
            ));
        }
        if !self.prefix.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}')) {
            return Err(Error::config("the prefix of the token store must be visible ASCII without braces"));
        }
        if is_tls && rustls::crypto::CryptoProvider::get_default().is_none() {
            // Another thread may have been faster, with a provider that serves as well.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        // By this protocol messages come over the same connection.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        Ok(RedisStore {
            shared: Arc::new(RedisShared {
                info: info.set_redis_settings(settings),
                root_certificates: self.root_certificates,
                prefix: self.prefix,
                scripts: Scripts::new(),
                manager: OnceLock::new(),
                changes: broadcast::Sender::new(BACKLOG),
                subscribed: tokio::sync::OnceCell::new(),
            }),
        })
    }
}

impl RedisShared {
    /// The key of an entry. What stands in braces decides about the node of a cluster.
    fn entry(&self, key: &StoreKey) -> String {
        format!("{}{{{}}}", self.prefix, key.as_str())
    }

    fn channel(&self) -> String {
        format!("{}changed", self.prefix)
    }
}

impl TokenStore for RedisStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Entry>, Error> {
        let found: Option<(u64, u64, u64, Vec<u8>)> =
            self.call(self.shared.scripts.load.prepare_invoke(), key).await?;
        Ok(found.map(|(version, fence, age, value)| {
            Entry::new(version, fence, Duration::from_millis(age), Bytes::from(value))
        }))
    }

    async fn swap(&self, key: &StoreKey, write: Write) -> Result<bool, Error> {
        let mut call = self.shared.scripts.swap.prepare_invoke();
        call.arg(write.replaces)
            .arg(write.version)
            .arg(write.fence)
            .arg(millis(write.keep_for))
            .arg(&write.value[..])
            .arg(self.shared.channel())
            .arg(key.as_str());
        self.call(call, key).await
    }

    async fn acquire(&self, key: &StoreKey, period: Duration) -> Result<Acquired, Error> {
        let mut call = self.shared.scripts.acquire.prepare_invoke();
        call.arg(millis(period));
        let (fence, left): (u64, u64) = self.call(call, key).await?;
        Ok(match fence {
            0 => Acquired::Held(Duration::from_millis(left).min(period)),
            fence => Acquired::Taken(Lease::new(fence)),
        })
    }

    async fn extend(&self, key: &StoreKey, lease: Lease, period: Duration) -> Result<bool, Error> {
        let mut call = self.shared.scripts.extend.prepare_invoke();
        call.arg(lease.fence).arg(millis(period));
        self.call(call, key).await
    }

    async fn release(&self, key: &StoreKey, lease: Lease) -> Result<(), Error> {
        let mut call = self.shared.scripts.release.prepare_invoke();
        call.arg(lease.fence).arg(self.shared.channel()).arg(key.as_str());
        self.call::<bool>(call, key).await.map(drop)
    }

    async fn changed(&self, key: &StoreKey, version: u64) -> Result<(), Error> {
        let mut changes = self.shared.changes.subscribe();
        self.shared
            .subscribed
            .get_or_try_init(async || {
                let mut connection = self.connection()?;
                connection.subscribe(self.shared.channel()).await.map_err(|error| self.failed(error))
            })
            .await?;
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
        Some(format!("redis://{}/{}", self.shared.info.addr(), self.shared.prefix))
    }
}

/// Returns the key that a message of the server names.
fn changed_key(push: &PushInfo) -> Option<String> {
    match (&push.kind, &push.data[..]) {
        (PushKind::Message, [_channel, Value::BulkString(key)]) => String::from_utf8(key.clone()).ok(),
        _ => None,
    }
}

/// Whole milliseconds, at least one, and no more than the server can add to its clock.
fn millis(period: Duration) -> u64 {
    u64::try_from(period.min(FARTHEST).as_millis()).unwrap_or(u64::MAX).max(1)
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("address", &self.shared.info.addr().to_string())
            .field("prefix", &self.shared.prefix)
            .finish_non_exhaustive()
    }
}

/// The URL is left out: it holds the password.
impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
