//! Whose token a request gets, by its own word.

use std::time::Duration;

use tower::{Service as _, ServiceExt as _};
use tower_oauth2::AuthLayer;
use tower_oauth2::ErrorKind;
use tower_oauth2::auth::AuthOverride;
use tower_oauth2::extensions::{RejectionVerdict, TokenRejected};
use tower_oauth2::test_util::Script;

use super::fixture::{
    API, Issuer, challenged, get, item, item_with, once, over, refused, send, token, tokens, with,
};

#[tokio::test(start_paused = true)]
async fn an_anonymous_request_gets_no_token_and_no_marker() {
    let issuer = Issuer::new("token");
    for uri in ["https://api.example.com/", "https://elsewhere.example.com/", "/path-only"] {
        let mut request = get(uri);
        request.extensions_mut().insert(AuthOverride::anonymous());
        let (response, seen) =
            once(&issuer.layer().refuse_other_origins(true).require_override(true), request).await;
        assert_eq!(token(&seen), "");
        assert!(response.extensions().is_empty());
    }
    assert_eq!(issuer.issued(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_401_to_an_anonymous_request_changes_nothing() {
    let cache = Issuer::new("token").warm().await;
    let layer = AuthLayer::for_origin(cache.clone(), API).unwrap();
    let script = Script::new([challenged("Bearer error=invalid_token")]);
    let response = send(&over(&layer, &script), with(AuthOverride::anonymous())).await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(response.extensions().get::<TokenRejected>().is_none() && cache.peek().is_some());
}

#[tokio::test(start_paused = true)]
async fn another_cache_goes_to_allowed_origins_only() {
    let (default, tenant) = (Issuer::new("default"), Issuer::new("tenant"));
    let layer = default.layer();
    let cache = tenant.cache();
    let (_, seen) = once(&layer, with(AuthOverride::cache(cache.clone()))).await;
    assert_eq!(token(&seen), "Bearer tenant-1");
    let mut foreign = get("https://elsewhere.example.com/");
    foreign.extensions_mut().insert(AuthOverride::cache(cache.clone()));
    assert_eq!(token(&once(&layer, foreign).await.1), "");
    let mut own = item_with("authorization", "Bearer mine");
    own.extensions_mut().insert(AuthOverride::cache(cache));
    assert_eq!(token(&once(&layer, own).await.1), "Bearer mine");
    assert_eq!((default.issued(), tenant.issued()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn nothing_of_an_override_is_remembered() {
    // CVE-2024-51987: the token of one user went out with the request of another.
    let script = Script::default();
    let [a, b] = [Issuer::new("tenant-a").cache(), Issuer::new("tenant-b").cache()];
    let default = Issuer::new("default");
    let mut held = over(&default.layer(), &script);
    let wishes = [Some(&a), Some(&b), None, Some(&a), None, None, Some(&b), Some(&b), None, Some(&a)];
    let expected: Vec<_> = wishes
        .iter()
        .map(|wish| match wish {
            Some(cache) if std::ptr::eq(*cache, &raw const a) => "Bearer tenant-a-1",
            Some(_) => "Bearer tenant-b-1",
            None => "Bearer default-1",
        })
        .collect();
    let request = |wish: &Option<_>| match wish {
        Some(cache) => with(AuthOverride::cache(Clone::clone(*cache))),
        None => item(),
    };
    for _ in 0..3 {
        for wish in &wishes {
            held.ready().await.unwrap().call(request(wish)).await.unwrap();
        }
        assert_eq!(tokens(&script), expected);
        // A clone, taken from an instance that has just served a tenant.
        for wish in &wishes {
            let mut clone = held.clone();
            clone.ready().await.unwrap().call(request(wish)).await.unwrap();
            held = clone;
        }
        assert_eq!(tokens(&script), expected);
    }
    assert_eq!(default.issued(), 1);
}

#[tokio::test(start_paused = true)]
async fn tenants_that_wait_at_once_get_each_their_own() {
    let script = Script::default();
    let issuer = |name| Issuer::new(name).latency(Duration::from_secs(1));
    let [a, b] = [issuer("tenant-a").cache(), issuer("tenant-b").cache()];
    let client = over(&issuer("default").layer(), &script);
    let calls = (0..90).map(|number| {
        let (name, mut request) = match number % 3 {
            0 => ("tenant-a", with(AuthOverride::cache(a.clone()))),
            1 => ("tenant-b", with(AuthOverride::cache(b.clone()))),
            _ => ("default", item()),
        };
        request.headers_mut().insert("x-for", name.parse().unwrap());
        send(&client, request)
    });
    for response in futures_util::future::join_all(calls.collect::<Vec<_>>()).await {
        response.unwrap();
    }
    let seen = script.seen();
    assert_eq!(seen.len(), 90);
    for seen in seen {
        let name = seen.head.headers["x-for"].to_str().unwrap();
        assert_eq!(token(&seen), format!("Bearer {name}-1"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_costs_the_tenant_its_token_and_nobody_else() {
    let (default, tenant) = (Issuer::new("default").warm().await, Issuer::new("tenant").warm().await);
    let layer = AuthLayer::for_origin(default.clone(), API).unwrap();
    let script = Script::new([challenged("Bearer error=invalid_token")]);
    let mut held = over(&layer, &script);
    let response = held.ready().await.unwrap().call(with(AuthOverride::cache(tenant.clone()))).await.unwrap();
    let rejected = response.extensions().get::<TokenRejected>().unwrap();
    assert_eq!(rejected.verdict(), RejectionVerdict::Invalidated);
    assert!(tenant.peek().is_none() && default.peek().is_some());
    held.ready().await.unwrap().call(item()).await.unwrap();
    held.ready().await.unwrap().call(with(AuthOverride::cache(tenant))).await.unwrap();
    assert_eq!(tokens(&script), ["Bearer tenant-1", "Bearer default-1", "Bearer tenant-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_minimum_validity_is_waited_for() {
    for own in [true, false] {
        let issuer = Issuer::new("token").lifetime(Duration::from_secs(100));
        let cache = issuer.warm().await;
        let wish = match own {
            true => AuthOverride::layer(),
            false => AuthOverride::cache(cache.clone()),
        };
        let layer_cache = if own { cache.clone() } else { Issuer::new("default").cache() };
        let layer = AuthLayer::for_origin(layer_cache, API).unwrap();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(token(&once(&layer, with(wish.clone())).await.1), "Bearer token-1");
        let long = wish.clone().min_validity(Duration::from_secs(30));
        assert_eq!(token(&once(&layer, with(long)).await.1), "Bearer token-1");
        let longer = wish.clone().min_validity(Duration::from_secs(50));
        assert_eq!(token(&once(&layer, with(longer)).await.1), "Bearer token-2");
        // Longer than any token lives: the newest one is used, and the issuer left in peace.
        for _ in 0..5 {
            let longest = wish.clone().min_validity(Duration::from_secs(500));
            assert_eq!(token(&once(&layer, with(longest)).await.1), "Bearer token-2");
        }
        assert_eq!(issuer.issued(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_requires_an_override_never_falls_back() {
    let issuer = Issuer::new("default");
    let layer = issuer.layer().require_override(true);
    let error = refused(&layer, item()).await;
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("AuthOverride"), "{error}");
    assert_eq!(issuer.issued(), 0);
    assert_eq!(token(&once(&layer, with(AuthOverride::layer())).await.1), "Bearer default-1");
    assert_eq!(token(&once(&layer, item_with("authorization", "Bearer mine")).await.1), "Bearer mine");
    assert_eq!(token(&once(&layer, with(AuthOverride::anonymous())).await.1), "");
}

#[tokio::test(start_paused = true)]
async fn a_layer_without_a_token_of_its_own_needs_one_per_request() {
    let layer = AuthLayer::per_request([API, "https://eu.example.com"]).unwrap();
    assert!(refused(&layer, item()).await.to_string().contains("AuthOverride"));
    assert!(refused(&layer, with(AuthOverride::layer())).await.to_string().contains("no token of its own"));
    let tenant = AuthOverride::cache(Issuer::new("tenant").cache());
    for uri in ["https://api.example.com/", "https://eu.example.com/"] {
        let mut request = get(uri);
        request.extensions_mut().insert(tenant.clone());
        assert_eq!(token(&once(&layer, request).await.1), "Bearer tenant-1");
    }
    let error = AuthLayer::per_request::<[&str; 0]>([]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(AuthLayer::per_request(["http://api.example.com"]).unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn no_token_no_request() {
    let issuer = Issuer::new("token").fails_from(1);
    let error = refused(&issuer.layer(), item()).await;
    assert_eq!(error.kind(), ErrorKind::Grant);
    let tenant = Issuer::new("tenant").fails_from(1).cache();
    assert_eq!(
        refused(&Issuer::new("token").layer(), with(AuthOverride::cache(tenant))).await.kind(),
        ErrorKind::Grant
    );
}
