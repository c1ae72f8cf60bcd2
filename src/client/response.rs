//! The response.

use std::fmt;

use bytes::Bytes;
use http::{Extensions, HeaderMap, Response, StatusCode};
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use tower::BoxError;

use super::error::ApiError;
use crate::body::Body;
use crate::origin::Origin;
use crate::retry::RetryReport;

/// The response to a request of an [`ApiClient`](super::ApiClient). Its body is read when you ask for it.
pub struct ApiResponse<RB = Body> {
    inner: Response<RB>,
    origin: Origin,
}

impl<RB> ApiResponse<RB> {
    pub(super) fn new(inner: Response<RB>, origin: Origin) -> Self {
        Self { inner, origin }
    }

    /// Returns the status.
    pub fn status(&self) -> StatusCode {
        self.inner.status()
    }

    /// Returns the headers.
    pub fn headers(&self) -> &HeaderMap {
        self.inner.headers()
    }

    /// Returns what the layers say about the response, such as a [`RetryReport`].
    pub fn extensions(&self) -> &Extensions {
        self.inner.extensions()
    }

    /// Returns an error if the status is 4xx or 5xx.
    ///
    /// # Errors
    ///
    /// One that knows the status, if it is one of those.
    pub fn error_for_status(self) -> Result<Self, ApiError> {
        let status = self.status();
        if !status.is_client_error() && !status.is_server_error() {
            return Ok(self);
        }
        let report = self.extensions().get::<RetryReport>().cloned();
        Err(ApiError::status_of(&self.origin.to_string(), status, report))
    }

    /// Unwraps the response, to read its body frame by frame.
    pub fn into_inner(self) -> Response<RB> {
        self.inner
    }
}

impl<RB> ApiResponse<RB>
where
    RB: HttpBody,
    RB::Error: Into<BoxError>,
{
    /// Reads the body to its end, whatever its length.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the body.
    ///
    /// # Errors
    ///
    /// If the body breaks off.
    pub async fn bytes(self) -> Result<Bytes, ApiError> {
        let collected = self.inner.into_body().collect().await;
        let collected = collected.map_err(|error| ApiError::body(&self.origin.to_string(), error))?;
        Ok(collected.to_bytes())
    }

    /// Reads the body as UTF-8. What is not becomes the replacement character.
    ///
    /// # Cancel safety
    ///
    /// As [`bytes`](Self::bytes).
    ///
    /// # Errors
    ///
    /// As [`bytes`](Self::bytes).
    pub async fn text(self) -> Result<String, ApiError> {
        let bytes = self.bytes().await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Reads the body as JSON, whatever its content type.
    ///
    /// # Cancel safety
    ///
    /// As [`bytes`](Self::bytes).
    ///
    /// # Errors
    ///
    /// As [`bytes`](Self::bytes), and if it is not the JSON that `T` wants.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        let origin = self.origin.clone();
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|error| ApiError::decode(&origin.to_string(), error))
    }
}

impl<RB> fmt::Debug for ApiResponse<RB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiResponse").field("status", &self.status()).finish_non_exhaustive()
    }
}
