//! The pages: which one is asked for next, and the request that is under way.

use std::collections::HashSet;
use std::fmt;
use std::future::poll_fn;
use std::hash::{BuildHasher as _, RandomState};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use http::{Request, Response, StatusCode};
use http_body::Body as HttpBody;
use serde_json::Value;
use tower::BoxError;
use tower_service::Service;

use super::super::base::Base;
use super::super::error::ApiError;
use super::super::request::ApiRequest;
use super::super::service::ApiService;
use super::member::{self, Member};
use super::next::Next;
use super::page::Page;
use super::position::{NextPage, Position, Step};
use super::progress::Progress;
use super::reference::{Place, resolve};
use crate::body::Body;

/// The pages of a list: a stream that asks for the next one when it is polled. Rules and examples are on the page of the
/// [module](super).
///
/// It is also a [`Stream`], for the adapters of `futures`. After an error and after the last page it ends.
///
/// # Examples
///
/// ```
/// use tower_oauth2::client::ApiError;
/// use tower_oauth2::client::pages::Pages;
///
/// async fn count(mut pages: Pages) -> Result<Option<u64>, ApiError> {
///     while let Some(page) = pages.next().await {
///         page?;
///     }
///     Ok(pages.progress().items())
/// }
/// # let _ = count;
/// ```
#[must_use = "pages are asked for when the next one is wanted"]
pub struct Pages<S = ApiService> {
    first: ApiRequest<S>,
    next: Arc<Next>,
    /// The base of the client, and those that may be reached besides.
    bases: Vec<Arc<Base>>,
    /// The next page to ask for. Nothing after the last page.
    at: Option<Position>,
    progress: Progress,
    state: PagesState,
    /// Whether the request can be made at all.
    is_sendable: bool,
    /// The requests that were sent, by their fingerprints.
    sent: HashSet<Fingerprint>,
    /// The last one, until its page has come and is good.
    last_sent: Option<Fingerprint>,
    /// The page that came last, if it had items.
    last_body: Option<Fingerprint>,
    max_pages: Option<u64>,
    hashers: [RandomState; 2],
}

enum PagesState {
    /// The next page can be asked for.
    Ready,
    /// It is on its way.
    Fetching(PageFuture),
    /// A page came whose reference to the next one is not valid.
    Failed(ApiError),
    Ended,
}

type PageFuture = Pin<Box<dyn Future<Output = Result<Page, ApiError>> + Send>>;

/// So often a page whose body breaks off is asked for again.
const REPEATS: u32 = 2;

/// 128 bits: two that differ are never taken for one.
type Fingerprint = [u64; 2];

impl<S> Pages<S> {
    pub(crate) fn new(mut first: ApiRequest<S>, next: Next) -> Self {
        let (mut bases, mut state) = (vec![Arc::clone(first.base())], PagesState::Ready);
        for base in next.bases() {
            match base {
                Ok(base) => bases.push(Arc::clone(base)),
                Err(error) => {
                    let reason = "the base URL of Next::also_under is none";
                    state = PagesState::Failed(ApiError::builder(reason, Arc::clone(error)));
                }
            }
        }
        if let Some(error) = first.take_error() {
            state = PagesState::Failed(error);
        }
        Self {
            first,
            next: Arc::new(next),
            bases,
            at: Some(Position::default()),
            progress: Progress::default(),
            is_sendable: matches!(state, PagesState::Ready),
            state,
            sent: HashSet::new(),
            last_sent: None,
            last_body: None,
            max_pages: None,
            hashers: [RandomState::new(), RandomState::new()],
        }
    }

