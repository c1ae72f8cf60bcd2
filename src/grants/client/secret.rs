//! A secret: a value, or where it is read at each fetch, so that a rotation needs no restart.

use std::env::VarError;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::TryFutureExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt as _, service_fn};

use crate::error::{Error, ErrorKind};
use crate::file::SecretFile;
use crate::source::{DynTokenSource, RefreshTokenUse, SourceIdentity, TokenRequest, TokenSource};
use crate::text;
use crate::token::AccessToken;

/// A secret: that of a client (RFC 6749 §2.3.1), a key, an assertion, or the value of a parameter.
///
/// It is a value, or read from a variable, a file or a closure. Any [`TokenSource`] is one too: its token is the secret.
///
/// Everything but a plain value is read at each fetch. If the server returns `invalid_client`, it is read once more, and
/// the request is sent again if the secret has changed.
///
/// # Examples
///
/// ```
/// use tower_oauth2::Secret;
///
/// let mounted = Secret::from_file("/run/secrets/client_secret");
/// let inherited = Secret::from_env("CLIENT_SECRET");
/// let given = Secret::new("7Fjfp0ZBr1KtDRbnfVdmIw");
/// assert!(!format!("{given:?}").contains("7Fjfp0"));
/// ```
#[derive(Clone)]
#[must_use]
pub struct Secret {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Value(SecretString),
    Env(Arc<str>),
    File(SecretFile),
    /// The user's closure.
    Fn(BoxCloneSyncService<(), SecretString, Error>),
    Source(Arc<dyn DynTokenSource>),
}

impl Secret {
    /// Creates the secret from its value.
    pub fn new(secret: impl Into<String>) -> Self {
        Self::of(secret.into().into())
    }

    /// Creates the secret from a value that is kept as one.
    pub(crate) fn of(secret: SecretString) -> Self {
        Self { kind: Kind::Value(secret) }
    }

    /// Reads the secret from an environment variable. Unset or empty is a configuration error at the fetch.
    pub fn from_env(variable: impl Into<String>) -> Self {
        Self { kind: Kind::Env(variable.into().into()) }
    }

