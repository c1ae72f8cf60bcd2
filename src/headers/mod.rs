//! What servers say in response headers, read into values.
