//! When a request is sent again, and after which wait: settings and decisions, all of them functions of values.

pub(super) mod builder;
pub(super) mod classify;
pub(super) mod decide;
pub(super) mod idempotency;
pub(super) mod options;
pub(super) mod rules;
pub(super) mod view;
