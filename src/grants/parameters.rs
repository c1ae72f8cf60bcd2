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
use serde::de::IgnoredAny;

use crate::error::Error;
use crate::grants::client::secret::Secret;
use crate::grants::endpoint::identifiers::Identifiers;
#[cfg(feature = "jwt")]
use crate::grants::jwt::assertion::Assertion;
use crate::source::{FetchReason, SourceIdentity, TokenRequest};
use crate::text::{self, Redactor};
use crate::token::AccessToken;

/// Name and value pairs in the order in which they are sent: fields of the form, and headers.
#[derive(Clone, Default)]
pub(crate) struct Parameters {
    list: Vec<Parameter>,
}

#[derive(Clone)]
struct Parameter {
    name: Cow<'static, str>,
    value: ParameterValue,
    is_header: bool,
}

#[derive(Clone)]
pub(crate) enum ParameterValue {
    /// It may be shown in the server's descriptions.
    Fixed(SecretString),
    /// JSON text, for a body of JSON.
    Json(String),
    /// Read at each attempt, and blanked out wherever a server repeats it.
    Read(Secret),
    /// Made at each attempt, and blanked out likewise.
    #[cfg(feature = "jwt")]
    Assertion(Arc<Assertion>),
}

impl Parameters {
    /// Adds a parameter that is the same in each request.
    pub(crate) fn push(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<SecretString>) {
        self.add(name, ParameterValue::Fixed(value.into()));
    }

    /// Adds a parameter that is a secret.
    pub(crate) fn push_secret(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Secret>) {
        self.add(name, ParameterValue::Read(value.into()));
    }

    /// Adds a parameter.
    pub(crate) fn add(&mut self, name: impl Into<Cow<'static, str>>, value: ParameterValue) {
        self.list.push(Parameter { name: name.into(), value, is_header: false });
    }

    /// Adds a header. A token is sent with its scheme.
    pub(crate) fn add_header(&mut self, name: impl Into<Cow<'static, str>>, value: ParameterValue) {
        self.list.push(Parameter { name: name.into(), value, is_header: true });
    }

