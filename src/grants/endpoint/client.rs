//! The token endpoint: sends a token request over any HTTP service, with a deadline, a cap and retries.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Uri};
use secrecy::SecretString;
use tokio::sync::Notify;

use crate::body::Body;
use crate::clock::{self, Moment, WallClock};
use crate::error::Error;
use crate::extensions::SlowConnection;
use crate::grants::client::auth::ClientAuth;
use crate::grants::client::secret;
use crate::grants::endpoint::deadline::Deadline;
use crate::grants::endpoint::doubt::Doubt;
use crate::grants::endpoint::location::Destination;
use crate::grants::endpoint::target::{Registration, Target};
use crate::grants::endpoint::transport::{self, Retries, Transport};
use crate::grants::parameters::{Encoding, Form, Parameters};
use crate::grants::response::body::EndpointResponse;
use crate::grants::response::expected::Expected;
use crate::grants::response::refused::Refused;
use crate::grants::response::token;
use crate::grants::response::verdict::Silence;
use crate::runtime;
use crate::source::{FetchReason, SourceIdentity, TokenRequest};
use crate::text::Redactor;
use crate::token::AccessToken;

/// An attempt that has begun, as one sees it that begins beside it.
#[derive(Default)]
struct BegunAttempt {
    /// Told when the transport has taken the request.
    sent: Notify,
    connection: SlowConnection,
}

/// A client of an endpoint: where that is, and what every request there says. It was checked, and all grants share it.
#[derive(Debug)]
#[allow(unnameable_types, reason = "it seals the trait of the grants")]
pub struct EndpointClient {
    pub(crate) destination: Destination,
    pub(crate) encoding: Encoding,
    pub(crate) transport: Transport,
    /// The parameters of every request.
    pub(crate) parameters: Parameters,
}

impl EndpointClient {
    /// See [`TokenSource::has_changed`](crate::TokenSource::has_changed).
    pub(crate) fn has_changed(&self) -> bool {
        self.auth().has_changed()
    }

    /// See [`TokenSource::name`](crate::TokenSource::name).
    pub(crate) fn name(&self) -> Option<String> {
        let client_id = &self.destination.registration().identifiers.client_id;
        let client = if client_id.is_empty() { String::new() } else { format!("{client_id} at ") };
        Some(format!("{client}{}", self.destination))
    }

    /// Returns what the grant of that name is about, if that is known before the parameters are read.
    pub(crate) fn identity(&self, grant: &str) -> Option<SourceIdentity> {
        self.parameters.describe(self.partial_identity(grant))
    }

    /// Returns the client, where it asks, and how a response is read: a part of the identity of each grant.
    pub(crate) fn partial_identity(&self, grant: &str) -> SourceIdentity {
        let identity = SourceIdentity::new(grant).with("encoding", format!("{:?}", self.encoding));
        let identity = match &self.destination {
            Destination::Fixed(target) => identity.with("url", target.uri.to_string()),
            Destination::Discovered(discovery) => discovery.describe(identity),
        };
        self.destination.registration().describe(identity)
    }

    /// Exchanges these parameters for a token: one fetch, retries included.
    ///
    /// With a doubt, the server may take them only once: while it is in doubt whether it did, they are sent once more and no
    /// further. A success leaves the doubt to the lineage that takes the token in. The redactor knows which secrets the
    /// server may repeat besides what it is sent now.
    pub(crate) async fn exchange(
        &self,
        parameters: &Parameters,
        doubt: Option<&Doubt>,
        redactor: Redactor,
        deadline: Deadline,
    ) -> Result<AccessToken, Refused> {
        let outgoing = EndpointRequest { parameters, doubt, deadline, read: token::read };
        let (token, requested) = self.send(&outgoing, redactor).await?;
        Ok(token.requested(requested))
    }

    fn auth(&self) -> &ClientAuth {
        &self.destination.registration().auth
    }

