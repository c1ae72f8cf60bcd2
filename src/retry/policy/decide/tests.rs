use http::Method;
use http::header::RETRY_AFTER;
use proptest::prelude::*;

use super::*;
use crate::headers::profile::RateLimitProfile;
use crate::retry::policy::builder::RetryPolicy;
use crate::retry::policy::view::EarlierAttempts;
use crate::retry::replay_body::NotReplayable;

mod vectors;

type Decision = Result<Replayed, StopReason>;

const DRAW: f64 = 0.5;

impl RetryPolicy {
    /// The status is that of the view.
    fn decide(&self, view: &OutcomeView<'_>, draw: f64) -> Decision {
        let rules = self.rules();
        let decision = rules.decide(view, &rules.read(view), &Chance::drawn(draw));
        decision.map(|replayed| {
            assert_eq!(replayed.status, view.outcome.status());
            Replayed { status: None, ..replayed }
        })
    }
}

impl<'a> OutcomeView<'a> {
    fn new<B>(response: &'a Response<B>, method: &Method) -> Self {
        Self::of(Outcome::of(response, None), Repeatability::of_method(method))
    }

    fn failed(failure: Failure, method: &Method) -> Self {
        Self::of(Outcome::Failure(failure, None), Repeatability::of_method(method))
    }

    fn idempotency_key(self) -> Self {
        Self { repeat: Repeatability::Keyed, ..self }
    }

    fn body(self, body: Result<(), NotReplayable>) -> Self {
        Self { body, ..self }
    }

    fn retries(self, retries: u32) -> Self {
        Self { earlier: EarlierAttempts { retries, backoffs: retries, ..self.earlier }, ..self }
    }

    fn backoffs(self, backoffs: u32) -> Self {
        Self { earlier: EarlierAttempts { backoffs, ..self.earlier }, ..self }
    }

    fn auth_replays(self, auth_replays: u32) -> Self {
        Self { earlier: EarlierAttempts { auth_replays, ..self.earlier }, ..self }
    }

    fn waited(self, waited: Duration) -> Self {
        Self { earlier: EarlierAttempts { waited, ..self.earlier }, ..self }
    }

    fn time_left(self, time_left: Option<Duration>) -> Self {
        Self { time_left, ..self }
    }

    fn options(self, options: Option<&'a RetryOptions>) -> Self {
        Self { options, ..self }
    }
}

fn answer(status: u16, headers: &[(&'static str, &str)]) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        response.headers_mut().append(*name, value.parse().unwrap());
    }
    response
}

fn refused(verdict: RejectionVerdict) -> Response<()> {
    let mut response = answer(401, &[]);
    response.extensions_mut().insert(TokenRejected::new(verdict, Some("the_code".into()), None));
    response
}

fn decide(view: &OutcomeView<'_>) -> Decision {
    RetryPolicy::default().decide(view, DRAW)
}

fn replay(delay_ms: u64, reason: ReplayReason, requested_ms: Option<u64>) -> Decision {
    let requested_delay = requested_ms.map(Duration::from_millis);
    let requested_by = requested_delay.map(|_| RETRY_AFTER);
    let delay = Duration::from_millis(delay_ms);
    Ok(Replayed { status: None, reason, delay, requested_delay, requested_by })
}

fn stop<T>(reason: StopReason) -> Result<T, StopReason> {
    Err(reason)
}

#[test]
fn what_is_retried_when() {
    use ReplayReason::{Throttled, Unavailable};
    let strict = RetryOptions::new().strict_methods(true);
    let statuses = [408, 425, 500, 502, 503, 504].map(|code| StatusCode::from_u16(code).unwrap());
    let internal = RetryPolicy::builder().unavailable_statuses(statuses).build().unwrap();
    let not_idempotent = Err(StopReason::NotIdempotent);
    for status in (200..600).filter_map(|code| StatusCode::from_u16(code).ok()) {
        let response = answer(status.as_u16(), &[]);
        for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "POST", "PATCH", "LINK", "get"] {
            let repeatable = !matches!(method, "POST" | "PATCH" | "LINK" | "get");
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let view = OutcomeView::new(&response, &method);
            let keyed = view.clone().idempotency_key();
            let unless_repeatable = |yes: Decision| if repeatable { yes } else { not_idempotent.clone() };
            let (plain, with_key, strictly) = match status.as_u16() {
                429 => {
                    let yes = replay(375, Throttled, None);
                    (yes.clone(), yes.clone(), unless_repeatable(yes))
                }
                // Too early, so the server did not dare to do it.
                425 => {
                    let yes = replay(375, Unavailable, None);
                    (yes.clone(), yes.clone(), unless_repeatable(yes))
                }
                408 | 502..=504 | 520..=524 | 529 => {
                    let yes = replay(375, Unavailable, None);
                    (unless_repeatable(yes.clone()), yes.clone(), unless_repeatable(yes))
                }
                _ => {
                    let no = Err(StopReason::Final);
                    (no.clone(), no.clone(), no)
                }
            };
            assert_eq!(decide(&view), plain, "{method} {status}");
            assert_eq!(decide(&keyed), with_key, "{method} {status} with a key");
            assert_eq!(decide(&view.clone().options(Some(&strict))), strictly, "{method} {status} strictly");
            if status == StatusCode::INTERNAL_SERVER_ERROR {
                let yes = unless_repeatable(replay(375, Unavailable, None));
                assert_eq!(internal.decide(&view, DRAW), yes);
            }
        }
    }
}

