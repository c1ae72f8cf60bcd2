//! The names of spans and targets, in one place: dashboards are built on them.

/// The span of one flight to the token source.
pub(crate) const FETCH_SPAN: &str = "token_fetch";
