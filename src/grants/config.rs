//! A client credentials source from a configuration file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde::de::{self, Deserializer, IntoDeserializer as _, SeqAccess, Visitor};

use crate::grants::builder::GrantBuilder;
use crate::grants::client::auth::ClientAuth;
use crate::grants::client::secret::Secret;
use crate::grants::discovery::issuer::Issuer;
use crate::grants::endpoint::location::Endpoint;
use crate::grants::flows::ClientCredentials;
#[cfg(feature = "jwt")]
use crate::grants::jwt::algorithm::JwtAlgorithm;
#[cfg(feature = "jwt")]
use crate::grants::jwt::assertion::Assertion;

/// The settings of [`ClientCredentials`] as a configuration file has them.
///
/// It can be read and never written, and it takes no secret: it names the environment variable or the file where the
/// secret or the key is. An unknown field is refused, so that no misspelt one is passed over.
///
/// | field | |
/// |---|---|
/// | `token_url`, `issuer` | one of them; an [`Issuer`] is asked for its endpoint |
/// | `metadata_url` | with `issuer`: where its metadata are, if not where the standards have them |
/// | `client_id` | required |
/// | `client_auth` | `basic`, `basic_raw`, `post`, `tls` or `none`; with the feature `jwt` also `private_key_jwt` and `client_secret_jwt`. A list of several: the [strongest](ClientAuth#strength) that the server supports |
/// | `client_secret_env`, `client_secret_file` | one of them, if `client_auth` needs a secret |
/// | `signing_key_env`, `signing_key_file` | for `private_key_jwt`, one of them: PEM or JWK |
/// | `signing_algorithm` | such as `ES256`: required for `private_key_jwt`; for `client_secret_jwt` it is `HS256` if left out |
/// | `signing_key_id` | for `private_key_jwt`: the name by which the server knows the key |
/// | `signing_certificate_file` | for `private_key_jwt`: the certificate whose thumbprint names the key |
/// | `assertion_audience` | for both: whom the assertion is for; if left out, the `issuer` |
/// | `scopes`, `required_scopes`, `resources` | lists |
/// | `audience` | |
/// | `parameters` | a table of further parameters, none of them secret |
/// | `strict_bearer` | a switch |
/// | `attempt_timeout_seconds`, `first_delay_seconds`, `longest_delay_seconds` | numbers, perhaps with a fraction |
/// | `retries` | a number |
/// | `retry_statuses` | a list of numbers |
/// | `insecure_http` | a switch |
///
/// A setting that is left out has the default of the [builder](crate::grants::GrantBuilder#defaults). Values are checked when
/// the source is built.
///
/// # Examples
///
/// ```
/// use tower_oauth2::ClientCredentialsConfig;
///
/// let config: ClientCredentialsConfig = serde_json::from_str(
///     r#"{
///         "token_url": "https://login.example.com/oauth/token",
///         "client_id": "billing",
///         "client_secret_file": "/run/secrets/billing",
///         "scopes": ["analytics:read"],
///         "attempt_timeout_seconds": 2.5
///     }"#,
/// )?;
/// let builder = config.into_builder();
/// # let _ = builder;
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// A client that proves itself by a key, at an issuer that says where:
///
#[cfg_attr(feature = "jwt", doc = "```")]
#[cfg_attr(not(feature = "jwt"), doc = "```text")]
/// use tower_oauth2::ClientCredentialsConfig;
///
/// let config: ClientCredentialsConfig = serde_json::from_str(
///     r#"{
///         "issuer": "https://login.example.com",
///         "client_id": "billing",
///         "client_auth": "private_key_jwt",
///         "signing_key_file": "/run/secrets/billing.pem",
///         "signing_algorithm": "ES256"
///     }"#,
/// )?;
/// # let _ = config;
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Fields")]
pub struct ClientCredentialsConfig {
    builder: GrantBuilder<ClientCredentials>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "the settings of client credentials")]
