//! Token exchange: one token is given for another (RFC 8693).

use std::borrow::Cow;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};

use crate::error::Error;
use crate::grants::builder::{Grant, GrantBuilder};
use crate::grants::client::secret::{self, Secret};
use crate::grants::endpoint::client::EndpointClient;
use crate::grants::endpoint::deadline::Deadline;
use crate::grants::endpoint::location::Endpoint;
use crate::grants::parameters::Parameters;
use crate::grants::response::expected::Terms;
use crate::source::{DynTokenSource, FetchReason, SourceIdentity, TokenRequest, TokenSource};
use crate::token::AccessToken;

/// Gets tokens by giving others for them: that of a workload for one of the cloud's, that of a user for one that a
/// service may use in their name (RFC 8693).
///
/// 1. At each fetch the subject's source is asked for its token, and the actor's if there is one. They need not be
///    cached: a source that should be is put into a [`TokenCache`](crate::TokenCache) and given as its
///    [`as_source`](crate::TokenCache::as_source).
/// 2. Where the server refuses them, the sources are asked once more, told that their token was rejected, and a token of
///    theirs is sent if it is another one.
/// 3. `issued_token_type` is an [`expose_extra`](AccessToken::expose_extra) of the token. A token that is not an access token
///    (`token_type` `N_A`, RFC 8693 §2.2.1) is an error and never sent to an API.
/// 4. A client need not authenticate; where the server demands it, set
///    [`client`](GrantBuilder::client).
///
/// One source exchanges the tokens of one subject. Each user has a source and a cache of their own.
///
/// # Cancel safety
///
/// Dropping a fetch drops its request. A token that the server issued meanwhile is lost, and no more than that.
///
/// # Examples
///
/// The token that Kubernetes projects into a pod, for one of the authorization server:
///
/// ```
/// use tower_oauth2::FileToken;
/// use tower_oauth2::grants::{SecurityToken, TokenExchange, TokenType};
///
/// let workload = FileToken::new("/var/run/secrets/tokens/billing");
/// let subject = SecurityToken::new(workload, TokenType::JWT);
/// let builder = TokenExchange::builder("https://login.example.com/token", subject)
///     .client("billing", "7Fjfp0ZBr1KtDRbnfVdmIw")
///     .audience("https://api.example.com")
///     .scope("reports:read");
/// ```
#[derive(Clone, Debug)]
pub struct TokenExchange {
    client: Arc<EndpointClient>,
    grant: Arc<Exchanged>,
}

/// The tokens of an exchange, and the type that is requested.
#[derive(Clone, Debug)]
#[allow(unnameable_types, reason = "it belongs to the sealed trait")]
pub struct Exchanged {
    subject: SecurityToken,
    actor: Option<SecurityToken>,
    requested: Option<TokenType>,
}

/// A token that is exchanged, with its type (RFC 8693 §2.1): a fixed one, or a source that is asked at each exchange.
///
/// # Examples
///
/// ```
/// use tower_oauth2::grants::{SecurityToken, TokenType};
/// use tower_oauth2::{FileToken, Secret};
///
/// let of_a_user = SecurityToken::new("eyJhbGciOi...", TokenType::ACCESS_TOKEN);
/// let of_a_file = SecurityToken::new(Secret::from_file("/run/secrets/assertion"), TokenType::SAML2);
/// let of_a_pod = SecurityToken::new(FileToken::new("/var/run/secrets/tokens/billing"), TokenType::JWT);
/// # let _ = (of_a_user, of_a_file, of_a_pod);
/// ```
#[derive(Clone, Debug)]
pub struct SecurityToken {
    token: Secret,
    token_type: TokenType,
}

/// The type of a token, a URI (RFC 8693 §3).
///
/// # Examples
///
/// ```
/// use tower_oauth2::grants::TokenType;
///
/// assert_eq!(TokenType::JWT.as_str(), "urn:ietf:params:oauth:token-type:jwt");
/// let of_a_vendor = TokenType::new("urn:example:token-type:badge");
/// # let _ = of_a_vendor;
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenType {
    uri: Cow<'static, str>,
}

