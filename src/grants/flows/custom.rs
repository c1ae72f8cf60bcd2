//! Grants of one provider: a grant type and parameters of its own, as a form, as JSON or by GET.

use std::sync::Arc;

use http::header::AUTHORIZATION;

use crate::grants::builder::GrantBuilder;
use crate::grants::client::secret::Secret;
use crate::grants::endpoint::location::Endpoint;
use crate::grants::parameters::{Encoding, ParameterValue};
use crate::grants::response::expected::Terms;

/// Gets tokens by a grant of the provider's own (RFC 6749 §4.5), or from an endpoint that does not know OAuth 2.0 but
/// returns a token.
///
/// All that other sources have is there: retries, timeouts, caps, secrets that are read at each attempt. Parameters are
/// set by [`param`](GrantBuilder::param) and [`secret_param`](GrantBuilder::secret_param), whose value may be a closure
/// that is asked at each attempt.
///
/// Cheap to clone. It fetches and does not cache.
///
/// # Cancel safety
///
/// Dropping a fetch drops its request. A token that the server issued meanwhile is lost, and no more than that.
///
/// # Examples
///
/// An assertion of SAML 2.0 (RFC 7522), read from a file:
///
/// ```
/// use tower_oauth2::Secret;
/// use tower_oauth2::grants::CustomGrant;
///
/// let builder = CustomGrant::builder(
///     "https://login.example.com/oauth/token",
///     "urn:ietf:params:oauth:grant-type:saml2-bearer",
/// )
/// .client("billing", "7Fjfp0ZBr1KtDRbnfVdmIw")
/// .secret_param("assertion", Secret::from_file("/run/secrets/assertion"));
/// ```
///
/// An endpoint that takes JSON and returns members of other names, as NICE CXone's does for access keys:
///
/// ```
/// use tower_oauth2::Secret;
/// use tower_oauth2::grants::CustomGrant;
///
/// let builder = CustomGrant::json("https://na1.nice-incontact.com/authentication/v1/token/access-key")
///     .param("accessKeyId", "KEY-ID")
///     .secret_param("accessKeySecret", Secret::from_env("ACCESS_KEY_SECRET"))
///     .response_member("access_token", "accessToken")
///     .response_member("expires_in", "expiresIn");
/// ```
///
/// # The password grant
///
/// There is no source for it. RFC 9700 §2.4 forbids it: a program that is given the password of a person can do all that
/// the person can, for as long as the password lives, past every second factor. One vendor, NICE CXone, documents it for
/// back ends whose "user" is an access key made for a machine; that is what this form is for, and nothing else:
///
/// ```
/// use tower_oauth2::Secret;
/// use tower_oauth2::grants::CustomGrant;
///
/// let builder = CustomGrant::builder("https://cxone.niceincontact.com/auth/token", "password")
///     .client("CLIENT-ID", Secret::from_env("CLIENT_SECRET"))
///     .param("username", "ACCESS-KEY-ID")
///     .secret_param("password", Secret::from_env("ACCESS_KEY_SECRET"));
/// ```
#[derive(Clone, Debug)]
pub struct CustomGrant {
    client: Arc<EndpointClient>,
}

impl CustomGrant {
    /// Starts with what is required: where to ask, and the grant type. The request is a form.
    pub fn builder(endpoint: impl Into<Endpoint>, grant_type: impl Into<String>) -> GrantBuilder<Self> {
        GrantBuilder::new(endpoint, Terms::default(), ()).granting(grant_type.into())
    }

    /// Starts with where to ask. The request is one JSON object of strings, without a grant type of its own; a parameter
    /// that stands twice, such as a second resource, is refused.
    pub fn json(endpoint: impl Into<Endpoint>) -> GrantBuilder<Self> {
        GrantBuilder::new(endpoint, Terms { encoding: Encoding::Json, ..Terms::default() }, ())
    }

    /// Starts with where to ask. The request is a GET with the parameters in its query, as the metadata servers of clouds
    /// take it. Secrets go into headers: URLs are logged.
    ///
    /// ```
    /// use tower_oauth2::grants::CustomGrant;
    ///
    /// let builder = CustomGrant::get("http://169.254.169.254/metadata/identity/oauth2/token")
    ///     .insecure_http(true)
    ///     .param("api-version", "2018-02-01")
    ///     .param("resource", "https://vault.azure.net")
    ///     .header("metadata", "true");
    /// ```
    pub fn get(endpoint: impl Into<Endpoint>) -> GrantBuilder<Self> {
        GrantBuilder::new(endpoint, Terms { encoding: Encoding::Query, ..Terms::default() }, ())
    }
}

plain_grant!(CustomGrant, "custom");

impl GrantBuilder<CustomGrant> {
    /// Adds a header that is the same in each request.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.add_header(name.into(), ParameterValue::Fixed(value.into().into()));
        self
    }

    /// Adds a header whose value is a secret: read at each attempt, marked sensitive, and blanked out wherever the server
    /// repeats it.
    pub fn secret_header(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.parameters.add_header(name.into(), ParameterValue::Read(value.into()));
        self
    }

    /// Authorizes each request by the token of a source, as an API is asked: a service account that gets tokens for another,
    /// an app that gets them for its installations.
    pub fn authorized_by(mut self, source: impl TokenSource) -> Self {
        self.parameters.add_header(AUTHORIZATION.as_str(), ParameterValue::Read(source.into()));
        self
    }

    /// Adds a parameter that is not a string, as JSON text. For [`CustomGrant::json`] alone.
    pub fn param_json(mut self, name: impl Into<String>, json: impl Into<String>) -> Self {
        self.parameters.add(name.into(), ParameterValue::Json(json.into()));
        self
    }
}
