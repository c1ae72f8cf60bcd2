//! What an answer means for the token that was sent.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, Version};
use tower::{Layer as _, ServiceExt as _};
use tower_oauth2::auth::{AuthOverride, Rejection};
use tower_oauth2::extensions::{
    Challenges, RejectionVerdict as Verdict, ScopeMissing, TokenRejected, TokenWithheld, WithheldReason,
};
use tower_oauth2::test_util::{Probe, Script, ScriptedResponse, reply};
use tower_oauth2::{AccessToken, AuthLayer, RetryPolicy, TokenCache};

use super::fixture::{API, Body, Issuer, answer, challenged, get, item, item_with, over, send, tokens, with};

const INVALID: &str = r#"Bearer error="invalid_token""#;

/// What a token had seen before it was refused.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Nothing,
    Accepted,
    Aged,
    Superseded,
}

/// Sends a request that is answered so, and says which verdict is on the answer, and whether the next request has to
/// fetch another token.
async fn judged(
    adjust: impl Fn(AuthLayer) -> AuthLayer,
    before: Before,
    refusal: ScriptedResponse,
) -> (Response<Body>, Option<Verdict>, bool) {
    let issuer = Issuer::new("token");
    let cache = issuer.warm().await;
    let layer = adjust(AuthLayer::for_origin(cache.clone(), API).unwrap());
    // Not a success: it says nothing of the token.
    let first = reply(if before == Before::Accepted { 204 } else { 500 }, "");
    let script = Script::new([ScriptedResponse::Reply(first), refusal]);
    let renewing = cache.clone();
    let api = script.probe::<Body>();
    let client = layer.layer(Probe::new(move |request| {
        let (api, renewing) = (api.clone(), renewing.clone());
        async move {
            let late = api.calls() == 1 && before == Before::Superseded;
            let response = api.oneshot(request).await;
            if late {
                renewing.refresh().await?;
            }
            response
        }
    }));
    client.clone().oneshot(item()).await.unwrap();
    if before == Before::Aged {
        tokio::time::advance(Duration::from_secs(30)).await;
    }
    let response = client.clone().oneshot(item()).await.unwrap();
    let verdict = response.extensions().get::<TokenRejected>().map(TokenRejected::verdict);
    let dropped = cache.peek().is_none();
    client.oneshot(item()).await.unwrap();
    let renewed = 1 + usize::from(before == Before::Superseded);
    assert_eq!(issuer.issued(), renewed + usize::from(dropped));
    assert_eq!(verdict == Some(Verdict::Invalidated), dropped);
    (response, verdict, dropped)
}

async fn verdict_of(before: Before, strict: bool, refusal: ScriptedResponse) -> Option<Verdict> {
    let adjust = |layer: AuthLayer| if strict { layer.strict_challenges(true) } else { layer };
    judged(adjust, before, refusal).await.1
}

