//! Clients and grants that prove themselves by assertions: what is sent, when it is made anew, and what is said when it
//! is refused.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, DecodingKey};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tower::{BoxError, service_fn};
use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm, SelfSigned};
use tower_oauth2::grants::{GrantBuilder, JwtBearer};
use tower_oauth2::{
    AccessToken, ClientAuth, ClientCredentials, Error, ErrorKind, FetchReason, Secret, TokenRequest,
    TokenSource,
};

use crate::log::Log;
use crate::scripted::{Scripted, Seen, URL, a_token, answer, answer_with};

const ISSUER: &str = "https://login.example.com";
const REFUSED: &str = r#"{"error":"invalid_client"}"#;

async fn ask(source: &impl TokenSource) -> Result<AccessToken, Error> {
    source.token(TokenRequest::new(FetchReason::Initial)).await
}

fn by(auth: ClientAuth) -> GrantBuilder<ClientCredentials> {
    ClientCredentials::builder(URL, "billing", auth).issuer(ISSUER)
}

fn es256(pair: &KeyPair) -> Assertion {
    Assertion::by_key(JwtAlgorithm::Es256, pair.serialize_pem()).key_id("16")
}

/// The value of a field of the form.
fn field(seen: &Seen, name: &str) -> String {
    let mut values = form_urlencoded::parse(seen.body.as_bytes()).filter(|pair| pair.0 == name);
    let value = values.next().unwrap_or_else(|| panic!("no {name} in {}", seen.body)).1.into_owned();
    assert!(values.next().is_none(), "{name} twice in {}", seen.body);
    value
}

/// Verifies a JWT, and returns its header and claims.
#[track_caller]
fn verified(jwt: &str, algorithm: Algorithm, key: &DecodingKey) -> (Value, Value) {
    let (input, signature) = jwt.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let verifier = (DEFAULT_PROVIDER.verifier_factory)(&algorithm, key).unwrap();
    assert!(verifier.verify(input.as_bytes(), &signature).is_ok(), "{jwt}");
    let part = |text: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
    let (header, claims) = input.split_once('.').unwrap();
    (part(header), part(claims))
}

fn assertions(endpoint: &Scripted) -> Vec<String> {
    endpoint.seen().iter().map(|seen| field(seen, "client_assertion")).collect()
}

// --- On the wire ---

#[tokio::test]
async fn private_key_jwt_sends_one_assertion_and_nothing_else() {
    let pair = KeyPair::generate().unwrap();
    let endpoint = Scripted::new([a_token()]);
    endpoint.ask(by(ClientAuth::private_key_jwt(es256(&pair)))).await.unwrap();
    let seen = endpoint.seen().remove(0);
    assert!(
        !seen.headers.contains_key("authorization") && !seen.body.contains("client_secret"),
        "{}",
        seen.body
    );
    assert!(seen.uri.query().is_none());
    assert_eq!(field(&seen, "grant_type"), "client_credentials");
    assert_eq!(field(&seen, "client_id"), "billing");
    assert_eq!(
        field(&seen, "client_assertion_type"),
        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    );
    let key = DecodingKey::from_ec_der(pair.public_key_raw());
    let (header, claims) = verified(&field(&seen, "client_assertion"), Algorithm::ES256, &key);
    assert_eq!(header, json!({ "alg": "ES256", "typ": "JWT", "kid": "16" }));
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!("billing"), &json!("billing")));
    assert_eq!(claims["aud"], ISSUER);
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60);
    assert!(claims["jti"].as_str().unwrap().len() >= 16);
    assert_eq!(claims.as_object().unwrap().len(), 6);
}

