//! Which bodies are sent again, and how.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full, StreamBody};
use tower::load_shed::error::Overloaded;
use tower::{BoxError, Layer as _, Service as _, ServiceExt as _};
use tower_oauth2::retry::{NotReplayable, ReportSlot, RetryOptions, StopReason, Unsent};
use tower_oauth2::test_util::{Script, ScriptedResponse, reply};
use tower_oauth2::{Error, ErrorKind, RetryPolicy};

use super::{answers, not_replayable, post, send, text};

/// A body of known length in several frames, with trailers; it counts how often it is polled and panics when it is
/// polled after its end.
struct Frames {
    frames: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    over: bool,
    polled: Arc<AtomicUsize>,
}

impl Frames {
    fn new(frames: &[&'static str]) -> Self {
        let trailers = HeaderMap::from_iter([(
            http::HeaderName::from_static("x-digest"),
            HeaderValue::from_static("abc"),
        )]);

        let frames = frames.iter().map(|frame| Bytes::from_static(frame.as_bytes())).collect();
        Self { frames, trailers: Some(trailers), over: false, polled: Arc::default() }
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        assert!(!this.over, "polled after its end");
        this.polled.fetch_add(1, Ordering::Relaxed);
        let data = this.frames.pop_front().map(Frame::data);
        let frame = data.or_else(|| this.trailers.take().map(Frame::trailers));
        this.over = frame.is_none();
        Poll::Ready(frame.map(Ok))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.frames.iter().map(|frame| u64::try_from(frame.len()).unwrap()).sum())
    }
}

