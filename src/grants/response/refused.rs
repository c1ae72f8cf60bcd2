//! An attempt that brought nothing of use: its verdict, and the error that says it.

use std::time::Duration;

use secrecy::SecretString;

use crate::error::{Error, ErrorKind};
use crate::grants::response::body::{Body, EndpointResponse, Expected, OAuthError};
use crate::grants::response::classifier::Refusal;
use crate::grants::response::codes;
use crate::grants::response::messages;
use crate::grants::response::verdict::{self, Delivery, Silence, Verdict};
use crate::headers::rate_limit;
use crate::headers::time::ServerClock;
use crate::text::Redactor;

/// An attempt that brought nothing of use.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) error: Error,
    pub(crate) verdict: Verdict,
    /// Why there was no response, if there was none.
    pub(crate) cause: Option<Silence>,
    /// The refresh token that came with an access token that is of no use. The one before is spent all the same.
    pub(crate) refresh_token: Option<SecretString>,
}

/// An error that stopped an attempt before anything was sent.
impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let verdict = Verdict { is_proof: true, ..Verdict::of(error.kind(), Delivery::Unsent) };
        Self { error, verdict, cause: None, refresh_token: None }
    }
}

impl Refused {
    /// Says a verdict in these words.
    pub(crate) fn by(verdict: Verdict, message: impl Into<String>) -> Self {
        let message = message.into();
        let error = match verdict.class {
            ErrorKind::Config => Error::config(message),
            ErrorKind::Grant => Error::grant(message),
            ErrorKind::Throttled => match verdict.hint {
                Some(wait) => {
                    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                    Error::throttled(format!("{message}, for {seconds} s")).with_retry_after(wait)
                }
                None => Error::throttled(message),
            },
            ErrorKind::Transient => Error::transient(message),
            ErrorKind::Protocol => Error::protocol(message),
        };
        let error = if verdict.is_proof { error } else { error.hearsay() };
        Self { error, verdict, cause: None, refresh_token: None }
    }

    /// Says in these words that there was no response.
    pub(crate) fn by_silence(was_sent: bool, cause: Silence, message: impl Into<String>) -> Self {
        Self { cause: Some(cause), ..Self::by(verdict::silent(was_sent, cause), message) }
    }

    /// Tells the next caller when to try again, if the server has said it.
    pub(crate) fn told_when(mut self) -> Self {
        if let Some(hint) = self.verdict.hint.filter(|_| self.error.is_temporary()) {
            self.error = self.error.with_retry_after(hint);
        }
        self
    }

    /// Makes the refusal of a response that says no. `now` is the time since the Unix epoch.
    pub(crate) fn by_response(
        response: &EndpointResponse,
        body: &Body<'_>,
        said: Option<OAuthError>,
        expected: &Expected,
        redactor: &Redactor,
        now: Duration,
    ) -> Self {
        let EndpointResponse { status, headers, .. } = response;
        let clean =
            |text: Option<String>| text.map(|text| redactor.clean(&text)).filter(|text| !text.is_empty());
        // A registered code says nothing of a secret, whatever words that is made of, and it decides.
        let clean_code = |code: String| match codes::find(&code) {
            Some(_) => Some(code),
            None => clean(Some(code)),
        };
        let (code, description, uri) = match said {
            Some(said) => (clean_code(said.code), clean(said.description), clean(said.uri)),
            None => (None, None, None),
        };
        let hint = rate_limit::wait(*status, headers, now);
        let refusal = Refusal::new(*status, headers, code.as_deref(), description.as_deref());
        let named = expected.acceptance.classifier.as_ref().and_then(|hook| hook.classify(&refusal));
        let verdict = verdict::refused(&refusal, hint, named);
        let wording = &expected.wording;
        let is_refused_assertion = (wording.client_asserts && verdict.blames_secret)
            || (wording.grant_asserts && refusal.code() == Some("invalid_grant"));
        let about_assertion = is_refused_assertion.then(|| {
            let server_time = ServerClock::of(headers, now).time();
            messages::about_assertion(refusal.description(), server_time, now)
        });
        let unreadable = messages::unreadable(body, headers, redactor);
        let message = messages::refused(&refusal, wording, verdict.class, about_assertion, &unreadable);
        let mut refused = Self::by(verdict, message);
        refused.error = refused.error.with_status(*status);
        if let Some(code) = code {
            refused.error = refused.error.with_code(code);
        }
        if let Some(description) = description {
            refused.error = refused.error.with_description(description);
        }
        if let Some(uri) = uri {
            refused.error = refused.error.with_uri(uri);
        }
        refused
    }

    /// Makes the refusal of a redirect, which is not followed.
    pub(crate) fn by_redirect(response: &EndpointResponse, expected: &Expected, redactor: &Redactor) -> Self {
        let EndpointResponse { status, headers, .. } = response;
        let verdict = verdict::refused(&Refusal::new(*status, headers, None, None), None, None);
        let message = messages::redirected(*status, headers, &expected.wording, redactor);
        let mut refused = Self::by(verdict, message);
        refused.error = refused.error.with_status(*status);
        refused
    }
}
