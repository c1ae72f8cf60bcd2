//! The client against servers that nobody here wrote; started by `tests/interop/run.sh`.
//!
//! The authorization server is npm's oidc-provider in a process of its own. The API introspects every token there. nginx
//! limits a rate.
//! What counts is the server's own log: each case prints one line with what it found and what was allowed.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a program that measures and prints")]

mod api;
mod keys;
mod login;
mod nginx;
#[allow(dead_code, reason = "the fleet of processes uses the rest")]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#[path = "../fleet/redis_server.rs"]
mod redis_server;
mod refreshing;
mod server;
mod shared;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tower::{BoxError, Layer as _, ServiceBuilder, ServiceExt as _};
use tower_oauth2::auth::{AuthLayer, AuthService};
use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm};
use tower_oauth2::grants::{Issuer, Revocation};
use tower_oauth2::retry::{RequestBody, RetryPolicy, RetryService};
use tower_oauth2::{ClientAuth, ClientCredentials, Error, TokenCache};

use api::{Api, Check, INTROSPECTOR};
use nginx::{Counts, Nginx};
use server::{Registered, Server};

/// What every user of the library has: retries outside, tokens inside, an HTTP client at the core.
type Client = RetryService<AuthService<HttpClient<HttpConnector, RequestBody<Full<Bytes>>>>>;

const BASIC: Registered = Registered { id: "reports", secret: "hunter2", method: "client_secret_basic" };
const POST: Registered = Registered { id: "by-post", secret: "hunter2", method: "client_secret_post" };
const NONE: Registered = Registered { id: "no-secret", secret: "", method: "none" };
// As reserved as the server lets an id and a secret be: visible ASCII and space.
const ODD_BASIC: Registered =
    Registered { id: "a&b=c: 50%+tax/x?", secret: "s:e&c=r+e%t /~!*'()-_.", method: "client_secret_basic" };
const ODD_POST: Registered =
    Registered { id: "p&b=c: 50%+tax/x?", secret: "s:e&c=r+e%t /~!*'()-_.", method: "client_secret_post" };
const BY_KEY: Registered = Registered { id: "by-key", secret: "", method: "private_key_jwt" };
const BY_SECRET: Registered =
    Registered { id: "by-hmac", secret: "0123456789abcdef0123456789abcdef", method: "client_secret_jwt" };
