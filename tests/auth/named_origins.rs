//! Providers whose token response names the origin of the API.

use std::time::Duration;

use http::HeaderValue;
use http::header::HOST;
use tower_oauth2::auth::AuthOverride;
use tower_oauth2::extensions::{TokenWithheld, WithheldReason};
use tower_oauth2::test_util::{Script, ScriptedSource};
use tower_oauth2::{AccessToken, AuthLayer, Error, ErrorKind, TokenCache};

use super::fixture::{API, get, once, over, refused, send, token};

const ACME: &str = "https://acme.my.example.com";

fn cache(named: &str) -> TokenCache {
    let token = AccessToken::bearer("s3cr3t-of-acme").unwrap().with_extra("instance_url", named);
    TokenCache::new(token)
}

fn layer(named: &str) -> AuthLayer {
    AuthLayer::for_origin_named_by(cache(named), "instance_url", ["my.example.com"]).unwrap()
}

/// Returns the token that a request to `uri` carries, with the mark of its response.
async fn sent(layer: &AuthLayer, uri: &str) -> (String, Option<WithheldReason>) {
    let (response, seen) = once(layer, get(uri)).await;
    let mark: Option<&TokenWithheld> = response.extensions().get();
    (token(&seen), mark.map(TokenWithheld::reason))
}

fn with_token() -> (String, Option<WithheldReason>) {
    ("Bearer s3cr3t-of-acme".to_owned(), None)
}

fn without(reason: WithheldReason) -> (String, Option<WithheldReason>) {
    (String::new(), Some(reason))
}

#[tokio::test(start_paused = true)]
async fn the_token_goes_to_the_origin_that_its_response_names() {
    for named in [ACME, "https://acme.my.example.com/", "HTTPS://ACME.My.Example.Com:443"] {
        let layer = layer(named);
        let client = over(&layer, &Script::default());
        for uri in [ACME, "https://acme.my.example.com/services/data?q=1", "https://ACME.my.example.com:443/"]
        {
            assert_eq!(sent(&layer, uri).await, with_token(), "{named} {uri}");
            let response = send(&client, get(uri)).await.unwrap();
            assert!(response.extensions().get::<TokenWithheld>().is_none());
        }
    }
    // The domain itself is one of its hosts.
    assert_eq!(sent(&layer("https://my.example.com"), "https://my.example.com/").await, with_token());
}

