//! Other inputs of the kinds that [`judgement`](super::judgement) tests: caches in rows, lost runtimes, clocks that step,
//! sources that return a token again, foreign code that panics or asks the cache.

use std::sync::mpsc;

use super::*;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Runs what may hang in a thread of its own, so that it fails instead.
fn within_seconds(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        test();
        done.send(()).unwrap();
    });
    match ended.recv_timeout(seconds(10)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => thread.join().unwrap(),
    }
}

// --- keep_warm ---

#[test]
fn a_fetch_that_was_lost_while_a_token_was_in_use_does_not_keep_the_warm_task_busy() {
    within_seconds(|| {
        let rig = Rig::new(
            |call, _| {
                if call == 2 { Box::pin(std::future::pending()) } else { answer(call, 3600, 0) }
            },
        );
        paused().block_on(async {
            rig.cache.keep_warm().unwrap();
            settle().await;
            let lost = paused();
            let cache = rig.cache.clone();
            lost.spawn(async move { cache.refresh().await });
            tokio::task::spawn_blocking(move || {
                lost.block_on(settle());
                drop(lost);
            })
            .await
            .unwrap();
            assert!(!rig.cache.status().is_fetching());
            // The clock goes on only if no task is busy.
            sleep(seconds(60)).await;
            assert_eq!(rig.calls(), 2);
        });
    });
}

#[tokio::test(start_paused = true)]
async fn a_warm_cache_behind_another_is_warm_after_each_kind_of_loss() {
    let rig = Rig::steady(3600, 10);
    let front = TokenCache::new(TokenCache::new(rig.cache.as_source()).as_source());
    front.keep_warm().unwrap();
    sleep(seconds(1)).await;
    for round in 0..20 {
        match round % 4 {
            0 => drop(front.reject(&front.peek().unwrap())),
            1 => front.invalidate(),
            2 => rig.cache.invalidate(),
            _ => {
                rig.wall.fetch_add(nanos(seconds(4000)), Ordering::SeqCst);
                rig.wall.fetch_sub(nanos(seconds(4000)), Ordering::SeqCst);
            }
        }
        sleep(seconds(40)).await;
        assert_eq!(front.status().health(), Health::Ready, "{round}");
        assert_ne!(rig.cache.status().health(), Health::Degraded, "{round}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_steps_to_and_fro_leaves_a_warm_cache_warm() {
    let rig = Rig::steady(3600, 10);
    rig.cache.keep_warm().unwrap();
    rig.pass(1.0).await;
    for (step, ahead) in [(7_200, true), (7_200, false), (86_400, false), (86_400, true)] {
        let by = nanos(seconds(step));
        if ahead {
            rig.wall.fetch_add(by, Ordering::SeqCst);
        } else {
            rig.wall.fetch_sub(by, Ordering::SeqCst);
        }
        rig.pass(10.1).await;
        rig.pass(0.1).await;
        assert!(rig.cache.status().is_ready(), "{step} {ahead}");
    }
    assert!(rig.calls() <= 3, "{}", rig.calls());
}

// --- Foreign code ---

/// An error of a source whose end asks the cache.
#[derive(Debug)]
struct Asks(TokenCache);

impl std::fmt::Display for Asks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("asks")
    }
}

impl std::error::Error for Asks {}

impl Drop for Asks {
    fn drop(&mut self) {
        drop(self.0.peek());
    }
}

#[test]
fn an_error_that_asks_the_cache_as_it_is_dropped_does_not_stop_it() {
    for then_succeeds in [false, true] {
        within_seconds(move || {
            paused().block_on(async {
                let other = Rig::steady(100, 0).cache;
                let cell = Arc::new(Mutex::new(other));
                let inside = Arc::clone(&cell);
                let rig = Rig::new(move |call, _| {
                    if call > 1 && then_succeeds {
                        return answer(call, 100, 0);
                    }
                    let cache = inside.lock().unwrap().clone();
                    Box::pin(async move { Err(Error::transient("down").with_source(Asks(cache))) })
                });
                *cell.lock().unwrap() = rig.cache.clone();
                for _ in 0..3 {
                    drop(rig.cache.refresh().await);
                }
                assert_eq!(rig.calls(), 3);
            });
        });
    }
}

