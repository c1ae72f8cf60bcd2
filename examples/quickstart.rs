//! A client that calls a protected API without one failed request, while tokens expire, are revoked, and the API limits
//! the rate.
//!
//! ```sh
//! cargo run --example quickstart
//! ```
//!
//! It starts an authorization server and an API of its own, on loopback, and for ten seconds sends requests from 64
//! tasks: GETs, and POSTs whose bodies the API checks by their digests.
//!
//! 1. Tokens live 2 s. Each is replaced in the background while it is still good.
//! 2. Twice every token is revoked while 64 requests are in flight. They get a 401, and are sent again with a new one.
//! 3. Twice the tasks send more than the API takes. It responds with 429, and they wait as long as it says.
//!
//! With the environment variables `TOKEN_URL`, `CLIENT_ID`, `CLIENT_SECRET`, `API_URL` and, if need be, `SCOPE`, it sends
//! GETs to a server of your own instead, four per second; if one of the four is missing, it says so and does nothing. The
//! exit code is 1 if anything was off.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a program that measures and prints")]

#[path = "../tests/support/servers/mod.rs"]
mod support;
#[path = "quickstart/tally.rs"]
mod tally;
#[path = "quickstart/traffic.rs"]
mod traffic;
#[path = "quickstart/yours.rs"]
mod yours;

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tower::{BoxError, ServiceBuilder};
use tower_oauth2::auth::AuthLayer;
use tower_oauth2::retry::RetryPolicy;
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{ClientCredentials, Origin, TokenCache};

use support::Api;
use tally::Tally;
use traffic::{Plan, Round, Target, Traffic};
use yours::Yours;

const LIFETIME: Duration = Duration::from_secs(2);
const RUN: Duration = Duration::from_secs(10);
const TASKS: usize = 64;
/// Requests per second that the API takes. The tasks send 256, but for the rushes; so a request that is sent away finds room on
/// coming back, and the three retries of the default policy are plenty.
const LIMIT: u32 = 320;
/// How long the API takes for a request.
const THINK_TIME: Duration = Duration::from_millis(60);
/// How long the last responses of servers that are not ours are waited for.
const GRACE: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Yours::from_env() {
        Ok(Some(yours)) => call_your_servers(yours).await,
        Ok(None) => call_our_servers().await,
        Err(error) => Err(error),
    };
    done.unwrap_or_else(|error| {
        println!("error: {}", yours::one_line(&*error));
        ExitCode::FAILURE
    })
}

/// Builds what every user of the library has: retries outside, tokens inside, an HTTP client at the core.
fn connect(cache: &TokenCache, origin: Origin) -> Result<traffic::Client, BoxError> {
    Ok(ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(cache.clone(), origin)?)
        .service(HyperClient::new()))
}

async fn call_our_servers() -> Result<ExitCode, BoxError> {
    let server = FakeAuthorizationServer::builder()
        .client(FakeClient::confidential("quickstart", "a secret").scopes("items:read items:write"))
        .lifetime(LIFETIME)
        .latency(Duration::from_millis(150))
        .start()
        .await?;
    let api = Api::builder(&server).limit(LIMIT).latency(THINK_TIME).start().await?;
    println!("local servers, as the environment names none");
    println!("authorization server on {}, tokens live {LIFETIME:?}", server.origin());
    println!("API on {}, takes {THINK_TIME:?} for a request, at most {LIMIT} per second", api.origin());

    let source = ClientCredentials::builder(server.token_url(), "quickstart", "a secret")
        .scope("items:read")
        .scope("items:write")
        .build()?;
    let cache = TokenCache::new(source);
    let begun = Instant::now();
    cache.get().await?;

    // Two short rounds, to be caught by a revocation; two rushes that are more than the API takes.
    let started = Instant::now();
    let round = |millis, each| Round { at: started + Duration::from_millis(millis), each };
    let plan = Plan {
        tasks: TASKS,
        pause: Duration::from_millis(250),
        end: started + RUN,
        rounds: vec![round(2000, 3), round(3000, 12), round(6600, 3), round(7200, 12)],
    };
    let revoked = [plan.rounds[0].at, plan.rounds[2].at];
    let traffic = Traffic::new(connect(&cache, api.origin().parse()?)?, cache, Target::Items(api.origin()));
    let revocations = async {
        let mut met = Vec::new();
        for at in revoked {
            sleep_until(at).await;
            // The API holds what arrives until there is a request of every task, whose token it has not looked at.
            api.hold(true);
            while api.counts().waiting < TASKS as u64 && started.elapsed() < RUN {
                sleep(Duration::from_millis(1)).await;
            }
            let (open, waiting) = (traffic.open(), api.counts().waiting);
            let number = server.revoke_all();
            api.hold(false);
            println!(
                "{:>4.1} s  every token is revoked; {open} requests are in flight, {waiting} of them at the API",
                seconds(started),
            );
            sleep(Duration::from_millis(500)).await;
            met.push(api.unauthorized_by_revocation(number));
        }
        met
    };
    let progress = async {
        loop {
            sleep(Duration::from_secs(1)).await;
            let (tokens, seen) = (server.counts().token_requests, api.counts());
            println!(
                "{:>4.1} s  {} sent, {} without a response; {tokens} token requests, {} 401 responses, {} of 429",
                seconds(started),
                traffic.sent(),
                traffic.open(),
                seen.unauthorized,
                seen.limited,
            );
        }
    };
    let (tally, met) = tokio::select! {
        done = async { tokio::join!(traffic.run(plan), revocations) } => done,
        never = progress => never,
    };
    let tally = tally?;
    let elapsed = begun.elapsed();

    let (issued, seen) = (server.counts(), api.counts());
    // The first, one for each revocation, and no more than one in three quarters of a lifetime.
    let allowed = 1.0 + issued.revocations as f64 + elapsed.as_secs_f64() / (0.75 * LIFETIME.as_secs_f64());
    let rows = [
        ("requests, from 64 tasks", tally.requests() as u64),
        ("failed", tally.failures() as u64),
        ("token requests", issued.token_requests),
        ("401 responses, replayed", seen.unauthorized),
        ("  since the token had been revoked", met.iter().sum()),
        ("429 responses, waited out", seen.limited),
        ("items accepted twice", seen.duplicates),
        ("bodies that arrived wrong", seen.wrong_bodies),
    ];
    tally.print(elapsed, &rows);
    let misses = [
        (tally.requests() < 2000, "fewer than 2000 requests"),
        (tally.failures() > 0, "a request failed"),
        (seen.ok != tally.requests() as u64, "the API did not serve as many requests as were sent"),
        (seen.duplicates > 0, "an item arrived twice"),
        (seen.wrong_bodies > 0, "a body arrived wrong"),
        (met.iter().any(|met| *met < TASKS as u64), "a revocation was not met by a request of every task"),
        (seen.limited == 0, "no 429 was met"),
        (issued.token_requests as f64 > allowed, "more token requests than expiries and revocations explain"),
    ];
    Ok(conclude(&tally, &misses, issued.token_requests, seen.unauthorized, seen.limited))
}

