use std::sync::Mutex;

use super::*;
use crate::vectors;

fn identifiers() -> Identifiers {
    Identifiers {
        client_id: "s6BhdRkqt3".into(),
        issuer: "https://as.example.com".into(),
        token_url: "https://as.example.com/token".into(),
    }
}

/// An assertion that nothing signs, for tests that look at header and claims alone.
fn unsigned(algorithm: JwtAlgorithm) -> Assertion {
    Assertion::by_signer(algorithm, |_input| async { Ok(vec![0; 64]) })
}

fn es256() -> Assertion {
    unsigned(JwtAlgorithm::Es256).key_id("16")
}

fn key_id(assertion: &Assertion) -> Option<&str> {
    Some(assertion.key_id.as_ref()?.value()?.expose_secret())
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
        token_url: text("token_endpoint").unwrap().into(),
    };
    let algorithm: JwtAlgorithm = input["alg"].as_str().unwrap().parse()?;
    let mut assertion = match text("client_secret") {
        Some(secret) => Assertion::by_key(algorithm, secret),
        None => unsigned(algorithm),
    }
    .lifetime(Duration::from_secs(input["lifetime_s"].as_u64().unwrap()));
    if let Some(key_id) = text("kid") {
        assertion = assertion.key_id(key_id);
    }
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
        let claims = assertion.claims(&identifiers, None, now, &backoff::identifier().unwrap()).unwrap();
        let header = assertion.jose_header(key_id(&assertion), None);
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
        .header("typ", "client-authentication+jwt")
        .audience("https://other.example.com")
        .claim("scope", "a b")
        .claim("roles", ("x", 7))
        .header("x", "y")
        .header("x5c", ["MIIB"]);
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
}

#[test]
fn a_clock_that_is_off_is_made_up_for_in_all_times() {
    let (now, off) = (Duration::from_secs(1_700_000_000), Duration::from_secs(90));
    let skew = Duration::from_secs(5);
    let assertion = es256().clock_ahead_by(off).not_before_skew(skew);
    let claims = assertion.claims(&identifiers(), None, now, "j").unwrap();
    let read = |name: &str| claims[name].as_u64().unwrap();
    assert_eq!((read("iat"), read("exp"), read("nbf")), (1_699_999_910, 1_699_999_970, 1_699_999_905));
}

#[test]
fn a_grant_speaks_for_whom_it_is_told() {
    let now = Duration::from_secs(1_700_000_000);
    let same = es256().issuer("robot").claims(&identifiers(), None, now, "j").unwrap();
    assert_eq!((&same["iss"], &same["sub"]), (&"robot".into(), &"robot".into()));
    let user = es256().subject("mike").claims(&identifiers(), None, now, "j").unwrap();
    assert_eq!((&user["iss"], &user["sub"]), (&"s6BhdRkqt3".into(), &"mike".into()));
    let nobody = es256().without_subject().claims(&identifiers(), None, now, "j").unwrap();
    assert!(!nobody.contains_key("sub"));
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
        (client(es256().claim("a", "x").claim("a", 7)), "set it once"),
        (client(es256().claim("a", std::collections::BTreeMap::from([([1], 2)]))), "JSON can express"),
        (client(es256().header("alg", "none")), "\"alg\""),
        (es256().check_for_client(&no_issuer).unwrap_err(), "issuer()"),
        (es256().check_for_grant(&anonymous).unwrap_err(), "issuer()"),
    ] {
        let text = error.to_string();
        assert!(error.is_config() && text.starts_with("assertion: ") && text.contains(remedy), "{text}");
    }
    assert!(es256().token_url_as_audience(true).check_for_client(&no_issuer).is_ok());
    assert!(es256().issuer("x").check_for_grant(&anonymous).is_ok());
}

#[tokio::test]
async fn a_signer_gets_header_and_claims_and_its_error_is_passed_on() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let recorder = Arc::clone(&seen);
    let assertion = Assertion::by_signer(JwtAlgorithm::Rs256, move |input| {
        let mut seen = recorder.lock().unwrap();
        let is_first = seen.is_empty();
        *seen = input;
        async move {
            if is_first { Ok(b"signature".to_vec()) } else { Err(Error::transient("the vault is sealed")) }
        }
    });
    let jwt = assertion.sign(&identifiers(), &SecretString::default()).await.unwrap();
    let (input, signature) = jwt.expose_secret().rsplit_once('.').unwrap();
    assert_eq!(seen.lock().unwrap().as_slice(), input.as_bytes());
    assert_eq!(signature, URL_SAFE_NO_PAD.encode("signature"));
    assert_eq!(part(&jwt, 0), serde_json::json!({ "alg": "RS256", "typ": "JWT" }));
    let error = assertion.sign(&identifiers(), &SecretString::default()).await.unwrap_err();
    assert!(error.is_transient() && error.to_string() == "the vault is sealed");
}

#[tokio::test]
async fn the_name_of_a_key_that_is_replaced_where_it_is_is_read_for_each_signature() {
    let version = Arc::new(Mutex::new(0));
    let newest = Arc::clone(&version);
    let key_id = Secret::from_fn(move || {
        let mut version = newest.lock().unwrap();
        *version += 1;
        let name = format!("v{version}\n");
        async { Ok(name) }
    });
    let assertion = unsigned(JwtAlgorithm::Es256).key_id(key_id);
    assertion.check_for_client(&identifiers()).unwrap();
    for name in ["v1", "v2"] {
        let jwt = assertion.sign(&identifiers(), &SecretString::default()).await.unwrap();
        assert_eq!(part(&jwt, 0)["kid"], name);
    }
    for empty in ["", "\u{feff}\n"] {
        let error = unsigned(JwtAlgorithm::Es256).key_id(empty).check_for_client(&identifiers()).unwrap_err();
        assert!(error.is_config() && error.to_string().contains("key_id() is empty"), "{error}");
    }
}

#[tokio::test]
async fn a_signature_of_a_signer_that_is_none_is_refused() {
    let assertion = Assertion::by_signer(JwtAlgorithm::Es256, |_input| async { Ok(vec![0; 63]) });
    let error = assertion.sign(&identifiers(), &SecretString::default()).await.unwrap_err();
    assert!(error.is_config() && error.to_string().contains("no ES256 signature, as 64 bytes"), "{error}");
}

#[test]
fn debug_shows_no_key() {
    let key = Assertion::by_key(JwtAlgorithm::Es256, "S3CR3T").certificate("S3CR3T").key_id("16");
    let shown = format!("{:?} {:#?} {:?}", key.clone(), key, es256());
    assert!(shown.contains("Es256") && shown.contains("key_id") && !shown.contains("S3CR3T"), "{shown}");
}
