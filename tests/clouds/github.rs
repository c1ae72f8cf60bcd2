//! GitHub Apps.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tower::{BoxError, ServiceExt as _};
use tower_oauth2::client::pages::Next;
use tower_oauth2::providers::github::{GithubApp, Installation};
use tower_oauth2::test_util::{FakeGithub, FakeGithubBuilder, pass, timed};
use tower_oauth2::{
    AccessToken, Body, ErrorKind, FetchReason, Secret, TokenCache, TokenRequest, TokenSource as _,
};

use super::{RawRequest, Scratch, variables};

const CLIENT: &str = "Iv23liABC";

fn fake() -> FakeGithubBuilder {
    FakeGithub::builder(CLIENT).installation(7, ["site", "docs", "tools"]).installation(8, ["other"])
}

fn app() -> GithubApp {
    GithubApp::new(CLIENT, FakeGithub::private_key()).base_url(FakeGithub::BASE_URL)
}

async fn names(fake: &FakeGithub, installation: impl Into<Installation>) -> Vec<String> {
    let api = app().connect_with(installation, fake.clone()).unwrap();
    let mut pages = api
        .get("installation/repositories")
        .query(&[("per_page", 2)])
        .pages(Next::link().items("repositories"));
    let mut names = Vec::new();
    while let Some(page) = pages.next().await {
        let items: Vec<Value> = page.unwrap().items().unwrap();
        names.extend(items.iter().map(|item| item["full_name"].as_str().unwrap().to_owned()));
    }
    names
}

