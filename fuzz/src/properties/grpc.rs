//! The status and the pushback of a gRPC answer.

use std::time::Duration;

use http::{HeaderMap, Response, Version};

use crate::headers::grpc::{self, Pushback};
use crate::input;

/// Input: header lines.
///
/// A status counts where it is there once, as a number is written; and so does a pushback, which else forbids.
pub fn grpc(data: &[u8]) {
    let (headers, _) = input::headers(data);
    let code = only(&headers, "grpc-status").and_then(number::<u32>);
    let read = grpc::read(&headers);
    assert_eq!(read.map(|status| status.code), code);
    if let Some(status) = read {
        let asked = only(&headers, "grpc-retry-pushback-ms").and_then(number::<i32>);
        let expected = match asked.and_then(|millis| u64::try_from(millis).ok()) {
            Some(millis) => Pushback::After(Duration::from_millis(millis)),
            None if headers.contains_key("grpc-retry-pushback-ms") => Pushback::Never,
            None => Pushback::Unsaid,
        };
        assert_eq!(status.pushback, expected);
        assert_eq!(status.is_retried(), [8, 14].contains(&status.code));
    }
    let mut response = Response::new(());
    *response.headers_mut() = headers;
    assert!(!grpc::is_grpc(&response));
    *response.version_mut() = Version::HTTP_2;
    let kind = response.headers().get("content-type").map(|kind| kind.as_bytes()).unwrap_or_default();
    assert_eq!(grpc::is_grpc(&response), kind.to_ascii_lowercase().starts_with(b"application/grpc"));
}

fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_none() { value.to_str().ok() } else { None }
}

/// Reads a number if it is written as it would be printed.
fn number<T: std::str::FromStr + ToString>(text: &str) -> Option<T> {
    text.parse().ok().filter(|number: &T| number.to_string() == text)
}
