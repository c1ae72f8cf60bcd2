//! A server as a rule, the load on it, and the time in which both live.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, request};
use http_body_util::Full;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};
use tower_oauth2::RetryPolicy;
use tower_oauth2::retry::{RequestBody, RetryReport, StopReason, Unsent};

type Body = Full<Bytes>;
pub(crate) type Client = BoxCloneSyncService<Request<Body>, Response<()>, BoxError>;

/// What a server makes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Served,
    /// 429, with this `Retry-After`.
    Refused(u32),
    /// No connection came about.
    NoConnection,
}

/// Decides about a request that comes at a time since the start.
pub(crate) type Rule = Box<dyn FnMut(Duration, &request::Parts) -> Verdict + Send>;

/// A server that follows a rule, and counts.
pub(crate) struct Server {
    rule: Mutex<Rule>,
    start: Instant,
    /// How long a request is under way in all, in milliseconds, by what becomes of it.
    served_in: (u64, u64),
    refused_in: (u64, u64),
    rng: Mutex<fastrand::Rng>,
    pub(crate) sent: AtomicUsize,
    pub(crate) served: AtomicUsize,
    /// How often each request was served, by its path.
    times: Mutex<BTreeMap<String, usize>>,
}

/// How one request went.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    pub(crate) at: Duration,
    pub(crate) took: Duration,
    /// None where there was an error.
    pub(crate) status: Option<StatusCode>,
    pub(crate) attempts: u32,
    pub(crate) stop: Option<StopReason>,
}

impl Server {
    pub(crate) fn new(
        seed: u64,
        latency: (u64, u64),
        rule: impl FnMut(Duration, &request::Parts) -> Verdict + Send + 'static,
    ) -> Arc<Self> {
        Self::slow(seed, latency, latency, rule)
    }

    pub(crate) fn slow(
        seed: u64,
        served_in: (u64, u64),
        refused_in: (u64, u64),
        rule: impl FnMut(Duration, &request::Parts) -> Verdict + Send + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            rule: Mutex::new(Box::new(rule)),
            start: Instant::now(),
            served_in,
            refused_in,
            rng: Mutex::new(fastrand::Rng::with_seed(seed)),
            sent: AtomicUsize::new(0),
            served: AtomicUsize::new(0),
            times: Mutex::default(),
        })
    }

    /// Returns a client that reaches this server through a policy.
    pub(crate) fn client(self: &Arc<Self>, policy: &RetryPolicy) -> Client {
        let server = Arc::clone(self);
        let transport = service_fn(move |request: Request<RequestBody<Body>>| {
            let server = Arc::clone(&server);
            async move { server.answer(request.into_parts().0).await }
        });
        BoxCloneSyncService::new(policy.layer(transport).map_response(|response| response.map(drop)))
    }

    async fn answer(self: Arc<Self>, head: request::Parts) -> Result<Response<Body>, BoxError> {
        let draw = |(least, most): (u64, u64)| {
            Duration::from_micros(self.rng.lock().unwrap().u64(least * 500..=most * 500))
        };
        sleep(draw(self.refused_in)).await;
        self.sent.fetch_add(1, Ordering::Relaxed);
        let verdict = (self.rule.lock().unwrap())(self.start.elapsed(), &head);
        let mut response = Response::new(Body::default());
        match verdict {
            Verdict::Served => {
                self.served.fetch_add(1, Ordering::Relaxed);
                *self.times.lock().unwrap().entry(head.uri.path().to_owned()).or_default() += 1;
                sleep(draw(self.served_in)).await;
            }
            Verdict::Refused(hint) => {
                *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
                response.headers_mut().insert("retry-after", hint.into());
                sleep(draw(self.refused_in)).await;
            }
            Verdict::NoConnection => return Err(Unsent::new("the connection was refused").into()),
        }
        Ok(response)
    }

    pub(crate) fn sent_per_served(&self) -> f64 {
        self.sent.load(Ordering::Relaxed) as f64 / self.served.load(Ordering::Relaxed).max(1) as f64
    }

    /// Returns how many requests were served more than once.
    pub(crate) fn served_twice(&self) -> usize {
        self.times.lock().unwrap().values().filter(|times| **times > 1).count()
    }
}

impl Course {
    pub(crate) fn failed(&self) -> bool {
        self.status != Some(StatusCode::OK)
    }

    /// Whether the server refused it at any time.
    pub(crate) fn refused(&self) -> bool {
        self.attempts > 1 || self.failed()
    }
}

/// Sends one request and waits for its end.
async fn send(client: Client, request: Request<Body>, start: Instant) -> Course {
    let at = Instant::now();
    let outcome = client.oneshot(request).await;
    let report = outcome.as_ref().ok().and_then(|response| response.extensions().get::<RetryReport>());
    Course {
        at: at - start,
        took: at.elapsed(),
        attempts: report.map_or(1, RetryReport::attempts),
        stop: report.map(|report| report.stop_reason().clone()),
        status: outcome.as_ref().ok().map(Response::status),
    }
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(format!("https://api.example.com{path}")).body(Body::default()).unwrap()
}

pub(crate) fn post(path: &str) -> Request<Body> {
    let mut request = get(path);
    *request.method_mut() = Method::POST;
    request
}

/// Sends so many requests per second for a time, each at its own time whatever became of those before.
pub(crate) async fn at_rate(
    client: Client,
    per_second: f64,
    length: Duration,
    request: impl Fn(usize) -> Request<Body>,
) -> Vec<Course> {
    let start = Instant::now();
    let phase = fastrand::f64();
    let mut sent = JoinSet::new();
    for n in 0.. {
        let at = Duration::from_secs_f64((n as f64 + phase) / per_second);
        if at >= length {
            break;
        }
        sleep_until(start + at).await;
        sent.spawn(send(client.clone(), request(n), start));
    }
    sent.join_all().await
}

/// Sends requests from so many tasks, each of which sends its next one when it has its response.
pub(crate) async fn from_tasks(client: Client, requests: usize, tasks: usize) -> Vec<Course> {
    let (left, start) = (Arc::new(AtomicUsize::new(requests)), Instant::now());
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let (client, left) = (client.clone(), Arc::clone(&left));
        running.spawn(async move {
            let mut courses = Vec::new();
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            {
                courses.push(send(client.clone(), get("/items"), start).await);
            }
            courses
        });
    }
    running.join_all().await.into_iter().flatten().collect()
}

/// Runs in a time of its own, with chance that follows from the seed.
pub(crate) fn simulate<T>(seed: u64, world: impl Future<Output = T>) -> T {
    fastrand::seed(seed);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(world)
}

/// nginx's `limit_req rate=.. burst=.. nodelay`: what is full drains at a rate, and a refused request adds nothing.
pub(crate) fn bucket(per_second: f64, burst: f64, hint: u32) -> impl FnMut(Duration) -> Verdict + Send {
    let (mut level, mut at) = (0.0, Duration::ZERO);
    move |now| {
        let drained = f64::max(level - (now - at).as_secs_f64() * per_second, 0.0);
        if drained > burst {
            return Verdict::Refused(hint);
        }
        (level, at) = (drained + 1.0, now);
        Verdict::Served
    }
}
