//! Whose limits a request counts against.

use std::fmt;
use std::hash::{Hash, Hasher};

use http::{Request, Uri};

use crate::extensions::CredentialId;
use crate::origin::Origin;

/// A server, and the credential with which it is asked: servers keep their limits by both.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(in crate::retry) struct Account {
    pub(in crate::retry) origin: Option<Origin>,
    /// Scheme and authority as a URI spells them that has no origin: with a user name, another scheme, an unusual host. A caller
    /// that spells it otherwise is told apart from it, which is never too little. There may be a password in it. None also for a
    /// URI that does not say where it goes, as those of a client that knows one server only.
    spelled: Option<(Box<str>, Box<str>)>,
    pub(in crate::retry) credential: Option<CredentialId>,
}

/// Where a request goes, and with which credential.
#[derive(Clone, Copy, Debug)]
pub(in crate::retry) struct RequestTarget<'a> {
    pub(in crate::retry) uri: &'a Uri,
    pub(in crate::retry) credential: Option<&'a CredentialId>,
}

impl<'a> RequestTarget<'a> {
    pub(in crate::retry) fn of<B>(request: &'a Request<B>) -> Self {
        Self { uri: request.uri(), credential: request.extensions().get() }
    }
}

impl Account {
    pub(in crate::retry) fn of(target: RequestTarget<'_>) -> Self {
        let origin = Origin::of(target.uri);
        let spelled = spell(target.uri).filter(|_| origin.is_none());
        let spelled = spelled.map(|(scheme, authority)| (scheme.into(), authority.into()));
        Self { origin, spelled, credential: target.credential.cloned() }
    }

    /// Returns whether a request counts against this account. It allocates nothing, as it is asked for every request.
    #[inline]
    pub(in crate::retry) fn is_of(&self, RequestTarget { uri, credential }: RequestTarget<'_>) -> bool {
        let server = match (&self.origin, &self.spelled) {
            (Some(origin), _) => origin.matches(uri),
            (None, Some((scheme, authority))) => spell(uri) == Some((&**scheme, &**authority)),
            (None, None) => uri.authority().is_none(),
        };
        server && self.credential.as_ref() == credential
    }

    /// Hashes what a request counts against, without making an account of it. Requests that count against one account
    /// hash alike, but for IPv6 addresses that are not written as usual.
    pub(in crate::retry) fn hash_of(
        RequestTarget { uri, credential }: RequestTarget<'_>,
        state: &mut impl Hasher,
    ) {
        credential.hash(state);
        let scheme = uri.scheme_str().unwrap_or_default();
        scheme.hash(state);
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let default_port = if scheme == "https" { ":443" } else { ":80" };
        for byte in authority.strip_suffix(default_port).unwrap_or(authority).bytes() {
            state.write_u8(byte.to_ascii_lowercase());
        }
    }
}

// --- Spelled ---

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, spelled: _, credential } = self;
        f.debug_struct("Account")
            .field("origin", origin)
            .field("credential", credential)
            .finish_non_exhaustive()
    }
}

fn spell(uri: &Uri) -> Option<(&str, &str)> {
    Some((uri.scheme_str().unwrap_or_default(), uri.authority()?.as_str()))
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use super::*;

    fn to<'a>(uri: &'a Uri, credential: Option<&'a CredentialId>) -> RequestTarget<'a> {
        RequestTarget { uri, credential }
    }

    fn hash(uri: &Uri, credential: Option<&CredentialId>) -> u64 {
        let mut state = DefaultHasher::new();
        Account::hash_of(to(uri, credential), &mut state);
        state.finish()
    }

    #[test]
    fn an_account_is_known_by_origin_and_credential_however_they_are_written() {
        let (one, other) = (CredentialId::new("one"), CredentialId::new("other"));
        let uri = Uri::from_static;
        for (a, b) in [
            (uri("https://api.example.com/a"), uri("https://API.example.com:443/b?c")),
            (uri("http://api.example.com"), uri("http://api.example.com:80")),
            (uri("/a"), uri("/b")),
            (uri("https://me@api.example.com/"), uri("https://me@api.example.com/b")),
        ] {
            let account = Account::of(to(&a, Some(&one)));
            assert!(account.is_of(to(&a, Some(&one))) && account.is_of(to(&b, Some(&one))), "{a} {b}");
            assert!(!account.is_of(to(&a, Some(&other))) && !account.is_of(to(&a, None)));
            assert_eq!(account, Account::of(to(&b, Some(&one))));
            assert_eq!(hash(&a, Some(&one)), hash(&b, Some(&one)), "{a} {b}");
            assert_ne!(hash(&a, Some(&one)), hash(&a, Some(&other)));
        }
        let account = Account::of(to(&uri("https://api.example.com/"), None));
        for other in
            ["http://api.example.com/", "https://api.example.com:444/", "https://example.com/", "/", "a:1"]
        {
            assert!(!account.is_of(to(&uri(other), None)), "{other}");
        }
        assert!(!Account::of(to(&uri("/"), None)).is_of(to(&uri("https://api.example.com/"), None)));
    }
}
