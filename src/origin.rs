//! Where a token may go.