const CLIENTS: &[Registered] = &[INTROSPECTOR, BASIC, POST, NONE, ODD_BASIC, ODD_POST, BY_KEY, BY_SECRET];

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::main]
async fn main() -> ExitCode {
    if let Some(code) = refreshing::child().await {
        return code;
    }
    if let Some(code) = shared::child().await {
        return code;
    }
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let seconds = |short: u64, full: u64| Duration::from_secs(if smoke { short } else { full });
    let only = std::env::args().skip_while(|argument| argument != "--only").nth(1);
    let mut tally = Tally { only, ..Tally::default() };

    for (name, client, auth) in [
        ("cold start, Basic", BASIC, ClientAuth::basic(BASIC.secret)),
        ("cold start, Basic, reserved characters", ODD_BASIC, ClientAuth::basic(ODD_BASIC.secret)),
        ("cold start, secret in the body", POST, ClientAuth::post(POST.secret)),
        ("cold start, secret in the body, reserved characters", ODD_POST, ClientAuth::post(ODD_POST.secret)),
        ("cold start, no secret", NONE, ClientAuth::none()),
        ("cold start, private_key_jwt RS256", BY_KEY, ClientAuth::private_key_jwt(keys::RS256.signing_key())),
        ("cold start, private_key_jwt ES256", BY_KEY, ClientAuth::private_key_jwt(keys::ES256.signing_key())),
        ("cold start, client_secret_jwt", BY_SECRET, ClientAuth::client_secret_jwt(by_secret())),
    ] {
        tally.case(name, cold_start(client, auth)).await;
    }
    for (name, client, auth) in [
        ("discovery, Basic", BASIC, ClientAuth::post(BASIC.secret).or(ClientAuth::basic(BASIC.secret))),
        ("discovery, private_key_jwt", BY_KEY, ClientAuth::private_key_jwt(keys::ES256.signing_key())),
        ("discovery, client_secret_jwt", BY_SECRET, ClientAuth::client_secret_jwt(by_secret())),
    ] {
        tally.case(name, discovered(client, auth)).await;
    }
    tally.case("assertions of a key and of a clock that the server has not", refused_assertions()).await;
    tally.case("200 requests at once on a cold cache", stampede()).await;
    tally.case("3 s tokens under steady traffic", short_tokens(seconds(8, 20))).await;
    tally.case("all tokens revoked in mid-traffic", revoked_in_traffic(seconds(4, 10))).await;
    tally.case("wrong secret under traffic", wrong_secret(Duration::from_secs(5))).await;
    tally.case("login by a device flow, then 3 refreshes", refreshing::login_and_rotation()).await;
    tally
        .case(
            "access tokens revoked every 0.8 s, refresh tokens rotated",
            refreshing::revoked_under_rotation(seconds(4, 20)),
        )
        .await;
    tally
        .case("the same, the process killed and restarted", refreshing::killed_and_restarted(seconds(4, 20)))
        .await;
    tally
        .case(
            "ten processes on one login, killed at random",
            shared::killed_at_random_over_files(seconds(8, 60)),
        )
        .await;
    tally.case("revocation on request and at a shutdown", refreshing::revoked_for_good()).await;
    if smoke {
        // Half of the first 20 are refused, and then all have to be learned in 3 s.
        tally.case("nginx takes 10 per second: 30 requests, 20 at once", limited(30, 20, 2.0, 4.0)).await;
    } else {
        tally.case("nginx takes 10 per second: 200 requests, 50 at once", limited(200, 50, 1.4, 1.25)).await;
        tally
            .case(
                "ten processes on one login, over Redis, killed at random",
                shared::killed_at_random_over_redis(seconds(8, 60)),
            )
            .await;
        tally.case("server away for 3 s while the token is valid", server_away()).await;
        tally.case("one API node of four says 401", bad_node(Duration::from_secs(60))).await;
    }

    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

// --- The cases ---

async fn cold_start(client: Registered, auth: ClientAuth) -> Result<Finding, BoxError> {
    let server = Server::start(HOUR, CLIENTS).await?;
    let api = Api::start(&server, Check::EveryTime).await?;
    let traffic = send_at_once(&connect(&cache(&server, client, auth)?, &api.origin())?, &api, 1).await;
    let token_requests = server.token_requests()?;
    Ok(Finding::new(format!("{traffic} token_requests={token_requests}"))
        .demand(traffic.failed() == 0, "no failure")
        .demand(token_requests == 1, "1 token request"))
}

/// Finds the endpoints by the issuer alone: one that gives tokens and one that revokes them. The issuer is the audience of
/// the assertions.
async fn discovered(client: Registered, auth: ClientAuth) -> Result<Finding, BoxError> {
    let server = Server::start(HOUR, CLIENTS).await?;
    let api = Api::start(&server, Check::EveryTime).await?;
    let issuer = Issuer::new(server.issuer());
    let revocation = Revocation::builder(&issuer, client.id, auth.clone()).build()?;
    let source = ClientCredentials::builder(issuer, client.id, auth);
    let cache = TokenCache::builder(source.scope("items:read").build()?).revoke_with(revocation).build();
    let traffic = send_at_once(&connect(&cache, &api.origin())?, &api, 1).await;
    let token = cache.get().await?;
    cache.revoke().await?;
    let after = refreshing::bare(&api, token.header_value()).await?;
    let (metadata, token_requests) = (server.metadata_answers()?, server.token_requests()?);
    let found = metadata.iter().filter(|status| **status == 200).count();
    Ok(Finding::new(format!(
        "{traffic} metadata_answers={metadata:?} token_requests={token_requests}, revoked: {after}"
    ))
    .demand(traffic.failed() == 0, "no failure")
    .demand(found == 1 && metadata.len() <= 2, "the metadata read once")
    .demand(token_requests == 1, "1 token request")
    .demand(after == StatusCode::UNAUTHORIZED, "a token that is revoked"))
}

async fn refused_assertions() -> Result<Finding, BoxError> {
    let server = Server::start(HOUR, CLIENTS).await?;
    let unknown = ClientAuth::private_key_jwt(keys::UNKNOWN.signing_key());
    let early = keys::ES256.signing_key().clock_ahead_by(HOUR);
    let mut lines = Vec::new();
    for auth in [unknown, ClientAuth::private_key_jwt(early)] {
        lines.push(match cache(&server, BY_KEY, auth)?.get().await {
            Ok(_) => "a token".to_owned(),
            Err(error) => error.to_string(),
        });
    }
    let advises =
        |line: &String| line.contains("invalid_client") && line.contains("the key that is registered for it");
    let token_requests = server.token_requests()?;
    Ok(Finding::new(format!("token_requests={token_requests} error=\"{}\"", lines.join("\", \"")))
        .demand(lines.iter().all(advises), "an error that says what to check")
        .demand(token_requests == 2, "1 token request each"))
}

fn by_secret() -> Assertion {
    Assertion::by_key(JwtAlgorithm::Hs256, BY_SECRET.secret)
}

async fn stampede() -> Result<Finding, BoxError> {
    let server = Server::start(HOUR, CLIENTS).await?;
    let api = Api::start(&server, Check::EveryTime).await?;
    let traffic = send_at_once(&connect(&basic_cache(&server)?, &api.origin())?, &api, 200).await;
    let token_requests = server.token_requests()?;
    Ok(Finding::new(format!("{traffic} token_requests={token_requests}"))
        .demand(traffic.sent == 200 && traffic.failed() == 0, "no failure")
        .demand(token_requests == 1, "1 token request"))
}

async fn short_tokens(span: Duration) -> Result<Finding, BoxError> {
    let server = Server::start(Duration::from_secs(3), CLIENTS).await?;
    let api = Api::start(&server, Check::EveryTime).await?;
    let traffic = send_steadily(&connect(&basic_cache(&server)?, &api.origin())?, &api, 100, span).await;
    let token_requests = server.token_requests()?;
    // The first, and one per 2 s: a token of whole seconds may die 1 s early, and where that overtakes the fetch of the
    // next one, it is fetched once more. In 20 s no more than 10 all the same.
    let allowed = usize::try_from(1 + span.as_secs() / 2)?.min(10);
    Ok(Finding::new(format!("{traffic} token_requests={token_requests} (at most {allowed})"))
        .demand(traffic.failed() == 0, "no failure")
        .demand(token_requests <= allowed, "fewer token requests"))
}

async fn revoked_in_traffic(span: Duration) -> Result<Finding, BoxError> {
    let server = Server::start(HOUR, CLIENTS).await?;
    let api = Api::start(&server, Check::AfterAWhile).await?;
    let client = connect(&basic_cache(&server)?, &api.origin())?;
    let revocation = async {
        sleep(span / 2).await;
        let before = server.token_requests()?;
        server.revoke_all().await?;
        Ok::<_, BoxError>(before)
    };
    let (traffic, before) = tokio::join!(send_steadily(&client, &api, 200, span), revocation);
    let (before, after) = (before?, server.token_requests()?);
    Ok(Finding::new(format!("{traffic} token_requests={before} and {} for the revocation", after - before))
        .demand(traffic.failed() == 0, "no failure")
        .demand(before == 1, "1 token request before the revocation")
        .demand(after == 2, "exactly 1 for it"))
}

async fn wrong_secret(span: Duration) -> Result<Finding, BoxError> {
    let server = Server::start(HOUR, CLIENTS).await?;
    let api = Api::start(&server, Check::EveryTime).await?;
    let wrong = Registered { secret: "not-the-secret", ..BASIC };
    let client = connect(&cache(&server, wrong, wrong.secret)?, &api.origin())?;
    let traffic = send_steadily(&client, &api, 100, span).await;
    let token_requests = server.token_requests()?;
    let errors: Vec<&String> = traffic.errors.keys().collect();
    let shown = errors.iter().map(|error| format!("\"{error}\"")).collect::<Vec<_>>().join(", ");
    Ok(Finding::new(format!("{traffic} token_requests={token_requests} (at most 5) error={shown}"))
        .demand(traffic.ok == 0 && traffic.refused.is_empty(), "an error for each")
        .demand(errors.len() == 1, "one error and the same for all")
        .demand(errors.iter().all(|error| error.contains("invalid_client")), "an error that names the cause")
        .demand(errors.iter().all(|error| !error.contains("not-the-secret")), "no secret in it")
        .demand((1..=5).contains(&token_requests), "fewer token requests"))
}

async fn server_away() -> Result<Finding, BoxError> {
    // A 30 s token is replaced in the background at 22.5 to 24 s; only from 28.5 s on would requests wait. The server is
    // away from 21.8 to 24.8 s: the first attempt must fail, and a later one comes in time.
    let server = Server::start(Duration::from_secs(30), CLIENTS).await?;
    let api = Api::start(&server, Check::Remembering).await?;
    let cache = basic_cache(&server)?;
    let client = connect(&cache, &api.origin())?;
    let outage = async {
        sleep(Duration::from_millis(21_800)).await;
        server.take_down().await?;
        sleep(Duration::from_secs(3)).await;
        let status = cache.status();
        server.bring_up().await?;
        Ok::<_, BoxError>(status.is_ready() && (status.is_fetching() || status.failures_in_a_row() > 0))
    };
    let traffic = send_steadily(&client, &api, 100, Duration::from_secs(28));
    let (traffic, tried_in_vain) = tokio::join!(traffic, outage);
    let token_requests = server.token_requests()?;
    Ok(Finding::new(format!("{traffic} token_requests={token_requests}"))
        .demand(traffic.failed() == 0, "no failure")
        .demand(tried_in_vain?, "a refresh in vain while the server was away")
        .demand(token_requests == 2, "1 token request before and 1 after"))
}

async fn bad_node(span: Duration) -> Result<Finding, BoxError> {
    let server = Server::start(HOUR, CLIENTS).await?;
    let api = Api::start(&server, Check::WithOneBadNode).await?;
    let traffic = send_steadily(&connect(&basic_cache(&server)?, &api.origin())?, &api, 200, span).await;
    let token_requests = server.token_requests()?;
    let only_401 = traffic.errors.is_empty() && traffic.refused.keys().all(|status| *status == 401);
    Ok(Finding::new(format!("{traffic} token_requests={token_requests} (at most 60)"))
        .demand(only_401, "nothing worse than a 401 that is handed out")
        .demand(traffic.ok >= traffic.sent * 7 / 10, "the three good nodes keep working")
        .demand(token_requests <= 60, "fewer token requests"))
}

/// Sends requests from so many tasks, each of which sends its next one when it has the answer.
async fn limited(requests: u32, at_once: u32, per_served: f64, per_ideal: f64) -> Result<Finding, BoxError> {
    let nginx = Nginx::from_env()?;
    let http = HttpClient::builder(TokioExecutor::new()).build_http::<RequestBody<Full<Bytes>>>();
    let client = RetryPolicy::default().layer(http);
    let path = format!("/{requests}");
    let url = nginx.origin() + &path;
    let (start, left) = (Instant::now(), Arc::new(AtomicU32::new(requests)));
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        let (client, url, left) = (client.clone(), url.clone(), Arc::clone(&left));
        tasks.spawn(async move {
            let mut failed = 0;
            while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                let request = Request::get(&url).body(Full::default())?;
                let answer = client.clone().oneshot(request).await?;
                failed += u32::from(answer.status() != StatusCode::OK);
                answer.into_body().collect().await?;
            }
            Ok::<_, BoxError>(failed)
        });
    }
    let mut failed = 0;
    while let Some(task) = tasks.join_next().await {
        failed += task??;
    }
    let (took, Counts { sent, served, refused }) = (start.elapsed(), nginx.counts(&path).await?);
    let sent_per_served = f64::from(sent) / f64::from(served);
    let time_per_ideal = took.as_secs_f64() / Nginx::ideal(requests).as_secs_f64();
    Ok(Finding::new(format!(
        "failed={failed} sent={sent} served={served} sent_per_served={sent_per_served:.2} (at most {per_served}) \
         time={:.1}s time_per_ideal={time_per_ideal:.2} (at most {per_ideal})",
        took.as_secs_f64()
    ))
    .demand(failed == 0 && served == requests, "no failure")
    .demand(sent == served + refused && refused > 0, "429 and nothing else for the rest")
    .demand(sent_per_served <= per_served, "fewer requests sent")
    .demand(time_per_ideal <= per_ideal, "less time"))
}

