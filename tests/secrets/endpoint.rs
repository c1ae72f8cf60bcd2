//! A token endpoint that gives every secret back: in its errors, its headers, its scopes, at once and later.

use std::time::Duration;

use tower_oauth2::cache::TokenCacheBuilder;
use tower_oauth2::grants::{GrantBuilder, Revocation};
use tower_oauth2::{
    AccessToken, ClientAuth, ClientCredentials, Error, ErrorKind, RefreshTokenGrant, Secret, TokenCache,
    TokenRevoker as _, source_fn,
};

use crate::server::{Says, Server};
use crate::trail::{Trail, listen_for_panics, panics};
use crate::words::{self, CLIENT_ID, CLIENT_SECRET, JWT, OPAQUE, PIN, REFRESH, SESSION, echoes, planted};

/// Runs a flow on one thread, where other crates log too, and on several, where a task logs if it inherits.
fn on_each_runtime<F: Future<Output = ()>>(flow: impl Fn() -> F) {
    for mut runtime in
        [tokio::runtime::Builder::new_current_thread(), tokio::runtime::Builder::new_multi_thread()]
    {
        runtime.worker_threads(2).enable_all().build().unwrap().block_on(flow());
    }
}

fn asking(server: &Server) -> GrantBuilder<ClientCredentials> {
    with_auth(server, CLIENT_SECRET)
}

fn with_auth(server: &Server, auth: impl Into<ClientAuth>) -> GrantBuilder<ClientCredentials> {
    ClientCredentials::builder(format!("{}/token?key=K3y-0f-the-URL-92", server.origin), CLIENT_ID, auth)
        .scope("read")
        .secret_param("pin", PIN)
        .retries(0)
        .attempt_timeout(Duration::from_secs(5))
}

fn cached(builder: GrantBuilder<ClientCredentials>) -> (TokenCache, ClientCredentials) {
    let source = builder.build().unwrap();
    (TokenCache::new(source.clone()), source)
}

/// Looks at all that a cache can show.
fn look(trail: &Trail, cache: &TokenCache) {
    trail.debug("cache", cache);
    trail.debug("status", &cache.status());
    trail.debug("watch", &cache.watch());
    trail.debug("token", &cache.peek());
    if let Some(error) = cache.status().last_error() {
        trail.error("last error", error);
    }
}

async fn failed(trail: &Trail, builder: GrantBuilder<ClientCredentials>) -> Error {
    #[cfg(feature = "reqwest")]
    {
        let client = tower_oauth2::transport::ReqwestClient::build(|builder| builder).unwrap();
        trail.debug("a client of reqwest's make", &client);
        let cache = TokenCache::new(builder.clone().build_with(client).unwrap());
        trail.error("the error by way of reqwest", &cache.get().await.unwrap_err());
        look(trail, &cache);
    }
    let (cache, source) = cached(builder);
    let mut watch = cache.watch();
    let error = cache.get().await.unwrap_err();
    trail.error("the error of a cache", &error);
    trail.debug("source", &source);
    trail.debug("a change", &watch.next().await);
    look(trail, &cache);
    error
}

