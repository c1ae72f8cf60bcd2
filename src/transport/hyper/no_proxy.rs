//! The hosts that are reached without a proxy, as people write them into `NO_PROXY`.

use std::net::IpAddr;

use http::Uri;

/// The entries of a list. Malformed entries are left out, and named once.
#[derive(Default)]
pub(super) struct NoProxy {
    entries: Vec<NoProxyEntry>,
}

struct NoProxyEntry {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, PartialEq, Eq)]
enum Hosts {
    All,
    /// A name, and all that is below it.
    Name(String),
    Network {
        address: IpAddr,
        bits: u8,
    },
}

impl NoProxy {
    /// Reads a list: entries with commas or white space between.
    pub(super) fn read(list: &str) -> Self {
        let mut entries = Vec::new();
        for text in list.split(|c: char| c == ',' || c.is_whitespace()).filter(|text| !text.is_empty()) {
            match NoProxyEntry::read(text) {
                Some(entry) => entries.push(entry),
                None => tracing::warn!(
                    "NO_PROXY has an entry that excepts nothing: {:?}; write a name, an address, a network or *",
                    crate::text::clean(&crate::text::origin_only(text))
                ),
            }
        }
        Self { entries }
    }

    /// Returns whether a destination is reached without a proxy.
    pub(super) fn excepts(&self, destination: &Uri) -> bool {
        let Some(host) = destination.host() else { return false };
        let port = destination.port_u16().unwrap_or(443);
        let host =
            host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        self.entries
            .iter()
            .any(|entry| entry.port.is_none_or(|own| own == port) && entry.hosts.hold(&host, address))
    }
}

impl NoProxyEntry {
    fn read(text: &str) -> Option<Self> {
        // Several colons are those of an address, unless it stands in brackets.
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']')?;
                match rest.is_empty() {
                    true => (host, None),
                    false => (host, Some(rest.strip_prefix(':')?)),
                }
            }
            None => match text.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') => (host, Some(port)),
                Some(_) | None => (text, None),
            },
        };
        let port = port.map(str::parse).transpose().ok()?;
        Hosts::read(host).map(|hosts| Self { hosts, port })
    }
}

impl Hosts {
    fn read(host: &str) -> Option<Self> {
        if host == "*" {
            return Some(Self::All);
        }
        let (address, bits) =
            host.split_once('/').map_or((host, None), |(address, bits)| (address, Some(bits)));
        if let Ok(address) = address.parse::<IpAddr>() {
            let most = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Ok(most), str::parse).ok().filter(|bits| *bits <= most)?;
            return Some(Self::Network { address, bits });
        }
        let name = host.strip_prefix('*').unwrap_or(host);
        let name = name.strip_prefix('.').unwrap_or(name).trim_end_matches('.').to_ascii_lowercase();
        let is_name = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        is_name.then_some(Self::Name(name))
    }

    fn hold(&self, host: &str, address: Option<IpAddr>) -> bool {
        match self {
            Self::All => true,
            Self::Name(name) => {
                host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Self::Network { address: network, bits } => match (network, address) {
                (IpAddr::V4(network), Some(IpAddr::V4(address))) => {
                    let shift = 32 - u32::from(*bits);
                    (network.to_bits() ^ address.to_bits()).checked_shr(shift).unwrap_or(0) == 0
                }
                (IpAddr::V6(network), Some(IpAddr::V6(address))) => {
                    let shift = 128 - u32::from(*bits);
                    (network.to_bits() ^ address.to_bits()).checked_shr(shift).unwrap_or(0) == 0
                }
                _ => false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_into_no_proxy_excepts_what_they_mean() {
        for (list, host, is_excepted) in [
            ("*", "10.0.0.1", true),
            ("*", "[2001:db8::1]", true),
            ("*", "login.example.com", true),
            ("[2001:db8::1]", "[2001:db8::1]", true),
            ("2001:db8::1", "[2001:db8::1]", true),
            ("[2001:db8::1]:443", "[2001:db8::1]", true),
            ("[2001:db8::1]:8443", "[2001:db8::1]", false),
            ("2001:db8::/32", "[2001:db8:7::1]", true),
            ("2001:db8::/32", "[2001:db9::1]", false),
            ("10.0.0.0/8", "10.200.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "11.0.0.1", true),
            ("10.0.0.1", "10.0.0.10", false),
            ("*.example.com", "login.example.com", true),
            (".example.com", "login.example.com", true),
            ("example.com", "login.example.com", true),
            ("example.com", "example.com", true),
            ("example.com", "badexample.com", false),
            ("example.com.", "login.example.com", true),
            ("Example.COM", "login.example.com.", true),
            ("login.example.com:443", "login.example.com", true),
            ("login.example.com:8443", "login.example.com", false),
            (" a.test ,\tlogin.example.com ", "login.example.com", true),
            ("a.test login.example.com", "login.example.com", true),
            ("", "login.example.com", false),
            ("*:443", "10.0.0.1", true),
            ("*:443", "login.example.com", true),
            ("*:8443", "login.example.com", false),
        ] {
            let uri: Uri = format!("https://{host}/").parse().unwrap();
            assert_eq!(NoProxy::read(list).excepts(&uri), is_excepted, "{list:?} {host}");
        }
    }

    #[test]
    fn what_excepts_nothing_is_left_out() {
        for text in [
            "a*b",
            "http://a",
            "a:b",
            "[::1",
            "[fe80::]/10",
            "[::1]443",
            "[::1]:",
            "*:",
            "10.0.0.0/33",
            "a/8",
            ":443",
        ] {
            assert!(NoProxyEntry::read(text).is_none(), "{text}");
        }
    }
}
