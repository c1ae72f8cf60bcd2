//! What all handles of one cache share: the board, the source, and the acts that change either.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::instrument::WithSubscriber as _;
use tracing::{Instrument as _, Span};

use super::keeper::{Keeper, Watched};
use super::own_runtime::OwnRuntime;
use super::schedule::Windows;
use super::single_flight::{Choice, Entry, Leader, Rejected, SingleFlight, View, Waiter};
use super::snapshot::Snapshot;
use super::state::{Brake, Ledger, Verdict};
use crate::backoff::Chance;
use crate::clock::{Moment, WallClock};
use crate::error::TokenError;
use crate::extensions::RejectionVerdict;
use crate::revoke::Revoker;
use crate::source::{DynTokenSource, FetchReason, TokenRequest};
use crate::telemetry;
use crate::token::AccessToken;

pub(crate) type Published = Arc<Snapshot>;
pub(crate) type FetchWaiter = Waiter<Published, TokenError>;
type Answer = Result<Published, TokenError>;
type FetchLeader = Leader<Published, TokenError, Memory>;

/// What a cache is made of besides its source.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) windows: Windows,
    pub(crate) fetch_timeout: Duration,
    pub(crate) wall: WallClock,
    pub(crate) chance: Chance,
    pub(crate) revoker: Option<Revoker>,
    pub(crate) revokes_at_shutdown: bool,
}

/// What all handles share.
pub(crate) struct Shared {
    source: Box<dyn DynTokenSource>,
    settings: Settings,
    board: Arc<SingleFlight<Published, TokenError, Memory>>,
    /// The current snapshot again, for readers that take no lock. Whoever reads a stale one finds it retired.
    current: ArcSwapOption<Snapshot>,
    keeper: Keeper,
    changes: watch::Sender<()>,
    /// Where threads without a runtime have their tokens fetched, once one had to wait.
    own_runtime: Mutex<Option<Arc<OwnRuntime>>>,
}

/// What is remembered under the board's lock.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) ledger: Ledger,
    /// The instant at which the keeper has to send requests to the board.
    armed: Option<Moment>,
    previous: Option<AccessToken>,
    rejected: Option<AccessToken>,
    /// The flight in the air: when it must be down, and its span.
    deadline: Option<Moment>,
    span: Option<Arc<Span>>,
    pub(crate) fetched: u64,
    /// No flight starts any more; and then none that lands late brings a token back.
    closed: bool,
    cleared: bool,
}

/// What a decision under the board's lock leaves to be done after it. Nothing foreign is called under the lock: a
/// subscriber may ask the cache itself, since what exports the traces may send them with a token of ours.
#[derive(Default)]
struct Todo {
    request: Option<TokenRequest>,
    joined: Option<Arc<Span>>,
    deadline: Option<Moment>,
}

/// What a caller gets from [`Shared::ask`].
pub(crate) enum Ask {
    /// An answer at once.
    Now(Answer),
    /// A seat in a flight, and when the flight must be down.
    Wait(FetchWaiter, Moment),
}

/// What is known at a summary, for the status.
pub(crate) struct Summary {
    pub(crate) token: Option<(AccessToken, bool)>,
    pub(crate) in_flight: bool,
    pub(crate) failure: Option<(TokenError, u32)>,
    pub(crate) braked: bool,
    pub(crate) fetched: u64,
    pub(crate) closed: bool,
}

impl Shared {
    pub(crate) fn new(source: Box<dyn DynTokenSource>, settings: Settings) -> Self {
        Self {
            source,
            settings,
            board: Arc::new(SingleFlight::new(Memory::default())),
            current: ArcSwapOption::empty(),
            keeper: Keeper::default(),
            changes: watch::Sender::new(()),
            own_runtime: Mutex::default(),
        }
    }

    /// Returns the current snapshot if it can be used without asking.
    pub(crate) fn fresh(&self) -> Option<Published> {
        // A guard would do for the look, but whoever asks wants to keep what it finds.
        self.current.load_full().filter(|snapshot| snapshot.is_fresh())
    }

    /// Decides what a caller gets who needs a token that is good for `min_validity` more, and starts a flight where one
    /// is due.
    pub(crate) fn ask(self: &Arc<Self>, min_validity: Option<Duration>) -> Ask {
        let now = self.moment();
        let runtime = Handle::try_current().ok();
        let mut todo = Todo::default();
        let mut late = false;
        let mut rearmed = false;
        let entry = self.board.board(|View { current, in_flight, memory }| {
            let armed = memory.armed;
            late = memory.keeper_is_late(now);
            if late {
                memory.disarm(current);
            }
            let view = View { current, in_flight, memory: &mut *memory };
            let choice = self.choose(view, min_validity, now, runtime.is_some(), &mut todo);
            rearmed = memory.armed != armed;
            choice
        });
        if let Some(runtime) = &runtime {
            self.keeper.ensure(self, runtime, late);
        }
        if rearmed {
            self.keeper.nudge();
        }
        self.depart(entry, todo, runtime.as_ref(), now)
    }

