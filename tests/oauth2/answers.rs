//! What is read of an answer, and what is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt as _, StreamBody};
use tower::BoxError;
use tower_oauth2::ErrorKind;

use crate::scripted::{Body, Scripted, Step, TOKEN, a_token, answer, answer_with, billing, fetch, response};

type Frames = Vec<Result<Frame<Bytes>, BoxError>>;

fn data(text: &'static str) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

fn in_frames(frames: Frames) -> Step {
    let mut response = response(200, &[], "");
    *response.body_mut() = StreamBody::new(stream::iter(frames)).boxed_unsync();
    Step::Answer(response)
}

/// A body of 1 GiB that counts how much of it was taken.
fn gibibyte(taken: &Arc<AtomicUsize>) -> Body {
    let (chunk, taken) = (Bytes::from(vec![b' '; 64 * 1024]), Arc::clone(taken));
    let frames = stream::iter(0..16 * 1024).map(move |_| {
        taken.fetch_add(chunk.len(), Ordering::Relaxed);
        Ok(Frame::data(chunk.clone()))
    });
    StreamBody::new(frames).boxed_unsync()
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_pieces_with_trailers_is_one_answer() {
    let (head, tail) = TOKEN.split_at(7);
    let trailers = Ok(Frame::trailers(HeaderMap::new()));
    let endpoint = Scripted::new([in_frames(vec![data(head), data(""), data(tail), trailers])]);
    assert_eq!(endpoint.ask(billing()).await.unwrap().header_value(), "Bearer AT1");
}

#[tokio::test(start_paused = true)]
async fn a_gibibyte_is_read_up_to_the_cap() {
    let taken = Arc::new(AtomicUsize::new(0));
    let endpoint = Scripted::new([Step::Answer(Response::new(gibibyte(&taken)))]);
    let error = endpoint.ask(billing().retries(0)).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Protocol && error.to_string().contains("more than 1024 KiB"),
        "{error}"
    );
    let taken = taken.load(Ordering::Relaxed);
    assert!(taken > 1024 * 1024 && taken <= 1024 * 1024 + 64 * 1024, "{taken}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_says_it_is_too_long_is_not_read_at_all() {
    struct Announced(Body);

    impl http_body::Body for Announced {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            std::pin::Pin::new(&mut self.0).poll_frame(cx)
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(1 << 30)
        }
    }

    let taken = Arc::new(AtomicUsize::new(0));
    let announced = Announced(gibibyte(&taken));
    assert!(announced.size_hint().exact().is_some());
    let endpoint = Scripted::new([Step::Answer(Response::new(announced.boxed_unsync()))]);
    assert_eq!(endpoint.ask(billing().retries(0)).await.unwrap_err().kind(), ErrorKind::Protocol);
    assert_eq!(taken.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_large_error_page_is_judged_by_its_status() {
    let mut failed = Response::new(gibibyte(&Arc::default()));
    *failed.status_mut() = http::StatusCode::BAD_GATEWAY;
    let endpoint = Scripted::new([Step::Answer(failed), a_token()]);
    assert!(endpoint.ask(billing()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_body_of_exactly_the_cap_is_read() {
    let padding = " ".repeat(1024 * 1024 - TOKEN.len());
    let endpoint = Scripted::new([
        answer(200, &format!("{TOKEN}{padding}")),
        answer(200, &format!("{TOKEN}{padding} ")),
    ]);
    assert!(endpoint.ask(billing()).await.is_ok());
    assert_eq!(endpoint.ask(billing().retries(0)).await.unwrap_err().kind(), ErrorKind::Protocol);
}

#[tokio::test(start_paused = true)]
async fn a_compressed_answer_is_refused_by_name() {
    let endpoint = Scripted::new([answer_with(200, &[("content-encoding", "gzip")], "\u{1f}\u{8b}")]);
    let error = endpoint.ask(billing().retries(0)).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Protocol && error.to_string().contains("content encoding gzip"),
        "{error}"
    );
    assert!(error.to_string().contains("build_with"), "{error}");
    let endpoint = Scripted::new([
        answer_with(200, &[("content-encoding", "Identity")], TOKEN),
        answer_with(503, &[("content-encoding", "br")], "x"),
        a_token(),
    ]);
    assert!(endpoint.ask(billing()).await.is_ok());
    assert!(endpoint.ask(billing()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_plain_body_is_read_whatever_its_content_encoding_says() {
    for encoding in ["utf-8", "UTF8", "none", "", "gzip"] {
        let endpoint = Scripted::new([answer_with(200, &[("content-encoding", encoding)], TOKEN)]);
        let token = endpoint.ask(billing()).await.unwrap_or_else(|error| panic!("{encoding}: {error}"));
        assert_eq!(token.header_value(), "Bearer AT1");
        let refused = r#" {"error":"invalid_client"}"#;
        let endpoint = Scripted::new([answer_with(401, &[("content-encoding", encoding)], refused)]);
        assert_eq!(endpoint.ask(billing()).await.unwrap_err().code(), Some("invalid_client"), "{encoding}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_decodes_is_held_to_the_cap_after_decoding() {
    let taken = Arc::<AtomicUsize>::default();
    let endpoint = Scripted::new([
        answer_with(200, &[("content-encoding", "gzip")], "a token"),
        answer_with(200, &[("content-encoding", "gzip")], "a bomb"),
    ]);
    let counting = Arc::clone(&taken);
    let decoding = tower::ServiceBuilder::new().map_response(move |mut response: Response<Body>| {
        response.headers_mut().remove("content-encoding").unwrap();
        let counting = Arc::clone(&counting);
        response.map(|body| {
            let decoded = body.into_data_stream().flat_map(move |encoded| match &*encoded.unwrap() {
                b"a token" => StreamBody::new(stream::iter([data(TOKEN)])).boxed_unsync().into_data_stream(),
                b"a bomb" => gibibyte(&counting).into_data_stream(),
                other => panic!("{other:?}"),
            });
            StreamBody::new(decoded.map(|data| data.map(Frame::data))).boxed_unsync()
        })
    });
    let source = billing().retries(0).build_with(decoding.service(endpoint)).unwrap();
    assert_eq!(fetch(&source).await.unwrap().header_value(), "Bearer AT1");
    let error = fetch(&source).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Protocol && error.to_string().contains("1024 KiB"), "{error}");
    assert!(taken.load(Ordering::Relaxed) <= 1024 * 1024 + 64 * 1024);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_off_is_asked_for_again() {
    let broken = || in_frames(vec![data(r#"{"access_token":"AT"#), Err("connection reset".into())]);
    let endpoint = Scripted::new([broken(), a_token()]);
    assert_eq!(endpoint.ask(billing()).await.unwrap().header_value(), "Bearer AT1");

    let endpoint = Scripted::new([broken()]);
    let error = endpoint.ask(billing().retries(0)).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Transient && error.to_string().contains("https://login.example.com"),
        "{error}"
    );
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "connection reset");
}

#[tokio::test(start_paused = true)]
async fn the_wait_that_a_head_asks_for_is_heard_though_the_body_breaks_off_or_never_ends() {
    let breaks = || StreamBody::new(stream::iter([data("{"), Err("connection reset".into())])).boxed_unsync();
    let hangs = || StreamBody::new(stream::pending::<Result<Frame<Bytes>, BoxError>>()).boxed_unsync();
    let bodies: [&dyn Fn() -> Body; 2] = [&breaks, &hangs];
    for body in bodies {
        for status in [429, 403, 503] {
            let busy = || Step::Answer(response(status, &[("retry-after", "7")], "").map(|_| body()));
            let endpoint = Scripted::new([busy(), a_token()]);
            endpoint.ask(billing().second_attempt_after(None)).await.unwrap();
            assert!(endpoint.gaps()[0] >= Duration::from_secs(7), "{status}");
            // The server did nothing, so the refresh token is not spent.
            let endpoint = Scripted::new([busy(), busy(), a_token()]);
            let source = crate::rotating::builder(Some("RT1")).build_with(endpoint.clone()).unwrap();
            crate::rotating::renew(&source).await.unwrap();
            let endpoint = Scripted::new([busy()]);
            let error = endpoint.ask(billing().retries(0)).await.unwrap_err();
            assert_eq!((error.kind(), error.status().unwrap().as_u16()), (ErrorKind::Throttled, status));
            assert!(error.retry_at().is_some());
        }
    }
}

/// Each secret of an answer is looked for in what is shown of it. With the square of their number this would not end.
#[tokio::test]
async fn an_answer_of_nothing_but_secrets_is_read_to_its_end() {
    let secrets = |count: usize, between: &str| -> Vec<String> {
        (0..count).map(|n| format!("token{n}{between}{n:05}")).collect()
    };
    let object = format!(r#"{{"error":"invalid_grant","{}"}}"#, secrets(40_000, r#"":""#).join(r#"",""#));
    let form = format!("error=invalid_grant&{}", secrets(40_000, "=").join("&"));
    for body in [object, form] {
        assert!(body.len() < 1024 * 1024);
        for status in [200, 400] {
            let endpoint = Scripted::new([answer(status, &body)]);
            assert!(!endpoint.ask(billing().retries(0)).await.unwrap_err().is_temporary());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_builder_asks_of_a_token_is_checked() {
    let odd = r#"{"access_token":"a|b","scope":"read"}"#;
    let endpoint = Scripted::new((0..4).map(|_| answer(200, odd)));
    assert!(endpoint.ask(billing()).await.is_ok());
    assert_eq!(endpoint.ask(billing().strict_bearer(true)).await.unwrap_err().kind(), ErrorKind::Protocol);
    assert!(endpoint.ask(billing().scope("read").required_scope("read")).await.is_ok());
    let error = endpoint.ask(billing().required_scope("read write")).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Config && error.to_string().contains("required scopes write:"),
        "{error}"
    );
}

/// What was asked for is found in a mebibyte of scopes. With the square of their number this would not end.
#[tokio::test]
async fn an_answer_of_nothing_but_scopes_takes_little_memory() {
    let scopes: Vec<String> = (0..120_000).map(|number| format!("{number:06x}")).collect();
    let secret = "t".repeat(10_000);
    let text = format!(r#"{{"access_token":"{secret}","scope":"{} read"}}"#, scopes.join(" "));
    let list =
        format!(r#"{{"access_token":"{secret}","scope":["{}","read"]}}"#, scopes[..100_000].join(r#"",""#));
    for body in [text, list] {
        assert!(body.len() < 1024 * 1024);
        let endpoint = Scripted::new([answer(200, &body)]);
        let token = endpoint.ask(billing().required_scope("read")).await.unwrap();
        let granted = token.scopes().unwrap();
        assert_eq!((granted.first(), granted.last()), (Some(&scopes[0]), Some(&"read".to_owned())));
        assert!(granted.iter().map(String::len).sum::<usize>() <= 16 * 1024, "{}", granted.len());
    }
}

#[tokio::test]
async fn a_scope_that_holds_a_secret_at_its_far_end_is_not_shown() {
    for length in [0, 4090, 5000, 20_000] {
        let scope = format!("{}AT-0123456789", "x".repeat(length));
        let body = format!(r#"{{"access_token":"AT-0123456789","scope":"read {scope} write"}}"#);
        let token = Scripted::new([answer(200, &body)]).ask(billing()).await.unwrap();
        assert_eq!(token.scopes().unwrap(), ["read", "write"], "{length}");
    }
}

/// What is looked for is as long as the answer, and looked for in all that is shown.
#[tokio::test]
async fn one_secret_as_long_as_an_answer_may_be_is_found() {
    let secret: String = (0..130_000).map(|number| format!("{number:07x}")).collect();
    let said = "the quick brown fox ".repeat(10);
    let piece = &secret[600_000..600_020];
    let body = format!(r#"{{"error":"odd","error_description":"{said}{piece}","token":"{secret}"}}"#);
    assert!(body.len() < 1024 * 1024);
    let error = Scripted::new([answer(400, &body)]).ask(billing()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Grant);
    assert_eq!(error.description(), Some(&*format!("{said}[redacted]")));
}
