use bytes::Bytes;
use http_body_util::Full;
use tower::{BoxError, service_fn};

use super::*;
use crate::grants::{ClientCredentials, GrantBuilder, RefreshTokenGrant, Revocation};

const URL: &str = "https://login.example.com/oauth/token";

fn billing() -> GrantBuilder<ClientCredentials> {
    ClientCredentials::builder(URL, "billing", "S3CR3T")
}

fn at(url: &str) -> GrantBuilder<ClientCredentials> {
    ClientCredentials::builder(url, "billing", "S3CR3T")
}

fn build(builder: GrantBuilder<ClientCredentials>) -> Result<ClientCredentials, Error> {
    builder.build_with(service_fn(|_request: http::Request<crate::body::Body>| async {
        Ok::<_, BoxError>(http::Response::new(Full::new(Bytes::new())))
    }))
}

/// Each refusal names its setting first, and what to do.
#[track_caller]
fn assert_refused(builder: GrantBuilder<ClientCredentials>, field: &str, remedy: &str) {
    let error = build(builder).unwrap_err();
    let text = error.to_string();
    assert!(error.is_config(), "{text}");
    assert!(text.starts_with(&format!("{field}: ")), "{text}");
    assert!(text.contains(remedy), "{text}");
    assert!(!format!("{error} {error:?}").contains("S3CR3T"), "{text}");
}

#[test]
fn a_token_url_must_be_https_unless_it_is_loopback() {
    assert_refused(at("http://login.example.com/token"), "token_url", "use https");
    assert_refused(at("http://127.0.0.1.example.com/token"), "token_url", "use https");
    assert_refused(at("http://localhost.example.com/token"), "token_url", "use https");
    for url in [
        "http://127.0.0.1:8080/token",
        "http://127.9.9.9/",
        "http://[::1]:1/token",
        "http://localhost/token",
        URL,
    ] {
        assert!(build(at(url)).is_ok(), "{url}");
    }
    assert!(build(at("http://login.example.com/token").insecure_http(true)).is_ok());
    let again = at("http://login.example.com/token").insecure_http(true).insecure_http(false);
    assert_refused(again, "token_url", "use https");
}

#[test]
fn a_token_url_with_more_than_an_address_in_it_is_refused_and_not_repeated() {
    assert_refused(at("https://example.com/token#x"), "token_url", "remove the #");
    assert_refused(at("https://example.com/token#"), "token_url", "remove the #");
    assert_refused(at("https://user:S3CR3T@example.com/token"), "token_url", "client_id and client_secret");
    assert_refused(at("/token"), "token_url", "give it whole");
    assert_refused(at("example.com"), "token_url", "give it whole");
    assert_refused(at(""), "token_url", "give it whole");
    assert_refused(at("https://exa mple.com/"), "token_url", "give it whole");
    assert_refused(at("ftp://example.com/token"), "token_url", "https://");
    assert_refused(at("https://example.com:99999/token"), "token_url", "");
}

#[test]
fn the_client_must_have_a_name_and_a_secret_that_is_not_empty() {
    assert_refused(ClientCredentials::builder(URL, "", "s"), "client_id", "set the id");
    assert_refused(ClientCredentials::builder(URL, "", ClientAuth::none()), "client_id", "set the id");
    assert!(build(ClientCredentials::builder(URL, "billing", ClientAuth::none())).is_ok());
    for empty in ["", "\n", "\u{feff}\t"] {
        for auth in [ClientAuth::basic(empty), ClientAuth::basic_raw(empty), ClientAuth::post(empty)] {
            let builder = ClientCredentials::builder(URL, "public", auth);
            assert_refused(builder, "client_secret", "ClientAuth::none");
        }
    }
    let raw = ClientCredentials::builder(URL, "my:client", ClientAuth::basic_raw("s"));
    assert_refused(raw, "client_id", "colon");
    assert!(build(ClientCredentials::builder(URL, "my:client", "s")).is_ok());
}

#[test]
fn a_scope_holds_visible_ascii_without_quotes_and_backslashes() {
    for scope in ["re\"ad", "a\\b", "é", "a\tb", "a\nb", "\u{7f}"] {
        assert_refused(billing().scope(scope), "scope", "no scope may hold");
        assert_refused(billing().required_scope(scope), "required_scope", "no scope may hold");
    }
    assert!(build(billing().scope("https://api.example.com/.default openid")).is_ok());
}