fn put<B>(body: B) -> Request<B> {
    Request::put("https://api.example.com/items/1").body(body).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_body_of_several_frames_is_sent_again_with_its_trailers() {
    let script = answers(503, 3);
    let response =
        send(&RetryPolicy::default(), &script, put(Frames::new(&["one ", "", "three"]))).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let seen = script.seen();
    assert_eq!(seen.len(), 4);
    for seen in seen {
        assert_eq!(seen.body, "one three");
        assert_eq!(seen.trailers.unwrap()["x-digest"], "abc");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_the_first_attempt_did_not_read_is_sent_whole() {
    for unread in 1..=3 {
        let script = Script::new((0..unread).map(|_| ScriptedResponse::Unread(reply(429, ""))));
        send(&RetryPolicy::default(), &script, put(Frames::new(&["one ", "two"]))).await.unwrap();
        assert_eq!(script.seen().pop().unwrap().body, "one two");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_still_being_sent_is_taken_over() {
    for stuck in 1..=3 {
        let body = Frames::new(&["one ", "two"]);
        let polled = Arc::clone(&body.polled);
        let script = Script::new((0..stuck).map(|_| ScriptedResponse::Stalled(reply(429, "early"))));
        let response = send(&RetryPolicy::default(), &script, put(body)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let last = script.seen().pop().unwrap();
        assert_eq!(last.body, "one two");
        assert_eq!(last.trailers.unwrap()["x-digest"], "abc");
        // Each frame was taken from the source once, and the source is gone though the old attempts are still held.
        assert_eq!((Arc::strong_count(&polled), polled.load(Ordering::Relaxed)), (1, 4));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_whose_source_never_goes_on_is_taken_over_too() {
    let first = futures_util::stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from("one")))]);
    let body = StreamBody::new(Box::pin(first.chain(futures_util::stream::pending())));
    let script = Script::new([
        ScriptedResponse::Stalled(reply(429, "")),
        ScriptedResponse::Stalled(reply(200, "whole")),
    ]);
    let response = send(&RetryPolicy::default(), &script, put(body)).await.unwrap();
    assert_eq!(text(response).await, "whole");
    assert!(script.seen().iter().all(|seen| seen.body == "one"));
}

fn stream(frames: &[&'static str]) -> impl Body<Data = Bytes, Error = BoxError> + Send + Unpin + use<> {
    let frames: Vec<_> = frames.iter().map(|text| Ok(Frame::data(Bytes::from(*text)))).collect();
    StreamBody::new(futures_util::stream::iter(frames))
}

#[tokio::test(start_paused = true)]
async fn a_body_of_unknown_length_is_sent_again_if_it_is_short_and_never_emptied() {
    for (bytes, sends) in [(7, 2), (6, 1), (0, 1)] {
        let policy = RetryPolicy::builder().replay_stream_limit(bytes).build().unwrap();
        let script = answers(429, 1);
        let response = send(&policy, &script, put(stream(&["one ", "two"]))).await.unwrap();
        let seen = script.seen();
        assert!(seen.len() == sends && seen.iter().all(|seen| seen.body == "one two"), "up to {bytes} bytes");
        if sends == 1 {
            let cause = NotReplayable::UnknownLength;
            assert_eq!(not_replayable(&response), Some(cause));
            assert_eq!(text(response).await, "the server's own words");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_header_says_how_long_a_stream_is() {
    // As a multipart form above the limit of streams.
    for (announced, limit, sends) in [("7", 7, 2), ("7", 6, 1), ("x", 7, 1)] {
        let policy = RetryPolicy::builder().replay_stream_limit(0).replay_body_limit(limit).build().unwrap();
        let script = answers(429, 1);
        let mut request = put(stream(&["one ", "two"]));
        request.headers_mut().insert("content-length", announced.parse().unwrap());
        let response = send(&policy, &script, request).await.unwrap();
        let seen = script.seen();
        assert!(seen.iter().all(|seen| seen.body == "one two"), "{announced} {limit}");
        assert_eq!(seen.len(), sends, "{announced} {limit}");
        let cause = if announced == "7" { NotReplayable::TooLong } else { NotReplayable::UnknownLength };
        assert_eq!(not_replayable(&response), (sends == 1).then_some(cause));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_may_have_a_limit_of_its_own() {
    for (bytes, sends) in [(7, 2), (6, 1)] {
        let script = answers(429, 1);
        let mut known = put(Frames::new(&["one ", "two"]));
        known.extensions_mut().insert(RetryOptions::new().replay_limit(bytes));
        send(&RetryPolicy::default(), &script, known).await.unwrap();
        assert_eq!(script.seen().len(), sends);

        let script = answers(429, 1);
        let mut unknown = put(stream(&["one ", "two"]));
        unknown.extensions_mut().insert(RetryOptions::new().replay_limit(bytes));
        send(&RetryPolicy::default(), &script, unknown).await.unwrap();
        assert_eq!(script.seen().len(), sends);
    }
}

#[tokio::test(start_paused = true)]
async fn requests_at_once_share_what_may_be_recorded_and_none_is_refused() {
    const FRAME: &str = match std::str::from_utf8(&[b'x'; 200]) {
        Ok(frame) => frame,
        Err(_) => panic!("x is UTF-8"),
    };
    let policy = RetryPolicy::builder().replay_total_limit(1000).build().unwrap();
    let body = || Frames::new(&[FRAME, FRAME]);
    let hanging = Script::new([ScriptedResponse::Hang, ScriptedResponse::Hang]);
    let (one, two) = (send(&policy, &hanging, put(body())), send(&policy, &hanging, put(body())));
    let both = futures_util::future::join(one, two);
    let mut both = Box::pin(tokio::time::timeout(Duration::from_secs(1), both));
    assert!(futures_util::future::poll_immediate(&mut both).await.is_none());

    // A clone of the policy has the same allowance.
    let script = answers(429, 1);
    let response = send(&policy.clone(), &script, put(body())).await.unwrap();
    let seen = script.seen();
    assert_eq!((seen.len(), seen[0].body.len()), (1, 400));
    let cause = NotReplayable::AllowanceExhausted;
    assert_eq!(not_replayable(&response), Some(cause));

    drop(both);
    let script = answers(429, 1);
    assert_eq!(send(&policy, &script, put(body())).await.unwrap().status(), StatusCode::OK);
    assert_eq!(script.seen().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_settable_and_what_is_above_it_is_sent_once() {
    let policy = |bytes| RetryPolicy::builder().replay_body_limit(bytes).build().unwrap();
    for (bytes, sends) in [(4, 2), (3, 1), (0, 1), (u64::MAX, 2)] {
        let script = answers(429, 1);
        let response = send(&policy(bytes), &script, post()).await.unwrap();
        let seen = script.seen();
        assert_eq!(seen.len(), sends, "with a limit of {bytes}");
        assert!(seen.iter().all(|seen| seen.body == "item"));
        if sends == 1 {
            let cause = NotReplayable::TooLong;
            assert_eq!(not_replayable(&response), Some(cause));
        }
    }
    // An empty body is below any limit.
    let script = answers(429, 1);
    send(&policy(0), &script, put(Full::default())).await.unwrap();
    assert_eq!(script.seen().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_ends_the_request_with_its_own_error() {
    let frames = [Ok(Frame::data(Bytes::from("one "))), Err("the disk is gone")];
    let body = StreamBody::new(futures_util::stream::iter(frames.map(|frame| frame.map_err(BoxError::from))));
    let script = answers(429, 9);
    let error = send(&RetryPolicy::default(), &script, put(body)).await.unwrap_err();
    assert_eq!(error.to_string(), "the disk is gone");
    assert!(script.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_request_drops_its_body_in_every_state() {
    // In flight, in the wait, and while nobody is ready.
    for script in [Script::new([ScriptedResponse::Hang]), answers(429, 1)] {
        let body = Frames::new(&["one ", "two"]);
        let polled = Arc::clone(&body.polled);
        let policy = RetryPolicy::default();
        let sent = send(&policy, &script, put(body));
        tokio::time::timeout(Duration::from_millis(100), sent).await.unwrap_err();
        assert_eq!(Arc::strong_count(&polled), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_done_keeps_nothing_though_nobody_drops_it() {
    for script in [Script::default(), answers(429, 1), answers(429, 9)] {
        let body = Frames::new(&["one ", "two"]);
        let polled = Arc::clone(&body.polled);
        let policy = RetryPolicy::default();
        let mut service = policy.layer(script.probe());
        let mut sent = Box::pin(service.ready().await.unwrap().call(put(body)));
        let response = sent.as_mut().await.unwrap();
        assert_eq!(Arc::strong_count(&polled), 1, "{:?}", response.status());
        drop(sent);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_goes_on_after_its_answer_is_left_alone() {
    let body = Frames::new(&["one ", "two"]);
    let polled = Arc::clone(&body.polled);
    let script = Script::new([ScriptedResponse::Stalled(reply(200, "go on"))]);
    let response = send(&RetryPolicy::default(), &script, put(body)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(Arc::strong_count(&polled), 2, "the upload was cut");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "go on");
}

#[tokio::test(start_paused = true)]
async fn what_ended_a_request_body_is_not_taken_for_what_ended_the_request() {
    // A body that is the answer to another request fails as that one did.
    let causes: [fn() -> BoxError; 3] = [
        || Unsent::new("of another request").into(),
        || Error::new(ErrorKind::Config, "of another client").into(),
        || Overloaded::new().into(),
    ];
    for cause in causes {
        let frames = futures_util::stream::iter([Ok(Frame::data(Bytes::from("half"))), Err(cause())]);
        let slot = ReportSlot::new();
        let request = Request::post("https://api.example.com/items")
            .extension(RetryOptions::new().report_to(&slot))
            .body(StreamBody::new(frames))
            .unwrap();
        let script = Script::default();
        let error = send(&RetryPolicy::default(), &script, request).await.unwrap_err();
        assert_eq!(error.to_string(), cause().to_string());
        let report = slot.take().unwrap();
        assert_eq!((report.attempts(), report.stop_reason()), (1, &StopReason::NotIdempotent));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_in_memory_is_sent_again_whatever_its_length_as_far_as_there_is_room() {
    const LARGE: usize = 20 * 1024 * 1024;
    let large = || put(Full::from(vec![b'x'; LARGE]));
    let policy = RetryPolicy::default();
    let script = answers(429, 1);
    assert_eq!(send(&policy, &script, large()).await.unwrap().status(), StatusCode::OK);
    let seen = script.seen();
    assert!(seen.len() == 2 && seen.iter().all(|seen| seen.body.len() == LARGE));

    // Two of them are more than all requests may keep: the second is sent once, as long as the first is there.
    let hanging = Script::new([ScriptedResponse::Hang]);
    let mut first = Box::pin(send(&policy, &hanging, large()));
    assert!(futures_util::future::poll_immediate(&mut first).await.is_none());
    let script = answers(429, 1);
    let response = send(&policy, &script, large()).await.unwrap();
    let seen = script.seen();
    assert_eq!((seen.len(), seen[0].body.len()), (1, LARGE));
    assert_eq!(not_replayable(&response), Some(NotReplayable::AllowanceExhausted));
    drop(first);
    let script = answers(429, 1);
    assert_eq!(send(&policy, &script, large()).await.unwrap().status(), StatusCode::OK);

    // A limit that was set holds, and so it does for what has to be recorded.
    for (bytes, sends) in [(LARGE, 2), (LARGE - 1, 1)] {
        let bytes = u64::try_from(bytes).unwrap();
        let policy = RetryPolicy::builder().replay_body_limit(bytes).build().unwrap();
        let script = answers(429, 1);
        let response = send(&policy, &script, large()).await.unwrap();
        assert_eq!(script.seen().len(), sends);
        assert_eq!(not_replayable(&response), (sends == 1).then_some(NotReplayable::TooLong));
    }
    const HALF: &str = match std::str::from_utf8(&[b'x'; 600 * 1024]) {
        Ok(frame) => frame,
        Err(_) => panic!("x is UTF-8"),
    };
    let script = answers(429, 1);
    let response = send(&policy, &script, put(Frames::new(&[HALF, HALF]))).await.unwrap();
    let seen = script.seen();
    assert_eq!((seen.len(), seen[0].body.len()), (1, 2 * HALF.len()));
    assert_eq!(not_replayable(&response), Some(NotReplayable::TooLong));
}
