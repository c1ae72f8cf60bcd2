//! Token sources of OAuth 2.0.