impl TokenExchange {
    /// Starts with what is required: the token endpoint, and the token in whose name the new one is.
    #[must_use]
    pub fn builder(endpoint: impl Into<Endpoint>, subject: SecurityToken) -> GrantBuilder<Self> {
        let own = &[
            "subject_token",
            "subject_token_type",
            "actor_token",
            "actor_token_type",
            "requested_token_type",
        ];
        let terms = Terms { own, ..Terms::default() };
        GrantBuilder::anonymous(endpoint, terms, Exchanged { subject, actor: None, requested: None })
    }
}

impl TokenSource for TokenExchange {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        let Self { client, grant } = self;
        let (common, deadline) = (&client.parameters, Deadline::of(&request));
        let sent = grant.read(&request, None).await?;
        let parameters = grant.parameters(&sent, common);
        let first = client.exchange(&parameters, None, client.redactor(Some(&request)), deadline).await;
        let error = match first {
            Ok(token) => {
                grant.accepted(&sent);
                return Ok(token);
            }
            Err(refused) => refused.error,
        };
        // RFC 8693 §2.2.2 has a bad subject token be an invalid request; most servers call it an invalid grant.
        if !matches!(error.code(), Some("invalid_grant" | "invalid_request")) {
            return Err(error);
        }
        // Where there is no other token, what the server said counts for more.
        let Ok(newer) = grant.read(&request, Some(&sent)).await else { return Err(error) };
        if newer.iter().zip(&sent).all(|(newer, sent)| secret::same(&newer.0, &sent.0)) {
            return Err(error);
        }
        tracing::debug!(endpoint = %client.destination, "the token to exchange was renewed; sending the request with the new one");
        // The server may repeat what it was sent first.
        let mut redactor = client.redactor(Some(&request));
        for (secret, token) in &sent {
            redactor.add(secret.expose_secret());
            if let Some(token) = token {
                token.teach(&mut redactor);
            }
        }
        let parameters = grant.parameters(&newer, common);
        let token = client.exchange(&parameters, None, redactor, deadline).await;
        let token = token.map_err(|refused| refused.error)?;
        grant.accepted(&newer);
        Ok(token)
    }

    fn is_disposable(&self) -> bool {
        self.grant.sources().all(DynTokenSource::may_be_dropped)
    }

    fn name(&self) -> Option<String> {
        self.client.name()
    }

    fn has_changed(&self) -> bool {
        self.client.has_changed() || self.grant.tokens().any(|(_, token)| token.token.has_changed())
    }

    fn identity(&self) -> Option<SourceIdentity> {
        let identity = self.client.identity("token exchange")?;
        let identity = self.grant.tokens().try_fold(identity, |identity, (setting, token)| {
            let identity = token.token.describe(setting, identity)?;
            Some(identity.with(format!("{setting} type"), token.token_type.as_str()))
        })?;
        Some(match &self.grant.requested {
            Some(requested) => identity.with("requested type", requested.as_str()),
            None => identity,
        })
    }
}

impl Grant for TokenExchange {
    type Settings = Exchanged;

    fn assemble(grant: Exchanged, client: EndpointClient) -> Result<Self, Error> {
        let types = grant.tokens().map(|(setting, token)| (setting, &token.token_type));
        let requested = grant.requested.iter().map(|requested| ("requested_token_type", requested));
        if let Some((setting, _)) = types.chain(requested).find(|(_, token_type)| token_type.uri.is_empty()) {
            return Err(Error::config(format!(
                "{setting}: its token type is empty, and RFC 8693 §2.1 demands one; TokenType has the registered ones"
            )));
        }
        if let Some((setting, _)) = grant.tokens().find(|(_, token)| token.token.is_empty_value()) {
            return Err(Error::config(format!("{setting}: its token is empty; give it, or a source of it")));
        }
        Ok(Self { client: Arc::new(client), grant: Arc::new(grant) })
    }
}

impl GrantBuilder<TokenExchange> {
    /// Sets the token of the party that acts in the name of the subject (RFC 8693 §1.1).
    #[must_use]
    pub fn actor(mut self, actor: SecurityToken) -> Self {
        self.settings_mut().actor = Some(actor);
        self
    }

    /// Sets the type of the token that is wanted. Default: as the server chooses.
    #[must_use]
    pub fn requested_token_type(mut self, requested: TokenType) -> Self {
        self.settings_mut().requested = Some(requested);
        self
    }
}

// --- Exchanged ---

/// A token as it was read for one exchange, and the whole one if it came from a source.
type ReadToken = (SecretString, Option<AccessToken>);

