//! The kinds of credentials, and how a file names them.

use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::Error;
use crate::grants::Secret;

/// Where tokens come from.
#[derive(Clone, Debug)]
pub(super) enum Credentials {
    /// A key, by which an account proves itself.
    ServiceAccount { key: Secret, token_url: String },
    /// A refresh token of a user.
    User { client_id: String, client_secret: Secret, refresh_token: SecretString },
    /// A token of another provider, which is exchanged.
    External(External),
    /// The tokens of another account, by those of these credentials.
    Impersonated { base: Box<Self>, account_url: String, delegates: Vec<String> },
    /// The server beside a machine of Google Cloud.
    Metadata { host: String },
}

/// A token of another provider in a file, and where it is exchanged.
#[derive(Clone, Debug)]
pub(super) struct External {
    pub(super) token_url: String,
    pub(super) audience: String,
    pub(super) subject_token_type: String,
    pub(super) path: String,
    /// The member of a JSON file that the token is; none if it is the whole file.
    pub(super) member: Option<String>,
    pub(super) client: Option<(String, Secret)>,
}

/// The contents of a file.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) credentials: Credentials,
    pub(super) universe: Option<String>,
    pub(super) quota_project: Option<String>,
}

/// All members of all types of files. Which of them must be there, the type says.
#[derive(Deserialize)]
struct File {
    #[serde(rename = "type")]
    kind: Option<String>,
    universe_domain: Option<String>,
    quota_project_id: Option<String>,
    token_uri: Option<String>,
    client_email: Option<String>,
    private_key: Option<Wiped>,
    client_id: Option<String>,
    client_secret: Option<Wiped>,
    refresh_token: Option<Wiped>,
    service_account_impersonation_url: Option<String>,
    delegates: Option<Vec<String>>,
    source_credentials: Option<Box<RawValue>>,
    audience: Option<String>,
    subject_token_type: Option<String>,
    token_url: Option<String>,
    credential_source: Option<Source>,
}

/// A text that wipes itself.
#[derive(Deserialize)]
#[serde(from = "String")]
struct Wiped(Zeroizing<String>);

impl From<String> for Wiped {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

/// Where an external account has its token.
#[derive(Deserialize)]
struct Source {
    file: Option<String>,
    format: Option<Format>,
}

#[derive(Deserialize)]
struct Format {
    #[serde(rename = "type")]
    kind: Option<String>,
    subject_token_field_name: Option<String>,
}

const METHOD: &str = ":generateAccessToken";

impl Found {
    /// Reads a file. `key` is where the key of a service account is read later: the same file, or its text. Errors show no part
    /// of it.
    pub(super) fn read(text: &str, key: Secret) -> Result<Self, Error> {
        let file: File = serde_json::from_str(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            Error::config(format!("it is not a JSON object of strings, at its line {line} column {column}"))
        })?;
        Ok(Self {
            universe: file.universe_domain.clone(),
            quota_project: file.quota_project_id.clone(),
            credentials: Credentials::of(file, key)?,
        })
    }
}

