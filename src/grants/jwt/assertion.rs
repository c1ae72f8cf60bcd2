//! An assertion: what it says, who signs it, and for how long it holds.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use crate::error::Error;
use crate::grants::client::secret::{self, Secret};
use crate::grants::endpoint::identifiers::Identifiers;
use crate::grants::jwt::algorithm::JwtAlgorithm;
use crate::grants::jwt::key::SigningKey;
use crate::grants::jwt::material::Material;
use crate::grants::jwt::signer::{DynSigner, JwtSigner};
use crate::source::SourceIdentity;
use crate::{backoff, clock};

/// An assertion that lives longer is worth stealing; servers that allow it at all stop here.
const LONGEST: Duration = Duration::from_secs(3600);

/// What an assertion says besides what its use demands, and who signs it.
///
/// For [`ClientAuth::private_key_jwt`](crate::ClientAuth::private_key_jwt) and
/// [`ClientAuth::client_secret_jwt`](crate::ClientAuth::client_secret_jwt), where `iss` and `sub` are the client id, and
/// for [`JwtBearer`](crate::grants::JwtBearer), where they are settings.
///
/// # Defaults
///
/// - audience: the issuer of the authorization server, so that one is required: an [`Issuer`](crate::grants::Issuer) in
///   place of the token URL, or the setting of the source
/// - lifetime: 60 s; at most an hour
/// - `typ`: `JWT`
/// - `nbf`: none
/// - clock: right
/// - further claims and header members: none
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_oauth2::Secret;
/// use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm, SigningKey};
///
/// let key = SigningKey::new(JwtAlgorithm::Rs256, Secret::from_file("/run/secrets/key.pem")).key_id("2026-11");
/// let assertion = Assertion::by_key(key)
///     .issuer("robot@example.com")
///     .audience("https://login.example.com/token")
///     .lifetime(Duration::from_secs(300))
///     .claim("scope", "reports:read");
/// # let _ = assertion;
/// ```
#[derive(Clone, Debug)]
pub struct Assertion {
    signed_by: SignedBy,
    issuer: Option<String>,
    subject: Subject,
    audience: Audience,
    lifetime: Duration,
    not_before_skew: Option<Duration>,
    /// How far this machine's clock is ahead of that of the server, or behind it.
    ahead_by: Duration,
    behind_by: Duration,
    typ: Option<String>,
    claims: Vec<Member>,
    header: Vec<Member>,
}

#[derive(Clone, Debug)]
enum SignedBy {
    Key(SigningKey),
    Signer(Arc<dyn DynSigner>),
    Secret(JwtAlgorithm),
}

#[derive(Clone, Debug)]
enum Subject {
    /// The same as the issuer.
    Issuer,
    Named(String),
    None,
}

#[derive(Clone, Debug)]
enum Audience {
    Issuer,
    TokenUrl,
    Named(String),
}

/// A claim or a header member; without a value if it is not JSON, which is said when the source is built.
type Member = (String, Option<Value>);

impl Assertion {
    /// Creates an assertion that a private key signs.
    #[must_use]
    pub fn by_key(key: SigningKey) -> Self {
        Self::new(SignedBy::Key(key))
    }

    /// Creates an assertion that your own signer signs: an HSM, or a key management service.
    #[must_use]
    pub fn by_signer(signer: impl JwtSigner) -> Self {
        Self::new(SignedBy::Signer(Arc::new(signer)))
    }

    /// Creates an assertion that the client secret signs, for
    /// [`ClientAuth::client_secret_jwt`](crate::ClientAuth::client_secret_jwt).
    ///
    /// The secret must be as long as the hash at least, 32 bytes for HS256 (RFC 7518 §3.2).
    #[must_use]
    pub fn by_client_secret(algorithm: JwtAlgorithm) -> Self {
        Self::new(SignedBy::Secret(algorithm))
    }

    fn new(signed_by: SignedBy) -> Self {
        Self {
            signed_by,
            issuer: None,
            subject: Subject::Issuer,
            audience: Audience::Issuer,
            lifetime: Duration::from_secs(60),
            not_before_skew: None,
            ahead_by: Duration::ZERO,
            behind_by: Duration::ZERO,
            typ: Some("JWT".into()),
            claims: Vec::new(),
            header: Vec::new(),
        }
    }

