//! The only door to the tokio runtime around a call: what it lacks is an error and never a panic.

use std::cell::Cell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::Either;
use tokio::runtime::{Handle, Id};
use tokio::time::Instant;

use crate::error::Error;

thread_local! {
    /// The runtime that this thread was last in, and whether it has a timer. tokio tells that by a panic alone, which may
    /// be caught but goes to stderr, so it is asked once and not for each request.
    static TIMER: Cell<Option<(Id, bool)>> = const { Cell::new(None) };
}

/// Returns the runtime around this call. Every wait needs its timer.
///
/// # Errors
///
/// A configuration error outside a runtime, and in one without a timer.
pub(crate) fn current() -> Result<Handle, Error> {
    let handle = Handle::try_current().map_err(|_outside| {
        Error::config(
            "this call is outside a tokio runtime and needs one; enter one first, or call blocking_get on a thread that \
             has none",
        )
    })?;
    let id = handle.id();
    let known = TIMER.try_with(Cell::get).ok().flatten().filter(|(known, _)| *known == id);
    let has_timer = known.map_or_else(
        || {
            let has_timer = with_timer(|| tokio::time::sleep(Duration::ZERO)).is_ok();
            // A thread that is ending has no such memory any more, and asks each time.
            let _ = TIMER.try_with(|timer| timer.set(Some((id, has_timer))));
            has_timer
        },
        |(_, has_timer)| has_timer,
    );
    if has_timer { Ok(handle) } else { Err(no_timer()) }
}

/// Makes something that needs a timer.
///
/// # Errors
///
/// A configuration error where there is none.
pub(crate) fn with_timer<T>(make: impl FnOnce() -> T) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(make)).map_err(|_panic| no_timer())
}

/// Waits for a future until `deadline`, if there is one, and if the runtime has a timer. None: it passed.
pub(crate) fn until<F: Future>(
    deadline: Option<Instant>,
    future: F,
) -> impl Future<Output = Option<F::Output>> {
    match deadline.filter(|_| current().is_ok()) {
        Some(deadline) => Either::Left(tokio::time::timeout_at(deadline, future).map(Result::ok)),
        None => Either::Right(future.map(Some)),
    }
}

/// Turns a panic of foreign code into an error: lost in it, a fetch would be followed by another at once, which would fare no
/// better. Its message is left out: it may hold anything.
pub(crate) async fn caught<T>(
    name: &str,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let panicked = || Error::transient(format!("{name} panicked; see its message on stderr"));
    unless_panicked(future).await.unwrap_or_else(|| Err(panicked()))
}

/// Returns what a future returns, and nothing if it panics.
pub(crate) async fn unless_panicked<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| poll_unless_panicked(future.as_mut(), cx)).await
}

/// Polls a future, and returns nothing if it panics. It must not be polled again then.
pub(crate) fn poll_unless_panicked<F: Future>(
    future: Pin<&mut F>,
    cx: &mut Context<'_>,
) -> Poll<Option<F::Output>> {
    let polled = catch_unwind(AssertUnwindSafe(|| future.poll(cx)));
    polled.map_or(Poll::Ready(None), |polled| polled.map(Some))
}

/// Calls foreign code that is asked in passing. Where it panics the request that asked goes on.
pub(crate) fn or_panicked<T>(otherwise: T, call: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(otherwise)
}

fn no_timer() -> Error {
    Error::config("this tokio runtime has no timer; build it with enable_time() or enable_all()")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_knows_each_runtime_that_it_enters() {
        let bare = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let whole = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        assert!(current().unwrap_err().to_string().contains("outside a tokio runtime"));
        for _ in 0..3 {
            assert!(bare.block_on(async { current() }).unwrap_err().to_string().contains("enable_time"));
            assert!(whole.block_on(async { current() }).is_ok());
        }
    }
}