    /// Sends a request until there is a final response: one fetch, retries included. Returns what was read of the response,
    /// and the moment at which its attempt was sent.
    ///
    /// If the endpoint is gone, and its issuer names another one by now, the request is sent there.
    pub(crate) async fn send<T>(
        &self,
        outgoing: &EndpointRequest<'_, T>,
        mut redactor: Redactor,
    ) -> Result<(T, Moment), Refused> {
        runtime::current()?;
        let deadline = outgoing.deadline;
        let target = match &self.destination {
            Destination::Fixed(target) => Arc::clone(target),
            Destination::Discovered(discovery) => Arc::new(discovery.target(deadline, &redactor).await?),
        };
        let refused = match self.send_to(&target, outgoing, &mut redactor).await {
            Ok(outcome) => return Ok(outcome),
            Err(refused) => refused,
        };
        let newer = match &self.destination {
            Destination::Discovered(discovery) if may_have_moved(&refused, outgoing) => {
                discovery.newer_target(&target, deadline, &redactor).await
            }
            Destination::Fixed(_) | Destination::Discovered(_) => None,
        };
        let Some(target) = newer else { return Err(refused) };
        tracing::debug!(origin = %target.origin, "the metadata of the issuer name another endpoint now; sending the request there");
        self.send_to(&target, outgoing, &mut redactor).await
    }

    /// Sends to one target.
    ///
    /// The secret is read once; and once more where the server refuses the client, since it may just have been rotated.
    async fn send_to<T>(
        &self,
        target: &Target,
        outgoing: &EndpointRequest<'_, T>,
        redactor: &mut Redactor,
    ) -> Result<(T, Moment), Refused> {
        let EndpointRequest { doubt, deadline, .. } = *outgoing;
        // Some endpoints want a key there, and some clients put the whole URL into their errors.
        if let Some(query) = target.uri.query().filter(|query| query.contains('=')) {
            redactor.add(query);
        }
        if let Some(doubt) = doubt {
            doubt.note(None);
        }
        let Target { registration, .. } = target;
        let auth = &registration.auth;
        let mut secret = None;
        let mut may_reread = auth.may_change();
        let mut retries = Retries::new(self.transport.patience.retries);
        loop {
            let was_in_doubt = doubt.is_some_and(Doubt::is_raised);
            let refused = match &secret {
                None => match self.bounded(deadline, auth.read(FetchReason::Initial)).await {
                    Ok(read) => {
                        secret = Some(read);
                        continue;
                    }
                    Err(refused) => refused,
                },
                Some(secret) => match self.attempts(target, outgoing, secret, &mut retries, redactor).await {
                    Ok(outcome) => return Ok(outcome),
                    Err(refused) => refused,
                },
            };
            match doubt {
                Some(_) if refused.verdict.is_in_doubt && was_in_doubt => {
                    return Err(retries.newest(refused).told_when());
                }
                Some(doubt) if !refused.verdict.is_in_doubt => doubt.set(was_in_doubt),
                Some(_) | None => {}
            }
            if refused.verdict.blames_secret && may_reread {
                may_reread = false;
                // Where it cannot be read now, what the server said counts for more.
                let newer = self.bounded(deadline, auth.read(FetchReason::Forced)).await.ok();
                let newer =
                    newer.filter(|newer| secret.as_ref().is_none_or(|secret| !secret::same(secret, newer)));
                if newer.is_some() {
                    tracing::debug!(origin = %target.origin, "the client secret or key was rotated; sending the request with the new one");
                    secret = newer;
                    continue;
                }
            }
            // A request that is taken only once is not repeated for a response that may hide a success.
            if doubt.is_some() && refused.error.is_protocol() {
                return Err(refused);
            }
            if let Some(doubt) = doubt.filter(|_| refused.silence != Some(Silence::Timeout)) {
                doubt.note(Some(refused.error.clone()));
            }
            let who = &registration.expected.who;
            self.transport.wait(refused, &mut retries, deadline, who).await?;
            if auth.is_read_each_time() {
                secret = None;
            }
        }
    }

