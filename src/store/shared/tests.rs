use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use super::*;
use crate::clock::WallClock;
use crate::source::FetchReason;
use crate::store::MemoryStore;
use crate::test_util::{ScriptedSource, pass};

const SECOND: Duration = Duration::from_secs(1);

/// A process whose wall clock is so many seconds beside that of the others.
fn process(
    source: &ScriptedSource,
    store: &MemoryStore,
    beside: i64,
) -> (Shared<ScriptedSource, MemoryStore>, WallClock) {
    let now = i64::try_from(WallClock::default().nanos()).unwrap();
    let wall =
        WallClock::by_hand(Arc::new(AtomicU64::new((now + beside * 1_000_000_000).try_into().unwrap())));
    let key = StoreKey::new("billing").unwrap();
    let shared = Shared::builder(source.clone(), store.clone(), SealingKey::new([7; 32])).key(key);
    let mut shared = shared.build().unwrap();
    let inner = Arc::get_mut(&mut shared.inner).unwrap();
    Arc::get_mut(&mut inner.calls).unwrap().wall = wall.clone();
    (shared, wall)
}

fn asks(reason: FetchReason) -> TokenRequest {
    TokenRequest::new(reason)
}

#[tokio::test(start_paused = true)]
async fn clocks_that_differ_by_half_a_minute_agree_on_the_life_of_a_token() {
    for (writer, reader) in [(30, -30), (-30, 30), (0, 30), (30, 0)] {
        let (source, store) = (ScriptedSource::new().lifetime(100 * SECOND), MemoryStore::new());
        let (one, _) = process(&source, &store, writer);
        let (other, wall) = process(&source, &store, reader);
        one.token(asks(FetchReason::Initial)).await.unwrap();
        pass(40 * SECOND).await;
        let token = other.token(asks(FetchReason::Initial)).await.unwrap();
        let now = wall.moment();
        let (from, end) = token.span(now, now);
        assert_eq!((from.until(now), now.until(end.unwrap())), (40 * SECOND, 60 * SECOND));
        assert_eq!(source.fetches(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_instant_at_which_a_token_ends_is_that_of_the_process_that_was_told() {
    let (source, store) = (ScriptedSource::new(), MemoryStore::new());
    let (one, wall) = process(&source, &store, 30);
    let (other, _) = process(&source, &store, -30);
    let ends = SystemTime::UNIX_EPOCH + Duration::from_nanos(wall.nanos()) + 100 * SECOND;
    source.return_next(AccessToken::bearer("a").map(|token| token.with_expires_at(ends)));
    one.token(asks(FetchReason::Initial)).await.unwrap();
    let token = other.token(asks(FetchReason::Initial)).await.unwrap();
    assert_eq!((token.expose(), token.lifetime()), ("a", Some(100 * SECOND)));
}

#[tokio::test(start_paused = true)]
async fn a_process_whose_clock_is_behind_writes_above_what_is_there() {
    let (source, store) = (ScriptedSource::new(), MemoryStore::new());
    let (ahead, _) = process(&source, &store, 30);
    let (behind, _) = process(&source, &store, -30);
    let mut previous = ahead.token(asks(FetchReason::Initial)).await.unwrap();
    for process in [&behind, &ahead, &behind, &behind, &ahead] {
        let newer =
            process.token(asks(FetchReason::Forced).with_previous(Some(previous.clone()))).await.unwrap();
        assert_ne!(newer.expose(), previous.expose());
        previous = newer;
    }
    assert_eq!(source.fetches(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_ends_its_lease_at_once() {
    let store = MemoryStore::new();
    let panics = crate::source::source_fn(|_request| async { panic!("the source panics") });
    let key = || StoreKey::new("billing").unwrap();
    let broken = Shared::builder(panics, store.clone(), SealingKey::new([7; 32])).key(key()).build().unwrap();
    assert!(broken.token(asks(FetchReason::Initial)).await.unwrap_err().is_transient());
    pass(SECOND).await;
    assert!(matches!(store.acquire(&key(), SECOND).await.unwrap(), Acquired::Taken(_)));
}
