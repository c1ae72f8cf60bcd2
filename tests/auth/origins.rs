//! Where a token may go.

use http::header::HOST;
use http::{HeaderValue, Method, Request};
use tower_oauth2::auth::AuthOverride;
use tower_oauth2::extensions::{TokenWithheld, WithheldReason};
use tower_oauth2::test_util::Script;
use tower_oauth2::{AccessToken, AuthLayer, ErrorKind, Origin, TokenCache};
use tracing::Level;

use super::fixture::{API, Body, Issuer, Log, get, item, once, over, refused, send, token};

/// Asserts that the request gets a token.
async fn goes(layer: &AuthLayer, request: Request<Body>) {
    let what = format!("{request:?}");
    let (response, seen) = once(layer, request).await;
    assert!(token(&seen).starts_with("Bearer token-"), "{what}");
    assert!(response.extensions().get::<TokenWithheld>().is_none(), "{what}");
}

/// Asserts that the request is sent without a token, marked with this reason and origin.
async fn stays(layer: &AuthLayer, request: Request<Body>, reason: WithheldReason, origin: Option<&str>) {
    let what = format!("{request:?}");
    let (response, seen) = once(layer, request).await;
    assert_eq!(token(&seen), "", "{what}");
    let marker: &TokenWithheld = response.extensions().get().expect("no marker");
    assert_eq!((marker.reason(), marker.origin()), (reason, origin), "{what}");
}

