//! The token endpoint: sends a token request over any HTTP service, with a deadline, a cap and retries.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use secrecy::SecretString;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt as _};

use crate::backoff::Chance;
use crate::clock::{self, Moment, WallClock};
use crate::error::{Lasting, TokenError, Unsent};
use crate::oauth2::answer::{Answer, AnswerBody, Expected};
use crate::oauth2::client_auth::{ClientAuth, Unauthenticated};
use crate::oauth2::parameters::{Encoding, Form, Parameters};
use crate::oauth2::parties::Parties;
use crate::oauth2::refused::{Delivery, Refused};
use crate::oauth2::response;
use crate::oauth2::secret::{self, ClientSecret};
use crate::origin::Origin;
use crate::source::TokenRequest;
use crate::text::{self, Redactor};
use crate::token::AccessToken;

/// An answer may be this long after decoding. Real ones have a few KiB.
const MAX_ANSWER: usize = 1024 * 1024;

/// Any tower HTTP service, erased.
pub(crate) type Transport =
    BoxCloneSyncService<Request<Full<Bytes>>, Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError>;

/// Makes a transport of any tower HTTP service.
pub(crate) fn erase<S, B>(service: S) -> Transport
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let service = service
        .map_err(Into::into)
        .map_response(|response: Response<B>| response.map(|body| body.map_err(Into::into).boxed_unsync()));
    BoxCloneSyncService::new(service)
}

/// When an attempt is given up, and when another one follows.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    pub(crate) attempt_timeout: Duration,
    pub(crate) retries: u32,
    pub(crate) first_delay: Duration,
    pub(crate) longest_delay: Duration,
    /// None: 429 and every 5xx.
    pub(crate) retry_statuses: Option<Arc<[StatusCode]>>,
}

impl Patience {
    fn covers(&self, status: StatusCode) -> bool {
        match &self.retry_statuses {
            Some(list) => list.contains(&status),
            None => status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error(),
        }
    }
}

/// Makes what an answer stands for of it. The redactor learns the secrets in it; the time is that since the Unix epoch.
type Read<T> = fn(&Answer, &Expected, &mut Redactor, Duration) -> Result<T, Refused>;

/// A token endpoint, or another of the same manners, and the client that asks it.
pub(crate) struct TokenEndpoint {
    pub(crate) uri: Uri,
    /// For messages and events, which never show more of the URL.
    pub(crate) origin: Origin,
    pub(crate) parties: Parties,
    pub(crate) secret: ClientSecret,
    pub(crate) auth: ClientAuth,
    pub(crate) encoding: Encoding,
    pub(crate) expected: Expected,
    pub(crate) patience: Patience,
    pub(crate) transport: Transport,
    pub(crate) chance: Chance,
}

impl TokenEndpoint {
    /// Exchanges `parameters` for a token: one flight, retries included.
    ///
    /// `request` is where the tokens come from that the server may echo besides what it is sent now.
    pub(crate) async fn exchange(
        &self,
        parameters: &Parameters,
        request: &TokenRequest,
    ) -> Result<AccessToken, TokenError> {
        let redactor = self.redactor(Some(request));
        let answered = self.ask(parameters, redactor, None, response::read).await;
        answered.map(|(token, requested)| token.requested(requested)).map_err(|refused| refused.error)
    }

    /// Exchanges `parameters` for a token as [`exchange`](Self::exchange) does, where the server may take them only once.
    ///
    /// While it is in doubt whether it did, they are sent once more and no further. A success leaves the doubt to
    /// whoever takes the token in.
    pub(crate) async fn exchange_once(
        &self,
        parameters: &Parameters,
        request: &TokenRequest,
        doubt: &Doubt,
    ) -> Result<AccessToken, Refused> {
        let redactor = self.redactor(Some(request));
        let (token, requested) = self.ask(parameters, redactor, Some(doubt), response::read).await?;
        Ok(token.requested(requested))
    }

