//! One gate: which requests wait at it, and in which order they go on. Nothing here locks or waits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::pace::{Pace, Refusal};
use super::scope::{Likeness, LimitScope, RequestKind};
use super::surplus::Surplus;
use crate::clock;

/// A request that went through a gate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passage {
    /// The number of its lane. One that was forgotten meanwhile is another one.
    pub(super) lane: u64,
    epoch: u64,
    at: Instant,
    way: PassageWay,
    like: Likeness,
}

/// How a request went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PassageWay {
    /// At once, within the pace.
    AtOnce,
    /// When its turn had come.
    InTurn,
    /// Outside the pace: it could not wait, or waited long enough.
    Beyond,
    /// There is no pace.
    Unpaced,
}

/// The demand of a request on a gate.
#[derive(Clone, Copy, Debug)]
pub(in crate::retry) struct GateAsk<'a> {
    pub(in crate::retry) kind: Option<RequestKind<'a>>,
    /// How often it was retried.
    pub(in crate::retry) retries: u32,
    /// How long it must wait.
    pub(in crate::retry) least: Duration,
    /// It can wait for less than that.
    pub(in crate::retry) longest: Duration,
    /// How long it waits beyond the server's pause if it was not refused.
    pub(in crate::retry) hold: Duration,
    /// It waits longer than that where it would be refused.
    pub(in crate::retry) patient: bool,
}

impl GateAsk<'_> {
    /// That of a request that is sent once.
    pub(in crate::retry) const ONCE: Self = Self {
        kind: None,
        retries: 0,
        least: Duration::ZERO,
        longest: Duration::ZERO,
        hold: Duration::ZERO,
        patient: false,
    };
}

/// How the retry of a request that was refused stands with the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::retry) enum HeldRetry {
    /// It is a retry like any other.
    No,
    /// It asks again when its own wait is over. The pace keeps it from doing harm.
    Later,
    /// It waits with all others.
    Now,
}

/// The gate of one place.
///
/// 1. A waiter is in `queue` until its turn comes, then in `called` until it notices.
/// 2. A request that finds that turns have come lets all of them out, also those of others. So none that is not polled keeps
///    others waiting.
/// 3. `ends` has an entry for each of `queue`.
pub(super) struct Lane {
    number: u64,
    /// The number of the last fall of the pace.
    epoch: u64,
    pub(super) pace: Pace,
    surplus: Surplus,
    pub(super) scope: Option<LimitScope>,
    /// The last pause that the server asked for.
    pause: Duration,
    pub(super) queue: BTreeMap<Rank, Waiter>,
    ends: BTreeSet<(Instant, Rank)>,
    /// Those that may go: as one of those that were let out since the fall of that number, or without a turn.
    called: HashMap<u64, Option<u64>>,
    tickets: u64,
    /// How many tickets there are. While there is one nothing forgets the lane.
    pub(super) held: usize,
    /// When a request last had to wait, or was refused.
    pub(super) needed: Instant,
    /// From when on a request may show whether the slowest pace is of use.
    witness_from: Instant,
}

/// How often a request that waited long enough goes beyond the slowest pace although it is taken to be in vain. Where refusals do
/// not depend on the pace, nothing else may come to show it: with one of four refused, 20 tasks take up to 54.8 times as long as
/// without the gate, otherwise 6.5 times. With 8 s it is 13.3 times; with 2 s, ten processes of five tasks lose 2 of 200.
const WITNESS: Duration = Duration::from_secs(4);

/// After how long at least a request that waited long enough, and would be refused, looks again. With `max_hold` at zero, or all of
/// it used up, it would look all the time.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Since when it may go, and the number of its ticket. A request that was refused may go after its own wait, so that it is
/// another's turn to try.
pub(super) type Rank = (Instant, u64);

pub(super) struct Waiter {
    waker: Option<Waker>,
    like: Likeness,
    /// It was not refused.
    fresh: bool,
    patient: bool,
    /// As how many it counts.
    turns: f64,
    /// When it has waited long enough, unless it is known that it would be in vain to go.
    patience: Instant,
    hold: Duration,
    give_up: Instant,
}

/// As how many a request counts: one that was refused again gets as much more room before it. Where all count as one, ten
/// processes on one limit lose up to 3 of 200 requests, otherwise 1 at most. With one, three and six a limit without burst
/// takes 1.56 of the ideal time, otherwise 1.46.
fn turns(retries: u32) -> f64 {
    f64::from(retries.clamp(1, 100))
}

