//! Where the API of a tenant is.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use tower::ServiceExt as _;

use crate::body::Body;
use crate::error::Error;
use crate::http_transport::HttpTransport;
use crate::origin::Origin;
use crate::providers::passing;
use crate::token::AccessToken;

/// The configuration of a tenant, as far as it is needed.
#[derive(Deserialize)]
struct TenantConfiguration {
    api_endpoint: String,
}

/// A longer response counts as none.
const MOST_BYTES: usize = 64 * 1024;

/// Reads the tenant that a token is of: `tenantId` of the `id_token` that came with it, or of the token itself.
#[must_use]
pub fn tenant_of(token: &AccessToken) -> Option<String> {
    [token.expose_extra("id_token"), Some(token.expose())].into_iter().flatten().find_map(tenant_claim)
}

fn tenant_claim(jwt: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        #[serde(rename = "tenantId")]
        tenant: String,
    }

    let payload = jwt.split('.').nth(1).filter(|payload| payload.len() <= MOST_BYTES)?;
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    Some(claims.tenant).filter(|tenant| !tenant.is_empty())
}

/// Asks the issuer where the API of a tenant is. No token is sent.
pub(super) async fn find_api(
    issuer: &str,
    tenant: &str,
    domains: &[String],
    transport: impl HttpTransport,
) -> Result<String, Error> {
    // The response says where tokens go, so it must not come over plain http.
    origin_of(issuer).map_err(|error| {
        Error::config("the issuer of CXone is no URL of https, or has a user name").with_source(error)
    })?;
    let query: String =
        form_urlencoded::Serializer::new(String::new()).append_pair("tenantId", tenant).finish();
    let url = format!("{issuer}/.well-known/cxone-configuration?{query}");
    let request = Request::get(url).header("accept", "application/json").body(Body::empty());
    let request =
        request.map_err(|error| Error::config("the issuer of CXone is no URL").with_source(error))?;
    let response = transport.oneshot(request).await.map_err(|error| {
        Error::transient("the configuration of the CXone tenant cannot be fetched").with_source(error)
    })?;
    let status = response.status();
    if status != StatusCode::OK {
        let message = format!("the configuration of the CXone tenant cannot be fetched: {status}");
        let passing = passing::error(&message, status, response.headers());
        return Err(passing.unwrap_or_else(|| Error::config(message).with_status(status)));
    }
    let body = Limited::new(response.into_body(), MOST_BYTES).collect().await.map_err(|error| {
        Error::transient("the configuration of the CXone tenant broke off, or is too long").with_source(error)
    })?;
    let bytes = body.to_bytes();
    let document = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let found: TenantConfiguration = serde_json::from_slice(document).map_err(|_| {
        Error::protocol("the configuration of the CXone tenant is not JSON with an api_endpoint")
    })?;
    checked(found.api_endpoint, domains)
}

/// Refuses what is not of https, or not in one of the domains.
fn checked(api: String, domains: &[String]) -> Result<String, Error> {
    let origin = origin_of(&api).map_err(|error| {
        Error::config(
            "the configuration of the CXone tenant names an api_endpoint that is no origin of https",
        )
        .with_source(error)
    })?;
    let is_in = |domain: &String| {
        let domain = domain.to_ascii_lowercase();
        origin.host() == domain
            || origin.host().strip_suffix(&*domain).is_some_and(|labels| labels.ends_with('.'))
    };
    match origin.is_https() && domains.iter().any(is_in) {
        true => Ok(api),
        false => Err(Error::config(format!(
            "the configuration of the CXone tenant names {origin} as its API, which is in none of the domains; if tokens may \
                 go there, name its domain by Cxone::domains"
        ))),
    }
}

/// Reads the origin at the beginning of a URL. Plain http is for loopback.
fn origin_of(url: &str) -> Result<Origin, Error> {
    Origin::parse(Origin::split_url(url).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_is_in_the_domains_or_refused() {
        let domains = ["niceincontact.com".to_owned()];
        let check = |url: &str| checked(url.to_owned(), &domains);
        for good in [
            "https://api-na1.niceincontact.com",
            "https://niceincontact.com/x",
            "https://a.NiceInContact.com:8443/",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "http://api-na1.niceincontact.com",
            "https://evilniceincontact.com",
            "https://niceincontact.com.evil.com",
            "https://evil.com/niceincontact.com",
            "https://niceincontact.com@evil.com",
            "https://evil.com\\.niceincontact.com",
            "https://evil.com?.niceincontact.com",
            "http://127.0.0.1",
            "api-na1.niceincontact.com",
            "",
        ] {
            assert!(check(bad).unwrap_err().is_config(), "{bad}");
        }
    }

    #[test]
    fn a_tenant_is_a_claim_of_the_id_token_or_of_the_token() {
        let jwt = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let token = AccessToken::bearer(jwt(r#"{"tenantId": "t2"}"#)).unwrap();
        assert_eq!(tenant_of(&token).as_deref(), Some("t2"));
        let both = token.with_extra("id_token", jwt(r#"{"tenantId": "t1"}"#));
        assert_eq!(tenant_of(&both).as_deref(), Some("t1"));
        for other in ["opaque", "a.b.c", &jwt("{}"), &jwt(r#"{"tenantId": ""}"#)] {
            assert_eq!(tenant_of(&AccessToken::bearer(other).unwrap()), None);
        }
    }
}