    /// Asks until there is an answer that stands: one flight, retries included. Returns what `read` made of the answer,
    /// and the moment at which its attempt was sent.
    ///
    /// The secret is read once; and once more where the server refuses the client, since it may just have been rotated.
    pub(crate) async fn ask<T>(
        &self,
        parameters: &Parameters,
        mut redactor: Redactor,
        doubt: Option<&Doubt>,
        read: Read<T>,
    ) -> Result<(T, Moment), Refused> {
        let proof = self.auth.proof(&self.secret);
        let mut secret = proof.read().await?;
        let mut may_reread = proof.may_change();
        let mut retries = 0;
        loop {
            let was_in_doubt = doubt.is_some_and(Doubt::is_raised);
            let refused = match self.attempt(parameters, &secret, &mut redactor, doubt, read).await {
                Ok(answered) => return Ok(answered),
                Err(refused) => refused,
            };
            match (doubt, refused.delivery) {
                (Some(_), Delivery::Unclear) if was_in_doubt => return Err(refused),
                (Some(doubt), Delivery::Unsent | Delivery::Declined) => doubt.set(was_in_doubt),
                (Some(_), Delivery::Unclear) | (None, _) => {}
            }
            if refused.blames_secret && may_reread {
                may_reread = false;
                // Where it cannot be read now, what the server said counts for more.
                let newer = proof.read().await.ok().filter(|newer| !secret::same(&secret, newer));
                if let Some(newer) = newer {
                    tracing::debug!(origin = %self.origin, "what proves the client was rotated; asking with the new one");
                    secret = newer;
                    continue;
                }
            }
            if !self.passes(&refused) {
                return Err(refused);
            }
            let delay = match refused.hint {
                // Whoever asks next keeps to the hint.
                Some(hint) if hint > self.patience.longest_delay || retries == self.patience.retries => {
                    return Err(Refused { error: refused.error.with_retry_after(hint), ..refused });
                }
                None if retries == self.patience.retries => return Err(refused),
                Some(hint) => self.chance.lengthen(hint),
                None => {
                    self.chance.equal_jitter(self.patience.first_delay, self.patience.longest_delay, retries)
                }
            };
            retries += 1;
            tracing::debug!(
                origin = %self.origin,
                status = refused.error.status().map(|status| status.as_u16()),
                retry = retries,
                delay_ms = delay.as_millis(),
                "the request is sent again after a wait"
            );
            tokio::time::sleep(delay).await;
        }
    }

    /// Returns whether another attempt makes sense: what the classifier called temporary, a status on the list, or an
    /// attempt that brought no answer.
    fn passes(&self, refused: &Refused) -> bool {
        match refused.error.status() {
            Some(_) if refused.by_classifier => refused.error.is_temporary(),
            Some(status) => self.patience.covers(status),
            None => refused.error.is_temporary(),
        }
    }

    /// Makes a redactor that knows what can be known before the first attempt. It stays for all of them: an answer may
    /// echo what an earlier one brought.
    pub(crate) fn redactor(&self, request: Option<&TokenRequest>) -> Redactor {
        let mut redactor = Redactor::default();
        let known = request.into_iter().flat_map(|request| [request.previous(), request.rejected()]);
        for token in known.flatten() {
            token.teach(&mut redactor);
        }
        // Some endpoints want a key there, and some clients put the whole URL into their errors.
        if let Some(query) = self.uri.query().filter(|query| query.contains('=')) {
            redactor.add(query);
        }
        redactor
    }

