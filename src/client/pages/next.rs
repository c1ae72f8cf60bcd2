//! Where a response says what comes next: data, and the decision.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;
use tower::BoxError;

use super::super::base::Base;
use super::super::error::{ApiError, words_of};
use super::link;
use super::member::{self, Member};
use super::page::Page;
use super::position::{NextPage, Step};
use super::progress::Progress;
use crate::error::Error;

/// Where the responses of an API say what comes next.
///
/// A *member* of a response is named as it stands at the top of the body (`nextUri`), or by a JSON pointer
/// (`/response_metadata/next_cursor`, RFC 6901). A *parameter* of the next request is a query parameter (`cursor`), or by a
/// pointer a place in its JSON body (`/paging/pageNumber`).
///
/// Defaults:
///
/// - items are counted if the body is an array; [`items`](Self::items) names the member that has them
/// - the server does not say how many items or pages there are
/// - URLs stay under the base URL of the client
///
/// # Examples
///
/// ```
/// use tower_oauth2::client::pages::Next;
///
/// let github = Next::link();
/// let slack = Next::cursor("cursor", "/response_metadata/next_cursor").items("members");
/// let odata = Next::url("@odata.nextLink").items("value").total("@odata.count");
/// let genesys = Next::page_number("pageNumber").page_count("pageCount").items("entities").total("total");
/// let query = Next::page_number("/paging/pageNumber").items("conversations").total("totalHits");
/// ```
#[derive(Clone, Debug)]
#[must_use = "it says what comes next to the pages that are given it"]
pub struct Next {
    shape: Shape,
    items: Option<Member>,
    total: Option<Member>,
    page_count: Option<Member>,
    more: Option<Member>,
    bases: Vec<Result<Arc<Base>, Arc<Error>>>,
}

#[derive(Clone)]
enum Shape {
    /// A header has the URL.
    Link,
    /// A member has the URL.
    Url(Member),
    /// A member has what the next request gives in a parameter.
    Cursor {
        parameter: Parameter,
        member: Member,
    },
    /// The next request counts one more.
    Number {
        parameter: Parameter,
        first: u64,
    },
    /// The next request leaves out so many items.
    Offset {
        parameter: Parameter,
        first: u64,
    },
    By(Arc<NextFn>),
}

type NextFn = dyn Fn(&Page) -> Result<Option<NextPage>, BoxError> + Send + Sync;

/// A query parameter, or a place in a JSON body.
type Parameter = String;

// --- Next ---

impl Next {
    /// The next page is at the link with `rel="next"` of the header `Link` (RFC 8288), as at GitHub, GitLab and Okta. The page
    /// without one is the last.
    pub fn link() -> Self {
        Self::new(Shape::Link)
    }

    /// The next page is at the URL in this member. The page without one is the last; so is one where it is null or empty.
    pub fn url(member: impl Into<String>) -> Self {
        Self::new(Shape::Url(Member::new(member)))
    }

    /// The next page is asked for by a parameter with the cursor, token or key in this member. The page without one is the
    /// last; so is one where it is null, false, empty, or zero.
    pub fn cursor(parameter: impl Into<String>, member: impl Into<String>) -> Self {
        Self::new(Shape::Cursor { parameter: parameter.into(), member: Member::new(member) })
    }

    /// Pages have numbers, in this parameter. Counting begins where the first request says, or at 1
    /// ([`first`](Self::first)). The last page is the one that [`page_count`](Self::page_count) or [`more`](Self::more) says;
    /// without these, the one with which exactly the [`total`](Self::total) has come, or an empty one.
    pub fn page_number(parameter: impl Into<String>) -> Self {
        Self::new(Shape::Number { parameter: parameter.into(), first: 1 })
    }

    /// The next page leaves out as many items as came before it, in this parameter. Counting begins where the first request
    /// says, or at 0 ([`first`](Self::first); SCIM begins at 1). The last page is the one that [`more`](Self::more) says;
    /// without it, the one with which exactly the [`total`](Self::total) has come, or an empty one.
    pub fn offset(parameter: impl Into<String>) -> Self {
        Self::new(Shape::Offset { parameter: parameter.into(), first: 0 })
    }

    /// The next page is what a function makes of a page: nothing if it is the last. A failure ends the pages with an error.
    ///
    /// # Examples
    ///
    /// Stripe's cursor is the id of the last item:
    ///
    /// ```
    /// use serde_json::Value;
    /// use tower_oauth2::client::pages::{Next, NextPage};
    ///
    /// let next = Next::by(|page| {
    ///     let list: Value = page.json()?;
    ///     let last = list["data"].as_array().and_then(|data| data.last());
    ///     let id = last.filter(|_| list["has_more"] == true).map(|last| last["id"].clone());
    ///     Ok(id.map(|id| NextPage::with("starting_after", id)))
    /// })
    /// .items("data");
    /// ```
    pub fn by<F>(next: F) -> Self
    where
        F: Fn(&Page) -> Result<Option<NextPage>, BoxError> + Send + Sync + 'static,
    {
        Self::new(Shape::By(Arc::new(next)))
    }

