//! One request from its first attempt to its end: what is known of it, and what is kept of it.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower::BoxError;
use tower_service::Service;

use super::past::PastAttempts;
use super::resend::Resend;
use super::sender::Sender;
use super::timeouts;
use crate::clock;
use crate::retry::gate::{GateAsk, GatedPlace, Pass, RetryGate, Ticket};
use crate::retry::limits::account::Account;
use crate::retry::limits::budget::RetryBudget;
use crate::retry::policy::idempotency::Repeatability;
use crate::retry::policy::options::{Before, RetryOptions};
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
/// 2. `past` is there from the first wait on, or once the gate was asked, and boxed: most requests have none, and its size would
///    slow down all.
/// 3. Whose limits it counts against is found out once: against the first account of the budget, as nearly all do, when it is
///    counted there; against any other when a limit is first asked about it.
pub(super) struct Exchange<S, B>
where
    S: HttpService<B>,
{
    pub(super) sender: Sender<S>,
    pub(super) options: Option<RetryOptions>,
    /// As far as the method says, where the head is kept.
    pub(super) repeat: Repeatability,
    /// It counts against the first account of the budget.
    pub(super) is_of_first: bool,
    /// When it must be done.
    pub(super) deadline: Option<Instant>,
    /// None if no other attempt can follow, and it is known without the head where the request went.
    pub(super) resend: Option<Resend<B>>,
    pub(super) past: Option<Box<PastAttempts<S::ResponseBody>>>,
}

/// For how long what the next attempt needs is waited for at least.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(200);

impl<S, B> Exchange<S, B>
where
    S: HttpService<B>,
{
    /// Whether no attempt came to nothing yet, and none was held.
    #[inline]
    pub(super) fn is_first(&self) -> bool {
        self.past.as_ref().is_none_or(|past| past.is_first())
    }

    pub(super) fn past(&mut self) -> &mut PastAttempts<S::ResponseBody> {
        let in_doubt = self.before() != Before::Nothing;
        self.past.get_or_insert_with(|| Box::new(PastAttempts::first(in_doubt)))
    }

    /// The deed of the server before the request was sent here.
    #[inline]
    pub(super) fn before(&self) -> Before {
        self.options.as_ref().map_or(Before::Nothing, |options| options.before)
    }

    /// How often it was retried.
    pub(super) fn retries(&self) -> u32 {
        self.past.as_ref().map_or(0, |past| past.counts.retries)
    }

    /// Whether the server may have acted on an attempt so far.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.past.as_ref().map_or(self.before() != Before::Nothing, |past| past.counts.in_doubt)
    }

    /// For how long something may be waited for that the next attempt needs. Where the waits were all that is allowed, what
    /// is busy for a moment is not given up yet.
    pub(super) fn time_left(&self) -> Duration {
        let left = timeouts::left(self.deadline).unwrap_or_else(|| self.wait_left().max(SHORTEST_PATIENCE));
        left.min(clock::FARTHEST)
    }

    fn wait_left(&self) -> Duration {
        let waited = self.past.as_ref().map_or(Duration::ZERO, |past| past.counts.waited);
        self.sender.rules().max_total_delay.saturating_sub(waited)
    }

    /// The gate at which the request may be held.
    pub(super) fn gate(&self) -> Option<&RetryGate> {
        let past = self.options.as_ref().is_some_and(|options| options.past_gate);
        self.sender.rules().gate.as_ref().filter(|_| !past)
    }

    /// Returns the place that the gate guards, as far as the request is concerned.
    pub(super) fn place(&mut self) -> Option<GatedPlace> {
        if self.past().place.is_none() {
            let rules = self.sender.rules();
            let first =
                rules.budget.as_ref().filter(|_| self.is_of_first).and_then(RetryBudget::first_account);
            let head = self.resend.as_ref().map(|resend| &resend.head);
            let account = first.cloned().or_else(|| Some(Arc::new(Account::of(head?.target()))))?;
            let key = rules.gate_key.as_ref().zip(head).map(|(key, head)| key(&head.head()));
            self.past().place = Some(GatedPlace::of(account, key));
        }
        self.past().place.clone()
    }

    /// Returns its demand on the gate.
    pub(super) fn ask(&self, retries: u32, least: Duration) -> GateAsk<'_> {
        let Some(resend) = &self.resend else { return GateAsk::ONCE };
        let longest = timeouts::left(self.deadline).unwrap_or_else(|| self.wait_left());
        // All its waits for others together.
        let held = self.past.as_ref().map_or(Duration::ZERO, |past| past.held);
        let hold = self.sender.rules().max_hold.saturating_sub(held);
        let patient = !self.options.as_ref().is_some_and(|options| options.never);
        GateAsk { kind: Some(resend.head.kind()), retries, least, longest, hold, patient }
    }

    /// Asks the gate for an attempt. Returns a ticket if it has to wait.
    pub(super) fn ask_gate(&mut self, retries: u32, least: Duration) -> Option<Box<Ticket>> {
        self.take_pass();
        self.gate().filter(|gate| !gate.is_open())?;
        let place = self.place()?;
        match self.gate()?.admit(&place, self.ask(retries, least)) {
            Ok(pass) => {
                self.past().pass = pass;
                None
            }
            Err(ticket) => Some(ticket),
        }
    }

    /// The attempt in flight was not refused for coming too early.
    #[inline]
    pub(super) fn accepted(&mut self) {
        if let Some(pass) = self.take_pass() {
            pass.accepted();
        }
    }

    /// Takes what the attempt in flight has from the gate.
    #[inline]
    pub(super) fn take_pass(&mut self) -> Option<Pass> {
        self.past.as_mut()?.pass.take()
    }

    /// Reads on in the response before. Ready once nothing is left to be read. `soon`: the wait is over.
    pub(super) fn poll_drained(&mut self, soon: bool, cx: &mut Context<'_>) -> Poll<()> {
        self.past.as_mut().map_or(Poll::Ready(()), |past| past.poll_drained(soon, cx))
    }

    /// Returns why the request cannot be sent again.
    pub(super) fn replayable(&self) -> Result<(), NotReplayable> {
        self.resend.as_ref().map_or(Err(NotReplayable::Released), Resend::replayable)
    }

    /// Sends an attempt. The service is ready.
    pub(super) fn send(&mut self, request: Request<RequestBody<B>>) -> S::Future {
        let past = self.past();
        past.sent += 1;
        let (retries, auth_replays) = (past.counts.retries, past.counts.auth_replays);
        let may_replay = self.sender.rules().may_replay(self.options.as_ref(), retries, auth_replays);
        if let Some(resend) = self.resend.as_mut().filter(|_| !may_replay) {
            resend.release();
        }
        self.sender.inner().call(request)
    }
}
