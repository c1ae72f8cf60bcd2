use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::cache::schedule::Windows;
use crate::clock::WallClock;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn start() -> Moment {
    WallClock::default().moment()
}

fn plan(start: Moment, life: u64) -> Plan {
    Windows::default().plan(start, start, Some(start.saturating_add(seconds(life))))
}

fn failed(memory: &mut Memory, mut error: Error, now: Moment) {
    memory.failed(&mut error, false, now, &Chance::seeded(1));
}

/// How long the source is left alone, with a token in use and without one.
fn waits(memory: &Memory, now: Moment) -> (Duration, Duration) {
    let failure = memory.failure.as_ref().unwrap();
    let wait = |has_token| now.until(failure.until(has_token));
    (wait(true), wait(false))
}

/// A decision in short.
fn short(decision: &Decision) -> (&'static str, Option<FetchReason>) {
    let give = match decision.give {
        Give::Token => "token",
        Give::Wait => "wait",
        Give::Error(_) => "error",
    };
    (give, decision.launch)
}

#[test]
fn each_part_of_a_life_has_its_decision() {
    let (memory, born) = (Memory::default(), start());
    let plan = plan(born, 100);
    let at = |offset, in_flight| {
        let decision = memory.decide(Some(&plan), in_flight, None, born.saturating_add(seconds(offset)));
        (short(&decision).0, decision.launch, decision.ask_again.map(|at| born.until(at).as_secs()))
    };
    let expiring = Some(FetchReason::Expiring);
    assert_eq!(at(0, false), ("token", None, Some(80)));
    assert_eq!(at(81, false), ("token", expiring, Some(95)));
    assert_eq!(at(81, true), ("token", None, Some(95)));
    assert_eq!(at(96, false), ("wait", expiring, None));
    assert_eq!(at(96, true), ("wait", None, None));
    assert_eq!(at(100, false), ("wait", Some(FetchReason::Expired), None));
    assert_eq!(at(100, true), ("wait", None, None));
    let first = memory.decide(None, false, None, born);
    assert_eq!(short(&first), ("wait", Some(FetchReason::Initial)));
}

#[test]
fn a_request_with_a_minimum_waits_only_where_waiting_can_help() {
    let (memory, born) = (Memory::default(), start());
    let plan = plan(born, 100);
    let ask = |offset, need| {
        let now = born.saturating_add(seconds(offset));
        short(&memory.decide(Some(&plan), false, Some(seconds(need)), now))
    };
    let expiring = Some(FetchReason::Expiring);
    assert_eq!(ask(85, 30), ("wait", expiring));
    assert_eq!(ask(50, 60), ("wait", expiring));
    assert_eq!(ask(50, 40), ("token", None));
    assert_eq!(ask(85, 10), ("token", expiring));
    // A need of almost a whole life is met by a token that is new, and for a quarter of the life by the same.
    assert_eq!(ask(0, 99), ("token", None));
    assert_eq!(ask(24, 99), ("token", None));
    assert_eq!(ask(26, 99), ("wait", expiring));
    // No token of this server ever lives for 500 s: the fresh one is as good as any.
    assert_eq!(ask(0, 500), ("token", None));
}

#[test]
fn after_a_failure_a_valid_token_stays_in_use_and_the_source_is_left_alone() {
    let (mut memory, born) = (Memory::default(), start());
    let plan = plan(born, 1000);
    let due = born.saturating_add(seconds(850));
    failed(&mut memory, Error::config("wrong secret"), due);
    assert_eq!(waits(&memory, due).0, seconds(30));
    assert_eq!(short(&memory.decide(Some(&plan), false, None, due)), ("token", None));
    let later = due.saturating_add(seconds(31));
    assert_eq!(
        short(&memory.decide(Some(&plan), false, None, later)),
        ("token", Some(FetchReason::Expiring))
    );
    let mandatory = born.saturating_add(seconds(995));
    failed(&mut memory, Error::config("wrong secret"), mandatory);
    assert_eq!(short(&memory.decide(Some(&plan), false, None, mandatory)), ("token", None));
}

#[test]
fn a_cool_down_ends_with_the_token_that_it_left_in_use() {
    let (mut memory, born) = (Memory::default(), start());
    let plan = plan(born, 1000);
    let failed_at = born.saturating_add(seconds(985));
    failed(&mut memory, Error::config("wrong secret"), failed_at);
    let decision = memory.decide(Some(&plan), false, None, failed_at);
    assert_eq!(decision.ask_again.map(|at| born.until(at)), Some(seconds(1000)));
    let end = born.saturating_add(seconds(1000));
    assert_eq!(short(&memory.decide(Some(&plan), false, None, end)), ("wait", Some(FetchReason::Expired)));
}