fn with_host(uri: &str, hosts: &[&'static str]) -> Request<Body> {
    let mut request = get(uri);
    for host in hosts {
        request.headers_mut().append(HOST, HeaderValue::from_static(host));
    }
    request
}

fn connect(uri: &str) -> Request<Body> {
    let mut request = get(uri);
    *request.method_mut() = Method::CONNECT;
    request
}

#[tokio::test(start_paused = true)]
async fn a_foreign_origin_gets_the_request_but_no_token() {
    let issuer = Issuer::new("token");
    let layer = issuer.layer();
    for (uri, origin) in [
        ("https://evil.example.net/a?b", "https://evil.example.net"),
        ("https://x.api.example.com/", "https://x.api.example.com"),
        ("https://api.example.com.evil.net/", "https://api.example.com.evil.net"),
        ("https://api.example.com.:443/", "https://api.example.com."),
        ("https://api.example.com:8443/", "https://api.example.com:8443"),
        ("http://api.example.com/", "http://api.example.com"),
        ("http://api.example.com:443/", "http://api.example.com:443"),
    ] {
        stays(&layer, get(uri), WithheldReason::ForeignOrigin, Some(origin)).await;
    }
    assert_eq!(issuer.issued(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_origin_has_several_spellings() {
    let layer = Issuer::new("token").layer();
    for uri in ["https://api.example.com", "https://API.Example.COM:443/a", "HTTPS://api.example.com/"] {
        goes(&layer, get(uri)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn another_origin_can_be_added() {
    let layer = Issuer::new("token").layer();
    let layer = layer.allow_origin("https://eu.example.com:8443").unwrap();
    goes(&layer, item()).await;
    goes(&layer, get("https://eu.example.com:8443/")).await;
    stays(
        &layer,
        get("https://eu.example.com/"),
        WithheldReason::ForeignOrigin,
        Some("https://eu.example.com"),
    )
    .await;
    assert_eq!(layer.allow_origin("http://eu.example.com").unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn other_origins_can_be_refused() {
    let layer = Issuer::new("token").layer().refuse_other_origins(true);
    let error = refused(&layer, get("https://evil.example.net/path?secret=1")).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(text.contains("https://evil.example.net was refused"), "{text}");
    assert!(text.contains("allow_origin") && !text.contains("secret") && !text.contains("/path"), "{text}");

    let error = refused(&layer, get("https://user:password@api.example.com/")).await;
    assert!(!error.to_string().contains("user:password"), "{error}");
    assert!(error.to_string().contains("before the @"), "{error}");
    let error = refused(&layer, with_host(API, &["evil.example.net"])).await;
    assert!(error.to_string().contains("take the Host header off"), "{error}");
    let error = refused(&layer, connect("api.example.com:443")).await;
    assert!(error.to_string().contains("tunnels below"), "{error}");
    goes(&layer, item()).await;
    // Whoever asks for no token is not asked where it would go.
    let mut anonymous = get("https://evil.example.net/");
    anonymous.extensions_mut().insert(AuthOverride::anonymous());
    assert_eq!(token(&once(&layer, anonymous).await.1), "");
}

#[tokio::test(start_paused = true)]
async fn a_user_name_in_the_uri_gets_no_token() {
    let layer = Issuer::new("token").layer();
    for uri in ["https://user:password@api.example.com/", "https://api.example.com@evil.net/a"] {
        stays(&layer, get(uri), WithheldReason::UserInfo, None).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connect_gets_no_token() {
    let layer = Issuer::new("token").layer();
    stays(&layer, connect("api.example.com:443"), WithheldReason::Connect, None).await;
    stays(&layer, connect(API), WithheldReason::Connect, Some(API)).await;
}

#[tokio::test(start_paused = true)]
async fn the_host_header_must_agree() {
    let layer = Issuer::new("token").layer();
    for hosts in
        [&["api.example.com"][..], &["API.example.com:443"], &["api.example.com", "api.example.com:443"]]
    {
        goes(&layer, with_host(API, hosts)).await;
    }
    for hosts in [
        &["evil.example.net"][..],
        &["api.example.com:8443"],
        &["api.example.com:80"],
        &["api.example.com", "evil.example.net"],
        &["evil.example.net", "api.example.com"],
        &["user@api.example.com"],
        &["api.example.com."],
        &[""],
    ] {
        stays(&layer, with_host(API, hosts), WithheldReason::HostMismatch, Some(API)).await;
        // Among many headers it is found as well.
        let mut request = with_host(API, hosts);
        for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i"] {
            request.headers_mut().insert(name, HeaderValue::from_static("x"));
        }
        stays(&layer, request, WithheldReason::HostMismatch, Some(API)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_alone_is_an_error_that_names_the_cure() {
    let issuer = Issuer::new("token");
    for layer in [issuer.layer(), issuer.layer().refuse_other_origins(true)] {
        for uri in ["/items", "//evil.example.net/a", "*"] {
            let error = refused(&layer, get(uri)).await;
            assert!(
                error.kind() == ErrorKind::Config && error.to_string().contains("default_origin"),
                "{error}"
            );
        }
    }
    let any = AuthLayer::for_any_https_origin_unchecked(issuer.clone());
    assert!(refused(&any, get("/items")).await.to_string().contains("default_origin"));
    let mut anonymous = get("/items");
    anonymous.extensions_mut().insert(AuthOverride::anonymous());
    assert_eq!(token(&once(&issuer.layer(), anonymous).await.1), "");
    assert_eq!(issuer.issued(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_path_alone_goes_where_the_layer_was_told() {
    let told = || Issuer::new("token").layer().default_origin("https://channel.example.com:8443").unwrap();
    let layer = told();
    goes(&layer, get("/items")).await;
    goes(&layer, with_host("/items", &["channel.example.com:8443"])).await;
    for host in ["channel.example.com", "api.example.com", "evil.example.net"] {
        stays(&layer, with_host("/items", &[host]), WithheldReason::HostMismatch, None).await;
    }
    refused(&told().refuse_other_origins(true), with_host("/items", &["evil.example.net"])).await;
    // Saying where paths go does not put that origin on the list.
    stays(
        &layer,
        get("https://channel.example.com:8443/"),
        WithheldReason::ForeignOrigin,
        Some("https://channel.example.com:8443"),
    )
    .await;
    goes(&layer, item()).await;
    assert_eq!(told().default_origin("http://channel.example.com").unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn plain_http_is_for_loopback_alone() {
    let issuer = Issuer::new("token");
    for origin in ["http://127.0.0.1:8080", "http://127.1.2.3", "http://[::1]:8080", "http://localhost"] {
        goes(&AuthLayer::for_origin(issuer.clone(), origin).unwrap(), get(origin)).await;
    }
    for origin in ["http://api.internal", "http://10.0.0.1", "http://localhost.example.com", "http://0.0.0.0"]
    {
        let error = AuthLayer::for_origin(issuer.clone(), origin).unwrap_err();
        assert!(
            error.kind() == ErrorKind::Config && error.to_string().contains("parse_with_insecure_http"),
            "{error}"
        );
        let insecure = Origin::parse_with_insecure_http(origin).unwrap();
        goes(&AuthLayer::for_origin(issuer.clone(), insecure).unwrap(), get(origin)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn any_https_origin_is_any_https_origin() {
    let layer = AuthLayer::for_any_https_origin_unchecked(Issuer::new("token"));
    for uri in
        ["https://api.example.com/", "https://evil.example.net:1/", "http://localhost:80/", "http://[::1]/"]
    {
        goes(&layer, get(uri)).await;
    }
    let http = get("http://api.example.com/");
    stays(&layer, http, WithheldReason::Plaintext, Some("http://api.example.com")).await;
    stays(&layer, get("https://user@api.example.com/"), WithheldReason::UserInfo, None).await;
    stays(&layer, connect("api.example.com:443"), WithheldReason::Connect, None).await;
    stays(&layer, with_host(API, &["evil.example.net"]), WithheldReason::HostMismatch, Some(API)).await;
    goes(&layer, with_host(API, &["api.example.com:443"])).await;
    stays(&layer, get("ftp://api.example.com/"), WithheldReason::ForeignOrigin, None).await;
}

#[tokio::test(start_paused = true)]
async fn a_foreign_origin_is_warned_of_once() {
    let (log, _guard) = Log::from(Level::WARN);
    let script = Script::default();
    let client = over(&Issuer::new("token").layer(), &script);
    for _ in 0..3 {
        for uri in [
            "https://one.example.net/?a=secret-query",
            "https://two.example.net/",
            "https://ONE.example.net:443/",
        ] {
            send(&client, get(uri)).await.unwrap();
        }
        send(&client, item()).await.unwrap();
    }
    let lines = log.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].contains("https://one.example.net") && lines[0].contains("its origin is not on the list")
    );
    assert!(lines[1].contains("https://two.example.net"));
    assert!(!log.text().contains("secret-query"));
}

#[tokio::test(start_paused = true)]
async fn all_services_of_a_layer_share_one_warning() {
    let (log, _guard) = Log::from(Level::WARN);
    let layer = Issuer::new("token").layer();
    for layer in [layer.clone(), layer.clone(), layer] {
        once(&layer, get("https://elsewhere.example.net/")).await;
    }
    assert_eq!(log.lines().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_has_no_origin_is_warned_of_once_per_reason() {
    let (log, _guard) = Log::from(Level::WARN);
    let script = Script::default();
    let client = over(&Issuer::new("token").layer(), &script);
    for _ in 0..10 {
        send(&client, get("https://user:password@api.example.com/")).await.unwrap();
        send(&client, get("https://other:password@api.example.com/")).await.unwrap();
        send(&client, connect("api.example.com:443")).await.unwrap();
    }
    let lines = log.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(!log.text().contains(":password") && !log.text().contains("user:"));
}

#[tokio::test(start_paused = true)]
async fn the_warnings_are_bounded() {
    let (log, _guard) = Log::from(Level::WARN);
    let script = Script::default();
    let client = over(&Issuer::new("token").layer(), &script);
    for number in 0..200 {
        let response = send(&client, get(&format!("https://n{number}.example.net/"))).await.unwrap();
        assert!(response.extensions().get::<TokenWithheld>().is_some());
    }
    assert_eq!(log.lines().len(), 64);
}

#[tokio::test(start_paused = true)]
async fn an_insecure_origin_is_heard_beside_every_https_origin() {
    let layer = AuthLayer::for_any_https_origin_unchecked(Issuer::new("token"))
        .allow_origin(Origin::parse_with_insecure_http("http://legacy.example.com").unwrap())
        .unwrap();
    for (uri, expected) in [
        ("http://legacy.example.com/", "Bearer token-1"),
        ("https://elsewhere.example.com/", "Bearer token-1"),
        ("http://elsewhere.example.com/", ""),
    ] {
        assert_eq!(token(&once(&layer, get(uri)).await.1), expected, "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_gets_no_token_however_it_is_spelt() {
    for method in ["CONNECT", "connect", "Connect", "cOnNeCt"] {
        let mut request = item();
        *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
        let (response, seen) = once(&Issuer::new("token").layer(), request).await;
        let marker: &TokenWithheld = response.extensions().get().unwrap();
        assert_eq!((token(&seen).as_str(), marker.reason()), ("", WithheldReason::Connect), "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_echoes_the_token_of_an_override_is_not_shown() {
    let tenant = TokenCache::new(AccessToken::bearer("s3cr3t-of-the-tenant").unwrap());
    tenant.get().await.unwrap();
    let echo = || {
        let mut request = get("https://s3cr3t-of-the-tenant.evil.example.com/");
        request.extensions_mut().insert(AuthOverride::cache(tenant.clone()));
        request
    };
    let (log, _guard) = Log::from(Level::TRACE);
    let layer = Issuer::new("token").layer();
    let (response, _) = once(&layer, echo()).await;
    let marker: &TokenWithheld = response.extensions().get().unwrap();
    let error = refused(&layer.refuse_other_origins(true), echo()).await;
    let shown = format!("{marker:?} {error} {error:?} {}", log.lines().join(" "));
    assert!(marker.origin().unwrap().contains("evil.example.com"), "{shown}");
    assert!(!shown.contains("s3cr3t-of-the-tenant"), "{shown}");
}
