//! The rows of the table.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::Method;
use tower_oauth2::RetryPolicy;

use crate::world::{Client, Course, Server, Verdict, at_rate, bucket, from_tasks, get, post, simulate};

/// A number that a row is about, and its limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    name: &'static str,
    value: f64,
    limit: f64,
    /// What is wanted, if the limit is not yet that.
    wanted: Option<f64>,
    /// The limit is the most that may be, or the least.
    most: bool,
}

/// Simulates a case once.
pub(crate) type Row = fn(seed: u64, length: Duration) -> Vec<Figure>;

pub(crate) const ROWS: &[(&str, Row)] = &[
    ("1 % refused at random, Retry-After: 1, 20/s", noise_at_20),
    ("2 % refused at random, Retry-After: 0, 200/s", noise_at_200),
    ("1 % refused at random, 16 tasks without a pause", noise_in_tasks),
    ("one of four refused at random, 1000 requests, 20 at once", quarter_in_tasks),
    ("a neighbour leaves us 5/s of 100/s, ours 10/s", neighbour_first),
    ("a neighbour sends 95/s to a limit of 100/s, ours 10/s", neighbour_beside),
    ("half refused at any pace, 10/s", half_refused),
    ("/search 1/s asked at 3/s, /items 50/s free", one_endpoint),
    ("/v1/search 1/s asked at 3/s, /v1/items 50/s free", one_endpoint_of_v1),
    ("POST limited to 1/s asked at 3/s, GET 50/s free", one_method),
    ("POST /items 1/s asked at 3/s, GET and /orders 25/s free", one_method_of_one_endpoint),
    ("outage of 120 s at 20/s, then healthy", outage),
    ("a limit of 20/s for 6 s, 400 tasks, then none", limit_lifted),
    ("10 s for each response, one 429", slow_responses),
    ("steady overload 60/s against 50/s", overload),
    ("200 requests, 50 at once, 10/s burst 5", burst_of_five),
    ("200 requests, 50 at once, 10/s without burst", no_burst),
    ("1000 requests, 64 at once, 50/s burst 50", burst_of_fifty),
    ("150 requests, 50 at once, 30 per window of 10 s", window),
    ("busy for 2.5 s with Retry-After: 2; 60 requests, 30 at once", busy_at_first),
    ("one request per 4 s for 12 s; 200 requests, 50 at once", trickle),
    ("10 processes of 20 requests, one limit of 10/s burst 5", ten_processes),
    ("10 processes of 20 requests, 5 at once, same limit", ten_processes_of_five),
    ("no connection for 0.6 s at 20/s, GET and POST", restart),
    ("50 processes of 20/s, one limit of 500/s", fifty_processes),
    ("16000 refused at once", many_refused),
];

const MS: f64 = 1e-3;

fn most(name: &'static str, value: f64, limit: f64) -> Figure {
    Figure { name, value, limit, wanted: None, most: true }
}

fn least(name: &'static str, value: f64, limit: f64) -> Figure {
    Figure { name, value, limit, wanted: None, most: false }
}

fn default() -> RetryPolicy {
    RetryPolicy::default()
}

fn without_gate() -> RetryPolicy {
    RetryPolicy::builder().gate(None).build().unwrap()
}

// --- What is made of the courses ---

/// Returns how long so many of a hundred requests took at most, in seconds.
fn percentile<'a>(courses: impl IntoIterator<Item = &'a Course>, percent: usize) -> f64 {
    let mut took: Vec<f64> = courses.into_iter().map(|course| course.took.as_secs_f64()).collect();
    took.sort_by(f64::total_cmp);
    let last = took.len().saturating_sub(1);
    took.get((last * percent).div_ceil(100)).copied().unwrap_or(0.0)
}

fn failed(courses: &[Course]) -> f64 {
    courses.iter().filter(|course| course.failed()).count() as f64
}

fn untouched(courses: &[Course]) -> Vec<Course> {
    courses.iter().filter(|course| !course.refused()).cloned().collect()
}

