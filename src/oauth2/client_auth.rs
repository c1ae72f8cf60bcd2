//! Client authentication: how a client proves itself to the token endpoint (RFC 6749 §2.3).

use std::fmt::Write as _;
#[cfg(feature = "jwt")]
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use crate::error::TokenError;
#[cfg(feature = "jwt")]
use crate::oauth2::jwt::assertion::Assertion;
use crate::oauth2::parameters::Form;
use crate::oauth2::parties::Parties;
use crate::oauth2::secret::ClientSecret;
use crate::text::Redactor;

/// How a client authenticates at the token endpoint.
///
/// A request carries one kind of authentication and never two (RFC 6749 §2.3), and none of it stands in the URL.
///
/// Default: [`basic`](Self::basic), the one that every authorization server must support.
#[derive(Clone, Debug)]
pub struct ClientAuth {
    method: Method,
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
    None,
}

impl ClientAuth {
    /// HTTP Basic as RFC 6749 §2.3.1 has it: id and secret are form-encoded first. Also known as
    /// `client_secret_basic`.
    #[must_use]
    pub const fn basic() -> Self {
        Self { method: Method::Basic }
    }

    /// HTTP Basic without the form-encoding, for servers that do not decode. It differs from [`basic`](Self::basic) only
    /// if the id or the secret holds other characters than letters, digits and `*-._`.
    #[must_use]
    pub const fn basic_raw() -> Self {
        Self { method: Method::BasicRaw }
    }

    /// Id and secret as fields of the form. Also known as `client_secret_post`.
    #[must_use]
    pub const fn post() -> Self {
        Self { method: Method::Post }
    }

    /// An assertion that a private key signs (RFC 7523 §2.2, OpenID Connect Core §9). It goes with
    /// [`ClientSecret::none`]: a client that has a key needs no secret.
    ///
    /// A [`SigningKey`](crate::oauth2::jwt::SigningKey) alone is an assertion with the
    /// [defaults](Assertion#defaults).
    #[cfg(feature = "jwt")]
    #[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
    #[must_use]
    pub fn private_key_jwt(assertion: impl Into<Assertion>) -> Self {
        Self { method: Method::PrivateKeyJwt(Arc::new(assertion.into())) }
    }

    /// An assertion that the client secret signs (OpenID Connect Core §9), so that the secret itself is not sent:
    /// made by [`Assertion::by_client_secret`].
    #[cfg(feature = "jwt")]
    #[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
    #[must_use]
    pub fn client_secret_jwt(assertion: Assertion) -> Self {
        Self { method: Method::ClientSecretJwt(Arc::new(assertion)) }
    }

    /// The id alone, as a field of the form: for public clients (RFC 6749 §3.2.1), and for those that the transport
    /// authenticates by a certificate (RFC 8705 §2).
    #[must_use]
    pub const fn none() -> Self {
        Self { method: Method::None }
    }

    /// Returns whether there must be a client secret.
    pub(crate) fn wants_secret(&self) -> bool {
        match self.method {
            Method::Basic | Method::BasicRaw | Method::Post => true,
            #[cfg(feature = "jwt")]
            Method::ClientSecretJwt(_) => true,
            #[cfg(feature = "jwt")]
            Method::PrivateKeyJwt(_) => false,
            Method::None => false,
        }
    }

    /// Returns whether the client proves itself by an assertion.
    pub(crate) fn is_assertion(&self) -> bool {
        match self.method {
            Method::Basic | Method::BasicRaw | Method::Post | Method::None => false,
            #[cfg(feature = "jwt")]
            Method::PrivateKeyJwt(_) | Method::ClientSecretJwt(_) => true,
        }
    }

