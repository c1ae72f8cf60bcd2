//! The response.

use std::fmt;

use bytes::Bytes;
use http::{Extensions, HeaderMap, Response, StatusCode};
use http_body::Body as HttpBody;
#[cfg(feature = "providers")]
use http_body_util::Limited;
use http_body_util::{BodyExt as _, Collected};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tower::BoxError;

use super::error::ApiError;
use super::service::in_time;
use crate::body::Body;
use crate::extensions::Deadline;
use crate::origin::Origin;

/// The response to a request of an [`ApiClient`](super::ApiClient). Its body is read when you ask for it.
///
/// # Examples
///
/// ```
/// # use http::{Request, Response};
/// # use tower::{BoxError, service_fn};
/// # use tower_oauth2::{AccessToken, ApiClient, Body};
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// # let fake = service_fn(async |request: Request<Body>| {
/// #     let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
/// #     Ok::<_, BoxError>(Response::new(Body::from(format!("{{\"path\":\"{path}\"}}"))))
/// # });
/// # let tokens = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
/// # let api = ApiClient::builder("https://api.example.com/v2", tokens).build_with(fake)?;
/// use std::collections::HashMap;
///
/// let response = api.get("orders").send().await?.error_for_status()?;
/// assert_eq!(response.status(), 200);
/// let order: HashMap<String, String> = response.json().await?;
/// assert_eq!(order["path"], "/v2/orders");
/// # Ok::<_, BoxError>(()) })?;
/// # Ok::<_, BoxError>(())
/// ```
pub struct ApiResponse<RB = Body> {
    inner: Response<RB>,
    origin: Origin,
    /// By when the body must have been read.
    deadline: Option<Deadline>,
}

impl<RB> ApiResponse<RB> {
    pub(super) fn new(inner: Response<RB>, origin: Origin, deadline: Option<Deadline>) -> Self {
        Self { inner, origin, deadline }
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Returns by when the body must have been read.
    fn end(&self) -> Option<Instant> {
        self.deadline.map(|deadline| deadline.instant().into())
    }

    /// Returns the origin for messages.
    #[cfg(feature = "providers")]
    pub(crate) fn origin_of(&self) -> String {
        self.origin.to_string()
    }

    /// Names the response for messages. A status that was not asked for explains most bodies that are not what was expected.
    fn named(&self) -> String {
        match self.status() {
            StatusCode::OK => self.origin.to_string(),
            status => format!("{} with the status {status}", self.origin),
        }
    }

    /// Returns the status.
    pub fn status(&self) -> StatusCode {
        self.inner.status()
    }

    /// Returns the headers.
    pub fn headers(&self) -> &HeaderMap {
        self.inner.headers()
    }

    /// Returns what the layers say about the response, such as a [`RetryReport`](crate::retry::RetryReport).
    pub fn extensions(&self) -> &Extensions {
        self.inner.extensions()
    }

    /// Returns an error if the status is 4xx or 5xx. The body is dropped, so read it before if you need it.
    ///
    /// A redirect to another origin is returned and not followed, and is not an error here. See [downloads](crate::guide::downloads) for
    /// an API that redirects to a host of files.
    ///
    /// # Errors
    ///
    /// One that knows the status, if it is one of those. Its message says which scope is missing, or why the request was not
    /// sent again.
    pub fn error_for_status(self) -> Result<Self, ApiError> {
        let status = self.status();
        if !status.is_client_error() && !status.is_server_error() {
            return Ok(self);
        }
        Err(ApiError::status_of(&self.origin.to_string(), status, self.extensions()))
    }

    /// Unwraps the response, to read its body frame by frame. [Downloads](crate::guide::downloads) has more examples.
    ///
    /// # Examples
    ///
    /// ```
    /// # use http::{Request, Response};
    /// # use tower::{BoxError, service_fn};
    /// # use tower_oauth2::{AccessToken, ApiClient, Body};
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// # let fake = service_fn(async |_: Request<Body>| Ok::<_, BoxError>(Response::new(Body::from("12 bytes now"))));
    /// # let tokens = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
    /// # let api = ApiClient::builder("https://api.example.com/v2", tokens).build_with(fake)?;
    /// use http_body_util::BodyExt as _;
    ///
    /// let response = api.get("report").send().await?.error_for_status()?;
    /// let (head, mut body) = response.into_inner().into_parts();
    /// let mut length = 0;
    /// while let Some(frame) = body.frame().await {
    ///     length += frame?.data_ref().map_or(0, |data| data.len());
    /// }
    /// assert_eq!((head.status.as_u16(), length), (200, 12));
    /// # Ok::<_, BoxError>(()) })?;
    /// # Ok::<_, BoxError>(())
    /// ```
    #[doc(alias = "bytes_stream")]
    #[doc(alias = "chunk")]
    pub fn into_inner(self) -> Response<RB> {
        self.inner
    }
}

impl<RB> ApiResponse<RB>
where
    RB: HttpBody,
    RB::Error: Into<BoxError>,
{
    /// Reads the body to its end, without a limit.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the body.
    ///
    /// # Errors
    ///
    /// If the body breaks off, or is not there to its end when the request's [`timeout`](super::ApiRequest::timeout) is over.
    pub async fn bytes(self) -> Result<Bytes, ApiError> {
        let (end, of) = (self.end(), self.origin.to_string());
        let body = in_time(end, self.inner.into_body().collect()).await;
        body.map(Collected::to_bytes).map_err(|error| ApiError::body(&of, error))
    }

    /// Reads the body to its end, if it is not longer than that.
    #[cfg(feature = "providers")]
    pub(crate) async fn limited_bytes(self, most: usize) -> Result<Bytes, BoxError> {
        let end = self.end();
        let body = Limited::new(self.inner.into_body(), most);
        in_time(end, body.collect()).await.map(Collected::to_bytes)
    }

    /// Reads the body as UTF-8, without a byte order mark. Malformed bytes become the replacement character. A body that is
    /// compressed stays so, unless the [HTTP client decompresses it](crate::guide::network).
    ///
    /// # Cancel safety
    ///
    /// As [`bytes`](Self::bytes).
    ///
    /// # Errors
    ///
    /// As [`bytes`](Self::bytes).
    pub async fn text(self) -> Result<String, ApiError> {
        let bytes = without_mark(self.bytes().await?);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Reads the body as JSON, with any content type.
    ///
    /// # Cancel safety
    ///
    /// As [`bytes`](Self::bytes).
    ///
    /// # Errors
    ///
    /// As [`bytes`](Self::bytes), and if it is not the JSON that `T` wants.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        let (headers, of) = (self.headers().clone(), self.named());
        let bytes = without_mark(self.bytes().await?);
        serde_json::from_slice(&bytes).map_err(|error| ApiError::decode(&of, &headers, &error))
    }
}

/// Takes off the byte order mark with which some begin a text, and which `serde_json` takes for an error.
pub(super) fn without_mark(mut text: Bytes) -> Bytes {
    if text.starts_with(b"\xEF\xBB\xBF") { text.split_off(3) } else { text }
}

impl<RB> fmt::Debug for ApiResponse<RB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiResponse").field("status", &self.status()).finish_non_exhaustive()
    }
}
