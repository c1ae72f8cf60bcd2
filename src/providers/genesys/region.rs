//! Where the data centres are.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::origin::Origin;

/// A region of Genesys Cloud, which is a domain: its API is at `api.`, its authorization server at `login.` of it.
///
/// It is read from whatever the variables and tutorials have: the name of the AWS region (`eu-central-1`), the domain
/// (`mypurecloud.de`), the host of the API, a URL, or the bare `mypurecloud`. A domain that is not known yet
/// is taken as it is, for regions that are new.
///
/// # Examples
///
/// ```
/// use tower_oauth2::providers::genesys::Region;
///
/// for text in ["eu-central-1", "mypurecloud.de", "api.mypurecloud.de", "https://api.mypurecloud.de/api/v2"] {
///     let region: Region = text.parse()?;
///     assert_eq!(region.domain(), "mypurecloud.de");
/// }
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    domain: String,
}

/// Names by AWS, and domains, as in the vendor's own SDKs; the last two are internal ones that its Terraform provider knows.
const REGIONS: [(&str, &str); 20] = [
    ("us-east-1", "mypurecloud.com"),
    ("us-west-2", "usw2.pure.cloud"),
    ("us-east-2", "use2.us-gov-pure.cloud"),
    ("ca-central-1", "cac1.pure.cloud"),
    ("mx-central-1", "mxc1.pure.cloud"),
    ("sa-east-1", "sae1.pure.cloud"),
    ("eu-west-1", "mypurecloud.ie"),
    ("eu-west-2", "euw2.pure.cloud"),
    ("eu-central-1", "mypurecloud.de"),
    ("eu-central-2", "euc2.pure.cloud"),
    ("eusc-de-east-1", "edee1.eusc-pure.cloud"),
    ("ap-northeast-1", "mypurecloud.jp"),
    ("ap-northeast-2", "apne2.pure.cloud"),
    ("ap-northeast-3", "apne3.pure.cloud"),
    ("ap-southeast-1", "apse1.pure.cloud"),
    ("ap-southeast-2", "mypurecloud.com.au"),
    ("ap-south-1", "aps1.pure.cloud"),
    ("me-central-1", "mec1.pure.cloud"),
    ("dca", "inindca.com"),
    ("tca", "inintca.com"),
];

impl Region {
    /// Returns the domain, such as `mypurecloud.de`.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Returns the origin of the API, such as `https://api.mypurecloud.de`.
    #[must_use]
    pub fn api_origin(&self) -> String {
        format!("https://api.{}", self.domain)
    }

    /// Returns the origin of the authorization server, such as `https://login.mypurecloud.de`.
    pub(super) fn login_origin(&self) -> String {
        format!("https://login.{}", self.domain)
    }
}

impl FromStr for Region {
    type Err = Error;

    /// Reads a region.
    ///
    /// # Errors
    ///
    /// A configuration error that says what may stand there, if it is neither a name that is known nor a domain.
    fn from_str(text: &str) -> Result<Self, Error> {
        let lower = text.trim().to_ascii_lowercase();
        let host = lower.split_once("://").map_or(lower.as_str(), |(_, rest)| rest);
        let host = host.split(['/', '?', '#']).next().unwrap_or_default().trim_end_matches(":443");
        let host = ["api.", "login.", "apps."].iter().find_map(|sub| host.strip_prefix(sub)).unwrap_or(host);
        let named = REGIONS.iter().find(|(name, domain)| host == *name || host == *domain);
        if let Some((_, domain)) = named {
            return Ok(Self { domain: (*domain).to_owned() });
        }
        if host == "mypurecloud" {
            return Ok(Self { domain: "mypurecloud.com".to_owned() });
        }
        if host.contains('.') && Origin::parse(&format!("https://api.{host}")).is_ok() {
            return Ok(Self { domain: host.to_owned() });
        }
        // Of a URL, what stands before the host or behind it may be a secret.
        let shown = text.rsplit('@').next().unwrap_or_default();
        let shown = shown.split(['?', '#']).next().unwrap_or_default();
        Err(Error::config(format!(
            "{:?} is no region of Genesys Cloud; give the name of its AWS region, such as eu-central-1, or its domain, such as \
             mypurecloud.de",
            crate::text::clean(shown)
        )))
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_region_is_read_from_every_spelling() {
        assert_eq!(REGIONS.len(), 20);
        for (name, domain) in REGIONS {
            for text in [
                name.to_owned(),
                name.to_uppercase(),
                format!(" {domain} "),
                format!("api.{domain}"),
                format!("login.{domain}"),
                format!("https://{domain}"),
                format!("https://api.{domain}/"),
                format!("HTTPS://API.{domain}:443/api/v2?x"),
                format!("https://login.{domain}/oauth/token"),
            ] {
                let region: Region = text.parse().unwrap();
                assert_eq!(region.domain(), domain, "{text}");
            }
        }
        assert_eq!("mypurecloud".parse::<Region>().unwrap().domain(), "mypurecloud.com");
        assert_eq!("https://mypurecloud".parse::<Region>().unwrap().domain(), "mypurecloud.com");
    }

    #[test]
    fn a_region_that_is_new_goes_by_its_domain() {
        let region: Region = "https://api.xyz9.pure.cloud".parse().unwrap();
        assert_eq!(region.domain(), "xyz9.pure.cloud");
        assert_eq!(region.api_origin(), "https://api.xyz9.pure.cloud");
        assert_eq!(region.login_origin(), "https://login.xyz9.pure.cloud");
    }

    #[test]
    fn what_is_no_region_is_an_error_that_says_what_is() {
        for text in [
            "",
            "eu-north-9",
            "api.",
            "https://",
            "a b.c",
            "user@mypurecloud.de",
            "mypurecloud.de:99999",
            "-",
        ] {
            let error = text.parse::<Region>().unwrap_err();
            assert!(error.is_config() && error.to_string().contains("eu-central-1"), "{text}: {error}");
        }
    }
}
