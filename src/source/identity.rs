//! Identifies a source, so that two of them can be told apart.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// Describes which tokens a source fetches: where, for which client and user, and with which parameters.
///
/// Processes whose sources have the same identity get the same tokens, so they can share one (`store::Shared`). So everything
/// that could lead to another token has to be in it. A setting that leads to the same token, such as a timeout, must not be
/// in it.
///
/// `Debug` does not show it: a value may be a secret.
///
/// # Examples
///
/// ```
/// use tower_oauth2::{AccessToken, Error, SourceIdentity, TokenRequest, TokenSource};
///
/// struct Vault {
///     address: String,
///     role: String,
/// }
///
/// impl TokenSource for Vault {
///     async fn token(&self, _request: TokenRequest) -> Result<AccessToken, Error> {
///         AccessToken::bearer("from-the-vault")
///     }
///
///     fn identity(&self) -> Option<SourceIdentity> {
///         Some(SourceIdentity::new("vault").with("address", &self.address).with("role", &self.role))
///     }
/// }
/// ```
#[derive(Clone)]
pub struct SourceIdentity {
    /// Each word begins with a sign that says what it is, so that no two identities read the same.
    words: Vec<SecretString>,
    /// Whether there is more to it, which is not known before a fetch.
    is_partial: bool,
    refresh_token: RefreshTokenUse,
}

/// Whether the source lives on a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefreshTokenUse {
    /// It does not.
    None,
    /// It does, and takes the one that comes with a [`TokenRequest`](super::TokenRequest).
    Shared,
    /// It does, and the requests that it gets are not those that were made to this source.
    OutOfReach,
}

impl SourceIdentity {
    /// Starts with the kind of the source, such as `vault`.
    #[must_use]
    pub fn new(kind: impl AsRef<str>) -> Self {
        let words = vec![word('*', kind.as_ref())];
        Self { words, is_partial: false, refresh_token: RefreshTokenUse::None }
    }

    /// Adds a setting that decides which tokens come. The order counts.
    #[must_use]
    pub fn with(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.words.push(word('.', name.as_ref()));
        self.words.push(word('=', value.as_ref()));
        self
    }

    /// Adds the identity of a source that this one asks.
    pub(crate) fn within(mut self, name: &str, other: Self) -> Self {
        self.words.push(word('<', name));
        self.words.extend(other.words);
        self.words.push(word('>', ""));
        self.is_partial |= other.is_partial;
        self
    }

    /// Says that it does not tell the source from every other one.
    pub(crate) fn partial(mut self) -> Self {
        self.is_partial = true;
        self
    }

    /// Returns whether it does not tell the source from every other one.
    pub(crate) fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// Says that the source lives on a refresh token.
    pub(crate) fn by_refresh_token(mut self) -> Self {
        self.refresh_token = RefreshTokenUse::Shared;
        self
    }

    /// Adds what another source says about refresh tokens.
    pub(crate) fn also(mut self, other: RefreshTokenUse) -> Self {
        self.refresh_token = match (self.refresh_token, other) {
            (RefreshTokenUse::OutOfReach, _) | (_, RefreshTokenUse::OutOfReach) => {
                RefreshTokenUse::OutOfReach
            }
            (RefreshTokenUse::Shared, _) | (_, RefreshTokenUse::Shared) => RefreshTokenUse::Shared,
            (RefreshTokenUse::None, RefreshTokenUse::None) => RefreshTokenUse::None,
        };
        self
    }

    /// The same source behind something that makes its own requests, such as a cache.
    pub(crate) fn behind(mut self) -> Self {
        if self.refresh_token == RefreshTokenUse::Shared {
            self.refresh_token = RefreshTokenUse::OutOfReach;
        }
        self
    }

    /// Returns whether the source lives on a refresh token.
    pub(crate) fn refresh_token(&self) -> RefreshTokenUse {
        self.refresh_token
    }

    /// Returns all that is in it.
    #[cfg_attr(not(feature = "store"), allow(dead_code, reason = "only stores have entries to name"))]
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(ExposeSecret::expose_secret)
    }
}

impl fmt::Debug for SourceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceIdentity").field("refresh_token", &self.refresh_token).finish_non_exhaustive()
    }
}

fn word(sign: char, text: &str) -> SecretString {
    let mut word = String::with_capacity(sign.len_utf8() + text.len());
    word.push(sign);
    word.push_str(text);
    word.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(identity: &SourceIdentity) -> Vec<String> {
        identity.words().map(str::to_owned).collect()
    }

    #[test]
    fn a_value_cannot_look_like_a_structure() {
        let inner = SourceIdentity::new("b").with("c", "d");
        let nested = SourceIdentity::new("a").within("x", inner);
        assert_eq!(words(&nested), ["*a", "<x", "*b", ".c", "=d", ">"]);
        let flat = SourceIdentity::new("a").with("x", "*b").with("c", "d");
        assert_eq!(words(&flat), ["*a", ".x", "=*b", ".c", "=d"]);
    }

    #[test]
    fn debug_shows_no_value() {
        let identity = SourceIdentity::new("a").with("pin", "S3CR3T");
        assert!(!format!("{identity:?}").contains("S3CR3T"));
    }

    #[test]
    fn a_refresh_token_behind_a_cache_is_out_of_reach() {
        let plain = SourceIdentity::new("a");
        assert_eq!(plain.clone().behind().refresh_token(), RefreshTokenUse::None);
        let rotating = SourceIdentity::new("a").by_refresh_token();
        assert_eq!(plain.clone().also(rotating.refresh_token()).refresh_token(), RefreshTokenUse::Shared);
        let behind = rotating.behind().refresh_token();
        assert_eq!(behind, RefreshTokenUse::OutOfReach);
        assert_eq!(plain.also(behind).refresh_token(), RefreshTokenUse::OutOfReach);
    }
}
