//! The JWT bearer grant: a signed assertion is the grant (RFC 7523 §2.1).

use std::sync::Arc;

use crate::grants::builder::GrantBuilder;
use crate::grants::endpoint::location::Endpoint;
use crate::grants::jwt::assertion::Assertion;
use crate::grants::parameters::ParameterValue;
use crate::grants::response::expected::Terms;

/// Gets tokens by an assertion that it signs itself: for service accounts, and in the name of users who agreed to it.
///
/// The assertion is made for each attempt anew. `iss` and `sub` are settings of it; scopes go into the form, or into a
/// claim, as the server wants them. A client need not authenticate besides (RFC 7523 §3.1); where the server demands it,
/// set [`client`](GrantBuilder::client).
///
/// Cheap to clone. It fetches and does not cache.
///
/// # Cancel safety
///
/// Dropping a fetch drops its request. A token that the server issued meanwhile is lost, and no more than that.
///
/// # Examples
///
/// A service account of Google's, with the scopes in a claim:
///
/// ```
/// use tower_oauth2::Secret;
/// use tower_oauth2::grants::JwtBearer;
/// use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm};
///
/// let assertion = Assertion::by_key(JwtAlgorithm::Rs256, Secret::from_file("/run/secrets/robot.pem"))
///     .key_id("KEY-ID")
///     .issuer("robot@project.iam.gserviceaccount.com")
///     .without_subject()
///     .token_url_as_audience(true)
///     .claim("scope", "https://www.googleapis.com/auth/devstorage.read_only");
/// let builder = JwtBearer::builder("https://oauth2.googleapis.com/token", assertion);
/// ```
///
/// Salesforce, in the name of a user:
///
/// ```
/// # use tower_oauth2::Secret;
/// # use tower_oauth2::grants::JwtBearer;
/// # use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm};
/// let assertion = Assertion::by_key(JwtAlgorithm::Rs256, Secret::from_file("/run/secrets/key.pem"))
///     .issuer("CONSUMER-KEY")
///     .subject("robot@example.com")
///     .audience("https://login.salesforce.com");
/// let builder = JwtBearer::builder("https://login.salesforce.com/services/oauth2/token", assertion);
/// ```
#[derive(Clone, Debug)]
pub struct JwtBearer {
    client: Arc<EndpointClient>,
}

impl JwtBearer {
    /// Starts with what is required: where to ask, and the assertion that is the grant.
    pub fn builder(endpoint: impl Into<Endpoint>, assertion: Assertion) -> GrantBuilder<Self> {
        let terms = Terms { own: &["assertion"], ..Terms::default() };
        let builder = GrantBuilder::new(endpoint, terms, ());
        let mut builder = builder.granting("urn:ietf:params:oauth:grant-type:jwt-bearer");
        builder.own.add("assertion", ParameterValue::Assertion(Arc::new(assertion)));
        builder
    }
}

plain_grant!(JwtBearer, "jwt bearer");
