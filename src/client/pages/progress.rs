//! How far one is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far [`Pages`](super::Pages) are: what came, and what the server says there is. It shows as
/// `page 3 of 12, 75 of 300 items`.
///
/// # Examples
///
/// ```
/// use tower_oauth2::client::pages::Progress;
///
/// fn left(progress: &Progress) -> Option<u64> {
///     progress.total()?.checked_sub(progress.items()?)
/// }
/// # let _ = left;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub(super) pages: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) items: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) page_count: Option<u64>,
}

impl Progress {
    /// Returns how many pages came.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Returns how many items came, if they can be counted: see [`Next::items`](super::Next::items).
    #[must_use]
    pub fn items(&self) -> Option<u64> {
        self.items
    }

    /// Returns how many items there are, as far as a page said so, the newest one: see [`Next::total`](super::Next::total).
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// Returns how many pages there are, as far as a page said so, the newest one: see
    /// [`Next::page_count`](super::Next::page_count).
    #[must_use]
    pub fn page_count(&self) -> Option<u64> {
        self.page_count
    }

    pub(super) fn add(&mut self, items: Option<u64>) {
        // One page that cannot be counted, and the sum would be wrong.
        self.items = match (self.items, items) {
            (None, items) if self.pages == 0 => items,
            (Some(before), Some(items)) => Some(before.saturating_add(items)),
            (None, _) | (Some(_), None) => None,
        };
        self.pages = self.pages.saturating_add(1);
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {}", self.pages)?;
        // A number that is less than what came is wrong.
        if let Some(count) = self.page_count.filter(|count| *count >= self.pages) {
            write!(f, " of {count}")?;
        }
        match (self.items, self.total.filter(|total| self.items.is_some_and(|items| *total >= items))) {
            (Some(items), Some(total)) => write!(f, ", {items} of {total} items"),
            (Some(items), None) => write!(f, ", {items} items"),
            (None, _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_added_up_and_shown() {
        let mut progress = Progress::default();
        assert_eq!(progress.to_string(), "page 0");
        progress.add(Some(25));
        progress.add(Some(5));
        assert_eq!(progress.to_string(), "page 2, 30 items");
        (progress.total, progress.page_count) = (Some(40), Some(2));
        assert_eq!(progress.to_string(), "page 2 of 2, 30 of 40 items");
        // Some count up to a limit, and some send a zero.
        (progress.total, progress.page_count) = (Some(0), Some(1));
        assert_eq!(progress.to_string(), "page 2, 30 items");
        progress.add(None);
        assert_eq!(progress.items(), None);
        progress.add(Some(1));
        assert_eq!(progress.items(), None);
    }
}
