//! The requests: who sends them, when, and what becomes of each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tower::{BoxError, ServiceExt as _};
use tower_oauth2::TokenCache;
use tower_oauth2::auth::AuthService;
use tower_oauth2::retry::{ReplayBody, ReplayReason, RetryBody, RetryReport, RetryService};
use tower_oauth2::transport::hyper::{Client as HttpClient, ResponseBody};

use crate::support::Api;
use crate::tally::{Kind, Sample, Tally};

/// The client. Clones share everything, so each task has one.
pub(crate) type Client = RetryService<AuthService<HttpClient<ReplayBody<Full<Bytes>>>>>;

/// When requests are sent: one by each task after each pause, and now and then by all tasks at the same moment.
pub(crate) struct Plan {
    pub(crate) tasks: usize,
    pub(crate) pause: Duration,
    pub(crate) end: Instant,
    pub(crate) rounds: Vec<Round>,
}

/// A moment when every task sends a request, and the next as soon as that is answered, so many times.
pub(crate) struct Round {
    pub(crate) at: Instant,
    pub(crate) each: u32,
}

/// Where requests go.
pub(crate) enum Target {
    /// To the API of this example: reading, and every third time writing.
    Items(String),
    /// To an API of somebody else's: reading only.
    Url(Uri),
}

pub(crate) struct Traffic {
    client: Client,
    cache: TokenCache,
    target: Target,
    sent: AtomicU64,
    done: AtomicU64,
}

impl Traffic {
    pub(crate) fn new(client: Client, cache: TokenCache, target: Target) -> Arc<Self> {
        Arc::new(Self { client, cache, target, sent: AtomicU64::new(0), done: AtomicU64::new(0) })
    }

    /// Returns how many requests were sent so far; a replay is none.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Returns how many requests are not answered yet.
    pub(crate) fn open(&self) -> u64 {
        self.sent() - self.done.load(Relaxed).min(self.sent())
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
            if Instant::now() >= plan.end {
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
        let answer = self.answer(client.clone(), task, number).await;
        let latency = start.elapsed();
        let after = self.cache.status();
        self.done.fetch_add(1, Relaxed);

        let refreshing = before.is_fetching() || after.is_fetching() || before.fetched() != after.fetched();
        let history = match &answer {
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
        let failure = match &answer {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(response.status().to_string()),
            Err(error) => Some(error.to_string()),
        };
        Sample { kind, latency, rejected, throttled, failure }
    }

    async fn answer(&self, client: Client, task: usize, number: usize) -> Result<Response<Bytes>, BoxError> {
        let request = match &self.target {
            Target::Url(url) => Request::get(url).body(Full::default())?,
            Target::Items(origin) if !number.is_multiple_of(3) => {
                Request::get(format!("{origin}/items/{number}")).body(Full::default())?
            }
            Target::Items(origin) => {
                let body = format!("item {number} of task {task}\n").repeat(1 + number % 100);
                Request::post(format!("{origin}/items"))
                    .header(Api::ITEM_ID, format!("{task}-{number}"))
                    .header(Api::CONTENT_DIGEST, Api::content_digest(body.as_bytes()))
                    .body(Full::from(body))?
            }
        };
        let response: Response<RetryBody<ResponseBody>> = client.oneshot(request).await?;
        let (head, body) = response.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }
}
