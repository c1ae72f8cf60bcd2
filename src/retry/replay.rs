//! What replays are made from: the request, the service, and the answer before.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderName, Request, Response};
use http_body::Body;
use tokio::time::{Instant, Sleep};
use tower::BoxError;
use tower_service::Service;

use super::account::{Account, Target};
use super::classify::Failure;
use super::drain::Draining;
use super::facts::Facts;
use super::gate::{Admission, Ask, GateKey, Pass, Place, Ticket};
use super::idempotency::Repeat;
use super::original::{Next, Original, reopened};
use super::replay_body::{NotReplayable, ReplayBody};
use super::report::{self, ReplayReason, Replayed, StopReason};
use super::snapshot::Snapshot;
use super::timeouts::{self, AttemptTimeout, DeadlineExceeded};
use super::view::View;
use crate::clock;
use crate::extensions::Attempt;
use crate::headers::grpc;

/// What replays are made from, and how they went so far.
///
/// 1. `service` is never held ready: it is polled ready for an attempt, and called at once.
/// 2. `course` is there from the first wait on, and boxed: most requests have none, and its size would slow down all.
/// 3. `next` is there from the decision to replay until the replay is sent; it is open before the service is made ready.
/// 4. `previous` is the newest outcome there is. It is kept until a newer one replaces it, so that it can be handed out
///    should the replay not come about. An answer is drained before the service is polled ready, so that it holds
///    nothing that the service may be waiting for.
pub(super) struct Replay<S, B>
where
    S: HttpService<B>,
{
    service: S,
    head: Snapshot,
    /// None once no replay can follow, so that the last attempt is not recorded.
    original: Option<Original<B>>,
    gate: Gate,
    course: Option<Box<Course<B, S::ResponseBody>>>,
}

/// How replays went so far.
struct Course<B, RB: Body> {
    next: Option<Next<B>>,
    previous: Option<Earlier<RB>>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Since when the service is waited for.
    unready: Option<Instant>,
    progress: Progress,
}

/// An attempt that was decided: its body, why it is made, and the header that said when.
pub(super) struct Again<B> {
    pub(super) body: Next<B>,
    pub(super) replayed: Replayed,
    pub(super) requested_by: Option<HeaderName>,
    /// For how long it waits by itself, at the gate or not.
    pub(super) sleep: Duration,
    /// The server may have acted on the attempt before.
    pub(super) in_doubt: bool,
    /// How many retries are left after this one, where they are counted.
    pub(super) budget: Option<f64>,
}

/// How the next attempt, or the one in flight, stands with the gate.
enum Gate {
    /// It will ask once the wait is over.
    Unasked,
    Queued(Box<Ticket>),
    Through(Option<Box<Pass>>),
}

/// What went on so far.
#[derive(Clone)]
pub(super) struct Progress {
    pub(super) sent: u32,
    pub(super) retries: u32,
    /// Retries since a gRPC server said when to come; the policy's own waits grow with these.
    pub(super) backoffs: u32,
    pub(super) auth_replays: u32,
    pub(super) waited: Duration,
    /// The server may have acted on an attempt whose response is not handed out.
    pub(super) in_doubt: bool,
    /// How much of that was at the gate.
    pub(super) held: Duration,
    pub(super) history: Vec<Replayed>,
}

/// The outcome before, and its place in the history.
pub(super) struct Earlier<B: Body> {
    pub(super) outcome: Previous<B>,
    pub(super) at: usize,
}

/// The outcome before, while a replay is tried.
pub(super) enum Previous<B: Body> {
    Answered(Box<Draining<B>>),
    /// There was no answer.
    Failed(BoxError),
}

/// A service that a [`RetryService`](super::RetryService) can send replays through: an alias, implemented for all that
/// fit. It gives the response body a name where only the service is known.
pub trait HttpService<B>: Service<Request<ReplayBody<B>>> {
    /// The body of its responses.
    type ResponseBody: Body<Error: Into<BoxError>>;
}

impl<S, B, RB> HttpService<B> for S
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>>,
    RB: Body<Error: Into<BoxError>>,
{
    type ResponseBody = RB;
}

/// For how long the inner service is waited for at least.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(200);

