//! The layer in other people's stacks.

use std::time::Duration;

use http::{Request, Response};
use tower::load_shed::error::Overloaded;
use tower::timeout::error::Elapsed;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer as _, Service as _, ServiceBuilder, ServiceExt as _};
use tower_http::request_id::{MakeRequestUuid, SetRequestIdLayer};
use tower_http::trace::{DefaultMakeSpan, DefaultOnRequest, DefaultOnResponse, TraceLayer};
use tower_oauth2::retry::{ResponseBody, StopReason};
use tower_oauth2::test_util::{Script, ScriptedResponse, reply};
use tower_oauth2::{Error, ErrorKind, RetryPolicy};
use tracing::Level;

use super::fixture::{Body, Issuer, Log, challenged, item, tokens};

const SECOND: Duration = Duration::from_secs(1);
const INVALID: &str = "Bearer error=invalid_token";

#[tokio::test(start_paused = true)]
async fn over_a_buffer_a_limit_and_a_time_out() {
    let script = Script::default();
    let client = ServiceBuilder::new()
        .layer(Issuer::new("token").latency(SECOND * 5).layer())
        .buffer(2)
        .concurrency_limit(2)
        .timeout(SECOND)
        .service(script.probe::<Body>());
    let requests = (0..50).map(|_| client.clone().oneshot(item()));
    for response in futures_util::future::join_all(requests.collect::<Vec<_>>()).await {
        assert_eq!(response.unwrap().status(), 200);
    }
    assert_eq!(tokens(&script), ["Bearer token-1"; 50]);
}

#[tokio::test(start_paused = true)]
async fn inside_a_buffer_a_limit_and_a_shed() {
    let script = Script::default();
    let client = ServiceBuilder::new()
        .load_shed()
        .buffer(100)
        .concurrency_limit(10)
        .layer(Issuer::new("token").latency(SECOND).layer())
        .service(script.probe::<Body>());
    let requests = (0..50).map(|_| client.clone().oneshot(item()));
    for response in futures_util::future::join_all(requests.collect::<Vec<_>>()).await {
        assert_eq!(response.unwrap().status(), 200);
    }
    assert_eq!(script.seen().len(), 50);
}

