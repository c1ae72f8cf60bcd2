//! Microsoft Entra ID.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use serde_json::json;
use tower_oauth2::client::ApiRequest;
use tower_oauth2::providers::entra::{ClaimsChallenge, Entra};
use tower_oauth2::test_util::{FakeEntra, FakeEntraBuilder, Trouble, pass, timed};
use tower_oauth2::{ApiClient, ErrorKind, TokenCache};

use super::{RawRequest, Scratch, Variables, caller_of, variables};

const GRAPH: &str = "https://graph.entra.test/v1.0";
const SCOPE: &str = "https://graph.entra.test/.default";
const SECRET: &str = "s3cr~t/+&";
const NBF: &str = r#"{"nbf":{"essential":true,"value":"1700000000"}}"#;
const IP: &str = r#"{"xms_rp_ipaddr":{"value":"203.0.113.7"}}"#;

fn fake() -> FakeEntraBuilder {
    FakeEntra::builder()
        .client("reports", SECRET)
        .certificate_client("signer")
        .workload("pod")
        .user_assigned("identity-7")
}

fn by_secret() -> Entra {
    Entra::with_secret(FakeEntra::TENANT, "reports", SECRET).authority(FakeEntra::AUTHORITY)
}

fn by_certificate() -> Entra {
    let (key, certificate) = (FakeEntra::private_key(), FakeEntra::certificate());
    Entra::with_certificate(FakeEntra::TENANT, "signer", key, certificate).authority(FakeEntra::AUTHORITY)
}

fn app_service() -> Entra {
    Entra::app_service(FakeEntra::IDENTITY_ENDPOINT, FakeEntra::IDENTITY_HEADER)
}

async fn caller(entra: &Entra, fake: &FakeEntra) -> String {
    caller_of(entra.connect_with(GRAPH, fake.clone()).unwrap().get("users")).await
}

