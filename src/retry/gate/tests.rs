use http::{Method, Uri};

use super::*;
use crate::retry::limits::account::{Account, RequestTarget};

const SECOND: Duration = Duration::from_secs(1);

fn place() -> GatedPlace {
    let uri = Uri::from_static("https://api.example.com/");
    GatedPlace::of(Account::of(RequestTarget { uri: &uri, credential: None }), None)
}

fn ask(retries: u32) -> GateAsk<'static> {
    GateAsk {
        kind: None,
        retries,
        least: Duration::ZERO,
        longest: SECOND * 120,
        hold: SECOND * 2,
        patient: true,
    }
}

fn go(gate: &RetryGate) -> Pass {
    match gate.admit(&place(), ask(0)) {
        Ok(Some(pass)) => pass,
        Ok(None) | Err(_) => panic!("it lets out one"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_wait_that_is_asked_for_later_does_not_end_a_longer_one() {
    let gate = RetryGate::new();
    assert_eq!(gate.refused(&place(), ask(1), None, SECOND), HeldRetry::Now);
    tokio::time::advance(SECOND * 3).await;
    let (first, second) = (go(&gate), {
        tokio::time::advance(SECOND).await;
        go(&gate)
    });
    assert_eq!(gate.refused(&place(), ask(1), Some(&first), SECOND * 60), HeldRetry::Now);
    assert_eq!(gate.refused(&place(), ask(1), Some(&second), SECOND), HeldRetry::Now);
    assert!(gate.status()[0].opens_in() >= Some(SECOND * 59), "{:?}", gate.status());
}

#[tokio::test(start_paused = true)]
async fn one_refusal_among_many_holds_nothing_but_its_own_request() {
    let gate = RetryGate::new();
    gate.refused(&place(), ask(1), None, SECOND);
    tokio::time::advance(SECOND * 2).await;
    for _ in 0..20 {
        go(&gate).accepted();
        tokio::time::advance(SECOND).await;
    }
    assert_eq!(gate.refused(&place(), ask(1), Some(&go(&gate)), SECOND * 9), HeldRetry::Later);
    assert_eq!(gate.status()[0].opens_in(), None);
    tokio::time::advance(SECOND).await;
    go(&gate).accepted();
}

#[tokio::test(start_paused = true)]
async fn what_is_accepted_beyond_the_pace_ends_the_pace() {
    let gate = RetryGate::new();
    gate.refused(&place(), ask(1), None, SECOND * 60);
    let beyond = || match gate.admit(&place(), GateAsk { longest: SECOND, ..ask(0) }) {
        Ok(Some(pass)) => pass,
        Ok(None) | Err(_) => panic!("it cannot wait"),
    };
    for _ in 0..2 {
        assert!(gate.admit(&place(), ask(0)).is_err());
        beyond().accepted();
    }
    let pass = go(&gate);
    assert_eq!(gate.refused(&place(), ask(1), Some(&pass), SECOND), HeldRetry::No, "a retry like any other");
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_one_path_holds_no_other() {
    let gate = RetryGate::new();
    let (search, items) = (Uri::from_static("/search"), Uri::from_static("/items"));
    let of = |uri, retries| GateAsk { kind: Some(RequestKind::of(uri, &Method::GET)), ..ask(retries) };
    gate.refused(&place(), of(&search, 1), None, SECOND * 9);
    gate.refused(&place(), of(&search, 1), None, SECOND * 9);
    let Err(waiting) = gate.admit(&place(), of(&items, 0)) else { panic!("it is about all") };
    for _ in 0..5 {
        let Ok(Some(pass)) = gate.admit(&place(), GateAsk { longest: SECOND, ..of(&items, 0) }) else {
            panic!("it cannot wait")
        };
        pass.accepted();
    }
    assert_eq!(gate.status()[0].part(), Some("search"));
    assert!(matches!(gate.admit(&place(), of(&items, 0)), Ok(None)));
    assert!(gate.admit(&place(), of(&search, 0)).is_err());
    let start = clock::now();
    let mut waiting = waiting;
    std::future::poll_fn(|cx| waiting.poll(cx)).await;
    assert_eq!(clock::now(), start, "what waited goes on");
    // Until something else is refused, too.
    assert_eq!(gate.refused(&place(), of(&items, 1), None, SECOND * 9), HeldRetry::Now);
    assert_eq!(gate.status()[0].part(), None);
}

#[tokio::test(start_paused = true)]
async fn the_turn_of_a_request_that_still_waits_for_itself_is_not_lost() {
    let gate = RetryGate::new();
    gate.refused(&place(), ask(1), None, SECOND);
    let Err(mut resting) = gate.admit(&place(), GateAsk { least: SECOND * 10, ..ask(2) }) else {
        panic!("it is closed")
    };
    let start = clock::now();
    tokio::time::advance(SECOND * 2).await;
    let Err(mut fresh) = gate.admit(&place(), ask(0)) else { panic!("another one waits") };
    std::future::poll_fn(|cx| fresh.poll(cx)).await.accepted();
    assert_eq!(clock::now() - start, SECOND * 2, "its turn is at once");
    std::future::poll_fn(|cx| resting.poll(cx)).await.accepted();
    assert_eq!(clock::now() - start, SECOND * 10);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_time_to_be_held_does_not_look_all_the_time() {
    let gate = RetryGate::new();
    gate.refused(&place(), ask(1), None, SECOND);
    tokio::time::advance(SECOND * 2).await;
    for _ in 0..20 {
        go(&gate).accepted();
        tokio::time::advance(SECOND / 5).await;
    }
    for _ in 0..2 {
        tokio::time::advance(SECOND).await;
        gate.refused(&place(), ask(1), Some(&go(&gate)), SECOND);
    }
    tokio::time::advance(SECOND).await;
    let third = go(&gate);
    let Err(mut waiting) = gate.admit(&place(), GateAsk { hold: Duration::ZERO, ..ask(0) }) else {
        panic!("its turn is later")
    };
    // The gate closes anew: to go against that would be in vain.
    gate.refused(&place(), ask(1), Some(&third), SECOND * 9);
    let (start, looks) = (clock::now(), std::cell::Cell::new(0));
    std::future::poll_fn(|cx| {
        looks.set(looks.get() + 1);
        assert!(looks.get() < 200, "after {:?}", clock::now() - start);
        waiting.poll(cx)
    })
    .await;
    assert!(clock::now() - start >= SECOND * 9);
}
