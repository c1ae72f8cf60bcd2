//! One request over any HTTP service: with a deadline and a cap, and what is known if no response came.

use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt as _};

use crate::backoff::Chance;
use crate::body::Body;
use crate::clock;
use crate::error::{Error, ErrorKind, Lasting, Unsent, chain, in_the_way};
use crate::extensions::FollowNothing;
use crate::grants::endpoint::deadline::Deadline;
use crate::grants::response::body::{EndpointResponse, readable};
use crate::grants::response::expected::{EndpointKind, Expected};
use crate::grants::response::messages;
use crate::grants::response::refused::Refused;
use crate::grants::response::verdict::Silence;
use crate::headers::rate_limit;
use crate::http_transport::HttpTransport;
use crate::text::{self, Redactor};

/// A response may be this long after decoding. Real ones have a few KiB.
const MAX_RESPONSE: usize = 1024 * 1024;

/// When an attempt is given up, and when another one follows.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    pub(crate) attempt_timeout: Duration,
    pub(crate) retries: u32,
    pub(crate) min_delay: Duration,
    pub(crate) max_delay: Duration,
    /// After so long without a response a second attempt begins beside the first, where nothing is spent by it.
    pub(crate) second_attempt_after: Option<Duration>,
}

impl Patience {
    /// Returns how long a fetch may take at the most, with so much in hand for what else there is to do at each attempt.
    pub(crate) fn whole(&self) -> Duration {
        let attempt = self.attempt_timeout.saturating_mul(3).saturating_add(self.max_delay);
        attempt.saturating_mul(self.retries.saturating_add(1))
    }
}

/// The transport to an authorization server, with its timeouts and retries.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    service: BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>,
    pub(crate) patience: Patience,
    chance: Chance,
}

impl Transport {
    /// Makes a transport of any tower HTTP service.
    pub(crate) fn new<S: HttpTransport>(service: S, patience: Patience) -> Self {
        let service = service.map_err(Into::into);
        let service = service.map_response(|response: Response<S::ResponseBody>| response.map(Body::new));
        Self { service: BoxCloneSyncService::new(service), patience, chance: Chance::default() }
    }

    /// Sends a request and reads the response, within the time of one attempt. `sending` is called when the transport is ready
    /// to take the request; what fails before that was not sent.
    pub(crate) async fn attempt(
        &self,
        mut request: Request<Body>,
        expected: &Expected,
        deadline: Deadline,
        redactor: &Redactor,
        sending: impl FnOnce() + Send,
    ) -> Result<EndpointResponse, Refused> {
        request.extensions_mut().insert(FollowNothing);
        let limit = deadline.cap(self.patience.attempt_timeout);
        let (mut was_sent, mut patience) = (false, None);
        let responding = async {
            let mut service = self.service.clone();
            let ready = service.ready().await?;
            was_sent = true;
            sending();
            let response = ready.call(request).await?;
            patience = asks_for_patience(&response);
            read_response(response, expected.terms.kind).await
        };
        let outcome = tokio::time::timeout(limit, responding).await;
        match (outcome, patience) {
            (Ok(Ok(response)), _) => Ok(response),
            // The head says all.
            (_, Some(response)) => Ok(response),
            (Ok(Err(error)), None) => Err(unreachable(&error, was_sent, expected, redactor)),
            (Err(_), None) => {
                let message = messages::timed_out(expected, limit);
                Err(Refused::by_silence(Silence::Timeout, ErrorKind::Transient, was_sent, message))
            }
        }
    }

    /// Waits before the next attempt, and counts it as a retry. If there is to be none, returns the end of the fetch.
    pub(crate) async fn wait(
        &self,
        refused: Refused,
        retries: &mut Retries,
        deadline: Deadline,
        who: &str,
    ) -> Result<(), Refused> {
        let status = refused.error.status().map(|status| status.as_u16());
        let delay = self.delay(&refused, retries.made);
        let newest = retries.newest(refused);
        let is_allowed = |delay: &Duration| retries.made < retries.most && deadline.leaves_room_after(*delay);
        let Some(delay) = delay.filter(is_allowed) else { return Err(newest.told_when()) };
        retries.made += 1;
        retries.said = Some(newest);
        tracing::debug!(
            status,
            retry = retries.made,
            delay_ms = delay.as_millis(),
            "the request to {who} is sent again after a wait"
        );
        tokio::time::sleep(delay).await;
        Ok(())
    }

    /// Returns how long to wait before the next attempt, after so many retries; none if another one makes no sense.
    fn delay(&self, refused: &Refused, retries: u32) -> Option<Duration> {
        let Patience { min_delay, max_delay, .. } = self.patience;
        if !refused.verdict.is_repeatable {
            return None;
        }
        let backoff = self.chance.equal_jitter(min_delay, max_delay, retries);
        match refused.verdict.hint {
            Some(hint) if hint > max_delay => None,
            // A hint that was just proved wrong is no shorter wait than none.
            Some(hint) if retries > 0 => Some(self.chance.lengthen(hint).max(backoff)),
            Some(hint) => Some(self.chance.lengthen(hint)),
            None => Some(backoff),
        }
    }
}

// --- Retries ---

/// The retries of one fetch.
pub(crate) struct Retries {
    pub(crate) made: u32,
    pub(crate) most: u32,
    /// The newest refusal by the server, in case that the time is over without another response.
    said: Option<Refused>,
}