    /// Makes one attempt; where nothing is spent by it, and it brings nothing for a while, a second one beside it. The
    /// first response counts, and the other attempt is dropped.
    async fn attempts<T>(
        &self,
        target: &Target,
        outgoing: &EndpointRequest<'_, T>,
        secret: &SecretString,
        retries: &mut Retries,
        redactor: &mut Redactor,
    ) -> Result<(T, Moment), Refused> {
        let wait = self.transport.patience.second_attempt_after.filter(|wait| {
            outgoing.doubt.is_none()
                && retries.made < retries.most
                && outgoing.deadline.leaves_room_after(*wait)
        });
        let begun = BegunAttempt::default();
        let Some(wait) = wait else {
            return self.attempt(target, outgoing, secret, &begun, redactor).await;
        };
        let mut first_knows = redactor.clone();
        let outcome = {
            let mut first = std::pin::pin!(self.attempt(target, outgoing, secret, &begun, &mut first_knows));
            // A wait for a signer, or for a transport that is not ready, is not the server's silence.
            let silence = async {
                begun.sent.notified().await;
                tokio::time::sleep(wait).await;
            };
            match select(&mut first, std::pin::pin!(silence)).await {
                Either::Left((outcome, _)) => outcome,
                Either::Right(_) => {
                    retries.made += 1;
                    tracing::debug!(origin = %target.origin, "no response for {wait:?}; starting a second attempt");
                    begun.connection.abandon();
                    let second = std::pin::pin!(self.attempt(target, outgoing, secret, &begun, redactor));
                    first_response(first, second).await
                }
            }
        };
        redactor.extend(&first_knows);
        outcome
    }

    /// Reads what proves the client, for no longer than an attempt may take. None if it cannot be read, or is not known yet.
    pub(crate) async fn proof(&self, deadline: Deadline) -> Option<SecretString> {
        self.bounded(deadline, self.auth().read(FetchReason::Initial)).await.ok()
    }