    /// Sets who makes the statement (`iss`). Default: the client id. For client authentication it is always that.
    #[must_use]
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    /// Sets whom the token is for (`sub`). Default: the issuer. For client authentication it is always the client id.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Subject::Named(subject.into());
        self
    }

    /// Leaves `sub` out, which RFC 7523 §3 demands and Google's service accounts do without.
    #[must_use]
    pub fn without_subject(mut self) -> Self {
        self.subject = Subject::None;
        self
    }

    /// Sets the audience (`aud`), which is compared as it is written.
    ///
    /// Default: the issuer of the authorization server. RFC 7523 §3 lets it be the token endpoint as well, which its
    /// update no longer does; see [`token_url_as_audience`](Self::token_url_as_audience) for servers that want it.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Audience::Named(audience.into());
        self
    }

    /// Sets whether the audience is the token URL, as older servers and Microsoft Entra want it, or the issuer of the
    /// authorization server.
    #[must_use]
    pub fn token_url_as_audience(mut self, is_token_url: bool) -> Self {
        self.audience = if is_token_url { Audience::TokenUrl } else { Audience::Issuer };
        self
    }

    /// Sets how long the assertion holds (`exp`), in whole seconds.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Adds `nbf`, so much before now.
    #[must_use]
    pub fn not_before_skew(mut self, skew: Duration) -> Self {
        self.not_before_skew = Some(skew);
        self
    }

    /// Says that this machine's clock is ahead of the server's by so much. All times are set back by it.
    #[must_use]
    pub fn clock_ahead_by(mut self, offset: Duration) -> Self {
        (self.ahead_by, self.behind_by) = (offset, Duration::ZERO);
        self
    }

    /// Says that this machine's clock is behind the server's by so much. All times are put forward by it.
    #[must_use]
    pub fn clock_behind_by(mut self, offset: Duration) -> Self {
        (self.ahead_by, self.behind_by) = (Duration::ZERO, offset);
        self
    }

    /// Sets the type in the header (`typ`): `JWT`, or `client-authentication+jwt` as the update of RFC 7523 has it.
    #[must_use]
    pub fn typ(mut self, typ: impl Into<String>) -> Self {
        self.typ = Some(typ.into());
        self
    }

    /// Leaves `typ` out.
    #[must_use]
    pub fn without_typ(mut self) -> Self {
        self.typ = None;
        self
    }

    /// Adds a claim that is a string, such as the `scope` of Google's service accounts.
    #[must_use]
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.claims.push((name.into(), Some(Value::String(value.into()))));
        self
    }

    /// Adds a claim that is anything, as JSON text.
    #[must_use]
    pub fn claim_json(mut self, name: impl Into<String>, json: impl Into<String>) -> Self {
        self.claims.push((name.into(), serde_json::from_str(&json.into()).ok()));
        self
    }

    /// Adds a member of the JOSE header (RFC 7515 §4) that is a string.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.header.push((name.into(), Some(Value::String(value.into()))));
        self
    }

    /// Adds a member of the JOSE header that is anything, such as `x5c`, as JSON text.
    #[must_use]
    pub fn header_json(mut self, name: impl Into<String>, json: impl Into<String>) -> Self {
        self.header.push((name.into(), serde_json::from_str(&json.into()).ok()));
        self
    }

    /// Adds what it says. Without an issuer of its own that is not known before the key is read.
    pub(crate) fn describe(&self, name: &str, identity: SourceIdentity) -> Option<SourceIdentity> {
        let identity = identity.with(format!("{name} iss"), self.issuer.as_deref()?);
        let identity = match &self.subject {
            Subject::Issuer => identity,
            Subject::Named(subject) => identity.with(format!("{name} sub"), subject),
            Subject::None => identity.with(format!("{name} without sub"), ""),
        };
        let identity = match &self.audience {
            Audience::Issuer => identity,
            Audience::TokenUrl => identity.with(format!("{name} aud by URL"), ""),
            Audience::Named(audience) => identity.with(format!("{name} aud"), audience),
        };
        let members = self.claims.iter().map(|member| ("claim", member));
        let members = members.chain(self.header.iter().map(|member| ("header", member)));
        members.into_iter().try_fold(identity, |identity, (kind, (member, value))| {
            Some(identity.with(format!("{name} {kind} {member}"), value.as_ref()?.to_string()))
        })
    }

    /// Returns whether the client secret signs.
    pub(crate) fn wants_client_secret(&self) -> bool {
        matches!(self.signed_by, SignedBy::Secret(_))
    }

    /// Returns where the key is that signs, if it is read here.
    pub(crate) fn key(&self) -> Option<&Secret> {
        match &self.signed_by {
            SignedBy::Key(key) => Some(key.secret()),
            SignedBy::Signer(_) | SignedBy::Secret(_) => None,
        }
    }

    /// Reads the key, then makes and signs one.
    pub(crate) async fn make(&self, identifiers: &Identifiers) -> Result<SecretString, Error> {
        let (key, may_change) = match self.key() {
            Some(key) => (key.read_as("signing key").await?, key.may_change()),
            None => (SecretString::default(), false),
        };
        let made = self.sign(identifiers, &key).await;
        made.map_err(|error| secret::of_the_moment(error, may_change))
    }

    /// Makes and signs one. `secret` is what was read: the key, or the client secret.
    pub(crate) async fn sign(
        &self,
        identifiers: &Identifiers,
        secret: &SecretString,
    ) -> Result<SecretString, Error> {
        let (now, identifier) = (clock::unix_time(), backoff::identifier()?);
        let joined = |header: &Map<String, Value>, account: Option<&str>| {
            format!("{}.{}", encoded(header), encoded(&self.claims(identifiers, account, now, &identifier)))
        };
        let (input, signature) = match &self.signed_by {
            SignedBy::Key(key) => {
                let material = key.material(secret)?;
                if self.issuer.is_none() && identifiers.client_id.is_empty() && material.account.is_none() {
                    return Err(refused("it has no issuer; set issuer(), or the client"));
                }
                let key_id = key.name().or(material.key_id.as_deref());
                let header = self.jose_header(key_id, key.thumbprint().await?);
                let input = joined(&header, material.account.as_deref());
                let signature = material.sign(input.as_bytes())?;
                (input, signature)
            }
            SignedBy::Secret(algorithm) => {
                let input = joined(&self.jose_header(None, None), None);
                let secret = secret.expose_secret().as_bytes();
                let signature = Material::shared(*algorithm, secret)?.sign(input.as_bytes())?;
                (input, signature)
            }
            SignedBy::Signer(signer) => {
                let input = joined(&self.jose_header(signer.key_id().as_deref(), None), None);
                let signature = signer.sign(input.as_bytes()).await?;
                (input, signature)
            }
        };
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)).into())
    }

    /// Checks an assertion that authenticates a client.
    pub(crate) fn check_for_client(&self, identifiers: &Identifiers) -> Result<(), Error> {
        if self.issuer.is_some() || !matches!(self.subject, Subject::Issuer) {
            return Err(refused(
                "issuer() or subject() is set, and both are the client id where it authenticates a client (RFC 7523 §3); \
                 remove them",
            ));
        }
        if !self.wants_client_secret() && self.algorithm().is_symmetric() {
            return Err(refused(&format!(
                "{} is not signed by a private key; take another algorithm, or ClientAuth::client_secret_jwt",
                self.algorithm()
            )));
        }
        self.check(identifiers)
    }

    /// Checks the client secret that signs.
    pub(crate) fn check_secret(&self, secret: &SecretString) -> Result<(), Error> {
        let secret = crate::text::trimmed(secret.expose_secret());
        Material::shared(self.algorithm(), secret.as_bytes()).map(drop)
    }

    /// Checks an assertion that is the grant itself.
    pub(crate) fn check_for_grant(&self, identifiers: &Identifiers) -> Result<(), Error> {
        if self.wants_client_secret() {
            return Err(refused("the client secret signs no grant; give a key or a signer"));
        }
        // A key file names its account; one that is read later says so then.
        let may_name_issuer = match &self.signed_by {
            SignedBy::Key(key) => key.may_name_account(),
            SignedBy::Signer(_) | SignedBy::Secret(_) => false,
        };
        if self.issuer.is_none() && identifiers.client_id.is_empty() && !may_name_issuer {
            return Err(refused("it has no issuer; set issuer(), or the client"));
        }
        self.check(identifiers)
    }

    /// Checks an assertion that is a token by itself, and need not have an audience.
    pub(crate) fn check_by_itself(&self) -> Result<(), Error> {
        if self.wants_client_secret() {
            return Err(refused("there is no client secret to sign it; give a key or a signer"));
        }
        let may_name_issuer = match &self.signed_by {
            SignedBy::Key(key) => key.may_name_account(),
            SignedBy::Signer(_) | SignedBy::Secret(_) => false,
        };
        if self.issuer.is_none() && !may_name_issuer {
            return Err(refused("it has no issuer; set issuer()"));
        }
        self.check_content()
    }

    /// Returns how long it holds by the clock of this machine.
    pub(crate) fn holds_for(&self) -> Duration {
        self.lifetime.saturating_sub(self.ahead_by)
    }

    fn check(&self, identifiers: &Identifiers) -> Result<(), Error> {
        if self.audience_among(identifiers).is_empty() {
            return Err(refused(
                "it has no audience; give an Issuer in place of the URL, set issuer() on the builder, or audience() on the \
                 assertion (in a configuration file assertion_audience)",
            ));
        }
        self.check_content()
    }

    fn check_content(&self) -> Result<(), Error> {
        if self.lifetime < Duration::from_secs(1) || self.lifetime > LONGEST {
            return Err(refused(
                "its lifetime must be from 1 s to an hour (RFC 7523 §3); a minute is enough",
            ));
        }
        check_members("claim", &self.claims, &["iss", "sub", "aud", "exp", "iat", "nbf", "jti"])?;
        check_members("header", &self.header, &["alg", "typ", "kid", "x5t#S256"])?;
        match &self.signed_by {
            SignedBy::Key(key) if key.algorithm().is_symmetric() => {
                Err(refused(&format!("no private key signs by {}; take another algorithm", key.algorithm())))
            }
            SignedBy::Key(key) => key.check(),
            SignedBy::Secret(algorithm) if !algorithm.is_symmetric() => Err(refused(&format!(
                "no client secret signs by {algorithm}; take HS256 or one of its kin, or a key"
            ))),
            SignedBy::Signer(_) | SignedBy::Secret(_) => Ok(()),
        }
    }

    fn algorithm(&self) -> JwtAlgorithm {
        match &self.signed_by {
            SignedBy::Key(key) => key.algorithm(),
            SignedBy::Signer(signer) => signer.algorithm(),
            SignedBy::Secret(algorithm) => *algorithm,
        }
    }

    fn audience_among<'a>(&'a self, identifiers: &'a Identifiers) -> &'a str {
        match &self.audience {
            Audience::Issuer => &identifiers.issuer,
            Audience::TokenUrl => &identifiers.token_url,
            Audience::Named(audience) => audience,
        }
    }

    fn jose_header(&self, key_id: Option<&str>, thumbprint: Option<String>) -> Map<String, Value> {
        let mut header = Map::new();
        header.insert("alg".into(), self.algorithm().name().into());
        header.extend(self.typ.as_deref().map(|typ| ("typ".into(), typ.into())));
        header.extend(key_id.map(|key_id| ("kid".into(), key_id.into())));
        header.extend(thumbprint.map(|thumbprint| ("x5t#S256".into(), thumbprint.into())));
        header.extend(values(&self.header));
        header
    }

    /// The claims of RFC 7523 §3, at a time since the Unix epoch.
    fn claims(
        &self,
        identifiers: &Identifiers,
        account: Option<&str>,
        now: Duration,
        identifier: &str,
    ) -> Map<String, Value> {
        let now = now.saturating_sub(self.ahead_by).saturating_add(self.behind_by);
        let client = Some(identifiers.client_id.as_str()).filter(|client| !client.is_empty());
        let issuer = self.issuer.as_deref().or(client).or(account).unwrap_or_default();
        let subject = match &self.subject {
            Subject::Issuer => Some(issuer),
            Subject::Named(subject) => Some(subject.as_str()),
            Subject::None => None,
        };
        let mut claims: Map<String, Value> = values(&self.claims).collect();
        claims.insert("iss".into(), issuer.into());
        claims.extend(subject.map(|subject| ("sub".into(), subject.into())));
        let audience = Some(self.audience_among(identifiers)).filter(|audience| !audience.is_empty());
        claims.extend(audience.map(|audience| ("aud".into(), audience.into())));
        claims.insert("iat".into(), now.as_secs().into());
        claims.insert("exp".into(), (now.as_secs().saturating_add(self.lifetime.as_secs())).into());
        claims.extend(
            self.not_before_skew.map(|skew| ("nbf".into(), now.saturating_sub(skew).as_secs().into())),
        );
        claims.insert("jti".into(), identifier.into());
        claims
    }
}

impl From<SigningKey> for Assertion {
    fn from(key: SigningKey) -> Self {
        Self::by_key(key)
    }
}

// --- Member ---

fn values(members: &[Member]) -> impl Iterator<Item = (String, Value)> {
    members.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)))
}

fn check_members(what: &str, members: &[Member], set_elsewhere: &[&str]) -> Result<(), Error> {
    for (at, (name, value)) in members.iter().enumerate() {
        let remedy = match value {
            _ if set_elsewhere.contains(&name.as_str()) => {
                "has a setter of its own, or is none of yours; remove it"
            }
            _ if members[..at].iter().any(|earlier| earlier.0 == *name) => "is set twice; set it once",
            None => "is not JSON; quote it, or use the setter for strings",
            Some(_) => continue,
        };
        return Err(refused(&format!("the {what} {name:?} {remedy}")));
    }
    Ok(())
}

fn refused(what: &str) -> Error {
    Error::config(format!("assertion: {what}"))
}

fn encoded(members: &Map<String, Value>) -> String {
    // JSON whose names are strings can always be written.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(members).unwrap_or_default())
}

#[cfg(test)]
mod tests;