    /// Returns the name as server metadata have it (RFC 8414 §2), for messages.
    pub(crate) fn name(&self) -> &'static str {
        match self.method {
            Method::Basic => "basic",
            Method::BasicRaw => "basic_raw",
            Method::Post => "post",
            #[cfg(feature = "jwt")]
            Method::PrivateKeyJwt(_) => "private_key_jwt",
            #[cfg(feature = "jwt")]
            Method::ClientSecretJwt(_) => "client_secret_jwt",
            Method::None => "none",
        }
    }

    /// Checks what can be checked before the first attempt.
    #[cfg(feature = "jwt")]
    pub(crate) fn check(&self, parties: &Parties) -> Result<(), TokenError> {
        match &self.method {
            Method::Basic | Method::BasicRaw | Method::Post | Method::None => Ok(()),
            Method::PrivateKeyJwt(assertion) if assertion.wants_client_secret() => Err(TokenError::config(
                "assertion: the client secret signs it, which is not private_key_jwt; use ClientAuth::client_secret_jwt, or a \
                 key",
            )),
            Method::ClientSecretJwt(assertion) if !assertion.wants_client_secret() => {
                Err(TokenError::config(
                    "assertion: no client secret signs it; use ClientAuth::private_key_jwt, or Assertion::by_client_secret",
                ))
            }
            Method::PrivateKeyJwt(assertion) | Method::ClientSecretJwt(assertion) => {
                assertion.check_for_client(parties)
            }
        }
    }

    /// Returns what the proof is made of: the client's secret, or its key.
    pub(crate) fn proof<'a>(&'a self, secret: &'a ClientSecret) -> Proof<'a> {
        match &self.method {
            Method::Basic | Method::BasicRaw | Method::Post | Method::None => Proof::Secret(secret),
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
        parties: &Parties,
        proof: &SecretString,
        request: Unauthenticated<'_>,
    ) -> Result<(), TokenError> {
        let Unauthenticated { form, headers, redactor } = request;
        let client_id = &parties.client_id;
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
                let assertion = assertion.sign(parties, proof).await?;
                redactor.add(assertion.expose_secret());
                // RFC 7521 §4.2 leaves the id to the client; Microsoft Entra demands it.
                form.push("client_id", client_id);
                form.push("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
                form.push("client_assertion", assertion.expose_secret());
            }
            Method::None => form.push("client_id", client_id),
        }
        Ok(())
    }
}

impl Default for ClientAuth {
    fn default() -> Self {
        Self::basic()
    }
}

// --- Proof ---

/// Where that is by which a client proves itself.
#[derive(Clone, Copy)]
pub(crate) enum Proof<'a> {
    Secret(&'a ClientSecret),
    #[cfg(feature = "jwt")]
    Key(&'a ClientSecret),
    /// A signer has it, and keeps it.
    #[cfg(feature = "jwt")]
    Elsewhere,
}

impl Proof<'_> {
    /// Reads it; an empty one if there is none.
    pub(crate) async fn read(self) -> Result<SecretString, TokenError> {
        match self {
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
            #[cfg(feature = "jwt")]
            Self::Key(key) => key.may_change(),
            #[cfg(feature = "jwt")]
            Self::Elsewhere => false,
        }
    }
}

// --- Unauthenticated ---

/// A request that nobody vouches for yet, and who must know the secrets that it gets.
pub(crate) struct Unauthenticated<'a> {
    pub(crate) form: &'a mut Form,
    pub(crate) headers: &'a mut HeaderMap,
    pub(crate) redactor: &'a mut Redactor,
}

/// Form-encodes as WHATWG does: that leaves `*-._` as they are, which servers that never decode depend on.
fn encoded(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(3 * text.len()));
    out.extend(form_urlencoded::byte_serialize(text.as_bytes()));
    out
}

fn basic_header(user: &str, password: &str) -> Result<HeaderValue, TokenError> {
    let mut pair = Zeroizing::new(String::with_capacity(user.len() + password.len() + 1));
    let mut line = Zeroizing::new(String::with_capacity(6 + (user.len() + password.len() + 3) / 3 * 4 + 4));
    // Writing into a string cannot fail.
    let _ = write!(pair, "{user}:{password}");
    line.push_str("Basic ");
    STANDARD.encode_string(pair.as_bytes(), &mut line);
    let mut value = HeaderValue::from_str(&line)
        .map_err(|_| TokenError::config("the client credentials do not fit a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth2::parameters::Encoding;

    async fn applied(auth: &ClientAuth, id: &str, secret: &str) -> (Option<HeaderValue>, bytes::Bytes) {
        let (mut form, mut headers, mut redactor) =
            (Form::new(Encoding::Form), HeaderMap::new(), Redactor::default());
        let parties = Parties { client_id: id.into(), issuer: String::new(), token_url: String::new() };
        let request = Unauthenticated { form: &mut form, headers: &mut headers, redactor: &mut redactor };
        auth.apply(&parties, &SecretString::from(secret), request).await.unwrap();
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
    async fn none_sends_the_id_alone() {
        let (header, body) = applied(&ClientAuth::none(), "s6BhdRkqt3", "S3CR3T").await;
        assert_eq!((header, &body[..]), (None, &b"client_id=s6BhdRkqt3"[..]));
    }

    #[tokio::test]
    async fn the_header_is_sensitive() {
        let header = applied(&ClientAuth::basic(), "id", "S3CR3T").await.0.unwrap();
        assert!(header.is_sensitive());
    }
}
