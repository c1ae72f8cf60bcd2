//! The parameters of a token request, and the body that carries them: wiped when the last copy is dropped.

use std::borrow::Cow;
use std::fmt;
#[cfg(feature = "jwt")]
use std::sync::Arc;

use bytes::Bytes;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use crate::error::TokenError;
#[cfg(feature = "jwt")]
use crate::oauth2::jwt::assertion::Assertion;
use crate::oauth2::parties::Parties;
#[cfg(feature = "jwt")]
use crate::oauth2::secret;
use crate::oauth2::secret::ClientSecret;
use crate::text::Redactor;

/// Name and value pairs in the order in which they are sent.
#[derive(Clone, Default)]
pub(crate) struct Parameters {
    list: Vec<Parameter>,
}

#[derive(Clone)]
struct Parameter {
    name: Cow<'static, str>,
    value: Value,
    is_secret: bool,
}

#[derive(Clone)]
enum Value {
    Fixed(SecretString),
    /// Read at each attempt.
    Read(ClientSecret),
    /// Made at each attempt.
    #[cfg(feature = "jwt")]
    Assertion(Arc<Assertion>),
}

impl Parameters {
    /// Adds a parameter that may be shown in the server's descriptions.
    pub(crate) fn push(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<SecretString>) {
        self.add(name.into(), Value::Fixed(value.into()), false);
    }

    /// Adds a parameter whose value is blanked out wherever a server repeats it, and read at each attempt.
    pub(crate) fn push_secret(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<ClientSecret>) {
        self.add(name.into(), Value::Read(value.into()), true);
    }

    /// Adds a parameter that is an assertion, made for each attempt anew.
    #[cfg(feature = "jwt")]
    pub(crate) fn push_assertion(&mut self, name: impl Into<Cow<'static, str>>, assertion: Arc<Assertion>) {
        self.add(name.into(), Value::Assertion(assertion), true);
    }

    fn add(&mut self, name: Cow<'static, str>, value: Value, is_secret: bool) {
        self.list.push(Parameter { name, value, is_secret });
    }

    /// Returns the name of a secret parameter that is given as an empty value.
    pub(crate) fn empty_secret(&self) -> Option<&str> {
        let is_empty = |value: &Value| matches!(value, Value::Read(value) if value.is_empty_value());
        self.list.iter().find(|parameter| is_empty(&parameter.value)).map(|parameter| &*parameter.name)
    }

    /// Adds those of `more`.
    pub(crate) fn extend(&mut self, more: Self) {
        self.list.extend(more.list);
    }

    /// Returns the names in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|parameter| &*parameter.name)
    }

    /// Reads and makes what there is to read and to make, writes all of them into a form, and tells the redactor which
    /// values are secret.
    pub(crate) async fn write(
        &self,
        #[cfg_attr(not(feature = "jwt"), allow(unused_variables, reason = "only assertions name them"))]
        parties: &Parties,
        form: &mut Form,
        redactor: &mut Redactor,
    ) -> Result<(), TokenError> {
        for Parameter { name, value, is_secret } in &self.list {
            let value = match value {
                Value::Fixed(value) => value.clone(),
                Value::Read(value) => value.read_as(&format!("secret parameter {name}")).await?,
                #[cfg(feature = "jwt")]
                Value::Assertion(assertion) => {
                    let key = match assertion.key() {
                        Some(key) => key.read_as("signing key").await?,
                        None => SecretString::default(),
                    };
                    let may_change = assertion.key().is_some_and(ClientSecret::may_change);
                    assertion
                        .sign(parties, &key)
                        .await
                        .map_err(|error| secret::of_the_moment(error, may_change))?
                }
            };
            if *is_secret {
                redactor.add(value.expose_secret());
            }
            form.push(name, value.expose_secret());
        }
        Ok(())
    }
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

// --- Form ---

/// How a request carries its parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// `application/x-www-form-urlencoded` (RFC 6749 Appendix B; encoded as WHATWG does).
    #[default]
    Form,
    /// One JSON object of strings, for endpoints that know nothing of RFC 6749.
    Json,
}

impl Encoding {
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Form => "application/x-www-form-urlencoded",
            Self::Json => "application/json",
        }
    }
}

/// A body that is being filled in.
pub(crate) struct Form {
    encoding: Encoding,
    body: Zeroizing<Vec<u8>>,
}

impl Form {
    pub(crate) fn new(encoding: Encoding) -> Self {
        Self { encoding, body: Zeroizing::new(Vec::with_capacity(512)) }
    }

