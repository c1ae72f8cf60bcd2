//! An endpoint that gives every secret back, in every form and every place: none of it may be shown.

use std::error::Error as StdError;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use tower_oauth2::grants::GrantBuilder;
use tower_oauth2::{ClientAuth, ClientCredentials, Error};

use crate::log::Log;
use crate::scripted::{Scripted, Step, answer, answer_with};

const SECRET: &str = "S3cr&t /+x%y";
const PIN: &str = "p1n+p1n p1n";
const ISSUED: &str = "TOK3N-issued-0123";
const REFRESH: &str = "R3FR3SH-issued-0123";

fn form(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Every form in which a server may give a secret back.
fn forms(secret: &str) -> Vec<String> {
    vec![
        secret.to_owned(),
        form(secret),
        form(secret).replace('+', "%20"),
        form(secret).to_lowercase(),
        STANDARD.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
    ]
}

fn needles() -> Vec<String> {
    [ISSUED, REFRESH].into_iter().flat_map(forms).chain(sent()).collect()
}

/// What the request carries.
fn sent() -> Vec<String> {
    let basic = STANDARD.encode(format!("billing:{}", form(SECRET)));
    let raw = STANDARD.encode(format!("billing:{SECRET}"));
    [SECRET, PIN].into_iter().flat_map(forms).chain([basic, raw]).collect()
}

fn assert_clean(text: &str, place: &str) {
    let lower = text.to_lowercase();
    for needle in needles() {
        assert!(!lower.contains(&needle.to_lowercase()), "{place} shows {needle}: {text}");
    }
}

/// Everything that can be asked of an error.
fn shown(error: &Error) -> String {
    let mut all = format!("{error} {error:?} {error:#?}");
    write!(all, " {:?} {:?} {:?}", error.code(), error.description(), error.uri()).unwrap();
    let mut source = error.source();
    while let Some(error) = source {
        write!(all, " {error} {error:?} {error:#?}").unwrap();
        source = error.source();
    }
    all
}

fn traced() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    (log, tracing::subscriber::set_default(subscriber))
}

fn builder() -> GrantBuilder<ClientCredentials> {
    by(SECRET.into())
}

fn by(auth: ClientAuth) -> GrantBuilder<ClientCredentials> {
    ClientCredentials::builder("https://login.example.com/S3cr3t-path?key=S3cr3t-query", "billing", auth)
        .secret_param("pin", PIN)
}

fn echoes() -> Vec<Step> {
    let (mut steps, sent) = (Vec::new(), sent());
    for needle in needles() {
        let quoted = serde_json::Value::from(needle.as_str()).to_string();
        let code = serde_json::Value::from(needle.replace(['"', '\\'], "")).to_string();
        let tokens = format!(r#""access_token":"{ISSUED}","refresh_token":"{REFRESH}""#);
        for status in [200, 400, 401, 429, 503] {
            steps.push(answer(
                status,
                &format!(r#"{{"error":{code},"error_description":{quoted},"error_uri":{quoted},{tokens}}}"#),
            ));
        }
        steps.push(answer(400, &format!(r#"{{"error":"odd","description":{quoted},{tokens}}}"#)));
        steps.push(answer(200, &format!(r#"{{"token_type":{quoted},{tokens}}}"#)));
        steps.push(answer_with(200, &[("content-type", "text/html")], &format!("<p>{needle}</p>")));
        // What was not sent cannot be known where no member names it.
        if !sent.contains(&needle) {
            continue;
        }
        steps.push(answer_with(400, &[("content-type", &format!("text/{needle}"))], &needle));
        steps.push(answer_with(200, &[("content-encoding", &needle)], ""));
        steps.push(answer_with(307, &[("location", &format!("https://{needle}.example.com/{needle}"))], ""));
        steps.push(answer_with(307, &[("location", &format!("https://x.example.com/?{needle}"))], ""));
        steps.push(Step::Fail(Box::new(Nested(needle.clone(), Some(Box::new(Nested(needle, None)))))));
    }
    steps
}

/// An error that shows its text at each step of its chain.
#[derive(Debug)]
struct Nested(String, Option<Box<Nested>>);

impl std::fmt::Display for Nested {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sent {}", self.0)
    }
}

impl StdError for Nested {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.1.as_deref().map(|inner| inner as _)
    }
}

#[tokio::test(start_paused = true)]
async fn no_error_and_no_log_shows_what_the_endpoint_gives_back() {
    let (log, _guard) = traced();
    let mut count = 0;
    for auth in [ClientAuth::basic(SECRET), ClientAuth::basic_raw(SECRET), ClientAuth::post(SECRET)] {
        for step in echoes() {
            let endpoint = Scripted::new([step]);
            let error = endpoint.ask(by(auth.clone()).retries(0)).await.unwrap_err();
            assert_clean(&shown(&error), "an error");
            count += 1;
        }
    }
    assert!(count > 500, "{count}");
    assert_clean(&log.text(), "the log");
    assert!(log.text().contains("https://login.example.com"), "events name the origin");
    for part in ["S3cr3t-path", "S3cr3t-query"] {
        assert!(!log.text().contains(part), "{part}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_and_its_source_show_nothing_either() {
    let (log, _guard) = traced();
    let issued =
        format!(r#"{{"access_token":"{ISSUED}|","refresh_token":"{REFRESH}","id_token":"{ISSUED}"}}"#);
    let endpoint = Scripted::new([answer(503, ""), answer(200, &issued)]);
    let source = builder().build_with(endpoint).unwrap();
    let token = crate::scripted::fetch(&source).await.unwrap();
    assert_clean(&format!("{token:?} {token:#?} {source:?} {source:#?} {:?}", builder()), "Debug");
    assert_clean(&log.text(), "the log");
    assert!(log.text().contains("sent again") && log.text().contains("b64token"), "{}", log.text());
}

#[test]
fn the_search_finds_what_is_there() {
    for needle in needles() {
        let found = std::panic::catch_unwind(|| assert_clean(&format!("<{needle}>"), "a control"));
        assert!(found.is_err(), "{needle}");
    }
}
