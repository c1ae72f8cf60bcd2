//! What the retry layer costs a request that is not retried: beside the bare service, and beside `tower::retry::Retry`
//! with a policy that clones each request.
//!
//! ```text
//! cargo bench --bench retry                     allocations, memory, instructions and times, each held to its limit
//! cargo bench --bench retry -- --times          the times alone, which mean something on a quiet machine only
//! cargo bench --bench retry -- --instructions   the instructions alone
//! cargo bench --bench retry -- --smoke          allocations and memory alone, in a second
//! ```
//!
//! Every shape makes the same request, as a client makes it, and sends it to a service that reads the body to its end
//! and answers 200. The source of a stream copies each frame out of 16 MiB, as reading a file does. What is held to a limit is what a
//! layer *adds* to the bare service, except where a whole upload is long enough to be compared as such. Instructions are
//! counted by valgrind's callgrind as the difference of two runs of this binary, so that start-up does not count.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark tells the time")]

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::process::{Command, ExitCode};
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, COOKIE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use tower::retry::{Policy, Retry};
use tower::{Layer as _, Service};
use tower_oauth2::RetryPolicy;
use tower_oauth2::retry::RetryOptions;

/// A request that is not retried costs at most so many times the time that tower's layer adds to it.
const MOST_ADDED: f64 = 1.3;
/// And at most so many times the instructions. They are no target: they are what a change for the worse is seen by while
/// the machine is too busy for times. Ours has a budget, a gate and deadlines to look at, tower's has not.
const MOST_INSTRUCTIONS: f64 = 1.5;
/// Beside what the copy of a request with a long header costs, what ours does besides hardly counts.
const MOST_LONG_HEADER: f64 = 1.3;
/// Where no replay can follow, tower's layer has nothing to do, and ours still watches the answer for the gate. That adds at
/// most so much of what tower's adds to an empty request that it clones.
const MOST_NEVER: f64 = 0.7;
/// A long upload takes at most so many times as long as without a retry layer.
const MOST_UPLOAD: f64 = 1.06;
/// It takes at most so much memory more.
const MOST_MEMORY: u64 = 1024 * 1024 + 1024 * 1024 / 10;

/// How many runs the best time is taken of. Each is short, so that some of them meet no other work of the machine.
const RUNS: usize = 100;
const FRAME: usize = 16 * 1024;
const FRAMES: usize = 1024;
/// A cache line.
const LINE: usize = 64;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let misses = match arguments[..] {
        ["--count", case, shape, rounds] => {
            let case = Case::ALL.into_iter().find(|known| known.name() == case).expect("a case");
            let shape = Shape::ALL.into_iter().find(|known| known.name() == shape).expect("a shape");
            let mut requests = case.requests(shape);
            requests(4);
            requests(rounds.parse().expect("a number of rounds"));
            return ExitCode::SUCCESS;
        }
        ["--times"] => times(),
        ["--instructions"] => instructions(),
        ["--smoke"] => memory(),
        _ => [memory(), instructions(), times()].concat(),
    };
    for miss in &misses {
        println!("missed: {miss}");
    }
    println!("retry: misses={}", misses.len());
    if misses.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

// --- What is measured ---

fn memory() -> Vec<String> {
    println!("\nallocations per request, and the most bytes held at a time");
    let mut misses = Vec::new();
    for case in Case::ALL {
        let [bare, tower, ours] = Shape::ALL.map(|shape| {
            let mut requests = case.requests(shape);
            // The first uses set up what later ones find.
            requests(4);
            let rounds = if case.is_upload() { 4 } else { 1_000 };
            let measured = allocation_counter::measure(|| requests(rounds));
            (measured.count_total as f64 / rounds as f64, measured.bytes_max)
        });
        println!(
            "  {:<14} bare {:>6} ({} B)   tower {:>6} ({} B)   ours {:>6} ({} B)",
            case.name(),
            bare.0,
            bare.1,
            tower.0,
            tower.1,
            ours.0,
            ours.1
        );
        if !case.is_upload() && ours.0 > tower.0 {
            misses.push(format!("{}: {} allocations where tower needs {}", case.name(), ours.0, tower.0));
        }
        let more = ours.1.saturating_sub(bare.1);
        if case.is_upload() && more > MOST_MEMORY {
            misses.push(format!("{}: {more} bytes of memory more", case.name()));
        }
    }
    misses
}

fn instructions() -> Vec<String> {
    println!("\ninstructions per request by callgrind");
    let counted = |case: Case| {
        Shape::ALL.map(|shape| {
            let run = |rounds: u64| callgrind(&["--count", case.name(), shape.name(), &rounds.to_string()]);
            let (few, many) = if case.is_upload() { (2, 12) } else { (2_000, 12_000) };
            (run(many) - run(few)) / (many - few) as f64
        })
    };
    judged(counted, "instructions", MOST_INSTRUCTIONS)
}

