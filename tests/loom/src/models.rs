//! Each model is run for every order in which its threads can meet.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use loom::future::block_on;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;

use crate::single_flight::{SingleFlight, Entry, Choice, Held, Outcome, Leader, Rejected, View};

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

impl Held for Token {
    fn id(&self) -> u64 {
        self.id
    }

    fn doubt(&self) {}

    fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
    }
}

type Error = &'static str;
type Table = Arc<SingleFlight<Token, Error, ()>>;

/// Asks as the cache does: the current token, else a seat, and a flight if none is in the air.
fn ask(board: &Table) -> Entry<Token, Error, (), Token> {
    board.board(|view| match view.current {
        Some(token) => Choice::Answer(token.clone()),
        None => Choice::Wait,
    })
}

/// Starts a flight although there is a token, as in the advisory window. `None` if one is in the air.
fn renew(board: &Table) -> Option<Leader<Token, Error, ()>> {
    board.board(|_view| Choice::Launch(())).leader
}

fn land(leader: Leader<Token, Error, ()>, result: Result<Token, Error>) {
    leader.land(result, |_result, _view| true);
}

/// A board with this token on it.
fn with(token: &Token) -> Table {
    let board = Arc::new(SingleFlight::new(()));
    land(renew(&board).expect("the first flight"), Ok(token.clone()));
    board
}

fn current(board: &Table) -> Option<Token> {
    board.look(|View { current, .. }| current.cloned())
}

/// Waits for a token; flies where it is the leader, and starts over where a flight was lost.
fn fetch(board: &Table, flights: &AtomicUsize, token: impl Fn(usize) -> Token) -> Result<Token, Error> {
    loop {
        let entry = ask(board);
        if let Some(token) = entry.answer {
            return Ok(token);
        }
        if let Some(leader) = entry.leader {
            let flight = flights.fetch_add(1, Ordering::SeqCst) + 1;
            land(leader, Ok(token(flight)));
        }
        match block_on(entry.waiter.expect("a seat")) {
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
        let board = with(&old);
        let leader = renew(&board).expect("a flight");
        let rejecting = {
            let board = Arc::clone(&board);
            thread::spawn(move || board.reject(1, |_token, ()| true))
        };
        land(leader, Ok(new.clone()));
        rejecting.join().unwrap();
        assert_eq!(current(&board).map(|token| token.id), Some(2));
        assert!(!new.is_retired() && old.is_retired());
    });
}

