//! The connection that all calls share: opened by the first one, and anew when it breaks.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redis::{Cmd, FromRedisValue, PushInfo, PushKind, RedisError, Value};
use tokio::sync::{broadcast, watch};

use super::server::{Connection, Server, code};
use crate::error::Error;
use crate::runtime;

/// So many calls are given up, and another connection is opened: the machine at the other end may be gone without a
/// word, which the system notices only after a quarter of an hour.
const MOST_GIVEN_UP: u32 = 5;

/// Messages that a slow waiter may be behind by. It is woken for nothing then.
const BACKLOG: usize = 256;

/// The way to a server.
pub(super) struct Link {
    pub(super) server: Arc<Server>,
    /// Keys that have changed; an empty one means that any may have.
    pub(super) changes: broadcast::Sender<String>,
    newest: Mutex<Option<ConnectAttempt>>,
}

/// A connection that is being opened, that is open, or that could not be opened.
type ConnectAttempt = watch::Receiver<Option<Result<Arc<OpenConnection>, Arc<RedisError>>>>;

/// A connection that was opened.
pub(super) struct OpenConnection {
    connection: Connection,
    noticed: Arc<Noticed>,
}

/// The state of a connection.
struct Noticed {
    /// Whether it is at an end when one of its nodes is.
    has_one_node: bool,
    is_broken: AtomicBool,
    /// How many calls were given up without a response: in a row if there is one node, else in all. A response of another node
    /// says nothing about the one that hangs.
    given_up: AtomicU32,
    is_subscribed: AtomicBool,
}

impl Link {
    pub(super) fn new(server: Server) -> Self {
        Self { server: Arc::new(server), changes: broadcast::Sender::new(BACKLOG), newest: Mutex::default() }
    }

    /// Returns the connection. If there is none, or it is broken, one is opened.
    pub(super) async fn open(&self) -> Result<Arc<OpenConnection>, Error> {
        let mut attempt = self.attempt()?;
        let opened = attempt.wait_for(Option::is_some).await.ok().and_then(|opened| opened.clone());
        match opened {
            Some(Ok(open)) => Ok(open),
            Some(Err(error)) => Err(self.failed(error)),
            None => Err(Error::transient(
                "the connection to the token store broke off: its runtime was shut down",
            )),
        }
    }

    /// Says what failed, where, and as far as known what to do. The words of the server name keys and users, and no values.
    pub(super) fn failed(&self, error: impl Into<Arc<RedisError>>) -> Error {
        let error = error.into();
        let advice = match code(&error) {
            "OOM" => "; its memory is full, see maxmemory",
            "READONLY" => "; it is a replica, give the address of the primary",
            "NOAUTH" | "WRONGPASS" => "; check user and password",
            "NOPERM" => "; the user lacks a right, see the list at RedisStore",
            "MOVED" | "ASK" => "; it is one node of a cluster, begin its URL with redis+cluster://",
            "CLUSTERDOWN" => "; the cluster is not whole",
            _ => "",
        };
        Error::transient(format!("the token store at {} failed{advice}", self.server)).with_source(error)
    }

    /// Returns the newest attempt if it can still be of use, else a new one.
    fn attempt(&self) -> Result<ConnectAttempt, Error> {
        // Every change under this lock is one assignment.
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(attempt) = newest.as_ref().filter(|attempt| is_usable(attempt)) {
            return Ok(attempt.clone());
        }
        let (opened, attempt) = watch::channel(None);
        let (server, changes) = (Arc::clone(&self.server), self.changes.clone());
        // A task of its own, so that it goes on if the call that began it has a timeout.
        runtime::current()?.spawn(async move {
            let result = OpenConnection::new(&server, changes).await;
            opened.send_replace(Some(result.map(Arc::new).map_err(Arc::new)));
        });
        *newest = Some(attempt.clone());
        Ok(attempt)
    }
}

fn is_usable(attempt: &ConnectAttempt) -> bool {
    match &*attempt.borrow() {
        Some(Ok(open)) => !open.noticed.is_broken.load(Ordering::Acquire),
        Some(Err(_)) => false,
        // Its task may be gone, with its runtime.
        None => attempt.has_changed().is_ok(),
    }
}

// --- OpenConnection ---

impl OpenConnection {
    async fn new(server: &Server, changes: broadcast::Sender<String>) -> Result<Self, RedisError> {
        let noticed = Arc::new(Noticed {
            has_one_node: server.has_one_node(),
            is_broken: AtomicBool::new(false),
            given_up: AtomicU32::new(0),
            is_subscribed: AtomicBool::new(false),
        });
        let notes = Arc::clone(&noticed);
        // Without a receiver nothing waits for a message.
        let pushed = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                notes.is_broken.fetch_or(notes.has_one_node, Ordering::Release);
                // Of a cluster it may have been the node that sent the messages.
                notes.is_subscribed.store(false, Ordering::Release);
            }
            changes.send(changed_key(&push).unwrap_or_default()).map(drop)
        };
        let connection = server.connect(pushed).await?;
        Ok(Self { connection, noticed })
    }

    /// Sends a command. After some errors, and when the response does not come, the next call gets another connection.
    pub(super) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        let mut waiting = Waiting { noticed: &self.noticed, has_response: false };
        let result = self.connection.query(command).await;
        waiting.has_response = true;
        if result.as_ref().is_err_and(|error| self.connection.is_lost_by(error)) {
            self.noticed.is_broken.store(true, Ordering::Release);
        }
        result
    }

    /// Subscribes to a channel, if the connection is not subscribed. To do so twice does no harm.
    pub(super) async fn subscribe(&self, channel: &str) -> Result<(), RedisError> {
        if !self.noticed.is_subscribed.load(Ordering::Acquire) {
            self.connection.subscribe(channel).await?;
            self.noticed.is_subscribed.store(true, Ordering::Release);
        }
        Ok(())
    }
}

// --- Waiting ---

/// A call that waits for its response. If it is dropped, it was given up.
struct Waiting<'a> {
    noticed: &'a Noticed,
    has_response: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Noticed { has_one_node, is_broken, given_up, .. } = self.noticed;
        if !self.has_response {
            let is_enough = given_up.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_GIVEN_UP;
            is_broken.fetch_or(is_enough, Ordering::Release);
        } else if *has_one_node {
            given_up.store(0, Ordering::Relaxed);
        }
    }
}

/// Returns the key that a message of the server names.
fn changed_key(push: &PushInfo) -> Option<String> {
    match (&push.kind, &push.data[..]) {
        (PushKind::Message, [_channel, Value::BulkString(key)]) => String::from_utf8(key.clone()).ok(),
        _ => None,
    }
}