    /// Reads the secret from a file, off the async thread.
    ///
    /// The file must be a regular one (links are followed) of at most 64 KiB in UTF-8. Text that an editor leaves at its ends
    /// is removed. A file that is absent, empty or half written may be just being written: it is read again a few times, and
    /// then the error is a transient one.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self { kind: Kind::File(SecretFile::new(path)) }
    }

    /// Calls a closure, for secrets that live in a vault. It may take as long as an attempt. An error of any class becomes a
    /// transient one, unless it is throttled: a refusal of a vault says nothing of the grant.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_oauth2::{Secret, Error, ErrorKind};
    ///
    /// let secret = Secret::from_fn(|| async {
    ///     ask_vault().await.map_err(|error| Error::new(ErrorKind::Transient, "the vault did not respond").with_source(error))
    /// });
    /// # async fn ask_vault() -> Result<String, std::io::Error> { Ok("s".into()) }
    /// ```
    ///
    /// A closure with a state is called many times, and the future of each call outlives it. So each call clones what
    /// it needs, and moves the clone into its future:
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tower_oauth2::{Secret, Error, ErrorKind};
    /// # struct Vault;
    /// # impl Vault {
    /// #     async fn read(&self, _path: &str) -> Result<String, std::io::Error> { Ok("s".into()) }
    /// # }
    ///
    /// let vault = Arc::new(Vault);
    /// let secret = Secret::from_fn(move || {
    ///     let vault = Arc::clone(&vault);
    ///     async move {
    ///         vault.read("billing").await.map_err(|error| {
    ///             Error::new(ErrorKind::Transient, "the vault did not respond").with_source(error)
    ///         })
    ///     }
    /// });
    /// ```
    pub fn from_fn<F, Fut, S>(read: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<S, Error>> + Send + 'static,
        S: Into<String>,
    {
        let read = Arc::new(move || read().map_ok(|secret| SecretString::from(secret.into())));
        Self { kind: Kind::Fn(BoxCloneSyncService::new(service_fn(move |()| read()))) }
    }

    /// Returns whether reading again can give another secret.
    pub(crate) fn may_change(&self) -> bool {
        self.value().is_none()
    }

    /// Returns whether the file that the secret is in was changed since it was read last, or its source has another token.
    pub(crate) fn has_changed(&self) -> bool {
        match &self.kind {
            Kind::Value(_) | Kind::Env(_) | Kind::Fn(_) => false,
            Kind::File(file) => file.has_changed(),
            Kind::Source(source) => source.may_differ(),
        }
    }

    /// Returns the secret if it is a plain value.
    pub(crate) fn value(&self) -> Option<&SecretString> {
        let Kind::Value(secret) = &self.kind else { return None };
        Some(secret)
    }

    /// Reads the secret.
    #[cfg(test)]
    async fn read(&self) -> Result<SecretString, Error> {
        self.read_as("client secret").await
    }

    /// Returns the source whose token it is, if it is one.
    pub(crate) fn source(&self) -> Option<&dyn DynTokenSource> {
        let Kind::Source(source) = &self.kind else { return None };
        Some(&**source)
    }

    /// Adds what it stands for, if that is known before it is read.
    pub(crate) fn describe(&self, name: &str, identity: SourceIdentity) -> Option<SourceIdentity> {
        match &self.kind {
            Kind::Value(secret) => Some(identity.with(name, secret.expose_secret())),
            Kind::Env(_) | Kind::File(_) | Kind::Fn(_) => None,
            // The user of a refresh token is not known.
            Kind::Source(source) => source
                .own_identity()
                .filter(|source| source.refresh_token() == RefreshTokenUse::None && !source.is_partial())
                .map(|source| identity.within(name, source)),
        }
    }

    /// Reads the secret alone.
    #[cfg(any(feature = "jwt", test))]
    pub(crate) async fn read_as(&self, what: &str) -> Result<SecretString, Error> {
        let request = TokenRequest::new(crate::source::FetchReason::Initial);
        self.read_for(what, request).await.map(|(secret, _)| secret)
    }

    /// Reads the secret. `what` is what it is called in messages. A source gets this request, and its token comes along.
    ///
    /// Invisible characters at its ends are removed, wherever it comes from, and then it must not be empty.
    pub(crate) async fn read_for(
        &self,
        what: &str,
        request: TokenRequest,
    ) -> Result<(SecretString, Option<AccessToken>), Error> {
        let (secret, remedy) = match &self.kind {
            Kind::Value(secret) => (secret.clone(), "give it".into()),
            Kind::Env(variable) => {
                (read_env(what, variable)?, format!("set the environment variable {variable}"))
            }
            Kind::File(file) => {
                (file.read(what).await?, format!("it is read from {}", file.path().display()))
            }
            Kind::Fn(read) => {
                let secret = read.clone().oneshot(()).await.map_err(of_a_vault)?;
                (secret, "its closure returned an empty one".into())
            }
            Kind::Source(source) => {
                let token = source.fetch(request).await?;
                return Ok((token.secret().clone(), Some(token)));
            }
        };
        let trimmed = text::trimmed(secret.expose_secret());
        if trimmed.is_empty() {
            let error = format!("the {what} is empty: {remedy}");
            return Err(if self.may_change() { Error::transient(error) } else { Error::config(error) });
        }
        Ok((trimmed.into(), None))
    }

    /// Returns whether it is a plain value without anything in it.
    pub(crate) fn is_empty_value(&self) -> bool {
        self.value().is_some_and(|secret| text::trimmed(secret.expose_secret()).is_empty())
    }
}

impl From<&str> for Secret {
    fn from(secret: &str) -> Self {
        Self::new(secret)
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self::new(secret)
    }
}

/// The token of a source. A request to it is made each time.
impl<S: TokenSource> From<S> for Secret {
    fn from(source: S) -> Self {
        Self { kind: Kind::Source(Arc::new(source)) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Value(_) => f.write_str("Secret(value)"),
            Kind::Env(variable) => write!(f, "Secret(env {variable:?})"),
            Kind::File(file) => write!(f, "Secret(file {:?})", file.path()),
            Kind::Fn(_) => f.write_str("Secret(fn)"),
            Kind::Source(_) => f.write_str("Secret(source)"),
        }
    }
}

/// Returns whether two secrets are the same one. Both are ours, so the time that it takes reveals nothing.
pub(crate) fn same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

/// A vault that refuses now may give the secret later, and it is not the authorization server that refuses. Likewise another
/// source.
pub(super) fn of_a_vault(error: Error) -> Error {
    if error.is_temporary() { error } else { error.reclassified(ErrorKind::Transient) }
}

/// A key or a secret that cannot be used may be just being written, where it is not a value.
pub(crate) fn of_the_moment(error: Error, may_change: bool) -> Error {
    if may_change && error.is_config() { error.reclassified(ErrorKind::Transient) } else { error }
}

