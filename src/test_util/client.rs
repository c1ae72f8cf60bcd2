//! The clients that an authorization server knows, and how it makes sure that it is them (RFC 6749 §2.3).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, header};

use super::assertions::Assertions;

/// Tells whether the signature of a JWT holds.
pub(super) type Verifier = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// A client that a [`FakeAuthorizationServer`](super::FakeAuthorizationServer) knows.
#[derive(Clone)]
pub struct FakeClient {
    id: String,
    secret: Option<String>,
    /// Whose assertions prove that it is the client.
    verifies: Option<Verifier>,
    /// Whom its platform's tokens speak of.
    workload: Option<String>,
    client_credentials: bool,
    scopes: Vec<String>,
}

impl FakeClient {
    /// Creates a client with a secret, which it may send by Basic or in the body.
    pub fn confidential(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { secret: Some(secret.into()), client_credentials: true, ..Self::public(id) }
    }

    /// Creates a client that proves itself by assertions (`private_key_jwt`, RFC 7523). `verifies` is given each of them
    /// and tells whether it is signed by the client's key; all else, from audience to `jti`, the server looks at itself.
    pub fn by_assertion(
        id: impl Into<String>,
        verifies: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { verifies: Some(Arc::new(verifies)), client_credentials: true, ..Self::public(id) }
    }

    /// Creates a client without a secret, which gives the tokens of its platform for those of the server. `subject` is
    /// whom they speak of.
    pub fn workload(id: impl Into<String>, subject: impl Into<String>) -> Self {
        Self { workload: Some(subject.into()), ..Self::public(id) }
    }

    /// Creates a client without a secret. It may use refresh tokens, but no client credentials: it has none.
    pub fn public(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            secret: None,
            verifies: None,
            workload: None,
            client_credentials: false,
            scopes: Vec::new(),
        }
    }

    /// Creates a client without a secret that is known by other means, such as its network, and may get tokens by its
    /// name alone.
    pub fn trusted(id: impl Into<String>) -> Self {
        Self { client_credentials: true, ..Self::public(id) }
    }

    /// Sets the scopes that the client may have, separated by spaces. Default: none.
    #[must_use]
    pub fn scopes(mut self, scopes: &str) -> Self {
        self.scopes = scopes.split_whitespace().map(str::to_owned).collect();
        self
    }

    /// Returns the name by which the server knows it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns whether the platform's tokens for `subject` are this client's.
    pub(super) fn is_workload(&self, subject: &serde_json::Value) -> bool {
        self.workload.as_ref().is_some_and(|workload| subject == workload)
    }

    pub(super) fn may_use_client_credentials(&self) -> bool {
        self.client_credentials
    }

    /// Returns the scopes to grant: those asked for, or all; `None` if one was asked for that the client may not have.
    pub(super) fn grant(&self, asked: Option<&str>) -> Option<Vec<String>> {
        let Some(asked) = asked else { return Some(self.scopes.clone()) };
        let asked: Vec<String> = asked.split_whitespace().map(str::to_owned).collect();
        asked.iter().all(|scope| self.scopes.contains(scope)).then_some(asked)
    }
}

impl fmt::Debug for FakeClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeClient").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why a client was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The request names two ways of authentication, or none that can be read.
    Malformed,
    /// No client of that name, or not that secret.
    Unknown {
        /// It came by Basic, so the response carries a challenge.
        by_basic: bool,
    },
}

/// Finds out which client sent a request: by Basic, by the body, by an assertion, or, without a
/// secret, by its name.
pub(super) fn authenticate<'a>(
    clients: &'a HashMap<String, FakeClient>,
    headers: &HeaderMap,
    form: &HashMap<String, String>,
    assertions: &Assertions,
) -> Result<&'a FakeClient, Refusal> {
    let in_body = form.get("client_secret");
    if let Some(assertion) = form.get("client_assertion") {
        if in_body.is_some() || headers.contains_key(header::AUTHORIZATION) {
            return Err(Refusal::Malformed);
        }
        return by_assertion(clients, form, assertion, assertions);
    }
    let (id, secret, by_basic) = match headers.get(header::AUTHORIZATION) {
        Some(_) if in_body.is_some() => return Err(Refusal::Malformed),
        Some(value) => {
            let (id, secret) = read_basic(value.as_bytes()).ok_or(Refusal::Unknown { by_basic: true })?;
            (id, Some(secret), true)
        }
        None => {
            let id = form.get("client_id").ok_or(Refusal::Malformed)?;
            (id.clone(), in_body.cloned(), false)
        }
    };
    let unknown = Refusal::Unknown { by_basic };
    // Whoever has a key proves it.
    let client = clients.get(&id).filter(|client| client.verifies.is_none()).ok_or(unknown)?;
    if secret == client.secret { Ok(client) } else { Err(unknown) }
}

/// RFC 7523 §2.2.
fn by_assertion<'a>(
    clients: &'a HashMap<String, FakeClient>,
    form: &HashMap<String, String>,
    assertion: &str,
    assertions: &Assertions,
) -> Result<&'a FakeClient, Refusal> {
    let is_jwt = form
        .get("client_assertion_type")
        .is_some_and(|kind| kind == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    let id = form.get("client_id").filter(|_| is_jwt).ok_or(Refusal::Malformed)?;
    let proven = |client: &&FakeClient| {
        client.verifies.as_ref().is_some_and(|verifies| assertions.prove(assertion, id, verifies))
    };
    clients.get(id).filter(proven).ok_or(Refusal::Unknown { by_basic: false })
}

/// Reads `Basic`: both halves were form-encoded before they were joined (RFC 6749 §2.3.1).
fn read_basic(value: &[u8]) -> Option<(String, String)> {
    let (scheme, encoded) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    Some((form_decode(id)?, form_decode(secret)?))
}

fn form_decode(text: &str) -> Option<String> {
    // What was encoded holds neither of these; a raw `&` would otherwise cut the text short.
    if text.contains(['&', '=']) {
        return None;
    }
    Some(
        form_urlencoded::parse(text.as_bytes()).next().map(|(text, _)| text.into_owned()).unwrap_or_default(),
    )
}
