//! An API key and a bearer token: two layers, each with its own header.

use http::header::{AUTHORIZATION, HeaderName};
use tower::{Layer as _, ServiceExt as _};
use tower_oauth2::auth::AuthOverride;
use tower_oauth2::extensions::{RejectionVerdict, ScopeMissing, TokenRejected};
use tower_oauth2::test_util::Script;
use tower_oauth2::{AuthLayer, Error, ErrorKind, RetryPolicy, TokenCache};

use super::fixture::{API, Body, Issuer, answer, challenged, item, item_with, with};

const KEY: HeaderName = HeaderName::from_static("x-api-key");
const INVALID: &str = "Bearer error=invalid_token";

/// What each request brought: the API key, and the token.
fn sent(script: &Script) -> Vec<(String, String)> {
    let shown = |value: Option<&http::HeaderValue>| {
        value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    };
    let seen = script.seen();
    seen.iter()
        .map(|seen| (shown(seen.head.headers.get(KEY)), shown(seen.head.headers.get(AUTHORIZATION))))
        .collect()
}

fn pair(key: &str, token: &str) -> (String, String) {
    (key.to_owned(), token.to_owned())
}

/// Sends a request by retry over both layers, the API key's outside or inside.
async fn send(
    key: &TokenCache,
    token: &TokenCache,
    key_outside: bool,
    script: &Script,
    request: http::Request<Body>,
) -> Result<http::Response<tower_oauth2::retry::ResponseBody<Body>>, tower::BoxError> {
    let key = AuthLayer::for_origin(key, API).unwrap().header(KEY);
    let token = AuthLayer::for_origin(token, API).unwrap();
    if key_outside {
        RetryPolicy::default().layer(key.layer(token.layer(script.probe()))).oneshot(request).await
    } else {
        RetryPolicy::default().layer(token.layer(key.layer(script.probe()))).oneshot(request).await
    }
}