#[tokio::test]
async fn client_secret_jwt_signs_by_the_secret_and_does_not_send_it() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    for (algorithm, verified_by) in
        [(JwtAlgorithm::Hs256, Algorithm::HS256), (JwtAlgorithm::Hs512, Algorithm::HS512)]
    {
        let endpoint = Scripted::new([a_token()]);
        let auth = ClientAuth::client_secret_jwt(Assertion::by_key(algorithm, SECRET));
        endpoint.ask(ClientCredentials::builder(URL, "billing", auth).issuer(ISSUER)).await.unwrap();
        let seen = endpoint.seen().remove(0);
        assert!(!seen.body.contains(SECRET) && !seen.headers.contains_key("authorization"));
        let key = DecodingKey::from_secret(SECRET.as_bytes());
        let (header, claims) = verified(&field(&seen, "client_assertion"), verified_by, &key);
        assert_eq!(header, json!({ "alg": algorithm.name(), "typ": "JWT" }));
        assert_eq!((&claims["iss"], &claims["sub"]), (&json!("billing"), &json!("billing")));
    }
}

#[tokio::test]
async fn entra_gets_the_thumbprint_of_the_certificate_and_the_endpoint_as_audience() {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let text = STANDARD.encode(pkcs8.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
    // Whose key is in it does not matter for its thumbprint.
    let certificate = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
    let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(certificate.der()));

    let key = Assertion::by_key(JwtAlgorithm::Ps256, pem).certificate(certificate.pem());
    let assertion = key.token_url_as_audience(true);
    let endpoint = Scripted::new([a_token()]);
    let builder = ClientCredentials::builder(URL, "billing", ClientAuth::private_key_jwt(assertion));
    endpoint.ask(builder).await.unwrap();
    let public = pair.public_key();
    let jwt = assertions(&endpoint).remove(0);
    let (header, claims) = verified(&jwt, Algorithm::PS256, &DecodingKey::from_rsa_der(public.as_ref()));
    assert_eq!(header, json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint }));
    assert_eq!(claims["aud"], URL);
}

