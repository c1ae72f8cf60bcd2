//! The retry room from outside, over fake services and under the paused clock.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "tests look at the paused clock")]

mod bodies;
mod budget;
mod compose;
mod deadlines;
mod doubt;
mod drain;
mod factory;
mod gate;
mod grpc;
mod hints;
mod hostile;
#[cfg(feature = "stack")]
mod model;
mod no_token;
mod readiness;
#[path = "../../src/vectors.rs"]
mod vectors;
mod waits;
mod with_auth;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use tower::{BoxError, Layer as _, ServiceExt as _};
use tower_oauth2::RetryPolicy;
use tower_oauth2::retry::{NotReplayable, RequestBody, ResponseBody, RetryReport, StopReason};
use tower_oauth2::test_util::{Script, ScriptedResponse, reply};

type Outcome = Result<Response<ResponseBody<Full<Bytes>>>, BoxError>;

/// Sends a request through a retry layer over the script.
async fn send<B>(policy: &RetryPolicy, script: &Script, request: Request<B>) -> Outcome
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    policy.layer(script.probe::<RequestBody<B>>()).oneshot(request).await
}

fn get() -> Request<Full<Bytes>> {
    Request::get("https://api.example.com/items").body(Full::default()).unwrap()
}

fn post() -> Request<Full<Bytes>> {
    Request::post("https://api.example.com/items").body(Full::from("item")).unwrap()
}

fn answers(status: u16, times: usize) -> Script {
    Script::new((0..times).map(|_| ScriptedResponse::Reply(reply(status, "the server's own words"))))
}

fn hinted(status: u16, retry_after: &str) -> ScriptedResponse {
    let mut response = reply(status, "the server's own words");
    response.headers_mut().insert("retry-after", retry_after.parse().unwrap());
    ScriptedResponse::Reply(response)
}

fn report<B>(response: &Response<B>) -> &RetryReport {
    response.extensions().get().expect("no report")
}

/// Why the body could not be sent again, if that is why it ended there.
fn not_replayable<B>(response: &Response<B>) -> Option<NotReplayable> {
    match report(response).stop_reason() {
        StopReason::NotReplayable { cause, .. } => Some(*cause),
        _ => None,
    }
}

/// What the server asked for, if that was too much.
fn too_much<B>(response: &Response<B>) -> Option<Duration> {
    match report(response).stop_reason() {
        StopReason::DelayExceedsCap { requested, .. } => Some(*requested),
        _ => None,
    }
}

async fn text<B>(response: Response<B>) -> String
where
    B: Body,
    B::Error: std::fmt::Debug,
{
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}
