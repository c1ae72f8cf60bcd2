//! A token in a file that another program keeps fresh.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use super::{TokenRequest, TokenSource};
use crate::claims::Claims;
use crate::clock;
use crate::error::Error;
use crate::file::SecretFile;
use crate::token::AccessToken;

/// A token in a file that another program renews, such as the one that Kubernetes projects into a pod.
///
/// 1. The file is read at each fetch, off the async thread: a regular one (links are followed) of at most 64 KiB. White
///    space around the token is removed.
/// 2. When the token ends is read from its `exp`, if it is a JWT; nothing is verified, which is up to the API.
///    One that says nothing of its end, and any token with a [`max_age`](Self::max_age), is used for so long, and then
///    read again.
/// 3. A file that is absent, empty or half written may be just being written, and one whose token has expired is about to
///    be: it is read again a few times within a second. Then the error is a transient one.
///
/// As the subject of a [`TokenExchange`](crate::grants::TokenExchange) it is read at each exchange, so it is never an
/// old one. In a [`TokenCache`](crate::TokenCache) it is read as often as a token is fetched: ahead of its end, and when
/// an API rejects it.
///
/// # Defaults
///
/// - longest use of one that is read: to the `exp` of a JWT, else a minute
///
/// # Cancel safety
///
/// A fetch that is dropped leaves a read behind, which ends by itself.
///
/// # Examples
///
/// ```
/// use tower_oauth2::{FileToken, TokenCache};
///
/// let cache = TokenCache::new(FileToken::new("/var/run/secrets/tokens/billing"));
/// ```
#[derive(Clone)]
pub struct FileToken {
    file: SecretFile,
    max_age: Option<Duration>,
}

/// How long a token is used whose expiry is unknown. Kubernetes' own clients read as often.
const MAX_AGE: Duration = Duration::from_secs(60);

impl FileToken {
    /// Creates the source from the path of the file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { file: SecretFile::new(path), max_age: None }
    }

    /// Sets how long a token is used at most before the file is read again.
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }
}

impl TokenSource for FileToken {
    async fn token(&self, _request: TokenRequest) -> Result<AccessToken, Error> {
        let unusable =
            |what: &str| format!("the token in {} cannot be used: {what}", self.file.path().display());
        let now = clock::unix_time();
        let read = |secret: &str| {
            let secret = secret.trim();
            let token = AccessToken::bearer(secret).map_err(|error| {
                Error::transient(unusable("the file holds something else than one token")).with_source(error)
            })?;
            let expires = Claims::read(secret).and_then(|claims| claims.expires);
            if expires.is_some_and(|expires| expires <= now) {
                return Err(Error::transient(unusable(
                    "it has expired; check the program that renews it, and this machine's clock",
                )));
            }
            Ok((token, expires))
        };
        let (token, expires) = self.file.read_as("token", read).await?;
        let Some(expires) = expires else {
            return Ok(token.with_lifetime(self.max_age.unwrap_or(MAX_AGE)));
        };
        let used_until = self.max_age.map_or(expires, |max_age| expires.min(now.saturating_add(max_age)));
        Ok(match UNIX_EPOCH.checked_add(used_until) {
            Some(end) => token.with_expires_at(end),
            None => token,
        })
    }

    fn has_changed(&self) -> bool {
        self.file.has_changed()
    }
}

impl fmt::Debug for FileToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileToken").field("path", &self.file.path()).field("max_age", &self.max_age).finish()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::source::FetchReason;

    /// A file of its own for each case, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn holding(bytes: impl AsRef<[u8]>) -> Self {
            static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
            let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let name = format!("tower-oauth2-file-token-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, bytes).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    async fn ask(source: &FileToken) -> Result<AccessToken, Error> {
        source.token(TokenRequest::new(FetchReason::Initial)).await
    }

    fn jwt(ends_in: i64) -> String {
        let exp = i64::try_from(clock::unix_time().as_secs()).unwrap() + ends_in;
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp}}}"#)))
    }

    #[tokio::test]
    async fn a_token_ends_when_it_says_and_is_read_again_when_it_changed() {
        let token = jwt(600);
        let file = Scratch::holding(format!(" {token}\n\n"));
        let source = FileToken::new(&file.0);
        let read = ask(&source).await.unwrap();
        assert_eq!(read.secret().expose_secret(), token);
        let end = read.expires_at().unwrap().duration_since(UNIX_EPOCH).unwrap();
        assert_eq!(Some(end), Claims::read(&token).unwrap().expires);

        std::fs::write(&file.0, "opaque").unwrap();
        let read = ask(&source).await.unwrap();
        assert_eq!((read.secret().expose_secret(), read.lifetime()), ("opaque", Some(MAX_AGE)));
    }

    #[tokio::test]
    async fn a_maximal_age_has_the_file_read_sooner() {
        let file = Scratch::holding(jwt(600));
        let source = FileToken::new(&file.0).max_age(Duration::from_secs(30));
        let end = ask(&source).await.unwrap().expires_at().unwrap().duration_since(UNIX_EPOCH).unwrap();
        let left = end - clock::unix_time();
        assert!(left <= Duration::from_secs(30) && left > Duration::from_secs(20), "{left:?}");
        std::fs::write(&file.0, "opaque").unwrap();
        assert_eq!(ask(&source).await.unwrap().lifetime(), Some(Duration::from_secs(30)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_used_is_an_error_that_names_the_file_and_shows_nothing_of_it() {
        let cases: [(&[u8], &str); 5] = [
            (b"", "empty"),
            (b"\n \n", "something else than one token"),
            (b"S3CR3T S3CR3T", "something else than one token"),
            (b"S3CR3T\xff", "UTF-8"),
            (&[b'x'; 64 * 1024 + 1], "64 KiB"),
        ];
        for (written, what) in cases {
            let file = Scratch::holding(written);
            let error = ask(&FileToken::new(&file.0)).await.unwrap_err();
            let said = error.to_string();
            assert!(
                error.is_transient() && said.contains(what) && said.contains("tower-oauth2-file-token"),
                "{said}"
            );
            assert!(!format!("{error:?}").contains("S3CR3T"), "{error:?}");
        }
        let error = ask(&FileToken::new("/does/not/exist")).await.unwrap_err();
        assert!(
            error.is_transient()
                && error.to_string().contains("the token cannot be read from /does/not/exist"),
            "{error}"
        );

        let expired = Scratch::holding(jwt(-5));
        let error = ask(&FileToken::new(&expired.0)).await.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("has expired"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_just_being_written_is_read_again() {
        for before in [None, Some(""), Some("half of a\ntoken")] {
            let file = Scratch::holding(before.unwrap_or_default());
            if before.is_none() {
                std::fs::remove_file(&file.0).unwrap();
            }
            let source = FileToken::new(&file.0);
            let asking = tokio::spawn(async move { ask(&source).await });
            tokio::time::sleep(Duration::from_millis(500)).await;
            std::fs::write(&file.0, "whole").unwrap();
            assert_eq!(asking.await.unwrap().unwrap().secret().expose_secret(), "whole", "{before:?}");
        }
    }
}
