//! Where in the pages one is.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::error::ApiError;
use super::progress::Progress;

/// Where in the pages one is: what the next request asks for, and how many pages came before it. A text when it is saved.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Position {
    /// The difference between the next request and the first one; nothing for the first page.
    #[serde(rename = "next", skip_serializing_if = "Option::is_none", default)]
    pub(super) step: Option<NextPage>,
    #[serde(flatten)]
    pub(super) progress: Progress,
}

/// The difference between the request for the next page and the first one: another URL, or other values in it.
///
/// [`Next::by`](super::Next::by) makes one of a page.
///
/// # Examples
///
/// ```
/// use tower_oauth2::client::pages::NextPage;
///
/// let by_query = NextPage::with("after", "user-7").and("limit", 100);
/// let by_body = NextPage::with("/paging/pageNumber", 2);
/// let by_url = NextPage::at("/v2/users?after=user-7");
/// # let _ = (by_query, by_body, by_url);
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextPage(pub(super) Step);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    Url(String),
    Set(Vec<(String, Value)>),
}

// --- Position ---

impl Position {
    /// Reads a position that was saved. Whether its URL may be followed is looked at when it is.
    pub(super) fn read(text: &str) -> Result<Self, ApiError> {
        serde_json::from_str(text).map_err(|error| {
            // Its own words repeat what was read, and a cursor may be a secret.
            ApiError::pages(&format!(
                "the saved position cannot be read, at line {}, column {}; give it as Pages::position has returned it",
                error.line(),
                error.column()
            ))
        })
    }

    /// Returns the text to save.
    pub(super) fn written(&self) -> String {
        // All of it is text and numbers, which JSON has a form for.
        serde_json::to_string(self).unwrap_or_default()
    }
}

// --- NextPage ---

impl NextPage {
    /// The next page is at this URL, which may be relative to that of the page. It must be under the base URL of the client.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self(Step::Url(url.into()))
    }

    /// The next page is asked for by the first request with another value: of a query parameter, or of a place in the JSON
    /// body that is named by a JSON pointer, such as `/paging/pageNumber`. A value that JSON cannot hold is null.
    #[must_use]
    pub fn with(name: impl Into<String>, value: impl Serialize) -> Self {
        Self(Step::Set(Vec::new())).and(name, value)
    }

    /// Adds another value. Beside a URL it changes nothing: that is the whole request.
    #[must_use]
    pub fn and(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        if let Step::Set(values) = &mut self.0 {
            values.push((name.into(), serde_json::to_value(value).unwrap_or_default()));
        }
        self
    }
}

impl fmt::Debug for NextPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = match &self.0 {
            Step::Url(_) => Vec::new(),
            Step::Set(values) => values.iter().map(|(name, _)| name).collect(),
        };
        f.debug_struct("NextPage").field("names", &names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_position_survives_being_saved() {
        let progress = Progress { pages: 3, items: Some(75), total: Some(300), page_count: None };
        let steps = [
            None,
            Some(NextPage::at("https://api.example.com/v2/users?page=4")),
            Some(NextPage::with("cursor", "a\"b ü").and("/paging/number", 4)),
        ];
        for step in steps {
            let read = Position::read(&Position { step: step.clone(), progress }.written()).unwrap();
            assert!(read.step == step && read.progress == progress, "{}", read.written());
        }
        let written = Position { step: Some(NextPage::with("page", "4")), progress }.written();
        let read: Value = serde_json::from_str(&written).unwrap();
        assert_eq!(
            read,
            json!({ "next": { "set": [["page", "4"]] }, "pages": 3, "items": 75, "total": 300 })
        );
    }

    #[test]
    fn a_text_that_is_none_is_refused_and_not_shown() {
        for text in ["", "7", "{}", "{\"pages\": -1}", "{\"pages\": 1, \"next\": {\"url\": 7}}", "hunter2"] {
            let error = Position::read(text).err().unwrap();
            assert!(error.is_pages() && !error.to_string().contains("hunter2"), "{text}: {error}");
        }
        let shown = format!("{:?}", NextPage::with("c", "hunter2"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