// --- Lane ---

impl Lane {
    /// Starts closed, with a first refusal.
    pub(super) fn new(number: u64, now: Instant, pause: Duration, scope: Option<LimitScope>) -> Self {
        Self {
            number,
            epoch: 0,
            pace: Pace::new(now, clock::after(now, pause)),
            surplus: Surplus::new(),
            scope,
            pause,
            queue: BTreeMap::new(),
            ends: BTreeSet::new(),
            called: HashMap::new(),
            tickets: 0,
            held: 0,
            needed: now,
            witness_from: now,
        }
    }

    /// Asks for a request to be let through: it goes, or has a place in the queue. None if the limit is not about it.
    pub(super) fn admit(
        &mut self,
        ask: GateAsk<'_>,
        now: Instant,
    ) -> Option<Result<Passage, (Rank, Likeness)>> {
        let like = self.likeness(ask.kind);
        self.covers(like).then(|| match self.way(ask, now) {
            Some(way) => Ok(Passage { lane: self.number, epoch: self.epoch, at: now, way, like }),
            None => Err((self.queue(ask, like, now), like)),
        })
    }

    fn queue(&mut self, ask: GateAsk<'_>, like: Likeness, now: Instant) -> Rank {
        let rank = (clock::after(now, ask.least), self.tickets);
        self.tickets += 1;
        self.held += 1;
        let give_up = clock::after(now, ask.longest);
        // One that was refused has its place among those that may wait, if there are no more of them than that.
        let fresh = ask.retries == 0;
        let patience = match !fresh && self.surplus.may_wait(self.queue.len()) {
            true => give_up,
            false => clock::after(now, self.pause.saturating_add(ask.hold)).min(give_up),
        };
        let turns = turns(ask.retries);
        let GateAsk { hold, patient, .. } = ask;
        let waiter = Waiter { waker: None, like, fresh, patient, turns, patience, hold, give_up };
        self.queue.insert(rank, waiter);
        self.ends.insert((give_up, rank));
        rank
    }

    /// Takes a waiter out that was called, or that does not wait for its turn any more (`hurried`). None if it has to wait.
    pub(super) fn let_through(
        &mut self,
        rank: Rank,
        like: Likeness,
        hurried: &mut bool,
        now: Instant,
    ) -> Option<Passage> {
        let call = self.called.remove(&rank.1);
        *hurried |= call == Some(None);
        let (epoch, way) = match call.flatten() {
            Some(epoch) => (epoch, PassageWay::InTurn),
            None if *hurried && now >= rank.0 => (self.epoch, PassageWay::Beyond),
            None => return None,
        };
        Some(Passage { lane: self.number, epoch, at: now, way, like })
    }

    /// When a waiter is to look again, and the waker that it had. It is woken when it is the next, for then the instant is sure.
    /// That it also looks by itself is for the case that those ahead are not polled.
    pub(super) fn wait(&mut self, rank: Rank, now: Instant, waker: Waker) -> (Instant, Option<Waker>) {
        let until = clock::after(now, self.time_until(rank, now)).max(rank.0);
        match self.queue.get_mut(&rank) {
            Some(waiter) => (until.min(waiter.patience).min(waiter.give_up), waiter.waker.replace(waker)),
            // It was told not to wait for its turn.
            None => (rank.0, Some(waker)),
        }
    }

    /// Notes a request that was not refused. Returns whom to wake.
    pub(super) fn accepted(&mut self, pass: &Passage, now: Instant) -> Vec<Waker> {
        if pass.lane != self.number {
            return Vec::new();
        }
        if let Some(scope) = &mut self.scope {
            if scope.accepted(pass.like) {
                return self.narrow(now);
            }
            if !scope.covers(pass.like) {
                return Vec::new();
            }
        }
        if matches!(pass.way, PassageWay::Beyond | PassageWay::Unpaced) {
            self.surplus.accepted();
        }
        let round_trip = now.saturating_duration_since(pass.at);
        self.pace.accepted(now, round_trip, pass.way != PassageWay::AtOnce);
        let mut wakers = self.turn(now);
        // The pace may have risen, and so the next turn come nearer.
        wakers.extend(self.first_waker());
        wakers
    }

