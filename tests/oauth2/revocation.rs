//! Revocation: what is sent, what an answer means, and what a cache makes of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_oauth2::cache::TokenCacheBuilder;
use tower_oauth2::grants::{GrantBuilder, Revocation};
use tower_oauth2::{AccessToken, ClientAuth, Error, ErrorKind, TokenCache, TokenRevoker as _, revoker_fn};

use crate::log::Log;
use crate::rotating::Rotating;
use crate::scripted::{Scripted, Step, TOKEN, a_token, answer, answer_with, billing, response};

const SECOND: Duration = Duration::from_secs(1);
const URL: &str = "https://login.example.com/oauth/revoke?tenant=7";

fn builder() -> GrantBuilder<Revocation> {
    Revocation::builder(URL, "billing", "hunter2-hunter2")
}

fn token() -> AccessToken {
    AccessToken::bearer("S3CR3T-AT+1").unwrap()
}

async fn revoke(endpoint: &Scripted, token: AccessToken) -> Result<(), Error> {
    builder().build_with(endpoint.clone()).unwrap().revoke(token).await
}

fn done() -> Step {
    answer(200, "")
}

// --- The endpoint ---

#[tokio::test(start_paused = true)]
async fn a_revocation_is_a_form_with_the_token_a_hint_and_the_client() {
    // TQ-016 has these two fields in this order.
    let endpoint = Scripted::new([done(), done()]);
    revoke(&endpoint, token().with_refresh_token("45ghiukldjahdnhzdauz")).await.unwrap();
    let seen = endpoint.seen();
    assert_eq!(seen[0].body, "token=45ghiukldjahdnhzdauz&token_type_hint=refresh_token");
    assert_eq!(seen[1].body, "token=S3CR3T-AT%2B1&token_type_hint=access_token");
    for seen in seen {
        assert_eq!((seen.method, seen.uri.to_string()), (http::Method::POST, URL.into()));
        assert_eq!(seen.headers["authorization"], "Basic YmlsbGluZzpodW50ZXIyLWh1bnRlcjI=");
        assert_eq!(seen.headers["content-type"], "application/x-www-form-urlencoded");
    }
}

#[tokio::test(start_paused = true)]
async fn a_public_client_revokes_by_its_id() {
    let endpoint = Scripted::new([done()]);
    let builder = Revocation::builder(URL, "app", ClientAuth::none()).param("x", "y");
    builder.build_with(endpoint.clone()).unwrap().revoke(token()).await.unwrap();
    let seen = &endpoint.seen()[0];
    assert_eq!(seen.body, "token=S3CR3T-AT%2B1&token_type_hint=access_token&x=y&client_id=app");
    assert!(!seen.headers.contains_key("authorization"));
}