    /// Adds a parameter in place of those of its name.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<SecretString>) {
        self.list.retain(|parameter| parameter.name != name);
        self.push(name, value);
    }

    /// Adds those of `more`.
    pub(crate) fn extend(&mut self, more: Self) {
        self.list.extend(more.list);
    }

    /// Returns the names of the fields in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().filter(|parameter| !parameter.is_header).map(|parameter| &*parameter.name)
    }

    /// Returns whether one of the headers is `Authorization`.
    pub(crate) fn authorize(&self) -> bool {
        let is_named = |parameter: &Parameter| parameter.name.eq_ignore_ascii_case(AUTHORIZATION.as_str());
        self.list.iter().any(|parameter| parameter.is_header && is_named(parameter))
    }

    /// Checks those that a grant sends by itself: each has a value.
    pub(crate) fn check_own(
        &self,
        #[cfg_attr(not(feature = "jwt"), allow(unused_variables, reason = "only assertions name them"))]
        identifiers: &Identifiers,
    ) -> Result<(), Error> {
        for Parameter { name, value, .. } in &self.list {
            match value {
                ParameterValue::Fixed(value) if value.expose_secret().is_empty() => {
                    return Err(Error::config(format!("{name}: it is empty; give its value")));
                }
                #[cfg(feature = "jwt")]
                ParameterValue::Assertion(assertion) => assertion.check_for_grant(identifiers)?,
                ParameterValue::Fixed(_) | ParameterValue::Json(_) | ParameterValue::Read(_) => {}
            }
        }
        Ok(())
    }

    /// Checks what an encoding can say.
    pub(crate) fn check(&self, encoding: Encoding) -> Result<(), Error> {
        for parameter in &self.list {
            let setting = if parameter.is_header { "header" } else { "param" };
            if let Some(flaw) = parameter.flaw(encoding) {
                return Err(Error::config(format!("{setting}: {:?} is refused: {flaw}", parameter.name)));
            }
        }
        Ok(())
    }

    /// Adds what all of them say, if that is known before they are read.
    pub(crate) fn describe(&self, identity: SourceIdentity) -> Option<SourceIdentity> {
        self.list.iter().try_fold(identity, |identity, parameter| {
            let name = parameter.label();
            match &parameter.value {
                ParameterValue::Fixed(value) => Some(identity.with(name, value.expose_secret())),
                ParameterValue::Json(json) => Some(identity.with(name, json)),
                ParameterValue::Read(value) => value.describe(&name, identity),
                #[cfg(feature = "jwt")]
                ParameterValue::Assertion(assertion) => assertion.describe(&name, identity),
            }
        })
    }

    /// Reads and makes what there is to read and to make, writes all of them into a request, and tells the redactor which
    /// values are secret.
    pub(crate) async fn write(
        &self,
        identifiers: &Identifiers,
        form: &mut Form,
        headers: &mut HeaderMap,
        redactor: &mut Redactor,
    ) -> Result<(), Error> {
        for parameter in &self.list {
            let Parameter { name, value, is_header } = parameter;
            let (text, token) = value.read(&format!("secret {}", parameter.label()), identifiers).await?;
            if value.is_secret() {
                redactor.add(text.expose_secret());
            }
            match value {
                _ if *is_header => {
                    let line = match token {
                        Some(token) => Ok(token.header_value().clone()),
                        None => HeaderValue::from_str(text.expose_secret()),
                    };
                    let (Ok(name), Ok(mut line)) = (HeaderName::try_from(&**name), line) else {
                        return Err(Error::transient(format!(
                            "the secret header {name} holds a character that no header may have, such as a line end; check \
                             where it is read from"
                        )));
                    };
                    line.set_sensitive(value.is_secret());
                    headers.insert(name, line);
                }
                ParameterValue::Json(json) => form.push_json(name, json),
                _ => form.push(name, text.expose_secret()),
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

// --- Parameter ---

impl Parameter {
    /// Its name with what it is.
    fn label(&self) -> String {
        if self.is_header {
            format!("header {}", self.name.to_ascii_lowercase())
        } else {
            format!("parameter {}", self.name)
        }
    }

    /// Returns what is wrong with it.
    fn flaw(&self, encoding: Encoding) -> Option<&'static str> {
        match &self.value {
            _ if self.is_header => self.flaw_of_header(),
            ParameterValue::Read(secret) if secret.is_empty_value() => {
                Some("it is empty; give its value, or leave it out")
            }
            ParameterValue::Json(_) if encoding != Encoding::Json => {
                Some("param_json is for a body of JSON; use CustomGrant::json, or param")
            }
            ParameterValue::Json(json) if serde_json::from_str::<IgnoredAny>(json).is_err() => {
                Some("it is not JSON; quote it, or use param")
            }
            value if value.is_secret() && encoding == Encoding::Query => {
                Some("a secret would stand in the URL, which is logged; use secret_header")
            }
            _ => None,
        }
    }

    fn flaw_of_header(&self) -> Option<&'static str> {
        let own = [CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING, HOST, ACCEPT_ENCODING];
        let fits = |value: &str| HeaderValue::from_str(value).is_ok();
        match (HeaderName::try_from(&*self.name), &self.value) {
            (Err(_), _) => Some("it is not a valid header name"),
            (Ok(name), _) if own.contains(&name) => Some("the source sets it"),
            (Ok(_), ParameterValue::Fixed(value)) if !fits(value.expose_secret()) => {
                Some("its value is none that a header may have")
            }
            (Ok(_), ParameterValue::Read(secret)) if secret.is_empty_value() => {
                Some("it is empty; give its value, or leave it out")
            }
            (Ok(_), ParameterValue::Read(secret))
                if secret.value().is_some_and(|value| !fits(text::trimmed(value.expose_secret()))) =>
            {
                Some("its value is none that a header may have")
            }
            (Ok(AUTHORIZATION), value) if !value.is_secret() => Some("it is a secret; use secret_header"),
            (Ok(_), _) => None,
        }
    }
}

impl ParameterValue {
    fn is_secret(&self) -> bool {
        !matches!(self, Self::Fixed(_) | Self::Json(_))
    }

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

/// A body that is being filled in. Its fields are encoded in memory that does not grow: a buffer that does leaves a copy behind
/// that is not wiped.
pub(crate) struct Form {
    encoding: Encoding,
    fields: Vec<Zeroizing<String>>,
}

impl Form {
    pub(crate) fn new(encoding: Encoding) -> Self {
        Self { encoding, fields: Vec::new() }
    }

    /// Adds a field. One without a value is left out: RFC 6749 §3.2 has both mean the same.
    pub(crate) fn push(&mut self, name: &str, value: &str) {
        match self.encoding {
            _ if value.is_empty() => {}
            Encoding::Form | Encoding::Query => {
                let mut field = Zeroizing::new(String::with_capacity(3 * (name.len() + value.len()) + 1));
                form_urlencoded::Serializer::new(&mut *field).append_pair(name, value);
                self.fields.push(field);
            }
            Encoding::Json => self.push_json(name, &json(value)),
        }
    }

    /// Adds a member of JSON text, which was checked.
    pub(crate) fn push_json(&mut self, name: &str, text: &str) {
        self.fields.push(Zeroizing::new([&json(name), ":", text].concat()));
    }

    /// Returns the body. Its memory is wiped when the transport has dropped it.
    pub(crate) fn into_bytes(self) -> Bytes {
        let fields: Vec<&str> = self.fields.iter().map(|field| field.as_str()).collect();
        match self.encoding {
            Encoding::Form | Encoding::Query => Bytes::from_owner(Zeroizing::new(fields.join("&"))),
            Encoding::Json => {
                let members = Zeroizing::new(fields.join(","));
                Bytes::from_owner(Zeroizing::new(["{", &members, "}"].concat()))
            }
        }
    }
}

/// Writes a string as JSON.
fn json(text: &str) -> Zeroizing<String> {
    // Of one byte become six at most. A string can always be written, and is UTF-8 then.
    let mut written = Vec::with_capacity(6 * text.len() + 2);
    let _ = serde_json::to_writer(&mut written, text);
    Zeroizing::new(String::from_utf8(written).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identifiers() -> Identifiers {
        Identifiers { client_id: "id".into(), issuer: String::new(), token_url: SecretString::default() }
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
            let (mut form, mut headers, mut redactor) =
                (Form::new(encoding), HeaderMap::new(), Redactor::default());
            parameters.write(&identifiers(), &mut form, &mut headers, &mut redactor).await.unwrap();
            assert_eq!(form.into_bytes(), body);
            assert!(redactor.finds("p+q r%") && !redactor.finds("client_credentials"));
        }
        assert_eq!(Form::new(Encoding::Json).into_bytes(), "{}");
    }

    #[test]
    fn json_is_escaped_whatever_is_in_it() {
        let mut form = Form::new(Encoding::Json);
        let value = "\u{1}\"\\é".repeat(1000);
        form.push("k", &value);
        form.push_json("j", "[7]");
        let read: serde_json::Value = serde_json::from_slice(&form.into_bytes()).unwrap();
        assert_eq!(read, serde_json::json!({ "k": value, "j": [7] }));
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
