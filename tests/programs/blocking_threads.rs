//! Threads and a blocking client: no runtime, no async code, and one token for all.
//!
//! `cargo run --example blocking_threads`
//!
//! 16 threads call an API while all tokens are revoked three times. There is no layer here, so the loop around a request is
//! written out: it reports what the API says of the token, and sends the request once more with another. The last line is
//! checked, and the exit code is 1 if a figure in it is off.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "../support/servers/mod.rs"]
mod support;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use http::StatusCode;
use http::header::AUTHORIZATION;
use reqwest::blocking;
use support::Api;
use tower::BoxError;
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient};
use tower_oauth2::{ClientCredentials, TokenCache};

const THREADS: u64 = 16;
const REQUESTS_PER_THREAD: u64 = 50;
const REQUESTS: u64 = THREADS * REQUESTS_PER_THREAD;
const REVOCATIONS: u64 = 3;

fn main() -> Result<ExitCode, BoxError> {
    // What others run: an authorization server, and an API that wants its tokens. They are async; nothing else here is.
    let elsewhere = tokio::runtime::Runtime::new()?;
    let billing = FakeClient::confidential("billing", "hunter2").scopes("items");
    let server = elsewhere.block_on(FakeAuthorizationServer::builder().client(billing).start())?;
    let builder = Api::builder(&server).think_time(Duration::from_millis(5));
    let api = elsewhere.block_on(builder.start())?;

    // What you write, once.
    let cache =
        TokenCache::new(ClientCredentials::builder(server.token_url(), "billing", "hunter2").build()?);
    let client = blocking::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;

    let origin = api.origin();
    let answered: Result<u64, BoxError> = thread::scope(|scope| {
        let work = || {
            let mut ok = 0;
            for item in 0..REQUESTS_PER_THREAD {
                let response = get(&client, &cache, &format!("{origin}/items/{item}"))?;
                ok += u64::from(response.status() == StatusCode::OK);
            }
            Ok::<_, BoxError>(ok)
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        for number in 1..=REVOCATIONS {
            // By what was sent, not by the clock: on a busy machine a request could meet two of them, and is sent again once.
            let due = number * REQUESTS / (REVOCATIONS + 1);
            while api.counts().requests < due && !threads.iter().all(|thread| thread.is_finished()) {
                thread::sleep(Duration::from_millis(1));
            }
            server.revoke_all();
            println!("(all tokens are revoked, for the {number}. time)");
        }
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread of this example does not panic"))
            .sum()
    });
    let ok = answered?;

    let (asked, counts) = (server.counts().token_requests, api.counts());
    let failed = REQUESTS - ok;
    println!(
        "blocking_threads: threads={THREADS} ok={ok} failed={failed} sent_again={} revocations={REVOCATIONS} \
         token_requests={asked}",
        counts.unauthorized
    );
    let is_as_promised = failed == 0 && counts.unauthorized > 0 && (2..=1 + REVOCATIONS).contains(&asked);
    Ok(if is_as_promised { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Gets something with the token in use, and once more with another if the API refuses that one.
fn get(client: &blocking::Client, cache: &TokenCache, url: &str) -> Result<blocking::Response, BoxError> {
    let token = cache.blocking_get()?;
    let send = |token: &tower_oauth2::AccessToken| {
        // The value is marked as sensitive, and no URL but this one gets it: the client follows no redirect.
        client.get(url).header(AUTHORIZATION, token.header_value().clone()).send()
    };
    let response = send(&token)?;
    if response.status() != StatusCode::UNAUTHORIZED {
        cache.accept(&token);
        return Ok(response);
    }
    // Only the first who says so drops it; the others find the next one there, or wait for it.
    cache.reject(&token);
    Ok(send(&cache.blocking_get()?)?)
}
