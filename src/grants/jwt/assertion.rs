//! An assertion: what it says, who signs it, and for how long it holds.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde_json::{Map, Value};
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt as _, service_fn};

use crate::error::Error;
use crate::grants::client::secret::{self, Secret};
use crate::grants::endpoint::identifiers::Identifiers;
use crate::grants::jwt::algorithm::{JwtAlgorithm, Primitive};
use crate::grants::jwt::der;
use crate::grants::jwt::material::{self, Material};
use crate::source::SourceIdentity;
use crate::{backoff, clock, text};

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
/// - header: `typ` is `JWT`
/// - `nbf`: none
/// - clock: right
/// - further claims: none
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
#[must_use]
pub struct Assertion {
    pub(crate) algorithm: JwtAlgorithm,
    signed_by: SignedBy,
    key_id: Option<Secret>,
    certificate: Option<Secret>,
    issuer: Option<String>,
    subject: Subject,
    audience: Audience,
    lifetime: Duration,
    not_before_skew: Option<Duration>,
    ahead_by: Duration,
    claims: Vec<Member>,
    header: Vec<Member>,
}

#[derive(Clone, Debug)]
enum SignedBy {
    /// From where it is.
    Key(Secret),
    /// The user's closure.
    Signer(BoxCloneSyncService<Vec<u8>, Vec<u8>, Error>),
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

/// A claim or a header member; without a value if JSON cannot express it, which is said when the source is built.
type Member = (String, Option<Value>);

impl Assertion {
    /// Creates an assertion that a key signs, which is read each time: PEM or a JWK, or the client secret where the algorithm
    /// is HS256 or one of its kin.
    ///
    /// PEM may be PKCS#8 (`PRIVATE KEY`), PKCS#1 (`RSA PRIVATE KEY`) or SEC 1 (`EC PRIVATE KEY`), without a passphrase, and
    /// may have certificates beside the key. A JWK is one JSON object with the private members, of RSA all of RFC 7518
    /// §6.3.2 but `oth`. The JSON file in which Google issues the key of a service account is understood as it is: with its
    /// key id, and its account as the issuer of assertions that name no other.
    ///
    /// A secret must be as long as the hash at least, 32 bytes for HS256 (RFC 7518 §3.2).
    ///
    /// A key that is given as a value is checked when the source is built, any other at its first use.
    ///
    /// ```
    /// use tower_oauth2::Secret;
    /// use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm};
    ///
    /// let mounted = Assertion::by_key(JwtAlgorithm::Rs256, Secret::from_file("/run/secrets/key.pem")).key_id("2026-11");
    /// let given = Assertion::by_key(JwtAlgorithm::EdDsa, r#"{"kty":"OKP","crv":"Ed25519","d":"S3CR3T","x":"..."}"#);
    /// let shared = Assertion::by_key(JwtAlgorithm::Hs256, Secret::from_env("CLIENT_SECRET"));
    /// assert!(!format!("{given:?}").contains("S3CR3T"));
    /// ```
    pub fn by_key(algorithm: JwtAlgorithm, key: impl Into<Secret>) -> Self {
        Self::new(algorithm, SignedBy::Key(key.into()))
    }

