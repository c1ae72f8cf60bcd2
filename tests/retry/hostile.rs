//! What must not be got out of the layer: half a body, a wait that was meant for others, a thread that waits for itself.

use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tokio::runtime::Builder;
use tokio::time::Instant;
use tower::{BoxError, Layer as _, ServiceBuilder, ServiceExt as _};
use tower_oauth2::RetryPolicy;
use tower_oauth2::retry::{NotReplayable, RequestBody, RetryGate};
use tower_oauth2::test_util::{Script, ScriptedResponse, reply};

use super::{answers, get, hinted, not_replayable, send};

/// A body that gives other frames than it announces.
struct Lying {
    announced: u64,
    frames: Vec<&'static str>,
    /// It says with the last frame that it is over, and not only afterwards.
    says_so: bool,
}

impl Body for Lying {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.frames.is_empty() {
            return Poll::Ready(None);
        }
        let data = self.frames.remove(0);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(data.as_bytes())))))
    }

    fn is_end_stream(&self) -> bool {
        self.says_so && self.frames.is_empty()
    }

    /// It does not count down either.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.announced)
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_not_as_long_as_announced_is_not_sent_again_as_if_it_were_whole() {
    for frames in [&["one"][..], &["one", "two"], &["more than", "is announced"]] {
        for says_so in [false, true] {
            let body = Lying { announced: 9, frames: frames.to_vec(), says_so };
            let request = Request::put("https://api.example.com/items/1").body(body).unwrap();
            let script = answers(503, 1);
            let outcome = send(&RetryPolicy::default(), &script, request).await;
            assert!(script.seen().len() <= 1, "{frames:?} {says_so}");
            if let Ok(response) = outcome {
                let cause = NotReplayable::SourceFailed;
                assert_eq!(not_replayable(&response), Some(cause), "{frames:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_count_down_announces_the_same_length_each_time() {
    let body = Lying { announced: 6, frames: vec!["one", "two"], says_so: false };
    let request = Request::put("https://api.example.com/items/1").body(body).unwrap();
    // The answer comes after the first frame.
    let script = Script::new([ScriptedResponse::Stalled(reply(503, ""))]);
    let lengths = Arc::new(Mutex::new(Vec::new()));
    let (inner, seen) = (script.probe(), lengths.clone());
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .map_request(move |request: Request<_>| {
            seen.lock().unwrap().push(Body::size_hint(request.body()).exact());
            request
        })
        .service(inner);
    let response = client.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(*lengths.lock().unwrap(), [Some(6), Some(6)]);
    assert_eq!(script.seen().pop().unwrap().body, "onetwo");
}

#[tokio::test(start_paused = true)]
async fn a_429_closes_the_gate_of_no_other_server_however_the_uri_is_written() {
    let uris = [
        "https://me@one.example.com/",
        "https://me@two.example.com/",
        "https://other@one.example.com/",
        "https://one.example.com:8443/",
        "http://one.example.com/",
        "ws://one.example.com/",
        "ws://two.example.com/",
        "https://one..example.com/",
        "https://two..example.com/",
        "/one",
    ];
    for closed in uris {
        for other in uris.into_iter().filter(|other| *other != closed) {
            let policy = RetryPolicy::default();
            let to = |uri: &str| Request::get(uri).body(Full::<Bytes>::default()).unwrap();
            let refusing = Script::new([hinted(429, "30")]);
            let mut refused = Box::pin(send(&policy, &refusing, to(closed)));
            assert!(futures_util::future::poll_immediate(&mut refused).await.is_none());
            let start = Instant::now();
            send(&policy, &Script::default(), to(other)).await.unwrap();
            assert_eq!(start.elapsed(), Duration::ZERO, "{closed} holds {other}");
            send(&policy, &Script::default(), to(closed)).await.unwrap();
            assert!(start.elapsed() >= Duration::from_secs(30), "{closed}");
        }
    }
}

/// A waker that holds another request, as that of an executor whose tasks are kept by their wakers alone.
struct Keeps<F>(#[allow(dead_code, reason = "it is there to be dropped")] Mutex<Option<F>>);

impl<F: Send> Wake for Keeps<F> {
    fn wake(self: Arc<Self>) {}
}

fn is_pending(request: &mut (impl Future + Unpin), waker: &Waker) -> bool {
    Pin::new(request).poll(&mut Context::from_waker(waker)).is_pending()
}

#[test]
fn a_request_that_goes_with_the_waker_of_another_finds_the_gate_unlocked() {
    let (done, is_done) = mpsc::channel();
    // A thread of its own: should it wait for itself, the test ends nevertheless.
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (policy, server) = (RetryPolicy::default(), Script::new([hinted(429, "30")]));
            let waiting =
                || Box::pin(policy.layer(server.probe::<RequestBody<Full<Bytes>>>()).oneshot(get()));
            let keeper = || {
                let mut kept = waiting();
                assert!(is_pending(&mut kept, Waker::noop()));
                Waker::from(Arc::new(Keeps(Mutex::new(Some(kept)))))
            };
            // The waker is replaced, or leaves with its request.
            let (mut first, mut second, mut third) = (waiting(), waiting(), waiting());
            assert!(is_pending(&mut first, &keeper()));
            assert!(is_pending(&mut first, Waker::noop()));
            assert!(is_pending(&mut second, &keeper()));
            drop(second);
            // Or it has no time left.
            assert!(is_pending(&mut third, &keeper()));
            tokio::time::advance(Duration::from_secs(121)).await;
            let _ = is_pending(&mut third, Waker::noop());
        });
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(10)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_requests_come_to_the_gate_and_go_and_leave_nothing_behind() {
    let gate = RetryGate::new();
    let policy = RetryPolicy::builder().gate(gate.clone()).build().unwrap();
    let server = Script::new([hinted(429, "30")]);
    let client = policy.layer(server.probe::<RequestBody<Full<Bytes>>>());
    let mut sent: Vec<_> = (0..10_000).map(|_| Box::pin(client.clone().oneshot(get()))).collect();
    assert!(sent.iter_mut().all(|request| is_pending(request, Waker::noop())));
    assert_eq!(gate.status()[0].waiting(), 10_000);
    drop(sent);
    assert_eq!(gate.status()[0].waiting(), 0);
}