/// All places of one answer that are read, with this text in each.
fn answers(echo: &str) -> Vec<Says> {
    let quoted = serde_json::Value::from(echo).to_string();
    let code = serde_json::Value::from(echo.replace(['"', '\\'], "").replace(|c: char| !c.is_ascii(), ""));
    let tokens = format!(
        r#""access_token":"{OPAQUE}","id_token":"{JWT}","refresh_token":"{REFRESH}","session_token":"{SESSION}""#
    );
    let everywhere = format!(
        r#"{{"error":{code},"error_description":{quoted},"error_uri":{quoted},"scope":{quoted},{tokens}}}"#
    );
    vec![
        Says::reply(400, &everywhere)
            .header("www-authenticate", format!("Bearer error=\"{echo}\", realm=\"{echo}\""))
            .header("x-echo", echo)
            .header("content-type", echo),
        Says::reply(401, &everywhere).header("www-authenticate", format!("Basic {echo}")),
        Says::reply(200, everywhere),
        Says::reply(200, format!(r#"{{"token_type":{quoted},{tokens}}}"#)),
        Says::reply(500, format!("<html><title>{echo}</title>{echo}</html>")).header("retry-after", echo),
        Says::reply(
            400,
            form_of(&[
                ("error", echo),
                ("error_description", echo),
                ("access_token", OPAQUE),
                ("id_token", JWT),
                ("refresh_token", REFRESH),
                ("session_token", SESSION),
            ]),
        ),
    ]
}

fn form_of(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{name}={}", words::form(value))).collect();
    pairs.join("&")
}

/// The same for what the client has sent or had: no member of the answer names it.
fn answers_that_name_nothing(echo: &str) -> Vec<Says> {
    vec![
        Says::reply(403, format!("{echo} is wrong")).header("content-type", format!("text/{echo}")),
        Says::reply(
            429,
            format!(r#"{{"error":"slow_down","error_description":{}}}"#, serde_json::Value::from(echo)),
        )
        .header("retry-after", "7"),
        Says::reply(200, "").header("content-encoding", echo),
        Says::reply(307, "").header("location", format!("https://{}.example.com/", echo.replace('_', "-"))),
        Says::reply(302, "").header("location", format!("https://x.example.com/?{echo}")),
    ]
}

#[test]
fn what_an_endpoint_echoes_at_once_is_not_shown() {
    on_each_runtime(|| async {
        let server = Server::start(Says::Nothing);
        for secret in planted() {
            let trail = Trail::begin();
            let sent = [CLIENT_SECRET, PIN].contains(&secret);
            let mut seen = String::new();
            for echo in echoes(secret) {
                let more = if sent { answers_that_name_nothing(&echo) } else { Vec::new() };
                for says in answers(&echo).into_iter().chain(more) {
                    server.say(says);
                    seen += &failed(&trail, asking(&server)).await.to_string();
                }
            }
            assert!(seen.contains("[redacted]") && seen.contains("slow_down") == sent, "{seen}");
            trail.assert_clean();
            assert!(
                trail.log().contains("the token endpoint responded"),
                "the flight inherits the subscriber"
            );
        }
    });
}

#[test]
fn a_mirror_of_the_request_is_not_shown() {
    on_each_runtime(|| async {
        let trail = Trail::begin();
        let server = Server::start(Says::Nothing);
        for auth in [ClientAuth::basic, ClientAuth::basic_raw, ClientAuth::post] {
            for status in [400, 401, 403, 429, 503] {
                server.say(Says::Mirror { status });
                let error = failed(&trail, with_auth(&server, auth(CLIENT_SECRET))).await;
                assert_eq!(error.code(), Some("mirror"));
                assert!(error.description().unwrap().contains("[redacted]"), "{error}");
            }
        }
        trail.assert_clean();
    });
}

#[test]
fn what_came_with_an_earlier_token_is_not_shown_later() {
    on_each_runtime(|| async {
        let server = Server::start(Says::Nothing);
        for token in [OPAQUE, JWT] {
            let trail = Trail::begin();
            server.say(Says::token(token));
            let (cache, _) = cached(asking(&server));
            cache.get().await.unwrap();
            look(&trail, &cache);
            let mut errors = String::new();
            for secret in [CLIENT_SECRET, PIN, token, REFRESH, SESSION] {
                for echo in echoes(secret) {
                    let quoted = serde_json::Value::from(echo);
                    server.say(Says::reply(
                        400,
                        format!(
                            r#"{{"error":"invalid_grant","error_description":{quoted},"error_uri":{quoted}}}"#
                        ),
                    ));
                    let error = cache.refresh().await.unwrap_err();
                    trail.error("a later error", &error);
                    look(&trail, &cache);
                    errors += &error.to_string();
                }
            }
            // The token that was had is in use all along.
            assert_eq!(cache.peek().unwrap().header_value(), &format!("Bearer {token}"));
            assert!(errors.contains("invalid_grant ([redacted])"), "{errors}");
            trail.assert_clean();
        }
    });
}

#[test]
fn what_an_earlier_attempt_brought_is_not_shown_by_the_next() {
    on_each_runtime(|| async {
        let trail = Trail::begin();
        let server = Server::start(Says::reply(
            503,
            format!(r#"{{"error":"later","refresh_token":"{REFRESH}","access_token":"{JWT}"}}"#),
        ));
        let (cache, _) = cached(asking(&server).retries(1).min_delay(Duration::from_millis(300)));
        let fetch = async { cache.get().await.unwrap_err() };
        let then = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let text = format!("{JWT} {REFRESH} of {CLIENT_SECRET}");
            server.say(Says::reply(
                400,
                serde_json::json!({"error": "odd", "error_description": text}).to_string(),
            ));
        };
        let (error, ()) = tokio::join!(fetch, then);
        assert_eq!(error.description(), Some("[redacted] [redacted] of [redacted]"));
        trail.error("the second attempt", &error);
        trail.assert_clean();
    });
}

#[test]
fn a_scope_that_is_an_echo_is_not_shown_with_the_token() {
    on_each_runtime(|| async {
        let trail = Trail::begin();
        let server = Server::start(Says::Nothing);
        for secret in [CLIENT_SECRET, PIN, OPAQUE, REFRESH] {
            for echo in echoes(secret) {
                let answer = serde_json::json!({
                    "access_token": OPAQUE, "refresh_token": REFRESH, "scope": format!("read {echo} write"),
                });
                server.say(Says::reply(200, answer.to_string()));
                let (cache, _) = cached(asking(&server).required_scope("write"));
                let token = cache.get().await.unwrap();
                let scopes = token.scopes().unwrap();
                assert!(scopes.contains(&"read".to_owned()) && scopes.contains(&"write".to_owned()));
                trail.debug("a token with scopes", &token);
                look(&trail, &cache);
            }
        }
        trail.assert_clean();
    });
}

#[test]
fn secrets_from_a_file_and_from_a_closure_are_not_shown() {
    on_each_runtime(|| async {
        let trail = Trail::begin();
        let server = Server::start(Says::Mirror { status: 401 });
        let path = std::env::temp_dir().join(format!("tower-oauth2-secrets-{}", std::process::id()));
        std::fs::write(&path, format!("{CLIENT_SECRET}\n")).unwrap();
        let vault = || Secret::from_fn(|| async { Ok(CLIENT_SECRET) });
        for secret in [Secret::from_file(&path), vault()] {
            for auth in [ClientAuth::basic, ClientAuth::basic_raw, ClientAuth::post] {
                trail.debug("secret", &secret);
                let builder = with_auth(&server, auth(secret.clone()));
                trail.debug("builder", &builder);
                let error = failed(&trail, builder).await;
                assert!(error.description().unwrap().contains("[redacted]"), "{error}");
            }
        }
        std::fs::remove_file(&path).unwrap();
        trail.assert_clean();
    });
}

/// A test cannot set a variable of its own process, so it starts itself again.
#[test]
fn a_secret_from_the_environment_is_not_shown() {
    const VARIABLE: &str = "TOWER_OAUTH2_TEST_PLANTED";
    if std::env::var_os(VARIABLE).is_none() {
        let again = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "endpoint::a_secret_from_the_environment_is_not_shown", "--nocapture"])
            .env(VARIABLE, CLIENT_SECRET)
            .output()
            .unwrap();
        let said =
            String::from_utf8_lossy(&again.stdout).into_owned() + &String::from_utf8_lossy(&again.stderr);
        assert!(again.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    on_each_runtime(|| async {
        let trail = Trail::begin();
        let server = Server::start(Says::Mirror { status: 400 });
        for auth in [ClientAuth::basic, ClientAuth::post] {
            let auth = auth(Secret::from_env(VARIABLE));
            let error = failed(&trail, with_auth(&server, auth)).await;
            assert!(error.description().unwrap().contains("[redacted]"), "{error}");
        }
        trail.assert_clean();
    });
}

#[test]
fn an_endpoint_that_hangs_or_is_not_there_shows_nothing() {
    on_each_runtime(|| async {
        let trail = Trail::begin();
        let server = Server::start(Says::Nothing);
        let hanging = asking(&server).attempt_timeout(Duration::from_millis(50));
        assert_eq!(failed(&trail, hanging.clone()).await.kind(), ErrorKind::Transient);

        let slow: TokenCacheBuilder = TokenCache::builder(asking(&server).build().unwrap());
        let slow = slow.fetch_timeout(Duration::from_millis(50));
        trail.debug("cache builder", &slow);
        let slow = slow.build();
        trail.error("a flight out of time", &slow.get().await.unwrap_err());
        look(&trail, &slow);

        let nowhere =
            ClientCredentials::builder("http://127.0.0.1:1/token", CLIENT_ID, CLIENT_SECRET).retries(0);
        assert_eq!(failed(&trail, nowhere).await.kind(), ErrorKind::Transient);
        trail.assert_clean();
    });
}

#[test]
fn a_source_that_panics_with_secrets_in_its_hands_shows_nothing() {
    listen_for_panics();
    on_each_runtime(|| async {
        let trail = Trail::begin();
        let held = (CLIENT_SECRET.to_owned(), AccessToken::bearer(JWT).unwrap());
        let cache = TokenCache::new(source_fn(move |request: tower_oauth2::TokenRequest| {
            let held = held.clone();
            async move {
                let count = held.0.len();
                tracing::debug!(?request, "about to fail");
                if count > 0 {
                    panic!("the vault of {count} fell over");
                }
                Ok(held.1)
            }
        }));
        let error = cache.get().await.unwrap_err();
        trail.error("a panic", &error);
        look(&trail, &cache);
        let messages = panics("the vault of");
        assert!(!messages.is_empty());
        trail.note("the message of a panic", messages.concat());
        assert!(
            !error.to_string().contains("fell over"),
            "what a source says in a panic stays out of errors"
        );
        trail.assert_clean();
    });
}

/// A transport whose errors show the whole URL, as those of other clients do.
#[tokio::test]
async fn a_key_in_the_token_url_is_not_shown() {
    let trail = Trail::begin();
    let talkative = tower::service_fn(|request: http::Request<tower_oauth2::Body>| async move {
        Err::<http::Response<http_body_util::Full<bytes::Bytes>>, _>(format!(
            "cannot send to {}",
            request.uri()
        ))
    });
    for place in ["token?api_key=K3y-0f-the-URL-92&v=2", "token?K3y-0f-the-URL-92", "K3y-0f-the-URL-92/token"]
    {
        let url = format!("https://login.example.com/{place}");
        let builder = ClientCredentials::builder(&url, CLIENT_ID, CLIENT_SECRET).retries(0);
        let source = builder.build_with(talkative).unwrap();
        let error = TokenCache::new(source).get().await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap();
        assert_eq!(cause.to_string(), "cannot send to https://login.example.com");
        let chain = format!("{error} {error:?} {error:#?} {}", trail.log());
        assert!(chain.contains("cannot send to https://login.example.com"), "{chain}");
        assert!(!chain.contains("K3y-0f") && !chain.contains("/token"), "{chain}");
    }
}

#[test]
fn a_refresh_token_is_shown_neither_by_its_source_nor_by_its_revocation() {
    on_each_runtime(|| async {
        let server = Server::start(Says::Nothing);
        for echo in echoes(REFRESH) {
            let trail = Trail::begin();
            for says in answers(&echo).into_iter().chain(answers_that_name_nothing(&echo)) {
                server.say(says);
                let builder =
                    RefreshTokenGrant::builder(format!("{}/token", server.origin), CLIENT_ID, CLIENT_SECRET)
                        .refresh_token(REFRESH);
                trail.debug("builder", &builder);
                let source = builder.retries(0).build().unwrap();
                let cache = TokenCache::new(source.clone());
                trail.error("the error of a cache", &cache.get().await.unwrap_err());
                trail.debug("source", &source);
                look(&trail, &cache);

                let url = format!("{}/revoke", server.origin);
                let revocation =
                    Revocation::builder(url, CLIENT_ID, CLIENT_SECRET).retries(0).build().unwrap();
                let token = AccessToken::bearer(OPAQUE).unwrap().with_refresh_token(REFRESH);
                if let Err(error) = revocation.revoke(token).await {
                    trail.error("the error of a revocation", &error);
                }
                trail.debug("revocation", &revocation);
            }
            trail.assert_clean();
        }
    });
}