    /// Goes on at a [position](Self::position) that was saved: the request is the same as then, and the next page is the one
    /// that was next then. To be called before the first page is asked for. A position does not say which list it is of: save the
    /// parameters of the request beside it.
    ///
    /// **A position can change the next request.** Its text can set any query parameter and any place in the JSON body, or name any
    /// URL under the base URL of the client, and that request is sent with your token. It cannot lead to another host, and it cannot
    /// change the method or the headers. Read positions back from your own storage only. If one goes through the hands of a user,
    /// as the cursor of your own API does, sign it or keep it on the server.
    ///
    /// # Errors
    ///
    /// If it is not the text of a position. A URL in it that leads elsewhere is an error of the next page.
    pub fn resume(mut self, position: impl AsRef<str>) -> Result<Self, ApiError> {
        let position = Position::read(position.as_ref())?;
        self.progress = position.progress;
        self.at = Some(position);
        Ok(self)
    }

    /// Sets how many pages may come. If there is another one after them, it is not asked for, and you get an error that
    /// [`is_pages`](ApiError::is_pages). Default: no bound, since each page is asked for only when you want it.
    ///
    /// This is for lists that may never end, because a server always names another page. Pages before the position that
    /// [`resume`](Self::resume) was given count too. To read only the first pages of a list, use `take` of `futures`.
    pub fn max_pages(mut self, most: u64) -> Self {
        self.max_pages = Some(most);
        self
    }

    /// Returns the position of the page that comes next, as a text to save, with which [`resume`](Self::resume) goes on in
    /// another process or on another day. Nothing after the last page.
    ///
    /// It holds what the server said, a cursor or a URL, so keep it as you keep the data.
    ///
    /// After an error it is that of the page that failed. Where a page came whose reference to the next one is not valid, it is
    /// still that of this page, which then comes a second time: none is lost.
    #[must_use]
    pub fn position(&self) -> Option<String> {
        self.at.as_ref().map(Position::written)
    }

    /// Returns how far one is.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Takes an error back: the next page is the one that has failed. Without effect where none has, and where the request itself
    /// is wrong ([`is_builder`](ApiError::is_builder)).
    pub fn try_again(&mut self) {
        if matches!(self.state, PagesState::Ended) && self.at.is_some() && self.is_sendable {
            self.progress = self.at.as_ref().map_or(self.progress, |at| at.progress);
            if let Some(sent) = self.last_sent.take() {
                self.sent.remove(&sent);
            }
            self.state = PagesState::Ready;
        }
    }

    fn step(&self) -> Option<&Step> {
        self.at.as_ref()?.step.as_ref().map(|next| &next.0)
    }

    /// Returns the place that the page that is asked for is at.
    fn place(&self) -> Result<Place, ApiError> {
        let (path, query) = self.first.place();
        let first = Place { base: 0, path, query: query.to_owned() };
        match self.step() {
            Some(Step::Url(url)) => self.follow(url, &first),
            Some(Step::Set(_)) | None => Ok(first),
        }
    }

    fn follow(&self, url: &str, from: &Place) -> Result<Place, ApiError> {
        let bases: Vec<&Base> = self.bases.iter().map(AsRef::as_ref).collect();
        resolve(url, from, &bases).map_err(|reason| {
            let origin = self.first.base().origin();
            ApiError::pages(&format!("the pages of {origin} cannot go on: the URL of the next one {reason}"))
        })
    }

    /// Returns the number or the offset that the page is asked for with.
    fn current(&self) -> Option<u64> {
        let parameter = self.next.counted()?;
        if let Some(Step::Set(values)) = self.step()
            && let Some((_, value)) = values.iter().find(|(name, _)| name == parameter)
        {
            return value.as_u64();
        }
        if !parameter.starts_with('/') {
            let pairs = form_urlencoded::parse(self.first.place().1.as_bytes());
            let told = pairs.into_iter().find_map(|(name, value)| (name == parameter).then_some(value));
            return told?.parse().ok();
        }
        let told = Member::new(parameter).find(self.first.bytes()?).ok()??;
        member::number(told)
    }

    fn fingerprint(&self, uri: &str, body: &[u8]) -> Fingerprint {
        let [one, other] = &self.hashers;
        [one.hash_one((uri, body)), other.hash_one((uri, body))]
    }

