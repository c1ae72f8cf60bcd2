//! The parameters of a token request, and the form that carries them: wiped when the last copy is dropped.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use crate::text::Redactor;

/// Name and value pairs in the order in which they are sent.
#[derive(Clone, Default)]
pub(crate) struct Parameters {
    list: Vec<Parameter>,
}

#[derive(Clone)]
struct Parameter {
    name: Cow<'static, str>,
    value: SecretString,
    is_secret: bool,
}

impl Parameters {
    /// Adds a parameter that may be shown in the server's descriptions.
    pub(crate) fn push(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<SecretString>) {
        self.list.push(Parameter { name: name.into(), value: value.into(), is_secret: false });
    }

    /// Adds a parameter whose value is blanked out wherever a server repeats it.
    pub(crate) fn push_secret(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<SecretString>) {
        self.list.push(Parameter { name: name.into(), value: value.into(), is_secret: true });
    }

    /// Adds those of `more`.
    pub(crate) fn extend(&mut self, more: Self) {
        self.list.extend(more.list);
    }

    /// Returns the names in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|parameter| &*parameter.name)
    }

    /// Writes them into a form.
    pub(crate) fn write(&self, form: &mut Form) {
        for parameter in &self.list {
            form.push(&parameter.name, parameter.value.expose_secret());
        }
    }

    /// Tells the redactor which values are secret.
    pub(crate) fn teach(&self, redactor: &mut Redactor) {
        for parameter in self.list.iter().filter(|parameter| parameter.is_secret) {
            redactor.add(parameter.value.expose_secret());
        }
    }
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

// --- Form ---

/// A body of `application/x-www-form-urlencoded` (RFC 6749 Appendix B; encoded as WHATWG does).
pub(crate) struct Form {
    body: Zeroizing<String>,
}

impl Form {
    pub(crate) fn new() -> Self {
        Self { body: Zeroizing::new(String::with_capacity(512)) }
    }

    /// Adds a field. One without a value is left out: RFC 6749 §3.2 has both mean the same.
    pub(crate) fn push(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        self.make_room(3 * (name.len() + value.len()) + 2);
        if !self.body.is_empty() {
            self.body.push('&');
        }
        self.body.extend(form_urlencoded::byte_serialize(name.as_bytes()));
        self.body.push('=');
        self.body.extend(form_urlencoded::byte_serialize(value.as_bytes()));
    }

    /// Hands out the body. Its memory is wiped when the transport has dropped it.
    pub(crate) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self.body)
    }

    /// A `String` that grows by itself leaves a copy behind that nobody wipes.
    fn make_room(&mut self, more: usize) {
        if self.body.capacity() - self.body.len() >= more {
            return;
        }
        let mut larger = Zeroizing::new(String::with_capacity(2 * (self.body.len() + more)));
        larger.push_str(&self.body);
        self.body = larger;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_keeps_the_order_and_leaves_out_what_is_empty() {
        let mut parameters = Parameters::default();
        parameters.push("grant_type", "client_credentials");
        parameters.push("scope", "");
        parameters.push_secret("pin", "p+q r%");
        let mut form = Form::new();
        parameters.write(&mut form);
        assert_eq!(form.into_bytes(), "grant_type=client_credentials&pin=p%2Bq+r%25");
    }

    #[test]
    fn a_form_holds_values_of_any_length() {
        let mut form = Form::new();
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
            let mut form = Form::new();
            for pair in vector["input"]["params"].as_array().unwrap() {
                form.push(pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
            }
            assert_eq!(form.into_bytes(), vector["expect"]["body"].as_str().unwrap(), "{}", vector["id"]);
        }
        assert_eq!(vectors.len(), 16);
    }
}
