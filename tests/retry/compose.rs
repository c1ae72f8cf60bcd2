//! The layer in other people's stacks.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body as AxumBody;
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tonic::body::Body as TonicBody;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer as _, Service, ServiceBuilder, ServiceExt as _};
use tower_oauth2::RetryPolicy;
use tower_oauth2::retry::{BodyFactory, RequestBody, ResponseBody, ResponseFuture, RetryService};
use tower_oauth2::test_util::{Probe, Script, ScriptedResponse, reply};

use super::{answers, get, report, text};

#[test]
fn what_should_be_send_and_sync_is() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    fn is_unpin<T: Unpin>() {}
    type Hyper = Client<HttpConnector, RequestBody<AxumBody>>;
    is_send::<RetryService<Hyper>>();
    is_sync::<RetryService<Hyper>>();
    is_send::<ResponseFuture<Hyper, AxumBody>>();
    is_send::<RequestBody<UnsyncBoxBody<Bytes, BoxError>>>();
    is_sync::<RequestBody<Full<Bytes>>>();
    is_unpin::<RequestBody<AxumBody>>();
    is_sync::<ResponseBody<Full<Bytes>>>();
    is_sync::<RetryPolicy>();
    is_sync::<BodyFactory>();
}

/// A server on loopback that refuses every first try of a path with 429.
async fn server() -> (String, Arc<AtomicUsize>) {
    let tries = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&tries);
    let app = Router::new().route(
        "/items",
        post(move |headers: HeaderMap, body: Bytes| async move {
            let first = counter.fetch_add(1, Ordering::SeqCst) == 0;
            // What is empty may go without a length.
            let length = headers.get("content-length").map_or("0", |length| length.to_str().unwrap());
            if length != body.len().to_string() || headers.contains_key("transfer-encoding") {
                return (StatusCode::BAD_REQUEST, [("retry-after", "0")], Bytes::new());
            }
            let status = if first { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
            (status, [("retry-after", "0")], body)
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/items", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, tries)
}

/// Posts `body` to a server that refuses the first try.
async fn through_hyper<B>(body: B) -> Bytes
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let (url, tries) = server().await;
    let client = Client::builder(TokioExecutor::new()).build_http::<RequestBody<B>>();
    let client = ServiceBuilder::new().layer(RetryPolicy::default()).service(client);
    let response = client.oneshot(Request::post(url).body(body).unwrap()).await.unwrap();
    assert_eq!((response.status(), tries.load(Ordering::SeqCst)), (StatusCode::OK, 2));
    assert_eq!(report(&response).attempts(), 2);
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn under_hyper_a_body_in_memory_is_sent_again_with_its_length() {
    assert_eq!(through_hyper(Full::from("in memory")).await, "in memory");
}

#[tokio::test]
async fn under_hyper_an_empty_body_stays_empty() {
    assert_eq!(through_hyper(Full::<Bytes>::default()).await, "");
}

#[tokio::test]
async fn under_hyper_an_axum_body_is_sent_again() {
    assert_eq!(through_hyper(AxumBody::from("axum's own")).await, "axum's own");
}

#[tokio::test]
async fn under_hyper_a_boxed_body_is_sent_again() {
    let body: BoxBody<Bytes, Infallible> = Full::from(vec![b'x'; 500_000]).boxed();
    assert_eq!(through_hyper(body).await, vec![b'x'; 500_000]);
}

#[tokio::test]
async fn under_hyper_a_boxed_body_that_is_not_sync_is_sent_again() {
    let body: UnsyncBoxBody<Bytes, Infallible> = Full::from("boxed").boxed_unsync();
    assert_eq!(through_hyper(body).await, "boxed");
}

#[tokio::test]
async fn under_hyper_a_tonic_body_is_sent_again() {
    assert_eq!(through_hyper(TonicBody::new(Full::<Bytes>::from("tonic's own"))).await, "tonic's own");
}

#[tokio::test]
async fn under_hyper_the_headers_of_a_body_are_the_same_in_every_attempt() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let app = Router::new().route(
        "/items",
        post(move |headers: HeaderMap, body: Bytes| async move {
            let mut log = log.lock().unwrap();
            log.push((headers, body));
            let status = if log.len() < 3 { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
            (status, [("retry-after", "0")])
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/items", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let client = RetryPolicy::default().layer(Client::builder(TokioExecutor::new()).build_http());
    // hyper sends the body without waiting for the 100, so that a refusal costs what was sent until then.
    let request = Request::post(&url)
        .header("expect", "100-continue")
        .header("x-tag", "one")
        .header("x-tag", "two")
        .body(Blocks { left: 3 })
        .unwrap();
    client.clone().oneshot(request).await.unwrap();
    let unknown = [Ok::<_, Infallible>(Frame::data(Bytes::from("some")))];
    let unknown = StreamBody::new(futures_util::stream::iter(unknown)).boxed_unsync();
    let client = RetryPolicy::default().layer(Client::builder(TokioExecutor::new()).build_http());
    let known = std::mem::take(&mut *seen.lock().unwrap());
    client.oneshot(Request::post(&url).body(unknown).unwrap()).await.unwrap();
    let unknown = std::mem::take(&mut *seen.lock().unwrap());
    server.abort();

    for attempts in [&known, &unknown] {
        assert_eq!(attempts.len(), 3);
        assert!(attempts.iter().all(|attempt| *attempt == attempts[0]));
    }
    let headers = &known[0].0;
    assert!(headers["expect"] == "100-continue" && headers["content-length"] == "49152");
    assert!(headers.get_all("x-tag").iter().eq(["one", "two"]) && known[0].1.len() == 3 * BLOCK);
    let headers = &unknown[0].0;
    assert!(headers["transfer-encoding"] == "chunked" && !headers.contains_key("content-length"));
}

/// A body of a known length in many frames, as a file would be read.
struct Blocks {
    left: usize,
}

const BLOCK: usize = 16 * 1024;

impl http_body::Body for Blocks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(left) = self.left.checked_sub(1) else { return Poll::Ready(None) };
        self.left = left;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![u8::try_from(left).unwrap(); BLOCK])))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.left * BLOCK).unwrap())
    }
}

