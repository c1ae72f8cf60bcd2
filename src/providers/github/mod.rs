//! GitHub Apps: the app's JWT, installation tokens, rate limits (feature `jwt`).
//!
//! 1. [`GithubApp`] is an app and its private key. It signs a JWT (RS256, dated a minute back, for nine minutes) for each token
//!    request, and gets a token of an [`Installation`] for it. Such a token lives for an hour.
//! 2. An [`Installation`] may be narrowed to some repositories and permissions. It is the key of a
//!    [set of caches](GithubApp::installations), so each installation, and each narrowing of one, has a token of its own.
//! 3. Requests wait as the API asks: for `retry-after`, and for `x-ratelimit-reset` where `x-ratelimit-remaining` is 0, on a 429 as on
//!    a 403. After a 429 without either they wait a minute, and twice as long after the next one. See
//!    [`retry_policy`](GithubApp::retry_policy).
//! 4. A 403 of a secondary limit that has neither header says so in its body alone. It is returned.
//! 5. Requests carry `user-agent`, without which the API refuses them, `accept` and `x-github-api-version`, unless they have their
//!    own.
//!
//! Facts from GitHub's documentation are stated without a mark. *Not confirmed*: that GitHub compares `exp` with its own clock
//! alone, and the names of the variables: they are those of its Terraform provider, but for `GITHUB_API_URL`, which GitHub
//! Actions sets, and `GITHUB_APP_CLIENT_ID`, which goes by them.
//!
//! # Examples
//!
#![cfg_attr(all(feature = "hyper-client", feature = "stack"), doc = "```no_run")]
#![cfg_attr(not(all(feature = "hyper-client", feature = "stack")), doc = "```text")]
//! use tower_oauth2::Secret;
//! use tower_oauth2::providers::github::GithubApp;
//!
//! # async fn example() -> Result<(), tower::BoxError> {
//! let app = GithubApp::new("Iv23liABC", Secret::from_file("/run/secrets/app.pem"));
//! let api = app.connect(4711)?;
//! println!("{}", api.get("installation/repositories").send().await?.error_for_status()?.text().await?);
//! # Ok(())
//! # }
//! ```
//!
//! All installations of an app over one client. Requests that name no installation are the app's own:
//!
#![cfg_attr(all(feature = "hyper-client", feature = "stack"), doc = "```no_run")]
#![cfg_attr(not(all(feature = "hyper-client", feature = "stack")), doc = "```text")]
//! use tower_oauth2::providers::github::{GithubApp, Installation};
//! use tower_oauth2::transport::HyperClient;
//!
//! # async fn example() -> Result<(), tower::BoxError> {
//! let (app, http) = (GithubApp::from_env()?, HyperClient::new());
//! let installations = app.installations(http.clone()).capacity(500).build()?;
//! let api = app.api(app.jwt()?)?.build_with(http)?;
//!
//! let reader = Installation::new(4711).permission("issues", "read");
//! let mut request = api.get("repos/octo/site/issues");
//! installations.authorize(request.extensions_mut(), &reader)?;
//! let issues = request.send().await?;
//! # let _ = issues;
//! # Ok(())
//! # }
//! ```
//!
//! Lists come by [`Next::link`](crate::client::pages::Next::link).
//!
//! # Variables
//!
//! | what | names |
//! |---|---|
//! | client id, or id of the app | `GITHUB_APP_CLIENT_ID`, `GITHUB_APP_ID` |
//! | private key: its text, or the path of its file | `GITHUB_APP_PEM_FILE` |
//! | installation, if there is one | `GITHUB_APP_INSTALLATION_ID` |
//! | base URL of the API, if it is not `https://api.github.com` | `GITHUB_API_URL`, `GITHUB_BASE_URL` |
//!
//! `GITHUB_BASE_URL` may be the address of a GitHub Enterprise Server; its API is at `/api/v3` then.

mod app;
mod installation;

pub use self::app::GithubApp;
pub use self::installation::Installation;
