//! Microsoft Entra ID: secrets, certificates, federated tokens, managed identities, claims challenges (feature `jwt`).
//!
//! 1. [`Entra`] is an identity: an app with a secret, a certificate (PS256 and `x5t#S256`) or a token of its platform, or the
//!    managed identity of a virtual machine or of App Service. [`from_env`](Entra::from_env) picks among those as
//!    `DefaultAzureCredential` does, and [`kind`](Entra::kind) says which it is.
//! 2. A token is for one API, by its scope. `connect` takes the origin of the base URL with `/.default`, which is
//!    right for Microsoft Graph and Azure Resource Manager. For others set a [`scope`](Entra::scope): Key Vault wants
//!    `https://vault.azure.net/.default`.
//! 3. A client by `connect` responds to claims challenges: on a 401 with `insufficient_claims` it fetches a token
//!    with these claims, and sends the request again. For a client with options, or layers of your own, there is [`ClaimsChallenge`]. A managed identity
//!    takes part in none.
//! 4. The server beside a machine is asked again while it says 404, 410 or 429, or fails, for up to a minute and a half.
//! 5. The identities of Service Fabric, Azure Arc and Machine Learning are not supported; their variables are an error that says
//!    so.
//!
//! Facts from Microsoft's documentation and libraries are stated without a mark. *Not confirmed*: the wording of refusals,
//! those of App Service included.
//!
//! # Examples
//!
//! With the identity of the environment:
//!
#![cfg_attr(all(feature = "hyper-client", feature = "stack"), doc = "```no_run")]
#![cfg_attr(not(all(feature = "hyper-client", feature = "stack")), doc = "```text")]
//! use tower_oauth2::providers::entra::Entra;
//!
//! # async fn example() -> Result<(), tower::BoxError> {
//! let graph = Entra::from_env()?.connect("https://graph.microsoft.com/v1.0")?;
//! println!("{}", graph.get("users").send().await?.error_for_status()?.text().await?);
//! # Ok(())
//! # }
//! ```
//!
//! A certificate in a national cloud:
//!
//! ```
//! use tower_oauth2::Secret;
//! use tower_oauth2::providers::entra::Entra;
//!
//! let (key, certificate) = (Secret::from_file("/run/app/key.pem"), Secret::from_file("/run/app/cert.pem"));
//! let entra = Entra::with_certificate("TENANT", "CLIENT-ID", key, certificate)
//!     .authority(Entra::US_GOVERNMENT)
//!     .scope("https://graph.microsoft.us/.default");
//! # let _ = entra;
//! ```
//!
//! # Variables
//!
//! The first row whose last variable is set counts, and then the others of the row must be set. An empty variable is not set.
//!
//! | identity | names |
//! |---|---|
//! | app with a secret | `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET` |
//! | app with a certificate | `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_CERTIFICATE_PATH`: PEM with key and certificate |
//! | app with a token of its platform | `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_FEDERATED_TOKEN_FILE` |
//! | managed identity of App Service | `IDENTITY_ENDPOINT`, `IDENTITY_HEADER`; `AZURE_CLIENT_ID` for one of several |
//! | managed identity of a virtual machine | none; `AZURE_CLIENT_ID` for one of several, `AZURE_POD_IDENTITY_AUTHORITY_HOST` for another host |
//!
//! `AZURE_AUTHORITY_HOST` is the cloud of an app.

mod claims;
#[cfg(feature = "stack")]
mod connect;
mod environment;
mod settings;

pub use self::claims::ClaimsChallenge;
pub use self::settings::Entra;
