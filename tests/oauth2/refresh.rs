//! The refresh token source: what it sends, what it keeps, and what it stores when.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tokio::time::{Instant, sleep};
use tower::{BoxError, Layer as _, ServiceExt as _};
use tower_oauth2::grants::{GrantBuilder, RotatedToken, read_token_response};
use tower_oauth2::{
    AccessToken, AuthLayer, ClientAuth, Error, ErrorKind, FetchReason, RefreshTokenGrant, TokenRequest,
    TokenSource,
};

use crate::log::Log;
use crate::rotating::{Rotating, builder, renew};
use crate::scripted::{Scripted, Step, TOKEN, URL, a_token, answer, answer_with, billing, fetch, response};
use crate::vectors::read as vectors;

const SECOND: Duration = Duration::from_secs(1);

fn rt1() -> GrantBuilder<RefreshTokenGrant> {
    builder(Some("RT1"))
}

/// An answer with an access token and this refresh token.
fn rotated(refresh_token: &str) -> Step {
    answer(200, &format!(r#"{{"access_token":"AT1","expires_in":3600,"refresh_token":"{refresh_token}"}}"#))
}

fn refused() -> Step {
    answer(400, r#"{"error":"invalid_grant","error_description":"it was used before"}"#)
}

fn source(endpoint: &Scripted, builder: GrantBuilder<RefreshTokenGrant>) -> RefreshTokenGrant {
    builder.build_with(endpoint.clone()).unwrap()
}

/// Returns which refresh tokens arrived, in order.
fn arrived(endpoint: &Scripted) -> Vec<String> {
    let field = |body: &str| {
        let mut fields = form_urlencoded::parse(body.as_bytes()).into_owned();
        fields.find(|field| field.0 == "refresh_token").unwrap().1
    };
    endpoint.seen().iter().map(|seen| field(&seen.body)).collect()
}

// --- What is sent ---

#[tokio::test(start_paused = true)]
async fn the_form_has_the_token_and_the_resources_at_every_renewal_and_no_scope() {
    let endpoint = Scripted::new([a_token(), a_token()]);
    let builder = builder(Some("1//0g+a/b=c&d")).resource("https://api.example.com/").param("tenant", "7");
    let source = source(&endpoint, builder);
    for _ in 0..2 {
        renew(&source).await.unwrap();
        let seen = endpoint.seen();
        assert_eq!(
            seen[0].body,
            "grant_type=refresh_token&refresh_token=1%2F%2F0g%2Ba%2Fb%3Dc%26d\
             &resource=https%3A%2F%2Fapi.example.com%2F&tenant=7"
        );
        assert_eq!(seen[0].headers["authorization"], "Basic cmVwb3J0czpodW50ZXIyLWh1bnRlcjI=");
    }
}

#[tokio::test(start_paused = true)]
async fn a_scope_is_sent_only_if_it_is_asked_for() {
    let endpoint = Scripted::new([a_token(), a_token()]);
    let source = source(&endpoint, rt1().scope("read"));
    for _ in 0..2 {
        renew(&source).await.unwrap();
        assert_eq!(endpoint.seen()[0].body, "grant_type=refresh_token&refresh_token=RT1&scope=read");
    }
}

#[tokio::test(start_paused = true)]
async fn a_public_client_sends_its_id_alone() {
    let endpoint = Scripted::new([a_token()]);
    let builder = RefreshTokenGrant::builder(URL, "app", ClientAuth::none()).refresh_token("RT1");
    renew(&source(&endpoint, builder)).await.unwrap();
    let seen = &endpoint.seen()[0];
    assert_eq!(seen.body, "grant_type=refresh_token&refresh_token=RT1&client_id=app");
    assert!(!seen.headers.contains_key("authorization"));
}

// --- What is kept ---

#[tokio::test(start_paused = true)]
async fn every_vector_of_token_responses_that_concerns_refresh_tokens_leaves_the_right_one() {
    let mut checked = Vec::new();
    for vector in &vectors::read("token_response") {
        let (input, expect) = (&vector["input"], &vector["expect"]);
        let is_of_this_grant = input["request"]["grant"] == "refresh_token";
        let says_something = input["body"].as_str().is_some_and(|body| body.contains("\"refresh_token\""));
        if expect["result"] != "token" || !(is_of_this_grant || says_something) {
            continue;
        }
        let before = input["request"]["refresh_token"].as_str().unwrap_or("RT1");
        let after = expect["stored_refresh_token"].as_str().or(expect["refresh_token"].as_str());
        let endpoint = Scripted::new([answer(200, input["body"].as_str().unwrap()), a_token()]);
        let source = source(&endpoint, builder(Some(before)));
        let token = renew(&source).await.unwrap();
        assert_eq!(token.header_value(), &format!("Bearer {}", expect["access_token"].as_str().unwrap()));
        again(&source).await.unwrap();
        assert_eq!(arrived(&endpoint), [before, after.unwrap_or(before)], "{}", vector["id"]);
        checked.push(vector["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(checked, ["TR-003", "TR-043", "TR-044", "TR-045", "TR-046", "TR-048"]);
}

/// Fetches although the last token is good.
async fn again(source: &RefreshTokenGrant) -> Result<AccessToken, Error> {
    source.token(TokenRequest::new(FetchReason::Forced)).await
}

#[tokio::test(start_paused = true)]
async fn every_vector_of_token_errors_that_concerns_refresh_tokens_kills_the_right_ones() {
    let mut checked = Vec::new();
    for vector in &vectors::read("token_error") {
        let (input, expect) = (&vector["input"], &vector["expect"]);
        if input["request"]["grant"] != "refresh_token" {
            continue;
        }
        let id = vector["id"].as_str().unwrap();
        let status = u16::try_from(input["status"].as_u64().unwrap()).unwrap();
        let endpoint = Scripted::new([answer(status, input["body"].as_str().unwrap())]);
        let source = source(&endpoint, rt1().retries(0));
        let error = renew(&source).await.unwrap_err();
        assert_eq!(error.code(), expect["error"].as_str(), "{id}");
        let dies = expect["action"] == "reauthorize";
        assert_eq!(source.has_refresh_token(), !dies, "{id}");
        assert_eq!(error.to_string().contains("authorize again"), dies, "{id}: {error}");
        // What is stored of one that is dead is nothing.
        assert!(expect.get("stored_refresh_token").is_none_or(|stored| dies && stored.is_null()), "{id}");
        checked.push(id.to_owned());
    }
    assert!(
        ["TE-002", "TE-009", "TE-025", "TE-033", "TE-038"]
            .iter()
            .all(|id| checked.iter().any(|checked| checked == id)),
        "{checked:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_refresh_token_beside_an_access_token_of_no_use_is_kept_and_stored() {
    let endpoint = Scripted::new([rotated("RT2"), a_token()]);
    let stored = Arc::new(Mutex::new(Vec::new()));
    let source = source(&endpoint, storing(rt1().required_scope("write"), &stored));
    let error = renew(&source).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Config && error.to_string().contains("required scopes write"),
        "{error}"
    );
    assert_eq!(*stored.lock().unwrap(), ["RT2"]);
    renew(&source).await.unwrap_err();
    assert_eq!(arrived(&endpoint), ["RT1", "RT2"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_a_scope_or_a_resource_leaves_the_refresh_token_as_it_is() {
    for (status, code) in [
        (401, "invalid_client"),
        (400, "invalid_scope"),
        (400, "invalid_target"),
        (400, "unauthorized_client"),
    ] {
        let endpoint = Scripted::new([answer(status, &format!(r#"{{"error":"{code}"}}"#)), a_token()]);
        let source = source(&endpoint, rt1());
        let error = renew(&source).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.code() == Some(code), "{error}");
        assert!(source.has_refresh_token() && renew(&source).await.is_ok());
        assert_eq!(arrived(&endpoint), ["RT1", "RT1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn each_access_token_carries_the_refresh_token_that_was_the_newest() {
    let endpoint = Scripted::new([rotated("RT2"), a_token()]);
    let source = source(&endpoint, rt1());
    for _ in 0..2 {
        let token = renew(&source).await.unwrap();
        assert_eq!(token.expose_refresh_token().unwrap(), "RT2");
    }
}

// --- At the start ---

#[tokio::test(start_paused = true)]
async fn without_a_refresh_token_the_error_says_so_and_another_grant_takes_over() {
    for none in [None, Some("")] {
        let endpoint = Scripted::new([]);
        let source = source(&endpoint, builder(none));
        assert!(!source.has_refresh_token());
        let error = renew(&source).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Grant && error.to_string().contains("offline_access"), "{error}");
        let grant = AccessToken::bearer("by-the-grant").unwrap();
        let token = source.or(grant).token(TokenRequest::new(FetchReason::Initial)).await.unwrap();
        assert_eq!(token.header_value(), "Bearer by-the-grant");
        assert!(endpoint.seen().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn the_access_token_of_the_login_is_used_as_long_as_it_is_good() {
    let login = r#"{"access_token":"AT0","token_type":"bearer","expires_in":100,"refresh_token":"RT1","scope":"a b"}"#;
    let seeded = |endpoint: &Scripted| {
        let token = read_token_response(login).unwrap();
        let refresh_token = token.expose_refresh_token().unwrap_or_default().to_owned();
        let builder =
            RefreshTokenGrant::builder(URL, "reports", "hunter2-hunter2").refresh_token(refresh_token);
        source(endpoint, builder.access_token(token))
    };
    let endpoint = Scripted::new([a_token()]);
    let source = seeded(&endpoint);
    let token = renew(&source).await.unwrap();
    assert_eq!(token.header_value(), "Bearer AT0");
    assert_eq!(token.scopes().unwrap(), ["a", "b"]);
    assert!(endpoint.seen().is_empty());
    assert_eq!(renew(&source).await.unwrap().header_value(), "Bearer AT1");
    assert_eq!(arrived(&endpoint), ["RT1"]);

    // Its lifetime counts from the login.
    let endpoint = Scripted::new([a_token()]);
    let source = seeded(&endpoint);
    sleep(96 * SECOND).await;
    assert_eq!(renew(&source).await.unwrap().header_value(), "Bearer AT1");

    // What was rejected elsewhere may be this one.
    for reason in [FetchReason::Rejected, FetchReason::Forced] {
        let endpoint = Scripted::new([a_token()]);
        let token = seeded(&endpoint).token(TokenRequest::new(reason)).await.unwrap();
        assert_eq!(token.header_value(), "Bearer AT1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_can_be_none_is_refused_without_being_shown() {
    let error = builder(Some("S3CR3T\n")).build_with(Scripted::new([])).unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("trim it"), "{error}");
    assert!(!format!("{error:?}").contains("S3CR3T"));
    let source = source(&Scripted::new([]), rt1());
    assert_eq!(source.replace("").unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(source.replace("S3CR3T\u{e9}").unwrap_err().kind(), ErrorKind::Config);
    assert!(source.has_refresh_token());
}

// --- Storing ---

fn storing(
    builder: GrantBuilder<RefreshTokenGrant>,
    stored: &Arc<Mutex<Vec<String>>>,
) -> GrantBuilder<RefreshTokenGrant> {
    let stored = Arc::clone(stored);
    builder.on_rotate(move |token: RotatedToken| {
        let stored = Arc::clone(&stored);
        async move {
            stored.lock().unwrap().push(token.expose_refresh_token().to_owned());
            Ok(())
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_new_refresh_token_is_stored_before_the_access_token_is_handed_out() {
    let endpoint = Scripted::new([rotated("RT2"), rotated("RT2"), a_token()]);
    let stored = Arc::new(Mutex::new(Vec::new()));
    let done = Arc::clone(&stored);
    let source = source(
        &endpoint,
        rt1().on_rotate(move |token| {
            let done = Arc::clone(&done);
            async move {
                sleep(SECOND).await;
                done.lock().unwrap().push(token.expose_refresh_token().to_owned());
                Ok(())
            }
        }),
    );
    let start = Instant::now();
    renew(&source).await.unwrap();
    assert_eq!(*stored.lock().unwrap(), ["RT2"]);
    assert_eq!(start.elapsed(), SECOND);
    // The same again, and none, is nothing to store.
    renew(&source).await.unwrap();
    renew(&source).await.unwrap();
    assert_eq!(*stored.lock().unwrap(), ["RT2"]);
    assert_eq!(start.elapsed(), SECOND);
    assert_eq!(arrived(&endpoint), ["RT1", "RT2", "RT2"]);
}

/// Ways for a store to fail.
#[derive(Clone, Copy, Debug)]
enum Failing {
    Error,
    Panic,
    PanicAtOnce,
    Hang,
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_cannot_be_stored_is_used_reported_and_stored_later() {
    for how in [Failing::Error, Failing::Panic, Failing::PanicAtOnce, Failing::Hang] {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let endpoint = Scripted::new([rotated("RT2"), rotated("RT3"), a_token()]);
        let calls = Arc::new(Mutex::new(Vec::new()));
        let fails = Arc::new(AtomicU32::new(2));
        let (noted, left) = (Arc::clone(&calls), Arc::clone(&fails));
        let builder = rt1().on_rotate(move |token| {
            noted.lock().unwrap().push(token.expose_refresh_token().to_owned());
            let fails = left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
            assert!(!(fails && matches!(how, Failing::PanicAtOnce)), "the store panics at once");
            async move {
                match how {
                    _ if !fails => Ok(()),
                    Failing::Error => Err(BoxError::from("the disk is full")),
                    Failing::Panic | Failing::PanicAtOnce => panic!("the store panics"),
                    Failing::Hang => std::future::pending().await,
                }
            }
        });
        let source = source(&endpoint, builder);
        // The token is good, and the failure visible.
        assert!(renew(&source).await.is_ok(), "{how:?}");
        let error = source.store_error().unwrap();
        assert!(
            error.kind() == ErrorKind::Transient && error.to_string().contains("was not stored"),
            "{error}"
        );
        assert!(log.text().contains("in memory alone"), "{}", log.text());
        // Before the next exchange it is tried again, in vain, and then the next one is stored.
        assert!(renew(&source).await.is_ok(), "{how:?}");
        assert_eq!(*calls.lock().unwrap(), ["RT2", "RT2", "RT3"]);
        assert!(source.store_error().is_none());
        renew(&source).await.unwrap();
        assert_eq!(arrived(&endpoint), ["RT1", "RT2", "RT3"]);
        assert_eq!(calls.lock().unwrap().len(), 3);
        assert!(!log.text().contains("RT2") && !log.text().contains("RT3"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_repeats_what_it_could_not_store_is_not_quoted() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let endpoint = Scripted::new([rotated("RT2-of-a-user-9f3a")]);
    let builder = rt1().on_rotate(|token| async move {
        let refused = format!("duplicate key: ({}) already exists", token.expose_refresh_token());
        Err(std::io::Error::other(refused).into())
    });
    let source = source(&endpoint, builder);
    assert!(renew(&source).await.is_ok());
    let error = source.store_error().unwrap();
    let cause = std::error::Error::source(&error).unwrap();
    let shown = format!("{error} {error:?} {cause} {cause:?} {source:?} {}", log.text());
    assert!(shown.contains("duplicate key: ([redacted]) already exists"), "{shown}");
    assert!(!shown.contains("RT2-of") && !shown.contains("9f3a"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_a_store_is_shown_by_its_display_alone() {
    #[derive(Debug)]
    struct Failed {
        #[allow(dead_code, reason = "it is there to be shown by Debug")]
        row: &'static str,
    }

    impl std::fmt::Display for Failed {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the table is full")
        }
    }

    impl std::error::Error for Failed {}

    let endpoint = Scripted::new([rotated("RT2")]);
    let full = || Failed { row: "password of the database" };
    let source = source(&endpoint, rt1().on_rotate(move |_token| async move { Err(full().into()) }));
    assert!(renew(&source).await.is_ok());
    let error = source.store_error().unwrap();
    let cause = std::error::Error::source(&error).unwrap();
    assert_eq!(cause.to_string(), "the table is full");
    assert!(!format!("{error:?} {cause:?}").contains("password"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn what_failed_to_be_stored_can_be_stored_by_request() {
    let endpoint = Scripted::new([rotated("RT2")]);
    let fails = Arc::new(AtomicU32::new(2));
    let left = Arc::clone(&fails);
    let source = source(
        &endpoint,
        rt1().on_rotate(move |_| {
            let fails = left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
            async move { if fails { Err("the disk is full".into()) } else { Ok(()) } }
        }),
    );
    source.store().await.unwrap();
    renew(&source).await.unwrap();
    let error = source.store().await.unwrap_err();
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the disk is full");
    source.store().await.unwrap();
    assert!(source.store_error().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_source_is_disposable_while_its_refresh_token_is_stored_elsewhere() {
    // Nothing stores it.
    let endpoint = Scripted::new([a_token(), rotated("RT2"), refused()]);
    let source = source(&endpoint, rt1());
    renew(&source).await.unwrap();
    assert!(source.is_disposable());
    renew(&source).await.unwrap();
    assert!(!source.is_disposable());
    renew(&source).await.unwrap_err();
    assert!(source.is_disposable());

    // It is stored in the second attempt, and while it is exchanged nobody knows.
    let late = r#"{"access_token":"AT1","refresh_token":"RT2"}"#;
    let endpoint = Scripted::new([Step::AnswerAfter(SECOND, response(200, &[], late))]);
    let fails = Arc::new(AtomicU32::new(1));
    let builder = rt1().on_rotate(move |_| {
        let fails = fails.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        async move { if fails { Err("the disk is full".into()) } else { Ok(()) } }
    });
    let source = self::source(&endpoint, builder);
    assert!(source.is_disposable());
    let fetching = tokio::spawn({
        let source = source.clone();
        async move { renew(&source).await.map(drop) }
    });
    sleep(SECOND / 2).await;
    assert!(!source.is_disposable());
    fetching.await.unwrap().unwrap();
    assert!(!source.is_disposable());
    source.store().await.unwrap();
    assert!(source.is_disposable());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_costs_no_more_than_its_time_out() {
    let builder = || rt1().on_rotate(|_| std::future::pending());
    for (attempt_timeout, waited) in [(20, 10), (10, 5), (4, 5)] {
        let endpoint = Scripted::new([rotated("RT2")]);
        let source = source(&endpoint, builder().attempt_timeout(attempt_timeout * SECOND));
        let start = Instant::now();
        assert!(renew(&source).await.is_ok());
        assert_eq!(start.elapsed(), waited * SECOND);
    }
}

// --- Dead ---

#[tokio::test(start_paused = true)]
async fn a_refused_refresh_token_is_not_sent_again_until_there_is_another() {
    let endpoint = Scripted::new([refused(), a_token()]);
    let source = source(&endpoint, rt1());
    for _ in 0..3 {
        let error = renew(&source).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Grant && error.code() == Some("invalid_grant"), "{error:?}");
        assert_eq!(error.status(), Some(StatusCode::BAD_REQUEST));
        assert_eq!(error.description(), Some("it was used before"));
        let line = error.to_string();
        assert!(line.contains("authorize again") && !line.contains("was lost"), "{line}");
        // It came from elsewhere.
        assert!(line.contains("a process that had it before spent it"), "{line}");
    }
    assert!(!source.has_refresh_token());
    source.replace("RT9").unwrap();
    assert!(source.has_refresh_token() && renew(&source).await.is_ok());
    assert_eq!(arrived(&endpoint), ["RT1", "RT9"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_on_in_another_name_because_of_a_refusal_is_warned() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let grant = AccessToken::bearer("by-the-grant").unwrap();
    let warned = || log.lines().iter().filter(|line| line.contains("the source was refused")).count();

    // Nobody has signed in yet: that is what the other one is for.
    let nobody = source(&Scripted::new([]), builder(None)).or(grant.clone());
    fetch_from(&nobody).await;
    assert_eq!(warned(), 0, "{}", log.text());

    let dead = source(&Scripted::new([refused()]), rt1()).or(grant);
    assert_eq!(fetch_from(&dead).await.header_value(), "Bearer by-the-grant");
    assert_eq!(warned(), 1, "{}", log.text());
    assert!(log.text().contains("WARN") && log.text().contains("authorize again"), "{}", log.text());
    assert!(!log.text().contains("RT1"), "{}", log.text());
}

async fn fetch_from(source: &impl TokenSource) -> AccessToken {
    source.token(TokenRequest::new(FetchReason::Initial)).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_a_classifier_calls_a_refused_grant_is_dead_too() {
    let slack = r#"{"ok":false,"error":"invalid_refresh_token"}"#;
    let endpoint = Scripted::new([answer(200, slack)]);
    let builder = rt1().classifier(|refusal| {
        let is_dead = refusal.code() == Some("invalid_refresh_token");
        is_dead.then(|| Error::new(ErrorKind::Grant, "").kind())
    });
    let source = source(&endpoint, builder);
    assert!(renew(&source).await.is_err() && renew(&source).await.unwrap_err().kind() == ErrorKind::Grant);
    assert_eq!(arrived(&endpoint), ["RT1"]);
}

// --- In doubt ---

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_for_once_more_and_a_refusal_then_says_what_happened() {
    let losses: [fn() -> Step; 5] = [
        || Step::Hang,
        || Step::Fail("connection reset".into()),
        || answer(500, ""),
        || answer(502, "<html>"),
        || answer(503, ""),
    ];
    for loss in losses {
        let endpoint = Scripted::new([loss(), refused()]);
        let source = source(&endpoint, rt1());
        let error = renew(&source).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Grant && error.code() == Some("invalid_grant"), "{error}");
        let line = error.to_string();
        assert!(line.contains("was lost before") && line.contains("authorize again"), "{line}");
        assert!(renew(&source).await.unwrap_err().to_string().contains("was lost before"));
        assert_eq!(arrived(&endpoint), ["RT1", "RT1"]);

        let endpoint = Scripted::new([loss(), a_token()]);
        assert!(renew(&self::source(&endpoint, rt1())).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn while_answers_are_lost_a_token_in_doubt_is_sent_once_per_fetch() {
    let lost = || answer(502, "");
    // A resend in the first fetch; then one each.
    let endpoint = Scripted::new([lost(), lost(), lost(), lost(), a_token(), refused()]);
    let source = source(&endpoint, rt1());
    for sent in [2, 1, 1] {
        assert_eq!(renew(&source).await.unwrap_err().kind(), ErrorKind::Transient);
        assert_eq!(arrived(&endpoint).len(), sent);
    }
    // An answer ends the doubt: what is refused later was not lost.
    renew(&source).await.unwrap();
    let line = renew(&source).await.unwrap_err().to_string();
    assert!(!line.contains("was lost") && !line.contains("a process that had it"), "{line}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_read_may_have_spent_the_token() {
    for nonsense in ["<html>", "", r#"{"access_token":"AT"#, r#"{"refresh":"RT2"}"#] {
        let endpoint = Scripted::new([answer(200, nonsense), refused()]);
        let source = source(&endpoint, rt1());
        assert_eq!(renew(&source).await.unwrap_err().kind(), ErrorKind::Protocol);
        assert!(renew(&source).await.unwrap_err().to_string().contains("was lost before"), "{nonsense}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_done_or_never_sent_spends_nothing() {
    let nobody = || Step::Fail(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into());
    let steps: [fn() -> Step; 3] = [
        || answer(429, ""),
        || answer_with(503, &[("retry-after", "1")], ""),
        || answer_with(429, &[("retry-after", "1")], "<html>"),
    ];
    for step in steps {
        // As often as with every grant.
        let endpoint = Scripted::new([step(), step(), step(), refused()]);
        let error = renew(&source(&endpoint, rt1())).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Grant && !error.to_string().contains("was lost"), "{error}");
    }
    let endpoint = Scripted::new([nobody(), nobody(), nobody(), refused()]);
    let error = renew(&source(&endpoint, rt1())).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Grant && !error.to_string().contains("was lost"), "{error}");

    // A transport that is never ready sends nothing either.
    let endpoint = Scripted::never_ready();
    let source = source(&endpoint, rt1());
    assert_eq!(renew(&source).await.unwrap_err().kind(), ErrorKind::Transient);
    assert!(format!("{source:?}").contains("raised: false"), "{source:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_without_a_word_about_the_token_does_not_end_the_doubt() {
    for between in [
        answer(429, ""),
        answer(401, r#"{"error":"invalid_client"}"#),
        answer(400, r#"{"error":"invalid_scope"}"#),
    ] {
        let endpoint = Scripted::new([Step::Fail("connection reset".into()), between, refused()]);
        let source = source(&endpoint, rt1());
        let error = match renew(&source).await.unwrap_err() {
            error if error.kind() == ErrorKind::Grant => error,
            _ => renew(&source).await.unwrap_err(),
        };
        assert!(error.to_string().contains("was lost before"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_in_doubt_that_is_refused_without_a_code_is_kept() {
    // It may be a proxy that says so, whatever was lost before.
    for between in [Some(Step::Hang), None] {
        let steps = between.into_iter().chain([answer(400, ""), a_token()]);
        let endpoint = Scripted::new(steps);
        let source = self::source(&endpoint, rt1());
        assert!(
            renew(&source).await.unwrap_err().kind() == ErrorKind::Protocol && source.has_refresh_token()
        );
        assert!(renew(&source).await.is_ok());
    }
}

// --- Many ---

#[tokio::test(start_paused = true)]
async fn clones_ask_one_after_another_and_go_on_with_the_newest() {
    let server = Rotating::default();
    let source = server.source();
    let fetches = (0..20).map(|_| {
        let source = source.clone();
        tokio::spawn(async move { again(&source).await.map(|_| ()) })
    });
    for fetch in fetches.collect::<Vec<_>>() {
        fetch.await.unwrap().unwrap();
    }
    assert_eq!((server.reuses(), server.most_at_once()), (0, 1));
    assert_eq!(server.sent(), (0..20).map(|number| format!("RT{number}")).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_replaced_while_it_was_exchanged_leaves_no_trace() {
    let late = |step| match step {
        Step::Answer(response) => Step::AnswerAfter(SECOND, response),
        other => other,
    };
    for first in [rotated("RT2"), refused(), answer(502, ""), answer(400, r#"{"error":"invalid_scope"}"#)] {
        let endpoint = Scripted::new([late(first), a_token()]);
        let stored = Arc::new(Mutex::new(Vec::new()));
        let source = source(&endpoint, storing(rt1().retries(0), &stored));
        let fetching = tokio::spawn({
            let source = source.clone();
            async move { renew(&source).await }
        });
        sleep(SECOND / 2).await;
        source.replace("RT9").unwrap();
        assert_eq!(fetching.await.unwrap().unwrap().header_value(), "Bearer AT1");
        assert_eq!(arrived(&endpoint), ["RT1", "RT9"]);
        assert!(stored.lock().unwrap().is_empty() && source.has_refresh_token());
    }
}

// --- Elsewhere ---

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_comes_with_client_credentials_is_not_used() {
    let endpoint = Scripted::new([rotated("RT2"), a_token()]);
    let source = billing().build_with(endpoint.clone()).unwrap();
    let token = fetch(&source).await.unwrap();
    let request = TokenRequest::new(FetchReason::Expired).with_previous(Some(token));
    source.token(request).await.unwrap();
    assert!(endpoint.seen().iter().all(|seen| seen.body == "grant_type=client_credentials"));
}

#[tokio::test(start_paused = true)]
async fn an_api_sees_the_access_token_alone() {
    let endpoint = Scripted::new([rotated("R3FR3SH")]);
    let source = source(&endpoint, builder(Some("R3FR3SH-before")));
    let api = tower::service_fn(|request: Request<String>| async move {
        assert_eq!(request.headers()["authorization"], "Bearer AT1");
        let mut seen = format!("{} {} {:?}", request.uri(), request.body(), request.extensions());
        for (name, value) in request.headers() {
            seen += &format!("{name}: {}", value.to_str().unwrap());
        }
        assert!(!seen.contains("R3FR3SH"), "{seen}");
        Ok::<_, BoxError>(Response::new(String::new()))
    });
    let client = AuthLayer::for_origin(source, "https://api.example.com").unwrap().layer(api);
    let request = Request::get("https://api.example.com/items?a=b").body("a body".to_owned()).unwrap();
    assert_eq!(client.oneshot(request).await.unwrap().status(), StatusCode::OK);
    assert!(endpoint.is_finished());
}

#[test]
fn outside_a_runtime_there_is_an_error_and_no_panic() {
    let source = source(&Scripted::new([answer(200, TOKEN)]), rt1());
    let error = futures_util::FutureExt::now_or_never(renew(&source)).unwrap().unwrap_err();
    assert!(
        error.kind() == ErrorKind::Config && error.to_string().contains("outside a tokio runtime"),
        "{error}"
    );
}

// --- Secrets ---

#[tokio::test(start_paused = true)]
async fn no_refresh_token_is_shown_whatever_the_server_repeats() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let echo = r#"{"error":"invalid_grant","error_description":"S3CR3T-RT1-S3CR3T is unknown"}"#;
    let endpoint = Scripted::new([Step::Fail("at S3CR3T-RT1-S3CR3T".into()), answer(400, echo)]);
    let source = source(
        &endpoint,
        builder(Some("S3CR3T-RT1-S3CR3T")).access_token(AccessToken::bearer("S3CR3T-AT").unwrap()),
    );
    let shown = format!("{source:?} {:?} {:#?}", renew(&source).await, again(&source).await);
    assert!(!shown.contains("S3CR3T"), "{shown}");
    assert!(!log.text().contains("S3CR3T"), "{}", log.text());
    let rotated = Arc::new(Mutex::new(String::new()));
    let shown = Arc::clone(&rotated);
    let endpoint = Scripted::new([self::rotated("S3CR3T-RT2")]);
    let builder = rt1().on_rotate(move |token| {
        *shown.lock().unwrap() = format!("{token:?} {token:#?}");
        async { Ok(()) }
    });
    let shown = format!("{builder:?}");
    renew(&self::source(&endpoint, builder)).await.unwrap();
    assert!(!shown.contains("RT1") && !rotated.lock().unwrap().contains("S3CR3T"));
    assert!(rotated.lock().unwrap().contains("RotatedToken") && !log.text().contains("S3CR3T"));
}
