//! What a response proves, and what it does not: nothing is final that may pass, and nothing waits beyond its deadline.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Response;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{BoxError, ServiceBuilder};
use tower_oauth2::grants::{CustomGrant, GrantBuilder, Revocation, SecurityToken, TokenExchange, TokenType};
use tower_oauth2::{
    AccessToken, Error, ErrorKind, FetchReason, RefreshTokenGrant, Secret, TokenCache, TokenRequest,
    TokenRevoker as _, TokenSource, source_fn,
};

use crate::rotating::{builder, renew};
use crate::scripted::{Scripted, Step, TOKEN, URL, a_token, answer, answer_with, billing, response};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HTML: &str = "<html><h1>Not here</h1></html>";

fn rt1() -> GrantBuilder<RefreshTokenGrant> {
    builder(Some("RT1"))
}

fn source(endpoint: &Scripted, builder: GrantBuilder<RefreshTokenGrant>) -> RefreshTokenGrant {
    builder.build_with(endpoint.clone()).unwrap()
}

fn html(status: u16) -> Step {
    answer_with(status, &[("content-type", "text/html")], HTML)
}

async fn forced(source: &impl TokenSource) -> Result<AccessToken, Error> {
    source.token(TokenRequest::new(FetchReason::Forced)).await
}

async fn until(source: &impl TokenSource, limit: Duration) -> Result<AccessToken, Error> {
    let deadline = (Instant::now() + limit).into_std();
    source.token(TokenRequest::new(FetchReason::Initial).with_deadline(deadline)).await
}

// --- What buries a refresh token ---

