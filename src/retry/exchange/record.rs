//! One request from its first attempt to its end: what is known of it, and what is kept of it.

use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Uri};
use http_body::Body;
use tokio::time::Instant;
use tower::BoxError;
use tower_service::Service;

use super::body_source::BodySource;
use super::draining::Draining;
use super::head::Snapshot;
use super::progress::Progress;
use super::sender::Sender;
use super::timeouts::{self, AttemptTimeout};
use crate::clock;
use crate::extensions::CredentialId;
use crate::retry::gate::{Admission, Ask, GateKey, Pass, Place, RetryGate, Ticket};
use crate::retry::limits::account::{Account, Target};
use crate::retry::policy::classify::Failure;
use crate::retry::policy::idempotency::Repeat;
use crate::retry::policy::options::RetryOptions;
use crate::retry::replay_body::{NotReplayable, RequestBody};

/// A service that a [`RetryService`](crate::retry::RetryService) can send replays through: an alias, implemented for all that
/// fit. It gives the response body a name where only the service is known.
#[allow(unnameable_types, unreachable_pub, reason = "nobody implements it or has to name it")]
pub trait HttpService<B>:
    Service<
        Request<RequestBody<B>>,
        Response = Response<<Self as HttpService<B>>::ResponseBody>,
        Error: Into<BoxError>,
    > + Clone
{
    /// The body of its responses.
    type ResponseBody: Body<Error: Into<BoxError>>;
}

impl<S, B, RB> HttpService<B> for S
where
    S: Service<Request<RequestBody<B>>, Response = Response<RB>, Error: Into<BoxError>> + Clone,
    RB: Body<Error: Into<BoxError>>,
{
    type ResponseBody = RB;
}

/// One request from its first attempt to its end.
///
/// 1. The head and the body are kept where another attempt can follow, or the request has to wait for the gate.
/// 2. `past` is there from the first wait on, and boxed: most requests have none, and its size would slow down all.
pub(super) struct Exchange<S, B>
where
    S: HttpService<B>,
{
    pub(super) sender: Sender<S>,
    pub(super) options: Option<RetryOptions>,
    /// As far as the method says, where the head is kept.
    pub(super) repeat: Repeat,
    /// When it must be done.
    pub(super) deadline: Option<Instant>,
    pub(super) kept: Kept<B>,
    /// What the attempt in flight has from the gate.
    pub(super) pass: Option<Box<Pass>>,
    pub(super) past: Option<Box<PastAttempts<S::ResponseBody>>>,
}

/// What is kept of a request while it is in flight.
pub(super) enum Kept<B> {
    /// What further attempts are made from.
    Resend(Resend<B>),
    /// No other attempt can follow.
    Nothing(Option<SentTo>),
}

/// What further attempts are made from.
pub(super) struct Resend<B> {
    pub(super) head: Snapshot,
    /// Why there is none: the body is sent once, though the request may have to wait for that; or no other attempt can follow,
    /// so that the last one is not recorded.
    pub(super) source: Result<BodySource<B>, NotReplayable>,
}

/// Where a request went that is not kept, for the gate.
pub(super) struct SentTo {
    /// None for the first account of the budget, where nearly every request goes, so that nothing need be copied.
    elsewhere: Option<(Uri, Option<CredentialId>)>,
    key: Option<String>,
}

/// The attempts before the one that is prepared or in flight.
pub(super) struct PastAttempts<RB: Body> {
    pub(super) progress: Progress,
    /// The newest outcome there is. It is kept until a newer one takes its place, so that it can be returned if that does not
    /// come.
    pub(super) outcome: Option<PastOutcome<RB>>,
    /// Its place in the history.
    pub(super) at: usize,
}

/// The outcome of an attempt, while another one is made.
pub(super) enum PastOutcome<RB: Body> {
    /// It is drained before the inner service is polled ready, so that it holds nothing that this may be waiting for.
    Response(Box<Draining<RB>>),
    Failed(BoxError),
}