// --- The client ---

fn basic_cache(server: &Server) -> Result<TokenCache, BoxError> {
    cache(server, BASIC, BASIC.secret)
}

fn basic_source(server: &Server) -> Result<ClientCredentials, BoxError> {
    source(server, BASIC, BASIC.secret)
}

fn cache(server: &Server, client: Registered, auth: impl Into<ClientAuth>) -> Result<TokenCache, BoxError> {
    Ok(TokenCache::new(source(server, client, auth)?))
}

fn source(
    server: &Server,
    client: Registered,
    auth: impl Into<ClientAuth>,
) -> Result<ClientCredentials, BoxError> {
    let builder = ClientCredentials::builder(server.token_url(), client.id, auth).issuer(server.issuer());
    Ok(builder.scope("items:read").build()?)
}

fn connect(cache: &TokenCache, origin: &str) -> Result<Client, BoxError> {
    Ok(ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(cache.clone(), origin)?)
        .service(HttpClient::builder(TokioExecutor::new()).build_http()))
}

/// Sends one request and reads the answer to its end.
async fn send(client: Client, origin: String) -> Result<StatusCode, BoxError> {
    let request = Request::get(origin + "/items").body(Full::default())?;
    let answer = client.oneshot(request).await?;
    let status = answer.status();
    answer.into_body().collect().await?;
    Ok(status)
}

