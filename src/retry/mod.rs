//! Sends a request again when that is right.