/// For how long what the next attempt needs is waited for at least.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(200);

impl<S, B> Exchange<S, B>
where
    S: HttpService<B>,
{
    #[inline]
    pub(super) fn new(
        sender: Sender<S>,
        options: Option<RetryOptions>,
        repeat: Repeat,
        deadline: Option<Instant>,
        kept: Kept<B>,
    ) -> Self {
        Self { sender, options, repeat, deadline, kept, pass: None, past: None }
    }

    /// Whether no attempt came to nothing yet, and none was held.
    #[inline]
    pub(super) fn is_first(&self) -> bool {
        self.past.as_ref().is_none_or(|past| past.progress.is_first())
    }

    pub(super) fn past(&mut self) -> &mut PastAttempts<S::ResponseBody> {
        self.past.get_or_insert_with(|| {
            Box::new(PastAttempts { progress: Progress::first(), outcome: None, at: 0 })
        })
    }

    pub(super) fn progress(&mut self) -> &mut Progress {
        &mut self.past().progress
    }

    /// Takes how it went, at the end.
    pub(super) fn finish(&mut self) -> Progress {
        self.past.as_mut().map_or_else(Progress::first, |past| past.progress.finish())
    }

    /// How often it was retried.
    pub(super) fn retries(&self) -> u32 {
        self.past.as_ref().map_or(0, |past| past.progress.retries)
    }

    /// Whether the server may have acted on an attempt so far.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.past.as_ref().is_some_and(|past| past.progress.in_doubt)
    }

    /// For how long something may be waited for that the next attempt needs. Where the waits were all that is allowed, what
    /// is busy for a moment is not given up yet.
    pub(super) fn time_left(&self) -> Duration {
        let left = timeouts::left(self.deadline).unwrap_or_else(|| self.wait_left().max(SHORTEST_PATIENCE));
        left.min(clock::FARTHEST)
    }

    fn wait_left(&self) -> Duration {
        let waited = self.past.as_ref().map_or(Duration::ZERO, |past| past.progress.waited);
        self.sender.rules().max_total_delay.saturating_sub(waited)
    }

    /// The gate at which the request may be held.
    pub(super) fn gate(&self) -> Option<&RetryGate> {
        let past = self.options.as_ref().is_some_and(|options| options.past_gate);
        self.sender.rules().gate.as_ref().filter(|_| !past)
    }

    /// What it asks the gate for.
    pub(super) fn ask<'a>(&self, resend: &'a Resend<B>, retries: u32, least: Duration) -> Ask<'a> {
        let longest = timeouts::left(self.deadline).unwrap_or_else(|| self.wait_left());
        // All its waits for others together.
        let held = self.past.as_ref().map_or(Duration::ZERO, |past| past.progress.held);
        let hold = self.sender.rules().max_hold.saturating_sub(held);
        let patient = !self.options.as_ref().is_some_and(|options| options.never);
        Ask { kind: Some(resend.head.kind()), retries, least, longest, hold, patient }
    }

    /// Asks the gate for an attempt. Returns a ticket if it has to wait.
    pub(super) fn ask_gate(&mut self, retries: u32, least: Duration) -> Option<Box<Ticket>> {
        self.pass = None;
        let gate = self.gate().filter(|gate| !gate.is_open())?;
        let Kept::Resend(resend) = &self.kept else { return None };
        let place = resend.place(&self.sender.rules().gate_key);
        match gate.admit(&place, self.ask(resend, retries, least)) {
            Admission::Open => None,
            Admission::Go(pass) => {
                self.pass = Some(Box::new(pass));
                None
            }
            Admission::Wait(ticket) => Some(Box::new(ticket)),
        }
    }

    /// The attempt in flight was not refused for coming too early.
    #[inline]
    pub(super) fn accepted(&mut self) {
        if let Some(pass) = self.pass.take() {
            pass.accepted();
        }
    }

    /// Reads on in the response before. Ready once nothing is left to be read.
    pub(super) fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.draining().map_or(Poll::Ready(()), |draining| draining.poll_drained(cx))
    }

    /// The same where the wait is over.
    pub(super) fn poll_drained_soon(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(draining) = self.draining() else { return Poll::Ready(()) };
        draining.hurry();
        draining.poll_drained(cx)
    }

    fn draining(&mut self) -> Option<&mut Draining<S::ResponseBody>> {
        match self.past.as_mut()?.outcome.as_mut()? {
            PastOutcome::Response(draining) => Some(draining),
            PastOutcome::Failed(_) => None,
        }
    }

    /// Sends an attempt. The service is ready.
    pub(super) fn send(&mut self, request: Request<RequestBody<B>>) -> S::Future {
        let Progress { sent, retries, auth_replays, .. } = self.progress();
        *sent += 1;
        let (retries, auth_replays) = (*retries, *auth_replays);
        if let Kept::Resend(resend) = &mut self.kept
            && resend.source.is_ok()
            && !self.sender.rules().may_replay(self.options.as_ref(), retries, auth_replays)
        {
            resend.source = Err(NotReplayable::Released);
        }
        self.sender.inner().call(request)
    }
}