#[tokio::test(start_paused = true)]
async fn an_installation_lists_its_repositories_by_a_token_of_an_hour() {
    let fake = fake().build();
    let api = app().connect_with(7, fake.clone()).unwrap();
    for _ in 0..3 {
        assert_eq!(api.get("installation/repositories").send().await.unwrap().status(), 200);
    }
    assert_eq!((fake.counts().token_requests, fake.counts().ok), (1, 3));
    assert_eq!(names(&fake, 7).await, ["octo/site", "octo/docs", "octo/tools"]);
    assert_eq!(names(&fake, 8).await, ["octo/other"]);

    // The end of a token is in `expires_at`: before it another is fetched.
    pass(Duration::from_secs(3601)).await;
    assert_eq!(api.get("installation/repositories").send().await.unwrap().status(), 200);
    assert_eq!((fake.counts().token_requests, fake.counts().unauthorized), (4, 0));
    fake.revoke_all();
    assert_eq!(api.get("installation/repositories").send().await.unwrap().status(), 200);
    assert_eq!((fake.counts().token_requests, fake.counts().unauthorized), (5, 1));
    assert_eq!(fake.faults(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_narrowed_to_repositories_and_permissions() {
    let fake = fake().build();
    let reader = Installation::new(7).repository("site").repository("docs").permission("issues", "read");
    assert_eq!(names(&fake, reader.clone()).await, ["octo/docs", "octo/site"]);
    let issue = async |installation: Installation, repository: &str| {
        let api = app().connect_with(installation, fake.clone()).unwrap();
        let request =
            api.post(format!("repos/octo/{repository}/issues")).json(&json!({ "title": "It is broken" }));
        request.send().await.unwrap().status()
    };
    // A 403 that gives no hint is a missing permission, and is returned at once.
    assert_eq!(issue(reader.clone(), "site").await, 403);
    assert_eq!(issue(reader, "tools").await, 404);
    assert_eq!(issue(Installation::new(7), "tools").await, 201);
    assert_eq!(fake.faults(), [""; 0]);

    for wrong in [
        Installation::new(9),
        Installation::new(7).repository("none"),
        Installation::new(7).permission("contents", "write"),
        Installation::new(7).permission("secrets", "read"),
    ] {
        let source = app().installation_token(wrong).unwrap().build_with(fake.clone()).unwrap();
        let error = TokenCache::new(source).get().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
    assert_eq!(fake.faults(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn each_installation_has_a_token_and_limits_of_its_own() {
    let fake = fake().limit(2).build();
    let installations = app().installations(fake.clone()).build().unwrap();
    let api = app().api(app().jwt().unwrap()).unwrap();
    let api = api.build_with(fake.clone()).unwrap();
    let get = async |installation: Option<Installation>, path: &str| {
        let mut request = api.get(path);
        if let Some(installation) = installation {
            installations.authorize(request.extensions_mut(), &installation).unwrap();
        }
        request.send().await.unwrap().status()
    };
    let list = "installation/repositories";
    for _ in 0..2 {
        assert_eq!(get(Some(7.into()), list).await, 200);
    }
    // Its hour is used up, which is longer than a request waits. The other one goes on.
    assert_eq!(get(Some(7.into()), list).await, 403);
    assert_eq!(get(Some(8.into()), list).await, 200);
    assert_eq!((installations.len(), fake.counts().tokens), (2, 2));
    // Without an installation it is the app that asks.
    assert_eq!(get(None, "app").await, 200);
    pass(Duration::from_secs(3600)).await;
    assert_eq!(get(Some(7.into()), list).await, 200);
    assert_eq!(fake.faults(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn limits_are_waited_for_as_the_api_asks() {
    let fake = fake().build();
    let api = app().connect_with(7, fake.clone()).unwrap();
    api.tokens().get().await.unwrap();
    let (forbidden, busy) = (StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS);
    for (status, retry_after, least, most) in
        [(forbidden, Some(45), 45, 60), (busy, Some(30), 30, 45), (busy, None, 60, 90)]
    {
        fake.limit_next(1, status, retry_after.map(Duration::from_secs));
        let (response, took) = timed(api.get("installation/repositories").send()).await;
        assert_eq!(response.unwrap().status(), 200);
        assert!((least..most).contains(&took.as_secs()), "{status} {retry_after:?}: {took:?}");
    }
    // A 403 that says so in its body alone is returned. The gate is open again by then.
    pass(Duration::from_secs(60)).await;
    fake.limit_next(1, forbidden, None);
    let (response, took) = timed(api.get("installation/repositories").send()).await;
    assert_eq!((response.unwrap().status(), took), (forbidden, Duration::ZERO));
    assert_eq!((fake.counts().limited, fake.counts().ok), (4, 3));

    // A limit that meets the token request.
    fake.limit_next(1, forbidden, Some(Duration::from_secs(8)));
    let (token, took) = timed(api.tokens().refresh()).await;
    token.unwrap();
    assert!((8..12).contains(&took.as_secs()), "{took:?}");
    fake.limit_next(1, forbidden, Some(Duration::from_secs(60)));
    assert_eq!(api.tokens().refresh().await.unwrap_err().kind(), ErrorKind::Throttled);
    // A secondary limit that is told by its message alone.
    fake.limit_next(1, forbidden, None);
    api.tokens().refresh().await.unwrap();
    fake.limit_next(4, forbidden, None);
    assert_eq!(api.tokens().refresh().await.unwrap_err().kind(), ErrorKind::Throttled);
    // Nor is a token revoked then.
    fake.limit_next(1, forbidden, Some(Duration::from_secs(60)));
    let error = api.tokens().revoke().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Throttled && error.retry_at().is_some(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_page_of_a_gateway_says_nothing_of_an_app() {
    for status in [403, 404, 422] {
        let gateway = tower::service_fn(move |_: Request<Body>| async move {
            Ok::<_, BoxError>(Response::builder().status(status).body(Body::from("<html>Not here</html>"))?)
        });
        let source = app().installation_token(7).unwrap().build_with(gateway).unwrap();
        let other = AccessToken::bearer("somebody-else").unwrap();
        let request = TokenRequest::new(FetchReason::Initial);
        assert!(source.or(other).token(request).await.is_err(), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_with_a_reset_is_waited_for_until_then() {
    // An hour is longer than a request waits; this one is nearly over.
    let fake = fake().limit(1).build();
    let api = app().connect_with(7, fake.clone()).unwrap();
    assert_eq!(api.get("installation/repositories").send().await.unwrap().status(), 200);
    pass(Duration::from_secs(3500)).await;
    let (response, took) = timed(api.get("installation/repositories").send()).await;
    assert_eq!(response.unwrap().status(), 200);
    assert!((100..130).contains(&took.as_secs()), "{took:?}");
    assert_eq!((fake.counts().limited, fake.counts().ok), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_token_ends_itself() {
    let fake = fake().build();
    let api = app().connect_with(7, fake.clone()).unwrap();
    let token = api.tokens().get().await.unwrap();
    api.tokens().revoke().await.unwrap();
    let request = Request::get("https://api.github.test/installation/repositories")
        .header("authorization", token.header_value())
        .header("user-agent", "test")
        .body(Body::empty());
    assert_eq!(fake.clone().oneshot(request.unwrap()).await.unwrap().status(), 401);
    assert_eq!(fake.faults(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_github_does_not_know_is_told_what_to_check() {
    let fake = FakeGithub::builder("another").installation(7, ["site"]).build();
    let error = app().connect_with(7, fake.clone()).unwrap().tokens().get().await.unwrap_err();
    let text = error.to_string();
    assert!(
        error.kind() == ErrorKind::Config && text.contains("'Issuer' claim") && text.contains("clock"),
        "{text}"
    );
    assert_eq!(fake.counts().token_requests, 1);
    assert_eq!(GithubApp::new(CLIENT, "no key").connect_with(7, fake).unwrap_err().kind(), ErrorKind::Config);
}

// --- The environment ---

#[tokio::test(start_paused = true)]
async fn every_variable_is_read() {
    let fake = fake().build();
    let escaped = FakeGithub::private_key().replace('\n', "\\n");
    let file = Scratch::holding("github.pem", FakeGithub::private_key());
    for key in [escaped.as_str(), file.path.to_str().unwrap()] {
        for (id, url) in [
            ("GITHUB_APP_CLIENT_ID", ("GITHUB_API_URL", FakeGithub::BASE_URL)),
            ("GITHUB_APP_ID", ("GITHUB_BASE_URL", "https://api.github.test/")),
        ] {
            let set = [(id, CLIENT), ("GITHUB_APP_PEM_FILE", key), ("GITHUB_APP_INSTALLATION_ID", "7"), url];
            let app = GithubApp::from_variables(variables(&set)).unwrap();
            let api = app.connect_with(app.installation().unwrap(), fake.clone()).unwrap();
            // A file is read off this thread, which the paused clock does not wait for.
            tokio::time::resume();
            assert_eq!(api.get("installation/repositories").send().await.unwrap().status(), 200);
            tokio::time::pause();
            assert!(!format!("{app:?}").contains("PRIVATE"), "{app:?}");
        }
    }
    assert_eq!((fake.counts().ok, fake.faults()), (4, Vec::new()));
}

#[test]
fn what_is_wrong_with_the_environment_is_one_sentence_that_names_the_variable() {
    let good = [("GITHUB_APP_ID", "1"), ("GITHUB_APP_PEM_FILE", "/run/app.pem")];
    for (changed, words) in [
        (("GITHUB_APP_ID", " "), "set GITHUB_APP_CLIENT_ID, or one of GITHUB_APP_ID"),
        (("GITHUB_APP_PEM_FILE", ""), "set GITHUB_APP_PEM_FILE"),
        (("GITHUB_APP_INSTALLATION_ID", "octo"), "GITHUB_APP_INSTALLATION_ID is not a number"),
    ] {
        let set: Vec<_> =
            good.iter().filter(|(name, _)| *name != changed.0).copied().chain([changed]).collect();
        let error = GithubApp::from_variables(variables(&set)).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(words), "{error}");
    }
    let error = GithubApp::from_variables(variables(&good)).unwrap().installation().unwrap_err();
    assert!(error.to_string().contains("set GITHUB_APP_INSTALLATION_ID"), "{error}");
}

// --- The emulator ---

#[tokio::test(start_paused = true)]
async fn one_wrong_field_is_refused_by_the_emulator() {
    let jwt = app().jwt().unwrap().token(TokenRequest::new(FetchReason::Initial)).await.unwrap();
    let bearer = jwt.header_value().to_str().unwrap().to_owned();
    let good = RawRequest {
        method: Method::POST,
        url: "https://api.github.test/app/installations/7/access_tokens".to_owned(),
        headers: HeaderMap::new(),
        body: r#"{"repositories":["site"],"permissions":{"issues":"read"}}"#.to_owned(),
    };
    let good = good.but(|letter| {
        letter.header("user-agent", "test");
        letter.header("authorization", &bearer);
        letter.header("content-type", "application/json");
    });
    let mut changed = bearer.clone();
    changed.replace_range(changed.len() - 4.., "AAAA");
    let wrong = [
        good.but(|letter| letter.method = Method::PUT),
        good.but(|letter| letter.url = letter.url.replace("api.github.test", "github.test")),
        good.but(|letter| letter.url = letter.url.replace("/7/", "/9/")),
        good.but(|letter| letter.url = letter.url.replace("access_tokens", "tokens")),
        good.but(|letter| letter.url.push_str("?x=1")),
        good.but(|letter| drop(letter.headers.remove("user-agent"))),
        good.but(|letter| drop(letter.headers.remove("authorization"))),
        good.but(|letter| letter.header("authorization", &bearer.replace("Bearer", "Token"))),
        good.but(|letter| letter.header("authorization", &changed)),
        good.but(|letter| letter.header("content-type", "text/plain")),
        good.but(|letter| letter.body = "[]".to_owned()),
        good.but(|letter| letter.body = r#"{"repository":["site"]}"#.to_owned()),
        good.but(|letter| letter.body = r#"{"repositories":"site"}"#.to_owned()),
        good.but(|letter| letter.body = r#"{"repositories":["none"]}"#.to_owned()),
        good.but(|letter| letter.body = r#"{"permissions":{"issues":1}}"#.to_owned()),
        good.but(|letter| letter.body = r#"{"permissions":{"contents":"write"}}"#.to_owned()),
    ];
    let count = wrong.len();
    for letter in wrong {
        let fake = fake().build();
        let (status, body) = letter.send(fake.clone()).await;
        assert!(status.is_client_error() && fake.counts().tokens == 0, "{status} {body}");
    }
    assert_eq!(count, 16);
    let fake = fake().build();
    assert_eq!(good.clone().send(fake.clone()).await.0, 201);
    let empty = good.but(|letter| letter.body = String::new());
    assert_eq!(empty.send(fake.clone()).await.0, 201);
    assert_eq!(fake.faults(), [""; 0]);
}

/// The claims of a JWT that GitHub would refuse.
#[tokio::test(start_paused = true)]
async fn a_jwt_that_is_too_long_or_of_another_algorithm_is_refused() {
    use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm, SelfSigned};
    let assertion = |algorithm| {
        let key = Assertion::by_key(algorithm, Secret::new(FakeGithub::private_key()));
        key.issuer(CLIENT).without_subject()
    };
    let (rs256, ps256) = (assertion(JwtAlgorithm::Rs256), assertion(JwtAlgorithm::Ps256));
    let seen = Arc::new(Mutex::new(Vec::new()));
    for (assertion, status) in [
        (rs256.clone().clock_ahead_by(Duration::from_secs(60)).lifetime(Duration::from_secs(540)), 200),
        (rs256.clone().lifetime(Duration::from_secs(660)), 401),
        (rs256.clone().issuer("another"), 401),
        (ps256, 401),
    ] {
        let api = app().api(SelfSigned::new(assertion).unwrap()).unwrap();
        let api = api.build_with(fake().build()).unwrap();
        let response = api.get("app").send().await.unwrap();
        seen.lock().unwrap().push((response.status().as_u16(), status));
    }
    let seen = seen.lock().unwrap();
    assert!(seen.len() == 4 && seen.iter().all(|(seen, wanted)| seen == wanted), "{seen:?}");
}
