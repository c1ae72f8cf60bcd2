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

fn failed(ledger: &mut Ledger, error: TokenError, now: Moment) -> Duration {
    ledger.failed(error, now.mono, &Chance::seeded(1));
    ledger.failure().unwrap().2.saturating_duration_since(now.mono)
}

#[test]
fn each_part_of_a_life_has_its_verdict() {
    let (ledger, born) = (Ledger::default(), start());
    let plan = plan(born, 100);
    let at =
        |offset, in_flight| ledger.decide(Some(&plan), in_flight, None, born.saturating_add(seconds(offset)));
    assert!(matches!(at(0, false), Verdict::Use));
    assert!(matches!(at(81, false), Verdict::UseAndFetch(FetchReason::Expiring)));
    assert!(matches!(at(81, true), Verdict::Use));
    assert!(matches!(at(96, false), Verdict::Fetch(FetchReason::Expiring)));
    assert!(matches!(at(96, true), Verdict::Join));
    assert!(matches!(at(100, false), Verdict::Fetch(FetchReason::Expired)));
    assert!(matches!(at(100, true), Verdict::Join));
    assert!(matches!(ledger.decide(None, false, None, born), Verdict::Fetch(FetchReason::Initial)));
}

#[test]
fn a_request_with_a_minimum_waits_only_where_waiting_can_help() {
    let (ledger, born) = (Ledger::default(), start());
    let plan = plan(born, 100);
    let ask = |offset, need| {
        ledger.decide(Some(&plan), false, Some(seconds(need)), born.saturating_add(seconds(offset)))
    };
    assert!(matches!(ask(85, 30), Verdict::Fetch(_)));
    assert!(matches!(ask(50, 60), Verdict::Fetch(_)));
    assert!(matches!(ask(50, 40), Verdict::Use));
    assert!(matches!(ask(85, 10), Verdict::UseAndFetch(_)));
    // A need of almost a whole life is met by a token that is new.
    assert!(matches!(ask(0, 99), Verdict::Use));
    // No token of this server ever lives for 500 s: the fresh one is as good as any.
    assert!(matches!(ask(0, 500), Verdict::Use));
}

#[test]
fn after_a_failure_a_valid_token_stays_in_use_and_the_endpoint_is_left_alone() {
    let (mut ledger, born) = (Ledger::default(), start());
    let plan = plan(born, 1000);
    let due = born.saturating_add(seconds(850));
    assert_eq!(failed(&mut ledger, TokenError::config("wrong secret"), due), seconds(30));
    assert!(matches!(ledger.decide(Some(&plan), false, None, due), Verdict::Use));
    let later = due.saturating_add(seconds(31));
    assert!(matches!(ledger.decide(Some(&plan), false, None, later), Verdict::UseAndFetch(_)));
    let mandatory = born.saturating_add(seconds(995));
    failed(&mut ledger, TokenError::config("wrong secret"), mandatory);
    assert!(matches!(ledger.decide(Some(&plan), false, None, mandatory), Verdict::Use));
}

#[test]
fn without_a_token_the_last_error_is_given_until_one_probe_is_due() {
    let (mut ledger, now) = (Ledger::default(), start());
    failed(&mut ledger, TokenError::grant("revoked"), now);
    let Verdict::Fail(error) = ledger.decide(None, false, None, now.saturating_add(seconds(29))) else {
        panic!("no failure");
    };
    assert!(error.is_grant());
    assert!(matches!(ledger.decide(None, false, None, now.saturating_add(seconds(30))), Verdict::Fetch(_)));
    ledger.forgive(now.mono);
    assert!(matches!(ledger.decide(None, false, None, now), Verdict::Fetch(_)));
}

#[test]
fn the_wait_follows_the_class_of_the_error() {
    let now = start();
    let wait = |error| failed(&mut Ledger::default(), error, now);
    assert_eq!(wait(TokenError::throttled("x").with_retry_after(seconds(3600))), seconds(300));
    assert_eq!(wait(TokenError::throttled("x").with_retry_after(Duration::ZERO)), seconds(1));
    let asked = wait(TokenError::throttled("x").with_retry_after(seconds(20)));
    assert!(asked > seconds(19) && asked <= seconds(21), "{asked:?}");
    assert!(wait(TokenError::throttled("x")) >= seconds(1));
    assert!(wait(TokenError::transient("x")) <= seconds(1));
}

#[test]
fn transient_failures_double_their_wait_up_to_a_minute() {
    let (mut ledger, now, chance) = (Ledger::default(), start(), Chance::seeded(3));
    let mut longest = Duration::ZERO;
    for streak in 0..40_u32 {
        assert_eq!(ledger.failed(TokenError::transient("down"), now.mono, &chance), streak == 0);
        let wait = ledger.failure().unwrap().2.saturating_duration_since(now.mono);
        let bound = seconds(1 << streak.min(6)).min(seconds(60)).max(Duration::from_millis(100));
        assert!(wait <= bound && wait >= Duration::from_millis(100), "{streak}: {wait:?}");
        longest = longest.max(wait);
    }
    assert!(longest > seconds(30));
    assert!(ledger.succeeded() && !ledger.succeeded());
}

