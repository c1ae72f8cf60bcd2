//! The requests: who sends them, when, and what becomes of each.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout_at};
use tower::{BoxError, ServiceExt as _};
use tower_oauth2::auth::AuthService;
use tower_oauth2::extensions::Deadline;
use tower_oauth2::retry::{ReplayReason, ResponseBody, RetryReport, RetryService, StopReason};
use tower_oauth2::transport::{HyperClient, IncomingBody};
use tower_oauth2::{Body, TokenCache};

use crate::support::Api;
use crate::tally::{Kind, Sample, Tally};
use crate::yours;

/// Where so many requests at the beginning fail in the same way, the rest would too.
const OPENING: usize = 10;

/// The client. Clones share everything, so each task has one.
pub(crate) type Client = RetryService<AuthService<HyperClient>>;

/// When requests are sent: one by each task after each pause, and now and then by all tasks at the same moment.
pub(crate) struct Plan {
    pub(crate) tasks: usize,
    pub(crate) pause: Duration,
    pub(crate) end: Instant,
    pub(crate) rounds: Vec<Round>,
}

/// A moment when every task sends a request, and the next as soon as the response is there, so many times.
pub(crate) struct Round {
    pub(crate) at: Instant,
    pub(crate) each: u32,
}

/// Where requests go.
pub(crate) enum Target {
    /// To the API of this example: reading, and every third time writing.
    Items(String),
    /// To an API that is not ours: reading only. It may take any time, so no response is waited for after
    /// `until`, and none where the first requests all failed.
    Url { url: Uri, until: Instant },
}

pub(crate) struct Traffic {
    client: Client,
    cache: TokenCache,
    target: Target,
    sent: AtomicU64,
    done: AtomicU64,
    rejected: AtomicU64,
    throttled: AtomicU64,
    opening: Mutex<Opening>,
}

/// How the first requests ended.
#[derive(Default)]
struct Opening {
    done: usize,
    /// The failure of the first, and how many were like it.
    failure: Option<String>,
    alike: usize,
}

impl Traffic {
    pub(crate) fn new(client: Client, cache: TokenCache, target: Target) -> Arc<Self> {
        Arc::new(Self {
            client,
            cache,
            target,
            sent: AtomicU64::new(0),
            done: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            opening: Mutex::default(),
        })
    }

    /// Returns how many requests were sent so far; a replay is none.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Returns how many requests have no response yet.
    pub(crate) fn open(&self) -> u64 {
        self.sent() - self.done.load(Relaxed).min(self.sent())
    }

