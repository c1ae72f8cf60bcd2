//! A client credentials source from a configuration file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use crate::oauth2::client_auth::ClientAuth;
use crate::oauth2::grants::{ClientCredentials, ClientCredentialsBuilder};
use crate::oauth2::secret::ClientSecret;

/// The settings of [`ClientCredentials`] as a configuration file has them.
///
/// It can be read and never written, and it takes no secret: it names the environment variable or the file where the
/// secret is. An unknown field is refused, so that no misspelt one is passed over.
///
/// | field | |
/// |---|---|
/// | `token_url`, `client_id` | required |
/// | `client_secret_env`, `client_secret_file` | one of them, unless `client_auth` is `none` |
/// | `client_auth` | `basic`, `basic_raw`, `post` or `none` |
/// | `scopes`, `required_scopes`, `resources` | lists |
/// | `audience` | |
/// | `parameters` | a table of further parameters, none of them secret |
/// | `strict_bearer` | a switch |
/// | `attempt_timeout_seconds`, `first_delay_seconds`, `longest_delay_seconds` | numbers, perhaps with a fraction |
/// | `retries` | a number |
/// | `retry_statuses` | a list of numbers |
/// | `insecure_http` | a switch |
///
/// What is left out has the default of the [builder](crate::oauth2::GrantBuilder#defaults). Values are checked when
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
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Fields")]
pub struct ClientCredentialsConfig {
    builder: ClientCredentialsBuilder,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "the settings of client credentials")]
struct Fields {
    token_url: String,
    client_id: String,
    client_secret_env: Option<String>,
    client_secret_file: Option<PathBuf>,
    #[serde(default)]
    client_auth: AuthName,
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

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AuthName {
    #[default]
    Basic,
    BasicRaw,
    Post,
    None,
}

impl ClientCredentialsConfig {
    /// Returns a builder with these settings, for what a file cannot hold, and to be built.
    #[must_use]
    pub fn into_builder(self) -> ClientCredentialsBuilder {
        self.builder
    }
}

impl From<ClientCredentialsConfig> for ClientCredentialsBuilder {
    fn from(config: ClientCredentialsConfig) -> Self {
        config.builder
    }
}

impl TryFrom<Fields> for ClientCredentialsConfig {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        let secret = match (fields.client_secret_env, fields.client_secret_file) {
            (Some(variable), None) => ClientSecret::from_env(variable),
            (None, Some(path)) => ClientSecret::from_file(path),
            (None, None) if matches!(fields.client_auth, AuthName::None) => ClientSecret::none(),
            (None, None) => return Err("client_secret_env or client_secret_file is missing".into()),
            (Some(_), Some(_)) => {
                return Err("client_secret_env and client_secret_file exclude each other; keep one".into());
            }
        };
        let mut builder = ClientCredentials::builder(fields.token_url, fields.client_id, secret)
            .auth(fields.client_auth.into())
            .scopes(fields.scopes)
            .required_scopes(fields.required_scopes);
        if let Some(audience) = fields.audience {
            builder = builder.audience(audience);
        }
        for resource in fields.resources {
            builder = builder.resource(resource);
        }
        for (name, value) in fields.parameters {
            builder = builder.param(name, value);
        }
        if fields.strict_bearer {
            builder = builder.with_strict_bearer();
        }
        if let Some(seconds) = fields.attempt_timeout_seconds {
            builder = builder.attempt_timeout(duration("attempt_timeout_seconds", seconds)?);
        }
        if let Some(retries) = fields.retries {
            builder = builder.retries(retries);
        }
        if let Some(seconds) = fields.first_delay_seconds {
            builder = builder.first_delay(duration("first_delay_seconds", seconds)?);
        }
        if let Some(seconds) = fields.longest_delay_seconds {
            builder = builder.longest_delay(duration("longest_delay_seconds", seconds)?);
        }
        if let Some(statuses) = fields.retry_statuses {
            builder =
                builder.retry_statuses(statuses.into_iter().map(status).collect::<Result<Vec<_>, _>>()?);
        }
        if fields.insecure_http {
            builder = builder.with_insecure_http();
        }
        Ok(Self { builder })
    }
}

impl From<AuthName> for ClientAuth {
    fn from(name: AuthName) -> Self {
        match name {
            AuthName::Basic => Self::basic(),
            AuthName::BasicRaw => Self::basic_raw(),
            AuthName::Post => Self::post(),
            AuthName::None => Self::none(),
        }
    }
}

fn duration(field: &str, seconds: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| format!("{field} is no length of time in seconds: {seconds}"))
}

fn status(code: u16) -> Result<StatusCode, String> {
    StatusCode::from_u16(code).map_err(|_| format!("retry_statuses holds {code}, which is no HTTP status"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#""token_url": "https://login.example.com/token", "client_id": "billing""#;

    fn read(more: &str) -> Result<ClientCredentialsConfig, serde_json::Error> {
        serde_json::from_str(&format!("{{{LEAST}{more}}}"))
    }

    #[test]
    fn every_field_reaches_the_builder() {
        let config = read(
            r#", "client_secret_env": "BILLING", "client_auth": "basic_raw", "scopes": ["a", "b"],
                "required_scopes": ["a"], "audience": "x", "resources": ["https://r/"], "parameters": {"org": "n"},
                "strict_bearer": true, "attempt_timeout_seconds": 2.5, "retries": 7, "first_delay_seconds": 1,
                "longest_delay_seconds": 9, "retry_statuses": [503], "insecure_http": true"#,
        );
        let shown = format!("{:?}", config.unwrap().into_builder());
        for part in [
            r#"client_id: "billing""#,
            r#"env "BILLING""#,
            "BasicRaw",
            r#"scopes: ["a", "b"]"#,
            r#"required_scopes: ["a"]"#,
            r#"audiences: ["x"]"#,
            r#"resources: ["https://r/"]"#,
            r#"parameters: ["org"]"#,
            "strict_bearer: true",
            "attempt_timeout: 2.5s",
            "retries: 7",
            "first_delay: 1s",
            "longest_delay: 9s",
            "retry_statuses: Some([503])",
            "insecure_http: true",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }

    #[test]
    fn a_secret_in_the_file_is_refused_and_so_is_a_misspelt_field() {
        for more in [r#", "client_secret": "S3CR3T""#, r#", "client_secret_env": "A", "scope": "a""#] {
            let error = read(more).unwrap_err().to_string();
            assert!(error.contains("unknown field") && !error.contains("S3CR3T"), "{error}");
        }
    }

    #[test]
    fn where_the_secret_is_must_be_said_once() {
        let error = read("").unwrap_err().to_string();
        assert!(error.contains("client_secret_env or client_secret_file is missing"), "{error}");
        let error =
            read(r#", "client_secret_env": "A", "client_secret_file": "/a""#).unwrap_err().to_string();
        assert!(error.contains("exclude each other"), "{error}");
        assert!(read(r#", "client_auth": "none""#).is_ok());
    }

    #[test]
    fn values_that_mean_nothing_are_refused_by_name() {
        for (more, field) in [
            (r#""attempt_timeout_seconds": -1"#, "attempt_timeout_seconds"),
            (r#""first_delay_seconds": 1e300"#, "first_delay_seconds"),
            (r#""longest_delay_seconds": -0.5"#, "longest_delay_seconds"),
            (r#""retry_statuses": [7]"#, "retry_statuses"),
            (r#""client_auth": "digest""#, "digest"),
        ] {
            let error = read(&format!(r#", "client_secret_env": "A", {more}"#)).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
