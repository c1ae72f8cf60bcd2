//! Tokens for threads that have no runtime. Their clock cannot be paused, so waits are short, and ends are waited for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::cell::RefCell;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tower_oauth2::extensions::RejectionVerdict;
use tower_oauth2::{AccessToken, Error, ErrorKind, TokenCache, TokenRequest, TokenSource, source_fn};

const THREADS: usize = 32;

/// A source of `T1`, `T2` and so on, which takes its time, and a count of how often it was asked.
fn slow() -> (TokenCache, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let source = source_fn(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(AccessToken::bearer(format!("T{number}"))?.with_lifetime(Duration::from_secs(3600)))
        }
    });
    (TokenCache::new(source), asked)
}

fn header(token: &AccessToken) -> &str {
    token.header_value().to_str().unwrap()
}

/// Runs `work` on many threads that begin at the same time.
fn together<T: Send>(work: impl Fn() -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        let work = || {
            barrier.wait();
            work()
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn multi_threaded() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn one_threaded() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

// --- One fetch for all ---

#[test]
fn threads_without_a_runtime_share_one_fetch() {
    let (cache, asked) = slow();
    let tokens = together(|| cache.blocking_get().unwrap());
    assert!(tokens.iter().all(|token| token.header_value() == "Bearer T1"));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn threads_that_were_all_refused_share_one_refresh() {
    let (cache, asked) = slow();
    let first = cache.blocking_get().unwrap();
    let tokens = together(|| {
        cache.reject(&first);
        cache.blocking_get().unwrap()
    });
    assert!(tokens.iter().all(|token| token.header_value() == "Bearer T2"));
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert_eq!(cache.reject(&first), RejectionVerdict::Superseded);
}

#[test]
fn threads_and_tasks_share_one_fetch() {
    let (cache, asked) = slow();
    let runtime = multi_threaded();
    let task = runtime.spawn({
        let cache = cache.clone();
        async move { cache.get().await }
    });
    let mut tokens = together(|| cache.blocking_get().unwrap());
    tokens.push(runtime.block_on(task).unwrap().unwrap());
    assert!(tokens.iter().all(|token| token.header_value() == "Bearer T1"));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn all_who_wait_get_the_error() {
    let asked = AtomicUsize::new(0);
    let cache = TokenCache::new(source_fn(move |_| {
        let number = asked.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Err(Error::new(ErrorKind::Grant, format!("refused for the {number}. time")))
        }
    }));
    let errors = together(|| cache.blocking_get().unwrap_err());
    assert!(
        errors
            .iter()
            .all(|error| error.kind() == ErrorKind::Grant && error.to_string() == "refused for the 1. time")
    );
}

#[test]
fn a_token_from_a_runtime_is_used_when_that_is_gone() {
    let (cache, asked) = slow();
    let runtime = one_threaded();
    runtime.block_on(cache.get()).unwrap();
    drop(runtime);
    assert_eq!(header(&cache.blocking_get().unwrap()), "Bearer T1");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn a_token_is_renewed_in_the_background_for_threads_too() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let source = source_fn(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async { Ok(AccessToken::bearer("short")?.with_lifetime(Duration::from_secs(3))) }
    });
    // Due at once, and good for seconds.
    let cache = TokenCache::builder(source).refresh_before(Duration::from_millis(2_900)).build();
    cache.blocking_get().unwrap();
    for _ in 0..200 {
        cache.blocking_get().unwrap();
        if asked.load(Ordering::SeqCst) >= 2 {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("it was not renewed");
}

// --- Its thread ---

/// A source that notes on which thread it ran, and leaves a task behind that tells of its end.
fn telling(ended: mpsc::Sender<()>, thread_name: mpsc::Sender<String>) -> impl TokenSource {
    struct Tell(mpsc::Sender<()>);
    impl Drop for Tell {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    source_fn(move |_| {
        let (tell, thread_name) = (Tell(ended.clone()), thread_name.clone());
        async move {
            let name = thread::current().name().unwrap_or_default().to_owned();
            let _ = thread_name.send(name);
            tokio::spawn(async move {
                let _tell = tell;
                pending::<()>().await;
            });
            AccessToken::bearer("from-a-thread")
        }
    })
}

/// The tests of a binary share a process, and its one thread: what is told of that is told by a process of its own.
///
/// Returns whether this is the one that was started for the test.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "BLOCKING_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let me = std::env::current_exe().unwrap();
    let run = std::process::Command::new(me).args([test, "--exact"]).env(ALONE, "1").output().unwrap();
    let told = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && told.contains("1 passed"), "{told}");
    false
}

#[test]
#[cfg(target_os = "linux")]
fn who_waits_sleeps() {
    if !is_alone("who_waits_sleeps") {
        return;
    }
    // The time of the processor that this process has used, in hundredths of a second.
    let used = || {
        let line = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields = line.rsplit_once(") ").unwrap().1.split(' ').collect::<Vec<_>>();
        fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap()
    };
    let cache = TokenCache::new(source_fn(async |_| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        AccessToken::bearer("late")
    }));
    let before = used();
    together(|| cache.blocking_get().unwrap());
    let hundredths = used() - before;
    assert!(
        hundredths < 25,
        "{THREADS} threads waited a second for {hundredths} hundredths of processor time"
    );
}

#[test]
fn its_thread_has_a_name_and_ends_with_the_last_cache_that_used_it() {
    if !is_alone("its_thread_has_a_name_and_ends_with_the_last_cache_that_used_it") {
        return;
    }
    let (ended, end) = mpsc::channel();
    let (thread_name, names) = mpsc::channel();
    let one = TokenCache::new(telling(ended.clone(), thread_name.clone()));
    let other = TokenCache::new(telling(ended, thread_name));
    one.blocking_get().unwrap();
    other.blocking_get().unwrap();
    assert_eq!(names.try_iter().collect::<Vec<_>>(), ["tower-oauth2", "tower-oauth2"]);

    drop(one);
    assert_eq!(end.recv_timeout(Duration::from_millis(100)), Err(mpsc::RecvTimeoutError::Timeout));
    // What was left in it is dropped: the thread is at its end.
    drop(other);
    for _ in 0..2 {
        end.recv_timeout(Duration::from_secs(10)).unwrap();
    }
    // And the next who needs it has another.
    let (ended, end) = mpsc::channel();
    let (thread_name, names) = mpsc::channel();
    let next = TokenCache::new(telling(ended, thread_name));
    next.blocking_get().unwrap();
    assert_eq!(names.recv().unwrap(), "tower-oauth2");
    drop(next);
    end.recv_timeout(Duration::from_secs(10)).unwrap();
}

#[test]
fn a_source_that_panics_leaves_the_thread_to_the_others() {
    let panics = source_fn(|request: TokenRequest| async move {
        assert!(request.rejected().is_some(), "a source of a test that panics");
        AccessToken::bearer("never")
    });
    let cache = TokenCache::new(panics);
    let error = cache.blocking_get().unwrap_err();
    assert!(error.kind() == ErrorKind::Transient && error.to_string().contains("panicked"), "{error}");
    let (other, _) = slow();
    assert_eq!(header(&other.blocking_get().unwrap()), "Bearer T1");
}

#[test]
fn a_handle_that_is_dropped_in_mid_fetch_changes_nothing() {
    let (started, start) = mpsc::channel();
    let (finished, finish) = mpsc::channel();
    let cache = TokenCache::new(source_fn(move |_| {
        let (started, finished) = (started.clone(), finished.clone());
        async move {
            started.send(()).unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            finished.send(()).unwrap();
            AccessToken::bearer("late")
        }
    }));
    let waiting = thread::spawn({
        let cache = cache.clone();
        move || cache.blocking_get()
    });
    start.recv_timeout(Duration::from_secs(10)).unwrap();
    drop(cache);
    finish.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(header(&waiting.join().unwrap().unwrap()), "Bearer late");
}

// --- Where a runtime is around ---

#[test]
fn in_async_code_it_is_an_error_and_nothing_is_fetched() {
    for runtime in [one_threaded(), multi_threaded()] {
        let (cache, asked) = slow();
        let handle = cache.clone();
        let error = runtime.block_on(async move { handle.blocking_get() }).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains("async code"), "{error}");
        let handle = cache.clone();
        let error =
            runtime.block_on(runtime.spawn(async move { handle.blocking_get() })).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        // So it is where a token is at hand: whoever tries it finds out at once, and not in an hour.
        runtime.block_on(cache.get()).unwrap();
        assert_eq!(runtime.block_on(async { cache.blocking_get() }).unwrap_err().kind(), ErrorKind::Config);
    }
}

/// What flushes its last lines when its thread ends would end the process, if it met a panic there.
#[test]
fn in_the_end_of_a_thread_it_is_an_error_unless_a_token_is_at_hand() {
    struct AtTheEnd(TokenCache, mpsc::Sender<thread::Result<Result<AccessToken, Error>>>);
    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            let asked = catch_unwind(AssertUnwindSafe(|| self.0.blocking_get()));
            self.1.send(asked).unwrap();
        }
    }
    thread_local!(static LAST: RefCell<Option<AtTheEnd>> = const { RefCell::new(None) });

    let at_the_end = |cache: &TokenCache| {
        let (told, tell) = mpsc::channel();
        let cache = cache.clone();
        // What is used first is the last to go.
        let thread = thread::spawn(move || {
            LAST.set(Some(AtTheEnd(cache, told)));
            let (other, _) = slow();
            other.blocking_get().unwrap();
        });
        thread.join().unwrap();
        tell.recv().unwrap().expect("it does not panic")
    };
    let (cache, asked) = slow();
    let error = at_the_end(&cache).unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("thread ended"), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    cache.blocking_get().unwrap();
    assert_eq!(header(&at_the_end(&cache).unwrap()), "Bearer T1");
}

#[test]
fn in_spawn_blocking_and_block_in_place_it_works() {
    let (cache, asked) = slow();
    let runtime = multi_threaded();
    let handle = cache.clone();
    let token = runtime.block_on(runtime.spawn_blocking(move || handle.blocking_get())).unwrap().unwrap();
    assert_eq!(header(&token), "Bearer T1");
    cache.invalidate();
    let handle = cache.clone();
    let task = async move { tokio::task::block_in_place(|| handle.blocking_get()) };
    let token = runtime.block_on(runtime.spawn(task)).unwrap().unwrap();
    assert_eq!(header(&token), "Bearer T2");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[test]
fn a_runtime_that_nobody_drives_does_not_hold_it_up() {
    let (cache, _) = slow();
    let parked = one_threaded();
    let _entered = parked.enter();
    assert_eq!(header(&cache.blocking_get().unwrap()), "Bearer T1");
}

#[test]
fn a_cache_that_was_shut_down_says_so() {
    let (cache, asked) = slow();
    one_threaded().block_on(cache.shutdown(Duration::from_secs(1))).unwrap();
    let error = cache.blocking_get().unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("shut down"), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}