struct Fields {
    token_url: Option<String>,
    issuer: Option<String>,
    metadata_url: Option<String>,
    client_id: String,
    #[serde(default = "basic", deserialize_with = "one_or_several")]
    client_auth: Vec<AuthName>,
    client_secret_env: Option<String>,
    client_secret_file: Option<PathBuf>,
    signing_key_env: Option<String>,
    signing_key_file: Option<PathBuf>,
    signing_algorithm: Option<String>,
    signing_key_id: Option<String>,
    signing_certificate_file: Option<PathBuf>,
    assertion_audience: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    required_scopes: Vec<String>,
    audience: Option<String>,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    parameters: BTreeMap<String, String>,
    #[serde(default)]
    strict_bearer: bool,
    attempt_timeout_seconds: Option<f64>,
    retries: Option<u32>,
    first_delay_seconds: Option<f64>,
    longest_delay_seconds: Option<f64>,
    retry_statuses: Option<Vec<u16>>,
    #[serde(default)]
    insecure_http: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AuthName {
    Basic,
    BasicRaw,
    Post,
    Tls,
    None,
    PrivateKeyJwt,
    ClientSecretJwt,
}

impl ClientCredentialsConfig {
    /// Returns a builder with these settings, for what a file cannot hold, and to be built.
    #[must_use]
    pub fn into_builder(self) -> GrantBuilder<ClientCredentials> {
        self.builder
    }
}

impl TryFrom<Fields> for ClientCredentialsConfig {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        let location = fields.location()?;
        let auth = fields.auth()?;
        let mut builder = ClientCredentials::builder(location, fields.client_id, auth)
            .scope(fields.scopes.join(" "))
            .required_scope(fields.required_scopes.join(" "))
            .strict_bearer(fields.strict_bearer)
            .insecure_http(fields.insecure_http);
        if let Some(audience) = fields.audience {
            builder = builder.audience(audience);
        }
        for resource in fields.resources {
            builder = builder.resource(resource);
        }
        for (name, value) in fields.parameters {
            builder = builder.param(name, value);
        }
        if let Some(seconds) = fields.attempt_timeout_seconds {
            builder = builder.attempt_timeout(duration("attempt_timeout_seconds", seconds)?);
        }
        if let Some(retries) = fields.retries {
            builder = builder.retries(retries);
        }
        if let Some(seconds) = fields.first_delay_seconds {
            builder = builder.min_delay(duration("first_delay_seconds", seconds)?);
        }
        if let Some(seconds) = fields.longest_delay_seconds {
            builder = builder.max_delay(duration("longest_delay_seconds", seconds)?);
        }
        if let Some(statuses) = fields.retry_statuses {
            builder =
                builder.retry_statuses(statuses.into_iter().map(status).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(Self { builder })
    }
}

// --- Fields ---

impl Fields {
    fn location(&self) -> Result<Endpoint, String> {
        match (&self.token_url, &self.issuer) {
            (Some(_), None) if self.metadata_url.is_some() => {
                Err("metadata_url has no use beside token_url; give the issuer, or remove it".into())
            }
            (Some(url), None) => Ok(url.into()),
            (None, Some(issuer)) => {
                let issuer = Issuer::new(issuer);
                Ok(match &self.metadata_url {
                    Some(url) => issuer.metadata_url(url).into(),
                    None => issuer.into(),
                })
            }
            (None, None) => Err("token_url or issuer is missing".into()),
            (Some(_), Some(_)) => Err("token_url and issuer exclude each other; keep one".into()),
        }
    }

    fn auth(&self) -> Result<ClientAuth, String> {
        let names = &self.client_auth;
        let by_key = names.contains(&AuthName::PrivateKeyJwt);
        let by_secret = names.contains(&AuthName::ClientSecretJwt);
        if by_key && by_secret {
            return Err(
                "client_auth: private_key_jwt and client_secret_jwt exclude each other; keep one".into()
            );
        }
        let needs_secret = names.iter().any(|name| name.needs_secret());
        let (secret, key) = ("one with a client secret", "private_key_jwt");
        let either = "private_key_jwt or client_secret_jwt";
        for (field, is_set, is_used, needed) in [
            ("client_secret_env", self.client_secret_env.is_some(), needs_secret, secret),
            ("client_secret_file", self.client_secret_file.is_some(), needs_secret, secret),
            ("signing_key_env", self.signing_key_env.is_some(), by_key, key),
            ("signing_key_file", self.signing_key_file.is_some(), by_key, key),
            ("signing_key_id", self.signing_key_id.is_some(), by_key, key),
            ("signing_certificate_file", self.signing_certificate_file.is_some(), by_key, key),
            ("signing_algorithm", self.signing_algorithm.is_some(), by_key || by_secret, either),
            ("assertion_audience", self.assertion_audience.is_some(), by_key || by_secret, either),
        ] {
            if is_set && !is_used {
                return Err(format!("{field} has no use unless client_auth is {needed}; remove it"));
            }
        }
        let auths = names.iter().map(|name| self.auth_by(*name));
        let joined = auths.reduce(|auth, other| Ok(auth?.or(other?)));
        joined.unwrap_or_else(|| Err("client_auth is empty; name a client authentication".into()))
    }

