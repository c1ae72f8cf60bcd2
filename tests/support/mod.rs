//! What several test binaries share, beside the test kit of the crate.

mod log;

pub(crate) use self::log::Log;
