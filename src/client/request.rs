//! A request under way.

use std::borrow::Borrow;
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body::Body as _;
use serde::Serialize;
use tower::BoxError;
use tower_service::Service;

use super::announced::Announced;
use super::base::{Base, encode_segment, split};
use super::error::ApiError;
use super::multipart::MultipartForm;
use super::pages::{Next, Pages};
use super::response::ApiResponse;
use super::service::{ApiService, send_in_time};
use crate::body::Body;
use crate::extensions::{BodyDeadline, Deadline};
use crate::headers;
use crate::retry::RetryOptions;

/// A request of an [`ApiClient`](super::ApiClient). Set its parts, then [`send`](Self::send) it.
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
/// use std::time::Duration;
///
/// let response = api
///     .post("orders")
///     .query([("dry_run", "true")])
///     .header("accept-language", "en")
///     .json(&["apples", "pears"])
///     .timeout(Duration::from_secs(5))
///     .send()
///     .await?;
/// assert_eq!(response.text().await?, r#"{"path":"/v2/orders?dry_run=true"}"#);
/// # Ok::<_, BoxError>(()) })?;
/// # Ok::<_, BoxError>(())
/// ```
#[must_use = "a request does nothing until it is sent"]
pub struct ApiRequest<S = ApiService> {
    service: S,
    base: Arc<Base>,
    method: Method,
    /// Under the base: empty, or with a slash at its beginning.
    path: String,
    query: String,
    headers: HeaderMap,
    extensions: Extensions,
    body: Body,
    /// That of the body.
    content_type: Option<HeaderValue>,
    timeout: Option<Duration>,
    /// The first error of a setter.
    error: Option<ApiError>,
}

impl<S> ApiRequest<S> {
    pub(super) fn new(service: S, base: Arc<Base>, method: Method, path: &str) -> Self {
        let (path, query, error) = match split(path) {
            Ok((path, query)) => (path, query.to_owned(), None),
            Err(reason) => (String::new(), String::new(), Some(ApiError::path(reason))),
        };
        let (headers, extensions, body) = (HeaderMap::new(), Extensions::new(), Body::empty());
        Self {
            service,
            base,
            method,
            path,
            query,
            headers,
            extensions,
            body,
            content_type: None,
            timeout: None,
            error,
        }
    }

    /// Adds a segment to the path. It is percent-encoded, slashes included.
    pub fn segment(mut self, segment: impl AsRef<str>) -> Self {
        match encode_segment(segment.as_ref()) {
            Ok(segment) => {
                if !self.path.ends_with('/') {
                    self.path.push('/');
                }
                self.path.push_str(&segment);
                self
            }
            Err(reason) => self.failed(ApiError::path(reason)),
        }
    }

    /// Adds pairs to the query, form-encoded. All values of one call have one type. For values of another type call it again:
    /// `.query([("month", "2026-11")]).query([("limit", 2)])`. A struct is not taken.
    pub fn query<I, K, V>(mut self, pairs: I) -> Self
    where
        I: IntoIterator<Item: Borrow<(K, V)>>,
        K: AsRef<str>,
        V: ToString,
    {
        // From position 0, so that what is there gets a sign behind it.
        let mut query = form_urlencoded::Serializer::for_suffix(self.query, 0);
        for pair in pairs {
            let (name, value) = pair.borrow();
            query.append_pair(name.as_ref(), &value.to_string());
        }
        self.query = query.finish();
        self
    }