    /// Takes a page, and decides what comes next.
    fn take(&mut self, page: &Page) -> Result<(), ApiError> {
        let is_first_here = self.sent.len() == 1;
        let said = self.next.read(page, is_first_here)?;
        let counted = self.next.counted().filter(|_| said.items != Some(0));
        let body = counted.map(|_| self.fingerprint("", page.body()));
        if let Some(parameter) = counted.filter(|_| self.last_body == body) {
            let origin = self.first.base().origin();
            return Err(ApiError::pages(&format!(
                "the pages of {origin} cannot go on: page {} is the same as the one before it, so the server takes no notice of \
                 {parameter:?}; check its name",
                page.number()
            )));
        }
        self.progress.add(said.items);
        // Some say it on the first page alone.
        self.progress.total = said.total.or(self.progress.total);
        self.progress.page_count = said.page_count.or(self.progress.page_count);
        let after = self.next.after(page, &said, self.current(), &self.progress);
        match after.and_then(|next| self.whole(next)) {
            Ok(Some(next)) => self.at = Some(Position { step: Some(next), progress: self.progress }),
            Ok(None) => (self.at, self.state) = (None, PagesState::Ended),
            Err(error) => {
                self.state = PagesState::Failed(error);
                return Ok(());
            }
        }
        // From here on the page is not asked for again.
        (self.last_sent, self.last_body) = (None, body.or(self.last_body));
        Ok(())
    }

    /// Makes a URL whole, so that it can be followed from anywhere.
    fn whole(&self, next: Option<NextPage>) -> Result<Option<NextPage>, ApiError> {
        let Some(NextPage(Step::Url(url))) = next else { return Ok(next) };
        // Empty is how some say that there is none.
        if url.trim().is_empty() {
            return Ok(None);
        }
        let place = self.follow(&url, &self.place()?)?;
        let path = format!("/{}", place.path);
        let url = self.bases[place.base].root().join(&path, &place.query).map_err(ApiError::path)?;
        Ok(Some(NextPage::at(url.to_string())))
    }
}

impl<S: Clone> Pages<S> {
    /// Makes the request for the page.
    fn request(&self) -> Result<ApiRequest<S>, ApiError> {
        let mut request = self.first.repeated()?;
        match self.step() {
            None => {}
            Some(Step::Url(_)) => {
                let place = self.place()?;
                request.go_to(Arc::new(self.bases[place.base].root()), &place.path, place.query);
            }
            Some(Step::Set(values)) => {
                for (name, value) in values {
                    request = set(request, name, value)?;
                }
            }
        }
        Ok(request)
    }

    fn send<RB>(&mut self) -> Result<PageFuture, ApiError>
    where
        S: Service<Request<Body>, Response = Response<RB>> + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        RB: HttpBody + Send + 'static,
        RB::Data: Send,
        RB::Error: Into<BoxError>,
    {
        if self.max_pages.is_some_and(|most| self.progress.pages >= most) {
            let origin = self.first.base().origin();
            return Err(ApiError::pages(&format!(
                "the pages of {origin} do not end: {} came, and there is another; raise max_pages if the list is that long",
                self.progress.pages
            )));
        }
        let request = self.request()?;
        let sent =
            self.fingerprint(&request.uri()?.to_string(), request.bytes().map_or(&[][..], AsRef::as_ref));
        if !self.sent.insert(sent) {
            let origin = self.first.base().origin();
            return Err(ApiError::pages(&format!(
                "the pages of {origin} cannot go on: what page {} names as the next one has come already",
                self.progress.pages
            )));
        }
        self.last_sent = Some(sent);
        let (number, next) = (self.progress.pages.saturating_add(1), Arc::clone(&self.next));
        let mut request = request;
        Ok(Box::pin(async move {
            request.begin();
            let mut left = if request.may_repeat() { REPEATS } else { 0 };
            while left > 0 {
                let again = request.repeated()?;
                match fetch(request, number, Arc::clone(&next)).await {
                    Err(error) if error.is_body() && !error.is_timeout() => request = again,
                    outcome => return outcome,
                }
                left -= 1;
            }
            fetch(request, number, next).await
        }))
    }
}

