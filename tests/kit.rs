//! The kit that the other tests rely on is itself honest. (Its servers over real connections: `servers.rs`.)

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use tower::{BoxError, Service as _, ServiceExt as _};
use tower_oauth2::retry::Unsent;
use tower_oauth2::test_util::{
    BodyLog, FakeApi, FakeAuthorizationServer, FakeClient, Probe, Readiness, Script, ScriptedResponse,
    ScriptedSource, Trouble, pass, reply, settle, timed,
};
use tower_oauth2::{
    AccessToken, Body, ClientCredentials, Error, ErrorKind, FetchReason, TokenCache, TokenRequest,
    TokenSource as _,
};

const SECOND: Duration = Duration::from_secs(1);

// --- Probe ---

fn echo(permits: usize) -> Probe<u32, u32> {
    Probe::with_permits(permits, |n| async move { Ok(n) })
}

#[tokio::test]
#[should_panic(expected = "called without having been polled ready")]
async fn a_clone_of_a_ready_service_must_not_be_called() {
    let mut ready = echo(8);
    ready.ready().await.unwrap();
    let _ = ready.clone().call(1).await;
}

#[tokio::test]
async fn a_permit_is_held_from_readiness_to_the_end_of_the_call() {
    let mut one = echo(1);
    one.ready().await.unwrap();
    assert_eq!((one.reserved(), one.in_flight()), (1, 0));
    let call = one.call(1);
    assert_eq!((one.reserved(), one.in_flight(), one.calls()), (0, 1, 1));
    let mut clone = one.clone();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(clone.poll_ready(&mut cx).is_pending());
    drop(call);
    assert!(clone.poll_ready(&mut cx).is_ready());
    drop(clone);
    assert_eq!((one.reserved(), one.in_flight()), (0, 0));
    assert_eq!(one.ready().await.unwrap().call(7).await.unwrap(), 7);
    assert_eq!(one.max_in_flight(), 1);
}

#[test]
fn readiness_follows_the_script() {
    let mut probe = echo(8).readiness([Readiness::Ready, Readiness::Broken, Readiness::Never]);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(probe.poll_ready(&mut cx), Poll::Ready(Ok(()))));
    assert!(matches!(probe.clone().poll_ready(&mut cx), Poll::Ready(Err(_))));
    assert!(probe.clone().poll_ready(&mut cx).is_pending());
}

// --- ScriptedSource ---

#[tokio::test(start_paused = true)]
async fn a_source_gives_what_was_ordered_and_then_makes_tokens_up() {
    let source = ScriptedSource::new().name("north").lifetime(SECOND * 60).latency(SECOND);
    let fetch = async || source.token(TokenRequest::new(FetchReason::Forced)).await;
    source.return_next(AccessToken::bearer("ordered"));
    source.return_next(Err(Error::new(ErrorKind::Transient, "the vault is sealed")));
    source.hang_next();
    let (ordered, took) = timed(fetch()).await;
    assert_eq!((ordered.unwrap().header_value(), took), (&"Bearer ordered".parse().unwrap(), SECOND));
    assert_eq!(fetch().await.unwrap_err().kind(), ErrorKind::Transient);
    assert!(tokio::time::timeout(SECOND * 3600, fetch()).await.is_err());
    let made_up = fetch().await.unwrap();
    assert_eq!(made_up.header_value(), "Bearer north-4");
    assert_eq!(made_up.lifetime(), Some(SECOND * 60));
    assert_eq!((source.fetches(), source.requests()[0].reason()), (4, FetchReason::Forced));

    // In an outage what was ordered comes first.
    source.fail_with(Error::new(ErrorKind::Config, "the client is unknown"));
    source.return_next(AccessToken::bearer("ordered"));
    assert!(fetch().await.is_ok());
    assert!(
        fetch().await.unwrap_err().kind() == ErrorKind::Config
            && fetch().await.unwrap_err().kind() == ErrorKind::Config
    );
    source.recover();
    assert_eq!(fetch().await.unwrap().header_value(), "Bearer north-8");
}

