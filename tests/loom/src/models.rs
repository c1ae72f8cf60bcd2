//! Each model is run for every order in which its threads can meet.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use loom::future::block_on;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;

use crate::single_flight::{FlightValue, Leader, Outcome, SingleFlight, Waiter};

/// A token: an identity and the flag that requests look at.
#[derive(Clone)]
struct Token {
    id: u64,
    retired: Arc<AtomicBool>,
}

impl Token {
    fn new(id: u64) -> Self {
        Self { id, retired: Arc::new(AtomicBool::new(false)) }
    }

    fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }
}

impl FlightValue for Token {
    fn id(&self) -> u64 {
        self.id
    }

    fn doubt(&self) {}

    fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
    }
}

type Error = &'static str;
type Flight = Arc<SingleFlight<Token, Error, ()>>;

/// What a caller gets: the current token, or a wait, and the lead where no fetch was in flight.
struct Entry {
    token: Option<Token>,
    waiter: Option<Waiter<Token, Error>>,
    leader: Option<Leader<Token, Error, ()>>,
}

/// Asks as the cache does.
fn ask(flight: &Flight) -> Entry {
    let mut state = flight.lock();
    let token = state.current().cloned();
    let leader = if token.is_none() { state.lead(flight) } else { None };
    let waiter = if token.is_none() { state.wait() } else { None };
    Entry { token, waiter, leader }
}

/// Starts a fetch although there is a token, as in the advisory window. `None` if one is in flight.
fn renew(flight: &Flight) -> Option<Leader<Token, Error, ()>> {
    flight.lock().lead(flight)
}

fn land(leader: Leader<Token, Error, ()>, result: Result<Token, Error>) {
    leader.finish(result, |result, state| {
        if let Ok(token) = result {
            state.replace(token.clone());
        }
    });
}

/// Rejects as the cache does: drops the token, and tells the fetch in flight. Returns whether it was dropped.
fn reject(flight: &Flight, id: u64) -> bool {
    let mut state = flight.lock();
    let dropped = state.take(id).is_some();
    if dropped {
        state.overtake();
    }
    dropped
}

/// One with this token.
fn with(token: &Token) -> Flight {
    let flight = Arc::new(SingleFlight::new(()));
    land(renew(&flight).expect("the first fetch"), Ok(token.clone()));
    flight
}

fn current(flight: &Flight) -> Option<Token> {
    flight.lock().current().cloned()
}

/// Waits for a token; fetches where it leads, and starts over where a fetch was lost.
fn fetch(flight: &Flight, fetches: &AtomicUsize, token: impl Fn(usize) -> Token) -> Result<Token, Error> {
    loop {
        let entry = ask(flight);
        if let Some(token) = entry.token {
            return Ok(token);
        }
        if let Some(leader) = entry.leader {
            let number = fetches.fetch_add(1, Ordering::SeqCst) + 1;
            land(leader, Ok(token(number)));
        }
        match block_on(entry.waiter.expect("a wait")) {
            Outcome::Finished(result) => return result,
            Outcome::Lost => {}
        }
    }
}

/// How many threads do the same at once: two in the test run, three in the whole proof.
fn crowd() -> usize {
    std::env::var("LOOM_CROWD").map_or(2, |crowd| crowd.parse().expect("a number of threads"))
}

#[test]
fn a_late_rejection_never_drops_a_newer_token() {
    loom::model(|| {
        let (old, new) = (Token::new(1), Token::new(2));
        let flight = with(&old);
        let leader = renew(&flight).expect("the lead");
        let rejecting = {
            let flight = Arc::clone(&flight);
            thread::spawn(move || reject(&flight, 1))
        };
        land(leader, Ok(new.clone()));
        rejecting.join().unwrap();
        assert_eq!(current(&flight).map(|token| token.id), Some(2));
        assert!(!new.is_retired() && old.is_retired());
    });
}

