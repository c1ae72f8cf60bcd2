//! A runtime for threads that have none: one thread for all caches of a process, from the first that needs it to the last
//! that used it.
//!
//! 1. It is started by the first token that a thread without a runtime has to wait for, and sleeps in the system unless one is
//!    fetched. While the caches have tokens there is none.
//! 2. Every cache that used it holds it, and a fetch holds its cache. With the last of them it ends, and what is left in it
//!    is dropped. Nothing waits for that.
//! 3. Should its thread be gone before that, the next who needs it starts another.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::error::Error;

static RUNNING: Mutex<Weak<OwnRuntime>> = Mutex::new(Weak::new());

/// A runtime that a thread of its own drives. Dropping it ends both.
#[derive(Debug)]
pub(crate) struct OwnRuntime {
    handle: Handle,
    thread: JoinHandle<()>,
    /// Nothing is ever sent: the thread waits for it to be dropped.
    _stop: oneshot::Sender<Infallible>,
}

impl OwnRuntime {
    /// Returns the one that is running, or starts it.
    pub(crate) fn shared() -> Result<Arc<Self>, Error> {
        // The lock is for one at a time to start it; what it guards is whole at each moment.
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.upgrade().filter(|running| !running.thread.is_finished()) {
            return Ok(running);
        }
        let started = Self::start().map(Arc::new).map_err(|error| {
            Error::transient(
                "a thread to fetch tokens on could not be started; check the limits of this process",
            )
            .with_source(error)
        })?;
        *running = Arc::downgrade(&started);
        Ok(started)
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("tower-oauth2".to_owned()).spawn(move || {
            let Err(_dropped) = runtime.block_on(stopped);
            // A secret may be on its way from a file that never answers.
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, thread, _stop: stop })
    }
}
