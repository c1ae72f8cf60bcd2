//! A copy of a request's head.

use std::cell::Cell;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Extensions, HeaderName, HeaderValue, Method, Request, Uri, Version, request};

use crate::headers::{self, grpc};
use crate::retry::body_factory::BodyFactory;
use crate::retry::gate::RequestKind;
use crate::retry::limits::account::RequestTarget;
use crate::retry::policy::idempotency::Repeatability;

/// A copy of a head, from which the heads of further attempts are made.
///
/// Nearly every one is dropped unread, and each request makes one, so it is made for that (instructions of the whole stack, as
/// a multiple of those of the static header, by `cargo bench --bench hot_path`):
///
/// 1. The headers are lists here and not a map: a clone of a `HeaderMap` copies its index as well. 2.50 with a map, 2.23 with
///    one list. The bytes of the values are shared either way.
/// 2. The next copy of the thread is made where one was dropped: 2.12 with the list alone reused.
/// 3. The request carries a pointer: 2.08; with the request not taken apart for it, 2.06.
/// 4. Names and values are lists of their own: 2.08 again, but less time (see `values`).
pub(super) struct HeadSnapshot {
    /// None once it is dropped.
    copy: Option<Box<HeadCopy>>,
}

/// One that is to be used again holds nothing.
#[derive(Default)]
struct HeadCopy {
    method: Method,
    /// None in one that is to be used again.
    uri: Option<Uri>,
    version: Version,
    extensions: Extensions,
    /// In the order of the map; of several values of one name in theirs.
    names: Vec<HeaderName>,
    /// The value of each. Not in pairs with the names: a pair is put together on the stack and copied from there in larger
    /// pieces than it was written in, and the processor waits for each. That took more time than two lists take, though these
    /// are more instructions.
    values: Vec<HeaderValue>,
}

thread_local! {
    /// An empty copy, for the next request of this thread.
    static SPARE: Cell<Option<Box<HeadCopy>>> = const { Cell::new(None) };
}

/// A copy with room for more headers is not used again.
const MOST_SPARE: usize = 64;

impl HeadSnapshot {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let mut copy = SPARE.try_with(Cell::take).ok().flatten().unwrap_or_default();
        copy.method = request.method().clone();
        copy.uri = Some(request.uri().clone());
        copy.version = request.version();
        copy.extensions = request.extensions().clone();
        copy.names.reserve(request.headers().len());
        copy.values.reserve(request.headers().len());
        for (name, value) in request.headers() {
            copy.names.push(name.clone());
            copy.values.push(value.clone());
        }
        Self { copy: Some(copy) }
    }

    /// Where the request goes, and with which credential.
    pub(super) fn target(&self) -> RequestTarget<'_> {
        RequestTarget { uri: self.uri(), credential: self.copy().extensions.get() }
    }

    /// Returns the properties by which the gate may tell it apart.
    pub(super) fn kind(&self) -> RequestKind<'_> {
        RequestKind::of(self.uri(), self.method())
    }

    /// How the body of a further attempt is opened, if not from a recording.
    pub(super) fn factory(&self) -> Option<&BodyFactory> {
        self.copy().extensions.get()
    }

    /// Returns the effect that a second attempt may have.
    pub(super) fn repeat(&self) -> Repeatability {
        Repeatability::as_it_is(self.method(), self.headers())
    }

    pub(super) fn is_grpc(&self) -> bool {
        self.headers().any(|(name, value)| *name == CONTENT_TYPE && grpc::is_grpc_type(value))
    }

    /// How long the body is, if the caller says so.
    pub(super) fn content_length(&self) -> Option<u64> {
        let (_, value) = self.headers().find(|(name, _)| **name == CONTENT_LENGTH)?;
        headers::content_length(value)
    }

    /// Returns the caller's name for the request.
    pub(super) fn request_id(&self) -> Option<&str> {
        let mut headers = self.headers();
        let value = headers.find_map(|(name, value)| (name == "x-request-id").then_some(value))?;
        value.to_str().ok().filter(|_| !value.is_sensitive())
    }

    /// Makes a head like the one that was copied.
    pub(super) fn head(&self) -> request::Parts {
        let copy = self.copy();
        let mut head = Request::new(()).into_parts().0;
        head.method = copy.method.clone();
        head.uri = self.uri().clone();
        head.version = copy.version;
        head.extensions = copy.extensions.clone();
        head.headers.reserve(copy.values.len());
        for (name, value) in self.headers() {
            head.headers.append(name, value.clone());
        }
        head
    }

    fn headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let copy = self.copy();
        copy.names.iter().zip(&copy.values)
    }

    pub(super) fn method(&self) -> &Method {
        &self.copy().method
    }

    pub(super) fn uri(&self) -> &Uri {
        self.copy().uri.as_ref().expect("a copy is emptied where it is dropped")
    }

    fn copy(&self) -> &HeadCopy {
        self.copy.as_ref().expect("a copy is taken where it is dropped")
    }
}

impl Drop for HeadSnapshot {
    fn drop(&mut self) {
        let Some(mut copy) = self.copy.take() else { return };
        copy.method = Method::default();
        copy.uri = None;
        copy.extensions.clear();
        copy.names.clear();
        copy.values.clear();
        if copy.values.capacity() <= MOST_SPARE {
            let _ = SPARE.try_with(|spare| spare.set(Some(copy)));
        }
    }
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
        let mut request = request.body(()).unwrap();
        // Removals leave a map in another order than it was filled in.
        request.headers_mut().remove("accept");
        request.headers_mut().insert("x-c", HeaderValue::from_bytes(b"\xff").unwrap());
        request.headers_mut().append("x-empty", HeaderValue::from_static(""));
        let long = HeaderName::from_bytes(&[b'n'; 65_535]).unwrap();
        request.headers_mut().append(long, HeaderValue::from_bytes(&[b'v'; 100_000]).unwrap());
        let mut secret = HeaderValue::from_static("hidden");
        secret.set_sensitive(true);
        request.headers_mut().append("cookie", secret);

        let copy = HeadSnapshot::of(&request);
        let head = request.into_parts().0;
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
