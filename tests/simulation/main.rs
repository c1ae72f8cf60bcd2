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

use std::num::NonZero;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use rows::{Figure, ROWS, Row};

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
    let rows: Vec<_> = ROWS.iter().filter(|(case, _)| case.contains(&only)).collect();
    let figures: Vec<OnceLock<Vec<Figure>>> = rows.iter().map(|_| OnceLock::new()).collect();
    // Each row has a runtime, a clock and a generator of its own.
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let at = next.fetch_add(1, Relaxed);
            let Some((_, row)) = rows.get(at) else { return };
            figures[at].set(worst(*row, scale)).unwrap();
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));

    let mut broken = Vec::new();
    println!("{:<64} {:<28} {:>9}  {:>9}", "case", "figure", "worst", "limit");
    for ((case, _), figures) in rows.iter().zip(&figures) {
        for figure in figures.get().unwrap() {
            println!("{case:<64} {figure}");
            if !figure.holds() {
                broken.push(format!("{case}: {figure}"));
            }
        }
    }
    assert!(broken.is_empty(), "beyond the limit:\n{}", broken.join("\n"));
}

/// Returns the worst of each figure of a row, over all seeds.
fn worst(row: Row, scale: Scale) -> Vec<Figure> {
    // A row may be about some of the seeds alone.
    let runs = (0..scale.seeds).map(|seed| row(seed, scale.length)).filter(|figures| !figures.is_empty());
    let worse = |worst: Vec<Figure>, run: Vec<Figure>| {
        worst.into_iter().zip(run).map(|(worst, figure)| worst.worse(figure)).collect()
    };
    runs.reduce(worse).unwrap_or_default()
}
