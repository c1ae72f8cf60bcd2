//! `google.rpc.RetryInfo`, a detail of a gRPC status: how long to wait before the next attempt at least.
//!
//! It comes in `grpc-status-details-bin`, in Base64 with or without padding, as a `google.rpc.Status`:
//!
//! ```text
//! Status    { 1: code, 2: message, 3: repeated Any details }
//! Any       { 1: type_url, 2: value }
//! RetryInfo { 1: Duration retry_delay }
//! Duration  { 1: seconds, 2: nanos }
//! ```
//!
//! Of several the longest counts. Malformed ones are ignored.

use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use http::header::HeaderName;

use crate::clock::FARTHEST;
use crate::headers::retry_after::values;

pub(crate) static DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const TYPE: &[u8] = b"google.rpc.RetryInfo";

/// Reads headers or trailers.
pub(super) fn read(headers: &HeaderMap) -> Option<Duration> {
    // Binary headers that are there several times may be joined with commas.
    let elements = values(headers, &DETAILS).flat_map(|line| line.split(','));
    let delays = elements.filter_map(|element| status(&BASE64.decode(element.trim_ascii()).ok()?));
    Some(delays.max()?.min(FARTHEST))
}

fn status(message: &[u8]) -> Option<Duration> {
    fields(message).filter_map(|field| detail(field.bytes(3)?)).max()
}

fn detail(any: &[u8]) -> Option<Duration> {
    let url = fields(any).find_map(|field| field.bytes(1))?;
    if url.rsplit(|byte| *byte == b'/').next() != Some(TYPE) {
        return None;
    }
    let info = fields(any).find_map(|field| field.bytes(2))?;
    duration(fields(info).find_map(|field| field.bytes(1))?)
}

/// A span that is negative is none.
fn duration(message: &[u8]) -> Option<Duration> {
    let number = |wanted| fields(message).find_map(|field| field.number(wanted)).unwrap_or(0);
    let seconds = u64::try_from(number(1).cast_signed()).ok()?;
    let nanos = u32::try_from(number(2)).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

// --- Field ---

/// A field of a protobuf message.
struct Field<'a> {
    number: u64,
    value: Value<'a>,
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Field<'a> {
    fn bytes(&self, number: u64) -> Option<&'a [u8]> {
        match self.value {
            Value::Bytes(bytes) if self.number == number => Some(bytes),
            Value::Varint(_) | Value::Bytes(_) | Value::Fixed => None,
        }
    }

    fn number(&self, number: u64) -> Option<u64> {
        match self.value {
            Value::Varint(value) if self.number == number => Some(value),
            Value::Varint(_) | Value::Bytes(_) | Value::Fixed => None,
        }
    }
}

/// Reads the fields of a message, as far as they can be read.
fn fields(mut message: &[u8]) -> impl Iterator<Item = Field<'_>> {
    std::iter::from_fn(move || {
        let tag = varint(&mut message)?;
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut message)?),
            1 => take(&mut message, 8).map(|_| Value::Fixed)?,
            2 => {
                let length = varint(&mut message)?;
                Value::Bytes(take(&mut message, usize::try_from(length).ok()?)?)
            }
            5 => take(&mut message, 4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some(Field { number: tag >> 3, value })
    })
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some(taken)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(message, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        field.extend_from_slice(bytes);
        field
    }

    fn details(url: &str, seconds: &[u8], nanos: &[u8]) -> Vec<u8> {
        let mut delay = Vec::new();
        if !seconds.is_empty() {
            delay.extend([&[1 << 3][..], seconds].concat());
        }
        if !nanos.is_empty() {
            delay.extend([&[2 << 3][..], nanos].concat());
        }
        let any = [field(1, url.as_bytes()), field(2, &field(1, &delay))].concat();
        [vec![1 << 3, 8], field(2, b"slow down"), field(3, &any)].concat()
    }

    fn said(values: &[&str]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&DETAILS, value.parse().unwrap());
        }
        read(&headers)
    }

    #[test]
    fn the_delay_of_a_retry_info_is_found_among_the_details() {
        let url = "type.googleapis.com/google.rpc.RetryInfo";
        for (message, expected) in [
            (details(url, &[30], &[]), Some(Duration::from_secs(30))),
            (details(url, &[0xac, 0x02], &[]), Some(Duration::from_secs(300))),
            (details(url, &[2], &[0x80, 0xca, 0xb5, 0xee, 0x01]), Some(Duration::from_millis(2500))),
            (details(url, &[], &[]), Some(Duration::ZERO)),
            (details("type.googleapis.com/google.rpc.QuotaFailure", &[30], &[]), None),
            // Minus one.
            (details(url, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], &[]), None),
        ] {
            let padded = base64::engine::general_purpose::STANDARD.encode(&message);
            assert_eq!(said(&[&padded]), expected);
            assert_eq!(said(&[padded.trim_end_matches('=')]), expected);
        }
        let of = |seconds| BASE64.encode(details(url, &[seconds], &[]));
        assert_eq!(said(&[&of(3), &of(7)]), Some(Duration::from_secs(7)));
        assert_eq!(said(&[&format!("{}, {}", of(9), of(7))]), Some(Duration::from_secs(9)));
        assert_eq!(said(&["", "!", "AAAA"]), None);
        assert_eq!(said(&[]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(message in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = status(&message);
            let _ = duration(&message);
        }
    }
}
