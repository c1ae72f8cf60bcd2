//! The settings of one layer, shared by all its services: which requests get a token, and whose.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::header::HOST;
use http::{HeaderMap, Method, Request, Uri};

use super::future::Watch;
use super::named_origin::NamedOrigin;
use super::per_request::{AuthOverride, OverrideToken, Wish};
use super::terms::Terms;
use super::ticket::Ticket;
use crate::cache::{Snapshot, TokenCache};
use crate::error::Error;
use crate::extensions::{TokenWithheld, WithheldReason};
use crate::origin::Origin;
use crate::text::Redactor;
use crate::token::AccessToken;

/// So many names are compared one by one.
const FEW_HEADERS: usize = 8;
/// Requests to so many foreign origins are warned of, one warning each.
const MOST_WARNINGS: usize = 64;

/// The settings of a layer.
#[derive(Clone)]
pub(super) struct AuthOptions {
    pub(super) cache: Option<TokenCache>,
    pub(super) origins: Origins,
    /// And the origin that the token response names.
    pub(super) named: Option<NamedOrigin>,
    /// Where requests go whose URI is a path alone.
    pub(super) relative: Option<Origin>,
    pub(super) refuse: bool,
    pub(super) require_override: bool,
    pub(super) terms: Terms,
    warned: Arc<Mutex<Warned>>,
}

/// The origins that were warned of, by any service of the layer; for a request without one the reason stands in.
type Warned = HashSet<Result<Origin, WithheldReason>>;

/// State shared by a service and its clones.
pub(super) struct Rules {
    options: AuthOptions,
    terms: Arc<Terms>,
    /// The origins that may have the layer's own token, beside its own list; empty for all.
    only_for: Vec<Origin>,
    /// The ticket of the layer's own token, for services that have none of their own yet. A ticket must not lead back
    /// here, or neither would ever be dropped.
    tickets: ArcSwapOption<Ticket>,
}

/// Where tokens may go.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins {
    pub(super) listed: Vec<Origin>,
    /// And to every https origin, and to loopback.
    pub(super) any_https: bool,
}

/// The decision about a request.
pub(super) enum Route {
    /// A token: of this cache or of the layer's own, good for at least this long.
    Token { cache: Option<TokenCache>, validity: Option<Duration> },
    /// No token of ours, because the caller wants it so.
    Pass,
    /// No token, although this cache or the layer's own has one, because its target may not have it.
    Withhold(WithheldReason, Option<TokenCache>),
    /// Nothing: it is not sent.
    Refuse(Error),
}

impl AuthOptions {
    pub(super) fn new(cache: Option<TokenCache>, origins: Origins) -> Self {
        let (terms, warned) = (Terms::default(), Arc::default());
        Self {
            cache,
            origins,
            named: None,
            relative: None,
            refuse: false,
            require_override: false,
            terms,
            warned,
        }
    }
}

impl Rules {
    pub(super) fn new(options: AuthOptions) -> Self {
        let terms = Arc::new(options.terms.clone());
        let only_for = options.cache.as_ref().map_or_else(Vec::new, |cache| cache.only_for().to_vec());
        Self { options, terms, only_for, tickets: ArcSwapOption::empty() }
    }

