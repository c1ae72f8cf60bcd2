//! Client authentication: how a client proves itself to the token endpoint (RFC 6749 §2.3).

use std::fmt::{self, Write as _};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use crate::error::{Error, ErrorKind};
use crate::grants::client::secret::Secret;
use crate::grants::endpoint::identifiers::Identifiers;
#[cfg(feature = "jwt")]
use crate::grants::jwt::assertion::Assertion;
use crate::grants::parameters::Form;
use crate::source::{DynTokenSource, FetchReason, TokenRequest, TokenSource};
use crate::text::Redactor;

/// How a client authenticates at the token endpoint.
///
/// A request carries one kind of authentication and never two (RFC 6749 §2.3), and none of it stands in the URL.
///
/// Default: [`basic`](Self::basic), the one that every authorization server must support.
///
/// # Strength
///
/// Where there are [several](Self::or), the first of these is taken that the server supports, as its
/// [metadata](crate::grants::Issuer) say; with the URL of an endpoint, the first of them:
///
/// 1. `private_key_jwt`, [`assertion`](Self::assertion), `tls`: what proves the client stays where it is
/// 2. `client_secret_jwt`: both sides know the secret, and it is not sent
/// 3. `basic`, `basic_raw`
/// 4. `post`: the form is more likely to be logged than the header
/// 5. `none`
#[derive(Clone)]
pub struct ClientAuth {
    method: Method,
    others: Vec<Method>,
}

#[derive(Clone, Debug)]
enum Method {
    Basic,
    BasicRaw,
    Post,
    #[cfg(feature = "jwt")]
    PrivateKeyJwt(Arc<Assertion>),
    #[cfg(feature = "jwt")]
    ClientSecretJwt(Arc<Assertion>),
    /// An assertion that somebody else has signed.
    Assertion(Presented),
    Tls,
    None,
}

impl ClientAuth {
    /// HTTP Basic as RFC 6749 §2.3.1 has it: id and secret are form-encoded first. Also known as
    /// `client_secret_basic`.
    #[must_use]
    pub const fn basic() -> Self {
        Self::by(Method::Basic)
    }

    /// HTTP Basic without the form-encoding, for servers that do not decode. It differs from [`basic`](Self::basic) only
    /// if the id or the secret holds other characters than letters, digits and `*-._`.
    #[must_use]
    pub const fn basic_raw() -> Self {
        Self::by(Method::BasicRaw)
    }

    /// Id and secret as fields of the form. Also known as `client_secret_post`.
    #[must_use]
    pub const fn post() -> Self {
        Self::by(Method::Post)
    }

    /// An assertion that a private key signs (RFC 7523 §2.2, OpenID Connect Core §9). It goes with
    /// [`Secret::none`]: a client that has a key needs no secret.
    ///
    /// A [`SigningKey`](crate::grants::jwt::SigningKey) alone is an assertion with the
    /// [defaults](Assertion#defaults).
    #[cfg(feature = "jwt")]
    #[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
    #[must_use]
    pub fn private_key_jwt(assertion: impl Into<Assertion>) -> Self {
        Self::by(Method::PrivateKeyJwt(Arc::new(assertion.into())))
    }

    /// An assertion that the client secret signs (OpenID Connect Core §9), so that the secret itself is not sent:
    /// made by [`Assertion::by_client_secret`].
    #[cfg(feature = "jwt")]
    #[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
    #[must_use]
    pub fn client_secret_jwt(assertion: Assertion) -> Self {
        Self::by(Method::ClientSecretJwt(Arc::new(assertion)))
    }

    /// An assertion that somebody else signs (RFC 7523 §2.2): the identity of a workload as its platform states it
    /// (Kubernetes, GitHub Actions, SPIFFE). It is a [`Secret`] or any [`TokenSource`], asked at each attempt, and goes
    /// with [`Secret::none`].
    ///
    /// ```
    /// use tower_oauth2::{ClientAuth, ClientCredentials, Secret, FileToken};
    ///
    /// let projected = FileToken::new("/var/run/secrets/azure/tokens/azure-identity-token");
    /// let token_url = "https://login.microsoftonline.com/TENANT/oauth2/v2.0/token";
    /// let builder = ClientCredentials::builder(token_url, "CLIENT-ID", Secret::none())
    ///     .auth(ClientAuth::assertion(projected))
    ///     .scope("https://graph.microsoft.com/.default");
    /// ```
    #[must_use]
    pub fn assertion(assertion: impl ClientAssertion) -> Self {
        Self::by(Method::Assertion(assertion.presented()))
    }