    /// Creates an assertion that a closure of yours signs, with a key that does not leave where it is: an HSM, or a key
    /// management service.
    ///
    /// The closure is called once for each attempt at the token endpoint. It gets header and claims, as RFC 7515 §5.1 joins
    /// them: the text to be signed, and not its hash. For a service that signs hashes, hash it as the algorithm says (SHA-256 for
    /// ES256). It returns the signature. One of ECDSA may be the two numbers as RFC 7518 §3.4 joins them, or DER, as key
    /// management services give it. If it fails, no request is sent; a transient error is tried again as a token request is.
    /// Its future is dropped where the fetch is.
    ///
    /// ```
    /// use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm};
    /// use tower_oauth2::{ClientAuth, Error, ErrorKind};
    ///
    /// let assertion = Assertion::by_signer(JwtAlgorithm::Es256, |input| async move {
    ///     let signed = ask_vault(&input).await;
    ///     signed.map_err(|error| Error::new(ErrorKind::Transient, "the vault did not sign").with_source(error))
    /// });
    /// # async fn ask_vault(_input: &[u8]) -> Result<Vec<u8>, std::io::Error> { Ok(vec![0; 64]) }
    ///
    /// let auth = ClientAuth::private_key_jwt(assertion.key_id("billing-7"));
    /// ```
    pub fn by_signer<F, Fut>(algorithm: JwtAlgorithm, sign: F) -> Self
    where
        F: Fn(Vec<u8>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<u8>, Error>> + Send + 'static,
    {
        let sign = Arc::new(sign);
        let signer = BoxCloneSyncService::new(service_fn(move |input| sign(input)));
        Self::new(algorithm, SignedBy::Signer(signer))
    }

    fn new(algorithm: JwtAlgorithm, signed_by: SignedBy) -> Self {
        Self {
            algorithm,
            signed_by,
            key_id: None,
            certificate: None,
            issuer: None,
            subject: Subject::Issuer,
            audience: Audience::Issuer,
            lifetime: Duration::from_secs(60),
            not_before_skew: None,
            ahead_by: Duration::ZERO,
            claims: Vec::new(),
            header: Vec::new(),
        }
    }

    /// Sets the name by which the server knows the key (`kid`). Default: that of the JWK, else none.
    ///
    /// It is no secret, but it may be read as one is, from a file or a closure: for a key that is replaced where it is, by an HSM
    /// or a key management service. It is read for each assertion, just before the signature.
    pub fn key_id(mut self, key_id: impl Into<Secret>) -> Self {
        self.key_id = Some(key_id.into());
        self
    }

    /// Names the key by its certificate: the SHA-256 thumbprint of the first one in this PEM text goes into the header
    /// as `x5t#S256` (RFC 7515 §4.1.8). It is read as the key is, and may be the same file.
    pub fn certificate(mut self, pem: impl Into<Secret>) -> Self {
        self.certificate = Some(pem.into());
        self
    }

    /// Sets who makes the statement (`iss`). Default: the client id. For client authentication it is always that.
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = Some(trimmed(issuer));
        self
    }

    /// Sets whom the token is for (`sub`). Default: the issuer. For client authentication it is always the client id.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Subject::Named(trimmed(subject));
        self
    }

    /// Leaves `sub` out, which RFC 7523 §3 demands and Google's service accounts do without.
    pub fn without_subject(mut self) -> Self {
        self.subject = Subject::None;
        self
    }