// --- Traffic ---

/// What became of a number of requests.
#[derive(Debug, Default)]
struct Traffic {
    sent: usize,
    ok: usize,
    /// How many got another status than success.
    refused: BTreeMap<u16, usize>,
    /// How many got no answer, by the line of the error.
    errors: BTreeMap<String, usize>,
}

async fn send_at_once(client: &Client, api: &Api, times: usize) -> Traffic {
    let mut running = JoinSet::new();
    for _ in 0..times {
        running.spawn(send(client.clone(), api.origin()));
    }
    Traffic::of(running).await
}

async fn send_steadily(client: &Client, api: &Api, per_second: u32, span: Duration) -> Traffic {
    let mut running = JoinSet::new();
    let mut ticks = interval(Duration::from_secs(1) / per_second);
    // Whoever is late catches up, so that the number of requests does not depend on the machine.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for _ in 0..span.as_secs() * u64::from(per_second) {
        ticks.tick().await;
        running.spawn(send(client.clone(), api.origin()));
    }
    Traffic::of(running).await
}

impl Traffic {
    async fn of(mut running: JoinSet<Result<StatusCode, BoxError>>) -> Self {
        let mut traffic = Self::default();
        while let Some(ended) = running.join_next().await {
            traffic.sent += 1;
            match ended.unwrap_or_else(|error| Err(error.into())) {
                Ok(status) if status.is_success() => traffic.ok += 1,
                Ok(status) => *traffic.refused.entry(status.as_u16()).or_default() += 1,
                Err(error) => *traffic.errors.entry(whole_line(&*error)).or_default() += 1,
            }
        }
        traffic
    }

