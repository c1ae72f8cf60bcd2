//! Keeps a cache warm: a task of its own, in the runtime that asked for it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::shared::CacheShared;

/// The monotonic clock stands still while a machine sleeps, and a timer with it. Looking this often finds the leap.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

/// Returns the task. It ends with the last handle of the cache, and with its shutdown.
///
/// 1. It does what a request would: fetches where there is no token, renews where one is due, starts over where another
///    runtime lost a fetch. The brakes and the waits after failures count for it too.
/// 2. It sleeps until something is due, or something happened: a token that was dropped is fetched at once.
/// 3. It holds nothing of the cache while it sleeps.
pub(super) fn keep_warm(shared: &Arc<CacheShared>) -> impl Future<Output = ()> + Send + 'static {
    run(Arc::downgrade(shared), shared.changes.subscribe())
}

async fn run(shared: Weak<CacheShared>, mut changes: watch::Receiver<()>) {
    loop {
        changes.mark_unchanged();
        let Some(idle) = shared.upgrade().and_then(|shared| shared.tend()) else { return };
        if let Ok(Err(_gone)) = timeout(idle.min(LONGEST_SLEEP), changes.changed()).await {
            return;
        }
    }
}
