//! Bodies that are opened anew for each further attempt.

use std::future::{pending, ready};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::time::Instant;
use tower::{BoxError, Layer as _, ServiceExt as _};
use tower_oauth2::RetryPolicy;
use tower_oauth2::extensions::Deadline;
use tower_oauth2::retry::{BodyFactory, NotReplayable, ReportSlot, RequestBody, RetryOptions, StopReason};
use tower_oauth2::test_util::{Readiness, Script, ScriptedResponse, reply};

use super::{answers, hinted, report, send, text};

/// More than is recorded of a body of unknown length.
const CHUNKS: usize = 6;
const CHUNK: usize = 16 * 1024;

/// A body of unknown length that is neither `Sync` nor `Unpin` before it is boxed.
fn stream() -> impl Body<Data = Bytes, Error = io::Error> + Send + 'static {
    let chunks = (0..CHUNKS).map(|at| Bytes::from(vec![u8::try_from(at).unwrap(); CHUNK]));
    StreamBody::new(futures_util::stream::iter(chunks.map(|chunk| Ok(Frame::data(chunk)))))
}

fn whole() -> Vec<u8> {
    (0..CHUNKS).flat_map(|at| vec![u8::try_from(at).unwrap(); CHUNK]).collect()
}

/// A request with a factory, and when the factory was called.
fn put(open: impl Fn() -> BodyFactory) -> Request<UnsyncBoxBody<Bytes, io::Error>> {
    Request::put("https://api.example.com/files/1").extension(open()).body(stream().boxed_unsync()).unwrap()
}

fn counted() -> (BodyFactory, Arc<Mutex<Vec<Instant>>>) {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&calls);
    let factory = BodyFactory::new(move || {
        log.lock().unwrap().push(Instant::now());
        ready(Ok::<_, io::Error>(stream()))
    });
    (factory, calls)
}

