//! Headers that an API wants on each request.

use http::{HeaderName, HeaderValue, Request};
use tower::ServiceExt as _;

use crate::body::Body;
use crate::http_transport::HttpTransport;

/// Puts headers on the requests that do not have them.
pub(super) fn with_headers(
    http: impl HttpTransport,
    headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
) -> impl HttpTransport {
    let headers: Vec<_> = headers.into_iter().collect();
    http.map_request(move |mut request: Request<Body>| {
        for (name, value) in &headers {
            request.headers_mut().entry(name).or_insert_with(|| value.clone());
        }
        request
    })
}