#[test]
fn without_a_token_the_last_error_is_given_until_one_probe_is_due() {
    let (mut memory, now) = (Memory::default(), start());
    failed(&mut memory, Error::grant("revoked"), now);
    let Give::Error(error) = memory.decide(None, false, None, now.saturating_add(seconds(9))).give else {
        panic!("no failure");
    };
    assert!(error.is_grant());
    assert_eq!(error.retry_at(), Some((now.mono + seconds(10)).into_std()));
    let probe = now.saturating_add(seconds(10));
    assert_eq!(short(&memory.decide(None, false, None, probe)), ("wait", Some(FetchReason::Initial)));
    memory.forgive(now);
    assert_eq!(short(&memory.decide(None, false, None, now)).0, "wait");
}

#[test]
fn an_operator_is_waited_for_longer_after_a_minute() {
    let (mut memory, now) = (Memory::default(), start());
    for (after, wait) in [(0, 10), (10, 10), (59, 10), (60, 30), (3600, 30)] {
        let now = now.saturating_add(seconds(after));
        failed(&mut memory, Error::config("wrong secret"), now);
        assert_eq!(waits(&memory, now), (seconds(30), seconds(wait)), "{after}");
    }
}

#[test]
fn what_stands_before_the_server_is_waited_for_as_an_outage_is() {
    let (mut memory, now) = (Memory::default(), start());
    let mut wait = |error: Error, after| {
        let now = now.saturating_add(seconds(after));
        failed(&mut memory, error, now);
        waits(&memory, now).1
    };
    for after in [0, 60, 3600] {
        let page = Error::config("the token endpoint returned 404 with HTML").hearsay();
        assert!(wait(page, after) <= seconds(5), "{after}");
    }
    // A 401 is about the client or its secret, in whatever words.
    let unauthorized = Error::config("it returned 401").with_status(http::StatusCode::UNAUTHORIZED).hearsay();
    assert_eq!(wait(unauthorized, 3601), seconds(30));
    // Another process was refused by the server itself.
    let refused = Error::config("another process was refused").with_code("invalid_client").hearsay();
    assert_eq!(wait(refused, 3601), seconds(30));
}

#[test]
fn a_source_that_asks_for_no_wait_again_and_again_is_left_alone_for_longer() {
    let (mut memory, now) = (Memory::default(), start());
    let mut last = Duration::ZERO;
    for _ in 0..8 {
        failed(&mut memory, Error::throttled("x").with_retry_after(Duration::ZERO), now);
        let (with, without) = waits(&memory, now);
        assert!(with >= seconds(1) && without >= seconds(1), "{with:?} {without:?}");
        last = without;
    }
    assert!(last > seconds(1), "{last:?}");
    // A longer one is believed as before.
    failed(&mut memory, Error::throttled("x").with_retry_after(seconds(200)), now);
    assert!(waits(&memory, now).1 > seconds(199));
}

#[test]
fn the_wait_follows_the_class_of_the_error() {
    let now = start();
    let wait = |error| {
        let mut memory = Memory::default();
        failed(&mut memory, error, now);
        waits(&memory, now)
    };
    let both = |wait| (wait, wait);
    assert_eq!(wait(Error::throttled("x").with_retry_after(seconds(3600))), both(seconds(300)));
    assert_eq!(wait(Error::throttled("x").with_retry_after(Duration::ZERO)), both(seconds(1)));
    let (asked, _) = wait(Error::throttled("x").with_retry_after(seconds(20)));
    assert!(asked > seconds(19) && asked <= seconds(21), "{asked:?}");
    assert_eq!(wait(Error::throttled("x")), both(seconds(1)));
    for error in [Error::transient("x"), Error::protocol("x")] {
        let (with, without) = wait(error);
        assert!(with <= seconds(1) && without <= seconds(1) && without >= Duration::from_millis(500));
    }
    // What a cache behind this one says counts without a token, whatever the class; with one it is the least.
    let behind = (now.mono + seconds(7)).into_std();
    assert_eq!(wait(Error::config("x").with_retry_at(behind)), (seconds(30), seconds(7)));
    assert_eq!(wait(Error::transient("x").with_retry_at(behind)), both(seconds(7)));
}