    /// The id alone, as a field of the form, since the transport shows a client certificate (RFC 8705 §2). Also known as
    /// `tls_client_auth` and `self_signed_tls_client_auth`.
    #[must_use]
    pub const fn tls() -> Self {
        Self::by(Method::Tls)
    }

    /// The id alone, as a field of the form: for public clients (RFC 6749 §3.2.1).
    #[must_use]
    pub const fn none() -> Self {
        Self::by(Method::None)
    }

    /// Adds another way, for a client that has several: the [strongest](Self#strength) that the server supports is taken,
    /// and never a weaker one because a stronger one failed.
    ///
    /// ```
    /// use tower_oauth2::grants::Issuer;
    /// use tower_oauth2::{ClientAuth, ClientCredentials, Secret};
    ///
    /// let secret = Secret::from_env("BILLING_SECRET");
    /// let builder = ClientCredentials::builder(Issuer::new("https://login.example.com"), "billing", secret)
    ///     .auth(ClientAuth::basic().or(ClientAuth::post()));
    /// ```
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        self.others.push(other.method);
        self.others.extend(other.others);
        self
    }

    const fn by(method: Method) -> Self {
        Self { method, others: Vec::new() }
    }

    fn methods(&self) -> impl Iterator<Item = &Method> {
        std::iter::once(&self.method).chain(&self.others)
    }

    /// Returns the strongest way alone.
    pub(crate) fn strongest(&self) -> Self {
        self.strongest_of(|_| true).unwrap_or_else(|| self.clone())
    }

    /// Returns the strongest way among those that the server supports, by the names of RFC 8414 §2; none if there is none.
    ///
    /// Who has no way but the id is not held to it: few servers say that they know public clients.
    pub(crate) fn supported(&self, names: &[String]) -> Option<Self> {
        if self.methods().all(|method| matches!(method, Method::None)) {
            return Some(Self::none());
        }
        self.strongest_of(|method| {
            method.registered_names().iter().any(|ours| names.iter().any(|theirs| theirs == ours))
        })
    }

    /// The first of those that are equally strong.
    fn strongest_of(&self, fits: impl Fn(&Method) -> bool) -> Option<Self> {
        let fitting = self.methods().filter(|method| fits(method));
        fitting.min_by_key(|method| method.rank()).cloned().map(Self::by)
    }

    /// Returns whether the transport authenticates the client.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.method, Method::Tls)
    }

    /// Returns whether id and secret may be sent with a colon between, as they are.
    pub(crate) fn is_basic_raw(&self) -> bool {
        self.methods().any(|method| matches!(method, Method::BasicRaw))
    }

    /// Returns whether it writes fields into the form, of this client.
    pub(crate) fn writes_form(&self, client_id: &str) -> bool {
        self.methods().any(|method| match method {
            Method::Basic | Method::BasicRaw => false,
            Method::Tls | Method::None => !client_id.is_empty(),
            Method::Post | Method::Assertion(_) => true,
            #[cfg(feature = "jwt")]
            Method::PrivateKeyJwt(_) | Method::ClientSecretJwt(_) => true,
        })
    }

    /// Returns whether there must be a client secret.
    pub(crate) fn wants_secret(&self) -> bool {
        self.methods().any(Method::wants_secret)
    }

    /// Returns whether the client proves itself by an assertion.
    pub(crate) fn is_assertion(&self) -> bool {
        self.methods().any(Method::is_assertion)
    }

    /// Returns the names of the constructors, for messages.
    pub(crate) fn name(&self) -> String {
        self.methods().map(Method::name).collect::<Vec<_>>().join(", ")
    }

    /// Checks what can be checked before the first attempt.
    #[cfg(feature = "jwt")]
    pub(crate) fn check(&self, identifiers: &Identifiers, secret: &Secret) -> Result<(), Error> {
        self.methods().try_for_each(|method| method.check(identifiers, secret))
    }

    /// Returns whether something that a proof is read from locally has changed since it was read last. `secret` is the
    /// client's.
    pub(crate) fn has_changed(&self, secret: &Secret) -> bool {
        secret.has_changed()
            || self.methods().any(|method| match method {
                Method::Assertion(Presented { by: PresentedBy::Secret(assertion) }) => {
                    assertion.has_changed()
                }
                Method::Assertion(Presented { by: PresentedBy::Source(source) }) => source.may_differ(),
                #[cfg(feature = "jwt")]
                Method::PrivateKeyJwt(assertion) => assertion.key().is_some_and(Secret::has_changed),
                #[cfg(feature = "jwt")]
                Method::ClientSecretJwt(_) => false,
                Method::Basic | Method::BasicRaw | Method::Post | Method::Tls | Method::None => false,
            })
    }

    /// Returns what the proof is made of: the client's secret, or its key.
    pub(crate) fn proof<'a>(&'a self, secret: &'a Secret) -> Proof<'a> {
        match &self.method {
            Method::Basic | Method::BasicRaw | Method::Post | Method::Tls | Method::None => {
                Proof::Secret(secret)
            }
            Method::Assertion(presented) => Proof::Presented(presented),
            #[cfg(feature = "jwt")]
            Method::ClientSecretJwt(_) => Proof::Secret(secret),
            #[cfg(feature = "jwt")]
            Method::PrivateKeyJwt(assertion) => assertion.key().map_or(Proof::Elsewhere, Proof::Key),
        }
    }

    /// Puts the authentication on a request. Called for each attempt anew. `proof` is what was read of the
    /// [`proof`](Self::proof).
    pub(crate) async fn apply(
        &self,
        identifiers: &Identifiers,
        proof: &SecretString,
        request: Unauthenticated<'_>,
    ) -> Result<(), Error> {
        let Unauthenticated { form, headers, redactor } = request;
        let client_id = &identifiers.client_id;
        match &self.method {
            Method::Basic => {
                redactor.add_basic(client_id, proof.expose_secret());
                headers.insert(
                    AUTHORIZATION,
                    basic_header(&encoded(client_id), &encoded(proof.expose_secret()))?,
                );
            }
            Method::BasicRaw => {
                redactor.add_basic(client_id, proof.expose_secret());
                headers.insert(AUTHORIZATION, basic_header(client_id, proof.expose_secret())?);
            }
            Method::Post => {
                redactor.add_basic(client_id, proof.expose_secret());
                form.push("client_id", client_id);
                form.push("client_secret", proof.expose_secret());
            }
            #[cfg(feature = "jwt")]
            Method::PrivateKeyJwt(assertion) | Method::ClientSecretJwt(assertion) => {
                // A private key is not sent, so nobody can give it back.
                if assertion.wants_client_secret() {
                    redactor.add_basic(client_id, proof.expose_secret());
                }
                let assertion = assertion.sign(identifiers, proof).await?;
                redactor.add(assertion.expose_secret());
                push_assertion(form, client_id, &assertion);
            }
            Method::Assertion(_) => {
                redactor.add(proof.expose_secret());
                push_assertion(form, client_id, proof);
            }
            Method::Tls | Method::None => form.push("client_id", client_id),
        }
        Ok(())
    }
}

