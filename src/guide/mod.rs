//! Pages on one task each, in the order in which you meet them.
//!
//! | you want to | page |
//! |---|---|
//! | choose between `ApiClient`, the stack and single layers; share a client between handlers | [`layers`] |
//! | know what happens to a request in each case | [`what_happens`] |
//! | set a timeout, and know which one ended a request | [`timeouts`] |
//! | print an error and act on it | [`errors`] |
//! | look up a message, its cause and its cure | [`failures`] |
//! | see in the log what goes on | [`logging`] |
//! | count it, and alert on it | [`metrics`] |
//! | say whether a service is ready | [`health`] |
//! | change what is retried, for all requests or for one | [`retries`] |
//! | send a file or a multipart form | [`uploads`] |
//! | save a large response to a file, or read it line by line | [`downloads`] |
//! | go through a proxy, or trust a private authority | [`network`] |
//! | use the tokens of many tenants | [`tenants`] |
//! | get tokens from Salesforce, Auth0, Okta, Keycloak, Vault or a dozen other providers | [`recipes`] |
//! | share one token between processes, or keep it for the next start | [`store`](crate::store) |
//! | write a source of tokens yourself | [`sources`] |
//! | test your program | [`testing`] |
//! | know what is protected, and what is left to you | [`security`] |
//! | use reqwest's client, or reqwest-middleware | [`reqwest`] |
//! | call a gRPC service | [`tonic`] |
//! | put the layers under kube's client, or octocrab's | [`kube`] |
//! | come from the SDKs of Genesys Cloud or NICE CXone | [`migration`] |
//!
//! The pages speak of all features. Their programs are compiled, and most of them run, with the tests.

#![cfg_attr(
    not(feature = "full"),
    allow(rustdoc::broken_intra_doc_links, reason = "the pages speak of all features")
)]

/// A page that is a file beside this one.
macro_rules! page {
    ($name:ident, $file:literal) => {
        // Their programs are compiled with all features.
        #[cfg_attr(any(feature = "full", not(doctest)), doc = include_str!($file))]
        pub mod $name {}
    };
}

page!(downloads, "downloads.md");
page!(errors, "errors.md");
page!(failures, "failures.md");
page!(health, "health.md");
pub mod kube;
page!(layers, "layers.md");
page!(logging, "logging.md");
page!(metrics, "metrics.md");
page!(migration, "migration.md");
page!(network, "network.md");
pub mod recipes;
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub mod reqwest;
page!(retries, "retries.md");
page!(security, "security.md");
page!(sources, "sources.md");
page!(tenants, "tenants.md");
page!(testing, "testing.md");
page!(timeouts, "timeouts.md");
pub mod tonic;
page!(uploads, "uploads.md");
page!(what_happens, "what_happens.md");