    pub(super) fn options(&self) -> &AuthOptions {
        &self.options
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Returns the cache of the layer's own token.
    pub(super) fn cache(&self) -> Option<&TokenCache> {
        self.options.cache.as_ref()
    }

    /// Returns the ticket of the layer's own token if it is fresh.
    #[inline]
    pub(super) fn ticket(&self) -> Option<Arc<Ticket>> {
        match self.tickets.load_full() {
            Some(ticket) if ticket.snapshot.is_fresh() => Some(ticket),
            Some(_) | None => {
                let cache = self.options.cache.as_ref()?;
                Some(self.ticket_for(cache.fresh()?, cache))
            }
        }
    }

    /// Makes a ticket of a snapshot. One of the layer's own cache is kept for the services that come next.
    #[cold]
    pub(super) fn ticket_for(&self, snapshot: Arc<Snapshot>, cache: &TokenCache) -> Arc<Ticket> {
        // Not by a handle whose responses are observed: those of the layer's own requests are not.
        let own =
            cache.observer().is_none() && self.options.cache.as_ref().is_some_and(|own| own.is_same(cache));
        if own
            && let Some(ticket) = self.tickets.load_full()
            && Arc::ptr_eq(&ticket.snapshot, &snapshot)
        {
            return ticket;
        }
        let ticket = Ticket::new(snapshot, cache.clone(), Arc::clone(&self.terms));
        if own {
            self.tickets.store(Some(Arc::clone(&ticket)));
        }
        ticket
    }

    /// Returns whether a request gets the layer's own token, as most do. The hot path: bytes are compared, nothing is
    /// taken apart.
    #[inline]
    pub(super) fn is_default<B>(&self, request: &Request<B>) -> bool {
        !self.options.require_override
            && self.options.named.is_none()
            && request.extensions().get::<AuthOverride>().is_none()
            && self.withheld(request).is_none()
            && self.withheld_by(&self.only_for, request.uri()).is_none()
    }

    /// Decides what a request gets.
    pub(super) fn route<B>(&self, request: &mut Request<B>) -> Route {
        if self.terms.is_callers_own(request.headers()) {
            return Route::Pass;
        }
        let (whose, validity) = self.wish(request).map(|wish| (wish.from.clone(), wish.min_validity)).unzip();
        let is_overridden = whose.is_some();
        let cache = match whose {
            Some(OverrideToken::Nobody) => return Route::Pass,
            Some(OverrideToken::Cache(cache)) => Some(cache),
            Some(OverrideToken::Layer) | None => None,
        };
        let only_for = cache.as_ref().or(self.cache()).map_or(&[][..], TokenCache::only_for);
        let withheld = self.withheld(request).or_else(|| self.withheld_by(only_for, request.uri()));
        if let Some(reason) = withheld {
            return self.turn_away(reason, request.uri(), cache);
        }
        if !is_overridden && self.options.require_override {
            return Route::Refuse(Error::config(
                "the request has no AuthOverride although the layer requires one; a redirect to another origin drops it, \
                 so put it on again where that is meant",
            ));
        }
        // Last, since only a layer that sends the token takes it.
        match self.wish(request).map_or(Ok(()), |wish| wish.take(&self.terms.header)) {
            Ok(()) => Route::Token { cache, validity: validity.flatten() },
            Err(error) => Route::Refuse(error),
        }
    }

    /// Returns what the request says to this layer.
    fn wish<'a, B>(&self, request: &'a mut Request<B>) -> Option<&'a mut Wish> {
        request.extensions_mut().get_mut::<AuthOverride>()?.wish(&self.terms.header)
    }

    /// Returns whether a cache that is for these origins alone keeps its token from this target.
    #[inline]
    fn withheld_by(&self, only_for: &[Origin], uri: &Uri) -> Option<WithheldReason> {
        let is_for = |origin: &Origin| match (uri.authority(), &self.options.relative) {
            (None, Some(relative)) => origin == relative,
            (_, _) => origin.matches(uri),
        };
        (!only_for.is_empty() && !only_for.iter().any(is_for)).then_some(WithheldReason::NotOfThisToken)
    }

    /// Returns why this request's target may not have a token; nothing if it may.
    #[inline]
    fn withheld<B>(&self, request: &Request<B>) -> Option<WithheldReason> {
        let uri = request.uri();
        let Some(origin) = self.options.origins.listed.iter().find(|origin| origin.matches(uri)) else {
            return self.withheld_elsewhere(request);
        };
        if is_connect(request.method()) {
            return Some(WithheldReason::Connect);
        }
        host_mismatch(request.headers(), origin)
    }

    /// The same for what is not on the list of origins.
    #[cold]
    fn withheld_elsewhere<B>(&self, request: &Request<B>) -> Option<WithheldReason> {
        let uri = request.uri();
        if is_connect(request.method()) {
            return Some(WithheldReason::Connect);
        }
        let origin = match (uri.authority(), &self.options.relative) {
            (None, Some(relative)) => relative.clone(),
            // Without an origin `turn_away` says what to do.
            (None, None) => return Some(WithheldReason::ForeignOrigin),
            (Some(authority), _) if authority.as_str().contains('@') => {
                return Some(WithheldReason::UserInfo);
            }
            (Some(_), _) => match Origin::of(uri).filter(|origin| self.may_be_named(origin)) {
                Some(origin) if origin.is_https() || origin.is_loopback() => origin,
                Some(_) => return Some(WithheldReason::Plaintext),
                None => return Some(WithheldReason::ForeignOrigin),
            },
        };
        host_mismatch(request.headers(), &origin)
    }

    /// Returns whether an origin that is not listed may have a token, or would if the token named it.
    fn may_be_named(&self, origin: &Origin) -> bool {
        let named = self.options.named.as_ref();
        self.options.origins.any_https || named.is_some_and(|named| named.covers(origin))
    }

    /// Puts a token on a request, unless its response names another origin than that of the request.
    pub(super) fn put_on<B>(&self, ticket: Arc<Ticket>, request: &mut Request<B>) -> Result<Watch, Error> {
        let Some(reason) = self.withheld_by_name(ticket.snapshot.token(), request.uri())? else {
            return Ok(ticket.put_on(request));
        };
        match self.turn_away(reason, request.uri(), Some(ticket.cache.clone())) {
            Route::Withhold(reason, cache) => Ok(self.send_without(reason, cache.as_ref(), request)),
            Route::Refuse(error) => Err(error),
            Route::Token { .. } | Route::Pass => Ok(Watch::Nothing),
        }
    }

    fn withheld_by_name(&self, token: &AccessToken, uri: &Uri) -> Result<Option<WithheldReason>, Error> {
        match &self.options.named {
            Some(named) if !self.options.origins.listed.iter().any(|origin| origin.matches(uri)) => {
                Ok(self.withheld_by(&[named.read(token)?], uri))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Prepares a request that is sent without a token. Returns how to handle the response.
    pub(super) fn send_without<B>(
        &self,
        reason: WithheldReason,
        cache: Option<&TokenCache>,
        request: &mut Request<B>,
    ) -> Watch {
        let marker = self.withhold(reason, request.uri(), cache);
        self.terms.strip(request.headers_mut());
        Watch::Withheld(Box::new(marker))
    }

    fn turn_away(&self, reason: WithheldReason, uri: &Uri, cache: Option<TokenCache>) -> Route {
        if uri.authority().is_none() && reason == WithheldReason::ForeignOrigin {
            return Route::Refuse(Error::config(
                "the request's URI is a path without a host, so it does not say where its token would go; give it a \
                 whole URI, or, if the client below knows the host by itself, name that with \
                 AuthLayer::default_origin",
            ));
        }
        if self.options.refuse {
            let target = Origin::of(uri)
                .map_or_else(|| "its target".to_owned(), |origin| self.shown(&origin, cache.as_ref()));
            let cure = cure(reason);
            return Route::Refuse(Error::config(format!(
                "the request to {target} was refused: {reason}; {cure}"
            )));
        }
        Route::Withhold(reason, cache)
    }

    /// Makes the marker of a withheld token, and warns once per origin.
    #[cold]
    fn withhold(&self, reason: WithheldReason, uri: &Uri, cache: Option<&TokenCache>) -> TokenWithheld {
        let origin = Origin::of(uri);
        let first = {
            let mut warned = self.options.warned.lock().unwrap_or_else(PoisonError::into_inner);
            warned.len() < MOST_WARNINGS && warned.insert(origin.clone().ok_or(reason))
        };
        let origin = origin.map(|origin| self.shown(&origin, cache));
        if first {
            let (origin, cure) = (origin.as_deref().unwrap_or("unknown"), cure(reason));
            tracing::warn!(origin, %reason, "a request was sent without a token; {cure}");
        }
        TokenWithheld::new(reason, origin)
    }

    /// A redirect names the host, and the server that sent it knows a token: the layer's, or that of an override.
    fn shown(&self, origin: &Origin, cache: Option<&TokenCache>) -> String {
        let mut redactor = Redactor::default();
        for cache in [self.cache(), cache].into_iter().flatten() {
            cache.teach(&mut redactor);
        }
        redactor.clean(&origin.to_string())
    }
}

impl fmt::Debug for AuthOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthOptions")
            .field("cache", &self.cache)
            .field("origins", &self.origins)
            .field("default_origin", &self.relative)
            .field("header", &self.terms.header)
            .finish_non_exhaustive()
    }
}

