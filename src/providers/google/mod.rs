//! Google Cloud: key files, the metadata server, impersonation, ID tokens (feature `jwt`).
//!
//! 1. [`Google`] is where credentials come from. [`from_env`](Google::from_env) looks for them as Google's own libraries do: a file
//!    that `GOOGLE_APPLICATION_CREDENTIALS` names, then the file of `gcloud auth application-default login`, then the metadata server.
//!    [`kind`](Google::kind) says which it is.
//! 2. A file may be a `service_account`, an `authorized_user`, an `impersonated_service_account`, or an `external_account` whose
//!    token is in a file. Any other is an error that names its type.
//! 3. [`impersonate`](Google::impersonate) takes the tokens of another service account. The base token is fetched for each request
//!    of one, with the scope `cloud-platform`, and is not kept. The token of the account is for an hour, even if a file says
//!    otherwise.
//! 4. [`id_tokens`](Google::id_tokens) are for services that know callers by an ID token, such as Cloud Run. The credentials of a
//!    user cannot get one; impersonate an account then.
//! 5. The key of a service account is read from its file for each token request. The rest of a file is read once.
//!
//! The addresses in a file decide where its secrets and tokens go. Take no file from others without a look at them.
//!
//! Facts from Google's libraries are stated without a mark. *Not confirmed*: that an ID token of the metadata server is plain
//! text, and the shape of `generateIdToken`.
//!
//! # Examples
//!
//! With the credentials of the environment:
//!
#![cfg_attr(all(feature = "hyper-client", feature = "stack"), doc = "```no_run")]
#![cfg_attr(not(all(feature = "hyper-client", feature = "stack")), doc = "```text")]
//! use tower_oauth2::providers::google::Google;
//!
//! # async fn example() -> Result<(), tower::BoxError> {
//! let google = Google::from_env()?.scope("https://www.googleapis.com/auth/devstorage.read_only");
//! let api = google.connect("https://storage.googleapis.com/storage/v1")?;
//! let buckets = api.get("b").query(&[("project", "my-project")]).send().await?.error_for_status()?;
//! println!("{}", buckets.text().await?);
//! # Ok(())
//! # }
//! ```
//!
//! A service on Cloud Run, in the name of another account:
//!
#![cfg_attr(all(feature = "hyper-client", feature = "stack"), doc = "```no_run")]
#![cfg_attr(not(all(feature = "hyper-client", feature = "stack")), doc = "```text")]
//! use tower_oauth2::ApiClient;
//! use tower_oauth2::providers::google::Google;
//! use tower_oauth2::transport::HyperClient;
//!
//! # async fn example() -> Result<(), tower::BoxError> {
//! let caller = Google::from_env()?.impersonate("caller@my-project.iam.gserviceaccount.com");
//! let tokens = caller.id_tokens("https://orders-abc.a.run.app", HyperClient::new())?.build();
//! let orders = ApiClient::connect("https://orders-abc.a.run.app", tokens)?;
//! println!("{}", orders.get("health").send().await?.status());
//! # Ok(())
//! # }
//! ```
//!
//! # Variables
//!
//! | what | names |
//! |---|---|
//! | file with credentials | `GOOGLE_APPLICATION_CREDENTIALS` |
//! | folder of `gcloud` | `CLOUDSDK_CONFIG`, or the one that it has by default |
//! | host of the metadata server (`metadata.google.internal`) | `GCE_METADATA_HOST` |
//! | project that is billed for requests, in place of the one in the file | `GOOGLE_CLOUD_QUOTA_PROJECT` |

mod credentials;
mod identity;
mod settings;

pub use self::settings::Google;