    fn failed(&self) -> usize {
        self.sent - self.ok
    }
}

impl std::fmt::Display for Traffic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "requests={} failed={}", self.sent, self.failed())?;
        for (status, times) in &self.refused {
            write!(f, " {status}s={times}")?;
        }
        Ok(())
    }
}

/// Writes an error with its causes. A token error says all in its own line.
fn whole_line(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    let mut line = error.to_string();
    if error.downcast_ref::<Error>().is_some() {
        return line;
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(line, ": {error}");
        cause = error.source();
    }
    line
}

// --- Findings ---

/// What a case found, and what it lacked.
struct Finding {
    figures: String,
    misses: Vec<&'static str>,
}

impl Finding {
    fn new(figures: String) -> Self {
        Self { figures, misses: Vec::new() }
    }

    fn demand(mut self, met: bool, what: &'static str) -> Self {
        if !met {
            self.misses.push(what);
        }
        self
    }
}

#[derive(Default)]
struct Tally {
    /// Cases without this in their name are left out.
    only: Option<String>,
    passed: usize,
    failed: usize,
}

impl Tally {
    async fn case(&mut self, name: &str, case: impl Future<Output = Result<Finding, BoxError>>) {
        if self.only.as_deref().is_some_and(|only| !name.contains(only)) {
            return;
        }
        let line = match timeout(Duration::from_secs(90), case).await {
            Ok(Ok(finding)) if finding.misses.is_empty() => Ok(finding.figures),
            Ok(Ok(finding)) => {
                Err(format!("{}; was to have: {}", finding.figures, finding.misses.join(", ")))
            }
            Ok(Err(error)) => Err(whole_line(&*error)),
            Err(_) => Err("it took longer than 90 s".to_owned()),
        };
        match line {
            Ok(figures) => {
                self.passed += 1;
                println!("ok      {name}: {figures}");
            }
            Err(figures) => {
                self.failed += 1;
                println!("FAILED  {name}: {figures}");
            }
        }
    }
}