    /// Returns how many 401 responses the client knows of: it hears of those that were replayed with the last response.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejected.load(Relaxed)
    }

    /// Returns how many 429 responses the client knows of, likewise.
    pub(crate) fn throttled(&self) -> u64 {
        self.throttled.load(Relaxed)
    }

    /// Returns how the first requests failed, if all of them did and in the same way.
    pub(crate) fn hopeless(&self) -> Option<String> {
        let opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        opening.failure.clone().filter(|_| opening.alike == OPENING)
    }

    /// Carries out a plan.
    pub(crate) async fn run(self: &Arc<Self>, plan: Plan) -> Result<Tally, JoinError> {
        let plan = Arc::new(plan);
        let mut tasks = JoinSet::new();
        for task in 0..plan.tasks {
            tasks.spawn(Arc::clone(self).run_task(task, Arc::clone(&plan)));
        }
        let mut samples = Vec::new();
        while let Some(task) = tasks.join_next().await {
            samples.extend(task?);
        }
        Ok(Tally::new(samples))
    }

    async fn run_task(self: Arc<Self>, task: usize, plan: Arc<Plan>) -> Vec<Sample> {
        let client = self.client.clone();
        let offset = plan.pause.mul_f64(task as f64 / plan.tasks as f64);
        let mut ticks = interval_at(Instant::now() + offset, plan.pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut rounds = plan.rounds.iter().peekable();
        let mut samples = Vec::new();
        loop {
            let round = rounds.peek().map_or(plan.end, |round| round.at);
            let requests = tokio::select! {
                _ = ticks.tick() => 1,
                () = sleep_until(round) => rounds.next().map_or(0, |round| round.each),
            };
            let stops = matches!(self.target, Target::Url { .. }) && self.hopeless().is_some();
            if Instant::now() >= plan.end || stops {
                return samples;
            }
            for _ in 0..requests {
                samples.push(self.send(&client, task, samples.len()).await);
            }
        }
    }

    async fn send(&self, client: &Client, task: usize, number: usize) -> Sample {
        self.sent.fetch_add(1, Relaxed);
        let before = self.cache.status();
        let start = Instant::now();
        let response = match &self.target {
            Target::Items(_) => self.request(client.clone(), task, number).await,
            Target::Url { until, .. } => timeout_at(*until, self.request(client.clone(), task, number))
                .await
                .unwrap_or_else(|_| Err("no response by the end of the run".into())),
        };
        let latency = start.elapsed();
        let after = self.cache.status();
        self.done.fetch_add(1, Relaxed);

        let refreshing = before.is_fetching() || after.is_fetching() || before.fetched() != after.fetched();
        let history = match &response {
            Ok(response) => response.extensions().get::<RetryReport>().map_or(&[][..], RetryReport::history),
            Err(_) => &[],
        };
        let count = |reason| history.iter().filter(|replayed| replayed.reason() == reason).count();
        let (rejected, throttled) = (count(ReplayReason::TokenRejected), count(ReplayReason::Throttled));
        let kind = match (throttled, rejected) {
            (1.., _) => Kind::Waited,
            (0, 1..) => Kind::Replayed,
            (0, 0) if !before.is_ready() => Kind::WithoutToken,
            (0, 0) if refreshing => Kind::DuringRefresh,
            (0, 0) => Kind::Plain,
        };
        let status = response.as_ref().ok().map(Response::status);
        let failure = match &response {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(described(response)),
            Err(error) => Some(yours::one_line(&**error)),
        };
        // The last response counts as well.
        let is = |code| u64::from(status == Some(code));
        self.rejected.fetch_add(rejected as u64 + is(StatusCode::UNAUTHORIZED), Relaxed);
        self.throttled.fetch_add(throttled as u64 + is(StatusCode::TOO_MANY_REQUESTS), Relaxed);
        self.opening.lock().unwrap_or_else(PoisonError::into_inner).note(failure.as_deref());
        Sample { kind, latency, rejected, throttled, failure }
    }

    async fn request(&self, client: Client, task: usize, number: usize) -> Result<Response<Bytes>, BoxError> {
        let request = match &self.target {
            Target::Url { url, until } => {
                let deadline = Deadline::at((*until).into());
                Request::get(url).extension(deadline).body(Body::empty())?
            }
            Target::Items(origin) if !number.is_multiple_of(3) => {
                Request::get(format!("{origin}/items/{number}")).body(Body::empty())?
            }
            Target::Items(origin) => {
                let body = format!("item {number} of task {task}\n").repeat(1 + number % 100);
                Request::post(format!("{origin}/items"))
                    .header(Api::ITEM_ID, format!("{task}-{number}"))
                    .header(Api::CONTENT_DIGEST, Api::content_digest(body.as_bytes()))
                    .body(Body::from(body))?
            }
        };
        let response: Response<ResponseBody<IncomingBody>> = client.oneshot(request).await?;
        let (head, body) = response.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }
}

impl Opening {
    fn note(&mut self, failure: Option<&str>) {
        if self.done == OPENING {
            return;
        }
        self.done += 1;
        if let Some(failure) = failure {
            let first = self.failure.get_or_insert_with(|| failure.to_owned());
            // Why it was not sent again may differ.
            self.alike += usize::from(first.split(';').next() == failure.split(';').next());
        }
    }
}

/// Says what the response was, and why the request was not sent again.
fn described(response: &Response<Bytes>) -> String {
    match response.extensions().get::<RetryReport>().map(RetryReport::stop_reason) {
        None | Some(StopReason::Final) => response.status().to_string(),
        Some(reason) => format!("{}; {reason}", response.status()),
    }
}
