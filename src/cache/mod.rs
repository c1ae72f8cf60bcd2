//! Makes any source calm.
