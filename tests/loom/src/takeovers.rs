//! Each model is run for every order in which a source, an attempt and the attempt after it can meet.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};
use loom::future::block_on;
use loom::sync::Mutex;
use loom::thread;
use tower::BoxError;

use crate::allowance::{Allowance, HeldBytes};
use crate::not_replayable::NotReplayable;
use crate::recording::{Recording, RecordingLimit, RecordingRead};

/// What a producer has laid out for the source, and the task that the source has to wake.
#[derive(Default)]
struct Belt {
    laid: Vec<u8>,
    ended: bool,
    waiting: Option<Waker>,
}

/// A source as a channel is one: whoever polled last is woken, and nobody else.
struct Live {
    belt: Arc<Mutex<Belt>>,
    given: usize,
}

impl Body for Live {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let mut belt = this.belt.lock().unwrap();
        if let Some(frame) = belt.laid.get(this.given) {
            this.given += 1;
            return Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(&[*frame])))));
        }
        if belt.ended {
            return Poll::Ready(None);
        }
        belt.waiting = Some(cx.waker().clone());
        Poll::Pending
    }
}

type Upload = Recording<Live>;

/// How an attempt ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Whole,
    TakenOver,
}

fn belt() -> (Arc<Mutex<Belt>>, Upload) {
    let belt = Arc::new(Mutex::new(Belt::default()));
    let live = Live { belt: Arc::clone(&belt), given: 0 };
    let limit = RecordingLimit {
        bytes: 100,
        announced: None,
        above: NotReplayable::TooLong,
        one_message: false,
        held: HeldBytes::default(),
    };
    (belt, Recording::original(Some(live), None, limit))
}

/// Lays out frames one by one, and then the end. Each wakes who waits.
fn produce(belt: &Mutex<Belt>, frames: &[u8]) {
    for frame in frames {
        let mut belt = belt.lock().unwrap();
        belt.laid.push(*frame);
        let waiting = belt.waiting.take();
        drop(belt);
        waiting.into_iter().for_each(Waker::wake);
    }
    let mut belt = belt.lock().unwrap();
    belt.ended = true;
    let waiting = belt.waiting.take();
    drop(belt);
    waiting.into_iter().for_each(Waker::wake);
}

/// Reads an attempt to its end, as a task that sleeps until it is woken. A wake-up that is lost leaves all threads
/// asleep, which the checker reports.
fn read(attempt: &Upload) -> (Vec<u8>, End) {
    let mut seen = Vec::new();
    let mut rest = loop {
        match block_on(std::future::poll_fn(|cx| attempt.poll_read(cx))) {
            RecordingRead::Next(Some(Ok(frame))) => seen.push(frame.into_data().unwrap()[0]),
            RecordingRead::Next(Some(Err(error))) => {
                assert!(error.to_string().contains("taken over"), "{error}");
                return (seen, End::TakenOver);
            }
            RecordingRead::Next(None) => return (seen, End::Whole),
            RecordingRead::Rest(rest, _) => break rest,
        }
    };
    while let Some(frame) = block_on(std::future::poll_fn(|cx| Pin::new(&mut rest).poll_frame(cx))) {
        seen.push(frame.unwrap().into_data().unwrap()[0]);
    }
    (seen, End::Whole)
}

/// Reads an attempt that may be taken over: it got the first frames, and an end only if it got all.
fn read_old(attempt: &Upload, all: &[u8]) -> End {
    let (seen, end) = read(attempt);
    assert_eq!(seen, all[..seen.len()], "out of order");
    if end == End::Whole {
        assert_eq!(seen, all, "an end that looks complete");
    }
    end
}

#[test]
fn a_newer_attempt_gets_every_frame_once_and_the_older_one_no_false_end() {
    loom::model(|| {
        let (belt, original) = belt();
        let first = original.replay().unwrap();
        let producing = thread::spawn(move || produce(&belt, &[1, 2]));
        let old = thread::spawn(move || read_old(&first, &[1, 2]));
        let second = original.replay().unwrap();
        assert_eq!(read(&second), (vec![1, 2], End::Whole));
        old.join().unwrap();
        producing.join().unwrap();
    });
}