#[test]
fn takers_at_once_make_one_fetch() {
    loom::model(|| {
        let flight: Flight = Arc::new(SingleFlight::new(()));
        let fetches = Arc::new(AtomicUsize::new(0));
        let takers: Vec<_> = (0..crowd())
            .map(|_| {
                let (flight, fetches) = (Arc::clone(&flight), Arc::clone(&fetches));
                thread::spawn(move || {
                    fetch(&flight, &fetches, |number| Token::new(number as u64)).unwrap().id
                })
            })
            .collect();
        for taker in takers {
            assert_eq!(taker.join().unwrap(), 1);
        }
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_waiter_is_woken_whenever_the_fetch_ends() {
    loom::model(|| {
        let flight: Flight = Arc::new(SingleFlight::new(()));
        let entry = ask(&flight);
        let leader = entry.leader.expect("the lead");
        let landing = thread::spawn(move || land(leader, Err("down")));
        let outcome = block_on(entry.waiter.expect("a wait"));
        assert!(matches!(outcome, Outcome::Finished(Err("down"))));
        landing.join().unwrap();
    });
}

#[test]
fn a_cancelled_leader_hands_over() {
    loom::model(|| {
        let flight: Flight = Arc::new(SingleFlight::new(()));
        let cancelled = ask(&flight);
        let fetches = Arc::new(AtomicUsize::new(0));
        let waiting = {
            let (flight, fetches) = (Arc::clone(&flight), Arc::clone(&fetches));
            thread::spawn(move || fetch(&flight, &fetches, |_number| Token::new(7)).unwrap().id)
        };
        drop(cancelled);
        assert_eq!(waiting.join().unwrap(), 7);
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
        assert_eq!(current(&flight).map(|token| token.id), Some(7));
    });
}

#[test]
fn a_waiter_that_leaves_takes_no_wake_up_along() {
    loom::model(|| {
        let flight: Flight = Arc::new(SingleFlight::new(()));
        let first = ask(&flight);
        let second = ask(&flight);
        let leaving = thread::spawn(move || drop(second));
        let leader = first.leader.expect("the lead");
        let landing = thread::spawn(move || land(leader, Ok(Token::new(1))));
        assert!(matches!(block_on(first.waiter.expect("a wait")), Outcome::Finished(Ok(_))));
        leaving.join().unwrap();
        landing.join().unwrap();
    });
}

#[test]
fn a_slot_that_is_taken_again_is_woken() {
    loom::model(|| {
        let flight: Flight = Arc::new(SingleFlight::new(()));
        let first = ask(&flight);
        let mut leaving = ask(&flight).waiter.expect("a wait");
        let waiting = Pin::new(&mut leaving).poll(&mut Context::from_waker(Waker::noop())).is_pending();
        assert!(waiting);
        let leaving = thread::spawn(move || drop(leaving));
        let leader = first.leader.expect("the lead");
        let landing = thread::spawn(move || land(leader, Ok(Token::new(1))));
        let next = ask(&flight);
        for waiter in [first.waiter, next.waiter].into_iter().flatten() {
            assert!(matches!(block_on(waiter), Outcome::Finished(Ok(_))));
        }
        leaving.join().unwrap();
        landing.join().unwrap();
    });
}

#[test]
fn rejecting_publishing_and_expiring_at_once_leave_no_retired_token_in_use() {
    loom::model(|| {
        let (old, new) = (Token::new(1), Token::new(2));
        let flight = with(&old);
        let leader = renew(&flight).expect("the lead");
        let rejecting = {
            let flight = Arc::clone(&flight);
            thread::spawn(move || reject(&flight, 1))
        };
        let expiring = {
            let flight = Arc::clone(&flight);
            thread::spawn(move || {
                let mut state = flight.lock();
                let id = state.current().map(|token| token.id);
                id.and_then(|id| state.take(id)).map(|token| token.id)
            })
        };
        land(leader, Ok(new.clone()));
        let (rejected, expired) = (rejecting.join().unwrap(), expiring.join().unwrap());
        assert!(old.is_retired());
        assert_eq!(new.is_retired(), expired == Some(2));
        assert_eq!(current(&flight).is_some(), expired != Some(2));
        assert!(!(rejected && expired == Some(1)), "one token was dropped twice");
    });
}

#[test]
fn many_rejections_of_one_token_drop_it_once() {
    loom::model(|| {
        let old = Token::new(1);
        let flight = with(&old);
        let fetches = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..crowd())
            .map(|_| {
                let (flight, fetches) = (Arc::clone(&flight), Arc::clone(&fetches));
                thread::spawn(move || {
                    let rejected = reject(&flight, 1);
                    let token = fetch(&flight, &fetches, |number| Token::new(1 + number as u64)).unwrap();
                    (rejected, token.id)
                })
            })
            .collect();
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(ended.iter().filter(|(dropped, _)| *dropped).count(), 1);
        assert!(ended.iter().all(|(_, id)| *id == 2));
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_fetch_that_was_abandoned_does_not_get_in_the_way_of_the_next() {
    loom::model(|| {
        let flight: Flight = Arc::new(SingleFlight::new(()));
        let parked = ask(&flight);
        let (leader, waiter) = (parked.leader.expect("the lead"), parked.waiter.expect("a wait"));
        let late = thread::spawn(move || land(leader, Ok(Token::new(1))));
        let abandoned = flight.lock().abandon();
        drop(abandoned);
        assert!(matches!(block_on(waiter), Outcome::Lost | Outcome::Finished(Ok(_))));
        let fetches = AtomicUsize::new(0);
        let token = fetch(&flight, &fetches, |_number| Token::new(2)).unwrap();
        late.join().unwrap();
        let current = current(&flight).expect("a token");
        assert_eq!(current.id, token.id, "the token in use is the one that was handed out");
        assert!(!current.is_retired());
    });
}

#[test]
fn a_rejection_during_a_fetch_is_seen_by_its_leader_or_came_too_late() {
    loom::model(|| {
        let flight = with(&Token::new(1));
        let leader = renew(&flight).expect("the lead");
        let rejecting = {
            let flight = Arc::clone(&flight);
            thread::spawn(move || reject(&flight, 1))
        };
        let again = leader.was_overtaken();
        assert!(!(again && leader.was_overtaken()), "one rejection sends a fetch again once");
        land(leader, Ok(Token::new(2)));
        let rejected = rejecting.join().unwrap();
        assert!(!again || rejected);
        assert_eq!(current(&flight).map(|token| token.id), Some(2));
    });
}
