//! What a token costs a request: beside the bare service and beside tower-http's static `AddAuthorization`.
//!
//! ```text
//! cargo bench --bench hot_path                     allocations, times and instructions, each held to its limit
//! cargo bench --bench hot_path -- --times          the times alone, which mean something on a quiet machine only
//! cargo bench --bench hot_path -- --instructions   the instructions alone
//! cargo bench --bench hot_path -- --smoke          allocations alone, in a second
//! ```
//!
//! Every shape makes the same request, sends it through its stack to a service that responds at once, and drops the
//! response. Ours has everything on: origin, own header, override, live expiry on both clocks, the response read. The whole
//! stack is that under retry with the default policy, beside the static header without retry.
//! Instructions are counted by valgrind's callgrind as the difference of two runs of this binary, so that start-up does
//! not count.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark tells the time")]

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::process::{Command, ExitCode};
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::Full;
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_http::auth::AddAuthorization;
use tower_oauth2::retry::RequestBody;
use tower_oauth2::{AccessToken, AuthLayer, RetryPolicy, TokenCache, source_fn};

/// At most so many times the instructions of the static header, held and cloned per request.
const MOST_INSTRUCTIONS: f64 = 1.30;
/// At most so many times its time on two threads.
const MOST_TIME: f64 = 1.25;
/// The whole stack, auth under retry, takes at most so many times the instructions of the static header alone.
const MOST_STACK: f64 = 2.0;
/// And on two threads it serves at least so many times the requests that it serves on one.
const LEAST_SCALING: f64 = 1.7;
/// Rounds of one timed run, and how many runs the best is taken of. Runs are short, so that some of them meet no other work
/// of the machine on either core.
const TIMED: (u64, usize) = (10_000, 400);
/// Rounds of the two counted runs.
const COUNTED: (u64, u64) = (5_000, 25_000);

const SECRET: &str =
    "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiJzZXJ2aWNlIiwiZXhwIjoxNzAwMDAwMDAwfQ.c2lnbmF0dXJl";

type Body = Full<Bytes>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let misses = match arguments[..] {
        ["--count", shape, mode, rounds] => {
            let mode = MODES.iter().find(|known| known.name() == mode).expect("a mode");
            let shape = Shape::ALL.iter().find(|known| known.name() == shape).expect("a shape");
            shape.run(*mode, rounds.parse().expect("a number of rounds"));
            return ExitCode::SUCCESS;
        }
        ["--times"] => times(),
        ["--instructions"] => instructions(),
        ["--smoke"] => allocations(),
        _ => [allocations(), times(), instructions()].concat(),
    };
    for miss in &misses {
        println!("missed: {miss}");
    }
    println!("hot_path: misses={}", misses.len());
    if misses.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

// --- What is measured ---

fn allocations() -> Vec<String> {
    println!("\nallocations per request (requests of the same kind need the same; a stack may add none)");
    let mut misses = Vec::new();
    for mode in [Mode::Held, Mode::Cloned, Mode::Retried] {
        let count = |shape: Shape| {
            let rounds = 1_000;
            let mut requests = shape.stack(mode);
            // The first uses set up what later ones find.
            requests(4);
            allocation_counter::measure(|| requests(rounds)).count_total as f64 / rounds as f64
        };
        let (bare, fixed, ours) = (count(Shape::Bare), count(Shape::Static), count(Shape::Ours));
        println!("  {:<10} bare {bare:<6} static {fixed:<6} ours {ours}", mode.name());
        if ours > fixed {
            misses.push(format!("{}: {ours} allocations where the static layer needs {fixed}", mode.name()));
        }
    }
    misses
}

fn times() -> Vec<String> {
    println!(
        "\nnanoseconds per request (the best of {} interleaved runs), and x the static layer's",
        TIMED.1
    );
    let mut misses = Vec::new();
    let best = MODES.map(best);
    for (mode, [bare, fixed, ours]) in MODES.into_iter().zip(best) {
        println!(
            "  {:<18} bare {bare:>6.1}   static {fixed:>6.1}   ours {ours:>6.1}   x {:.3}",
            mode.name(),
            ours / fixed
        );
        if mode == Mode::Threads && ours / fixed > MOST_TIME {
            misses.push(format!("{}: {:.3} x the static layer's time", mode.name(), ours / fixed));
        }
    }
    let [held, _, retried, threads, retried_threads] = best;
    let scaling = |one: [f64; 3], two: [f64; 3]| [0, 1, 2].map(|shape| 2.0 * one[shape] / two[shape]);
    let [_, fixed, ours] = scaling(held, threads);
    let [_, _, stack] = scaling(retried, retried_threads);
    println!(
        "  scaling to 2 threads (2 is perfect)   static {fixed:.2}   ours {ours:.2}   whole stack {stack:.2}"
    );
    println!("  whole stack   x {:.3} of the static header alone", retried[2] / held[1]);
    if ours < fixed {
        misses.push(format!("scaling {ours:.2} where the static layer has {fixed:.2}"));
    }
    if stack < LEAST_SCALING {
        misses.push(format!("scaling of the whole stack {stack:.2} where {LEAST_SCALING} is the limit"));
    }
    misses
}