    /// Adds a field. One without a value is left out: RFC 6749 §3.2 has both mean the same.
    pub(crate) fn push(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        // Of one byte become six at most, in JSON.
        self.make_room(6 * (name.len() + value.len()) + 8);
        match self.encoding {
            Encoding::Form => {
                self.separate(b'&');
                self.form_encode(name);
                self.body.push(b'=');
                self.form_encode(value);
            }
            Encoding::Json => {
                self.separate(b',');
                self.json_encode(name);
                self.body.push(b':');
                self.json_encode(value);
            }
        }
    }

    /// Hands out the body. Its memory is wiped when the transport has dropped it.
    pub(crate) fn into_bytes(mut self) -> Bytes {
        if self.encoding == Encoding::Json {
            self.make_room(2);
            self.body.insert(0, b'{');
            self.body.push(b'}');
        }
        Bytes::from_owner(self.body)
    }

    fn separate(&mut self, by: u8) {
        if !self.body.is_empty() {
            self.body.push(by);
        }
    }

    fn form_encode(&mut self, text: &str) {
        form_urlencoded::byte_serialize(text.as_bytes())
            .for_each(|piece| self.body.extend_from_slice(piece.as_bytes()));
    }

    fn json_encode(&mut self, text: &str) {
        // A string can always be written, and memory grows where it must.
        let _ = serde_json::to_writer(&mut *self.body, text);
    }

    /// A buffer that grows by itself leaves a copy behind that nobody wipes.
    fn make_room(&mut self, more: usize) {
        if self.body.capacity() - self.body.len() >= more {
            return;
        }
        let mut larger = Zeroizing::new(Vec::with_capacity(2 * (self.body.len() + more)));
        larger.extend_from_slice(&self.body);
        self.body = larger;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parties() -> Parties {
        Parties { client_id: "id".into(), issuer: String::new(), token_url: String::new() }
    }

    #[tokio::test]
    async fn a_form_keeps_the_order_and_leaves_out_what_is_empty() {
        let mut parameters = Parameters::default();
        parameters.push("grant_type", "client_credentials");
        parameters.push("scope", "");
        parameters.push_secret("pin", "p+q r%");
        for (encoding, body) in [
            (Encoding::Form, "grant_type=client_credentials&pin=p%2Bq+r%25"),
            (Encoding::Json, r#"{"grant_type":"client_credentials","pin":"p+q r%"}"#),
        ] {
            let (mut form, mut redactor) = (Form::new(encoding), Redactor::default());
            parameters.write(&parties(), &mut form, &mut redactor).await.unwrap();
            assert_eq!(form.into_bytes(), body);
            assert!(redactor.finds("p+q r%") && !redactor.finds("client_credentials"));
        }
        assert_eq!(Form::new(Encoding::Json).into_bytes(), "{}");
    }

    #[test]
    fn json_is_escaped_in_memory_that_was_set_aside() {
        let mut form = Form::new(Encoding::Json);
        let value = "\u{1}\"\\é".repeat(1000);
        form.make_room(6 * (1 + value.len()) + 8);
        let (room, start) = (form.body.capacity(), form.body.as_ptr());
        form.push("k", &value);
        assert_eq!((form.body.capacity(), form.body.as_ptr()), (room, start));
        let read: serde_json::Value = serde_json::from_slice(&form.into_bytes()).unwrap();
        assert_eq!(read, serde_json::json!({ "k": value }));
    }

    #[test]
    fn a_form_holds_values_of_any_length() {
        let mut form = Form::new(Encoding::Form);
        form.push("a", &"é".repeat(10_000));
        form.push("b", "c");
        let body = form.into_bytes();
        assert_eq!(body.len(), 2 + 10_000 * 6 + 4);
        assert!(body.ends_with(b"%A9&b=c"));
    }

    #[test]
    fn debug_shows_names_alone() {
        let mut parameters = Parameters::default();
        parameters.push_secret("pin", "S3CR3T");
        parameters.push("org", "S3CR3T");
        assert_eq!(format!("{parameters:?}"), r#"["pin", "org"]"#);
    }

    #[test]
    fn every_vector_of_token_requests_gives_its_body() {
        let vectors = crate::vectors::read("token_request");
        for vector in &vectors {
            let mut form = Form::new(Encoding::Form);
            for pair in vector["input"]["params"].as_array().unwrap() {
                form.push(pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
            }
            assert_eq!(form.into_bytes(), vector["expect"]["body"].as_str().unwrap(), "{}", vector["id"]);
        }
        assert_eq!(vectors.len(), 16);
    }
}
