//! A client credentials source from a configuration file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

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
#[serde(try_from = "ConfigFields")]
pub struct ClientCredentialsConfig {
    builder: GrantBuilder<ClientCredentials>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "the settings of client credentials")]
struct ConfigFields {
    token_url: Option<String>,
    issuer: Option<String>,
    metadata_url: Option<String>,
    client_id: String,
    client_auth: Option<AuthNames>,
    client_secret_env: Option<String>,
    client_secret_file: Option<PathBuf>,
    signing_key_env: Option<String>,
    signing_key_file: Option<PathBuf>,
    signing_algorithm: Option<String>,
    signing_key_id: Option<String>,
    signing_certificate_file: Option<PathBuf>,
    assertion_audience: Option<String>,
    scopes: Vec<String>,
    required_scopes: Vec<String>,
    audience: Option<String>,
    resources: Vec<String>,
    parameters: BTreeMap<String, String>,
    strict_bearer: bool,
    attempt_timeout_seconds: Option<f64>,
    retries: Option<u32>,
    first_delay_seconds: Option<f64>,
    longest_delay_seconds: Option<f64>,
    insecure_http: bool,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "client_auth: a client authentication, or a list of such")]
enum AuthNames {
    One(String),
    Several(Vec<String>),
}

impl ClientCredentialsConfig {
    /// Returns a builder with these settings, for what a file cannot hold, and to be built.
    pub fn into_builder(self) -> GrantBuilder<ClientCredentials> {
        self.builder
    }
}

impl TryFrom<ConfigFields> for ClientCredentialsConfig {
    type Error = String;

    fn try_from(fields: ConfigFields) -> Result<Self, String> {
        let attempt_timeout = duration("attempt_timeout_seconds", fields.attempt_timeout_seconds)?;
        let min_delay = duration("first_delay_seconds", fields.first_delay_seconds)?;
        let max_delay = duration("longest_delay_seconds", fields.longest_delay_seconds)?;
        let builder = ClientCredentials::builder(fields.location()?, &fields.client_id, fields.auth()?)
            .scope(fields.scopes.join(" "))
            .required_scope(fields.required_scopes.join(" "))
            .strict_bearer(fields.strict_bearer)
            .insecure_http(fields.insecure_http);
        let builder = fields.audience.into_iter().fold(builder, GrantBuilder::audience);
        let builder = fields.resources.into_iter().fold(builder, GrantBuilder::resource);
        let builder =
            fields.parameters.into_iter().fold(builder, |builder, (name, value)| builder.param(name, value));
        let builder = attempt_timeout.into_iter().fold(builder, GrantBuilder::attempt_timeout);
        let builder = fields.retries.into_iter().fold(builder, GrantBuilder::retries);
        let builder = min_delay.into_iter().fold(builder, GrantBuilder::min_delay);
        let builder = max_delay.into_iter().fold(builder, GrantBuilder::max_delay);
        Ok(Self { builder })
    }
}

// --- ConfigFields ---

impl ConfigFields {
    fn location(&self) -> Result<Endpoint, String> {
        match (&self.token_url, &self.issuer) {
            (Some(_), None) if self.metadata_url.is_some() => {
                Err("metadata_url has no use beside token_url; give the issuer, or remove it".into())
            }
            (Some(url), None) => Ok(url.into()),
            (None, Some(issuer)) => {
                Ok(self.metadata_url.iter().fold(Issuer::new(issuer), Issuer::metadata_url).into())
            }
            (None, None) => Err("token_url or issuer is missing".into()),
            (Some(_), Some(_)) => Err("token_url and issuer exclude each other; keep one".into()),
        }
    }

