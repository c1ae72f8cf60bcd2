//! The token endpoint: sends a token request over any HTTP service, with a deadline, a cap and retries.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use secrecy::{ExposeSecret as _, SecretString};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt as _};

use crate::backoff::Chance;
use crate::clock::{self, WallClock};
use crate::error::{Lasting, TokenError};
use crate::oauth2::answer::{Answer, AnswerBody, Expected};
use crate::oauth2::client_auth::{ClientAuth, Credentials};
use crate::oauth2::parameters::{Form, Parameters};
use crate::oauth2::refused::Refused;
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

/// A token endpoint and the client that asks it.
pub(crate) struct TokenEndpoint {
    pub(crate) uri: Uri,
    /// For messages and events, which never show more of the URL.
    pub(crate) origin: Origin,
    pub(crate) client_id: String,
    pub(crate) secret: ClientSecret,
    pub(crate) auth: ClientAuth,
    pub(crate) expected: Expected,
    pub(crate) patience: Patience,
    pub(crate) transport: Transport,
    pub(crate) chance: Chance,
}

impl TokenEndpoint {
    /// Exchanges `parameters` for a token: one flight, retries included.
    ///
    /// The secret is read once; and once more where the server refuses the client, since it may just have been rotated.
    /// `request` is where the tokens come from that the server may echo besides what it is sent now.
    pub(crate) async fn exchange(
        &self,
        parameters: &Parameters,
        request: &TokenRequest,
    ) -> Result<AccessToken, TokenError> {
        let mut secret = self.secret.read().await?;
        let mut redactor = self.redactor(parameters, request);
        let mut may_reread = self.secret.may_change();
        let mut retries = 0;
        loop {
            let refused = match self.attempt(parameters, &secret, &mut redactor).await {
                Ok(token) => return Ok(token),
                Err(refused) => refused,
            };
            if refused.blames_secret && may_reread {
                may_reread = false;
                // Where it cannot be read now, what the server said counts for more.
                let newer = self.secret.read().await.ok().filter(|newer| !secret::same(&secret, newer));
                if let Some(newer) = newer {
                    tracing::debug!(origin = %self.origin, "the client secret was rotated; asking with the new one");
                    secret = newer;
                    continue;
                }
            }
            if !self.passes(&refused) {
                return Err(refused.error);
            }
            let delay = match refused.hint {
                // Whoever asks next keeps to the hint.
                Some(hint) if hint > self.patience.longest_delay || retries == self.patience.retries => {
                    return Err(refused.error.with_retry_after(hint));
                }
                None if retries == self.patience.retries => return Err(refused.error),
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
                "the token request is sent again after a wait"
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
    fn redactor(&self, parameters: &Parameters, request: &TokenRequest) -> Redactor {
        let mut redactor = Redactor::default();
        parameters.teach(&mut redactor);
        for token in request.previous().into_iter().chain(request.rejected()) {
            token.teach(&mut redactor);
        }
        // Some endpoints want a key there, and some clients put the whole URL into their errors.
        if let Some(query) = self.uri.query().filter(|query| query.contains('=')) {
            redactor.add(query);
        }
        redactor
    }

    async fn attempt(
        &self,
        parameters: &Parameters,
        secret: &SecretString,
        redactor: &mut Redactor,
    ) -> Result<AccessToken, Refused> {
        redactor.add_basic(&self.client_id, secret.expose_secret());

        let request = self.request(parameters, secret)?;
        let requested = WallClock::default().moment();
        let answer = match tokio::time::timeout(self.patience.attempt_timeout, self.send(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.unreachable(&error, redactor).into()),
            Err(_) => {
                let limit = self.patience.attempt_timeout;
                return Err(TokenError::transient(format!(
                    "{} did not answer to the end within {limit:?}",
                    self.expected.who
                ))
                .into());
            }
        };
        tracing::debug!(origin = %self.origin, status = answer.status.as_u16(), "the token endpoint answered");
        let token = response::read(&answer, &self.expected, redactor, clock::unix_time())?;
        Ok(token.requested(requested))
    }

    fn request(
        &self,
        parameters: &Parameters,
        secret: &SecretString,
    ) -> Result<Request<Full<Bytes>>, TokenError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("tower-oauth2/", env!("CARGO_PKG_VERSION"))),
        );
        let mut form = Form::new();
        parameters.write(&mut form);
        let credentials = Credentials { client_id: &self.client_id, secret };
        self.auth.apply(&credentials, &mut form, &mut headers)?;

        let mut request = Request::new(Full::new(form.into_bytes()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        Ok(request)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, BoxError> {
        let response = self.transport.clone().oneshot(request).await?;
        let (parts, body) = response.into_parts();
        let encoding = parts.headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes).unwrap_or_default();
        let body = if encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity") {
            read_capped(body).await?
        } else {
            AnswerBody::Unread(format!(
                "a body in the content encoding {}, although it was asked for none",
                String::from_utf8_lossy(encoding)
            ))
        };
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    fn unreachable(&self, error: &BoxError, redactor: &Redactor) -> TokenError {
        // The transport knows better: it has no root certificates, say.
        if let Some(error) = chain(&**error).find_map(|error| error.downcast_ref::<TokenError>()) {
            return error.clone();
        }
        let what = redactor.clean(&text::origins_only(&innermost(&**error)));
        let line =
            |advice| format!("{} could not be reached: {}; {advice}", self.expected.who, lower_case(&what));
        let told = match chain(&**error).find_map(|error| error.downcast_ref::<Lasting>()) {
            Some(lasting) => TokenError::config(line(lasting.advice)),
            None => TokenError::transient(line("check the token URL, and the way there from this machine")),
        };
        told.with_source(Cause::of(&**error, redactor))
    }
}

impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEndpoint")
            .field("origin", &self.origin)
            .field("client_id", &self.client_id)
            .field("secret", &self.secret)
            .field("auth", &self.auth)
            .field("expected", &self.expected)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

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