impl Credentials {
    fn of(file: File, key: Secret) -> Result<Self, Error> {
        let kind = file.kind.as_deref().unwrap_or_default();
        let required = |name: &str, value: Option<String>| {
            value.filter(|value| !value.is_empty()).ok_or_else(|| {
                Error::config(format!("it is of the type {kind}, and has no {name}; make the file anew"))
            })
        };
        let secret = |name: &str, value: Option<Wiped>| {
            required(name, value.map(|value| String::clone(&value.0))).map(SecretString::from)
        };
        match kind {
            "service_account" => {
                required("client_email", file.client_email)?;
                secret("private_key", file.private_key)?;
                Ok(Self::ServiceAccount { key, token_url: required("token_uri", file.token_uri)? })
            }
            "authorized_user" => Ok(Self::User {
                client_id: required("client_id", file.client_id)?,
                client_secret: Secret::of(secret("client_secret", file.client_secret)?),
                refresh_token: secret("refresh_token", file.refresh_token)?,
            }),
            "impersonated_service_account" => {
                let url =
                    required("service_account_impersonation_url", file.service_account_impersonation_url)?;
                let base = file.source_credentials.ok_or_else(|| {
                    Error::config(
                        "it is of the type impersonated_service_account, and has no source_credentials",
                    )
                })?;
                let base = Found::read(base.get(), Secret::new(base.get()))?.credentials;
                Self::impersonated(base, &url, file.delegates.unwrap_or_default())
            }
            "external_account" => {
                let source = file.credential_source.unwrap_or(Source { file: None, format: None });
                let path = source.file.ok_or_else(|| {
                    Error::config(
                        "its credential_source names no file, and other sources of an external_account are not supported; give \
                         the token as a source of your own to a TokenExchange",
                    )
                })?;
                let is_json = |format: &Format| format.kind.as_deref() == Some("json");
                let member = match source.format.filter(is_json) {
                    Some(format) => {
                        Some(required("subject_token_field_name", format.subject_token_field_name)?)
                    }
                    None => None,
                };
                let client = file.client_id.zip(file.client_secret);
                let external = Self::External(External {
                    token_url: required("token_url", file.token_url)?,
                    audience: required("audience", file.audience)?,
                    subject_token_type: required("subject_token_type", file.subject_token_type)?,
                    path,
                    member,
                    client: client.map(|(id, secret)| (id, Secret::new(secret.0.as_str()))),
                });
                match file.service_account_impersonation_url {
                    Some(url) => Self::impersonated(external, &url, Vec::new()),
                    None => Ok(external),
                }
            }
            "" => Err(Error::config("it has no type, so that it is not a file of Google's")),
            _ => Err(Error::config(format!(
                "it is of the type {:?}, which is not supported; take a service_account, an authorized_user, an \
                 impersonated_service_account, or an external_account with a file",
                crate::text::clean(kind)
            ))),
        }
    }

    fn impersonated(base: Self, url: &str, delegates: Vec<String>) -> Result<Self, Error> {
        let account_url = url.strip_suffix(METHOD).ok_or_else(|| {
            Error::config(format!("its service_account_impersonation_url does not end with {METHOD}"))
        })?;
        Ok(Self::Impersonated { base: Box::new(base), account_url: account_url.to_owned(), delegates })
    }

    /// Returns the name of the type, as files have it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::ServiceAccount { .. } => "service_account",
            Self::User { .. } => "authorized_user",
            Self::External(_) => "external_account",
            Self::Impersonated { .. } => "impersonated_service_account",
            Self::Metadata { .. } => "metadata server",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_file_is_said_without_a_part_of_it() {
        for (text, words) in [
            ("{", "not a JSON object"),
            (r#"{"type": 7, "private_key": "S3CR3T"}"#, "not a JSON object"),
            ("{}", "no type"),
            (r#"{"type": "gdch_service_account"}"#, "\"gdch_service_account\", which is not supported"),
            (r#"{"type": "service_account", "private_key": "S3CR3T"}"#, "no client_email"),
            (r#"{"type": "service_account", "client_email": "a"}"#, "no private_key"),
            (r#"{"type": "service_account", "client_email": "a", "private_key": "S3CR3T"}"#, "no token_uri"),
            (r#"{"type": "authorized_user", "client_secret": "S3CR3T"}"#, "no client_id"),
            (
                r#"{"type": "authorized_user", "client_id": "a", "client_secret": "S3CR3T"}"#,
                "no refresh_token",
            ),
            (r#"{"type": "impersonated_service_account"}"#, "no service_account_impersonation_url"),
            (
                r#"{"type": "impersonated_service_account", "service_account_impersonation_url": "https://a/b"}"#,
                "no source_credentials",
            ),
            (
                r#"{"type": "impersonated_service_account", "service_account_impersonation_url": "https://a/b",
                    "source_credentials": {"type": "authorized_user", "client_id": "a", "client_secret": "S3CR3T",
                    "refresh_token": "S3CR3T"}}"#,
                "does not end with :generateAccessToken",
            ),
            (r#"{"type": "external_account"}"#, "names no file"),
            (
                r#"{"type": "external_account", "credential_source": {"url": "https://a?S3CR3T"}}"#,
                "names no file",
            ),
            (
                r#"{"type": "external_account", "credential_source": {"file": "/a", "format": {"type": "json"}}}"#,
                "no subject_token_field_name",
            ),
            (r#"{"type": "external_account", "credential_source": {"file": "/a"}}"#, "no token_url"),
        ] {
            let error = Found::read(text, Secret::new("S3CR3T")).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(
                error.is_config() && shown.contains(words) && !shown.contains("S3CR3T"),
                "{text}: {shown}"
            );
        }
    }
}
