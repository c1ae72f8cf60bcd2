//! The parameters of a token request, and the body that carries them: wiped when the last copy is dropped.

use std::borrow::Cow;
use std::fmt;
#[cfg(feature = "jwt")]
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use crate::error::Error;
use crate::grants::client::secret::Secret;
use crate::grants::endpoint::identifiers::Identifiers;
#[cfg(feature = "jwt")]
use crate::grants::jwt::assertion::Assertion;
use crate::source::{FetchReason, SourceIdentity, TokenRequest};
use crate::text::Redactor;
use crate::token::AccessToken;

/// Name and value pairs in the order in which they are sent.
#[derive(Clone, Default)]
pub(crate) struct Parameters {
    list: Vec<Parameter>,
    headers: Vec<Parameter>,
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
    /// JSON text, for a body of JSON.
    Json(String),
    /// Read at each attempt.
    Read(Secret),
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
    pub(crate) fn push_secret(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Secret>) {
        self.add(name.into(), Value::Read(value.into()), true);
    }

    /// Adds a parameter that is an assertion, made for each attempt anew.
    #[cfg(feature = "jwt")]
    pub(crate) fn push_assertion(&mut self, name: impl Into<Cow<'static, str>>, assertion: Arc<Assertion>) {
        self.add(name.into(), Value::Assertion(assertion), true);
    }

    /// Adds a parameter that is anything, as JSON text.
    pub(crate) fn push_json(&mut self, name: String, json: String) {
        self.add(name.into(), Value::Json(json), false);
    }

    /// Adds a header.
    pub(crate) fn push_header(&mut self, name: String, value: String) {
        self.headers.push(Parameter {
            name: name.into(),
            value: Value::Fixed(value.into()),
            is_secret: false,
        });
    }

    /// Adds a header that is read at each attempt, and blanked out wherever a server repeats it: a secret as it is, or a
    /// token with its scheme.
    pub(crate) fn push_secret_header(&mut self, name: String, value: Secret) {
        self.headers.push(Parameter { name: name.into(), value: Value::Read(value), is_secret: true });
    }

    /// Returns whether one of the headers is `Authorization`.
    pub(crate) fn authorize(&self) -> bool {
        self.headers.iter().any(|header| header.name.eq_ignore_ascii_case(AUTHORIZATION.as_str()))
    }

    /// Checks what an encoding can say.
    pub(crate) fn check(&self, encoding: Encoding) -> Result<(), Error> {
        for Parameter { name, value, is_secret } in &self.list {
            let what = match value {
                Value::Json(_) if encoding != Encoding::Json => {
                    "param_json is for a body of JSON; use CustomGrant::json, or param"
                }
                Value::Json(json) if serde_json::from_str::<serde::de::IgnoredAny>(json).is_err() => {
                    "it is not JSON; quote it, or use param"
                }
                _ if *is_secret && encoding == Encoding::Query => {
                    "a secret would stand in the URL, which is logged; use secret_header"
                }
                _ => continue,
            };
            return Err(Error::config(format!("param: {name:?} is refused: {what}")));
        }
        for Parameter { name, value, is_secret } in &self.headers {
            let own = [CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING, HOST, ACCEPT_ENCODING];
            let is_valid = |value: &SecretString| HeaderValue::from_str(value.expose_secret()).is_ok();
            let is_value = !matches!(value, Value::Fixed(value) if !is_valid(value));
            let what = match HeaderName::try_from(&**name) {
                Err(_) => "it is not a valid header name",
                Ok(name) if own.contains(&name) => "the source sets it",
                Ok(_) if !is_value => "its value is none that a header may have",
                Ok(name) if name == AUTHORIZATION && !is_secret => "it is a secret; use secret_header",
                Ok(_) => continue,
            };
            return Err(Error::config(format!("header: {name:?} is refused: {what}")));
        }
        Ok(())
    }