#[test]
fn transient_failures_double_their_wait_up_to_a_minute_and_without_a_token_to_five_seconds() {
    let (mut memory, now, chance) = (Memory::default(), start(), Chance::seeded(3));
    let mut longest = Duration::ZERO;
    for streak in 0..40_u32 {
        let before = memory.failed(&mut Error::transient("down"), false, now, &chance);
        assert_eq!(before.map_or(0, |before| before.streak), streak);
        let (with, without) = waits(&memory, now);
        let bound = seconds(1 << streak.min(6)).min(seconds(60)).max(Duration::from_millis(100));
        assert!(with <= bound && with >= Duration::from_millis(100), "{streak}: {with:?}");
        let bounds = match streak {
            0 => (500, 1_000),
            1 => (1_000, 2_000),
            _ => (4_500, 5_000),
        };
        assert!((bounds.0..=bounds.1).contains(&without.as_millis()), "{streak}: {without:?}");
        longest = longest.max(with);
    }
    assert!(longest > seconds(30));
    assert!(memory.succeeded().is_some() && memory.succeeded().is_none());
}

#[derive(Clone, Debug)]
enum Event {
    Pass(u64),
    Ask(Option<u64>),
    Land(bool),
    Lose,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        (0_u64..40_000).prop_map(Event::Pass),
        proptest::option::of(0_u64..200).prop_map(Event::Ask),
        any::<bool>().prop_map(Event::Land),
        Just(Event::Lose),
    ];
    proptest::collection::vec(event, 1..200)
}

proptest! {
    /// Plays a cache on one clock and checks what every decision promises.
    #[test]
    fn no_decision_breaks_its_promise(events in events(), life in 0_u64..4000) {
        let (mut memory, mut now, chance) = (Memory::default(), start(), Chance::seeded(9));
        let (mut token, mut in_flight): (Option<Plan>, bool) = (None, false);
        let mut failures = 0_u32;
        for event in events {
            match event {
                Event::Pass(millis) => now = now.saturating_add(Duration::from_millis(millis)),
                Event::Lose => token = None,
                Event::Land(_) if !in_flight => {}
                Event::Land(true) => {
                    in_flight = false;
                    token = Some(plan(now, life));
                    prop_assert_eq!(memory.succeeded().is_some(), failures > 0);
                    failures = 0;
                }
                Event::Land(false) => {
                    in_flight = false;
                    let before = memory.failed(&mut Error::transient("x"), false, now, &chance);
                    prop_assert_eq!(before.map_or(0, |before| before.streak), failures);
                    failures += 1;
                }
                Event::Ask(need) => {
                    let usable = token.as_ref().is_some_and(|plan| !plan.has_ended(now));
                    let cooling =
                        memory.failure.as_ref().is_some_and(|failure| !now.reached(failure.until(usable)));
                    let decision = memory.decide(token.as_ref(), in_flight, need.map(seconds), now);
                    prop_assert!(decision.launch.is_none() || !in_flight && !cooling);
                    prop_assert!(decision.ask_again.is_none_or(|at| !now.reached(at)));
                    match decision.give {
                        Give::Token => prop_assert!(usable),
                        Give::Wait => prop_assert!(in_flight || decision.launch.is_some()),
                        Give::Error(_) => prop_assert!(!usable && cooling && !in_flight),
                    }
                    in_flight |= decision.launch.is_some();
                }
            }
        }
    }

    /// While a token is fresh nothing decides; so nothing may come up before the instant that was named.
    #[test]
    fn nothing_is_to_be_decided_before_it_wants_to_be_asked_again(
        life in 1_u64..4000, at in 0_u64..4_000_000, ahead in 0.0..1.0_f64, in_flight: bool, failing: bool,
    ) {
        let (mut memory, born) = (Memory::default(), start());
        let plan = plan(born, life);
        let now = born.saturating_add(Duration::from_millis(at));
        if failing {
            memory.failed(&mut Error::transient("x"), false, now, &Chance::seeded(life));
        }
        let decision = memory.decide(Some(&plan), in_flight, None, now);
        if let Give::Token = decision.give {
            let in_flight = in_flight || decision.launch.is_some();
            let next = decision.ask_again.unwrap();
            let before = now.saturating_add(now.until(next).mul_f64(ahead).saturating_sub(Duration::from_nanos(1)));
            if !before.reached(next) {
                let then = memory.decide(Some(&plan), in_flight, None, before);
                prop_assert_eq!(short(&then), ("token", None));
            }
        }
    }
}