#[tokio::test(start_paused = true)]
async fn the_token_of_a_tenant_goes_out_under_the_header_that_it_is_for() {
    for key_outside in [true, false] {
        let (key, token) = (Issuer::new("key").cache(), Issuer::new("token").cache());
        let (tenant, other) = (Issuer::new("tenant").cache(), Issuer::new("other").cache());
        let script = Script::default();
        let for_token = AuthOverride::cache(tenant.clone()).for_header(AUTHORIZATION);
        let for_both = for_token.clone().and(AuthOverride::cache(other).for_header(KEY));
        let no_key = AuthOverride::anonymous().for_header(KEY);
        for request in [item(), with(for_token), with(for_both), with(no_key), with(AuthOverride::layer())] {
            send(&key, &token, key_outside, &script, request).await.unwrap();
        }
        let expected = [
            pair("key-1", "Bearer token-1"),
            pair("key-1", "Bearer tenant-1"),
            pair("other-1", "Bearer tenant-1"),
            pair("", "Bearer token-1"),
            pair("key-1", "Bearer token-1"),
        ];
        assert_eq!(sent(&script), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_does_not_say_which_layer_it_is_for_goes_out_by_neither() {
    for key_outside in [true, false] {
        let (key, token) = (Issuer::new("key").cache(), Issuer::new("token").cache());
        let script = Script::default();
        let request = with(AuthOverride::cache(Issuer::new("tenant").cache()));
        let error = send(&key, &token, key_outside, &script, request).await.unwrap_err();
        let error = error.downcast_ref::<Error>().unwrap();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains("for_header"), "{error}");
        assert!(script.seen().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_sends_no_token_takes_no_cache_from_the_next() {
    let (other, tenant) = (Issuer::new("other").cache(), Issuer::new("tenant").cache());
    let script = Script::default();
    let token = Issuer::new("token").layer();
    // The outer layer is for another origin, or finds a header of the caller's own.
    let elsewhere = AuthLayer::for_origin(&other, "https://other.example.com").unwrap();
    let key = AuthLayer::for_origin(&other, API).unwrap().header(KEY);
    let mut own_key = item_with("x-api-key", "mine");
    own_key.extensions_mut().insert(AuthOverride::cache(tenant.clone()));
    elsewhere
        .layer(token.layer(script.probe::<Body>()))
        .oneshot(with(AuthOverride::cache(tenant)))
        .await
        .unwrap();
    key.layer(token.layer(script.probe::<Body>())).oneshot(own_key).await.unwrap();
    assert_eq!(sent(&script), [pair("", "Bearer tenant-1"), pair("mine", "Bearer tenant-1")]);
}

#[tokio::test(start_paused = true)]
async fn an_override_without_a_header_serves_a_single_layer_of_any_header() {
    let script = Script::default();
    let layer = Issuer::new("key").layer().header(KEY).require_override(true);
    let client = layer.layer(script.probe::<Body>());
    let tenant = Issuer::new("tenant").cache();
    client.clone().oneshot(with(AuthOverride::cache(tenant.clone()))).await.unwrap();
    client.clone().oneshot(with(AuthOverride::cache(tenant.clone()).for_header(KEY))).await.unwrap();
    assert_eq!(sent(&script), [pair("tenant-1", ""), pair("tenant-1", "")]);
    // What is addressed to another layer is none for this one.
    let elsewhere = with(AuthOverride::cache(tenant).for_header(AUTHORIZATION));
    assert!(client.oneshot(elsewhere).await.unwrap_err().to_string().contains("AuthOverride"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_the_inner_layer_answers_for_is_replayed_whatever_the_outer_one_did() {
    // The outer layer sends its key, or leaves the caller's own, or none.
    let requests: [fn() -> http::Request<Body>; 3] =
        [item, || item_with("x-api-key", "mine"), || with(AuthOverride::anonymous().for_header(KEY))];
    for request in requests {
        for refusal in [challenged(INVALID), answer(401, &[])] {
            let (key, token) = (Issuer::new("key"), Issuer::new("token"));
            let (keys, tokens) = (key.warm().await, token.warm().await);
            tokens.accept(&tokens.peek().unwrap());
            let script = Script::new([refusal]);
            let response = send(&keys, &tokens, true, &script, request()).await.unwrap();
            assert_eq!(response.status(), 200);
            let bearers: Vec<_> = sent(&script).into_iter().map(|(_, token)| token).collect();
            assert_eq!(bearers, ["Bearer token-1", "Bearer token-2"]);
            // The key is not to blame.
            assert_eq!((key.issued(), token.issued()), (1, 2));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_only_the_outer_layer_can_answer_for_is_replayed_too() {
    let (key, token) = (Issuer::new("key"), Issuer::new("token"));
    let (keys, tokens) = (key.warm().await, token.warm().await);
    // Without a word about the token, only one that was good before is suspect.
    keys.accept(&keys.peek().unwrap());
    let script = Script::new([answer(401, &[])]);
    let response = send(&keys, &tokens, true, &script, item()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(sent(&script), [pair("key-1", "Bearer token-1"), pair("key-2", "Bearer token-1")]);
}

#[tokio::test(start_paused = true)]
async fn what_the_inner_layer_says_reaches_the_caller() {
    let (keys, tokens) = (Issuer::new("key").warm().await, Issuer::new("token").warm().await);
    let script = Script::new([challenged("Bearer error=insufficient_scope, scope=admin")]);
    let key = AuthLayer::for_origin(keys, API).unwrap().header(KEY);
    let token = AuthLayer::for_origin(tokens, API).unwrap();
    let client = key.layer(token.layer(script.probe::<Body>()));
    let response = client.oneshot(item_with("x-api-key", "mine")).await.unwrap();
    let marker: &TokenRejected = response.extensions().get().unwrap();
    assert_eq!(marker.verdict(), RejectionVerdict::NotRefreshable);
    assert_eq!(response.extensions().get::<ScopeMissing>().unwrap().scope(), Some("admin"));
}
