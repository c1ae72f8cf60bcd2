//! Processes that are started together, watched, and killed.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tower_oauth2::Body;
use tower_oauth2::test_util::{Caller, FakeApi, FakeAuthorizationServer, FakeClient};

use crate::worker::Orders;

/// The servers of one case.
pub(crate) struct Servers {
    pub(crate) authorization: FakeAuthorizationServer,
    pub(crate) api: FakeApi,
}

impl Servers {
    /// Starts both, with tokens that live so long. A token request takes 50 ms.
    pub(crate) async fn start(lifetime: Duration) -> Self {
        let mut builder = FakeAuthorizationServer::builder()
            .client(FakeClient::confidential("fleet", "a secret"))
            .lifetime(lifetime)
            .latency(Duration::from_millis(50));
        for tenant in 0..1000 {
            builder = builder.client(FakeClient::confidential(format!("tenant-{tenant}"), "a secret"));
        }
        let authorization = builder.start().await.unwrap();
        // It says whose token it was.
        let service = tower::service_fn(async |request: http::Request<Body>| {
            let caller = request.extensions().get::<Caller>().unwrap().client_id().to_owned();
            Ok::<_, std::convert::Infallible>(http::Response::new(Body::from(caller)))
        });
        let api = FakeApi::builder(&authorization).service(service).start().await.unwrap();
        Self { authorization, api }
    }

    pub(crate) fn orders(&self, store: impl Into<String>, seconds: u32, per_second: u32) -> Orders {
        Orders {
            store: store.into(),
            token_url: self.authorization.token_url(),
            api_url: self.api.origin(),
            seconds,
            per_second,
            refresh_token: None,
            tenants: 0,
            lease: Duration::from_secs(2),
        }
    }
}

/// What a fleet did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    /// Of the slowest request, in milliseconds.
    pub(crate) slowest: u64,
    /// Lines of level WARN, by process.
    pub(crate) warnings: Vec<u64>,
    /// Processes that ended by themselves.
    pub(crate) ended: usize,
}

/// What a process has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Ready,
    /// A token request begins, and has ended.
    Begin,
    End,
}

/// Processes that run.
pub(crate) struct Fleet {
    processes: Vec<Arc<Mutex<Child>>>,
    heard: mpsc::UnboundedReceiver<(usize, Said)>,
    said: mpsc::UnboundedSender<(usize, Said)>,
    readers: tokio::task::JoinSet<(Option<[u64; 3]>, u64)>,
}

impl Fleet {
    /// Starts processes, each by its orders, and lets them begin at once. `around` is what runs the program, such as one
    /// that changes its clock.
    pub(crate) async fn start(all: impl IntoIterator<Item = (Orders, Vec<String>)>) -> Self {
        let (said, heard) = mpsc::unbounded_channel();
        let mut fleet = Self { processes: Vec::new(), heard, said, readers: tokio::task::JoinSet::new() };
        let pipes: Vec<_> = all.into_iter().map(|(orders, around)| fleet.spawn(&orders, &around)).collect();
        let mut ready = 0;
        while ready < pipes.len() {
            ready += usize::from(fleet.heard.recv().await.unwrap().1 == Said::Ready);
        }
        drop(pipes);
        fleet
    }

    /// Starts so many processes with the same orders.
    pub(crate) async fn of(number: usize, orders: &Orders) -> Self {
        Self::start((0..number).map(|_| (orders.clone(), Vec::new()))).await
    }

    /// Adds a process, which begins at once. Returns its number.
    pub(crate) fn add(&mut self, orders: &Orders) -> usize {
        drop(self.spawn(orders, &[]));
        self.processes.len() - 1
    }

    fn spawn(&mut self, orders: &Orders, around: &[String]) -> tokio::process::ChildStdin {
        let program = std::env::current_exe().unwrap();
        let mut words = around.to_vec();
        words.push(program.to_str().unwrap().to_owned());
        words.push("worker".to_owned());
        words.extend(orders.words());
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let (number, said) = (self.processes.len(), self.said.clone());
        self.processes.push(Arc::new(Mutex::new(child)));
        self.readers.spawn(async move {
            let warnings = tokio::spawn(async move {
                let (mut warnings, mut shown) = (0, 0);
                while let Ok(Some(line)) = log.next_line().await {
                    warnings += u64::from(line.contains(" WARN ") && line.contains("store"));
                    if line.starts_with("request failed") && shown < 3 {
                        println!("  process {number}: {line}");
                        shown += 1;
                    }
                }
                warnings
            });
            let mut done = None;
            while let Ok(Some(line)) = lines.next_line().await {
                let heard = match line.split(' ').next().unwrap_or_default() {
                    "ready" => Said::Ready,
                    "begin" => Said::Begin,
                    "end" => Said::End,
                    "done" => {
                        let numbers = line.split(' ').skip(1).map(|number| number.parse().unwrap());
                        done = <[u64; 3]>::try_from(numbers.collect::<Vec<u64>>()).ok();
                        continue;
                    }
                    other => panic!("a process said {other:?}"),
                };
                // The case may not listen any more.
                let _ = said.send((number, heard));
            }
            (done, warnings.await.unwrap())
        });
        stdin
    }

    /// Waits for what a process says next.
    pub(crate) async fn hears(&mut self) -> (usize, Said) {
        self.heard.recv().await.unwrap()
    }

    /// Kills a process at once.
    pub(crate) fn kill(&self, number: usize) {
        let _ = self.processes[number].lock().unwrap().start_kill();
    }

    /// Waits until all have ended, and adds up what they said.
    pub(crate) async fn ends(mut self) -> Tally {
        let mut tally = Tally::default();
        while let Some(process) = self.readers.join_next().await {
            let (done, warnings) = process.unwrap();
            tally.warnings.push(warnings);
            if let Some([requests, failed, slowest]) = done {
                tally.ended += 1;
                tally.requests += requests;
                tally.failed += failed;
                tally.slowest = tally.slowest.max(slowest);
            }
        }
        tally
    }
}
