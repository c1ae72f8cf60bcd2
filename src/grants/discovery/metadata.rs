//! The metadata of an authorization server (RFC 8414, OpenID Connect Discovery 1.0).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::error::Error;
use crate::grants::endpoint::url as address;
use crate::grants::response::expected::EndpointKind;
use crate::origin::Origin;
use crate::text::{self, Redactor};

/// The part of a metadata document that concerns this crate, as it is sent. A member of another type than it should be
/// spoils it; one that is not known does not.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    issuer: Option<String>,
    token_endpoint: Option<String>,
    /// How clients may authenticate there.
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    revocation_endpoint: Option<String>,
    revocation_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// Where clients with a certificate go (RFC 8705 §5).
    mtls_endpoint_aliases: Option<BTreeMap<String, Value>>,
}

/// Checks an issuer identifier: an https URL without query and fragment (RFC 8414 §2). Plain http is for loopback, unless it
/// is allowed.
///
/// # Errors
///
/// A configuration error that says what is wrong.
pub(crate) fn check_issuer(issuer: &str, allows_http: impl Fn(&Origin) -> bool) -> Result<Origin, Error> {
    let read = if issuer.contains('?') {
        Err("has a query, which RFC 8414 §2 forbids; remove the ? and what follows".to_owned())
    } else {
        address::read(issuer, allows_http)
    };
    let refused = |flaw| Error::config(format!("issuer: {:?} {flaw}", text::origin_only(issuer)));
    read.map(|(_, origin)| origin).map_err(refused)
}

/// Returns the URLs at which an issuer may have its metadata, with what messages call them: those of RFC 8414 §3.1, of
/// RFC 8414 §5 for servers that put all well-known places in front of the path, and of OpenID Connect Discovery 1.0 §4.1.
pub(crate) fn well_known(issuer: &str) -> Vec<(String, &'static str)> {
    let (authority, path) = Origin::split_url(issuer);
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut urls = vec![
        (format!("{authority}/.well-known/oauth-authorization-server{path}"), "oauth-authorization-server"),
        (
            format!("{authority}/.well-known/openid-configuration{path}"),
            "openid-configuration before the path",
        ),
        (format!("{authority}{path}/.well-known/openid-configuration"), "openid-configuration"),
    ];
    if path.is_empty() {
        // Both are the same.
        urls.remove(1);
    }
    urls
}

// --- Metadata ---

impl Metadata {
    /// Reads a document that was asked for in the name of `expected`. If it is another's, nothing of it is used
    /// (RFC 8414 §3.3): the names are compared letter by letter.
    ///
    /// # Errors
    ///
    /// Why the document is not used, as the end of a sentence about it.
    pub(crate) fn read(document: &[u8], expected: &str, redactor: &Redactor) -> Result<Self, Error> {
        let Ok(mut metadata) = serde_json::from_slice::<Self>(document) else {
            return Err(Error::protocol("is not a JSON object of the form that RFC 8414 describes"));
        };
        if let Some(aliases) = &mut metadata.mtls_endpoint_aliases {
            aliases.retain(|name, url| {
                ["token_endpoint", "revocation_endpoint"].contains(&&**name) && url.is_string()
            });
        }
        match &metadata.issuer {
            Some(issuer) if issuer == expected => {}
            Some(issuer) => {
                // It is what the setting must be, if the server is the right one.
                let is_name = !issuer.contains(['@', '?', '#']);
                let shown = if is_name { issuer.clone() } else { text::origin_only(issuer) };
                let shown = redactor.clean(&shown);
                let what = format!("is of another issuer ({shown:?}; compared letter by letter)");
                return Err(Error::config(what));
            }
            None => return Err(Error::protocol("names no issuer")),
        }
        if metadata.token_endpoint.is_none() {
            return Err(Error::protocol("names no token endpoint"));
        }
        let methods = [
            &mut metadata.token_endpoint_auth_methods_supported,
            &mut metadata.revocation_endpoint_auth_methods_supported,
        ];
        for methods in methods.into_iter().flatten() {
            methods.retain(|method| REGISTERED.contains(&method.as_str()));
            methods.shrink_to_fit();
        }
        Ok(metadata)
    }

