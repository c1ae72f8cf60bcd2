//! Threads and a blocking client: no runtime, no layer, one token for all.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use http::StatusCode;
use http::header::AUTHORIZATION;
use reqwest::blocking;
use tower::BoxError;
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient};
use tower_oauth2::{AccessToken, ClientCredentials, TokenCache};

use crate::servers::Api;

const THREADS: u64 = 16;
const REQUESTS_PER_THREAD: u64 = 50;
const REQUESTS: u64 = THREADS * REQUESTS_PER_THREAD;
const REVOCATIONS: u64 = 3;
/// After so many requests the next revocation is due.
const BETWEEN: u64 = REQUESTS / (REVOCATIONS + 1);

#[test]
fn threads_share_one_token_request_per_revocation() -> Result<(), BoxError> {
    // The servers are async; nothing else here is.
    let elsewhere = tokio::runtime::Runtime::new()?;
    let billing = FakeClient::confidential("billing", "hunter2").scopes("items");
    let server = elsewhere.block_on(FakeAuthorizationServer::builder().client(billing).start())?;
    let api = elsewhere.block_on(Api::builder(&server).start())?;

    let cache =
        TokenCache::new(ClientCredentials::builder(server.token_url(), "billing", "hunter2").build()?);
    let client = blocking::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;

    let (origin, done) = (api.origin(), AtomicU64::new(0));
    thread::scope(|scope| {
        let work = || {
            for item in 0..REQUESTS_PER_THREAD {
                let response = get(&client, &cache, &format!("{origin}/items/{item}"))?;
                assert_eq!(response.status(), 200);
                let done = done.fetch_add(1, Relaxed) + 1;
                if done.is_multiple_of(BETWEEN) && done < REQUESTS {
                    server.revoke_all();
                }
            }
            Ok::<_, BoxError>(())
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("the assertions of a thread hold"))
    })?;

    let counts = api.counts();
    assert_eq!(counts.ok, REQUESTS);
    assert!(counts.unauthorized >= REVOCATIONS, "{counts:?}");
    assert_eq!(server.counts().token_requests, 1 + REVOCATIONS);
    Ok(())
}

/// Sends a request with the token in use, and once more with another one if the API refuses that.
fn get(client: &blocking::Client, cache: &TokenCache, url: &str) -> Result<blocking::Response, BoxError> {
    let token = cache.blocking_get()?;
    let send =
        |token: &AccessToken| client.get(url).header(AUTHORIZATION, token.header_value().clone()).send();
    let response = send(&token)?;
    if response.status() != StatusCode::UNAUTHORIZED {
        cache.accept(&token);
        return Ok(response);
    }
    // Only the first report drops the token. The other threads find the next one, or wait for it.
    cache.reject(&token);
    Ok(send(&cache.blocking_get()?)?)
}
