//! Ten processes of a fleet share one token through Redis.
//!
//! ```sh
//! cargo run --features redis --example shared_redis
//! ```
//!
//! With `REDIS_URL` it uses that server, else it starts `redis-server` on a free port of loopback. All processes start at once,
//! and call an API for six seconds, with tokens that live for three.

#![allow(clippy::print_stdout, reason = "an example prints")]

#[path = "shared_redis/server.rs"]
mod server;

use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tower::BoxError;
use tower_oauth2::store::{RedisStore, SealingKey, Shared};
use tower_oauth2::test_util::{FakeApi, FakeAuthorizationServer, FakeClient};
use tower_oauth2::{
    AccessToken, ApiClient, ClientCredentials, Error, SourceIdentity, TokenRequest, TokenSource,
};

const PROCESSES: u32 = 10;

/// One process of the fleet: this is what a service of yours does.
async fn serve(redis: &str, token_url: &str, api_url: &str) -> Result<(), BoxError> {
    let source = Counted(ClientCredentials::builder(token_url, "fleet", "a secret").build()?);
    // In production: SealingKey::from_env("TOKEN_SEALING_KEY"), the same for all processes.
    let shared = Shared::builder(source, RedisStore::connect(redis)?, SealingKey::new([7; 32])).build()?;
    let api = ApiClient::connect(api_url, shared)?;
    let (mut requests, mut failed) = (0, 0);
    for _ in 0..60 {
        requests += 1;
        failed +=
            u32::from(!api.get("items").send().await.is_ok_and(|response| response.status().is_success()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("{requests} {failed} {}", FETCHED.load(Relaxed));
    Ok(())
}

/// Counts the tokens that this process has fetched itself. A service of yours has no need of it.
struct Counted(ClientCredentials);

static FETCHED: AtomicU32 = AtomicU32::new(0);

impl TokenSource for Counted {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        FETCHED.fetch_add(1, Relaxed);
        self.0.token(request).await
    }

    fn identity(&self) -> Option<SourceIdentity> {
        self.0.identity()
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [redis, token_url, api_url] = arguments.as_slice() {
        return serve(redis, token_url, api_url).await;
    }
    let (redis, _server) = server::start().await?;
    let client = FakeClient::confidential("fleet", "a secret");
    let provider =
        FakeAuthorizationServer::builder().client(client).lifetime(Duration::from_secs(3)).start().await?;
    let server = FakeApi::builder(&provider).start().await?;

    let arguments = [redis, provider.token_url(), server.origin()];
    let start = |_| Command::new(std::env::current_exe()?).args(&arguments).stdout(Stdio::piped()).spawn();
    let fleet = (0..PROCESSES).map(start).collect::<std::io::Result<Vec<_>>>()?;
    let (mut requests, mut failed) = (0, 0);
    for (number, mut process) in fleet.into_iter().enumerate() {
        let stdout = process.stdout.take().ok_or("a process without stdout")?;
        let said = BufReader::new(stdout).lines().next_line().await?.unwrap_or_default();
        let said = said.split(' ').map(str::parse).collect::<Result<Vec<u32>, _>>()?;
        let [sent, missed, fetched] = said[..] else { return Err("a process ended early".into()) };
        println!(
            "process {number}: {sent} requests, {missed} failed, {fetched} tokens fetched; the others were shared"
        );
        (requests, failed) = (requests + sent, failed + missed);
    }
    let token_requests = provider.counts().token_requests;
    println!(
        "shared_redis: processes={PROCESSES} requests={requests} failed={failed} token_requests={token_requests}"
    );
    if failed > 0 || token_requests > 5 {
        Err("more token requests than a fleet needs".into())
    } else {
        Ok(())
    }
}
