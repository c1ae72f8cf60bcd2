//! Variables, as presets read them.

use crate::error::Error;
use crate::text;

/// Where variables are looked up. One that is empty counts as not set.
pub(super) struct Environment<F> {
    lookup: F,
}

impl<F: Fn(&str) -> Option<String>> Environment<F> {
    pub(super) fn new(lookup: F) -> Self {
        Self { lookup }
    }

    /// Returns the value of the first of these that is set.
    pub(super) fn find(&self, names: &[&str]) -> Option<String> {
        let set = |name: &&str| (self.lookup)(name).map(|value| visible(&value));
        names.iter().filter_map(set).find(|value| !value.is_empty())
    }

    /// Returns the value of the first of these that is set, of which one must be.
    pub(super) fn required(&self, what: &str, names: &[&str]) -> Result<String, Error> {
        self.find(names).ok_or_else(|| missing(what, names))
    }
}

/// Takes off what cannot be seen, plain spaces too, at the ends of a value: a shell leaves it there. And the quotes around it, which
/// no value of a preset begins and ends with: a file of variables for a container keeps them.
pub(super) fn visible(value: &str) -> String {
    let value = text::visible(value);
    let inside = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    inside('"').or_else(|| inside('\'')).unwrap_or(value).trim().to_owned()
}

/// None of these is set.
pub(super) fn missing(what: &str, names: &[&str]) -> Error {
    Error::config(match names {
        [first, others @ ..] if !others.is_empty() => {
            format!("{what} is not in the environment; set {first}, or one of {}", others.join(", "))
        }
        _ => format!("{what} is not in the environment; set {}", names.join(", ")),
    })
}
