//! Where a token may go by its cache's own list.

use http::HeaderValue;
use http::header::HOST;
use tower_oauth2::auth::AuthOverride;
use tower_oauth2::extensions::{TokenWithheld, WithheldReason};
use tower_oauth2::test_util::Script;
use tower_oauth2::{AuthLayer, ErrorKind, Origin, TokenCache};

use super::fixture::{API, Issuer, get, item, once, over, refused, send, token};

const TENANT: &str = "https://tenant-7.example.com";

fn only_for(name: &'static str, origins: &[&str]) -> TokenCache {
    TokenCache::builder(Issuer::new(name)).only_for(origins.iter().copied()).unwrap().build()
}

/// Returns the token that a request to `uri` carries, with the mark of its response.
async fn sent(layer: &AuthLayer, uri: &str) -> (String, Option<WithheldReason>) {
    let (response, seen) = once(layer, get(uri)).await;
    let mark: Option<&TokenWithheld> = response.extensions().get();
    (token(&seen), mark.map(TokenWithheld::reason))
}

#[tokio::test(start_paused = true)]
async fn a_token_goes_where_its_cache_and_the_layer_allow() {
    let cache = only_for("own", &[TENANT, "https://both.example.com"]);
    let layer = AuthLayer::for_origin(&cache, API).unwrap().allow_origin("https://both.example.com").unwrap();
    // Each several times: with and without a ticket at hand.
    for _ in 0..3 {
        let both = sent(&layer, "https://both.example.com/a").await;
        assert_eq!(both, ("Bearer own-1".to_owned(), None));
        let layer_alone = sent(&layer, API).await;
        assert_eq!(layer_alone, (String::new(), Some(WithheldReason::NotOfThisToken)));
        let cache_alone = sent(&layer, TENANT).await;
        assert_eq!(cache_alone, (String::new(), Some(WithheldReason::ForeignOrigin)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_used_again_keeps_to_the_list() {
    let cache = only_for("own", &[TENANT]);
    let layer = AuthLayer::for_any_https_origin_unchecked(&cache);
    let script = Script::default();
    let mut client = over(&layer, &script);
    for uri in [TENANT, API, TENANT, API, TENANT, API] {
        use tower::Service as _;
        std::future::poll_fn(|context| client.poll_ready(context)).await.unwrap();
        client.call(get(uri)).await.unwrap();
    }
    let tokens: Vec<String> = script.seen().iter().map(token).collect();
    assert_eq!(tokens, ["Bearer own-1", "", "Bearer own-1", "", "Bearer own-1", ""]);
}

#[tokio::test(start_paused = true)]
async fn the_token_of_a_tenant_does_not_go_to_another_tenant() {
    let layer = AuthLayer::per_request([TENANT, "https://tenant-8.example.com"]).unwrap();
    let seven = only_for("seven", &[TENANT]);
    let request = |uri: &str| {
        let mut request = get(uri);
        request.extensions_mut().insert(AuthOverride::cache(seven.clone()));
        request
    };
    let (_, seen) = once(&layer, request(TENANT)).await;
    assert_eq!(token(&seen), "Bearer seven-1");
    let wrong = "https://tenant-8.example.com/invoices?page=secret-query";
    let (response, seen) = once(&layer, request(wrong)).await;
    let mark: &TokenWithheld = response.extensions().get().unwrap();
    assert_eq!(token(&seen), "");
    assert_eq!(mark.reason(), WithheldReason::NotOfThisToken);
    assert_eq!(mark.origin(), Some("https://tenant-8.example.com"));

    let error = refused(&layer.refuse_other_origins(true), request(wrong)).await;
    let text = error.to_string();
    assert!(
        error.kind() == ErrorKind::Config && text.contains("https://tenant-8.example.com was refused"),
        "{text}"
    );
    assert!(text.contains("TokenCacheBuilder::only_for") && !text.contains("secret-query"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_override_is_held_to_its_own_list_and_not_to_that_of_the_layers_cache() {
    let layer = AuthLayer::for_any_https_origin_unchecked(only_for("own", &[API]));
    let tenant = only_for("tenant", &[TENANT]);
    let open = Issuer::new("open").cache();
    for (cache, uri, expected) in [
        (&tenant, TENANT, "Bearer tenant-1"),
        (&tenant, API, ""),
        (&open, TENANT, "Bearer open-1"),
        (&open, API, "Bearer open-1"),
    ] {
        let mut request = get(uri);
        request.extensions_mut().insert(AuthOverride::cache(cache.clone()));
        assert_eq!(token(&once(&layer, request).await.1), expected, "{uri}");
    }
    for (wish, uri, expected) in
        [(AuthOverride::layer(), API, "Bearer own-1"), (AuthOverride::layer(), TENANT, "")]
    {
        let mut request = get(uri);
        request.extensions_mut().insert(wish);
        assert_eq!(token(&once(&layer, request).await.1), expected, "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_that_looks_like_the_origin_gets_the_token() {
    let cache = only_for("own", &[API]);
    let layer = AuthLayer::for_any_https_origin_unchecked(&cache);
    for uri in [
        "https://evil-api.example.com/",
        "https://api.example.com.evil.test/",
        "https://api.example.com./",
        "https://api.example.com:8443/",
        "https://x.api.example.com/",
        "https://example.com/",
        "https://xn--pi-3fa.example.com/",
        "http://localhost/",
    ] {
        let expected = (String::new(), Some(WithheldReason::NotOfThisToken));
        assert_eq!(sent(&layer, uri).await, expected, "{uri}");
    }
    for uri in ["https://API.Example.COM/", "https://api.example.com:443/a?b"] {
        assert_eq!(sent(&layer, uri).await, ("Bearer own-1".to_owned(), None), "{uri}");
    }
    let (mark, user) = (WithheldReason::UserInfo, "https://api.example.com@evil.test/");
    assert_eq!(sent(&layer, user).await, (String::new(), Some(mark)));
    let mut request = item();
    request.headers_mut().insert(HOST, HeaderValue::from_static("evil.test"));
    assert_eq!(token(&once(&layer, request).await.1), "");
}

#[tokio::test(start_paused = true)]
async fn a_path_alone_counts_as_where_the_layer_says_that_it_goes() {
    let cache = only_for("own", &[TENANT]);
    let layer = |origin: &str| AuthLayer::for_origin(&cache, API).unwrap().default_origin(origin).unwrap();
    assert_eq!(sent(&layer(TENANT), "/items").await.0, "Bearer own-1");
    let elsewhere = sent(&layer("https://tenant-8.example.com"), "/items").await;
    assert_eq!(elsewhere, (String::new(), Some(WithheldReason::NotOfThisToken)));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_fetched_for_an_origin_that_may_not_have_it() {
    let issuer = Issuer::new("own");
    let cache = TokenCache::builder(issuer.clone()).only_for([TENANT]).unwrap().build();
    let layer = AuthLayer::for_origin(&cache, API).unwrap();
    send(&over(&layer, &Script::default()), item()).await.unwrap();
    assert_eq!(issuer.issued(), 0);
}

#[test]
fn a_list_that_names_no_origin_is_an_error() {
    let refused = |origins: &[&str]| {
        TokenCache::builder(Issuer::new("own")).only_for(origins.iter().copied()).unwrap_err()
    };
    for origins in [
        &[][..],
        &["tenant-7.example.com"],
        &["http://tenant-7.example.com"],
        &["https://*.example.com"],
        &["https://user@tenant-7.example.com"],
        &["https://tenant-7.example.com/path"],
        &[API, "https://tenant-7.example.com/path"],
    ] {
        assert_eq!(refused(origins).kind(), ErrorKind::Config, "{origins:?}");
    }
    assert!(refused(&[]).to_string().contains("only_for"));
    let insecure = Origin::parse_with_insecure_http("http://legacy.example.com").unwrap();
    let builder = TokenCache::builder(Issuer::new("own")).only_for([insecure]).unwrap();
    assert!(format!("{builder:?}").contains("http://legacy.example.com"), "{builder:?}");
}
