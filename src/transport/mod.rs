//! Ready-made transports.
