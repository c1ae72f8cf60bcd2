//! Processes that share a token: one token request for all of them, whatever happens to the store or to one of them. Each
//! process is a cache of its own over a source of its own; what they share is the store.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "tests look at the paused clock")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tower_oauth2::store::{Acquired, MemoryStore, SealingKey, Shared, StoreKey, TokenStore};
use tower_oauth2::test_util::{ScriptedSource, pass, timed};
use tower_oauth2::{
    AccessToken, Error, ErrorKind, FetchReason, TokenCache, TokenRequest, TokenSource, source_fn,
};

use crate::stores::{Fault, FaultyStore};
use crate::support::Log;

#[path = "store/keys.rs"]
mod keys;
#[path = "store/mortal.rs"]
mod mortal;
#[path = "store/refresh_tokens.rs"]
mod refresh_tokens;
#[path = "store/stores.rs"]
mod stores;
mod support;

const SECOND: Duration = Duration::from_secs(1);

fn key() -> StoreKey {
    StoreKey::new("billing").unwrap()
}

fn sealing() -> SealingKey {
    SealingKey::new([7; 32])
}

fn shared<T: TokenStore>(source: &ScriptedSource, store: T) -> Shared<ScriptedSource, T> {
    Shared::builder(source.clone(), store, sealing()).key(key()).build().unwrap()
}

/// Processes that share a store.
fn fleet(size: usize, source: &ScriptedSource, store: &MemoryStore) -> Vec<TokenCache> {
    (0..size).map(|_| TokenCache::new(shared(source, store.clone()))).collect()
}

async fn tokens(fleet: &[TokenCache]) -> Vec<AccessToken> {
    join_all(fleet.iter().map(TokenCache::get)).await.into_iter().map(Result::unwrap).collect()
}

fn are_all(tokens: &[AccessToken], secret: &str) {
    assert!(
        !tokens.is_empty() && tokens.iter().all(|token| token.expose() == secret),
        "not all are {secret}"
    );
}

fn asks(reason: FetchReason) -> TokenRequest {
    TokenRequest::new(reason)
}

fn logging() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .without_time()
        .with_writer(log.clone())
        .finish();
    (log, tracing::subscriber::set_default(subscriber))
}

/// How many lines of the log say this.
fn said(log: &Log, what: &str) -> usize {
    log.lines().iter().filter(|line| line.contains(what)).count()
}

const OUT_OF_ORDER: &str = "the token store is out of order";
/// So long without a failure, and a store works again.
const WELL: Duration = Duration::from_secs(30);
const WORKS_AGAIN: &str = "the token store works again";

// --- One token request for all ---

