//! An issuer in place of a URL: what is asked where, what its answer is good for, and what becomes of it later.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::time::{Instant, sleep};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, service_fn};
use tower_oauth2::grants::{GrantBuilder, Issuer, Revocation};
use tower_oauth2::{
    AccessToken, ClientAuth, ClientCredentials, Error, ErrorKind, FetchReason, RefreshTokenGrant,
    TokenRequest, TokenRevoker as _, TokenSource,
};

use crate::log::Log;
use crate::scripted::{TOKEN, response};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const ISSUER: &str = "https://login.example.com";
const OAUTH: &str = "https://login.example.com/.well-known/oauth-authorization-server";
const OIDC: &str = "https://login.example.com/.well-known/openid-configuration";
const SECRET: &str = "hunter2-hunter2";

type Body = UnsyncBoxBody<Bytes, BoxError>;
type Answer = BoxFuture<'static, Result<Response<Body>, BoxError>>;
type Answers = Box<dyn FnMut(&str) -> Answer + Send>;

/// An authorization server: what it answers depends on the URL, and may change.
#[derive(Clone)]
struct Server {
    answers: Arc<Mutex<Answers>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

#[derive(Clone)]
struct Seen {
    /// The method and the URL.
    line: String,
    headers: HeaderMap,
    body: String,
}

impl Server {
    fn new(answers: impl FnMut(&str) -> Answer + Send + 'static) -> Self {
        Self { answers: Arc::new(Mutex::new(Box::new(answers))), seen: Arc::default() }
    }

    /// A server with this document at the place of RFC 8414, and tokens wherever else.
    fn with(document: &str) -> Self {
        let document = document.to_owned();
        Self::new(move |url| match url {
            OAUTH => at_once(200, &document),
            OIDC => at_once(404, ""),
            _ => at_once(200, TOKEN),
        })
    }

    fn then(&self, answers: impl FnMut(&str) -> Answer + Send + 'static) {
        *self.answers.lock().unwrap() = Box::new(answers);
    }

    fn transport(&self) -> BoxCloneSyncService<Request<tower_oauth2::Body>, Response<Body>, BoxError> {
        let server = self.clone();
        BoxCloneSyncService::new(service_fn(move |request: Request<tower_oauth2::Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = String::from_utf8(body.collect().await?.to_bytes().to_vec())?;
                let line = format!("{} {}", parts.method, parts.uri);
                server.seen.lock().unwrap().push(Seen { line, headers: parts.headers, body });
                let answer = (server.answers.lock().unwrap())(&parts.uri.to_string());
                answer.await
            }
        }))
    }

    fn source(&self, builder: GrantBuilder<ClientCredentials>) -> ClientCredentials {
        builder.build_with(self.transport()).unwrap()
    }

    async fn ask(&self, builder: GrantBuilder<ClientCredentials>) -> Result<AccessToken, Error> {
        fetch(&self.source(builder)).await
    }

    /// Returns method and URL of what arrived until now, and forgets it.
    fn lines(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap()).into_iter().map(|seen| seen.line).collect()
    }
}

async fn fetch(source: &impl TokenSource) -> Result<AccessToken, Error> {
    source.token(TokenRequest::new(FetchReason::Initial)).await
}

fn at_once(status: u16, body: &str) -> Answer {
    with_headers(status, &[("content-type", "application/json")], body)
}

fn with_headers(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
    std::future::ready(Ok(response(status, headers, body))).boxed()
}

fn failing(error: &str) -> Answer {
    let error = error.to_owned();
    async move { Err(error.into()) }.boxed()
}