    /// Waits for what this side must bring along, for no longer than an attempt may take.
    async fn bounded<T>(
        &self,
        deadline: Deadline,
        reading: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Refused> {
        let limit = deadline.cap(self.transport.patience.attempt_timeout);
        match tokio::time::timeout(limit, reading).await {
            Ok(read) => Ok(read?),
            Err(_) => Err(Error::transient(format!(
                "the client authentication was not ready within {limit:?}: a secret closure or a signer did not return; nothing was sent"
            ))
            .into()),
        }
    }

    /// Makes a redactor that knows what can be known before the first attempt. It stays for all of them: a response may
    /// echo what an earlier one brought.
    pub(crate) fn redactor(request: &TokenRequest) -> Redactor {
        let mut redactor = Redactor::default();
        for token in [request.previous(), request.rejected()].into_iter().flatten() {
            token.teach(&mut redactor);
        }
        redactor
    }

    async fn attempt<T>(
        &self,
        target: &Target,
        outgoing: &EndpointRequest<'_, T>,
        secret: &SecretString,
        begun: &BegunAttempt,
        redactor: &mut Redactor,
    ) -> Result<(T, Moment), Refused> {
        let EndpointRequest { parameters, doubt, deadline, read } = *outgoing;
        let expected = &target.registration.expected;
        let making = self.request(target, parameters, secret, redactor);
        let mut request = self.bounded(deadline, making).await?;
        request.extensions_mut().insert(begun.connection.clone());
        let requested = WallClock::default().moment();
        let sending = || {
            if let Some(doubt) = doubt {
                doubt.set(true);
            }
            begun.sent.notify_one();
        };
        // What may be spent is waited for: the response may bring what comes in its place.
        let deadline = if doubt.is_some() { Deadline::default() } else { deadline };
        let response = self.transport.attempt(request, expected, deadline, redactor, sending).await?;
        let (status, kind) = (response.status.as_u16(), expected.terms.kind.name());
        tracing::debug!(origin = %target.origin, status, "the {kind} endpoint responded");
        let value = read(&response, expected, redactor, clock::unix_time())?;
        Ok((value, requested))
    }

    async fn request(
        &self,
        target: &Target,
        parameters: &Parameters,
        secret: &SecretString,
        redactor: &mut Redactor,
    ) -> Result<Request<Body>, Error> {
        let Registration { identifiers, auth, .. } = &target.registration;
        let mut headers = transport::headers();
        let media_type = self.encoding.media_type().map(HeaderValue::from_static);
        headers.extend(media_type.map(|media_type| (CONTENT_TYPE, media_type)));
        let mut form = Form::new(self.encoding);
        parameters.write(identifiers, &mut form, &mut headers, redactor).await?;
        let applied = auth.apply(identifiers, secret, &mut form, &mut headers, redactor).await;
        applied.map_err(|error| secret::of_the_moment(error, auth.may_change()))?;

        let form = form.into_bytes();
        let (method, uri, body) = match self.encoding {
            Encoding::Form | Encoding::Json => (Method::POST, target.uri.clone(), Body::from(form)),
            Encoding::Query => (Method::GET, with_query(&target.uri, &form)?, Body::empty()),
        };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

// --- EndpointRequest ---

/// A request to an endpoint: its parameters, its deadline, and how the response is read.
pub(crate) struct EndpointRequest<'a, T> {
    pub(crate) parameters: &'a Parameters,
    /// Given where the server may take the parameters only once.
    pub(crate) doubt: Option<&'a Doubt>,
    pub(crate) deadline: Deadline,
    /// Reads a response. The redactor learns the secrets in it; the time is that since the Unix epoch.
    pub(crate) read: fn(&EndpointResponse, &Expected, &mut Redactor, Duration) -> Result<T, Refused>,
}

/// Adds parameters to the query of a URL.
fn with_query(uri: &Uri, parameters: &[u8]) -> Result<Uri, Error> {
    let separator = match uri.query() {
        _ if parameters.is_empty() => "",
        None => "?",
        Some("") => "",
        Some(_) => "&",
    };
    let url = format!("{uri}{separator}{}", String::from_utf8_lossy(parameters));
    url.parse().map_err(|_| Error::config("param: the parameters do not fit a URL"))
}

/// Waits for the first response of two attempts. An attempt that ends without one does not end the other.
async fn first_response<T>(
    first: impl Future<Output = Result<T, Refused>> + Unpin,
    second: impl Future<Output = Result<T, Refused>> + Unpin,
) -> Result<T, Refused> {
    let (silent, other) = match select(first, second).await.factor_first() {
        (Err(refused), other) if refused.silence.is_some() => (refused, other),
        (outcome, _) => return outcome,
    };
    match other.await {
        Err(other) if other.silence == Some(Silence::Timeout) => Err(silent),
        other => other,
    }
}

/// Returns whether the endpoint may be elsewhere by now, and there is time to look. A refresh token that may be spent is not sent
/// to another place: it is unknown what the first one did with it.
fn may_have_moved<T>(refused: &Refused, outgoing: &EndpointRequest<'_, T>) -> bool {
    let may_be_spent = outgoing.doubt.is_some() && refused.verdict.is_in_doubt;
    if may_be_spent || !outgoing.deadline.leaves_room_after(Duration::ZERO) {
        return false;
    }
    let Some(status) = refused.error.status() else { return refused.error.is_transient() };
    let is_gone = matches!(status.as_u16(), 404 | 405 | 410);
    (is_gone || status.is_redirection()) && !refused.verdict.is_proof
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use http::{Response, StatusCode};
    use tower::{BoxError, service_fn};

    use super::*;
    use crate::grants::flows::ClientCredentials;
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
        let transport = service_fn(move |_request: Request<Body>| {
            let (status, body) = answers.lock().unwrap().pop_front().unwrap();
            log.lock().unwrap().push(clock::now());
            async move {
                tokio::time::sleep(Duration::from_secs(3)).await;
                let mut response = Response::new(Body::from(body));
                *response.status_mut() = status;
                Ok::<_, BoxError>(response)
            }
        });
        let source =
            ClientCredentials::builder("https://example.com/", "id", "secret").second_attempt_after(None);
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
