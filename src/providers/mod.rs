//! Presets for vendors (feature `providers`): their addresses, habits and variables, filled into the builders of this crate.
//!
//! A preset is data and a builder that exists. All that it sets can be set otherwise on the builder that it returns. Facts from
//! a vendor's own code or documentation are stated without a mark; facts from the code of others alone are marked *not
//! confirmed*. Variables are read without spaces, invisible characters and one pair of quotes around their values.
//!
//! - [`cxone`]: NICE CXone
//! - [`genesys`]: Genesys Cloud
//! - `entra`: Microsoft Entra ID, managed identities of Azure (feature `jwt`)
//! - `github`: GitHub Apps (feature `jwt`)
//! - `google`: Google Cloud (feature `jwt`)
//!
//! The test kit has an emulator of each: `test_util::FakeCxone`, `FakeEntra`, `FakeGenesys`, `FakeGithub`, `FakeGoogle`.

pub mod cxone;
#[cfg(feature = "jwt")]
#[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
pub mod entra;
mod environment;
pub mod genesys;
#[cfg(feature = "jwt")]
#[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
pub mod github;
#[cfg(feature = "jwt")]
#[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
pub mod google;
#[cfg(feature = "jwt")]
mod headers;
mod passing;
mod revoke;