#[tokio::test(start_paused = true)]
async fn another_origin_of_the_provider_does_not_get_it() {
    let layer = layer(ACME);
    for uri in [
        "https://other.my.example.com/",
        "https://my.example.com/",
        "https://acme.my.example.com:8443/",
        "https://x.acme.my.example.com/",
    ] {
        assert_eq!(sent(&layer, uri).await, without(WithheldReason::NotOfThisToken), "{uri}");
    }
    let error =
        refused(&layer.refuse_other_origins(true), get("https://other.my.example.com/?secret-query")).await;
    let text = error.to_string();
    assert!(
        error.kind() == ErrorKind::Config && text.contains("https://other.my.example.com was refused"),
        "{text}"
    );
    assert!(!text.contains("secret-query"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn nothing_outside_of_the_domains_gets_it_and_nothing_is_fetched_for_it() {
    let source = ScriptedSource::new();
    let layer = AuthLayer::for_origin_named_by(source.clone(), "instance_url", ["my.example.com"]).unwrap();
    for (uri, reason) in [
        ("https://evil-my.example.com/", WithheldReason::ForeignOrigin),
        ("https://my.example.com.evil.test/", WithheldReason::ForeignOrigin),
        ("https://my.example.com./", WithheldReason::ForeignOrigin),
        ("https://acme.my.example.com./", WithheldReason::ForeignOrigin),
        ("https://example.com/", WithheldReason::ForeignOrigin),
        ("https://xn--acme-9xa.example.com/", WithheldReason::ForeignOrigin),
        ("http://localhost/", WithheldReason::ForeignOrigin),
        ("http://acme.my.example.com/", WithheldReason::Plaintext),
        ("https://acme.my.example.com@evil.test/", WithheldReason::UserInfo),
        ("https://user@acme.my.example.com/", WithheldReason::UserInfo),
    ] {
        assert_eq!(sent(&layer, uri).await, without(reason), "{uri}");
    }
    let mut request = get(ACME);
    request.headers_mut().insert(HOST, HeaderValue::from_static("evil.test"));
    assert_eq!(token(&once(&layer, request).await.1), "");
    assert_eq!(source.fetches(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_names_anything_else_is_an_error_and_the_token_is_not_sent() {
    for (named, shown) in [
        ("https://evil-my.example.com", "https://evil-my.example.com"),
        ("https://my.example.com.evil.test", "https://my.example.com.evil.test"),
        ("https://acme.my.example.com.", "https://acme.my.example.com."),
        ("https://EVIL.test:8443", "https://evil.test:8443"),
        ("http://acme.my.example.com", "http://acme.my.example.com, which is plain http"),
        ("http://127.0.0.1", "http://127.0.0.1, which is in none"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
        ("https://s3cr3t-of-acme.evil.test", ".evil.test"),
        ("https://user:hunter2@acme.my.example.com", "names no origin"),
        ("https://acme.my.example.com/services", "names no origin"),
        ("https://acme.my.example.com?x", "names no origin"),
        ("https://acme.my.example.com\\@evil.test", "names no origin"),
        ("https://äcme.my.example.com", "names no origin"),
        ("https://*.my.example.com", "names no origin"),
        ("//acme.my.example.com", "names no origin"),
        ("acme.my.example.com", "names no origin"),
        ("", "names no origin"),
    ] {
        for layer in [layer(named), layer(named).refuse_other_origins(true)] {
            let error: Error = refused(&layer, get(ACME)).await;
            let text = error.to_string();
            assert!(error.kind() == ErrorKind::Config && text.contains(shown), "{named}: {text}");
            assert!(text.contains("instance_url") && text.contains("for_origin_named_by"), "{text}");
            let whole = format!("{error:?} {text}");
            assert!(!whole.contains("s3cr3t") && !whole.contains("hunter2"), "{whole}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_without_the_member_is_an_error() {
    let cache = TokenCache::new(AccessToken::bearer("s3cr3t-of-acme").unwrap());
    let layer = AuthLayer::for_origin_named_by(&cache, "instance_url", ["my.example.com"]).unwrap();
    let text = refused(&layer, get(ACME)).await.to_string();
    assert!(text.contains("no member instance_url") && text.contains("for_origin_named_by"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn after_a_wait_for_the_token_its_origin_is_compared_as_well() {
    let source = ScriptedSource::new().latency(Duration::from_secs(1));
    for named in ["https://other.my.example.com", "https://evil.test"] {
        let token = AccessToken::bearer("s3cr3t-of-acme").unwrap();
        source.return_next(Ok(token.with_extra("instance_url", named)));
    }
    let waits =
        || AuthLayer::for_origin_named_by(source.clone(), "instance_url", ["my.example.com"]).unwrap();
    assert_eq!(sent(&waits(), ACME).await, without(WithheldReason::NotOfThisToken));
    let text = refused(&waits(), get(ACME)).await.to_string();
    assert!(text.contains("https://evil.test"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_token_of_an_override_is_held_to_the_origin_that_it_names() {
    let layer = layer(ACME);
    let with = |cache: &TokenCache, uri: &str| {
        let mut request = get(uri);
        request.extensions_mut().insert(AuthOverride::cache(cache.clone()));
        request
    };
    let other = cache("https://other.my.example.com");
    assert_eq!(
        token(&once(&layer, with(&other, "https://other.my.example.com/")).await.1),
        "Bearer s3cr3t-of-acme"
    );
    assert_eq!(token(&once(&layer, with(&other, ACME)).await.1), "");
    refused(&layer, with(&cache("https://evil.test"), ACME)).await;
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_is_listed_beside_it_gets_the_token_whatever_the_response_names() {
    let layer = layer("https://evil.test").allow_origin(API).unwrap();
    assert_eq!(sent(&layer, API).await, with_token());
    refused(&layer, get(ACME)).await;
}

#[tokio::test(start_paused = true)]
async fn a_path_alone_goes_where_the_layer_says_if_the_token_names_that() {
    let relative = |named: &str| layer(named).default_origin(ACME).unwrap();
    assert_eq!(sent(&relative(ACME), "/services").await, with_token());
    let other = relative("https://other.my.example.com");
    assert_eq!(sent(&other, "/services").await, without(WithheldReason::NotOfThisToken));
    refused(&relative("https://evil.test"), get("/services")).await;
}

#[tokio::test(start_paused = true)]
async fn on_this_machine_plain_http_will_do() {
    for (domain, origin) in [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("localhost", "http://localhost:8080"),
        ("[::1]", "http://[::1]:8080"),
    ] {
        let layer = AuthLayer::for_origin_named_by(cache(origin), "instance_url", [domain]).unwrap();
        assert_eq!(sent(&layer, origin).await, with_token(), "{origin}");
    }
    // Nothing is below an address.
    let layer =
        AuthLayer::for_origin_named_by(cache("https://9.127.0.0.1"), "instance_url", ["127.0.0.1"]).unwrap();
    refused(&layer, get("http://127.0.0.1/")).await;
}

#[test]
fn a_domain_that_says_too_much_or_too_little_is_an_error() {
    for domain in
        ["", "com", ".example.com", "*.example.com", "example.com.", "example.com:443", "example.com:8443"]
            .into_iter()
            .chain(["https://example.com", "example.com/", "user@example.com", "exämple.com", "example.com "])
    {
        let error = AuthLayer::for_origin_named_by(cache(ACME), "instance_url", [domain]).unwrap_err();
        let text = error.to_string();
        assert!(
            error.kind() == ErrorKind::Config && text.contains("for_origin_named_by"),
            "{domain}: {text}"
        );
    }
    let none: [&str; 0] = [];
    assert_eq!(
        AuthLayer::for_origin_named_by(cache(ACME), "instance_url", none).unwrap_err().kind(),
        ErrorKind::Config
    );
}