#[test]
fn a_refused_token_is_replayed_at_once_and_once_whatever_the_method() {
    for verdict in [RejectionVerdict::Invalidated, RejectionVerdict::Superseded] {
        let response = refused(verdict);
        let view = OutcomeView::new(&response, &Method::POST).retries(3).options(None);
        assert_eq!(decide(&view), replay(0, ReplayReason::TokenRejected, None));
        assert_eq!(decide(&view.auth_replays(1)), Err(StopReason::AuthReplaysExhausted));
    }
}

#[test]
fn without_the_marker_a_401_is_an_answer_like_any_other() {
    let response = answer(401, &[("www-authenticate", "Bearer error=\"invalid_token\"")]);
    assert_eq!(decide(&OutcomeView::new(&response, &Method::GET)), Err(StopReason::Final));
}

#[test]
fn a_marker_that_does_not_blame_the_token_stops() {
    let response = refused(RejectionVerdict::NotRefreshable);
    let error = Some("the_code".to_owned());
    let expected = Err(StopReason::ChallengeNotRefreshable { error });
    assert_eq!(decide(&OutcomeView::new(&response, &Method::GET)), expected);
    let response = refused(RejectionVerdict::Braked);
    assert_eq!(decide(&OutcomeView::new(&response, &Method::GET)), Err(StopReason::Braked));
}

#[test]
fn further_replays_with_a_new_token_wait() {
    let policy =
        RetryPolicy::builder().auth_replays(3).auth_replay_delay(Duration::from_secs(2)).build().unwrap();
    let response = refused(RejectionVerdict::Invalidated);
    let decide =
        |replays| policy.decide(&OutcomeView::new(&response, &Method::GET).auth_replays(replays), DRAW);
    assert_eq!(decide(0), replay(0, ReplayReason::TokenRejected, None));
    assert_eq!(decide(1), replay(2100, ReplayReason::TokenRejected, None));
    assert_eq!(decide(2), replay(2100, ReplayReason::TokenRejected, None));
    assert_eq!(decide(3), Err(StopReason::AuthReplaysExhausted));
}

#[test]
fn a_refused_token_from_before_the_last_refusal_does_not_count_once() {
    let now = crate::clock::now().into_std();
    let of = |obtained| {
        let mut response = answer(401, &[]);
        let refused = TokenRejected::new(RejectionVerdict::Invalidated, None, None).of_token(7, obtained);
        response.extensions_mut().insert(refused);
        response
    };
    let (old, new) = (of(now - Duration::from_secs(1)), of(now));
    let after = |response, auth_replays, refused_at| {
        let view = OutcomeView::new(response, &Method::POST);
        let earlier = EarlierAttempts { auth_replays, refused_at, ..EarlierAttempts::default() };
        decide(&OutcomeView { earlier, ..view })
    };
    let (again, stop) = (replay(0, ReplayReason::TokenRejected, None), Err(StopReason::AuthReplaysExhausted));
    assert_eq!(after(&old, 0, None), again);
    assert_eq!(after(&old, 1, Some(now)), again);
    assert_eq!(after(&old, 2, Some(now)), stop);
    assert_eq!(after(&new, 1, Some(now)), stop);
    // There was no refusal before: it is not known what it is older than.
    assert_eq!(after(&old, 1, None), stop);
}