/// Returns when the last one ended.
fn end(courses: &[Course]) -> f64 {
    courses.iter().map(|course| (course.at + course.took).as_secs_f64()).fold(0.0, f64::max)
}

// --- Rows ---

fn noise_at_20(seed: u64, length: Duration) -> Vec<Figure> {
    let courses = noise(seed, length, 0.01, 1, 20.0);
    let free = untouched(&courses);
    vec![
        most("p50 of those not refused", percentile(&free, 50), 50.0 * MS),
        most("p99 of those not refused", percentile(&free, 99), 3.1),
        most("failed", failed(&courses), 0.0),
    ]
}

fn noise_at_200(seed: u64, length: Duration) -> Vec<Figure> {
    let courses = noise(seed, length, 0.02, 0, 200.0);
    vec![
        most("p50", percentile(&courses, 50), 50.0 * MS),
        most("failed, of 1000", failed(&courses) * 1e3 / courses.len() as f64, 1.0),
    ]
}

fn noise(seed: u64, length: Duration, share: f64, hint: u32, per_second: f64) -> Vec<Course> {
    simulate(seed, async {
        let mut rng = fastrand::Rng::with_seed(!seed);
        let server = Server::new(seed, (10, 30), move |_, _| match rng.f64() < share {
            true => Verdict::Refused(hint),
            false => Verdict::Served,
        });
        at_rate(server.client(&default()), per_second, length, |_| get("/items")).await
    })
}

fn noise_in_tasks(seed: u64, length: Duration) -> Vec<Figure> {
    let requests = 100 * usize::try_from(length.as_secs()).unwrap();
    let (with, failed) = noise_from_tasks(seed, &default(), 0.01, requests, 16);
    let (without, _) = noise_from_tasks(seed, &without_gate(), 0.01, requests, 16);
    vec![most("time per that without gate", with / without, 1.25), most("failed", failed, 0.0)]
}

/// As when one of four servers refuses: to slow down is of no use.
fn quarter_in_tasks(seed: u64, _: Duration) -> Vec<Figure> {
    let (with, failed) = noise_from_tasks(seed, &default(), 0.25, 1_000, 20);
    let (without, failed_without) = noise_from_tasks(seed, &without_gate(), 0.25, 1_000, 20);
    vec![
        most("time per that without gate", with / without, 8.0).wanted(1.5),
        most("failed per that without gate", failed / failed_without, 1.1),
    ]
}

/// Returns how long it takes, and how many requests failed.
fn noise_from_tasks(
    seed: u64,
    policy: &RetryPolicy,
    share: f64,
    requests: usize,
    tasks: usize,
) -> (f64, f64) {
    simulate(seed, async {
        let mut rng = fastrand::Rng::with_seed(!seed);
        let server = Server::new(seed, (10, 30), move |_, _| match rng.f64() < share {
            true => Verdict::Refused(1),
            false => Verdict::Served,
        });
        let courses = from_tasks(server.client(policy), requests, tasks).await;
        (end(&courses), failed(&courses))
    })
}

/// The neighbour takes its share first: what is left is a limit of ours.
fn neighbour_first(seed: u64, length: Duration) -> Vec<Figure> {
    beside_without(seed, length, |_| Box::new(bucket(5.0, 1.0, 1)))
}

/// The neighbour's requests come by chance among ours.
fn neighbour_beside(seed: u64, length: Duration) -> Vec<Figure> {
    beside_without(seed, length, |seed| {
        let (mut all, mut rng) = (bucket(100.0, 10.0, 1), fastrand::Rng::with_seed(!seed));
        let mut next = Duration::ZERO;
        Box::new(move |now| {
            while next <= now {
                let _ = all(next);
                next += Duration::from_secs_f64(-(1.0 - rng.f64()).ln() / 95.0);
            }
            all(now)
        })
    })
}

fn half_refused(seed: u64, length: Duration) -> Vec<Figure> {
    beside_without(seed, length, |seed| {
        let mut rng = fastrand::Rng::with_seed(!seed);
        Box::new(move |_| if rng.bool() { Verdict::Refused(1) } else { Verdict::Served })
    })
}

type Limit = Box<dyn FnMut(Duration) -> Verdict + Send>;

