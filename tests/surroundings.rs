//! What is called outside a runtime, in one without a timer, in one thread or in several: an error at most, never a panic.
//!
//! The future is polled by hand where there is no runtime, so one that waits for ever shows as such.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::type_complexity, reason = "the type of a transport and of a table, once each")]

use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::runtime::{Builder, Runtime};
use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};
use tower_oauth2::extensions::Deadline;
use tower_oauth2::grants::{Revocation, SecurityToken, TokenExchange, TokenType};
use tower_oauth2::tenants::TenantCaches;
use tower_oauth2::{
    AccessToken, AuthLayer, ClientCredentials, Error, FetchReason, FileToken, RefreshTokenGrant, RetryPolicy,
    TokenCache, TokenRequest, TokenSource as _, revoker_fn, source_fn,
};

const SECOND: Duration = Duration::from_secs(1);
const URL: &str = "https://login.example.com/token";

/// Where a call is made.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Around {
    Nothing,
    NoTimer,
    OneThread,
    ManyThreads,
}

const AROUND: [Around; 4] = [Around::Nothing, Around::NoTimer, Around::OneThread, Around::ManyThreads];

impl Around {
    fn runtime(self) -> Option<Runtime> {
        match self {
            Self::Nothing => None,
            Self::NoTimer => Some(Builder::new_current_thread().build().unwrap()),
            Self::OneThread => Some(Builder::new_current_thread().enable_all().build().unwrap()),
            Self::ManyThreads => {
                Some(Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
            }
        }
    }
}

type Call = Pin<Box<dyn Future<Output = String>>>;

/// Makes each call in each of the four surroundings, on a thread of its own. Returns what came of it, one line each; a call
/// that panics or does not end fails the test.
fn everywhere(name: &str, call: impl Fn(Around) -> Call + Copy + Send + 'static) -> Vec<String> {
    let outcome = |around: Around| {
        let (done, ended) = mpsc::channel();
        std::thread::spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| match around.runtime() {
                Some(runtime) => runtime.block_on(async { call(around).await }),
                None => {
                    let mut call = call(around);
                    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                        Poll::Ready(outcome) => outcome,
                        Poll::Pending => "waits".to_owned(),
                    }
                }
            }));
            let _ = done.send(outcome.unwrap_or_else(|_| "panicked".to_owned()));
        });
        let outcome =
            ended.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| "never ended".to_owned());
        assert!(outcome != "panicked" && outcome != "never ended", "{name}, {around:?}: {outcome}");
        outcome
    };
    AROUND.into_iter().map(outcome).collect()
}

fn told<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn said<T>(result: Result<T, BoxError>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn key() -> AccessToken {
    AccessToken::bearer("key").unwrap()
}

/// A cache with a token, made by a runtime that is gone.
fn warm() -> TokenCache {
    let cache = TokenCache::builder(key()).revoke_with(revoker_fn(|_| async { Ok(()) })).build();
    let warming = cache.clone();
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || runtime().block_on(warming.get()).unwrap()).join().unwrap();
    cache
}

