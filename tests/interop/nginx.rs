//! nginx, which limits the rate; started by `tests/interop/run.sh`.

use std::time::Duration;

use tower::BoxError;

/// Where it listens and what it logs: a line per request, `STATUS PATH`.
pub(crate) struct Nginx {
    origin: String,
    log: String,
}

/// What its log tells of one path. Every path has a limit of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) sent: u32,
    pub(crate) served: u32,
    pub(crate) refused: u32,
}

impl Nginx {
    /// Requests per second that it takes.
    pub(crate) const PER_SECOND: u32 = 10;
    /// What it takes at once after a pause: the burst, and the one for which there is room.
    pub(crate) const AT_ONCE: u32 = 6;

    pub(crate) fn from_env() -> Result<Self, BoxError> {
        let read = |name| {
            std::env::var(name).map_err(|_| format!("{name} is not set; tests/interop/run.sh sets it"))
        };
        Ok(Self { origin: read("NGINX_ORIGIN")?, log: read("NGINX_LOG")? })
    }

    pub(crate) fn origin(&self) -> String {
        self.origin.clone()
    }

    /// Returns the shortest time in which so many requests can be served.
    pub(crate) fn ideal(requests: u32) -> Duration {
        Duration::from_secs(requests.saturating_sub(Self::AT_ONCE).into()) / Self::PER_SECOND
    }

    /// Reads the log, after a moment for its last lines.
    pub(crate) async fn counts(&self, path: &str) -> Result<Counts, BoxError> {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut counts = Counts::default();
        for line in std::fs::read_to_string(&self.log)?.lines() {
            let Some((status, of)) = line.split_once(' ') else { continue };
            if of == path {
                counts.sent += 1;
                counts.served += u32::from(status == "200");
                counts.refused += u32::from(status == "429");
            }
        }
        Ok(counts)
    }
}
