//! Token sources for common providers, to copy.
//!
//! 1. Each recipe is a function that returns a token source or an [`ApiClient`](crate::ApiClient). Replace the names in it, such
//!    as `CLIENT-ID` and `example`, with yours.
//! 2. `http` is the HTTP client that reaches the token endpoint, any [`HttpTransport`](crate::transport::HttpTransport). With the
//!    default one, write `.build()` in place of `.build_with(http)`.
//! 3. A secret is a [`Secret`](crate::Secret): `Secret::from_env("..")`, `Secret::from_file("..")`, or a text.
//! 4. A source fetches and does not cache. Give it to an [`ApiClient`](crate::ApiClient), an [`AuthLayer`](crate::AuthLayer) or a
//!    [`TokenCache`](crate::TokenCache).
//! 5. The tests of this crate run each recipe as it stands here, against an emulator that refuses every request that differs in
//!    a header, a field or a signature.
//!
//! Below each recipe is where its facts come from. *Not confirmed* marks those that neither the vendor's pages nor its code say.
//!
//! Genesys Cloud and NICE CXone have presets: `providers` (feature `providers`).
//!
//! | provider | grant |
//! |---|---|
//! | [Salesforce](#salesforce) | JWT bearer, client credentials |
//! | [Auth0](#auth0) | client credentials |
//! | [Okta](#okta) | client credentials by a key |
//! | [Keycloak](#keycloak) | client credentials, token exchange |
//! | [AWS Cognito](#aws-cognito) | client credentials |
//! | [Zoom](#zoom) | its own, server-to-server |
//! | [Spotify](#spotify) | client credentials |
//! | [Slack](#slack) | refresh token |
//! | [Shopify](#shopify) | client credentials |
//! | [UiPath](#uipath) | client credentials |
//! | [SAP Cloud Identity Services](#sap-cloud-identity-services) | client credentials |
//! | [HashiCorp Vault, AppRole](#hashicorp-vault-approle) | its own, `AppRole` |
//! | [Kubernetes](#kubernetes) | a file, `TokenRequest` |
//! | [Docker registry](#docker-registry) | its own, by GET |
//!
//! # Salesforce
//!
//! ## In the name of a user
//!
//! The assertion names the user, the client does not authenticate otherwise, and the response has no `expires_in`: a token is used
//! until the API rejects it. For a sandbox, `login` is `https://test.salesforce.com`. A user who has not approved the app is an
//! `invalid_grant`, which an administrator cures.
//!
#![cfg_attr(feature = "jwt", doc = "```")]
#![cfg_attr(not(feature = "jwt"), doc = "```text")]
#![doc = include_str!("recipes/salesforce_user.rs")]
#![doc = "```"]
//!
//! Source: `simple_salesforce/login.py` of simple-salesforce, which sends `exp` as a string; here it is a number, as RFC 7519 has
//! it.
//!
//! ## In the app's own name
//!
//! The token endpoint is at the org's own domain, and takes id and secret in the form. There is no `expires_in`.
//!
#![doc = "```"]
#![doc = include_str!("recipes/salesforce_client.rs")]
#![doc = "```"]
//!
//! Source: Salesforce Help, "OAuth 2.0 Client Credentials Flow".
//!
//! ## The API, from the token response
//!
//! `instance_url` in the response says where the API of the org is. The token goes there, so only a host of the vendor is taken.
//!
#![cfg_attr(feature = "stack", doc = "```")]
#![cfg_attr(not(feature = "stack"), doc = "```text")]
#![doc = include_str!("recipes/salesforce_api.rs")]
#![doc = "```"]
//!
//! Source: Salesforce Help, "OAuth 2.0 Client Credentials Flow". That every `instance_url` is below `salesforce.com` is *not
//! confirmed*.
//!
//! # Auth0
//!
//! The `audience`, the identifier of the API, is required.
//!
#![doc = "```"]
#![doc = include_str!("recipes/auth0.rs")]
#![doc = "```"]
//!
//! Source: `src/auth/oauth.ts` of auth0/node-auth0.
//!
//! # Okta
//!
//! The audience of the assertion is the token URL. New apps demand DPoP, which this crate does not speak: switch it off for the
//! app, or the error says that DPoP is demanded.
//!
#![cfg_attr(feature = "jwt", doc = "```")]
#![cfg_attr(not(feature = "jwt"), doc = "```text")]
#![doc = include_str!("recipes/okta.rs")]
#![doc = "```"]
//!
//! Source: `okta/client.go` of okta/okta-sdk-golang. That DPoP is on by default was read in the vendor's forum.
//!
//! # Keycloak
//!
//! The realm is part of the URL. `refresh_expires_in` and `not-before-policy` in the response count for nothing.
//!
#![doc = "```"]
#![doc = include_str!("recipes/keycloak.rs")]
#![doc = "```"]
//!
//! Source: issue 37114 of keycloak/keycloak; *not confirmed* for the client credentials grant.
//!
//! ## Exchange a user's token
//!
//! The client needs the attribute `standard.token.exchange.enabled`. A [`Secret`](crate::Secret) or a token source can be the
//! subject: it is read at each exchange.
//!
#![doc = "```"]
#![doc = include_str!("recipes/keycloak_exchange.rs")]
#![doc = "```"]
//!
//! Source: issue 37114 of keycloak/keycloak, and the documentation of keycloak-config-cli.
//!
//! # AWS Cognito
//!
//! A scope is the identifier of a resource server, a slash, and its scope. Errors come with 400, `invalid_client` too.
//!
#![doc = "```"]
#![doc = include_str!("recipes/cognito.rs")]
#![doc = "```"]
//!
//! Source: Amazon Cognito Developer Guide, "Token endpoint".
//!
//! # Zoom
//!
//! The grant type is Zoom's own, `account_credentials`. There is no refresh token. Whether a second token ends the first one is
//! *not confirmed*: Zoom's page says no, a user's page says yes.
//!
#![doc = "```"]
#![doc = include_str!("recipes/zoom.rs")]
#![doc = "```"]
//!
//! Source: developers.zoom.us, "Server-to-Server OAuth".
//!
//! # Spotify
//!
//! The plain case of RFC 6749: HTTP Basic, no scope, a token for an hour.
//!
#![doc = "```"]
#![doc = include_str!("recipes/spotify.rs")]
#![doc = "```"]
//!
//! Source: developer.spotify.com, "Client Credentials Flow".
//!
//! # Slack
//!
//! Token rotation: each exchange spends the refresh token, so add
//! [`on_rotate`](crate::grants::GrantBuilder::on_rotate), which stores the new one, and then `build`. The type of a token is `bot` or
//! `user`, and an error is a 200 with `"ok": false`.
//!
#![doc = "```"]
#![doc = include_str!("recipes/slack.rs")]
#![doc = "```"]
//!
//! Source: `slack_sdk/oauth/token_rotation/rotator.py` of slackapi/python-slack-sdk, and api.slack.com, "Token rotation".
//!
//! # Shopify
//!
//! The grant is for apps and stores of one organization, and each shop has its own token. The scopes in the response have commas
//! between. The API takes the token in the header `X-Shopify-Access-Token` (*not confirmed*):
//! [`AuthLayer::header`](crate::AuthLayer::header) or [`auth`](crate::stack::StackBuilder::auth) of a client.
//!
#![doc = "```"]
#![doc = include_str!("recipes/shopify.rs")]
#![doc = "```"]
//!
//! Source: shopify.dev, "Using the client credentials grant".
//!
//! # UiPath
//!
//! A request that the server does not like gets a 200 with an HTML page, which is retried and then is an error.
//!
#![doc = "```"]
#![doc = include_str!("recipes/uipath.rs")]
#![doc = "```"]
//!
//! Source: topics 358769 and 504018 of forum.uipath.com; *not confirmed* by the vendor's pages.
//!
//! # SAP Cloud Identity Services
//!
//! Id and secret are form-encoded before they become HTTP Basic (RFC 6749 §2.3.1), which matters for ids such as `sb-app!t1`.
//! An assertion of another issuer does as well: [`ClientAuth::assertion`](crate::ClientAuth::assertion).
//!
#![doc = "```"]
#![doc = include_str!("recipes/sap.rs")]
#![doc = "```"]
//!
//! Source: the page on client credentials of SAP-docs/btp-cloud-identity-services.
//!
//! # HashiCorp Vault, AppRole
//!
//! The endpoint is JSON, and the token is inside `auth`; the `lease_duration` at the top is 0. A `secret_id` may be good for a
//! few logins only. The API takes the token in the header `X-Vault-Token`:
//! [`AuthLayer::header`](crate::AuthLayer::header) or [`auth`](crate::stack::StackBuilder::auth) of a client.
//!
#![doc = "```"]
#![doc = include_str!("recipes/vault.rs")]
#![doc = "```"]
//!
//! Source: `website/content/api-docs/auth/approle.mdx` of hashicorp/vault.
//!
//! # Kubernetes
//!
//! ## A projected token
//!
//! The kubelet renews the file, which is read again before the token in it expires, and when the API rejects it. The path is that
//! of the volume, such as `/var/run/secrets/tokens/reports`.
//!
#![cfg_attr(feature = "stack", doc = "```")]
#![cfg_attr(not(feature = "stack"), doc = "```text")]
#![doc = include_str!("recipes/kubernetes_projected.rs")]
#![doc = "```"]
//!
//! Source: kubernetes.io, "Configure Service Accounts for Pods"; *not confirmed* by its API reference.
//!
//! ## `TokenRequest`: a token for another audience
//!
//! The pod's own token authorizes the request. The lifetime that the server grants may differ from `expirationSeconds`, so
//! `expirationTimestamp` counts.
//!
#![doc = "```"]
#![doc = include_str!("recipes/kubernetes_token_request.rs")]
#![doc = "```"]
//!
//! Source: `TokenRequest` of `authentication.k8s.io/v1` in the API reference of `OpenShift` 4.16.
//!
//! # Docker registry
//!
//! The registry's 401 names the endpoint, the service and the scope. User and password are HTTP Basic as they are. A response without `expires_in` means 60 seconds: set
//! [`max_age`](crate::cache::TokenCacheBuilder::max_age) of the cache. Fewer rights than you asked for are not an error.
//!
#![doc = "```"]
#![doc = include_str!("recipes/docker_registry.rs")]
#![doc = "```"]
//!
//! Source: `docs/content/spec/auth/token.md` of distribution/distribution.
