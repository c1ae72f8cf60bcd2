//! Which identity the environment has.

use super::settings::{Entra, Identity, VM_HOST};
use crate::error::Error;
use crate::grants::Secret;
use crate::providers::environment::Environment;

const TENANT: &[&str] = &["AZURE_TENANT_ID"];
const CLIENT: &[&str] = &["AZURE_CLIENT_ID"];
const SECRET: &[&str] = &["AZURE_CLIENT_SECRET"];
const CERTIFICATE: &[&str] = &["AZURE_CLIENT_CERTIFICATE_PATH"];
const PASSWORD: &[&str] = &["AZURE_CLIENT_CERTIFICATE_PASSWORD"];
const TOKEN_FILE: &[&str] = &["AZURE_FEDERATED_TOKEN_FILE"];

/// Picks in the order of `DefaultAzureCredential`.
pub(super) fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Entra, Error> {
    let environment = Environment::new(lookup);
    let find = |names: &[&str]| environment.find(names);
    let app = |why: &[&str]| {
        let of = |what: &str, names: &[&str]| {
            let missing = || Error::config(format!("{} is set, but {what} is not; set {}", why[0], names[0]));
            find(names).ok_or_else(missing)
        };
        Ok::<_, Error>((of("the tenant", TENANT)?, of("the client id", CLIENT)?))
    };
    let entra = if let Some(secret) = find(SECRET) {
        let (tenant, client) = app(SECRET)?;
        Entra::with_secret(tenant, client, secret)
    } else if let Some(path) = find(CERTIFICATE) {
        let (tenant, client) = app(CERTIFICATE)?;
        if find(PASSWORD).is_some() {
            return Err(Error::config(
                "AZURE_CLIENT_CERTIFICATE_PASSWORD is set, and a key with a password is not supported; store it without one, \
                 readable for this process alone, and unset the variable",
            ));
        }
        Entra::with_certificate(tenant, client, Secret::from_file(&path), Secret::from_file(&path))
    } else if let Some(path) = find(TOKEN_FILE) {
        let (tenant, client) = app(TOKEN_FILE)?;
        Entra::with_token_file(tenant, client, path)
    } else {
        let managed = Entra::of(managed(&environment)?);
        return Ok(match find(CLIENT) {
            Some(client) => managed.user_assigned(client),
            None => managed,
        });
    };
    Ok(match find(&["AZURE_AUTHORITY_HOST"]) {
        // The variable may be a host alone.
        Some(host) if !host.contains("://") => entra.authority(format!("https://{host}")),
        Some(url) => entra.authority(url),
        None => entra,
    })
}

fn managed<F: Fn(&str) -> Option<String>>(environment: &Environment<F>) -> Result<Identity, Error> {
    let find = |name: &str| environment.find(&[name]);
    for (name, what) in [
        ("IDENTITY_SERVER_THUMBPRINT", "Service Fabric"),
        ("IMDS_ENDPOINT", "Azure Arc"),
        ("MSI_SECRET", "Machine Learning"),
    ] {
        if find(name).is_some() {
            return Err(Error::config(format!(
                "{name} is set, and the managed identity of {what} is not supported; give the app a certificate, or a source of \
                 your own"
            )));
        }
    }
    match (find("IDENTITY_ENDPOINT"), find("IDENTITY_HEADER")) {
        (Some(endpoint), Some(header)) => Ok(Identity::AppService { endpoint, header: header.into() }),
        (Some(_), None) => Err(Error::config("IDENTITY_ENDPOINT is set, but IDENTITY_HEADER is not")),
        (None, Some(_)) => Err(Error::config("IDENTITY_HEADER is set, but IDENTITY_ENDPOINT is not")),
        (None, None) => {
            let host = find("AZURE_POD_IDENTITY_AUTHORITY_HOST");
            Ok(Identity::Machine { host: host.unwrap_or_else(|| VM_HOST.to_owned()) })
        }
    }
}