#[test]
fn takers_at_once_make_one_flight() {
    loom::model(|| {
        let board: Table = Arc::new(SingleFlight::new(()));
        let flights = Arc::new(AtomicUsize::new(0));
        let takers: Vec<_> = (0..crowd())
            .map(|_| {
                let (board, flights) = (Arc::clone(&board), Arc::clone(&flights));
                thread::spawn(move || fetch(&board, &flights, |flight| Token::new(flight as u64)).unwrap().id)
            })
            .collect();
        for taker in takers {
            assert_eq!(taker.join().unwrap(), 1);
        }
        assert_eq!(flights.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_passenger_is_woken_whenever_the_flight_lands() {
    loom::model(|| {
        let board: Table = Arc::new(SingleFlight::new(()));
        let entry = ask(&board);
        let leader = entry.leader.expect("a flight");
        let landing = thread::spawn(move || land(leader, Err("down")));
        let outcome = block_on(entry.waiter.expect("a seat"));
        assert!(matches!(outcome, Outcome::Finished(Err("down"))));
        landing.join().unwrap();
    });
}

#[test]
fn a_cancelled_pilot_hands_over() {
    loom::model(|| {
        let board: Table = Arc::new(SingleFlight::new(()));
        let cancelled = ask(&board);
        let flights = Arc::new(AtomicUsize::new(0));
        let waiting = {
            let (board, flights) = (Arc::clone(&board), Arc::clone(&flights));
            thread::spawn(move || fetch(&board, &flights, |_flight| Token::new(7)).unwrap().id)
        };
        drop(cancelled);
        assert_eq!(waiting.join().unwrap(), 7);
        assert_eq!(flights.load(Ordering::SeqCst), 1);
        assert_eq!(current(&board).map(|token| token.id), Some(7));
    });
}

#[test]
fn a_passenger_that_leaves_takes_no_wake_up_along() {
    loom::model(|| {
        let board: Table = Arc::new(SingleFlight::new(()));
        let first = ask(&board);
        let second = ask(&board);
        let leaving = thread::spawn(move || drop(second));
        let leader = first.leader.expect("a flight");
        let landing = thread::spawn(move || land(leader, Ok(Token::new(1))));
        assert!(matches!(block_on(first.waiter.expect("a seat")), Outcome::Finished(Ok(_))));
        leaving.join().unwrap();
        landing.join().unwrap();
    });
}

#[test]
fn a_seat_that_is_taken_again_is_woken() {
    loom::model(|| {
        let board: Table = Arc::new(SingleFlight::new(()));
        let first = ask(&board);
        let mut leaving = ask(&board).waiter.expect("a seat");
        let waiting = Pin::new(&mut leaving).poll(&mut Context::from_waker(Waker::noop())).is_pending();
        assert!(waiting);
        let leaving = thread::spawn(move || drop(leaving));
        let leader = first.leader.expect("a flight");
        let landing = thread::spawn(move || land(leader, Ok(Token::new(1))));
        let next = ask(&board);
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
        let board = with(&old);
        let leader = renew(&board).expect("a flight");
        let rejecting = {
            let board = Arc::clone(&board);
            thread::spawn(move || board.reject(1, |_token, ()| true))
        };
        let expiring = {
            let board = Arc::clone(&board);
            thread::spawn(move || board.clear(|_view| true).map(|token| token.id))
        };
        land(leader, Ok(new.clone()));
        let (rejected, expired) = (rejecting.join().unwrap(), expiring.join().unwrap());
        assert!(old.is_retired());
        assert_eq!(new.is_retired(), expired == Some(2));
        assert_eq!(current(&board).is_some(), expired != Some(2));
        assert!(!(rejected == Rejected::Dropped && expired == Some(1)), "one token was dropped twice");
    });
}

#[test]
fn many_rejections_of_one_token_drop_it_once() {
    loom::model(|| {
        let old = Token::new(1);
        let board = with(&old);
        let flights = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..crowd())
            .map(|_| {
                let (board, flights) = (Arc::clone(&board), Arc::clone(&flights));
                thread::spawn(move || {
                    let rejected = board.reject(1, |_token, ()| true);
                    let token = fetch(&board, &flights, |flight| Token::new(1 + flight as u64)).unwrap();
                    (rejected == Rejected::Dropped, token.id)
                })
            })
            .collect();
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(ended.iter().filter(|(dropped, _)| *dropped).count(), 1);
        assert!(ended.iter().all(|(_, id)| *id == 2));
        assert_eq!(flights.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_flight_that_was_given_up_does_not_get_in_the_way_of_the_next() {
    loom::model(|| {
        let board: Table = Arc::new(SingleFlight::new(()));
        let parked = ask(&board);
        let (leader, seat) = (parked.leader.expect("a flight"), parked.waiter.expect("a seat"));
        let late = thread::spawn(move || land(leader, Ok(Token::new(1))));
        board.give_up(&seat);
        let flights = AtomicUsize::new(0);
        let token = fetch(&board, &flights, |_flight| Token::new(2)).unwrap();
        late.join().unwrap();
        let current = current(&board).expect("a token");
        assert_eq!(current.id, token.id, "the token in use is the one that was handed out");
        assert!(!current.is_retired());
    });
}

#[test]
fn a_rejection_during_a_flight_is_seen_by_its_pilot_or_came_too_late() {
    loom::model(|| {
        let board = with(&Token::new(1));
        let leader = renew(&board).expect("a flight");
        let rejecting = {
            let board = Arc::clone(&board);
            thread::spawn(move || board.reject(1, |_token, ()| true))
        };
        let again = leader.must_go_again();
        assert!(!(again && leader.must_go_again()), "one rejection sends a flight again once");
        land(leader, Ok(Token::new(2)));
        let rejected = rejecting.join().unwrap();
        assert!(!again || rejected == Rejected::Dropped);
        assert_eq!(current(&board).map(|token| token.id), Some(2));
    });
}
