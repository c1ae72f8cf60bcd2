//! Answers of the token endpoint.

use http::StatusCode;
use secrecy::ExposeSecret as _;

use super::redactor::leaks;
use crate::clock::FARTHEST;
use crate::input;
use crate::grants::response::body::EndpointResponse;
use crate::grants::response::expected::{Acceptance, Expected};
use crate::grants::response::token;
use crate::text::Redactor;

/// What was sent. It can stand in a JSON string as it is.
const SECRET: &str = "Zq7/+v&k=9~Xw3ü";

/// Input: `200` or `200 strict`, header lines, an empty line, and the body, in which a control character stands for the
/// secret that was sent.
///
/// Only a 2xx brings a token, and the token can stand in a header. An error is one line, shows nothing of the secret,
/// and is of the class that the status demands.
pub fn token_answer(data: &[u8]) {
    let (line, rest) = input::text_line(data);
    let mut words = line.split(' ');
    let status = words.next().and_then(|status| status.parse().ok()).unwrap_or(StatusCode::OK);
    let acceptance = Acceptance {
        requested: vec!["read".into()],
        strict_bearer: words.next() == Some("strict"),
        ..Acceptance::default()
    };
    let expected = Expected { acceptance, ..Expected::default() };
    let (headers, body) = input::headers(rest);
    let mut whole = Vec::new();
    for part in body.split_inclusive(|byte| *byte == 1) {
        let (part, secret) = part.strip_suffix(&[1]).map_or((part, ""), |part| (part, SECRET));
        whole.extend_from_slice(part);
        whole.extend_from_slice(secret.as_bytes());
    }
    let answer = EndpointResponse { status, headers, body: Ok(whole) };
    let mut redactor = Redactor::default();
    redactor.add_basic("billing", SECRET);

    let (now, _) = input::time(b"");
    let refused = match token::read(&answer, &expected, &mut redactor, now) {
        Err(refused) => refused,
        Ok(token) => {
            assert!(status.is_success());
            assert_eq!(token.scheme(), "Bearer");
            let secret = token.secret().expose_secret();
            assert_eq!(token.header_value().to_str().ok(), Some(&*format!("Bearer {secret}")));
            assert!(token.header_value().is_sensitive());
            assert!(!leaks(SECRET, &format!("{token:?}")));
            return;
        }
    };
    let error = &refused.error;
    let shown = [Some(&*error.to_string()), error.code(), error.description(), error.uri()]
        .map(|text| text.map(str::to_owned));
    for text in shown.into_iter().flatten() {
        assert!(!leaks(SECRET, &text), "{text:?}");
        assert!(text.chars().count() <= 1024 && !text.chars().any(char::is_control), "{text:?}");
    }
    assert!(!leaks(SECRET, &format!("{refused:?}")));
    assert_eq!(error.status(), Some(status));
    assert!(refused.verdict.hint.unwrap_or_default() <= FARTHEST);
    match status.as_u16() {
        429 => assert!(error.is_throttled()),
        500..=599 => assert!(error.is_temporary()),
        300..=399 => assert!(error.is_config()),
        _ => {}
    }
    assert!(error.is_throttled() || error.is_transient() || !error.is_temporary());
}