// --- Kept ---

impl<B> Kept<B> {
    /// Returns why the request cannot be sent again.
    pub(super) fn replayable(&self) -> Result<(), NotReplayable> {
        match self {
            Self::Resend(Resend { source: Ok(source), .. }) => source.replayable(),
            Self::Resend(Resend { source: Err(why), .. }) => Err(*why),
            Self::Nothing(_) => Err(NotReplayable::Released),
        }
    }
}

// --- Resend ---

impl<B> Resend<B> {
    /// Where the request goes, as far as the gate tells requests apart.
    pub(super) fn place(&self, key: &GateKey) -> Place {
        Place::of(Account::of(self.target()), key.of(|| self.head.head()))
    }

    /// Where the request goes, and with which credential.
    pub(super) fn target(&self) -> Target<'_> {
        self.head.target()
    }
}

// --- PastAttempts ---

impl<RB: Body> PastAttempts<RB> {
    /// Keeps the outcome of the attempt that was noted last. A timeout of ours does not take the place of a response, nor does
    /// an attempt that did no work that of one which may have.
    pub(super) fn keep(&mut self, outcome: PastOutcome<RB>, repeat: Repeat) {
        let Some((last, before)) = self.progress.history.split_last() else { return };
        let is_older_kept = match (&outcome, &self.outcome) {
            (PastOutcome::Response(_), _) | (_, None) => false,
            (PastOutcome::Failed(error), Some(older)) => match last.failure {
                Some(Failure::Ambiguous) => {
                    error.is::<AttemptTimeout>() && matches!(older, PastOutcome::Response(_))
                }
                Some(Failure::Unsent | Failure::Fatal) | None => self.progress.in_doubt,
            },
        };
        if !is_older_kept {
            self.outcome = Some(outcome);
            self.at = before.len();
        }
        self.progress.in_doubt |= repeat != Repeat::Safe && last.may_have_acted();
    }
}

// --- SentTo ---

impl SentTo {
    /// Keeps where a request goes, and whether that is where the first one went of which the budget knows.
    #[inline]
    pub(super) fn of<B>(request: &Request<B>, key: &GateKey, is_first: bool) -> Self {
        let elsewhere = || (request.uri().clone(), request.extensions().get().cloned());
        Self { elsewhere: (!is_first).then(elsewhere), key: key.of(|| Snapshot::of(request).head()) }
    }

    pub(super) fn place(&self, first: Option<&Account>) -> Option<Place> {
        let account = match &self.elsewhere {
            Some((uri, credential)) => Account::of(Target { uri, credential: credential.as_ref() }),
            None => first?.clone(),
        };
        Some(Place::of(account, self.key.clone()))
    }
}
