//! How often an endpoint is asked, and after how long.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;
use tower_oauth2::{Error, ErrorKind};

use crate::scripted::{Scripted, Step, TOKEN, a_token, answer, answer_with, billing, response};

const SECOND: Duration = Duration::from_secs(1);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test(start_paused = true)]
async fn a_failing_server_is_asked_three_times_more_with_growing_delays() {
    let endpoint = Scripted::new((0..4).map(|_| answer(503, "")));
    let error = endpoint.ask(billing()).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Transient && error.status() == Some(StatusCode::SERVICE_UNAVAILABLE),
        "{error}"
    );
    assert!(endpoint.is_finished());
    let gaps = endpoint.gaps();
    for (gap, whole) in gaps.iter().zip([millis(500), SECOND, 2 * SECOND]) {
        // The timer of tokio counts in milliseconds.
        assert!(*gap >= whole / 2 && *gap <= whole + millis(1), "{gaps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_passes_by_itself_ends_with_a_token() {
    for first in [
        answer(500, "{}"),
        answer(502, "<html>"),
        answer(429, ""),
        Step::Fail("connection reset".into()),
        Step::Hang,
    ] {
        let endpoint = Scripted::new([first, a_token()]);
        assert_eq!(endpoint.ask(billing()).await.unwrap().header_value(), "Bearer AT1");
        assert!(endpoint.is_finished());
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_transport_says_is_one_short_line_of_the_error() {
    let starts = "the token endpoint at https://login.example.com could not be reached: ";
    let ends = "; check the token URL, and the network route from this machine";
    for (said, shown) in [
        ("Connection refused (os error 111)", "connection refused (os error 111)"),
        ("TLS is not for us", "TLS is not for us"),
        (
            "sending to https://u:pw@proxy.example:3128/?key=K3y failed",
            "sending to https://proxy.example:3128 failed",
        ),
        ("a\r\nb\u{1b}[31m", "a  b [31m"),
        ("  ", "the transport did not say why"),
    ] {
        let endpoint = Scripted::new([Step::Fail(said.into())]);
        let error = endpoint.ask(billing().retries(0)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient);
        assert_eq!(error.to_string(), format!("{starts}{shown}{ends}"));
    }
    let endpoint = Scripted::new([Step::Fail("x".repeat(100_000).into())]);
    let error = endpoint.ask(billing().retries(0)).await.unwrap_err().to_string();
    assert!(error.chars().count() < 512 && error.ends_with(ends), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_pass_by_itself_is_asked_once() {
    for (status, body) in [
        (400, r#"{"error":"invalid_request"}"#),
        (401, r#"{"error":"invalid_client"}"#),
        (400, r#"{"error":"invalid_grant"}"#),
        (400, r#"{"error":"unauthorized_client"}"#),
        (400, r#"{"error":"unsupported_grant_type"}"#),
        (400, r#"{"error":"invalid_scope"}"#),
        (400, r#"{"error":"invalid_target"}"#),
        (401, ""),
        (404, ""),
        (200, r#"{"error":"invalid_request"}"#),
        (302, ""),
        (307, ""),
        (308, ""),
    ] {
        let endpoint = Scripted::new([answer(status, body)]);
        let start = Instant::now();
        assert!(!endpoint.ask(billing()).await.unwrap_err().is_temporary(), "{status} {body}");
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn the_server_says_how_long_to_wait() {
    for status in [429, 503, 500] {
        let endpoint = Scripted::new([answer_with(status, &[("retry-after", "2")], ""), a_token()]);
        endpoint.ask(billing()).await.unwrap();
        let gaps = endpoint.gaps();
        assert!(gaps[0] >= 2 * SECOND && gaps[0] <= millis(2_301), "{gaps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_the_longest_delay_is_handed_out_and_not_waited_for() {
    for status in [429, 503, 500] {
        let endpoint = Scripted::new([answer_with(status, &[("retry-after", "30")], "")]);
        let start = Instant::now();
        let error = endpoint.ask(billing()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Throttled);
        let Some(until) = error.retry_at() else { panic!("{error:?}") };
        assert_eq!(until - start.into_std(), 30 * SECOND);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
    let endpoint = Scripted::new([answer_with(429, &[("retry-after", "30")], ""), a_token()]);
    assert!(endpoint.ask(billing().max_delay(30 * SECOND)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_hint_of_the_last_attempt_is_handed_out() {
    for status in [429, 503, 500] {
        let endpoint = Scripted::new([answer_with(status, &[("retry-after", "2")], "")]);
        let start = Instant::now();
        let error = endpoint.ask(billing().retries(0)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Throttled);
        let Some(until) = error.retry_at() else { panic!("{error:?}") };
        assert_eq!(until - start.into_std(), 2 * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_transport_knows_better_is_found_below_other_layers() {
    #[derive(Debug)]
    struct Layered(Error);

    impl std::fmt::Display for Layered {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the connection pool failed")
        }
    }

    impl std::error::Error for Layered {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    let layered = Layered(Error::new(ErrorKind::Config, "there are no root certificates"));
    let endpoint = Scripted::new([Step::Fail(layered.into())]);
    let error = endpoint.ask(billing()).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Config && error.to_string() == "there are no root certificates",
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn count_and_delays_are_settable() {
    let endpoint = Scripted::new([answer(503, "")]);
    assert_eq!(endpoint.ask(billing().retries(0)).await.unwrap_err().kind(), ErrorKind::Transient);

    let endpoint = Scripted::new((0..6).map(|_| answer(503, "")));
    let patience = billing().retries(5).min_delay(SECOND).max_delay(2 * SECOND);
    assert!(endpoint.ask(patience).await.is_err());
    assert!(endpoint.gaps().iter().all(|gap| *gap >= SECOND / 2 && *gap <= 2 * SECOND + millis(1)));
}

#[tokio::test(start_paused = true)]
async fn a_classifier_decides_whether_an_answer_is_retried() {
    let limited = r#"{"error":"invalid_request","description":"rate limit exceeded; slow down"}"#;
    let endpoint = Scripted::new([answer(400, limited), answer(400, limited), a_token()]);
    let genesys = billing().classifier(|refusal| {
        let is_limit = refusal.description().is_some_and(|text| text.starts_with("rate limit exceeded;"));
        (refusal.code() == Some("invalid_request") && is_limit).then_some(ErrorKind::Throttled)
    });
    assert!(endpoint.ask(genesys).await.is_ok());
    assert!(endpoint.is_finished());

    let endpoint = Scripted::new([answer(418, ""), answer(503, "")]);
    let only_teapots = billing().classifier(|refusal| {
        let is_teapot = refusal.status() == StatusCode::IM_A_TEAPOT;
        Some(if is_teapot { ErrorKind::Transient } else { ErrorKind::Protocol })
    });
    let error = endpoint.ask(only_teapots).await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::SERVICE_UNAVAILABLE));

    let endpoint = Scripted::new([answer(503, "")]);
    let final_at_once = billing().classifier(|_| Some(ErrorKind::Grant));
    assert_eq!(endpoint.ask(final_at_once).await.unwrap_err().kind(), ErrorKind::Grant);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_anywhere_is_given_up() {
    let stuck_body = || {
        let mut response = response(200, &[], "");
        *response.body_mut() = http_body_util::BodyExt::boxed_unsync(http_body_util::StreamBody::new(
            futures_util::stream::pending::<Result<http_body::Frame<bytes::Bytes>, tower::BoxError>>(),
        ));
        Step::Answer(response)
    };
    for endpoint in [
        Scripted::new([Step::Hang, Step::Hang]),
        Scripted::new([stuck_body(), stuck_body()]),
        Scripted::new((0..2).map(|_| Step::AnswerAfter(6 * SECOND, response(200, &[], TOKEN)))),
        Scripted::never_ready(),
    ] {
        let start = Instant::now();
        let patience = billing()
            .attempt_timeout(5 * SECOND)
            .retries(1)
            .min_delay(Duration::ZERO)
            .second_attempt_after(None);
        let error = endpoint.ask(patience).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Transient && error.to_string().contains("within 5s"), "{error}");
        assert_eq!(start.elapsed().as_secs(), 10);
    }
}

/// It must not take the thread for itself, or no time-out comes through. So real time, and a runtime to give up.
#[test]
fn an_answer_of_empty_frames_without_end_is_given_up() {
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut response = response(200, &[], "");
        let empty = || Ok::<_, tower::BoxError>(http_body::Frame::data(bytes::Bytes::new()));
        *response.body_mut() = http_body_util::BodyExt::boxed_unsync(http_body_util::StreamBody::new(
            futures_util::stream::repeat_with(empty),
        ));
        let endpoint = Scripted::new([Step::Answer(response)]);
        let patience = billing().attempt_timeout(millis(100)).retries(0);
        let _ = done.send(runtime.block_on(endpoint.ask(patience)));
    });
    let outcome = wait.recv_timeout(10 * SECOND).expect("the attempt has no end");
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Transient);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_fetch_ends_it() {
    let endpoint = Scripted::new([answer(503, ""), a_token()]);
    let patience = billing().min_delay(5 * SECOND);
    assert!(tokio::time::timeout(SECOND, endpoint.ask(patience)).await.is_err());
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(endpoint.seen().len(), 1);
}
