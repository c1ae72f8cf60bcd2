use std::sync::Mutex;

use super::*;
use crate::vectors;

/// A signer that signs nothing, for tests that look at header and claims alone.
struct Stamp(JwtAlgorithm);

impl JwtSigner for Stamp {
    fn algorithm(&self) -> JwtAlgorithm {
        self.0
    }

    fn key_id(&self) -> Option<String> {
        Some("16".into())
    }

    async fn sign(&self, _input: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(vec![0; 64])
    }
}

fn identifiers() -> Identifiers {
    Identifiers {
        client_id: "s6BhdRkqt3".into(),
        issuer: "https://as.example.com".into(),
        token_url: "https://as.example.com/token".into(),
    }
}

fn es256() -> Assertion {
    Assertion::by_signer(Stamp(JwtAlgorithm::Es256))
}

fn part(jwt: &SecretString, at: usize) -> Value {
    let text = jwt.expose_secret().split('.').nth(at).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
}

/// Builds what a vector configures, or says why not.
fn configured(input: &Value) -> Result<(Assertion, Identifiers), Error> {
    let text = |name: &str| input[name].as_str().map(str::to_owned);
    let identifiers = Identifiers {
        client_id: text("client_id").unwrap(),
        issuer: text("issuer").unwrap(),
        token_url: text("token_endpoint").unwrap(),
    };
    let algorithm: JwtAlgorithm = input["alg"].as_str().unwrap().parse()?;
    let mut assertion = match text("client_secret") {
        Some(_) => Assertion::by_client_secret(algorithm),
        None => Assertion::by_signer(Stamp(algorithm)),
    }
    .lifetime(Duration::from_secs(input["lifetime_s"].as_u64().unwrap()));
    if input["audience"] == "token_endpoint" {
        assertion = assertion.token_url_as_audience(true);
    }
    if let Some(skew) = input["nbf_skew_s"].as_u64() {
        assertion = assertion.not_before_skew(Duration::from_secs(skew));
    }
    if input["use"] == "grant" {
        let assertion = assertion.issuer(text("iss").unwrap()).subject(text("sub").unwrap());
        assertion.check_for_grant(&identifiers)?;
        return Ok((assertion, identifiers));
    }
    assertion.check_for_client(&identifiers)?;
    Ok((assertion, identifiers))
}

fn holds(expected: &Value, found: &Map<String, Value>, id: &Value) {
    for (name, expected) in expected.as_object().into_iter().flatten() {
        let found = found.get(name).unwrap_or_else(|| panic!("{id}: no {name}"));
        match expected["any_string_min_len"].as_u64() {
            Some(least) => assert!(found.as_str().unwrap().len() as u64 >= least, "{id}: {name}"),
            None => assert_eq!(found, expected, "{id}: {name}"),
        }
    }
}

#[tokio::test]
async fn every_vector_of_client_assertions_passes() {
    let vectors = vectors::read("client_assertion");
    let mut refused = Vec::new();
    for vector in &vectors {
        let (input, id) = (&vector["input"], &vector["id"]);
        let (assertion, identifiers) = match configured(input) {
            Ok(configured) => configured,
            Err(error) => {
                let expect = &vector["expect"];
                assert!(expect["error"].is_string() || expect["error_or_clamped"] == true, "{id}: {error}");
                assert!(error.is_config(), "{id}: {error}");
                assert!(
                    expect.get("error").is_none_or(|named| *named == "unsupported_alg"),
                    "{id}: {expect}"
                );
                assert!(
                    expect.get("max_lifetime_s").is_none_or(|most| *most == LONGEST.as_secs()),
                    "{id}: {expect}"
                );
                refused.push(id.as_str().unwrap());
                continue;
            }
        };
        let now = Duration::from_secs(input["now_unix"].as_u64().unwrap());
        let claims = assertion.claims(&identifiers, None, now, &backoff::identifier().unwrap());
        let header = assertion.jose_header(input["kid"].as_str().map(str::to_owned), None);
        let expect = &vector["expect"];
        if let Some(expected) = expect.get("header") {
            assert_eq!(Value::Object(header), *expected, "{id}");
        }
        holds(&expect["claims"], &claims, id);
        if input["nbf_skew_s"].is_null() {
            assert!(!claims.contains_key("nbf"), "{id}");
        }
        if let Some(distinct) = expect.get("distinct_jti") {
            assert_eq!(*distinct, true, "{id}");
            let secret = SecretString::default();
            let [one, other] =
                [assertion.sign(&identifiers, &secret).await, assertion.sign(&identifiers, &secret).await]
                    .map(|jwt| part(&jwt.unwrap(), 1)["jti"].clone());
            assert_ne!(one, other, "{id}");
        }
    }
    assert_eq!(refused, ["CA-008", "CA-009"]);
    assert_eq!(vectors.len(), 9);
}

