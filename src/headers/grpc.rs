//! Reads the outcome of a gRPC call from the headers or trailers of its response.
//!
//! 1. A response is one of gRPC if it came over HTTP/2 with a content type that begins with `application/grpc`.
//! 2. `grpc-status` counts if it is there once and is a number. A repeated or unreadable one says nothing.
//! 3. `grpc-retry-pushback-ms` is how the server wants the next attempt: after so many milliseconds, or not at all if it is
//!    negative, no number as it is written, more than 2^31 - 1, or there more than once (gRFC A6).
//! 4. `google.rpc.RetryInfo` in `grpc-status-details-bin` is how long a server wants to be left alone at least.
//! 5. A response without `grpc-status` to a gRPC request comes from something on the way: its HTTP status counts, as the
//!    public mapping of HTTP to gRPC says.

mod retry_info;

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};

static STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The header in which a [`retry_info`] comes.
pub(crate) use self::retry_info::DETAILS;

/// The header that asks for a wait.
pub(crate) static PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The numbers of the status codes that mean something here.
const OK: u32 = 0;
pub(crate) const RESOURCE_EXHAUSTED: u32 = 8;
pub(crate) const UNAVAILABLE: u32 = 14;
const UNAUTHENTICATED: u32 = 16;

/// The status of a gRPC response, with its hints about another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GrpcStatus {
    pub(crate) code: u32,
    pub(crate) pushback: Pushback,
    /// When to come back at the earliest, as `google.rpc.RetryInfo` says it.
    pub(crate) retry_info: Option<Duration>,
}

impl GrpcStatus {
    /// Returns whether it is one after which another attempt may end better.
    pub(crate) fn is_retried(self) -> bool {
        matches!(self.code, RESOURCE_EXHAUSTED | UNAVAILABLE)
    }

    /// Returns whether it is a failure that says when to come back, and not one of the token.
    pub(crate) fn says_when(self) -> bool {
        let is_wait = self.retry_info.is_some() || matches!(self.pushback, Pushback::After(_));
        is_wait && !matches!(self.code, OK | UNAUTHENTICATED)
    }

    /// Returns the status by which HTTP says the same, if another attempt may end better: a gateway puts the same headers beside
    /// both.
    pub(crate) fn as_http(self) -> Option<StatusCode> {
        match self.code {
            RESOURCE_EXHAUSTED => Some(StatusCode::TOO_MANY_REQUESTS),
            UNAVAILABLE => Some(StatusCode::SERVICE_UNAVAILABLE),
            _ => None,
        }
    }
}

/// The `grpc-retry-pushback-ms` of a response: whether and when the server allows another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushback {
    Unsaid,
    After(Duration),
    Never,
}

/// Returns whether a response is one of gRPC.
#[inline]
pub(crate) fn is_grpc<B>(response: &Response<B>) -> bool {
    response.version() == Version::HTTP_2 && is_grpc_content(response.headers())
}

/// Returns whether a gRPC response will say only at its end what became of the call.
#[inline]
pub(crate) fn is_late<B>(response: &Response<B>) -> bool {
    is_grpc(response) && response.status().is_success() && !response.headers().contains_key(&STATUS)
}

/// Returns whether headers say that what follows is gRPC: of a response only over HTTP/2, see rule 1.
#[inline]
pub(crate) fn is_grpc_content(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(is_grpc_type)
}

/// Returns whether a content type says so.
#[inline]
pub(crate) fn is_grpc_type(kind: &HeaderValue) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    // Media types have no case (RFC 9110 §8.3.1).
    kind.as_bytes().get(..GRPC.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(GRPC))
}

/// Returns how long the message is that a body begins with, its prefix included: a byte of flags, and the length in four.
/// The prefix may come in pieces.
pub(crate) fn first_message<'a>(data: impl IntoIterator<Item = &'a [u8]>) -> Option<u64> {
    let mut bytes = data.into_iter().flatten();
    bytes.next()?;
    let mut length = [0; 4];
    for byte in &mut length {
        *byte = *bytes.next()?;
    }
    Some(5 + u64::from(u32::from_be_bytes(length)))
}

/// Reads the headers or trailers of a gRPC response.
pub(crate) fn read(headers: &HeaderMap) -> Option<GrpcStatus> {
    let code = number(once(headers, &STATUS).ok().flatten()?)?;
    let pushback = match once(headers, &PUSHBACK) {
        Ok(None) => Pushback::Unsaid,
        Ok(Some(millis)) => match number(millis).filter(|millis| i32::try_from(*millis).is_ok()) {
            Some(millis) => Pushback::After(Duration::from_millis(millis.into())),
            None => Pushback::Never,
        },
        Err(Unreadable) => Pushback::Never,
    };
    Some(GrpcStatus { code, pushback, retry_info: retry_info::read(headers) })
}

