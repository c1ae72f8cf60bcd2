//! The outcomes of the requests, and how long they took.

use std::collections::BTreeMap;
use std::time::Duration;

/// One request, with all its replays.
pub(crate) struct Sample {
    pub(crate) kind: Kind,
    pub(crate) latency: Duration,
    /// How often it got a 401 and was sent again.
    pub(crate) rejected: usize,
    /// How often it got a 429 and was sent again.
    pub(crate) throttled: usize,
    /// The last response or error, if it was not a success.
    pub(crate) failure: Option<String>,
}

/// The events of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    /// A new token was fetched while it was on its way.
    DuringRefresh,
    /// It came when the last token had been refused and the next was not there yet.
    WithoutToken,
    /// It was sent again with a new token.
    Replayed,
    /// It waited since the API had asked for that.
    Waited,
}

pub(crate) struct Tally {
    samples: Vec<Sample>,
}

impl Tally {
    pub(crate) fn new(mut samples: Vec<Sample>) -> Self {
        samples.sort_by_key(|sample| sample.latency);
        Self { samples }
    }

    pub(crate) fn requests(&self) -> usize {
        self.samples.len()
    }

    pub(crate) fn failures(&self) -> usize {
        self.samples.iter().filter(|sample| sample.failure.is_some()).count()
    }

    pub(crate) fn replayed_401(&self) -> u64 {
        self.samples.iter().map(|sample| sample.rejected as u64).sum()
    }

    pub(crate) fn waited_429(&self) -> u64 {
        self.samples.iter().map(|sample| sample.throttled as u64).sum()
    }

    /// Prints the table, with what counters said above and the latencies below.
    pub(crate) fn print(&self, elapsed: Duration, rows: &[(&str, u64)]) {
        println!("\n{:<38}{:>9}", format!("in {:.1} s", elapsed.as_secs_f64()), "");
        for (name, value) in rows {
            println!("{name:<38}{value:>9}");
        }
        println!("\n{:<38}{:>9}{:>10}{:>10}{:>10}", "latency in ms", "requests", "p50", "p99", "max");
        for (kind, name) in [
            (Kind::Plain, "no refresh going on"),
            (Kind::DuringRefresh, "a refresh going on"),
            (Kind::WithoutToken, "no token left, waited for the next"),
            (Kind::Replayed, "replayed after a 401"),
            (Kind::Waited, "waited out a 429"),
        ] {
            let of_kind = |sample: &&Sample| sample.kind == kind;
            let latencies: Vec<f64> = self
                .samples
                .iter()
                .filter(of_kind)
                .map(|sample| sample.latency.as_secs_f64() * 1000.0)
                .collect();
            let Some(max) = latencies.last() else { continue };
            // Sorted, so a quantile is a place.
            let quantile = |part: usize| latencies[latencies.len() * part / 100];
            let (p50, p99) = (quantile(50), quantile(99));
            println!("{name:<38}{:>9}{p50:>10.1}{p99:>10.1}{max:>10.1}", latencies.len());
        }
        println!();
        let mut failures = BTreeMap::<&str, usize>::new();
        for failure in self.samples.iter().filter_map(|sample| sample.failure.as_deref()) {
            *failures.entry(failure).or_default() += 1;
        }
        for (failure, times) in failures.iter().take(5) {
            println!("failed {times} times: {failure}");
        }
    }
}
