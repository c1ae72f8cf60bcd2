//! The paved path: what each layer does where it stands.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "tests look at the paused clock")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::time::Instant;
use tower::{BoxError, ServiceExt as _};
use tower_oauth2::extensions::{Attempt, Deadline};
use tower_oauth2::retry::{
    BodyFactory, Failure, ReportSlot, ResponseBody, RetryOptions, RetryReport, StopReason, TimedOut, Unsent,
};
use tower_oauth2::stack::{Stack, StackBody, StackBuilder};
use tower_oauth2::test_util::{Probe, Script, ScriptedResponse, Seen, reply};
use tower_oauth2::{AccessToken, AuthLayer, Error, ErrorKind, RetryPolicy, source_fn};

type Body = Full<Bytes>;
type Client<B = Body> = Stack<Probe<Request<StackBody<B>>, Response<Full<Bytes>>>>;
type Outcome = Result<Response<ResponseBody<Full<Bytes>>>, BoxError>;

const API: &str = "https://api.example.com";

/// Starts a stack whose tokens are `token-1`, `token-2`, and so on.
fn builder() -> StackBuilder {
    let issued = Arc::new(AtomicUsize::new(0));
    let source = source_fn(move |_| {
        let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
        async move { Ok(AccessToken::bearer(format!("token-{number}"))?.with_lifetime(Duration::from_secs(3600))) }
    });
    Stack::for_base_url(source, API).unwrap()
}

fn over(builder: StackBuilder, script: &Script) -> Client {
    builder.build(script.probe())
}

async fn send(client: &Client, request: Request<Body>) -> Outcome {
    client.clone().oneshot(request).await
}

fn request(method: Method, path: &str, body: &'static str) -> Request<Body> {
    Request::builder().method(method).uri(format!("{API}{path}")).body(Full::from(body)).unwrap()
}

fn get() -> Request<Body> {
    request(Method::GET, "/items", "")
}

fn post() -> Request<Body> {
    request(Method::POST, "/items", "one more")
}

/// Makes an answer with a header.
fn answer(status: u16, name: &'static str, value: &str) -> ScriptedResponse {
    let mut response = reply(status, "the server's own words");
    response.headers_mut().insert(name, value.parse().unwrap());
    ScriptedResponse::Reply(response)
}

fn moved(status: u16, location: &str) -> ScriptedResponse {
    answer(status, "location", location)
}

fn all(seen: &[Seen], name: &str) -> Vec<String> {
    let value = |seen: &Seen| seen.head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    seen.iter().map(|seen| value(seen).unwrap_or_default()).collect()
}

fn assert_shared<T: Clone + Send + Sync + std::fmt::Debug + 'static>(_: &T) {}