impl Default for ClientAuth {
    fn default() -> Self {
        Self::basic()
    }
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientAuth ")?;
        f.debug_list().entries(self.methods()).finish()
    }
}

// --- Method ---

impl Method {
    /// The lower, the stronger.
    fn rank(&self) -> u8 {
        match self {
            #[cfg(feature = "jwt")]
            Self::PrivateKeyJwt(_) => 1,
            Self::Assertion(_) | Self::Tls => 1,
            #[cfg(feature = "jwt")]
            Self::ClientSecretJwt(_) => 2,
            Self::Basic | Self::BasicRaw => 3,
            Self::Post => 4,
            Self::None => 5,
        }
    }

    fn wants_secret(&self) -> bool {
        match self {
            Self::Basic | Self::BasicRaw | Self::Post => true,
            #[cfg(feature = "jwt")]
            Self::ClientSecretJwt(_) => true,
            #[cfg(feature = "jwt")]
            Self::PrivateKeyJwt(_) => false,
            Self::Assertion(_) | Self::Tls | Self::None => false,
        }
    }

    fn is_assertion(&self) -> bool {
        match self {
            Self::Basic | Self::BasicRaw | Self::Post | Self::Tls | Self::None => false,
            Self::Assertion(_) => true,
            #[cfg(feature = "jwt")]
            Self::PrivateKeyJwt(_) | Self::ClientSecretJwt(_) => true,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::BasicRaw => "basic_raw",
            Self::Post => "post",
            #[cfg(feature = "jwt")]
            Self::PrivateKeyJwt(_) => "private_key_jwt",
            #[cfg(feature = "jwt")]
            Self::ClientSecretJwt(_) => "client_secret_jwt",
            Self::Assertion(_) => "assertion",
            Self::Tls => "tls",
            Self::None => "none",
        }
    }