    fn auth(&self) -> Result<ClientAuth, String> {
        const BY_SECRET: &[&str] = &["basic", "basic_raw", "post", "client_secret_jwt"];
        const BY_KEY: &[&str] = &["private_key_jwt"];
        const BY_ASSERTION: &[&str] = &["private_key_jwt", "client_secret_jwt"];
        let names = match &self.client_auth {
            None => vec!["basic"],
            Some(AuthNames::One(name)) => vec![name.as_str()],
            Some(AuthNames::Several(names)) => names.iter().map(String::as_str).collect(),
        };
        if BY_ASSERTION.iter().all(|name| names.contains(name)) {
            return Err(
                "client_auth: private_key_jwt and client_secret_jwt exclude each other; keep one".into()
            );
        }
        let auths = names.iter().map(|name| self.auth_by(name));
        let joined = auths.reduce(|auth, other| Ok(auth?.or(other?))).unwrap_or_else(|| {
            Err("client_auth is empty; name a client authentication, or a list of such".into())
        })?;
        for (field, is_set, users) in [
            ("client_secret_env", self.client_secret_env.is_some(), BY_SECRET),
            ("client_secret_file", self.client_secret_file.is_some(), BY_SECRET),
            ("signing_key_env", self.signing_key_env.is_some(), BY_KEY),
            ("signing_key_file", self.signing_key_file.is_some(), BY_KEY),
            ("signing_key_id", self.signing_key_id.is_some(), BY_KEY),
            ("signing_certificate_file", self.signing_certificate_file.is_some(), BY_KEY),
            ("signing_algorithm", self.signing_algorithm.is_some(), BY_ASSERTION),
            ("assertion_audience", self.assertion_audience.is_some(), BY_ASSERTION),
        ] {
            if is_set && !names.iter().any(|name| users.contains(name)) {
                let users = users.join(" or ");
                return Err(format!("{field} has no use unless client_auth is {users}; remove it"));
            }
        }
        Ok(joined)
    }

    fn auth_by(&self, name: &str) -> Result<ClientAuth, String> {
        let secret = || referenced("client_secret", &self.client_secret_env, &self.client_secret_file);
        match name {
            "basic" => Ok(ClientAuth::basic(secret()?)),
            "basic_raw" => Ok(ClientAuth::basic_raw(secret()?)),
            "post" => Ok(ClientAuth::post(secret()?)),
            "tls" => Ok(ClientAuth::tls()),
            "none" => Ok(ClientAuth::none()),
            #[cfg(feature = "jwt")]
            "private_key_jwt" | "client_secret_jwt" => {
                let is_shared = name == "client_secret_jwt";
                let key = match is_shared {
                    true => secret()?,
                    false => referenced("signing_key", &self.signing_key_env, &self.signing_key_file)?,
                };
                let usual = is_shared.then_some(JwtAlgorithm::Hs256);
                let algorithm =
                    self.algorithm()?.or(usual).ok_or("signing_algorithm is missing, such as ES256")?;
                if algorithm.is_symmetric() != is_shared {
                    let fit =
                        if is_shared { "HS256, HS384 or HS512" } else { "one of a key pair, such as ES256" };
                    return Err(format!("signing_algorithm: {name} needs {fit}"));
                }
                let assertion = Assertion::by_key(algorithm, key);
                let assertion = self.assertion_audience.iter().fold(assertion, Assertion::audience);
                let key_id = self.signing_key_id.iter().map(String::as_str);
                let assertion = key_id.fold(assertion, Assertion::key_id);
                let certificate = self.signing_certificate_file.iter().map(Secret::from_file);
                Ok(ClientAuth::private_key_jwt(certificate.fold(assertion, Assertion::certificate)))
            }
            #[cfg(not(feature = "jwt"))]
            "private_key_jwt" | "client_secret_jwt" => {
                Err("client_auth: assertions need the feature `jwt` of tower-oauth2; switch it on".into())
            }
            _ => Err(format!(
                "client_auth: {name:?} is not known; it is basic, basic_raw, post, tls, none, private_key_jwt or \
                 client_secret_jwt"
            )),
        }
    }

    #[cfg(feature = "jwt")]
    fn algorithm(&self) -> Result<Option<JwtAlgorithm>, String> {
        let parsed = self.signing_algorithm.as_deref().map(str::parse::<JwtAlgorithm>).transpose();
        parsed.map_err(|error| format!("signing_algorithm: {error}"))
    }
}

// --- Helpers ---

/// Where a secret is; `name` is that of the pair of fields.
fn referenced(name: &str, variable: &Option<String>, path: &Option<PathBuf>) -> Result<Secret, String> {
    match (variable, path) {
        (Some(variable), None) => Ok(Secret::from_env(variable)),
        (None, Some(path)) => Ok(Secret::from_file(path)),
        (None, None) => Err(format!("{name}_env or {name}_file is missing")),
        (Some(_), Some(_)) => Err(format!("{name}_env and {name}_file exclude each other; keep one")),
    }
}

fn duration(field: &str, seconds: Option<f64>) -> Result<Option<Duration>, String> {
    let duration = seconds.map(Duration::try_from_secs_f64).transpose();
    duration.map_err(|error| format!("{field} is not a duration in seconds: {error}"))
}

#[cfg(test)]
mod tests;