    async fn attempt<T>(
        &self,
        parameters: &Parameters,
        secret: &SecretString,
        redactor: &mut Redactor,
        doubt: Option<&Doubt>,
        read: Read<T>,
    ) -> Result<(T, Moment), Refused> {
        let request = self.request(parameters, secret, redactor).await?;
        let requested = WallClock::default().moment();
        let is_sent = AtomicBool::new(false);
        let sending = || {
            is_sent.store(true, Ordering::Relaxed);
            if let Some(doubt) = doubt {
                doubt.set(true);
            }
        };
        let failed =
            match tokio::time::timeout(self.patience.attempt_timeout, self.send(request, sending)).await {
                Ok(Ok(answer)) => {
                    let status = answer.status.as_u16();
                    let who = self.expected.naming.endpoint;
                    tracing::debug!(origin = %self.origin, status, "{who} answered");
                    let value = read(&answer, &self.expected, redactor, clock::unix_time())?;
                    return Ok((value, requested));
                }
                Ok(Err(error)) => self.unreachable(&error, redactor),
                Err(_) => {
                    let limit = self.patience.attempt_timeout;
                    let who = &self.expected.who;
                    let error =
                        TokenError::transient(format!("{who} did not answer to the end within {limit:?}"));
                    Refused { delivery: Delivery::Unclear, ..error.into() }
                }
            };
        if is_sent.into_inner() { Err(failed) } else { Err(Refused { delivery: Delivery::Unsent, ..failed }) }
    }

    async fn request(
        &self,
        parameters: &Parameters,
        secret: &SecretString,
        redactor: &mut Redactor,
    ) -> Result<Request<Full<Bytes>>, TokenError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.encoding.media_type()));
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("tower-oauth2/", env!("CARGO_PKG_VERSION"))),
        );
        let mut form = Form::new(self.encoding);
        parameters.write(&self.parties, &mut form, redactor).await?;
        let unauthenticated = Unauthenticated { form: &mut form, headers: &mut headers, redactor };
        self.auth.apply(&self.parties, secret, unauthenticated).await?;

        let mut request = Request::new(Full::new(form.into_bytes()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Sends a request and reads the answer. `sending` is called when the transport is ready to take the request.
    async fn send(
        &self,
        request: Request<Full<Bytes>>,
        sending: impl FnOnce() + Send,
    ) -> Result<Answer, BoxError> {
        let mut transport = self.transport.clone();
        let ready = transport.ready().await?;
        sending();
        let response = ready.call(request).await?;
        let (parts, body) = response.into_parts();
        let encoding = parts.headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes).unwrap_or_default();
        let body = if parts.status.is_success() && !self.expected.naming.speaks {
            AnswerBody::Unread("a body that nobody reads".into())
        } else if encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity") {
            read_capped(body).await?
        } else {
            AnswerBody::Unread(format!(
                "a body in the content encoding {}, although it was asked for none",
                String::from_utf8_lossy(encoding)
            ))
        };
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    fn unreachable(&self, error: &BoxError, redactor: &Redactor) -> Refused {
        let unconnected = chain(&**error).any(|error| {
            let refused = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
            error.is::<Unsent>() || error.is::<Lasting>() || error.downcast_ref().is_some_and(refused)
        });
        // The transport knows better: it has no root certificates, say.
        if let Some(error) = chain(&**error).find_map(|error| error.downcast_ref::<TokenError>()) {
            let delivery =
                if unconnected || error.is_config() { Delivery::Unsent } else { Delivery::Unclear };
            return Refused { delivery, ..error.clone().into() };
        }
        let what = redactor.clean(&text::origins_only(&innermost(&**error)));
        let line =
            |advice| format!("{} could not be reached: {}; {advice}", self.expected.who, lower_case(&what));
        let told = match chain(&**error).find_map(|error| error.downcast_ref::<Lasting>()) {
            Some(lasting) => TokenError::config(line(lasting.advice)),
            None => {
                let url = self.expected.naming.url;
                TokenError::transient(line(&format!("check the {url}, and the way there from this machine")))
            }
        };
        let delivery = if unconnected { Delivery::Unsent } else { Delivery::Unclear };
        Refused { delivery, ..told.with_source(Cause::of(&**error, redactor)).into() }
    }
}

impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEndpoint")
            .field("origin", &self.origin)
            .field("client_id", &self.parties.client_id)
            .field("secret", &self.secret)
            .field("auth", &self.auth)
            .field("expected", &self.expected)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

// --- Doubt ---

/// Whether the server may have taken something that it takes only once. Clones share it.
///
/// It is raised when a request is about to leave, so that a future that is dropped underway leaves it raised.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doubt {
    raised: Arc<AtomicBool>,
}