    /// What server metadata call it (RFC 8414 §2).
    fn registered_names(&self) -> &'static [&'static str] {
        match self {
            Self::Basic | Self::BasicRaw => &["client_secret_basic"],
            Self::Post => &["client_secret_post"],
            #[cfg(feature = "jwt")]
            Self::PrivateKeyJwt(_) => &["private_key_jwt"],
            #[cfg(feature = "jwt")]
            Self::ClientSecretJwt(_) => &["client_secret_jwt"],
            Self::Assertion(_) => &["private_key_jwt"],
            Self::Tls => &["tls_client_auth", "self_signed_tls_client_auth"],
            Self::None => &["none"],
        }
    }

    #[cfg(feature = "jwt")]
    fn check(&self, identifiers: &Identifiers, secret: &Secret) -> Result<(), Error> {
        match self {
            Self::Basic | Self::BasicRaw | Self::Post | Self::Assertion(_) | Self::Tls | Self::None => Ok(()),
            Self::PrivateKeyJwt(assertion) if assertion.wants_client_secret() => Err(Error::config(
                "assertion: the client secret signs it, which is not private_key_jwt; use ClientAuth::client_secret_jwt, or a \
                 key",
            )),
            Self::ClientSecretJwt(assertion) if !assertion.wants_client_secret() => Err(Error::config(
                "assertion: no client secret signs it; use ClientAuth::private_key_jwt, or Assertion::by_client_secret",
            )),
            Self::PrivateKeyJwt(assertion) => assertion.check_for_client(identifiers),
            Self::ClientSecretJwt(assertion) => {
                assertion.check_for_client(identifiers)?;
                secret.value().map_or(Ok(()), |secret| assertion.check_secret(secret))
            }
        }
    }
}

// --- Proof ---