#[tokio::test(start_paused = true)]
async fn a_code_that_blames_the_token_always_costs_it() {
    for challenge in [INVALID, "bearer realm=x, error=invalid_token", "Bearer error=acme_expired"] {
        for before in [Before::Nothing, Before::Accepted, Before::Aged] {
            for strict in [false, true] {
                let verdict = verdict_of(before, strict, challenged(challenge)).await;
                assert_eq!(verdict, Some(Verdict::Invalidated), "{challenge} {before:?} {strict}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_challenge_is_found_wherever_it_stands() {
    for lines in [
        &["Negotiate", INVALID][..],
        &["Basic realm=\"a, Bearer error=insufficient_scope\", BEARER error=\"invalid_token\""],
        &["token68== ,,", "Digest realm=\"\\\"\", nonce=x", "Basic", "Bearer\terror = invalid_token"],
        &[r#"Bearer realm="x", Bearer error="invalid_token""#],
    ] {
        let headers: Vec<_> = lines.iter().map(|line| ("www-authenticate", *line)).collect();
        let verdict = verdict_of(Before::Nothing, true, answer(401, &headers)).await;
        assert_eq!(verdict, Some(Verdict::Invalidated), "{lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_challenge_that_a_gateway_renamed_is_one() {
    let renamed = |challenge| answer(401, &[("x-amzn-Remapped-WWW-Authenticate", challenge)]);
    assert_eq!(verdict_of(Before::Nothing, true, renamed(INVALID)).await, Some(Verdict::Invalidated));
    let scope = verdict_of(Before::Accepted, false, renamed("Bearer error=insufficient_scope")).await;
    assert_eq!(scope, Some(Verdict::NotRefreshable));
}

#[tokio::test(start_paused = true)]
async fn without_a_code_the_token_is_blamed_on_evidence_alone() {
    for challenge in ["", r#"Bearer realm="x""#, "Vendor x=y", "Basic realm=x, Bearer"] {
        let refusal = || match challenge {
            "" => answer(401, &[]),
            challenge => challenged(challenge),
        };
        for (before, verdict) in [
            (Before::Nothing, Verdict::NotRefreshable),
            (Before::Accepted, Verdict::Invalidated),
            (Before::Aged, Verdict::Invalidated),
            (Before::Superseded, Verdict::Superseded),
        ] {
            assert_eq!(verdict_of(before, false, refusal()).await, Some(verdict), "{challenge} {before:?}");
            let strict = verdict_of(before, true, refusal()).await;
            assert_eq!(strict, Some(Verdict::NotRefreshable), "{challenge} {before:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_token_cures_costs_none() {
    for challenge in [
        "Bearer error=insufficient_scope",
        "Bearer error=insufficient_user_authentication, max_age=5",
        "Bearer error=insufficient_claims",
        "Bearer error=invalid_request",
        "Basic realm=x",
        "Negotiate",
        "Digest realm=x, nonce=y",
        "DPoP algs=ES256",
        "DPoP error=invalid_token",
    ] {
        for before in [Before::Nothing, Before::Accepted, Before::Aged, Before::Superseded] {
            let verdict = verdict_of(before, false, challenged(challenge)).await;
            assert_eq!(verdict, Some(Verdict::NotRefreshable), "{challenge} {before:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_refusal_never_takes_a_newer_token_away() {
    let (_, verdict, dropped) = judged(|layer| layer, Before::Superseded, challenged(INVALID)).await;
    assert_eq!((verdict, dropped), (Some(Verdict::Superseded), false));
}

#[tokio::test(start_paused = true)]
async fn other_statuses_say_nothing_of_the_token() {
    for status in [200, 204, 302, 400, 403, 404, 407, 419, 429, 500, 503] {
        let headers =
            [("www-authenticate", INVALID), ("proxy-authenticate", INVALID), ("location", "/elsewhere")];
        let (response, verdict, dropped) =
            judged(|layer| layer, Before::Accepted, answer(status, &headers)).await;
        assert_eq!((response.status().as_u16(), verdict, dropped), (status, None, false));
        assert!(response.extensions().is_empty(), "{status}");
        assert_eq!(response.headers().len(), headers.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_with_a_challenge_still_accepts_the_token() {
    let issuer = Issuer::new("token");
    let script = Script::new([answer(200, &[("www-authenticate", INVALID)]), answer(401, &[])]);
    let client = over(&issuer.layer(), &script);
    let response = send(&client, item()).await.unwrap();
    assert!(response.extensions().is_empty());
    // Accepted before, so a 401 without a challenge is believed.
    let response = send(&client, item()).await.unwrap();
    let marker: &TokenRejected = response.extensions().get().unwrap();
    assert_eq!(marker.verdict(), Verdict::Invalidated);
    assert_eq!((marker.error(), marker.description()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn another_status_can_mean_the_same() {
    let status = StatusCode::from_u16(419).unwrap();
    let adjust = |layer: AuthLayer| layer.rejection_statuses([status]);
    for (refusal, expected) in [
        (answer(419, &[]), Some(Verdict::Invalidated)),
        (answer(419, &[("www-authenticate", INVALID)]), Some(Verdict::Invalidated)),
        (answer(419, &[("www-authenticate", "Basic")]), Some(Verdict::NotRefreshable)),
        (answer(401, &[]), Some(Verdict::Invalidated)),
        (answer(420, &[]), None),
    ] {
        assert_eq!(judged(adjust, Before::Accepted, refusal).await.1, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_of_ones_own_is_asked_first() {
    let adjust = |layer: AuthLayer| {
        layer.rejection(|status, headers| match headers.get("x-session").map(HeaderValue::as_bytes) {
            Some(b"ended") => Rejection::Token,
            Some(b"forbidden") => Rejection::Request,
            Some(b"fine") => Rejection::None,
            _ if status == 499 => Rejection::Token,
            _ => Rejection::Standard,
        })
    };
    for (status, session, challenge, expected) in [
        (200, "ended", "", Some(Verdict::Invalidated)),
        (400, "ended", "Basic", Some(Verdict::Invalidated)),
        (401, "forbidden", INVALID, Some(Verdict::NotRefreshable)),
        (401, "fine", INVALID, None),
        (499, "", "", Some(Verdict::Invalidated)),
        (401, "", INVALID, Some(Verdict::Invalidated)),
        (401, "", "Basic", Some(Verdict::NotRefreshable)),
        (200, "", INVALID, None),
    ] {
        for before in [Before::Nothing, Before::Accepted] {
            let refusal = answer(status, &[("x-session", session), ("www-authenticate", challenge)]);
            let verdict = judged(adjust, before, refusal).await.1;
            assert_eq!(verdict, expected, "{status} {session} {challenge}");
        }
    }
}

fn grpc(version: Version, kind: &str, statuses: &[&str]) -> ScriptedResponse {
    let ScriptedResponse::Reply(mut response) = answer(200, &[("content-type", kind)]) else {
        unreachable!()
    };
    *response.version_mut() = version;
    for status in statuses {
        response.headers_mut().append("grpc-status", status.parse().unwrap());
    }
    ScriptedResponse::Reply(response)
}

#[tokio::test(start_paused = true)]
async fn grpc_says_unauthenticated_over_http_2_and_in_the_headers() {
    for kind in ["application/grpc", "application/grpc+proto"] {
        for before in [Before::Nothing, Before::Accepted] {
            let refusal = grpc(Version::HTTP_2, kind, &["16"]);
            assert_eq!(verdict_of(before, true, refusal).await, Some(Verdict::Invalidated));
        }
    }
    for (version, kind, statuses) in [
        (Version::HTTP_11, "application/grpc", &["16"][..]),
        (Version::HTTP_3, "application/grpc", &["16"]),
        (Version::HTTP_2, "application/json", &["16"]),
        (Version::HTTP_2, "text/application/grpc", &["16"]),
        (Version::HTTP_2, "application/grpc", &["16", "16"]),
        (Version::HTTP_2, "application/grpc", &["0", "16"]),
        (Version::HTTP_2, "application/grpc", &["16", "0"]),
        (Version::HTTP_2, "application/grpc", &["016"]),
        (Version::HTTP_2, "application/grpc", &["16, 16"]),
        (Version::HTTP_2, "application/grpc", &["7"]),
        (Version::HTTP_2, "application/grpc", &[""]),
        (Version::HTTP_2, "application/grpc", &[]),
    ] {
        let refusal = grpc(version, kind, statuses);
        assert_eq!(
            verdict_of(Before::Accepted, false, refusal).await,
            None,
            "{version:?} {kind} {statuses:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_scope_is_said_and_keeps_the_token() {
    let asks = r#"Bearer error="insufficient_scope", scope="orders:write orders:read""#;
    for status in [401, 403] {
        let (response, verdict, dropped) =
            judged(|layer| layer, Before::Nothing, answer(status, &[("www-authenticate", asks)])).await;
        let missing: &ScopeMissing = response.extensions().get().unwrap();
        assert_eq!(missing.scope(), Some("orders:write orders:read"));
        assert_eq!(verdict, (status == 401).then_some(Verdict::NotRefreshable));
        assert!(!dropped);
    }
    let (response, ..) =
        judged(|layer| layer, Before::Nothing, challenged("Bearer error=insufficient_scope")).await;
    assert_eq!(response.extensions().get::<ScopeMissing>().unwrap().scope(), None);
    for refusal in [answer(403, &[]), answer(403, &[("www-authenticate", "Basic error=insufficient_scope")])]
    {
        let (response, ..) = judged(|layer| layer, Before::Nothing, refusal).await;
        assert!(response.extensions().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_more_scope_has_taken_the_token() {
    let asks = "Bearer error=insufficient_scope";
    let script = Script::new([answer(403, &[("www-authenticate", asks)]), answer(401, &[])]);
    let client = over(&Issuer::new("token").layer(), &script);
    send(&client, item()).await.unwrap();
    let response = send(&client, item()).await.unwrap();
    let marker: &TokenRejected = response.extensions().get().unwrap();
    assert_eq!(marker.verdict(), Verdict::Invalidated);
}

#[tokio::test(start_paused = true)]
async fn whatever_means_a_refusal_is_replayed() {
    let status = StatusCode::from_u16(419).unwrap();
    let layer = Issuer::new("token").layer().rejection_statuses([status]);
    let script = Script::new([answer(419, &[("www-authenticate", INVALID)])]);
    let client = RetryPolicy::default().layer(layer.layer(script.probe()));
    assert_eq!(client.oneshot(item()).await.unwrap().status(), 200);
    assert_eq!(tokens(&script), ["Bearer token-1", "Bearer token-2"]);
}

/// Gets real markers, the only ones there are.
async fn markers() -> (TokenRejected, TokenWithheld, ScopeMissing) {
    let script = Script::new([challenged("Bearer error=insufficient_scope, scope=admin")]);
    let client = over(&Issuer::new("token").layer(), &script);
    let refused = send(&client, item()).await.unwrap();
    let foreign = send(&client, get("https://elsewhere.example.com/")).await.unwrap();
    let (refused, foreign) = (refused.extensions(), foreign.extensions());
    (refused.get().cloned().unwrap(), foreign.get().cloned().unwrap(), refused.get().cloned().unwrap())
}

#[tokio::test(start_paused = true)]
async fn markers_that_auth_did_not_set_are_removed() {
    let (rejected, withheld, scope) = markers().await;
    let lie = |status| {
        let mut response = reply(status, "");
        response.extensions_mut().insert(rejected.clone());
        response.extensions_mut().insert(withheld.clone());
        response.extensions_mut().insert(scope.clone());
        response.extensions_mut().insert("somebody else's");
        ScriptedResponse::Reply(response)
    };
    let layer = Issuer::new("token").layer();
    let foreign = get("https://foreign.example.com/");
    for request in
        [item(), item_with("authorization", "Bearer mine"), with(AuthOverride::anonymous()), foreign]
    {
        let is_foreign = request.uri().host() == Some("foreign.example.com");
        for status in [200, 500] {
            let script = Script::new([lie(status)]);
            let response = send(&over(&layer, &script), request.clone()).await.unwrap();
            let extensions = response.extensions();
            assert!(
                extensions.get::<TokenRejected>().is_none() && extensions.get::<ScopeMissing>().is_none()
            );
            let reason = extensions.get::<TokenWithheld>().map(|marker| (marker.reason(), marker.origin()));
            let own = (WithheldReason::ForeignOrigin, Some("https://foreign.example.com"));
            assert_eq!(reason, is_foreign.then_some(own));
            assert_eq!(extensions.get(), Some(&"somebody else's"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lie_of_an_inner_service_causes_no_replay() {
    let (script, issuer) = (Script::default(), Issuer::new("token"));
    let rejected = {
        let refusing = Script::new([challenged(INVALID)]);
        let response = send(&over(&Issuer::new("other").layer(), &refusing), item()).await.unwrap();
        response.extensions().get::<TokenRejected>().cloned().unwrap()
    };
    assert_eq!(rejected.verdict(), Verdict::Invalidated);
    let api = script.probe();
    let client = RetryPolicy::default().layer(issuer.layer().layer(Probe::new(move |request| {
        let (api, rejected) = (api.clone(), rejected.clone());
        async move {
            let mut response: Response<Body> = api.oneshot(request).await?;
            response.extensions_mut().insert(rejected);
            Ok(response)
        }
    })));
    assert_eq!(client.oneshot(item()).await.unwrap().status(), 200);
    assert_eq!((script.seen().len(), issuer.issued()), (1, 1));
}

// --- Foreign text ---

/// Returns the marker of a 401 with this description, to a request with this token.
async fn marker_of(secret: &str, challenge: &str) -> TokenRejected {
    let source = AccessToken::bearer(secret).unwrap();
    let layer = AuthLayer::for_origin(TokenCache::new(source), API).unwrap();
    let script = Script::new([challenged(challenge)]);
    let response = send(&over(&layer, &script), item()).await.unwrap();
    response.extensions().get::<TokenRejected>().cloned().unwrap()
}

async fn description(secret: &str, text: &str) -> String {
    let challenge = format!("Bearer error=invalid_token, error_description=\"{text}\"");
    marker_of(secret, &challenge).await.description().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn control_characters_are_taken_out() {
    assert_eq!(description("abcd", "the\ttoken\u{202e} ended\u{2028}").await, "the token  ended ");
}

#[tokio::test(start_paused = true)]
async fn a_description_is_cut() {
    let shown = description("abcd", &"x".repeat(1000)).await;
    assert_eq!(shown.chars().count(), 256);
    let shown = description("abcd", &"x".repeat(256)).await;
    assert_eq!(shown, "x".repeat(256));
    let code = format!("Bearer error={}", "y".repeat(1000));
    assert_eq!(marker_of("abcd", &code).await.error().unwrap().chars().count(), 256);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_comes_back_is_redacted() {
    let secret = "S3cr/et+t0ken=1|x";
    let base64 = "UzNjci9ldCt0MGtlbj0xfHg";
    let form = "S3cr%2Fet%2Bt0ken%3D1%7Cx";
    for echo in [secret, base64, form, &form.to_lowercase()] {
        let shown = description(secret, &format!("the token {echo} has ended")).await;
        assert!(shown.contains("[redacted]"), "{shown}");
        assert!(!shown.contains(echo), "{shown}");
        // Where the text is cut, no half of it is left.
        let shown = description(secret, &format!("{}{echo}", "x".repeat(250))).await;
        assert!(!shown.contains(&echo[..6]), "{shown}");
        let marker = marker_of(secret, &format!("Bearer error=\"{echo}\"")).await;
        assert!(!format!("{marker:?}").contains(echo), "{marker:?}");
    }
    // The search finds what it looks for.
    assert!(description("another-token", secret).await.contains(secret));
}

#[tokio::test(start_paused = true)]
async fn the_scope_of_a_marker_is_cleaned_too() {
    let script = Script::new([challenged("Bearer error=insufficient_scope, scope=\"a\ttoken-1\"")]);
    let response = send(&over(&Issuer::new("token").layer(), &script), item()).await.unwrap();
    assert_eq!(response.extensions().get::<ScopeMissing>().unwrap().scope(), Some("a [redacted]"));
}

// --- The challenges themselves ---

async fn challenges(secret: &str, status: u16, headers: &[(&'static str, &str)]) -> Option<Challenges> {
    let source = AccessToken::bearer(secret).unwrap();
    let layer = AuthLayer::for_origin(source, API).unwrap();
    let script = Script::new([answer(status, headers)]);
    let response = send(&over(&layer, &script), item()).await.unwrap();
    response.extensions().get().cloned()
}

#[tokio::test(start_paused = true)]
async fn the_challenges_of_a_refusal_are_there_for_what_is_built_on_them() {
    let claims = format!("eyJ{}", "hY2Nlc3NfdG9rZW4i".repeat(40));
    let long =
        format!("Bearer realm=https://api.example.com/, error=insufficient_claims, claims=\"{claims}\"");
    let metadata =
        "Bearer resource_metadata=\"https://api.example.com/.well-known/oauth-protected-resource\"";
    for status in [401, 403] {
        let scope = "Bearer error=insufficient_scope";
        let headers =
            [("www-authenticate", &*long), ("www-authenticate", metadata), ("www-authenticate", scope)];
        let found = challenges("s3cr3t-token", status, &headers).await.unwrap();
        assert_eq!(found.param("bearer", "claims"), Some(&*claims));
        assert_eq!(found.param("bearer", "realm"), Some("https://api.example.com/"));
        assert_eq!(
            found.param("bearer", "resource_metadata"),
            Some("https://api.example.com/.well-known/oauth-protected-resource")
        );
        assert_eq!((found.param("basic", "realm"), found.param("bearer", "nonce")), (None, None));
        assert_eq!(found.iter().count(), 3);
    }
    for status in [200, 403, 404, 407, 500] {
        assert_eq!(challenges("s3cr3t-token", status, &[("www-authenticate", metadata)]).await, None);
    }
    assert_eq!(challenges("s3cr3t-token", 401, &[]).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_echoed_is_in_no_challenge() {
    let shown = async |challenge: &str| {
        let found = challenges("s3cr3t-token-1", 401, &[("www-authenticate", challenge)]).await.unwrap();
        let all = found.iter().map(|challenge| {
            let params: Vec<_> = challenge.params().collect();
            format!("{} {:?} {params:?}", challenge.scheme(), challenge.token68())
        });
        all.collect::<Vec<_>>().join("; ")
    };
    assert_eq!(
        shown("Bearer realm=\"a\", x=\"of s3cr3t-token-1, too\"").await,
        r#"bearer None [("realm", "a"), ("x", "of [redacted], too")]"#
    );
    assert_eq!(
        shown("Negotiate s3cr3t-token-1, Basic").await,
        "negotiate Some(\"[redacted]\") []; basic None []"
    );
    assert_eq!(shown("S3CR3T-TOKEN-1 a=b, Basic").await, "basic None []");
    assert_eq!(shown("Bearer s3cr3t-token-1=b, Basic").await, "basic None []");
    // The middle of a long value, and one behind all that is searched.
    let long = format!("Bearer x=\"{}s3cr3t-token-1\"", "q".repeat(5000));
    assert!(!shown(&long).await.contains("s3cr3t"));
    let longer = format!("Basic, Bearer x=\"{}s3cr3t-token-1\", DPoP", "q".repeat(9000));
    assert_eq!(shown(&longer).await, "basic None []");
}

#[tokio::test(start_paused = true)]
async fn challenges_that_auth_did_not_read_are_removed() {
    let made_up = challenges("other", 401, &[("www-authenticate", "Bearer a=b")]).await.unwrap();
    let mut response = reply(200, "");
    response.extensions_mut().insert(made_up);
    let script = Script::new([ScriptedResponse::Reply(response)]);
    let response = send(&over(&Issuer::new("token").layer(), &script), item()).await.unwrap();
    assert!(response.extensions().get::<Challenges>().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_header_of_64_kilobytes_is_read_to_its_end() {
    let long = "q".repeat(64 * 1024);
    for challenge in [
        format!("Basic realm=\"{long}\", {INVALID}"),
        format!("Bearer error=\"invalid_token\", error_description=\"{long}\""),
        format!("{} {INVALID}", ",".repeat(64 * 1024)),
    ] {
        let marker = marker_of("abcd", &challenge).await;
        assert_eq!((marker.verdict(), marker.error()), (Verdict::Invalidated, Some("invalid_token")));
        assert!(marker.description().is_none_or(|text| text.chars().count() == 256));
    }
    let garbage = format!("Bearer {}", "=\"\\,".repeat(16 * 1024));
    assert_eq!(marker_of("abcd", &garbage).await.verdict(), Verdict::NotRefreshable);
}

// --- Not ours ---

#[tokio::test(start_paused = true)]
async fn a_401_of_a_foreign_origin_changes_nothing() {
    let cache = Issuer::new("token").warm().await;
    let layer = AuthLayer::for_origin(cache.clone(), API).unwrap();
    let script = Script::new([challenged(INVALID)]);
    let response = send(&over(&layer, &script), get("https://elsewhere.example.com/")).await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(response.extensions().get::<TokenRejected>().is_none());
    assert!(response.extensions().get::<TokenWithheld>().is_some());
    assert!(cache.peek().is_some());
    assert_eq!(tokens(&script), [""]);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_inner_service_passes_unchanged() {
    #[derive(Debug)]
    struct Mine;
    impl std::fmt::Display for Mine {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("mine")
        }
    }
    impl std::error::Error for Mine {}

    let issuer = Issuer::new("token");
    let script =
        Script::new([ScriptedResponse::Fail(Box::new(Mine)), ScriptedResponse::Fail(Box::new(Mine))]);
    let client = over(&issuer.layer(), &script);
    for _ in 0..2 {
        assert!(send(&client, item()).await.unwrap_err().is::<Mine>());
    }
    assert_eq!(issuer.issued(), 1);
}