#[test]
fn three_tokens_that_nobody_accepted_close_the_first_brake_for_longer_each_time() {
    let (mut ledger, now) = (Ledger::default(), start().mono);
    assert_eq!(ledger.brake(false, now), Brake::Open);
    assert_eq!(ledger.brake(false, now), Brake::Open);
    assert_eq!(ledger.brake(false, now), Brake::JustClosed);
    assert!(ledger.is_braked(now));
    assert_eq!(ledger.brake(false, now + seconds(29)), Brake::Closed);
    // One probe, then closed for twice as long.
    let probe = now + seconds(30);
    assert_eq!(ledger.brake(false, probe), Brake::Open);
    assert_eq!(ledger.brake(false, probe), Brake::JustClosed);
    assert_eq!(ledger.brake(false, probe + seconds(59)), Brake::Closed);
    assert_eq!(ledger.brake(false, probe + seconds(60)), Brake::Open);
    // A success forgets it all.
    assert_eq!(ledger.brake(true, probe + seconds(61)), Brake::Open);
    assert_eq!(ledger.brake(false, probe + seconds(62)), Brake::Open);
}

#[test]
fn the_first_brake_stays_closed_for_five_minutes_at_most() {
    let (mut ledger, mut now) = (Ledger::default(), start().mono);
    for _ in 0..2 {
        ledger.brake(false, now);
    }
    for _ in 0..20 {
        assert_eq!(ledger.brake(false, now), Brake::JustClosed);
        now += seconds(300);
        assert_eq!(ledger.brake(false, now), Brake::Open);
    }
}

#[test]
fn one_bad_node_of_four_costs_at_most_sixty_token_requests_a_minute() {
    let (mut ledger, now) = (Ledger::default(), start().mono);
    let mut fetches = 1;
    for millis in (0..60_000).step_by(20) {
        if ledger.brake(true, now + Duration::from_millis(millis)) == Brake::Open {
            fetches += 1;
        }
    }
    assert_eq!(fetches, 59);
}

#[test]
fn the_second_brake_warns_once_and_fills_up_again() {
    let (mut ledger, now) = (Ledger::default(), start().mono);
    for _ in 0..29 {
        assert_eq!(ledger.brake(true, now), Brake::Open);
    }
    assert_eq!(ledger.brake(true, now), Brake::JustClosed);
    assert_eq!(ledger.brake(true, now), Brake::Closed);
    assert_eq!(ledger.brake(true, now + seconds(2)), Brake::Open);
    assert_eq!(ledger.brake(true, now + seconds(3)), Brake::Closed);
    let rested = now + seconds(3600);
    assert!(!ledger.is_braked(rested));
    for _ in 0..30 {
        assert_eq!(ledger.brake(true, rested), Brake::Open);
    }
    assert_eq!(ledger.brake(true, rested), Brake::JustClosed);
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
    /// Plays a cache on one clock and checks what every verdict promises.
    #[test]
    fn no_verdict_breaks_its_promise(events in events(), life in 0_u64..4000) {
        let (mut ledger, mut now, chance) = (Ledger::default(), start(), Chance::seeded(9));
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
                    prop_assert_eq!(ledger.succeeded(), failures > 0);
                    failures = 0;
                }
                Event::Land(false) => {
                    in_flight = false;
                    prop_assert_eq!(ledger.failed(TokenError::transient("x"), now.mono, &chance), failures == 0);
                    failures += 1;
                }
                Event::Ask(need) => {
                    let usable = token.as_ref().filter(|plan| !reached(plan.ends, now));
                    let cooling = ledger.failure().is_some_and(|(_, _, until)| now.mono < until);
                    match ledger.decide(token.as_ref(), in_flight, need.map(seconds), now) {
                        Verdict::Use => prop_assert!(usable.is_some()),
                        Verdict::UseAndFetch(_) => {
                            prop_assert!(usable.is_some() && !in_flight && !cooling);
                            in_flight = true;
                        }
                        Verdict::Join => prop_assert!(in_flight),
                        Verdict::Fetch(_) => {
                            prop_assert!(!in_flight && !cooling);
                            in_flight = true;
                        }
                        Verdict::Fail(_) => prop_assert!(usable.is_none() && cooling && !in_flight),
                    }
                }
            }
        }
    }

    /// While a token is fresh nobody decides; so nothing may come up before the instant that was named.
    #[test]
    fn nothing_is_to_be_decided_before_the_next_thought(
        life in 1_u64..4000, at in 0_u64..4_000_000, ahead in 0.0..1.0_f64, in_flight: bool, failing: bool,
    ) {
        let (mut ledger, born) = (Ledger::default(), start());
        let plan = plan(born, life);
        let now = born.saturating_add(Duration::from_millis(at));
        if failing {
            ledger.failed(TokenError::transient("x"), now.mono, &Chance::seeded(life));
        }
        if let Verdict::Use = ledger.decide(Some(&plan), in_flight, None, now) {
            let next = ledger.next_thought(&plan, in_flight, now).unwrap();
            let before = now.saturating_add(now.until(next).mul_f64(ahead).saturating_sub(Duration::from_nanos(1)));
            if !before.reached(next) {
                prop_assert!(matches!(ledger.decide(Some(&plan), in_flight, None, before), Verdict::Use));
            }
        }
    }
}
