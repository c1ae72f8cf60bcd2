//! An authorization server by its name, which says by itself where its endpoints are.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::grants::discovery::cache::MetadataCache;
use crate::text;

/// An authorization server by its issuer identifier (RFC 8414 §2): where its endpoints are, and how clients may
/// authenticate there, is read from what it publishes about itself (RFC 8414, OpenID Connect Discovery 1.0).
///
/// It stands wherever the URL of an endpoint may stand:
///
/// 1. Nothing is fetched when a source is built. The first fetch does it, over the transport of the source, with the timeouts
///    and the caps of its attempts, and without anything by which the client could be known.
/// 2. The document is looked for where RFC 8414 §3.1 has it, then as `openid-configuration` before the path of the issuer
///    (RFC 8414 §5) and behind it (OpenID Connect); or where [`metadata_url`](Self::metadata_url) says, and nowhere else.
///    Redirects are not followed. A failure that may pass is retried as at the token endpoint, and so is a 200 without a
///    document. The retry begins at the next of these places, and a renewal where the document was found.
/// 3. It counts if its `issuer` is this one, letter by letter, and nothing of it otherwise (RFC 8414 §3.3). So give the
///    issuer as the server writes it, with the slash at its end if there is one.
/// 4. Its endpoints must be https; plain http is for an issuer on loopback, or goes with `insecure_http(true)`. They may be on
///    another host. The writer of the document decides where the client's secret is sent: the name is what is trusted, and TLS
///    proves it.
/// 5. Of the configured [client authentications](crate::ClientAuth::or) the strongest is taken that the document names;
///    if it names none, it means `client_secret_basic` (RFC 8414 §2). If none of them is there, nothing is sent, and the error
///    says what the server supports. A client that has [`none`](crate::ClientAuth::none) alone sends its id all the same:
///    few servers say that they know public clients.
/// 6. The identifier is the audience of assertions (feature `jwt`) that name no other.
/// 7. The document is cached for [an hour](Self::metadata_lifetime). Then the next fetch uses it once more and renews it in the
///    background. If that fails, the old document serves on, with one warning, and is asked for again after a minute.
/// 8. If an endpoint is gone (404, 405, 410, a redirect, no connection), the document is asked for once more in the same
///    fetch, and the request goes to the new place if there is one.
///
/// Clones share the document, and ask one after another: a thousand sources of one issuer ask once. So clones are
/// for transports that reach the same server.
///
/// # Examples
///
/// ```
/// use tower_oauth2::grants::{Issuer, Revocation};
/// use tower_oauth2::{ClientCredentials, Secret, TokenCache};
/// # use bytes::Bytes;
/// # let http_client = tower::service_fn(|_request: http::Request<tower_oauth2::Body>| async {
/// #     Ok::<_, tower::BoxError>(http::Response::new(tower_oauth2::Body::empty()))
/// # });
///
/// let issuer = Issuer::new("https://login.example.com");
/// let secret = Secret::from_env("BILLING_SECRET");
/// let revocation = Revocation::builder(&issuer, "billing", secret.clone()).build_with(http_client.clone())?;
/// let source = ClientCredentials::builder(issuer, "billing", secret).build_with(http_client)?;
/// let cache = TokenCache::builder(source).revoke_with(revocation).build();
/// # let _ = cache;
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
#[derive(Clone)]
pub struct Issuer {
    pub(crate) identifier: String,
    pub(crate) metadata_url: Option<String>,
    pub(crate) lifetime: Duration,
    pub(crate) mtls_aliases: bool,
    pub(crate) cache: Arc<MetadataCache>,
}

impl Issuer {
    /// Names an issuer, as the server writes it: an https URL without query and fragment. Nothing is checked before the
    /// source is built.
    #[must_use]
    pub fn new(identifier: impl Into<String>) -> Self {
        Self {
            identifier: text::visible(&identifier.into()).to_owned(),
            metadata_url: None,
            lifetime: Duration::from_secs(3600),
            mtls_aliases: false,
            cache: Arc::default(),
        }
    }

    /// Sets the URL of the metadata, for servers that have them at another place than the standards do. Default: both
    /// well-known ones.
    #[must_use]
    pub fn metadata_url(mut self, url: impl Into<String>) -> Self {
        self.metadata_url = Some(text::visible(&url.into()).to_owned());
        self.cache = Arc::default();
        self
    }

    /// Sets for how long the metadata hold before they are asked for anew. Default: an hour.
    #[must_use]
    pub fn metadata_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self.cache = Arc::default();
        self
    }

    /// Sets whether to use the endpoints for clients with a certificate (`mtls_endpoint_aliases`, RFC 8705 §5), where the metadata have
    /// such: for a transport that shows one to get tokens that are bound to it. Where the client authenticates by
    /// [`tls`](crate::ClientAuth::tls), they are taken without this.
    #[must_use]
    pub fn mtls_aliases(mut self, used: bool) -> Self {
        self.mtls_aliases = used;
        self
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It was not checked yet that it holds no password, and some servers want a key in a URL.
        f.debug_struct("Issuer")
            .field("identifier", &text::origin_only(&self.identifier))
            .field("metadata_url", &self.metadata_url.as_deref().map(text::origin_only))
            .field("lifetime", &self.lifetime)
            .field("mtls_aliases", &self.mtls_aliases)
            .finish()
    }
}
