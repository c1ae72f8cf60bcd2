//! What a run leaves behind for somebody to read, and the search through it.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::fmt::Debug;
use std::sync::{Mutex, Once, PoisonError};

use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::log::Log;
use crate::words;

/// The log of this thread, and whatever else was shown.
pub(crate) struct Trail {
    log: Log,
    shown: Mutex<Vec<(String, String)>>,
    _guard: DefaultGuard,
}

impl Trail {
    /// Begins to log what happens on this thread, and in tasks that inherit its subscriber.
    pub(crate) fn begin() -> Self {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_span_events(FmtSpan::FULL)
            .with_ansi(false)
            .with_writer(log.clone())
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        Self { log, shown: Mutex::default(), _guard: guard }
    }

    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// Notes what Debug shows of a value.
    pub(crate) fn debug(&self, place: &str, value: &impl Debug) {
        self.note(place, format!("{value:?} {value:#?}"));
    }

    /// Notes all that can be asked of an error and its sources.
    pub(crate) fn error(&self, place: &str, error: &(dyn StdError + 'static)) {
        for error in std::iter::successors(Some(error), |error| (*error).source()) {
            self.note(place, format!("{error} {error:#} {error:?} {error:#?}"));
            if let Some(error) = error.downcast_ref::<tower_oauth2::Error>() {
                self.note(place, format!("{:?} {:?} {:?}", error.code(), error.description(), error.uri()));
            }
        }
    }

    pub(crate) fn note(&self, place: &str, text: String) {
        self.shown.lock().unwrap().push((place.to_owned(), text));
    }

    /// Searches everything for every secret that was planted. Returns where one is, the needle, and the line.
    pub(crate) fn leak(&self) -> Option<(String, String, String)> {
        let secrets = words::planted();
        if let Some((needle, line)) = first_leak(&self.log(), &secrets) {
            return Some(("the log".to_owned(), needle, line));
        }
        let shown = self.shown.lock().unwrap();
        // Together first: a search takes hundreds of needles.
        let all: String = shown.iter().map(|(_, text)| format!("{text}\n")).collect();
        first_leak(&all, &secrets)?;
        shown.iter().find_map(|(place, text)| {
            first_leak(text, &secrets).map(|(needle, line)| (place.clone(), needle, line))
        })
    }

    pub(crate) fn assert_clean(&self) {
        assert!(!self.log().is_empty() || !self.shown.lock().unwrap().is_empty(), "nothing was looked at");
        assert_eq!(self.leak(), None);
    }
}

/// Returns the first line that shows a secret, with the needle that was found there.
pub(crate) fn first_leak(text: &str, secrets: &[&str]) -> Option<(String, String)> {
    /// No needle is shorter. One pass looks for the beginnings of all: a log has megabytes, and needles are many.
    const BEGINNING: usize = 8;
    let needles: Vec<String> = secrets.iter().flat_map(|secret| words::needles(secret)).collect();
    let beginnings: HashSet<&[u8]> = needles.iter().map(|needle| &needle.as_bytes()[..BEGINNING]).collect();
    let mut pairs = vec![false; 1 << 16];
    beginnings.iter().for_each(|beginning| pairs[pair(beginning)] = true);

    let lower = text.to_lowercase();
    let hits = lower.as_bytes().windows(BEGINNING).enumerate();
    let mut hits = hits.filter(|(_, piece)| pairs[pair(piece)] && beginnings.contains(piece));
    let (at, needle) = hits.find_map(|(at, _)| {
        let rest = &lower.as_bytes()[at..];
        needles.iter().find(|needle| rest.starts_with(needle.as_bytes())).map(|needle| (at, needle))
    })?;
    let line = lower[..at].rfind('\n').map_or(0, |end| end + 1);
    Some((needle.clone(), lower[line..].lines().next().unwrap_or_default().to_owned()))
}

fn pair(piece: &[u8]) -> usize {
    usize::from(piece[0]) << 8 | usize::from(piece[1])
}

// --- Panics ---

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps the message of every panic in this process from now on.
pub(crate) fn listen_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(info.to_string());
            before(info);
        }));
    });
}

/// Returns the messages of the panics that hold `word`.
pub(crate) fn panics(word: &str) -> Vec<String> {
    let all = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().filter(|message| message.contains(word)).cloned().collect()
}