fn beside_without(seed: u64, _: Duration, limit: fn(u64) -> Limit) -> Vec<Figure> {
    // What is learned in the first seconds is more than one of a hundred in a minute.
    let length = Duration::from_secs(600);
    let run = |policy: RetryPolicy| {
        simulate(seed, async {
            let mut limit = limit(seed);
            let server = Server::new(seed, (10, 30), move |now, _| limit(now));
            at_rate(server.client(&policy), 10.0, length, |_| get("/items")).await
        })
    };
    let with = run(default());
    let without = run(without_gate());
    let share = |courses: &[Course]| failed(courses) / courses.len() as f64;
    vec![
        most("share that failed", share(&with), share(&without) + 0.02),
        most("p99", percentile(&with, 99), 5.0),
    ]
}

fn one_endpoint(seed: u64, length: Duration) -> Vec<Figure> {
    search_and_items(seed, length, "")
}

/// Every path begins alike, as with most APIs.
fn one_endpoint_of_v1(seed: u64, length: Duration) -> Vec<Figure> {
    search_and_items(seed, length, "/v1")
}

fn search_and_items(seed: u64, length: Duration, base: &'static str) -> Vec<Figure> {
    simulate(seed, async {
        let mut limit = bucket(1.0, 1.0, 1);
        let server = Server::new(seed, (10, 30), move |now, head| {
            if head.uri.path().contains("/search/") { limit(now) } else { Verdict::Served }
        });
        let client = server.client(&default());
        let (items, _) = tokio::join!(
            at_rate(client.clone(), 50.0, length, |n| get(&format!("{base}/items/{n}"))),
            at_rate(client, 3.0, length, |n| get(&format!("{base}/search/{n}"))),
        );
        free_beside_limited(&items)
    })
}

fn one_method(seed: u64, length: Duration) -> Vec<Figure> {
    simulate(seed, async {
        let mut limit = bucket(1.0, 1.0, 1);
        let server = Server::new(seed, (10, 30), move |now, head| {
            if head.method == Method::POST { limit(now) } else { Verdict::Served }
        });
        let client = server.client(&default());
        let (gets, _) = tokio::join!(
            at_rate(client.clone(), 50.0, length, |_| get("/items")),
            at_rate(client, 3.0, length, |_| post("/items")),
        );
        free_beside_limited(&gets)
    })
}

fn one_method_of_one_endpoint(seed: u64, length: Duration) -> Vec<Figure> {
    simulate(seed, async {
        let mut limit = bucket(1.0, 1.0, 1);
        let server = Server::new(seed, (10, 30), move |now, head| {
            let limited = head.method == Method::POST && head.uri.path() == "/items";
            if limited { limit(now) } else { Verdict::Served }
        });
        let client = server.client(&default());
        let (gets, orders, _) = tokio::join!(
            at_rate(client.clone(), 25.0, length, |_| get("/items")),
            at_rate(client.clone(), 25.0, length, |_| post("/orders")),
            at_rate(client, 3.0, length, |_| post("/items")),
        );
        free_beside_limited(&[gets, orders].concat())
    })
}

fn free_beside_limited(free: &[Course]) -> Vec<Figure> {
    vec![
        most("p50 of the free", percentile(free, 50), 50.0 * MS),
        most("p99 of the free", percentile(free, 99), 1.0),
        most("max of the free", percentile(free, 100), 3.1),
        most("failed of the free", failed(free), 0.0),
    ]
}

fn outage(seed: u64, length: Duration) -> Vec<Figure> {
    const OUTAGE: Duration = Duration::from_secs(120);
    simulate(seed, async {
        let server = Server::new(seed, (10, 30), |now, _| match now < OUTAGE {
            true => Verdict::Refused(5),
            false => Verdict::Served,
        });
        let length = OUTAGE + length.min(Duration::from_secs(120));
        let courses = at_rate(server.client(&default()), 20.0, length, |_| get("/items")).await;
        let late = courses.iter().filter(|course| course.at > OUTAGE + Duration::from_secs(10));
        let during = server.sent.load(Ordering::Relaxed) as f64 / (length.as_secs_f64() * 20.0);
        vec![
            most("max 10 s after the end", percentile(late, 100), 1.0),
            most("sent per request", during, 2.0),
        ]
    })
}

