//! One page.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::Body as HttpBody;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tower::BoxError;

use super::super::error::ApiError;
use super::super::response::{ApiResponse, without_mark};
use super::member::Member;
use super::next::Next;

/// One page: a response that was read to its end.
///
/// # Examples
///
/// ```
/// use serde_json::Value;
/// use tower_oauth2::client::ApiError;
/// use tower_oauth2::client::pages::Page;
///
/// fn names(page: &Page) -> Result<Vec<String>, ApiError> {
///     let users: Vec<Value> = page.items()?;
///     Ok(users.iter().map(|user| user["name"].to_string()).collect())
/// }
/// # let _ = names;
/// ```
pub struct Page {
    response: Response<Bytes>,
    origin: String,
    number: u64,
    next: Arc<Next>,
}

impl Page {
    pub(super) async fn read<RB>(
        response: ApiResponse<RB>,
        number: u64,
        next: Arc<Next>,
    ) -> Result<Self, ApiError>
    where
        RB: HttpBody,
        RB::Error: Into<BoxError>,
    {
        let mut head = Response::new(());
        *head.status_mut() = response.status();
        *head.headers_mut() = response.headers().clone();
        *head.extensions_mut() = response.extensions().clone();
        let origin = response.origin().to_string();
        let body = without_mark(response.bytes().await?);
        Ok(Self { response: head.map(|()| body), origin, number, next })
    }

    /// Returns the response: status, headers, body, and in its extensions what the layers say about it, such as a
    /// [`RetryReport`](crate::retry::RetryReport). A status of 4xx or 5xx is an error of [`Pages::next`](super::Pages::next),
    /// and no page.
    #[must_use]
    pub fn response(&self) -> &Response<Bytes> {
        &self.response
    }

    /// Returns which page it is, from 1 on, those before a [resumption](super::Pages::resume) included.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Reads the body as JSON, with any content type.
    ///
    /// # Errors
    ///
    /// If it is not the JSON that `T` wants.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_slice(self.body())
            .map_err(|error| ApiError::decode(&self.origin, self.headers(), &error))
    }

    /// Reads the items: the array that [`Next::items`] names, or the body itself. None if it is null or not there.
    ///
    /// # Errors
    ///
    /// If it is not the JSON that `T` wants.
    pub fn items<T: DeserializeOwned>(&self) -> Result<Vec<T>, ApiError> {
        if self.body().is_empty() {
            return Ok(Vec::new());
        }
        let Some(items) = self.next.items_of(self)?.filter(|items| items.get() != "null") else {
            return Ok(Vec::new());
        };
        serde_json::from_str(items.get()).map_err(|error| {
            if self.next.names_items() || !items.get().starts_with('{') {
                ApiError::decode(&self.origin, self.headers(), &error)
            } else {
                ApiError::decode_unnamed_items(&self.origin, self.headers(), &error)
            }
        })
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    pub(super) fn body(&self) -> &Bytes {
        self.response.body()
    }

    /// Returns whether the status says that there is no body.
    pub(super) fn has_no_content(&self) -> bool {
        matches!(
            self.response.status(),
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
        )
    }

    pub(super) fn is_array(&self) -> bool {
        self.body().trim_ascii_start().starts_with(b"[")
    }

    pub(super) fn member(&self, member: &Member) -> Result<Option<&RawValue>, ApiError> {
        member.find(self.body()).map_err(|error| ApiError::decode(&self.origin, self.headers(), &error))
    }

    // Names are the caller's own words; values are the server's, and not shown.

    pub(super) fn unlike(&self, member: &Member, wanted: &str) -> ApiError {
        self.error(&format!(
            "the member {member:?} of page {} is not {wanted}",
            self.number,
            member = member.as_str()
        ))
    }

    pub(super) fn named_otherwise(&self, member: &Member, other: &str) -> ApiError {
        let other = crate::text::clean(other);
        let member = member.as_str();
        self.error(&format!(
            "the page has no items in {member:?}, but it has some in {other:?}; check Next::items"
        ))
    }

    pub(super) fn endless(&self, setters: &str) -> ApiError {
        self.error(&format!("nothing says which page is the last one; set {setters} of Next"))
    }

    pub(super) fn stuck(&self) -> ApiError {
        self.error(
            "the page says that there is more, but it has no items, so the next offset would be the same",
        )
    }

    fn error(&self, what: &str) -> ApiError {
        ApiError::pages(&format!("the pages of {} cannot go on: {what}", self.origin))
    }
}

/// Does not show what the server said.
impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page")
            .field("number", &self.number)
            .field("status", &self.response.status())
            .field("bytes", &self.body().len())
            .finish_non_exhaustive()
    }
}