fn times() -> Vec<String> {
    println!("\nnanoseconds per request (the best of {RUNS} interleaved runs)");
    let timed = |case: Case| {
        let mut best = [f64::INFINITY; 3];
        // The shapes take turns, so that a slow moment of the machine meets all of them; each begins as often as the others,
        // so that none always finds the memory as another left it.
        for run in 0..RUNS {
            let mut turns: Vec<_> = best.iter_mut().zip(Shape::ALL).collect();
            turns.rotate_left(run % Shape::ALL.len());
            for (best, shape) in turns {
                let rounds = if case.is_upload() { 2 } else { 10_000 };
                let mut requests = case.requests(shape);
                requests(1);
                let start = Instant::now();
                requests(rounds);
                *best = best.min(start.elapsed().as_secs_f64() * 1e9 / rounds as f64);
            }
        }
        best
    };
    judged(timed, "nanoseconds", MOST_ADDED)
}

/// Prints a line for each case, and holds what can be held to a limit to it.
fn judged(figures: impl Fn(Case) -> [f64; 3], unit: &str, most_added: f64) -> Vec<String> {
    let mut misses = Vec::new();
    let mut a_clone = 0.0;
    for case in Case::ALL {
        let [bare, tower, ours] = figures(case);
        if case == Case::Empty {
            a_clone = tower - bare;
        }
        print!("  {:<14} bare {bare:>10.0}   tower {tower:>10.0}   ours {ours:>10.0}", case.name());
        let (ratio, most) = if case.is_upload() {
            println!("   x bare {:.3} (tower with a collected body {:.2})", ours / bare, tower / bare);
            (ours / bare, MOST_UPLOAD)
        } else if case == Case::Never {
            let ratio = (ours - bare) / a_clone;
            println!("   added {:.0} and {:.0}: x {ratio:.2} of a clone", tower - bare, ours - bare);
            (ratio, MOST_NEVER)
        } else {
            let ratio = (ours - bare) / (tower - bare);
            println!("   added {:.0} and {:.0}: x {ratio:.2}", tower - bare, ours - bare);
            (ratio, if case == Case::LongHeader { MOST_LONG_HEADER } else { most_added })
        };
        if ratio > most {
            misses.push(format!("{}: {ratio:.3} x the {unit} where {most} x is the limit", case.name()));
        }
    }
    misses
}

/// Runs this binary under callgrind and returns how many instructions it took.
fn callgrind(arguments: &[&str]) -> f64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("this binary has a path"))
        .args(arguments)
        .output()
        .expect("valgrind runs; install it with apt-get install valgrind");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = said.lines().find(|line| line.contains("Collected : ")).expect("callgrind's count");
    line.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a number")
}

// --- Cases and shapes ---

#[derive(Clone, Copy, PartialEq)]
enum Case {
    /// No body.
    Empty,
    /// No body, and a header of 640 bytes, as a cookie or an assertion is one.
    LongHeader,
    /// A small body that was made for this request.
    Json,
    /// 64 KiB that are in memory already, and shared by all requests.
    InMemory,
    /// No replay can follow: tower's policy does not clone, ours is told so in the request.
    Never,
    /// 16 MiB of unknown length.
    Stream,
    /// 16 MiB of a length that is said beforehand.
    Exact,
}

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    /// The service alone.
    Bare,
    /// `tower::retry::Retry`; around a body that is collected before where it cannot be cloned.
    Tower,
    /// This crate.
    Ours,
}

/// Sends so many requests.
type Requests = Box<dyn FnMut(u64)>;

impl Case {
    const ALL: [Self; 7] =
        [Self::Empty, Self::LongHeader, Self::Json, Self::InMemory, Self::Never, Self::Stream, Self::Exact];

    fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::LongHeader => "header-640",
            Self::Json => "json-1k",
            Self::InMemory => "in-memory-64k",
            Self::Never => "never",
            Self::Stream => "stream-16m",
            Self::Exact => "exact-16m",
        }
    }

    fn is_upload(self) -> bool {
        matches!(self, Self::Stream | Self::Exact)
    }

    fn requests(self, shape: Shape) -> Requests {
        match self {
            Self::Empty => in_memory(shape, || request(Method::GET, Full::default())),
            Self::LongHeader => in_memory(shape, || {
                let mut request = request(Method::GET, Full::default());
                let value = HeaderValue::try_from(vec![b'7'; 640]).expect("digits");
                request.headers_mut().insert(COOKIE, value);
                request
            }),
            Self::Json => in_memory(shape, || request(Method::PUT, Full::from(vec![b'7'; 1024]))),
            Self::InMemory => in_memory(shape, || {
                static BODY: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![b'7'; 64 * 1024]));
                request(Method::PUT, Full::new(BODY.clone()))
            }),
            Self::Never => in_memory(shape, || {
                let mut request = request(Method::GET, Full::default());
                request.extensions_mut().insert(RetryOptions::never());
                request
            }),
            Self::Stream => upload(shape, || request(Method::PUT, Chunks { left: FRAMES, exact: false })),
            Self::Exact => upload(shape, || request(Method::PUT, Chunks { left: FRAMES, exact: true })),
        }
    }
}