// --- BodyLog ---

#[tokio::test(start_paused = true)]
async fn a_log_tells_what_was_read_and_when_it_was_dropped() {
    let log = BodyLog::new();
    let mut whole = log.body(Full::<Bytes>::from("seven b"));
    let unread = log.body(Full::<Bytes>::from("never"));
    assert_eq!((log.alive(), log.polls(), log.last_drop()), (2, 0, None));
    assert!(whole.frame().await.unwrap().unwrap().is_data());
    assert_eq!((log.frames(), log.bytes(), log.ended()), (1, 7, 0));
    assert!(whole.frame().await.is_none());
    assert_eq!((log.polls(), log.ended(), log.failed()), (2, 1, 0));
    pass(SECOND).await;
    drop(unread);
    assert_eq!((log.alive(), log.last_drop()), (1, Some(SECOND)));
    let broken = http_body_util::StreamBody::new(futures_util::stream::iter([Err::<
        http_body::Frame<Bytes>,
        _,
    >("torn")]));
    assert!(log.body(broken).collect().await.is_err());
    assert_eq!((log.failed(), log.bytes()), (1, 7));
}

// --- The servers within the process ---

fn server() -> FakeAuthorizationServer {
    let client = FakeClient::confidential("billing", "hunter2").scopes("read");
    FakeAuthorizationServer::builder().client(client).lifetime(SECOND * 60).build()
}

async fn token(server: &FakeAuthorizationServer) -> Result<AccessToken, Error> {
    let source = ClientCredentials::builder(server.token_url(), "billing", "hunter2").retries(0);
    TokenCache::new(source.build_with(server.clone())?).get().await
}

async fn get(api: &FakeApi, token: &AccessToken) -> Result<Response<Body>, BoxError> {
    let request = Request::get(api.origin()).header(header::AUTHORIZATION, token.header_value().clone());
    api.clone().oneshot(request.body(Full::<Bytes>::default())?).await
}

#[tokio::test(start_paused = true)]
async fn tokens_end_by_the_paused_clock() {
    let server = server();
    let api = FakeApi::builder(&server).build();
    let token = token(&server).await.unwrap();
    pass(SECOND * 59).await;
    assert_eq!(get(&api, &token).await.unwrap().status(), StatusCode::OK);
    pass(SECOND).await;
    let expired = get(&api, &token).await.unwrap();
    assert_eq!(expired.status(), StatusCode::UNAUTHORIZED);
    assert!(expired.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().contains("expired"));
    assert_eq!((api.counts().ok, api.counts().unauthorized, api.counts().revoked), (1, 1, 0));
}

