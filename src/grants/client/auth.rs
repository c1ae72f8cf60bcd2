//! Client authentication: how a client proves itself to the token endpoint (RFC 6749 §2.3).

use std::fmt;
#[cfg(feature = "jwt")]
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use crate::error::Error;
use crate::grants::client::secret::{self, Secret};
use crate::grants::endpoint::identifiers::Identifiers;
#[cfg(feature = "jwt")]
use crate::grants::jwt::assertion::Assertion;
use crate::grants::parameters::Form;
use crate::source::{FetchReason, TokenRequest};
use crate::text::Redactor;

/// How a client authenticates at the token endpoint, and the secret or the key that it does it with.
///
/// A string or a [`Secret`] in its place is [`basic`](Self::basic), which every authorization server must support.
///
/// A request carries one kind of authentication and never two (RFC 6749 §2.3), and none of it stands in the URL.
///
/// # Strength
///
/// If there are [several](Self::or), the first of these is used that the server supports according to its
/// [metadata](crate::grants::Issuer). For an endpoint that is given by its URL, it is the first of them:
///
/// 1. `private_key_jwt`, [`assertion`](Self::assertion), `tls`: the proof of the client stays with the client
/// 2. `client_secret_jwt`: both sides know the secret, and it is not sent
/// 3. `basic`, `basic_raw`
/// 4. `post`: the form is more likely to be logged than the header
/// 5. `none`
///
/// # Examples
///
/// ```
/// use tower_oauth2::{ClientAuth, ClientCredentials, Secret};
///
/// let url = "https://login.example.com/token";
/// let secret = Secret::from_env("BILLING_SECRET");
/// let by_header = ClientCredentials::builder(url, "billing", secret.clone());
/// let by_form = ClientCredentials::builder(url, "billing", ClientAuth::post(secret));
/// # let _ = (by_header, by_form);
/// ```
#[derive(Clone)]
#[must_use]
pub struct ClientAuth {
    method: Method,
    others: Vec<Method>,
}

#[derive(Clone, Debug)]
enum Method {
    Basic(Secret),
    BasicRaw(Secret),
    Post(Secret),
    /// An assertion that is signed here.
    #[cfg(feature = "jwt")]
    Jwt(Arc<Assertion>),
    /// An assertion that another party has signed.
    Assertion(Secret),
    Tls,
    None,
}

impl ClientAuth {
    /// HTTP Basic as RFC 6749 §2.3.1 defines it: id and secret are form-encoded first. Also known as
    /// `client_secret_basic`.
    pub fn basic(secret: impl Into<Secret>) -> Self {
        Self::by(Method::Basic(secret.into()))
    }

    /// HTTP Basic without the form-encoding, for servers that do not decode. It differs from [`basic`](Self::basic) only
    /// if the id or the secret holds other characters than letters, digits and `*-._`.
    pub fn basic_raw(secret: impl Into<Secret>) -> Self {
        Self::by(Method::BasicRaw(secret.into()))
    }

    /// Id and secret as fields of the form. Also known as `client_secret_post`.
    pub fn post(secret: impl Into<Secret>) -> Self {
        Self::by(Method::Post(secret.into()))
    }

    /// An assertion that a private key signs (RFC 7523 §2.2, OpenID Connect Core §9).
    ///
    /// The assertion is made by [`Assertion::by_key`] or [`Assertion::by_signer`]. With an algorithm of a shared secret, such as
    /// HS256, this is [`client_secret_jwt`](Self::client_secret_jwt).
    #[cfg(feature = "jwt")]
    #[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
    pub fn private_key_jwt(assertion: Assertion) -> Self {
        Self::by(Method::Jwt(Arc::new(assertion)))
    }

    /// An assertion that the client secret signs (OpenID Connect Core §9), so that the secret itself is not sent: the secret is
    /// the key of an algorithm such as HS256. The algorithm decides which of both methods it is.
    ///
    /// ```
    /// use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm};
    /// use tower_oauth2::{ClientAuth, Secret};
    ///
    /// let secret = Secret::from_env("BILLING_SECRET");
    /// let auth = ClientAuth::client_secret_jwt(Assertion::by_key(JwtAlgorithm::Hs256, secret));
    /// # let _ = auth;
    /// ```
    #[cfg(feature = "jwt")]
    #[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
    pub fn client_secret_jwt(assertion: Assertion) -> Self {
        Self::private_key_jwt(assertion)
    }