#[tokio::test(start_paused = true)]
async fn an_assertion_is_made_anew_for_each_attempt() {
    let pair = KeyPair::generate().unwrap();
    let endpoint = Scripted::new([answer(503, ""), answer(429, ""), a_token(), a_token()]);
    let source = by(ClientAuth::private_key_jwt(es256(&pair))).build_with(endpoint.clone()).unwrap();
    ask(&source).await.unwrap();
    ask(&source).await.unwrap();
    let key = DecodingKey::from_ec_der(pair.public_key_raw());
    let names: std::collections::HashSet<String> = assertions(&endpoint)
        .iter()
        .map(|jwt| verified(jwt, Algorithm::ES256, &key).1["jti"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names.len(), 4);
}

#[tokio::test]
async fn jwt_bearer_sends_its_assertion_as_the_grant() {
    let pair = KeyPair::generate().unwrap();
    let assertion = || {
        es256(&pair)
            .issuer("https://jwt-idp.example.com")
            .subject("mailto:mike@example.com")
            .audience("https://jwt-rp.example.net")
            .claim("scope", "a b")
    };
    let endpoint = Scripted::new([a_token(), a_token()]);
    let source = JwtBearer::builder(URL, assertion()).scope("c").build_with(endpoint.clone()).unwrap();
    ask(&source).await.unwrap();
    let seen = endpoint.seen().remove(0);
    assert!(
        seen.body
            .starts_with("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=ey")
    );
    assert!(seen.body.ends_with("&scope=c") && !seen.body.contains("client_id"), "{}", seen.body);
    assert!(!seen.headers.contains_key("authorization"));
    let key = DecodingKey::from_ec_der(pair.public_key_raw());
    let (_, claims) = verified(&field(&seen, "assertion"), Algorithm::ES256, &key);
    assert_eq!(claims["iss"], "https://jwt-idp.example.com");
    assert_eq!(claims["sub"], "mailto:mike@example.com");
    assert_eq!(claims["aud"], "https://jwt-rp.example.net");
    assert_eq!(claims["scope"], "a b");

    // Besides, the client may authenticate (RFC 7523 §3.1).
    let source = JwtBearer::builder(URL, assertion()).client("billing", "hunter2");
    ask(&source.build_with(endpoint.clone()).unwrap()).await.unwrap();
    assert!(endpoint.seen()[0].headers.contains_key("authorization"));
}

#[tokio::test(start_paused = true)]
async fn the_assertion_of_a_grant_is_made_anew_for_each_attempt() {
    let pair = KeyPair::generate().unwrap();
    let endpoint = Scripted::new([answer(503, ""), a_token()]);
    let assertion = es256(&pair).issuer("robot").audience(ISSUER);
    ask(&JwtBearer::builder(URL, assertion).build_with(endpoint.clone()).unwrap()).await.unwrap();
    let sent: Vec<String> = endpoint.seen().iter().map(|seen| field(seen, "assertion")).collect();
    assert_eq!(sent.len(), 2);
    assert_ne!(sent[0], sent[1]);
}

// --- Keys ---

/// A key that is another one each time it is read, as long as there is one.
fn rotating(keys: Vec<String>) -> (Secret, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let reads = Arc::clone(&count);
    let secret = Secret::from_fn(move || {
        let at = reads.fetch_add(1, Ordering::Relaxed).min(keys.len() - 1);
        let key = keys[at].clone();
        async move { Ok::<_, Error>(key) }
    });
    (secret, count)
}

#[tokio::test]
async fn a_key_is_read_at_each_fetch_and_once_more_where_the_server_refuses_it() {
    let pairs = [KeyPair::generate().unwrap(), KeyPair::generate().unwrap()];
    let (key, reads) = rotating(pairs.iter().map(KeyPair::serialize_pem).collect());
    let endpoint = Scripted::new([answer(401, REFUSED), a_token(), answer(401, REFUSED)]);
    let auth = ClientAuth::private_key_jwt(Assertion::by_key(JwtAlgorithm::Es256, key));
    let source = by(auth).build_with(endpoint.clone()).unwrap();
    assert_eq!(reads.load(Ordering::Relaxed), 0);
    ask(&source).await.unwrap();
    for (jwt, pair) in assertions(&endpoint).iter().zip(&pairs) {
        verified(jwt, Algorithm::ES256, &DecodingKey::from_ec_der(pair.public_key_raw()));
    }
    assert_eq!(ask(&source).await.unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(reads.load(Ordering::Relaxed), 4);
    assert!(endpoint.is_finished(), "a key that stayed the same is not tried again");
}

#[tokio::test]
async fn a_key_file_that_vanishes_is_one_clear_error() {
    let path = std::env::temp_dir().join(format!("tower-oauth2-signing-key-{}", std::process::id()));
    std::fs::write(&path, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let endpoint = Scripted::new([a_token()]);
    let key = Assertion::by_key(JwtAlgorithm::Es256, Secret::from_file(&path));
    let source = by(ClientAuth::private_key_jwt(key)).build_with(endpoint.clone()).unwrap();
    ask(&source).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let error = ask(&source).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Transient
            && error.to_string().starts_with("the signing key cannot be read from "),
        "{error}"
    );
    assert_eq!(endpoint.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_does_not_parse_is_refused_when_the_source_is_built_or_at_its_first_use() {
    let build = |key: Secret| {
        let auth = ClientAuth::private_key_jwt(Assertion::by_key(JwtAlgorithm::Es256, key));
        by(auth).build_with(Scripted::new([]))
    };
    let error = build("-----BEGIN PRIVATE KEY-----\nS3CR3T".into()).unwrap_err();
    assert!(error.to_string().starts_with("the signing key cannot be used: "), "{error}");
    let source = build(Secret::from_fn(|| async { Ok("S3CR3T") })).unwrap();
    // It may be just being written.
    let error = ask(&source).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Transient && !format!("{error} {error:?}").contains("S3CR3T"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_signer_that_fails_is_a_typed_error_and_nothing_is_sent() {
    fn config(message: &str) -> Error {
        Error::new(ErrorKind::Config, message)
    }

    fn transient(message: &str) -> Error {
        Error::new(ErrorKind::Transient, message)
    }

    for (error, is_transient) in [(config as fn(&str) -> Error, false), (transient, true)] {
        let endpoint = Scripted::new([]);
        let sealed = move |_input| std::future::ready(Err(error("the vault is sealed")));
        let auth = ClientAuth::private_key_jwt(Assertion::by_signer(JwtAlgorithm::Es256, sealed));
        let error = endpoint.ask(by(auth)).await.unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.kind() == ErrorKind::Transient),
            ("the vault is sealed", is_transient)
        );
        assert!(endpoint.seen().is_empty());
    }
}

// --- Settings ---

#[tokio::test]
async fn each_authentication_has_what_it_needs_and_no_more() {
    let pair = KeyPair::generate().unwrap();
    let refused = |builder: GrantBuilder<ClientCredentials>| {
        let error = builder.build_with(Scripted::new([])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    };
    let by_secret =
        |secret: &str| ClientAuth::client_secret_jwt(Assertion::by_key(JwtAlgorithm::Hs256, secret));
    let by_key = || ClientAuth::private_key_jwt(es256(&pair));
    for (said, what) in [
        (refused(by(by_secret(""))), "client_secret: it is empty"),
        (refused(by(by_key()).issuer("")), "assertion: it has no audience"),
    ] {
        assert!(said.starts_with(what), "{said}");
    }
    let nobody =
        JwtBearer::builder(URL, es256(&pair)).issuer(ISSUER).build_with(Scripted::new([])).unwrap_err();
    assert!(nobody.to_string().starts_with("assertion: it has no issuer"), "{nobody}");
}

// --- Refusals ---

async fn refusal(status: u16, headers: &[(&str, &str)], body: &str) -> Error {
    let pair = KeyPair::generate().unwrap();
    let endpoint = Scripted::new([answer_with(status, headers, body)]);
    endpoint.ask(by(ClientAuth::private_key_jwt(es256(&pair)))).await.unwrap_err()
}

#[tokio::test]
async fn a_refused_assertion_says_what_to_check() {
    let described = |text: &str| json!({ "error": "invalid_client", "error_description": text }).to_string();
    for (body, advice) in [
        (described("assertion expired, check exp"), "check this machine's clock"),
        (described("no key with that kid"), "it does not know the key; register the public key"),
        (described("invalid signature"), "it has another key for this client"),
        (described("aud is not the issuer"), "it expects another audience"),
        (REFUSED.to_owned(), "check the client id, the key that is registered for it"),
    ] {
        let error = refusal(401, &[], &body).await;
        let said = error.to_string();
        assert!(error.kind() == ErrorKind::Config && said.contains(advice) && !said.contains('\n'), "{said}");
    }
    // A server that says nothing but the time says enough.
    let error = refusal(401, &[("date", "Thu, 01 Jan 2015 00:00:00 GMT")], REFUSED).await;
    assert!(error.to_string().contains(" s behind that of this machine; correct the clock"), "{error}");
}

#[tokio::test]
async fn a_refused_grant_says_what_to_check() {
    let pair = KeyPair::generate().unwrap();
    let body = r#"{"error":"invalid_grant","error_description":"Invalid JWT Signature."}"#;
    let endpoint = Scripted::new([answer(400, body)]);
    let assertion = es256(&pair).issuer("robot").audience(ISSUER);
    let error = ask(&JwtBearer::builder(URL, assertion).build_with(endpoint).unwrap()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Grant && error.to_string().contains("it has another key"), "{error}");
}

#[tokio::test]
async fn an_assertion_that_the_server_gives_back_is_not_shown() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let sent: Arc<Mutex<Vec<String>>> = Arc::default();
    let all = Arc::clone(&sent);
    let mirror = service_fn(move |request: Request<tower_oauth2::Body>| {
        let all = Arc::clone(&all);
        async move {
            let body = String::from_utf8(request.into_body().collect().await?.to_bytes().to_vec())?;
            let assertion = body.split("assertion=").nth(1).unwrap().split('&').next().unwrap().to_owned();
            let answer =
                json!({ "error": "invalid_client", "error_description": format!("no: {assertion}") });
            all.lock().unwrap().push(assertion);
            let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
            *response.status_mut() = http::StatusCode::UNAUTHORIZED;
            Ok::<_, BoxError>(response)
        }
    });

    let pair = KeyPair::generate().unwrap();
    let grant = es256(&pair).issuer("robot").audience(ISSUER);
    let client = by(ClientAuth::private_key_jwt(es256(&pair))).build_with(mirror.clone()).unwrap();
    let grant = JwtBearer::builder(URL, grant).build_with(mirror).unwrap();
    let errors = [ask(&client).await.unwrap_err(), ask(&grant).await.unwrap_err()];
    let shown = format!("{errors:?} {} {} {client:?} {grant:#?} {}", errors[0], errors[1], log.text());
    assert!(log.text().contains("the token endpoint responded") && shown.contains("[redacted]"), "{shown}");

    let pem = pair.serialize_pem();
    let key = pem.lines().filter(|line| !line.starts_with('-')).map(str::to_owned);
    let sent = sent.lock().unwrap().clone();
    assert_eq!(sent.len(), 2);
    let parts = sent.iter().flat_map(|jwt| jwt.split('.')).map(str::to_owned);
    for secret in parts.chain(key) {
        for piece in secret.as_bytes().windows(12) {
            let piece = std::str::from_utf8(piece).unwrap();
            assert!(!shown.contains(piece), "{piece} in {shown}");
        }
    }
}

/// A key as PKCS#8 in PEM, and its public half.
fn rsa_pem() -> String {
    let pkcs8: Pkcs8V1Der<'_> = RsaKeyPair::generate(KeySize::Rsa2048).unwrap().as_der().unwrap();
    let text = STANDARD.encode(pkcs8.as_ref());
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}

#[tokio::test]
async fn a_pem_text_whose_line_ends_were_lost_says_so() {
    let pem = rsa_pem();
    for (text, said) in
        [(pem.replace('\n', "\\n"), "the two characters \\n"), (pem.trim_end().replace('\n', " "), "spaces")]
    {
        let key = Assertion::by_key(JwtAlgorithm::Rs256, text);
        let error = by(ClientAuth::private_key_jwt(key)).build_with(Scripted::new([])).unwrap_err();
        let shown = error.to_string();
        assert!(
            error.kind() == ErrorKind::Config && shown.contains(&format!("its line ends became {said}")),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn what_nobody_sees_at_the_ends_of_the_names_in_an_assertion_is_not_signed() {
    for around in ["\n", "\r\n", "\t", "\u{feff}", "\u{a0}"] {
        let wrapped = |text: &str| format!("{around}{text}{around}");
        let assertion = Assertion::by_key(JwtAlgorithm::Rs256, rsa_pem())
            .issuer(wrapped("CONSUMER-KEY"))
            .subject(wrapped("robot@example.com"))
            .audience(wrapped("https://login.example.com"))
            .key_id(wrapped("k1"));
        let endpoint = Scripted::new([a_token()]);
        let source = JwtBearer::builder(URL, assertion).build_with(endpoint.clone()).unwrap();
        source.token(TokenRequest::new(FetchReason::Initial)).await.unwrap();
        let seen = endpoint.seen();
        let jwt = seen[0].body.split("assertion=").nth(1).unwrap();
        let parts: Vec<Value> = jwt
            .split('.')
            .take(2)
            .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
            .collect();
        assert_eq!((&parts[0]["kid"], &parts[1]["iss"]), (&json!("k1"), &json!("CONSUMER-KEY")));
        assert_eq!(parts[1]["sub"], "robot@example.com");
        assert_eq!(parts[1]["aud"], "https://login.example.com");
    }
}

#[test]
fn a_pem_text_that_is_indented_is_read_and_a_set_of_jwks_is_told_as_that() {
    let indented = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let key = rsa_pem();
    let certificate = rcgen::generate_simple_self_signed(["app".to_owned()]).unwrap().cert.pem();
    for text in [indented(&key), indented(&key).trim().to_owned(), indented(&key).replace('\n', "\r\n")] {
        let assertion = Assertion::by_key(JwtAlgorithm::Rs256, text).certificate(indented(&certificate));
        SelfSigned::new(assertion.issuer("app")).unwrap();
    }
    let set = Assertion::by_key(JwtAlgorithm::Es256, r#"{"keys":[{"kty":"EC","d":"S3CR3T"}]}"#);
    let error = SelfSigned::new(set.issuer("app")).unwrap_err().to_string();
    assert!(error.contains("a set of JWKs") && !error.contains("S3CR3T"), "{error}");
}

#[tokio::test]
async fn a_pem_text_that_was_changed_on_its_way_says_how_also_for_a_certificate() {
    let pem = rsa_pem();
    let trimmed = pem.trim_end();
    for (text, said) in [
        (format!("{}\n", trimmed.replacen('\n', "\\n", 3)), "its line ends became the two characters \\n"),
        (trimmed.replacen('\n', " ", 1), "its line ends became spaces"),
        (trimmed.replace('\n', ""), "its line ends became spaces"),
        (format!("\"{trimmed}\""), "it stands in quotes"),
        (format!("'{trimmed}'\n"), "it stands in quotes"),
    ] {
        let by_key = Assertion::by_key(JwtAlgorithm::Rs256, text.clone());
        let certificate = text.replace("PRIVATE KEY", "CERTIFICATE");
        let with_certificate = Assertion::by_key(JwtAlgorithm::Rs256, pem.clone()).certificate(certificate);
        for assertion in [by_key, with_certificate] {
            let auth = ClientAuth::private_key_jwt(assertion);
            let error = by(auth).build_with(Scripted::new([])).unwrap_err();
            assert!(error.kind() == ErrorKind::Config && error.to_string().contains(said), "{error}");
        }
    }
    let certificate = format!("\u{feff}{}", pem.replace("PRIVATE KEY", "CERTIFICATE"));
    let assertion = Assertion::by_key(JwtAlgorithm::Rs256, pem).certificate(certificate);
    by(ClientAuth::private_key_jwt(assertion)).build_with(Scripted::new([])).unwrap();
}

#[tokio::test]
async fn the_key_file_of_google_is_understood_as_it_is_handed_out() {
    let file = json!({
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "key-7",
        "private_key": rsa_pem(),
        "client_email": "robot@p.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    });
    let key = || Assertion::by_key(JwtAlgorithm::Rs256, file.to_string());
    for named in [false, true] {
        let endpoint = Scripted::new([a_token()]);
        let assertion = key().token_url_as_audience(true).without_subject();
        let assertion = if named { assertion.issuer("another") } else { assertion };
        let source = JwtBearer::builder(URL, assertion).build_with(endpoint.clone()).unwrap();
        source.token(TokenRequest::new(FetchReason::Initial)).await.unwrap();
        let jwt = field(&endpoint.seen().remove(0), "assertion");
        let part = |at: usize| -> serde_json::Value {
            let text =
                base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(jwt.split('.').nth(at).unwrap());
            serde_json::from_slice(&text.unwrap()).unwrap()
        };
        assert_eq!(part(0)["kid"], "key-7");
        let issuer = if named { "another" } else { "robot@p.iam.gserviceaccount.com" };
        assert_eq!(part(1)["iss"], issuer);
        assert!(part(1).get("sub").is_none());
    }
    let mut broken = file.clone();
    broken["private_key"] = "S3CR3T".into();
    let error = by(ClientAuth::private_key_jwt(Assertion::by_key(JwtAlgorithm::Rs256, broken.to_string())));
    let error = error.build_with(Scripted::new([])).unwrap_err();
    assert!(error.kind() == ErrorKind::Config && !error.to_string().contains("S3CR3T"), "{error}");
    // Without an account nobody knows who the issuer is.
    let key = Assertion::by_key(JwtAlgorithm::Rs256, rsa_pem());
    let error = JwtBearer::builder(URL, key).build_with(Scripted::new([])).unwrap_err();
    assert!(error.to_string().contains("it has no issuer"), "{error}");
}

/// An RSA key whose OID allows RSASSA-PSS alone (RFC 4055 §1.2), and its public half.
fn pss_alone() -> (String, DecodingKey) {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    // The OID ends in 10, and has no parameters.
    let rsa = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    let pss = b"\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a";
    let whole = pkcs8.as_ref();
    let at = whole.windows(rsa.len()).position(|window| window == rsa).unwrap();
    let (head, [before, after]) = (&whole[..2], [&whole[4..at], &whole[at + rsa.len()..]]);
    let length = u16::try_from(before.len() + pss.len() + after.len()).unwrap().to_be_bytes();
    let der = [head, &length, before, pss, after].concat();
    let text = STANDARD.encode(der);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
    (pem, DecodingKey::from_rsa_der(pair.public_key().as_ref()))
}

#[tokio::test]
async fn a_key_for_pss_alone_signs_by_pss_alone() {
    let (pem, public) = pss_alone();
    for (algorithm, verifier) in [
        (JwtAlgorithm::Ps256, Algorithm::PS256),
        (JwtAlgorithm::Ps384, Algorithm::PS384),
        (JwtAlgorithm::Ps512, Algorithm::PS512),
    ] {
        let endpoint = Scripted::new([a_token()]);
        let key = Assertion::by_key(algorithm, pem.as_str());
        endpoint.ask(by(ClientAuth::private_key_jwt(key))).await.unwrap();
        verified(&assertions(&endpoint)[0], verifier, &public);
    }
    for algorithm in [JwtAlgorithm::Rs256, JwtAlgorithm::Rs384, JwtAlgorithm::Rs512, JwtAlgorithm::Es256] {
        let key = Assertion::by_key(algorithm, pem.as_str());
        let error = by(ClientAuth::private_key_jwt(key)).build_with(Scripted::new([])).unwrap_err();
        let said = error.to_string();
        assert!(
            error.kind() == ErrorKind::Config && said.contains("it is an RSA key for PSS alone"),
            "{said}"
        );
        assert!(said.contains(algorithm.name()) && !said.contains(&pem[40..60]), "{said}");
    }
}

#[tokio::test]
async fn a_secret_that_is_shorter_than_the_hash_signs_nothing() {
    for (algorithm, verifier, least) in [
        (JwtAlgorithm::Hs256, Algorithm::HS256, 32),
        (JwtAlgorithm::Hs384, Algorithm::HS384, 48),
        (JwtAlgorithm::Hs512, Algorithm::HS512, 64),
    ] {
        let with = |secret: Secret| {
            ClientCredentials::builder(
                URL,
                "billing",
                ClientAuth::client_secret_jwt(Assertion::by_key(algorithm, secret)),
            )
            .issuer(ISSUER)
        };
        let long = "x".repeat(least);
        let endpoint = Scripted::new([a_token()]);
        endpoint.ask(with(long.as_str().into())).await.unwrap();
        verified(&assertions(&endpoint)[0], verifier, &DecodingKey::from_secret(long.as_bytes()));

        // A value is refused when the source is built, one of a closure before anything is sent.
        let short = &long[1..];
        let at_once = with(short.into()).build_with(Scripted::new([])).unwrap_err();
        let endpoint = Scripted::new([a_token()]);
        let short = short.to_owned();
        let closure = Secret::from_fn(move || std::future::ready(Ok(short.clone())));
        let later = endpoint.ask(with(closure)).await.unwrap_err();
        // What a closure returns may be a longer one the next time.
        assert!(
            at_once.kind() == ErrorKind::Config && later.kind() == ErrorKind::Transient,
            "{at_once:?} {later:?}"
        );
        for error in [at_once, later] {
            let said = error.to_string();
            assert!(said.contains(&format!("{} bytes", least - 1)), "{said}");
            assert!(said.contains(&format!("wants {least}")) && !said.contains("xxx"), "{said}");
        }
        assert!(endpoint.seen().is_empty(), "{algorithm}");
    }
}
