//! Puts tokens on requests.