/// The transport still holds the body when the answer comes, or has let go of it: a race that must not matter. Nor is any
/// server given less than the whole body as if it were the whole.
#[tokio::test]
async fn under_hyper_an_upload_is_taken_over_when_the_answer_comes_before_its_end() {
    for h2 in [false, true] {
        for _ in 0..10 {
            let (tries, short) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let (tried, seen_short) = (Arc::clone(&tries), Arc::clone(&short));
            let app = Router::new().route(
                "/items",
                post(move |request: Request<AxumBody>| async move {
                    if tried.fetch_add(1, Ordering::SeqCst) == 0 {
                        return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "0")]);
                    }
                    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
                    if body.is_ok_and(|body| body.len() != 60 * BLOCK) {
                        seen_short.fetch_add(1, Ordering::SeqCst);
                    }
                    (StatusCode::OK, [("retry-after", "0")])
                }),
            );
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/items", listener.local_addr().unwrap());
            let server = tokio::spawn(async move { axum::serve(listener, app).await });
            let client = Client::builder(TokioExecutor::new()).http2_only(h2).build_http();
            let client = RetryPolicy::default().layer(client);
            let request = Request::post(url).body(Blocks { left: 60 }).unwrap();
            let outcome = tokio::time::timeout(Duration::from_secs(20), client.oneshot(request)).await;
            match outcome.expect("it hangs") {
                Ok(response) => {
                    assert_eq!((response.status(), tries.load(Ordering::SeqCst)), (StatusCode::OK, 2));
                }
                // The server closed the connection, and the answer was lost on the way.
                Err(error) => assert!(!h2 && error.is::<hyper_util::client::legacy::Error>(), "{error:?}"),
            }
            assert_eq!(short.load(Ordering::SeqCst), 0);
            server.abort();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn under_a_client_with_a_body_type_of_its_own() {
    let script = answers(429, 1);
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .map_request(|request: Request<RequestBody<AxumBody>>| request.map(AxumBody::new))
        .service(script.probe::<AxumBody>());
    let request = Request::post("https://api.example.com/").body(AxumBody::from("mapped")).unwrap();
    assert_eq!(client.oneshot(request).await.unwrap().status(), StatusCode::OK);
    assert!(script.seen().iter().all(|seen| seen.body == "mapped"));
}

#[tokio::test(start_paused = true)]
async fn under_a_client_of_tonics_body_type() {
    let script = answers(429, 1);
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .map_request(|request: Request<RequestBody<TonicBody>>| request.map(TonicBody::new))
        .service(script.probe::<TonicBody>());
    let body = TonicBody::new(Full::<Bytes>::from("message"));
    let request = Request::post("https://api.example.com/billing.Invoices/Add").body(body).unwrap();
    assert_eq!(client.oneshot(request).await.unwrap().status(), StatusCode::OK);
    let seen = script.seen();
    assert!(seen.len() == 2 && seen.iter().all(|seen| seen.body == "message"));
}

