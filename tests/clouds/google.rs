//! Google Cloud.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response};
use serde_json::Value;
use tower::BoxError;
use tower_oauth2::providers::google::Google;
use tower_oauth2::test_util::{FakeGoogle, FakeGoogleBuilder, Trouble, pass, timed};
use tower_oauth2::{ApiClient, Body, ErrorKind, TokenCache};

use super::{RawRequest, Scratch, Variables, caller_of, variables};

const STORAGE: &str = "https://storage.google.test/storage/v1";
const OTHER: &str = "other@test.iam.gserviceaccount.com";
const READ_ONLY: &str = "https://www.googleapis.com/auth/devstorage.read_only";

fn fake() -> FakeGoogleBuilder {
    FakeGoogle::builder()
        .impersonation(FakeGoogle::ACCOUNT, OTHER)
        .impersonation(FakeGoogle::MACHINE, OTHER)
        .impersonation(FakeGoogle::WORKLOAD, OTHER)
        .impersonation_by_user(OTHER)
}

fn key() -> Google {
    Google::from_json(FakeGoogle::key_file()).unwrap()
}

async fn caller(google: &Google, fake: &FakeGoogle) -> String {
    let api = google.connect_with(STORAGE, fake.clone()).unwrap();
    caller_of(api.get("b").query(&[("project", "test")])).await
}