#[tokio::test(start_paused = true)]
async fn over_a_shed_a_busy_service_is_overloaded_and_not_asked_unready() {
    let script = Script::new([ScriptedResponse::Hang]);
    let probe = script.probe_with_permits::<Body>(1);
    let mut client = ServiceBuilder::new()
        .layer(Issuer::new("token").latency(SECOND).layer())
        .load_shed()
        .service(probe.clone());
    // The first waits for its token; the second is called with it and hangs.
    let first = client.ready().await.unwrap().call(item());
    let hanging = tokio::spawn({
        let client = client.clone();
        async move {
            tokio::time::sleep(SECOND).await;
            client.oneshot(item()).await
        }
    });
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(probe.in_flight(), 1);
    assert!(first.await.unwrap_err().is::<Overloaded>());
    hanging.abort();
    hanging.await.unwrap_err();
    assert_eq!((probe.reserved(), probe.in_flight()), (0, 0));
    assert_eq!(client.oneshot(item()).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_time_out_inside_is_for_the_attempt_and_one_outside_for_the_whole() {
    let issuer = Issuer::new("token").latency(SECOND * 10);
    let script = Script::default();
    // The wait for a token is no part of the attempt.
    let inside = ServiceBuilder::new().layer(issuer.layer()).timeout(SECOND).service(script.probe::<Body>());
    assert_eq!(inside.oneshot(item()).await.unwrap().status(), 200);
    let outside = ServiceBuilder::new().timeout(SECOND).layer(issuer.layer()).service(script.probe::<Body>());
    assert!(outside.clone().oneshot(item()).await.unwrap_err().is::<Elapsed>());
    // What was given up by one is there for the next.
    tokio::time::sleep(SECOND * 10).await;
    assert_eq!(outside.oneshot(item()).await.unwrap().status(), 200);
    assert_eq!(tokens(&script), ["Bearer token-1", "Bearer token-2"]);
}

#[tokio::test(start_paused = true)]
async fn behind_and_over_one_erased_type() {
    type Erased = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;
    let script = Script::new([challenged(INVALID)]);
    let inner: Erased = BoxCloneSyncService::new(script.probe::<Body>());
    let mut erased: Erased = BoxCloneSyncService::new(Issuer::new("token").layer().layer(inner));
    for _ in 0..3 {
        erased.ready().await.unwrap().call(item()).await.unwrap();
    }
    assert_eq!(tokens(&script), ["Bearer token-1", "Bearer token-2", "Bearer token-2"]);
}

#[tokio::test(start_paused = true)]
async fn one_layer_makes_services_that_share_the_token() {
    let (one, other) = (Script::default(), Script::default());
    let issuer = Issuer::new("token");
    let layer = issuer.layer();
    layer.layer(one.probe::<Body>()).oneshot(item()).await.unwrap();
    layer.clone().layer(other.probe::<Body>()).oneshot(item()).await.unwrap();
    assert_eq!(
        (tokens(&one), tokens(&other)),
        (vec!["Bearer token-1".to_owned()], vec!["Bearer token-1".to_owned()])
    );
    assert_eq!(issuer.issued(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_trace_on_either_side_sees_no_secret() {
    fn trace()
    -> TraceLayer<tower_http::classify::SharedClassifier<tower_http::classify::ServerErrorsAsFailures>> {
        TraceLayer::new_for_http()
    }
    macro_rules! talkative {
        () => {
            trace()
                .make_span_with(DefaultMakeSpan::new().level(Level::INFO).include_headers(true))
                .on_request(DefaultOnRequest::new().level(Level::INFO))
                .on_response(DefaultOnResponse::new().level(Level::INFO).include_headers(true))
        };
    }
    let (log, _guard) = Log::from(Level::TRACE);
    let script =
        Script::new([challenged("Bearer error=invalid_token, error_description=\"token-1 has ended\"")]);
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(talkative!())
        .layer(Issuer::new("token").layer())
        .layer(talkative!())
        .service(script.probe());
    assert_eq!(client.oneshot(item()).await.unwrap().status(), 200);
    let text = log.text();
    assert_eq!(tokens(&script), ["Bearer token-1", "Bearer token-2"]);
    // The challenge's own words are what the server sent, and shown by tower-http as they came; everything else is ours.
    let ours: Vec<_> = text.lines().filter(|line| !line.contains("tower_http::trace::on_response")).collect();
    assert!(ours.len() < text.lines().count() && ours.len() > 4, "{text}");
    for line in ours {
        assert!(!line.contains("token-1") && !line.contains("token-2"), "{line}");
    }
    assert!(text.contains("\"authorization\": Sensitive"), "{text}");
    assert!(text.contains("an API refused a token"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_request_id_is_kept_over_replays() {
    let script = Script::new([challenged(INVALID), ScriptedResponse::Reply(reply(503, ""))]);
    let client = ServiceBuilder::new()
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .layer(RetryPolicy::default())
        .layer(Issuer::new("token").layer())
        .service(script.probe());
    let response: Response<ResponseBody<Body>> = client.clone().oneshot(item()).await.unwrap();
    assert_eq!(response.status(), 200);
    client.oneshot(item()).await.unwrap();
    let ids: Vec<_> = script.seen().iter().map(|seen| seen.head.headers["x-request-id"].clone()).collect();
    assert_eq!(ids.len(), 4);
    assert!(ids[..3].iter().all(|id| *id == ids[0]));
    assert_ne!(ids[0], ids[3]);
}

#[tokio::test(start_paused = true)]
async fn what_is_ours_can_be_found_behind_a_buffer() {
    let issuer = Issuer::new("token").fails_from(1);
    let client =
        ServiceBuilder::new().buffer(4).layer(issuer.layer()).service(Script::default().probe::<Body>());
    let error = client.oneshot(item()).await.unwrap_err();
    assert_eq!(error.downcast_ref::<Error>().unwrap().kind(), ErrorKind::Grant);
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_whose_successor_is_not_to_be_had_keeps_the_401() {
    let script = Script::new([ScriptedResponse::Reply(reply(200, "")), challenged(INVALID)]);
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(Issuer::new("token").fails_from(2).layer())
        .concurrency_limit(1)
        .service(script.probe());
    client.clone().oneshot(item()).await.unwrap();
    let response = client.oneshot(item()).await.unwrap();
    let report: &tower_oauth2::retry::RetryReport = response.extensions().get().unwrap();
    assert_eq!((response.status().as_u16(), report.stop_reason()), (401, &StopReason::TokenUnavailable));
}