fn limit_lifted(seed: u64, _: Duration) -> Vec<Figure> {
    simulate(seed, async {
        let mut limit = bucket(20.0, 5.0, 1);
        let server = Server::new(seed, (10, 30), move |now, _| match now < Duration::from_secs(6) {
            true => limit(now),
            false => Verdict::Served,
        });
        // Each task sends one per second, so that 400 are served per second once there is no limit.
        let client = server.client(&default());
        let tasks = (0..400).map(|n| {
            let client = client.clone();
            async move {
                tokio::time::sleep(Duration::from_micros(2_500 * n)).await;
                at_own_pace(client, Duration::from_secs(30)).await
            }
        });
        let courses: Vec<Course> =
            futures_util::future::join_all(tasks).await.into_iter().flatten().collect();
        let late = courses.iter().filter(|course| course.at > Duration::from_secs(16));
        vec![most("max 10 s after the end", percentile(late, 100), 1.0)]
    })
}

async fn at_own_pace(client: Client, length: Duration) -> Vec<Course> {
    let start = tokio::time::Instant::now();
    let mut courses = Vec::new();
    while start.elapsed() < length {
        let at = start.elapsed();
        let mut own = from_tasks(client.clone(), 1, 1).await;
        own.iter_mut().for_each(|course| course.at = at);
        courses.append(&mut own);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    courses
}

fn slow_responses(seed: u64, length: Duration) -> Vec<Figure> {
    simulate(seed, async {
        let mut asked = 0;
        let server = Server::slow(seed, (20_000, 20_000), (20, 20), move |_, _| {
            asked += 1;
            if asked == 50 { Verdict::Refused(1) } else { Verdict::Served }
        });
        let courses = at_rate(server.client(&default()), 10.0, length, |_| get("/items")).await;
        vec![most("max", percentile(&courses, 100), 20.0), most("failed", failed(&courses), 0.0)]
    })
}

fn overload(seed: u64, length: Duration) -> Vec<Figure> {
    simulate(seed, async {
        let mut limit = bucket(50.0, 10.0, 1);
        let server = Server::new(seed, (10, 30), move |now, _| limit(now));
        let courses = at_rate(server.client(&default()), 60.0, length, |_| get("/items")).await;
        let untyped = courses.iter().filter(|course| course.failed() && course.stop.is_none()).count();
        let surplus: Vec<Course> = courses.iter().filter(|course| course.failed()).cloned().collect();
        let served = courses.len() as f64 - surplus.len() as f64;
        let possible = length.as_secs_f64() * 50.0;
        vec![
            most("p99 of those not refused", percentile(&untouched(&courses), 99), 3.1),
            most("p99", percentile(&courses, 99), 10.0),
            most("p99 of those that failed", percentile(&surplus, 99), 10.0),
            most("failed without a reason", untyped as f64, 0.0),
            least("served of what is possible", served / possible, 0.9),
        ]
    })
}

fn burst_of_five(seed: u64, _: Duration) -> Vec<Figure> {
    let work = work(seed, LATENCIES, 200, 50, bucket(10.0, 5.0, 1));
    vec![work.failed(), work.sent_per_served(1.4), work.time_per(19.5, 1.2)]
}

fn no_burst(seed: u64, _: Duration) -> Vec<Figure> {
    // Any two that come nearer than 100 ms are one too many, so chance on the way counts as much as the pace.
    let latencies = [(1, 3), (18, 22), (95, 105)];
    let work = work(seed, latencies, 200, 50, bucket(10.0, 0.0, 1));
    vec![work.failed(), work.time_per(20.0, 1.5).wanted(1.3)]
}

fn burst_of_fifty(seed: u64, _: Duration) -> Vec<Figure> {
    let work = work(seed, LATENCIES, 1_000, 64, bucket(50.0, 50.0, 1));
    vec![work.failed(), work.sent_per_served(1.25), work.time_per(19.0, 1.3)]
}

fn window(seed: u64, _: Duration) -> Vec<Figure> {
    const LENGTH: Duration = Duration::from_secs(10);
    let (mut taken, mut of) = (0, 0);
    let work = work(seed, LATENCIES, 150, 50, move |now| {
        let window = now.as_secs() / LENGTH.as_secs();
        if window != of {
            (taken, of) = (0, window);
        }
        if taken == 30 {
            let left = LENGTH.as_secs() - now.as_secs() % LENGTH.as_secs();
            return Verdict::Refused(u32::try_from(left).unwrap());
        }
        taken += 1;
        Verdict::Served
    });
    vec![work.failed(), work.sent_per_served(1.8), work.time_per(40.0, 1.5)]
}

const LATENCIES: [(u64, u64); 3] = [(1, 3), (20, 60), (100, 200)];

/// What it took to have some requests served.
struct Work {
    failed: f64,
    sent_per_served: f64,
    time: f64,
}

impl Work {
    fn failed(&self) -> Figure {
        most("failed", self.failed, 0.0)
    }

    fn sent_per_served(&self, limit: f64) -> Figure {
        most("sent per served", self.sent_per_served, limit)
    }

    fn time_per(&self, ideal: f64, limit: f64) -> Figure {
        most("time per ideal", self.time / ideal, limit)
    }
}

/// Has so many requests sent from so many tasks.
fn work(
    seed: u64,
    latencies: [(u64, u64); 3],
    requests: usize,
    at_once: usize,
    mut limit: impl FnMut(Duration) -> Verdict + Send + 'static,
) -> Work {
    let latency = latencies[usize::try_from(seed % 3).unwrap()];
    simulate(seed, async {
        let server = Server::new(seed, latency, move |now, _| limit(now));
        let courses = from_tasks(server.client(&default()), requests, at_once).await;
        Work { failed: failed(&courses), sent_per_served: server.sent_per_served(), time: end(&courses) }
    })
}

fn busy_at_first(seed: u64, _: Duration) -> Vec<Figure> {
    simulate(seed, async {
        let server = Server::new(seed, (10, 30), |now, _| match now < Duration::from_millis(2_500) {
            true => Verdict::Refused(2),
            false => Verdict::Served,
        });
        let courses = from_tasks(server.client(&default()), 60, 30).await;
        vec![most("time", end(&courses), 5.0), most("failed", failed(&courses), 0.0)]
    })
}

fn trickle(seed: u64, _: Duration) -> Vec<Figure> {
    simulate(seed, async {
        let mut limit = bucket(0.25, 0.0, 1);
        let server = Server::new(seed, (10, 30), move |now, _| match now < Duration::from_secs(12) {
            true => limit(now),
            false => Verdict::Served,
        });
        let courses = from_tasks(server.client(&default()), 200, 50).await;
        vec![most("failed", failed(&courses), 0.0), most("time", end(&courses), 26.0)]
    })
}

fn ten_processes(seed: u64, _: Duration) -> Vec<Figure> {
    processes(seed, 20)
}

fn ten_processes_of_five(seed: u64, _: Duration) -> Vec<Figure> {
    processes(seed, 5)
}

fn processes(seed: u64, at_once: usize) -> Vec<Figure> {
    simulate(seed, async {
        let mut limit = bucket(10.0, 5.0, 1);
        let server = Server::new(seed, (10, 30), move |now, _| limit(now));
        let own = (0..10).map(|_| from_tasks(server.client(&default()), 20, at_once));
        let own = futures_util::future::join_all(own).await;
        let rates: Vec<f64> = own.iter().map(|courses| 20.0 / end(courses)).collect();
        let all: Vec<Course> = own.into_iter().flatten().collect();
        vec![
            most("failed", failed(&all), 1.0).wanted(0.0),
            most("time per ideal", end(&all) / 19.5, 1.5),
            least("Jain's fairness", fairness(&rates), 0.84).wanted(0.9),
        ]
    })
}

fn fairness(rates: &[f64]) -> f64 {
    let sum: f64 = rates.iter().sum();
    let squares: f64 = rates.iter().map(|rate| rate * rate).sum();
    sum * sum / (rates.len() as f64 * squares)
}

fn restart(seed: u64, _: Duration) -> Vec<Figure> {
    simulate(seed, async {
        let down = Duration::from_secs(3)..Duration::from_millis(3_600);
        let server = Server::new(seed, (10, 30), move |now, _| match down.contains(&now) {
            true => Verdict::NoConnection,
            false => Verdict::Served,
        });
        let courses = at_rate(server.client(&default()), 20.0, Duration::from_secs(8), |n| {
            let path = format!("/items/{n}");
            if n % 2 == 0 { post(&path) } else { get(&path) }
        });
        let courses = courses.await;
        vec![most("failed", failed(&courses), 0.0), most("served twice", server.served_twice() as f64, 0.0)]
    })
}

fn fifty_processes(seed: u64, length: Duration) -> Vec<Figure> {
    let length = length / 6;
    simulate(seed, async {
        let mut limit = bucket(500.0, 100.0, 1);
        let server = Server::new(seed, (10, 30), move |now, _| limit(now));
        let own = (0..50).map(|_| at_rate(server.client(&default()), 20.0, length, |_| get("/items")));
        let own = futures_util::future::join_all(own).await;
        let in_time = |course: &&Course| !course.failed() && course.at + course.took <= length;
        let served: Vec<f64> =
            own.iter().map(|courses| courses.iter().filter(in_time).count() as f64).collect();
        let possible = length.as_secs_f64() * 500.0;
        let lowest = served.iter().copied().fold(f64::MAX, f64::min);
        vec![
            least("throughput of the limit", served.iter().sum::<f64>() / possible, 0.9),
            least("least share of a process", lowest / (possible / 50.0), 0.5),
        ]
    })
}

/// In real time: what a refusal costs. By `tests/simulate.sh` alone, on a machine that does nothing else: a time is no figure
/// for a test run.
fn many_refused(seed: u64, _: Duration) -> Vec<Figure> {
    if seed > 0 || std::env::var_os("SIMULATE_ALL").is_none() {
        return Vec::new();
    }
    let run = |policy: RetryPolicy| {
        let started = Instant::now();
        simulate(seed, async {
            let server = Server::new(seed, (10, 30), |now, _| match now < Duration::from_millis(500) {
                true => Verdict::Refused(1),
                false => Verdict::Served,
            });
            let courses = from_tasks(server.client(&policy), 16_000, 16_000).await;
            assert_eq!(failed(&courses), 0.0);
        });
        started.elapsed().as_secs_f64()
    };
    // The fastest of several runs, since others use the machine.
    let fastest = |policy: &RetryPolicy| (0..3).map(|_| run(policy.clone())).fold(f64::MAX, f64::min);
    let with = fastest(&RetryPolicy::builder().budget(None).build().unwrap());
    let without = fastest(&RetryPolicy::builder().budget(None).gate(None).build().unwrap());
    vec![most("time per that without gate", with / without, 2.0)]
}

// --- Figure ---

impl Figure {
    /// More is wanted than is asked for.
    fn wanted(self, wanted: f64) -> Self {
        Self { wanted: Some(wanted), ..self }
    }

    pub(crate) fn holds(&self) -> bool {
        if self.most { self.value <= self.limit } else { self.value >= self.limit }
    }

    /// Returns the one that is nearer to its limit, or farther beyond it.
    pub(crate) fn worse(self, other: Self) -> Self {
        let margin = |figure: &Self| (figure.limit - figure.value) * if figure.most { 1.0 } else { -1.0 };
        if margin(&other) < margin(&self) { other } else { self }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, limit, wanted, most } = self;
        let (sign, mark) = (if *most { "<=" } else { ">=" }, if self.holds() { "" } else { "  BEYOND" });
        write!(f, "{name:<28} {value:>9.3} {sign} {limit:>8.3}{mark}")?;
        match wanted {
            Some(wanted) => write!(f, "  (wanted: {wanted:.3})"),
            None => Ok(()),
        }
    }
}
