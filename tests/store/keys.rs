//! Which sources share a token: those that would get the same one, and no others.

use std::collections::HashMap;

use proptest::prelude::*;
use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm, SelfSigned};
use tower_oauth2::grants::{
    CustomGrant, Grant, GrantBuilder, Issuer, JwtBearer, SecurityToken, TokenExchange, TokenType,
};
use tower_oauth2::store::{MemoryStore, SealingKey, Shared};
use tower_oauth2::{
    ClientAuth, ClientCredentials, Error, ErrorKind, RefreshTokenGrant, Secret, SourceIdentity, TokenCache,
    TokenSource, source_fn,
};

use crate::{ScriptedSource, sealing};

/// No request is sent by these tests.
fn nowhere() -> impl tower_oauth2::transport::HttpTransport {
    tower::service_fn(|_request: http::Request<tower_oauth2::Body>| async {
        Err::<http::Response<tower_oauth2::Body>, tower::BoxError>("nothing is sent here".into())
    })
}

fn built<G: Grant>(builder: GrantBuilder<G>) -> G {
    builder.build_with(nowhere()).unwrap()
}

fn key_of(source: impl TokenSource, principal: &str) -> Result<String, Error> {
    let shared = Shared::builder(source, MemoryStore::new(), sealing()).principal(principal).build()?;
    Ok(shared.key().as_str().to_owned())
}

fn key(source: impl TokenSource) -> String {
    key_of(source, "ada").unwrap()
}

const URL: &str = "https://login.test/token";

/// All that is set of a client credentials source, as text that a test can change.
#[derive(Clone, Debug, PartialEq)]
struct Settings {
    fields: Vec<String>,
}

const FIELDS: usize = 14;

impl Settings {
    fn key(&self) -> String {
        let field = |at: usize| self.fields[at].clone();
        let mut builder = ClientCredentials::builder(
            format!("https://login.test/{}", field(0)),
            format!("client{}", field(1)),
            "secret",
        )
        .scope(format!("s{}", field(2)))
        .required_scope(format!("s{}", field(3)))
        .audience(format!("a{}", field(4)))
        .audience(format!("a{}", field(5)))
        .resource(format!("https://api.test/{}", field(6)))
        .resource(format!("https://api.test/{}", field(7)))
        .param("org", format!("o{}", field(8)))
        .param(format!("p{}", field(9)), "x")
        .secret_param("pin", format!("p{}", field(10)))
        .issuer(format!("https://login.test/{}", field(11)))
        .token_type(format!("t{}", field(12)));
        // What changes no token changes no key.
        builder = builder.retries(2).second_attempt_after(None);
        key_of(built(builder), &field(13)).unwrap()
    }
}

fn settings() -> impl Strategy<Value = Settings> {
    prop::collection::vec("[ab]{1,2}", FIELDS).prop_map(|fields| Settings { fields })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_one_setting_that_differs_is_another_key(settings in settings(), at in 0..FIELDS) {
        let mut other = settings.clone();
        other.fields[at].push('b');
        prop_assert_eq!(settings.key(), settings.clone().key());
        prop_assert_ne!(settings.key(), other.key());
    }

    #[test]
    fn two_sources_share_if_all_their_settings_are_the_same(one in settings(), other in settings()) {
        prop_assert_eq!(one.key() == other.key(), one == other);
    }
}

/// Sources that could get other tokens than all the others here.
fn different() -> Vec<(&'static str, String)> {
    let client = || ClientCredentials::builder(URL, "billing", "secret");
    let subject = || SecurityToken::new("of-ada", TokenType::JWT);
    let exchange = || TokenExchange::builder(URL, subject());
    let signing = || Assertion::by_key(JwtAlgorithm::Es256, Secret::from_file("/run/secrets/key.pem"));
    let assertion = || signing().issuer("robot").audience(URL);
    let bearer = |assertion: Assertion| key(built(JwtBearer::builder(URL, assertion)));
    let by_issuer = |issuer: Issuer| key(built(ClientCredentials::builder(issuer, "billing", "secret")));
    let login = "https://login.test";
    vec![
        ("client credentials", key(built(client()))),
        (
            "another client authentication",
            key(built(ClientCredentials::builder(URL, "billing", ClientAuth::post("secret")))),
        ),
        ("a query", key(built(ClientCredentials::builder(format!("{URL}?tenant=1"), "billing", "secret")))),
        ("strict", key(built(client().strict_bearer(true)))),
        ("another member", key(built(client().response_member("access_token", "id_token")))),
        ("by issuer", by_issuer(Issuer::new(login))),
        ("by metadata", by_issuer(Issuer::new(login).metadata_url("https://login.test/m"))),
        ("by certificate", by_issuer(Issuer::new(login).mtls_aliases(true))),
        ("refresh token", key(built(RefreshTokenGrant::builder(URL, "billing", "secret")))),
        ("custom", key(built(CustomGrant::builder(URL, "client_credentials").client("billing", "secret")))),
        ("json", key(built(CustomGrant::json(URL).param("role", "a")))),
        ("json of another type", key(built(CustomGrant::json(URL).param_json("role", "\"a\"")))),
        ("get", key(built(CustomGrant::get(URL).param("role", "a")))),
        ("header", key(built(CustomGrant::get(URL).param("role", "a").header("x", "1")))),
        ("secret header", key(built(CustomGrant::get(URL).param("role", "a").secret_header("x", "2")))),
        ("authorized", key(built(CustomGrant::get(URL).param("role", "a").authorized_by(built(client()))))),
        ("exchange", key(built(exchange()))),
        (
            "another subject",
            key(built(TokenExchange::builder(URL, SecurityToken::new("of-bob", TokenType::JWT)))),
        ),
        (
            "another type",
            key(built(TokenExchange::builder(URL, SecurityToken::new("of-ada", TokenType::ID_TOKEN)))),
        ),
        ("an actor", key(built(exchange().actor(subject())))),
        ("a type asked for", key(built(exchange().requested_token_type(TokenType::ID_TOKEN)))),
        (
            "a subject by a source",
            key(built(TokenExchange::builder(URL, SecurityToken::new(built(client()), TokenType::JWT)))),
        ),
        ("bearer", bearer(assertion())),
        ("another iss", bearer(assertion().issuer("other"))),
        ("another sub", bearer(assertion().subject("user@example.com"))),
        ("another aud", bearer(assertion().audience("https://other.test"))),
        ("the URL as aud", bearer(assertion().token_url_as_audience(true))),
        ("a claim", bearer(assertion().claim("scope", "a"))),
        ("another claim", bearer(assertion().claim("scope", "b"))),
        ("a header of it", bearer(assertion().header("scope", "a"))),
        ("no sub", key(SelfSigned::new(assertion().without_subject()).unwrap())),
        ("by itself", key(SelfSigned::new(assertion()).unwrap())),
        ("one or another", key(built(client()).or(built(exchange())))),
        ("another or one", key(built(exchange()).or(built(client())))),
        ("static", key(tower_oauth2::AccessToken::bearer("a").unwrap())),
        ("of a user's own", key(Described("a"))),
    ]
}

