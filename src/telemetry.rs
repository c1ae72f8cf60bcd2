//! The names of spans, events and their fields.
