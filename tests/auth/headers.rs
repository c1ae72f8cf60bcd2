//! Which header carries the token, and what becomes of one that is there already.

use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use tower::{Service as _, ServiceExt as _};
use tower_oauth2::auth::AuthOverride;
use tower_oauth2::extensions::{TokenRejected, TokenWithheld};
use tower_oauth2::test_util::{Script, ScriptedResponse, reply};
use tower_oauth2::{AccessToken, AuthLayer};

use super::fixture::{API, Issuer, challenged, get, item, item_with, once, over, send, token, values, with};

const API_KEY: HeaderName = HeaderName::from_static("x-auth-token");

#[tokio::test(start_paused = true)]
async fn a_callers_own_header_is_kept_byte_for_byte() {
    let lines: [&[u8]; 3] = [b"bEaRer  mine", b"Basic QQ==, Digest x=\"y\"", b"Odd \xfe\xff"];
    let issuer = Issuer::new("token");
    for cache in [issuer.cache(), issuer.warm().await] {
        let layer = AuthLayer::for_origin(cache, API).unwrap();
        for count in 1..=lines.len() {
            let mut request = item();
            for line in &lines[..count] {
                request.headers_mut().append(AUTHORIZATION, HeaderValue::from_bytes(line).unwrap());
            }
            let (_, seen) = once(&layer, request).await;
            let kept: Vec<_> =
                seen.head.headers.get_all(AUTHORIZATION).iter().map(|v| v.as_bytes()).collect();
            assert_eq!(kept, lines[..count]);
        }
    }
    // The cold cache was not even asked.
    assert_eq!(issuer.issued(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_callers_own_header_wins_wherever_the_request_goes() {
    let issuer = Issuer::new("token");
    let layer = issuer.layer().refuse_other_origins(true).require_override(true);
    for uri in ["https://api.example.com/", "https://elsewhere.example.com/", "/path-only"] {
        let mut request = get(uri);
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Bearer mine"));
        let (response, seen) = once(&layer, request).await;
        assert_eq!(token(&seen), "Bearer mine", "{uri}");
        assert!(response.extensions().is_empty(), "{uri}");
    }
    assert_eq!(issuer.issued(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_callers_own_header_is_not_ours() {
    let issuer = Issuer::new("token");
    let cache = issuer.warm().await;
    let layer = AuthLayer::for_origin(cache.clone(), API).unwrap();
    let script = Script::new([challenged("Bearer error=invalid_token")]);
    let response = send(&over(&layer, &script), item_with("authorization", "Bearer mine")).await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(response.extensions().get::<TokenRejected>().is_none());
    assert!(cache.peek().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_gateway_replaces_what_its_own_caller_sent() {
    let layer = Issuer::new("token").layer().replace_authorization(true);
    let mut request = item_with("authorization", "Bearer inbound");
    request.headers_mut().append(AUTHORIZATION, HeaderValue::from_static("Basic inbound"));
    let (_, seen) = once(&layer, request).await;
    assert_eq!(token(&seen), "Bearer token-1");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_takes_the_callers_header_off_where_no_token_goes() {
    let layer = Issuer::new("token").layer().replace_authorization(true);
    let mut foreign = get("https://elsewhere.example.com/");
    foreign.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Bearer inbound"));
    let (response, seen) = once(&layer, foreign).await;
    assert_eq!(token(&seen), "");
    assert!(response.extensions().get::<TokenWithheld>().is_some());

    let mut anonymous = with(AuthOverride::anonymous());
    anonymous.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Bearer inbound"));
    assert_eq!(token(&once(&layer, anonymous).await.1), "");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_with_a_header_of_its_own_forwards_neither() {
    let layer = Issuer::new("token").layer().header(API_KEY).replace_authorization(true);
    let inbound = || {
        let mut request = item_with("authorization", "Bearer inbound");
        request.headers_mut().insert(API_KEY, HeaderValue::from_static("inbound"));
        request
    };
    let (_, seen) = once(&layer, inbound()).await;
    assert_eq!((values(&seen, "x-auth-token"), token(&seen)), ("token-1".to_owned(), String::new()));

    let mut anonymous = inbound();
    anonymous.extensions_mut().insert(AuthOverride::anonymous());
    let (_, seen) = once(&layer, anonymous).await;
    assert_eq!((values(&seen, "x-auth-token"), token(&seen)), (String::new(), String::new()));
}

#[tokio::test(start_paused = true)]
async fn another_header_carries_the_token_bare_or_with_its_scheme() {
    let bare = Issuer::new("token").layer().header(API_KEY);
    let (_, seen) = once(&bare, item_with("authorization", "Basic for-the-proxy")).await;
    assert_eq!(values(&seen, "x-auth-token"), "token-1");
    // Authorization is none of this layer's business then.
    assert_eq!(token(&seen), "Basic for-the-proxy");
    let (_, seen) = once(&bare, item_with("x-auth-token", "mine")).await;
    assert_eq!(values(&seen, "x-auth-token"), "mine");

    let schemed = Issuer::new("token").layer().header_with_scheme(API_KEY);
    let (_, seen) = once(&schemed, item()).await;
    assert_eq!((values(&seen, "x-auth-token"), token(&seen)), ("Bearer token-1".to_owned(), String::new()));
    let (_, seen) = once(&Issuer::new("token").layer().header(AUTHORIZATION), item()).await;
    assert_eq!(token(&seen), "Bearer token-1");
}

#[tokio::test(start_paused = true)]
async fn another_scheme_stands_in_front_of_its_token() {
    let source = || AccessToken::with_scheme("Token", "abc").unwrap();
    let (_, seen) = once(&AuthLayer::for_origin(source(), API).unwrap(), item()).await;
    assert_eq!(token(&seen), "Token abc");
    let (_, seen) = once(&AuthLayer::for_origin(source(), API).unwrap().header(API_KEY), item()).await;
    assert_eq!(values(&seen, "x-auth-token"), "abc");
}

#[tokio::test(start_paused = true)]
async fn the_header_is_sensitive_however_the_token_came_by() {
    let issuer = Issuer::new("token").latency(Duration::from_secs(1));
    for (layer, name) in [
        (issuer.layer(), AUTHORIZATION),
        (issuer.layer().replace_authorization(true), AUTHORIZATION),
        (issuer.layer().header(API_KEY), API_KEY),
        (issuer.layer().header_with_scheme(API_KEY), API_KEY),
    ] {
        let script = Script::default();
        let mut held = over(&layer, &script);
        // Waited for, shared by all, and the instance's own copy; then one of an override.
        for _ in 0..4 {
            held.ready().await.unwrap().call(item()).await.unwrap();
        }
        let tenant = AuthOverride::cache(issuer.cache());
        held.ready().await.unwrap().call(with(tenant)).await.unwrap();
        let seen = script.seen();
        assert_eq!(seen.len(), 5);
        for seen in seen {
            assert!(seen.head.headers[&name].is_sensitive());
            assert!(!format!("{:?}", seen.head).contains("token-"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn all_else_of_a_request_and_its_answer_is_left_alone() {
    #[derive(Clone, Debug, PartialEq)]
    struct Mine(u8);

    let mut response = reply(418, "short and stout");
    response.headers_mut().append("x-one", HeaderValue::from_static("a"));
    response.headers_mut().append("x-one", HeaderValue::from_static("b"));
    response.extensions_mut().insert(Mine(2));
    let script = Script::new([ScriptedResponse::Reply(response)]);
    let mut request = with(Mine(1));
    *request.version_mut() = http::Version::HTTP_2;
    *request.method_mut() = http::Method::from_bytes(b"PURGE").unwrap();
    let response = send(&over(&Issuer::new("token").layer(), &script), request).await.unwrap();
    let head = &script.seen()[0].head;
    assert_eq!((head.version, head.method.as_str()), (http::Version::HTTP_2, "PURGE"));
    assert_eq!(head.uri, "https://api.example.com/items/7?page=secret-query");
    assert_eq!((head.extensions.get(), head.headers.len()), (Some(&Mine(1)), 1));
    assert_eq!((response.extensions().get(), response.extensions().len()), (Some(&Mine(2)), 1));
    assert_eq!(response.headers().get_all("x-one").iter().count(), 2);
}