#[test]
fn sources_that_differ_have_keys_that_differ() {
    let all = different();
    assert_eq!(all.len(), 36);
    let mut known = HashMap::new();
    for (name, key) in &all {
        assert_eq!(key.len(), 64, "{name}");
        if let Some(other) = known.insert(key, name) {
            panic!("{name} and {other} have one key");
        }
    }
    // And they have them in every process.
    assert_eq!(different(), all);
}

#[test]
fn what_stands_around_a_source_changes_nothing() {
    let source = || built(ClientCredentials::builder(URL, "billing", "secret"));
    let plain = key(source());
    assert_eq!(key(std::sync::Arc::new(source())), plain);
    assert_eq!(key(TokenCache::new(source()).as_source()), plain);
    // A client secret is rotated, and the tokens are the same.
    assert_eq!(key(built(ClientCredentials::builder(URL, "billing", Secret::from_env("SECRET")))), plain);
    let other =
        Shared::builder(source(), MemoryStore::new(), SealingKey::new([9; 32])).principal("ada").build();
    assert_ne!(other.unwrap().key().as_str(), plain, "without the sealing key a name cannot be guessed");
}

#[test]
fn what_is_not_known_before_a_fetch_needs_a_name() {
    let read = || Secret::from_file("/run/secrets/secret_id");
    let login = || built(RefreshTokenGrant::builder(URL, "billing", "secret").secret_param("pin", read()));
    let closure = || source_fn(|_request| async { tower_oauth2::AccessToken::bearer("a") });
    let unknown: Vec<(&str, Result<String, Error>)> = vec![
        ("a closure", key_of(closure(), "ada")),
        ("a source of a user's own", key_of(ScriptedSource::new(), "ada")),
        ("a parameter", key_of(built(CustomGrant::json(URL).secret_param("secret_id", read())), "ada")),
        ("a header", key_of(built(CustomGrant::get(URL).secret_header("x", read())), "ada")),
        (
            "a subject",
            key_of(built(TokenExchange::builder(URL, SecurityToken::new(read(), TokenType::JWT))), "ada"),
        ),
        (
            "a subject by a closure",
            key_of(built(TokenExchange::builder(URL, SecurityToken::new(closure(), TokenType::JWT))), "ada"),
        ),
        (
            "the user of a login",
            key_of(
                built(TokenExchange::builder(
                    URL,
                    SecurityToken::new(built(RefreshTokenGrant::builder(URL, "a", "b")), TokenType::JWT),
                )),
                "ada",
            ),
        ),
        (
            "an issuer in a key file",
            key_of(
                built(JwtBearer::builder(URL, Assertion::by_key(JwtAlgorithm::Rs256, read()).audience(URL))),
                "ada",
            ),
        ),
        ("a login with a parameter", key_of(login(), "ada")),
        (
            "a login or a closure",
            key_of(built(RefreshTokenGrant::builder(URL, "a", "b")).or(closure()), "ada"),
        ),
    ];
    assert_eq!(unknown.len(), 10);
    for (name, key) in unknown {
        let error = key.expect_err(name);
        assert!(
            error.kind() == ErrorKind::Config && error.to_string().starts_with("key: "),
            "{name}: {error}"
        );
    }
}

struct Described(&'static str);

impl TokenSource for Described {
    async fn token(&self, _request: tower_oauth2::TokenRequest) -> Result<tower_oauth2::AccessToken, Error> {
        tower_oauth2::AccessToken::bearer("a")
    }

    fn identity(&self) -> Option<SourceIdentity> {
        Some(SourceIdentity::new("described").with("what", self.0))
    }
}
