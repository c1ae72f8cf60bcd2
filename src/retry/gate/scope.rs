//! Which requests of an account a limit is about: values in, verdict out.
//!
//! It begins with all. Where every refusal was of one first path segment, or else of one method, while others were accepted,
//! it is about that alone. A refusal outside makes it about all again.

use http::{Method, Uri};

/// The properties by which the requests of an account are told apart.
#[derive(Clone, Copy, Debug)]
pub(in crate::retry) struct RequestKind<'a> {
    segment: &'a str,
    method: &'a Method,
}

/// Whether a request is like the one that was refused first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Likeness {
    segment: bool,
    method: bool,
}

/// Which requests a limit is about, as far as is known.
#[derive(Clone, Debug)]
pub(super) struct LimitScope {
    segment: Box<str>,
    method: Method,
    /// In what a request must be like the first for the limit to be about it; none for all requests.
    narrowed: Option<Likeness>,
    refused: u32,
    /// How many were accepted elsewhere since the last refusal there; none where it was refused like the rest.
    by_segment: Option<u32>,
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
        Self { segment: uri.path().split('/').nth(1).unwrap_or_default(), method }
    }
}

// --- Likeness ---

impl Likeness {
    /// That of a request of which nothing else is known.
    pub(super) const SAME: Self = Self { segment: true, method: true };
}

// --- LimitScope ---

impl LimitScope {
    /// Begins with what was refused first.
    pub(super) fn new(kind: RequestKind<'_>) -> Self {
        Self {
            segment: kind.segment.into(),
            method: kind.method.clone(),
            narrowed: None,
            refused: 1,
            by_segment: Some(0),
            by_method: Some(0),
        }
    }

    pub(super) fn likeness(&self, kind: RequestKind<'_>) -> Likeness {
        Likeness { segment: *self.segment == *kind.segment, method: self.method == *kind.method }
    }

    /// Whether the limit is about a request.
    pub(super) fn covers(&self, like: Likeness) -> bool {
        self.narrowed.is_none_or(|by| like.segment && by.segment || like.method && by.method)
    }

    /// Returns the one path segment or method that it is about.
    pub(super) fn only(&self) -> Option<&str> {
        self.narrowed.map(|by| if by.segment { &*self.segment } else { self.method.as_str() })
    }

    /// Notes a request that was accepted. Returns whether the limit is about less from now on.
    pub(super) fn accepted(&mut self, like: Likeness) -> bool {
        let count = |free: &mut Option<u32>, elsewhere: bool| {
            if let Some(free) = free.as_mut().filter(|_| elsewhere) {
                *free = free.saturating_add(1);
            }
            free.is_some_and(|free| free >= WITNESSES)
        };
        let (segment, method) =
            (count(&mut self.by_segment, !like.segment), count(&mut self.by_method, !like.method));
        if self.narrowed.is_some() || self.refused < REFUSALS {
            return false;
        }
        self.narrowed = (segment || method).then_some(Likeness { segment, method: !segment });
        self.narrowed.is_some()
    }

    /// Notes a request that was refused. Returns whether the limit is about more from now on.
    pub(super) fn refused(&mut self, like: Likeness) -> bool {
        self.refused = self.refused.saturating_add(1);
        let was_outside = !self.covers(like);
        if !like.segment {
            self.by_segment = None;
        }
        if !like.method {
            self.by_method = None;
        }
        if was_outside {
            self.narrowed = None;
        }
        was_outside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind<'a>(path: &'a Uri, method: &'a Method) -> RequestKind<'a> {
        RequestKind::of(path, method)
    }

    #[test]
    fn a_limit_is_about_one_segment_or_one_method_once_others_are_accepted() {
        let (search, items) = (Uri::from_static("/search/a?b"), Uri::from_static("https://a.b/items"));
        for (refused, accepted, only) in [
            (kind(&search, &Method::GET), kind(&items, &Method::GET), "search"),
            (kind(&items, &Method::POST), kind(&items, &Method::GET), "POST"),
            (kind(&search, &Method::POST), kind(&items, &Method::GET), "search"),
        ] {
            let mut scope = LimitScope::new(refused);
            let (inside, outside) = (scope.likeness(refused), scope.likeness(accepted));
            assert!((0..9).all(|_| !scope.accepted(outside)), "one refusal may be chance");
            assert!(!scope.refused(inside));
            assert!(scope.accepted(outside) && scope.covers(inside) && !scope.covers(outside));
            assert_eq!(scope.only(), Some(only));
            assert!(!scope.accepted(outside) && !scope.accepted(inside));
            // One refusal elsewhere, and it is about all for good.
            assert!(scope.refused(outside) && scope.covers(outside));
            scope.refused(inside);
            assert!((0..9).all(|_| !scope.accepted(outside)), "{:?}", scope.only());
        }
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
