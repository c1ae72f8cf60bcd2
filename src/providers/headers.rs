//! Headers that an API wants on each request.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tower::ServiceExt as _;

use crate::body::Body;
use crate::http_transport::{HttpTransport, add_missing};

/// Puts headers on the requests that do not have them.
pub(super) fn with_headers(
    http: impl HttpTransport,
    headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
) -> impl HttpTransport {
    let headers = Arc::new(HeaderMap::from_iter(headers));
    http.map_request(move |mut request: Request<Body>| {
        add_missing(&headers, request.headers_mut());
        request
    })
}