impl Doubt {
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, raised: bool) {
        self.raised.store(raised, Ordering::Release);
    }
}

// --- Answers ---

/// Reads a body to its end, or to the cap. Trailers are of no interest.
pub(crate) async fn read_capped(body: UnsyncBoxBody<Bytes, BoxError>) -> Result<AnswerBody, BoxError> {
    let too_long = || AnswerBody::Unread(format!("more than {} KiB", MAX_ANSWER / 1024));
    if usize::try_from(body.size_hint().lower()).map_or(true, |length| length > MAX_ANSWER) {
        return Ok(too_long());
    }
    let mut body = std::pin::pin!(body);
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        // Empty frames count for no cap; so that there is a time-out, it must have its turn.
        tokio::task::consume_budget().await;
        let Ok(data) = frame?.into_data() else { continue };
        if whole.len() + data.len() > MAX_ANSWER {
            return Ok(too_long());
        }
        whole.extend_from_slice(&data);
    }
    Ok(AnswerBody::Whole(whole))
}

// --- Cause ---

/// What a transport said, cleaned. The original may show a URL with its query, or what a peer echoed.
#[derive(Debug)]
struct Cause {
    text: String,
    source: Option<Box<Cause>>,
}

impl Cause {
    fn of(error: &(dyn std::error::Error + 'static), redactor: &Redactor) -> Self {
        Self::within(error, redactor, 16)
    }

    fn within(error: &(dyn std::error::Error + 'static), redactor: &Redactor, depth: u32) -> Self {
        let source = error.source().filter(|_| depth > 0);
        Self {
            text: redactor.clean(&error.to_string()),
            source: source.map(|source| Box::new(Self::within(source, redactor, depth - 1))),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Walks a chain, as deep as a cause is kept.
fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source()).take(17)
}

/// Returns the text closest to what happened: what stands above it in the chain says only that something did.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let said = chain(error).map(ToString::to_string).filter(|text| !text.trim().is_empty()).last();
    said.unwrap_or_else(|| "the transport did not say why".to_owned())
}

/// Begins a sentence of somebody else's as the rest of one of ours. An abbreviation stays as it is.
fn lower_case(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if first.is_ascii_uppercase() && second.is_lowercase() => {
            format!("{}{}", first.to_ascii_lowercase(), chars.as_str())
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use tower::service_fn;

    use super::*;
    use crate::oauth2::grants::ClientCredentials;
    use crate::source::{FetchReason, TokenRequest, TokenSource as _};

    #[tokio::test(start_paused = true)]
    async fn a_life_counts_from_before_the_attempt_that_brought_the_token() {
        let answers = [
            (StatusCode::SERVICE_UNAVAILABLE, ""),
            (StatusCode::OK, r#"{"access_token":"a","expires_in":60}"#),
        ];
        let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
        let sent = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&sent);
        let transport = service_fn(move |_request: Request<Full<Bytes>>| {
            let (status, body) = answers.lock().unwrap().pop_front().unwrap();
            log.lock().unwrap().push(clock::now());
            async move {
                tokio::time::sleep(Duration::from_secs(3)).await;
                let mut response = Response::new(Full::new(Bytes::from(body)));
                *response.status_mut() = status;
                Ok::<_, BoxError>(response)
            }
        });
        let source = ClientCredentials::builder("https://example.com/", "id", "secret");
        let source = source.build_with(transport).unwrap();
        let started = WallClock::default().moment();
        let token = source.token(TokenRequest::new(FetchReason::Initial)).await.unwrap();
        let token = token.sealed(started, WallClock::default().moment());
        let second_attempt = sent.lock().unwrap()[1];
        assert_eq!(token.obtained().unwrap().mono, second_attempt);
        assert_eq!(token.expiry().unwrap().mono, second_attempt + Duration::from_secs(60));
        assert_eq!(clock::now(), second_attempt + Duration::from_secs(3));
    }
}