    /// Sets the audience (`aud`), which is compared as it is written.
    ///
    /// Default: the issuer of the authorization server. RFC 7523 §3 lets it be the token endpoint as well, which its
    /// update no longer does; see [`token_url_as_audience`](Self::token_url_as_audience) for servers that want it.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Audience::Named(trimmed(audience));
        self
    }

    /// Sets whether the audience is the token URL, as older servers and Microsoft Entra want it, or the issuer of the
    /// authorization server.
    pub fn token_url_as_audience(mut self, is_token_url: bool) -> Self {
        self.audience = if is_token_url { Audience::TokenUrl } else { Audience::Issuer };
        self
    }

    /// Sets how long the assertion holds (`exp`), in whole seconds.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Adds `nbf`, so much before now.
    pub fn not_before_skew(mut self, skew: Duration) -> Self {
        self.not_before_skew = Some(skew);
        self
    }

    /// Says that this machine's clock is ahead of the server's by so much. All times are set back by it. Where it is behind,
    /// a longer [`lifetime`](Self::lifetime) makes up for it.
    pub fn clock_ahead_by(mut self, offset: Duration) -> Self {
        self.ahead_by = offset;
        self
    }

    /// Adds a claim: a string, such as the `scope` of Google's service accounts, or anything else that JSON can express.
    pub fn claim(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        self.claims.push((name.into(), serde_json::to_value(value).ok()));
        self
    }

    /// Adds a member of the JOSE header (RFC 7515 §4), such as `x5c`, or `typ` in place of `JWT`: the update of RFC 7523 has
    /// `client-authentication+jwt`.
    pub fn header(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        self.header.push((name.into(), serde_json::to_value(value).ok()));
        self
    }

    /// Adds what it says. Without an issuer of its own that is not known before the key is read.
    pub(crate) fn describe(&self, name: &str, identity: SourceIdentity) -> Option<SourceIdentity> {
        let issuer = self.issuer.as_deref()?;
        let said = (issuer, &self.subject, &self.audience, &self.claims, &self.header);
        Some(identity.with(name, format!("{said:?}")))
    }

    /// Returns where the key is that signs, if it is read here.
    pub(crate) fn key(&self) -> Option<&Secret> {
        match &self.signed_by {
            SignedBy::Key(key) => Some(key),
            SignedBy::Signer(_) => None,
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

    /// Makes and signs one by the key that was read.
    pub(crate) async fn sign(
        &self,
        identifiers: &Identifiers,
        key: &SecretString,
    ) -> Result<SecretString, Error> {
        let (input, signature) = match &self.signed_by {
            SignedBy::Key(_) => {
                let key = Material::read(self.algorithm, key.expose_secret())?;
                let input = self.unsigned(identifiers, Some(&key)).await?;
                let signature = key.sign(input.as_bytes())?;
                (input, signature)
            }
            SignedBy::Signer(signer) => {
                let input = self.unsigned(identifiers, None).await?;
                let signature = signer.clone().oneshot(input.clone().into_bytes()).await?;
                (input, self.joined(signature)?)
            }
        };
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)).into())
    }

    /// Brings the signature of a signer into the form of RFC 7518 §3.4.
    fn joined(&self, signature: Vec<u8>) -> Result<Vec<u8>, Error> {
        let half = match self.algorithm.primitive() {
            Primitive::P256 => 32,
            Primitive::P384 => 48,
            Primitive::Hmac(_) | Primitive::Pkcs1(_) | Primitive::Pss(_) | Primitive::Ed25519 => {
                return Ok(signature);
            }
        };
        der::ecdsa_signature(signature, half).ok_or_else(|| {
            let (algorithm, length) = (self.algorithm, 2 * half);
            Error::config(format!(
                "the signer returned no {algorithm} signature, as {length} bytes or as DER"
            ))
        })
    }

    /// Makes header and claims, as RFC 7515 §5.1 joins them.
    async fn unsigned(&self, identifiers: &Identifiers, key: Option<&Material>) -> Result<String, Error> {
        let thumbprint = match &self.certificate {
            Some(certificate) => Some(thumbprint(&certificate.read_as("certificate").await?)?),
            None => None,
        };
        let named = match &self.key_id {
            Some(key_id) => Some(key_id.read_as("key id").await?),
            None => None,
        };
        let named = named.as_ref().map(|named| named.expose_secret());
        let key_id = named.or(key.and_then(|key| key.key_id.as_deref()));
        let account = key.and_then(|key| key.account.as_deref());
        let header = self.jose_header(key_id, thumbprint);
        let claims = self.claims(identifiers, account, clock::unix_time(), &backoff::identifier()?)?;
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
        self.check_audience(identifiers)?;
        self.check_content().map(drop)
    }

    /// Checks an assertion that is the grant itself.
    pub(crate) fn check_for_grant(&self, identifiers: &Identifiers) -> Result<(), Error> {
        self.check_by_itself(identifiers)?;
        self.check_audience(identifiers)
    }

    /// Checks an assertion that is a token by itself, and need not have an audience.
    pub(crate) fn check_by_itself(&self, identifiers: &Identifiers) -> Result<(), Error> {
        let may_name_issuer = self.check_content()?;
        if self.issuer.is_none() && identifiers.client_id.is_empty() && !may_name_issuer {
            return Err(without_issuer());
        }
        Ok(())
    }

    fn check_audience(&self, identifiers: &Identifiers) -> Result<(), Error> {
        if self.audience_among(identifiers).is_empty() {
            return Err(refused(
                "it has no audience; give an Issuer in place of the URL, set issuer() on the builder, or audience() on the \
                 assertion (in a configuration file assertion_audience)",
            ));
        }
        Ok(())
    }

    /// Checks what it says and who signs it. Returns whether the key may name the issuer, as a key file does.
    fn check_content(&self) -> Result<bool, Error> {
        if self.lifetime < Duration::from_secs(1) || self.lifetime > LONGEST {
            return Err(refused(
                "its lifetime must be from 1 s to an hour (RFC 7523 §3); a minute is enough",
            ));
        }
        check_members("claim", &self.claims, &["iss", "sub", "aud", "exp", "iat", "nbf", "jti"])?;
        check_members("header", &self.header, &["alg", "kid", "x5t#S256"])?;
        if let Some(pem) = self.certificate.as_ref().and_then(Secret::value) {
            thumbprint(pem)?;
        }
        if self.key_id.as_ref().is_some_and(Secret::is_empty_value) {
            return Err(refused("its key_id() is empty; give the name of the key, or leave it out"));
        }
        let Some(key) = self.key() else { return Ok(false) };
        // One that is read later says so then.
        let Some(text) = key.value() else { return Ok(true) };
        let material = Material::read(self.algorithm, text.expose_secret())?;
        // A signature is the one proof that the key is whole.
        material.sign(b"")?;
        Ok(material.account.is_some())
    }

    /// Returns how long it holds by the clock of this machine.
    pub(crate) fn holds_for(&self) -> Duration {
        self.lifetime.saturating_sub(self.ahead_by)
    }

    fn audience_among<'a>(&'a self, identifiers: &'a Identifiers) -> &'a str {
        match &self.audience {
            Audience::Issuer => &identifiers.issuer,
            Audience::TokenUrl => identifiers.token_url.expose_secret(),
            Audience::Named(audience) => audience,
        }
    }

    fn jose_header(&self, key_id: Option<&str>, thumbprint: Option<String>) -> Map<String, Value> {
        let mut header = Map::new();
        header.insert("alg".into(), self.algorithm.name().into());
        header.insert("typ".into(), "JWT".into());
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
    ) -> Result<Map<String, Value>, Error> {
        let now = now.saturating_sub(self.ahead_by);
        let client = Some(identifiers.client_id.as_str()).filter(|client| !client.is_empty());
        let issuer = self.issuer.as_deref().or(client).or(account).ok_or_else(without_issuer)?;
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
        Ok(claims)
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
            None => "is nothing that JSON can express",
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

/// Takes invisible characters off the ends of a name, such as line ends of the file or the variable that it was read from.
fn trimmed(name: impl Into<String>) -> String {
    text::trimmed(&name.into()).to_owned()
}

/// Returns the SHA-256 thumbprint of the first certificate in a PEM text.
fn thumbprint(pem: &SecretString) -> Result<String, Error> {
    let text = text::trimmed(pem.expose_secret());
    let lines = material::unindented(text);
    let certificate = CertificateDer::from_pem_slice(lines.as_bytes()).map_err(|_| {
        let what = material::flaw_of_pem(text);
        let what = what.unwrap_or_else(|| "it is not PEM text with a certificate".into());
        Error::config(format!("the certificate of the signing key cannot be used: {what}"))
    })?;
    Ok(URL_SAFE_NO_PAD.encode(digest(&SHA256, &certificate)))
}

fn encoded(members: &Map<String, Value>) -> String {
    // JSON whose names are strings can always be written.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(members).unwrap_or_default())
}

#[cfg(test)]
mod tests;