#[tokio::test]
async fn a_scope_that_was_not_granted_is_told_apart() {
    let server = server();
    let api = FakeApi::builder(&server).required_scope("write").build();
    let refused = get(&api, &token(&server).await.unwrap()).await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let challenge = refused.headers()[header::WWW_AUTHENTICATE].to_str().unwrap();
    assert!(challenge.contains("insufficient_scope") && challenge.contains("scope=\"write\""), "{challenge}");
    assert_eq!((api.counts().forbidden, api.counts().ok), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_gone_refuses_and_cuts_off_who_waits() {
    let server = server();
    server.set_latency(SECOND * 5);
    let waiting = tokio::spawn({
        let server = server.clone();
        async move { token(&server).await }
    });
    settle().await;
    assert_eq!(server.counts().in_progress, 1);
    server.stop().await;
    let cut = waiting.await.unwrap().unwrap_err();
    assert!(
        cut.kind() == ErrorKind::Transient && chain(&cut).contains("connection reset"),
        "{}",
        chain(&cut)
    );
    assert_eq!(server.counts().in_progress, 0);
    let refused =
        server.clone().oneshot(Request::post(server.token_url()).body(Full::<Bytes>::default()).unwrap());
    let refused = refused.await.unwrap_err();
    assert!(
        refused.is::<Unsent>() && chain(&*refused).contains("connection refused"),
        "{}",
        chain(&*refused)
    );
    server.restart().await.unwrap();
    assert!(token(&server).await.is_ok());
}

#[tokio::test]
async fn an_api_breaks_connections_by_order_and_looks_at_no_token_for_it() {
    let server = server();
    let api = FakeApi::builder(&server).build();
    let token = token(&server).await.unwrap();
    api.fail_next(1, Trouble::Disconnect);
    let broken = get(&api, &token).await.unwrap_err();
    assert_eq!(broken.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(get(&api, &token).await.unwrap().status(), StatusCode::OK);
    assert_eq!((api.counts().requests, api.counts().ok), (2, 1));
}

#[tokio::test]
async fn the_api_has_the_body_read_by_whoever_is_behind_it() {
    let server = server();
    let echo = tower::service_fn(async |request: Request<Body>| {
        Ok::<_, BoxError>(Response::new(request.into_body()))
    });
    let api = FakeApi::builder(&server).service(echo).build();
    let token = token(&server).await.unwrap();
    let log = BodyLog::new();
    let request = Request::post(api.origin()).header(header::AUTHORIZATION, token.header_value().clone());
    let answer =
        api.clone().oneshot(request.body(log.body(Full::<Bytes>::from("an item"))).unwrap()).await.unwrap();
    assert_eq!(log.polls(), 0);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "an item");
    // Without a token it is dropped as it came.
    let refused = Request::post(api.origin()).body(log.body(Full::<Bytes>::from("an item"))).unwrap();
    assert_eq!(api.clone().oneshot(refused).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!((log.bytes(), log.alive()), (7, 0));
}

#[tokio::test]
async fn the_server_says_where_its_endpoints_are() {
    let server = server();
    let url = format!("{}/.well-known/oauth-authorization-server", server.origin());
    let answer =
        server.clone().oneshot(Request::get(url).body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    let metadata: serde_json::Value =
        serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(metadata["issuer"], server.origin());
    assert_eq!(metadata["token_endpoint"], server.token_url());
    assert_eq!(metadata["revocation_endpoint"], server.revocation_url());
    let wrong =
        server.clone().oneshot(Request::get(server.token_url()).body(Full::<Bytes>::default()).unwrap());
    assert_eq!(wrong.await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
}

fn chain(error: &dyn std::error::Error) -> String {
    let next = error.source().map(|source| format!(": {}", chain(source))).unwrap_or_default();
    format!("{error}{next}")
}

#[tokio::test]
async fn nothing_of_the_kit_shows_a_secret() {
    let server = server();
    let api = FakeApi::builder(&server).build();
    let token = token(&server).await.unwrap();
    let secret = token.expose();
    let request = || {
        let request = Request::post(api.origin()).header("x-secret", secret).extension(secret.to_owned());
        request.body(Full::<Bytes>::from(secret.to_owned())).unwrap()
    };
    let script = Script::new([ScriptedResponse::Reply(reply(200, "hunter2")), ScriptedResponse::Hang]);
    script.probe().oneshot(request()).await.unwrap();
    let source = ScriptedSource::new();
    source.return_next(Ok(token.clone()));
    let client = FakeClient::confidential("billing", "hunter2");
    let log = BodyLog::new();
    let body = log.body(Body::from(secret.to_owned()));
    let shown = format!(
        "{server:?} {api:?} {:?} {:?} {source:?} {script:?} {:?} {:?} {client:?} {log:?} {body:?}",
        FakeAuthorizationServer::builder().client(client.clone()),
        FakeApi::builder(&server),
        script.seen(),
        ScriptedResponse::Reply(reply(200, "hunter2")),
    );
    assert!(!shown.contains("hunter2") && !shown.contains(secret), "{shown}");
}
