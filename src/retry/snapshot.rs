//! A copy of a request's head.

use http::{HeaderMap, request};

use super::account::Target;
use super::gate::Kind;
use super::idempotency::Repeat;

/// A copy of a head, from which the heads of further attempts are made.
///
/// Nearly every one is dropped unread. A copy of a `HeaderMap` shares the bytes of its values, so what it costs does not grow
/// with them.
pub(super) struct Snapshot {
    head: request::Parts,
}

impl Snapshot {
    pub(super) fn of(head: &request::Parts) -> Self {
        Self { head: head.clone() }
    }

    /// Where the request goes, and with which credential.
    pub(super) fn target(&self) -> Target<'_> {
        Target::of(&self.head)
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// What the gate may tell it apart by.
    pub(super) fn kind(&self) -> Kind<'_> {
        Kind::of(&self.head.uri, &self.head.method)
    }

    pub(super) fn repeat(&self) -> Repeat {
        Repeat::as_it_is(&self.head.method, &self.head.headers)
    }

    /// Makes a head like the one that was copied.
    pub(super) fn head(&self) -> request::Parts {
        self.head.clone()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Request, Version};

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