    fn choose(
        &self,
        view: View<'_, Published, Memory>,
        min_validity: Option<Duration>,
        now: Moment,
        in_runtime: bool,
        todo: &mut Todo,
    ) -> Choice<Answer> {
        let View { current, in_flight, memory } = view;
        let plan = current.map(|snapshot| snapshot.plan());
        let verdict = memory.ledger.decide(plan, in_flight, min_validity, now);
        match (verdict, current) {
            (Verdict::UseAndFetch(reason), Some(current)) if in_runtime && !memory.closed => {
                memory.arm(current, true, now);
                memory.launch_request(reason, self.deadline(now), todo);
                Choice::Launch(Ok(Arc::clone(current)))
            }
            (Verdict::Use, Some(current)) => {
                // Outside a runtime no keeper can be started, and none may be alive to see the end in time.
                if in_runtime {
                    memory.arm(current, in_flight, now);
                }
                Choice::Answer(Ok(Arc::clone(current)))
            }
            (Verdict::UseAndFetch(_), Some(current)) => Choice::Answer(Ok(Arc::clone(current))),
            (Verdict::Fail(error), _) => Choice::Answer(Err(error)),
            (_, _) if memory.closed => Choice::Answer(Err(closed())),
            (_, _) if !in_runtime => Choice::Answer(Err(no_runtime())),
            (Verdict::Join, _) => {
                memory.join(todo);
                Choice::Wait
            }
            (Verdict::Fetch(reason), _) => {
                memory.launch_request(reason, self.deadline(now), todo);
                Choice::Wait
            }
            // Both need a current token to be decided; without one there is nothing to use.
            (Verdict::Use | Verdict::UseAndFetch(_), None) => {
                memory.launch_request(FetchReason::Initial, self.deadline(now), todo);
                Choice::Wait
            }
        }
    }

    /// Starts a flight that nobody's need asked for, or joins the one in the air.
    pub(crate) fn force(self: &Arc<Self>) -> Ask {
        let Ok(runtime) = Handle::try_current() else {
            return Ask::Now(Err(no_runtime()));
        };
        let now = self.moment();
        let mut todo = Todo::default();
        let entry = self.board.board(|View { in_flight, memory, .. }| {
            if memory.closed {
                return Choice::Answer(Err(closed()));
            }
            if in_flight {
                memory.join(&mut todo);
            } else {
                memory.ledger.forgive(now.mono);
                memory.launch_request(FetchReason::Forced, self.deadline(now), &mut todo);
            }
            Choice::Wait
        });
        self.keeper.ensure(self, &runtime, false);
        self.depart(entry, todo, Some(&runtime), now)
    }

    fn depart(
        self: &Arc<Self>,
        entry: Entry<Published, TokenError, Memory, Answer>,
        todo: Todo,
        runtime: Option<&Handle>,
        now: Moment,
    ) -> Ask {
        if let (Some(leader), Some(request), Some(runtime)) = (entry.leader, todo.request, runtime) {
            self.launch(leader, request, runtime);
        }
        if let Some(span) = todo.joined {
            span.follows_from(Span::current());
        }
        match (entry.answer, entry.waiter) {
            (Some(answer), _) => Ask::Now(answer),
            (None, Some(seat)) => Ask::Wait(seat, todo.deadline.unwrap_or_else(|| self.deadline(now))),
            (None, None) => {
                Ask::Now(Err(TokenError::transient("the token request was abandoned; ask again")))
            }
        }
    }

    fn launch(self: &Arc<Self>, leader: FetchLeader, request: TokenRequest, runtime: &Handle) {
        let span = tracing::info_span!(parent: None, telemetry::FETCH_SPAN, reason = ?request.reason());
        span.follows_from(Span::current());
        let shown = Arc::new(span.clone());
        let lost = self.board.look(|view| view.memory.span.replace(shown));
        drop(lost);
        tracing::debug!(parent: &span, reason = ?request.reason(), "fetching a token");
        let flight = fly(Arc::clone(self), leader, request);
        // A task of its own, so that a caller that goes away takes nothing with it. It inherits the subscriber, which a
        // spawned task does not by itself.
        runtime.spawn(flight.instrument(span).with_current_subscriber());
        self.changed();
    }

