//! Shares one token between the processes of a fleet, through Redis.
//!
//! ```sh
//! cargo run --example shared_redis --features redis                             # starts redis-server on loopback
//! REDIS_URL=redis://... cargo run --example shared_redis --features redis       # uses a server of yours
//! ```

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;
use std::{env, process};

use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::sleep;
use tower::BoxError;
use tower_oauth2::store::{RedisStore, SealingKey, Shared};
use tower_oauth2::test_util::{FakeApi, FakeAuthorizationServer, FakeClient};
use tower_oauth2::{ApiClient, ClientCredentials};

/// One process of the fleet. This is what a service of yours does.
async fn serve(redis: &str, token_url: &str, api_url: &str) -> Result<(), BoxError> {
    let source = ClientCredentials::builder(token_url, "fleet", "hunter2").build()?;
    // In production: `SealingKey::from_env("TOKEN_SEALING_KEY")`, the same for all processes.
    let shared = Shared::builder(source, RedisStore::connect(redis)?, SealingKey::new([7; 32])).build()?;
    let api = ApiClient::connect(api_url, shared)?;
    for _ in 0..40 {
        api.get("items").send().await?.error_for_status()?;
        sleep(Duration::from_millis(100)).await;
    }
    println!("process {}: 40 requests", process::id());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // This program starts itself once more for each process.
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [redis, token_url, api_url] = arguments.as_slice() {
        return serve(redis, token_url, api_url).await;
    }
    // These stand for your provider and your API. A token lives for three seconds.
    let client = FakeClient::confidential("fleet", "hunter2");
    let provider =
        FakeAuthorizationServer::builder().client(client).lifetime(Duration::from_secs(3)).start().await?;
    let server = FakeApi::builder(&provider).start().await?;
    let (redis, _running) = redis().await?;

    let arguments = [redis, provider.token_url(), server.origin()];
    let start = |_| Command::new(env::current_exe()?).args(&arguments).spawn();
    let fleet = (0..10).map(start).collect::<Result<Vec<_>, _>>()?;
    for mut process in fleet {
        process.wait().await?;
    }
    println!("{} requests, {} tokens fetched", server.counts().ok, provider.counts().tokens);
    Ok(())
}

/// Returns the server that `REDIS_URL` names, or starts one that ends with this program.
async fn redis() -> Result<(String, Option<Child>), BoxError> {
    if let Ok(url) = env::var("REDIS_URL") {
        return Ok((url, None));
    }
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let mut server = Command::new("redis-server");
    server
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", ""])
        .stdout(Stdio::null())
        .kill_on_drop(true);
    let server =
        server.spawn().map_err(|error| format!("install redis-server, or set REDIS_URL: {error}"))?;
    while TcpStream::connect(format!("127.0.0.1:{port}")).await.is_err() {
        sleep(Duration::from_millis(50)).await;
    }
    Ok((format!("redis://127.0.0.1:{port}"), Some(server)))
}
