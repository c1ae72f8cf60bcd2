//! What an authorization server says about itself (RFC 8414, OpenID Connect Discovery 1.0).

use std::fmt;

use http::Uri;
use serde::Deserialize;

use crate::error::{Error, ErrorKind};
use crate::grants::endpoint::url::{self as address, Flaw, PlainHttp};
use crate::grants::response::wording::EndpointKind;
use crate::origin::Origin;
use crate::text::{self, Redactor};

/// Who issues tokens: an https URL without query and fragment (RFC 8414 §2), kept as it was written. Plain http is for
/// loopback, unless it is allowed.
pub(crate) struct Identifier {
    text: String,
    origin: Origin,
    /// Scheme and authority, then the path without the slash at its end.
    authority: String,
    path: String,
}

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
    mtls_endpoint_aliases: Option<Aliases>,
}

#[derive(Debug, Deserialize)]
struct Aliases {
    token_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
}

/// Why a document is not used: the class of the error, and the end of a sentence about the document.
#[derive(Debug)]
pub(crate) struct Unusable {
    pub(crate) class: ErrorKind,
    pub(crate) what: String,
}

// --- Identifier ---

impl Identifier {
    /// Reads an issuer identifier.
    ///
    /// # Errors
    ///
    /// A configuration error that says what is wrong.
    pub(crate) fn parse(issuer: &str, insecure_http: bool) -> Result<Self, Error> {
        let refuse = |what: &str| {
            let shown = text::origins_only(issuer);
            Err(Error::config(format!("issuer: {shown:?} {what}")))
        };
        if issuer.contains('#') {
            return refuse("has a fragment, which RFC 8414 §2 forbids; remove the # and what follows");
        }
        if issuer.contains('?') {
            return refuse("has a query, which RFC 8414 §2 forbids; remove the ? and what follows");
        }
        // As in the URL of an endpoint.
        if let Err(flaw @ (Flaw::NonAscii | Flaw::Dots)) = address::read(issuer, PlainHttp::Everybody) {
            return refuse(flaw.elsewhere());
        }
        let Ok(uri) = issuer.parse::<Uri>() else {
            return refuse("is not a URL; begin it with https:// and the host");
        };
        let Some(origin) = Origin::of(&uri) else {
            return refuse("is none that can be asked: it needs https:// and a host, and no user name");
        };
        if !origin.is_https() && !origin.is_loopback() && !insecure_http {
            return refuse(
                "is plain http, so anyone on the network path can name the token endpoint; use https \
                 (insecure_http(true) allows it all the same)",
            );
        }
        let path = uri.path().strip_suffix('/').unwrap_or(uri.path()).to_owned();
        // As it is written, but for the path.
        let authority = issuer[..issuer.len() - written_path(issuer).len()].to_owned();
        Ok(Self { text: issuer.to_owned(), origin, authority, path })
    }

    /// Where RFC 8414 §3.1 has the document.
    pub(crate) fn oauth_url(&self) -> String {
        format!("{}/.well-known/oauth-authorization-server{}", self.authority, self.path)
    }

    /// Where OpenID Connect Discovery 1.0 §4.1 has it.
    pub(crate) fn oidc_url(&self) -> String {
        format!("{}{}/.well-known/openid-configuration", self.authority, self.path)
    }

