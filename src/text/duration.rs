//! Spans of time as people say them.

use std::fmt;
use std::time::Duration;

/// Shows a duration as people say it: `850ms`, `4.7s`, `42s`, `2h5m`.
pub(crate) fn show_duration(duration: Duration) -> String {
    struct Shown(Duration);
    impl fmt::Display for Shown {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let seconds = self.0.as_secs();
            match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
                (0, 0, 0) => write!(f, "{}ms", self.0.as_millis()),
                (0, 0, 1..10) => write!(f, "{:.1}s", self.0.as_secs_f64()),
                (0, 0, seconds) => write!(f, "{seconds}s"),
                (0, minutes, 0) => write!(f, "{minutes}m"),
                (0, minutes, seconds) => write!(f, "{minutes}m{seconds}s"),
                (hours, 0, _) => write!(f, "{hours}h"),
                (hours, minutes, _) => write!(f, "{hours}h{minutes}m"),
            }
        }
    }
    Shown(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_shown_in_its_largest_units() {
        let shown = [0, 850, 4_711, 42_000, 60_000, 95_000, 3_600_000, 7_500_000, 90_061_000]
            .map(|millis| show_duration(Duration::from_millis(millis)));
        assert_eq!(shown, ["0ms", "850ms", "4.7s", "42s", "1m", "1m35s", "1h", "2h5m", "25h1m"]);
    }
}
