//! The way through a proxy.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use secrecy::zeroize::Zeroizing;

use super::no_proxy::NoProxy;
use crate::error::Error;
use crate::origin::Origin;
use crate::text::{trimmed, visible};

/// By which proxy `https` goes, by CONNECT (RFC 9110 §9.3.6): it learns the host and the port, and no more.
///
/// Connections to loopback never go through a proxy, and neither does plain http. The proxy itself may be asked over
/// `http` or `https`; SOCKS is not spoken. Neither its address nor its password is shown by `Debug` or in an error.
///
/// # Examples
///
/// ```
/// use tower_oauth2::transport::Proxy;
///
/// let proxy = Proxy::new("http", "proxy.example.net", 3128)?
///     .credentials("billing", "secret")
///     .except("internal.example.net, 10.0.0.0/8");
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
#[derive(Clone)]
pub struct Proxy {
    choice: ProxyChoice,
}

#[derive(Clone)]
enum ProxyChoice {
    None,
    Environment,
    This { address: Uri, credentials: Option<HeaderValue>, except: String },
}

/// A proxy that is to be asked.
pub(super) struct Detour {
    pub(super) address: Uri,
    pub(super) credentials: Option<HeaderValue>,
}

/// Finds the proxy for a destination.
pub(super) struct Proxies {
    matcher: Option<Matcher>,
    credentials: Option<HeaderValue>,
    except: NoProxy,
}

impl Proxy {
    /// Creates a proxy of scheme (`http` or `https`), host and port.
    ///
    /// # Errors
    ///
    /// A configuration error if one of them is none.
    pub fn new(scheme: &str, host: &str, port: u16) -> Result<Self, Error> {
        let refuse = |what| Error::config(format!("proxy: {what}"));
        if !matches!(scheme, "http" | "https") {
            return Err(refuse("its scheme is neither http nor https; no other is spoken here"));
        }
        if host.is_empty() || host.contains(['@', '/', '?', '#']) {
            return Err(refuse(
                "its host is none; give the bare name, and user and password by credentials()",
            ));
        }
        let address = Uri::builder().scheme(scheme).authority(format!("{host}:{port}")).path_and_query("/");
        let address = address
            .build()
            .map_err(|_| refuse("its host is none; give the bare name, an IPv6 address in brackets"))?;
        Ok(Self { choice: ProxyChoice::This { address, credentials: None, except: String::new() } })
    }

    /// The proxy that the environment names: `HTTPS_PROXY`, else `ALL_PROXY`, but not for what `NO_PROXY` lists; the names
    /// in lower case serve too. The variables are read at the first request to an `https` URL.
    pub(super) fn from_environment() -> Self {
        Self { choice: ProxyChoice::Environment }
    }

    /// No proxy, even if the environment names one.
    pub(super) fn none() -> Self {
        Self { choice: ProxyChoice::None }
    }

    /// Sets user and password (RFC 7617).
    #[must_use]
    pub fn credentials(mut self, user: &str, password: impl Into<String>) -> Self {
        if let ProxyChoice::This { credentials, .. } = &mut self.choice {
            let password = Zeroizing::new(password.into());
            // Line ends are of the file or the variable that it was read from.
            let text = Zeroizing::new(format!("{user}:{}", trimmed(&password)));
            let text = Zeroizing::new(BASE64_STANDARD.encode(&*text));
            *credentials = HeaderValue::try_from(format!("Basic {}", *text)).ok().map(|mut value| {
                value.set_sensitive(true);
                value
            });
        }
        self
    }

    /// Sets what is reached without this proxy, in the form of `NO_PROXY`: names with all that is below them, addresses,
    /// networks, each perhaps with a port, or `*`, with commas between.
    #[must_use]
    pub fn except(mut self, list: impl Into<String>) -> Self {
        if let ProxyChoice::This { except, .. } = &mut self.choice {
            *except = list.into();
        }
        self
    }

    /// Reads the environment, if that is asked.
    pub(super) fn find(&self) -> Proxies {
        match &self.choice {
            ProxyChoice::None => Proxies { matcher: None, credentials: None, except: NoProxy::default() },
            ProxyChoice::Environment => {
                let list = ["NO_PROXY", "no_proxy"].iter().find_map(|name| std::env::var(name).ok());
                let except = NoProxy::read(&list.unwrap_or_default());
                Proxies { matcher: matcher_of_environment(), credentials: None, except }
            }
            ProxyChoice::This { address, credentials, except } => {
                let matcher = Matcher::builder().https(address.to_string()).build();
                let except = NoProxy::read(except);
                Proxies { matcher: Some(matcher), credentials: credentials.clone(), except }
            }
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.choice {
            ProxyChoice::None => "Proxy(none)",
            ProxyChoice::Environment => "Proxy(environment)",
            ProxyChoice::This { .. } => "Proxy(..)",
        })
    }
}

/// Reads the first variable that names a proxy. A line end in it is of the file that it comes from.
fn matcher_of_environment() -> Option<Matcher> {
    let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    names.into_iter().find_map(|name| {
        let value = std::env::var(name).ok()?;
        let address = Some(visible(&value)).filter(|address| !address.is_empty())?;
        let matcher = Matcher::builder().https(address).build();
        let is_usable = matcher.intercept(&Uri::from_static("https://example.com/")).is_some();
        if !is_usable {
            tracing::warn!(
                "{name} names no proxy that can be used, so it is left out; write http://host:port"
            );
        }
        is_usable.then_some(matcher)
    })
}

impl Proxies {
    /// Returns the proxy for a destination, if it has one.
    ///
    /// # Errors
    ///
    /// A configuration error if that proxy speaks something else.
    pub(super) fn detour(&self, destination: &Uri) -> Result<Option<Detour>, Error> {
        let Some(matcher) = &self.matcher else { return Ok(None) };
        if Origin::of(destination).is_none_or(|origin| origin.is_loopback())
            || self.except.excepts(destination)
        {
            return Ok(None);
        }
        let Some(proxy) = matcher.intercept(destination) else { return Ok(None) };
        if !matches!(proxy.uri().scheme_str(), Some("http" | "https")) {
            return Err(Error::config(
                "the proxy that the environment names speaks neither http nor https; set HTTPS_PROXY to one that does, \
                 or NO_PROXY",
            ));
        }
        let credentials = self.credentials.as_ref().or(proxy.basic_auth()).cloned();
        Ok(Some(Detour { address: proxy.uri().clone(), credentials }))
    }
}