    /// Adds a header. Others of the same name stay.
    ///
    /// The values of `authorization`, `proxy-authorization` and `cookie` are marked as sensitive, so that `Debug` of the headers does
    /// not show them. Mark other secrets by [`HeaderValue::set_sensitive`]. A `content-length` that is not the length of the body
    /// is an error, and so is a stream that ends before it.
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName, Error: Into<http::Error>>,
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        let name = match name.try_into() {
            Ok(name) => name,
            Err(error) => {
                let reason = "the name of a header is empty, or holds a character that no header name may have, such as \
                              a space";
                return self.failed(ApiError::builder(reason, error.into()));
            }
        };
        match value.try_into() {
            Ok(mut value) => {
                headers::mark_credential(&name, &mut value);
                self.headers.append(name, value);
                self
            }
            Err(error) => {
                let reason = format!(
                    "the value of the header {name} holds a character that no header value may have, such as a line end"
                );
                self.failed(ApiError::builder(&reason, error.into()))
            }
        }
    }

    /// Adds an extension for the layers below, such as a [`Deadline`](crate::extensions::Deadline) or an
    /// [`AuthOverride`](crate::auth::AuthOverride).
    pub fn extension<T: Clone + Send + Sync + 'static>(mut self, extension: T) -> Self {
        self.extensions.insert(extension);
        self
    }

    /// Returns the extensions for the layers below, for [`TenantCaches::authorize`](crate::tenants::TenantCaches::authorize).
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.extensions
    }

    /// Sets the body, and `content-type: application/json` unless a [`header`](Self::header) says otherwise, before or after.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => self.body_of(HeaderValue::from_static("application/json"), body),
            Err(error) => self.failed(ApiError::builder("its body cannot be written as JSON", error)),
        }
    }

    /// Sets the body to pairs, form-encoded, and `content-type: application/x-www-form-urlencoded` unless a
    /// [`header`](Self::header) says otherwise. A struct is not taken, as by [`query`](Self::query).
    pub fn form<I, K, V>(self, pairs: I) -> Self
    where
        I: IntoIterator<Item: Borrow<(K, V)>>,
        K: AsRef<str>,
        V: ToString,
    {
        let mut form = form_urlencoded::Serializer::new(String::new());
        for pair in pairs {
            let (name, value) = pair.borrow();
            form.append_pair(name.as_ref(), &value.to_string());
        }
        self.body_of(HeaderValue::from_static("application/x-www-form-urlencoded"), form.finish())
    }

    /// Sets the body to a form with files, and `content-type: multipart/form-data` with its boundary, whatever a
    /// [`header`](Self::header) says.
    ///
    /// The form is in memory, so it can be sent again. See [`MultipartForm`] for an example.
    #[allow(clippy::needless_pass_by_value, reason = "a form is built for one request")]
    pub fn multipart(self, form: MultipartForm) -> Self {
        match form.encode() {
            Ok((content_type, body)) => self.body_of(content_type, body),
            Err(error) => self.failed(error),
        }
    }

    /// Sets how long the request may take from [`send`](Self::send) on, waits, retries and the reading of the body included. Of this,
    /// the client's own `total_timeout` and a [`Deadline`] among the extensions, the earliest counts. A body that you read frame by frame
    /// ([`into_inner`](ApiResponse::into_inner)) has no limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the body: bytes in memory, or any other body by [`Body::new`]. One in memory can be sent again. Of a stream the [retry
    /// layer](crate::retry#request-bodies) keeps as much as its limit allows; a longer one is sent again if a
    /// [`BodyFactory`](crate::retry::BodyFactory) opens it anew.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        (self.body, self.content_type) = (body.into(), None);
        self
    }

    fn body_of(self, content_type: HeaderValue, body: impl Into<Body>) -> Self {
        Self { content_type: Some(content_type), ..self.body(body) }
    }

    /// Reads a list page by page, beginning with this request. See [`pages`](super::pages).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use tower_oauth2::client::pages::Next;
    ///
    /// # async fn example(api: &tower_oauth2::ApiClient) -> Result<(), tower_oauth2::client::ApiError> {
    /// let mut pages = api.get("repos").query(&[("per_page", 100)]).pages(Next::link());
    /// while let Some(page) = pages.next().await {
    ///     let repos: Vec<serde_json::Value> = page?.items()?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn pages(self, next: Next) -> Pages<S> {
        Pages::new(self, next)
    }

    /// Sends the request. A response of any status is not an error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the request, wherever it is.
    ///
    /// # Errors
    ///
    /// An error of the builder if the request is wrong; nothing is sent then. Else the error of the service below.
    pub async fn send<RB>(mut self) -> Result<ApiResponse<RB>, ApiError>
    where
        S: Service<Request<Body>, Response = Response<RB>>,
        S::Error: Into<BoxError>,
    {
        // The retries do so too, but a request need not come to them.
        if let Some(options) = self.extensions.get::<RetryOptions>() {
            options.forget_report();
        }
        if let Some(error) = self.error {
            return Err(error);
        }
        let deadline = self.begin();
        let uri = self.uri()?;
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers;
        if let Some(content_type) = self.content_type {
            // No form of several parts can be read without its boundary.
            if content_type.as_bytes().starts_with(b"multipart/") {
                request.headers_mut().insert(CONTENT_TYPE, content_type);
            } else {
                request.headers_mut().entry(CONTENT_TYPE).or_insert(content_type);
            }
        }
        check_length(&mut request)?;
        // Where a body is expected, servers want to hear that there is none (RFC 9110 §8.6), some by a 411.
        let silent =
            [CONTENT_LENGTH, TRANSFER_ENCODING].iter().all(|name| !request.headers().contains_key(name));
        if silent && request.body().is_end_stream() && expects_body(request.method()) {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        *request.extensions_mut() = self.extensions;
        let origin = self.base.origin().clone();
        match send_in_time(&mut self.service, request).await {
            Ok(mut response) => {
                // The client's own may be earlier.
                let earliest = response.extensions_mut().remove().map(|BodyDeadline(earliest)| earliest);
                Ok(ApiResponse::new(response, origin, earliest.or(deadline)))
            }
            Err(error) => Err(ApiError::send(&origin.to_string(), error)),
        }
    }

    fn failed(mut self, error: ApiError) -> Self {
        self.error.get_or_insert(error);
        self
    }
}

