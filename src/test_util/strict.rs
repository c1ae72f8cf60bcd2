//! How the emulators of vendors read requests: what is wrong or too much is a fault, and is kept.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
#[cfg(feature = "jwt")]
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header, request};
use serde_json::Value;

use crate::body::Body;

/// Why a request does not get what it wants.
pub(super) enum Refusal {
    /// It is wrong.
    Fault(String),
    /// It is as it should be, and refused.
    Response(Box<Response<Body>>),
}

/// The faults found in requests so far.
#[derive(Debug, Default)]
pub(super) struct Faults {
    list: Mutex<Vec<String>>,
}

/// Names and values, each name once.
pub(super) type Fields = BTreeMap<String, String>;

impl Refusal {
    pub(super) fn status(status: StatusCode, body: &Value) -> Self {
        json_response(status, body).into()
    }
}

impl From<Response<Body>> for Refusal {
    fn from(response: Response<Body>) -> Self {
        Self::Response(Box::new(response))
    }
}

impl Faults {
    /// Keeps a fault.
    pub(super) fn keep(&self, fault: &str) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push(fault.to_owned());
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(super) fn fault(message: impl Into<String>) -> Refusal {
    Refusal::Fault(message.into())
}

/// Returns a header as text.
pub(super) fn text(head: &request::Parts, name: impl Into<HeaderName>) -> Option<&str> {
    head.headers.get(name.into())?.to_str().ok()
}

/// Returns what stands behind the scheme of `Authorization`.
pub(super) fn authorization<'a>(head: &'a request::Parts, scheme: &str) -> Result<&'a str, Refusal> {
    text(head, header::AUTHORIZATION)
        .and_then(|value| value.strip_prefix(scheme)?.strip_prefix(' '))
        .ok_or_else(|| fault(format!("a request without a {scheme} authorization")))
}

/// Returns the user name and the password of a Basic authorization, with the colon between them.
pub(super) fn basic(head: &request::Parts) -> Result<String, Refusal> {
    let decoded = BASE64_STANDARD.decode(authorization(head, "Basic")?).ok();
    let pair = decoded.and_then(|pair| String::from_utf8(pair).ok());
    pair.ok_or_else(|| fault("the credentials of a client are not base64"))
}

/// Reads pairs in the form encoding, each name once.
pub(super) fn pairs(text: &[u8]) -> Result<Fields, Refusal> {
    let mut fields = Fields::new();
    for (name, value) in form_urlencoded::parse(text).into_owned() {
        if fields.insert(name.clone(), value).is_some() {
            return Err(fault(format!("{name} stands twice")));
        }
    }
    Ok(fields)
}

/// Reads the query.
pub(super) fn query(head: &request::Parts) -> Result<Fields, Refusal> {
    pairs(head.uri.query().unwrap_or_default().as_bytes())
}

/// Reads the query, which has no other parameters than these.
pub(super) fn query_of(head: &request::Parts, known: &[&str]) -> Result<Fields, Refusal> {
    let query = query(head)?;
    expect(&query, &[], known)?;
    Ok(query)
}

/// Reads a form, beside which there is no query.
pub(super) fn form(head: &request::Parts, body: &Bytes) -> Result<Fields, Refusal> {
    expect_type(head, "application/x-www-form-urlencoded")?;
    pairs(body)
}

/// Reads a JSON object, beside which there is no query.
pub(super) fn object(head: &request::Parts, body: &Bytes) -> Result<BTreeMap<String, Value>, Refusal> {
    expect_type(head, "application/json")?;
    serde_json::from_slice(body).map_err(|_| fault("the body is not a JSON object"))
}

fn expect_type(head: &request::Parts, media_type: &str) -> Result<(), Refusal> {
    if head.uri.query().is_some() {
        return Err(fault("a request with a body has no query"));
    }
    match text(head, header::CONTENT_TYPE) == Some(media_type) {
        true => Ok(()),
        false => Err(fault(format!("the content type is not {media_type}"))),
    }
}

/// Checks that there are these names, perhaps some of the others, and no further one.
pub(super) fn expect<V>(
    fields: &BTreeMap<String, V>,
    required: &[&str],
    optional: &[&str],
) -> Result<(), Refusal> {
    if let Some(name) = required.iter().find(|name| !fields.contains_key(**name)) {
        return Err(fault(format!("{name} is missing")));
    }
    let is_known = |name: &String| required.contains(&name.as_str()) || optional.contains(&name.as_str());
    match fields.keys().find(|name| !is_known(name)) {
        Some(name) => Err(fault(format!("{name} is not one of the fields"))),
        None => Ok(()),
    }
}

/// Checks that a field has this value.
pub(super) fn expect_value(fields: &Fields, name: &str, value: &str) -> Result<(), Refusal> {
    match fields.get(name).is_some_and(|found| found == value) {
        true => Ok(()),
        false => Err(fault(format!("{name} is not {value}"))),
    }
}

pub(super) fn json_response(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Writes a point in time, given since the Unix epoch, as RFC 3339 §5.6 has it, in whole seconds.
#[cfg(feature = "jwt")]
pub(super) fn rfc3339(time: Duration) -> String {
    let (days, second) = (time.as_secs() / 86_400, time.as_secs() % 86_400);
    // Counted from March of the year 0, so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let months = (5 * day + 2) / 153;
    let (month, day) = (if months < 10 { months + 3 } else { months - 9 }, day - (153 * months + 2) / 5 + 1);
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(all(test, feature = "jwt"))]
mod tests {
    use super::*;

    #[test]
    fn a_point_in_time_is_written_by_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(Duration::from_secs(seconds)), text);
        }
    }
}