    fn new(shape: Shape) -> Self {
        Self { shape, items: None, total: None, page_count: None, more: None, bases: Vec::new() }
    }

    /// Names the member that is the array of items.
    pub fn items(mut self, member: impl Into<String>) -> Self {
        self.items = Some(Member::new(member));
        self
    }

    /// Names the member that says how many items there are.
    pub fn total(mut self, member: impl Into<String>) -> Self {
        self.total = Some(Member::new(member));
        self
    }

    /// Names the member that says how many pages there are.
    pub fn page_count(mut self, member: impl Into<String>) -> Self {
        self.page_count = Some(Member::new(member));
        self
    }

    /// Names the member that says whether there are more pages, such as `has_more`. The page where it is false is the last.
    pub fn more(mut self, member: impl Into<String>) -> Self {
        self.more = Some(Member::new(member));
        self
    }

    /// Sets the number of the first page, or the offset of its first item. Without effect on other shapes.
    pub fn first(mut self, number: u64) -> Self {
        if let Shape::Number { first, .. } | Shape::Offset { first, .. } = &mut self.shape {
            *first = number;
        }
        self
    }

    /// Lets URLs of the server lead to another base URL too. The layers below decide whether a token goes there: see
    /// [`allow_origin`](crate::stack::StackBuilder::allow_origin). If the URL is malformed, the first page is an error
    /// that says so.
    pub fn also_under(mut self, base_url: impl AsRef<str>) -> Self {
        self.bases.push(Base::parse(base_url.as_ref()).map(Arc::new).map_err(Arc::new));
        self
    }

    pub(super) fn bases(&self) -> &[Result<Arc<Base>, Arc<Error>>] {
        &self.bases
    }

    /// Returns the parameter that the pages are counted in, for messages.
    pub(super) fn counted(&self) -> Option<&str> {
        match &self.shape {
            Shape::Number { parameter, .. } | Shape::Offset { parameter, .. } => Some(parameter),
            Shape::Link | Shape::Url(_) | Shape::Cursor { .. } | Shape::By(_) => None,
        }
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link => f.write_str("Link"),
            Self::Url(member) => write!(f, "Url({member})"),
            Self::Cursor { parameter, member } => write!(f, "Cursor({parameter}, {member})"),
            Self::Number { parameter, first } => write!(f, "Number({parameter}, {first})"),
            Self::Offset { parameter, first } => write!(f, "Offset({parameter}, {first})"),
            Self::By(_) => f.write_str("By(..)"),
        }
    }
}

// --- The decision ---

/// The counts that a page states.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) items: Option<u64>,
    pub(super) total: Option<u64>,
    pub(super) page_count: Option<u64>,
}