impl Retries {
    pub(crate) fn new(most: u32) -> Self {
        Self { made: 0, most, said: None }
    }

    /// Returns the newest refusal that says something: that the time was over says nothing of the server.
    pub(crate) fn newest(&mut self, last: Refused) -> Refused {
        match self.said.take().filter(|_| last.silence == Some(Silence::Timeout)) {
            Some(mut said) => {
                said.verdict.is_in_doubt = last.verdict.is_in_doubt;
                said
            }
            None => last,
        }
    }
}

// --- Requests ---

/// The headers of every request.
pub(crate) fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("tower-oauth2/", env!("CARGO_PKG_VERSION"))));
    headers
}

// --- Responses ---

/// Returns a response without its body, if its head asks to come back later: whatever becomes of the body.
fn asks_for_patience(response: &Response<Body>) -> Option<EndpointResponse> {
    let (status, headers) = (response.status(), response.headers());
    // A 401 is about the client, or its secret.
    let asks = status == StatusCode::TOO_MANY_REQUESTS
        || status != StatusCode::UNAUTHORIZED
            && rate_limit::wait(status, headers, clock::unix_time()).is_some();
    let body = || Err("a body that breaks off".to_owned());
    asks.then(|| EndpointResponse { status, headers: headers.clone(), body: body() })
}

async fn read_response(response: Response<Body>, kind: EndpointKind) -> Result<EndpointResponse, BoxError> {
    let (parts, body) = response.into_parts();
    let encoding = parts.headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes).unwrap_or_default();
    let body = if parts.status.is_success() && kind == EndpointKind::Revocation {
        // It says all by its status.
        Err("a body that is not read".into())
    } else {
        // Some proxies decode and leave the header, and some servers name the charset there.
        let is_plain = |body: &Vec<u8>| {
            encoding.is_empty()
                || encoding.eq_ignore_ascii_case(b"identity")
                || body.trim_ascii_start().starts_with(b"{")
        };
        match read_capped(body).await? {
            Ok(body) if !is_plain(&body) => Err(format!(
                "a body in the content encoding {}, although it was asked for none (a transport that decodes can be given to \
                 build_with)",
                String::from_utf8_lossy(encoding)
            )),
            body => body,
        }
    };
    Ok(EndpointResponse { status: parts.status, headers: parts.headers, body })
}

/// Reads a body to its end, or to the cap: then it says that it is longer. Trailers are of no interest.
pub(crate) async fn read_capped(body: Body) -> Result<Result<Vec<u8>, String>, BoxError> {
    let too_long = || Err(format!("more than {} KiB", MAX_RESPONSE / 1024));
    if usize::try_from(body.size_hint().lower()).map_or(true, |length| length > MAX_RESPONSE) {
        return Ok(too_long());
    }
    let mut body = std::pin::pin!(body);
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        // Empty frames count for no cap; so that there is a time-out, it must have its turn.
        tokio::task::consume_budget().await;
        let Ok(data) = frame?.into_data() else { continue };
        if whole.len() + data.len() > MAX_RESPONSE {
            return Ok(too_long());
        }
        whole.extend_from_slice(&data);
    }
    Ok(Ok(readable(&whole)))
}

// --- Failures ---

/// Makes a refusal of an error of the transport: whether anything was sent, and what can be done about it.
fn unreachable(error: &BoxError, was_sent: bool, expected: &Expected, redactor: &Redactor) -> Refused {
    let is_unconnected = chain(&**error).any(|error| {
        let refused = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
        error.is::<Unsent>() || error.downcast_ref().is_some_and(refused)
    });
    let was_sent = was_sent && !is_unconnected;
    if let Some(foreign) = Error::find_in(&**error) {
        let text = foreign.to_string();
        // The transport knows better: it has no root certificates, say.
        let message = if foreign.is_config() {
            text
        } else {
            messages::unreachable(expected, &text, Some("reported by the transport"))
        };
        return Refused::by_silence(Silence::Broken, foreign.kind(), was_sent, message);
    }
    let texts: Vec<String> = chain(&**error).map(ToString::to_string).collect();
    let lasting = chain(&**error).find_map(|error| error.downcast_ref::<Lasting>());
    let advice = lasting.map(|lasting| lasting.advice).or_else(|| in_the_way(&**error));
    // The text closest to what happened: what stands above it in the chain says only that something did.
    let said = texts.iter().rfind(|text| !text.trim().is_empty());
    let said = said.map_or("the transport did not say why", String::as_str);
    let message = messages::unreachable(expected, &redactor.clean(&text::origins_only(said)), advice);
    let kind = if lasting.is_some() { ErrorKind::Config } else { ErrorKind::Transient };
    let mut refused = Refused::by_silence(Silence::Broken, kind, was_sent, message);
    refused.error = refused.error.with_source(cause(&**error, redactor));
    refused.verdict.hint = Unsent::wait_in(&**error);
    refused
}

/// Returns what an error of foreign code says, and all that are behind it, cleaned. The originals may show a URL with its query,
/// or text that a peer echoed.
pub(crate) fn cause(error: &(dyn std::error::Error + 'static), redactor: &Redactor) -> BoxError {
    let texts = chain(error).map(|error| redactor.clean(&text::origins_only(&error.to_string())));
    texts.collect::<Vec<_>>().join(": ").into()
}