/// Sends a request, and reads the page to its end.
async fn fetch<S, RB>(request: ApiRequest<S>, number: u64, next: Arc<Next>) -> Result<Page, ApiError>
where
    S: Service<Request<Body>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
    RB: HttpBody,
    RB::Error: Into<BoxError>,
{
    let response = request.send().await?.error_for_status()?;
    let status = response.status();
    let origin = response.origin().to_string();
    // Taken for an empty page it would end the list. Of 304 the caller knows, who has asked for it.
    if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
        return Err(ApiError::status_of(&origin, status, response.extensions()));
    }
    Page::read(response, number, next).await
}

/// Gives a request another value of a query parameter, or at a place of its JSON body.
fn set<S>(mut request: ApiRequest<S>, name: &str, value: &Value) -> Result<ApiRequest<S>, ApiError> {
    if !name.starts_with('/') {
        let text = match value {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        request.set_query(name, &text);
        return Ok(request);
    }
    let no_json = "its body is not JSON, so that nothing can be put into it for the next page";
    let mut body = match request.bytes() {
        Some(bytes) if !bytes.is_empty() => {
            serde_json::from_slice(bytes).map_err(|error| ApiError::builder(no_json, error))?
        }
        Some(_) | None => Value::Null,
    };
    let is_put = Member::new(name).set(&mut body, value.clone());
    is_put.map_err(|reason| {
        ApiError::builder(&format!("its body, at {:?}, {reason}", crate::text::clean(name)), reason)
    })?;
    Ok(request.json(&body))
}

impl<S, RB> Pages<S>
where
    S: Service<Request<Body>, Response = Response<RB>> + Clone + Send + Unpin + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    RB: HttpBody + Send + 'static,
    RB::Data: Send,
    RB::Error: Into<BoxError>,
{
    /// Returns the next page; nothing after the last one, and after an error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no page: the request stays under way, and the next call goes on with it. To end the request,
    /// drop the `Pages`.
    ///
    /// # Errors
    ///
    /// As [`send`](ApiRequest::send) and [`error_for_status`](crate::client::ApiResponse::error_for_status); what is wrong
    /// with what a page says about the next one, by [`is_pages`](ApiError::is_pages), after that page; and a page that is not
    /// what [`Next`] says.
    pub async fn next(&mut self) -> Option<Result<Page, ApiError>> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl<S, RB> Stream for Pages<S>
where
    S: Service<Request<Body>, Response = Response<RB>> + Clone + Send + Unpin + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    RB: HttpBody + Send + 'static,
    RB::Data: Send,
    RB::Error: Into<BoxError>,
{
    type Item = Result<Page, ApiError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            let outcome = match &mut this.state {
                PagesState::Ended => return Poll::Ready(None),
                PagesState::Ready => match this.send() {
                    Ok(page) => {
                        this.state = PagesState::Fetching(page);
                        continue;
                    }
                    Err(error) => Err(error),
                },
                PagesState::Fetching(page) => ready!(page.as_mut().poll(context)),
                PagesState::Failed(_) => match mem::replace(&mut this.state, PagesState::Ended) {
                    PagesState::Failed(error) => Err(error),
                    PagesState::Ready | PagesState::Fetching(_) | PagesState::Ended => {
                        return Poll::Ready(None);
                    }
                },
            };
            this.state = PagesState::Ready;
            let outcome = outcome.and_then(|page| this.take(&page).map(|()| page));
            if outcome.is_err() {
                this.state = PagesState::Ended;
            }
            return Poll::Ready(Some(outcome));
        }
    }
}

impl<S> fmt::Debug for Pages<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("request", &self.first)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}
