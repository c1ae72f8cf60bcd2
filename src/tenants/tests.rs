//! Who stays, who goes, and how many token requests that makes.

use std::future::{Future as _, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::{TenantCaches, TenantCachesBuilder};
use crate::cache::TokenCache;
use crate::clock;
use crate::error::Error;
use crate::revoke::revoker_fn;
use crate::source::{TokenRequest, TokenSource};
use crate::token::AccessToken;

/// Returns tokens that name their tenant, and counts.
#[derive(Clone, Default)]
struct Issuer {
    asked: Arc<AtomicUsize>,
    latency: Duration,
    precious: Arc<AtomicBool>,
}

struct Tenant {
    name: String,
    issuer: Issuer,
}

impl TokenSource for Tenant {
    async fn token(&self, _: TokenRequest) -> Result<AccessToken, Error> {
        self.issuer.asked.fetch_add(1, Ordering::SeqCst);
        sleep(self.issuer.latency).await;
        Ok(AccessToken::bearer(format!("of-{}", self.name))?.with_lifetime(Duration::from_secs(36_000)))
    }

    fn is_disposable(&self) -> bool {
        !self.issuer.precious.load(Ordering::SeqCst)
    }
}

impl Issuer {
    fn slow(latency: Duration) -> Self {
        Self { latency, ..Self::default() }
    }

    fn caches(&self) -> TenantCachesBuilder<String> {
        let issuer = self.clone();
        TenantCaches::builder(move |name: &String| Ok(Tenant { name: name.clone(), issuer: issuer.clone() }))
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn token(caches: &TenantCaches<String>, tenant: &str) -> String {
    let token = caches.get(tenant).unwrap().get().await.unwrap();
    token.header_value().to_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_thousand_tenants_of_twenty_tasks_cause_a_thousand_token_requests() {
    let issuer = Issuer::slow(Duration::from_millis(50));
    let caches = issuer.caches().build().unwrap();
    let mut tasks = Vec::new();
    for task in 0..20_000 {
        let caches = caches.clone();
        tasks.push(tokio::spawn(async move {
            let tenant = format!("tenant-{}", task % 1_000);
            assert_eq!(token(&caches, &tenant).await, format!("Bearer of-{tenant}"));
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!((issuer.asked(), caches.len()), (1_000, 1_000));
}

#[tokio::test(start_paused = true)]
async fn hostile_keys_cause_so_many_token_requests_a_second_and_no_more() {
    let issuer = Issuer::default();
    let caches = issuer.caches().token_requests(20, 50).build().unwrap();
    let storm = |from: usize| {
        for number in from..from + 1_000 {
            let cache = caches.get(&format!("{number}")).unwrap();
            tokio::spawn(async move { cache.get().await });
        }
    };
    storm(0);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(issuer.asked(), 50);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(issuer.asked(), 70);
    storm(1_000);
    sleep(Duration::from_secs(30)).await;
    // Those that would have waited for more than ten seconds were sent away at once, with the time to come back at.
    assert_eq!(issuer.asked(), 50 + 200 + 20);
    for number in 5_000..5_250 {
        let cache = caches.get(&format!("{number}")).unwrap();
        tokio::spawn(async move { cache.get().await });
    }
    sleep(Duration::from_millis(10)).await;
    let error = caches.get("one too many").unwrap().get().await.unwrap_err();
    assert!(error.is_throttled(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn so_many_hostile_keys_leave_as_many_caches_as_are_allowed() {
    let issuer = Issuer::default();
    let caches = issuer.caches().capacity(500).build().unwrap();
    let held: Vec<_> = (0..250).map(|number| caches.get(&format!("tenant-{number}")).unwrap()).collect();
    for number in 0..30_000 {
        caches.get(&number.to_string()).unwrap();
        assert!(caches.len() <= 500);
    }
    for (number, cache) in held.iter().enumerate() {
        assert!(caches.get(&format!("tenant-{number}")).unwrap().is_same(cache));
    }
    assert_eq!(issuer.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn hostile_keys_find_a_full_house_without_a_look_into_every_room() {
    let looks = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&looks);
    let caches = TenantCaches::builder(move |_: &usize| Ok(Pinned { looks: Arc::clone(&counter) }));
    let caches = caches.capacity(100).build().unwrap();
    for number in 0..100 {
        caches.get(&number).unwrap();
    }
    for number in 100..100_000 {
        assert!(caches.get(&number).unwrap_err().is_throttled());
    }
    assert!(looks.load(Ordering::SeqCst) <= 200, "{looks:?}");
    sleep(Duration::from_millis(10)).await;
    assert!(caches.get(&100).unwrap_err().is_throttled());
    caches.remove(&7).unwrap();
    caches.get(&100).unwrap();
    assert!(looks.load(Ordering::SeqCst) <= 400, "{looks:?}");
}

/// Something that would be lost for good, and that counts how often it is asked whether it is.
struct Pinned {
    looks: Arc<AtomicUsize>,
}

impl TokenSource for Pinned {
    async fn token(&self, _: TokenRequest) -> Result<AccessToken, Error> {
        AccessToken::bearer("pinned")
    }

    fn is_disposable(&self) -> bool {
        self.looks.fetch_add(1, Ordering::SeqCst);
        false
    }
}

#[tokio::test(start_paused = true)]
async fn idle_ones_go_also_where_only_new_keys_come() {
    let issuer = Issuer::default();
    let caches = issuer.caches().idle_after(Duration::from_secs(600)).build().unwrap();
    for number in 0..100 {
        caches.get(&number.to_string()).unwrap();
        sleep(Duration::from_secs(60)).await;
    }
    assert!(caches.len() <= 14, "{}", caches.len());
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_not_used_goes_and_one_that_is_used_stays() {
    let issuer = Issuer::default();
    let caches = issuer.caches().idle_after(Duration::from_secs(600)).build().unwrap();
    token(&caches, "idle").await;
    for _ in 0..10 {
        token(&caches, "busy").await;
        sleep(Duration::from_secs(100)).await;
    }
    assert!(caches.peek("idle").is_none() && caches.peek("busy").is_some());
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_leaps_by_years_ends_what_is_idle_and_nothing_else() {
    let issuer = Issuer::default();
    let [some, all] = [Duration::from_secs(3600), Duration::MAX]
        .map(|idle| issuer.caches().idle_after(idle).build().unwrap());
    for leaps in 1..=3 {
        token(&some, "a").await;
        token(&all, "a").await;
        // Those of the time before the leap have ended.
        assert_eq!(issuer.asked(), 2 * leaps);
        tokio::time::advance(Duration::from_secs(20 * 365 * 86_400)).await;
        some.get("b").unwrap();
        all.get("b").unwrap();
        assert!(some.peek("a").is_none() && all.peek("a").is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn the_oldest_go_where_there_are_too_many() {
    let issuer = Issuer::default();
    let caches = issuer.caches().capacity(32).build().unwrap();
    for number in 0..32 {
        token(&caches, &number.to_string()).await;
        sleep(Duration::from_secs(1)).await;
    }
    token(&caches, "0").await;
    token(&caches, "new").await;
    // A sixteenth of 32 made room.
    assert_eq!(caches.len(), 31);
    let there = |key: &str| caches.peek(key).is_some();
    assert!(there("0") && there("new") && !there("1") && !there("2") && there("3"));
    assert_eq!(issuer.asked(), 33);
}

#[tokio::test(start_paused = true)]
async fn a_cache_in_use_never_goes() {
    let issuer = Issuer::slow(Duration::from_secs(20));
    let caches = issuer.caches().capacity(2).idle_after(Duration::from_secs(1)).build().unwrap();
    // One is held, one fetches for somebody who has gone.
    let held = caches.get("held").unwrap();
    let fetching = caches.get("fetching").unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(5), fetching.get()).await.is_err());
    drop(fetching);
    let error = caches.get("third").unwrap_err();
    assert!(error.is_throttled() && error.to_string().contains("all 2"), "{error}");
    assert!(caches.peek("held").is_some_and(|cache| cache.is_same(&held)));
    sleep(Duration::from_secs(30)).await;
    // The flight has landed, and its token was waited for by nobody; now it may go.
    caches.get("third").unwrap();
    assert!(caches.peek("fetching").is_none() && caches.peek("held").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_somebody_took_up_meanwhile_is_not_taken_apart() {
    // Between the look and the end a warm cache may begin to renew its token.
    let issuer = Issuer::slow(Duration::from_secs(1));
    let caches = issuer.caches().build().unwrap();
    let cache = caches.get("a").unwrap();
    let fetch = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get().await }
    });
    sleep(Duration::from_millis(500)).await;
    drop(caches.remove("a"));
    let Err(cache) = cache.retire() else { panic!("a flight was in the air") };
    fetch.await.unwrap().unwrap();
    tokio::task::yield_now().await;
    assert!(cache.is_idle() && cache.retire().is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_would_be_lost_for_good_never_goes() {
    let issuer = Issuer::default();
    let caches = issuer.caches().capacity(1).idle_after(Duration::from_secs(1)).build().unwrap();
    token(&caches, "rotated").await;
    issuer.precious.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(3_600)).await;
    assert!(caches.get("second").unwrap_err().is_throttled());
    issuer.precious.store(false, Ordering::SeqCst);
    sleep(Duration::from_millis(10)).await;
    caches.get("second").unwrap();
    assert!(caches.peek("rotated").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_cannot_be_made_is_tried_again_and_takes_no_place() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&tries);
    let caches = TenantCaches::new(move |name: &String| match counter.fetch_add(1, Ordering::SeqCst) {
        0 => Err(Error::config("no such tenant")),
        _ => Ok(Tenant { name: name.clone(), issuer: Issuer::default() }),
    });
    assert!(caches.get("a").unwrap_err().is_config() && caches.is_empty());
    assert_eq!(token(&caches, "a").await, "Bearer of-a");
    token(&caches, "a").await;
    assert_eq!(tries.load(Ordering::SeqCst), 2);
}

#[test]
fn all_threads_get_the_same_cache() {
    for _ in 0..50 {
        let caches = Issuer::default().caches().build().unwrap();
        let got: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| caches.get("a").unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(got.iter().all(|cache| cache.is_same(&got[0])));
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_all_at_once_and_makes_no_more() {
    let issuer = Issuer::slow(Duration::from_secs(5));
    let caches = issuer.caches().build().unwrap();
    for tenant in ["a", "b", "c"] {
        let cache = caches.get(tenant).unwrap();
        tokio::spawn(async move { cache.get().await });
    }
    sleep(Duration::from_secs(1)).await;
    let start = clock::now();
    let other = caches.clone();
    caches.shutdown(Duration::from_secs(10)).await.unwrap();
    assert_eq!((start.elapsed(), issuer.asked()), (Duration::from_secs(4), 3));
    assert!(other.is_empty() && other.get("a").unwrap_err().is_config());
    other.shutdown(Duration::ZERO).await.unwrap();

    let issuer = Issuer::slow(Duration::from_secs(60));
    let caches = issuer.caches().build().unwrap();
    let cache = caches.get("a").unwrap();
    tokio::spawn(async move { cache.get().await });
    sleep(Duration::from_secs(1)).await;
    let error = caches.shutdown(Duration::from_secs(2)).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(
        error.to_string(),
        "1 of 1 token caches did not end in order, one of them because a token request was still going on when the \
         time for the shutdown was over"
    );
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_says_what_was_not_revoked() {
    let issuer = Issuer::default();
    let caches = TenantCaches::new(move |name: &String| {
        let answer = match name.as_str() {
            "a" => Err(Error::transient("the server has gone")),
            _ => Ok(()),
        };
        let tenant = Tenant { name: name.clone(), issuer: issuer.clone() };
        Ok(TokenCache::builder(tenant)
            .revoke_with(revoker_fn(move |_| std::future::ready(answer.clone())))
            .revoke_at_shutdown(true))
    });
    for tenant in ["a", "b", "c"] {
        token(&caches, tenant).await;
    }
    let error = caches.shutdown(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "1 of 3 token caches did not end in order, one of them because the server has gone"
    );
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_is_dropped_has_closed_all() {
    let issuer = Issuer::slow(Duration::from_secs(5));
    let caches = issuer.caches().build().unwrap();
    let held: Vec<_> = (0..100).map(|number| caches.get(&number.to_string()).unwrap()).collect();
    for cache in &held[..50] {
        let cache = cache.clone();
        tokio::spawn(async move { cache.get().await });
    }
    sleep(Duration::from_secs(1)).await;
    assert!(tokio::time::timeout(Duration::ZERO, caches.shutdown(Duration::from_secs(10))).await.is_err());
    sleep(Duration::from_secs(10)).await;
    for cache in &held[50..] {
        assert!(cache.get().await.unwrap_err().is_config());
    }
    assert_eq!(issuer.asked(), 50);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_was_given_up_is_finished_by_another() {
    let (issuer, revoked) = (Issuer::default(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&revoked);
    let caches = TenantCaches::new(move |name: &String| {
        let (tenant, counter) = (Tenant { name: name.clone(), issuer: issuer.clone() }, Arc::clone(&counter));
        let revoker = revoker_fn(move |_| {
            let counter = Arc::clone(&counter);
            async move {
                sleep(Duration::from_secs(5)).await;
                counter.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
        });
        Ok(TokenCache::builder(tenant).revoke_with(revoker).revoke_at_shutdown(true))
    });
    for tenant in ["a", "b", "c"] {
        token(&caches, tenant).await;
    }
    let given_up = caches.shutdown(Duration::from_secs(60));
    assert!(tokio::time::timeout(Duration::from_secs(1), given_up).await.is_err());
    assert!(caches.get("d").unwrap_err().is_config());
    caches.shutdown(Duration::from_secs(60)).await.unwrap();
    assert_eq!((revoked.load(Ordering::SeqCst), caches.len()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_of_many_looks_at_each_when_it_has_something_to_say() {
    const MANY: usize = 2_000;
    let (turns, polls) = (Arc::new(Semaphore::new(8)), Arc::new(AtomicUsize::new(0)));
    let (issuer, counter) = (Issuer::default(), Arc::clone(&polls));
    let caches = TenantCaches::builder(move |name: &String| {
        let tenant = Tenant { name: name.clone(), issuer: issuer.clone() };
        let (turns, counter) = (Arc::clone(&turns), Arc::clone(&counter));
        let revoker = revoker_fn(move |_| {
            let (turns, counter) = (Arc::clone(&turns), Arc::clone(&counter));
            let mut turn = Box::pin(async move {
                let _turn = turns.acquire().await;
                tokio::task::yield_now().await;
                Ok(())
            });
            poll_fn(move |context| {
                counter.fetch_add(1, Ordering::SeqCst);
                turn.as_mut().poll(context)
            })
        });
        Ok(TokenCache::builder(tenant).revoke_with(revoker).revoke_at_shutdown(true))
    });
    let caches = caches.token_requests(10_000, 10_000).build().unwrap();
    for number in 0..MANY {
        token(&caches, &number.to_string()).await;
    }
    caches.shutdown(Duration::from_secs(1)).await.unwrap();
    // Once for its place in the queue, once for its turn, once for its end.
    let polls = polls.load(Ordering::SeqCst);
    assert!(polls <= 4 * MANY, "{polls}");
}

#[tokio::test(start_paused = true)]
async fn a_user_who_leaves_is_taken_out() {
    let issuer = Issuer::default();
    let caches = issuer.caches().build().unwrap();
    let held = caches.get("a").unwrap();
    assert!(caches.remove("a").is_some_and(|cache| cache.is_same(&held)));
    assert!(caches.remove("a").is_none() && caches.is_empty());
    assert!(!caches.get("a").unwrap().is_same(&held));
}

#[test]
fn a_bad_setting_is_refused_by_name() {
    let refused = |builder: TenantCachesBuilder<String>| {
        let error = builder.build().unwrap_err();
        assert!(error.is_config());
        error.to_string().split(':').next().unwrap().to_owned()
    };
    let caches = || Issuer::default().caches();
    assert_eq!(refused(caches().capacity(0)), "capacity");
    assert_eq!(refused(caches().token_requests(0, 1)), "token_requests");
    assert_eq!(refused(caches().token_requests(1, 0)), "token_requests");
    assert!(caches().capacity(1).token_requests(1, 1).idle_after(Duration::ZERO).build().is_ok());
}

#[test]
fn debug_shows_no_key() {
    let caches = Issuer::default().caches().build().unwrap();
    caches.get("jane.doe@example.com").unwrap();
    let shown = format!("{caches:?} {:#?}", Issuer::default().caches());
    assert!(shown.contains("len: 1") && !shown.contains("jane"), "{shown}");
}
