//! A copy of a request's head.

use bytes::{Buf as _, Bytes};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, request};

use super::account::Target;

/// A copy of a head, from which the heads of further attempts are made: equal to the first in all, the order of headers
/// with several values included.
///
/// Nearly every one is dropped unread. So its headers are one string of bytes: a copy of a `HeaderMap` takes about twice the
/// time, for the sake of lookups that nobody makes.
pub(super) struct Snapshot {
    method: Method,
    uri: Uri,
    version: Version,
    headers: Vec<u8>,
    extensions: Extensions,
}

impl Snapshot {
    pub(super) fn of(head: &request::Parts) -> Self {
        Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            headers: written(&head.headers),
            extensions: head.extensions.clone(),
        }
    }

    /// Where the request goes, and with which credential.
    pub(super) fn target(&self) -> Target<'_> {
        Target { uri: &self.uri, credential: self.extensions.get() }
    }

    /// Makes a head like the one that was copied.
    pub(super) fn head(&self) -> request::Parts {
        let mut head = Request::new(()).into_parts().0;
        head.method = self.method.clone();
        head.uri = self.uri.clone();
        head.version = self.version;
        head.headers = read(&self.headers);
        head.extensions = self.extensions.clone();
        head
    }
}

/// How much room a header is given, mark included. Where that is not enough, there is more in the next step.
const USUAL: usize = 64;

/// Writes headers one after the other: a mark, the name, the value.
fn written(headers: &HeaderMap) -> Vec<u8> {
    let mut text = Vec::with_capacity(USUAL * headers.len());
    for (name, value) in headers {
        text.extend_from_slice(&mark(name, value).to_ne_bytes());
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(value.as_bytes());
    }
    text
}

/// Makes a map of what was written.
fn read(text: &[u8]) -> HeaderMap {
    const SAME: &str = "what was a header is one again";
    let mut text = Bytes::copy_from_slice(text);
    let mut headers = HeaderMap::new();
    while let Ok(mark) = text.try_get_u64_ne() {
        let name = text.split_to(name_length(mark));
        let value = text.split_to(value_length(mark));
        let mut value = HeaderValue::from_maybe_shared(value).expect(SAME);
        value.set_sensitive(is_sensitive(mark));
        headers.append(HeaderName::from_bytes(&name).expect(SAME), value);
    }
    headers
}

// --- Mark: all that is known of a header besides its text ---

/// A name is shorter than 64 KiB (`HeaderName` holds to that), and a value no longer than the memory.
fn mark(name: &HeaderName, value: &HeaderValue) -> u64 {
    u64::from(value.is_sensitive()) | (name.as_str().len() as u64) << 1 | (value.len() as u64) << 17
}

fn is_sensitive(mark: u64) -> bool {
    mark & 1 == 1
}

#[allow(clippy::cast_possible_truncation, reason = "16 bits")]
fn name_length(mark: u64) -> usize {
    (mark >> 1) as u16 as usize
}

#[allow(clippy::cast_possible_truncation, reason = "it was a usize")]
fn value_length(mark: u64) -> usize {
    (mark >> 17) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    // Case B24.
    #[test]
    fn a_copy_is_like_what_was_copied() {
        let names = ["accept", "x-b", "x-a", "cookie", "x-b", "accept", "x-b", "content-length"];
        let mut request =
            Request::post("https://api.example.com:8443/a?b=c").version(Version::HTTP_2).extension(7_u8);
        for (at, name) in names.iter().enumerate() {
            request = request.header(*name, at);
        }
        let mut head = request.body(()).unwrap().into_parts().0;
        // Removals leave a map in another order than it was filled in.
        head.headers.remove("accept");
        head.headers.insert("x-c", HeaderValue::from_bytes(b"\xff").unwrap());
        head.headers.append("x-empty", HeaderValue::from_static(""));
        let long = HeaderName::from_bytes(&[b'n'; 65_535]).unwrap();
        head.headers.append(long, HeaderValue::from_bytes(&[b'v'; 100_000]).unwrap());
        let mut secret = HeaderValue::from_static("hidden");
        secret.set_sensitive(true);
        head.headers.append("cookie", secret);

        let copy = Snapshot::of(&head);
        for _ in 0..2 {
            let made = copy.head();
            assert_eq!((&made.method, &made.uri, made.version), (&head.method, &head.uri, head.version));
            assert_eq!(made.extensions.get(), Some(&7_u8));
            assert!(made.headers.iter().eq(head.headers.iter()));
            let sensitive = |head: &request::Parts| -> Vec<bool> {
                head.headers.values().map(HeaderValue::is_sensitive).collect()
            };
            assert_eq!(sensitive(&made), sensitive(&head));
        }
    }
}