fn read_env(what: &str, variable: &str) -> Result<SecretString, Error> {
    let secret = std::env::var(variable).map_err(|error| match error {
        VarError::NotPresent => format!("there is no {what}: set the environment variable {variable}"),
        // The value is not shown.
        VarError::NotUnicode(_) => format!("the {what} in the environment variable {variable} is not UTF-8"),
    });
    secret.map(SecretString::from).map_err(Error::config)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A file of its own for each case, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn holding(bytes: impl AsRef<[u8]>) -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!(
                "tower-oauth2-secret-{}-{}",
                std::process::id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            );
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

    async fn read(bytes: impl AsRef<[u8]>) -> Result<String, Error> {
        let file = Scratch::holding(bytes);
        let secret = Secret::from_file(&file.0).read().await?;
        Ok(secret.expose_secret().to_owned())
    }

    #[tokio::test]
    async fn what_an_editor_leaves_at_the_ends_of_a_file_is_removed() {
        for (written, secret) in [
            ("s", "s"),
            ("s\n", "s"),
            ("s\r\n", "s"),
            ("s\n\n", "s"),
            ("s\r", "s"),
            (" s \t", " s "),
            ("\u{feff}s\0", "s"),
            ("\u{a0}s\u{2003}\u{200b}", "s"),
            ("a b\tc", "a b\tc"),
        ] {
            assert_eq!(read(written).await.unwrap(), secret, "{written:?}");
        }
        assert_eq!(read("x".repeat(64 * 1024)).await.unwrap().len(), 64 * 1024);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_holds_no_secret_is_an_error_that_names_it() {
        let cases: [(&[u8], &str); 4] =
            [(b"", "empty"), (b"\r\n", "empty"), (b"\xff\xfe", "UTF-8"), (&[b'x'; 64 * 1024 + 1], "64 KiB")];
        for (written, reason) in cases {
            let error = read(written).await.unwrap_err();
            let text = error.to_string();
            assert!(
                error.is_transient() && text.contains(reason) && text.contains("tower-oauth2-secret"),
                "{text}"
            );
        }
        let error = Secret::from_file("/does/not/exist").read().await.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("/does/not/exist"), "{error}");
        let error = Secret::from_file(std::env::temp_dir()).read().await.unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }

    #[tokio::test]
    async fn a_file_is_read_at_each_fetch() {
        let file = Scratch::holding("old\n");
        let secret = Secret::from_file(&file.0);
        assert_eq!(secret.read().await.unwrap().expose_secret(), "old");
        std::fs::write(&file.0, "new\n").unwrap();
        assert_eq!(secret.read().await.unwrap().expose_secret(), "new");
    }

    #[tokio::test]
    async fn a_variable_that_is_not_set_is_named() {
        let error = Secret::from_env("TOWER_OAUTH2_TEST_UNSET").read().await.unwrap_err();
        assert!(error.is_config() && error.to_string().contains("TOWER_OAUTH2_TEST_UNSET"), "{error}");
        // A test cannot set a variable, so it takes one that is there.
        let secret = Secret::from_env("PATH").read().await.unwrap();
        assert_eq!(secret.expose_secret(), std::env::var("PATH").unwrap());
    }

    #[tokio::test]
    async fn a_closure_is_asked_each_time_and_its_error_is_passed_on() {
        let count = Arc::new(AtomicU32::new(0));
        let secret = Secret::from_fn({
            let count = Arc::clone(&count);
            move || {
                let n = count.fetch_add(1, Ordering::Relaxed);
                async move {
                    if n == 2 {
                        return Err(Error::transient("the vault is sealed"));
                    }
                    Ok(format!("s{n}"))
                }
            }
        });
        assert_eq!(secret.read().await.unwrap().expose_secret(), "s0");
        assert_eq!(secret.read().await.unwrap().expose_secret(), "s1");
        assert!(secret.read().await.unwrap_err().is_transient());
    }

    #[tokio::test]
    async fn the_token_of_a_source_is_a_secret_that_is_fetched_each_time() {
        let count = Arc::new(AtomicU32::new(0));
        let secret = Secret::from(crate::source::source_fn({
            let count = Arc::clone(&count);
            move |_request| {
                let n = count.fetch_add(1, Ordering::Relaxed);
                async move { AccessToken::bearer(format!("AT{n}")) }
            }
        }));
        assert_eq!(secret.read().await.unwrap().expose_secret(), "AT0");
        assert_eq!(secret.read().await.unwrap().expose_secret(), "AT1");
        assert!(secret.may_change() && secret.value().is_none());
        assert_eq!(format!("{secret:?}"), "Secret(source)");
    }

    #[test]
    fn debug_says_where_a_secret_comes_from_and_not_what_it_is() {
        let shown = [
            Secret::new("S3CR3T"),
            "S3CR3T".into(),
            Secret::from_env("NAME"),
            Secret::from_file("/a/b"),
            Secret::from_fn(|| async { Ok("S3CR3T") }),
        ]
        .map(|secret| format!("{secret:?}"));
        assert_eq!(
            shown,
            ["Secret(value)", "Secret(value)", "Secret(env \"NAME\")", "Secret(file \"/a/b\")", "Secret(fn)",]
        );
    }
}