#[tokio::test(start_paused = true)]
async fn under_a_client_of_a_boxed_body_type() {
    let script = answers(429, 1);
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .map_request(|request: Request<RequestBody<_>>| request.map(|body| body.boxed()))
        .service(script.probe::<BoxBody<Bytes, BoxError>>());
    let request = Request::post("https://api.example.com/").body(Full::<Bytes>::from("boxed")).unwrap();
    assert_eq!(client.oneshot(request).await.unwrap().status(), StatusCode::OK);
    assert!(script.seen().iter().all(|seen| seen.body == "boxed"));
}

#[tokio::test(start_paused = true)]
async fn over_a_buffer_and_a_time_out() {
    let script = answers(503, 2);
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .buffer(4)
        .timeout(Duration::from_secs(1))
        .service(script.probe());
    let response = client.oneshot(get()).await.unwrap();
    assert_eq!((response.status(), report(&response).attempts()), (StatusCode::OK, 3));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_times_out_below_may_have_been_sent() {
    let run = async |request| {
        let script = Script::new([ScriptedResponse::Hang, ScriptedResponse::Hang]);
        let client = ServiceBuilder::new()
            .layer(RetryPolicy::default())
            .timeout(Duration::from_secs(1))
            .service(script.probe());
        (client.oneshot(request).await, script.seen().len())
    };
    let (response, sent) = run(get()).await;
    assert_eq!((response.unwrap().status(), sent), (StatusCode::OK, 3));
    let (error, sent) = run(super::post()).await;
    assert!(error.unwrap_err().is::<tower::timeout::error::Elapsed>());
    assert_eq!(sent, 1);
}

#[tokio::test(start_paused = true)]
async fn inside_a_buffer_and_a_limit() {
    let script = answers(429, 3);
    let client = ServiceBuilder::new()
        .buffer(4)
        .concurrency_limit(2)
        .layer(RetryPolicy::default())
        .service(script.probe());
    let response = client.oneshot(get()).await.unwrap();
    assert_eq!((response.status(), report(&response).attempts()), (StatusCode::OK, 4));
}

#[tokio::test(start_paused = true)]
async fn behind_one_erased_type() {
    type Inner = BoxCloneSyncService<Request<RequestBody<Full<Bytes>>>, Response<Full<Bytes>>, BoxError>;
    type Erased = BoxCloneSyncService<Request<Full<Bytes>>, Response<ResponseBody<Full<Bytes>>>, BoxError>;
    let script = answers(429, 1);
    let inner: Inner = BoxCloneSyncService::new(script.probe());
    let erased: Erased = BoxCloneSyncService::new(RetryPolicy::default().layer(inner));
    assert_eq!(text(erased.clone().oneshot(get()).await.unwrap()).await, "");
    assert_eq!(script.seen().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn beside_tower_https_layers() {
    use tower_http::follow_redirect::FollowRedirectLayer;
    use tower_http::follow_redirect::policy::{PolicyExt as _, Standard, clone_body_fn};
    use tower_http::request_id::{MakeRequestUuid, SetRequestIdLayer};
    use tower_http::trace::TraceLayer;

    let mut moved = reply(307, "");
    moved.headers_mut().insert("location", "/elsewhere".parse().unwrap());
    let script = Script::new([ScriptedResponse::Reply(reply(429, "")), ScriptedResponse::Reply(moved)]);
    let redirects =
        Standard::default().and::<_, _, BoxError>(clone_body_fn(|body: &Full<Bytes>| Some(body.clone())));
    let client = ServiceBuilder::new()
        .layer(FollowRedirectLayer::with_policy(redirects))
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .layer(RetryPolicy::default())
        .layer(TraceLayer::new_for_http())
        .service(script.probe());
    let request = Request::post("https://api.example.com/items").body(Full::<Bytes>::from("order")).unwrap();
    let response = client.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let seen = script.seen();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[0].head.headers["x-request-id"], seen[1].head.headers["x-request-id"]);
    assert_eq!(seen[2].head.uri.path(), "/elsewhere");
    assert!(seen.iter().all(|seen| seen.body == "order"));
}

#[test]
fn the_inner_service_can_be_reached() {
    let probe: Probe<Request<RequestBody<Full<Bytes>>>, Response<Full<Bytes>>> = Script::default().probe();
    let mut service: RetryService<_> = RetryPolicy::default().layer(probe);
    assert_eq!((service.get_ref().calls(), service.get_mut().calls()), (0, 0));
    assert_eq!(service.into_inner().calls(), 0);
    fn is_a_service<S: Service<Request<Full<Bytes>>>>() {}
    is_a_service::<RetryService<Probe<Request<RequestBody<Full<Bytes>>>, Response<Full<Bytes>>>>>();
}
