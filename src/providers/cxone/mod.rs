//! NICE CXone: access keys, discovery of the tenant's API, variables.
//!
//! 1. [`Cxone`] is an OAuth client, and perhaps an access key of an API user. The token endpoint comes from the issuer's OpenID
//!    configuration.
//! 2. The vendor documents the password grant with an access key for back ends. The "password" is the secret of the access
//!    key; a person's own password does not belong there.
//! 3. The API of a tenant is where a second discovery says: the tenant is a claim of the `id_token`, and
//!    `/.well-known/cxone-configuration` names its `api_endpoint`. `connect_with` does both.
//! 4. A token goes to an `api_endpoint` of https in one of the [domains](Cxone::domains) only. Anything else that the discovery
//!    may name is an error, and the token stays.
//! 5. Where a response has no `expires_in`, the `exp` of the token counts, if it is a JWT.
//!
//! The second discovery, the claim and the names of its members are *not confirmed* by the vendor's pages: they were read in the
//! code of others. So were the variables. [`base_uri`](Cxone::base_uri) leaves the discovery out.
//!
//! # Examples
//!
#![cfg_attr(all(feature = "hyper-client", feature = "stack"), doc = "```no_run")]
#![cfg_attr(not(all(feature = "hyper-client", feature = "stack")), doc = "```text")]
//! use tower_oauth2::providers::cxone::Cxone;
//! use tower_oauth2::transport::HyperClient;
//!
//! # async fn example() -> Result<(), tower::BoxError> {
//! let api = Cxone::from_env()?.connect_with(HyperClient::new()).await?;
//! println!("{}", api.get("incontactapi/services/v30.0/agents").send().await?.text().await?);
//! # Ok(())
//! # }
//! ```
//!
//! # Variables
//!
//! | what | names |
//! |---|---|
//! | client id and secret | `CXONE_CLIENT_ID`, `CXONE_CLIENT_SECRET` |
//! | access key, if there is one | `CXONE_ACCESS_KEY_ID` or `CXONE_ACCESS_KEY`; `CXONE_ACCESS_KEY_SECRET` or `CXONE_ACCESS_SECRET` |
//! | base URL of the API, in place of the discovery | `CXONE_BASE_URI` |

mod discovery;
mod settings;

pub use self::discovery::{Endpoints, tenant_of};
pub use self::settings::Cxone;