impl<S, B> Replay<S, B>
where
    S: HttpService<B>,
{
    pub(super) fn new(service: S, head: Snapshot, original: Option<Original<B>>) -> Self {
        Self { service, head, original, gate: Gate::Through(None), course: None }
    }

    /// Whether no attempt came to nothing yet, and none was held.
    pub(super) fn is_first(&self) -> bool {
        let is_plain = |progress: &Progress| progress.history.is_empty() && progress.held.is_zero();
        self.course.as_ref().is_none_or(|course| is_plain(&course.progress))
    }

    /// The attempt was not sent after all.
    pub(super) fn take_back(&mut self) {
        Course::of(&mut self.course).progress.sent -= 1;
    }

    /// Takes how it went, at the end.
    pub(super) fn finish(&mut self) -> Progress {
        self.course.as_mut().map_or_else(Progress::first, |course| course.progress.finish())
    }

    pub(super) fn take_previous(&mut self) -> Option<Earlier<S::ResponseBody>> {
        self.course.as_mut()?.previous.take()
    }

    fn waited(&self) -> Duration {
        self.course.as_ref().map_or(Duration::ZERO, |course| course.progress.waited)
    }

    pub(super) fn retries(&self) -> u32 {
        self.course.as_ref().map_or(0, |course| course.progress.retries)
    }

    /// Adds to a view what only this side knows.
    pub(super) fn complete<'a>(&self, view: View<'a>, without_body: NotReplayable) -> View<'a> {
        let replayable = self.original.as_ref().map_or(Err(without_body), Original::replayable);
        let head = self.head.head();
        let view = view.body(replayable).repeat(Repeat::as_it_is(&head.method, &head.headers));
        let view = if grpc::is_grpc_content(&head.headers) { view.grpc() } else { view };
        let Some(Course { progress, .. }) = self.course.as_deref() else { return view };
        let view = if progress.in_doubt { view.in_doubt() } else { view };
        view.retries(progress.retries)
            .backoffs(progress.backoffs)
            .auth_replays(progress.auth_replays)
            .waited(progress.waited)
    }

    /// Where the request goes, and with which credential.
    pub(super) fn target(&self) -> Target<'_> {
        self.head.target()
    }

    /// Where the request goes, as far as the gate tells requests apart.
    pub(super) fn place(&self, key: &GateKey) -> Place {
        Place::of(Account::of(self.target()), key.of(|| self.head.head()))
    }

    /// What it asks the gate for.
    pub(super) fn ask(&self, facts: &Facts, retries: u32, least: Duration) -> Ask<'_> {
        let rules = facts.policy.rules();
        let left = || rules.total_wait.saturating_sub(self.waited());
        let longest = timeouts::left(facts.deadline).unwrap_or_else(left);
        // All its waits for others together.
        let held = self.course.as_ref().map_or(Duration::ZERO, |course| course.progress.held);
        let hold = rules.longest_hold.saturating_sub(held);
        Ask { kind: Some(self.head.kind()), retries, least, longest, hold }
    }

    /// Asks the gate for the next attempt. Returns whether it has to wait.
    pub(super) fn ask_gate(&mut self, facts: &Facts, retries: u32, least: Duration) -> bool {
        let Some(gate) = facts.gate().filter(|gate| !gate.is_open()) else {
            self.gate = Gate::Through(None);
            return false;
        };
        let place = self.place(&facts.policy.rules().gate_key);
        self.gate = match gate.admit(&place, self.ask(facts, retries, least)) {
            Admission::Open => Gate::Through(None),
            Admission::Go(pass) => Gate::Through(Some(Box::new(pass))),
            Admission::Wait(ticket) => Gate::Queued(Box::new(ticket)),
        };
        matches!(self.gate, Gate::Queued(_))
    }

    /// Asks the gate for a retry of what it just closed for. Where it cannot wait for its turn, it waits for itself.
    pub(super) fn queue_again(&mut self, facts: &Facts, requested: Option<Duration>) -> bool {
        let queued = self.ask_gate(facts, self.retries() + 1, requested.unwrap_or_default());
        if !queued {
            self.gate = Gate::Through(None);
        }
        queued
    }

    /// The first attempt waits at the gate.
    pub(super) fn hold_back(&mut self, first: ReplayBody<B>) {
        let course = Course::of(&mut self.course);
        tracing::debug!("the request is held back, since the server asked for patience");
        course.next = Some(Next::Body(first));
        course.progress.sent = 0;
    }

    /// The attempt in flight was not refused for coming too early.
    pub(super) fn accepted(&mut self) {
        if let Some(pass) = self.take_pass() {
            pass.accepted();
        }
    }

    pub(super) fn take_pass(&mut self) -> Option<Box<Pass>> {
        match &mut self.gate {
            Gate::Through(pass) => pass.take(),
            Gate::Unasked | Gate::Queued(_) => None,
        }
    }

    /// Begins the body of the next attempt, now: an upload that goes on during the wait would be in vain.
    pub(super) fn claim(&mut self) -> Result<Next<B>, NotReplayable> {
        self.original.as_mut().ok_or(NotReplayable::Released)?.claim()
    }

    /// Whether the server may have acted on an attempt so far.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.course.as_ref().is_some_and(|course| course.progress.in_doubt)
    }

    /// The server may have acted on the attempt that just ended.
    pub(super) fn doubt(&mut self, in_doubt: bool) {
        if in_doubt {
            Course::of(&mut self.course).progress.in_doubt = true;
        }
    }

    /// Notes a replay that was decided, and starts its wait. A time-out of ours does not take the place of an answer, nor
    /// does an attempt that did no work that of one which may have.
    pub(super) fn prepare(&mut self, again: Again<B>, previous: Previous<S::ResponseBody>) {
        let course = Course::of(&mut self.course);
        let Again { body, replayed, requested_by, sleep, in_doubt, budget } = again;
        let at_gate = matches!(self.gate, Gate::Queued(_));
        replayed.tell(requested_by.as_ref(), budget, at_gate, course.progress.sent);
        course.next = Some(body);
        let kept = course.previous.as_ref().is_some_and(|earlier| match (&previous, replayed.failure) {
            (Previous::Failed(error), Some(Failure::Ambiguous)) => {
                error.is::<AttemptTimeout>() && earlier.outcome.is_answer()
            }
            (Previous::Failed(_), _) => course.progress.in_doubt,
            (Previous::Answered(_), _) => false,
        });
        course.progress.in_doubt |= in_doubt;
        if !kept {
            course.previous = Some(Earlier { outcome: previous, at: course.progress.history.len() });
        }
        course.unready = None;
        course.sleep = (!sleep.is_zero()).then(|| Box::pin(tokio::time::sleep(sleep)));
        if !at_gate {
            self.gate = Gate::Unasked;
        }
        course.progress.note(replayed, requested_by.is_some_and(|header| header == grpc::PUSHBACK));
    }

    /// Waits, and drains the answer before meanwhile.
    pub(super) fn poll_wait(&mut self, facts: &Facts, cx: &mut Context<'_>) -> Poll<()> {
        let drained = self.draining().map_or(Poll::Ready(()), |draining| draining.poll_drained(cx));
        ready!(self.poll_waited(facts, cx));
        match self.draining() {
            Some(draining) if drained.is_pending() => {
                draining.hurry();
                draining.poll_drained(cx)
            }
            Some(_) | None => Poll::Ready(()),
        }
    }

    fn draining(&mut self) -> Option<&mut Draining<S::ResponseBody>> {
        match &mut self.course.as_mut()?.previous.as_mut()?.outcome {
            Previous::Answered(draining) => Some(draining),
            Previous::Failed(_) => None,
        }
    }

    fn poll_waited(&mut self, facts: &Facts, cx: &mut Context<'_>) -> Poll<()> {
        let course = Course::of(&mut self.course);
        if let Some(sleep) = &mut course.sleep {
            ready!(sleep.as_mut().poll(cx));
            course.sleep = None;
        }
        if matches!(self.gate, Gate::Unasked) {
            self.ask_gate(facts, self.retries(), Duration::ZERO);
        }
        let course = Course::of(&mut self.course);
        if let Gate::Queued(ticket) = &mut self.gate {
            let pass = ready!(ticket.poll(cx));
            let waited = clock::now().saturating_duration_since(ticket.since());
            self.gate = Gate::Through(Some(Box::new(pass)));
            course.progress.waited = course.progress.waited.saturating_add(waited);
            course.progress.held = course.progress.held.saturating_add(waited);
            if let Some(last) = course.progress.history.last_mut() {
                last.delay = last.delay.saturating_add(waited);
            }
        }
        Poll::Ready(())
    }

    /// Opens the body of the next attempt where it comes from a factory, within the time that is left. After the wait, so
    /// that no file stays open for it; before the service is ready, so that no permit of it is held meanwhile.
    pub(super) fn poll_reopen(&mut self, facts: &Facts, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let course = Course::of(&mut self.course);
        loop {
            match course.next.take() {
                next @ (None | Some(Next::Body(_))) => {
                    course.next = next;
                    return Poll::Ready(Ok(()));
                }
                Some(Next::ToOpen { factory, tether, length }) => {
                    let left = course.time_left(facts);
                    course.sleep = Some(Box::pin(tokio::time::sleep(left)));
                    course.next =
                        Some(Next::Opening { opening: factory.open(), tether, length, since: clock::now() });
                }
                Some(Next::Opening { mut opening, tether, length, since }) => match opening.as_mut().poll(cx)
                {
                    Poll::Ready(opened) => {
                        course.sleep = None;
                        // It was a wait like any other.
                        course.progress.waited = course.progress.waited.saturating_add(clock::now() - since);
                        course.next =
                            Some(Next::Body(reopened(opened?, tether, &self.head.head().headers, length)?));
                    }
                    Poll::Pending => {
                        course.next = Some(Next::Opening { opening, tether, length, since });
                        if let Some(sleep) = &mut course.sleep {
                            ready!(sleep.as_mut().poll(cx));
                        }
                        (course.next, course.sleep) = (None, None);
                        return Poll::Ready(Err("the request body was not opened again in time".into()));
                    }
                },
            }
        }
    }

    /// Makes the inner service ready, within the time that is left.
    pub(super) fn poll_ready(&mut self, facts: &Facts, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>
    where
        S::Error: Into<BoxError>,
    {
        let course = Course::of(&mut self.course);
        if let Poll::Ready(ready) = self.service.poll_ready(cx) {
            if let Some(since) = course.unready {
                // It was a wait like any other.
                course.progress.waited = course.progress.waited.saturating_add(clock::now() - since);
            }
            return Poll::Ready(ready.map_err(Into::into));
        }
        let never_sent = course.progress.sent == 0;
        if never_sent && facts.deadline.is_none() {
            // There is no answer to go back to, so it waits as long as its caller would have had to.
            return Poll::Pending;
        }
        if course.unready.is_none() {
            let since = clock::now();
            course.unready = Some(since);
            course.sleep = Some(Box::pin(tokio::time::sleep_until(since + course.time_left(facts))));
        }
        if let Some(sleep) = &mut course.sleep {
            ready!(sleep.as_mut().poll(cx));
        }
        Poll::Ready(Err(match never_sent {
            true => DeadlineExceeded::new().into(),
            false => "the inner service was not ready in time for the replay".into(),
        }))
    }

    /// Sends the attempt that was prepared. The service is ready, and the body is open.
    pub(super) fn send(&mut self, facts: &Facts) -> S::Future {
        let course = Course::of(&mut self.course);
        let Some(Next::Body(body)) = course.next.take() else {
            panic!("a replay is prepared, and its body opened, before it is sent");
        };
        let Progress { sent, retries, auth_replays, .. } = course.progress;
        if !facts.policy.rules().may_replay(facts.options.as_ref(), retries, auth_replays) {
            self.original = None;
        }
        let mut head = self.head.head();
        if sent > 0 {
            head.extensions.insert(Attempt::new(sent));
        }
        course.progress.sent += 1;
        course.sleep = None;
        self.service.call(Request::from_parts(head, body))
    }
}

