//! A source with something around its token requests.

use crate::error::Error;
use crate::source::{DynTokenSource, SourceIdentity, TokenRequest, TokenSource};
use crate::token::AccessToken;

/// A source whose token requests go by `around`. All the rest is that of the source.
pub(crate) struct WrappedSource<W> {
    source: Box<dyn DynTokenSource>,
    around: W,
}

/// The work around a token request: a wait, a limit, another attempt.
pub(crate) trait AroundFetch: Send + Sync + 'static {
    /// Fetches a token from the source.
    fn fetch(
        &self,
        source: &dyn DynTokenSource,
        request: TokenRequest,
    ) -> impl Future<Output = Result<AccessToken, Error>> + Send;

    /// Returns the name of the source, unless the log is to have none.
    fn name(&self, source: &dyn DynTokenSource) -> Option<String> {
        source.own_name()
    }
}

impl<W> WrappedSource<W> {
    pub(crate) fn new(source: Box<dyn DynTokenSource>, around: W) -> Self {
        Self { source, around }
    }
}

impl<W: AroundFetch> TokenSource for WrappedSource<W> {
    fn token(&self, request: TokenRequest) -> impl Future<Output = Result<AccessToken, Error>> + Send {
        self.around.fetch(&*self.source, request)
    }

    fn name(&self) -> Option<String> {
        self.around.name(&*self.source)
    }

    fn is_disposable(&self) -> bool {
        self.source.may_be_dropped()
    }

    fn accepted(&self, token: &AccessToken) {
        self.source.note_accepted(token);
    }

    fn has_changed(&self) -> bool {
        self.source.may_differ()
    }

    fn identity(&self) -> Option<SourceIdentity> {
        self.source.own_identity()
    }
}

/// A source whose type is hidden: one of several kinds, as a configuration chooses.
#[cfg(all(feature = "jwt", feature = "providers"))]
pub(crate) type AnySource = WrappedSource<()>;

#[cfg(all(feature = "jwt", feature = "providers"))]
impl AnySource {
    pub(crate) fn of(source: impl TokenSource) -> Self {
        Self::new(Box::new(source), ())
    }
}

#[cfg(all(feature = "jwt", feature = "providers"))]
impl AroundFetch for () {
    async fn fetch(&self, source: &dyn DynTokenSource, request: TokenRequest) -> Result<AccessToken, Error> {
        source.fetch(request).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::source::FetchReason;

    struct Source;

    static ACCEPTED: AtomicBool = AtomicBool::new(false);

    impl TokenSource for Source {
        async fn token(&self, _request: TokenRequest) -> Result<AccessToken, Error> {
            AccessToken::bearer("inner")
        }

        fn name(&self) -> Option<String> {
            Some("name".to_owned())
        }

        fn is_disposable(&self) -> bool {
            false
        }

        fn accepted(&self, _token: &AccessToken) {
            ACCEPTED.store(true, Ordering::Relaxed);
        }

        fn has_changed(&self) -> bool {
            true
        }

        fn identity(&self) -> Option<SourceIdentity> {
            Some(SourceIdentity::new("source"))
        }
    }

    struct Around;

    impl AroundFetch for Around {
        async fn fetch(
            &self,
            source: &dyn DynTokenSource,
            request: TokenRequest,
        ) -> Result<AccessToken, Error> {
            Ok(source.fetch(request).await?.with_extra("around", "1"))
        }
    }

    #[tokio::test]
    async fn all_but_the_token_request_is_that_of_the_source() {
        let wrapped = WrappedSource::new(Box::new(Source), Around);
        let token = wrapped.token(TokenRequest::new(FetchReason::Initial)).await.unwrap();
        assert_eq!((token.expose(), token.expose_extra("around")), ("inner", Some("1")));
        wrapped.accepted(&token);
        assert!(ACCEPTED.load(Ordering::Relaxed) && wrapped.has_changed() && !wrapped.is_disposable());
        assert!(wrapped.identity().is_some());
        assert_eq!(wrapped.name().as_deref(), Some("name"));
    }
}