/// A cache whose fetch is in flight, in a runtime that is parked and returned.
fn in_flight() -> (TokenCache, Runtime) {
    let cache = TokenCache::builder(source_fn(|_| pending())).revoke_at_shutdown(true).build();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let poll = || {
        let mut get = Box::pin(cache.get());
        runtime.block_on(async {
            std::future::poll_fn(|context| {
                assert!(get.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            tokio::task::yield_now().await;
        });
    };
    std::thread::scope(|scope| scope.spawn(poll).join().unwrap());
    (cache, runtime)
}

/// What is wrong where there is no runtime, and where there is no timer.
fn names_what_is_missing(outcomes: &[String]) -> bool {
    outcomes[0].contains("outside a tokio runtime") && outcomes[1].contains("enable_time")
}

const WORKS: [bool; 4] = [false, false, true, true];

fn works(outcomes: &[String]) -> Vec<bool> {
    outcomes.iter().map(|outcome| outcome == "ok").collect()
}

#[test]
fn a_cache_without_a_token_says_what_is_missing() {
    let get = everywhere("get", |_| Box::pin(async { told(TokenCache::new(key()).get().await) }));
    assert_eq!(works(&get), WORKS);
    assert!(get[0].contains("outside a tokio runtime") && get[1].contains("enable_time"), "{get:?}");
    for outcomes in [
        everywhere("refresh", |_| Box::pin(async { told(TokenCache::new(key()).refresh().await) })),
        everywhere("warm_up", |_| {
            Box::pin(async { told(TokenCache::new(key()).warm_up(Duration::from_millis(1)).await) })
        }),
        everywhere("keep_warm", |_| Box::pin(async { told(TokenCache::new(key()).keep_warm()) })),
        everywhere("get behind another cache", |_| {
            Box::pin(async { told(TokenCache::new(TokenCache::new(key()).as_source()).get().await) })
        }),
        everywhere("tenants", |_| {
            Box::pin(async {
                let caches = TenantCaches::new(|_: &String| Ok(key()));
                told(caches.get("north").unwrap().get().await)
            })
        }),
    ] {
        assert_eq!(works(&outcomes), WORKS);
    }
}

#[test]
fn a_cache_with_a_token_serves_it_everywhere() {
    let all = [true; 4];
    for outcomes in [
        everywhere("get of a warm cache", |_| Box::pin(async { told(warm().get().await) })),
        everywhere("peek, accept, reject, expire, status", |_| {
            Box::pin(async {
                let cache = warm();
                let token = cache.peek().unwrap();
                cache.accept(&token);
                cache.reject(&token);
                cache.invalidate();
                let _ = (cache.status(), cache.watch(), cache.as_source(), format!("{cache:?}"));
                "ok".to_owned()
            })
        }),
        everywhere("revoke", |_| Box::pin(async { told(warm().revoke().await) })),
        everywhere("shutdown", |_| Box::pin(async { told(warm().shutdown(SECOND).await) })),
        everywhere("a request whose token is at hand", |_| {
            Box::pin(async {
                said(api(AuthLayer::for_origin(warm(), "https://api.example.com").unwrap()).await)
            })
        }),
    ] {
        assert_eq!(works(&outcomes), all);
    }
}

#[test]
fn a_shutdown_while_a_fetch_is_in_flight_ends_everywhere() {
    let outcomes = everywhere("shutdown with a fetch in flight", |_| {
        Box::pin(async {
            let (cache, runtime) = in_flight();
            let outcome = told(cache.shutdown(Duration::from_millis(20)).await);
            assert!(cache.status().health().to_string() == "closed");
            runtime.shutdown_background();
            outcome
        })
    });
    assert!(
        outcomes[0].contains("outside a tokio runtime") && outcomes[1].contains("enable_time"),
        "{outcomes:?}"
    );
    assert!(outcomes[2].contains("still going on") && outcomes[3].contains("still going on"), "{outcomes:?}");
    everywhere("shutdown of many caches", |_| {
        Box::pin(async {
            let caches = TenantCaches::new(|_: &String| Ok(key()));
            let _ = caches.get("north").unwrap().get().await;
            told(caches.shutdown(Duration::from_millis(20)).await)
        })
    });
    everywhere("revocation at the shutdown", |_| {
        Box::pin(async {
            let revoker = revoker_fn(|_| async { Ok(()) });
            let cache = TokenCache::builder(key()).revoke_with(revoker).revoke_at_shutdown(true).build();
            let _ = cache.get().await;
            told(cache.shutdown(Duration::from_millis(20)).await)
        })
    });
}

#[test]
fn a_thread_without_a_runtime_blocks_and_one_with_tasks_is_told() {
    let outcomes =
        everywhere("blocking_get", |_| Box::pin(async { told(TokenCache::new(key()).blocking_get()) }));
    assert_eq!(works(&outcomes), [true, false, false, false]);
    assert!(outcomes[1..].iter().all(|outcome| outcome.contains("async code")), "{outcomes:?}");
}

#[test]
fn a_watch_of_a_cache_that_is_gone_ends_everywhere() {
    let outcomes = everywhere("next", |_| {
        Box::pin(async {
            let mut watch = TokenCache::new(key()).watch();
            if watch.next().await.is_none() { "ok".to_owned() } else { "an event".to_owned() }
        })
    });
    assert_eq!(works(&outcomes), [true; 4]);
}

// --- Sources ---

/// A transport whose first answers are 503, so that a source has to wait.
fn busy() -> impl tower::Service<
    Request<tower_oauth2::Body>,
    Response = Response<Full<Bytes>>,
    Error = BoxError,
    Future = std::future::Ready<Result<Response<Full<Bytes>>, BoxError>>,
> + Clone
+ Send
+ Sync
+ 'static {
    service_fn(|_: Request<tower_oauth2::Body>| {
        let response = Response::builder().status(503).header("retry-after", "0").body(Full::default());
        std::future::ready(response.map_err(Into::into))
    })
}

fn request() -> TokenRequest {
    TokenRequest::new(FetchReason::Initial)
}

#[test]
fn a_source_that_is_asked_without_a_cache_needs_what_it_needs_and_says_so() {
    let calls: [(&str, fn(Around) -> Call); 6] = [
        ("ClientCredentials", |_| {
            Box::pin(async {
                let source = ClientCredentials::builder(URL, "billing", "hunter2-hunter2").retries(1);
                told(source.build_with(busy()).unwrap().token(request()).await)
            })
        }),
        ("ClientCredentials by a cache", |_| {
            Box::pin(async {
                let source = ClientCredentials::builder(URL, "billing", "hunter2-hunter2").retries(1);
                told(TokenCache::new(source.build_with(busy()).unwrap()).get().await)
            })
        }),
        ("RefreshTokenGrant", |_| {
            Box::pin(async {
                let source = RefreshTokenGrant::builder(URL, "cli", "hunter2-hunter2")
                    .refresh_token("refresh-token")
                    .retries(1);
                told(source.build_with(busy()).unwrap().token(request()).await)
            })
        }),
        ("TokenExchange", |_| {
            Box::pin(async {
                let subject = SecurityToken::new(key(), TokenType::JWT);
                let source = TokenExchange::builder(URL, subject).retries(1);
                told(source.build_with(busy()).unwrap().token(request()).await)
            })
        }),
        ("FileToken", |_| {
            Box::pin(async { told(FileToken::new("/a/file/that/is/not/there").token(request()).await) })
        }),
        ("Revocation", |_| {
            Box::pin(async {
                let revocation =
                    Revocation::builder(URL, "billing", "hunter2-hunter2").build_with(busy()).unwrap();
                let cache = TokenCache::builder(key()).revoke_with(revocation).build();
                let _ = cache.get().await;
                told(cache.revoke().await)
            })
        }),
    ];
    for (name, call) in calls {
        let outcomes = everywhere(name, call);
        // Revocation has no token to revoke where none could be fetched.
        assert!(name == "Revocation" || names_what_is_missing(&outcomes), "{name}: {outcomes:?}");
    }
}

/// hyper's client wants a runtime for its connections, and would panic for it.
#[cfg(feature = "hyper-client")]
#[test]
fn a_client_over_the_network_says_what_is_missing() {
    use tower_oauth2::transport::HyperClient;
    for url in ["http://127.0.0.1:9/", "https://127.0.0.1:9/"] {
        let outcomes = everywhere("hyper", move |_| {
            Box::pin(async move {
                let request = Request::get(url).body(Full::<Bytes>::default()).unwrap();
                let error = HyperClient::new().oneshot(request).await.unwrap_err();
                let source = std::error::Error::source(&*error).map(ToString::to_string);
                source.unwrap_or_else(|| error.to_string())
            })
        });
        assert!(names_what_is_missing(&outcomes), "{outcomes:?}");
    }
    #[cfg(feature = "reqwest")]
    for url in ["http://127.0.0.1:9/", "https://127.0.0.1:9/"] {
        use tower_oauth2::transport::ReqwestClient;
        let outcomes = everywhere("reqwest", move |_| {
            Box::pin(async move {
                let request = Request::get(url).body(Full::<Bytes>::default()).unwrap();
                let client = ReqwestClient::build(|builder| builder).unwrap();
                let error = client.oneshot(request).await.unwrap_err();
                let source = std::error::Error::source(&*error).map(ToString::to_string);
                source.unwrap_or_else(|| error.to_string())
            })
        });
        assert!(names_what_is_missing(&outcomes), "{outcomes:?}");
    }
    let outcomes = everywhere("ClientCredentials over hyper", |_| {
        Box::pin(async {
            let source =
                ClientCredentials::builder("https://127.0.0.1:9/token", "billing", "hunter2-hunter2");
            told(TokenCache::new(source.retries(0).build().unwrap()).get().await)
        })
    });
    assert!(names_what_is_missing(&outcomes), "{outcomes:?}");
}

// --- Layers ---

async fn api(layer: AuthLayer) -> Result<Response<Full<Bytes>>, BoxError> {
    let api = service_fn(async |_: Request<_>| Ok::<_, BoxError>(Response::new(Full::<Bytes>::default())));
    let request = Request::get("https://api.example.com/items").body(Full::<Bytes>::default())?;
    layer.layer(api).oneshot(request).await
}

/// Sends a request by retry to an API that refuses it with this status, as often as it likes.
async fn retried(status: u16, deadline: Option<Duration>) -> String {
    let api = service_fn(move |_: Request<_>| {
        let mut response = Response::builder().status(status);
        if status == 429 {
            response = response.header("retry-after", "0");
        }
        std::future::ready(response.body(Full::<Bytes>::default()).map_err(BoxError::from))
    });
    let mut request = Request::get("https://api.example.com/items").body(Full::<Bytes>::default()).unwrap();
    if let Some(deadline) = deadline {
        request.extensions_mut().insert(Deadline::within(deadline));
    }
    let policy = RetryPolicy::builder().max_retries(1).min_delay(Duration::from_millis(1)).build().unwrap();
    said(policy.layer(api).oneshot(request).await)
}

#[cfg(feature = "stack")]
#[test]
fn a_stack_says_what_is_missing() {
    let outcomes = everywhere("stack", |_| {
        Box::pin(async {
            let api =
                service_fn(async |_: Request<_>| Ok::<_, BoxError>(Response::new(Full::<Bytes>::default())));
            let stack = tower_oauth2::stack::Stack::for_base_url(warm(), "https://api.example.com")
                .unwrap()
                .build(api);
            let request =
                Request::get("https://api.example.com/items").body(Full::<Bytes>::default()).unwrap();
            said(stack.oneshot(request).await)
        })
    });
    assert_eq!(works(&outcomes), WORKS);
    assert!(names_what_is_missing(&outcomes), "{outcomes:?}");
}

#[test]
fn a_layer_that_has_to_wait_needs_a_runtime_and_says_so() {
    let outcomes = everywhere("a request that waits for its token", |_| {
        Box::pin(async { said(api(AuthLayer::for_origin(key(), "https://api.example.com").unwrap()).await) })
    });
    assert_eq!(works(&outcomes), WORKS);
    for status in [200_u16, 429, 503] {
        match status {
            200 => everywhere("retry, nothing to do", |_| Box::pin(retried(200, None))),
            429 => everywhere("retry after 429", |_| Box::pin(retried(429, None))),
            _ => everywhere("retry after 503", |_| Box::pin(retried(503, None))),
        };
    }
    everywhere("retry with a deadline", |_| Box::pin(retried(503, Some(SECOND * 5))));
    everywhere("retry with a deadline that has passed", |_| Box::pin(retried(200, Some(Duration::ZERO))));
}

#[cfg(all(feature = "hyper-client", feature = "stack"))]
#[test]
fn a_runtime_without_io_is_an_error_that_says_what_to_do() {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let builder = || tower_oauth2::ApiClient::builder("http://127.0.0.1:9", key());
        let clients = [
            builder().build(),
            #[cfg(feature = "reqwest")]
            builder().build_with(tower_oauth2::transport::ReqwestClient::build(|client| client).unwrap()),
        ];
        for api in clients {
            let error = api.unwrap().get("x").send().await.unwrap_err();
            assert!(error.is_connect() && error.to_string().contains("enable_io()"), "{error}");
        }
        let source =
            ClientCredentials::builder("http://127.0.0.1:9/token", "billing", "secret").build().unwrap();
        let error = TokenCache::new(source).get().await.unwrap_err();
        assert_eq!(error.kind(), tower_oauth2::ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("enable_io()"), "{error}");
    });
}
