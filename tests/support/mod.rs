//! What several test binaries share.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]

mod log;

pub(crate) use tower_oauth2::test_util::{Answer, Probe, Readiness, Script, Seen, reply};

pub(crate) use self::log::Log;