/// Where that is by which a client proves itself.
#[derive(Clone, Copy)]
pub(crate) enum Proof<'a> {
    Secret(&'a Secret),
    #[cfg(feature = "jwt")]
    Key(&'a Secret),
    /// Somebody else signs.
    Presented(&'a Presented),
    /// A signer has it, and keeps it.
    #[cfg(feature = "jwt")]
    Elsewhere,
}

impl Proof<'_> {
    /// Reads it; an empty one if there is none.
    pub(crate) async fn read(self) -> Result<SecretString, Error> {
        self.read_for(FetchReason::Initial).await
    }

    /// Reads it once more, since the server refuses what was read before.
    pub(crate) async fn reread(self) -> Result<SecretString, Error> {
        self.read_for(FetchReason::Forced).await
    }

    /// Returns whether it is good for one attempt.
    pub(crate) fn is_read_each_time(self) -> bool {
        matches!(self, Self::Presented(_))
    }

    async fn read_for(self, reason: FetchReason) -> Result<SecretString, Error> {
        match self {
            Self::Presented(Presented { by: PresentedBy::Secret(secret) }) => {
                secret.read_as("client assertion").await
            }
            Self::Presented(Presented { by: PresentedBy::Source(source) }) => {
                let token = source.fetch(TokenRequest::new(reason)).await.map_err(of_another)?;
                Ok(token.secret().clone())
            }
            Self::Secret(secret) => secret.read_as("client secret").await,
            #[cfg(feature = "jwt")]
            Self::Key(key) => key.read_as("signing key").await,
            #[cfg(feature = "jwt")]
            Self::Elsewhere => Ok(SecretString::default()),
        }
    }

    /// Returns whether reading again can give another one.
    pub(crate) fn may_change(self) -> bool {
        match self {
            Self::Secret(secret) => secret.may_change(),
            Self::Presented(Presented { by: PresentedBy::Secret(secret) }) => secret.may_change(),
            Self::Presented(Presented { by: PresentedBy::Source(_) }) => true,
            #[cfg(feature = "jwt")]
            Self::Key(key) => key.may_change(),
            #[cfg(feature = "jwt")]
            Self::Elsewhere => false,
        }
    }
}

// --- Presented ---

/// An assertion that somebody else signs.
#[derive(Clone)]
#[allow(unnameable_types, reason = "it seals the trait below")]
pub struct Presented {
    by: PresentedBy,
}

#[derive(Clone)]
enum PresentedBy {
    Secret(Secret),
    Source(Arc<dyn DynTokenSource>),
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.by {
            PresentedBy::Secret(secret) => secret.fmt(f),
            PresentedBy::Source(_) => f.write_str("a source"),
        }
    }
}

/// What [`ClientAuth::assertion`] takes: a [`Secret`] or any [`TokenSource`]. There is nothing to implement.
pub trait ClientAssertion {
    #[doc(hidden)]
    fn presented(self) -> Presented;
}

impl ClientAssertion for Secret {
    fn presented(self) -> Presented {
        Presented { by: PresentedBy::Secret(self) }
    }
}

impl<S: TokenSource> ClientAssertion for S {
    fn presented(self) -> Presented {
        Presented { by: PresentedBy::Source(Arc::new(self)) }
    }
}

/// That another source fails for good says nothing of this client.
fn of_another(error: Error) -> Error {
    if error.is_temporary() { error } else { error.reclassified(ErrorKind::Transient) }
}

// --- Unauthenticated ---

/// A request that nobody vouches for yet, and who must know the secrets that it gets.
pub(crate) struct Unauthenticated<'a> {
    pub(crate) form: &'a mut Form,
    pub(crate) headers: &'a mut HeaderMap,
    pub(crate) redactor: &'a mut Redactor,
}

fn push_assertion(form: &mut Form, client_id: &str, assertion: &SecretString) {
    // RFC 7521 §4.2 leaves the id to the client; Microsoft Entra demands it.
    form.push("client_id", client_id);
    form.push("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    form.push("client_assertion", assertion.expose_secret());
}

/// Form-encodes as WHATWG does: that leaves `*-._` as they are, which servers that never decode depend on.
fn encoded(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(3 * text.len()));
    out.extend(form_urlencoded::byte_serialize(text.as_bytes()));
    out
}

