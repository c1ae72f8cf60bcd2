//! What is kept, for how long, and who may hold it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{Request, Response};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use tower::{Layer as _, Service as _, ServiceExt as _};
use tower_oauth2::auth::{AuthLayer, AuthOverride, AuthService, ResponseFuture};
use tower_oauth2::test_util::{Probe, Script};
use tower_oauth2::{AccessToken, Error, RetryPolicy, TokenCache, TokenRequest, TokenSource};

use super::fixture::{API, Body, Client, Issuer, challenged, item, over, with};

/// A source that says when it is dropped, and with it the cache.
struct Mortal {
    issued: AtomicUsize,
    dropped: Arc<AtomicUsize>,
}

impl TokenSource for Mortal {
    async fn token(&self, _: TokenRequest) -> Result<AccessToken, Error> {
        let number = self.issued.fetch_add(1, Ordering::SeqCst);
        Ok(AccessToken::bearer(format!("token-{number}"))?.with_lifetime(Duration::from_secs(60)))
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

fn mortal() -> (TokenCache, Arc<AtomicUsize>) {
    let dropped = Arc::<AtomicUsize>::default();
    let source = Mortal { issued: AtomicUsize::new(0), dropped: Arc::clone(&dropped) };
    (TokenCache::new(source), dropped)
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_ends_the_cache() {
    let (cache, ended) = mortal();
    let (tenant, tenant_ended) = mortal();
    let layer = AuthLayer::for_origin(cache, API).unwrap();
    let script = Script::new([challenged("Bearer error=invalid_token")]);
    let mut held = over(&layer, &script);
    let clone = held.clone();
    let retrying = RetryPolicy::default().layer(layer.layer(Script::default().probe()));
    // Refused, waited for, shared, an instance's own, renewed in the background, and one of an override.
    for _ in 0..4 {
        held.ready().await.unwrap().call(item()).await.unwrap();
        retrying.clone().oneshot(item()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    held.ready().await.unwrap().call(with(AuthOverride::cache(tenant))).await.unwrap();
    // The override went down with the request, as extensions do; the server forgets it now.
    assert_eq!(script.seen().len(), 5);
    tokio::task::yield_now().await;
    assert_eq!((ended.load(Ordering::SeqCst), tenant_ended.load(Ordering::SeqCst)), (0, 1));

    let unpolled = held.ready().await.unwrap().call(item());
    drop((layer, held, retrying));
    clone.oneshot(item()).await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!(ended.load(Ordering::SeqCst), 0);
    drop(unpolled);
    // A flight that is in the air ends first.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ended.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_future_that_waits_ends_with_its_caches() {
    let (cache, ended) = mortal();
    let client = over(&AuthLayer::for_origin(cache, API).unwrap(), &Script::default());
    drop(client.oneshot(item()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ended.load(Ordering::SeqCst), 1);
}

/// Lets an instance that has its own copy of the token live through `what`, and says what it sends then.
async fn held_through<Fut: Future<Output = ()>>(what: impl FnOnce(TokenCache) -> Fut) -> String {
    let issuer = Issuer::new("token").lifetime(Duration::from_secs(100));
    let cache = issuer.warm().await;
    let script = Script::default();
    let mut held = over(&AuthLayer::for_origin(cache.clone(), API).unwrap(), &script);
    for _ in 0..4 {
        held.ready().await.unwrap().call(item()).await.unwrap();
    }
    let mut clone = held.clone();
    what(cache).await;
    for _ in 0..4 {
        held.ready().await.unwrap().call(item()).await.unwrap();
        clone.ready().await.unwrap().call(item()).await.unwrap();
    }
    let sent = super::fixture::tokens(&script);
    assert_eq!(sent[..4], ["Bearer token-1"; 4]);
    assert!(sent[4..].iter().all(|token| *token == sent[4]), "{sent:?}");
    sent[4].clone()
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_held_lets_an_old_token_go() {
    assert_eq!(held_through(|_| async {}).await, "Bearer token-1");
    assert_eq!(held_through(|_| tokio::time::sleep(Duration::from_secs(101))).await, "Bearer token-2");
    assert_eq!(held_through(|cache| async move { cache.invalidate() }).await, "Bearer token-2");
    let rejected = held_through(|cache| async move {
        cache.reject(&cache.peek().unwrap());
    });
    assert_eq!(rejected.await, "Bearer token-2");
    let renewed = held_through(|cache| async move {
        cache.refresh().await.unwrap();
    });
    assert_eq!(renewed.await, "Bearer token-2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_token_that_was_dropped_before_a_call_is_never_sent_by_it() {
    // Says which token it saw.
    let api = Probe::new(|request: Request<Body>| async move {
        let number =
            request.headers()[AUTHORIZATION].to_str()?.rsplit('-').next().unwrap().parse::<usize>()?;
        Ok(Response::new(Body::default())).map(|mut response| {
            response.extensions_mut().insert(number);
            response
        })
    });
    let cache = Issuer::new("token").warm().await;
    let client: Client = AuthLayer::for_origin(cache.clone(), API).unwrap().layer(api);
    let (dropped, done) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let workers: Vec<_> = (0..4)
        .map(|number| {
            let (dropped, done, mut held) = (Arc::clone(&dropped), Arc::clone(&done), client.clone());
            tokio::spawn(async move {
                let mut calls = 0;
                while !done.load(Ordering::SeqCst) {
                    if number % 2 == 0 {
                        held = held.clone();
                    }
                    let before = dropped.load(Ordering::SeqCst);
                    let response = held.ready().await.unwrap().call(item()).await.unwrap();
                    let sent: usize = *response.extensions().get().unwrap();
                    assert!(sent > before, "token-{sent} was sent after token-{before} was dropped");
                    calls += 1;
                    tokio::task::yield_now().await;
                }
                calls
            })
        })
        .collect();
    for _ in 0..500 {
        let current = cache.get().await.unwrap().header_value().to_str().unwrap().to_owned();
        cache.invalidate();
        dropped.store(current.rsplit('-').next().unwrap().parse().unwrap(), Ordering::SeqCst);
        tokio::task::yield_now().await;
    }
    done.store(true, Ordering::SeqCst);
    for worker in workers {
        assert!(worker.await.unwrap() > 0);
    }
}

#[test]
fn what_should_be_send_and_sync_is() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    fn is_unpin<T: Unpin>() {}
    fn is_clone<T: Clone>() {}
    fn is_static<T: 'static>() {}
    type Hyper = HttpClient<HttpConnector, axum::body::Body>;

    is_send::<AuthLayer>();
    is_sync::<AuthLayer>();
    is_unpin::<AuthLayer>();
    is_clone::<AuthLayer>();
    is_static::<AuthLayer>();
    is_send::<AuthService<Hyper>>();
    is_sync::<AuthService<Hyper>>();
    is_unpin::<AuthService<Hyper>>();
    is_clone::<AuthService<Hyper>>();
    is_send::<AuthOverride>();
    is_sync::<AuthOverride>();
    is_send::<ResponseFuture<Hyper, axum::body::Body>>();
    is_unpin::<ResponseFuture<Hyper, axum::body::Body>>();
    is_send::<ResponseFuture<Client, Body>>();
}

#[tokio::test(start_paused = true)]
async fn debug_shows_no_secret() {
    let issuer = Issuer::new("S3CRET").latency(Duration::from_secs(1));
    let cache = issuer.cache();
    let layer = AuthLayer::for_origin(cache.clone(), API).unwrap();
    let script = Script::default();
    let mut held = over(&layer, &script);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let future = held.ready().await.unwrap().call(item());
        seen.push(format!("{future:?} {future:#?}"));
        future.await.unwrap();
        seen.push(format!("{layer:?} {layer:#?} {held:?} {held:#?}"));
    }
    let wish = AuthOverride::cache(cache);
    seen.push(format!("{wish:?} {wish:#?}"));
    for text in seen {
        assert!(!text.contains("S3CRET"), "{text}");
    }
    assert!(format!("{layer:?}").contains(API));
    assert!(super::fixture::tokens(&script)[0].contains("S3CRET"));
}