#[test]
fn the_caller_may_forbid_it() {
    fn decide(response: &Response<()>, options: &RetryOptions) -> Decision {
        self::decide(&OutcomeView::new(response, &Method::GET).options(Some(options)))
    }
    let (unavailable, refused) = (answer(503, &[]), refused(RejectionVerdict::Invalidated));
    let turned_off = Err(StopReason::TurnedOff);
    assert_eq!(decide(&unavailable, &RetryOptions::never()), turned_off);
    assert_eq!(decide(&refused, &RetryOptions::never()), turned_off);
    assert_eq!(decide(&refused, &RetryOptions::new().auth_replay(false)), turned_off);
    assert_eq!(decide(&answer(200, &[]), &RetryOptions::never()), Err(StopReason::Final));
    let none = RetryOptions::new().max_retries(0);
    assert_eq!(decide(&unavailable, &none), Err(StopReason::AttemptsExhausted));
    assert_eq!(decide(&refused, &none), replay(0, ReplayReason::TokenRejected, None));
}

#[test]
fn a_body_that_cannot_be_sent_again_stops() {
    let stopped = Err(StopReason::NotReplayable { cause: NotReplayable::TooLong });
    for response in [answer(429, &[]), answer(503, &[]), refused(RejectionVerdict::Invalidated)] {
        let view = OutcomeView::new(&response, &Method::PUT).body(Err(NotReplayable::TooLong));
        assert_eq!(decide(&view), stopped);
    }
}

#[test]
fn a_hint_wins_over_the_policy_and_is_only_lengthened() {
    let wait =
        |hint: &str| match decide(&OutcomeView::new(&answer(429, &[("retry-after", hint)]), &Method::GET)) {
            Ok(Replayed { delay, requested_delay, .. }) => Ok((delay.as_millis(), requested_delay)),
            Err(stop) => Err(stop),
        };
    let asked = |secs| Some(Duration::from_secs(secs));
    assert_eq!(wait("0"), Ok((105, asked(0))));
    assert_eq!(wait("1"), Ok((1_050, asked(1))));
    assert_eq!(wait("10"), Ok((10_500, asked(10))));
    assert_eq!(wait("60"), Ok((60_500, asked(60))));
    assert_eq!(wait("61"), stop(StopReason::DelayExceedsCap { requested: Duration::from_secs(61) }));
    assert!(matches!(wait("18446744073709551615"), Err(StopReason::DelayExceedsCap { .. })));
    assert_eq!(wait("soon"), Ok((375, None)));
}

#[test]
fn the_servers_own_date_is_what_a_date_is_measured_against() {
    // The local clock is half a century off and does not matter.
    let dated = answer(
        503,
        &[("date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")],
    );
    let expected = replay(10_500, ReplayReason::Unavailable, Some(10_000));
    assert_eq!(decide(&OutcomeView::new(&dated, &Method::GET)), expected);
}

#[test]
fn a_wait_that_does_not_fit_is_not_begun() {
    let response = answer(429, &[("retry-after", "10")]);
    let view = OutcomeView::new(&response, &Method::GET);
    let needed = Duration::from_millis(10_500);
    let left = |millis| view.clone().time_left(Some(Duration::from_millis(millis)));
    assert_eq!(decide(&left(10_500)), Err(StopReason::DeadlineTooClose { needed }));
    assert_eq!(decide(&left(10_501)), replay(10_500, ReplayReason::Throttled, Some(10_000)));
    let waited = |millis| view.clone().waited(Duration::from_millis(millis));
    assert_eq!(decide(&waited(109_501)), Err(StopReason::WaitsExhausted { needed }));
    assert_eq!(decide(&waited(109_500)), replay(10_500, ReplayReason::Throttled, Some(10_000)));
    // With a deadline, that alone counts.
    assert!(matches!(decide(&left(60_000).waited(Duration::from_secs(500))), Ok(Replayed { .. })));
    // A deadline that has passed forbids even a replay at once.
    let refused = refused(RejectionVerdict::Invalidated);
    let late = OutcomeView::new(&refused, &Method::GET).time_left(Some(Duration::ZERO));
    let needed = Duration::ZERO;
    assert_eq!(decide(&late), Err(StopReason::DeadlineTooClose { needed }));
}

