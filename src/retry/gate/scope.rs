//! Which requests of an account a limit is about: values in, verdict out.
//!
//! It begins with all. Where every refusal was of paths that begin alike, while others were accepted, it is about those alone,
//! and where every refusal was of one method, about that alone. A refusal outside makes it about more again.

use http::{Method, Uri};

/// The properties by which the requests of an account are told apart.
#[derive(Clone, Copy, Debug)]
pub(in crate::retry) struct RequestKind<'a> {
    path: &'a str,
    method: &'a Method,
}

/// In what a request is like the one that was refused first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Likeness {
    /// With how many of the same path segments it begins.
    segments: usize,
    method: bool,
}

/// Which requests a limit is about, as far as is known.
#[derive(Clone, Debug)]
pub(super) struct LimitScope {
    path: Box<str>,
    method: Method,
    /// With how many segments of the path a request must begin for the limit to be about it.
    segments: usize,
    /// It must also be of the method.
    is_of_method: bool,
    refused: u32,
    /// With how many segments of the path all began that were refused.
    common: usize,
    /// How many were accepted that begin with fewer of them, and with how many at least.
    by_path: u32,
    fewest: usize,
    /// How many of other methods were accepted; none where one was refused.
    by_method: Option<u32>,
}

/// How many must be accepted elsewhere before it counts as free. All rows of tests/simulation hold with 1 and with 20: it is
/// for limits that refuse by chance.
const WITNESSES: u32 = 5;

/// How many must be refused of one kind before the limit counts as one of that kind. All rows hold with 1 and with 8.
const REFUSALS: u32 = 2;

// --- RequestKind ---

impl<'a> RequestKind<'a> {
    pub(in crate::retry) fn of(uri: &'a Uri, method: &'a Method) -> Self {
        Self { path: uri.path(), method }
    }
}

// --- Likeness ---

impl Likeness {
    /// That of a request of which nothing else is known.
    pub(super) const SAME: Self = Self { segments: usize::MAX, method: true };
}

// --- LimitScope ---

impl LimitScope {
    /// Begins with what was refused first.
    pub(super) fn new(kind: RequestKind<'_>) -> Self {
        Self {
            path: kind.path.into(),
            method: kind.method.clone(),
            segments: 0,
            is_of_method: false,
            refused: 1,
            common: segments(kind.path).count(),
            by_path: 0,
            fewest: usize::MAX,
            by_method: Some(0),
        }
    }

    pub(super) fn likeness(&self, kind: RequestKind<'_>) -> Likeness {
        let pairs = segments(&self.path).zip(segments(kind.path));
        Likeness {
            segments: pairs.take_while(|(own, other)| own == other).count(),
            method: self.method == *kind.method,
        }
    }

    /// Whether the limit is about a request.
    pub(super) fn covers(&self, like: Likeness) -> bool {
        like.segments >= self.segments && (like.method || !self.is_of_method)
    }

    /// Returns the path and the method that it is about alone.
    pub(super) fn only(&self) -> Option<String> {
        let path = segments(&self.path).take(self.segments).collect::<Vec<_>>().join("/");
        match (self.segments > 0, self.is_of_method) {
            (true, true) => Some(format!("{} {path}", self.method)),
            (true, false) => Some(path),
            (false, true) => Some(self.method.to_string()),
            (false, false) => None,
        }
    }

    /// Notes a request that was accepted. Returns whether the limit is about less from now on.
    pub(super) fn accepted(&mut self, like: Likeness) -> bool {
        if !self.covers(like) {
            return false;
        }
        if like.segments < self.common {
            self.by_path = self.by_path.saturating_add(1);
            self.fewest = self.fewest.min(like.segments);
        }
        if let Some(free) = self.by_method.as_mut().filter(|_| !like.method) {
            *free = free.saturating_add(1);
        }
        if self.refused < REFUSALS {
            return false;
        }
        let by_path = self.by_path >= WITNESSES;
        if by_path {
            // No more of the path than tells it from one that was accepted.
            (self.segments, self.by_path, self.fewest) = (self.fewest + 1, 0, usize::MAX);
        }
        let by_method = !self.is_of_method && self.by_method >= Some(WITNESSES);
        self.is_of_method |= by_method;
        by_path || by_method
    }