/// Calls the service that wants ID tokens, and returns the caller as the service knows it.
async fn identity(google: &Google, fake: &FakeGoogle) -> String {
    let tokens = google.id_tokens(FakeGoogle::APP, fake.clone()).unwrap().build();
    let api = ApiClient::builder(FakeGoogle::APP, tokens).build_with(fake.clone()).unwrap();
    caller_of(api.get("health")).await
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_credentials_is_as_the_emulator_wants_it() {
    let fake = fake().build();
    let text = Scratch::holding("google-token", FakeGoogle::SUBJECT_TOKEN);
    let json = Scratch::holding("google-json", format!(r#"{{"id_token": "{}"}}"#, FakeGoogle::SUBJECT_TOKEN));
    let of = |file: String| Google::from_json(file).unwrap();
    let mut by_account: Value = serde_json::from_str(&FakeGoogle::impersonated_file(OTHER)).unwrap();
    by_account["source_credentials"] = serde_json::from_str(&FakeGoogle::key_file()).unwrap();
    let rows = [
        (key(), "service_account", FakeGoogle::ACCOUNT, 1),
        (key().subject("bob@example.com"), "service_account", "bob@example.com", 1),
        (of(FakeGoogle::user_file()), "authorized_user", "ann@example.com", 1),
        (of(FakeGoogle::external_file(&text.path, None, None)), "external_account", FakeGoogle::WORKLOAD, 1),
        (
            of(FakeGoogle::external_file(&json.path, Some("id_token"), Some(OTHER))),
            "impersonated_service_account",
            OTHER,
            2,
        ),
        (of(FakeGoogle::impersonated_file(OTHER)), "impersonated_service_account", OTHER, 2),
        (of(by_account.to_string()), "impersonated_service_account", OTHER, 2),
        (key().impersonate(OTHER), "impersonated_service_account", OTHER, 2),
        (Google::metadata(), "metadata server", FakeGoogle::MACHINE, 1),
        (
            Google::metadata().universe_domain(FakeGoogle::UNIVERSE).impersonate(OTHER),
            "impersonated_service_account",
            OTHER,
            2,
        ),
    ];
    assert_eq!(rows.len(), 10);
    let mut requests = 0;
    for (google, kind, who, steps) in rows {
        assert_eq!((google.kind(), caller(&google, &fake).await.as_str()), (kind, who));
        requests += steps;
        assert_eq!((fake.counts().token_requests, fake.faults()), (requests, Vec::new()), "{kind}");
        let shown = format!("{google:?}");
        for secret in ["PRIVATE", "s3cr=t", "user-refresh"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_builder_can_be_set_otherwise() {
    let fake = fake().build();
    let text = Scratch::holding("google-builder", FakeGoogle::SUBJECT_TOKEN);
    let user = Google::from_json(FakeGoogle::user_file()).unwrap();
    let external = Google::from_json(FakeGoogle::external_file(&text.path, None, None)).unwrap();
    let base = key().service_account().unwrap().retries(0).build_with(fake.clone()).unwrap();
    tokio::time::resume();
    for tokens in [
        TokenCache::new(base.clone()),
        TokenCache::new(user.authorized_user().unwrap().retries(0).build_with(fake.clone()).unwrap()),
        TokenCache::new(external.external_account().unwrap().retries(0).build_with(fake.clone()).unwrap()),
        TokenCache::new(Google::metadata().metadata_server().unwrap().build_with(fake.clone()).unwrap()),
        TokenCache::new(
            key().impersonate(OTHER).impersonated(base).unwrap().build_with(fake.clone()).unwrap(),
        ),
    ] {
        assert_eq!(tokens.get().await.unwrap().scheme(), "Bearer");
    }
    assert_eq!((fake.counts().tokens, fake.faults()), (6, Vec::new()));
    let error = user.service_account().unwrap_err();
    assert!(error.to_string().contains("authorized_user, not service_account"), "{error}");
}

#[test]
fn a_key_file_with_a_byte_order_mark_is_understood() {
    let text = format!("\u{feff}{}\r\n", FakeGoogle::key_file());
    let file = Scratch::holding("google-bom", &text);
    assert_eq!(Google::from_file(&file.path).unwrap().kind(), "service_account");
    let google = Google::from_json(text).unwrap();
    google.service_account().unwrap().build_with(FakeGoogle::builder().build()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_page_of_a_gateway_is_no_id_token_of_the_metadata_server() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let server = tower::service_fn(move |_: Request<Body>| {
        let page = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            Ok::<_, BoxError>(Response::new(Body::from(if page { "<html>Wait</html>" } else { "a.b.c" })))
        }
    });
    let tokens = Google::metadata().id_tokens("https://app.test", server).unwrap().build();
    assert_eq!(tokens.get().await.unwrap().header_value(), "Bearer a.b.c");
}

#[tokio::test(start_paused = true)]
async fn an_id_token_is_for_one_audience_and_ends_when_it_says() {
    let fake = fake().build();
    let rows = [
        (key(), FakeGoogle::ACCOUNT),
        (Google::metadata(), FakeGoogle::MACHINE),
        (key().impersonate(OTHER), OTHER),
        (Google::from_json(FakeGoogle::impersonated_file(OTHER)).unwrap(), OTHER),
    ];
    for (google, who) in rows {
        assert_eq!(identity(&google, &fake).await, who);
    }
    assert_eq!((fake.counts().id_tokens, fake.counts().ok, fake.faults()), (4, 4, Vec::new()));

    for google in [key(), Google::metadata()] {
        let tokens = google.id_tokens(FakeGoogle::APP, fake.clone()).unwrap().build();
        let first = tokens.get().await.unwrap();
        pass(Duration::from_secs(3000)).await;
        assert_eq!(tokens.get().await.unwrap().expose(), first.expose());
        pass(Duration::from_secs(601)).await;
        assert_ne!(tokens.get().await.unwrap().expose(), first.expose());
    }
    let user = Google::from_json(FakeGoogle::user_file()).unwrap();
    let error = user.id_tokens(FakeGoogle::APP, fake.clone()).unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("impersonate"), "{error}");
    // One for another service is not taken.
    let tokens = key().id_tokens("https://elsewhere.google.test", fake.clone()).unwrap().build();
    let api = ApiClient::builder(FakeGoogle::APP, tokens).build_with(fake.clone()).unwrap();
    assert_eq!(api.get("health").send().await.unwrap().status(), 400);
    assert_eq!(fake.faults(), ["the ID token is for another audience"]);
}

#[tokio::test(start_paused = true)]
async fn throttling_revocation_and_a_missing_scope() {
    let fake = fake().build();
    let api = key().scope(READ_ONLY).connect_with(STORAGE, fake.clone()).unwrap();
    let get = async || api.get("b").query(&[("project", "test")]).send().await.unwrap().status();
    let wait = Trouble::TooManyRequests { retry_after: Duration::from_secs(5) };
    fake.fail_next_tokens(2, wait);
    fake.fail_next(1, wait);
    let (status, took) = timed(get()).await;
    assert_eq!(status, 200);
    assert!((15..25).contains(&took.as_secs()), "{took:?}");
    fake.revoke_all();
    assert_eq!(get().await, 200);
    assert_eq!((fake.counts().tokens, fake.counts().unauthorized, fake.counts().ok), (2, 1, 2));
    fake.fail_next_tokens(1, Trouble::Unavailable { retry_after: Duration::from_secs(1) });
    let machine = Google::metadata().tokens(fake.clone()).unwrap().build();
    machine.get().await.unwrap();

    let other =
        key().scope("https://www.googleapis.com/auth/pubsub").connect_with(STORAGE, fake.clone()).unwrap();
    let response = other.get("b").query(&[("project", "test")]).send().await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(fake.faults(), [""; 0]);
    // The end of an impersonated token is a point in time.
    let tokens = key().impersonate(OTHER).tokens(fake.clone()).unwrap().build();
    let first = tokens.get().await.unwrap();
    pass(Duration::from_secs(3601)).await;
    assert_ne!(tokens.get().await.unwrap().expose(), first.expose());
    // An account that may not be impersonated.
    let error = key().impersonate("root@test").tokens(fake.clone()).unwrap().build().get().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("what it may do"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_rotated_key_file_is_read_at_the_next_token_request() {
    let fake = fake().build();
    let file = Scratch::holding("google-rotated", FakeGoogle::key_file().replace("key-1", "key-0"));
    let tokens = Google::from_file(&file.path).unwrap().tokens(fake.clone()).unwrap().build();
    tokio::time::resume();
    assert!(tokens.get().await.is_err());
    assert_eq!(fake.faults(), ["kid is not that of the key, or typ is not JWT"]);
    std::fs::write(&file.path, FakeGoogle::key_file()).unwrap();
    tokens.refresh().await.unwrap();
}

// --- The environment ---

#[tokio::test(start_paused = true)]
async fn credentials_are_found_as_googles_libraries_find_them() {
    let fake = fake().build();
    let file = Scratch::holding("google-env", FakeGoogle::key_file());
    let folder = std::env::temp_dir().join(format!("tower-oauth2-gcloud-{}", std::process::id()));
    std::fs::create_dir_all(folder.join(".config/gcloud")).unwrap();
    for place in [folder.clone(), folder.join(".config/gcloud")] {
        std::fs::write(place.join("application_default_credentials.json"), FakeGoogle::user_file()).unwrap();
    }
    let (path, home) = (file.path.to_str().unwrap(), folder.to_str().unwrap());
    let rows: [(Variables<'_>, &str); 5] = [
        (&[("GOOGLE_APPLICATION_CREDENTIALS", path), ("HOME", home)], "service_account"),
        (&[("CLOUDSDK_CONFIG", home)], "authorized_user"),
        (&[("GOOGLE_APPLICATION_CREDENTIALS", " "), ("HOME", home)], "authorized_user"),
        (&[("HOME", "/does/not/exist")], "metadata server"),
        (&[], "metadata server"),
    ];
    for (set, kind) in rows {
        let google = Google::from_variables(variables(set)).unwrap();
        assert_eq!(google.kind(), kind, "{set:?}");
        caller(&google, &fake).await;
    }
    std::fs::remove_dir_all(folder).unwrap();
    assert_eq!((fake.counts().ok, fake.faults()), (5, Vec::new()));

    let elsewhere = Google::from_variables(variables(&[("GCE_METADATA_HOST", "169.254.169.254")])).unwrap();
    let tokens = elsewhere.tokens(fake.clone()).unwrap().build();
    assert!(tokens.get().await.is_err());
    assert!(fake.faults()[0].contains("is not at 169.254.169.254"), "{:?}", fake.faults());
}

#[test]
fn what_is_wrong_with_the_environment_is_one_sentence_that_names_the_file() {
    let empty = Scratch::holding("google-empty", "{}");
    let other = Scratch::holding("google-other", r#"{"type": "external_account_authorized_user"}"#);
    let missing = PathBuf::from("/does/not/exist.json");
    for (path, words) in [
        (&missing, "it cannot be read"),
        (&empty.path, "it has no type"),
        (&other.path, "\"external_account_authorized_user\", which is not supported; take a service_account"),
    ] {
        let path = path.to_str().unwrap();
        let error =
            Google::from_variables(variables(&[("GOOGLE_APPLICATION_CREDENTIALS", path)])).unwrap_err();
        let text = error.to_string();
        let begins = format!("GOOGLE_APPLICATION_CREDENTIALS: {path} cannot be used: ");
        assert!(
            error.kind() == ErrorKind::Config && text.starts_with(&begins) && text.contains(words),
            "{text}"
        );
    }
    let user = Google::from_json(FakeGoogle::user_file()).unwrap();
    assert_eq!(user.quota_project("a\nb").connect(STORAGE).unwrap_err().kind(), ErrorKind::Config);
}

// --- The emulator ---

#[tokio::test(start_paused = true)]
async fn one_wrong_field_is_refused_by_the_emulator() {
    let plain = |method: Method, url: &str, body: &str| RawRequest {
        method,
        url: url.to_owned(),
        headers: HeaderMap::new(),
        body: body.to_owned(),
    };
    let form = |url: &str, body: &str| {
        plain(Method::POST, url, body)
            .but(|letter| letter.header("content-type", "application/x-www-form-urlencoded"))
    };
    let user = form(
        "https://oauth2.google.test/token",
        "grant_type=refresh_token&client_id=user-client&client_secret=user-s3cr%3Dt&refresh_token=1%2F%2Fuser-refresh",
    );
    let exchange = form(
        "https://sts.google.test/v1/token",
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&audience=//iam.google.test/projects/1/locations/global/\
         workloadIdentityPools/pool/providers/test&scope=a&requested_token_type=urn:ietf:params:oauth:token-type:access_token&\
         subject_token=e30.e30.workload&subject_token_type=urn:ietf:params:oauth:token-type:jwt",
    );
    let machine = plain(
        Method::GET,
        "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token?scopes=a,b",
        "",
    )
    .but(|letter| letter.header("metadata-flavor", "Google"));
    for good in [&user, &exchange, &machine] {
        let fake = fake().build();
        assert_eq!(good.clone().send(fake.clone()).await.0, 200, "{}", good.url);
        assert_eq!((fake.counts().tokens, fake.faults()), (1, Vec::new()));
    }
    let replaced = |good: &RawRequest, from: &str, to: &str| {
        assert!(good.body.contains(from) || good.url.contains(from), "{from}");
        good.but(|letter| {
            letter.body = letter.body.replace(from, to);
            letter.url = letter.url.replace(from, to);
        })
    };
    let wrong = [
        user.but(|letter| letter.method = Method::PUT),
        user.but(|letter| letter.header("content-type", "application/json")),
        user.but(|letter| letter.header("authorization", "Basic YTpi")),
        replaced(&user, "oauth2.google.test", "sts.google.test"),
        replaced(&user, "/token", "/tokens"),
        replaced(&user, "google.test/token", "google.test/token?a=b"),
        replaced(&user, "user-client", "other"),
        replaced(&user, "user-s3cr", "other"),
        replaced(&user, "user-refresh", "other"),
        replaced(&user, "&refresh_token", "&scope=a&refresh_token"),
        replaced(&user, "grant_type=refresh_token", "grant_type=password"),
        replaced(&user, "&client_id", "&client_id=a&client_id"),
        replaced(&exchange, "providers/test", "providers/other"),
        replaced(&exchange, "&scope=a", ""),
        replaced(&exchange, "token-exchange", "exchange"),
        replaced(&exchange, "token-type:access_token", "token-type:jwt"),
        replaced(&exchange, "token-type:jwt", "token-type:saml2"),
        replaced(&exchange, "workload&", "other&"),
        replaced(&exchange, "&subject_token=", "&actor_token=a&subject_token="),
        machine.but(|letter| drop(letter.headers.remove("metadata-flavor"))),
        machine.but(|letter| letter.header("metadata-flavor", "google")),
        machine.but(|letter| letter.header("authorization", "Bearer a")),
        replaced(&machine, "http://", "https://"),
        replaced(&machine, "default", "other"),
        replaced(&machine, "scopes", "scope"),
        replaced(&machine, "scopes=a,b", "scopes=a&scopes=b"),
    ];
    let count = wrong.len();
    for letter in wrong {
        let fake = fake().build();
        let (status, body) = letter.clone().send(fake.clone()).await;
        assert!(
            status.is_client_error() && fake.counts().tokens == 0,
            "{} {}: {status} {body}",
            letter.url,
            letter.body
        );
    }
    assert_eq!(count, 26);
}

/// The claims of an assertion, and the fields of an impersonation.
#[tokio::test(start_paused = true)]
async fn one_wrong_claim_is_refused_by_the_emulator() {
    use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm};
    use tower_oauth2::grants::{CustomGrant, JwtBearer};
    let url = "https://oauth2.google.test/token";
    let by = |algorithm| {
        let assertion = Assertion::by_key(algorithm, FakeGoogle::key_file());
        assertion.without_subject().audience(url)
    };
    let good = || by(JwtAlgorithm::Rs256).claim("scope", "a");
    let hour = Duration::from_secs(3600);
    let rows = [
        (good(), true),
        (good().lifetime(hour), true),
        (by(JwtAlgorithm::Ps256).claim("scope", "a"), false),
        (by(JwtAlgorithm::Rs256), false),
        (good().claim("target_audience", "b"), false),
        (good().audience("https://oauth2.google.test"), false),
        (good().issuer(OTHER), false),
        (good().header("typ", "at+jwt"), false),
        (good().clock_ahead_by(hour), false),
    ];
    assert_eq!(rows.len(), 9);
    for (assertion, is_good) in rows {
        let fake = fake().build();
        let source = JwtBearer::builder(url, assertion).build_with(fake.clone()).unwrap();
        assert_eq!(TokenCache::new(source).get().await.is_ok(), is_good);
        assert_eq!(fake.counts().tokens == 1, is_good);
    }

    let fake = fake().build();
    let base = key().tokens(fake.clone()).unwrap().build();
    let token = base.get().await.unwrap();
    let grant = |method: &str| {
        let url =
            format!("https://iamcredentials.google.test/v1/projects/-/serviceAccounts/{OTHER}:{method}");
        CustomGrant::json(url).authorized_by(token.clone())
    };
    let access = || grant("generateAccessToken").response_member("access_token", "accessToken");
    let identity = || grant("generateIdToken").response_member("access_token", "token");
    let rows = [
        (access().param_json("scope", r#"["a"]"#).param("lifetime", "3600s"), true),
        (access().param("scope", "a").param("lifetime", "3600s"), false),
        (access().param_json("scope", "[]").param("lifetime", "3600s"), false),
        (access().param_json("scope", r#"["a"]"#).param("lifetime", "3600"), false),
        (access().param_json("scope", r#"["a"]"#), false),
        (access().param_json("scopes", r#"["a"]"#).param("lifetime", "3600s"), false),
        (identity().param("audience", "a").param_json("includeEmail", "true"), true),
        (identity().param("audience", "a").param("includeEmail", "true"), false),
        (identity().param_json("includeEmail", "true"), false),
        (grant("signJwt"), false),
    ];
    assert_eq!(rows.len(), 10);
    for (builder, is_good) in rows {
        let source = builder.build_with(fake.clone()).unwrap();
        assert_eq!(TokenCache::new(source).get().await.is_ok(), is_good);
    }
    assert_eq!(fake.faults().len(), 8);
}