#[tokio::test(start_paused = true)]
async fn what_a_gateway_answers_after_a_lost_response_does_not_bury_a_refresh_token() {
    let pages = || {
        vec![
            answer(408, r#"{"status":408,"error":"Request Timeout"}"#),
            answer(404, r#"{"timestamp":"now","status":404,"error":"Not Found","path":"/token"}"#),
            answer(403, r#"{"error":"Forbidden"}"#),
            answer(400, r#"{"error":"Bad Request"}"#),
            answer(409, r#"{"error":"conflict"}"#),
            answer(401, r#"{"error":"unauthorized"}"#),
            html(400),
            html(421),
            html(431),
            html(451),
            html(403),
            html(404),
            answer(400, ""),
            answer(421, ""),
            answer(431, ""),
            answer(451, ""),
            answer(407, ""),
            answer(302, ""),
        ]
    };
    for lost in [|| answer(502, ""), || Step::Hang, || Step::Fail("connection reset".into())] {
        for at in 0..pages().len() {
            let page = pages().swap_remove(at);
            let endpoint = Scripted::new([lost(), page, a_token(), a_token()]);
            let source = source(&endpoint, rt1().retries(1));
            let mut fetches = 0;
            while renew(&source).await.is_err() {
                fetches += 1;
                assert!(source.has_refresh_token(), "page {at}");
                assert!(fetches < 3, "page {at}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_another_source_below_says_nothing_of_this_refresh_token() {
    for foreign in [
        Error::new(ErrorKind::Grant, "another grant was refused").with_code("invalid_grant"),
        Error::new(ErrorKind::Config, "another client was refused").with_code("invalid_client"),
        Error::new(ErrorKind::Transient, "another server is down"),
        Error::new(ErrorKind::Throttled, "another server is busy"),
        Error::new(ErrorKind::Protocol, "another server speaks in riddles"),
    ] {
        let is_grant = foreign.kind() == ErrorKind::Grant;
        let endpoint = Scripted::new([Step::Fail(foreign.clone().into()), Step::Fail(foreign.into())]);
        let fallback = AccessToken::bearer("somebody-else").unwrap();
        let source = source(&endpoint, rt1().retries(u32::from(is_grant)));
        let error = renew(&source.clone().or(fallback)).await.unwrap_err();
        assert!(error.kind() != ErrorKind::Grant && error.code().is_none(), "{error}");
        assert!(source.has_refresh_token(), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_says_in_another_member_that_it_passes_buries_no_refresh_token() {
    for body in [
        r#"{"error":"invalid_grant","message":"token request is already being processed"}"#,
        r#"{"error":"invalid_grant","error_message":"Too many requests"}"#,
        r#"{"error":"invalid_grant","error_description":"Duplicate request"}"#,
        r#"{"error":"refresh_token_request_in_progress"}"#,
    ] {
        let endpoint = Scripted::new([answer(400, body), a_token()]);
        renew(&source(&endpoint, rt1())).await.unwrap();
    }
    // That refreshing failed does not say that it always will.
    for code in
        ["failed_to_refresh_token", "refresh_token_error", "RefreshTokenFailed", "cannot_refresh_token"]
    {
        let body = format!(r#"{{"error":"{code}"}}"#);
        let endpoint = Scripted::new([answer(400, &body), a_token()]);
        let source = source(&endpoint, rt1());
        renew(&source).await.unwrap_err();
        assert!(source.has_refresh_token(), "{code}");
        renew(&source).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_refresh_token_told_with_another_status_is_not_asked_for_ever() {
    for status in [404, 410, 422] {
        let said = || answer(status, r#"{"error":"refresh_token_not_found"}"#);
        let endpoint = Scripted::new([said(), said(), said()]);
        let source = source(&endpoint, rt1());
        for _ in 0..4 {
            let error = renew(&source).await.unwrap_err();
            assert!(endpoint.seen().len() <= 1, "{error}");
        }
        assert!(renew(&source).await.unwrap_err().to_string().contains("sign in again"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_whatever_stands_between_that_says_when_to_come_back_is_waited_for() {
    for status in [400, 403, 404, 420, 430] {
        let busy = answer_with(status, &[("retry-after", "2"), ("content-type", "text/html")], HTML);
        let endpoint = Scripted::new([busy, a_token()]);
        renew(&source(&endpoint, rt1())).await.unwrap();
        assert!(endpoint.gaps()[0] >= 2 * SECOND, "{status}");
    }
    // What the endpoint itself says stays what it is.
    let headers = [("retry-after", "2"), ("content-type", "application/json")];
    let endpoint = Scripted::new([answer_with(401, &headers, r#"{"error":"invalid_client"}"#)]);
    assert_eq!(renew(&source(&endpoint, rt1())).await.unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_an_unknown_code_that_says_when_to_come_back_is_waited_for() {
    for status in [400, 403, 420] {
        let busy = answer_with(status, &[("retry-after", "2")], r#"{"error":"client_limit"}"#);
        let endpoint = Scripted::new([busy, a_token()]);
        renew(&source(&endpoint, rt1())).await.unwrap();
        assert!(endpoint.gaps()[0] >= 2 * SECOND, "{status}");
    }
    // What is known, or names the refresh token, stays what it is.
    for code in ["invalid_grant", "invalid_scope", "refresh_token_reused"] {
        let body = format!(r#"{{"error":"{code}"}}"#);
        let endpoint = Scripted::new([answer_with(400, &[("retry-after", "2")], &body)]);
        let error = renew(&source(&endpoint, rt1())).await.unwrap_err();
        assert!(!error.is_temporary(), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_is_no_oauth_error_says_its_reason_and_whether_it_passes() {
    for body in [
        r#"{"message":"Too Many Requests"}"#,
        r#"{"error":{"code":400,"message":"Quota exceeded for the project","status":"FAILED"}}"#,
        r#"{"error_description":"another refresh is in progress"}"#,
        r#"{"error":"Bad Request","message":"Please try again later"}"#,
        r#"{"statusCode":400,"message":"the service is temporarily overloaded"}"#,
    ] {
        let endpoint = Scripted::new([answer(400, body), a_token()]);
        let renewed = renew(&source(&endpoint, rt1())).await;
        assert!(renewed.is_ok(), "{body}: {renewed:?}");
    }
    for (status, body, said) in [
        (
            403,
            r#"{"error":{"code":403,"message":"Permission denied on resource x"}}"#,
            "Permission denied on",
        ),
        (400, r#"{"errors":[],"message":"the field tenant is missing"}"#, "the field tenant is missing"),
    ] {
        let endpoint = Scripted::new([answer(status, body)]);
        let error = endpoint.ask(billing()).await.unwrap_err();
        assert!(!error.is_temporary() && error.to_string().contains(said), "{error}");
        let secret = body.replace("resource x", "hunter2-hunter2").replace("tenant", "hunter2-hunter2");
        let endpoint = Scripted::new([answer(status, &secret)]);
        let error = endpoint.ask(billing()).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    // A 401 is about the client or its secret: to ask again may lock the account for longer.
    let locked = r#"{"message":"Too many failed attempts: the client is temporarily locked"}"#;
    let error = Scripted::new([answer(401, locked)]).ask(billing()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("temporarily locked"), "{error}");
    // What redirects stands in front of the endpoint.
    let endpoint = Scripted::new([answer(302, r#"{"message":"Please try again later"}"#)]);
    assert_eq!(endpoint.ask(billing()).await.unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn a_token_to_exchange_that_never_comes_ends_the_fetch() {
    let never = || Secret::from_fn(std::future::pending::<Result<String, Error>>);
    let given = || SecurityToken::new("subject-token", TokenType::JWT);
    for is_actor in [false, true] {
        let waited = SecurityToken::new(never(), TokenType::JWT);
        let builder = match is_actor {
            true => TokenExchange::builder(URL, given()).actor(waited),
            false => TokenExchange::builder(URL, waited),
        };
        let source = builder.build_with(Scripted::new([])).unwrap();
        for (limit, most) in [(MINUTE, 11 * SECOND), (5 * SECOND, 5 * SECOND)] {
            let start = Instant::now();
            let error = until(&source, limit).await.unwrap_err();
            assert!(
                error.kind() == ErrorKind::Transient && error.to_string().contains("nothing was sent"),
                "{error}"
            );
            assert!(start.elapsed() <= most, "{:?}", start.elapsed());
        }
    }
    // One that comes from a source that never ends.
    let source = source_fn(|_| std::future::pending::<Result<AccessToken, Error>>());
    let subject = SecurityToken::new(source, TokenType::ACCESS_TOKEN);
    let source = TokenExchange::builder(URL, subject).build_with(Scripted::new([])).unwrap();
    until(&source, 5 * SECOND).await.unwrap_err();
    forced(&source).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_not_to_retry_is_heard_at_the_token_endpoint() {
    for header in [("x-should-retry", "false"), ("stripe-should-retry", "False, false")] {
        for status in [429, 503] {
            let headers = [("retry-after", "1"), header];
            let endpoint = Scripted::new([answer_with(status, &headers, ""), a_token()]);
            let error = endpoint.ask(billing()).await.unwrap_err();
            assert!(error.kind() == ErrorKind::Throttled && error.retry_at().is_some(), "{error}");
            assert_eq!(endpoint.seen().len(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_twice_in_doubt_is_not_asked_before_the_time_that_it_named() {
    let fails = || answer_with(500, &[("retry-after", "40")], "");
    let endpoint = Scripted::new([Step::Hang, fails()]);
    let error = renew(&source(&endpoint, rt1())).await.unwrap_err();
    assert!(error.retry_at().is_some(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_is_already_being_processed_is_asked_for_again() {
    for words in
        ["token request is already being processed", "Too many concurrent refreshes; try again later"]
    {
        let said = format!(r#"{{"error":"invalid_grant","error_description":"{words}"}}"#);
        let endpoint = Scripted::new([answer(400, &said), answer(400, &said), a_token()]);
        let source = source(&endpoint, rt1());
        assert_eq!(renew(&source).await.unwrap().header_value(), "Bearer AT1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_worked_here_is_asked_once_more_before_it_is_buried() {
    let refused = || answer(400, r#"{"error":"invalid_grant","error_description":"not found"}"#);
    // A server in trouble says no once.
    let endpoint = Scripted::new([a_token(), refused(), a_token()]);
    let source = self::source(&endpoint, rt1());
    forced(&source).await.unwrap();
    let start = Instant::now();
    forced(&source).await.unwrap();
    assert!(start.elapsed() >= SECOND && source.has_refresh_token());

    // One that means it says it twice.
    let endpoint = Scripted::new([a_token(), refused(), refused()]);
    let source = self::source(&endpoint, rt1());
    forced(&source).await.unwrap();
    assert_eq!(forced(&source).await.unwrap_err().kind(), ErrorKind::Grant);
    assert!(!source.has_refresh_token() && endpoint.is_finished());

    // Where there is no time left in this fetch, the next one asks.
    let endpoint = Scripted::new([a_token(), refused(), refused()]);
    let source = self::source(&endpoint, rt1());
    forced(&source).await.unwrap();
    let fallback = AccessToken::bearer("somebody-else").unwrap();
    let deadline = (Instant::now() + SECOND).into_std();
    let hurried = TokenRequest::new(FetchReason::Forced).with_deadline(deadline);
    let error = source.clone().or(fallback).token(hurried).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Transient && source.has_refresh_token(), "{error}");
    assert!(forced(&source).await.unwrap_err().kind() == ErrorKind::Grant && !source.has_refresh_token());

    // One that was never taken here, or was rotated, is buried at once.
    let rotated = r#"{"access_token":"AT1","refresh_token":"RT2"}"#;
    for first in [None, Some(answer(200, rotated))] {
        let fetches = 1 + usize::from(first.is_some());
        let endpoint = Scripted::new(first.into_iter().chain([refused()]));
        let source = self::source(&endpoint, rt1());
        for _ in 0..fetches {
            let _ = forced(&source).await;
        }
        assert!(!source.has_refresh_token());
    }
}

#[tokio::test(start_paused = true)]
async fn a_code_that_names_the_refresh_token_buries_it() {
    for (status, code) in [
        (200, "bad_refresh_token"),
        (200, "invalid_refresh_token"),
        (400, "refresh_token_expired"),
        (401, "RefreshTokenRevoked"),
        (200, "token_revoked"),
    ] {
        let endpoint = Scripted::new([answer(status, &format!(r#"{{"ok":false,"error":"{code}"}}"#))]);
        let source = source(&endpoint, rt1());
        let error = renew(&source).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Grant && error.to_string().contains("sign in"), "{error}");
        assert!(!source.has_refresh_token(), "{code}");
        assert!(renew(&source).await.is_err(), "asked once");
    }
}

/// An endpoint that answers the same every time, and how often it was asked.
#[derive(Clone)]
struct Stubborn {
    status: u16,
    body: &'static str,
    asked: Arc<AtomicU32>,
}

impl Stubborn {
    fn new(status: u16, body: &'static str) -> Self {
        Self { status, body, asked: Arc::default() }
    }

    fn source(&self, builder: GrantBuilder<RefreshTokenGrant>) -> RefreshTokenGrant {
        let this = self.clone();
        let transport = tower::service_fn(move |_| {
            this.asked.fetch_add(1, Relaxed);
            let response = response(this.status, &[("content-type", "application/json")], this.body);
            async move { Ok::<Response<crate::scripted::Body>, BoxError>(response) }
        });
        builder.build_with(transport).unwrap()
    }

    fn asked(&self) -> u32 {
        self.asked.swap(0, Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_refresh_token_under_another_code_is_not_asked_for_ever() {
    for (status, body) in [
        (400, r#"{"error":"invalid_request"}"#),
        (401, ""),
        (400, ""),
        (400, r#"{"error":"access_denied"}"#),
        (400, r#"{"error":"our_own_word"}"#),
        (401, r#"{"error":"invalid_token"}"#),
    ] {
        let endpoint = Stubborn::new(status, body);
        let source = endpoint.source(rt1());
        let cache = TokenCache::new(source.clone());
        let mut last = None;
        for _ in 0..24 * 60 {
            last = cache.get().await.err();
            sleep(MINUTE).await;
        }
        let asked = endpoint.asked();
        assert!(asked <= 16, "{status} {body}: {asked} requests in a day");
        let said = last.unwrap().to_string();
        assert!(said.contains("sign in again") && said.contains("in a row"), "{said}");
        // Somebody insists, or signs in.
        assert!(forced(&source).await.is_err());
        source.replace("RT2").unwrap();
        assert!(renew(&source).await.is_err());
        assert_eq!(endpoint.asked(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_is_no_dead_refresh_token() {
    let endpoint = Stubborn::new(401, r#"{"error":"invalid_client"}"#);
    let source = endpoint.source(rt1());
    for _ in 0..10 {
        let error = renew(&source).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && !error.to_string().contains("sign in"), "{error}");
    }
    assert_eq!(endpoint.asked(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_was_changed_ends_the_pause_of_a_refusal_without_a_code() {
    let endpoint = Stubborn::new(401, "");
    let secret = Arc::new(Mutex::new("old".to_owned()));
    let read = Arc::clone(&secret);
    let secrets = Secret::from_fn(move || {
        let now = read.lock().unwrap().clone();
        async move { Ok(now) }
    });
    let source = endpoint.source(RefreshTokenGrant::builder(URL, "reports", secrets).refresh_token("RT1"));
    for _ in 0..10 {
        assert!(renew(&source).await.is_err());
    }
    assert_eq!(endpoint.asked(), 3);
    *secret.lock().unwrap() = "new".to_owned();
    assert!(renew(&source).await.is_err());
    assert_eq!(endpoint.asked(), 1);
}

// --- Another identity ---

#[tokio::test(start_paused = true)]
async fn nobody_goes_on_in_another_name_because_of_what_may_pass() {
    let steps: Vec<fn() -> Step> = vec![
        || html(200),
        || html(400),
        || html(403),
        || html(404),
        || html(405),
        || html(407),
        || html(410),
        || html(451),
        || answer(401, ""),
        || answer(302, ""),
        || answer(404, r#"{"error":"Not Found"}"#),
        || answer(403, r#"{"error":"forbidden"}"#),
        || answer(400, r#"{"error":"invalid_grant","error_description":"a refresh is in progress"}"#),
        || answer(503, r#"{"error":"invalid_grant"}"#),
        || answer(429, ""),
        || Step::Fail("connection reset".into()),
        || Step::Fail(Error::new(ErrorKind::Config, "there are no root certificates").into()),
        || Step::Hang,
    ];
    for (at, step) in steps.iter().enumerate() {
        let endpoint = Scripted::new([step()]);
        let fallback = || AccessToken::bearer("somebody-else").unwrap();
        let refresh = source(&endpoint, rt1().retries(0));
        assert!(renew(&refresh.or(fallback())).await.is_err(), "a refresh token, {at}");
        let endpoint = Scripted::new([step()]);
        let client = billing().retries(0).build_with(endpoint).unwrap();
        assert!(renew(&client.or(fallback())).await.is_err(), "client credentials, {at}");
    }
    for said in [r#"{"error":"invalid_grant"}"#, r#"{"error":"invalid_client"}"#] {
        let endpoint = Scripted::new([answer(400, said)]);
        let fallback = AccessToken::bearer("somebody-else").unwrap();
        let refresh = source(&endpoint, rt1());
        assert_eq!(renew(&refresh.or(fallback)).await.unwrap().header_value(), "Bearer somebody-else");
    }
}

// --- Never for ever ---

#[tokio::test(start_paused = true)]
async fn a_secret_closure_that_never_returns_does_not_wedge_the_source() {
    let stuck = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&stuck);
    let secret = Secret::from_fn(move || {
        let is_stuck = count.fetch_add(1, Relaxed) == 0;
        async move {
            if is_stuck {
                std::future::pending::<()>().await;
            }
            Ok("hunter2")
        }
    });
    let endpoint = Scripted::new([a_token()]);
    let source =
        source(&endpoint, RefreshTokenGrant::builder(URL, "reports", secret).refresh_token("RT1").retries(0));
    let first = timeout(SECOND, renew(&source)).await;
    assert!(first.is_err(), "nobody waits for it");
    let error = timeout(MINUTE, until(&source, 30 * SECOND)).await.unwrap();
    assert!(error.is_ok(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn what_never_returns_is_an_error_that_may_pass_and_names_it() {
    let secret = || Secret::from_fn(std::future::pending::<Result<String, Error>>);
    let endpoint = Scripted::new([]);
    let client = tower_oauth2::ClientCredentials::builder(URL, "billing", secret());
    let error = endpoint.ask(client.retries(0)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Transient && error.to_string().contains("within 10s"), "{error}");
    let revocation = Revocation::builder(URL, "billing", secret()).retries(0).build_with(endpoint).unwrap();
    let error = revocation.revoke(AccessToken::bearer("AT1").unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
}

#[test]
fn an_exchange_on_a_runtime_that_nobody_drives_is_taken_over() {
    let answers = Arc::new(Mutex::new(VecDeque::from([Step::Hang, a_token()])));
    let transport = tower::service_fn(move |_| {
        let step = answers.lock().unwrap().pop_front();
        async move {
            match step {
                Some(Step::Answer(response)) => Ok(response),
                _ => std::future::pending::<Result<Response<crate::scripted::Body>, BoxError>>().await,
            }
        }
    });
    let source = rt1().build_with(transport).unwrap();
    let abandoned = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    abandoned.block_on(async {
        assert!(timeout(Duration::from_millis(50), renew(&source)).await.is_err());
    });
    let other =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let token = other.block_on(async { until(&source, 30 * SECOND).await });
    assert_eq!(token.unwrap().header_value(), "Bearer AT1");
    drop(abandoned);
}

#[tokio::test(start_paused = true)]
async fn a_store_without_end_does_not_keep_a_fetch_waiting() {
    let rotated = r#"{"access_token":"AT1","expires_in":1,"refresh_token":"RT2"}"#;
    let endpoint = Scripted::new([answer(200, rotated), a_token()]);
    let stuck = rt1().on_rotate(|_| std::future::pending());
    let source = source(&endpoint, stuck);
    assert_eq!(until(&source, 5 * SECOND).await.unwrap_err().kind(), ErrorKind::Transient);
    assert_eq!(until(&source, 5 * SECOND).await.unwrap_err().kind(), ErrorKind::Transient);
    sleep(MINUTE).await;
    assert!(until(&source, 3 * MINUTE).await.is_ok());

    // Nor does one that nobody polls any more.
    let endpoint = Scripted::new([answer(200, rotated), a_token()]);
    let stored = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&stored);
    let source = self::source(
        &endpoint,
        rt1().on_rotate(move |_| {
            let is_first = count.fetch_add(1, Relaxed) == 0;
            async move { if is_first { Err("the disk is full".into()) } else { std::future::pending().await } }
        }),
    );
    assert!(until(&source, 30 * SECOND).await.is_ok());
    let mut parked = Box::pin(source.store());
    assert!(timeout(Duration::ZERO, &mut parked).await.is_err());
    assert!(timeout(MINUTE, until(&source, 30 * SECOND)).await.unwrap().is_ok());
}

// --- Patience ---

#[tokio::test(start_paused = true)]
async fn the_newest_real_refusal_is_returned_before_the_deadline() {
    let busy = || answer(503, r#"{"error":"temporarily_unavailable"}"#);
    for grant in ["client", "refresh", "exchange", "custom"] {
        let endpoint = Scripted::new([busy(), Step::Hang, Step::Hang, Step::Hang]);
        let start = Instant::now();
        let limit = 8 * SECOND;
        let error = match grant {
            "client" => until(&billing().build_with(endpoint.clone()).unwrap(), limit).await,
            "refresh" => until(&source(&endpoint, rt1()), limit).await,
            "exchange" => {
                let subject = SecurityToken::new("subject-token", TokenType::JWT);
                until(&TokenExchange::builder(URL, subject).build_with(endpoint.clone()).unwrap(), limit)
                    .await
            }
            _ => {
                until(&CustomGrant::builder(URL, "urn:x").build_with(endpoint.clone()).unwrap(), limit).await
            }
        };
        let error = error.unwrap_err();
        assert_eq!(error.status().map(|status| status.as_u16()), Some(503), "{grant}: {error}");
        assert!(start.elapsed() < limit, "{grant}: {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_does_not_fit_the_deadline_ends_the_fetch_now() {
    let endpoint = Scripted::new([answer_with(429, &[("retry-after", "5")], "")]);
    let start = Instant::now();
    let error = until(&billing().build_with(endpoint).unwrap(), 4 * SECOND).await.unwrap_err();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(error.kind(), ErrorKind::Throttled);
    let Some(at) = error.retry_at() else { panic!("{error:?}") };
    assert_eq!(at - start.into_std(), 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn callers_of_a_cache_get_what_the_server_said_and_not_that_time_is_over() {
    let mut steps: Vec<Step> = vec![answer(503, "")];
    steps.extend((0..8).map(|_| Step::Hang));
    let endpoint = Scripted::new(steps);
    let source = billing().build_with(endpoint).unwrap();
    let cache = TokenCache::builder(source).fetch_timeout(15 * SECOND).build();
    let error = cache.get().await.unwrap_err();
    assert_eq!(error.status().map(|status| status.as_u16()), Some(503), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_hung_attempt_is_not_waited_for_to_its_end() {
    let endpoint = Scripted::new([Step::Hang, a_token()]);
    let start = Instant::now();
    assert!(endpoint.ask(billing()).await.is_ok());
    assert_eq!(start.elapsed().as_secs(), 2);
    // The first response counts, whichever attempt it is of.
    let endpoint = Scripted::new([Step::AnswerAfter(3 * SECOND, response(200, &[], TOKEN)), Step::Hang]);
    let start = Instant::now();
    assert!(endpoint.ask(billing()).await.is_ok());
    assert_eq!(start.elapsed().as_secs(), 3);
    // One that breaks does not end the other.
    let endpoint = Scripted::new([
        Step::AnswerAfter(5 * SECOND, response(200, &[], TOKEN)),
        Step::Fail("connection refused".into()),
    ]);
    assert!(endpoint.ask(billing()).await.is_ok());
    // The time is a setting, and no more requests are sent than without.
    let endpoint = Scripted::new([Step::Hang, a_token()]);
    let start = Instant::now();
    assert!(endpoint.ask(billing().second_attempt_after(4 * SECOND)).await.is_ok());
    assert_eq!(start.elapsed().as_secs(), 4);
    let endpoint = Scripted::new((0..4).map(|_| Step::Hang));
    assert_eq!(endpoint.ask(billing()).await.unwrap_err().kind(), ErrorKind::Transient);
    assert!(endpoint.is_finished());
    let endpoint = Scripted::new([Step::Hang]);
    assert!(endpoint.ask(billing().retries(0)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_place_in_the_transport_is_not_the_servers_silence() {
    // Eight sources share a transport that has room for nothing until five seconds have passed.
    let answers = (0..8).map(|_| Step::AnswerAfter(SECOND, response(200, &[], TOKEN)));
    let endpoint = Scripted::new(answers);
    let room = Arc::new(Semaphore::new(0));
    let limit = GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&room));
    let transport = ServiceBuilder::new().layer(limit).service(endpoint.clone());
    let mut asking = JoinSet::new();
    for _ in 0..8 {
        let source = billing().build_with(transport.clone()).unwrap();
        asking.spawn(async move { source.token(TokenRequest::new(FetchReason::Initial)).await.map(drop) });
    }
    sleep(5 * SECOND).await;
    room.add_permits(32);
    assert!(asking.join_all().await.iter().all(Result::is_ok));
    assert_eq!(endpoint.seen().len(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_is_never_sent_twice_at_a_time() {
    let endpoint = Scripted::new([Step::AnswerAfter(9 * SECOND, response(200, &[], TOKEN))]);
    assert!(renew(&source(&endpoint, rt1())).await.is_ok());
    assert_eq!(endpoint.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_success_that_is_no_token_response_is_asked_for_again() {
    for first in
        [html(200), answer(200, r#"{"message":"service starting"}"#), answer(204, ""), answer(200, "")]
    {
        let endpoint = Scripted::new([first, a_token()]);
        assert!(endpoint.ask(billing()).await.is_ok());
    }
    let endpoint = Scripted::new((0..4).map(|_| html(200)));
    assert_eq!(endpoint.ask(billing()).await.unwrap_err().kind(), ErrorKind::Protocol);
    // A token that cannot be used is none that another attempt would bring.
    let endpoint = Scripted::new([answer(200, r#"{"access_token":"AT1","token_type":"mac"}"#)]);
    assert_eq!(endpoint.ask(billing()).await.unwrap_err().kind(), ErrorKind::Protocol);
    // Nobody knows whether the refresh token is spent.
    let endpoint = Scripted::new([html(200)]);
    assert_eq!(renew(&source(&endpoint, rt1())).await.unwrap_err().kind(), ErrorKind::Protocol);
}