/// A method is spelt as it is defined (RFC 9110 §9.1), but a proxy that is lenient opens a tunnel for any spelling.
#[inline]
fn is_connect(method: &Method) -> bool {
    method.as_str().eq_ignore_ascii_case("CONNECT")
}

/// Returns whether a `Host` header names another server than the URI does. Every line of it must agree.
#[inline]
fn host_mismatch(headers: &HeaderMap, origin: &Origin) -> Option<WithheldReason> {
    // A request to an absolute URI seldom has the header, and few headers are compared faster than one is hashed.
    let has_host = match headers.keys_len() {
        0..=FEW_HEADERS => headers.keys().any(|name| *name == HOST),
        _ => headers.contains_key(HOST),
    };
    let differs = has_host && headers.get_all(HOST).iter().any(|host| !origin.is_host(host.as_bytes()));
    differs.then_some(WithheldReason::HostMismatch)
}

/// Says what may be done about a request that was refused.
fn cure(reason: WithheldReason) -> &'static str {
    match reason {
        WithheldReason::ForeignOrigin => "if it may have the token, add it with AuthLayer::allow_origin",
        WithheldReason::NotOfThisToken => {
            "check the base URL; if the token may go there, add the origin to TokenCacheBuilder::only_for"
        }
        WithheldReason::HostMismatch => "take the Host header off, and the client sets the right one",
        WithheldReason::UserInfo => "take out of the URI what stands before the @",
        WithheldReason::Connect => "open tunnels below this layer",
        WithheldReason::Plaintext => "use https",
    }
}
