//! What several test binaries share.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]

mod log;
mod probe;
mod script;

pub(crate) use self::log::Log;
pub(crate) use self::probe::{Probe, Readiness};
pub(crate) use self::script::{Answer, Script, Seen, reply};