#[tokio::test(start_paused = true)]
async fn each_identity_is_as_the_emulator_wants_it() {
    let fake = fake().build();
    let file = Scratch::holding("entra-token", FakeEntra::FEDERATED_TOKEN);
    let pod = Entra::with_token_file(FakeEntra::TENANT, "pod", &file.path).authority(FakeEntra::AUTHORITY);
    let rows = [
        (by_secret(), "client secret", "reports"),
        (by_certificate(), "certificate", "signer"),
        (pod, "federated token file", "pod"),
        (Entra::managed_identity(), "managed identity of a virtual machine", "system"),
        (
            Entra::managed_identity().user_assigned("identity-7"),
            "managed identity of a virtual machine",
            "identity-7",
        ),
        (app_service(), "managed identity of App Service", "system"),
        (app_service().user_assigned("identity-7"), "managed identity of App Service", "identity-7"),
    ];
    assert_eq!(rows.len(), 7);
    for (entra, kind, who) in rows {
        assert_eq!((entra.kind(), caller(&entra, &fake).await.as_str()), (kind, who));
        let shown = format!("{entra:?}");
        for secret in [SECRET, FakeEntra::IDENTITY_HEADER, "PRIVATE"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
    assert_eq!((fake.counts().token_requests, fake.counts().ok, fake.faults()), (7, 7, Vec::new()));

    // The end of each token is read, whatever the member is called.
    for entra in [by_secret(), by_certificate(), Entra::managed_identity(), app_service()] {
        let tokens = entra.scope(SCOPE).tokens(fake.clone()).unwrap().build();
        let first = tokens.get().await.unwrap();
        pass(Duration::from_secs(2000)).await;
        assert_eq!(tokens.get().await.unwrap().expose(), first.expose());
        pass(Duration::from_secs(1601)).await;
        assert_ne!(tokens.get().await.unwrap().expose(), first.expose());
    }
    assert_eq!(fake.faults(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_national_cloud_is_another_authority() {
    for (authority, url) in [
        (Entra::PUBLIC, "login.microsoftonline.com"),
        (Entra::US_GOVERNMENT, "login.microsoftonline.us"),
        (Entra::CHINA, "login.chinacloudapi.cn"),
    ] {
        let fake = fake().build();
        let entra = by_secret().authority(authority).scope(SCOPE);
        assert!(entra.tokens(fake.clone()).unwrap().build().get().await.is_err());
        assert_eq!(
            fake.faults(),
            [format!("POST https://{url}/{}/oauth2/v2.0/token is not played", FakeEntra::TENANT)]
        );
    }
}

// --- Claims challenges ---

fn users(api: &ApiClient) -> ApiRequest {
    api.get("users")
}

#[tokio::test(start_paused = true)]
async fn a_claims_challenge_is_responded_to_and_the_request_sent_again() {
    let fake = fake().build();
    let api = by_secret().connect_with(GRAPH, fake.clone()).unwrap();
    assert_eq!(users(&api).send().await.unwrap().status(), 200);
    fake.demand_claims(NBF);
    // A request with a body that may not be repeated, too: the API has not looked at it.
    let user = json!({ "displayName": "Ann" });
    assert_eq!(api.post("users").json(&user).send().await.unwrap().status(), 201);
    assert_eq!((fake.counts().tokens, fake.counts().challenged), (2, 1));
    assert_eq!(users(&api).send().await.unwrap().status(), 200);

    // Another one, which takes the place of the first.
    fake.demand_claims(IP);
    assert_eq!(users(&api).send().await.unwrap().status(), 200);
    assert_eq!((fake.counts().tokens, fake.counts().challenged, fake.counts().ok), (3, 2, 4));

    // Claims are for one token. The next one is without them, and where the API wants them still, the cache goes back to the
    // one before.
    api.tokens().refresh().await.unwrap();
    assert_eq!(users(&api).send().await.unwrap().status(), 200);
    assert_eq!((fake.counts().tokens, fake.counts().challenged), (4, 3));
    assert_eq!(fake.faults(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn many_requests_at_once_fetch_one_token_for_a_challenge() {
    let fake = fake().build();
    let api = by_certificate().connect_with(GRAPH, fake.clone()).unwrap();
    api.tokens().get().await.unwrap();
    fake.demand_claims(NBF);
    let sent = futures_util::future::join_all((0..20).map(|_| users(&api).send())).await;
    assert!(sent.into_iter().all(|response| response.unwrap().status() == 200));
    assert_eq!((fake.counts().tokens, fake.counts().ok, fake.faults()), (2, 20, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_know_challenges_gets_none() {
    let fake = fake().build();
    fake.demand_claims(NBF);
    for entra in [by_secret(), Entra::managed_identity()] {
        let tokens = entra.scope(SCOPE).tokens(fake.clone()).unwrap().build();
        let api = ApiClient::builder(GRAPH, tokens).build_with(fake.clone()).unwrap();
        assert_eq!(users(&api).send().await.unwrap().status(), 200);
    }
    assert_eq!((fake.counts().tokens, fake.counts().challenged), (2, 0));
    assert_eq!(fake.faults(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_api_that_wants_other_claims_each_time_is_not_asked_for_ever() {
    let fake = fake().build();
    let claims = ClaimsChallenge::new();
    let source = claims.source(by_secret().scope(SCOPE).client_credentials().unwrap(), fake.clone()).unwrap();
    let rule = claims.rule();
    let changing = fake.clone();
    // Each 401 is followed by another demand.
    let builder = ApiClient::builder(GRAPH, source).auth(|layer| {
        layer.rejection(move |status, headers| {
            let count = changing.counts().challenged;
            changing.demand_claims(&format!(r#"{{"nbf":{{"value":"{count}"}}}}"#));
            rule(status, headers)
        })
    });
    fake.demand_claims(NBF);
    let api = builder.build_with(fake.clone()).unwrap();
    assert_eq!(api.get("users").send().await.unwrap().status(), 401);
    assert_eq!((fake.counts().challenged, fake.counts().tokens), (2, 2));
    assert_eq!(fake.faults(), [""; 0]);
}

// --- Patience ---

#[tokio::test(start_paused = true)]
async fn throttling_of_the_token_endpoint_and_of_the_api_is_waited_for() {
    let fake = fake().build();
    let api = by_secret().connect_with(GRAPH, fake.clone()).unwrap();
    let wait = Trouble::TooManyRequests { retry_after: Duration::from_secs(7) };
    fake.fail_next_tokens(1, wait);
    fake.fail_next(1, wait);
    let (response, took) = timed(users(&api).send()).await;
    assert_eq!(response.unwrap().status(), 200);
    assert!((14..20).contains(&took.as_secs()), "{took:?}");
    fake.revoke_all();
    assert_eq!(users(&api).send().await.unwrap().status(), 200);
    assert_eq!((fake.counts().tokens, fake.counts().unauthorized), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn the_server_of_a_machine_is_asked_again_while_it_is_not_ready() {
    let (missing, gone) = (StatusCode::NOT_FOUND, StatusCode::GONE);
    let (busy, broken) = (StatusCode::TOO_MANY_REQUESTS, StatusCode::INTERNAL_SERVER_ERROR);
    for entra in [Entra::managed_identity(), app_service()] {
        let fake = fake().build();
        fake.machine_responds([missing, busy, broken, gone, gone, gone, gone]);
        let tokens = entra.scope(SCOPE).tokens(fake.clone()).unwrap().build();
        let (token, took) = timed(tokens.get()).await;
        token.unwrap();
        assert!((20..60).contains(&took.as_secs()), "{took:?}");
        assert_eq!((fake.counts().token_requests, fake.faults()), (8, Vec::new()));
        // What does not pass is told at once.
        for status in [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
            fake.machine_responds([status]);
            let (error, took) = timed(tokens.refresh()).await;
            assert!(!error.unwrap_err().is_temporary() && took == Duration::ZERO, "{status} {took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_app_is_told_what_entra_says() {
    let fake = fake().build();
    let wrong = Entra::with_secret(FakeEntra::TENANT, "reports", "wrong").authority(FakeEntra::AUTHORITY);
    let error = wrong.scope(SCOPE).tokens(fake.clone()).unwrap().build().get().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("AADSTS7000215"), "{error}");
    let unknown = Entra::managed_identity().user_assigned("none").scope(SCOPE);
    let error = unknown.tokens(fake.clone()).unwrap().build().get().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("Identity not found"), "{error}");
    assert_eq!(fake.counts().token_requests, 2);

    for (entra, words) in [
        (by_secret(), "there is no scope"),
        (Entra::managed_identity(), "there is no scope"),
        (Entra::with_secret("a/b", "c", "d").scope(SCOPE), "tenant:"),
        (
            Entra::with_certificate(FakeEntra::TENANT, "c", "no key", "no certificate").scope(SCOPE),
            "signing key",
        ),
    ] {
        let error = entra.tokens(fake.clone()).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(words), "{error}");
    }
    let error = Entra::managed_identity().scope(SCOPE).client_credentials().unwrap_err();
    assert!(error.to_string().contains("not an app"), "{error}");
    assert!(by_secret().scope(SCOPE).managed().unwrap_err().to_string().contains("not a managed identity"));
}

// --- The environment ---

#[tokio::test(start_paused = true)]
async fn the_environment_is_read_in_the_order_of_the_default_credential() {
    let fake = fake().build();
    let pair = Scratch::holding("entra-pair", FakeEntra::private_key() + &FakeEntra::certificate());
    let token = Scratch::holding("entra-federated", FakeEntra::FEDERATED_TOKEN);
    let (tenant, cloud) =
        (("AZURE_TENANT_ID", FakeEntra::TENANT), ("AZURE_AUTHORITY_HOST", "login.entra.test"));
    let secret = ("AZURE_CLIENT_SECRET", SECRET);
    let certificate = ("AZURE_CLIENT_CERTIFICATE_PATH", pair.path.to_str().unwrap());
    let federated = ("AZURE_FEDERATED_TOKEN_FILE", token.path.to_str().unwrap());
    let endpoint = ("IDENTITY_ENDPOINT", FakeEntra::IDENTITY_ENDPOINT);
    let header = ("IDENTITY_HEADER", FakeEntra::IDENTITY_HEADER);
    let client = |id| ("AZURE_CLIENT_ID", id);
    let rows: [(Variables<'_>, &str, &str); 7] = [
        (
            &[tenant, cloud, client("reports"), secret, certificate, federated, endpoint, header],
            "client secret",
            "reports",
        ),
        (
            &[tenant, cloud, client("signer"), certificate, federated, endpoint, header],
            "certificate",
            "signer",
        ),
        (&[tenant, cloud, client("pod"), federated, endpoint, header], "federated token file", "pod"),
        (&[endpoint, header], "managed identity of App Service", "system"),
        (&[endpoint, header, client("identity-7")], "managed identity of App Service", "identity-7"),
        (&[tenant, client("identity-7")], "managed identity of a virtual machine", "identity-7"),
        (&[("AZURE_CLIENT_SECRET", " ")], "managed identity of a virtual machine", "system"),
    ];
    for (set, kind, who) in rows {
        let entra = Entra::from_variables(variables(set)).unwrap();
        assert_eq!((entra.kind(), caller(&entra, &fake).await.as_str()), (kind, who));
    }
    assert_eq!(fake.faults(), [""; 0]);
    let elsewhere = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:4711/")];
    let elsewhere = Entra::from_variables(variables(&elsewhere)).unwrap().scope(SCOPE);
    assert!(elsewhere.tokens(fake.clone()).unwrap().build().get().await.is_err());
    assert_eq!(fake.faults()[0], "GET http://127.0.0.1:4711/metadata/identity/oauth2/token is not played");
}

#[test]
fn what_is_wrong_with_the_environment_is_one_sentence_that_names_the_variable() {
    let (tenant, client, secret) =
        (("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c"), ("AZURE_CLIENT_SECRET", "S3CR3T"));
    let rows: [(Variables<'_>, &str); 9] = [
        (&[client, secret], "AZURE_CLIENT_SECRET is set, but the tenant is not; set AZURE_TENANT_ID"),
        (&[tenant, secret], "AZURE_CLIENT_SECRET is set, but the client id is not; set AZURE_CLIENT_ID"),
        (&[client, ("AZURE_CLIENT_CERTIFICATE_PATH", "/a")], "AZURE_CLIENT_CERTIFICATE_PATH is set, but"),
        (
            &[
                tenant,
                client,
                ("AZURE_CLIENT_CERTIFICATE_PATH", "/a"),
                ("AZURE_CLIENT_CERTIFICATE_PASSWORD", "S3CR3T"),
            ],
            "AZURE_CLIENT_CERTIFICATE_PASSWORD is set, and a key with a password is not supported",
        ),
        (&[tenant, ("AZURE_FEDERATED_TOKEN_FILE", "/a")], "AZURE_FEDERATED_TOKEN_FILE is set, but"),
        (&[("IDENTITY_ENDPOINT", "http://a")], "IDENTITY_ENDPOINT is set, but IDENTITY_HEADER is not"),
        (&[("IDENTITY_HEADER", "S3CR3T")], "IDENTITY_HEADER is set, but IDENTITY_ENDPOINT is not"),
        (&[("IMDS_ENDPOINT", "http://a")], "IMDS_ENDPOINT is set, and the managed identity of Azure Arc"),
        (&[("MSI_SECRET", "S3CR3T")], "MSI_SECRET is set, and the managed identity of Machine Learning"),
    ];
    for (set, words) in rows {
        let error = Entra::from_variables(variables(set)).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(
            error.kind() == ErrorKind::Config && shown.contains(words) && !shown.contains("S3CR3T"),
            "{shown}"
        );
    }
}

// --- The emulator ---

#[tokio::test(start_paused = true)]
async fn one_wrong_field_is_refused_by_the_emulator() {
    let form = |body: &str| {
        let letter = RawRequest {
            method: Method::POST,
            url: format!("https://login.entra.test/{}/oauth2/v2.0/token", FakeEntra::TENANT),
            headers: HeaderMap::new(),
            body: body.to_owned(),
        };
        letter.but(|letter| letter.header("content-type", "application/x-www-form-urlencoded"))
    };
    let get = |url: &str, name: &'static str, value: &str| {
        let letter = RawRequest {
            method: Method::GET,
            url: url.to_owned(),
            headers: HeaderMap::new(),
            body: String::new(),
        };
        letter.but(|letter| letter.header(name, value))
    };
    let secret = form(
        "grant_type=client_credentials&scope=https://graph.entra.test/.default&client_id=reports&\
         client_secret=s3cr~t/%2B%26&claims={\"access_token\":{\"xms_cc\":{\"values\":[\"cp1\"]}}}",
    );
    let pod = form(
        "grant_type=client_credentials&scope=https://graph.entra.test/.default&client_id=pod&client_assertion_type=\
         urn:ietf:params:oauth:client-assertion-type:jwt-bearer&client_assertion=e30.e30.federated",
    );
    let machine = get(
        "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://graph.entra.test",
        "metadata",
        "true",
    );
    let service = get(
        "http://169.254.129.1:8081/msi/token?api-version=2019-08-01&resource=https://graph.entra.test",
        "x-identity-header",
        FakeEntra::IDENTITY_HEADER,
    );
    for good in [&secret, &pod, &machine, &service] {
        let fake = fake().build();
        let (status, body) = good.clone().send(fake.clone()).await;
        assert_eq!((status.as_u16(), fake.counts().tokens, fake.faults()), (200, 1, Vec::new()), "{body}");
    }
    let replaced = |good: &RawRequest, from: &str, to: &str| {
        assert!(good.body.contains(from) || good.url.contains(from), "{from}");
        good.but(|letter| {
            letter.body = letter.body.replace(from, to);
            letter.url = letter.url.replace(from, to);
        })
    };
    let wrong = [
        secret.but(|letter| letter.method = Method::GET),
        secret.but(|letter| letter.header("content-type", "application/json")),
        secret.but(|letter| letter.header("authorization", "Basic YTpi")),
        replaced(&secret, "login.entra.test", "login.other.test"),
        replaced(&secret, FakeEntra::TENANT, "other"),
        replaced(&secret, "v2.0", "v1.0"),
        replaced(&secret, "/token", "/token?a=b"),
        replaced(&secret, "client_credentials", "password"),
        replaced(&secret, "/.default", ""),
        replaced(&secret, "client_id=reports", "client_id=other"),
        replaced(&secret, "s3cr~t", "other"),
        replaced(&secret, "&client_id", "&resource=a&client_id"),
        replaced(&secret, "&client_id", "&client_id=a&client_id"),
        replaced(&secret, "cp1", "cp2"),
        replaced(&secret, "access_token", "id_token"),
        replaced(&secret, "claims={", "claims="),
        replaced(&pod, "jwt-bearer&", "saml2-bearer&"),
        replaced(&pod, "e30.federated", "e30.other"),
        replaced(&pod, "client_id=pod", "client_id=reports"),
        replaced(&pod, "&client_id", "&client_secret=a&client_id"),
        machine.but(|letter| drop(letter.headers.remove("metadata"))),
        machine.but(|letter| letter.method = Method::POST),
        replaced(&machine, "http://", "https://"),
        replaced(&machine, "2018-02-01", "2019-08-01"),
        replaced(&machine, "https://graph.entra.test", "https://graph.entra.test/.default"),
        replaced(&machine, "&resource", "&scope=a&resource"),
        replaced(&machine, "&resource", "&client_id=none&resource"),
        service.but(|letter| letter.header("x-identity-header", "other")),
        replaced(&service, "2019-08-01", "2018-02-01"),
        replaced(&service, ":8081", ""),
    ];
    let count = wrong.len();
    for letter in wrong {
        let fake = fake().build();
        let (status, body) = letter.clone().send(fake.clone()).await;
        let what = format!("{} {}: {status} {body}", letter.url, letter.body);
        assert!(status.is_client_error() && fake.counts().tokens == 0, "{what}");
    }
    assert_eq!(count, 30);
}

#[tokio::test(start_paused = true)]
async fn one_wrong_member_of_an_assertion_is_refused_by_the_emulator() {
    use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm};
    use tower_oauth2::{ClientAuth, ClientCredentials};
    let url = format!("https://login.entra.test/{}/oauth2/v2.0/token", FakeEntra::TENANT);
    let key = |algorithm| Assertion::by_key(algorithm, FakeEntra::private_key());
    let named = |algorithm| key(algorithm).certificate(FakeEntra::certificate());
    let good = || named(JwtAlgorithm::Ps256).audience(url.as_str());
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let rows = [
        (good(), true),
        (good().lifetime(minutes(10)), true),
        (named(JwtAlgorithm::Rs256).audience(url.as_str()), false),
        (key(JwtAlgorithm::Ps256).audience(url.as_str()), false),
        (good().audience(FakeEntra::AUTHORITY), false),
        (good().lifetime(minutes(11)), false),
        (good().clock_ahead_by(minutes(11)), false),
        (good().header("typ", "at+jwt"), false),
    ];
    assert_eq!(rows.len(), 8);
    for (assertion, is_good) in rows {
        let fake = fake().build();
        let auth = ClientAuth::private_key_jwt(assertion);
        let builder = ClientCredentials::builder(url.as_str(), "signer", auth).scope(SCOPE);
        let tokens = TokenCache::new(builder.build_with(fake.clone()).unwrap());
        assert_eq!(tokens.get().await.is_ok(), is_good);
        assert_eq!(fake.counts().tokens == 1, is_good);
    }
}