/// A document of the issuer, with these members besides.
fn document(members: &str) -> String {
    format!(r#"{{"issuer":"{ISSUER}","token_endpoint":"https://api.example.com/token?tenant=7"{members}}}"#)
}

fn billing() -> GrantBuilder<ClientCredentials> {
    ClientCredentials::builder(Issuer::new(ISSUER), "billing", SECRET)
}

fn get(url: &str) -> String {
    format!("GET {url}")
}

const POST: &str = "POST https://api.example.com/token?tenant=7";

// --- What proves that there are no metadata ---

#[tokio::test(start_paused = true)]
async fn a_status_that_may_pass_or_a_page_of_a_gateway_is_no_end_of_a_discovery() {
    let pages: [fn() -> Answer; 9] = [
        || at_once(408, ""),
        || at_once(409, ""),
        || at_once(421, ""),
        || at_once(423, ""),
        || at_once(425, ""),
        || with_headers(403, &[("retry-after", "1")], "<html>Slow down</html>"),
        || with_headers(200, &[("content-type", "text/html")], "<html>Maintenance</html>"),
        || at_once(200, r#"{"message":"no healthy upstream"}"#),
        || at_once(200, ""),
    ];
    for (at, page) in pages.into_iter().enumerate() {
        let mut first = true;
        let server = Server::new(move |url| match url {
            OAUTH if std::mem::take(&mut first) => page(),
            OAUTH => at_once(200, &document("")),
            OIDC => at_once(404, ""),
            _ => at_once(200, TOKEN),
        });
        assert!(server.ask(billing()).await.is_ok(), "page {at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_not_there_is_passed_by_whatever_wait_it_asks_for() {
    let server = Server::new(|url| match url {
        OAUTH => with_headers(404, &[("retry-after", "120")], ""),
        OIDC => at_once(200, &document("")),
        _ => at_once(200, TOKEN),
    });
    server.ask(billing()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_is_hidden_by_a_gateway_makes_nobody_go_on_in_another_name() {
    for status in [401, 403, 404, 405, 410, 302] {
        let server = Server::new(move |_| at_once(status, "<html>Not here</html>"));
        let other = AccessToken::bearer("somebody-else").unwrap();
        let error = fetch(&server.source(billing()).or(other)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{status}: {error}");
    }
    // A document says it itself.
    let server = Server::with(r#"{"issuer":"https://other.example.com","token_endpoint":"https://a/"}"#);
    let other = AccessToken::bearer("somebody-else").unwrap();
    fetch(&server.source(billing()).or(other)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_place_that_hangs_hides_no_document_at_the_next_one() {
    let server = Server::new(|url| match url {
        OAUTH => pending().boxed(),
        OIDC => at_once(200, &document("")),
        _ => at_once(200, TOKEN),
    });
    server.ask(billing()).await.unwrap();
    assert_eq!(server.lines(), [get(OAUTH), get(OIDC), POST.into()]);
}

#[tokio::test(start_paused = true)]
async fn a_place_whose_connection_breaks_or_that_is_limited_hides_no_document_at_the_next_one() {
    let places: [fn() -> Answer; 3] = [
        || failing("connection reset"),
        || at_once(429, "<html>Blocked</html>"),
        || with_headers(403, &[("retry-after", "1")], ""),
    ];
    for place in places {
        let server = Server::new(move |url| match url {
            OAUTH => place(),
            OIDC => at_once(200, &document("")),
            _ => at_once(200, TOKEN),
        });
        server.ask(billing()).await.unwrap();
        assert_eq!(server.lines(), [get(OAUTH), get(OIDC), POST.into()]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_server_of_metadata_said_counts_for_more_than_that_the_time_is_over() {
    let mut first = true;
    let server = Server::new(move |_| match std::mem::take(&mut first) {
        true => with_headers(503, &[("retry-after", "1")], ""),
        false => pending().boxed(),
    });
    let deadline = (Instant::now() + 8 * SECOND).into_std();
    let request = TokenRequest::new(FetchReason::Initial).with_deadline(deadline);
    let error = server.source(billing()).token(request).await.unwrap_err();
    assert_eq!(error.status().map(|status| status.as_u16()), Some(503), "{error}");
}

// --- What is asked ---

#[tokio::test(start_paused = true)]
async fn the_first_fetch_asks_the_issuer_and_then_the_endpoint_that_it_names() {
    let server = Server::with(&document(""));
    let source = server.source(billing());
    assert!(server.lines().is_empty(), "nothing is asked when it is built");
    fetch(&source).await.unwrap();
    let seen = server.seen.lock().unwrap().clone();
    assert_eq!(server.lines(), [get(OAUTH), POST.into()]);
    assert_eq!(seen[0].headers["accept"], "application/json");
    assert_eq!(seen[0].headers["accept-encoding"], "identity");
    // Nobody is told who asks (C-MD-13).
    assert!(!seen[0].headers.contains_key("authorization") && seen[0].body.is_empty());
    assert_eq!(seen[1].headers["authorization"], "Basic YmlsbGluZzpodW50ZXIyLWh1bnRlcjI=");
    // From then on it is known, to clones as well.
    fetch(&source.clone()).await.unwrap();
    assert_eq!(server.lines(), [POST]);
}

#[tokio::test(start_paused = true)]
async fn where_rfc_8414_has_nothing_the_place_of_openid_connect_is_asked() {
    let nothings: [fn() -> Answer; 8] = [
        || at_once(404, ""),
        || at_once(401, "{}"),
        || with_headers(200, &[("content-type", "text/html")], "<html>Welcome</html>"),
        || at_once(200, "[]"),
        || at_once(200, r#"{"issuer":"https://other.example.com","token_endpoint":"https://a/"}"#),
        || with_headers(302, &[("location", "https://www.example.com/login")], ""),
        || at_once(500, ""),
        || at_once(204, ""),
    ];
    for nothing in nothings {
        let server = Server::new(move |url| match url {
            OAUTH => nothing(),
            OIDC => at_once(200, &document("")),
            _ => at_once(200, TOKEN),
        });
        server.ask(billing()).await.unwrap();
        assert_eq!(server.lines(), [get(OAUTH), get(OIDC), POST.into()]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_issuer_with_a_path_has_it_behind_the_one_form_and_before_the_other() {
    let issuer = "https://login.example.com/tenants/7/";
    let server = Server::new(|_| at_once(404, ""));
    let builder = ClientCredentials::builder(Issuer::new(issuer), "billing", SECRET);
    let error = server.ask(builder).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert_eq!(
        server.lines(),
        [
            "GET https://login.example.com/.well-known/oauth-authorization-server/tenants/7",
            "GET https://login.example.com/.well-known/openid-configuration/tenants/7",
            "GET https://login.example.com/tenants/7/.well-known/openid-configuration",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_url_that_was_set_is_the_only_one() {
    let url = "https://config.example.com/idp?key=S3CR3T";
    let server = Server::new(
        move |asked| if asked == url { at_once(200, &document("")) } else { at_once(200, TOKEN) },
    );
    let issuer = Issuer::new(ISSUER).metadata_url(url);
    server.ask(ClientCredentials::builder(issuer.clone(), "billing", SECRET)).await.unwrap();
    assert_eq!(server.lines(), [get(url), POST.into()]);

    let failures: [fn() -> Answer; 3] = [
        || at_once(404, ""),
        || at_once(503, ""),
        || failing("at https://config.example.com/idp?key=S3CR3T"),
    ];
    for failure in failures {
        server.then(move |_| failure());
        let issuer = Issuer::new(ISSUER).metadata_url(url);
        let error = server.ask(ClientCredentials::builder(issuer, "billing", SECRET)).await.unwrap_err();
        let shown = format!("{error} {error:?} {:?}", std::error::Error::source(&error));
        assert!(!shown.contains("S3CR3T"), "{shown}");
    }
    assert!(!format!("{issuer:?}").contains("S3CR3T"), "{issuer:?}");
}

// --- What is refused ---

#[tokio::test(start_paused = true)]
async fn what_is_no_issuer_is_refused_when_the_source_is_built() {
    let refused = |issuer: Issuer| {
        let server = Server::new(|_| at_once(200, TOKEN));
        let builder = ClientCredentials::builder(issuer, "billing", SECRET);
        let error = builder.build_with(server.transport()).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && !error.to_string().contains("S3CR3T"), "{error}");
        error.to_string()
    };
    for (issuer, told) in [
        ("http://login.example.com", "issuer: \"http://login.example.com\" is plain http"),
        ("https://login.example.com/?t=1", "has a query"),
        ("https://login.example.com/#a", "has a fragment"),
        ("https://u:S3CR3T@login.example.com", "holds a user name"),
        ("login.example.com", "give it whole, such as https://"),
    ] {
        let error = refused(Issuer::new(issuer));
        assert!(error.contains(told), "{error}");
    }
    let error = refused(Issuer::new(ISSUER).metadata_url("http://login.example.com/metadata?S3CR3T"));
    assert!(error.starts_with("metadata_url: it is plain http"), "{error}");
    let insecure = ClientCredentials::builder(Issuer::new("http://login.example.com"), "billing", SECRET);
    assert!(insecure.insecure_http(true).build_with(Server::with("").transport()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn metadata_that_cannot_be_used_are_one_clear_error_and_no_secret_is_sent() {
    let with_token_url = |url: &str| format!(r#"{{"issuer":"{ISSUER}","token_endpoint":"{url}"}}"#);
    for (document, is_config, told) in [
        (
            with_token_url("http://api.example.com/token"),
            false,
            "the URL of the token endpoint in them is plain http",
        ),
        (with_token_url("http://127.0.0.1/token"), false, "plain http"),
        (with_token_url("https://api.example.com/token#x"), false, "has a fragment"),
        (with_token_url("https://u:S3CR3T@api.example.com/token"), false, "holds a user name"),
        (with_token_url("/token"), false, "is not an absolute URL"),
        (format!(r#"{{"issuer":"{ISSUER}"}}"#), true, "oauth-authorization-server names no token endpoint"),
        (
            with_token_url("https://a/").replace(ISSUER, "https://login.example.com/"),
            true,
            "is of another issuer (\"https://login.example.com/\"",
        ),
        (with_token_url("https://a/").replace("issuer", "issuers"), true, "names no issuer"),
        ("<html>S3CR3T</html>".into(), true, "returned 200 with HTML or XML instead of JSON"),
        (String::new(), true, "returned 200 with an empty body"),
    ] {
        let server = Server::with(&document);
        let error = server.ask(billing()).await.unwrap_err();
        let text = error.to_string();
        assert_eq!(
            (error.kind() == ErrorKind::Config, error.kind() == ErrorKind::Protocol),
            (is_config, !is_config),
            "{text}"
        );
        assert!(text.contains(told) && text.contains(&format!("the issuer {ISSUER}")), "{text}");
        assert!(!text.contains("S3CR3T") && !text.contains('\n'), "{text}");
        assert!(server.lines().iter().all(|line| line.starts_with("GET ")), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_an_end_is_cut_off() {
    // As much as anybody reads, and no byte of it is kept.
    let gibibyte = || {
        let frames = futures_util::stream::repeat_with(|| {
            Ok::<_, BoxError>(http_body::Frame::data(Bytes::from_static(&[b' '; 64 * 1024])))
        });
        Response::new(StreamBody::new(futures_util::StreamExt::take(frames, 16 * 1024)).boxed_unsync())
    };
    let server = Server::new(move |_| std::future::ready(Ok(gibibyte())).boxed());
    let error = server.ask(billing()).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Protocol && error.to_string().contains("more than 1024 KiB"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_redirect_is_not_followed_and_told_without_its_query() {
    let server = Server::new(|_| {
        with_headers(302, &[("location", "https://evil.example.com/metadata?code=S3CR3T")], "")
    });
    let text = server.ask(billing()).await.unwrap_err().to_string();
    assert!(text.contains("returned 302 with a redirect to https://evil.example.com, which"), "{text}");
    assert!(!text.contains("S3CR3T"), "{text}");
    assert_eq!(server.lines(), [get(OAUTH), get(OIDC)]);
}

// --- Patience ---

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_is_asked_again_and_one_that_hangs_is_given_up() {
    let mut failures = 3;
    let server = Server::new(move |url| match url {
        OAUTH if failures > 0 => {
            failures -= 1;
            failing("connection reset")
        }
        OAUTH => at_once(200, &document("")),
        OIDC => at_once(404, ""),
        _ => at_once(200, TOKEN),
    });
    server.ask(billing()).await.unwrap();
    let next = || [get(OIDC), get(OAUTH)];
    assert_eq!(
        server.lines(),
        [vec![get(OAUTH)], [next(), next(), next()].concat(), vec![POST.into()]].concat()
    );

    let server = Server::new(|_| pending().boxed());
    let start = Instant::now();
    let error = server.ask(billing().retries(0)).await.unwrap_err();
    assert_eq!(start.elapsed(), 10 * SECOND);
    assert!(
        error.kind() == ErrorKind::Transient && error.to_string().contains("did not return a whole response"),
        "{error}"
    );
    assert!(error.to_string().contains("the metadata of the issuer https://login.example.com"), "{error}");

    let server = Server::new(|_| failing("no route to host"));
    let error = server.ask(billing()).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Transient
            && error.to_string().contains("check the issuer, and the network route"),
        "{error}"
    );
    assert_eq!(server.lines().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_patience_gets_it() {
    let patient = |seconds: &'static str, status: u16| {
        let mut is_first = true;
        Server::new(move |url| match url {
            OAUTH if std::mem::take(&mut is_first) => with_headers(status, &[("retry-after", seconds)], ""),
            OAUTH => at_once(200, &document("")),
            OIDC => at_once(404, ""),
            _ => at_once(200, TOKEN),
        })
    };
    for status in [429, 503] {
        let server = patient("2", status);
        let start = Instant::now();
        server.ask(billing()).await.unwrap();
        assert!(start.elapsed() >= 2 * SECOND);
        assert_eq!(server.lines(), [get(OAUTH), get(OIDC), get(OAUTH), POST.into()]);

        let error = patient("120", status).ask(billing()).await.unwrap_err();
        assert!(
            error.kind() == ErrorKind::Throttled && error.to_string().contains("asks clients to wait"),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_sources_of_one_issuer_ask_once() {
    let server = Server::new(|url| match url {
        OAUTH => async {
            sleep(SECOND).await;
            Ok(response(200, &[], &document("")))
        }
        .boxed(),
        _ => at_once(200, TOKEN),
    });
    let issuer = Issuer::new(ISSUER);
    let sources = (0..1000)
        .map(|tenant| server.source(ClientCredentials::builder(&issuer, format!("tenant-{tenant}"), SECRET)));
    let fetched = sources.map(|source| async move { fetch(&source).await });
    assert!(futures_util::future::join_all(fetched).await.iter().all(Result::is_ok));
    let lines = server.lines();
    assert_eq!(lines.iter().filter(|line| line.starts_with("GET")).count(), 1);
    assert_eq!(lines.len(), 1001);
}

#[tokio::test(start_paused = true)]
async fn who_waits_while_it_fails_gets_that_error_and_who_comes_later_asks_anew() {
    let server = Server::new(|_| {
        async {
            sleep(SECOND).await;
            Ok(response(404, &[], ""))
        }
        .boxed()
    });
    let issuer = Issuer::new(ISSUER);
    let source = |id: &str| server.source(ClientCredentials::builder(&issuer, id, SECRET));
    let (a, b) = (source("a"), source("b"));
    let start = Instant::now();
    let (first, second) = tokio::join!(fetch(&a), fetch(&b));
    assert_eq!(first.unwrap_err().to_string(), second.unwrap_err().to_string());
    assert_eq!((start.elapsed(), server.lines().len()), (2 * SECOND, 2));
    fetch(&b).await.unwrap_err();
    assert_eq!(server.lines().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_given_up_underway_or_never_ends_does_not_stop_the_next() {
    let mut calls = 0;
    let server = Server::new(move |url| {
        calls += 1;
        match url {
            OAUTH if calls == 1 => pending().boxed(),
            OAUTH => at_once(200, &document("")),
            _ => at_once(200, TOKEN),
        }
    });
    let issuer = Issuer::new(ISSUER);
    let source = |id: &str| server.source(ClientCredentials::builder(&issuer, id, SECRET));
    // It is polled once, as by a runtime that nobody drives any more, and holds its turn.
    let parked = source("parked");
    let mut parked = Box::pin(fetch(&parked));
    assert!(parked.as_mut().now_or_never().is_none());
    let start = Instant::now();
    fetch(&source("other")).await.unwrap();
    assert_eq!(start.elapsed(), 10 * SECOND);

    let issuer = Issuer::new(ISSUER);
    let server = Server::with(&document(""));
    let slow = server.clone();
    slow.then(|_| pending().boxed());
    let dropped = slow.source(ClientCredentials::builder(&issuer, "dropped", SECRET));
    assert!(fetch(&dropped).now_or_never().is_none());
    let fine = Server::with(&document(""));
    let start = Instant::now();
    fetch(&fine.source(ClientCredentials::builder(&issuer, "other", SECRET))).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

// --- What becomes of it ---

#[tokio::test(start_paused = true)]
async fn metadata_hold_for_an_hour_and_the_old_serve_on_where_new_ones_cannot_be_had() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = Server::with(&document(""));
    let source = server.source(billing());
    fetch(&source).await.unwrap();
    sleep(HOUR - SECOND).await;
    fetch(&source).await.unwrap();
    assert_eq!(server.lines(), [get(OAUTH), POST.into(), POST.into()]);

    let failures: [fn() -> Answer; 4] = [
        || at_once(503, ""),
        || failing("connection reset"),
        || {
            at_once(
                200,
                r#"{"issuer":"https://evil.example.com","token_endpoint":"https://evil.example.com/"}"#,
            )
        },
        || at_once(200, "<html>"),
    ];
    sleep(2 * SECOND).await;
    for failure in failures {
        server.then(move |url| if url.contains("/.well-known/") { failure() } else { at_once(200, TOKEN) });
        let start = Instant::now();
        fetch(&source).await.unwrap();
        // Nobody waits for it, and there is no second attempt.
        assert_eq!(start.elapsed(), Duration::ZERO);
        settle().await;
        let lines = server.lines();
        assert!(lines.len() <= 3 && lines.iter().filter(|line| *line == POST).count() == 1, "{lines:?}");
        // And then a minute of peace.
        sleep(59 * SECOND).await;
        fetch(&source).await.unwrap();
        assert_eq!(server.lines(), [POST]);
        sleep(SECOND).await;
    }
    let warnings = log.lines().iter().filter(|line| line.contains("could not be renewed")).count();
    assert_eq!(warnings, 1, "{}", log.text());

    server.then(|url| match url {
        OAUTH => at_once(200, &document("").replace("api.example.com", "new.example.com")),
        _ => at_once(200, TOKEN),
    });
    fetch(&source).await.unwrap();
    settle().await;
    server.lines();
    fetch(&source).await.unwrap();
    assert_eq!(server.lines(), [POST.replace("api.", "new.")]);
}

#[tokio::test(start_paused = true)]
async fn metadata_are_renewed_at_the_place_where_they_were_found() {
    let places: [fn() -> Answer; 3] =
        [|| failing("connection reset"), || pending().boxed(), || at_once(404, "")];
    for place in places {
        let server = Server::new(move |url| match url {
            OAUTH => place(),
            OIDC => at_once(200, &document("")),
            _ => at_once(200, TOKEN),
        });
        let source = server.source(billing());
        fetch(&source).await.unwrap();
        server.then(move |url| match url {
            OAUTH => place(),
            OIDC => at_once(200, &document("").replace("api.example.com", "new.example.com")),
            _ => at_once(200, TOKEN),
        });
        sleep(HOUR).await;
        server.lines();
        fetch(&source).await.unwrap();
        settle().await;
        fetch(&source).await.unwrap();
        let lines = server.lines();
        assert_eq!(*lines.last().unwrap(), POST.replace("api.", "new."), "{lines:?}");
        assert!(!lines.contains(&get(OAUTH)), "{lines:?}");
    }
}

/// Lets what goes on in the background come to its end.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_metadata_server_that_hangs_costs_nothing_while_the_old_document_serves() {
    let server = Server::with(&document(""));
    let source = server.source(billing());
    fetch(&source).await.unwrap();
    server.then(|url| if url.contains("/.well-known/") { pending().boxed() } else { at_once(200, TOKEN) });
    sleep(2 * HOUR).await;
    for _ in 0..20 {
        let start = Instant::now();
        fetch(&source).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
        sleep(10 * SECOND).await;
    }
    let asked = server.lines().iter().filter(|line| line.contains("/.well-known/")).count();
    assert!((2..=8).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn both_insertion_forms_and_that_of_openid_connect_are_tried_in_order() {
    let issuer = "https://login.example.com/tenants/7";
    let places = [
        "https://login.example.com/.well-known/oauth-authorization-server/tenants/7",
        "https://login.example.com/.well-known/openid-configuration/tenants/7",
        "https://login.example.com/tenants/7/.well-known/openid-configuration",
    ];
    for (at, place) in places.into_iter().enumerate() {
        let found = document("").replace(&format!("\"{ISSUER}\""), &format!("\"{issuer}\""));
        let server = Server::new(move |url| match url {
            url if url == place => at_once(200, &found),
            url if url.contains(".well-known") => at_once(404, ""),
            _ => at_once(200, TOKEN),
        });
        server.ask(ClientCredentials::builder(Issuer::new(issuer), "billing", SECRET)).await.unwrap();
        assert_eq!(server.lines().len(), at + 2, "{place}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_lifetime_of_metadata_can_be_set() {
    let server = Server::with(&document(""));
    let issuer = Issuer::new(ISSUER).metadata_lifetime(60 * SECOND);
    let source = server.source(ClientCredentials::builder(issuer, "billing", SECRET));
    fetch(&source).await.unwrap();
    sleep(61 * SECOND).await;
    fetch(&source).await.unwrap();
    settle().await;
    assert_eq!(server.lines(), [get(OAUTH), POST.into(), POST.into(), get(OAUTH)]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_moved_is_found_in_the_same_fetch() {
    let goodbyes: [fn() -> Answer; 5] = [
        || at_once(404, ""),
        || at_once(405, "<html>"),
        || at_once(410, ""),
        || with_headers(308, &[("location", "https://new.example.com/token")], ""),
        || failing("connection refused"),
    ];
    for goodbye in goodbyes {
        let server = Server::with(&document(""));
        let source = server.source(billing().retries(0));
        fetch(&source).await.unwrap();
        server.lines();
        server.then(move |url| match url {
            OAUTH => at_once(200, &document("").replace("api.example.com", "new.example.com")),
            "https://api.example.com/token?tenant=7" => goodbye(),
            _ => at_once(200, TOKEN),
        });
        fetch(&source).await.unwrap();
        assert_eq!(server.lines(), [POST.into(), get(OAUTH), POST.replace("api.", "new.")]);
        fetch(&source).await.unwrap();
        assert_eq!(server.lines(), [POST.replace("api.", "new.")]);
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_that_lose_their_endpoint_one_asks_where_it_is() {
    let server = Server::with(&document(""));
    let issuer = Issuer::new(ISSUER);
    let sources: Vec<_> = (0..20)
        .map(|tenant| server.source(ClientCredentials::builder(&issuer, format!("tenant-{tenant}"), SECRET)))
        .collect();
    fetch(&sources[0]).await.unwrap();
    server.lines();
    // It says the same as before, which is an answer too.
    server.then(|url| match url {
        OAUTH => async {
            sleep(SECOND).await;
            Ok(response(200, &[], &document("")))
        }
        .boxed(),
        _ => at_once(404, ""),
    });
    let fetched = futures_util::future::join_all(sources.iter().map(fetch)).await;
    assert!(
        fetched.iter().all(|result| result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Config))
    );
    let lines = server.lines();
    assert_eq!(lines.iter().filter(|line| line.starts_with("GET")).count(), 1);
    assert_eq!(lines.len(), 21);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_gone_without_a_new_one_is_asked_once() {
    let server = Server::new(|url| match url {
        OAUTH => at_once(200, &document("")),
        _ => at_once(404, ""),
    });
    let source = server.source(billing());
    // The metadata are as new as can be.
    let error = fetch(&source).await.unwrap_err();
    assert_eq!(server.lines(), [get(OAUTH), POST.into()]);
    let text = error.to_string();
    assert!(
        error.kind() == ErrorKind::Config
            && text.contains("is the token endpoint in the metadata of the issuer right?"),
        "{text}"
    );
    // They are not, but say the same.
    fetch(&source).await.unwrap_err();
    assert_eq!(server.lines(), [POST.into(), get(OAUTH)]);
    // What the server says of the client or the grant has nothing to do with it.
    server.then(|_| at_once(400, r#"{"error":"invalid_client"}"#));
    fetch(&source).await.unwrap_err();
    assert_eq!(server.lines(), [POST]);
}

// --- Client authentication ---

#[tokio::test(start_paused = true)]
async fn the_strongest_way_that_the_server_supports_is_taken_and_no_weaker_one() {
    let sent = |auth: ClientAuth, supported: &'static str| async move {
        let supported = format!(r#","token_endpoint_auth_methods_supported":[{supported}]"#);
        let server = Server::with(&document(&supported));
        let asked = server.ask(ClientCredentials::builder(Issuer::new(ISSUER), "billing", auth)).await;
        let seen = server.seen.lock().unwrap().clone();
        asked.map(|_| {
            let Seen { headers, body, .. } = seen.last().unwrap();
            (headers.contains_key("authorization"), body.contains("client_secret="))
        })
    };
    let either = || ClientAuth::post(SECRET).or(ClientAuth::basic(SECRET));
    assert_eq!(sent(either(), r#""client_secret_post","client_secret_basic""#).await.unwrap(), (true, false));
    assert_eq!(sent(either(), r#""client_secret_post""#).await.unwrap(), (false, true));
    let error = sent(SECRET.into(), r#""client_secret_post","private_key_jwt""#).await.unwrap_err();
    let text = error.to_string();
    assert!(
        error.kind() == ErrorKind::Config
            && text.contains("(basic), but: client_secret_post, private_key_jwt"),
        "{text}"
    );
    assert!(text.contains("the token endpoint of the issuer https://login.example.com"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn where_no_way_is_supported_nothing_is_sent() {
    let server = Server::with(&document(r#","token_endpoint_auth_methods_supported":["private_key_jwt"]"#));
    server.ask(billing()).await.unwrap_err();
    assert_eq!(server.lines(), [get(OAUTH)]);
    // The server says nothing, which means Basic (RFC 8414 §2).
    let server = Server::with(&document(""));
    let error = server
        .ask(ClientCredentials::builder(Issuer::new(ISSUER), "billing", ClientAuth::post(SECRET)))
        .await
        .unwrap_err();
    assert!(
        error.kind() == ErrorKind::Config && error.to_string().contains("but: client_secret_basic;"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_public_client_and_one_with_a_certificate_send_their_id() {
    let aliases = r#","mtls_endpoint_aliases":{"token_endpoint":"https://mtls.example.com/token"},
        "token_endpoint_auth_methods_supported":["client_secret_basic","self_signed_tls_client_auth"]"#;
    let alias = "POST https://mtls.example.com/token";
    let issuer = || Issuer::new(ISSUER);
    for (issuer, auth, url) in [
        (issuer(), ClientAuth::none(), POST),
        (issuer(), ClientAuth::tls(), alias),
        (issuer().mtls_aliases(true), ClientAuth::none(), alias),
        (issuer().mtls_aliases(true).mtls_aliases(false), ClientAuth::none(), POST),
    ] {
        let server = Server::with(&document(aliases));
        let builder = ClientCredentials::builder(issuer, "billing", auth);
        server.ask(builder).await.unwrap();
        assert_eq!(server.lines(), [get(OAUTH), url.into()]);
    }
    // Without aliases the endpoint is one for all.
    let plain = Server::with(&document(r#","token_endpoint_auth_methods_supported":["tls_client_auth"]"#));
    let builder = ClientCredentials::builder(issuer(), "billing", ClientAuth::tls());
    plain.ask(builder).await.unwrap();
    assert_eq!(plain.lines(), [get(OAUTH), POST.into()]);
}

#[cfg(feature = "jwt")]
#[tokio::test(start_paused = true)]
async fn an_assertion_is_for_the_issuer_unless_it_is_for_the_endpoint_that_was_found() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm};

    let audience = |assertion: Assertion| async move {
        let server =
            Server::with(&document(r#","token_endpoint_auth_methods_supported":["client_secret_jwt"]"#));
        let auth = ClientAuth::client_secret_jwt(assertion);
        server.ask(ClientCredentials::builder(Issuer::new(ISSUER), "billing", auth)).await.unwrap();
        let body = server.seen.lock().unwrap()[1].body.clone();
        let (_, assertion) = body.split_once("client_assertion=").unwrap();
        let claims = URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        claims["aud"].as_str().unwrap().to_owned()
    };
    let assertion = || Assertion::by_key(JwtAlgorithm::Hs256, "0123456789abcdef0123456789abcdef");
    assert_eq!(audience(assertion()).await, ISSUER);
    let for_endpoint = assertion().token_url_as_audience(true);
    assert_eq!(audience(for_endpoint).await, "https://api.example.com/token?tenant=7");
}

// --- Other sources ---

#[tokio::test(start_paused = true)]
async fn a_refresh_token_is_not_in_doubt_because_of_a_discovery() {
    let mut is_up = false;
    let mut answers = move |url: &str| match url {
        OAUTH | OIDC if !std::mem::replace(&mut is_up, true) => failing("connection reset"),
        OAUTH => at_once(200, &document("")),
        _ => at_once(400, r#"{"error":"invalid_grant"}"#),
    };
    let server = Server::new(move |url| answers(url));
    let builder =
        RefreshTokenGrant::builder(Issuer::new(ISSUER), "reports", SECRET).refresh_token("RT1").retries(0);
    let source = builder.build_with(server.transport()).unwrap();
    let error = fetch(&source).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Transient && source.has_refresh_token(), "{error}");
    let shown = format!("{source:?}");
    assert!(shown.contains("raised: false"), "{shown}");
    let error = fetch(&source).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Grant && !error.to_string().contains("was lost"), "{error}");
    assert_eq!(server.lines(), [get(OAUTH), get(OIDC), get(OAUTH), POST.into()]);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_may_be_spent_is_sent_to_no_other_place() {
    let moved = || document("").replace("api.example.com", "new.example.com");
    let outcome = |lost: fn() -> Answer| async move {
        let server = Server::with(&document(""));
        let builder = RefreshTokenGrant::builder(Issuer::new(ISSUER), "reports", SECRET)
            .refresh_token("RT1")
            .retries(0);
        let source = builder.build_with(server.transport()).unwrap();
        fetch(&source).await.unwrap();
        server.lines();
        server.then(move |url| match url {
            OAUTH => at_once(200, &moved()),
            "https://api.example.com/token?tenant=7" => lost(),
            _ => at_once(200, TOKEN),
        });
        let forced = source.token(TokenRequest::new(FetchReason::Forced)).await;
        (forced.is_ok(), server.lines())
    };
    let (is_ok, lines) = outcome(|| failing("connection reset")).await;
    assert!(!is_ok && lines == [POST], "{lines:?}");
    // It said that it did nothing.
    let (is_ok, lines) = outcome(|| at_once(404, "")).await;
    assert!(is_ok && lines == [POST.into(), get(OAUTH), POST.replace("api.", "new.")], "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_revocation_finds_its_endpoint_and_says_where_there_is_none() {
    let revoke = |members: &str| {
        let server = Server::with(&document(members));
        let builder = Revocation::builder(Issuer::new(ISSUER), "billing", SECRET);
        let revocation = builder.build_with(server.transport()).unwrap();
        async move { (revocation.revoke(AccessToken::bearer("AT1").unwrap()).await, server.lines()) }
    };
    let (revoked, lines) = revoke(r#","revocation_endpoint":"https://api.example.com/revoke""#).await;
    revoked.unwrap();
    assert_eq!(lines, [get(OAUTH), "POST https://api.example.com/revoke".into()]);
    let (revoked, lines) = revoke("").await;
    let error = revoked.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Config && error.to_string().contains("where the revocation endpoint is"),
        "{error}"
    );
    assert_eq!(lines, [get(OAUTH)]);
}

#[tokio::test(start_paused = true)]
async fn debug_shows_the_issuer_and_no_password() {
    let builder =
        ClientCredentials::builder(Issuer::new("https://u:S3CR3T@login.example.com"), "billing", SECRET);
    let shown = format!("{builder:?}");
    assert!(shown.contains("https://login.example.com") && !shown.contains("S3CR3T"), "{shown}");
    for broken in [
        "https://u:S3CR3T x@host",
        "https://u:S3CR3T\n@host",
        "https:/u:S3CR3T@host",
        "u:S3CR3T@host",
        "//u:S3CR3T@host",
    ] {
        let issuer = Issuer::new(broken).metadata_url(broken);
        let shown = format!("{issuer:?}");
        let builder = ClientCredentials::builder(issuer, "billing", SECRET);
        let error = builder.build_with(Server::with("").transport()).unwrap_err();
        assert!(!shown.contains("S3CR3T") && !format!("{error} {error:?}").contains("S3CR3T"), "{error}");
    }
    let source = Server::with("").source(billing());
    let shown = format!("{source:?}");
    assert!(shown.contains(ISSUER) && shown.contains("billing") && !shown.contains(SECRET), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn metadata_that_repeat_what_the_server_was_sent_before_are_not_quoted() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let key = "k3y-0f-the-metadata";
    let url = format!("https://login.example.com/metadata?api_key={key}");
    for echo in [key, "AT1-opaque-0123456", "RT1-opaque-0123456"] {
        let foreign =
            format!(r#"{{"issuer":"https://{echo}.example.com/{echo}","token_endpoint":"https://a/"}}"#);
        let methods =
            document(&format!(r#","token_endpoint_auth_methods_supported":["{echo}","tls_client_auth"]"#));
        let redirect = format!("https://{echo}.example.com/");
        let answers: [(u16, String); 3] = [(200, foreign), (200, methods), (307, String::new())];
        for (status, body) in answers {
            let to = redirect.clone();
            let server = Server::new(move |_url| with_headers(status, &[("location", &to)], &body));
            let issuer = Issuer::new(ISSUER).metadata_url(&url);
            let source = server.source(ClientCredentials::builder(issuer, "billing", SECRET));
            let previous =
                AccessToken::bearer("AT1-opaque-0123456").unwrap().with_refresh_token("RT1-opaque-0123456");
            let request = TokenRequest::new(FetchReason::Expiring).with_previous(Some(previous));
            let error = source.token(request).await.unwrap_err();
            let shown = format!("{error} {error:?} {}", log.text());
            assert!(shown.contains("https://login.example.com") && !shown.contains(echo), "{echo}: {shown}");
        }
    }
}

#[test]
fn an_issuer_is_written_as_the_url_of_an_endpoint_is() {
    for (issuer, why) in [
        ("https://login.example.com/mandant-nörd", "outside ASCII"),
        ("https://lögin.example.com", "outside ASCII"),
        ("https://login.example.com/a/%2E%2e/b", "dots"),
        ("https://login.example.com/../b", "dots"),
    ] {
        let source = ClientCredentials::builder(Issuer::new(issuer), "billing", "hunter2-hunter2");
        let error = source.build_with(crate::scripted::Scripted::new([])).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(why), "{issuer}: {error}");
    }
}
