//! The clients that an authorization server knows, and how it makes sure that it is them (RFC 6749 §2.3).

use std::collections::HashMap;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};

/// A client that an authorization server knows.
#[derive(Clone, Debug)]
pub struct Client {
    id: String,
    /// The digest of the secret: comparing digests takes as long for a near miss as for a wide one.
    secret: Option<[u8; 32]>,
    client_credentials: bool,
    scopes: Vec<String>,
}

impl Client {
    /// Creates a client with a secret, which it may send by Basic or in the body.
    pub fn confidential(id: impl Into<String>, secret: &str) -> Self {
        let secret = Some(Sha256::digest(secret).into());
        Self { id: id.into(), secret, client_credentials: true, scopes: Vec::new() }
    }

    /// Creates a client without a secret. It may use refresh tokens, but no client credentials: it has none.
    pub fn public(id: impl Into<String>) -> Self {
        Self { id: id.into(), secret: None, client_credentials: false, scopes: Vec::new() }
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

    pub fn id(&self) -> &str {
        &self.id
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

/// Why a client was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The request names two ways of authentication, or none that can be read.
    Malformed,
    /// Nobody of that name, or not that secret.
    Unknown {
        /// It came by Basic, so the answer carries a challenge.
        by_basic: bool,
    },
}

/// Finds out which client sent a request: by Basic, by the body, or, without a secret, by its name.
pub(super) fn authenticate<'a>(
    clients: &'a HashMap<String, Client>,
    headers: &HeaderMap,
    form: &HashMap<String, String>,
) -> Result<&'a Client, Refusal> {
    let in_body = form.get("client_secret");
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
    let client = clients.get(&id).ok_or(Refusal::Unknown { by_basic })?;
    let digest: Option<[u8; 32]> = secret.map(|secret| Sha256::digest(secret).into());
    if digest == client.secret { Ok(client) } else { Err(Refusal::Unknown { by_basic }) }
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