    /// Returns the URL of an endpoint, if the server has it; with a client certificate it may be elsewhere.
    pub(crate) fn url(&self, kind: EndpointKind, mtls: bool) -> Option<&str> {
        let (name, url) = match kind {
            EndpointKind::Token => ("token_endpoint", &self.token_endpoint),
            EndpointKind::Revocation => ("revocation_endpoint", &self.revocation_endpoint),
        };
        let aliases = self.mtls_endpoint_aliases.as_ref().filter(|_| mtls);
        aliases.and_then(|aliases| aliases.get(name)?.as_str()).or(url.as_deref())
    }

    /// Returns how clients may authenticate at an endpoint. The default is that of RFC 8414 §2, which has it for revocation
    /// too; but servers that leave that out mean the methods of the token endpoint.
    pub(crate) fn methods(&self, kind: EndpointKind) -> Vec<String> {
        let own = self.revocation_endpoint_auth_methods_supported.as_ref();
        let own = own.filter(|_| kind == EndpointKind::Revocation);
        let named = own.or(self.token_endpoint_auth_methods_supported.as_ref());
        named.cloned().unwrap_or_else(|| vec!["client_secret_basic".to_owned()])
    }
}

/// The methods that are registered and known here (RFC 8414 §2). Others are not kept: they help no client, and could be an echo of
/// what the server was sent.
const REGISTERED: [&str; 7] = [
    "private_key_jwt",
    "tls_client_auth",
    "self_signed_tls_client_auth",
    "client_secret_jwt",
    "client_secret_basic",
    "client_secret_post",
    "none",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::endpoint::url;
    use crate::vectors;

    fn check(issuer: &str) -> Result<Origin, Error> {
        check_issuer(issuer, Origin::is_loopback)
    }

    /// The URL of RFC 8414, and that of OpenID Connect.
    fn urls(issuer: &str) -> (String, String) {
        let urls = well_known(issuer);
        (urls[0].0.clone(), urls.last().unwrap().0.clone())
    }

    // The rows of kind `prm_*` are about the metadata of protected resources (RFC 9728), which this crate does not read.
    #[test]
    fn every_vector_of_metadata_passes() {
        let vectors = vectors::rows("metadata");
        let mut passed = 0;
        for vector in &vectors {
            let (id, input, expect) = (&vector["id"], &vector["input"], &vector["expect"]);
            let text = |name: &str| input[name].as_str();
            match text("kind").unwrap() {
                "as_url" => match (check(text("issuer").unwrap()), expect["error"].as_str()) {
                    (Ok(_), None) => {
                        let (oauth, oidc) = urls(text("issuer").unwrap());
                        assert_eq!(oauth, expect["oauth_url"].as_str().unwrap(), "{id}");
                        assert_eq!(oidc, expect["oidc_url"].as_str().unwrap(), "{id}");
                    }
                    (Err(error), Some("invalid_issuer")) => assert!(error.is_config(), "{id}: {error}"),
                    (other, _) => panic!("{id}: {other:?}"),
                },
                kind @ ("issuer_check" | "endpoint_check") => {
                    let document = &input["document"];
                    let expected = text("expected_issuer").or(document["issuer"].as_str()).unwrap();
                    check(expected).unwrap();
                    let read =
                        Metadata::read(document.to_string().as_bytes(), expected, &Redactor::default());
                    let mtls = input["mtls"].as_bool().unwrap_or_default();
                    let token_url =
                        |metadata: &Metadata| metadata.url(EndpointKind::Token, mtls).unwrap().to_owned();
                    let checked = read.as_ref().is_ok_and(|metadata| {
                        kind == "issuer_check" || url::read(&token_url(metadata), |_| false).is_ok()
                    });
                    assert_eq!(checked, expect["accepted"].as_bool().unwrap(), "{id}: {read:?}");
                    if let Some(url) = expect["post_url"].as_str() {
                        assert_eq!(token_url(read.as_ref().unwrap()), url, "{id}");
                    }
                    if let Some(methods) = expect["token_endpoint_auth_methods"].as_array() {
                        assert_eq!(read.unwrap().methods(EndpointKind::Token), methods.as_slice(), "{id}");
                    }
                }
                kind => {
                    assert!(kind.starts_with("prm_"), "{id}");
                    continue;
                }
            }
            passed += 1;
        }
        assert_eq!((vectors.len(), passed), (28, 21));
    }

    #[test]
    fn an_issuer_is_kept_as_it_is_written() {
        for (issuer, oauth, oidc) in [
            (
                "https://Login.Example.com:8443/a/b",
                "https://Login.Example.com:8443/.well-known/oauth-authorization-server/a/b",
                "https://Login.Example.com:8443/a/b/.well-known/openid-configuration",
            ),
            (
                "http://127.0.0.1:8080",
                "http://127.0.0.1:8080/.well-known/oauth-authorization-server",
                "http://127.0.0.1:8080/.well-known/openid-configuration",
            ),
        ] {
            check(issuer).unwrap();
            assert_eq!(urls(issuer), (oauth.to_owned(), oidc.to_owned()));
        }
    }

    #[test]
    fn what_is_no_issuer_is_refused_without_its_secrets() {
        for issuer in [
            "",
            "example.com",
            "https://",
            "ftp://example.com",
            "/a",
            "https://u:S3CR3T@example.com",
            "http://10.0.0.1",
        ] {
            let error = check(issuer).unwrap_err();
            assert!(error.is_config() && !error.to_string().contains("S3CR3T"), "{error}");
        }
    }

    #[test]
    fn a_document_that_is_none_is_refused_and_not_shown() {
        let issuer = "https://example.com";
        for document in [
            "",
            "<html>S3CR3T</html>",
            "[\"S3CR3T\"]",
            "null",
            r#"{"token_endpoint":"https://example.com/t"}"#,
            r#"{"issuer":"https://example.com"}"#,
            r#"{"issuer":"https://example.com","token_endpoint":7}"#,
            r#"{"issuer":"https://example.com","token_endpoint":"x","token_endpoint_auth_methods_supported":"S3CR3T"}"#,
            r#"{"issuer":"https://example.com","issuer":"https://example.com","token_endpoint":"x"}"#,
        ] {
            let error = Metadata::read(document.as_bytes(), issuer, &Redactor::default()).unwrap_err();
            assert!(error.is_protocol() && !error.to_string().contains("S3CR3T"), "{document}: {error}");
        }
        let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Metadata::read(nested.as_bytes(), issuer, &Redactor::default()).is_err());
    }

    #[test]
    fn of_a_foreign_issuer_its_name_is_told_and_no_password() {
        let issuer = "https://example.com";
        for (other, told) in [
            ("https://example.com/", "\"https://example.com/\""),
            ("https://u:S3CR3T@example.com/a", "\"https://example.com\""),
            ("https://example.com/a?S3CR3T", "\"https://example.com\""),
        ] {
            let document = serde_json::json!({ "issuer": other, "token_endpoint": "https://example.com/t" });
            let error =
                Metadata::read(document.to_string().as_bytes(), issuer, &Redactor::default()).unwrap_err();
            let what = error.to_string();
            assert!(error.is_config() && what.contains(told) && !what.contains("S3CR3T"), "{what}");
        }
    }

    #[test]
    fn of_methods_without_end_those_are_remembered_that_are_registered() {
        let issuer = "https://example.com";
        let many: Vec<String> = (0..100_000).map(|number| format!("m{number}")).collect();
        let document = serde_json::json!({
            "issuer": "https://example.com",
            "token_endpoint": "x",
            "token_endpoint_auth_methods_supported": many,
            "revocation_endpoint_auth_methods_supported": ["x".repeat(100_000), "S3CR3T-key", "tls_client_auth"],
        });
        let mut redactor = Redactor::default();
        redactor.add("S3CR3T-key");
        // A method must not get lost because a secret sounds like it.
        redactor.add("tls_client_auth");
        let read = Metadata::read(document.to_string().as_bytes(), issuer, &redactor).unwrap();
        assert!(read.methods(EndpointKind::Token).is_empty());
        assert_eq!(read.methods(EndpointKind::Revocation), ["tls_client_auth"]);
    }

    #[test]
    fn who_revokes_authenticates_as_the_metadata_say_of_revocation_or_else_of_tokens() {
        let issuer = "https://example.com";
        let methods = |more: &str| {
            let document = format!(r#"{{"issuer":"https://example.com","token_endpoint":"x"{more}}}"#);
            Metadata::read(document.as_bytes(), issuer, &Redactor::default())
                .unwrap()
                .methods(EndpointKind::Revocation)
                .to_vec()
        };
        assert_eq!(methods(""), ["client_secret_basic"]);
        let token = r#","token_endpoint_auth_methods_supported":["private_key_jwt"]"#;
        assert_eq!(methods(token), ["private_key_jwt"]);
        let own = r#","revocation_endpoint_auth_methods_supported":["client_secret_post"]"#;
        assert_eq!(methods(&format!("{token}{own}")), ["client_secret_post"]);
    }
}
