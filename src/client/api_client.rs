//! The handle.

use std::fmt;
use std::sync::Arc;

use http::Method;

use super::base::Base;
use super::request::ApiRequest;
use crate::error::TokenError;

/// A base URL and the service that sends, with the habits of reqwest. Rules and examples are on the page of the
/// [module](super).
///
/// Clones share the base URL, and of the service what its own clones share. To keep one in a struct, name the service, as
/// in `ApiClient<Stack<transport::reqwest::Client>>`, or box it (`tower::util::BoxCloneSyncService`).
#[derive(Clone)]
pub struct ApiClient<S> {
    service: S,
    base: Arc<Base>,
}

impl<S> ApiClient<S> {
    /// Puts a base URL, such as `https://api.example.com/v2`, before any tower HTTP service. A slash at its end makes no
    /// difference.
    ///
    /// # Errors
    ///
    /// A configuration error if the URL is not of http or https, or has a user name, a query, a fragment, or a segment of
    /// dots.
    pub fn new(base_url: impl AsRef<str>, service: S) -> Result<Self, TokenError> {
        Ok(Self { service, base: Arc::new(Base::parse(base_url.as_ref())?) })
    }

    /// Returns the service.
    pub fn get_ref(&self) -> &S {
        &self.service
    }

    /// Returns the service to be changed.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.service
    }

    /// Unwraps the service.
    pub fn into_inner(self) -> S {
        self.service
    }
}

impl<S: Clone> ApiClient<S> {
    /// Starts a GET.
    pub fn get(&self, path: impl AsRef<str>) -> ApiRequest<S> {
        self.request(Method::GET, path)
    }

    /// Starts a POST.
    pub fn post(&self, path: impl AsRef<str>) -> ApiRequest<S> {
        self.request(Method::POST, path)
    }

    /// Starts a PUT.
    pub fn put(&self, path: impl AsRef<str>) -> ApiRequest<S> {
        self.request(Method::PUT, path)
    }

    /// Starts a PATCH.
    pub fn patch(&self, path: impl AsRef<str>) -> ApiRequest<S> {
        self.request(Method::PATCH, path)
    }

    /// Starts a DELETE.
    pub fn delete(&self, path: impl AsRef<str>) -> ApiRequest<S> {
        self.request(Method::DELETE, path)
    }

    /// Starts a HEAD.
    pub fn head(&self, path: impl AsRef<str>) -> ApiRequest<S> {
        self.request(Method::HEAD, path)
    }

    /// Starts a request. What is wrong with the path is told by [`send`](ApiRequest::send).
    pub fn request(&self, method: Method, path: impl AsRef<str>) -> ApiRequest<S> {
        ApiRequest::new(self.service.clone(), Arc::clone(&self.base), method, path.as_ref())
    }
}

impl<S: fmt::Debug> fmt::Debug for ApiClient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiClient")
            .field("base_url", &format_args!("{}", self.base))
            .field("service", &self.service)
            .finish()
    }
}
