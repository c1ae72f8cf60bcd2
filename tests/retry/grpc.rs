//! gRPC: the status comes in the headers, or in the trailers after no data at all, or after data.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::time::Instant;
use tower::{BoxError, Layer as _, ServiceBuilder, ServiceExt as _};
use tower_oauth2::auth::AuthLayer;
use tower_oauth2::extensions::RejectionVerdict;
use tower_oauth2::retry::{
    NotReplayable, ReplayReason, RequestBody, ResponseBody, RetryOptions, RetryReport, StopReason,
};
use tower_oauth2::test_util::{Probe, Script, ScriptedResponse, reply};
use tower_oauth2::{AccessToken, Error, ErrorKind, RetryPolicy, TokenCache, source_fn};

use super::vectors::rows;
use super::{not_replayable, post, report, send, too_much};

const MS: Duration = Duration::from_millis(1);

/// What comes of a body at each poll; after the last it has ended.
enum Turn {
    Data(&'static str),
    Trailers(HeaderMap),
    Wait,
    Break,
}

/// The body of an answer, which counts how often it is polled.
struct Turns {
    turns: VecDeque<Turn>,
    polls: Arc<AtomicUsize>,
}

impl Body for Turns {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.polls.fetch_add(1, Ordering::SeqCst);
        match self.turns.pop_front() {
            None => Poll::Ready(None),
            Some(Turn::Data(data)) => Poll::Ready(Some(Ok(Frame::data(Bytes::from(data))))),
            Some(Turn::Trailers(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Some(Turn::Break) => Poll::Ready(Some(Err("the stream was reset".into()))),
            Some(Turn::Wait) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

/// A server that answers calls by script, and afterwards with one message and an OK.
#[derive(Clone, Default)]
struct Server {
    answers: Arc<Mutex<VecDeque<Response<Turns>>>>,
    polls: Arc<AtomicUsize>,
    calls: Arc<Mutex<Vec<Call>>>,
}

/// A call as the server saw it.
struct Call {
    at: Instant,
    token: Option<String>,
}

type Api<B> = Probe<Request<RequestBody<B>>, Response<Turns>>;

impl Server {
    fn answer(self, headers: &[(&'static str, &str)], turns: impl IntoIterator<Item = Turn>) -> Self {
        let mut response = self.call(turns);
        response.headers_mut().extend(map(headers));
        self.answers.lock().unwrap().push_back(response);
        self
    }

    /// An answer that ends with these trailers, without data.
    fn trailers(self, trailers: &[(&'static str, &str)]) -> Self {
        self.answer(&[], [Turn::Trailers(map(trailers))])
    }

    fn call(&self, turns: impl IntoIterator<Item = Turn>) -> Response<Turns> {
        let body = Turns { turns: turns.into_iter().collect(), polls: Arc::clone(&self.polls) };
        let mut response = Response::new(body);
        *response.version_mut() = Version::HTTP_2;
        response.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
        response
    }

    #[allow(clippy::disallowed_methods, reason = "tests look at the paused clock")]
    fn probe<B>(&self) -> Api<B>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let server = self.clone();
        Probe::new(move |request: Request<RequestBody<B>>| {
            let token = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
            server.calls.lock().unwrap().push(Call { at: Instant::now(), token });
            let next = server.answers.lock().unwrap().pop_front();
            let ok = || server.call([Turn::Data("message"), Turn::Trailers(map(&[("grpc-status", "0")]))]);
            let response = next.unwrap_or_else(ok);
            async {
                request.into_body().collect().await?;
                Ok(response)
            }
        })
    }

    async fn send(&self) -> Response<ResponseBody<Turns>> {
        RetryPolicy::default().layer(self.probe()).oneshot(post()).await.unwrap()
    }

    fn polls(&self) -> usize {
        self.polls.load(Ordering::SeqCst)
    }

    fn calls(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    fn tokens(&self) -> Vec<String> {
        self.calls.lock().unwrap().iter().filter_map(|call| call.token.clone()).collect()
    }

    /// How long after the call before each call came.
    fn waits(&self) -> Vec<Duration> {
        let calls = self.calls.lock().unwrap();
        calls.windows(2).map(|pair| pair[1].at - pair[0].at).collect()
    }
}

fn map(headers: &[(&'static str, &str)]) -> HeaderMap {
    headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

/// Reads an answer to its end: its data, and its `grpc-status`.
async fn read(response: Response<ResponseBody<Turns>>) -> (String, Option<String>) {
    let in_head = response.headers().get("grpc-status").cloned();
    let whole = response.into_body().collect().await.unwrap();
    let in_trailers = whole.trailers().and_then(|trailers| trailers.get("grpc-status").cloned());
    let status = in_head.or(in_trailers).map(|status| status.to_str().unwrap().to_owned());
    (String::from_utf8(whole.to_bytes().to_vec()).unwrap(), status)
}

fn served() -> (String, Option<String>) {
    ("message".to_owned(), Some("0".to_owned()))
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_server_had_no_time_for_is_made_again_wherever_it_says_so() {
    let busy = [("grpc-status", "14")];
    for server in [Server::default().answer(&busy, []), Server::default().trailers(&busy)] {
        let response = server.send().await;
        let told = report(&response).clone();
        assert_eq!((told.attempts(), told.stop_reason()), (2, &StopReason::Final));
        assert_eq!(told.history()[0].reason(), ReplayReason::Unavailable);
        assert!(server.waits()[0] >= 250 * MS && server.waits()[0] <= 501 * MS, "{:?}", server.waits());
        assert_eq!(read(response).await, served());
    }
}

#[tokio::test(start_paused = true)]
async fn a_pushback_is_waited_to_the_millisecond() {
    for in_trailers in [false, true] {
        for (millis, wait) in [("0", 0), ("5000", 5_000), ("1", 1)] {
            let pushed = [("grpc-status", "8"), ("grpc-retry-pushback-ms", millis)];
            let server = match in_trailers {
                false => Server::default().answer(&pushed, []),
                true => Server::default().trailers(&pushed),
            };
            let response = server.send().await;
            assert_eq!(server.waits(), [wait * MS]);
            assert_eq!(report(&response).history()[0].requested_delay(), Some(wait * MS));
            assert_eq!(read(response).await, served());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pushback_that_forbids_is_obeyed_and_the_answer_is_whole() {
    for forbids in ["-1", "soon", "4294967296", ""] {
        let pushed = [("grpc-status", "14"), ("grpc-retry-pushback-ms", forbids)];
        let server = Server::default().trailers(&pushed);
        let response = server.send().await;
        assert_eq!(
            (server.calls(), report(&response).stop_reason()),
            (1, &StopReason::DoNotRetry),
            "{forbids}"
        );
        assert_eq!(read(response).await, (String::new(), Some("14".to_owned())));
    }
    let long = [("grpc-status", "14"), ("grpc-retry-pushback-ms", "60001")];
    let server = Server::default().trailers(&long);
    let response = server.send().await;
    assert_eq!(too_much(&response), Some(60_001 * MS));
    assert_eq!(report(&response).requested_delay(), Some(60_001 * MS));
    assert_eq!(read(response).await.1.unwrap(), "14");
}

#[tokio::test(start_paused = true)]
async fn after_a_pushback_the_waits_begin_anew() {
    let busy = [("grpc-status", "14")];
    let pushed = [("grpc-status", "14"), ("grpc-retry-pushback-ms", "20")];
    let server = Server::default().trailers(&busy).trailers(&pushed).trailers(&busy);
    let response = server.send().await;
    let waits = server.waits();
    assert!(waits[0] >= 250 * MS && waits[0] <= 501 * MS, "{waits:?}");
    assert_eq!(waits[1], 20 * MS);
    assert!(waits[2] >= 250 * MS && waits[2] <= 501 * MS, "{waits:?}");
    assert_eq!(read(response).await, served());
    // It raises no limit either.
    let server = (0..9).fold(Server::default(), |server, _| server.trailers(&pushed));
    let response = server.send().await;
    assert_eq!((server.calls(), report(&response).stop_reason()), (4, &StopReason::AttemptsExhausted));
    assert_eq!(read(response).await.1.unwrap(), "14");
}

// --- Looking at the body ---

#[tokio::test(start_paused = true)]
async fn a_stream_that_has_not_begun_is_handed_out_at_once() {
    let server = Server::default().answer(
        &[],
        [
            Turn::Wait,
            Turn::Data("one"),
            Turn::Wait,
            Turn::Data("two"),
            Turn::Trailers(map(&[("grpc-status", "14")])),
        ],
    );
    let response = server.send().await;
    assert_eq!((server.polls(), server.calls()), (1, 1));
    assert!(response.extensions().get::<RetryReport>().is_none());
    assert_eq!(read(response).await, ("onetwo".to_owned(), Some("14".to_owned())));
    assert_eq!(server.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_looked_at_comes_first_and_comes_once() {
    let ok = || Turn::Trailers(map(&[("grpc-status", "0")]));
    for (turns, data) in [
        (vec![Turn::Data("one"), Turn::Data("two"), ok()], "onetwo"),
        (vec![Turn::Data(""), Turn::Data("two"), ok()], "two"),
        (vec![ok()], ""),
    ] {
        let server = Server::default().answer(&[], turns);
        let response = server.send().await;
        assert_eq!(server.polls(), 1);
        assert!(response.extensions().get::<RetryReport>().is_none());
        assert_eq!(read(response).await, (data.to_owned(), Some("0".to_owned())));
    }
    let server = Server::default().answer(&[], [Turn::Break]);
    let error = server.send().await.into_body().collect().await.unwrap_err();
    assert_eq!(error.to_string(), "the stream was reset");
    let server = Server::default().answer(&[], []);
    assert_eq!(read(server.send().await).await, (String::new(), None));
}

#[tokio::test(start_paused = true)]
async fn no_other_body_is_looked_at() {
    let busy = || [Turn::Trailers(map(&[("grpc-status", "14")]))];
    let none = Server::default();
    let mut http1 = none.call(busy());
    *http1.version_mut() = Version::HTTP_11;
    let mut json = none.call(busy());
    json.headers_mut().insert("content-type", "application/json".parse().unwrap());
    let mut said = none.call(busy());
    said.headers_mut().insert("grpc-status", "0".parse().unwrap());
    none.answers.lock().unwrap().extend([http1, json, said]);
    for _ in 0..3 {
        let response = none.send().await;
        assert_eq!(none.polls(), 0);
        drop(response);
    }
    assert_eq!(none.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_streamed_request_is_not_made_again_and_its_answer_is_whole() {
    let server = Server::default().trailers(&[("grpc-status", "14")]);
    let frames = futures_util::stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from("item")))]);
    let request = post().map(|_| StreamBody::new(frames));
    let policy = RetryPolicy::builder().replay_stream_limit(0).build().unwrap();
    let response = policy.layer(server.probe()).oneshot(request).await.unwrap();
    assert!(matches!(report(&response).stop_reason(), StopReason::NotReplayable { .. }));
    assert_eq!(read(response).await, (String::new(), Some("14".to_owned())));
}

// --- What is no answer of gRPC's ---

fn call() -> Request<Full<Bytes>> {
    let mut request = post();
    request.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
    request
}

#[tokio::test(start_paused = true)]
async fn what_a_proxy_answers_to_a_call_counts_as_unavailable() {
    for status in [429, 502, 503, 504] {
        let script = Script::new([ScriptedResponse::Reply(reply(status, "<html>"))]);
        let response = send(&RetryPolicy::default(), &script, call()).await.unwrap();
        assert_eq!((response.status().as_u16(), script.seen().len()), (200, 2), "{status}");
        // It is a wait like any other where the proxy gives a hint.
        let mut hinted = reply(status, "<html>");
        hinted.headers_mut().insert("retry-after", "7".parse().unwrap());
        let (script, start) = (Script::new([ScriptedResponse::Reply(hinted)]), Instant::now());
        send(&RetryPolicy::default(), &script, call()).await.unwrap();
        assert!(script.seen().len() == 2 && start.elapsed() >= 7000 * MS, "{status}");
    }
    for status in [400, 403, 404, 408, 500, 501] {
        let script = Script::new([ScriptedResponse::Reply(reply(status, "<html>"))]);
        let response = send(&RetryPolicy::default(), &script, call()).await.unwrap();
        assert_eq!((response.status().as_u16(), script.seen().len()), (status, 1));
    }
    // A status of gRPC's own decides; so does the caller; and any other POST is not repeated.
    let mut said = reply(503, "");
    *said.version_mut() = Version::HTTP_2;
    said.headers_mut().extend(map(&[("content-type", "application/grpc"), ("grpc-status", "13")]));
    let mut strict = call();
    strict.extensions_mut().insert(RetryOptions::new().strict_methods(true));
    for (answer, request) in [(reply(503, ""), strict), (reply(503, ""), post())] {
        let script = Script::new([ScriptedResponse::Reply(answer)]);
        let response = send(&RetryPolicy::default(), &script, request).await.unwrap();
        assert_eq!((response.status().as_u16(), script.seen().len()), (503, 1));
    }
    let script = Script::new([ScriptedResponse::Reply(said)]);
    let response = send(&RetryPolicy::default(), &script, call()).await.unwrap();
    assert_eq!((response.status().as_u16(), script.seen().len()), (503, 1));
}

#[tokio::test(start_paused = true)]
async fn a_retry_info_is_waited_for() {
    let info = retry_info(7);
    for code in ["8", "14"] {
        let said = [("grpc-status", code), ("grpc-status-details-bin", &info)];
        for server in [Server::default().answer(&said, []), Server::default().trailers(&said)] {
            let response = server.send().await;
            assert_eq!(report(&response).history()[0].requested_delay(), Some(7000 * MS));
            let wait = server.waits()[0];
            assert!(wait >= 7000 * MS && wait <= 7701 * MS, "{wait:?}");
        }
    }
    // The pushback is the server's own word for this call, and one beyond the cap is handed out.
    let said = [("grpc-status", "8"), ("grpc-status-details-bin", &info), ("grpc-retry-pushback-ms", "20")];
    let server = Server::default().trailers(&said);
    server.send().await;
    assert_eq!(server.waits(), [20 * MS]);
    let hour = retry_info(127);
    let server = Server::default().trailers(&[("grpc-status", "8"), ("grpc-status-details-bin", &hour)]);
    let requested = 127_000 * MS;
    assert_eq!(too_much(&server.send().await), Some(requested));
}

#[tokio::test(start_paused = true)]
async fn a_gateway_says_when_to_come_back_as_it_does_without_grpc() {
    for (code, name, value) in [
        ("8", "retry-after", "7"),
        ("14", "retry-after", "7"),
        ("14", "retry-after-ms", "7000"),
        ("8", "x-ratelimit-reset", "7"),
        ("8", "ratelimit", "\"a\";r=0;t=7"),
    ] {
        let said = [("grpc-status", code), (name, value)];
        for server in [Server::default().answer(&said, []), Server::default().trailers(&said)] {
            let response = server.send().await;
            assert_eq!(report(&response).history()[0].requested_delay(), Some(7000 * MS), "{code} {name}");
            let wait = server.waits()[0];
            assert!(wait >= 7000 * MS && wait <= 7701 * MS, "{wait:?}");
        }
    }
    // gRPC's own words count before those, and some forbid it.
    let info = retry_info(3);
    let said = [("grpc-status", "8"), ("grpc-status-details-bin", &info), ("retry-after", "7")];
    let response = Server::default().trailers(&said).send().await;
    assert_eq!(report(&response).history()[0].requested_delay(), Some(3000 * MS));
    let said = [("grpc-status", "14"), ("x-should-retry", "false")];
    let server = Server::default().trailers(&said);
    assert_eq!(report(&server.send().await).stop_reason(), &StopReason::DoNotRetry);
}

#[tokio::test(start_paused = true)]
async fn any_failure_that_says_when_to_come_back_is_no_final_one() {
    let info = retry_info(7);
    let (details, pushback) = (("grpc-status-details-bin", &*info), ("grpc-retry-pushback-ms", "7000"));
    let forbids = ("grpc-retry-pushback-ms", "-1");
    for (code, said, calls) in [
        ("10", vec![details], 2),
        ("4", vec![pushback], 2),
        ("10", vec![details, forbids], 1),
        ("10", vec![], 1),
        ("0", vec![details], 1),
        ("16", vec![details], 1),
    ] {
        let trailers = [&[("grpc-status", code)], &said[..]].concat();
        let server = Server::default().trailers(&trailers);
        let mut request = call();
        request.extensions_mut().insert(RetryOptions::new().repeatable(true));
        RetryPolicy::default().layer(server.probe()).oneshot(request).await.unwrap();
        assert_eq!(server.calls(), calls, "{code} {said:?}");
        assert!(calls == 1 || server.waits()[0] >= 7000 * MS, "{code} {said:?}");
        // The server may have acted, so a call of which nothing is known is not made again.
        let server = Server::default().trailers(&trailers);
        server.send().await;
        assert_eq!(server.calls(), 1, "{code} {said:?}");
    }
}

/// A status whose details say that the call may be made again after so many seconds.
fn retry_info(seconds: u8) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;

    let url = "type.googleapis.com/google.rpc.RetryInfo";
    let mut any = vec![10, u8::try_from(url.len()).unwrap()];
    any.extend_from_slice(url.as_bytes());
    any.extend_from_slice(&[18, 4, 10, 2, 8, seconds]);
    let mut status = vec![8, 8, 26, u8::try_from(any.len()).unwrap()];
    status.extend_from_slice(&any);
    STANDARD_NO_PAD.encode(status)
}

// --- Messages ---

/// A call whose messages come in these frames.
fn in_frames(frames: &[&'static [u8]]) -> Request<impl Body<Data = Bytes, Error = BoxError> + Send + Unpin> {
    let frames: Vec<_> = frames.iter().map(|frame| Ok(Frame::data(Bytes::from_static(frame)))).collect();
    call().map(|_| StreamBody::new(futures_util::stream::iter(frames)))
}

#[tokio::test(start_paused = true)]
async fn a_message_is_one_however_its_frames_are_cut_and_two_are_a_stream() {
    let one: [&[&[u8]]; 5] = [
        &[b"\0\0\0\0\x03abc"],
        &[b"\0\0\0\0\x03", b"abc"],
        &[b"\0\0", b"\0\0\x03a", b"bc"],
        &[b"\0", b"", b"\0\0", b"\0", b"\x03", b"abc"],
        &[b"\0\0\0", b"\0\0"],
    ];
    for frames in one {
        let script = Script::new([ScriptedResponse::Reply(reply(503, ""))]);
        let response = send(&RetryPolicy::default(), &script, in_frames(frames)).await.unwrap();
        let seen = script.seen();
        assert_eq!((response.status().as_u16(), seen.len()), (200, 2), "{frames:?}");
        assert_eq!(seen[1].body, frames.concat());
    }
    let two: [&[&[u8]]; 5] = [
        &[b"\0\0\0\0\x03abc\0\0\0\0\x01d"],
        &[b"\0\0\0\0\x03abc", b"\0\0\0\0\x01d"],
        &[b"\0\0", b"\0\0\x03a", b"bc", b"\0\0\0\0\x01d"],
        &[b"\0\0", b"\0\0\x03abc\0"],
        &[b"\0\0\0", b"\0\0", b"\0\0\0\0\0"],
    ];
    for frames in two {
        let script = Script::new([ScriptedResponse::Reply(reply(429, ""))]);
        let response = send(&RetryPolicy::default(), &script, in_frames(frames)).await.unwrap();
        let cause = NotReplayable::SeveralMessages;
        assert_eq!(not_replayable(&response), Some(cause), "{frames:?}");
        // Also where the length is known.
        let script = Script::new([ScriptedResponse::Reply(reply(429, ""))]);
        let whole = call().map(|_| Full::from(frames.concat()));
        let response = send(&RetryPolicy::default(), &script, whole).await.unwrap();
        assert_eq!(not_replayable(&response), Some(cause), "{frames:?}");
        assert_eq!(script.seen()[0].body, frames.concat());
    }
}

// --- The vectors ---

/// What the whole stack does about the end of a call.
#[tokio::test(start_paused = true)]
async fn every_row_of_grpc_is_decided_as_it_says() {
    let rows = rows("grpc");
    assert_eq!(rows.len(), 16);
    for row in rows {
        let (id, input, expect) = (&row["id"], &row["input"], &row["expect"]);
        let attempt = usize::try_from(input["attempt"].as_u64().unwrap()).unwrap();
        let cache = tokens();
        let mut server = Server::default();
        let client = ServiceBuilder::new()
            .layer(RetryPolicy::default())
            .layer(AuthLayer::for_origin(cache.clone(), "https://api.example.com").unwrap())
            .service(server.probe::<Full<Bytes>>());
        // An API that took the token before; the rows suppose one.
        read(client.clone().oneshot(call()).await.unwrap()).await;
        server.calls.lock().unwrap().clear();
        for _ in 1..attempt {
            server = server.answer(&[("grpc-status", "16")], []);
        }
        let mut said = HeaderMap::new();
        let code = match &input["grpc_status"] {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some(text.clone()),
            number => Some(number.to_string()),
        };
        if let Some(code) = &code {
            said.insert("grpc-status", code.parse().unwrap());
        }
        for pair in input["trailers"].as_array().unwrap() {
            let name: http::HeaderName = pair[0].as_str().unwrap().parse().unwrap();
            said.append(name, pair[1].as_str().unwrap().parse().unwrap());
        }
        let mut response = match (input["in_headers"] == true, input["data_seen"] == true) {
            (true, _) => server.call([]),
            (false, true) => server.call([Turn::Data("part"), Turn::Trailers(said.clone())]),
            (false, false) => server.call([Turn::Trailers(said.clone())]),
        };
        if input["in_headers"] == true {
            response.headers_mut().extend(said);
        }
        let status = u16::try_from(input["http_status"].as_u64().unwrap()).unwrap();
        *response.status_mut() = status.try_into().unwrap();
        server.answers.lock().unwrap().push_back(response);

        read(client.oneshot(call()).await.unwrap()).await;
        let (calls, tokens) = (server.calls(), server.tokens());
        match expect["action"].as_str().unwrap() {
            "refresh_and_replay" => {
                assert_eq!((calls, server.waits()[attempt - 1]), (attempt + 1, Duration::ZERO), "{id}");
                assert_ne!(tokens[attempt - 1], tokens[attempt], "{id}");
            }
            "backoff" => {
                assert_eq!((calls, &tokens[attempt - 1]), (attempt + 1, &tokens[attempt]), "{id}");
                let wait = server.waits()[attempt - 1];
                match &expect["delay_ms"] {
                    serde_json::Value::Null => assert!(wait >= 250 * MS, "{id}: {wait:?}"),
                    millis => assert_eq!(*millis, u64::try_from(wait.as_millis()).unwrap(), "{id}"),
                }
            }
            "pass_through" => assert_eq!(calls, attempt, "{id}"),
            other => panic!("{id}: an action that is not known: {other}"),
        }
        if let Some(invalidate) = expect["invalidate"].as_bool() {
            assert_eq!(cache.peek().is_none(), invalidate, "{id}");
        }
    }
}

// --- Refused tokens ---

/// Tokens `token-1`, `token-2`, and so on.
fn tokens() -> TokenCache {
    let issued = AtomicUsize::new(0);
    TokenCache::new(source_fn(move |_| {
        let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
        std::future::ready(AccessToken::bearer(format!("token-{number}")))
    }))
}

async fn send_with(cache: &TokenCache, server: &Server) -> Response<ResponseBody<Turns>> {
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(cache.clone(), "https://api.example.com").unwrap())
        .service(server.probe::<Full<Bytes>>());
    client.oneshot(post()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_token_refused_in_headers_or_trailers_is_replaced_at_once() {
    let refused = [("grpc-status", "16")];
    for server in [Server::default().answer(&refused, []), Server::default().trailers(&refused)] {
        let cache = tokens();
        let response = send_with(&cache, &server).await;
        assert_eq!(server.tokens(), ["Bearer token-1", "Bearer token-2"]);
        assert_eq!(server.waits(), [Duration::ZERO]);
        assert_eq!(report(&response).history()[0].reason(), ReplayReason::TokenRejected);
        assert_eq!(read(response).await, served());
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_refusal_is_handed_out_with_its_trailers() {
    let refused = [("grpc-status", "16")];
    let server = Server::default().trailers(&refused).trailers(&refused);
    let response = send_with(&tokens(), &server).await;
    let told = report(&response).clone();
    assert_eq!((server.calls(), told.stop_reason()), (2, &StopReason::AuthReplaysExhausted));
    assert_eq!(told.token_rejected().unwrap().verdict(), RejectionVerdict::Invalidated);
    assert_eq!(read(response).await, (String::new(), Some("16".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn after_data_a_refusal_drops_the_token_and_nothing_is_replayed() {
    let refused = || Turn::Trailers(map(&[("grpc-status", "16")]));
    for turns in [vec![Turn::Data("part"), refused()], vec![Turn::Wait, Turn::Data("part"), refused()]] {
        let (cache, server) = (tokens(), Server::default().answer(&[], turns));
        let response = send_with(&cache, &server).await;
        assert!(cache.peek().is_some());
        assert_eq!(read(response).await, ("part".to_owned(), Some("16".to_owned())));
        assert!(cache.peek().is_none());
        assert_eq!(server.calls(), 1);
        read(send_with(&cache, &server).await).await;
        assert_eq!(server.tokens(), ["Bearer token-1", "Bearer token-2"]);
    }
}

#[tokio::test(start_paused = true)]
async fn other_ends_keep_the_token() {
    for code in ["0", "7", "14"] {
        let end = Turn::Trailers(map(&[("grpc-status", code)]));
        let (cache, server) = (tokens(), Server::default().answer(&[], [Turn::Data("part"), end]));
        assert_eq!(read(send_with(&cache, &server).await).await.1.unwrap(), code);
        assert!(cache.peek().is_some(), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_auth_a_refusal_is_an_answer_like_any_other() {
    let server = Server::default().trailers(&[("grpc-status", "16")]);
    let response = server.send().await;
    assert!(response.extensions().get::<RetryReport>().is_none());
    assert_eq!(read(response).await, (String::new(), Some("16".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn without_a_new_token_the_refusal_is_handed_back_with_its_trailers() {
    let issued = AtomicUsize::new(0);
    let cache = TokenCache::new(source_fn(move |_| {
        let token = match issued.fetch_add(1, Ordering::SeqCst) {
            0 => AccessToken::bearer("token-1"),
            _ => Err(Error::new(ErrorKind::Grant, "the client was refused")),
        };
        std::future::ready(token)
    }));
    let server = Server::default().trailers(&[("grpc-status", "16")]);
    let response = send_with(&cache, &server).await;
    assert_eq!((server.calls(), report(&response).stop_reason()), (1, &StopReason::TokenUnavailable));
    assert_eq!(read(response).await, (String::new(), Some("16".to_owned())));
}