/// A source that panics in all that it is told and asked.
struct Touchy;

impl TokenSource for Touchy {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        match request.reason() {
            FetchReason::Initial => AccessToken::bearer("token"),
            _ => Err(Error::transient("down")),
        }
    }

    fn accepted(&self, _: &AccessToken) {
        panic!("accepted");
    }

    fn has_changed(&self) -> bool {
        panic!("has_changed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_outside_a_fetch_harms_nobody() {
    let cache = TokenCache::new(TokenCache::new(Touchy).as_source());
    cache.keep_warm().unwrap();
    let token = cache.get().await.unwrap();
    cache.accept(&token);
    assert_eq!(cache.reject(&token), RejectionVerdict::Invalidated);
    for _ in 0..10 {
        assert!(cache.get().await.unwrap_err().is_transient());
        sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 1);
}

// --- Deadlines ---

#[tokio::test(start_paused = true)]
async fn however_short_a_timeout_a_source_that_is_at_hand_is_asked() {
    for timeout in [1, 50, 100, 250] {
        let mut cache = Rig::steady(3600, 0).cache;
        for _ in 0..4 {
            let builder = TokenCache::builder(cache.as_source());
            cache = builder.fetch_timeout(Duration::from_millis(timeout)).build();
        }
        assert_eq!(shown(&cache.get().await.unwrap()), "token-1", "{timeout}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_patience_does_not_end_the_fetch_of_the_others() {
    let rig = Rig::steady(3600, 5_000);
    let hasty = TokenCache::builder(rig.cache.as_source()).fetch_timeout(seconds(1)).build();
    let other = hasty.clone();
    let first = tokio::spawn(async move { other.get().await });
    settle().await;
    let patient = rig.cache.get();
    assert_eq!(shown(&patient.await.unwrap()), "token-1");
    let error = first.await.unwrap().unwrap_err();
    assert!(error.is_transient() && !error.to_string().contains("runtime"), "{error}");
    assert_eq!((shown(&hasty.get().await.unwrap()).as_str(), rig.calls()), ("token-1", 1));
}

// --- Waits ---

/// Token requests in the last ten minutes of a token that cannot be renewed, through so many caches, by the minute.
async fn renewals_that_fail(caches: usize, error: fn() -> Error) -> usize {
    let rig = Rig::new(move |call, _| if call == 1 { answer(call, 3600, 0) } else { failure(&error()) });
    let mut cache = rig.cache.clone();
    for _ in 1..caches {
        cache = TokenCache::new(cache.as_source());
    }
    cache.get().await.unwrap();
    rig.pass(3000.0).await;
    for _ in 0..2_900 {
        assert!(cache.get().await.is_ok());
        rig.pass(0.2).await;
    }
    rig.calls()
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_is_not_tried_more_often_behind_other_caches() {
    for error in [|| Error::transient("down"), || Error::grant("revoked")] {
        let alone = renewals_that_fail(1, error).await;
        for caches in [2, 3] {
            let calls = renewals_that_fail(caches, error).await;
            assert!(calls <= alone * 2, "{caches}: {calls} instead of {alone}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_minute_without_a_token_begins_when_the_token_ends() {
    let begun = clock::now();
    let rig = Rig::new(move |call, _| {
        let refused = call > 1 && clock::now() - begun < seconds(105);
        if refused { failure(&Error::config("wrong secret")) } else { answer(call, 100, 0) }
    });
    rig.token().await;
    // Refused from here on, while the token lives for another twenty seconds, and mended soon after its end.
    rig.pass(81.0).await;
    while rig.cache.get().await.is_ok() && clock::now() - begun < seconds(100) {
        rig.pass(0.1).await;
    }
    while rig.cache.get().await.is_err() {
        rig.pass(0.1).await;
    }
    assert!(clock::now() - begun <= seconds(115), "{:?}", clock::now() - begun);
}

// --- Rejections ---

#[tokio::test(start_paused = true)]
async fn a_token_that_was_refused_and_returned_again_is_not_good_for_its_age() {
    // The source asks another cache and does not tell it of rejections.
    let rig = Rig::steady(3600, 0);
    let behind = rig.cache.clone();
    let source = source_fn(move |_| {
        let behind = behind.clone();
        async move { behind.get().await }
    });
    let cache = TokenCache::new(source);
    let mut minutes = Vec::new();
    for _ in 0..10 {
        let before = cache.status().fetched();
        for _ in 0..600 {
            let token = cache.get().await.unwrap();
            cache.reject(&token);
            sleep(Duration::from_millis(100)).await;
        }
        minutes.push(cache.status().fetched() - before);
    }
    assert!(minutes.iter().all(|fetched| *fetched <= 6), "{minutes:?}");
}

/// A cache whose second token was refused as soon as it came, so that the first is in use again.
async fn fallen_back(life: u64, refresh_before: u64) -> Rig {
    let rig = Rig::with(
        move |call, _| answer(call, life, 0),
        |builder| builder.refresh_before(seconds(refresh_before)).min_validity(seconds(1)),
    );
    rig.fall_back((life - refresh_before) as f64 + 0.1).await;
    rig
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_refused_at_first_is_tried_again_when_the_one_before_has_ended() {
    let rig = fallen_back(100, 2).await;
    rig.pass(1.95).await;
    assert_eq!((rig.token().await.as_str(), rig.calls()), ("token-2", 2));
}

#[tokio::test(start_paused = true)]
async fn the_token_before_is_there_while_no_other_can_be_fetched() {
    let rig =
        Rig::new(|call, _| if call < 3 { answer(call, 600, 0) } else { failure(&Error::transient("down")) });
    let first = rig.cache.get().await.unwrap();
    rig.cache.accept(&first);
    rig.pass(481.0).await;
    rig.token().await;
    settle().await;
    // The API never takes the second token, and the server has gone.
    for _ in 0..1_000 {
        let token = rig.cache.get().await.expect("the first is valid");
        match shown(&token).as_str() {
            "token-1" => rig.cache.accept(&token),
            _ => drop(rig.cache.reject(&token)),
        }
        rig.pass(0.1).await;
    }
    assert!(rig.calls() > 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_came_is_used_where_the_fetch_after_its_doubts_fails() {
    let rig = Rig::new(
        |call, _| {
            if call < 3 { answer(call, 3600, 1_000) } else { failure(&Error::transient("down")) }
        },
    );
    let first = rig.cache.get().await.unwrap();
    let cache = rig.cache.clone();
    let refreshing = tokio::spawn(async move { cache.refresh().await });
    settle().await;
    // It may have met the token in flight as well; the next one cannot be had.
    rig.cache.reject(&first);
    assert_eq!(rig.token().await, "token-2");
    assert_eq!(shown(&refreshing.await.unwrap().unwrap()), "token-2");
    assert_eq!(rig.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_came_is_what_the_fetch_after_it_goes_on_from() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let previous = Arc::clone(&seen);
    let rig = Rig::new(move |call, request| {
        previous.lock().unwrap().push(request.previous().map(shown));
        answer(call, 3600, 1_000)
    });
    let first = rig.cache.get().await.unwrap();
    let cache = rig.cache.clone();
    let refreshing = tokio::spawn(async move { cache.refresh().await });
    settle().await;
    rig.cache.reject(&first);
    assert_eq!(shown(&refreshing.await.unwrap().unwrap()), "token-3");
    let expected = [None, Some("token-1".to_owned()), Some("token-2".to_owned())];
    assert_eq!(*seen.lock().unwrap(), expected);
}

/// An hour of requests to an API whose clock is `behind` ours, through `front`; the tokens live for ten minutes. Returns
/// how many failed, after a replay, that could have gone with a token from before.
async fn an_hour_with_an_api_that_is_behind(front: &TokenCache, behind: f64) -> usize {
    let mut born = std::collections::HashMap::new();
    let mut failed = 0;
    for _ in 0..7_200 {
        let mut taken = false;
        for _ in 0..2 {
            let token = front.get().await.unwrap();
            let number = born.len();
            let (first, since) = *born.entry(shown(&token)).or_insert((number == 0, clock::now()));
            taken = first || (clock::now() - since).as_secs_f64() >= behind;
            if taken {
                front.accept(&token);
                break;
            }
            front.reject(&token);
        }
        failed += usize::from(!taken);
        sleep(Duration::from_millis(500)).await;
    }
    failed
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_not_valid_yet_gives_way_in_front_of_other_caches_as_well() {
    for behind in [0.7, 5.0, 20.0] {
        for warm in [false, true] {
            let (cache, calls) = super::judgement::counted(600, |_| Ok(()));
            let front = TokenCache::new(TokenCache::new(cache.as_source()).as_source());
            if warm {
                front.keep_warm().unwrap();
            }
            assert_eq!(an_hour_with_an_api_that_is_behind(&front, behind).await, 0, "{behind} {warm}");
            assert!(calls.load(Ordering::SeqCst) <= 10, "{behind} {warm}: {calls:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_without_an_end_that_is_not_valid_yet_gives_way_too() {
    let rig = Rig::new(|call, _| Box::pin(async move { AccessToken::bearer(format!("token-{call}")) }));
    rig.token().await;
    rig.pass(60.0).await;
    let second = rig.cache.refresh().await.unwrap();
    // All that were on their way with it come back refused.
    for _ in 0..100 {
        rig.cache.reject(&second);
    }
    assert_eq!(rig.token().await, "token-1");
    rig.pass(2.1).await;
    rig.token().await;
    settle().await;
    assert_eq!((rig.token().await.as_str(), rig.calls()), ("token-2", 2));
}

#[tokio::test(start_paused = true)]
async fn a_storm_through_a_row_of_caches_is_braked_warm_or_not() {
    for (caches, warm) in [(2, true), (3, false), (3, true), (4, false)] {
        let (cache, calls) = super::judgement::counted(3600, |_| Ok(()));
        let nobody = || source_fn(async |_| Err::<AccessToken, _>(Error::config("unset")));
        let mut front = cache.clone();
        for _ in 1..caches {
            front = TokenCache::new(Arc::new(nobody().or(front.as_source())));
        }
        if warm {
            front.keep_warm().unwrap();
        }
        let mut minutes = Vec::new();
        for _ in 0..10 {
            let before = calls.load(Ordering::SeqCst);
            for _ in 0..1_000 {
                let token = front.get().await.unwrap();
                front.reject(&token);
                sleep(Duration::from_millis(60)).await;
            }
            minutes.push(calls.load(Ordering::SeqCst) - before);
        }
        assert!(minutes.iter().all(|calls| *calls <= 6), "{caches} {warm}: {minutes:?}");
    }
}

// --- Ends ---

#[tokio::test(start_paused = true)]
async fn a_shutdown_in_any_state_ends_without_a_token() {
    for state in 0..6 {
        let rig = fallen_back(100, 20).await;
        match state {
            0 => {}
            1 => rig.cache.invalidate(),
            2 => drop(rig.cache.reject(&rig.cache.peek().unwrap())),
            3 => rig.pass(2.1).await,
            4 => drop(rig.at_once()),
            _ => {
                let cache = rig.cache.clone();
                tokio::spawn(async move { cache.refresh().await });
                settle().await;
            }
        }
        rig.cache.keep_warm().unwrap();
        rig.cache.shutdown(seconds(1)).await.unwrap();
        rig.pass(30.0).await;
        assert_eq!((rig.cache.status().health(), rig.cache.peek().is_none()), (Health::Closed, true));
        assert!(rig.cache.get().await.unwrap_err().is_config(), "{state}");
    }
}

#[tokio::test(start_paused = true)]
async fn refreshes_ends_and_rejections_at_once_leave_a_token_and_few_requests() {
    let rig = Rig::steady(3600, 100);
    let first = rig.cache.get().await.unwrap();
    rig.cache.accept(&first);
    let tasks: Vec<_> = (0..300)
        .map(|number| {
            let (cache, token) = (rig.cache.clone(), first.clone());
            tokio::spawn(async move {
                match number % 3 {
                    0 => drop(cache.refresh().await.unwrap()),
                    1 => cache.invalidate(),
                    _ => drop(cache.reject(&token)),
                }
                cache.get().await.unwrap()
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(rig.calls() <= 4, "{}", rig.calls());
    assert!(rig.cache.status().is_ready());
}

#[test]
fn runtimes_that_end_at_any_step_leave_a_cache_that_works() {
    for steps in 0..12 {
        for act in 0..4 {
            within_seconds(move || {
                let rig = Rig::steady(3600, 2);
                let front = TokenCache::new(rig.cache.as_source());
                let owner = paused();
                owner.block_on(async {
                    front.keep_warm().unwrap();
                    sleep(seconds(1)).await;
                });
                let lost = runtime();
                let cache = front.clone();
                lost.spawn(async move {
                    match act {
                        0 => drop(cache.refresh().await),
                        1 => {
                            cache.invalidate();
                            drop(cache.get().await);
                        }
                        2 => {
                            cache.reject(&cache.peek().unwrap());
                            drop(cache.get().await);
                        }
                        _ => drop(cache.shutdown(seconds(5)).await),
                    }
                });
                lost.block_on(async {
                    for _ in 0..steps {
                        tokio::task::yield_now().await;
                    }
                });
                drop(lost);
                owner.block_on(async {
                    sleep(seconds(70)).await;
                    if act == 3 {
                        front.shutdown(seconds(5)).await.unwrap();
                        assert_eq!(front.status().health(), Health::Closed);
                    } else {
                        assert!(front.status().is_ready() && front.get().await.is_ok(), "{steps} {act}");
                        assert!(front.refresh().await.is_ok());
                    }
                    assert!(rig.calls() <= 5, "{steps} {act}: {}", rig.calls());
                });
            });
        }
    }
}

// --- Later than its time ---

#[tokio::test(start_paused = true)]
async fn a_token_that_came_is_used_where_the_fetch_after_its_doubts_never_ends_or_panics() {
    for panics in [false, true] {
        let rig = Rig::new(move |call, _| match call {
            1 | 2 => answer(call, 3600, 1_000),
            _ => Box::pin(async move {
                assert!(!panics, "a source that panics");
                std::future::pending().await
            }),
        });
        let first = rig.cache.get().await.unwrap();
        let cache = rig.cache.clone();
        let refreshing = tokio::spawn(async move { cache.refresh().await });
        settle().await;
        rig.cache.reject(&first);
        assert_eq!(rig.token().await, "token-2");
        assert_eq!(shown(&refreshing.await.unwrap().unwrap()), "token-2");
        assert_eq!(rig.calls(), 3);
    }
}

/// The events so far of a cache that is gone.
async fn events(rig: Rig, mut watch: CacheWatch) -> Vec<String> {
    drop(rig);
    let mut names = Vec::new();
    while let Some(event) = watch.next().await {
        let shown = format!("{event:?}");
        names.push(shown.split([' ', '{']).next().unwrap().to_owned());
    }
    names
}

#[test]
fn the_result_of_a_fetch_that_was_given_up_is_no_news() {
    for fails in [false, true] {
        let over = Arc::new(tokio::sync::Notify::new());
        let late = Arc::clone(&over);
        let rig = Rig::new(move |call, _| {
            let over = Arc::clone(&over);
            match call {
                1 => Box::pin(async move {
                    over.notified().await;
                    if fails { Err(Error::transient("late")) } else { AccessToken::bearer("late") }
                }),
                _ => answer(call, 100, 0),
            }
        });
        let watch = rig.cache.watch();
        let parked = runtime();
        parked.block_on(async {
            assert_eq!(rig.at_once(), None);
            settle().await;
        });
        let second = paused();
        assert_eq!(second.block_on(rig.token()), "token-2");
        late.notify_one();
        parked.block_on(settle());
        assert_eq!(second.block_on(rig.token()), "token-2");
        assert_eq!(second.block_on(events(rig, watch)), ["Fetched"], "{fails}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_result_of_a_fetch_that_ends_after_the_shutdown_is_no_news() {
    for fails in [false, true] {
        let rig = Rig::new(move |call, _| {
            Box::pin(async move {
                let token = answer(call, 3600, 10_000).await;
                if fails { Err(Error::transient("late")) } else { token }
            })
        });
        let watch = rig.cache.watch();
        assert_eq!(rig.at_once(), None);
        settle().await;
        rig.cache.shutdown(seconds(5)).await.unwrap_err();
        rig.pass(6.0).await;
        assert_eq!(events(rig, watch).await, ["Closed"], "{fails}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_says_when_the_source_is_asked_again() {
    let rig = Rig::new(|_, _| failure(&Error::transient("down")));
    let mut watch = rig.cache.watch();
    let error = rig.cache.get().await.unwrap_err();
    let Some(CacheEvent::Failing { error: told }) = watch.next().await else { panic!("it fails") };
    assert_eq!((told.retry_at(), told.retry_at().is_some()), (error.retry_at(), true));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ended_before_it_was_tried_again_is_not_tried() {
    let rig = fallen_back(100, 2).await;
    // No request comes for as long as it lives.
    rig.pass(150.0).await;
    assert_eq!((rig.token().await.as_str(), rig.calls()), ("token-3", 3));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_tried_again_is_no_token_request() {
    let rig =
        Rig::new(|call, _| if call < 3 { answer(call, 600, 0) } else { failure(&Error::transient("down")) });
    rig.fall_back(481.0).await;
    let watch = rig.cache.watch();
    rig.cache.refresh().await.unwrap_err();
    rig.pass(2.1).await;
    rig.token().await;
    settle().await;
    assert_eq!((rig.token().await.as_str(), rig.calls()), ("token-2", 3));
    // The server is as far away as before.
    assert_eq!((rig.cache.status().health(), rig.cache.status().failures_in_a_row()), (Health::Degraded, 1));
    assert_eq!(events(rig, watch).await, ["Degraded"]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_valid_behind_another_cache_is_used_when_its_renewal_takes_too_long() {
    let behind = Rig::with(
        |call, _| if call == 1 { answer(call, 100, 0) } else { Box::pin(std::future::pending()) },
        |builder| builder.min_validity(seconds(60)),
    );
    behind.token().await;
    behind.pass(50.0).await;
    let cache = TokenCache::builder(behind.cache.as_source()).fetch_timeout(seconds(5)).build();
    assert_eq!(shown(&cache.get().await.unwrap()), "token-1");
    assert_eq!(behind.calls(), 2);
    // Not if another one was asked for.
    assert!(cache.refresh().await.unwrap_err().to_string().contains("in time"));
}

#[tokio::test(start_paused = true)]
async fn no_token_from_before_comes_back_after_an_invalidation() {
    let rig = Rig::new(|call, _| match call {
        1 | 2 => answer(call, 600, 0),
        _ => Box::pin(async {
            sleep(seconds(1)).await;
            Err(Error::transient("down"))
        }),
    });
    let first = rig.cache.get().await.unwrap();
    rig.cache.accept(&first);
    rig.pass(481.0).await;
    rig.token().await;
    settle().await;
    // Too late to be a matter of clocks, and no proof yet.
    rig.pass(15.0).await;
    rig.cache.reject(&rig.cache.get().await.unwrap());
    assert_eq!(rig.at_once(), None);
    rig.cache.invalidate();
    assert!(rig.cache.get().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_wait_after_a_failure_goes_on_while_the_machine_sleeps() {
    let rig = Rig::new(|call, _| match call {
        1 => failure(&Error::throttled("slow down").with_retry_after(seconds(300))),
        _ => answer(call, 100, 0),
    });
    assert!(rig.cache.get().await.unwrap_err().is_throttled());
    rig.pass(10.0).await;
    assert!(rig.cache.get().await.is_err());
    // The monotonic clock stands still meanwhile.
    rig.wall.fetch_add(nanos(seconds(8 * 3600)), Ordering::SeqCst);
    assert_eq!(rig.token().await, "token-2");
}

#[tokio::test(start_paused = true)]
async fn one_rejection_is_told_once_behind_another_cache_however_often_the_fetch_fails() {
    let behind =
        Rig::new(|call, _| if call == 1 { answer(call, 600, 0) } else { failure(&Error::transient("down")) });
    let cache = TokenCache::new(behind.cache.as_source());
    let first = cache.get().await.unwrap();
    let mut watch = behind.cache.watch();
    assert_eq!(cache.reject(&first), RejectionVerdict::Invalidated);
    for _ in 0..60 {
        cache.get().await.unwrap_err();
        behind.pass(1.0).await;
    }
    assert!(behind.calls() > 5);
    let verdicts = std::iter::from_fn(|| {
        match std::pin::pin!(watch.next()).poll(&mut Context::from_waker(Waker::noop())) {
            std::task::Poll::Ready(event) => event,
            std::task::Poll::Pending => None,
        }
    });
    assert_eq!(verdicts.filter(|event| matches!(event, CacheEvent::Rejected { .. })).count(), 1);
}