/// The shapes take turns, so that a slow moment of the machine meets all of them.
fn best(mode: Mode) -> [f64; 3] {
    let mut best = [f64::INFINITY; 3];
    for _ in 0..TIMED.1 {
        for (best, shape) in best.iter_mut().zip(Shape::ALL) {
            *best = best.min(timed(shape, mode));
        }
    }
    best
}

fn timed(shape: Shape, mode: Mode) -> f64 {
    shape.run(mode, TIMED.0).as_secs_f64() * 1e9 / TIMED.0 as f64
}

fn instructions() -> Vec<String> {
    println!("\ninstructions per request by callgrind, and x the static layer's");
    let mut misses = Vec::new();
    let modes = [Mode::Held, Mode::Cloned, Mode::Retried];
    let figures = modes.map(|mode| Shape::ALL.map(|shape| counted(shape, mode)));
    for (mode, [bare, fixed, ours]) in modes.into_iter().zip(figures) {
        println!(
            "  {:<18} bare {bare:>6.1}   static {fixed:>6.1}   ours {ours:>6.1}   x {:.3}",
            mode.name(),
            ours / fixed
        );
        if mode != Mode::Retried && ours / fixed > MOST_INSTRUCTIONS {
            misses.push(format!("{}: {:.3} x the static layer's instructions", mode.name(), ours / fixed));
        }
    }
    let [[_, fixed, _], _, [_, _, stack]] = figures;
    println!("  whole stack   x {:.3} of the static header alone", stack / fixed);
    if stack / fixed > MOST_STACK {
        let ratio = stack / fixed;
        misses.push(format!(
            "whole stack: {ratio:.3} x the static header's instructions where {MOST_STACK} is the limit"
        ));
    }
    misses
}

fn counted(shape: Shape, mode: Mode) -> f64 {
    let run = |rounds: u64| -> f64 {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(std::env::current_exe().expect("this binary has a path"))
            .args(["--count", shape.name(), mode.name(), &rounds.to_string()])
            .output()
            .expect("valgrind runs; install it with apt-get install valgrind");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = said.lines().find(|line| line.contains("Collected : ")).expect("callgrind's count");
        line.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a number")
    };
    (run(COUNTED.1) - run(COUNTED.0)) / (COUNTED.1 - COUNTED.0) as f64
}

// --- The shapes ---

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    /// The service alone.
    Bare,
    /// tower-http's fixed header.
    Static,
    /// This crate.
    Ours,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// One instance serves all requests.
    Held,
    /// A clone for each request, as `oneshot` takes one.
    Cloned,
    /// Under `RetryService`, which clones what it calls.
    Retried,
    /// Two threads with an instance each.
    Threads,
    /// The same under `RetryService`.
    RetriedThreads,
}

const MODES: [Mode; 5] = [Mode::Held, Mode::Cloned, Mode::Retried, Mode::Threads, Mode::RetriedThreads];

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Cloned => "cloned",
            Self::Retried => "retried",
            Self::Threads => "2 threads",
            Self::RetriedThreads => "2 threads, retried",
        }
    }
}