impl Shape {
    const ALL: [Self; 3] = [Self::Bare, Self::Tower, Self::Ours];

    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Tower => "tower",
            Self::Ours => "ours",
        }
    }
}

fn in_memory(shape: Shape, make: fn() -> Request<Full<Bytes>>) -> Requests {
    match shape {
        Shape::Bare => sending(Reads, make),
        Shape::Tower => sending(Retry::new(Cloning { retries: 3 }, Reads), make),
        Shape::Ours => sending(RetryPolicy::default().layer(Reads), make),
    }
}

fn upload(shape: Shape, make: fn() -> Request<Chunks>) -> Requests {
    match shape {
        Shape::Bare => sending(Reads, make),
        Shape::Tower => sending(Retry::new(Cloning { retries: 3 }, Reads), move || {
            let (head, body) = make().into_parts();
            let collected = now(body.collect()).expect("a body that does not fail");
            Request::from_parts(head, Full::new(collected.to_bytes()))
        }),
        Shape::Ours => sending(RetryPolicy::default().layer(Reads), make),
    }
}

fn sending<S, B, RB>(mut stack: S, make: impl Fn() -> Request<B> + 'static) -> Requests
where
    S: Service<Request<B>, Response = Response<RB>, Error: std::fmt::Debug> + 'static,
    B: 'static,
{
    Box::new(move |rounds| (0..rounds).for_each(|_| sent(&mut stack, make())))
}

#[inline(never)]
fn sent<S, B, RB>(stack: &mut S, request: Request<B>)
where
    S: Service<Request<B>, Response = Response<RB>, Error: std::fmt::Debug>,
{
    now(std::future::poll_fn(|context| stack.poll_ready(context))).expect("ready");
    black_box(now(stack.call(request)).expect("an answer"));
}

/// A request as clients send them.
fn request<B>(method: Method, body: B) -> Request<B> {
    static URI: LazyLock<Uri> = LazyLock::new(|| Uri::from_static("https://api.example.com/v2/items/17"));
    const TRACE: HeaderName = HeaderName::from_static("traceparent");
    let headers = [
        (HOST, "api.example.com"),
        (ACCEPT, "application/json"),
        (ACCEPT_ENCODING, "gzip, br"),
        (USER_AGENT, "bench/1"),
        (CONTENT_TYPE, "application/json"),
        (TRACE, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = URI.clone();
    *request.headers_mut() = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    request
}

// --- The service, the body, tower's policy ---

/// Reads the request to its end and answers.
#[derive(Clone)]
struct Reads;

impl<B: Body + Unpin> Service<Request<B>> for Reads {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Reading<B>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Reading<B> {
        Reading { request: Some(request) }
    }
}

struct Reading<B> {
    request: Option<Request<B>>,
}

impl<B: Body + Unpin> Future for Reading<B> {
    type Output = Result<Response<Full<Bytes>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let request = self.request.as_mut().expect("polled once");
        // As a connection does: a body that ended before it began is not polled.
        while !request.body().is_end_stream() {
            match Pin::new(request.body_mut()).poll_frame(context) {
                Poll::Ready(Some(frame)) => drop(black_box(frame)),
                Poll::Ready(None) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        self.request = None;
        Poll::Ready(Ok(Response::new(Full::default())))
    }
}

/// Frames that are made one by one.
struct Chunks {
    left: usize,
    exact: bool,
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| vec![b'7'; FRAME * FRAMES]);
        Poll::Ready(self.left.checked_sub(1).map(|left| {
            self.left = left;
            // Each frame begins on a cache line: how fast a copy is must not depend on where the allocator puts it.
            let mut frame = BytesMut::with_capacity(FRAME + LINE);
            frame.resize(frame.as_ptr().align_offset(LINE), 0);
            let padding = frame.len();
            frame.extend_from_slice(&FILE[left * FRAME..][..FRAME]);
            Ok(Frame::data(frame.freeze().slice(padding..)))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        if self.exact { SizeHint::with_exact((self.left * FRAME) as u64) } else { SizeHint::default() }
    }
}

/// What one writes for tower's layer: it clones whole requests, and looks at the status.
#[derive(Clone)]
struct Cloning {
    retries: u32,
}

impl<B: Clone, RB, E> Policy<Request<B>, Response<RB>, E> for Cloning {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Request<B>, result: &mut Result<Response<RB>, E>) -> Option<Ready<()>> {
        let again = result.as_ref().is_ok_and(|response| {
            matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
        });
        self.retries = self.retries.checked_sub(1).filter(|_| again)?;
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        request.extensions().get::<RetryOptions>().is_none().then(|| request.clone())
    }
}

/// Waits for what makes nobody wait.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the bench had to wait"),
    }
}