#[test]
fn a_refusal_by_profile_is_decided_as_a_429() {
    let github = RetryPolicy::builder().rate_limit_profile(RateLimitProfile::github());
    let strict = github.clone().strict_methods(true).build().unwrap();
    let github = github.build().unwrap();
    let limited = answer(403, &[("retry-after", "10")]);
    let view = OutcomeView::new(&limited, &Method::POST);
    assert_eq!(github.decide(&view, DRAW), replay(10_500, ReplayReason::Throttled, Some(10_000)));
    assert_eq!(strict.decide(&view, DRAW), Err(StopReason::NotIdempotent));
    assert_eq!(decide(&view), Err(StopReason::NotIdempotent));
    let forbidden = answer(403, &[]);
    assert_eq!(github.decide(&OutcomeView::new(&forbidden, &Method::GET), DRAW), Err(StopReason::Final));
    // The wait without a hint grows without overflow, and stays within what all waits may be.
    let unhinted = answer(429, &[]);
    for retries in [2, 32, u32::MAX - 1] {
        let patient = RetryPolicy::builder()
            .max_retries(u32::MAX)
            .rate_limit_profile(RateLimitProfile::github().unhinted_wait(Duration::MAX))
            .build()
            .unwrap();
        let decision = patient.decide(&OutcomeView::new(&unhinted, &Method::GET).retries(retries), DRAW);
        assert!(matches!(decision, Err(StopReason::WaitsExhausted { .. })), "{decision:?}");
    }
}

#[test]
fn the_thousandth_attempt_neither_overflows_nor_goes_at_once() {
    let policy = RetryPolicy::builder().max_retries(u32::MAX).build().unwrap();
    let response = answer(429, &[]);
    for retries in [63, 64, 1_000, u32::MAX - 1] {
        let decision = policy.decide(&OutcomeView::new(&response, &Method::GET).retries(retries), DRAW);
        assert_eq!(decision, replay(22_500, ReplayReason::Throttled, None));
    }
}

// --- Failures ---

#[test]
fn which_failures_are_retried_for_which_requests() {
    let again = |reason| Some(replay(375, reason, None));
    let policy = RetryPolicy::builder().strict_methods(true).build().unwrap();
    for (failure, get, post) in [
        (Failure::Unsent, again(ReplayReason::Unsent), again(ReplayReason::Unsent)),
        (Failure::Ambiguous, again(ReplayReason::Ambiguous), None),
        (Failure::Fatal, Some(Err(StopReason::Failed)), Some(Err(StopReason::Failed))),
    ] {
        let post = post.unwrap_or(Err(StopReason::NotIdempotent));
        // Whether a 429 is believed has nothing to do with it.
        for policy in [&RetryPolicy::default(), &policy] {
            let view = OutcomeView::failed(failure, &Method::POST);
            assert_eq!(policy.decide(&view, DRAW), post);
            assert_eq!(Some(policy.decide(&view.idempotency_key(), DRAW)), get);
            assert_eq!(Some(policy.decide(&OutcomeView::failed(failure, &Method::GET), DRAW)), get);
        }
    }
}