#[tokio::test(start_paused = true)]
async fn fifty_that_start_at_once_make_one_token_request() {
    let (source, store) = (ScriptedSource::new().latency(SECOND), MemoryStore::new());
    let fleet = fleet(50, &source, &store);
    let (all, took) = timed(tokens(&fleet)).await;
    are_all(&all, "token-1");
    assert_eq!(source.fetches(), 1);
    assert!(took < 2 * SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_wake_waiters_is_polled() {
    let (source, store) = (ScriptedSource::new().latency(5 * SECOND), FaultyStore::default());
    store.set(Fault::Silent);
    let fleet: Vec<_> = (0..10).map(|_| TokenCache::new(shared(&source, store.clone()))).collect();
    let (all, took) = timed(tokens(&fleet)).await;
    are_all(&all, "token-1");
    assert!(source.fetches() == 1 && took <= 6 * SECOND, "{took:?}");
    // Each asks about once a second, by two calls.
    assert!(store.calls().len() < 300, "{}", store.calls().len());
}

#[tokio::test(start_paused = true)]
async fn one_that_starts_later_reads_the_token_and_takes_no_lease() {
    let (source, store) = (ScriptedSource::new(), FaultyStore::default());
    shared(&source, store.clone()).token(asks(FetchReason::Initial)).await.unwrap();
    pass(SECOND).await;
    store.forget_calls();
    let late = TokenCache::new(shared(&source, store.clone()));
    assert_eq!(late.get().await.unwrap().expose(), "token-1");
    assert_eq!((store.calls(), source.fetches()), (vec!["load"], 1));
}

#[tokio::test(start_paused = true)]
async fn a_fleet_renews_by_one_token_request_for_each_life() {
    let source = ScriptedSource::new().lifetime(100 * SECOND).latency(SECOND);
    let store = MemoryStore::new();
    let fleet = fleet(50, &source, &store);
    for second in 0..1000 {
        for token in tokens(&fleet).await {
            assert!(token.expires_at().is_some(), "after {second} s");
        }
        pass(SECOND).await;
    }
    // A token is renewed when between a quarter and a fifth of its life is left.
    let fetches = source.fetches();
    assert!((10..=14).contains(&fetches), "{fetches}");
}

#[tokio::test(start_paused = true)]
async fn a_fleet_whose_token_has_expired_makes_one_token_request() {
    let (source, store) = (ScriptedSource::new().lifetime(100 * SECOND).latency(SECOND), MemoryStore::new());
    let fleet = fleet(50, &source, &store);
    are_all(&tokens(&fleet).await, "token-1");
    pass(200 * SECOND).await;
    are_all(&tokens(&fleet).await, "token-2");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_fleet_whose_token_is_rejected_makes_one_token_request() {
    let (source, store) = (ScriptedSource::new().latency(SECOND), MemoryStore::new());
    let fleet = fleet(50, &source, &store);
    let first = tokens(&fleet).await;
    pass(60 * SECOND).await;
    for (cache, token) in fleet.iter().zip(&first) {
        cache.reject(token);
    }
    are_all(&tokens(&fleet).await, "token-2");
    // One that learns it later, as its requests come later, gets the same.
    pass(SECOND).await;
    let late = TokenCache::new(shared(&source, store));
    assert_eq!(late.get().await.unwrap().expose(), "token-2");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_used_by_no_other_process_while_its_successor_is_fetched() {
    let (source, store) = (ScriptedSource::new(), MemoryStore::new());
    let one = shared(&source, store.clone());
    let first = one.token(asks(FetchReason::Initial)).await.unwrap();
    source.hang_next();
    let rejecting =
        tokio::spawn(async move { one.token(asks(FetchReason::Rejected).with_rejected(Some(first))).await });
    pass(SECOND).await;
    // It starts now, and knows of no rejection.
    let other = TokenCache::builder(shared(&source, store)).fetch_timeout(5 * SECOND).build();
    let error = other.get().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Transient && error.to_string().contains("another process"), "{error}");
    assert_eq!(source.fetches(), 2);
    rejecting.abort();
}

#[tokio::test(start_paused = true)]
async fn refresh_brings_a_token_that_the_caller_has_not() {
    let (source, store) = (ScriptedSource::new(), MemoryStore::new());
    let fleet = fleet(2, &source, &store);
    are_all(&tokens(&fleet).await, "token-1");
    assert_eq!(fleet[0].refresh().await.unwrap().expose(), "token-2");
    assert_eq!(fleet[1].refresh().await.unwrap().expose(), "token-2");
    assert_eq!(fleet[1].refresh().await.unwrap().expose(), "token-3");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_tenants_in_one_store_do_not_meet() {
    let store = MemoryStore::new();
    let tenants: Vec<_> = (0..1000)
        .map(|number| {
            let source = ScriptedSource::new().name(format!("tenant{number}")).latency(SECOND);
            let caches: Vec<_> = (0..3)
                .map(|_| {
                    let key = StoreKey::new(format!("tenant-{number}")).unwrap();
                    TokenCache::new(
                        Shared::builder(source.clone(), store.clone(), sealing()).key(key).build().unwrap(),
                    )
                })
                .collect();
            (source, caches)
        })
        .collect();
    let all = join_all(tenants.iter().map(|(_, caches)| tokens(caches))).await;
    for (number, ((source, _), tokens)) in tenants.iter().zip(&all).enumerate() {
        are_all(tokens, &format!("tenant{number}-1"));
        assert_eq!(source.fetches(), 1, "tenant {number}");
    }
}

// --- What a token is when it comes back ---

#[tokio::test(start_paused = true)]
async fn a_token_comes_back_with_all_that_it_was() {
    let (source, store) = (ScriptedSource::new(), MemoryStore::new());
    let token = AccessToken::with_scheme("DPoP", "S3CR3T").unwrap();
    let token =
        token.with_lifetime(100 * SECOND).with_scopes(["a", "b"]).with_extra("instance_url", "https://x/\"");
    source.return_next(Ok(token.with_refresh_token("RT \"1\"")));
    shared(&source, store.clone()).token(asks(FetchReason::Initial)).await.unwrap();
    pass(40 * SECOND).await;
    let cache = TokenCache::new(shared(&source, store));
    let token = cache.get().await.unwrap();
    assert_eq!((token.scheme(), token.expose()), ("DPoP", "S3CR3T"));
    assert_eq!(token.scopes().unwrap(), ["a", "b"]);
    assert_eq!(token.expose_extra("instance_url"), Some("https://x/\""));
    assert_eq!(token.expose_refresh_token(), Some("RT \"1\""));
    // It ends when it would have ended where it was fetched.
    pass(59 * SECOND).await;
    assert!(cache.peek().is_some());
    pass(SECOND).await;
    assert!(cache.peek().is_none());
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_nearly_over_is_not_taken() {
    let (source, store) = (ScriptedSource::new().lifetime(100 * SECOND), MemoryStore::new());
    shared(&source, store.clone()).token(asks(FetchReason::Initial)).await.unwrap();
    pass(96 * SECOND).await;
    assert_eq!(shared(&source, store).token(asks(FetchReason::Initial)).await.unwrap().expose(), "token-2");
}

#[tokio::test(start_paused = true)]
async fn a_token_without_an_end_is_shared_until_it_is_rejected() {
    let (source, store) = (ScriptedSource::new(), MemoryStore::new());
    source.return_next(AccessToken::bearer("endless"));
    let one = shared(&source, store.clone());
    one.token(asks(FetchReason::Initial)).await.unwrap();
    pass(3 * 86_400 * SECOND).await;
    let other = shared(&source, store);
    let token = other.token(asks(FetchReason::Initial)).await.unwrap();
    assert_eq!((token.expose(), token.lifetime()), ("endless", None));
    let renewed = one.token(asks(FetchReason::Rejected).with_rejected(Some(token))).await.unwrap();
    assert_eq!(renewed.expose(), "token-2");
}

// --- The lease ---

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_while_it_fetches_holds_the_others_up_for_the_lease_at_most() {
    let (source, store) = (ScriptedSource::new(), MemoryStore::new());
    // Nothing extends the lease of a process that is gone.
    let _dead = store.acquire(&key(), 10 * SECOND).await.unwrap();
    let fleet = fleet(5, &source, &store);
    let (all, took) = timed(tokens(&fleet)).await;
    are_all(&all, "token-1");
    assert_eq!(source.fetches(), 1);
    assert!(took >= 9 * SECOND && took < 12 * SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_source_keeps_its_lease() {
    let (source, store) = (ScriptedSource::new().latency(25 * SECOND), MemoryStore::new());
    let fleet = fleet(5, &source, &store);
    are_all(&tokens(&fleet).await, "token-1");
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_late_writer_loses_and_takes_the_token_of_the_winner() {
    let (slow, quick, store) =
        (ScriptedSource::new().name("slow"), ScriptedSource::new().name("quick"), FaultyStore::default());
    // The process sleeps while it fetches: its lease is not extended, and runs out.
    store.set(Fault::NoExtension);
    let one = shared(&slow.clone().latency(15 * SECOND), store.clone());
    let one = tokio::spawn(async move { one.token(asks(FetchReason::Initial)).await });
    pass(12 * SECOND).await;
    let other = shared(&quick, store.clone());
    assert_eq!(other.token(asks(FetchReason::Initial)).await.unwrap().expose(), "quick-1");
    assert_eq!(one.await.unwrap().unwrap().expose(), "quick-1");
    assert_eq!((slow.fetches(), quick.fetches()), (1, 1));
    let third = shared(&quick, store);
    assert_eq!(third.token(asks(FetchReason::Initial)).await.unwrap().expose(), "quick-1");
}

#[tokio::test(start_paused = true)]
async fn the_store_is_read_again_under_the_lease() {
    let (source, store) = (ScriptedSource::new(), FaultyStore::default());
    let slow = store.seen_by_another_process();
    slow.set(Fault::Slow(200));
    let late = shared(&source, slow);
    let late = tokio::spawn(async move { late.token(asks(FetchReason::Initial)).await });
    // It has read the store, and has not asked for the lease yet.
    pass(Duration::from_millis(300)).await;
    assert_eq!(shared(&source, store).token(asks(FetchReason::Initial)).await.unwrap().expose(), "token-1");
    assert_eq!(late.await.unwrap().unwrap().expose(), "token-1");
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_leaves_a_token_for_the_next() {
    let (source, store) = (ScriptedSource::new().latency(5 * SECOND), MemoryStore::new());
    let one = shared(&source, store);
    assert!(tokio::time::timeout(SECOND, one.token(asks(FetchReason::Initial))).await.is_err());
    pass(5 * SECOND).await;
    assert_eq!(one.token(asks(FetchReason::Initial)).await.unwrap().expose(), "token-1");
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_ends_the_lease_at_once() {
    let (source, store) = (ScriptedSource::new(), MemoryStore::new());
    source.return_next(Err(Error::new(ErrorKind::Transient, "the server is down")));
    let one = shared(&source, store.clone());
    assert_eq!(one.token(asks(FetchReason::Initial)).await.unwrap_err().to_string(), "the server is down");
    pass(SECOND).await;
    let (token, took) = timed(shared(&source, store).token(asks(FetchReason::Initial))).await;
    assert_eq!((token.unwrap().expose(), took), ("token-2", Duration::ZERO));
}

// --- A token endpoint that does not work ---

/// Processes that ask at once, over a source whose token requests end as these, and the last of them from then on.
async fn asked_at_once(
    processes: usize,
    ends: &[Result<AccessToken, Error>],
) -> (Vec<Result<AccessToken, Error>>, usize) {
    let (requests, ends, store) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(ends.to_vec()), MemoryStore::new());
    let fleet: Vec<_> = (0..processes)
        .map(|_| {
            let (requests, ends) = (Arc::clone(&requests), Arc::clone(&ends));
            let source = source_fn(move |_request| {
                let number = requests.fetch_add(1, Ordering::Relaxed);
                let end = ends.get(number).or(ends.last()).unwrap().clone();
                async move {
                    tokio::time::sleep(SECOND).await;
                    end
                }
            });
            let shared = Shared::builder(source, store.clone(), sealing()).key(key()).build();
            TokenCache::new(shared.unwrap())
        })
        .collect();
    let results = join_all(fleet.iter().map(TokenCache::get)).await;
    (results, requests.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn fifty_learn_the_error_of_the_endpoint_by_three_token_requests() {
    let refused =
        Error::new(ErrorKind::Config, "the server does not know the client").with_code("invalid_client");
    let refused = refused.with_status(http::StatusCode::UNAUTHORIZED);
    let down = Error::new(ErrorKind::Transient, "the token endpoint cannot be reached");
    for (error, most) in
        [(refused, 3), (down, 3), (Error::new(ErrorKind::Protocol, "it is a page of HTML"), 3)]
    {
        let (results, requests) = asked_at_once(50, &[Err(error.clone())]).await;
        assert_eq!(requests, most, "{error}");
        for result in &results {
            let told = result.as_ref().unwrap_err();
            assert!(told.to_string().contains(&error.to_string()), "{told}");
            assert_eq!(
                (told.kind(), told.code(), told.status()),
                (error.kind(), error.code(), error.status())
            );
        }
        let own = results
            .iter()
            .filter(|result| result.as_ref().is_err_and(|told| told.to_string() == error.to_string()));
        assert_eq!(own.count(), most, "the others say that it was another process");
    }
}

#[tokio::test(start_paused = true)]
async fn fifty_heed_a_server_that_asked_one_of_them_for_patience() {
    let throttled = Error::new(ErrorKind::Throttled, "slow down").with_retry_after(60 * SECOND);
    let (results, requests) = asked_at_once(50, &[Err(throttled)]).await;
    assert_eq!(requests, 1);
    let mut times = Vec::new();
    for result in results {
        let told = result.unwrap_err();
        assert!(told.kind() == ErrorKind::Throttled && told.to_string().contains("slow down"), "{told}");
        times.push(told.retry_at().unwrap());
    }
    // All of them wait as long as the one that was asked to.
    let apart = *times.iter().max().unwrap() - *times.iter().min().unwrap();
    assert!(apart < 2 * SECOND, "{apart:?}");
}

#[tokio::test(start_paused = true)]
async fn one_process_that_fails_does_not_fail_the_others() {
    let cut_off = || Err(Error::new(ErrorKind::Transient, "the network of this process is cut off"));
    let token = AccessToken::bearer("good");
    let (results, requests) = asked_at_once(50, &[cut_off(), cut_off(), token]).await;
    assert_eq!(requests, 3);
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 2);
    assert!(results.iter().flatten().all(|token| token.expose() == "good"));
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_one_process_alone_is_told_to_no_other() {
    let unset = || Err(Error::new(ErrorKind::Config, "this process has no client secret"));
    let ends = [unset(), unset(), unset(), unset(), AccessToken::bearer("good")];
    let (results, requests) = asked_at_once(10, &ends).await;
    assert_eq!(requests, 5);
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 4);
}

/// What a process is told whose time is over while another one fetches. Token requests failed like this before it asked, and
/// while it waited.
async fn told_when_its_time_is_over(before: Option<Error>, meanwhile: Option<Error>) -> Error {
    let (source, store) = (ScriptedSource::new().latency(SECOND), FaultyStore::default());
    let one = shared(&source, store.clone());
    let requests = usize::from(before.is_some()) + usize::from(meanwhile.is_some()) + 1;
    if let Some(error) = before {
        source.return_next(Err(error));
        one.token(asks(FetchReason::Initial)).await.unwrap_err();
    }
    if let Some(error) = meanwhile.clone() {
        source.return_next(Err(error));
    }
    source.hang_next();
    let next = tokio::spawn(async move {
        if meanwhile.is_some() {
            one.token(asks(FetchReason::Initial)).await.unwrap_err();
        }
        one.token(asks(FetchReason::Initial)).await
    });
    pass(SECOND / 2).await;
    // Slower than the other one, which so has the lease each time.
    let slow = store.seen_by_another_process();
    slow.set(Fault::Slow(10));
    let other = TokenCache::builder(shared(&source, slow)).fetch_timeout(5 * SECOND).build();
    let (error, took) = timed(other.get()).await;
    assert!(took < 5 * SECOND && source.fetches() == requests, "{took:?}");
    next.abort();
    error.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn one_whose_time_is_over_learns_what_went_wrong_while_it_waited() {
    let down = || Some(Error::new(ErrorKind::Transient, "the token endpoint cannot be reached"));
    let refused = || {
        let error =
            Error::new(ErrorKind::Config, "the server does not know the client").with_code("invalid_client");
        Some(error.with_status(http::StatusCode::UNAUTHORIZED))
    };
    let error = told_when_its_time_is_over(None, down()).await;
    assert!(
        error.kind() == ErrorKind::Transient && error.to_string().contains("cannot be reached"),
        "{error}"
    );
    // The token request that goes on may succeed.
    let error = told_when_its_time_is_over(down(), refused()).await;
    assert!(
        error.kind() == ErrorKind::Transient && error.to_string().contains("does not know the client"),
        "{error}"
    );
    assert_eq!(
        (error.code(), error.status()),
        (Some("invalid_client"), Some(http::StatusCode::UNAUTHORIZED))
    );
    // What went wrong before may be hours old.
    for old in [down(), refused()] {
        let error = told_when_its_time_is_over(old, None).await;
        assert!(
            error.kind() == ErrorKind::Transient && error.to_string().contains("had none in time"),
            "{error}"
        );
        assert!(error.code().is_none() && error.status().is_none(), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_from_before_are_not_counted_where_the_first_read_was_of_no_use() {
    let (source, store) = (ScriptedSource::new(), FaultyStore::default());
    source.fail_with(Error::new(ErrorKind::Protocol, "it is a page of HTML"));
    let one = shared(&source, store.clone());
    for _ in 0..3 {
        one.token(asks(FetchReason::Initial)).await.unwrap_err();
    }
    source.recover();
    let held = store.acquire(&key(), 20 * SECOND).await.unwrap();
    assert!(matches!(held, Acquired::Taken(_)));
    let late = store.seen_by_another_process();
    late.set(Fault::Foreign);
    let other = shared(&source, late.clone());
    let other = tokio::spawn(async move { other.token(asks(FetchReason::Initial)).await });
    pass(SECOND / 2).await;
    late.set(Fault::None);
    assert_eq!(other.await.unwrap().unwrap().expose(), "token-4");
}

#[tokio::test(start_paused = true)]
async fn processes_without_time_do_not_fail_those_that_have_it() {
    // It plans its attempts within the deadline, as the grants do, and else would go on.
    let slow = || {
        source_fn(|request: TokenRequest| async move {
            let deadline = tokio::time::Instant::from_std(request.deadline().unwrap());
            tokio::time::sleep_until(deadline - Duration::from_millis(50)).await;
            Err(Error::new(ErrorKind::Transient, "the token endpoint did not respond in time"))
        })
    };
    for is_hanging in [true, false] {
        let (hanging, source, store) = (ScriptedSource::new(), ScriptedSource::new(), FaultyStore::default());
        for _ in 0..3 {
            hanging.hang_next();
        }
        let hasty: Vec<_> = (1..=3)
            .map(|number| {
                let deadline = (tokio::time::Instant::now() + number * 5 * SECOND).into_std();
                let request = asks(FetchReason::Initial).with_deadline(deadline);
                let hanging = shared(&hanging, store.clone());
                let slow = Shared::builder(slow(), store.clone(), sealing()).key(key()).build().unwrap();
                tokio::spawn(async move {
                    if is_hanging { hanging.token(request).await } else { slow.token(request).await }
                })
            })
            .collect();
        pass(SECOND).await;
        // Slower than the others, which so have the lease before it.
        let last = store.seen_by_another_process();
        last.set(Fault::Slow(10));
        let (token, took) = timed(shared(&source, last).token(asks(FetchReason::Initial))).await;
        assert_eq!(token.unwrap().expose(), "token-1");
        assert!(took > 13 * SECOND && took < 16 * SECOND, "{took:?}");
        for process in hasty {
            assert_eq!(process.await.unwrap().unwrap_err().kind(), ErrorKind::Transient);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_comes_when_the_time_is_over_is_given_back() {
    let (source, store) = (ScriptedSource::new(), FaultyStore::default());
    store.set(Fault::Slow(200));
    let deadline = (tokio::time::Instant::now() + SECOND * 3 / 10).into_std();
    let request = asks(FetchReason::Initial).with_deadline(deadline);
    let error = shared(&source, store.clone()).token(request).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Transient && error.to_string().contains("the time was over"),
        "{error}"
    );
    assert_eq!((store.calls(), source.fetches()), (vec!["load", "acquire", "release"], 0));
    assert!(matches!(store.acquire(&key(), SECOND).await.unwrap(), Acquired::Taken(_)));
}

#[tokio::test(start_paused = true)]
async fn a_failure_leaves_the_token_that_is_shared() {
    let (source, store) = (ScriptedSource::new().lifetime(100 * SECOND), MemoryStore::new());
    let one = shared(&source, store.clone());
    let first = one.token(asks(FetchReason::Initial)).await.unwrap();
    source.return_next(Err(Error::new(ErrorKind::Transient, "the server is down")));
    pass(40 * SECOND).await;
    let expiring = asks(FetchReason::Expiring).with_previous(Some(first));
    one.token(expiring).await.unwrap_err();
    pass(40 * SECOND).await;
    let cache = TokenCache::new(shared(&source, store));
    assert_eq!(cache.get().await.unwrap().expose(), "token-1");
    pass(19 * SECOND).await;
    assert!(cache.peek().is_some());
    pass(SECOND).await;
    assert!(cache.peek().is_none(), "it ends when it would have ended");
}

// --- A store that does not work ---

/// Every way in which a store may fail. After each, the token comes from the source, and there is one warning.
#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_work_costs_one_timeout_and_one_warning() {
    let quarter = Duration::from_millis(250);
    for (fault, most) in [
        (Fault::Error, Duration::ZERO),
        (Fault::Panic, Duration::ZERO),
        (Fault::Hang, quarter),
        (Fault::ReadOnly, Duration::ZERO),
        (Fault::HangOn("acquire"), quarter),
        (Fault::HangOn("swap"), quarter),
        (Fault::Full, Duration::ZERO),
        (Fault::Slow(200), 4 * Duration::from_millis(200)),
    ] {
        let (log, _guard) = logging();
        let (source, store) = (ScriptedSource::new().lifetime(100 * SECOND), FaultyStore::default());
        let cache = TokenCache::new(shared(&source, store.clone()));
        store.set(fault);
        for round in 1..=5 {
            let (token, took) = timed(cache.get()).await;
            assert_eq!(token.unwrap().expose(), format!("token-{round}"), "{fault:?}");
            assert!(took <= most, "{fault:?} took {took:?}");
            pass(101 * SECOND).await;
        }
        let is_slow = matches!(fault, Fault::Slow(_));
        assert_eq!(said(&log, OUT_OF_ORDER), usize::from(!is_slow), "{fault:?}: {}", log.text());
        store.set(Fault::None);
        assert_eq!(cache.get().await.unwrap().expose(), "token-6");
        assert_eq!(said(&log, WORKS_AGAIN), usize::from(!is_slow), "{fault:?}: {}", log.text());
        assert_eq!(said(&log, "WARN"), usize::from(!is_slow), "{fault:?}: {}", log.text());
        let late = shared(&source, store).token(asks(FetchReason::Initial)).await.unwrap();
        assert_eq!(late.expose(), "token-6", "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_each_process_makes_one_token_request() {
    let (source, store) = (ScriptedSource::new().latency(SECOND), FaultyStore::default());
    let fleet: Vec<_> = (0..10).map(|_| TokenCache::new(shared(&source, store.clone()))).collect();
    store.set(Fault::Hang);
    for _ in 0..20 {
        tokens(&fleet).await;
        pass(SECOND).await;
    }
    assert_eq!(source.fetches(), 10);
    // It comes back empty, and nothing is asked before it is due.
    store.set(Fault::None);
    tokens(&fleet).await;
    assert_eq!(source.fetches(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_cannot_be_used_is_a_miss_with_one_warning() {
    for fault in [Fault::Tampered, Fault::CutOff, Fault::Foreign, Fault::RolledBack, Fault::Swapped] {
        let (log, _guard) = logging();
        let (source, store) = (ScriptedSource::new().lifetime(100 * SECOND), FaultyStore::default());
        let one = shared(&source, store.clone());
        let first = one.token(asks(FetchReason::Initial)).await.unwrap();
        let asks_again = asks(FetchReason::Forced).with_previous(Some(first));
        assert_eq!(one.token(asks_again).await.unwrap().expose(), "token-2");
        store.set(fault);
        for round in 3..=4 {
            let token = one.token(asks(FetchReason::Initial)).await.unwrap();
            assert_eq!(token.expose(), format!("token-{round}"), "{fault:?}");
        }
        assert_eq!(said(&log, "WARN"), 1, "{fault:?}: {}", log.text());
        store.set(Fault::None);
        assert_eq!(one.token(asks(FetchReason::Initial)).await.unwrap().expose(), "token-4", "{fault:?}");
        assert_eq!(said(&log, WORKS_AGAIN), 0, "{fault:?}: {}", log.text());
        pass(WELL).await;
        assert_eq!(one.token(asks(FetchReason::Initial)).await.unwrap().expose(), "token-4", "{fault:?}");
        assert_eq!(said(&log, WORKS_AGAIN), 1, "{fault:?}: {}", log.text());
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_warns_once_for_a_thousand_tenants() {
    let (log, _guard) = logging();
    let store = FaultyStore::default();
    let tenants: Vec<_> = (0..1000)
        .map(|number| {
            let key = StoreKey::new(format!("tenant-{number}")).unwrap();
            let source = ScriptedSource::new().lifetime(100 * SECOND);
            TokenCache::new(Shared::builder(source, store.clone(), sealing()).key(key).build().unwrap())
        })
        .collect();
    for (streaks, fault) in [(1, Fault::Error), (2, Fault::Full), (3, Fault::HangOn("acquire"))] {
        store.set(fault);
        for _ in 0..3 {
            tokens(&tenants).await;
            pass(101 * SECOND).await;
        }
        assert_eq!(said(&log, OUT_OF_ORDER), streaks, "{fault:?}");
        store.set(Fault::None);
        tokens(&tenants).await;
        assert_eq!((said(&log, WORKS_AGAIN), said(&log, "WARN")), (streaks, streaks), "{fault:?}");
        pass(101 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_slow_for_some_calls_warns_once() {
    let (log, _guard) = logging();
    let (source, store) = (ScriptedSource::new().lifetime(5 * SECOND), FaultyStore::default());
    let cache = TokenCache::new(shared(&source, store.clone()));
    store.set(Fault::Uneven);
    for _ in 0..100 {
        cache.get().await.unwrap();
        pass(3 * SECOND).await;
    }
    assert_eq!((said(&log, OUT_OF_ORDER), said(&log, WORKS_AGAIN)), (1, 0), "{}", log.text());
    store.set(Fault::None);
    for _ in 0..20 {
        cache.get().await.unwrap();
        pass(3 * SECOND).await;
    }
    assert_eq!((said(&log, OUT_OF_ORDER), said(&log, WORKS_AGAIN)), (1, 1), "{}", log.text());
}

#[tokio::test(start_paused = true)]
async fn a_second_outage_is_warned_about_where_calls_are_rare() {
    let (log, _guard) = logging();
    let (source, store) = (ScriptedSource::new().lifetime(100 * SECOND), FaultyStore::default());
    let cache = TokenCache::new(shared(&source, store.clone()));
    let ask = async |fault| {
        store.set(fault);
        cache.get().await.unwrap();
        cache.get().await.unwrap();
    };
    ask(Fault::Error).await;
    pass(101 * SECOND).await;
    // It still fails, however long the last failure is ago.
    ask(Fault::Error).await;
    assert_eq!(said(&log, OUT_OF_ORDER), 1, "{}", log.text());
    // It works, and nothing is asked for an hour.
    pass(SECOND).await;
    store.set(Fault::None);
    let late = shared(&source, store.clone());
    late.token(asks(FetchReason::Initial)).await.unwrap();
    assert_eq!(said(&log, WORKS_AGAIN), 0, "too early to say: {}", log.text());
    pass(3600 * SECOND).await;
    ask(Fault::Error).await;
    assert_eq!((said(&log, OUT_OF_ORDER), said(&log, WORKS_AGAIN)), (2, 0), "{}", log.text());
    // One that follows soon is the same.
    pass(SECOND).await;
    store.set(Fault::None);
    late.token(asks(FetchReason::Initial)).await.unwrap();
    store.set(Fault::Error);
    late.token(asks(FetchReason::Initial)).await.unwrap();
    assert_eq!(said(&log, OUT_OF_ORDER), 2, "{}", log.text());
}

#[tokio::test(start_paused = true)]
async fn stores_with_other_names_warn_each() {
    let (log, _guard) = logging();
    let source = ScriptedSource::new();
    let (dead, well, gone) = (FaultyStore::default(), FaultyStore::default(), FaultyStore::default());
    dead.set(Fault::Error);
    gone.set(Fault::Error);
    for store in [&dead, &well, &gone] {
        shared(&source, store.clone()).token(asks(FetchReason::Initial)).await.unwrap();
    }
    assert_eq!((said(&log, OUT_OF_ORDER), said(&log, "faulty:")), (2, 2), "{}", log.text());
}

#[tokio::test(start_paused = true)]
async fn another_sealing_key_opens_nothing_until_it_is_given() {
    let (source, store) = (ScriptedSource::new(), MemoryStore::new());
    let by = |sealing: SealingKey| {
        Shared::builder(source.clone(), store.clone(), sealing).key(key()).build().unwrap()
    };
    let (old, new) = (sealing(), SealingKey::new([8; 32]));
    by(old.clone()).token(asks(FetchReason::Initial)).await.unwrap();
    let both = by(new.clone().also(&old));
    assert_eq!(both.token(asks(FetchReason::Initial)).await.unwrap().expose(), "token-1");
    assert_eq!(by(new).token(asks(FetchReason::Initial)).await.unwrap().expose(), "token-2");
}

#[tokio::test(start_paused = true)]
async fn the_store_sees_no_secret() {
    let (source, store) = (ScriptedSource::new().name("S3CR3T"), FaultyStore::default());
    let one = shared(&source, store.clone());
    one.token(asks(FetchReason::Initial)).await.unwrap();
    assert!(store.holds().is_some_and(|value| !value.windows(6).any(|bytes| bytes == b"S3CR3T")));
    assert!(!format!("{one:?} {store:?}").contains("S3CR3T"));
    let plain =
        Shared::builder(source, store.clone(), SealingKey::insecure_plaintext()).key(key()).build().unwrap();
    plain.token(asks(FetchReason::Initial)).await.unwrap();
    assert!(store.holds().is_some_and(|value| value.windows(6).any(|bytes| bytes == b"S3CR3T")));
}

// --- What a builder refuses ---

#[test]
fn a_source_that_cannot_be_described_needs_a_name() {
    let store = MemoryStore::new();
    let error = Shared::builder(ScriptedSource::new(), store.clone(), sealing()).build().unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().starts_with("key: "), "{error}");
    let short = Shared::builder(Arc::new(ScriptedSource::new()), store, sealing()).key(key());
    let error = short.store_timeout(3 * SECOND).build().unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().starts_with("lease: "), "{error}");
}
