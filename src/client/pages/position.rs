//! Where in the pages one is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::error::ApiError;
use super::progress::Progress;

/// Where in the pages one is: what the next request asks for, and how many pages came before it. A text that can be saved.
///
/// [`Pages::position`](super::Pages::position) returns it, and [`Pages::resume`](super::Pages::resume) takes it up, in
/// another process or on another day. It is what the server said, a cursor or a URL, so keep it as you keep the data.
///
/// **A position can change the next request.** Its text can set any query parameter and any place in the JSON body, or name any
/// URL under the base URL of the client, and that request is sent with your token. It cannot lead to another host, and it cannot
/// change the method or the headers. Read positions back from your own storage only. If one goes through the hands of a user,
/// as the cursor of your own API does, sign it or keep it on the server.
///
/// # Examples
///
/// ```
/// use tower_oauth2::client::pages::Position;
/// # fn example(pages: &tower_oauth2::client::pages::Pages) -> Result<(), tower_oauth2::client::ApiError> {
///
/// if let Some(position) = pages.position() {
///     let saved: String = position.to_string();
///     let read: Position = saved.parse()?;
///     assert_eq!(read, position);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Position {
    /// The difference between the next request and the first one; nothing for the first page.
    pub(super) step: Option<NextPage>,
    pub(super) progress: Progress,
}

/// The difference between the request for the next page and the first one: another URL, or other values in it.
///
/// [`Next::by`](super::Next::by) makes one of a page.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextPage(pub(super) Step);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    Url(String),
    Set(Vec<(String, Value)>),
}

/// The written form of a position.
#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    next: Option<NextPage>,
    #[serde(flatten)]
    progress: Progress,
}

// --- Position ---

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = Written { next: self.step.clone(), progress: self.progress };
        f.write_str(&serde_json::to_string(&written).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Position {
    type Err = ApiError;

    /// Reads a position that was saved.
    ///
    /// # Errors
    ///
    /// If it is not the text of one. Whether its URL may be followed is looked at when it is.
    fn from_str(text: &str) -> Result<Self, ApiError> {
        let written: Written = serde_json::from_str(text).map_err(|error| {
            // Its own words repeat what was read, and a cursor may be a secret.
            ApiError::pages(&format!(
                "the saved position cannot be read, at line {}, column {}; give it as Position::to_string has written it",
                error.line(),
                error.column()
            ))
        })?;
        Ok(Self { step: written.next, progress: written.progress })
    }
}

impl TryFrom<String> for Position {
    type Error = ApiError;

    fn try_from(text: String) -> Result<Self, ApiError> {
        text.parse()
    }
}

impl From<Position> for String {
    fn from(position: Position) -> Self {
        position.to_string()
    }
}

/// Does not show what the server said.
impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Position").field("progress", &self.progress).finish_non_exhaustive()
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
            let position = Position { step, progress };
            assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
            let within: Position = serde_json::from_value(serde_json::to_value(&position).unwrap()).unwrap();
            assert_eq!(within, position);
        }
        let written = Position { step: Some(NextPage::with("page", "4")), progress }.to_string();
        let read: Value = serde_json::from_str(&written).unwrap();
        assert_eq!(
            read,
            json!({ "next": { "set": [["page", "4"]] }, "pages": 3, "items": 75, "total": 300 })
        );
    }

    #[test]
    fn a_text_that_is_none_is_refused_and_not_shown() {
        for text in ["", "7", "{}", "{\"pages\": -1}", "{\"pages\": 1, \"next\": {\"url\": 7}}", "hunter2"] {
            let error = text.parse::<Position>().unwrap_err();
            assert!(error.is_pages() && !error.to_string().contains("hunter2"), "{text}: {error}");
        }
        let shown =
            format!("{:?}", Position { step: Some(NextPage::with("c", "hunter2")), ..Position::default() });
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