    fn auth_by(&self, name: AuthName) -> Result<ClientAuth, String> {
        match name {
            AuthName::Basic => self.secret().map(ClientAuth::basic),
            AuthName::BasicRaw => self.secret().map(ClientAuth::basic_raw),
            AuthName::Post => self.secret().map(ClientAuth::post),
            AuthName::Tls => Ok(ClientAuth::tls()),
            AuthName::None => Ok(ClientAuth::none()),
            #[cfg(feature = "jwt")]
            AuthName::PrivateKeyJwt => self.assertion_by_key().map(ClientAuth::private_key_jwt),
            #[cfg(feature = "jwt")]
            AuthName::ClientSecretJwt => {
                let algorithm = self.algorithm()?.unwrap_or(JwtAlgorithm::Hs256);
                let assertion = self.with_audience(Assertion::by_client_secret(algorithm));
                Ok(ClientAuth::client_secret_jwt(self.secret()?, assertion))
            }
            #[cfg(not(feature = "jwt"))]
            AuthName::PrivateKeyJwt | AuthName::ClientSecretJwt => {
                Err("client_auth: assertions need the feature `jwt` of tower-oauth2; switch it on".into())
            }
        }
    }

    fn secret(&self) -> Result<Secret, String> {
        referenced("client_secret", self.client_secret_env.clone(), self.client_secret_file.clone())?
            .ok_or_else(|| "client_secret_env or client_secret_file is missing".into())
    }

    #[cfg(feature = "jwt")]
    fn assertion_by_key(&self) -> Result<Assertion, String> {
        let key = referenced("signing_key", self.signing_key_env.clone(), self.signing_key_file.clone())?;
        let key = key.ok_or("signing_key_env or signing_key_file is missing")?;
        let algorithm = self.algorithm()?.ok_or("signing_algorithm is missing, such as ES256")?;
        let mut assertion = Assertion::by_key(algorithm, key);
        if let Some(key_id) = &self.signing_key_id {
            assertion = assertion.key_id(key_id);
        }
        if let Some(path) = &self.signing_certificate_file {
            assertion = assertion.certificate(Secret::from_file(path));
        }
        Ok(self.with_audience(assertion))
    }

    #[cfg(feature = "jwt")]
    fn with_audience(&self, assertion: Assertion) -> Assertion {
        match &self.assertion_audience {
            Some(audience) => assertion.audience(audience),
            None => assertion,
        }
    }

    #[cfg(feature = "jwt")]
    fn algorithm(&self) -> Result<Option<JwtAlgorithm>, String> {
        let parsed = self.signing_algorithm.as_deref().map(str::parse::<JwtAlgorithm>).transpose();
        parsed.map_err(|error| format!("signing_algorithm: {error}"))
    }
}

// --- AuthName ---

/// Reads one name, or a list of them.
fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<AuthName>, D::Error> {
    deserializer.deserialize_any(AuthNamesVisitor)
}

fn basic() -> Vec<AuthName> {
    vec![AuthName::Basic]
}

struct AuthNamesVisitor;

impl<'de> Visitor<'de> for AuthNamesVisitor {
    type Value = Vec<AuthName>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a client authentication, or a list of such")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Vec<AuthName>, E> {
        Ok(vec![AuthName::deserialize(name.into_deserializer())?])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<AuthName>, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = list.next_element()? {
            names.push(name);
        }
        if names.is_empty() { Err(de::Error::invalid_length(0, &self)) } else { Ok(names) }
    }
}

impl AuthName {
    fn needs_secret(self) -> bool {
        match self {
            Self::Basic | Self::BasicRaw | Self::Post | Self::ClientSecretJwt => true,
            Self::Tls | Self::None | Self::PrivateKeyJwt => false,
        }
    }
}

// --- Helpers ---

/// Where a secret is, if it is said; `name` is that of the pair of fields.
fn referenced(name: &str, variable: Option<String>, path: Option<PathBuf>) -> Result<Option<Secret>, String> {
    match (variable, path) {
        (Some(variable), None) => Ok(Some(Secret::from_env(variable))),
        (None, Some(path)) => Ok(Some(Secret::from_file(path))),
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(format!("{name}_env and {name}_file exclude each other; keep one")),
    }
}

fn duration(field: &str, seconds: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| format!("{field} is not a duration in seconds: {seconds}"))
}

fn status(code: u16) -> Result<StatusCode, String> {
    StatusCode::from_u16(code)
        .map_err(|_| format!("retry_statuses holds {code}, which is not an HTTP status"))
}

#[cfg(test)]
mod tests;