    /// An assertion that another party signs (RFC 7523 §2.2): the identity of a workload as its platform states it
    /// (Kubernetes, GitHub Actions, SPIFFE). It is a [`Secret`] or any [`TokenSource`](crate::TokenSource), read at each attempt.
    ///
    /// ```
    /// use tower_oauth2::{ClientAuth, ClientCredentials, FileToken};
    ///
    /// let projected = FileToken::new("/var/run/secrets/azure/tokens/azure-identity-token");
    /// let token_url = "https://login.microsoftonline.com/TENANT/oauth2/v2.0/token";
    /// let builder = ClientCredentials::builder(token_url, "CLIENT-ID", ClientAuth::assertion(projected))
    ///     .scope("https://graph.microsoft.com/.default");
    /// ```
    pub fn assertion(assertion: impl Into<Secret>) -> Self {
        Self::by(Method::Assertion(assertion.into()))
    }

    /// The id alone, as a field of the form, since the transport shows a client certificate (RFC 8705 §2). Also known as
    /// `tls_client_auth` and `self_signed_tls_client_auth`.
    pub fn tls() -> Self {
        Self::by(Method::Tls)
    }

    /// The id alone, as a field of the form: for public clients (RFC 6749 §3.2.1).
    pub fn none() -> Self {
        Self::by(Method::None)
    }

    /// Adds another way, for a client that has several: the [strongest](Self#strength) that the server supports is used,
    /// and never a weaker one because a stronger one failed.
    ///
    /// ```
    /// use tower_oauth2::grants::Issuer;
    /// use tower_oauth2::{ClientAuth, ClientCredentials, Secret};
    ///
    /// let secret = Secret::from_env("BILLING_SECRET");
    /// let auth = ClientAuth::basic(secret.clone()).or(ClientAuth::post(secret));
    /// let builder = ClientCredentials::builder(Issuer::new("https://login.example.com"), "billing", auth);
    /// ```
    pub fn or(mut self, other: Self) -> Self {
        self.others.push(other.method);
        self.others.extend(other.others);
        self
    }

    fn by(method: Method) -> Self {
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
    /// A client whose only way is its id is not held to the list: few servers say that they know public clients.
    pub(crate) fn supported(&self, names: &[String]) -> Option<Self> {
        if self.methods().all(|method| matches!(method, Method::None)) {
            return Some(Self::none());
        }
        self.strongest_of(|method| {
            method.row().2.iter().any(|ours| names.iter().any(|theirs| theirs == ours))
        })
    }

    /// The first of those that are equally strong.
    fn strongest_of(&self, fits: impl Fn(&Method) -> bool) -> Option<Self> {
        let fitting = self.methods().filter(|method| fits(method));
        fitting.min_by_key(|method| method.row().1).cloned().map(Self::by)
    }

    /// Returns whether the transport authenticates the client.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.method, Method::Tls)
    }

    /// Returns whether it writes fields into the form.
    pub(crate) fn writes_form(&self) -> bool {
        !self.methods().all(|method| matches!(method, Method::Basic(_) | Method::BasicRaw(_)))
    }

    /// Returns whether the client proves itself by an assertion.
    pub(crate) fn is_assertion(&self) -> bool {
        self.methods().any(|method| method.row().2.iter().any(|name| name.ends_with("_jwt")))
    }

    /// Returns the names of the constructors, for messages.
    pub(crate) fn name(&self) -> String {
        self.methods().map(|method| method.row().0).collect::<Vec<_>>().join(", ")
    }

    /// Checks what can be checked before the first attempt.
    pub(crate) fn check(&self, identifiers: &Identifiers) -> Result<(), Error> {
        self.methods().try_for_each(|method| method.check(identifiers))
    }

    /// Returns whether a file that a proof is read from has changed since it was read last, or a source may have another.
    pub(crate) fn has_changed(&self) -> bool {
        self.methods().any(|method| method.secret().is_some_and(|(secret, _)| secret.has_changed()))
    }

    /// Returns whether reading again can give another proof.
    pub(crate) fn may_change(&self) -> bool {
        self.method.secret().is_some_and(|(secret, _)| secret.may_change())
    }

