use std::convert::Infallible;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::task::JoinSet;
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::*;
use crate::retry::account::Target;
use crate::retry::{ReplayBody, RetryPolicy, RetryReport};

// --- A server that limits a rate, in virtual time ---

/// How a server limits, with what it answers as `Retry-After`.
#[derive(Clone, Debug)]
enum Limit {
    /// As nginx's `limit_req rate=.. burst=.. nodelay`, answering the given hint.
    Leaky { per_second: f64, burst: f64, hint: u64 },
    /// So many per window, as GitHub; the hint is the end of the window.
    Window { requests: u32, length: Duration },
}

struct Server {
    limit: Mutex<Limit>,
    level: Mutex<(f64, Instant)>,
    sent: AtomicUsize,
    served: AtomicUsize,
    latency: (u64, u64),
    rng: Mutex<fastrand::Rng>,
}

#[derive(Debug, Default)]
struct Run {
    sent: usize,
    served: usize,
    failed: usize,
    most_attempts: u32,
    seconds: f64,
    closings: u64,
}

impl Server {
    fn new(limit: Limit, latency: (u64, u64), seed: u64) -> Arc<Self> {
        Arc::new(Self {
            limit: Mutex::new(limit),
            level: Mutex::new((0.0, clock::now())),
            sent: AtomicUsize::new(0),
            served: AtomicUsize::new(0),
            latency,
            rng: Mutex::new(fastrand::Rng::with_seed(seed)),
        })
    }

    /// The wait that is asked for, if the request comes too early.
    fn take(&self) -> Result<(), u64> {
        let now = clock::now();
        let mut level = self.level.lock().unwrap();
        self.sent.fetch_add(1, Ordering::Relaxed);
        match &*self.limit.lock().unwrap() {
            Limit::Leaky { per_second, burst, hint } => {
                let drained = (level.0 - now.duration_since(level.1).as_secs_f64() * per_second).max(0.0);
                if drained > *burst {
                    return Err(*hint);
                }
                *level = (drained + 1.0, now);
            }
            Limit::Window { requests, length } => {
                if now.duration_since(level.1) >= *length {
                    let windows = (now.duration_since(level.1).as_secs_f64() / length.as_secs_f64()).floor();
                    *level = (0.0, level.1 + length.mul_f64(windows));
                }
                if level.0 >= f64::from(*requests) {
                    let left = *length - now.duration_since(level.1);
                    return Err(left.as_secs() + 1);
                }
                level.0 += 1.0;
            }
        }
        self.served.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn answer(self: Arc<Self>) -> Response<Full<Bytes>> {
        let (least, most) = self.latency;
        let way = || Duration::from_micros(self.rng.lock().unwrap().u64(least * 500..=most * 500));
        tokio::time::sleep(way()).await;
        let taken = self.take();
        tokio::time::sleep(way()).await;
        let mut response = Response::new(Full::default());
        if let Err(hint) = taken {
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            response.headers_mut().insert("retry-after", hint.into());
        }
        response
    }
}

/// Sends requests from so many tasks, each of which sends its next one when it has the answer.
async fn run(server: &Arc<Server>, policy: &RetryPolicy, requests: usize, at_once: usize) -> Run {
    let client = {
        let server = Arc::clone(server);
        policy.layer(service_fn(move |_: Request<ReplayBody<Full<Bytes>>>| {
            let answer = Arc::clone(&server).answer();
            async move { Ok::<_, Infallible>(answer.await) }
        }))
    };
    let (left, start) = (Arc::new(AtomicUsize::new(requests)), clock::now());
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        let (client, left) = (client.clone(), Arc::clone(&left));
        tasks.spawn(async move {
            let (mut failed, mut most) = (0, 1);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            {
                let request = Request::get("https://api.example.com/").body(Full::default()).unwrap();
                let response = client.clone().oneshot(request).await.unwrap();
                failed += usize::from(response.status() != StatusCode::OK);
                most = most.max(response.extensions().get::<RetryReport>().map_or(1, RetryReport::attempts));
            }
            (failed, most)
        });
    }
    let mut run = Run::default();
    while let Some(task) = tasks.join_next().await {
        let (failed, most) = task.unwrap();
        run.failed += failed;
        run.most_attempts = run.most_attempts.max(most);
    }
    run.seconds = start.elapsed().as_secs_f64();
    run.sent = server.sent.load(Ordering::Relaxed);
    run.served = server.served.load(Ordering::Relaxed);
    run
}

fn simulate(limit: Limit, latency: (u64, u64), requests: usize, at_once: usize, seed: u64) -> Run {
    simulate_change(limit, None, latency, requests, at_once, seed)
}