    /// Ends a flight: publishes its token or notes its error.
    fn land(&self, leader: FetchLeader, result: Result<AccessToken, TokenError>) {
        let now = self.moment();
        let result = result.map(|token| {
            let obtained = token.obtained().unwrap_or(now);
            let plan = self.settings.windows.plan(obtained, now, token.expiry());
            Arc::new(Snapshot::new(token, plan, self.settings.wall.clone()))
        });
        let mut first_or_last = false;
        let mut span = None;
        leader.land(result.clone(), |result, View { current, in_flight, memory }| {
            memory.deadline = None;
            span = memory.span.take();
            if memory.cleared {
                return false;
            }
            match result {
                Ok(snapshot) => {
                    if current.is_some_and(|old| old.was_accepted()) {
                        memory.ledger.accepted();
                    }
                    first_or_last = memory.ledger.succeeded();
                    memory.fetched += 1;
                    memory.previous = Some(snapshot.token().clone());
                    memory.rejected = None;
                    memory.arm(snapshot, in_flight, now);
                    self.current.store(Some(Arc::clone(snapshot)));
                }
                Err(error) => {
                    first_or_last = memory.ledger.failed(error.clone(), now.mono, &self.settings.chance);
                    if let Some(current) = current {
                        memory.arm(current, in_flight, now);
                    }
                }
            }
            true
        });
        drop(span);
        match (&result, first_or_last) {
            (Ok(_), true) => tracing::info!("got a token again after failed token requests"),
            (Ok(snapshot), false) => tracing::debug!(token = ?snapshot.token(), "got a token"),
            // Once per row of failures: an operator should act on the first, and not read the same line all night.
            (Err(error), true) => tracing::warn!(%error, class = ?error.class(), "the token request failed"),
            (Err(error), false) => {
                tracing::debug!(%error, class = ?error.class(), "the token request failed again")
            }
        }
        self.keeper.nudge();
        self.changed();
    }

    /// Drops this token if it is the current one and the brakes allow it.
    pub(crate) fn reject(&self, token: &AccessToken) -> RejectionVerdict {
        let now = self.moment();
        let mut brake = Brake::Open;
        let rejected = self.board.reject(token.id(), |snapshot, memory| {
            brake = memory.ledger.brake(snapshot.was_accepted(), now.mono);
            if brake != Brake::Open {
                return false;
            }
            memory.ledger.lost(FetchReason::Rejected);
            memory.rejected = Some(token.clone());
            memory.armed = None;
            true
        });
        match rejected {
            Rejected::Superseded => {
                tracing::debug!("a rejected token was superseded already");
                RejectionVerdict::Superseded
            }
            Rejected::Kept => {
                if brake == Brake::JustClosed {
                    tracing::warn!(
                        "too many tokens were rejected: they are kept for now and the refusals handed out; check that \
                         the API trusts the issuer of the tokens, and that all of its nodes do"
                    );
                }
                self.changed();
                RejectionVerdict::Braked
            }
            Rejected::Dropped => {
                tracing::debug!("a rejected token was dropped");
                self.forget_current();
                RejectionVerdict::Invalidated
            }
        }
    }

    /// Drops the current token whatever it is; the next use fetches.
    pub(crate) fn expire(&self) {
        self.board.clear(|View { current, memory, .. }| {
            if current.is_some_and(|current| current.was_accepted()) {
                memory.ledger.accepted();
            }
            memory.ledger.lost(FetchReason::Forced);
            memory.armed = None;
            true
        });
        self.forget_current();
    }

    /// Returns whether nothing would be lost with the source.
    pub(crate) fn is_disposable(&self) -> bool {
        self.source.may_be_dropped()
    }

    /// Returns the token to revoke: the current one, also if it has ended; else the one before, for its refresh token.
    pub(crate) fn revocable(&self) -> Option<AccessToken> {
        self.board.look(|View { current, memory, .. }| {
            current.map(|snapshot| snapshot.token().clone()).or_else(|| memory.previous.clone())
        })
    }

    /// Returns what revokes tokens.
    pub(crate) fn revoker(&self) -> Result<&Revoker, TokenError> {
        self.settings.revoker.as_ref().ok_or_else(|| {
            TokenError::config(
                "the token cache does not know how to revoke: give TokenCacheBuilder::revoke_with a Revocation or a \
                 closure",
            )
        })
    }

    pub(crate) fn revokes_at_shutdown(&self) -> bool {
        self.settings.revokes_at_shutdown
    }

