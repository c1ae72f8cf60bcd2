//! The settings in environment variables.

use std::fmt;

use super::gateway::Gateway;
use super::region::Region;
use crate::error::Error;
use crate::origin::Origin;
use crate::providers::environment::{missing, visible};

/// A variable, and the name under which it was found.
type Found = Option<(&'static str, String)>;

/// Names of one setting, first the vendor's Terraform provider's, then those of the SDKs' pages and of tutorials.
pub(super) const CLIENT_ID: &[&str] =
    &["GENESYSCLOUD_OAUTHCLIENT_ID", "GENESYS_CLOUD_CLIENT_ID", "GENESYS_CLIENT_ID"];
pub(super) const CLIENT_SECRET: &[&str] =
    &["GENESYSCLOUD_OAUTHCLIENT_SECRET", "GENESYS_CLOUD_CLIENT_SECRET", "GENESYS_CLIENT_SECRET"];
const REGION: &[&str] = &[
    "GENESYSCLOUD_REGION",
    "GENESYS_CLOUD_REGION",
    "GENESYS_REGION",
    "GENESYS_BASE_URL",
    "GENESYS_ENVIRONMENT",
];
const ACCESS_TOKEN: &[&str] = &["GENESYSCLOUD_ACCESS_TOKEN"];
const POOL_SIZE: &[&str] = &["GENESYSCLOUD_TOKEN_POOL_SIZE"];

/// The settings that were read.
pub(super) struct Environment {
    pub(super) region: Region,
    pub(super) client_id: Option<String>,
    pub(super) secret: Option<String>,
    pub(super) access_token: Option<String>,
    pub(super) pool_size: Option<usize>,
    pub(super) proxy: Option<ProxyAddress>,
    pub(super) gateway: Option<Gateway>,
}

/// A proxy as the variables name it.
#[derive(Clone)]
#[cfg_attr(
    not(all(feature = "hyper-client", feature = "stack")),
    allow(dead_code, reason = "it is for the default HTTP client")
)]
pub(super) struct ProxyAddress {
    pub(super) scheme: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) credentials: Option<(String, String)>,
}

impl fmt::Debug for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

impl Environment {
    /// Reads all variables. One that is empty counts as not set.
    pub(super) fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let set = |name: &str| lookup(name).map(|value| visible(&value)).filter(|value| !value.is_empty());
        let find = |names: &[&'static str]| -> Found {
            names.iter().find_map(|name| set(name).map(|value| (*name, value)))
        };
        let text = |names: &[&'static str]| find(names).map(|(_, value)| value);
        let region = match find(REGION) {
            Some((name, value)) => value.parse().map_err(|error: Error| in_variable(name, &error))?,
            None => return Err(missing("the region", REGION)),
        };
        let access_token = text(ACCESS_TOKEN);
        let (client_id, secret) = (text(CLIENT_ID), text(CLIENT_SECRET));
        if access_token.is_none() && client_id.is_none() {
            return Err(missing("the client id", CLIENT_ID));
        }
        if access_token.is_none() && secret.is_none() {
            return Err(missing("the client secret", CLIENT_SECRET));
        }
        let pool_size = find(POOL_SIZE).map(|(name, value)| number(name, &value)).transpose()?;
        let (proxy, gateway) = (proxy(&set)?, gateway(&set)?);
        Ok(Self {
            region,
            client_id,
            secret,
            access_token,
            pool_size: pool_size.map(usize::from),
            proxy,
            gateway,
        })
    }
}

fn proxy(set: &impl Fn(&str) -> Option<String>) -> Result<Option<ProxyAddress>, Error> {
    let Some(host) = set("GENESYSCLOUD_PROXY_HOST") else { return Ok(None) };
    // Such a host is shown as it is.
    if host.contains(['@', '/']) {
        return Err(Error::config(
            "GENESYSCLOUD_PROXY_HOST is not the name of a host alone; the protocol goes into GENESYSCLOUD_PROXY_PROTOCOL, the \
             user into GENESYSCLOUD_PROXY_AUTH_USERNAME",
        ));
    }
    let scheme = set("GENESYSCLOUD_PROXY_PROTOCOL").unwrap_or_else(|| "http".to_owned());
    let port = required_port(set, "GENESYSCLOUD_PROXY_PORT", "GENESYSCLOUD_PROXY_HOST")?;
    let user = set("GENESYSCLOUD_PROXY_AUTH_USERNAME");
    let password = set("GENESYSCLOUD_PROXY_AUTH_PASSWORD").unwrap_or_default();
    Ok(Some(ProxyAddress { scheme, host, port, credentials: user.map(|user| (user, password)) }))
}

fn gateway(set: &impl Fn(&str) -> Option<String>) -> Result<Option<Gateway>, Error> {
    let Some(host) = set("GENESYSCLOUD_GATEWAY_HOST") else { return Ok(None) };
    let scheme = set("GENESYSCLOUD_GATEWAY_PROTOCOL").unwrap_or_else(|| "https".to_owned());
    let port = set("GENESYSCLOUD_GATEWAY_PORT");
    let port = port.map(|port| number("GENESYSCLOUD_GATEWAY_PORT", &port)).transpose()?;
    let origin = match port {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    };
    if set("GENESYSCLOUD_GATEWAY_AUTH_USERNAME").is_some() {
        return Err(Error::config(
            "GENESYSCLOUD_GATEWAY_AUTH_USERNAME is set, but Authorization has the token; have the gateway let this machine in \
             by other means, and unset it",
        ));
    }
    Origin::parse(&origin).map_err(|error| in_variable("GENESYSCLOUD_GATEWAY_HOST", &error))?;
    let path = set("GENESYSCLOUD_GATEWAY_PATH_VALUE").unwrap_or_default();
    let below = format!("{origin}/{}", path.trim_matches('/'));
    let gateway = match set("GENESYSCLOUD_GATEWAY_PATH_NAME").as_deref() {
        None => Gateway::new(&origin, &origin),
        Some("login") => Gateway::new(&below, &origin),
        Some("api") => Gateway::new(&origin, &below),
        Some(_) => return Err(Error::config("GENESYSCLOUD_GATEWAY_PATH_NAME is neither login nor api")),
    };
    gateway.map(Some).map_err(|error| in_variable("GENESYSCLOUD_GATEWAY_PATH_VALUE", &error))
}

fn required_port(set: &impl Fn(&str) -> Option<String>, name: &str, because: &str) -> Result<u16, Error> {
    let port = set(name).ok_or_else(|| Error::config(format!("{because} is set, but {name} is not")))?;
    number(name, &port)
}

fn number(name: &str, value: &str) -> Result<u16, Error> {
    value.parse().map_err(|_| Error::config(format!("{name} is not a number from 0 to 65535")))
}

fn in_variable(name: &str, error: &Error) -> Error {
    Error::config(format!("{name}: {error}"))
}