impl Exchanged {
    /// The tokens that are exchanged, by the names of their settings.
    fn tokens(&self) -> impl Iterator<Item = (&'static str, &SecurityToken)> {
        let actor = self.actor.iter().map(|actor| ("actor", actor));
        std::iter::once(("subject", &self.subject)).chain(actor)
    }

    fn sources(&self) -> impl Iterator<Item = &dyn DynTokenSource> {
        self.tokens().filter_map(|(_, token)| token.token.source())
    }

    /// Reads the tokens, or reads them again since the server rejected these.
    async fn read(
        &self,
        fetch: &TokenRequest,
        rejected: Option<&[ReadToken]>,
    ) -> Result<Vec<ReadToken>, Error> {
        let mut read = Vec::new();
        for (at, (setting, token)) in self.tokens().enumerate() {
            // The tokens of the fetch are those of the other side of the exchange, and say nothing of these. That a token
            // is wanted at once, whatever failed before, holds for both.
            let request = match (rejected, fetch.reason()) {
                (Some(rejected), _) => {
                    let rejected = rejected.get(at).and_then(|read| read.1.clone());
                    let request = within(FetchReason::Rejected, fetch);
                    request.with_previous(rejected.clone()).with_rejected(rejected)
                }
                (None, FetchReason::Forced) => within(FetchReason::Forced, fetch),
                (None, _) => within(FetchReason::Initial, fetch),
            };
            read.push(token.token.read_for(&format!("{setting} token"), request).await?);
        }
        Ok(read)
    }

    /// Tells the sources that the server accepted their tokens.
    fn accepted(&self, read: &[ReadToken]) {
        for ((_, token), read) in self.tokens().zip(read) {
            if let (Some(source), Some(token)) = (token.token.source(), &read.1) {
                source.note_accepted(token);
            }
        }
    }

    fn parameters(&self, read: &[ReadToken], common: &Parameters) -> Parameters {
        let mut parameters = Parameters::default();
        parameters.push("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
        for ((setting, token), (secret, _)) in self.tokens().zip(read) {
            parameters.push_secret(format!("{setting}_token"), Secret::of(secret.clone()));
            parameters.push(format!("{setting}_token_type"), token.token_type.as_str());
        }
        if let Some(requested) = &self.requested {
            parameters.push("requested_token_type", requested.as_str());
        }
        parameters.extend(common.clone());
        parameters
    }
}

/// Makes a request to the source of a token that is exchanged, within the time of the fetch.
fn within(reason: FetchReason, fetch: &TokenRequest) -> TokenRequest {
    let request = TokenRequest::new(reason);
    match fetch.deadline() {
        Some(deadline) => request.with_deadline(deadline),
        None => request,
    }
}

// --- SecurityToken ---

impl SecurityToken {
    /// Creates a token from its value, from where it is read at each exchange, or from a source that is asked then.
    #[must_use]
    pub fn new(token: impl Into<Secret>, token_type: TokenType) -> Self {
        Self { token: token.into(), token_type }
    }
}

// --- TokenType ---

impl TokenType {
    /// An access token of OAuth 2.0.
    pub const ACCESS_TOKEN: Self = Self::registered("urn:ietf:params:oauth:token-type:access_token");
    /// A refresh token of OAuth 2.0.
    pub const REFRESH_TOKEN: Self = Self::registered("urn:ietf:params:oauth:token-type:refresh_token");
    /// An ID token of OpenID Connect.
    pub const ID_TOKEN: Self = Self::registered("urn:ietf:params:oauth:token-type:id_token");
    /// Any JWT, such as the token that Kubernetes projects into a pod.
    pub const JWT: Self = Self::registered("urn:ietf:params:oauth:token-type:jwt");
    /// An assertion of SAML 1.1, in base64url.
    pub const SAML1: Self = Self::registered("urn:ietf:params:oauth:token-type:saml1");
    /// An assertion of SAML 2.0, in base64url.
    pub const SAML2: Self = Self::registered("urn:ietf:params:oauth:token-type:saml2");

    /// Creates a type of a vendor's own.
    #[must_use]
    pub fn new(uri: impl Into<String>) -> Self {
        Self { uri: Cow::Owned(uri.into()) }
    }

    const fn registered(uri: &'static str) -> Self {
        Self { uri: Cow::Borrowed(uri) }
    }

    /// Returns the URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.uri
    }
}