    /// Returns whether a proof is good for one attempt.
    pub(crate) fn is_read_each_time(&self) -> bool {
        matches!(self.method, Method::Assertion(_))
    }

    /// Reads what the proof is made of: the secret, the key, or the assertion. Empty if nothing is read here. A source is told
    /// by `reason` whether the server refused what was read before.
    pub(crate) async fn read(&self, reason: FetchReason) -> Result<SecretString, Error> {
        let Some((secret, name)) = self.method.secret() else { return Ok(SecretString::default()) };
        match secret.read_for(name, TokenRequest::new(reason)).await {
            Ok((proof, _)) => Ok(proof),
            // That another source fails for good says nothing of this client.
            Err(error) if secret.source().is_some() => Err(secret::of_a_vault(error)),
            Err(error) => Err(error),
        }
    }

    /// Puts the authentication on a request, unless it has a header of its own for that, and tells the redactor the secrets in it. Called for each attempt anew. `proof` is what was [read](Self::read).
    pub(crate) async fn apply(
        &self,
        identifiers: &Identifiers,
        proof: &SecretString,
        form: &mut Form,
        headers: &mut HeaderMap,
        redactor: &mut Redactor,
    ) -> Result<(), Error> {
        let client_id = &identifiers.client_id;
        // A private key is not sent, so no server can give it back.
        if let Some((_, CLIENT_SECRET)) = self.method.secret() {
            redactor.add_basic(client_id, proof.expose_secret());
        }
        match &self.method {
            Method::Basic(_) => {
                add_basic(headers, &encoded(client_id), &encoded(proof.expose_secret()))?;
            }
            Method::BasicRaw(_) => add_basic(headers, client_id, proof.expose_secret())?,
            Method::Post(_) => {
                form.push("client_id", client_id);
                form.push("client_secret", proof.expose_secret());
            }
            #[cfg(feature = "jwt")]
            Method::Jwt(assertion) => {
                let signed = assertion.sign(identifiers, proof).await?;
                push_assertion(form, redactor, client_id, &signed);
            }
            Method::Assertion(_) => push_assertion(form, redactor, client_id, proof),
            Method::Tls | Method::None => form.push("client_id", client_id),
        }
        Ok(())
    }
}

impl From<Secret> for ClientAuth {
    fn from(secret: Secret) -> Self {
        Self::basic(secret)
    }
}