#[test]
fn failures_keep_to_the_same_bounds_as_answers() {
    let view = OutcomeView::failed(Failure::Unsent, &Method::GET);
    assert_eq!(decide(&view.clone().retries(1)), replay(750, ReplayReason::Unsent, None));
    assert_eq!(decide(&view.clone().retries(3)), Err(StopReason::AttemptsExhausted));
    let cause = NotReplayable::TooLong;
    assert_eq!(decide(&view.clone().body(Err(cause))), Err(StopReason::NotReplayable { cause }));
    let needed = Duration::from_millis(375);
    let late = view.clone().time_left(Some(needed));
    assert_eq!(decide(&late), Err(StopReason::DeadlineTooClose { needed }));
    let never = RetryOptions::never();
    assert_eq!(decide(&view.options(Some(&never))), Err(StopReason::TurnedOff));
}

// --- Settings ---

#[test]
fn the_statuses_are_the_callers_to_choose() {
    let policy = RetryPolicy::builder()
        .throttled_statuses([StatusCode::IM_A_TEAPOT, StatusCode::LOCKED])
        .unavailable_statuses([StatusCode::LOCKED, StatusCode::NOT_FOUND])
        .build()
        .unwrap();
    let decide = |status, method| policy.decide(&OutcomeView::new(&answer(status, &[]), &method), DRAW);
    let (throttled, unavailable) = (ReplayReason::Throttled, ReplayReason::Unavailable);
    assert_eq!(decide(418, Method::POST), replay(375, throttled, None));
    assert_eq!(decide(423, Method::POST), replay(375, throttled, None));
    assert_eq!(decide(404, Method::GET), replay(375, unavailable, None));
    assert_eq!(decide(404, Method::POST), Err(StopReason::NotIdempotent));
    for status in [429, 408, 425, 500, 502, 503, 504] {
        assert_eq!(decide(status, Method::GET), Err(StopReason::Final), "{status}");
    }
    // A quota of which nothing is said is used up, as on a 429.
    let quota = answer(423, &[("x-ratelimit-reset", "10")]);
    let decision = policy.decide(&OutcomeView::new(&quota, &Method::POST), DRAW).unwrap();
    assert_eq!((decision.reason, decision.requested_delay), (throttled, Some(Duration::from_secs(10))));
    let quota = answer(404, &[("x-ratelimit-reset", "10")]);
    let decision = policy.decide(&OutcomeView::new(&quota, &Method::GET), DRAW);
    assert_eq!(decision, replay(375, unavailable, None));
}

// --- gRPC ---

/// A response of gRPC, with what is in its headers.
fn call(status: u16, headers: &[(&'static str, &str)]) -> Response<()> {
    let mut response = answer(status, headers);
    *response.version_mut() = Version::HTTP_2;
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    response
}

#[test]
fn a_grpc_status_counts_in_headers_and_in_trailers_and_only_for_grpc() {
    let again = |reason| replay(375, reason, None);
    for (code, expected) in [
        ("8", again(ReplayReason::Throttled)),
        ("14", again(ReplayReason::Unavailable)),
        ("0", Err(StopReason::Final)),
        ("4", Err(StopReason::Final)),
        ("7", Err(StopReason::Final)),
        ("16", Err(StopReason::Final)),
        ("abc", Err(StopReason::Final)),
    ] {
        let said = call(200, &[("grpc-status", code)]);
        // Every call is a POST.
        assert_eq!(decide(&OutcomeView::new(&said, &Method::POST)), expected, "{code}");
        let open = call(200, &[]);
        let at_end = |response: &Response<()>| {
            decide(&OutcomeView::of(Outcome::of(response, Some(said.headers())), Repeatability::Unsafe))
        };
        assert_eq!(at_end(&open), expected, "{code}");
        let plain = answer(200, &[("grpc-status", code)]);
        assert_eq!(at_end(&plain), Err(StopReason::Final));
    }
    let strict = RetryPolicy::builder().strict_methods(true).build().unwrap();
    let busy = call(200, &[("grpc-status", "14")]);
    let decision = strict.decide(&OutcomeView::new(&busy, &Method::POST), DRAW);
    assert_eq!(decision, Err(StopReason::NotIdempotent));
}

#[test]
fn a_pushback_counts_for_one_attempt_and_raises_no_limit() {
    let pushed = call(200, &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "60000")]);
    let view = OutcomeView::new(&pushed, &Method::POST);
    assert!(matches!(decide(&view), Ok(Replayed { delay, .. }) if delay == Duration::from_secs(60)));
    assert_eq!(decide(&view.retries(3)), Err(StopReason::AttemptsExhausted));
    let requested = Duration::from_millis(60_001);
    let long = call(200, &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "60001")]);
    let view = OutcomeView::new(&long, &Method::POST);
    assert_eq!(decide(&view), Err(StopReason::DelayExceedsCap { requested }));
    // Afterwards the policy's own waits begin anew.
    let busy = call(200, &[("grpc-status", "14")]);
    let after = OutcomeView::new(&busy, &Method::POST).retries(2);
    assert!(matches!(decide(&after), Ok(Replayed { delay, .. }) if delay.as_millis() == 1500));
    assert!(matches!(decide(&after.backoffs(0)), Ok(Replayed { delay, .. }) if delay.as_millis() == 375));
}

