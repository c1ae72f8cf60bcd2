//! Calls an API from threads, without a runtime and without layers: reqwest's blocking client and a shared `TokenCache`.
//!
//! ```sh
//! cargo run --example blocking_threads
//! ```

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::thread;

use http::StatusCode;
use http::header::AUTHORIZATION;
use reqwest::blocking::{Client, Response};
use tower::BoxError;
use tower_oauth2::test_util::{FakeApi, FakeAuthorizationServer, FakeClient};
use tower_oauth2::{ClientCredentials, TokenCache};

fn main() -> Result<(), BoxError> {
    // These stand for your provider and your API. They are async, nothing else here is.
    let runtime = tokio::runtime::Runtime::new()?;
    let billing = FakeClient::confidential("billing", "hunter2");
    let provider = runtime.block_on(FakeAuthorizationServer::builder().client(billing).start())?;
    let api = runtime.block_on(FakeApi::builder(&provider).start())?;

    let source = ClientCredentials::builder(provider.token_url(), "billing", "hunter2").build()?;
    let cache = TokenCache::new(source);
    // A redirect could carry the token to another server.
    let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;

    for round in 1..=2 {
        let url = format!("{}/round/{round}", api.origin());
        thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| get(&client, &cache, &url))).collect();
            for thread in threads {
                match thread.join().expect("the thread does not panic") {
                    Ok(response) => println!("round {round}: {}", response.status()),
                    Err(error) => println!("round {round}: {error}"),
                }
            }
        });
        provider.revoke_all();
    }
    println!("tokens fetched: {}", provider.counts().tokens);
    Ok(())
}

/// Sends a request with the token in use, and once more with another one if the API refuses that.
fn get(client: &Client, cache: &TokenCache, url: &str) -> Result<Response, BoxError> {
    let token = cache.blocking_get()?;
    let response = client.get(url).header(AUTHORIZATION, token.header_value()).send()?;
    if response.status() != StatusCode::UNAUTHORIZED {
        cache.accept(&token);
        return Ok(response);
    }
    // The first thread that says so drops the token. The others find the next one, or wait for it.
    cache.reject(&token);
    let token = cache.blocking_get()?;
    Ok(client.get(url).header(AUTHORIZATION, token.header_value()).send()?)
}