    /// Drops a token that was revoked: a compare-and-set on its identity. The next use fetches.
    pub(crate) fn forget(&self, token: &AccessToken) {
        self.board.clear(|View { current, memory, .. }| {
            if memory.previous.as_ref().is_some_and(|previous| previous.id() == token.id()) {
                memory.previous = None;
            }
            let Some(current) = current.filter(|current| current.token().id() == token.id()) else {
                return false;
            };
            if current.was_accepted() {
                memory.ledger.accepted();
            }
            memory.ledger.lost(FetchReason::Forced);
            memory.armed = None;
            true
        });
        self.forget_current();
    }

    /// Lets no further flight start. Returns a seat in the one that is in the air.
    pub(crate) fn close(&self) -> Option<FetchWaiter> {
        self.keeper.stop();
        let entry = self.board.board(|View { in_flight, memory, .. }| {
            memory.closed = true;
            if in_flight { Choice::Wait } else { Choice::Answer(()) }
        });
        entry.waiter
    }

    /// Takes the token away from a closed cache, and whatever a flight that is late brings.
    pub(crate) fn clear(&self) {
        self.board.clear(|View { memory, .. }| {
            memory.cleared = true;
            memory.previous = None;
            memory.rejected = None;
            memory.armed = None;
            true
        });
        self.forget_current();
    }

    /// Frees the waiters of a flight that did not come down in time.
    pub(crate) fn give_up(self: &Arc<Self>, seat: &FetchWaiter) {
        if !self.board.give_up(seat) {
            return;
        }
        tracing::debug!("a token request was not driven to its end; giving it up");
        // The keeper may sit in the same runtime that nobody drives.
        if let Ok(runtime) = Handle::try_current() {
            self.keeper.ensure(self, &runtime, true);
        }
    }

    /// Returns the current token if it has not ended, whatever windows it is in.
    pub(crate) fn valid(&self) -> Option<Published> {
        let now = self.moment();
        self.board.look(|view| view.current.cloned()).filter(|snapshot| !snapshot.plan().has_ended(now))
    }

    pub(crate) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    pub(crate) fn summary(&self) -> Summary {
        let now = self.moment();
        self.board.look(|View { current, in_flight, memory }| Summary {
            token: current.map(|snapshot| {
                let usable = !snapshot.plan().has_ended(now);
                (snapshot.token().clone(), usable)
            }),
            in_flight,
            failure: memory.ledger.failure().map(|(error, streak, _)| (error.clone(), streak)),
            braked: memory.ledger.is_braked(now.mono),
            fetched: memory.fetched,
            closed: memory.closed,
        })
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub(crate) fn chance(&self) -> &Chance {
        &self.settings.chance
    }

    pub(crate) fn moment(&self) -> Moment {
        self.settings.wall.moment()
    }

    /// Returns the runtime for threads that have none, and holds it from now on.
    pub(crate) fn own_runtime(&self) -> Result<Arc<OwnRuntime>, TokenError> {
        let runtime = OwnRuntime::shared()?;
        let mut held = self.own_runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let old = held.replace(Arc::clone(&runtime));
        drop(held);
        // Not under the lock: with the last of them what is in it ends, and that may be anything.
        drop(old);
        Ok(runtime)
    }

    fn deadline(&self, now: Moment) -> Moment {
        now.saturating_add(self.settings.fetch_timeout)
    }

    fn forget_current(&self) {
        // Another flight may have landed since: only a retired snapshot is forgotten.
        let current = self.current.load_full();
        if current.as_ref().is_some_and(|snapshot| snapshot.is_retired()) {
            self.current.compare_and_swap(&current, None);
        }
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_replace(());
    }
}

impl Watched for Shared {
    fn tick(self: &Arc<Self>, warm: bool) -> Option<Moment> {
        let now = self.moment();
        let due = self.board.look(|View { current, in_flight, memory }| {
            if memory.armed.is_some_and(|armed| now.reached(armed)) {
                memory.disarm(current);
            }
            let plan = current.map(|snapshot| snapshot.plan());
            matches!(
                memory.ledger.decide(plan, in_flight, None, now),
                Verdict::Fetch(_) | Verdict::UseAndFetch(_)
            )
        });
        if warm && due {
            // Nobody waits: the answer, or the seat, is of no use here.
            drop(self.ask(None));
        }
        self.board.look(|View { in_flight, memory, .. }| {
            let retry = memory
                .ledger
                .failure()
                .map(|(_, _, until)| until.saturating_duration_since(now.mono))
                .filter(|wait| !wait.is_zero())
                .map(|wait| now.saturating_add(wait));
            memory.armed.or(retry.filter(|_| warm && !in_flight && !memory.closed))
        })
    }