    /// Where RFC 8414 §5 has it for servers that put all well-known places in front of the path.
    pub(crate) fn inserted_oidc_url(&self) -> String {
        format!("{}/.well-known/openid-configuration{}", self.authority, self.path)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_https(&self) -> bool {
        self.origin.is_https()
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// The path of an absolute URL, as it stands there.
fn written_path(url: &str) -> &str {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    rest.find('/').map_or("", |at| &rest[at..])
}

// --- Metadata ---

impl Metadata {
    /// Reads a document that was asked for in the name of `expected`. If it is another's, nothing of it is used
    /// (RFC 8414 §3.3): the names are compared letter by letter.
    pub(crate) fn read(
        document: &[u8],
        expected: &Identifier,
        redactor: &Redactor,
    ) -> Result<Self, Unusable> {
        let nonsense = |what: &str| Unusable { class: ErrorKind::Protocol, what: what.into() };
        let Ok(mut metadata) = serde_json::from_slice::<Self>(document) else {
            return Err(nonsense("is not a JSON object of the form that RFC 8414 describes"));
        };
        match &metadata.issuer {
            Some(issuer) if issuer == expected.as_str() => {}
            Some(issuer) => {
                // It is what the setting must be, if the server is the right one.
                let is_name = !issuer.contains(['@', '?', '#']);
                let shown = if is_name { issuer.clone() } else { text::origins_only(issuer) };
                let shown = redactor.clean(&shown);
                return Err(Unusable {
                    class: ErrorKind::Config,
                    what: format!("is of another issuer ({shown:?}; compared letter by letter)"),
                });
            }
            None => return Err(nonsense("names no issuer")),
        }
        if metadata.token_endpoint.is_none() {
            return Err(nonsense("names no token endpoint"));
        }
        for methods in [
            &mut metadata.token_endpoint_auth_methods_supported,
            &mut metadata.revocation_endpoint_auth_methods_supported,
        ] {
            *methods = methods.take().map(|methods| bounded(methods, redactor));
        }
        Ok(metadata)
    }

    /// Returns the URL of an endpoint, if the server has it; with a client certificate it may be elsewhere.
    pub(crate) fn url(&self, kind: EndpointKind, mtls: bool) -> Option<&str> {
        let aliases = self.mtls_endpoint_aliases.as_ref().filter(|_| mtls);
        let (alias, url) = match kind {
            EndpointKind::Token => {
                (aliases.and_then(|aliases| aliases.token_endpoint.as_ref()), &self.token_endpoint)
            }
            EndpointKind::Revocation => {
                (aliases.and_then(|aliases| aliases.revocation_endpoint.as_ref()), &self.revocation_endpoint)
            }
        };
        alias.or(url.as_ref()).map(String::as_str)
    }

    /// Returns how clients may authenticate at an endpoint. The default is that of RFC 8414 §2, which has it for revocation
    /// too; but servers that leave that out mean the methods of the token endpoint.
    pub(crate) fn methods(&self, kind: EndpointKind) -> Vec<String> {
        let for_token = &self.token_endpoint_auth_methods_supported;
        let named = match kind {
            EndpointKind::Token => for_token,
            EndpointKind::Revocation => match &self.revocation_endpoint_auth_methods_supported {
                None => for_token,
                named => named,
            },
        };
        named.clone().unwrap_or_else(|| vec!["client_secret_basic".to_owned()])
    }
}

/// The methods of a real server are a dozen; they are remembered for an hour, and shown where none of them fits.
const MOST_METHODS: usize = 64;
const LONGEST_METHOD: usize = 64;

/// The registered ones that are known here (RFC 8414 §2), which say nothing of a secret, whatever words that is made of.
const REGISTERED: [&str; 7] = [
    "private_key_jwt",
    "tls_client_auth",
    "self_signed_tls_client_auth",
    "client_secret_jwt",
    "client_secret_basic",
    "client_secret_post",
    "none",
];

/// Drops what is no name of a method, be it too long or an echo of a secret.
fn bounded(mut methods: Vec<String>, redactor: &Redactor) -> Vec<String> {
    methods.truncate(MOST_METHODS);
    methods.retain(|method| {
        REGISTERED.contains(&method.as_str()) || (method.len() <= LONGEST_METHOD && !redactor.finds(method))
    });
    methods.shrink_to_fit();
    methods
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::endpoint::url;
    use crate::vectors;

    fn parse(issuer: &str) -> Result<Identifier, Error> {
        Identifier::parse(issuer, false)
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
                "as_url" => match (parse(text("issuer").unwrap()), expect["error"].as_str()) {
                    (Ok(issuer), None) => {
                        assert_eq!(issuer.oauth_url(), expect["oauth_url"].as_str().unwrap(), "{id}");
                        assert_eq!(issuer.oidc_url(), expect["oidc_url"].as_str().unwrap(), "{id}");
                    }
                    (Err(error), Some("invalid_issuer")) => assert!(error.is_config(), "{id}: {error}"),
                    (other, _) => panic!("{id}: {other:?}"),
                },
                kind @ ("issuer_check" | "endpoint_check") => {
                    let document = &input["document"];
                    let expected = text("expected_issuer").or(document["issuer"].as_str()).unwrap();
                    let expected = parse(expected).unwrap();
                    let read =
                        Metadata::read(document.to_string().as_bytes(), &expected, &Redactor::default());
                    let mtls = input["mtls"].as_bool().unwrap_or_default();
                    let token_url =
                        |metadata: &Metadata| metadata.url(EndpointKind::Token, mtls).unwrap().to_owned();
                    let checked = read.as_ref().is_ok_and(|metadata| {
                        kind == "issuer_check" || url::read(&token_url(metadata), PlainHttp::Nobody).is_ok()
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
            let read = parse(issuer).unwrap();
            assert_eq!((read.as_str(), &*read.oauth_url(), &*read.oidc_url()), (issuer, oauth, oidc));
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
            let error = parse(issuer).unwrap_err();
            assert!(error.is_config() && !error.to_string().contains("S3CR3T"), "{error}");
        }
    }

    #[test]
    fn a_document_that_is_none_is_refused_and_not_shown() {
        let issuer = parse("https://example.com").unwrap();
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
            let Unusable { class, what } =
                Metadata::read(document.as_bytes(), &issuer, &Redactor::default()).unwrap_err();
            assert!(class == ErrorKind::Protocol && !what.contains("S3CR3T"), "{document}: {what}");
        }
        let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Metadata::read(nested.as_bytes(), &issuer, &Redactor::default()).is_err());
    }

    #[test]
    fn of_a_foreign_issuer_its_name_is_told_and_no_password() {
        let issuer = parse("https://example.com").unwrap();
        for (other, told) in [
            ("https://example.com/", "\"https://example.com/\""),
            ("https://u:S3CR3T@example.com/a", "\"https://example.com\""),
            ("https://example.com/a?S3CR3T", "\"https://example.com\""),
        ] {
            let document = serde_json::json!({ "issuer": other, "token_endpoint": "https://example.com/t" });
            let Unusable { class, what } =
                Metadata::read(document.to_string().as_bytes(), &issuer, &Redactor::default()).unwrap_err();
            assert!(class == ErrorKind::Config && what.contains(told) && !what.contains("S3CR3T"), "{what}");
        }
    }

    #[test]
    fn of_methods_without_end_few_are_remembered() {
        let issuer = parse("https://example.com").unwrap();
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
        let read = Metadata::read(document.to_string().as_bytes(), &issuer, &redactor).unwrap();
        assert_eq!(read.methods(EndpointKind::Token), &many[..64]);
        assert_eq!(read.methods(EndpointKind::Revocation), ["tls_client_auth"]);
    }

    #[test]
    fn who_revokes_authenticates_as_the_metadata_say_of_revocation_or_else_of_tokens() {
        let issuer = parse("https://example.com").unwrap();
        let methods = |more: &str| {
            let document = format!(r#"{{"issuer":"https://example.com","token_endpoint":"x"{more}}}"#);
            Metadata::read(document.as_bytes(), &issuer, &Redactor::default())
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
