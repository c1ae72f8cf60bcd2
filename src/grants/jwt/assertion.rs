//! An assertion: what it says, who signs it, and for how long it holds.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use crate::error::Error;
use crate::grants::client::secret::{self, Secret};
use crate::grants::endpoint::identifiers::Identifiers;
use crate::grants::jwt::algorithm::JwtAlgorithm;
use crate::grants::jwt::material::Material;
use crate::grants::jwt::signer::{DynSigner, JwtSigner};
use crate::source::SourceIdentity;
use crate::{backoff, clock};

/// An assertion that lives longer is worth stealing; servers that allow it at all stop here.
const LONGEST: Duration = Duration::from_secs(3600);

/// The signer of an assertion, and its contents beside those that its use demands.
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
/// use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm};
///
/// let assertion = Assertion::by_key(JwtAlgorithm::Rs256, Secret::from_file("/run/secrets/key.pem"))
///     .key_id("2026-11")
///     .issuer("robot@example.com")
///     .audience("https://login.example.com/token")
///     .lifetime(Duration::from_secs(300))
///     .claim("scope", "reports:read");
/// # let _ = assertion;
/// ```
#[derive(Clone, Debug)]
pub struct Assertion {
    signed_by: SignedBy,
    key_id: Option<String>,
    certificate: Option<Secret>,
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
    /// By a key of this algorithm, from where it is.
    Key(JwtAlgorithm, Secret),
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
    /// Creates an assertion that a private key signs: PEM or a JWK, read each time it is used.
    ///
    /// PEM may be PKCS#8 (`PRIVATE KEY`), PKCS#1 (`RSA PRIVATE KEY`) or SEC 1 (`EC PRIVATE KEY`), without a passphrase, and
    /// may have certificates beside the key. A JWK is one JSON object with the private members, of RSA all of RFC 7518
    /// §6.3.2 but `oth`. The JSON file in which Google issues the key of a service account is understood as it is: with its
    /// key id, and its account as the issuer of assertions that name no other.
    ///
    /// A key that is given as a value is checked when the source is built, any other at its first use.
    ///
    /// ```
    /// use tower_oauth2::Secret;
    /// use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm};
    ///
    /// let mounted = Assertion::by_key(JwtAlgorithm::Rs256, Secret::from_file("/run/secrets/key.pem")).key_id("2026-11");
    /// let given = Assertion::by_key(JwtAlgorithm::EdDsa, r#"{"kty":"OKP","crv":"Ed25519","d":"S3CR3T","x":"..."}"#);
    /// assert!(!format!("{given:?}").contains("S3CR3T"));
    /// ```
    #[must_use]
    pub fn by_key(algorithm: JwtAlgorithm, key: impl Into<Secret>) -> Self {
        Self::new(SignedBy::Key(algorithm, key.into()))
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
            key_id: None,
            certificate: None,
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

    /// Sets the name by which the server knows the key (`kid`). Default: that of the JWK or of the signer, else none.
    #[must_use]
    pub fn key_id(mut self, key_id: impl Into<String>) -> Self {
        self.key_id = Some(key_id.into());
        self
    }

    /// Names the key by its certificate: the SHA-256 thumbprint of the first one in this PEM text goes into the header
    /// as `x5t#S256` (RFC 7515 §4.1.8). It is read as the key is, and may be the same file.
    #[must_use]
    pub fn certificate(mut self, pem: impl Into<Secret>) -> Self {
        self.certificate = Some(pem.into());
        self
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
            SignedBy::Key(_, key) => Some(key),
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
        let secret = secret.expose_secret();
        let material = match &self.signed_by {
            SignedBy::Key(algorithm, _) => Material::read(*algorithm, secret)?,
            SignedBy::Secret(algorithm) => Material::shared(*algorithm, secret.as_bytes())?,
            SignedBy::Signer(signer) => {
                let input = self.unsigned(identifiers, signer.key_id(), None).await?;
                let signature = signer.sign(input.as_bytes()).await?;
                return Ok(with_signature(&input, &signature));
            }
        };
        let account = material.account.as_deref();
        if self.issuer.is_none() && identifiers.client_id.is_empty() && account.is_none() {
            return Err(without_issuer());
        }
        let input = self.unsigned(identifiers, material.key_id.clone(), account).await?;
        let signature = material.sign(input.as_bytes())?;
        Ok(with_signature(&input, &signature))
    }

    /// Makes header and claims, as RFC 7515 §5.1 joins them.
    async fn unsigned(
        &self,
        identifiers: &Identifiers,
        key_id: Option<String>,
        account: Option<&str>,
    ) -> Result<String, Error> {
        let thumbprint = match &self.certificate {
            Some(certificate) => Some(thumbprint(&certificate.read_as("certificate").await?)?),
            None => None,
        };
        let header = self.jose_header(self.key_id.clone().or(key_id), thumbprint);
        let claims = self.claims(identifiers, account, clock::unix_time(), &backoff::identifier()?);
        Ok(format!("{}.{}", encoded(&header), encoded(&claims)))
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
        self.check_issuer(identifiers)?;
        self.check(identifiers)
    }

    /// Checks an assertion that is a token by itself, and need not have an audience.
    pub(crate) fn check_by_itself(&self) -> Result<(), Error> {
        self.check_issuer(&Identifiers::default())?;
        self.check_content()
    }

    /// Checks the issuer of an assertion that authenticates no client.
    fn check_issuer(&self, identifiers: &Identifiers) -> Result<(), Error> {
        // A key file names its account; one that is read later says so then.
        let may_name_issuer = match &self.signed_by {
            SignedBy::Key(algorithm, key) => key.value().is_none_or(|text| {
                let material = Material::read(*algorithm, text.expose_secret());
                material.is_ok_and(|material| material.account.is_some())
            }),
            SignedBy::Signer(_) => false,
            SignedBy::Secret(_) => {
                return Err(refused("the client secret signs no grant; give a key or a signer"));
            }
        };
        if self.issuer.is_none() && identifiers.client_id.is_empty() && !may_name_issuer {
            return Err(without_issuer());
        }
        Ok(())
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
            SignedBy::Key(algorithm, _) if algorithm.is_symmetric() => {
                return Err(refused(&format!("no private key signs by {algorithm}; take another algorithm")));
            }
            SignedBy::Secret(algorithm) if !algorithm.is_symmetric() => {
                return Err(refused(&format!(
                    "no client secret signs by {algorithm}; take HS256 or one of its kin, or a key"
                )));
            }
            SignedBy::Key(algorithm, key) => {
                if let Some(text) = key.value() {
                    // A signature is the one proof that the key is whole.
                    Material::read(*algorithm, text.expose_secret())?.sign(b"")?;
                }
            }
            SignedBy::Signer(_) | SignedBy::Secret(_) => {}
        }
        match self.certificate.as_ref().and_then(Secret::value) {
            Some(pem) => thumbprint(pem).map(drop),
            None => Ok(()),
        }
    }

    fn algorithm(&self) -> JwtAlgorithm {
        match &self.signed_by {
            SignedBy::Key(algorithm, _) => *algorithm,
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

    fn jose_header(&self, key_id: Option<String>, thumbprint: Option<String>) -> Map<String, Value> {
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

fn without_issuer() -> Error {
    refused("it has no issuer; set issuer(), or the client")
}

/// Returns the SHA-256 thumbprint of the first certificate in a PEM text.
fn thumbprint(pem: &SecretString) -> Result<String, Error> {
    let certificate = CertificateDer::from_pem_slice(pem.expose_secret().as_bytes()).map_err(|_| {
        Error::config(
            "the certificate of the signing key cannot be used: it is not PEM text with a certificate",
        )
    })?;
    Ok(URL_SAFE_NO_PAD.encode(digest(&SHA256, &certificate)))
}

fn with_signature(input: &str, signature: &[u8]) -> SecretString {
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)).into()
}

fn encoded(members: &Map<String, Value>) -> String {
    // JSON whose names are strings can always be written.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(members).unwrap_or_default())
}

#[cfg(test)]
mod tests;
