//! An attempt that brought nothing of use: its verdict, and the error that says it.

use std::time::Duration;

use secrecy::SecretString;

use crate::error::{Error, ErrorKind};
use crate::grants::response::body::{Body, EndpointResponse, as_string};
use crate::grants::response::classifier::Refusal;
use crate::grants::response::codes;
use crate::grants::response::expected::Expected;
use crate::grants::response::messages;
use crate::grants::response::verdict::{self, Silence, Verdict};
use crate::headers::rate_limit;
use crate::headers::time::ServerClock;
use crate::text::Redactor;

/// An attempt that brought nothing of use.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) error: Error,
    pub(crate) verdict: Verdict,
    /// How it ended, if there was no response.
    pub(crate) silence: Option<Silence>,
    /// The refresh token that came with an access token that is of no use. The one before is spent all the same.
    pub(crate) refresh_token: Option<SecretString>,
}

/// An error that stopped an attempt before anything was sent.
impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let verdict = Verdict { is_proof: true, ..Verdict::of(error.kind(), false) };
        Self { error, verdict, silence: None, refresh_token: None }
    }
}

impl Refused {
    /// Says a verdict in these words.
    pub(crate) fn by(verdict: Verdict, message: String) -> Self {
        let error = match verdict.hint.filter(|_| verdict.class == ErrorKind::Throttled) {
            Some(wait) => {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                Error::throttled(format!("{message}, for {seconds} s")).with_retry_after(wait)
            }
            None => Error::new(verdict.class, message),
        };
        let error = if verdict.is_proof { error } else { error.hearsay() };
        Self { error, verdict, silence: None, refresh_token: None }
    }

    /// Says in these words that there was no response; `cause` is the class of what the transport says of it.
    pub(crate) fn by_silence(silence: Silence, cause: ErrorKind, was_sent: bool, message: String) -> Self {
        Self { silence: Some(silence), ..Self::by(verdict::silent(cause, was_sent), message) }
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
        body: &Body,
        expected: &Expected,
        redactor: &Redactor,
        now: Duration,
    ) -> Self {
        let (status, headers) = (response.status, &response.headers);
        let clean = |text: String| Some(redactor.clean(&text)).filter(|text| !text.is_empty());
        // What redirects is in front of the endpoint.
        let speaks = !status.is_redirection();
        let code = body.error_code().filter(|_| speaks);
        let text = |name: &str| as_string(&body.at(name).filter(|_| speaks)?).and_then(clean);
        let first = |names: &[&str]| names.iter().find_map(|name| text(name));
        let remark = first(&["message", "error_message", "/error/message"]);
        // Genesys Cloud says `description`. What knows nothing of OAuth 2.0 has its reason elsewhere.
        let description = first(&["error_description", "description"]);
        let description = description.or_else(|| remark.clone().filter(|_| code.is_none()));
        let uri = text("error_uri");
        // A registered code says nothing of a secret, whatever words that is made of, and it decides.
        let code = code.and_then(|code| if codes::find(&code).is_some() { Some(code) } else { clean(code) });
        let hint = rate_limit::wait(status, headers, now);
        let refusal = Refusal { status, headers, code: code.as_deref(), description: description.as_deref() };
        let named = expected.acceptance.classifier.as_ref().and_then(|hook| (hook.0)(&refusal));
        let verdict = verdict::refused(&refusal, remark.as_deref(), hint, named);
        let is_refused_assertion = (expected.client_asserts && verdict.blames_secret)
            || (expected.terms.own.contains(&"assertion") && refusal.code() == Some("invalid_grant"));
        let about_assertion = is_refused_assertion.then(|| {
            let server_time = ServerClock::of(headers, now).time();
            messages::about_assertion(refusal.description(), server_time, now)
        });
        let instead = messages::instead(response, body, redactor);
        let message = messages::refused(&refusal, expected, verdict.class, about_assertion, &instead);
        let mut refused = Self::by(verdict, message);
        let error = refused.error.with_status(status);
        let error = code.iter().fold(error, Error::with_code);
        let error = description.iter().fold(error, Error::with_description);
        refused.error = uri.iter().fold(error, Error::with_uri);
        refused
    }
}