async fn call_your_servers(yours: Yours) -> Result<ExitCode, BoxError> {
    let Yours { token_url, client_id, client_secret, api_url, api_origin, scope } = yours;
    let source = ClientCredentials::builder(token_url, client_id, client_secret).scope(scope).build()?;
    let cache = TokenCache::new(source);
    let client = connect(&cache, api_origin.clone())?;
    println!("your servers, as the environment names them; asking for a token");
    cache.get().await?;
    println!("there is a token; sending 4 requests per second to {api_origin} for {RUN:?}");

    let started = Instant::now();
    let end = started + RUN;
    let plan = Plan { tasks: 4, pause: Duration::from_secs(1), end, rounds: Vec::new() };
    let traffic = Traffic::new(client, cache.clone(), Target::Url { url: api_url, until: end + GRACE });
    let progress = async {
        loop {
            sleep(Duration::from_secs(1)).await;
            println!(
                "{:>4.1} s  {} sent, {} without a response; {} 401 responses, {} of 429",
                seconds(started),
                traffic.sent(),
                traffic.open(),
                traffic.rejected(),
                traffic.throttled(),
            );
        }
    };
    let tally = tokio::select! {
        tally = traffic.run(plan) => tally?,
        never = progress => never,
    };

    // The servers' counters are out of reach: these are the client's.
    let status = cache.status();
    let token_requests = status.fetched() + u64::from(status.failures_in_a_row());
    let rows = [
        ("requests, from 4 tasks", tally.requests() as u64),
        ("failed", tally.failures() as u64),
        ("token requests", token_requests),
        ("401 responses, replayed", tally.replayed_401()),
        ("429 responses, waited out", tally.waited_429()),
    ];
    tally.print(started.elapsed(), &rows);
    let failed = match traffic.hopeless() {
        Some(failure) => {
            format!("stopped, as the first requests all failed: {failure}; {}", yours::advice(&failure))
        }
        None => "a request failed".to_owned(),
    };
    let misses = [(tally.failures() > 0, failed.as_str()), (tally.requests() == 0, "no request was sent")];
    Ok(conclude(&tally, &misses, token_requests, tally.replayed_401(), tally.waited_429()))
}

fn conclude(
    tally: &Tally,
    misses: &[(bool, &str)],
    token_requests: u64,
    replayed: u64,
    waited: u64,
) -> ExitCode {
    for (_, miss) in misses.iter().filter(|(missed, _)| *missed) {
        println!("error: {miss}");
    }
    println!(
        "quickstart: requests={} failed={} token_requests={token_requests} replayed_401={replayed} waited_429={waited}",
        tally.requests(),
        tally.failures(),
    );
    ExitCode::from(u8::from(misses.iter().any(|(missed, _)| *missed)))
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}