// --- Course ---

impl<B, RB: Body> Course<B, RB> {
    fn of(course: &mut Option<Box<Self>>) -> &mut Self {
        course.get_or_insert_with(|| {
            let progress = Progress::first();
            Box::new(Self { next: None, previous: None, sleep: None, unready: None, progress })
        })
    }

    /// For how long something may be waited for that the next attempt needs. Where the waits were all that is allowed, what
    /// is busy for a moment is not given up yet.
    fn time_left(&self, facts: &Facts) -> Duration {
        let left = timeouts::left(facts.deadline).unwrap_or_else(|| {
            let left = facts.policy.rules().total_wait.saturating_sub(self.progress.waited);
            left.max(SHORTEST_PATIENCE)
        });
        left.min(clock::FARTHEST)
    }
}

// --- Previous ---

impl<B: Body> Previous<B> {
    fn is_answer(&self) -> bool {
        match self {
            Self::Answered(_) => true,
            Self::Failed(_) => false,
        }
    }
}

// --- Progress ---

impl Progress {
    /// The first attempt has been sent.
    pub(super) fn first() -> Self {
        Self {
            sent: 1,
            retries: 0,
            backoffs: 0,
            auth_replays: 0,
            waited: Duration::ZERO,
            in_doubt: false,
            held: Duration::ZERO,
            history: Vec::new(),
        }
    }

    pub(super) fn note(&mut self, replayed: Replayed, pushed_back: bool) {
        match replayed.reason {
            ReplayReason::TokenRejected => self.auth_replays += 1,
            ReplayReason::Throttled
            | ReplayReason::Unavailable
            | ReplayReason::Unsent
            | ReplayReason::Ambiguous => {
                self.retries += 1;
                self.backoffs = if pushed_back { 0 } else { self.backoffs + 1 };
            }
        }
        self.waited = self.waited.saturating_add(replayed.delay);
        self.history.push(replayed);
    }

    /// Makes a report of it, to be filled in where there is more to say.
    pub(super) fn end(self, stop_reason: StopReason) -> report::Inner {
        report::Inner {
            attempts: self.sent,
            held: self.held,
            history: self.history,
            stop_reason,
            requested_delay: None,
            rejected: None,
            in_doubt: self.in_doubt,
            error: None,
        }
    }

    pub(super) fn finish(&mut self) -> Self {
        mem::replace(self, Self::first())
    }
}
