//! The message of an error for a body that is not the JSON that was asked for: kinds and places, never a value.

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

/// Says why the response of `of` cannot be read. `cure` helps if it is JSON of another shape.
///
/// The words of `serde_json` repeat the value that was read, which may be a secret. The kind and the expectation stay.
pub(super) fn message(of: &str, headers: &HeaderMap, error: &serde_json::Error, cure: &str) -> String {
    let place = match (error.line(), error.column()) {
        (1, 0) => String::new(),
        (line, column) => format!(", at line {line}, column {column}"),
    };
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(&*text, |(text, _)| text);
    if error.is_data() {
        let reason = mismatch(text);
        return format!("the response of {of} is not the JSON that was asked for{place}{reason}; {cure}");
    }
    let is_empty = error.is_eof() && place.is_empty();
    let reason = if is_empty { ": its body is empty".to_owned() } else { format!("{place} ({text})") };
    if let Some(encoding) = compression(headers).filter(|_| !is_empty) {
        return format!(
            "the response of {of} is not JSON{reason}; its content-encoding is {encoding}; have the HTTP client decompress it, \
             by tower-http's DecompressionLayer or a feature of reqwest"
        );
    }
    let content_type = content_type(headers);
    format!(
        "the response of {of} is not JSON{reason}; {content_type}; check the path of the request, and that no proxy or \
         login page responds instead"
    )
}

/// Says what is there and what was expected, as far as that shows no value.
fn mismatch(text: &str) -> String {
    let expected = text.rsplit_once(", expected ").map(|(_, expected)| match expected {
        "a sequence" => "a list",
        "a map" => "an object",
        other => other,
    });
    match (kind(text), expected) {
        (Some(kind), Some(expected)) => format!(": it is {kind} where {expected} was expected"),
        (_, Some(expected)) => format!(" (expected {expected})"),
        (_, None) if text.starts_with("missing field") => format!(" ({text})"),
        (_, None) => String::new(),
    }
}

/// Returns the kind of the value that `serde_json` names, in the words of JSON.
fn kind(text: &str) -> Option<&'static str> {
    let found = text.strip_prefix("invalid type: ")?;
    let kinds = [
        ("map", "an object"),
        ("sequence", "a list"),
        ("string ", "a string"),
        ("integer ", "a number"),
        ("floating point ", "a number"),
        ("boolean ", "a boolean"),
        ("null", "null"),
    ];
    kinds.into_iter().find_map(|(name, kind)| found.starts_with(name).then_some(kind))
}

/// Returns the compression that the response still has, if it is a usual one. Another text is not repeated.
fn compression(headers: &HeaderMap) -> Option<&'static str> {
    let value = headers.get(CONTENT_ENCODING)?.to_str().ok()?;
    let outermost = value.rsplit(',').next()?.trim();
    let known = ["gzip", "x-gzip", "br", "zstd", "deflate", "compress"];
    known.into_iter().find(|name| outermost.eq_ignore_ascii_case(name))
}

/// Says which content type the response has, without parameters. One that is malformed is not repeated.
fn content_type(headers: &HeaderMap) -> String {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return "it has no content-type".to_owned();
    };
    let value = value.to_str().unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    match essence.split_once('/') {
        Some((main, sub)) if is_name(main) && is_name(sub) => {
            format!("its content-type is {}", essence.to_ascii_lowercase())
        }
        _ => "its content-type is malformed".to_owned(),
    }
}

/// Returns whether this is the name of a type (RFC 6838 §4.2).
fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
    matches!(text.len(), 1..=127) && text.bytes().all(allowed)
}