    /// Notes a request that was refused. Returns whether the limit is about more from now on.
    pub(super) fn refused(&mut self, like: Likeness) -> bool {
        self.refused = self.refused.saturating_add(1);
        let was_outside = !self.covers(like);
        if like.segments < self.common {
            (self.common, self.by_path, self.fewest) = (like.segments, 0, usize::MAX);
            self.segments = if like.segments < self.segments { 0 } else { self.segments };
        }
        if !like.method {
            (self.by_method, self.is_of_method) = (None, false);
        }
        was_outside
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').skip(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind<'a>(path: &'a Uri, method: &'a Method) -> RequestKind<'a> {
        RequestKind::of(path, method)
    }

    #[test]
    fn a_limit_is_about_one_path_or_one_method_once_others_are_accepted() {
        let uri = Uri::from_static;
        let (search, items) = (uri("/search/a?b"), uri("https://a.b/items"));
        let (found, listed) = (uri("/api/v2/search/a"), uri("/api/v2/items"));
        for (refused, accepted, only) in [
            (kind(&search, &Method::GET), kind(&items, &Method::GET), "search"),
            (kind(&items, &Method::POST), kind(&items, &Method::GET), "POST"),
            (kind(&search, &Method::POST), kind(&items, &Method::GET), "POST search"),
            (kind(&found, &Method::GET), kind(&listed, &Method::GET), "api/v2/search"),
        ] {
            let mut scope = LimitScope::new(refused);
            let (inside, outside) = (scope.likeness(refused), scope.likeness(accepted));
            assert!((0..9).all(|_| !scope.accepted(outside)), "one refusal may be chance");
            assert!(!scope.refused(inside));
            assert!(scope.accepted(outside) && scope.covers(inside) && !scope.covers(outside));
            assert_eq!(scope.only().as_deref(), Some(only));
            assert!(!scope.accepted(outside) && !scope.accepted(inside));
            // One refusal elsewhere, and it is about all for good.
            assert!(scope.refused(outside) && scope.covers(outside));
            scope.refused(inside);
            assert!((0..9).all(|_| !scope.accepted(outside)), "{:?}", scope.only());
        }
    }

    #[test]
    fn it_is_about_no_more_of_a_path_than_was_refused() {
        let paths = ["/v1/users/1", "/v1/users/2", "/v1/orders/1", "/v2"].map(Uri::from_static);
        let [one, two, order, other] = &paths;
        let mut scope = LimitScope::new(kind(one, &Method::GET));
        let like = |uri| scope.clone().likeness(kind(uri, &Method::GET));
        let [one, two, order, other] = [like(one), like(two), like(order), like(other)];
        scope.refused(two);
        assert!((0..4).all(|_| !scope.accepted(order)));
        assert!(scope.accepted(other));
        assert_eq!(scope.only().as_deref(), Some("v1"), "each step takes five");
        assert!((0..4).all(|_| !scope.accepted(order)) && scope.accepted(order));
        assert_eq!(scope.only().as_deref(), Some("v1/users"));
        assert!((0..9).all(|_| !scope.accepted(one)), "another of these was refused");
        assert!(scope.refused(order));
        assert_eq!(scope.only(), None);
    }

    #[test]
    fn what_is_refused_everywhere_is_about_all() {
        let paths = ["/a", "/b", "/c"].map(Uri::from_static);
        let mut scope = LimitScope::new(kind(&paths[0], &Method::GET));
        for path in paths.iter().cycle().take(30) {
            let like = scope.likeness(kind(path, &Method::GET));
            assert!(!scope.refused(like));
            assert!((0..9).all(|_| !scope.accepted(like)));
        }
        assert_eq!(scope.only(), None);
    }
}
