//! How the default policy does against servers that refuse, in simulated time: each row of the table is a server, a load
//! on it, and what must come of it.
//!
//! ```sh
//! cargo test --test simulation -- --nocapture     # a minute of each, a few seeds
//! bash tests/simulate.sh                          # ten minutes of each, 20 seeds
//! ```
//!
//! The real `RetryPolicy` layer runs end to end; only the time is not real, but in the last row.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests look at the paused clock, and seed the generator of the waits"
)]

mod rows;
mod world;

use std::time::Duration;

use rows::{Figure, ROWS};

/// How much is simulated.
#[derive(Clone, Copy)]
struct Scale {
    seeds: u64,
    /// How long a load goes on that has no end of its own.
    length: Duration,
}

impl Scale {
    fn from_env() -> Self {
        match std::env::var_os("SIMULATE_ALL") {
            Some(_) => Self { seeds: 20, length: Duration::from_secs(600) },
            None => Self { seeds: 3, length: Duration::from_secs(60) },
        }
    }
}

#[test]
fn every_row_of_the_table_is_within_its_limits() {
    let scale = Scale::from_env();
    let only = std::env::var("SIMULATE_ROW").unwrap_or_default();
    let mut broken = Vec::new();
    println!("{:<64} {:<28} {:>9}  {:>9}", "case", "figure", "worst", "limit");
    for (case, row) in ROWS.iter().filter(|(case, _)| case.contains(&only)) {
        let mut worst: Vec<Figure> = Vec::new();
        for seed in 0..scale.seeds {
            let figures = row(seed, scale.length);
            if worst.is_empty() {
                worst = figures;
                continue;
            }
            for (worst, figure) in worst.iter_mut().zip(figures) {
                *worst = worst.worse(figure);
            }
        }
        for figure in worst {
            println!("{case:<64} {figure}");
            if !figure.holds() {
                broken.push(format!("{case}: {figure}"));
            }
        }
    }
    assert!(broken.is_empty(), "beyond the limit:\n{}", broken.join("\n"));
}
