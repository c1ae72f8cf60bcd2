//! What several test binaries share.

#![allow(dead_code, reason = "each test binary uses its own part")]

mod probe;

pub(crate) use self::probe::{Probe, Readiness};