impl Next {
    /// Reads the array of items of a page.
    pub(super) fn items_of<'a>(&self, page: &'a Page) -> Result<Option<&'a RawValue>, ApiError> {
        match &self.items {
            Some(member) => page.member(member),
            None => page.member(&Member::new("")),
        }
    }

    /// Returns whether a member is named that holds the items.
    pub(super) fn names_items(&self) -> bool {
        self.items.is_some()
    }

    /// Reads what a page says about itself. `first` says that it is the first one that was asked for here.
    pub(super) fn read(&self, page: &Page, first: bool) -> Result<Said, ApiError> {
        if page.body().is_empty() {
            // A page that the server named itself is there, and its body was lost on the way.
            if matches!(self.shape, Shape::Url(_) | Shape::Cursor { .. }) && !page.has_no_content() {
                page.member(&Member::new(""))?;
            }
            return Ok(Said { items: Some(0), total: None, page_count: None });
        }
        let items = match &self.items {
            None if !page.is_array() => None,
            // What only looks like JSON is not asked for any.
            None => self.items_of(page).ok().flatten().and_then(member::count),
            Some(name) => match page.member(name)? {
                Some(items) => Some(member::count(items).ok_or_else(|| page.unlike(name, "an array"))?),
                None => {
                    // Some leave out an array without items. Of a wrong name there would be one page.
                    let is_checked = first && self.total_of(page)? != Some(0);
                    let other = is_checked.then(|| name.find_other_array(page.body())).flatten();
                    match other {
                        Some(other) => return Err(page.named_otherwise(name, &other)),
                        None => Some(0),
                    }
                }
            },
        };
        let page_count = match &self.page_count {
            Some(name) => page.member(name)?.and_then(member::number),
            None => None,
        };
        Ok(Said { items, total: self.total_of(page)?, page_count })
    }

    fn total_of(&self, page: &Page) -> Result<Option<u64>, ApiError> {
        match &self.total {
            Some(name) => Ok(page.member(name)?.and_then(member::number)),
            None => Ok(None),
        }
    }

    /// Decides what comes after a page. `current` is the number or the offset that the page was asked for with, if it was;
    /// `progress` counts it already.
    pub(super) fn after(
        &self,
        page: &Page,
        told: &Said,
        current: Option<u64>,
        progress: &Progress,
    ) -> Result<Option<NextPage>, ApiError> {
        let more = self.more_of(page)?;
        if more == Some(false) {
            return Ok(None);
        }
        match &self.shape {
            Shape::Link => Ok(link::target(page.headers(), "next").map(NextPage::at)),
            Shape::Url(name) => match self.told_next(page, name)? {
                Some(Value::String(url)) => Ok(Some(NextPage::at(url))),
                Some(_) => Err(page.unlike(name, "a string")),
                None => Ok(None),
            },
            Shape::Cursor { parameter, member } => {
                Ok(self.told_next(page, member)?.map(|cursor| NextPage::with(parameter.as_str(), cursor)))
            }
            Shape::Number { parameter, first } => {
                let current = current.unwrap_or(*first);
                let is_last = match (told.page_count, more, told.items) {
                    // Some count up to a limit. One that says that there is more knows better, as long as something comes.
                    (Some(_), Some(true), items) if items != Some(0) => false,
                    (Some(count), _, _) => current.saturating_sub(*first).saturating_add(1) >= count,
                    // Where it is false, nothing comes.
                    (None, Some(_), _) => false,
                    // A total that is less than what came says nothing: some count up to a limit, or send a zero.
                    (None, None, Some(items)) => {
                        items == 0 || told.total.is_some_and(|total| progress.items == Some(total))
                    }
                    (None, None, None) => return Err(page.endless("page_count, more or items")),
                };
                Ok(following(parameter, current, 1).filter(|_| !is_last))
            }
            Shape::Offset { parameter, first } => {
                let items = told.items.ok_or_else(|| page.endless("items"))?;
                let current = current.unwrap_or(*first);
                let came = current.saturating_sub(*first).saturating_add(items);
                let is_last = match more {
                    Some(_) if items == 0 => return Err(page.stuck()),
                    Some(_) => false,
                    // A total that is less than what came says nothing, as above.
                    None => items == 0 || told.total == Some(came),
                };
                Ok(following(parameter, current, items).filter(|_| !is_last))
            }
            Shape::By(next) => next(page).map_err(|error| {
                let why = words_of(&*error);
                let message = format!("the function that says what comes next has failed: {why}");
                ApiError::pages(&message).caused_by(error)
            }),
        }
        .inspect(|next| {
            let (pages, last) = (progress.pages(), next.is_none());
            tracing::debug!(pages, items = progress.items(), last, "a page was read");
        })
    }

    fn more_of(&self, page: &Page) -> Result<Option<bool>, ApiError> {
        let Some(name) = self.more.as_ref().filter(|_| !page.body().is_empty()) else { return Ok(None) };
        let more = page.member(name)?.map(RawValue::get);
        Ok(match more {
            Some("true" | "\"true\"" | "1") => Some(true),
            Some("false" | "\"false\"" | "0" | "null") => Some(false),
            Some(_) => return Err(page.unlike(name, "a boolean")),
            None => None,
        })
    }

    /// Reads a cursor or a URL, if there is one.
    fn told_next(&self, page: &Page, name: &Member) -> Result<Option<Value>, ApiError> {
        if page.body().is_empty() {
            return Ok(None);
        }
        let Some(raw) = page.member(name)? else { return Ok(None) };
        // Half of a character, or more depth than can be read. To take it for none would end the list too soon.
        let value = serde_json::from_str(raw.get()).map_err(|_| page.unlike(name, "one that can be read"))?;
        Ok(match value {
            Value::Null | Value::Bool(false) => None,
            Value::String(text) if text.trim().is_empty() || text == "0" => None,
            Value::Array(items) if items.is_empty() => None,
            Value::Object(members) if members.is_empty() => None,
            Value::Number(number) if number.as_u64() == Some(0) => None,
            // As it stands there: one beyond 64 bits would lose digits.
            Value::Number(number) if number.to_string() != raw.get() => {
                Some(Value::String(raw.get().to_owned()))
            }
            value => Some(value),
        })
    }
}

fn following(parameter: &str, current: u64, step: u64) -> Option<NextPage> {
    current.checked_add(step).map(|next| NextPage(Step::Set(vec![(parameter.to_owned(), next.into())])))
}