#[tokio::test(start_paused = true)]
async fn a_success_is_one_whatever_its_body_says() {
    for body in ["", "{}", "<html>", r#"{"error":"invalid_token"}"#] {
        let endpoint = Scripted::new([answer(200, body)]);
        revoke(&endpoint, token()).await.unwrap();
    }
    let endpoint = Scripted::new([answer_with(200, &[("content-encoding", "gzip")], "x"), answer(204, "")]);
    revoke(&endpoint, token()).await.unwrap();
    revoke(&endpoint, token()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_leaves_the_token_valid_and_is_asked_again_in_its_own_time() {
    let endpoint = Scripted::new([answer_with(503, &[("retry-after", "120")], "")]);
    let start = Instant::now();
    let error = revoke(&endpoint, token()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Throttled);
    let Some(until) = error.retry_at() else { panic!("{error:?}") };
    assert_eq!(until - start.into_std(), 120 * SECOND);
    assert!(error.to_string().contains("counts as still valid"), "{error}");
    assert!(error.to_string().contains("the revocation endpoint at https://login.example.com"), "{error}");

    let endpoint = Scripted::new([answer_with(503, &[("retry-after", "2")], ""), done()]);
    revoke(&endpoint, token()).await.unwrap();
    assert!(endpoint.gaps()[0] >= 2 * SECOND);

    for step in [answer(503, ""), answer(500, ""), Step::Fail("connection reset".into()), Step::Hang] {
        let endpoint = Scripted::new([step, done()]);
        revoke(&endpoint, token()).await.unwrap();
    }
    let endpoint = Scripted::new((0..4).map(|_| Step::Fail("connection reset".into())));
    let error = revoke(&endpoint, token()).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Transient && error.to_string().contains("check the revocation URL"),
        "{error}"
    );
    assert!(error.to_string().ends_with("counts as still valid"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_pass_is_final_and_names_the_endpoint() {
    for (status, body, code) in [
        (400, r#"{"error":"unsupported_token_type"}"#, Some("unsupported_token_type")),
        (401, r#"{"error":"invalid_client"}"#, Some("invalid_client")),
        (404, "<html>", None),
        (307, "", None),
    ] {
        let endpoint = Scripted::new([answer(status, body)]);
        let error = revoke(&endpoint, token()).await.unwrap_err();
        assert!(!error.is_temporary() && error.code() == code, "{error:?}");
        assert!(
            error.to_string().contains("the revocation endpoint at https://login.example.com"),
            "{error}"
        );
        assert!(!error.to_string().contains("token URL"), "{error}");
        assert_eq!(endpoint.seen().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_access_token_is_revoked_even_if_the_refresh_token_was_not() {
    let both = || token().with_refresh_token("RT1");
    let endpoint = Scripted::new([answer(400, r#"{"error":"unsupported_token_type"}"#), done()]);
    assert_eq!(revoke(&endpoint, both()).await.unwrap_err().code(), Some("unsupported_token_type"));
    assert!(endpoint.is_finished());
    // But a server that wants to be left alone is.
    let endpoint = Scripted::new([answer_with(429, &[("retry-after", "60")], "")]);
    assert_eq!(revoke(&endpoint, both()).await.unwrap_err().kind(), ErrorKind::Throttled);
}

#[tokio::test(start_paused = true)]
async fn no_token_is_shown_whatever_the_endpoint_repeats() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let echo = r#"{"error":"invalid_request","error_description":"what is S3CR3T-AT+1 or S3CR3T-RT?"}"#;
    let endpoint = Scripted::new([Step::Fail("at S3CR3T-RT".into()), answer(400, echo), answer(400, echo)]);
    let watched = endpoint.clone();
    let revocation = builder().build_with(endpoint).unwrap();
    let error = revocation.revoke(token().with_refresh_token("S3CR3T-RT")).await.unwrap_err();
    let shown = format!("{error} {error:?} {revocation:?} {}", log.text());
    assert!(watched.is_finished() && shown.contains("what is") && !shown.contains("S3CR3T"), "{shown}");
}

#[test]
fn a_setting_that_is_wrong_is_named() {
    for (url, what) in [
        ("http://login.example.com/revoke", "revocation_url: it is plain http"),
        ("/revoke", "such as https://login.example.com/oauth"),
        ("https://u:p@login.example.com/", "revocation_url: it holds a user name"),
    ] {
        let error = Revocation::builder(url, "id", "secret").build_with(Scripted::new([])).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(what), "{error}");
    }
    let insecure = Revocation::builder("http://login.example.com/revoke", "id", "secret").insecure_http(true);
    assert!(insecure.clone().build_with(Scripted::new([])).is_ok());
    assert!(insecure.insecure_http(false).build_with(Scripted::new([])).is_err());
}

// --- A cache ---

/// A revoker that notes what it was given, and a cache that uses it.
fn noting(endpoint: &Scripted) -> (TokenCacheBuilder, Arc<Mutex<Vec<String>>>) {
    let noted = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&noted);
    let revoker = revoker_fn(move |token: AccessToken| {
        let refresh = token.expose_refresh_token().unwrap_or_default();
        note.lock().unwrap().push(format!("{}|{refresh}", token.expose()));
        std::future::ready(Ok(()))
    });
    (TokenCache::builder(billing().build_with(endpoint.clone()).unwrap()).revoke_with(revoker), noted)
}

const WITH_REFRESH: &str = r#"{"access_token":"AT1","expires_in":3600,"refresh_token":"RT1"}"#;

#[tokio::test(start_paused = true)]
async fn a_revoked_token_is_dropped_and_the_next_use_fetches() {
    let endpoint = Scripted::new([answer(200, WITH_REFRESH), a_token()]);
    let (builder, noted) = noting(&endpoint);
    let cache = builder.build();
    // There is nothing yet.
    cache.revoke().await.unwrap();
    assert!(noted.lock().unwrap().is_empty());
    cache.get().await.unwrap();
    cache.revoke().await.unwrap();
    assert_eq!(*noted.lock().unwrap(), ["AT1|RT1"]);
    assert!(cache.peek().is_none());
    // Once is enough.
    cache.revoke().await.unwrap();
    assert_eq!(noted.lock().unwrap().len(), 1);
    cache.get().await.unwrap();
    assert!(endpoint.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_an_api_rejected_is_revoked_for_its_refresh_token() {
    let endpoint = Scripted::new([answer(200, WITH_REFRESH)]);
    let (builder, noted) = noting(&endpoint);
    let cache = builder.build();
    let token = cache.get().await.unwrap();
    cache.reject(&token);
    cache.revoke().await.unwrap();
    assert_eq!(*noted.lock().unwrap(), ["AT1|RT1"]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_could_not_be_revoked_stays_in_use() {
    let endpoint = Scripted::new([a_token(), answer_with(503, &[("retry-after", "120")], ""), done()]);
    let revocation = builder().build_with(endpoint.clone()).unwrap();
    let source = billing().build_with(endpoint.clone()).unwrap();
    let cache = TokenCache::builder(source).revoke_with(revocation).build();
    cache.get().await.unwrap();
    assert_eq!(cache.revoke().await.unwrap_err().kind(), ErrorKind::Throttled);
    assert!(cache.peek().is_some());
    cache.revoke().await.unwrap();
    assert!(cache.peek().is_none() && endpoint.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_newer_token_survives_the_revocation_of_the_old_one() {
    let endpoint = Scripted::new([a_token(), answer(200, &TOKEN.replace("AT1", "AT2"))]);
    let slow = revoker_fn(|_| async {
        sleep(SECOND).await;
        Ok(())
    });
    let cache = TokenCache::builder(billing().build_with(endpoint).unwrap()).revoke_with(slow).build();
    cache.get().await.unwrap();
    let (revoked, renewed) = tokio::join!(cache.revoke(), async {
        sleep(SECOND / 2).await;
        cache.refresh().await
    });
    revoked.unwrap();
    assert_eq!(renewed.unwrap().header_value(), "Bearer AT2");
    assert_eq!(cache.peek().unwrap().header_value(), "Bearer AT2");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_know_how_to_revoke_says_so() {
    let cache = TokenCache::new(token());
    let error = cache.revoke().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("revoke_with"), "{error}");
    let cache = TokenCache::builder(token()).revoke_at_shutdown(true).build();
    cache.get().await.unwrap();
    assert_eq!(cache.shutdown(SECOND).await.unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_revokes_the_access_token_alone_and_only_if_told_to() {
    for (is_told, revoked) in [(true, &["AT1|"][..]), (false, &[])] {
        let endpoint = Scripted::new([answer(200, WITH_REFRESH)]);
        let (builder, noted) = noting(&endpoint);
        let builder = builder.revoke_at_shutdown(true);
        let cache = if is_told { builder } else { builder.revoke_at_shutdown(false) }.build();
        cache.get().await.unwrap();
        cache.shutdown(SECOND).await.unwrap();
        assert_eq!(*noted.lock().unwrap(), revoked);
        assert!(cache.peek().is_none() && cache.get().await.is_err());
    }
    // Of what is over, or was never there, nothing has to be revoked.
    let endpoint = Scripted::new([answer(200, r#"{"access_token":"AT1","expires_in":10}"#)]);
    let (builder, noted) = noting(&endpoint);
    let builder = builder.revoke_at_shutdown(true);
    let cache = builder.build();
    cache.get().await.unwrap();
    sleep(11 * SECOND).await;
    cache.shutdown(SECOND).await.unwrap();
    assert!(noted.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_revokes_what_the_last_flight_brings() {
    let endpoint = Scripted::new([Step::AnswerAfter(SECOND, response(200, &[], TOKEN))]);
    let (builder, noted) = noting(&endpoint);
    let cache = builder.revoke_at_shutdown(true).build();
    let getting = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get().await }
    });
    sleep(SECOND / 2).await;
    cache.shutdown(2 * SECOND).await.unwrap();
    assert_eq!(*noted.lock().unwrap(), ["AT1|"]);
    getting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_shutdown_wins_and_its_failure_is_told() {
    let ended = |cache: TokenCache| async move {
        cache.get().await.unwrap();
        let start = Instant::now();
        let error = cache.shutdown(3 * SECOND).await.unwrap_err();
        assert!(cache.peek().is_none() && cache.get().await.is_err());
        (start.elapsed(), error)
    };
    let builder = || TokenCache::builder(token()).revoke_at_shutdown(true);

    let (took, error) = ended(builder().revoke_with(revoker_fn(|_| std::future::pending())).build()).await;
    assert_eq!(took, 3 * SECOND);
    assert!(
        error.kind() == ErrorKind::Transient && error.to_string().contains("was not revoked in the time"),
        "{error}"
    );

    let panics = revoker_fn(|_| async { panic!("the revoker panics") });
    let (took, error) = ended(builder().revoke_with(panics).build()).await;
    assert_eq!(took, Duration::ZERO);
    assert!(
        error.kind() == ErrorKind::Transient && error.to_string().contains("the revoker panicked"),
        "{error}"
    );

    // The server asks for a wait that fits, and for one that does not.
    let endpoint = Scripted::new([answer_with(503, &[("retry-after", "2")], ""), done()]);
    let cache = builder().revoke_with(self::builder().build_with(endpoint.clone()).unwrap()).build();
    cache.get().await.unwrap();
    cache.shutdown(3 * SECOND).await.unwrap();
    assert!(endpoint.is_finished());
    let endpoint = Scripted::new([answer_with(503, &[("retry-after", "5")], "")]);
    let (took, error) =
        ended(builder().revoke_with(self::builder().build_with(endpoint).unwrap()).build()).await;
    assert_eq!(took, 3 * SECOND);
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");

    // A deadline beyond all times is none.
    let cache = builder().revoke_with(revoker_fn(|_| std::future::ready(Ok(())))).build();
    cache.get().await.unwrap();
    cache.shutdown(Duration::MAX).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_does_not_end_leaves_nothing_to_revoke() {
    let (builder, noted) = {
        let endpoint = Scripted::new([Step::Hang]);
        noting(&endpoint)
    };
    let cache = builder.revoke_at_shutdown(true).build();
    let getting = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get().await }
    });
    sleep(SECOND / 2).await;
    assert!(cache.shutdown(SECOND).await.unwrap_err().to_string().contains("still going on"));
    assert!(noted.lock().unwrap().is_empty());
    getting.abort();
}

#[tokio::test(start_paused = true)]
async fn what_a_refresh_token_source_hands_out_is_revoked_with_the_newest_refresh_token() {
    let server = Rotating::default();
    let endpoint = Scripted::new([done(), done()]);
    let cache = TokenCache::builder(server.source())
        .revoke_with(builder().build_with(endpoint.clone()).unwrap())
        .build();
    cache.get().await.unwrap();
    cache.refresh().await.unwrap();
    cache.revoke().await.unwrap();
    let bodies: Vec<String> = endpoint.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, ["token=RT2&token_type_hint=refresh_token", "token=AT2&token_type_hint=access_token"]);
}