#[tokio::test(start_paused = true)]
async fn one_request_id_names_all_hops_and_all_attempts() {
    let script = Script::new([
        answer(401, "www-authenticate", "Bearer error=\"invalid_token\""),
        moved(307, "/elsewhere"),
        answer(503, "retry-after", "1"),
    ]);
    let client = over(builder().request_id(HeaderName::from_static("x-request-id")), &script);
    let response = send(&client, get()).await.unwrap();
    assert_eq!(response.status(), 200);
    let seen = script.seen();
    assert_eq!(
        seen.iter().map(|seen| seen.head.uri.path()).collect::<Vec<_>>(),
        ["/items", "/items", "/elsewhere", "/elsewhere"]
    );
    assert_eq!(
        all(&seen, "authorization"),
        ["Bearer token-1", "Bearer token-2", "Bearer token-2", "Bearer token-2"]
    );
    let ids = all(&seen, "x-request-id");
    assert!(ids[0].len() == 36 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    // A caller finds it in the response, for its own log.
    assert_eq!(response.headers()["x-request-id"], ids[0]);
    // An attempt is counted within its hop.
    let resends =
        seen.iter().map(|seen| seen.head.extensions.get::<Attempt>().map(|attempt| attempt.resend_count()));
    assert_eq!(resends.collect::<Vec<_>>(), [None, Some(1), None, Some(1)]);

    send(&client, get()).await.unwrap();
    assert_ne!(all(&script.seen(), "x-request-id")[0], ids[0]);
    let mut named = get();
    named.headers_mut().insert("x-request-id", "of-the-caller".parse().unwrap());
    send(&client, named).await.unwrap();
    assert_eq!(all(&script.seen(), "x-request-id"), ["of-the-caller"]);
    // Without the option there is no such header.
    send(&over(builder(), &script), get()).await.unwrap();
    assert!(!script.seen()[0].head.headers.contains_key("x-request-id"));
}

#[tokio::test(start_paused = true)]
async fn a_redirect_that_leaves_the_origin_is_handed_out() {
    let targets = [
        "https://elsewhere.example.com/items",
        "https://api.example.com.evil.example/",
        "https://api.example.com:8443/items",
        "https://user@api.example.com/items",
        "http://api.example.com/items",
        "//elsewhere.example.com/items",
        "https://eu.example.com/items",
    ];
    for target in targets {
        for status in [301, 302, 303, 307, 308] {
            let source = source_fn(|_| async { AccessToken::bearer("token") });
            // Even where the target may have tokens.
            let auth =
                AuthLayer::for_origin(source, API).unwrap().allow_origin("https://eu.example.com").unwrap();
            for options in [builder(), Stack::with_auth(auth)] {
                let script = Script::new([moved(status, target)]);
                let response = send(&over(options, &script), get()).await.unwrap();
                assert_eq!(response.status(), status);
                assert_eq!(response.headers()["location"], target);
                assert_eq!(script.seen().len(), 1, "{target}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_redirect_repeats_the_body_or_becomes_a_get_without_one() {
    for (status, method, body) in [
        (301, Method::GET, ""),
        (302, Method::GET, ""),
        (303, Method::GET, ""),
        (307, Method::POST, "one more"),
        (308, Method::POST, "one more"),
    ] {
        let script =
            Script::new([moved(status, "/b?page=2"), moved(status, "https://API.example.com:443/c")]);
        assert_eq!(send(&over(builder(), &script), post()).await.unwrap().status(), 200);
        let seen = script.seen();
        assert_eq!(seen[1].head.uri, "https://api.example.com/b?page=2");
        assert_eq!(seen[2].head.uri.path(), "/c");
        for hop in &seen[1..] {
            assert_eq!((&hop.head.method, &*hop.body), (&method, body.as_bytes()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_about_the_upload_does_not_go_with_the_get_that_it_became() {
    let about_it = [
        ("if-match", "\"v1\""),
        ("if-none-match", "*"),
        ("if-unmodified-since", "Tue, 14 Nov 2023 22:13:20 GMT"),
        ("expect", "100-continue"),
        ("content-type", "text/plain"),
        ("content-language", "en"),
        ("content-digest", "sha-256=:AAAA:"),
        ("digest", "sha-256=AAAA"),
        ("repr-digest", "sha-256=:AAAA:"),
        ("last-modified", "Tue, 14 Nov 2023 22:13:20 GMT"),
        ("trailer", "etag"),
        ("if", "(<urn:uuid:181d4fae-7d8c-11d0-a765-00a0c91e6bf2>)"),
        ("x-goog-if-generation-match", "0"),
        ("x-ms-if-tags", "\"a\"='b'"),
    ];
    let all = about_it.len();
    for (status, method, kept) in [
        (303, Method::PUT, 0),
        (303, Method::POST, 0),
        (302, Method::POST, 0),
        (307, Method::PUT, all),
        (302, Method::PUT, all),
    ] {
        let script = Script::new([moved(status, "/done"), moved(307, "/done/2")]);
        let mut request = request(method, "/items/7", "one more");
        request.headers_mut().insert("accept", "text/plain".parse().unwrap());
        for (name, value) in about_it {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        assert_eq!(send(&over(builder(), &script), request).await.unwrap().status(), 200);
        for hop in &script.seen()[1..] {
            let headers = &hop.head.headers;
            let found = about_it.iter().filter(|(name, _)| headers.contains_key(*name)).count();
            assert_eq!((found, headers["accept"].to_str().unwrap()), (kept, "text/plain"), "{status}");
        }
    }
    // A conditional read stays one.
    let script = Script::new([moved(302, "/elsewhere")]);
    let mut get = get();
    get.headers_mut().insert("if-none-match", "\"v1\"".parse().unwrap());
    send(&over(builder(), &script), get).await.unwrap();
    assert_eq!(script.seen()[1].head.headers["if-none-match"], "\"v1\"");
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_key_is_one_for_all_hops_and_does_not_go_with_a_get() {
    let policy = RetryPolicy::builder().generated_idempotency_keys(true).build().unwrap();
    let lost = ScriptedResponse::Fail("connection reset".into());
    let script = Script::new([lost, moved(307, "/b"), answer(503, "retry-after", "1"), moved(303, "/done")]);
    assert_eq!(send(&over(builder().retry(policy), &script), post()).await.unwrap().status(), 200);
    let keys = all(&script.seen(), "idempotency-key");
    assert!(keys[0].len() == 38 && keys[..4].iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_eq!((keys.len(), &*keys[4]), (5, ""));
    // One of the caller's own is about the POST as well.
    let script = Script::new([moved(303, "/done")]);
    let mut keyed = post();
    keyed.headers_mut().insert("x-idempotency-key", "order-7".parse().unwrap());
    send(&over(builder(), &script), keyed).await.unwrap();
    assert_eq!(all(&script.seen(), "x-idempotency-key"), ["order-7", ""]);
}

#[tokio::test(start_paused = true)]
async fn an_error_behind_a_redirect_does_not_say_that_what_was_done_before_was_not_sent() {
    let lost = || ScriptedResponse::Fail(Unsent::new("connection refused").into());
    let no_token = || ScriptedResponse::Fail(Error::new(ErrorKind::Transient, "no token").into());
    for (status, method, end, done) in [
        (303, Method::POST, lost as fn() -> _, true),
        (303, Method::PUT, lost, true),
        (302, Method::POST, lost, true),
        (303, Method::POST, no_token, true),
        // Whatever these were to do was not done where they were sent first.
        (307, Method::POST, lost, false),
        (302, Method::GET, lost, false),
        (303, Method::OPTIONS, lost, false),
        (303, "QUERY".parse().unwrap(), lost, false),
        (303, "REPORT".parse().unwrap(), lost, false),
    ] {
        for options in [RetryOptions::new(), RetryOptions::never()] {
            let slot = ReportSlot::new();
            let script =
                Script::new([moved(status, "/done"), moved(307, "/done/2"), end(), end(), end(), end()]);
            let mut request = request(method.clone(), "/items", "one more");
            request.extensions_mut().insert(options.report_to(&slot));
            let error = send(&over(builder(), &script), request).await.unwrap_err();
            let (report, unsent) = (slot.take().unwrap(), Failure::of(&*error) == Failure::Unsent);
            assert_eq!((unsent, report.may_have_acted()), (!done, done), "{status}");
            assert_eq!(error.to_string().starts_with("the request was done"), done, "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_behind_a_redirect_tells_a_token_that_is_missing_from_an_api_that_is_away() {
    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    let no_token =
        Error::new(ErrorKind::Transient, "the token endpoint cannot be reached").with_source(refused);
    let script = Script::new([moved(303, "/done"), ScriptedResponse::Fail(no_token.into())]);
    let error = send(&over(builder(), &script), post()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the request was done, and what it was redirected to could not be asked: the token endpoint cannot be reached"
    );
}

#[tokio::test(start_paused = true)]
async fn a_doubt_from_before_a_redirect_is_one_behind_it() {
    let cut = || ScriptedResponse::Fail("connection reset".into());
    let lost = || ScriptedResponse::Fail(Unsent::new("connection refused").into());
    let run = async |method: &str, before: ScriptedResponse, behind: Vec<ScriptedResponse>, hops: usize| {
        let slot = ReportSlot::new();
        let moves = (0..hops).map(|_| moved(307, "/b"));
        let script = Script::new([before].into_iter().chain(moves).chain(behind));
        let mut request = request(method.parse().unwrap(), "/items", "one more");
        request.headers_mut().insert("idempotency-key", "\"k-1\"".parse().unwrap());
        if hops == 1 {
            request.extensions_mut().insert(RetryOptions::new().report_to(&slot));
        }
        let outcome = send(&over(builder(), &script), request).await;
        (outcome, slot.take(), script.seen().len())
    };
    for hops in [1, 2] {
        let behind = || vec![lost(), lost(), lost(), lost()];
        let (outcome, told, _) = run("POST", cut(), behind(), hops).await;
        let error = outcome.unwrap_err();
        assert_eq!(Failure::of(&*error), Failure::Ambiguous, "{error}");
        assert_eq!(
            error.to_string(),
            "the request may have been done, and could not be sent again: connection refused"
        );
        assert!(told.is_none_or(|told| told.may_have_acted()));
        // Without a doubt before, there is none.
        let (outcome, told, _) = run("POST", answer(429, "retry-after", "1"), behind(), hops).await;
        assert_eq!(Failure::of(&*outcome.unwrap_err()), Failure::Unsent);
        assert!(told.is_none_or(|told| !told.may_have_acted()));
        // A conflict is one with our own attempt, and what else comes may be its trace.
        let conflicts = vec![answer(409, "x-a", "b"), answer(409, "x-a", "b")];
        let (outcome, _, sent) = run("POST", cut(), conflicts, hops).await;
        assert_eq!((outcome.unwrap().status().as_u16(), sent), (200, 4 + hops));
        let (outcome, told, sent) = run("DELETE", cut(), vec![answer(404, "x-a", "b")], hops).await;
        let response = outcome.unwrap();
        assert_eq!((response.status().as_u16(), sent), (404, 2 + hops));
        assert!(response.extensions().get::<RetryReport>().unwrap().may_have_acted());
        assert!(told.is_none_or(|told| told.may_have_acted()));
    }
    // A read leaves no doubt behind, and no report of nothing.
    let (outcome, _, _) = run("GET", cut(), vec![], 1).await;
    assert!(outcome.unwrap().extensions().get::<RetryReport>().is_none());
    // Nor does the request that had the slot before.
    let slot = ReportSlot::new();
    for answers in [vec![cut()], vec![moved(307, "/b"), lost(), lost(), lost(), lost()]] {
        let mut request = request(Method::PUT, "/items", "one more");
        request.extensions_mut().insert(RetryOptions::new().report_to(&slot));
        let outcome = send(&over(builder(), &Script::new(answers)), request).await;
        assert!(
            outcome.is_ok_and(|response| response.status() == 200) || !slot.take().unwrap().may_have_acted()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_behind_a_redirect_does_not_make_a_doubt_of_what_was_done() {
    let lost = || ScriptedResponse::Fail(Unsent::new("connection refused").into());
    let busy = answer(503, "retry-after", "1");
    let script =
        Script::new([moved(303, "/done"), busy, moved(307, "/done/2"), lost(), lost(), lost(), lost()]);
    let error = send(&over(builder(), &script), post()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the request was done, and what it was redirected to could not be asked: connection refused"
    );
}

/// Two requests have clones of the same options.
#[tokio::test(start_paused = true)]
async fn a_doubt_of_another_request_with_the_same_slot_is_not_one() {
    let cut = Arc::new(AtomicUsize::new(0));
    let client = builder().build(Probe::new(move |request: Request<StackBody<Body>>| {
        let cut = Arc::clone(&cut);
        async move {
            match request.uri().path() {
                "/slow" => {
                    tokio::time::sleep(Duration::from_secs(20)).await;
                    let mut moved = reply(307, "");
                    moved.headers_mut().insert("location", HeaderValue::from_static("/gone"));
                    Ok(moved)
                }
                "/gone" => Err(Unsent::new("connection refused").into()),
                _ if cut.fetch_add(1, Ordering::SeqCst) == 0 => Err(BoxError::from("connection reset")),
                _ => Ok(reply(200, "")),
            }
        }
    }));
    let options = RetryOptions::new().report_to(&ReportSlot::new());
    let put = |path| {
        let mut request = request(Method::PUT, path, "one more");
        request.extensions_mut().insert(options.clone());
        client.clone().oneshot(request)
    };
    let (slow, quick) = tokio::join!(put("/slow"), put("/quick"));
    assert!(quick.unwrap().extensions().get::<RetryReport>().unwrap().may_have_acted());
    let error = slow.unwrap_err();
    assert_eq!(Failure::of(&*error), Failure::Unsent, "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_became_a_get_stays_one_without_a_body_when_it_is_retried() {
    let script = Script::new([moved(303, "/done"), answer(503, "retry-after", "1")]);
    let client = over(builder(), &script);
    let mut request = post();
    let open = || async { Ok::<_, BoxError>(Full::from("one more")) };
    request.extensions_mut().insert(BodyFactory::new(open));
    assert_eq!(send(&client, request).await.unwrap().status(), 200);
    let seen: Vec<_> = script.seen().into_iter().map(|seen| (seen.head.method, seen.body)).collect();
    let done = (Method::GET, Bytes::new());
    assert_eq!(seen, [(Method::POST, Bytes::from("one more")), done.clone(), done]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_sent_once_and_its_redirect_handed_out() {
    let script = Script::new([moved(307, "/elsewhere"), moved(303, "/elsewhere")]);
    let client = builder().build(script.probe());
    let upload = || {
        let frames = ["one", " ", "more"].map(|data| Ok::<_, BoxError>(Frame::data(Bytes::from(data))));
        Request::post(format!("{API}/items")).body(StreamBody::new(stream::iter(frames))).unwrap()
    };
    let response = client.clone().oneshot(upload()).await.unwrap();
    assert_eq!(response.status(), 307);
    let seen = script.seen();
    assert_eq!((seen.len(), &*seen[0].body), (1, &b"one more"[..]));
    // No body is needed for this one.
    assert_eq!(client.oneshot(upload()).await.unwrap().status(), 200);
    assert_eq!(script.seen()[1].head.method, Method::GET);
}

#[tokio::test(start_paused = true)]
async fn a_redirect_of_an_upload_that_can_be_opened_again_is_followed() {
    let upload = |known: bool| {
        let frames = ["one", " ", "more"].map(|data| Ok::<_, BoxError>(Frame::data(Bytes::from(data))));
        let body = match known {
            true => Full::from("one more").map_err(|never| match never {}).boxed_unsync(),
            false => StreamBody::new(stream::iter(frames)).boxed_unsync(),
        };
        let opened = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&opened);
        let open = move || {
            count.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, BoxError>(Full::from("one more")) }
        };
        let mut request = Request::put(format!("{API}/items")).body(body).unwrap();
        request.extensions_mut().insert(BodyFactory::new(open));
        (request, opened)
    };
    for known in [true, false] {
        for status in [307, 308] {
            // Twice, and with a retry after each hop.
            let script = Script::new([
                moved(status, "/b"),
                answer(503, "retry-after", "1"),
                moved(status, "/c"),
                answer(503, "retry-after", "1"),
            ]);
            let (request, opened) = upload(known);
            let response = builder().build(script.probe()).oneshot(request).await.unwrap();
            assert_eq!(response.status(), 200);
            let seen = script.seen();
            let paths: Vec<_> = seen.iter().map(|seen| seen.head.uri.path()).collect();
            assert_eq!(paths, ["/items", "/b", "/b", "/c", "/c"]);
            assert!(seen.iter().all(|seen| seen.head.method == Method::PUT && &*seen.body == b"one more"));
            assert_eq!(opened.load(Ordering::SeqCst), 4);
        }
        // Without a redirect, and where it becomes a GET, nothing is opened.
        for answers in [vec![], vec![moved(303, "/done")], vec![moved(307, "https://elsewhere.example.com/")]]
        {
            let (request, opened) = upload(known);
            builder().build(Script::new(answers).probe()).oneshot(request).await.unwrap();
            assert_eq!(opened.load(Ordering::SeqCst), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_cannot_be_opened_again_fails_and_is_not_sent_short() {
    let open = || async { Err::<Full<Bytes>, BoxError>("the file is gone".into()) };
    let shorter = || async { Ok::<_, BoxError>(Full::from("one")) };
    for factory in [BodyFactory::new(open), BodyFactory::new(shorter)] {
        let script = Script::new([moved(307, "/b")]);
        let mut request = request(Method::PUT, "/items", "one more");
        request.extensions_mut().insert(factory);
        send(&over(builder(), &script), request).await.unwrap_err();
        assert_eq!(script.seen().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_whose_length_stands_in_a_header_is_not_sent_short_after_a_redirect() {
    let frames = [Ok::<_, BoxError>(Frame::data(Bytes::from("one more")))];
    let shorter = || async {
        let frames = [Ok::<_, BoxError>(Frame::data(Bytes::from("one")))];
        Ok::<_, BoxError>(StreamBody::new(stream::iter(frames)))
    };
    let script = Script::new([moved(308, "/b")]);
    let request = Request::put(format!("{API}/items")).header("content-length", "8");
    let mut request = request.body(StreamBody::new(stream::iter(frames)).boxed_unsync()).unwrap();
    request.extensions_mut().insert(BodyFactory::new(shorter));
    builder().build(script.probe()).oneshot(request).await.unwrap_err();
    assert_eq!(script.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn redirects_have_a_limit_and_can_be_off() {
    let circle = || Script::new((0..20).map(|_| moved(302, "/again")));
    for (options, hops) in [(builder(), 11), (builder().redirects(2), 3), (builder().redirects(0), 1)] {
        let script = circle();
        assert_eq!(send(&over(options, &script), get()).await.unwrap().status(), 302);
        assert_eq!(script.seen().len(), hops);
    }
    let script = circle();
    assert_eq!(send(&over(builder().redirects(0), &script), get()).await.unwrap().status(), 302);
    assert_eq!(script.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn tokens_go_to_the_origin_of_the_base_url() {
    let source = || source_fn(|_| async { AccessToken::bearer("token") });
    for base_url in [API, "https://API.example.com:443/", "https://api.example.com/v2/x?a=/b#c"] {
        let script = Script::default();
        let options = Stack::for_base_url(source(), base_url).unwrap();
        send(&over(options.clone(), &script), get()).await.unwrap();
        assert_eq!(script.seen()[0].head.headers["authorization"], "Bearer token", "{base_url}");
        let elsewhere = Request::get("https://example.com/v2").body(Body::default()).unwrap();
        assert!(send(&over(options, &script), elsewhere).await.is_err(), "{base_url}");
    }
    for wrong in ["http://api.example.com/v2", "api.example.com/v2", "https://user@api.example.com/v2", "/v2"]
    {
        let error = Stack::for_base_url(source(), wrong).unwrap_err();
        assert!(
            error.kind() == ErrorKind::Config && error.to_string().starts_with("the base URL h"),
            "{wrong}: {error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn requests_to_other_origins_are_refused_whatever_the_auth_layer_says() {
    let source = || source_fn(|_| async { AccessToken::bearer("token") });
    for options in [builder(), Stack::with_auth(AuthLayer::for_origin(source(), API).unwrap())] {
        let script = Script::default();
        for uri in ["https://elsewhere.example.com/", "http://api.example.com/", "/items"] {
            let request = Request::get(uri).body(Body::default()).unwrap();
            let error = send(&over(options.clone(), &script), request).await.unwrap_err();
            assert_eq!(error.downcast_ref::<Error>().unwrap().kind(), ErrorKind::Config, "{uri}: {error}");
        }
        assert!(script.seen().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_its_retry_holds_no_permit() {
    let script = Script::new([answer(503, "retry-after", "30")]);
    let client = over(builder().concurrency_limit(1), &script);
    let start = Instant::now();
    let throttled = tokio::spawn({
        let client = client.clone();
        async move { send(&client, get()).await.map(|_| Instant::now()) }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    send(&client, get()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(1));
    assert!(throttled.await.unwrap().unwrap() - start >= Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn the_limit_holds_for_all_clones() {
    let script = Script::new([ScriptedResponse::Hang]);
    let client = over(builder().concurrency_limit(1).attempt_timeout(Duration::from_secs(5)), &script);
    let start = Instant::now();
    let hanging = tokio::spawn({
        let client = client.clone();
        async move { send(&client, post()).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    send(&client, get()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    let error = hanging.await.unwrap().unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(TimedOut::Attempt { .. })), "{error}");
}

#[tokio::test(start_paused = true)]
async fn settings_without_an_end_are_settings_like_any_other() {
    let endless = builder().concurrency_limit(usize::MAX).redirects(u32::MAX);
    let endless = endless.attempt_timeout(Duration::MAX).total_timeout(Duration::MAX);
    let script = Script::new([moved(307, "/b"), answer(503, "retry-after", "1")]);
    assert_eq!(send(&over(endless, &script), post()).await.unwrap().status(), 503);
}

#[tokio::test(start_paused = true)]
async fn a_redirect_that_waits_for_the_limit_keeps_to_the_deadline() {
    let script = Script::new([moved(307, "/b"), ScriptedResponse::Hang]);
    let client = over(builder().concurrency_limit(1), &script);
    let mut hurried = get();
    hurried.extensions_mut().insert(Deadline::within(Duration::from_secs(5)));
    let start = Instant::now();
    let (first, _) = tokio::join!(
        async { (send(&client, hurried).await, start.elapsed()) },
        // It stands at the limit already, and has it for half a minute.
        send(&client, post()),
    );
    assert_eq!(first.0.unwrap_err().downcast_ref(), Some(&TimedOut::Deadline));
    assert_eq!((first.1.as_secs(), script.seen().len()), (5, 2));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_is_no_wait_for_a_token() {
    let slow = source_fn(|_| async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        AccessToken::bearer("token")
    });
    let script = Script::default();
    let options = Stack::for_base_url(slow, API).unwrap().attempt_timeout(Duration::from_secs(5));
    let start = Instant::now();
    assert_eq!(send(&over(options, &script), get()).await.unwrap().status(), 200);
    assert_eq!(start.elapsed(), Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn after_a_last_attempt_that_takes_too_long_the_answer_before_is_handed_out() {
    let hang = || ScriptedResponse::Hang;
    let used_up = StopReason::AttemptsExhausted;
    for (request, answers, stop, acted) in [
        (get(), vec![hang(), answer(503, "x-at", "2"), hang(), hang()], used_up, false),
        // A POST that got no response may have been done.
        (post(), vec![answer(429, "x-at", "1"), hang()], StopReason::NotIdempotent, true),
    ] {
        let script = Script::new(answers);
        let client = over(builder().attempt_timeout(Duration::from_secs(2)), &script);
        let response = send(&client, request).await.unwrap();
        let report = response.extensions().get::<RetryReport>().unwrap();
        assert_eq!((report.stop_reason(), report.may_have_acted()), (&stop, acted));
        assert!(matches!(report.error().unwrap().downcast_ref(), Some(TimedOut::Attempt { .. })));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "the server's own words");
    }
}

#[tokio::test(start_paused = true)]
async fn the_total_time_out_hands_out_the_answer_that_is_there() {
    let busy = || Script::new([answer(429, "retry-after", "30")]);
    let script = busy();
    let client = over(builder().total_timeout(Duration::from_secs(10)), &script);
    let start = Instant::now();
    let response = send(&client, get()).await.unwrap();
    assert_eq!((response.status().as_u16(), start.elapsed()), (429, Duration::ZERO));
    let report = response.extensions().get::<RetryReport>().unwrap();
    assert!(matches!(report.stop_reason(), StopReason::DeadlineTooClose { .. }), "{report:?}");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "the server's own words");

    // Also where an attempt was in flight.
    let script = Script::new([answer(503, "retry-after", "1"), ScriptedResponse::Hang]);
    let client = over(builder().total_timeout(Duration::from_secs(10)), &script);
    let start = Instant::now();
    assert_eq!(send(&client, get()).await.unwrap().status(), 503);
    assert_eq!(start.elapsed().as_secs(), 10);

    // That of the policy is for all hops too.
    let policy = RetryPolicy::builder().total_timeout(Duration::from_secs(50)).build().unwrap();
    let script =
        Script::new([answer(503, "retry-after", "30"), moved(307, "/b"), answer(503, "retry-after", "30")]);
    let start = Instant::now();
    let response = send(&over(builder().retry(policy), &script), get()).await.unwrap();
    assert_eq!((response.status().as_u16(), script.seen().len()), (503, 3));
    assert!(start.elapsed() < Duration::from_secs(32), "{:?}", start.elapsed());

    // The earlier deadline counts.
    for (ours, theirs, sent) in [(10, 60, 1), (60, 10, 1), (60, 90, 2)] {
        let script = busy();
        let client = over(builder().total_timeout(Duration::from_secs(ours)), &script);
        let mut request = get();
        request.extensions_mut().insert(Deadline::within(Duration::from_secs(theirs)));
        send(&client, request).await.unwrap();
        assert_eq!(script.seen().len(), sent, "{ours} {theirs}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stack_is_one_type_to_be_kept_and_cloned() {
    struct Billing {
        http: Client,
    }
    let script = Script::default();
    let billing = Billing {
        http: over(builder().concurrency_limit(4).total_timeout(Duration::from_secs(60)), &script),
    };
    assert_shared(&billing.http);
    let requests = (0..16).map(|_| {
        let client = billing.http.clone();
        tokio::spawn(async move { send(&client, post()).await.unwrap().status() })
    });
    for request in requests.collect::<Vec<_>>() {
        assert_eq!(request.await.unwrap(), 200);
    }
    let seen = script.seen();
    assert!(all(&seen, "authorization").iter().all(|token| token == "Bearer token-1"));
    assert!(seen.iter().all(|seen| seen.body == "one more"));
    assert!(!format!("{:?}", billing.http).contains("token-1"));
}
