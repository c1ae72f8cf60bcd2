//! Presets for vendors, against emulators that check every field.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "tests look at the paused clock")]
#![allow(clippy::print_stdout, reason = "figures that were measured")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use tower::{BoxError, ServiceExt as _, service_fn};
use tower_oauth2::client::pages::Next;
use tower_oauth2::providers::cxone::{self, Cxone};
use tower_oauth2::providers::genesys::{self, Genesys, Region};
use tower_oauth2::test_util::{FakeCxone, FakeGenesys, Trouble, pass, timed};
use tower_oauth2::{AccessToken, ApiClient, Body, Error, ErrorKind, TokenCache};

/// Characters that form-encoding would change.
const SECRET: &str = "s3cr/t+%&=:x y";

fn preset(fake: &FakeGenesys) -> Genesys {
    Genesys::new(fake.region().parse().unwrap(), "reports", SECRET)
}

fn fake() -> tower_oauth2::test_util::FakeGenesysBuilder {
    FakeGenesys::builder().client("reports", SECRET).public_client("app")
}

fn variables<'a>(set: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + use<'a> {
    let set: HashMap<String, String> =
        set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    move |name| set.get(name).cloned()
}

// --- Grants ---

#[tokio::test(start_paused = true)]
async fn each_grant_of_genesys_is_as_its_emulator_wants_it() {
    let fake = fake().build();
    let genesys = preset(&fake);
    let credentials = TokenCache::new(genesys.client_credentials().build_with(fake.clone()).unwrap());
    assert_eq!(credentials.get().await.unwrap().lifetime(), Some(Duration::from_secs(86_400)));

    let token = fake.sign_in("reports");
    let refresh = TokenCache::new(genesys.refresh_token(token).build_with(fake.clone()).unwrap());
    refresh.get().await.unwrap();
    // And with the one that came in its place.
    refresh.refresh().await.unwrap();

    let app = Genesys::public(fake.region().parse().unwrap(), "app");
    let pkce = app.refresh_token(fake.sign_in("app")).build_with(fake.clone()).unwrap();
    TokenCache::new(pkce).get().await.unwrap();

    let saml = genesys.saml2_bearer("north", "PHNhbWw+").build_with(fake.clone()).unwrap();
    TokenCache::new(saml).get().await.unwrap();

    assert_eq!((fake.counts().tokens, fake.counts().token_requests), (5, 5));
    assert_eq!(fake.faults(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_400_that_means_429_is_waited_out_for_a_minute() {
    let fake = fake().build();
    let genesys = preset(&fake);
    let cache = || {
        let source = genesys.client_credentials().build_with(fake.clone()).unwrap();
        genesys.cache(source, fake.clone()).build()
    };
    fake.throttle_tokens(15);
    let (token, took) = timed(cache().get()).await;
    token.unwrap();
    assert!(took > Duration::from_secs(15) && took < Duration::from_secs(60), "{took:?}");
    assert_eq!((fake.counts().throttled, fake.counts().tokens), (15, 1));

    fake.throttle_tokens(1000);
    let (error, took) = timed(cache().get()).await;
    let error = error.unwrap_err();
    assert!(error.kind() == ErrorKind::Throttled && error.is_temporary(), "{error:?}");
    assert!(took > Duration::from_secs(45) && took < Duration::from_secs(75), "{took:?}");
    fake.throttle_tokens(0);

    // A server that is away is told as soon as the attempts of a source are over.
    fake.stop().await;
    let (error, took) = timed(cache().get()).await;
    assert!(error.unwrap_err().kind() == ErrorKind::Transient && took < Duration::from_secs(10), "{took:?}");
    fake.restart().await.unwrap();

    // A 400 in other words is what it says.
    let wrong = Genesys::new(fake.region().parse().unwrap(), "reports", "wrong");
    let (error, took) =
        timed(TokenCache::new(wrong.client_credentials().build_with(fake.clone()).unwrap()).get()).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(took, Duration::ZERO);
}

// --- The API ---

#[tokio::test(start_paused = true)]
async fn the_first_calls_of_a_program_and_five_tasks_at_once() {
    let fake = fake().users(230).scope("users:readonly").build();
    let api = preset(&fake).connect_with(fake.clone()).unwrap();
    let info = genesys::token_info(&api).await.unwrap();
    info.require_scopes(["users:readonly"]).unwrap();
    assert!(info.require_scopes(["users:readonly", "routing"]).unwrap_err().to_string().contains("routing"));
    assert_eq!((info.client().0, info.organization().1), (Some("reports"), Some("Test")));

    for next in [genesys::entities(), genesys::next_uri()] {
        let mut ids = Vec::new();
        let mut pages = api.get("users").query(&[("pageSize", 100)]).pages(next);
        while let Some(page) = pages.next().await {
            let users: Vec<Value> = page.unwrap().items().unwrap();
            ids.extend(users.into_iter().map(|user| user["id"].as_str().unwrap().to_owned()));
        }
        assert_eq!(ids, (0..230).map(|number| format!("user-{number}")).collect::<Vec<_>>());
        assert_eq!((pages.progress().pages(), pages.progress().total()), (3, Some(230)));
    }
    let calls = join_all((0..5).map(|_| api.get("users/me").send())).await;
    assert!(calls.into_iter().all(|response| response.unwrap().status() == 200));
    assert_eq!((fake.counts().token_requests, fake.counts().ok), (1, 12));
    assert_eq!(fake.faults(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_403_says_which_permission_is_missing() {
    let fake = fake().build();
    let api = preset(&fake).connect_with(fake.clone()).unwrap();
    fake.deny("users", "directory:user:view");
    let refused = genesys::error_for_status(api.get("users").send().await.unwrap()).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the API at https://api.genesys.test returned 403 Forbidden missing.any.permissions: it wants one of \
         directory:user:view; give the OAuth client a role with it; correlation id 7d1a4f0c-0001"
    );
    assert_eq!(
        (refused.status(), refused.permissions()),
        (StatusCode::FORBIDDEN, &["directory:user:view".to_owned()][..])
    );
    // Nothing was sent twice, and the token is as good as before.
    assert_eq!((fake.counts().requests, fake.counts().token_requests), (1, 1));
    assert!(genesys::error_for_status(api.get("users/me").send().await.unwrap()).await.is_ok());
    let other = genesys::error_for_status(api.get("nothing").send().await.unwrap()).await.unwrap_err();
    assert!(other.to_string().contains("400 Bad Request bad.request; correlation id"), "{other}");
    assert_eq!(other.message(), Some("GET nothing is not played"));
}

#[tokio::test(start_paused = true)]
async fn what_an_api_repeats_of_a_request_is_in_no_error() {
    const TOKEN: &str = "9k2mX0aQ-hunter2";
    for (status, code, shown) in [
        (400, TOKEN.to_owned(), "returned 400 Bad Request; correlation id c-1"),
        (403, format!("Bearer {TOKEN}"), "returned 403 Forbidden; correlation id c-1"),
        (400, "x".repeat(65), "returned 400 Bad Request; correlation id c-1"),
        (403, "not.authorized".to_owned(), "returned 403 Forbidden not.authorized; correlation id c-1"),
    ] {
        let server = service_fn(move |request: Request<Body>| {
            let token = request.headers()["authorization"].to_str().unwrap().to_owned();
            let body = json!({ "message": format!("no permission with {token} at {}", request.uri()), "code": code });
            let mut response = Response::new(Body::from(body.to_string()));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response.headers_mut().insert("inin-correlation-id", "c-1".parse().unwrap());
            async { Ok::<_, BoxError>(response) }
        });
        let tokens = AccessToken::bearer(TOKEN).unwrap();
        let api = ApiClient::builder("https://api.example.com", tokens).build_with(server).unwrap();
        let response = api.get("users").query(&[("password", "hunter2")]).send().await.unwrap();
        let refused = genesys::error_for_status(response).await.unwrap_err();
        assert!(refused.to_string().ends_with(shown), "{refused}");
        assert!(!format!("{refused:?} {refused}").contains("hunter2"), "{refused:?}");
        // On request it is there.
        assert!(refused.message().unwrap().contains("password=hunter2"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_revoked_by_itself() {
    let fake = fake().build();
    let genesys = preset(&fake);
    let source = genesys.client_credentials().build_with(fake.clone()).unwrap();
    let tokens = genesys.cache(source, fake.clone()).revoke_at_shutdown(true).build();
    let api = genesys.api(tokens.clone()).unwrap().build_with(fake.clone()).unwrap();
    let first = tokens.get().await.unwrap();
    tokens.revoke().await.unwrap();
    assert_ne!(tokens.get().await.unwrap().header_value(), first.header_value());
    assert_eq!(api.get("users/me").send().await.unwrap().status(), 200);
    let last = tokens.get().await.unwrap();
    tokens.shutdown(Duration::from_secs(5)).await.unwrap();
    for token in [first, last] {
        let request = Request::get("https://api.genesys.test/api/v2/users/me")
            .header("authorization", token.header_value())
            .body(Body::empty());
        let response = fake.clone().oneshot(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), 401);
    }
    // A token that has ended already counts as revoked.
    let tokens = TokenCache::builder(genesys.client_credentials().build_with(fake.clone()).unwrap())
        .revoke_with(genesys.revoker(fake.clone()))
        .build();
    tokens.get().await.unwrap();
    fake.revoke_all();
    tokens.revoke().await.unwrap();
}

/// A paged query of 300 pages, across the end of tokens, two revocations and the limit of each token.
#[tokio::test(start_paused = true)]
async fn three_hundred_pages_of_a_query_come_once_each() {
    let fake = fake()
        .conversations(2_950)
        .lifetime(Duration::from_secs(300))
        .limit(60)
        .latency(Duration::from_millis(200))
        .build();
    let api = preset(&fake).connect_with(fake.clone()).unwrap();
    let query = json!({ "interval": "2026-11", "paging": { "pageSize": 10, "pageNumber": 1 } });
    let mut pages =
        api.post("analytics/conversations/details/query").json(&query).pages(genesys::conversations());
    let mut found = Vec::new();
    let (_, took) = timed(async {
        while let Some(page) = pages.next().await {
            let page = page.unwrap();
            found.extend(
                page.items::<Value>().unwrap().into_iter().map(|item| item["conversationId"].clone()),
            );
            match page.number() {
                90 | 200 => fake.revoke_all(),
                150 => pass(Duration::from_secs(400)).await,
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(found, (0..2_950).map(|number| json!(format!("conversation-{number}"))).collect::<Vec<_>>());
    assert_eq!(pages.progress().to_string(), "page 295, 2950 of 2950 items");
    let counts = fake.counts();
    println!("295 pages in {took:?}: {counts:?}");
    assert_eq!((counts.ok, counts.unauthorized), (295, 2));
    assert!(counts.tokens <= took.as_secs().div_ceil(220) + 2, "{counts:?} in {took:?}");
    assert_eq!(fake.faults(), [""; 0]);
}

async fn press(api: &ApiClient, requests: usize) -> (Duration, usize) {
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let tasks = (0..32).map(|_| {
        let (api, next) = (api.clone(), Arc::clone(&next));
        tokio::spawn(async move {
            let mut failed = 0;
            while next.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < requests {
                let status = api.get("users/me").send().await.map(|response| response.status());
                failed += usize::from(status.ok() != Some(StatusCode::OK));
            }
            failed
        })
    });
    let (failed, took) = timed(join_all(tasks)).await;
    (took, failed.into_iter().map(Result::unwrap).sum())
}

#[tokio::test(start_paused = true)]
async fn a_pool_of_four_from_the_environment_has_four_times_the_throughput() {
    let mut times = Vec::new();
    for size in ["1", "4"] {
        let fake = fake().latency(Duration::from_millis(50)).build();
        let set = [
            ("GENESYSCLOUD_OAUTHCLIENT_ID", "reports"),
            ("GENESYSCLOUD_OAUTHCLIENT_SECRET", SECRET),
            ("GENESYSCLOUD_REGION", FakeGenesys::REGION),
            ("GENESYSCLOUD_TOKEN_POOL_SIZE", size),
        ];
        let api = Genesys::from_variables(variables(&set)).unwrap().connect_with(fake.clone()).unwrap();
        let (took, failed) = press(&api, 7_200).await;
        println!("pool of {size}: {took:?}, {:?}", fake.counts());
        assert_eq!((failed, fake.counts().token_requests.to_string().as_str()), (0, size));
        assert_eq!(fake.faults(), [""; 0]);
        times.push(took.as_secs_f64());
    }
    assert!(times[0] / times[1] >= 3.5, "{times:?}");
}

// --- The environment ---

#[test]
fn every_name_of_every_variable_is_read() {
    let ids = ["GENESYSCLOUD_OAUTHCLIENT_ID", "GENESYS_CLOUD_CLIENT_ID", "GENESYS_CLIENT_ID"];
    let secrets = ["GENESYSCLOUD_OAUTHCLIENT_SECRET", "GENESYS_CLOUD_CLIENT_SECRET", "GENESYS_CLIENT_SECRET"];
    let regions = [
        ("GENESYSCLOUD_REGION", "eu-central-1"),
        ("GENESYS_CLOUD_REGION", "mypurecloud.de"),
        ("GENESYS_REGION", "EU-CENTRAL-1"),
        ("GENESYS_BASE_URL", "https://api.mypurecloud.de"),
        ("GENESYS_ENVIRONMENT", "api.mypurecloud.de"),
        ("GENESYS_ENVIRONMENT", "https://mypurecloud.de/"),
    ];
    for id in ids {
        for secret in secrets {
            for region in regions {
                let set = [(id, "reports"), (secret, SECRET), region, ("GENESYSCLOUD_PROXY_HOST", " ")];
                let genesys = Genesys::from_variables(variables(&set)).unwrap();
                assert_eq!(genesys.token_url(), "https://login.mypurecloud.de/oauth/token");
                assert_eq!(genesys.base_url(), "https://api.mypurecloud.de/api/v2");
                assert_eq!((genesys.pool_size(), genesys.region().domain()), (1, "mypurecloud.de"));
                assert!(!format!("{genesys:?}").contains(SECRET), "{genesys:?}");
                genesys.connect().unwrap();
            }
        }
    }
    let bare = [(ids[0], "a"), (secrets[0], "b"), ("GENESYS_ENVIRONMENT", "mypurecloud")];
    let bare = Genesys::from_variables(variables(&bare)).unwrap();
    assert_eq!(bare.base_url(), "https://api.mypurecloud.com/api/v2");
}

#[test]
fn what_is_wrong_with_the_environment_is_one_sentence_that_names_the_variable() {
    let good = [("GENESYS_CLIENT_ID", "a"), ("GENESYS_CLIENT_SECRET", "b"), ("GENESYS_REGION", "eu-west-1")];
    for (changed, words) in [
        (("GENESYS_CLIENT_ID", ""), "set GENESYSCLOUD_OAUTHCLIENT_ID, or one of"),
        (("GENESYS_CLIENT_SECRET", ""), "set GENESYSCLOUD_OAUTHCLIENT_SECRET, or one of"),
        (("GENESYS_REGION", ""), "set GENESYSCLOUD_REGION, or one of"),
        (("GENESYS_REGION", "eu-west-9"), "GENESYS_REGION: \"eu-west-9\" is no region of Genesys Cloud"),
        (("GENESYSCLOUD_TOKEN_POOL_SIZE", "many"), "GENESYSCLOUD_TOKEN_POOL_SIZE is not a number"),
        (("GENESYSCLOUD_PROXY_HOST", "proxy"), "GENESYSCLOUD_PROXY_PORT is not"),
        (("GENESYSCLOUD_GATEWAY_PORT", "1"), ""),
        (("GENESYSCLOUD_GATEWAY_HOST", "a b"), "GENESYSCLOUD_GATEWAY_HOST:"),
        (("GENESYSCLOUD_GATEWAY_HOST", "evil.com@gateway"), "GENESYSCLOUD_GATEWAY_HOST:"),
        (("GENESYSCLOUD_GATEWAY_HOST", "gateway/x?y"), "GENESYSCLOUD_GATEWAY_HOST:"),
        (("GENESYSCLOUD_GATEWAY_PROTOCOL", "http"), ""),
    ] {
        let set: Vec<_> =
            good.iter().filter(|(name, _)| *name != changed.0).copied().chain([changed]).collect();
        match Genesys::from_variables(variables(&set)) {
            Ok(_) => assert_eq!(words, "", "{changed:?} was taken"),
            Err(error) => {
                let error: Error = error;
                assert!(
                    error.kind() == ErrorKind::Config
                        && error.to_string().contains(words)
                        && !words.is_empty(),
                    "{error}"
                );
            }
        }
    }
    let proxy = |protocol: &'static str| {
        let proxy = [
            ("GENESYSCLOUD_PROXY_HOST", "proxy.example.com"),
            ("GENESYSCLOUD_PROXY_PORT", "8080"),
            ("GENESYSCLOUD_PROXY_PROTOCOL", protocol),
            ("GENESYSCLOUD_PROXY_AUTH_USERNAME", "user"),
            ("GENESYSCLOUD_PROXY_AUTH_PASSWORD", "hunter2"),
        ];
        let set: Vec<_> = good.into_iter().chain(proxy).collect();
        Genesys::from_variables(variables(&set)).unwrap()
    };
    assert!(proxy("http").connect().is_ok() && proxy("ftp").connect().is_err());
    assert!(!format!("{:?}", proxy("http")).contains("hunter2"));
}

#[tokio::test(start_paused = true)]
async fn an_access_token_takes_the_place_of_the_client() {
    let fake = fake().build();
    let token = TokenCache::new(preset(&fake).client_credentials().build_with(fake.clone()).unwrap());
    let token = token
        .get()
        .await
        .unwrap()
        .header_value()
        .to_str()
        .unwrap()
        .strip_prefix("Bearer ")
        .unwrap()
        .to_owned();
    let set = [("GENESYSCLOUD_ACCESS_TOKEN", token.as_str()), ("GENESYSCLOUD_REGION", FakeGenesys::REGION)];
    let genesys = Genesys::from_variables(variables(&set)).unwrap();
    assert!(!format!("{genesys:?}").contains(&token));
    let api = genesys.connect_with(fake.clone()).unwrap();
    assert_eq!(api.get("users/me").send().await.unwrap().status(), 200);
    assert_eq!(fake.counts().token_requests, 1);
}

/// Over real connections, with both hosts behind one gateway.
#[tokio::test]
async fn a_gateway_from_the_environment_stands_in_for_both_hosts() {
    let fake = fake().users(3).start().await.unwrap();
    let origin = fake.origin();
    let port = origin.rsplit(':').next().unwrap();
    let set = [
        ("GENESYS_CLIENT_ID", "reports"),
        ("GENESYS_CLIENT_SECRET", SECRET),
        ("GENESYS_REGION", "eu-west-1"),
        ("GENESYSCLOUD_GATEWAY_HOST", "127.0.0.1"),
        ("GENESYSCLOUD_GATEWAY_PORT", port),
        ("GENESYSCLOUD_GATEWAY_PROTOCOL", "http"),
    ];
    let api = Genesys::from_variables(variables(&set)).unwrap().connect().unwrap();
    let page = api.get("users").pages(genesys::entities()).next().await.unwrap().unwrap();
    assert_eq!(page.items::<Value>().unwrap().len(), 3);
    assert_eq!(fake.faults(), [""; 0]);

    let region: Region = "eu-west-1".parse().unwrap();
    let gateway = "https://gateway.example.com:8443";
    let genesys = || Genesys::new(region.clone(), "a", "b");
    let behind = genesys().gateway(format!("{gateway}/login/"), format!("{gateway}/genesys")).unwrap();
    for wrong in ["http://gateway.example.com", "https://user@gateway.example.com", "https://gateway/x?y"] {
        assert_eq!(genesys().gateway(wrong, gateway).unwrap_err().kind(), ErrorKind::Config, "{wrong}");
        assert_eq!(genesys().gateway(gateway, wrong).unwrap_err().kind(), ErrorKind::Config, "{wrong}");
    }
    assert_eq!(behind.token_url(), "https://gateway.example.com:8443/login/oauth/token");
    assert_eq!(behind.base_url(), "https://gateway.example.com:8443/genesys/api/v2");
    let logs_in = |name, value| {
        let set: Vec<_> = set
            .into_iter()
            .chain([("GENESYSCLOUD_GATEWAY_PATH_NAME", name), ("GENESYSCLOUD_GATEWAY_PATH_VALUE", value)])
            .collect();
        Genesys::from_variables(variables(&set)).map(|genesys| (genesys.token_url(), genesys.base_url()))
    };
    assert_eq!(logs_in("login", "/in").unwrap().0, format!("{origin}/in/oauth/token"));
    assert_eq!(logs_in("api", "out").unwrap().1, format!("{origin}/out/api/v2"));
    assert_eq!(logs_in("other", "out").unwrap_err().kind(), ErrorKind::Config);
}

// --- The emulator ---

#[tokio::test(start_paused = true)]
async fn one_wrong_field_is_a_fault_of_the_emulator() {
    let basic = "Basic cmVwb3J0czpoaQ==";
    let form = "application/x-www-form-urlencoded";
    let good = (
        "POST",
        "https://login.genesys.test/oauth/token",
        Some(basic),
        form,
        "grant_type=client_credentials",
    );
    let (mut rows, mut faults) = (0, 0);
    for (method, url, auth, kind, body) in [
        good,
        ("GET", good.1, good.2, good.3, good.4),
        (good.0, "https://api.genesys.test/oauth/token", good.2, good.3, good.4),
        (good.0, "https://login.evil.test/oauth/token", good.2, good.3, good.4),
        (good.0, "https://login.genesys.test/oauth/token?x=1", good.2, good.3, good.4),
        (good.0, "https://login.genesys.test/token", good.2, good.3, good.4),
        (good.0, good.1, None, good.3, good.4),
        (good.0, good.1, Some("Bearer x"), good.3, good.4),
        (good.0, good.1, Some("Basic %%"), good.3, good.4),
        (good.0, good.1, good.2, "application/json", good.4),
        (good.0, good.1, good.2, good.3, "grant_type=password"),
        (good.0, good.1, good.2, good.3, "grant_type=client_credentials&scope=users"),
        (good.0, good.1, good.2, good.3, "grant_type=client_credentials&client_id=reports"),
        (good.0, good.1, good.2, good.3, "grant_type=client_credentials&grant_type=client_credentials"),
        (good.0, good.1, good.2, good.3, "grant_type=refresh_token&refresh_token="),
    ] {
        let fake = FakeGenesys::builder().client("reports", "hi").build();
        let mut request = Request::builder().method(method).uri(url).header("content-type", kind);
        if let Some(auth) = auth {
            request = request.header("authorization", auth);
        }
        let response = fake.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let is_good = rows == 0;
        assert_eq!(response.status() == 200, is_good, "{method} {url} {kind} {body}");
        assert_eq!(fake.faults().is_empty(), is_good, "{method} {url} {kind} {body}");
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert!(serde_json::from_slice::<Value>(&text).is_ok());
        rows += 1;
        faults += fake.faults().len();
    }
    assert_eq!((rows, faults), (15, 14));

    let fake = fake().users(5).conversations(5).build();
    let api = preset(&fake).connect_with(fake.clone()).unwrap();
    let query = |paging: Value| json!({ "interval": "all", "paging": paging });
    let details = "analytics/conversations/details/query";
    let requests = [
        api.get("users?pageSize=0"),
        api.get("users?pageSize=501"),
        api.get("users?page=1"),
        api.get("users?pageNumber=0"),
        api.get("users?pageNumber=1&pageNumber=2"),
        api.post("users"),
        api.post(details).json(&query(json!({ "pageSize": 101, "pageNumber": 1 }))),
        api.post(details).json(&query(json!({ "pageSize": 10 }))),
        api.post(details).json(&json!({ "paging": { "pageSize": 10, "pageNumber": 1 } })),
        api.post(details).body("{}"),
    ];
    let count = requests.len();
    for request in requests {
        assert_eq!(request.send().await.unwrap().status(), 400);
    }
    assert_eq!(fake.faults().len(), count);
}

// --- NICE CXone ---

/// Access keys hold signs that a form must encode.
const KEY: &str = "k=y+/&%==";
const AGENTS: &str = "incontactapi/services/v30.0/agents";

fn cxone() -> Cxone {
    Cxone::new("reports", SECRET)
        .access_key("key-id", KEY)
        .issuer(FakeCxone::ISSUER)
        .domains([FakeCxone::DOMAIN])
}

fn fake_cxone() -> tower_oauth2::test_util::FakeCxoneBuilder {
    FakeCxone::builder().client("reports", SECRET).access_key("key-id", KEY)
}

#[tokio::test(start_paused = true)]
async fn cxone_is_found_by_two_discoveries_and_its_pages_come_across_revocation_and_429() {
    let fake = fake_cxone().agents(250).build();
    let api = cxone().connect_with(fake.clone()).await.unwrap();
    assert_eq!(api.origin().to_string(), "https://api-na1.cxone.test");
    let next = Next::offset("skip").items("agents").total("/resultSet/totalRecords");
    let mut pages = api.get(AGENTS).query(&[("top", 50)]).pages(next);
    let mut ids = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        ids.extend(
            page.items::<Value>().unwrap().into_iter().map(|agent| agent["agentId"].as_u64().unwrap()),
        );
        match page.number() {
            2 => fake.revoke_all(),
            3 => fake.fail_next(1, Trouble::TooManyRequests { retry_after: Duration::from_secs(20) }),
            _ => {}
        }
    }
    assert_eq!(ids, (0..250).collect::<Vec<_>>());
    let counts = fake.counts();
    assert_eq!((counts.tokens, counts.discoveries, counts.ok, counts.unauthorized), (2, 1, 5, 1));
    assert_eq!(fake.faults(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn each_grant_of_cxone_is_as_its_emulator_wants_it() {
    let fake = fake_cxone().build();
    let cxone = cxone();
    let sources = [
        TokenCache::new(cxone.password().unwrap().build_with(fake.clone()).unwrap()),
        TokenCache::new(cxone.client_credentials().build_with(fake.clone()).unwrap()),
        TokenCache::new(cxone.user_hub(FakeCxone::USER_HUB).unwrap().build_with(fake.clone()).unwrap()),
        cxone.clone().token_url("https://login.cxone.test/auth/token").tokens(fake.clone()).unwrap(),
    ];
    for source in sources {
        let token = source.get().await.unwrap();
        assert_eq!(cxone::tenant_of(&token).as_deref(), Some("11eb-tenant"));
        let api = cxone.discover(&token, fake.clone()).await.unwrap();
        assert_eq!(api, "https://api-na1.cxone.test");
    }
    assert_eq!((fake.counts().tokens, fake.faults()), (4, Vec::new()));
    assert!(
        Cxone::new("a", "b").password().is_err()
            && Cxone::new("a", "b").user_hub(FakeCxone::USER_HUB).is_err()
    );
    let wrong = cxone.access_key("key-id", "wrong").connect_with(fake.clone()).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Grant, "{wrong:?}");
}

#[tokio::test(start_paused = true)]
async fn a_token_of_an_access_key_is_renewed_by_its_refresh_token() {
    let fake = fake_cxone().lifetime(Duration::from_secs(600)).refresh_tokens(true).build();
    let tokens = cxone().tokens(fake.clone()).unwrap();
    let mut names = std::collections::HashSet::new();
    for _ in 0..3 {
        names.insert(tokens.get().await.unwrap().expose().to_owned());
        tokens.refresh().await.unwrap();
    }
    let counts = fake.counts();
    assert_eq!((names.len(), counts.tokens, counts.refreshed, counts.token_requests), (3, 4, 3, 4));
    // A refresh token that has ended costs one request, and the access key gets the next one.
    fake.revoke_refresh_tokens();
    tokens.refresh().await.unwrap();
    let counts = fake.counts();
    assert_eq!((counts.tokens, counts.refreshed, counts.token_requests), (5, 3, 6));
    tokens.refresh().await.unwrap();
    assert_eq!((fake.counts().refreshed, fake.faults()), (4, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_not_met_with_the_access_key_as_well() {
    let fake = fake_cxone().refresh_tokens(true).build();
    let is_away = Arc::new(AtomicUsize::new(0));
    let (away, inner) = (Arc::clone(&is_away), fake.clone());
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let transport = service_fn(move |request: Request<Body>| {
        counted.fetch_add(1, SeqCst);
        let (is_away, inner) = (away.load(SeqCst) > 0, inner.clone());
        async move {
            if is_away {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response.headers_mut().insert("retry-after", "60".parse().unwrap());
                return Ok(response);
            }
            inner.oneshot(request).await
        }
    });
    let preset = cxone().token_url("https://login.cxone.test/auth/token");
    let tokens = preset.tokens(transport).unwrap();
    tokens.get().await.unwrap();
    is_away.store(1, SeqCst);
    assert_eq!(tokens.refresh().await.unwrap_err().kind(), ErrorKind::Throttled);
    // 60 s is more than a source waits for.
    assert_eq!(asked.load(SeqCst), 2);
    is_away.store(0, SeqCst);
    pass(Duration::from_secs(120)).await;
    tokens.refresh().await.unwrap();
    assert_eq!((fake.counts().refreshed, fake.counts().tokens), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_the_refresh_grant_is_asked_by_the_access_key() {
    let fake = fake_cxone().refresh_tokens(true).refresh_grant(false).build();
    let tokens = cxone().tokens(fake.clone()).unwrap();
    tokens.get().await.unwrap();
    for tokens_issued in 2..=4 {
        tokens.refresh().await.unwrap();
        assert_eq!((fake.counts().tokens, fake.counts().refreshed), (tokens_issued, 0));
    }
    // It was asked once: what it does not know at one time it does not know at the next.
    assert_eq!((fake.counts().token_requests, fake.faults()), (5, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_that_is_not_said_is_that_of_the_token() {
    let fake = fake_cxone().lifetime(Duration::from_secs(600)).expires_in(false).build();
    let tokens = cxone().tokens(fake.clone()).unwrap();
    tokens.get().await.unwrap();
    pass(Duration::from_secs(300)).await;
    tokens.get().await.unwrap();
    assert_eq!(fake.counts().tokens, 1);
    pass(Duration::from_secs(301)).await;
    tokens.get().await.unwrap();
    assert_eq!(fake.counts().tokens, 2);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_whose_api_is_elsewhere_gets_no_token() {
    for api in [
        "https://api.evil.test",
        "http://api-na1.cxone.test",
        "https://cxone.test.evil.com",
        "https://evil-cxone.test",
    ] {
        let fake = fake_cxone().api(api).build();
        let error = cxone().connect_with(fake.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{api}: {error}");
        assert_eq!((fake.counts().ok, fake.counts().unauthorized, fake.faults()), (0, 0, Vec::new()));
    }
    // Without the discovery, and with a domain of one's own.
    let fake = fake_cxone().build();
    let api =
        cxone().base_uri("https://api-na1.cxone.test/incontactapi").connect_with(fake.clone()).await.unwrap();
    assert_eq!(api.get("services/v30.0/agents").send().await.unwrap().status(), 200);
    assert_eq!(fake.counts().discoveries, 0);
}

#[test]
fn the_variables_of_cxone_are_read_and_what_is_missing_is_named() {
    let (id, secret) = (("CXONE_CLIENT_ID", "a"), ("CXONE_CLIENT_SECRET", SECRET));
    for (key, of) in
        [("CXONE_ACCESS_KEY_ID", "CXONE_ACCESS_KEY_SECRET"), ("CXONE_ACCESS_KEY", "CXONE_ACCESS_SECRET")]
    {
        let read = Cxone::from_variables(variables(&[id, secret, (key, "k"), (of, KEY)])).unwrap();
        assert!(read.password().is_ok());
        assert!(!format!("{read:?}").contains(KEY) && !format!("{read:?}").contains(SECRET), "{read:?}");
    }
    assert!(Cxone::from_variables(variables(&[id, secret])).unwrap().password().is_err());
    for (set, missing) in [
        (vec![secret], "CXONE_CLIENT_ID"),
        (vec![id], "CXONE_CLIENT_SECRET"),
        (vec![id, secret, ("CXONE_ACCESS_KEY", "k")], "CXONE_ACCESS_KEY_SECRET is not"),
        (vec![id, secret, ("CXONE_ACCESS_SECRET", "k")], "CXONE_ACCESS_KEY_ID is not"),
    ] {
        let error = Cxone::from_variables(variables(&set)).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(missing), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_wrong_field_is_a_fault_of_the_emulator_of_cxone() {
    let (url, form) = ("https://login.cxone.test/auth/token", "application/x-www-form-urlencoded");
    let hub = "https://na1.cxone.test/authentication/v1/token/access-key";
    let basic = Some("Basic cmVwb3J0czpoaQ==");
    let good = "grant_type=password&username=key&password=word";
    let mut rows = 0;
    for (method, url, auth, kind, body) in [
        ("POST", url, basic, form, good),
        ("PUT", url, basic, form, good),
        ("POST", "https://na1.cxone.test/auth/token", basic, form, good),
        ("POST", "https://login.cxone.test/auth/token?x", basic, form, good),
        ("POST", url, None, form, good),
        ("POST", url, basic, "application/json", good),
        ("POST", url, basic, form, "grant_type=password&username=key"),
        ("POST", url, basic, form, "grant_type=password&username=key&password=word&scope=x"),
        ("POST", url, basic, form, "grant_type=client_credentials&scope=x"),
        ("POST", url, basic, form, "grant_type=implicit"),
        ("POST", url, basic, form, "grant_type=refresh_token"),
        ("POST", url, basic, form, "grant_type=refresh_token&refresh_token=a&scope=x"),
        ("POST", hub, basic, "application/json", r#"{"accessKeyId":"key","accessKeySecret":"word"}"#),
        ("POST", hub, None, form, "accessKeyId=key"),
        ("POST", hub, None, "application/json", r#"{"accessKeyId":"key"}"#),
        ("POST", hub, None, "application/json", r#"{"accessKeyId":"key","accessKeySecret":"word","x":"y"}"#),
        ("GET", "https://login.cxone.test/.well-known/cxone-configuration?tenant=x", None, "", ""),
        (
            "GET",
            "https://login.cxone.test/.well-known/cxone-configuration?tenantId=11eb-tenant",
            basic,
            "",
            "",
        ),
    ] {
        let fake = FakeCxone::builder().client("reports", "hi").access_key("key", "word").build();
        let mut request = Request::builder().method(method).uri(url).header("content-type", kind);
        if let Some(auth) = auth {
            request = request.header("authorization", auth);
        }
        let response = fake.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let is_good = rows == 0;
        assert_eq!(
            (response.status() == 200, fake.faults().is_empty()),
            (is_good, is_good),
            "{method} {url} {body}"
        );
        rows += 1;
    }
    assert_eq!(rows, 18);
}

// --- What must not be shown, or kept ---

#[test]
fn a_password_in_the_url_of_a_preset_is_not_shown() {
    let good = [("GENESYS_CLIENT_ID", "a"), ("GENESYS_CLIENT_SECRET", "b")];
    for region in [
        "https://user:hunter2@api.mypurecloud.de",
        "user:hunter2@mypurecloud.de/x",
        "https://user:hunter2/x@a.b",
    ] {
        let set: Vec<_> = good.into_iter().chain([("GENESYS_REGION", region)]).collect();
        let error = Genesys::from_variables(variables(&set)).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(
            error.kind() == ErrorKind::Config && shown.contains("eu-central-1") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
    for host in ["user:hunter2@proxy.example.com", "http://user:hunter2@proxy.example.com"] {
        let proxy = [
            ("GENESYS_REGION", "eu-west-1"),
            ("GENESYSCLOUD_PROXY_HOST", host),
            ("GENESYSCLOUD_PROXY_PORT", "1"),
        ];
        let set: Vec<_> = good.into_iter().chain(proxy).collect();
        let shown = format!("{:?}", Genesys::from_variables(variables(&set)));
        assert!(shown.contains("GENESYSCLOUD_PROXY_HOST") && !shown.contains("hunter2"), "{shown}");
    }
    let cxone = Cxone::new("a", "b")
        .access_key("c", "hunter2")
        .issuer("https://user:hunter2@cxone.niceincontact.com");
    let cxone = cxone
        .token_url("https://t.example.com/token?key=hunter2")
        .base_uri("https://user:hunter2@api.example.com");
    let shown = format!("{cxone:?}");
    assert!(shown.contains("https://cxone.niceincontact.com") && !shown.contains("hunter2"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn an_error_body_without_an_end_is_not_kept_in_memory() {
    let read = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&read);
    let server = service_fn(move |_: Request<Body>| {
        let counted = Arc::clone(&counted);
        let chunks = (0..4_096).map(move |_| {
            counted.fetch_add(1, SeqCst);
            Ok::<_, BoxError>(Frame::data(Bytes::from(vec![b'x'; 16_384])))
        });
        let mut response = Response::new(Body::new(StreamBody::new(stream::iter(chunks))));
        *response.status_mut() = StatusCode::FORBIDDEN;
        async { Ok::<_, BoxError>(response) }
    });
    let tokens = AccessToken::bearer("A1").unwrap();
    let api = ApiClient::builder("https://api.example.com", tokens).build_with(server).unwrap();
    let response = api.get("users/me").send().await.unwrap();
    let refused = genesys::error_for_status(response).await.unwrap_err();
    assert_eq!((refused.status(), refused.code()), (StatusCode::FORBIDDEN, None));
    assert!(read.load(SeqCst) < 100, "{read:?} chunks of 16 KiB");
}

#[tokio::test(start_paused = true)]
async fn permissions_of_any_length_do_not_fill_the_log() {
    let long = "c".repeat(60_000);
    let server = service_fn(move |_: Request<Body>| {
        let body = json!({ "message": format!("it wants [a:b:{long}]"), "code": "missing.permissions" });
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = StatusCode::FORBIDDEN;
        async { Ok::<_, BoxError>(response) }
    });
    let tokens = AccessToken::bearer("A1").unwrap();
    let api = ApiClient::builder("https://api.example.com", tokens).build_with(server).unwrap();
    let response = api.get("users/me").send().await.unwrap();
    let refused = genesys::error_for_status(response).await.unwrap_err();
    assert_eq!((refused.code(), refused.permissions().len()), (Some("missing.permissions"), 1));
    assert!(refused.to_string().len() < 1_000, "{}", refused.to_string().len());
}

#[tokio::test(start_paused = true)]
async fn the_patience_with_a_throttled_endpoint_ends_before_the_deadline_of_the_fetch() {
    let fake = fake().build();
    let genesys = preset(&fake);
    let source = genesys.client_credentials().build_with(fake.clone()).unwrap();
    let cache = genesys.cache(source, fake.clone()).fetch_timeout(Duration::from_secs(12)).build();
    fake.throttle_tokens(1000);
    let (error, took) = timed(cache.get()).await;
    assert!(error.unwrap_err().kind() == ErrorKind::Throttled && took < Duration::from_secs(12), "{took:?}");
}

#[test]
fn what_nobody_sees_at_the_ends_of_a_variable_is_not_read() {
    // A file of variables for a container keeps the quotes.
    for around in ["\r\n", "\u{feff}", " \u{feff} ", "\u{a0}", "\"", "'"] {
        let wrapped = |text: &str| format!("{around}{text}{around}");
        let (region, id, secret) = (wrapped("eu-central-1"), wrapped("id"), wrapped("secret"));
        let set = [
            ("GENESYSCLOUD_REGION", &*region),
            ("GENESYSCLOUD_OAUTHCLIENT_ID", &*id),
            ("GENESYSCLOUD_OAUTHCLIENT_SECRET", &*secret),
        ];
        let _ = Genesys::from_variables(variables(&set)).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_api_is_may_be_known_later() {
    let jwt = "e30.eyJ0ZW5hbnRJZCI6InQxIn0.c2ln";
    let token = AccessToken::bearer(jwt).unwrap();
    for (status, retry_after) in
        [(408, None), (421, None), (425, None), (429, None), (503, Some("7")), (403, Some("7"))]
    {
        let server = service_fn(move |_: Request<Body>| async move {
            let mut response = Response::builder().status(status);
            if let Some(wait) = retry_after {
                response = response.header("retry-after", wait);
            }
            Ok::<_, BoxError>(response.body(Body::empty())?)
        });
        let error = Cxone::new("a", "b").discover(&token, server).await.unwrap_err();
        assert!(error.is_temporary(), "{status}: {error}");
        assert_eq!(error.retry_at().is_some(), retry_after.is_some(), "{status}: {error}");
    }
    let marked = service_fn(|_: Request<Body>| async {
        let document = "\u{feff}{\"api_endpoint\": \"https://api.niceincontact.com\"}";
        Ok::<_, BoxError>(Response::new(Body::from(document)))
    });
    Cxone::new("a", "b").discover(&token, marked).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn where_the_api_is_is_not_asked_over_plain_http() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let server = service_fn(move |_: Request<Body>| {
        counted.fetch_add(1, SeqCst);
        async {
            Ok::<_, BoxError>(Response::new(Body::from(
                r#"{"api_endpoint": "https://api.niceincontact.com"}"#,
            )))
        }
    });
    let jwt = "e30.eyJ0ZW5hbnRJZCI6InQxIn0.c2ln";
    let token = AccessToken::bearer(jwt).unwrap();
    for issuer in [
        "http://cxone.niceincontact.com",
        "https://user:hunter2@cxone.niceincontact.com",
        "cxone.niceincontact.com",
    ] {
        let cxone = Cxone::new("a", "b").token_url("https://cxone.niceincontact.com/token").issuer(issuer);
        let error = cxone.discover(&token, server.clone()).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && !format!("{error:?}").contains("hunter2"), "{error}");
    }
    assert_eq!(asked.load(SeqCst), 0);
    assert!(Cxone::new("a", "b").discover(&token, server).await.is_ok());
    assert_eq!(asked.load(SeqCst), 1);
}
