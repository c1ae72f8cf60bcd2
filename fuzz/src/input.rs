//! What the inputs are made of: lines of text where that is possible, so that a seed can be read and a find explained.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// No server sends more header lines, and a map has a limit of its own.
const MOST_LINES: usize = 100;

/// Splits off the first line.
pub(crate) fn line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[]),
    }
}

/// Splits off a line that is to be text.
pub(crate) fn text_line(data: &[u8]) -> (String, &[u8]) {
    let (line, rest) = line(data);
    (String::from_utf8_lossy(line).into_owned(), rest)
}

/// Splits off a line that is a time in seconds since the Unix epoch, up to the end of the year 9999; any other is the
/// start of 2020.
pub(crate) fn time(data: &[u8]) -> (Duration, &[u8]) {
    let (line, rest) = text_line(data);
    (parse_time(&line), rest)
}

pub(crate) fn parse_time(text: &str) -> Duration {
    let seconds = text.parse().ok().filter(|seconds| *seconds < 253_402_300_800);
    Duration::from_secs(seconds.unwrap_or(1_577_836_800))
}

/// Splits off header lines, up to an empty one. What is none is passed over.
pub(crate) fn headers(mut data: &[u8]) -> (HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    for _ in 0..MOST_LINES {
        let (header, rest) = line(data);
        data = rest;
        if header.is_empty() {
            break;
        }
        let Some(colon) = header.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&header[..colon]);
        let value = HeaderValue::from_bytes(header[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    (headers, data)
}
