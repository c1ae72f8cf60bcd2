//! The ID tokens of the metadata server, which are text and not JSON.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use tower::{BoxError, ServiceExt as _, service_fn};

use crate::body::Body;
use crate::http_transport::HttpTransport;
use crate::token::is_b64token;

/// A longer response is an error.
const MOST_BYTES: usize = 64 * 1024;

/// Makes an object with the member `id_token` of a response that is a token.
pub(super) fn text_as_object(transport: impl HttpTransport) -> impl HttpTransport {
    service_fn(move |request: Request<Body>| {
        let sent = transport.clone().oneshot(request);
        async move {
            let (mut head, body) = sent.await.map_err(Into::into)?.into_parts();
            if !head.status.is_success() {
                return Ok::<_, BoxError>(Response::from_parts(head, Body::new(body)));
            }
            let text = Limited::new(body, MOST_BYTES).collect().await?.to_bytes();
            let token = std::str::from_utf8(&text)?.trim();
            // The page of a gateway is no token.
            if !is_b64token(token) {
                return Ok(Response::from_parts(head, Body::from(text)));
            }
            head.headers.remove(CONTENT_LENGTH);
            head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let object = serde_json::json!({ "id_token": token }).to_string();
            Ok(Response::from_parts(head, Body::from(object)))
        }
    })
}
