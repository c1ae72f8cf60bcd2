//! Waits with chance in them.
