//! Responses: what they are made of, what they prove, and what is said of them.

pub(crate) mod body;
pub(crate) mod classifier;
pub(crate) mod codes;
pub(crate) mod expected;
pub(crate) mod messages;
pub(crate) mod refused;
pub(crate) mod token;
pub(crate) mod verdict;
