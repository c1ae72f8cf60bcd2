//! How a token ends itself at an API.

use http::header::AUTHORIZATION;
use http::{Request, StatusCode};
use tower::ServiceExt as _;

use crate::body::Body;
use crate::error::Error;
use crate::http_transport::HttpTransport;
use crate::providers::passing;
use crate::revoke::{TokenRevoker, revoker_fn};
use crate::token::AccessToken;

/// Makes what revokes a token by a DELETE that it authorizes itself.
pub(super) fn by_delete(url: String, transport: impl HttpTransport) -> impl TokenRevoker {
    revoker_fn(move |token: AccessToken| {
        let (transport, url) = (transport.clone(), url.clone());
        async move {
            let request = Request::delete(url)
                .header(AUTHORIZATION, token.header_value())
                .body(Body::empty())
                .map_err(|error| Error::config("the revocation cannot be built").with_source(error))?;
            let response = transport.oneshot(request).await.map_err(|error| {
                Error::transient("the API did not respond; the token counts as still valid")
                    .with_source(error)
            })?;
            match response.status() {
                // A token that is refused has ended.
                status if status.is_success() || status == StatusCode::UNAUTHORIZED => Ok(()),
                status => {
                    const WHAT: &str = "the API did not revoke the token; it counts as still valid";
                    let passing = passing::error(WHAT, status, response.headers());
                    Err(passing.unwrap_or_else(|| Error::transient(WHAT).with_status(status)))
                }
            }
        }
    })
}
