use super::*;

const LEAST: &str = r#""token_url": "https://login.example.com/token", "client_id": "billing""#;

fn read(more: &str) -> Result<ClientCredentialsConfig, serde_json::Error> {
    serde_json::from_str(&format!("{{{LEAST}{more}}}"))
}

#[test]
fn every_field_reaches_the_builder() {
    let config = read(
        r#", "client_secret_env": "BILLING", "client_auth": "basic_raw", "scopes": ["a", "b"],
            "required_scopes": ["a"], "audience": "x", "resources": ["https://r/"], "parameters": {"org": "n"},
            "strict_bearer": true, "attempt_timeout_seconds": 2.5, "retries": 7, "first_delay_seconds": 1,
            "longest_delay_seconds": 9, "insecure_http": true"#,
    );
    let shown = format!("{:?}", config.unwrap().into_builder());
    for part in [
        r#"client_id: "billing""#,
        r#"env "BILLING""#,
        "BasicRaw",
        r#"requested: ["a", "b"]"#,
        r#"required: ["a"]"#,
        r#"("audience", "x")"#,
        r#"("resource", "https://r/")"#,
        r#"parameters: ["org"]"#,
        "strict_bearer: true",
        "attempt_timeout: 2.5s",
        "retries: 7",
        "min_delay: 1s",
        "max_delay: 9s",
        "insecure_http: true",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}

#[test]
fn a_secret_in_the_file_is_refused_and_so_is_a_misspelt_field() {
    for more in [r#", "client_secret": "S3CR3T""#, r#", "client_secret_env": "A", "scope": "a""#] {
        let error = read(more).unwrap_err().to_string();
        assert!(error.contains("unknown field") && !error.contains("S3CR3T"), "{error}");
    }
}

#[test]
fn where_the_secret_is_must_be_said_once() {
    let error = read("").unwrap_err().to_string();
    assert!(error.contains("client_secret_env or client_secret_file is missing"), "{error}");
    let error = read(r#", "client_secret_env": "A", "client_secret_file": "/a""#).unwrap_err().to_string();
    assert!(error.contains("exclude each other"), "{error}");
    assert!(read(r#", "client_auth": "none""#).is_ok());
    let useless = read(r#", "client_auth": "tls", "client_secret_file": "/a""#).unwrap_err().to_string();
    assert!(useless.contains("client_secret_file has no use"), "{useless}");
}

#[test]
fn a_token_url_or_an_issuer_is_given_and_never_both() {
    let read = |fields: &str| {
        let text = format!(r#"{{"client_id": "billing", "client_secret_env": "A"{fields}}}"#);
        serde_json::from_str::<ClientCredentialsConfig>(&text)
    };
    let issuer = r#", "issuer": "https://login.example.com""#;
    let shown = format!("{:?}", read(issuer).unwrap());
    assert!(shown.contains("identifier: \"https://login.example.com\""), "{shown}");
    let metadata = r#", "metadata_url": "https://login.example.com/metadata""#;
    let shown = format!("{:?}", read(&format!("{issuer}{metadata}")).unwrap());
    assert!(shown.contains("metadata_url: Some"), "{shown}");

    let url = r#", "token_url": "https://login.example.com/token""#;
    for (fields, told) in [
        ("", "token_url or issuer is missing"),
        (&*format!("{issuer}{url}"), "exclude each other"),
        (&*format!("{metadata}{url}"), "metadata_url has no use"),
    ] {
        let error = read(fields).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn several_client_authentications_are_a_list() {
    let shown = |auth: &str| read(auth).map(|config| format!("{config:?}"));
    let both = shown(r#", "client_secret_env": "A", "client_auth": ["post", "basic"]"#).unwrap();
    assert!(both.contains(r#"ClientAuth [Post(Secret(env "A")), Basic(Secret(env "A"))]"#), "{both}");
    assert!(shown(r#", "client_auth": "tls""#).unwrap().contains("ClientAuth [Tls]"));
    let shown = |auth: &str| shown(&format!(r#", "client_secret_env": "A", "client_auth": {auth}"#));
    for (auth, told) in [("[]", "a list of such"), ("7", "a list of such"), (r#"["digest"]"#, "digest")] {
        let error = shown(auth).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[cfg(not(feature = "jwt"))]
#[test]
fn a_key_needs_its_feature() {
    let error = read(r#", "client_auth": "private_key_jwt", "signing_key_env": "KEY""#).unwrap_err();
    assert!(error.to_string().contains("the feature `jwt`"), "{error}");
}

#[cfg(feature = "jwt")]
#[test]
fn a_key_is_referred_to_and_never_given() {
    let config = read(
        r#", "client_auth": "private_key_jwt", "signing_key_file": "/run/key.pem", "signing_key_id": "16",
            "signing_algorithm": "PS256", "signing_certificate_file": "/run/certificate.pem",
            "assertion_audience": "https://login.example.com/token""#,
    );
    let shown = format!("{:?}", config.unwrap());
    for part in [
        "Jwt(Assertion",
        "Ps256",
        "/run/key.pem",
        "key_id: Some(Secret(value))",
        "/run/certificate.pem",
        r#"Named("https://login.example.com/token")"#,
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let shown =
        |more: &str| read(more).map(|config| format!("{config:?}")).map_err(|error| error.to_string());
    let by_secret = r#", "client_auth": "client_secret_jwt", "client_secret_env": "A""#;
    assert!(shown(by_secret).unwrap().contains("Hs256"));
    for (more, told) in [
        (
            r#", "client_auth": "private_key_jwt", "signing_algorithm": "ES256""#,
            "signing_key_env or signing_key_file",
        ),
        (r#", "client_auth": "private_key_jwt", "signing_key_env": "KEY""#, "signing_algorithm is missing"),
        (
            r#", "client_auth": "private_key_jwt", "signing_key_env": "KEY", "signing_key_file": "/a", "signing_algorithm": "ES256""#,
            "signing_key_env and signing_key_file exclude",
        ),
        (
            r#", "client_auth": "private_key_jwt", "signing_key_env": "KEY", "signing_algorithm": "none""#,
            "signing_algorithm: ",
        ),
        (
            r#", "client_auth": "client_secret_jwt", "client_secret_env": "A", "signing_key_env": "KEY""#,
            "signing_key_env has no use",
        ),
        (r#", "client_secret_env": "A", "assertion_audience": "a""#, "assertion_audience has no use"),
        (r#", "client_auth": ["private_key_jwt", "client_secret_jwt"]"#, "exclude each other"),
        (r#", "client_auth": "private_key_jwt", "signing_key": "S3CR3T""#, "unknown field"),
    ] {
        let error = shown(more).unwrap_err();
        assert!(error.contains(told) && !error.contains("S3CR3T"), "{error}");
    }
    // A stronger way beside a weaker one, for servers that know the one or the other.
    let both = shown(
        r#", "client_auth": ["private_key_jwt", "basic"], "client_secret_env": "A", "signing_key_env": "KEY",
            "signing_algorithm": "ES256""#,
    );
    assert!(both.unwrap().contains("Basic"));
}

#[test]
fn values_that_mean_nothing_are_refused_by_name() {
    for (more, field) in [
        (r#""attempt_timeout_seconds": -1"#, "attempt_timeout_seconds"),
        (r#""first_delay_seconds": 1e300"#, "first_delay_seconds"),
        (r#""longest_delay_seconds": -0.5"#, "longest_delay_seconds"),
        (r#""client_auth": "digest""#, "digest"),
    ] {
        let error = read(&format!(r#", "client_secret_env": "A", {more}"#)).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
}
