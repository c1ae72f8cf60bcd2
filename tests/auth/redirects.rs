//! Redirects are followed outside auth, and every hop is looked at anew.

use http::{Method, Request};
use tower::{BoxError, Layer as _, ServiceExt as _};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_http::follow_redirect::policy::{PolicyExt as _, Standard, clone_body_fn};
use tower_oauth2::auth::AuthOverride;
use tower_oauth2::extensions::{TokenRejected, TokenWithheld};
use tower_oauth2::test_util::{Script, ScriptedResponse};
use tower_oauth2::{AuthLayer, Error, ErrorKind, RetryPolicy};

use super::fixture::{
    API, Body, Issuer, Outcome, answer, challenged, get, item, over, send, token, tokens, with,
};

const SECOND_ORIGIN: &str = "https://eu.example.com";

fn moved(status: u16, location: &str) -> ScriptedResponse {
    answer(status, &[("location", location)])
}

/// Sends a request through `FollowRedirect` over the layer over the script.
async fn follow(layer: &AuthLayer, script: &Script, request: Request<Body>) -> Outcome {
    let policy = Standard::default().and::<_, _, BoxError>(clone_body_fn(|body: &Body| Some(body.clone())));
    let client = FollowRedirectLayer::with_policy(policy).layer(over(layer, script));
    client.oneshot(request).await
}

#[path = "../../src/vectors.rs"]
mod vectors;

#[tokio::test(start_paused = true)]
async fn the_vectors_hold_through_the_layer() {
    let vectors = vectors::rows("redirect_origin");
    assert_eq!(vectors.len(), 14);
    for vector in vectors {
        let id = &vector["id"];
        let text = |name: &str| vector["input"][name].as_str().unwrap().to_owned();
        let (from, to) = (text("from_url"), text("to_url"));
        let expected = vector["expect"]["send_token"].as_bool().unwrap();
        let layer = Issuer::new("token").layer();
        let script = Script::new([moved(302, &to)]);
        let outcome = follow(&layer, &script, get(&from)).await;
        let seen = script.seen();
        assert_eq!(token(&seen[0]) == "Bearer token-1", from.starts_with(API), "{id}");
        let followed = seen.get(1).map(token);
        match expected {
            true => assert_eq!(followed.as_deref(), Some("Bearer token-1"), "{id}"),
            // A target that is no URI is not followed at all.
            false => assert!(followed.as_deref().is_none_or(str::is_empty), "{id}: {outcome:?}"),
        }
        // The same target, asked for directly.
        if let Ok(uri) = to.parse::<http::Uri>()
            && uri.authority().is_some()
        {
            let script = Script::default();
            send(&over(&layer, &script), get(&to)).await.unwrap();
            assert_eq!(tokens(&script) == ["Bearer token-1"], expected, "{id}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_redirect_to_a_foreign_origin_carries_no_token() {
    for status in [301, 302, 303, 307, 308] {
        let script = Script::new([moved(status, "https://elsewhere.example.net/x")]);
        let response = follow(&Issuer::new("token").layer(), &script, item()).await.unwrap();
        assert_eq!(tokens(&script), ["Bearer token-1", ""]);
        assert!(response.extensions().get::<TokenWithheld>().is_some());
    }
    let script = Script::new([moved(307, "https://elsewhere.example.net/x")]);
    let refusing = Issuer::new("token").layer().refuse_other_origins(true);
    let error = follow(&refusing, &script, item()).await.unwrap_err();
    assert_eq!(error.downcast_ref::<Error>().unwrap().kind(), ErrorKind::Config);
    assert_eq!(script.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_redirect_to_a_second_allowed_origin_carries_the_token() {
    let script =
        Script::new([moved(307, "https://eu.example.com/x"), moved(307, "https://api.example.com/y")]);
    let layer = Issuer::new("token").layer().allow_origin(SECOND_ORIGIN).unwrap();
    follow(&layer, &script, item()).await.unwrap();
    assert_eq!(tokens(&script), ["Bearer token-1"; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_tenants_request_never_goes_on_with_the_default_token() {
    let (default, tenant) = (Issuer::new("default"), Issuer::new("tenant"));
    let layer = default.layer().allow_origin(SECOND_ORIGIN).unwrap().require_override(true);
    let wish = || with(AuthOverride::cache(tenant.cache()));
    // FollowRedirect drops all extensions when a redirect leaves the origin, the override with them.
    let script = Script::new([moved(307, "https://eu.example.com/x")]);
    let error = follow(&layer, &script, wish()).await.unwrap_err();
    assert!(error.to_string().contains("AuthOverride"), "{error}");
    assert_eq!(tokens(&script), ["Bearer tenant-1"]);
    // Within the origin it stays.
    let script = Script::new([moved(307, "/x")]);
    follow(&layer, &script, wish()).await.unwrap();
    assert_eq!(tokens(&script), ["Bearer tenant-2"; 2]);
    assert_eq!(default.issued(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_307_carries_method_body_and_token_on() {
    let script = Script::new([moved(307, "/elsewhere")]);
    let request = Request::put("https://api.example.com/items").body(Body::from("an item")).unwrap();
    follow(&Issuer::new("token").layer(), &script, request).await.unwrap();
    let seen = script.seen();
    assert_eq!(seen.len(), 2);
    for seen in &seen {
        assert_eq!(
            (&seen.head.method, &seen.body[..], token(seen)),
            (&Method::PUT, &b"an item"[..], "Bearer token-1".into())
        );
    }
    assert_eq!(seen[1].head.uri, "https://api.example.com/elsewhere");
}

#[tokio::test(start_paused = true)]
async fn a_401_of_a_foreign_target_costs_no_token_and_no_replay() {
    let issuer = Issuer::new("token");
    let cache = issuer.warm().await;
    let layer = AuthLayer::for_origin(cache.clone(), API).unwrap();
    let refusal = || challenged("Bearer error=invalid_token");
    let script = Script::new([moved(307, "https://elsewhere.example.net/x"), refusal()]);
    let response = follow(&layer, &script, item()).await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(response.extensions().get::<TokenRejected>().is_none());
    assert_eq!(tokens(&script), ["Bearer token-1", ""]);

    // The order of the paved path: redirects, retry, auth.
    let script = Script::new([moved(307, "https://elsewhere.example.net/x"), refusal()]);
    let policy = Standard::default().and::<_, _, BoxError>(clone_body_fn(|body: &Body| Some(body.clone())));
    let client = FollowRedirectLayer::with_policy(policy)
        .layer(RetryPolicy::default().layer(layer.layer(script.probe())));
    let response = client.oneshot(item()).await.unwrap();
    assert_eq!((response.status().as_u16(), tokens(&script).len()), (401, 2));
    assert!(cache.peek().is_some());
    assert_eq!(issuer.issued(), 1);
}