    /// Notes that a request was refused, which wants to be left alone for `pause`. Returns how its retry stands with the gate,
    /// and whom to wake.
    pub(super) fn refused(
        &mut self,
        ask: GateAsk<'_>,
        pass: Option<&Passage>,
        pause: Duration,
        now: Instant,
    ) -> (HeldRetry, Vec<Waker>) {
        let pass = pass.filter(|pass| pass.lane == self.number);
        let held = self.judge(ask, pass, pause, now);
        (held, self.hurry())
    }

    fn likeness(&self, kind: Option<RequestKind<'_>>) -> Likeness {
        match (&self.scope, kind) {
            (Some(scope), Some(kind)) => scope.likeness(kind),
            // It is taken for one of those that the limit is about.
            (None, _) | (_, None) => Likeness::SAME,
        }
    }

    fn covers(&self, like: Likeness) -> bool {
        self.scope.as_ref().is_none_or(|scope| scope.covers(like))
    }

    /// How a request may go through now; none if it has to wait.
    fn way(&mut self, ask: GateAsk<'_>, now: Instant) -> Option<PassageWay> {
        if !self.surplus.is_paced() {
            return Some(PassageWay::Unpaced);
        }
        if ask.least.is_zero() && self.queue.is_empty() && self.pace.take(now, turns(ask.retries)) {
            return Some(PassageWay::AtOnce);
        }
        self.needed = now;
        (!self.has_room(ask, now)).then_some(PassageWay::Beyond)
    }

    /// Whether a request can wait for its turn.
    fn has_room(&self, ask: GateAsk<'_>, now: Instant) -> bool {
        let wait = self.pace.time_for(now, self.queue.len() as f64 + 1.0);
        if wait >= ask.longest {
            return false;
        }
        let closed = self.pace.opens_at().saturating_duration_since(now);
        let fits = match ask.retries {
            1.. => wait.saturating_sub(closed) < ask.hold,
            // What nobody refused stays away as long as the server asks for it.
            0 => !closed.is_zero() || wait < self.pause.saturating_add(ask.hold),
        };
        fits || ask.patient && self.surplus.may_wait(self.queue.len())
    }

    /// Whether a waiter has waited long enough.
    pub(super) fn is_enough(&mut self, rank: Rank, now: Instant) -> bool {
        let others = self.queue.len().saturating_sub(1);
        let sure = self.pace.is_proven() && self.surplus.is_paced();
        let in_vain = sure && self.surplus.may_wait(others);
        let (closed, opens_at) = (self.pace.is_closed(now), self.pace.opens_at());
        let Some(waiter) = self.queue.get_mut(&rank) else { return false };
        if now >= waiter.give_up {
            return true;
        }
        if now < waiter.patience {
            return false;
        }
        // What was refused before is the last to go against the server's word.
        let again = closed && !waiter.fresh;
        waiter.patience = clock::after(if again { opens_at } else { now }, waiter.hold.max(LOOK_AGAIN));
        if again {
            return false;
        }
        if !(in_vain && waiter.patient) {
            return true;
        }
        let is_witness = waiter.fresh && self.pace.is_slowest() && now >= self.witness_from;
        if is_witness {
            self.witness_from = clock::after(now, WITNESS);
        }
        is_witness
    }

    fn judge(
        &mut self,
        ask: GateAsk<'_>,
        pass: Option<&Passage>,
        pause: Duration,
        now: Instant,
    ) -> HeldRetry {
        let opens_at = clock::after(now, pause);
        self.needed = now;
        let like = pass.map_or_else(|| self.likeness(ask.kind), |pass| pass.like);
        if self.scope.as_mut().is_some_and(|scope| scope.refused(like)) {
            self.begin(now, opens_at, pause);
            return HeldRetry::Now;
        }
        let current = pass.is_some_and(|pass| pass.epoch == self.epoch);
        match pass.map(|pass| pass.way) {
            Some(PassageWay::AtOnce | PassageWay::InTurn) if current => {
                match self.pace.refused(now, opens_at) {
                    Refusal::Alone => {}
                    Refusal::Slower => self.epoch += 1,
                    Refusal::Closed => {
                        self.epoch += 1;
                        self.pause = pause;
                    }
                }
            }
            // It was on its way when the pace fell, and says nothing about the pace since.
            Some(PassageWay::AtOnce | PassageWay::InTurn) => {}
            Some(PassageWay::Beyond) => drop(self.surplus.refused(false)),
            Some(PassageWay::Unpaced) | None => {
                if self.surplus.refused(true) {
                    self.begin(now, opens_at, pause);
                }
            }
        }
        if !self.surplus.is_paced() {
            return HeldRetry::No;
        }
        let closed = self.pace.is_closed(now);
        // What went beyond the pace was asked to stay away all the same.
        if closed && pass.is_none_or(|pass| pass.way != PassageWay::Beyond) {
            self.pace.extend(opens_at);
        }
        let had_turn = pass.is_some_and(|pass| matches!(pass.way, PassageWay::AtOnce | PassageWay::InTurn));
        match had_turn || self.has_room(ask, now) {
            true if closed => HeldRetry::Now,
            true => HeldRetry::Later,
            false => HeldRetry::No,
        }
    }

