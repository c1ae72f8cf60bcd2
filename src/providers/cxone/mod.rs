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
//! 6. If a token of the access key comes with a refresh token, that renews it, and the access key is for when it is refused.
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
//! Several tokens of one client, where the API limits each ([`pool`](crate::pool) has the rules, and the caveat about the terms of
//! use). Here against the emulator of the test kit:
//!
//! ```
//! # #[cfg(all(feature = "stack", feature = "test-util"))] {
//! use tower::Layer as _;
//! use tower_oauth2::client::ApiService;
//! use tower_oauth2::pool::TokenPool;
//! use tower_oauth2::providers::cxone::Cxone;
//! use tower_oauth2::stack::Stack;
//! use tower_oauth2::test_util::FakeCxone;
//! use tower_oauth2::{ApiClient, AuthLayer};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let http = FakeCxone::builder().client("reports", "s3cr=t").access_key("key", "k=y").build();
//! let cxone = Cxone::new("reports", "s3cr=t").access_key("key", "k=y").issuer(FakeCxone::ISSUER);
//! let transport = http.clone();
//! let pool = TokenPool::builder(2, move |_number| cxone.password()?.build_with(transport.clone())).build()?;
//!
//! let layers = Stack::with_auth(AuthLayer::per_request(["https://api-na1.cxone.test"])?);
//! let service = pool.layer(layers.build(http));
//! let api = ApiClient::new("https://api-na1.cxone.test", ApiService::new(pool.first().clone(), service))?;
//! assert_eq!(api.get("incontactapi/services/v30.0/agents").send().await?.status(), 200);
//! # Ok::<_, tower::BoxError>(()) })?;
//! # }
//! # Ok::<_, tower::BoxError>(())
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
mod renewal;
mod settings;

pub use self::discovery::tenant_of;
pub use self::settings::Cxone;