/// The server may have another limit from some time on.
fn simulate_change(
    limit: Limit,
    change: Option<(Duration, Limit)>,
    latency: (u64, u64),
    requests: usize,
    at_once: usize,
    seed: u64,
) -> Run {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let gate = RetryGate::seeded(seed);
        let policy = RetryPolicy::builder().gate(gate.clone()).build().unwrap();
        let server = Server::new(limit, latency, seed);
        let changing = Arc::clone(&server);
        tokio::spawn(async move {
            if let Some((after, limit)) = change {
                tokio::time::sleep(after).await;
                *changing.limit.lock().unwrap() = limit;
            }
        });
        let mut run = run(&server, &policy, requests, at_once).await;
        run.closings = gate.inner.epochs.load(Ordering::Relaxed);
        run
    })
}

/// The worst of several runs, each with chance of its own.
fn worst(limit: &Limit, latency: (u64, u64), requests: usize, at_once: usize, seeds: u64) -> Run {
    let mut worst = Run::default();
    for seed in 0..seeds {
        let run = simulate(limit.clone(), latency, requests, at_once, seed);
        worst.sent = worst.sent.max(run.sent);
        worst.served = run.served;
        worst.failed = worst.failed.max(run.failed);
        worst.most_attempts = worst.most_attempts.max(run.most_attempts);
        worst.seconds = worst.seconds.max(run.seconds);
    }
    worst
}

fn leaky(per_second: f64, burst: f64) -> Limit {
    Limit::Leaky { per_second, burst, hint: 1 }
}

#[test]
fn two_hundred_requests_pass_a_limit_of_ten_per_second_with_few_refusals() {
    for latency in [(1, 2), (20, 60)] {
        let run = worst(&leaky(10.0, 5.0), latency, 200, 50, 50);
        assert_eq!((run.failed, run.served), (0, 200), "{run:?}");
        assert!(run.sent <= 280, "{run:?}");
        assert!(run.seconds <= 19.5 * 1.25, "{run:?}");
    }
}

#[test]
fn three_retries_are_enough_however_many_wait_and_however_the_server_limits() {
    let window = |requests, seconds| Limit::Window { requests, length: Duration::from_secs(seconds) };
    for (limit, requests, at_once, ideal, per_ideal, per_served) in [
        (leaky(1.0, 1.0), 30, 10, 28.0, 1.2, 1.6),
        (leaky(10.0, 0.0), 100, 10, 10.0, 2.2, 1.3),
        (leaky(10.0, 5.0), 600, 500, 59.5, 1.25, 2.0),
        (leaky(50.0, 50.0), 1_000, 64, 19.0, 1.3, 1.2),
        (leaky(1_000.0, 100.0), 5_000, 500, 4.9, 2.6, 1.2),
        (window(30, 10), 120, 50, 30.0, 1.6, 1.7),
        (window(100, 1), 1_000, 200, 9.0, 1.8, 1.4),
    ] {
        for latency in [(1, 2), (150, 200)] {
            let run = worst(&limit, latency, requests, at_once, 2);
            assert_eq!((run.failed, run.served), (0, requests), "{limit:?} {latency:?} {run:?}");
            assert!(run.seconds <= ideal * per_ideal, "{limit:?} {latency:?} {run:?}");
            assert!(run.sent as f64 <= per_served * requests as f64, "{limit:?} {latency:?} {run:?}");
        }
    }
}

#[test]
fn a_limit_that_halves_or_doubles_on_the_way_is_found_again() {
    for (before, after, requests, ideal, per_ideal, per_served) in [
        (leaky(50.0, 10.0), leaky(25.0, 10.0), 1_000, 29.6, 1.5, 1.25),
        (leaky(50.0, 10.0), leaky(100.0, 10.0), 1_500, 19.9, 1.5, 1.15),
        (leaky(10.0, 5.0), leaky(5.0, 5.0), 200, 29.0, 1.5, 1.5),
    ] {
        for latency in [(1, 2), (100, 200)] {
            for seed in 0..3 {
                let change = Some((Duration::from_secs(10), after.clone()));
                let run = simulate_change(before.clone(), change, latency, requests, 64, seed);
                let told = format!("{before:?} {after:?} {latency:?} {seed}: {run:?}");
                assert_eq!((run.failed, run.served), (0, requests), "{told}");
                assert!(run.seconds <= ideal * per_ideal, "{told}");
                assert!(run.sent as f64 <= per_served * requests as f64, "{told}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_wait_that_is_asked_for_later_does_not_end_a_longer_one() {
    let gate = RetryGate::new();
    let uri = http::Uri::from_static("https://api.example.com/");
    let place = Place::of(Account::of(Target { uri: &uri, credential: None }), None);
    let seconds = Duration::from_secs;
    assert!(gate.refused(&place, None, seconds(1)));
    tokio::time::advance(seconds(3)).await;
    let Admission::Go(pass) = gate.admit(&place, 0, Duration::ZERO, seconds(120)) else {
        panic!("it is open")
    };
    // One that was on its way since before, and then the one that was let out.
    assert!(gate.refused(&place, None, seconds(60)));
    assert!(gate.refused(&place, Some(&pass), seconds(1)));
    assert!(gate.status()[0].opens_in() >= Some(seconds(60)), "{:?}", gate.status());
}