impl<T: Into<String>> From<T> for ClientAuth {
    fn from(secret: T) -> Self {
        Self::basic(secret.into())
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
    /// The name of its constructor; its rank, of which the lowest is the strongest; the names that server metadata have for it
    /// (RFC 8414 §2).
    fn row(&self) -> (&'static str, u8, &'static [&'static str]) {
        match self {
            #[cfg(feature = "jwt")]
            Self::Jwt(assertion) if assertion.algorithm.is_symmetric() => {
                ("client_secret_jwt", 2, &["client_secret_jwt"])
            }
            #[cfg(feature = "jwt")]
            Self::Jwt(_) => ("private_key_jwt", 1, &["private_key_jwt"]),
            Self::Assertion(_) => ("assertion", 1, &["private_key_jwt"]),
            Self::Tls => ("tls", 1, &["tls_client_auth", "self_signed_tls_client_auth"]),
            Self::Basic(_) => ("basic", 3, &["client_secret_basic"]),
            Self::BasicRaw(_) => ("basic_raw", 3, &["client_secret_basic"]),
            Self::Post(_) => ("post", 4, &["client_secret_post"]),
            Self::None => ("none", 5, &["none"]),
        }
    }

    /// Returns the secret, the key or the assertion that proves the client, and its name in messages.
    fn secret(&self) -> Option<(&Secret, &'static str)> {
        match self {
            Self::Basic(secret) | Self::BasicRaw(secret) | Self::Post(secret) => {
                Some((secret, CLIENT_SECRET))
            }
            #[cfg(feature = "jwt")]
            Self::Jwt(assertion) => {
                let name = if assertion.algorithm.is_symmetric() { CLIENT_SECRET } else { "signing key" };
                assertion.key().map(|key| (key, name))
            }
            Self::Assertion(assertion) => Some((assertion, "client assertion")),
            Self::Tls | Self::None => None,
        }
    }

    fn check(&self, identifiers: &Identifiers) -> Result<(), Error> {
        if self.secret().is_some_and(|(secret, name)| name == CLIENT_SECRET && secret.is_empty_value()) {
            return Err(Error::config(
                "client_secret: it is empty; give the secret, or use ClientAuth::none",
            ));
        }
        if matches!(self, Self::BasicRaw(_)) && identifiers.client_id.contains(':') {
            return Err(Error::config(
                "client_id: it has a colon, and the server would split it there (RFC 7617 §2); use ClientAuth::basic or \
                 ClientAuth::post",
            ));
        }
        #[cfg(feature = "jwt")]
        if let Self::Jwt(assertion) = self {
            return assertion.check_for_client(identifiers);
        }
        Ok(())
    }
}

// --- Helpers ---

/// The name of a client secret in messages.
const CLIENT_SECRET: &str = "client secret";

fn push_assertion(form: &mut Form, redactor: &mut Redactor, client_id: &str, assertion: &SecretString) {
    redactor.add(assertion.expose_secret());
    // RFC 7521 §4.2 leaves the id to the client; Microsoft Entra demands it.
    form.push("client_id", client_id);
    form.push("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    form.push("client_assertion", assertion.expose_secret());
}

// The lengths of texts that are secret are known before they are written: a buffer that grows leaves a copy behind that is not
// wiped.

/// Form-encodes as WHATWG does: that leaves `*-._` as they are, which servers that never decode depend on.
fn encoded(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(3 * text.len()));
    out.extend(form_urlencoded::byte_serialize(text.as_bytes()));
    out
}

fn add_basic(headers: &mut HeaderMap, user: &str, password: &str) -> Result<(), Error> {
    let pair = Zeroizing::new([user, ":", password].concat());
    let encoded = Zeroizing::new(STANDARD.encode(&*pair));
    let line = Zeroizing::new(["Basic ", &encoded].concat());
    let mut value = HeaderValue::from_str(&line)
        .map_err(|_| Error::config("the client credentials do not fit a header"))?;
    value.set_sensitive(true);
    headers.entry(AUTHORIZATION).or_insert(value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::parameters::Encoding;

    async fn applied(auth: &ClientAuth, id: &str, secret: &str) -> (Option<HeaderValue>, bytes::Bytes) {
        let (mut form, mut headers, mut redactor) =
            (Form::new(Encoding::Form), HeaderMap::new(), Redactor::default());
        let identifiers =
            Identifiers { client_id: id.into(), issuer: String::new(), token_url: SecretString::default() };
        let proof = SecretString::from(secret);
        auth.apply(&identifiers, &proof, &mut form, &mut headers, &mut redactor).await.unwrap();
        (headers.remove(AUTHORIZATION), form.into_bytes())
    }

    #[tokio::test]
    async fn every_vector_of_basic_credentials_gives_its_header() {
        let vectors = crate::vectors::read("basic_credentials");
        for vector in &vectors {
            let [id, secret] =
                ["client_id", "client_secret"].map(|name| vector["input"][name].as_str().unwrap());
            for (auth, member) in [
                (ClientAuth::basic(secret), "authorization"),
                (ClientAuth::basic_raw(secret), "raw_mode_authorization"),
            ] {
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
        let (header, body) = applied(&ClientAuth::post("p+q r%"), "a&b=c", "p+q r%").await;
        assert_eq!(header, None);
        assert_eq!(body, "client_id=a%26b%3Dc&client_secret=p%2Bq+r%25");
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
            ClientAuth::none().or(ClientAuth::post("s")).or(ClientAuth::basic_raw("s")).or(ClientAuth::tls());
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
        assert!(ClientAuth::basic("s").supported(&named(&["Client_Secret_Basic", "basic"])).is_none());
        assert_eq!(ClientAuth::basic_raw("s").or(ClientAuth::basic("s")).strongest().name(), "basic_raw");
    }

    #[test]
    fn a_public_client_is_not_held_to_what_the_server_says() {
        assert!(ClientAuth::none().supported(&["client_secret_basic".to_owned()]).is_some());
        let either = ClientAuth::none().or(ClientAuth::basic("s"));
        assert!(either.supported(&["client_secret_post".to_owned()]).is_none());
    }

    #[tokio::test]
    async fn the_header_is_sensitive() {
        let header = applied(&ClientAuth::basic("S3CR3T"), "id", "S3CR3T").await.0.unwrap();
        assert!(header.is_sensitive());
    }
}
