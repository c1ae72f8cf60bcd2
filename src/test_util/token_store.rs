//! Checks of the rules for token stores, for authors of stores to run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::clock;
use crate::store::{Acquired, Entry, StoreKey, TokenStore, Write};

/// How long the leases of the checks run. Long enough for a store over a network on a slow machine.
const PERIOD: Duration = Duration::from_millis(1500);
/// After this a lease of [`PERIOD`] has ended.
const OVER: Duration = Duration::from_millis(2000);
/// How often each of the tasks asks for the lease that only one may hold.
const HOLDS: usize = 300;
/// How long an entry is kept in the checks: they end before.
const KEPT: Duration = Duration::from_secs(600);

/// Checks that a store keeps the [rules](crate::store). It takes about ten seconds on a real clock, and writes under keys
/// that begin with `prefix`.
///
/// Two checks call the store from several tasks. On a runtime with several threads they run at the same time.
///
/// With a store that tells its waiters nothing ([`changed`](TokenStore::changed) as it is), give `wakes` as false.
///
/// # Panics
///
/// If a rule is broken; the message names it.
///
/// # Examples
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?.block_on(async {
/// use tower_oauth2::store::MemoryStore;
/// use tower_oauth2::test_util::check_token_store;
///
/// check_token_store(MemoryStore::new(), "test", true).await;
/// # });
/// # Ok::<_, std::io::Error>(())
/// ```
pub async fn check_token_store<S: TokenStore>(store: S, prefix: &str, wakes: bool) {
    let shared = Arc::new(store);
    let store = &*shared;
    let keys = Keys { prefix };
    an_entry_comes_back_as_it_was_written(store, &keys.key("whole")).await;
    a_write_needs_the_version_that_it_replaces(store, &keys.key("versions")).await;
    an_entry_outlives_the_lease_of_its_writer(store, &keys.key("kept")).await;
    one_lease_at_a_time(store, &keys.key("leases")).await;
    a_lease_ends_by_itself_and_can_be_extended(store, &keys.key("periods")).await;
    a_late_writer_loses(store, &keys.key("fences")).await;
    keys_do_not_meet(store, &keys.key("one"), &keys.key("two")).await;
    many_at_once_agree(&shared, &keys.key("many")).await;
    no_two_hold_a_lease_at_once(&shared, &keys.key("exclusive")).await;
    if wakes {
        a_waiter_is_woken(store, &keys.key("woken")).await;
    }
}

struct Keys<'a> {
    prefix: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> StoreKey {
        StoreKey::new(format!("{}-{name}", self.prefix)).expect("the prefix of the keys can be a key")
    }
}

async fn an_entry_comes_back_as_it_was_written<S: TokenStore>(store: &S, key: &StoreKey) {
    assert_eq!(load(store, key).await, None, "a key that was never written has no entry");
    let fence = take(store, key).await;
    // All bytes, and more than a line of them: a store never reads a value.
    let value: Bytes = (0..4096_u32).map(|number| number.to_le_bytes()[0]).collect::<Vec<u8>>().into();
    assert!(swap(store, key, 0, 7, fence, &value).await, "the first write replaces version zero");
    let entry = load(store, key).await.expect("an entry that was written is there");
    assert_eq!((entry.version, entry.fence), (7, fence), "version and fence come back as they were written");
    assert!(entry.value == value, "the value comes back byte for byte");
    sleep(Duration::from_millis(1100)).await;
    let age = load(store, key).await.expect("it is kept").age;
    assert!(age >= Duration::from_secs(1) && age < KEPT, "the age is the time since the write, not {age:?}");
    assert!(swap(store, key, 7, 8, fence, &Bytes::new()).await, "an empty value can be written");
    let entry = load(store, key).await.expect("an empty value is an entry");
    assert!(entry.value.is_empty() && entry.version == 8, "an empty value comes back empty");
    assert!(entry.age < age, "a write begins a new age");
    release(store, key, fence).await;
}

async fn a_write_needs_the_version_that_it_replaces<S: TokenStore>(store: &S, key: &StoreKey) {
    let fence = take(store, key).await;
    assert!(
        !swap(store, key, 3, 4, fence, &"x".into()).await,
        "a write that expects an entry fails without one"
    );
    assert_eq!(load(store, key).await, None, "a write that failed wrote nothing");
    assert!(swap(store, key, 0, 1 << 50, fence, &"a".into()).await, "versions are large numbers");
    assert!(
        !swap(store, key, 0, 9, fence, &"b".into()).await,
        "a write that expects no entry fails with one"
    );
    assert!(!swap(store, key, (1 << 50) - 1, 9, fence, &"b".into()).await, "an old version is not replaced");
    assert_eq!(value(store, key).await, "a", "a write that failed changed nothing");
    assert!(
        swap(store, key, 1 << 50, (1 << 50) + 1, fence, &"c".into()).await,
        "the right version is replaced"
    );
    assert_eq!(value(store, key).await, "c");
    release(store, key, fence).await;
}

async fn an_entry_outlives_the_lease_of_its_writer<S: TokenStore>(store: &S, key: &StoreKey) {
    let fence = take(store, key).await;
    let write = Write { replaces: 0, version: 1, fence, keep_for: KEPT, value: "kept".into() };
    assert!(store.swap(key, write).await.expect("swap"), "the write goes through");
    sleep(OVER).await;
    assert_eq!(value(store, key).await, "kept", "an entry outlives the lease of its writer");
    release(store, key, fence).await;
}

async fn one_lease_at_a_time<S: TokenStore>(store: &S, key: &StoreKey) {
    let first = take(store, key).await;
    match acquire(store, key).await {
        Acquired::Held(left) => {
            assert!(left <= PERIOD, "a lease of {PERIOD:?} runs for {left:?} more");
        }
        Acquired::Taken(_) => panic!("a lease was given twice"),
    }
    release(store, key, first).await;
    let second = take(store, key).await;
    assert!(second > first, "the fence of a lease is above that of the lease before it");
    // That of another is neither ended nor made longer.
    release(store, key, first).await;
    assert!(!extend(store, key, first).await, "a lease that has ended cannot be extended");
    assert!(matches!(acquire(store, key).await, Acquired::Held(_)), "a lease ends by its own holder alone");
    release(store, key, second).await;
    release(store, key, second).await;
}

async fn a_lease_ends_by_itself_and_can_be_extended<S: TokenStore>(store: &S, key: &StoreKey) {
    let first = take(store, key).await;
    for _ in 0..3 {
        sleep(PERIOD / 2).await;
        assert!(extend(store, key, first).await, "a lease that runs can be extended");
    }
    assert!(matches!(acquire(store, key).await, Acquired::Held(_)), "an extended lease runs on");
    sleep(OVER).await;
    let second = take(store, key).await;
    assert!(second > first, "a lease that ended by itself counts as well");
    assert!(!extend(store, key, first).await, "a lease that another has followed cannot be extended");
    sleep(OVER).await;
    assert!(!extend(store, key, second).await, "a lease that ended by itself cannot be extended");
}

async fn a_late_writer_loses<S: TokenStore>(store: &S, key: &StoreKey) {
    let late = take(store, key).await;
    sleep(OVER).await;
    assert!(
        swap(store, key, 0, 1, late, &"first".into()).await,
        "a writer whose lease has ended may write as long as no other lease was taken"
    );
    let holder = take(store, key).await;
    assert!(!swap(store, key, 1, 2, late, &"late".into()).await, "a later lease shuts earlier writers out");
    assert!(swap(store, key, 1, 3, holder, &"holder".into()).await, "the holder writes");
    assert!(!swap(store, key, 3, 4, late, &"late".into()).await, "also with the right version");
    release(store, key, holder).await;
    assert!(!swap(store, key, 3, 4, late, &"late".into()).await, "also after that lease has ended");
    assert_eq!(value(store, key).await, "holder");
}

async fn keys_do_not_meet<S: TokenStore>(store: &S, one: &StoreKey, two: &StoreKey) {
    let (first, second) = (take(store, one).await, take(store, two).await);
    assert!(swap(store, one, 0, 1, first, &"one".into()).await);
    assert_eq!(load(store, two).await, None, "a write is under its key alone");
    assert!(swap(store, two, 0, 1, second, &"two".into()).await);
    assert_eq!((value(store, one).await, value(store, two).await), ("one".into(), "two".into()));
    release(store, one, first).await;
    assert!(matches!(acquire(store, two).await, Acquired::Held(_)), "a lease is of one key");
    release(store, two, second).await;
}

/// Twenty tasks count to twenty, each by what the one before wrote.
async fn many_at_once_agree<S: TokenStore>(store: &Arc<S>, key: &StoreKey) {
    let mut tasks = JoinSet::new();
    for number in 0..20 {
        tasks.spawn(count_on(Arc::clone(store), key.clone(), number));
    }
    while let Some(task) = tasks.join_next().await {
        // The message of a rule that was broken in a task is that of the task.
        task.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
    }
    assert_eq!(value(&**store, key).await.len(), 20, "no write under a lease is lost");
}

async fn count_on<S: TokenStore>(store: Arc<S>, key: StoreKey, number: u64) {
    let (store, key) = (&*store, &key);
    loop {
        let Acquired::Taken(fence) = acquire(store, key).await else {
            sleep(Duration::from_millis(5 + number)).await;
            continue;
        };
        let before = load(store, key).await;
        let version = before.as_ref().map_or(0, |entry| entry.version);
        let count = before.map_or(0, |entry| entry.value.len());
        let value = Bytes::from(vec![b'x'; count + 1]);
        let written = swap(store, key, version, version + 1, fence, &value).await;
        release(store, key, fence).await;
        if written {
            return;
        }
    }
}

/// Eight tasks ask for a lease again and again, and count its holders.
async fn no_two_hold_a_lease_at_once<S: TokenStore>(store: &Arc<S>, key: &StoreKey) {
    let (mut tasks, holders) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for _ in 0..8 {
        tasks.spawn(hold_again_and_again(Arc::clone(store), key.clone(), Arc::clone(&holders)));
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
    }
}

async fn hold_again_and_again<S: TokenStore>(store: Arc<S>, key: StoreKey, holders: Arc<AtomicUsize>) {
    for _ in 0..HOLDS {
        let begun = clock::now();
        let Acquired::Taken(fence) = acquire(&*store, &key).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let others = holders.fetch_add(1, Ordering::SeqCst);
        load(&*store, &key).await;
        tokio::task::yield_now().await;
        holders.fetch_sub(1, Ordering::SeqCst);
        // One that was held for longer may have ended by itself.
        let has_run = begun.elapsed() < PERIOD;
        assert!(others == 0 || !has_run, "two tasks held the lease at the same time");
        release(&*store, &key, fence).await;
    }
}

async fn a_waiter_is_woken<S: TokenStore>(store: &S, key: &StoreKey) {
    let fence = take(store, key).await;
    let write = async {
        sleep(Duration::from_millis(300)).await;
        assert!(swap(store, key, 0, 1, fence, &"news".into()).await);
    };
    let (woken, ()) = futures_util::future::join(timeout(PERIOD, store.changed(key, 0)), write).await;
    woken.expect("a waiter is woken by a write").expect("changed");
    timeout(PERIOD, store.changed(key, 0))
        .await
        .expect("one that comes after the write does not wait")
        .expect("changed");
    let end = async {
        sleep(Duration::from_millis(300)).await;
        release(store, key, fence).await;
    };
    let (woken, ()) = futures_util::future::join(timeout(PERIOD, store.changed(key, 1)), end).await;
    woken.expect("a waiter is woken by the end of a lease").expect("changed");
}

// --- The calls, each of which must succeed ---

async fn load<S: TokenStore>(store: &S, key: &StoreKey) -> Option<Entry> {
    store.load(key).await.expect("load")
}

async fn value<S: TokenStore>(store: &S, key: &StoreKey) -> Bytes {
    load(store, key).await.expect("an entry is there").value
}

async fn swap<S: TokenStore>(
    store: &S,
    key: &StoreKey,
    replaces: u64,
    version: u64,
    fence: u64,
    value: &Bytes,
) -> bool {
    let write = Write { replaces, version, fence, keep_for: KEPT, value: value.clone() };
    store.swap(key, write).await.expect("swap")
}

async fn acquire<S: TokenStore>(store: &S, key: &StoreKey) -> Acquired {
    store.acquire(key, PERIOD).await.expect("acquire")
}

async fn take<S: TokenStore>(store: &S, key: &StoreKey) -> u64 {
    match acquire(store, key).await {
        Acquired::Taken(fence) => fence,
        Acquired::Held(_) => panic!("a lease that is free can be taken"),
    }
}

async fn extend<S: TokenStore>(store: &S, key: &StoreKey, fence: u64) -> bool {
    store.extend(key, fence, PERIOD).await.expect("extend")
}

async fn release<S: TokenStore>(store: &S, key: &StoreKey, fence: u64) {
    store.release(key, fence).await.expect("release");
}