#[tokio::test]
async fn what_is_set_stands_in_header_and_claims() {
    let assertion = es256()
        .typ("client-authentication+jwt")
        .audience("https://other.example.com")
        .claim("scope", "a b")
        .claim_json("roles", r#"["x", 7]"#)
        .header("x", "y")
        .header_json("x5c", r#"["MIIB"]"#);
    assertion.check_for_client(&identifiers()).unwrap();
    let jwt = assertion.sign(&identifiers(), &SecretString::default()).await.unwrap();
    let header = serde_json::json!({
        "alg": "ES256", "typ": "client-authentication+jwt", "kid": "16", "x": "y", "x5c": ["MIIB"]
    });
    assert_eq!(part(&jwt, 0), header);
    let claims = part(&jwt, 1);
    assert_eq!(claims["aud"], "https://other.example.com");
    assert_eq!(claims["scope"], "a b");
    assert_eq!(claims["roles"], serde_json::json!(["x", 7]));
    let bare = es256().without_typ().sign(&identifiers(), &SecretString::default()).await.unwrap();
    assert_eq!(part(&bare, 0), serde_json::json!({ "alg": "ES256", "kid": "16" }));
}

#[test]
fn a_clock_that_is_off_is_made_up_for_in_all_times() {
    let (now, off) = (Duration::from_secs(1_700_000_000), Duration::from_secs(90));
    let skew = Duration::from_secs(5);
    for (assertion, iat) in
        [(es256().clock_ahead_by(off), 1_699_999_910_u64), (es256().clock_behind_by(off), 1_700_000_090)]
    {
        let claims = assertion.not_before_skew(skew).claims(&identifiers(), None, now, "j");
        let read = |name: &str| claims[name].as_u64().unwrap();
        assert_eq!((read("iat"), read("exp"), read("nbf")), (iat, iat + 60, iat - 5));
    }
}

#[test]
fn a_grant_speaks_for_whom_it_is_told() {
    let now = Duration::from_secs(1_700_000_000);
    let same = es256().issuer("robot").claims(&identifiers(), None, now, "j");
    assert_eq!((&same["iss"], &same["sub"]), (&"robot".into(), &"robot".into()));
    let user = es256().subject("mike").claims(&identifiers(), None, now, "j");
    assert_eq!((&user["iss"], &user["sub"]), (&"s6BhdRkqt3".into(), &"mike".into()));
    assert!(!es256().without_subject().claims(&identifiers(), None, now, "j").contains_key("sub"));
}

#[test]
fn what_makes_no_sense_is_refused_by_its_name() {
    let no_issuer = Identifiers { issuer: String::new(), ..identifiers() };
    let anonymous = Identifiers { client_id: String::new(), ..identifiers() };
    let client = |assertion: Assertion| assertion.check_for_client(&identifiers()).unwrap_err();
    for (error, remedy) in [
        (client(es256().lifetime(Duration::ZERO)), "lifetime"),
        (client(es256().lifetime(Duration::from_secs(3601))), "lifetime"),
        (client(es256().issuer("x")), "remove them"),
        (client(es256().subject("x")), "remove them"),
        (client(es256().without_subject()), "remove them"),
        (client(es256().claim("exp", "x")), "\"exp\""),
        (client(es256().claim("a", "x").claim_json("a", "7")), "set it once"),
        (client(es256().claim_json("a", "b")), "is not JSON"),
        (client(es256().header("alg", "none")), "\"alg\""),
        (client(Assertion::by_signer(Stamp(JwtAlgorithm::Hs256))), "client_secret_jwt"),
        (client(Assertion::by_client_secret(JwtAlgorithm::Es256)), "no client secret signs by ES256"),
        (
            Assertion::by_key(JwtAlgorithm::Hs256, "x").check_for_grant(&identifiers()).unwrap_err(),
            "no private key signs by HS256",
        ),
        (es256().check_for_client(&no_issuer).unwrap_err(), "issuer()"),
        (es256().check_for_grant(&anonymous).unwrap_err(), "issuer()"),
        (
            Assertion::by_client_secret(JwtAlgorithm::Hs256).check_for_grant(&identifiers()).unwrap_err(),
            "a signer",
        ),
    ] {
        let text = error.to_string();
        assert!(error.is_config() && text.starts_with("assertion: ") && text.contains(remedy), "{text}");
    }
    assert!(es256().token_url_as_audience(true).check_for_client(&no_issuer).is_ok());
    assert!(es256().issuer("x").check_for_grant(&anonymous).is_ok());
}

#[tokio::test]
async fn a_signer_gets_header_and_claims_and_its_error_is_passed_on() {
    struct Recorder(Arc<Mutex<Vec<u8>>>);

    impl JwtSigner for Recorder {
        fn algorithm(&self) -> JwtAlgorithm {
            JwtAlgorithm::Rs256
        }

        async fn sign(&self, input: &[u8]) -> Result<Vec<u8>, Error> {
            let mut seen = self.0.lock().unwrap();
            if !seen.is_empty() {
                return Err(Error::transient("the vault is sealed"));
            }
            *seen = input.to_vec();
            Ok(b"signature".to_vec())
        }
    }

    let seen = Arc::new(Mutex::new(Vec::new()));
    let assertion = Assertion::by_signer(Recorder(Arc::clone(&seen)));
    let jwt = assertion.sign(&identifiers(), &SecretString::default()).await.unwrap();
    let (input, signature) = jwt.expose_secret().rsplit_once('.').unwrap();
    assert_eq!(seen.lock().unwrap().as_slice(), input.as_bytes());
    assert_eq!(signature, URL_SAFE_NO_PAD.encode("signature"));
    assert_eq!(part(&jwt, 0), serde_json::json!({ "alg": "RS256", "typ": "JWT" }));
    let error = assertion.sign(&identifiers(), &SecretString::default()).await.unwrap_err();
    assert!(error.is_transient() && error.to_string() == "the vault is sealed");
}

#[test]
fn debug_shows_no_key() {
    let key = Assertion::by_key(JwtAlgorithm::Es256, "S3CR3T").certificate("S3CR3T").key_id("16");
    let shown = format!("{:?} {:#?} {:?}", key.clone(), key, es256());
    assert!(shown.contains("Es256") && shown.contains("16") && !shown.contains("S3CR3T"), "{shown}");
}