    fn disarm(&self) {
        self.board.look(|View { current, memory, .. }| memory.disarm(current));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.keeper.stop();
    }
}

impl Memory {
    /// Makes the token fresh until somebody has to think about it again.
    fn arm(&mut self, snapshot: &Published, in_flight: bool, now: Moment) {
        let next = self.ledger.next_thought(snapshot.plan(), in_flight, now);
        self.armed = next;
        snapshot.arm(next);
    }

    /// Sends the next request to the board.
    fn disarm(&mut self, current: Option<&Published>) {
        self.armed = None;
        if let Some(current) = current {
            current.disarm();
        }
    }

    /// Notes a flight that starts now, and what to ask the source for.
    fn launch_request(&mut self, reason: FetchReason, deadline: Moment, todo: &mut Todo) {
        self.deadline = Some(deadline);
        todo.deadline = Some(deadline);
        let (previous, rejected) = (self.previous.clone(), self.rejected.clone());
        todo.request = Some(
            TokenRequest::new(reason)
                .previous_token(previous)
                .rejected_token(rejected)
                .with_deadline(deadline.mono.into_std()),
        );
    }

    /// Notes a caller who joins the flight in the air.
    fn join(&self, todo: &mut Todo) {
        todo.deadline = self.deadline;
        todo.joined.clone_from(&self.span);
    }

    /// The keeper should have been here long ago: it sits on a runtime that nobody drives.
    fn keeper_is_late(&self, now: Moment) -> bool {
        const PATIENCE: Duration = Duration::from_millis(100);
        self.armed.is_some_and(|armed| now.mono.saturating_duration_since(armed.mono) > PATIENCE)
    }
}

/// The task of a flight: asks the source until there is a token that no rejection overtook.
async fn fly(shared: Arc<Shared>, leader: FetchLeader, mut request: TokenRequest) {
    let timeout = shared.settings.fetch_timeout;
    let fetch = async {
        loop {
            let started = shared.moment();
            let token = shared.source.fetch(request.clone()).await?;
            if leader.must_go_again() {
                tracing::debug!("a token was rejected while this one was fetched; fetching again");
                let deadline = request.deadline();
                request = TokenRequest::new(FetchReason::Rejected)
                    .previous_token(request.previous().cloned())
                    .rejected_token(shared.board.look(|view| view.memory.rejected.clone()));
                if let Some(deadline) = deadline {
                    request = request.with_deadline(deadline);
                }
                continue;
            }
            return Ok(token.sealed(started, shared.moment()));
        }
    };
    // Lost in a panic, the flight would be followed by another at once, which would fare no better.
    let result = match with_timer(|| tokio::time::timeout(timeout, caught("the token source", fetch))) {
        Err(no_timer) => Err(no_timer),
        Ok(fetch) => fetch.await.unwrap_or_else(|_elapsed| {
            Err(TokenError::transient(format!(
                "the token source did not answer within {timeout:?}; check that the authorization server can be \
                 reached"
            )))
        }),
    };
    shared.land(leader, result);
}

/// Turns a panic of the source, or of who else, into an error. Its message is left out: nobody knows what stands in it.
pub(crate) async fn caught<T>(
    who: &str,
    future: impl Future<Output = Result<T, TokenError>>,
) -> Result<T, TokenError> {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| {
        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))).unwrap_or_else(|_panic| {
            std::task::Poll::Ready(Err(TokenError::transient(format!(
                "{who} panicked; see its message on stderr"
            ))))
        })
    })
    .await
}

/// Makes something that needs a timer.
///
/// tokio panics where a runtime has none; a library must not, and there is no other way to ask.
pub(crate) fn with_timer<T>(make: impl FnOnce() -> T) -> Result<T, TokenError> {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    catch_unwind(AssertUnwindSafe(make)).map_err(|_panic| {
        TokenError::config("this tokio runtime has no timer; build it with enable_time() or enable_all()")
    })
}

fn no_runtime() -> TokenError {
    TokenError::config(
        "a token is fetched by a tokio task, and this call is outside a tokio runtime; enter one first, or call \
         blocking_get on a thread that has none",
    )
}

fn closed() -> TokenError {
    TokenError::config(
        "the token cache was shut down and fetches no more tokens; let the last request end before the shutdown",
    )
}

/// A weak handle for what must not keep the cache alive.
pub(crate) type WeakShared = Weak<Shared>;