    /// Closes, and begins anew.
    fn begin(&mut self, now: Instant, opens_at: Instant, pause: Duration) {
        self.epoch += 1;
        self.pace = Pace::new(now, opens_at);
        self.pause = pause;
    }

    /// The limit is about less than it was: what it is not about goes, and the rest begins anew. Returns whom to wake.
    fn narrow(&mut self, now: Instant) -> Vec<Waker> {
        self.begin(now, self.pace.opens_at(), self.pause);
        self.surplus = Surplus::new();
        let outside: Vec<Rank> = self
            .queue
            .iter()
            .filter(|(_, waiter)| !self.covers(waiter.like))
            .map(|(rank, _)| *rank)
            .collect();
        let mut wakers = Vec::new();
        for rank in outside {
            wakers.extend(self.call(rank, None));
        }
        wakers.extend(self.first_waker());
        wakers
    }

    /// Lets out all whose turn has come. Returns whom to wake.
    pub(super) fn turn(&mut self, now: Instant) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while let Some((rank, turns)) = self.first().filter(|((at, _), _)| *at <= now) {
            if !self.pace.take(now, turns) {
                break;
            }
            self.needed = now;
            wakers.extend(self.call(rank, Some(self.epoch)));
        }
        if !wakers.is_empty() {
            wakers.extend(self.first_waker());
        }
        wakers
    }

    /// After a closing: lets those go that cannot wait until it is over, and wakes the first to see when it is due.
    fn hurry(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while let Some((end, rank)) = self.ends.first().copied() {
            if end > self.pace.opens_at() {
                break;
            }
            wakers.extend(self.call(rank, None));
        }
        wakers.extend(self.first_waker());
        wakers
    }

    fn call(&mut self, rank: Rank, call: Option<u64>) -> Option<Waker> {
        let waiter = self.remove(rank)?;
        self.called.insert(rank.1, call);
        waiter.waker
    }

    /// The one that is to go next, and as how many it counts.
    fn first(&self) -> Option<(Rank, f64)> {
        self.queue.first_key_value().map(|(rank, first)| (*rank, first.turns))
    }

    /// How long it is until a waiter is let out, or all of them are.
    fn time_until(&self, rank: Rank, now: Instant) -> Duration {
        let first = self.first().filter(|(first, _)| *first == rank);
        self.pace.time_for(now, first.map_or(self.queue.len() as f64, |(_, turns)| turns))
    }

    fn remove(&mut self, rank: Rank) -> Option<Waiter> {
        let waiter = self.queue.remove(&rank)?;
        self.ends.remove(&(waiter.give_up, rank));
        Some(waiter)
    }

    /// Takes back the ticket of a waiter.
    pub(super) fn give_back(&mut self, rank: Rank) -> (Option<Waiter>, Option<Waker>) {
        self.held -= 1;
        self.called.remove(&rank.1);
        self.leave(rank)
    }

    /// Takes a waiter out of the queue. If it was the first, the one that is now is to be woken.
    pub(super) fn leave(&mut self, rank: Rank) -> (Option<Waiter>, Option<Waker>) {
        let was_first = self.queue.first_key_value().is_some_and(|(first, _)| *first == rank);
        let left = self.remove(rank);
        (left, if was_first { self.first_waker() } else { None })
    }

    fn first_waker(&self) -> Option<Waker> {
        self.queue.first_key_value().and_then(|(_, waiter)| waiter.waker.clone())
    }
}
