//! The token endpoint: sends a token request over any HTTP service, with a deadline, a cap and retries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use secrecy::SecretString;

use crate::clock::{self, Moment, WallClock};
use crate::error::TokenError;
use crate::oauth2::answer::{Answer, Expected};
use crate::oauth2::client_auth::Unauthenticated;
use crate::oauth2::parameters::{Encoding, Form, Parameters};
use crate::oauth2::refused::{Delivery, Refused};
use crate::oauth2::response;
use crate::oauth2::secret::{self, ClientSecret};
use crate::oauth2::target::{Place, Target};
use crate::oauth2::wire::{self, Wire};
use crate::source::TokenRequest;
use crate::text::Redactor;
use crate::token::AccessToken;

/// Makes what an answer stands for of it. The redactor learns the secrets in it; the time is that since the Unix epoch.
type Read<T> = fn(&Answer, &Expected, &mut Redactor, Duration) -> Result<T, Refused>;

/// A token endpoint, or another of the same manners, and the client that asks it.
#[derive(Debug)]
pub(crate) struct TokenEndpoint {
    pub(crate) place: Place,
    pub(crate) secret: ClientSecret,
    pub(crate) encoding: Encoding,
    pub(crate) wire: Wire,
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
        self.exchange_knowing(parameters, self.redactor(Some(request))).await
    }

    /// Exchanges `parameters` for a token as [`exchange`](Self::exchange) does, with a redactor that knows what the server
    /// was sent before.
    pub(crate) async fn exchange_knowing(
        &self,
        parameters: &Parameters,
        redactor: Redactor,
    ) -> Result<AccessToken, TokenError> {
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
    /// If the endpoint is gone, and its issuer names another one by now, that one is asked.
    pub(crate) async fn ask<T>(
        &self,
        parameters: &Parameters,
        mut redactor: Redactor,
        doubt: Option<&Doubt>,
        read: Read<T>,
    ) -> Result<(T, Moment), Refused> {
        let found = self.place.find(&self.wire, &redactor).await?;
        let asked = Asked { target: &found.target, parameters, doubt, read };
        let refused = match self.ask_there(asked, &mut redactor).await {
            Ok(answered) => return Ok(answered),
            Err(refused) => refused,
        };
        if !may_have_moved(&refused, doubt.is_some()) {
            return Err(refused);
        }
        let Some(target) = self.place.find_another(&found, &self.wire, &redactor).await else {
            return Err(refused);
        };
        tracing::debug!(origin = %target.origin, "the issuer names another endpoint by now; asking that one");
        self.ask_there(Asked { target: &target, ..asked }, &mut redactor).await
    }

    /// Asks one target.
    ///
    /// The secret is read once; and once more where the server refuses the client, since it may just have been rotated.
    async fn ask_there<T>(
        &self,
        asked: Asked<'_, T>,
        redactor: &mut Redactor,
    ) -> Result<(T, Moment), Refused> {
        let Asked { target, doubt, .. } = asked;
        // Some endpoints want a key there, and some clients put the whole URL into their errors.
        if let Some(query) = target.uri.query().filter(|query| query.contains('=')) {
            redactor.add(query);
        }
        let proof = target.auth.proof(&self.secret);
        let mut secret = proof.read().await?;
        let mut may_reread = proof.may_change();
        let mut retries = 0;
        loop {
            let was_in_doubt = doubt.is_some_and(Doubt::is_raised);
            let refused = match self.attempt(asked, &secret, redactor).await {
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
                    tracing::debug!(origin = %target.origin, "what proves the client was rotated; asking with the new one");
                    secret = newer;
                    continue;
                }
            }
            let status = refused.error.status().map(|status| status.as_u16());
            let delay = self.wire.pause(refused, retries, self.wire.patience.retries)?;
            retries += 1;
            tracing::debug!(
                origin = %target.origin,
                status,
                retry = retries,
                delay_ms = delay.as_millis(),
                "the request is sent again after a wait"
            );
            tokio::time::sleep(delay).await;
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
        redactor
    }

    async fn attempt<T>(
        &self,
        asked: Asked<'_, T>,
        secret: &SecretString,
        redactor: &mut Redactor,
    ) -> Result<(T, Moment), Refused> {
        let Asked { target, parameters, doubt, read } = asked;
        let request = self.request(target, parameters, secret, redactor).await?;
        let requested = WallClock::default().moment();
        let sending = || {
            if let Some(doubt) = doubt {
                doubt.set(true);
            }
        };
        let answer = self.wire.attempt(request, &target.expected, redactor, sending).await?;
        let (status, who) = (answer.status.as_u16(), target.expected.naming.endpoint);
        tracing::debug!(origin = %target.origin, status, "{who} answered");
        let value = read(&answer, &target.expected, redactor, clock::unix_time())?;
        Ok((value, requested))
    }

    async fn request(
        &self,
        target: &Target,
        parameters: &Parameters,
        secret: &SecretString,
        redactor: &mut Redactor,
    ) -> Result<Request<Full<Bytes>>, TokenError> {
        let mut headers = wire::headers();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.encoding.media_type()));
        let mut form = Form::new(self.encoding);
        parameters.write(&target.parties, &mut form, redactor).await?;
        let unauthenticated = Unauthenticated { form: &mut form, headers: &mut headers, redactor };
        target.auth.apply(&target.parties, secret, unauthenticated).await?;

        let mut request = Request::new(Full::new(form.into_bytes()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = target.uri.clone();
        *request.headers_mut() = headers;
        Ok(request)
    }
}

// --- Asked ---

/// What is asked of whom, and how the answer is read.
struct Asked<'a, T> {
    target: &'a Target,
    parameters: &'a Parameters,
    doubt: Option<&'a Doubt>,
    read: Read<T>,
}

impl<T> Clone for Asked<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Asked<'_, T> {}

/// Returns whether the endpoint may be elsewhere by now. What may be spent is not sent to another place: nobody knows what
/// the first one did with it.
fn may_have_moved(refused: &Refused, is_once: bool) -> bool {
    if refused.by_classifier || (is_once && refused.delivery == Delivery::Unclear) {
        return false;
    }
    let error = &refused.error;
    match error.status() {
        Some(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE) => {
            error.code().is_none()
        }
        Some(status) => status.is_redirection(),
        None => error.is_transient(),
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use http::Response;
    use tower::{BoxError, service_fn};

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
