//! Genesys Cloud: regions, grants, rate limits, paging, permissions.
//!
//! 1. [`Genesys`] is a [`Region`] and an OAuth client. It fills in the builders of this crate; each can be changed after that.
//! 2. The API limits requests by token, to 300 a minute as a rule. A [pool](Genesys::pool) has several tokens.
//! 3. A [gateway](Genesys::gateway) of your own stands in for both hosts, and gets the tokens.
//!
//! # Examples
//!
//! With the variables below, over the default HTTP client:
//!
#![cfg_attr(all(feature = "hyper-client", feature = "stack"), doc = "```no_run")]
#![cfg_attr(not(all(feature = "hyper-client", feature = "stack")), doc = "```text")]
//! use serde_json::Value;
//! use tower_oauth2::providers::genesys::{self, Genesys};
//!
//! # async fn example() -> Result<(), tower::BoxError> {
//! let api = Genesys::from_env()?.connect()?;
//! let mut pages = api.get("users").query(&[("pageSize", 100)]).pages(genesys::entities());
//! while let Some(page) = pages.next().await {
//!     let users: Vec<Value> = page?.items()?;
//!     println!("{}: {} users", pages.progress(), users.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Without variables, and with the builders in sight:
//!
#![cfg_attr(all(feature = "hyper-client", feature = "stack"), doc = "```no_run")]
#![cfg_attr(not(all(feature = "hyper-client", feature = "stack")), doc = "```text")]
//! use tower_oauth2::Secret;
//! use tower_oauth2::providers::genesys::Genesys;
//! use tower_oauth2::transport::HyperClient;
//!
//! # fn example() -> Result<(), tower::BoxError> {
//! let genesys = Genesys::new("eu-central-1".parse()?, "CLIENT-ID", Secret::from_env("GENESYS_CLIENT_SECRET"));
//! let source = genesys.client_credentials().build()?;
//! let tokens = genesys.cache(source, HyperClient::new()).build();
//! let api = genesys.api(tokens)?.concurrency_limit(16).build()?;
//! # let _ = api;
//! # Ok(())
//! # }
//! ```
//!
//! # Variables
//!
//! The first name that is set counts. An empty variable is not set.
//!
//! | what | names |
//! |---|---|
//! | client id | `GENESYSCLOUD_OAUTHCLIENT_ID`, `GENESYS_CLOUD_CLIENT_ID`, `GENESYS_CLIENT_ID` |
//! | client secret | `GENESYSCLOUD_OAUTHCLIENT_SECRET`, `GENESYS_CLOUD_CLIENT_SECRET`, `GENESYS_CLIENT_SECRET` |
//! | region | `GENESYSCLOUD_REGION`, `GENESYS_CLOUD_REGION`, `GENESYS_REGION`, `GENESYS_BASE_URL`, `GENESYS_ENVIRONMENT` |
//! | an access token, in place of the client | `GENESYSCLOUD_ACCESS_TOKEN` |
//! | size of the pool (1) | `GENESYSCLOUD_TOKEN_POOL_SIZE` |
//! | proxy | `GENESYSCLOUD_PROXY_` and `HOST`, `PORT`, `PROTOCOL` (`http`), `AUTH_USERNAME`, `AUTH_PASSWORD` |
//! | gateway | `GENESYSCLOUD_GATEWAY_` and `HOST`, `PORT`, `PROTOCOL` (`https`), `PATH_NAME` (`login` or `api`), `PATH_VALUE` |
//!
//! The region has no default here; in some versions of the vendor's Terraform provider it is `us-east-1`. A user name for the
//! gateway is refused, since `Authorization` has the token.
//!
//! # Permissions
//!
//! [`error_for_status`] makes an error of a 403 that names the permission that is missing.
//! [`require_scopes`](TokenInfo::require_scopes) checks the scopes of the client before the first call.

mod api;
mod environment;
mod gateway;
mod patient;
mod region;
mod settings;

pub use self::api::{Refused, TokenInfo, conversations, entities, error_for_status, next_uri, token_info};
pub use self::region::Region;
pub use self::settings::Genesys;
