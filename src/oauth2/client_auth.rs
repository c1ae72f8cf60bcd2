//! Client authentication: how a client proves itself to the token endpoint (RFC 6749 §2.3).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use crate::error::TokenError;
use crate::oauth2::parameters::Form;

/// How a client authenticates at the token endpoint.
///
/// A request carries one kind of authentication and never two (RFC 6749 §2.3), and none of it stands in the URL.
///
/// Default: [`basic`](Self::basic), the one that every authorization server must support.
#[derive(Clone, Debug)]
pub struct ClientAuth {
    method: Method,
}

#[derive(Clone, Copy, Debug)]
enum Method {
    Basic,
    BasicRaw,
    Post,
    None,
}

/// What an authentication is made of, at one attempt.
pub(crate) struct Credentials<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) secret: &'a SecretString,
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

    /// The id alone, as a field of the form: for public clients (RFC 6749 §3.2.1), and for those that the transport
    /// authenticates by a certificate (RFC 8705 §2).
    #[must_use]
    pub const fn none() -> Self {
        Self { method: Method::None }
    }

    /// Returns whether a client secret is sent.
    pub(crate) fn wants_secret(&self) -> bool {
        match self.method {
            Method::Basic | Method::BasicRaw | Method::Post => true,
            Method::None => false,
        }
    }

    /// Returns the name as server metadata have it (RFC 8414 §2), for messages.
    pub(crate) fn name(&self) -> &'static str {
        match self.method {
            Method::Basic => "basic",
            Method::BasicRaw => "basic_raw",
            Method::Post => "post",
            Method::None => "none",
        }
    }

    /// Puts the authentication on a request. Called for each attempt anew.
    pub(crate) fn apply(
        &self,
        credentials: &Credentials<'_>,
        form: &mut Form,
        headers: &mut HeaderMap,
    ) -> Result<(), TokenError> {
        let Credentials { client_id, secret } = credentials;
        let secret = secret.expose_secret();
        match self.method {
            Method::Basic => {
                headers.insert(AUTHORIZATION, basic_header(&encoded(client_id), &encoded(secret))?);
            }
            Method::BasicRaw => {
                headers.insert(AUTHORIZATION, basic_header(client_id, secret)?);
            }
            Method::Post => {
                form.push("client_id", client_id);
                form.push("client_secret", secret);
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

    fn applied(auth: &ClientAuth, id: &str, secret: &str) -> (Option<HeaderValue>, bytes::Bytes) {
        let (mut form, mut headers) = (Form::new(), HeaderMap::new());
        let secret = SecretString::from(secret);
        auth.apply(&Credentials { client_id: id, secret: &secret }, &mut form, &mut headers).unwrap();
        (headers.remove(AUTHORIZATION), form.into_bytes())
    }

    #[test]
    fn every_vector_of_basic_credentials_gives_its_header() {
        let vectors = crate::vectors::read("basic_credentials");
        for vector in &vectors {
            let [id, secret] =
                ["client_id", "client_secret"].map(|name| vector["input"][name].as_str().unwrap());
            for (auth, member) in
                [(ClientAuth::basic(), "authorization"), (ClientAuth::basic_raw(), "raw_mode_authorization")]
            {
                let (header, body) = applied(&auth, id, secret);
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

    #[test]
    fn post_sends_both_in_the_form_and_no_header() {
        let (header, body) = applied(&ClientAuth::post(), "a&b=c", "p+q r%");
        assert_eq!(header, None);
        assert_eq!(body, "client_id=a%26b%3Dc&client_secret=p%2Bq+r%25");
        assert_eq!(applied(&ClientAuth::post(), "public", "").1, "client_id=public");
    }

    #[test]
    fn none_sends_the_id_alone() {
        let (header, body) = applied(&ClientAuth::none(), "s6BhdRkqt3", "S3CR3T");
        assert_eq!((header, &body[..]), (None, &b"client_id=s6BhdRkqt3"[..]));
    }

    #[test]
    fn the_header_is_sensitive() {
        let header = applied(&ClientAuth::basic(), "id", "S3CR3T").0.unwrap();
        assert!(header.is_sensitive());
    }
}
