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
use crate::runtime;
use crate::source::{DynTokenSource, FetchReason, SourceIdentity, TokenRequest, TokenSource};
use crate::text::Redactor;
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
    /// The subject and perhaps the actor, by the names of their settings.
    tokens: Arc<[(&'static str, SecurityToken)]>,
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
pub struct TokenType(Cow<'static, str>);

impl TokenExchange {
    /// Starts with what is required: the token endpoint, and the token in whose name the new one is.
    pub fn builder(endpoint: impl Into<Endpoint>, subject: SecurityToken) -> GrantBuilder<Self> {
        let own = &[
            "subject_token",
            "subject_token_type",
            "actor_token",
            "actor_token_type",
            "requested_token_type",
        ];
        let terms = Terms { own, ..Terms::default() };
        GrantBuilder::new(endpoint, terms, vec![("subject", subject)])
    }
}

impl TokenSource for TokenExchange {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        let sent = self.read(&request, None).await?;
        let mut redactor = EndpointClient::redactor(&request);
        let error = match self.exchange(&request, &sent, redactor.clone()).await {
            Ok(token) => return Ok(token),
            Err(error) => error,
        };
        // RFC 8693 §2.2.2 has a bad subject token be an invalid request; most servers call it an invalid grant.
        if !matches!(error.code(), Some("invalid_grant" | "invalid_request")) {
            return Err(error);
        }
        // Where there is no other token, what the server said counts for more.
        let Ok(newer) = self.read(&request, Some(&sent)).await else { return Err(error) };
        if newer.iter().zip(&sent).all(|(newer, sent)| secret::same(&newer.0, &sent.0)) {
            return Err(error);
        }
        tracing::debug!(endpoint = %self.client.destination, "the token to exchange was renewed; sending the request with the new one");
        // The server may repeat what it was sent first.
        for (secret, token) in &sent {
            redactor.add(secret.expose_secret());
            if let Some(token) = token {
                token.teach(&mut redactor);
            }
        }
        self.exchange(&request, &newer, redactor).await
    }

    fn is_disposable(&self) -> bool {
        let mut sources = self.tokens.iter().filter_map(|(_, token)| token.token.source());
        sources.all(DynTokenSource::may_be_dropped)
    }

    fn name(&self) -> Option<String> {
        self.client.name()
    }

    fn has_changed(&self) -> bool {
        self.client.has_changed() || self.tokens.iter().any(|(_, token)| token.token.has_changed())
    }

    fn identity(&self) -> Option<SourceIdentity> {
        let identity = self.client.identity("token exchange")?;
        self.tokens.iter().try_fold(identity, |identity, (setting, token)| {
            let identity = token.token.describe(setting, identity)?;
            Some(identity.with(format!("{setting} type"), token.token_type.as_str()))
        })
    }
}

impl TokenExchange {
    /// Reads the tokens to exchange, or reads them again since the server rejected these. A closure may take as long as an
    /// attempt, a source as long as a fetch.
    async fn read(
        &self,
        fetch: &TokenRequest,
        rejected: Option<&[ReadToken]>,
    ) -> Result<Vec<ReadToken>, Error> {
        runtime::current()?;
        // The tokens of the fetch are those of the other side of the exchange, and say nothing of these. That a token is
        // wanted at once, whatever failed before, holds for both.
        let reason = match (rejected, fetch.reason()) {
            (Some(_), _) => FetchReason::Rejected,
            (None, FetchReason::Forced) => FetchReason::Forced,
            (None, _) => FetchReason::Initial,
        };
        let reading = async {
            let mut read = Vec::new();
            for (at, (setting, token)) in self.tokens.iter().enumerate() {
                let rejected = rejected.and_then(|read| read[at].1.clone());
                let request =
                    TokenRequest::new(reason).with_previous(rejected.clone()).with_rejected(rejected);
                let request = fetch.deadline().into_iter().fold(request, TokenRequest::with_deadline);
                read.push(token.token.read_for(&format!("{setting} token"), request).await?);
            }
            Ok(read)
        };
        let patience = &self.client.transport.patience;
        let asks_source = self.tokens.iter().any(|(_, token)| token.token.source().is_some());
        let limit = if asks_source { patience.whole() } else { patience.attempt_timeout };
        let limit = Deadline::of(fetch).cap(limit);
        match tokio::time::timeout(limit, reading).await {
            Ok(read) => read,
            Err(_) => Err(Error::transient(format!(
                "the token to exchange was not ready within {limit:?}: a secret closure or a source did not return; nothing was sent"
            ))),
        }
    }

    /// Exchanges the tokens that were read, and tells their sources if the server accepted them.
    async fn exchange(
        &self,
        fetch: &TokenRequest,
        read: &[ReadToken],
        redactor: Redactor,
    ) -> Result<AccessToken, Error> {
        let mut parameters = Parameters::default();
        parameters.push("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
        for ((setting, token), (secret, _)) in self.tokens.iter().zip(read) {
            parameters.push_secret(format!("{setting}_token"), Secret::of(secret.clone()));
            parameters.push(format!("{setting}_token_type"), token.token_type.as_str());
        }
        parameters.extend(self.client.parameters.clone());
        let exchange = self.client.exchange(&parameters, None, redactor, Deadline::of(fetch));
        let token = exchange.await.map_err(|refused| refused.error)?;
        for ((_, given), (_, accepted)) in self.tokens.iter().zip(read) {
            if let (Some(source), Some(accepted)) = (given.token.source(), accepted) {
                source.note_accepted(accepted);
            }
        }
        Ok(token)
    }
}

/// A token as it was read for one exchange, and the whole one if it came from a source.
type ReadToken = (SecretString, Option<AccessToken>);

impl Grant for TokenExchange {
    type Settings = Vec<(&'static str, SecurityToken)>;

    fn assemble(tokens: Self::Settings, client: EndpointClient) -> Result<Self, Error> {
        for (setting, SecurityToken { token, token_type }) in &tokens {
            let flaw = if token_type.0.is_empty() {
                "its token type is empty, and RFC 8693 §2.1 demands one; TokenType has the registered ones"
            } else if token.is_empty_value() {
                "its token is empty; give it, or a source of it"
            } else {
                continue;
            };
            return Err(Error::config(format!("{setting}: {flaw}")));
        }
        Ok(Self { client: Arc::new(client), tokens: tokens.into() })
    }
}

impl GrantBuilder<TokenExchange> {
    /// Sets the token of the party that acts in the name of the subject (RFC 8693 §1.1).
    pub fn actor(mut self, actor: SecurityToken) -> Self {
        let tokens = &mut self.settings;
        tokens.truncate(1);
        tokens.push(("actor", actor));
        self
    }

    /// Sets the type of the token that is wanted. Default: as the server chooses.
    pub fn requested_token_type(mut self, requested: TokenType) -> Self {
        self.own.set("requested_token_type", requested.0.into_owned());
        self
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
    pub const ACCESS_TOKEN: Self = Self(Cow::Borrowed("urn:ietf:params:oauth:token-type:access_token"));
    /// A refresh token of OAuth 2.0.
    pub const REFRESH_TOKEN: Self = Self(Cow::Borrowed("urn:ietf:params:oauth:token-type:refresh_token"));
    /// An ID token of OpenID Connect.
    pub const ID_TOKEN: Self = Self(Cow::Borrowed("urn:ietf:params:oauth:token-type:id_token"));
    /// Any JWT, such as the token that Kubernetes projects into a pod.
    pub const JWT: Self = Self(Cow::Borrowed("urn:ietf:params:oauth:token-type:jwt"));
    /// An assertion of SAML 1.1, in base64url.
    pub const SAML1: Self = Self(Cow::Borrowed("urn:ietf:params:oauth:token-type:saml1"));
    /// An assertion of SAML 2.0, in base64url.
    pub const SAML2: Self = Self(Cow::Borrowed("urn:ietf:params:oauth:token-type:saml2"));

    /// Creates a type of a vendor's own.
    #[must_use]
    pub fn new(uri: impl Into<String>) -> Self {
        Self(Cow::Owned(uri.into()))
    }

    /// Returns the URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
