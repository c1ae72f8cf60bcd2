//! The builder that every grant shares: the endpoint, the client, what it requests, and timeouts and retries.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::error::{Error, ErrorKind};
use crate::grants::checks;
use crate::grants::client::auth::ClientAuth;
use crate::grants::client::secret::Secret;
use crate::grants::endpoint::client::EndpointClient;
use crate::grants::endpoint::identifiers::Identifiers;
use crate::grants::endpoint::location::{Destination, Endpoint};
use crate::grants::endpoint::target::Registration;
use crate::grants::endpoint::transport::{Patience, Transport};
use crate::grants::parameters::{Encoding, Parameters};
use crate::grants::response::classifier::{Classifier, Refusal};
use crate::grants::response::expected::{Expected, Terms};
use crate::http_transport::HttpTransport;
use crate::text;

/// Builds a `G`: a source such as [`ClientCredentials`](crate::ClientCredentials), or a
/// [`Revocation`](crate::grants::Revocation).
///
/// Nothing is checked before `build` or [`build_with`](Self::build_with), and everything there. An error names the setting
/// and the remedy.
///
/// # Defaults
///
/// - client: none, for a grant that needs none
/// - scopes, audiences, resources, further parameters: none
/// - issuer: the [`Issuer`](crate::grants::Issuer) that was given in place of a URL, or none
/// - required scopes: none
/// - tokens: any that a header can carry (no [`strict_bearer`](Self::strict_bearer))
/// - an attempt: at most 10 s, from connecting to the last byte
/// - retries: 3, after 500 ms, 1 s and 2 s, half of which is chance, as far as the deadline of the caller allows
/// - a second attempt beside one without a response: after 2 s; it counts as a retry
/// - the longest delay: 10 s; if a server asks for more, the fetch fails and the error says until when
/// - retried: what may pass by itself (429, every 5xx, no response, a success that holds no token response)
/// - plain http: to loopback alone
///
/// # Examples
///
/// A function that sets what all sources of a program have in common:
///
/// ```
/// use std::time::Duration;
/// use tower_oauth2::ClientCredentials;
/// use tower_oauth2::grants::{Grant, GrantBuilder};
///
/// fn patient<G: Grant>(builder: GrantBuilder<G>) -> GrantBuilder<G> {
///     builder.attempt_timeout(Duration::from_secs(20)).retries(5)
/// }
///
/// let builder = patient(ClientCredentials::builder("https://login.example.com/token", "billing", "secret"));
/// # let _ = builder;
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct GrantBuilder<G: Grant> {
    endpoint: Endpoint,
    registration: Registration,
    /// Audiences and resources.
    targets: Vec<(&'static str, String)>,
    /// The parameters that the grant sends by itself, as far as they are the same each time.
    pub(crate) own: Parameters,
    pub(crate) parameters: Parameters,
    patience: Patience,
    insecure_http: bool,
    pub(crate) settings: G::Settings,
}

/// The result of a [`GrantBuilder`]: a source, or the revocation of tokens. There is nothing to implement.
pub trait Grant: Debug + Sized {
    /// The settings that the grant has of its own.
    #[doc(hidden)]
    type Settings: Clone + Debug;

    #[doc(hidden)]
    fn assemble(settings: Self::Settings, client: EndpointClient) -> Result<Self, Error>;
}

impl<G: Grant> GrantBuilder<G> {
    /// Starts without a client.
    pub(crate) fn new(endpoint: impl Into<Endpoint>, terms: Terms, settings: G::Settings) -> Self {
        let patience = Patience {
            attempt_timeout: Duration::from_secs(10),
            retries: 3,
            min_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(10),
            second_attempt_after: Some(Duration::from_secs(2)),
        };
        let expected = Expected { terms, is_anonymous: true, ..Expected::default() };
        let identifiers = Identifiers::default();
        Self {
            endpoint: endpoint.into(),
            registration: Registration { identifiers, auth: ClientAuth::none(), expected },
            targets: Vec::new(),
            own: Parameters::default(),
            parameters: Parameters::default(),
            patience,
            insecure_http: false,
            settings,
        }
    }

    /// Sends this grant type.
    pub(crate) fn granting(mut self, grant_type: impl Into<SecretString>) -> Self {
        self.own.push("grant_type", grant_type);
        self
    }

    /// Sets the client, and how it authenticates. Default: the client that the builder began with, or none for a grant that can
    /// do without.
    pub fn client(mut self, client_id: impl Into<String>, auth: impl Into<ClientAuth>) -> Self {
        self.registration.identifiers.client_id = client_id.into();
        self.registration.auth = auth.into();
        self.registration.expected.is_anonymous = false;
        self
    }

    /// Requests a scope, or several separated by spaces (RFC 6749 §3.3), besides those that were named before.
    pub fn scope(mut self, scope: impl AsRef<str>) -> Self {
        add_scopes(&mut self.registration.expected.acceptance.requested, scope.as_ref());
        self
    }

    /// Refuses a token that was granted without this scope, or without one of several separated by spaces. This does not
    /// request them.
    ///
    /// The scopes that were granted are read from the `scope` of the response, or from the claims of the token if the response
    /// has none. If neither says anything, they are the scopes that were requested (RFC 6749 §5.1).
    pub fn required_scope(mut self, scope: impl AsRef<str>) -> Self {
        add_scopes(&mut self.registration.expected.acceptance.required, scope.as_ref());
        self
    }

    /// Names an `audience`, a parameter that several vendors know, as does RFC 8693 §2.1. May be repeated.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.targets.push(("audience", audience.into()));
        self
    }

    /// Names a resource that the token is for: an absolute URI without a fragment (RFC 8707 §2). May be repeated.
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.targets.push(("resource", resource.into()));
        self
    }

    /// Adds a parameter of the provider's own (RFC 6749 §8.2). One with an empty value is left out.
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.push(name.into(), value.into());
        self
    }

    /// Adds a parameter as [`param`](Self::param) does, whose value is a secret: it is blanked out wherever the server
    /// repeats it.
    ///
    /// It may be a value, or a variable, a file or a closure that is read at each attempt. So it may change from one
    /// attempt to the next, as a one-time password does.
    pub fn secret_param(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.parameters.push_secret(name.into(), value);
        self
    }

    /// Sets the issuer identifier of the authorization server (RFC 8414 §2), as the server writes it: the audience of
    /// [assertions](crate::grants::jwt) that name no other. Default: the [`Issuer`](crate::grants::Issuer) that was given
    /// in place of a URL. Nothing is fetched from it for this.
    #[cfg(feature = "jwt")]
    #[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.registration.identifiers.issuer = issuer.into();
        self
    }

    /// Reads a member of the response by another name: `standard` is that of RFC 6749 §5.1 or §5.2, such as `access_token`,
    /// `expires_in`, `refresh_token`, `scope`, `error`, or `expires_at`; `theirs` is the endpoint's, or a JSON pointer if it
    /// begins with a slash. If the response has the standard one too, that counts.
    ///
    /// ```
    /// use tower_oauth2::Secret;
    /// use tower_oauth2::grants::CustomGrant;
    ///
    /// let builder = CustomGrant::json("https://vault.example.com/v1/auth/approle/login")
    ///     .param("role_id", "billing")
    ///     .secret_param("secret_id", Secret::from_file("/run/secrets/secret_id"))
    ///     .response_member("access_token", "/auth/client_token")
    ///     .response_member("expires_in", "/auth/lease_duration");
    /// ```
    pub fn response_member(mut self, standard: impl Into<String>, theirs: impl Into<String>) -> Self {
        self.registration.expected.acceptance.renamed.push((standard.into(), theirs.into()));
        self
    }

    /// Takes a response with any status for a refusal if this member has this value, given as JSON text; the name may be a JSON
    /// pointer. `ok: false` always is one.
    pub fn refusal_member(mut self, name: impl Into<String>, json: impl Into<String>) -> Self {
        self.registration.expected.acceptance.refusals.push((name.into(), json.into()));
        self
    }

    /// Accepts tokens of this type beside `Bearer`, in any case: they are sent as bearer tokens all the same.
    pub fn token_type(mut self, name: impl Into<String>) -> Self {
        self.registration.expected.acceptance.token_types.push(name.into());
        self
    }

    /// Sets whether tokens outside the grammar of RFC 6750 §2.1 are refused. Some servers issue tokens with `!` or `|`.
    pub fn strict_bearer(mut self, strict: bool) -> Self {
        self.registration.expected.acceptance.strict_bearer = strict;
        self
    }

    /// Sets a hook that names the class of a response without a token, or leaves it to the
    /// [rules](crate::grants#what-a-response-means).
    ///
    /// A response that it calls throttled or transient is retried, with any status; a response of another class is not.
    ///
    /// # Examples
    ///
    /// A provider that says 400 where it means 429:
    ///
    /// ```
    /// use tower_oauth2::{ClientCredentials, ErrorKind};
    ///
    /// let builder = ClientCredentials::builder("https://login.example.com/oauth/token", "id", "secret").classifier(
    ///     |refusal| {
    ///         let throttled = refusal.code() == Some("invalid_request")
    ///             && refusal.description().is_some_and(|text| text.starts_with("rate limit exceeded;"));
    ///         throttled.then_some(ErrorKind::Throttled)
    ///     },
    /// );
    /// ```
    pub fn classifier(
        mut self,
        classify: impl Fn(&Refusal<'_>) -> Option<ErrorKind> + Send + Sync + 'static,
    ) -> Self {
        self.registration.expected.acceptance.classifier = Some(Classifier(Arc::new(classify)));
        self
    }

    /// Sets how long an attempt may take, from connecting to the last byte of the response.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.patience.attempt_timeout = timeout;
        self
    }

    /// Sets how often a failed attempt is repeated within one fetch.
    pub fn retries(mut self, count: u32) -> Self {
        self.patience.retries = count;
        self
    }

    /// Sets after how long without a response a second attempt begins, on another connection if the transport has one. The
    /// first response counts, and the other attempt is dropped. It counts as a retry. A refresh token is never sent twice
    /// at a time. The time runs from when the transport takes the request: a signer or a full transport does not count.
    ///
    /// With `None`, each attempt ends before another begins.
    pub fn second_attempt_after(mut self, wait: impl Into<Option<Duration>>) -> Self {
        self.patience.second_attempt_after = wait.into();
        self
    }

    /// Sets the delay before the first retry; it doubles from one to the next.
    pub fn min_delay(mut self, delay: Duration) -> Self {
        self.patience.min_delay = delay;
        self
    }

    /// Sets the longest delay before a retry. If a server asks for a longer one, this fetch ends.
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.patience.max_delay = delay;
        self
    }

    /// Sets whether the client's secrets may go over plain http to hosts other than loopback. Anyone on the network path can
    /// read them there.
    pub fn insecure_http(mut self, allowed: bool) -> Self {
        self.insecure_http = allowed;
        self
    }

    /// Builds the source over a transport of the caller's: any HTTP service, with the proxies, certificates and limits
    /// that it brings.
    ///
    /// It must not follow redirects or retry: a redirect would carry the client's secret along. It is made ready for each
    /// request and cloned for it.
    ///
    /// It must be `Send + Sync + Clone`, as clients that pool connections mostly are. A boxed one is
    /// [`BoxCloneSyncService`](tower::util::BoxCloneSyncService); tower's `BoxService` cannot be cloned, and its
    /// `BoxCloneService` is not `Sync`.
    ///
    /// # Errors
    ///
    /// A configuration error that names the setting and the remedy: a URL or an issuer that is not https, or has a fragment or
    /// a user name in it; an empty client id or secret; an illegal scope; a resource that is not an absolute URI; a parameter
    /// that has a setter of its own; a refresh token with a character that none may hold, such as a line end.
    pub fn build_with(self, transport: impl HttpTransport) -> Result<G, Error> {
        let Self { mut registration, targets, own, parameters, patience, .. } = self;
        let Registration { identifiers, auth, expected } = &mut registration;
        identifiers.client_id = text::trimmed(&identifiers.client_id).to_owned();
        identifiers.issuer = text::trimmed(&identifiers.issuer).to_owned();
        expected.is_authorized = parameters.authorize();
        checks::acceptance(&expected.acceptance)?;
        let auth = auth.clone();
        let transport = Transport::new(transport, patience);
        let destination = Destination::new(self.endpoint, registration, self.insecure_http, &transport)?;
        let Registration { identifiers, expected, .. } = destination.registration();
        if identifiers.client_id.is_empty() && !expected.is_anonymous {
            return Err(Error::config(
                "client_id: it is empty; set the id that the authorization server assigned",
            ));
        }
        auth.check(identifiers)?;
        let mut resources = targets.iter().filter(|(name, _)| *name == "resource");
        resources.try_for_each(|(_, resource)| checks::resource(resource))?;
        let encoding = expected.terms.encoding;
        own.check_own(identifiers)?;
        checks::parameters(&parameters, &expected.terms)?;
        parameters.check(encoding)?;
        if encoding == Encoding::Query && !expected.is_anonymous && auth.writes_form() {
            return Err(Error::config(
                "client: it would stand in the URL, which is logged (RFC 6749 §2.3.1); use ClientAuth::basic",
            ));
        }
        checks::patience(&transport.patience)?;

        let mut common = own;
        if !expected.acceptance.requested.is_empty() {
            common.push("scope", expected.acceptance.requested.join(" "));
        }
        for (name, value) in targets {
            common.push(name, value);
        }
        common.extend(parameters);
        if encoding == Encoding::Json {
            checks::once(&common)?;
        }
        G::assemble(self.settings, EndpointClient { destination, encoding, transport, parameters: common })
    }
}

/// Takes each of a space-separated list once: a scope that stands twice says nothing more.
fn add_scopes(list: &mut Vec<String>, scopes: &str) {
    for scope in scopes.split(' ').filter(|scope| !scope.is_empty()) {
        if !list.iter().any(|known| known == scope) {
            list.push(scope.to_owned());
        }
    }
}

#[cfg(test)]
mod tests;