/// Returns whether the HTTP status of a response without a gRPC status counts as `UNAVAILABLE`
/// (grpc/doc/http-grpc-status-mapping.md).
pub(crate) fn is_unavailable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// Returns whether headers or trailers refuse the token.
pub(crate) fn is_unauthenticated(headers: &HeaderMap) -> bool {
    read(headers).is_some_and(|status| status.code == UNAUTHENTICATED)
}

/// Returns whether headers or trailers show that the token was taken: a status that only a server gives which looked at the
/// call. Those of a cancelled (1) or overdue call (4), of an unknown or internal error (2, 13, 15), of a missing permission (7),
/// of a rate limit (8), of an unavailable server (14) and UNAUTHENTICATED (16) may come before.
pub(crate) fn is_acceptance(headers: &HeaderMap) -> bool {
    read(headers).is_some_and(|status| !matches!(status.code, 1 | 2 | 4 | 7 | 8 | 13 | 14 | 15 | 16))
}

/// Reads a number that is written as both headers demand: without a sign, a space, or a zero in front.
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || text.len() > 1 && text.starts_with('0') { None } else { text.parse().ok() }
}

/// A header that is there more than once, or is not text.
struct Unreadable;

fn once<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Unreadable> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Unreadable),
        (Some(_), Some(_)) => Err(Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(headers: &[(&'static str, &str)]) -> HeaderMap {
        headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn pushback(values: &[&str]) -> Pushback {
        let mut headers = map(&[("grpc-status", "8")]);
        for value in values {
            headers.append(&PUSHBACK, value.parse().unwrap());
        }
        read(&headers).unwrap().pushback
    }

    #[test]
    fn a_pushback_that_cannot_be_read_forbids() {
        let after = |millis| Pushback::After(Duration::from_millis(millis));
        assert_eq!(pushback(&[]), Pushback::Unsaid);
        assert_eq!(pushback(&["0"]), after(0));
        assert_eq!(pushback(&["2147483647"]), after(2_147_483_647));
        for bad in ["-1", "-0", "+5", "05", "-0x", "2147483648", "4294967296", "soon", "", "1.5", " 1 0"] {
            assert_eq!(pushback(&[bad]), Pushback::Never, "{bad}");
        }
        assert_eq!(pushback(&["5", "5"]), Pushback::Never);
        let mut headers = map(&[("grpc-status", "8")]);
        headers.insert(&PUSHBACK, http::HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(read(&headers).unwrap().pushback, Pushback::Never);
    }

    #[test]
    fn a_status_that_is_repeated_or_no_number_says_nothing() {
        let code = |headers: &[(&'static str, &str)]| read(&map(headers)).map(|status| status.code);
        assert_eq!(code(&[("grpc-status", "16")]), Some(16));
        assert_eq!(code(&[("grpc-status", "0")]), Some(0));
        for bad in ["abc", "", "+8", "08", "-1", "8 8", "1.0", "99999999999"] {
            assert_eq!(code(&[("grpc-status", bad)]), None, "{bad}");
        }
        assert_eq!(code(&[]), None);
        let mut twice = map(&[("grpc-status", "8")]);
        twice.append("grpc-status", "8".parse().unwrap());
        assert_eq!(read(&twice), None);
    }

    #[test]
    fn only_http_2_with_its_content_type_is_grpc() {
        let answer = |version, kind: &str| {
            let response = Response::builder().version(version).header(CONTENT_TYPE, kind).body(()).unwrap();
            is_grpc(&response)
        };
        assert!(answer(Version::HTTP_2, "application/grpc"));
        assert!(answer(Version::HTTP_2, "application/grpc+proto"));
        assert!(answer(Version::HTTP_2, "Application/gRPC"));
        assert!(!answer(Version::HTTP_2, "application/gr"));
        assert!(!answer(Version::HTTP_2, "application/json"));
        assert!(!answer(Version::HTTP_11, "application/grpc"));
        assert!(!is_grpc(&Response::builder().version(Version::HTTP_2).body(()).unwrap()));
    }

    #[test]
    fn a_message_is_as_long_as_its_prefix_says() {
        assert_eq!(first_message([&[0, 0, 0, 0, 0][..]]), Some(5));
        assert_eq!(first_message([&[1, 0, 0, 1, 2, 9, 9][..]]), Some(5 + 258));
        assert_eq!(first_message([&[0, 0xff, 0xff, 0xff, 0xff][..]]), Some(5 + 0xffff_ffff));
        assert_eq!(first_message([&[0, 0, 0, 0][..]]), None);
        assert_eq!(first_message([&[][..], &[1, 0], &[], &[0, 1], &[2, 9]]), Some(5 + 258));
    }

    proptest! {
        #[test]
        fn no_value_panics(status in "\\PC{0,24}", wait in "\\PC{0,24}") {
            let mut headers = HeaderMap::new();
            for (name, value) in [(&STATUS, status), (&PUSHBACK, wait)] {
                if let Ok(value) = http::HeaderValue::from_str(&value) {
                    headers.append(name, value);
                }
            }
            let _ = read(&headers);
        }
    }
}