#[test]
fn a_resource_is_an_absolute_uri_without_a_fragment() {
    assert_refused(billing().resource("/x"), "resource", "begin with the scheme");
    assert_refused(billing().resource("example.com"), "resource", "begin with the scheme");
    assert_refused(billing().resource("https://"), "resource", "begin with the scheme");
    assert_refused(billing().resource("1a:b"), "resource", "begin with the scheme");
    assert_refused(billing().resource("https://a/#f"), "resource", "remove the #");
    assert_refused(billing().resource("https://a/ b"), "resource", "percent-encode");
    for resource in ["https://a/?x=1", "urn:example:api", "https://cal.example.com/"] {
        assert!(build(billing().resource(resource)).is_ok(), "{resource}");
    }
}

#[test]
fn a_second_client_authentication_is_refused() {
    for name in ["client_secret", "client_assertion", "client_assertion_type"] {
        assert_refused(billing().param(name, "x"), "param", "authenticates in one way");
        let by_form = ClientCredentials::builder(URL, "billing", ClientAuth::post("S3CR3T"));
        assert_refused(by_form.secret_param(name, "x"), "param", "authenticates in one way");
    }
}

#[test]
fn a_parameter_that_has_a_setter_or_stands_twice_is_refused() {
    assert_refused(billing().param("grant_type", "password"), "param", "the source of that grant");
    assert_refused(billing().param("client_id", "x"), "param", "to the builder");
    assert_refused(billing().param("scope", "x"), "param", "use scope()");
    assert_refused(billing().param("audience", "x"), "param", "use audience()");
    assert_refused(billing().param("resource", "x"), "param", "use resource()");
    assert_refused(billing().param("", "x"), "param", "name it");
    assert_refused(billing().param("a", "x").secret_param("a", "y"), "param", "set it once");
}

#[test]
fn what_a_source_sends_by_itself_is_not_sent_twice() {
    let transport = || {
        service_fn(|_request: http::Request<crate::body::Body>| async {
            Ok::<_, BoxError>(http::Response::new(Full::new(Bytes::new())))
        })
    };
    let refreshing = |name: &str| {
        let builder =
            RefreshTokenGrant::builder(URL, "billing", "S3CR3T").refresh_token("RT1").param(name, "S3CR3T");
        builder.build_with(transport()).map(drop)
    };
    let revoking = |name: &str| {
        let builder = Revocation::builder(URL, "billing", "S3CR3T").param(name, "S3CR3T");
        builder.build_with(transport()).map(drop)
    };
    for (built, name, remedy) in [
        (refreshing("refresh_token"), "refresh_token", "give it to the builder, or to replace()"),
        (refreshing("grant_type"), "grant_type", "the source of that grant"),
        (revoking("token"), "token", "each revocation sends its own"),
        (revoking("token_type_hint"), "token_type_hint", "each revocation sends its own"),
    ] {
        let error = built.unwrap_err();
        let text = error.to_string();
        assert!(error.is_config() && text.starts_with(&format!("param: {name:?} is refused")), "{text}");
        assert!(text.contains(remedy) && !text.contains("S3CR3T"), "{text}");
    }
}

#[test]
fn patience_that_makes_no_sense_is_refused() {
    assert_refused(billing().attempt_timeout(Duration::ZERO), "attempt_timeout", "give it time");
    assert_refused(billing().min_delay(Duration::from_secs(11)), "min_delay", "lower the other");
    assert!(build(billing().retries(0).min_delay(Duration::ZERO).max_delay(Duration::ZERO)).is_ok());
}

#[test]
fn debug_of_builder_and_source_shows_no_secret() {
    let builder = at("https://example.com/S3CR3T?key=S3CR3T")
        .param("org", "S3CR3T")
        .secret_param("pin", "S3CR3T")
        .scope("a")
        .classifier(|_| None);
    let shown = format!("{builder:?} {builder:#?}");
    assert!(shown.contains("billing") && !shown.contains("S3CR3T"), "{shown}");
    let source = build(builder).unwrap();
    let shown = format!("{source:?} {source:#?}");
    assert!(shown.contains("https://example.com") && !shown.contains("S3CR3T"), "{shown}");
}