// --- For pages ---

impl<S> ApiRequest<S> {
    pub(super) fn base(&self) -> &Arc<Base> {
        &self.base
    }

    /// Returns the path from the root on, without the slash at its beginning, and the query.
    pub(super) fn place(&self) -> (String, &str) {
        (self.base.path_from_root(&self.path), &self.query)
    }

    pub(super) fn uri(&self) -> Result<Uri, ApiError> {
        self.base.join(&self.path, &self.query).map_err(ApiError::path)
    }

    /// Lets the timeout begin, and returns the deadline.
    pub(super) fn begin(&mut self) -> Option<Deadline> {
        match self.timeout.take() {
            Some(timeout) => Some(Deadline::narrow(&mut self.extensions, timeout)),
            None => self.extensions.get().copied(),
        }
    }

    /// Returns whether the request may be sent again after its response broke off.
    pub(super) fn may_repeat(&self) -> bool {
        let options = self.extensions.get::<RetryOptions>().cloned().unwrap_or_default();
        options.may_repeat(&self.method, &self.headers)
    }

    /// Returns the body if it is in memory.
    pub(super) fn bytes(&self) -> Option<&Bytes> {
        self.body.bytes()
    }

    pub(super) fn take_error(&mut self) -> Option<ApiError> {
        self.error.take()
    }

    /// Sends the request to a path that was checked, without a slash at its beginning, under another base.
    pub(super) fn go_to(&mut self, base: Arc<Base>, path: &str, query: String) {
        (self.base, self.path, self.query) = (base, format!("/{path}"), query);
    }

    /// Gives a parameter of the query another value, at the end. The other ones stay as they are written.
    pub(super) fn set_query(&mut self, name: &str, value: &str) {
        let is_other = |pair: &&str| {
            let mut pairs = form_urlencoded::parse(pair.as_bytes());
            !pair.is_empty() && pairs.next().is_none_or(|(other, _)| other != name)
        };
        let others: Vec<&str> = self.query.split('&').filter(is_other).collect();
        let mut query = form_urlencoded::Serializer::for_suffix(others.join("&"), 0);
        self.query = query.append_pair(name, value).finish();
    }
}

impl<S: Clone> ApiRequest<S> {
    /// Makes the same request once more.
    pub(super) fn repeated(&self) -> Result<Self, ApiError> {
        let Some(body) = self.bytes() else {
            return Err(ApiError::builder(
                "its body is a stream, which cannot be sent for each page; give it bytes",
                "not in memory",
            ));
        };
        Ok(Self {
            service: self.service.clone(),
            base: Arc::clone(&self.base),
            method: self.method.clone(),
            path: self.path.clone(),
            query: self.query.clone(),
            headers: self.headers.clone(),
            extensions: self.extensions.clone(),
            body: Body::from(body.clone()),
            content_type: self.content_type.clone(),
            timeout: self.timeout,
            error: None,
        })
    }
}

/// Refuses a length that is not that of the body. Of a longer body the HTTP client would send a part, and after a shorter one the
/// server takes the next request on the connection for the rest. A stream is held to its length while it is sent.
fn check_length(request: &mut Request<Body>) -> Result<(), ApiError> {
    let mut said = request.headers().get_all(CONTENT_LENGTH).iter().map(headers::content_length);
    let Some(length) = request.body().size_hint().exact() else {
        if let Some(announced) = said.next().flatten() {
            let stream = mem::take(request.body_mut());
            *request.body_mut() = Body::new(Announced::new(stream, announced));
        }
        return Ok(());
    };
    if said.all(|said| said == Some(length)) {
        return Ok(());
    }
    let reason = "its content-length header is not the length of its body; leave the header out, and the HTTP client sets it";
    Err(ApiError::builder(reason, format!("the body has {length} bytes")))
}

/// Returns whether requests of this method have a body as a rule.
fn expects_body(method: &Method) -> bool {
    !matches!(
        *method,
        Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS | Method::TRACE | Method::CONNECT
    )
}

impl<S> fmt::Debug for ApiRequest<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Query, headers and body may hold secrets.
        f.debug_struct("ApiRequest")
            .field("method", &self.method)
            .field("base_url", &format_args!("{}", self.base))
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
