//! What the log tells, and what it must not.

use std::io;
use std::sync::{Arc, Mutex};

use http_body_util::Full;
use tower_oauth2::RetryPolicy;
use tracing_subscriber::fmt::MakeWriter;

use super::support::{Answer, Script, reply};
use super::{post, report, send};

/// Everything that was logged, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn every_decision_is_told_once_and_without_bodies_or_header_values() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);

    let mut busy = reply(429, "PLANTED-answer");
    busy.headers_mut().insert("retry-after", "7".parse().unwrap());
    busy.headers_mut().insert("x-secret", "PLANTED-answer-header".parse().unwrap());
    let script = Script::new([Answer::Reply(busy), Answer::Fail("PLANTED-error".into())]);
    let mut request = post().map(|_| Full::from("PLANTED-body"));
    *request.uri_mut() = "https://api.example.com/PLANTED-path?PLANTED-query".parse().unwrap();
    request.headers_mut().insert("authorization", "Bearer PLANTED-token".parse().unwrap());
    send(&RetryPolicy::default(), &script, request).await.unwrap_err();

    let script = Script::new([Answer::Reply(reply(503, ""))]);
    let response = send(&RetryPolicy::default(), &script, post()).await.unwrap();
    let told = format!("{:?} {}", report(&response), report(&response).stop_reason());
    drop(guard);

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
    for part in [
        "the request is sent again",
        "status=429",
        "reason=the server asked for patience",
        "requested_delay=Some(7s)",
        "resend_count=1",
        "the request is not sent again reason=the inner service failed attempts=2",
        "the request is not sent again reason=the method may not be repeated attempts=1",
    ] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    assert!(!text.contains("PLANTED") && !told.contains("PLANTED"), "{text}{told}");
}