fn basic_header(user: &str, password: &str) -> Result<HeaderValue, Error> {
    let mut pair = Zeroizing::new(String::with_capacity(user.len() + password.len() + 1));
    let mut line = Zeroizing::new(String::with_capacity(6 + (user.len() + password.len() + 3) / 3 * 4 + 4));
    // Writing into a string cannot fail.
    let _ = write!(pair, "{user}:{password}");
    line.push_str("Basic ");
    STANDARD.encode_string(pair.as_bytes(), &mut line);
    let mut value = HeaderValue::from_str(&line)
        .map_err(|_| Error::config("the client credentials do not fit a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::parameters::Encoding;

    async fn applied(auth: &ClientAuth, id: &str, secret: &str) -> (Option<HeaderValue>, bytes::Bytes) {
        let (mut form, mut headers, mut redactor) =
            (Form::new(Encoding::Form), HeaderMap::new(), Redactor::default());
        let identifiers =
            Identifiers { client_id: id.into(), issuer: String::new(), token_url: String::new() };
        let request = Unauthenticated { form: &mut form, headers: &mut headers, redactor: &mut redactor };
        auth.apply(&identifiers, &SecretString::from(secret), request).await.unwrap();
        (headers.remove(AUTHORIZATION), form.into_bytes())
    }

    #[tokio::test]
    async fn every_vector_of_basic_credentials_gives_its_header() {
        let vectors = crate::vectors::read("basic_credentials");
        for vector in &vectors {
            let [id, secret] =
                ["client_id", "client_secret"].map(|name| vector["input"][name].as_str().unwrap());
            for (auth, member) in
                [(ClientAuth::basic(), "authorization"), (ClientAuth::basic_raw(), "raw_mode_authorization")]
            {
                let (header, body) = applied(&auth, id, secret).await;
                assert_eq!(
                    header.unwrap().to_str().unwrap(),
                    vector["expect"][member].as_str().unwrap(),
                    "{} {member}",
                    vector["id"]
                );
                assert!(body.is_empty());
            }
            let encoded = vector["expect"]["authorization"].as_str().unwrap().strip_prefix("Basic ").unwrap();
            let pair = String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap();
            let parts = ["username", "password"].map(|name| vector["expect"][name].as_str().unwrap());
            assert_eq!(pair.split_once(':').unwrap(), (parts[0], parts[1]), "{}", vector["id"]);
        }
        assert_eq!(vectors.len(), 13);
    }

    #[tokio::test]
    async fn post_sends_both_in_the_form_and_no_header() {
        let (header, body) = applied(&ClientAuth::post(), "a&b=c", "p+q r%").await;
        assert_eq!(header, None);
        assert_eq!(body, "client_id=a%26b%3Dc&client_secret=p%2Bq+r%25");
        assert_eq!(applied(&ClientAuth::post(), "public", "").await.1, "client_id=public");
    }

    #[tokio::test]
    async fn none_and_tls_send_the_id_alone() {
        for auth in [ClientAuth::none(), ClientAuth::tls()] {
            let (header, body) = applied(&auth, "s6BhdRkqt3", "S3CR3T").await;
            assert_eq!((header, &body[..]), (None, &b"client_id=s6BhdRkqt3"[..]));
        }
    }

    #[test]
    fn of_several_ways_the_strongest_is_taken_that_the_server_supports() {
        let named = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let several =
            ClientAuth::none().or(ClientAuth::post()).or(ClientAuth::basic_raw()).or(ClientAuth::tls());
        assert_eq!(several.name(), "none, post, basic_raw, tls");
        assert_eq!(several.strongest().name(), "tls");
        for (supported, taken) in [
            (&["client_secret_basic", "self_signed_tls_client_auth", "none"][..], Some("tls")),
            (&["none", "client_secret_post", "client_secret_basic"], Some("basic_raw")),
            (&["none", "client_secret_post"], Some("post")),
            (&["none", "private_key_jwt"], Some("none")),
            (&["private_key_jwt"], None),
            (&[], None),
        ] {
            let taken_now = several.supported(&named(supported)).map(|auth| auth.name());
            assert_eq!(taken_now.as_deref(), taken, "{supported:?}");
        }
        // Names are compared exactly, and of equals the first is taken.
        assert!(ClientAuth::basic().supported(&named(&["Client_Secret_Basic", "basic"])).is_none());
        assert_eq!(ClientAuth::basic_raw().or(ClientAuth::basic()).strongest().name(), "basic_raw");
    }

    #[test]
    fn a_public_client_is_not_held_to_what_the_server_says() {
        assert!(ClientAuth::none().supported(&["client_secret_basic".to_owned()]).is_some());
        let either = ClientAuth::none().or(ClientAuth::basic());
        assert!(either.supported(&["client_secret_post".to_owned()]).is_none());
    }

    #[tokio::test]
    async fn the_header_is_sensitive() {
        let header = applied(&ClientAuth::basic(), "id", "S3CR3T").await.0.unwrap();
        assert!(header.is_sensitive());
    }
}