#[tokio::test(start_paused = true)]
async fn it_is_called_once_for_each_further_attempt_and_after_the_wait() {
    let (factory, calls) = counted();
    let start = Instant::now();
    let script = Script::new([hinted(503, "5"), hinted(429, "7")]);
    let response = send(&RetryPolicy::default(), &script, put(|| factory.clone())).await.unwrap();
    assert_eq!((response.status(), report(&response).attempts()), (StatusCode::OK, 3));
    let seen = script.seen();
    assert!(seen.len() == 3 && seen.iter().all(|seen| seen.body == whole()));
    let opened = calls.lock().unwrap().clone();
    assert_eq!(opened.iter().map(|at| at.into_std()).collect::<Vec<_>>(), [seen[1].at, seen[2].at]);
    assert!(opened[0] >= start + Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn it_is_not_called_if_no_attempt_follows() {
    let too_long = hinted(429, "3600");
    let done = Script::new([ScriptedResponse::Reply(reply(200, ""))]);
    for script in [done, answers(404, 1), Script::new([too_long]), Script::new([ScriptedResponse::Hang])] {
        let (factory, calls) = counted();
        let mut request = put(|| factory.clone());
        request.extensions_mut().insert(Deadline::within(Duration::from_secs(9)));
        let _ = send(&RetryPolicy::default(), &script, request).await;
        assert_eq!((script.seen().len(), calls.lock().unwrap().len()), (1, 0));
    }
    let (factory, calls) = counted();
    let mut request = put(|| factory.clone());
    request.extensions_mut().insert(RetryOptions::never());
    let response = send(&RetryPolicy::default(), &answers(429, 1), request).await.unwrap();
    assert_eq!((response.status().as_u16(), calls.lock().unwrap().len()), (429, 0));
}

#[tokio::test(start_paused = true)]
async fn it_is_called_before_the_service_is_made_ready_so_that_no_permit_is_held_meanwhile() {
    let script = Script::new([hinted(429, "1")]);
    let probe = script.probe_with_permits(1);
    let watched = probe.clone();
    let factory = BodyFactory::new(move || {
        assert_eq!((watched.reserved(), watched.in_flight()), (0, 0));
        ready(Ok::<_, io::Error>(stream()))
    });
    let response = RetryPolicy::default().layer(probe).oneshot(put(|| factory.clone())).await.unwrap();
    assert_eq!((response.status(), script.seen().len()), (StatusCode::OK, 2));
}

#[tokio::test(start_paused = true)]
async fn its_error_hands_out_the_answer_before() {
    let factory = BodyFactory::new(|| ready(Err::<Full<Bytes>, _>(io::Error::other("the file is gone"))));
    let script = Script::new([hinted(429, "2")]);
    let response = send(&RetryPolicy::default(), &script, put(|| factory.clone())).await.unwrap();
    assert_eq!((response.status().as_u16(), script.seen().len()), (429, 1));
    let told = report(&response);
    assert_eq!((told.attempts(), told.stop_reason()), (1, &StopReason::BodyNotReopened));
    assert!(told.history().is_empty());
    assert_eq!(told.error().unwrap().to_string(), "the file is gone");
    assert_eq!(told.requested_delay(), Some(Duration::from_secs(2)));
    assert_eq!(text(response).await, "the server's own words");
}

#[tokio::test(start_paused = true)]
async fn it_has_as_long_as_the_request() {
    let factory = BodyFactory::new(pending::<io::Result<Full<Bytes>>>);
    for (deadline, seconds) in [(Some(10), 10..11), (None, 120..121)] {
        let start = Instant::now();
        let script = Script::new([hinted(429, "2")]);
        let mut request = put(|| factory.clone());
        if let Some(seconds) = deadline {
            request.extensions_mut().insert(Deadline::within(Duration::from_secs(seconds)));
        }
        let response = send(&RetryPolicy::default(), &script, request).await.unwrap();
        assert!(seconds.contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        let told = report(&response);
        assert_eq!((response.status().as_u16(), told.stop_reason()), (429, &StopReason::BodyNotReopened));
        assert_eq!(text(response).await, "the server's own words");
    }
}

#[tokio::test(start_paused = true)]
async fn what_it_opened_goes_with_the_request_if_the_service_is_never_ready() {
    let open = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&open);
    let factory = BodyFactory::new(move || {
        let held = Arc::clone(&count);
        held.fetch_add(1, Ordering::SeqCst);
        ready(Ok::<_, io::Error>(Full::from("again").map_frame(move |frame| {
            let _ = &held;
            frame
        })))
    });
    let script = answers(429, 1);
    let probe = script.probe().readiness([Readiness::Ready, Readiness::Never]);
    let mut request = put(|| factory.clone());
    request.extensions_mut().insert(Deadline::within(Duration::from_secs(5)));
    drop(factory);
    let response = RetryPolicy::default().layer(probe).oneshot(request).await.unwrap();
    assert_eq!(report(&response).stop_reason(), &StopReason::NotReady);
    // What the server noted has the factory in its extensions.
    drop(script.seen());
    assert_eq!((open.load(Ordering::SeqCst), Arc::strong_count(&open)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_body_of_another_length_than_the_header_says_is_not_sent() {
    for (length, sends) in [("5", 2), ("4", 1), ("6", 1)] {
        let factory = BodyFactory::new(|| ready(Ok::<_, io::Error>(Full::<Bytes>::from("again"))));
        let request = Request::put("https://api.example.com/files/1")
            .header("content-length", length)
            .extension(factory)
            .body(Full::<Bytes>::from("first"))
            .unwrap();
        let script = answers(429, 1);
        let response = send(&RetryPolicy::default(), &script, request).await.unwrap();
        let seen = script.seen();
        assert_eq!(seen.len(), sends);
        match sends {
            2 => assert_eq!(seen[1].body, "again"),
            _ => assert_eq!(report(&response).stop_reason(), &StopReason::BodyNotReopened),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_body_that_failed_is_not_replaced() {
    let slot = ReportSlot::new();
    let (factory, calls) = counted();
    let frames = [Ok(Frame::data(Bytes::from("one "))), Err(io::Error::other("the disk is gone"))];
    let mut request = put(|| factory.clone());
    request.extensions_mut().insert(RetryOptions::new().report_to(&slot));
    let request = request.map(|_| StreamBody::new(futures_util::stream::iter(frames)));
    let error = send(&RetryPolicy::default(), &answers(503, 1), request).await.unwrap_err();
    assert_eq!((error.to_string(), calls.lock().unwrap().len()), ("the disk is gone".to_owned(), 0));
    let told = slot.take().unwrap();
    let StopReason::NotReplayable { cause, .. } = told.stop_reason() else { panic!("{told:?}") };
    assert_eq!(*cause, NotReplayable::SourceFailed);
}

#[tokio::test(start_paused = true)]
async fn the_attempt_before_ends_in_an_error_and_is_woken_for_it() {
    let (factory, calls) = counted();
    // The server answers early, and goes on reading; the source keeps it waiting.
    let read = Arc::new(Mutex::new(Vec::new()));
    let (log, tries) = (Arc::clone(&read), Arc::new(AtomicUsize::new(0)));
    let service = tower::service_fn(move |request: Request<RequestBody<UnsyncBoxBody<Bytes, io::Error>>>| {
        let (log, first) = (Arc::clone(&log), tries.fetch_add(1, Ordering::SeqCst) == 0);
        async move {
            let body = request.into_body();
            let read = tokio::spawn(async move {
                let outcome = match body.collect().await {
                    Ok(collected) => Ok(collected.to_bytes().len()),
                    Err(error) => Err(error.to_string()),
                };
                log.lock().unwrap().push(outcome);
            });
            if !first {
                read.await.unwrap();
            }
            Ok::<_, BoxError>(reply(if first { 429 } else { 200 }, ""))
        }
    });
    let request = put(|| factory.clone()).map(|_| {
        use futures_util::StreamExt as _;
        let first = futures_util::stream::iter([Ok::<_, io::Error>(Frame::data(Bytes::from("one")))]);
        StreamBody::new(first.chain(futures_util::stream::pending())).boxed_unsync()
    });
    let response = RetryPolicy::default().layer(service).oneshot(request).await.unwrap();
    assert_eq!((response.status(), calls.lock().unwrap().len()), (StatusCode::OK, 1));
    let read = read.lock().unwrap().clone();
    assert!(matches!(&read[0], Err(error) if error.contains("newer attempt")), "{read:?}");
    assert_eq!(read[1], Ok(CHUNKS * CHUNK));
}

/// A body of two frames that says how long it is, or not.
fn of_length(bytes: usize, known: bool) -> UnsyncBoxBody<Bytes, BoxError> {
    let data = Bytes::from(vec![b'x'; bytes]);
    if known {
        return Full::new(data).map_err(Into::into).boxed_unsync();
    }
    let halves = [data.slice(..bytes / 2), data.slice(bytes / 2..)];
    let frames = halves.map(|half| Ok::<_, BoxError>(Frame::data(half)));
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

#[tokio::test(start_paused = true)]
async fn a_reopened_body_of_another_length_than_the_first_is_never_sent_as_if_whole() {
    for (bytes, known) in [(60, true), (140, true), (60, false), (140, false), (0, true), (0, false)] {
        let factory = BodyFactory::new(move || ready(Ok::<_, BoxError>(of_length(bytes, known))));
        let request = Request::put("https://api.example.com/files/1").extension(factory);
        let request = request.body(of_length(100, true)).unwrap();
        let script = Script::new([hinted(503, "1")]);
        let slot = ReportSlot::new();
        let mut request = request;
        request.extensions_mut().insert(RetryOptions::new().report_to(&slot));
        let outcome = send(&RetryPolicy::default(), &script, request).await;
        // What the server got of it broke off, if it got anything.
        assert_eq!(script.seen().len(), 1, "{bytes} {known}");
        match known {
            true => {
                assert_eq!(outcome.unwrap().status().as_u16(), 503);
                assert_eq!(slot.take().unwrap().stop_reason(), &StopReason::BodyNotReopened);
            }
            false => assert!(outcome.unwrap_err().to_string().contains("than the first one")),
        }
    }
    // The same length is the same body, whether it says so or not, and it is framed as before.
    for known in [true, false] {
        let factory = BodyFactory::new(move || ready(Ok::<_, BoxError>(of_length(100, known))));
        let request = Request::put("https://api.example.com/files/1").extension(factory);
        let request = request.body(of_length(100, true)).unwrap();
        let script = Script::new([hinted(503, "1")]);
        let response = send(&RetryPolicy::default(), &script, request).await.unwrap();
        assert_eq!((response.status(), script.seen()[1].body.len()), (StatusCode::OK, 100));
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_body_of_unknown_length_counts_as_long_as_it_was() {
    for (bytes, known, sends) in
        [(60, true, 1), (140, true, 1), (60, false, 1), (140, false, 1), (100, true, 3), (100, false, 3)]
    {
        let factory = BodyFactory::new(move || ready(Ok::<_, BoxError>(of_length(bytes, known))));
        let request = Request::put("https://api.example.com/files/1").extension(factory);
        let script = Script::new([hinted(503, "1"), hinted(503, "1")]);
        let outcome =
            send(&RetryPolicy::default(), &script, request.body(of_length(100, false)).unwrap()).await;
        assert_eq!(script.seen().len(), sends, "{bytes} {known}");
        match outcome {
            Ok(response) if sends == 3 => assert_eq!(response.status(), StatusCode::OK),
            Ok(response) => assert_eq!(report(&response).stop_reason(), &StopReason::BodyNotReopened),
            Err(error) => assert!(!known && error.to_string().contains("than the first one"), "{error}"),
        }
    }
}