/// One response of a server that says anything.
#[derive(Clone, Debug)]
struct Said {
    status: u16,
    retry_after: Option<String>,
    verdict: Option<RejectionVerdict>,
}

fn said() -> impl Strategy<Value = Said> {
    let status = prop_oneof![3 => Just(429_u16), 3 => Just(503), 3 => Just(401), 1 => 200..600_u16];
    let hint = prop_oneof![
        (0..90_u64).prop_map(|secs| secs.to_string()),
        "[0-9]{0,25}",
        Just("Sun, 06 Nov 1994 08:49:37 GMT".to_owned()),
        "[ -~]{0,12}",
    ];
    let verdict = prop_oneof![
        Just(RejectionVerdict::Invalidated),
        Just(RejectionVerdict::Superseded),
        Just(RejectionVerdict::NotRefreshable),
        Just(RejectionVerdict::Braked),
    ];
    (status, proptest::option::of(hint), proptest::option::of(verdict)).prop_map(
        |(status, retry_after, verdict)| Said {
            status,
            retry_after,
            verdict: verdict.filter(|_| status == 401),
        },
    )
}

proptest! {
    /// Whatever a server says, in whatever order: sends, single waits and their sum stay bounded, no wait is begun that
    /// misses the deadline, and no hint is cut short.
    #[test]
    fn whatever_a_server_says_sends_and_waits_are_bounded(
        answers in proptest::collection::vec(said(), 1..40),
        max_retries in 0..6_u32,
        auth_replays in 1..=3_u32,
        deadline in proptest::option::of(0..200_000_u64),
        draws in proptest::collection::vec(0.0..1.0_f64, 40),
    ) {
        let policy =
            RetryPolicy::builder().max_retries(max_retries).auth_replays(auth_replays).build().unwrap();
        let deadline = deadline.map(Duration::from_millis);
        let (mut retries, mut replays, mut waited) = (0, 0, Duration::ZERO);
        for (said, draw) in answers.iter().zip(draws) {
            let mut response = answer(said.status, &[]);
            if let Some(value) = said.retry_after.as_ref().and_then(|value| value.parse().ok()) {
                response.headers_mut().insert(RETRY_AFTER, value);
            }
            if let Some(verdict) = said.verdict {
                response.extensions_mut().insert(TokenRejected::new(verdict, None, None));
            }
            let view = OutcomeView::new(&response, &Method::GET)
                .retries(retries)
                .auth_replays(replays)
                .waited(waited)
                .time_left(deadline.map(|deadline| deadline.saturating_sub(waited)));
            let decision = policy.decide(&view, draw);
            prop_assert_eq!(&decision, &policy.decide(&view, draw), "not a function of its arguments");
            let Ok(Replayed { delay, reason, requested_delay, .. }) = decision else { break };
            match reason {
                ReplayReason::TokenRejected => replays += 1,
                _ => {
                    retries += 1;
                    let least = requested_delay.unwrap_or(Duration::from_millis(250));
                    prop_assert!(delay >= least.max(Duration::from_millis(100)), "{delay:?} of {least:?}");
                    prop_assert!(delay <= Duration::from_secs(61), "{delay:?}");
                }
            }
            waited += delay;
            prop_assert!(waited <= deadline.unwrap_or(Duration::from_secs(120)));
        }
        prop_assert!(retries <= max_retries && replays <= auth_replays);
    }
}
