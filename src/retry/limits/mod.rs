//! Whose limits a request counts against, and how many retries there may be. Requests are held back by the
//! [gate](super::gate).

pub(super) mod account;
pub(super) mod budget;
mod tally;
