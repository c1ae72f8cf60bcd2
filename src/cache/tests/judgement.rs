//! What a cache makes of what it sees. Each test is named after what went wrong once.

use tokio::time::Instant;

use super::*;
use crate::backoff::Chance;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A cache on tokio's clock, over a source whose n-th token is `token-n`.
pub(super) fn counted(
    life: u64,
    source: impl Fn(usize) -> Result<(), Error> + Send + Sync + 'static,
) -> (TokenCache, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let source = source_fn(move |_| {
        let call = counter.fetch_add(1, Ordering::SeqCst) + 1;
        let result = source(call).and_then(|()| AccessToken::bearer(format!("token-{call}")));
        std::future::ready(result.map(|token| token.with_lifetime(seconds(life))))
    });
    (TokenCache::new(source), calls)
}

// --- keep_warm ---

#[tokio::test(start_paused = true)]
async fn one_rejection_a_week_without_traffic_never_closes_a_brake() {
    let (cache, _) = counted(3600, |_| Ok(()));
    cache.keep_warm().unwrap();
    for week in 0..4 {
        sleep(seconds(7 * 86_400)).await;
        let token = cache.peek().expect("warm");
        assert_eq!(cache.reject(&token), RejectionVerdict::Invalidated, "week {week}");
        sleep(seconds(1)).await;
        assert_eq!(cache.status().health(), Health::Ready, "week {week}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_dropped_is_fetched_again_without_a_request() {
    let (cache, calls) = counted(3600, |_| Ok(()));
    cache.keep_warm().unwrap();
    sleep(seconds(1)).await;
    cache.invalidate();
    sleep(seconds(1)).await;
    assert_eq!((calls.load(Ordering::SeqCst), cache.status().is_ready()), (2, true));
    sleep(seconds(60)).await;
    cache.reject(&cache.peek().unwrap());
    sleep(seconds(1)).await;
    assert_eq!((calls.load(Ordering::SeqCst), cache.status().is_ready()), (3, true));
}

#[tokio::test(start_paused = true)]
async fn keeping_warm_is_subject_to_the_brakes() {
    let (cache, calls) = counted(3600, |_| Ok(()));
    cache.keep_warm().unwrap();
    for _ in 0..600 {
        sleep(Duration::from_millis(100)).await;
        if let Some(token) = cache.peek() {
            cache.reject(&token);
        }
    }
    assert!(calls.load(Ordering::SeqCst) <= 6, "{calls:?}");
}

#[test]
fn a_short_lived_runtime_takes_no_warmth_along() {
    let rig = Rig::steady(100, 0);
    let owner = paused();
    owner.block_on(async {
        rig.cache.keep_warm().unwrap();
        settle().await;
        rig.cache.invalidate();
    });
    // It fetches here, and what it started here goes down with it.
    assert_eq!(runtime().block_on(rig.token()), "token-2");
    owner.block_on(async {
        for _ in 0..9 {
            rig.pass(10.0).await;
        }
        assert_eq!((rig.calls(), rig.cache.status().is_ready()), (3, true));
    });
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_slept_is_warm_again_within_seconds() {
    let rig = Rig::steady(3600, 0);
    rig.cache.keep_warm().unwrap();
    settle().await;
    // The monotonic clock stood still meanwhile.
    rig.wall.fetch_add(nanos(seconds(7200)), Ordering::SeqCst);
    assert!(!rig.cache.status().is_ready());
    rig.pass(10.1).await;
    assert_eq!((rig.calls(), rig.cache.status().is_ready()), (2, true));
}

#[test]
fn a_fetch_that_another_runtime_lost_is_started_again_by_the_warm_one() {
    let rig =
        Rig::new(|call, _| if call == 1 { Box::pin(std::future::pending()) } else { answer(call, 100, 0) });
    let lost = runtime();
    lost.block_on(async {
        assert_eq!(rig.at_once(), None);
        settle().await;
    });
    paused().block_on(async {
        rig.cache.keep_warm().unwrap();
        settle().await;
        tokio::task::spawn_blocking(move || drop(lost)).await.unwrap();
        rig.pass(10.1).await;
        assert_eq!((rig.calls(), rig.cache.status().is_ready()), (2, true));
    });
}

// --- Waits ---

/// Ten minutes of an outage that begins at once, with no token, under steady traffic. Returns the most token
/// requests in any minute, and how long after its end the first request succeeded.
async fn outage(seed: u64, error: fn() -> Error) -> (usize, Duration) {
    let begun = clock::now();
    let over = begun + seconds(600);
    let times = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::clone(&times);
    let source = source_fn(move |_| {
        let now = clock::now();
        asked.lock().unwrap().push(now);
        std::future::ready(if now < over { Err(error()) } else { AccessToken::bearer("token") })
    });
    let mut builder = TokenCache::builder(source);
    builder = builder.rigged(WallClock::default(), 0.0).with_chance(Chance::seeded(seed));
    let cache = builder.build();
    // Callers come all the time; those before the cache asks again change nothing.
    while let Err(error) = cache.get().await {
        tokio::time::sleep_until(Instant::from_std(error.retry_at().unwrap())).await;
    }
    let recovered = clock::now() - over;
    let times = times.lock().unwrap();
    let in_a_minute =
        |from: &Instant| times.iter().filter(|at| *at >= from && **at < *from + seconds(60)).count();
    (times.iter().map(in_a_minute).max().unwrap(), recovered)
}

#[tokio::test(start_paused = true)]
#[allow(clippy::disallowed_methods, reason = "the beginning is read from the paused clock")]
async fn an_outage_without_a_token_costs_few_requests_and_its_end_is_seen_at_once() {
    let mut worst = (0, Duration::ZERO);
    for seed in 0..200 {
        for error in [|| Error::transient("down"), || Error::protocol("a page")] {
            let (requests, recovered) = outage(seed, error).await;
            worst = (worst.0.max(requests), worst.1.max(recovered));
        }
    }
    println!(
        "outage of 10 minutes, 200 seeds: at most {} token requests a minute, recovery seen after {:?}",
        worst.0, worst.1
    );
    assert!(worst.0 <= 15 && worst.1 <= seconds(5), "{worst:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_secret_that_is_mended_costs_ten_seconds_at_most() {
    for mended in [1_u64, 7, 25, 49] {
        let begun = clock::now();
        let (cache, _) = counted(3600, move |_| {
            let wrong = clock::now() - begun < seconds(mended);
            if wrong { Err(Error::config("wrong secret")) } else { Ok(()) }
        });
        while cache.get().await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
        assert!(clock::now() - begun <= seconds(mended + 10) + Duration::from_millis(100), "{mended}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_secret_ends_the_wait_at_once() {
    struct FromFile(Arc<AtomicU64>);
    impl TokenSource for FromFile {
        async fn token(&self, _: TokenRequest) -> Result<AccessToken, Error> {
            match self.0.load(Ordering::SeqCst) {
                0 => Err(Error::config("wrong secret")),
                _ => AccessToken::bearer("token"),
            }
        }
        fn has_changed(&self) -> bool {
            self.0.load(Ordering::SeqCst) > 0
        }
    }
    let secret = Arc::new(AtomicU64::new(0));
    let behind = TokenCache::new(FromFile(Arc::clone(&secret)));
    let cache = TokenCache::new(behind.as_source());
    assert!(cache.get().await.unwrap_err().is_config());
    sleep(seconds(2)).await;
    assert!(cache.get().await.is_err());
    secret.store(1, Ordering::SeqCst);
    sleep(seconds(1)).await;
    assert!(cache.get().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn refresh_reaches_the_source_through_another_cache() {
    let (behind, calls) =
        counted(3600, |call| if call == 1 { Err(Error::config("wrong secret")) } else { Ok(()) });
    let cache = TokenCache::new(behind.as_source());
    assert!(cache.get().await.unwrap_err().is_config());
    assert_eq!(shown(&cache.refresh().await.unwrap()), "token-2");
    assert_eq!(shown(&cache.refresh().await.unwrap()), "token-3");
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn caches_behind_one_another_wait_once_and_not_twice() {
    let begun = clock::now();
    let (behind, calls) = counted(3600, move |_| {
        if clock::now() - begun < seconds(120) { Err(Error::transient("down")) } else { Ok(()) }
    });
    let cache = TokenCache::new(TokenCache::new(behind.as_source()).as_source());
    while cache.get().await.is_err() {
        sleep(Duration::from_millis(50)).await;
    }
    let late = clock::now() - begun - seconds(120);
    // Each cache in front asks again within a tenth of a second of the one behind.
    assert!(late <= Duration::from_millis(5_300), "{late:?}");
    assert!(calls.load(Ordering::SeqCst) <= 30, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_page_in_place_of_a_token_does_not_cost_the_outage_again() {
    for length in [5_u64, 45] {
        let begun = clock::now();
        let (cache, _) = counted(3600, move |_| {
            let down = clock::now() - begun < seconds(length);
            if down { Err(Error::protocol("a page of HTML")) } else { Ok(()) }
        });
        while cache.get().await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
        assert!(clock::now() - begun <= seconds(length + 5) + Duration::from_millis(10), "{length}");
    }
}

// --- Deadlines ---

#[tokio::test(start_paused = true)]
async fn a_source_is_told_when_it_is_given_up() {
    let rig = Rig::with(
        |call, request| {
            let left = request.deadline().unwrap() - clock::now().into_std();
            assert_eq!(left, seconds(12));
            answer(call, 100, 0)
        },
        |builder| builder.fetch_timeout(seconds(12)),
    );
    rig.token().await;
}

#[tokio::test(start_paused = true)]
async fn the_refusal_behind_another_cache_is_not_hidden_by_its_deadline() {
    // A source that uses up all the time it has, and then says what the server said.
    let source = source_fn(|request: TokenRequest| async move {
        tokio::time::sleep_until(Instant::from_std(request.deadline().unwrap() - Duration::from_millis(1)))
            .await;
        Err(Error::throttled("slow down"))
    });
    let behind = TokenCache::new(source);
    let cache = TokenCache::new(behind.as_source());
    assert!(cache.get().await.unwrap_err().is_throttled());
    // A wait for a fetch that began earlier ends in time as well, with the last thing that was said.
    let refusing = source_fn(|_| async { std::future::pending().await });
    let behind = TokenCache::new(refusing);
    let early = behind.clone();
    tokio::spawn(async move { early.get().await });
    let cache = TokenCache::builder(behind.as_source()).fetch_timeout(seconds(5)).build();
    let begun = clock::now();
    assert!(cache.get().await.unwrap_err().to_string().contains("in time"));
    assert!(clock::now() - begun < seconds(5));
}

#[test]
fn a_fetch_that_was_not_polled_before_its_deadline_does_not_call_the_source() {
    let rig = Rig::steady(100, 0);
    let parked = runtime();
    // The task is there and never ran.
    parked.block_on(async { assert_eq!(rig.at_once(), None) });
    paused().block_on(async {
        assert_eq!(rig.token().await, "token-1");
    });
    parked.block_on(settle());
    assert_eq!(rig.calls(), 1);
}

// --- Late polls ---

#[tokio::test(start_paused = true)]
async fn a_get_that_is_polled_late_does_not_return_an_expired_token() {
    let rig = Rig::steady(100, 1_000);
    for new in [false, true] {
        let mut get: Answer = if new {
            let cache = rig.cache.clone();
            Box::pin(async move { cache.refresh().await })
        } else {
            let cache = rig.cache.clone();
            Box::pin(async move { cache.get().await })
        };
        assert!(get.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        settle().await;
        rig.pass(1.1).await;
        let arrived = rig.cache.peek().unwrap();
        rig.pass(101.0).await;
        assert_ne!(shown(&get.await.unwrap()), shown(&arrived));
        rig.cache.invalidate();
    }
}

#[test]
fn a_refresh_that_joined_a_lost_fetch_starts_another() {
    let rig =
        Rig::new(|call, _| if call == 1 { Box::pin(std::future::pending()) } else { answer(call, 100, 0) });
    let lost = runtime();
    lost.block_on(async {
        assert_eq!(rig.at_once(), None);
        settle().await;
    });
    runtime().block_on(async {
        let cache = rig.cache.clone();
        let refreshing = tokio::spawn(async move { cache.refresh().await });
        settle().await;
        tokio::task::spawn_blocking(move || drop(lost)).await.unwrap();
        assert_eq!(shown(&refreshing.await.unwrap().unwrap()), "token-2");
    });
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_was_shut_down_starts_no_task() {
    let rig = Rig::steady(100, 0);
    rig.cache.keep_warm().unwrap();
    rig.token().await;
    rig.cache.shutdown(seconds(1)).await.unwrap();
    assert!(rig.cache.get().await.is_err() && rig.cache.refresh().await.is_err());
    rig.cache.keep_warm().unwrap();
    rig.pass(101.0).await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_need_just_below_the_life_does_not_make_every_second_a_token_request() {
    type Options = fn(TokenCacheBuilder, Duration) -> TokenCacheBuilder;
    let options: [Options; 2] = [TokenCacheBuilder::min_validity, TokenCacheBuilder::refresh_before];
    for (life, most) in [(60_u64, 5), (600, 1), (3600, 1)] {
        for short in [1, 2, life / 20] {
            for option in options {
                let rig = Rig::with(
                    move |call, _| answer(call, life, 0),
                    |builder| option(builder, seconds(life - short)),
                );
                for _ in 0..60 {
                    rig.token().await;
                    rig.pass(1.0).await;
                }
                assert!(rig.calls() <= most, "{life} {short}: {}", rig.calls());
            }
            let rig = Rig::steady(life, 0);
            for _ in 0..60 {
                rig.cache.acquire(Some(seconds(life - short))).await.unwrap();
                rig.pass(1.0).await;
            }
            assert!(rig.calls() <= most, "{life} {short}: {}", rig.calls());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_brake_is_not_shown_after_the_api_took_the_token() {
    let (cache, _) = counted(3600, |_| Ok(()));
    for _ in 0..3 {
        let token = cache.get().await.unwrap();
        cache.reject(&token);
    }
    assert_eq!(cache.status().health(), Health::Degraded);
    let token = cache.get().await.unwrap();
    cache.accept(&token);
    assert_eq!(cache.status().health(), Health::Ready);
}

// --- Rejections ---

/// An API whose clock is `behind` seconds behind ours refuses a token before it has seen its birth. Returns how many
/// requests failed that had a valid token before, in an hour of one request every 100 ms, and the token requests.
async fn not_valid_yet(behind: f64) -> (usize, usize) {
    let born = Arc::new(Mutex::new(Vec::new()));
    let births = Arc::clone(&born);
    let rig = Rig::new(move |call, _| {
        births.lock().unwrap().push(clock::now());
        answer(call, 600, 0)
    });
    let takes = |token: &AccessToken| {
        let number: usize = shown(token).trim_start_matches("token-").parse().unwrap();
        number == 1 || (clock::now() - born.lock().unwrap()[number - 1]).as_secs_f64() >= behind
    };
    let mut failed = 0;
    for _ in 0..36_000 {
        let token = rig.cache.get().await.unwrap();
        if takes(&token) {
            rig.cache.accept(&token);
        } else {
            // As the layers do: the token is rejected, and the request replayed once.
            rig.cache.reject(&token);
            failed += usize::from(!takes(&rig.cache.get().await.unwrap()));
        }
        rig.pass(0.1).await;
    }
    (failed, rig.calls())
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_not_valid_yet_gives_way_to_the_one_before() {
    for behind in [0.5, 2.0, 9.0, 20.0] {
        let (failed, calls) = not_valid_yet(behind).await;
        assert_eq!(failed, 0, "{behind}");
        // An hour of tokens of ten minutes, each renewed after eight.
        assert!(calls <= 9, "{behind}: {calls}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_token_that_stays_refused_is_replaced_in_the_end() {
    let rig = Rig::steady(600, 0);
    let first = rig.cache.get().await.unwrap();
    rig.cache.accept(&first);
    rig.pass(481.0).await;
    rig.token().await;
    settle().await;
    // The API never takes the second token.
    for _ in 0..600 {
        let token = rig.cache.get().await.unwrap();
        if shown(&token) == "token-2" {
            assert_eq!(rig.cache.reject(&token), RejectionVerdict::Invalidated);
        }
        if rig.calls() == 3 {
            break;
        }
        rig.pass(0.1).await;
    }
    assert_eq!(rig.token().await, "token-3");
}

#[tokio::test(start_paused = true)]
async fn a_revoked_predecessor_does_not_come_back() {
    let rig = Rig::steady(600, 0);
    let first = rig.cache.get().await.unwrap();
    rig.cache.accept(&first);
    rig.pass(481.0).await;
    rig.token().await;
    settle().await;
    let second = rig.cache.get().await.unwrap();
    assert_eq!(shown(&second), "token-2");
    // Both were revoked: the second falls back on the first, and that one's rejection asks the source.
    rig.cache.reject(&second);
    let again = rig.cache.get().await.unwrap();
    assert_eq!(
        (shown(&again).as_str(), rig.cache.reject(&again)),
        ("token-1", RejectionVerdict::Invalidated)
    );
    assert_eq!((rig.token().await.as_str(), rig.last_reason()), ("token-3", FetchReason::Rejected));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_at_the_end_of_a_life_does_not_double_the_token_request() {
    for (at, calls) in [(95.5, 2), (99.0, 2), (100.5, 2), (91.0, 2), (85.0, 3)] {
        let rig = Rig::steady(100, 3_000);
        let first = rig.cache.get().await.unwrap();
        rig.wall.fetch_add(nanos(seconds(3)), Ordering::SeqCst);
        rig.cache.accept(&first);
        rig.pass(at - 3.0 - 1.0).await;
        drop(rig.at_once());
        settle().await;
        rig.pass(1.0).await;
        rig.cache.reject(&first);
        rig.token().await;
        // Well before its end a rejection speaks of a revocation, which may have met the one in flight too.
        assert_eq!(rig.calls(), calls, "{at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expired_while_it_was_fetched_is_fetched_again_once() {
    for (slow, calls) in [(1, 2), (usize::MAX, 2)] {
        let rig = Rig::new(move |call, _| answer(call, 3, if call <= slow { 4_000 } else { 10 }));
        let token = rig.cache.get().await.unwrap();
        assert_eq!((shown(&token).as_str(), rig.calls()), ("token-2", calls));
    }
    // A token without a life at all is used for a second; asking again would not help.
    let rig = Rig::steady(0, 2_000);
    rig.token().await;
    assert_eq!(rig.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_brake_does_not_stop_a_replay_with_the_token_that_is_being_fetched() {
    let rig = Rig::steady(3600, 1_000);
    for _ in 0..2 {
        let token = rig.cache.get().await.unwrap();
        assert_eq!(rig.cache.reject(&token), RejectionVerdict::Invalidated);
    }
    let token = rig.cache.get().await.unwrap();
    assert_eq!(rig.cache.reject(&token), RejectionVerdict::Braked);
    let cache = rig.cache.clone();
    let refreshing = tokio::spawn(async move { cache.refresh().await });
    settle().await;
    assert_eq!(rig.cache.reject(&token), RejectionVerdict::Invalidated);
    assert_eq!(rig.token().await, "token-4");
    assert_eq!(shown(&refreshing.await.unwrap().unwrap()), "token-4");
    // No token request was made for it.
    assert_eq!(rig.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_good_comes_back_where_the_fetch_fails_that_it_made_way_for() {
    let (cache, _) = counted(3600, |call| if call < 32 { Ok(()) } else { Err(Error::transient("down")) });
    // One bad node: the second brake closes.
    for _ in 0..29 {
        let token = cache.get().await.unwrap();
        cache.accept(&token);
        assert_eq!(cache.reject(&token), RejectionVerdict::Invalidated);
    }
    let token = cache.get().await.unwrap();
    cache.accept(&token);
    assert_eq!(cache.reject(&token), RejectionVerdict::Braked);
    let other = cache.clone();
    let refreshing = tokio::spawn(async move { other.refresh().await });
    tokio::task::yield_now().await;
    drop(refreshing.await);
    assert!(cache.get().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_must_not_be_used_early_is_not_used_early() {
    use base64::Engine as _;
    let wall = Arc::new(AtomicU64::new(nanos(unix_time())));
    let not_before = unix_time().as_secs() + 97;
    let claims = format!(r#"{{"nbf":{not_before}}}"#);
    let jwt = format!("e30.{}.sig", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims));
    let rig = {
        let jwt = jwt.clone();
        Rig::new(move |call, _| {
            let jwt = jwt.clone();
            Box::pin(async move { Ok(answer(call, 100, 0).await?.with_refresh_token(jwt)) })
        })
    };
    drop(wall);
    for _ in 0..95 {
        rig.token().await;
        rig.pass(1.0).await;
    }
    assert_eq!(rig.calls(), 1);
    rig.pass(3.0).await;
    rig.token().await;
    settle().await;
    assert_eq!(rig.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_waits_while_the_one_before_is_back_in_use_is_revoked_too() {
    use secrecy::ExposeSecret as _;
    for (at_shutdown, fails) in [(false, false), (true, false), (false, true), (true, true)] {
        let revoked = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&revoked);
        let revoker = crate::revoke::revoker_fn(move |token: AccessToken| {
            let mut told = told.lock().unwrap();
            told.push(token.secret().expose_secret().to_owned());
            // That of one is no reason to leave the other alive.
            let fails = fails && told.len() == 1;
            std::future::ready(if fails { Err(Error::transient("down")) } else { Ok(()) })
        });
        let rig = Rig::with(
            |call, _| answer(call, 600, 0),
            |builder| builder.revoke_with(revoker).revoke_at_shutdown(true),
        );
        rig.fall_back(481.0).await;
        let result = match at_shutdown {
            false => rig.cache.revoke().await,
            true => rig.cache.shutdown(seconds(1)).await,
        };
        assert_eq!(result.is_err(), fails);
        assert_eq!(*revoked.lock().unwrap(), ["token-1", "token-2"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_hangs_does_not_keep_the_other_token_alive() {
    for at_shutdown in [false, true] {
        let revoked = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&revoked);
        let revoker = crate::revoke::revoker_fn(move |token: AccessToken| {
            let told = Arc::clone(&told);
            async move {
                if shown(&token) == "token-1" {
                    std::future::pending::<()>().await;
                }
                told.lock().unwrap().push(shown(&token));
                Ok(())
            }
        });
        let rig = Rig::with(
            |call, _| answer(call, 600, 0),
            |builder| builder.revoke_with(revoker).revoke_at_shutdown(true),
        );
        rig.fall_back(481.0).await;
        match at_shutdown {
            false => drop(tokio::time::timeout(seconds(5), rig.cache.revoke()).await.unwrap_err()),
            true => drop(rig.cache.shutdown(seconds(5)).await.unwrap_err()),
        }
        assert_eq!(*revoked.lock().unwrap(), ["token-2"], "{at_shutdown}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_token_that_was_taken_and_then_revoked_does_not_give_way_to_the_one_before() {
    let rig = Rig::steady(600, 0);
    let first = rig.cache.get().await.unwrap();
    rig.cache.accept(&first);
    rig.pass(481.0).await;
    rig.token().await;
    settle().await;
    let second = rig.cache.get().await.unwrap();
    rig.cache.accept(&second);
    assert_eq!(rig.cache.reject(&second), RejectionVerdict::Invalidated);
    assert_eq!(rig.token().await, "token-3");
}
