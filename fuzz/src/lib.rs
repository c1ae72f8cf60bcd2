//! What must hold for every input, for each place where tower-oauth2 reads what others wrote.
//!
//! A property takes bytes and panics where it finds a fault. The targets in `targets/` give them to libFuzzer
//! (`bash tests/fuzz.sh`), and `tests/smoke.rs` runs the same ones on stable, on the seeds and on what is near them.
//!
//! The readers are private, so this is a package that compiles their files as they stand, and the library needs no line
//! for it.

/// The files of the library.
#[path = "../../src"]
#[allow(
    dead_code,
    unfulfilled_lint_expectations,
    unused_imports,
    reason = "a part of the library is used by less than the whole"
)]
mod library {
    pub(crate) mod claims;
    pub(crate) mod clock;
    pub(crate) mod error;
    pub(crate) mod headers;
    pub(crate) mod origin;
    pub(crate) mod sync;
    pub(crate) mod text;
    pub(crate) mod token;

    pub(crate) mod grants {
        pub(crate) mod discovery {
            pub(crate) mod metadata;
        }
        pub(crate) mod endpoint {
            pub(crate) mod url;
        }
        /// How a request is encoded says nothing about the reading of its response.
        pub(crate) mod parameters {
            #[derive(Clone, Copy, Debug, Default)]
            pub(crate) struct Encoding;
        }
        pub(crate) mod response;
    }

    pub(crate) mod retry {
        pub(crate) mod body_factory;
        pub(crate) mod replay_body;
    }
}

// The files name each other by their places in the library.
use self::library::{claims, clock, error, grants, headers, origin, retry, sync, text, token};

/// Within the library only its neighbours see it, so it is here a second time.
#[path = "../../src/headers/structured.rs"]
#[allow(dead_code, clippy::duplicate_mod, reason = "a part of the library is used by less than the whole")]
mod structured;

mod input;
mod properties;
mod seeds;

pub use self::properties::*;
pub use self::seeds::{TARGETS, seeds};