    /// Writes the headers, and tells the redactor which values are secret.
    pub(crate) async fn write_headers(
        &self,
        identifiers: &Identifiers,
        headers: &mut HeaderMap,
        redactor: &mut Redactor,
    ) -> Result<(), Error> {
        for Parameter { name, value, is_secret } in &self.headers {
            let (text, token) = value.read(&format!("secret header {name}"), identifiers).await?;
            if *is_secret {
                redactor.add(text.expose_secret());
            }
            let value = match token {
                Some(token) => Ok(token.header_value().clone()),
                None => HeaderValue::from_str(text.expose_secret()),
            };
            let (Ok(name), Ok(mut value)) = (HeaderName::try_from(&**name), value) else {
                return Err(Error::transient(format!("the secret header {name} does not fit a header")));
            };
            value.set_sensitive(*is_secret);
            headers.insert(name, value);
        }
        Ok(())
    }

    /// Adds what all of them say, if that is known before they are read.
    pub(crate) fn describe(&self, identity: SourceIdentity) -> Option<SourceIdentity> {
        let parameters =
            self.list.iter().map(|parameter| (format!("parameter {}", parameter.name), parameter));
        let headers = self.headers.iter();
        let headers = headers.map(|header| (format!("header {}", header.name.to_ascii_lowercase()), header));
        parameters.chain(headers).try_fold(identity, |identity, (name, parameter)| match &parameter.value {
            Value::Fixed(value) => Some(identity.with(name, value.expose_secret())),
            Value::Json(json) => Some(identity.with(name, json)),
            Value::Read(value) => value.describe(&name, identity),
            #[cfg(feature = "jwt")]
            Value::Assertion(assertion) => assertion.describe(&name, identity),
        })
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
        self.headers.extend(more.headers);
    }

    /// Returns the names in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|parameter| &*parameter.name)
    }

    /// Reads and makes what there is to read and to make, writes all of them into a form, and tells the redactor which
    /// values are secret.
    pub(crate) async fn write(
        &self,
        identifiers: &Identifiers,
        form: &mut Form,
        redactor: &mut Redactor,
    ) -> Result<(), Error> {
        for Parameter { name, value, is_secret } in &self.list {
            let (text, _) = value.read(&format!("secret parameter {name}"), identifiers).await?;
            if *is_secret {
                redactor.add(text.expose_secret());
            }
            if let Value::Json(json) = value {
                form.push_json(name, json);
            } else {
                form.push(name, text.expose_secret());
            }
        }
        Ok(())
    }
}

impl Value {
    /// Reads it, or makes it. `what` is what a secret is called in messages; the token of a source comes along.
    async fn read(
        &self,
        what: &str,
        #[cfg_attr(not(feature = "jwt"), allow(unused_variables, reason = "only assertions name them"))]
        identifiers: &Identifiers,
    ) -> Result<(SecretString, Option<AccessToken>), Error> {
        match self {
            Self::Fixed(value) => Ok((value.clone(), None)),
            Self::Json(json) => Ok((json.as_str().into(), None)),
            Self::Read(secret) => secret.read_for(what, TokenRequest::new(FetchReason::Initial)).await,
            #[cfg(feature = "jwt")]
            Self::Assertion(assertion) => Ok((assertion.make(identifiers).await?, None)),
        }
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
    /// In the query of a GET, for the metadata servers of clouds.
    Query,
}

impl Encoding {
    /// Returns the media type of the body, if there is one.
    pub(crate) fn media_type(self) -> Option<&'static str> {
        match self {
            Self::Form => Some("application/x-www-form-urlencoded"),
            Self::Json => Some("application/json"),
            Self::Query => None,
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
            Encoding::Form | Encoding::Query => {
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

    /// Adds a member of JSON text, which was checked.
    pub(crate) fn push_json(&mut self, name: &str, json: &str) {
        self.make_room(6 * name.len() + json.len() + 8);
        self.separate(b',');
        self.json_encode(name);
        self.body.push(b':');
        self.body.extend_from_slice(json.as_bytes());
    }

    /// Returns the body. Its memory is wiped when the transport has dropped it.
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

    /// A buffer that grows by itself leaves a copy behind that is not wiped.
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

    fn identifiers() -> Identifiers {
        Identifiers { client_id: "id".into(), issuer: String::new(), token_url: String::new() }
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
            parameters.write(&identifiers(), &mut form, &mut redactor).await.unwrap();
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
}