impl Shape {
    const ALL: [Self; 3] = [Self::Bare, Self::Static, Self::Ours];

    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Static => "static",
            Self::Ours => "ours",
        }
    }

    /// Sends `rounds` requests and returns the time they took.
    fn run(self, mode: Mode, rounds: u64) -> Duration {
        match mode {
            Mode::Threads => return self.race(Mode::Held, rounds),
            Mode::RetriedThreads => return self.race(Mode::Retried, rounds),
            Mode::Held | Mode::Cloned | Mode::Retried => {}
        }
        let mut requests = self.stack(mode);
        requests(4);
        let start = Instant::now();
        requests(rounds);
        start.elapsed()
    }

    /// Does the same on two threads with clones of one stack. Returns the time from the first start to the last end, so that
    /// threads that did not run at the same time do not look as if they had not been in each other's way.
    fn race(self, mode: Mode, rounds: u64) -> Duration {
        let start = std::sync::Arc::new(std::sync::Barrier::new(2));
        let threads = self.stacks(mode, 2).into_iter().map(|mut requests| {
            let start = std::sync::Arc::clone(&start);
            std::thread::spawn(move || {
                requests(4);
                start.wait();
                let start = Instant::now();
                requests(rounds);
                (start, Instant::now())
            })
        });
        let threads: Vec<_> = threads.collect();
        let runs: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("a run")).collect();
        let starts = runs.iter().map(|(start, _)| *start);
        let ends = runs.iter().map(|(_, end)| *end);
        ends.max().zip(starts.min()).map(|(end, start)| end - start).unwrap_or_default()
    }

    fn stack(self, mode: Mode) -> Requests {
        self.stacks(mode, 1).remove(0)
    }

    fn stacks(self, mode: Mode, count: usize) -> Vec<Requests> {
        match self {
            Self::Bare => stacks(mode, count, &Answers, &()),
            Self::Static => stacks(mode, count, &AddAuthorization::bearer(Answers, SECRET), &()),
            Self::Ours => {
                let (cache, runtime) = cache();
                let layer = AuthLayer::for_origin(cache, "https://api.example.com").expect("an origin");
                stacks(mode, count, &layer.layer(Answers), &std::sync::Arc::new(runtime))
            }
        }
    }
}

/// Sends so many requests.
type Requests = Box<dyn FnMut(u64) + Send>;

fn stacks<S, E, F, K>(mode: Mode, count: usize, stack: &S, keep: &K) -> Vec<Requests>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = E> + Clone + Send + 'static,
    S: Service<Request<RequestBody<Body>>, Response = Response<Body>, Error = E, Future = F>
        + Clone
        + Send
        + 'static,
    E: Into<BoxError> + std::fmt::Debug + 'static,
    F: Send + 'static,
    K: Clone + Send + 'static,
{
    let retried = RetryPolicy::default().layer(stack.clone());
    let one = || -> Requests {
        let (mut stack, mut retried, keep) = (stack.clone(), retried.clone(), keep.clone());
        match mode {
            Mode::Held | Mode::Threads => Box::new(move |rounds| {
                let _ = &keep;
                (0..rounds).for_each(|_| held(&mut stack));
            }),
            Mode::Cloned => Box::new(move |rounds| {
                let _ = &keep;
                (0..rounds).for_each(|_| cloned(&stack));
            }),
            Mode::Retried | Mode::RetriedThreads => Box::new(move |rounds| {
                let _ = &keep;
                (0..rounds).for_each(|_| held(&mut retried));
            }),
        }
    };
    (0..count).map(|_| one()).collect()
}

#[inline(never)]
fn held<S, R>(stack: &mut S)
where
    S: Service<Request<Body>, Response = Response<R>>,
    S::Error: std::fmt::Debug,
{
    now(std::future::poll_fn(|context| stack.poll_ready(context))).expect("ready");
    black_box(now(stack.call(request())).expect("an answer"));
}

#[inline(never)]
fn cloned<S, R>(stack: &S)
where
    S: Service<Request<Body>, Response = Response<R>> + Clone,
    S::Error: std::fmt::Debug,
{
    black_box(now(stack.clone().oneshot(request())).expect("an answer"));
}

/// Answers at once.
#[derive(Clone)]
struct Answers;

impl<B> Service<Request<B>> for Answers {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        drop(black_box(request));
        ready(Ok(Response::new(Body::default())))
    }
}

/// A request as cheap as one can be, so that the rest of it hides nothing: every part was parsed before.
fn request() -> Request<Body> {
    static URI: LazyLock<Uri> = LazyLock::new(|| Uri::from_static("https://api.example.com/v2/items/17"));
    let mut request = Request::new(Body::default());
    *request.uri_mut() = URI.clone();
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("hot-path/1"));
    request
}

/// Waits for what makes nobody wait.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the hot path had to wait"),
    }
}

/// A cache that holds a token for an hour, and the runtime in which its timer lives.
fn cache() -> (TokenCache, tokio::runtime::Runtime) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_time().build().expect("a runtime");
    let cache = TokenCache::new(source_fn(|_| async {
        Ok(AccessToken::bearer(SECRET)?.with_lifetime(Duration::from_secs(3600)))
    }));
    runtime.block_on(cache.get()).expect("a token");
    (cache, runtime)
}