#[test]
fn an_older_attempt_that_waits_is_woken_even_if_its_source_never_goes_on() {
    loom::model(|| {
        let (_belt, original) = belt();
        let first = original.replay().unwrap();
        let old = thread::spawn(move || read(&first));
        let _second = original.replay().unwrap();
        assert_eq!(old.join().unwrap(), (vec![], End::TakenOver));
    });
}

#[test]
fn an_older_attempt_may_be_dropped_before_during_or_after_the_first_poll_of_the_next() {
    loom::model(|| {
        let (belt, original) = belt();
        let first = original.replay().unwrap();
        // It has read, and waits for the source.
        belt.lock().unwrap().laid.push(1);
        for _ in 0..2 {
            let _ = first.poll_read(&mut Context::from_waker(Waker::noop()));
        }
        let second = original.replay().unwrap();
        let dropping = thread::spawn(move || drop(first));
        let producing = thread::spawn(move || produce(&belt, &[2]));
        assert_eq!(read(&second), (vec![1, 2], End::Whole));
        dropping.join().unwrap();
        producing.join().unwrap();
    });
}

#[test]
fn a_source_that_is_ready_between_two_attempts_is_read_by_the_newer_one() {
    loom::model(|| {
        let (belt, original) = belt();
        let first = original.replay().unwrap();
        // The source knows the older task only.
        assert!(first.poll_read(&mut Context::from_waker(Waker::noop())).is_pending());
        let producing = thread::spawn(move || produce(&belt, &[1]));
        let second = original.replay().unwrap();
        assert_eq!(read(&second), (vec![1], End::Whole));
        assert_eq!(read(&first), (vec![], End::TakenOver));
        producing.join().unwrap();
    });
}

#[test]
fn attempts_follow_each_other_while_all_before_are_still_polled() {
    loom::model(|| {
        let (belt, original) = belt();
        produce(&belt, &[1]);
        let first = original.replay().unwrap();
        let old = thread::spawn(move || read_old(&first, &[1]));
        let second = original.replay().unwrap();
        let older = thread::spawn(move || read_old(&second, &[1]));
        let third = original.replay().unwrap();
        assert_eq!(read(&third), (vec![1], End::Whole));
        old.join().unwrap();
        older.join().unwrap();
    });
}

#[test]
fn an_upload_goes_on_when_the_original_is_dropped_in_the_middle() {
    loom::model(|| {
        let (belt, original) = belt();
        let first = original.replay().unwrap();
        let producing = thread::spawn(move || produce(&belt, &[1]));
        let dropping = thread::spawn(move || drop(original));
        assert_eq!(read(&first), (vec![1], End::Whole));
        dropping.join().unwrap();
        producing.join().unwrap();
    });
}

#[test]
fn an_upload_that_is_reopened_ends_the_one_before_and_wakes_it() {
    loom::model(|| {
        let belts: [Arc<Mutex<Belt>>; 2] = Default::default();
        let live = |belt: &Arc<Mutex<Belt>>| Live { belt: Arc::clone(belt), given: 0 };
        let (first, second) = (live(&belts[0]), Arc::clone(&belts[1]));
        let original = Upload::reopenable(first, Arc::new(move |_| Live { belt: Arc::clone(&second), given: 0 }));
        let first = original.replay().unwrap();
        let old = thread::spawn(move || read(&first));
        produce(&belts[1], &[1]);
        assert_eq!(read(&original.replay().unwrap()), (vec![1], End::Whole));
        assert_eq!(old.join().unwrap(), (vec![], End::TakenOver));
    });
}

#[test]
fn an_allowance_is_never_overdrawn_and_is_whole_again_in_the_end() {
    loom::model(|| {
        let allowance = Arc::new(Allowance::new(3));
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let allowance = Arc::clone(&allowance);
                thread::spawn(move || {
                    let mut held = HeldBytes::nothing_of(&allowance);
                    (held.cover(1), held.cover(2), held)
                })
            })
            .collect();
        let taken: Vec<_> = takers.into_iter().map(|taker| taker.join().unwrap()).collect();
        let covered = taken.iter().filter(|(_, two, _)| *two).count();
        assert!(taken.iter().all(|(one, ..)| *one) && covered == 1, "{taken:?}");
        assert_eq!(allowance.left(), 0);
        drop(taken);
        assert_eq!(allowance.left(), 3);
    });
}
