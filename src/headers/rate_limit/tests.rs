use http::HeaderValue;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::headers::profile::tests::profile;
use crate::vectors;

const NOW: Duration = Duration::from_secs(1_700_000_000);
const NOW_TEXT: &str = "Tue, 14 Nov 2023 22:13:20 GMT";

fn headers<'a>(lines: impl IntoIterator<Item = (&'a str, &'a str)>) -> HeaderMap {
    let line = |(name, value): (&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    };
    let mut headers = HeaderMap::new();
    for (name, value) in lines.into_iter().map(line) {
        headers.append(name, value);
    }
    headers
}

/// Milliseconds and the header that asked for them.
fn read(
    profile: &RateLimitProfile,
    status: u16,
    headers: &HeaderMap,
    now: Duration,
) -> Option<(u64, String)> {
    let hint = hint(profile, StatusCode::from_u16(status).unwrap(), headers, now)?;
    Some((u64::try_from(hint.delay.as_millis()).unwrap(), hint.source.as_str().to_owned()))
}

/// What a 429 without a profile asks for.
fn asked<'a>(lines: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<(u64, String)> {
    read(&RateLimitProfile::generic(), 429, &headers(lines), NOW)
}

fn wait(name: &str, value: &str) -> Option<u64> {
    asked([(name, value)]).map(|(millis, _)| millis)
}

fn from(millis: u64, source: &str) -> Option<(u64, String)> {
    Some((millis, source.to_owned()))
}

#[test]
fn every_vector_of_rate_limits_passes() {
    let vectors = vectors::rows("ratelimit");
    for vector in &vectors {
        let (id, input) = (vector["id"].as_str().unwrap(), &vector["input"]);
        let lines = input["headers"].as_array().unwrap();
        let headers =
            headers(lines.iter().map(|line| (line[0].as_str().unwrap(), line[1].as_str().unwrap())));
        let status = u16::try_from(input["status"].as_u64().unwrap()).unwrap();
        let profile = profile(input["profile"].as_str().unwrap());
        let now = Duration::from_millis(input["now_unix_ms"].as_u64().unwrap());
        let got = read(&profile, status, &headers, now);
        let expect = &vector["expect"];
        let (millis, source) = got.clone().unzip();
        match expect["delay_ms"]["at_least"].as_u64() {
            Some(least) => assert!(millis.unwrap() >= least, "{id}: {got:?}"),
            None => assert_eq!(expect["delay_ms"], json!(millis), "{id}"),
        }
        assert_eq!(expect["source"], json!(source), "{id}");
        if let Some(refusal) = expect.get("is_rate_limit") {
            let refuses = got.is_some() && profile.refuses_with(StatusCode::FORBIDDEN);
            assert_eq!(*refusal, json!(refuses), "{id}");
        }
        // Genesys Cloud tells a count, which is waited for once it reaches the limit.
        if input["profile"] == "genesys" {
            let waits = |count: u64| {
                let mut headers = headers.clone();
                headers.remove("retry-after");
                headers.insert("inin-ratelimit-count", HeaderValue::from(count));
                read(&profile, 429, &headers, now).is_some()
            };
            let limit = expect["limit"].as_u64().unwrap();
            assert_eq!((waits(limit - 1), waits(limit)), (false, true), "{id}");
        }
        // Of several policies the longest exhausted one is waited for: each would be, if it were exhausted and alone.
        let Some(policies) = expect["policies"].as_array() else { continue };
        let items = lines.iter().flat_map(|line| line[1].as_str().unwrap().split(", "));
        for (policy, item) in policies.iter().zip(items) {
            let (name, rest) = item.split_once(";r=").unwrap();
            let exhausted = format!("{name};r=0{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()));
            let seconds = wait("ratelimit", &exhausted).map(|millis| millis / 1000);
            assert_eq!(policy["reset_s"], json!(seconds), "{id}: {exhausted}");
        }
    }
    assert_eq!(vectors.len(), 58);
}

#[test]
fn on_a_429_without_a_hint_github_is_waited_for_a_minute() {
    let wait = RateLimitProfile::github().wait_without_hint();
    assert_eq!(wait, Some(Duration::from_secs(60)));
}

#[test]
fn the_first_header_that_asks_for_a_wait_counts() {
    let mut all = vec![
        ("retry-after-ms", "1000"),
        ("x-ms-retry-after-ms", "2000"),
        ("retry-after", "3"),
        ("ratelimit", "\"a\";r=0;t=4"),
        ("ratelimit-reset", "5"),
        ("x-ratelimit-reset-after", "6"),
        ("x-ratelimit-retry-after", "7"),
        ("x-ratelimit-reset", "8"),
        ("x-rate-limit-reset", "9"),
        ("inin-ratelimit-reset", "10"),
    ];
    let mut expected = 0;
    while !all.is_empty() {
        expected += 1000;
        let (first, _) = all[0];
        let got = read(&RateLimitProfile::genesys(), 429, &headers(all.clone()), NOW);
        assert_eq!(got, from(expected, first));
        // One that cannot be read is passed over.
        all[0].1 = "soon";
        let got = read(&RateLimitProfile::genesys(), 429, &headers(all.clone()), NOW);
        assert_eq!(got.map(|(millis, _)| millis), (expected < 10_000).then_some(expected + 1000));
        all.remove(0);
    }
    assert_eq!(expected, 10_000);
}

#[test]
fn of_several_policies_the_longest_exhausted_one_counts() {
    let waits = |field: &str| wait("ratelimit", field);
    assert_eq!(waits("\"burst\";r=0;t=5, \"hour\";r=0;t=900"), Some(900_000));
    assert_eq!(waits("\"burst\";r=0;t=5, \"hour\";r=1;t=900"), Some(5_000));
    assert_eq!(waits("\"burst\";r=3;t=5, \"hour\";r=1;t=900"), None);
    let lines = [("ratelimit", "\"a\";r=0;t=5"), ("ratelimit", "\"b\";r=0;t=12")];
    assert_eq!(asked(lines), from(12_000, "ratelimit"));
}

#[test]
fn a_malformed_rate_limit_field_is_ignored_as_a_whole() {
    for broken in [
        "\"a\";r=0;t=5, \"b\";r=0;t=x, \"c\"",
        "\"a\";r=0;t=5, \"b\";r=0;t=\"9\"",
        "\"a\";r=0;t=5, \"b\";r=-1;t=9",
        "\"a\";r=0;t=5, \"b\";r;t=9",
        "\"a\";r=0;t=5, 7;r=0;t=9",
        "\"a\";r=0;t=5, (\"b\");r=0;t=9",
        "\"a\";r=0;t=5,",
        "limit=1, remaining=0, reset=5,",
        "limit=1, remaining=0, reset=5.5",
        "limit=1, remaining=x, reset=5",
        "",
    ] {
        assert_eq!(wait("ratelimit", broken), None, "{broken}");
    }
    // One bad line breaks the field, and so do bytes that no structured field has.
    assert_eq!(asked([("ratelimit", "\"a\";r=0;t=5"), ("ratelimit", "\"b")]), None);
    let mut headers = headers([("ratelimit", "\"a\";r=0;t=5")]);
    headers.append("ratelimit", HeaderValue::from_bytes(b"\"\xff\"").unwrap());
    assert_eq!(read(&RateLimitProfile::generic(), 429, &headers, NOW), None);
}

#[test]
fn the_window_of_a_policy_is_no_wait() {
    assert_eq!(wait("ratelimit-policy", "\"a\";q=0;w=60"), None);
}

#[test]
fn a_quota_counts_where_nothing_is_left_or_a_429_leaves_it_open() {
    let read = |status, left: Option<&str>| {
        let left = left.map(|left| ("x-ratelimit-remaining", left));
        let headers = headers([("x-ratelimit-reset", "5")].into_iter().chain(left));
        read(&RateLimitProfile::generic(), status, &headers, NOW).is_some()
    };
    for (left, on_429, on_503) in [
        (Some("0"), true, true),
        (Some("00"), true, true),
        (Some("3"), false, false),
        (Some("99999999999999999999999"), false, false),
        (Some("unlimited"), true, false),
        (Some("-1"), true, false),
        (Some("0, 3"), true, true),
        (Some("0;w=1"), true, true),
        (Some(""), true, false),
        (None, true, false),
    ] {
        assert_eq!((read(429, left), read(503, left)), (on_429, on_503), "{left:?}");
        assert!(!read(200, left) && !read(302, left), "{left:?}");
    }
}

#[test]
fn the_quota_in_an_answer_from_a_cache_is_one_of_another_time() {
    for field in [("ratelimit", "\"a\";r=0;t=5"), ("ratelimit-reset", "5"), ("x-ratelimit-reset", "5")] {
        assert_eq!(asked([field, ("age", "12")]), None);
        assert_eq!(asked([field, ("age", "0")]), from(5_000, field.0));
        assert_eq!(asked([field, ("age", "12"), ("retry-after", "7")]), from(7_000, "retry-after"));
    }
}

#[test]
fn a_reset_is_read_in_every_form() {
    let reset = |value: &str| wait("x-ratelimit-reset", value);
    for (value, millis) in [
        ("0", 0),
        ("999999999", 999_999_999_000),
        ("1000000000", 0),
        ("1700000030", 30_000),
        ("1700000001.2501", 1_251),
        ("1700000002500", 2_500),
        ("50;foo=1", 50_000),
        ("5, 10", 10_000),
        ("1m30s", 90_000),
        ("12ms", 12),
        ("1h0m0.5s", 3_600_500),
        ("1500us", 1),
        ("2000µs", 2),
        ("3000000ns", 3),
        ("2023-11-14T22:13:40Z", 20_000),
        ("2023-11-14t22:13:20.0001z", 1),
        ("2023-11-15T00:13:21+02:00", 1_000),
        ("2023-11-14T19:43:22-02:30", 2_000),
        ("2000-02-29T00:00:00Z", 0),
        ("Tue, 14 Nov 2023 22:13:27 GMT", 7_000),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert("x-ratelimit-reset", HeaderValue::from_bytes(value.as_bytes()).unwrap());
        let got = read(&RateLimitProfile::generic(), 429, &headers, NOW);
        assert_eq!(got, from(millis, "x-ratelimit-reset"), "{value}");
    }
    for broken in [
        "",
        "-5",
        "+5",
        "1e3",
        "soon",
        "5 s",
        "5x",
        "s",
        "1m-3s",
        "1.s",
        "1m30",
        "5, soon",
        "2023-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2023-13-01T00:00:00Z",
        "2023-00-01T00:00:00Z",
        "2023-11-31T00:00:00Z",
        "2023-11-14T24:00:00Z",
        "2023-11-14T22:60:00Z",
        "2023-11-14T22:13:61Z",
        "2023-11-14T22:13:40",
        "2023-11-14T22:13:40+2:00",
        "2023-11-14T22:13:405Z",
        "2023-11-14T22:13:40.Z",
        "2023-11-14",
        "2023-11-14 22:13:40",
        "2023-11-14T22:13:40+020",
        "2023-11-14T22:13:40 0200",
        "1969-12-31T23:59:59Z",
        "T",
        "TZ",
        "2023-11-14T22:13:40+24:00",
        "Tue Nov 14 2023 23:13:50 GMT+0100 (Central European Standard Time)",
    ] {
        assert_eq!(reset(broken), None, "{broken}");
    }
}

#[test]
fn milliseconds_are_whole_or_decimal_and_never_negative() {
    for name in ["retry-after-ms", "x-ms-retry-after-ms"] {
        assert_eq!(wait(name, "350"), Some(350));
        assert_eq!(wait(name, "350.5"), Some(350));
        assert_eq!(wait(name, "5, 10"), Some(10));
        for broken in ["-1", "abc", "", "1s", "1e3", "\"5\""] {
            assert_eq!(wait(name, broken), None, "{broken}");
            assert_eq!(asked([(name, broken), ("retry-after", "2")]), from(2_000, "retry-after"));
        }
    }
}

#[test]
fn the_servers_own_date_is_the_base_of_its_resets() {
    for (date, expected) in
        [("Tue, 14 Nov 2023 22:13:10 GMT", 30_000), (NOW_TEXT, 20_000), ("nonsense", 20_000)]
    {
        for reset in ["1700000020", "1700000020000", "2023-11-14T22:13:40Z"] {
            let got = asked([("date", date), ("x-ratelimit-reset", reset)]);
            assert_eq!(got, from(expected, "x-ratelimit-reset"), "{date} {reset}");
        }
        assert_eq!(asked([("date", date), ("x-ratelimit-reset", "7")]), from(7_000, "x-ratelimit-reset"));
    }
}

#[test]
fn of_the_quotas_of_a_profile_the_longest_exhausted_one_counts() {
    let llm = RateLimitProfile::llm();
    let lines = [
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "1s"),
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-tokens", "6m0s"),
        ("anthropic-ratelimit-tokens-remaining", "7"),
        ("anthropic-ratelimit-tokens-reset", "2024-11-14T22:13:40Z"),
    ];
    assert_eq!(read(&llm, 429, &headers(lines), NOW), from(360_000, "x-ratelimit-reset-tokens"));
    assert_eq!(read(&RateLimitProfile::generic(), 429, &headers(lines), NOW), None);
}

#[test]
fn counted_quotas_need_both_counts() {
    let genesys = |status, used: Option<&'static str>, allowed: Option<&'static str>| {
        let used = used.map(|used| ("inin-ratelimit-count", used));
        let allowed = allowed.map(|allowed| ("inin-ratelimit-allowed", allowed));
        let headers = headers([("inin-ratelimit-reset", "21")].into_iter().chain(used).chain(allowed));
        read(&RateLimitProfile::genesys(), status, &headers, NOW).is_some()
    };
    assert!(genesys(429, Some("300"), Some("300")) && genesys(503, Some("301"), Some("300")));
    assert!(!genesys(429, Some("299"), Some("300")));
    assert!(genesys(429, Some("299"), None) && !genesys(503, Some("301"), None));
    assert!(genesys(429, None, Some("300")) && !genesys(503, None, Some("300")));
}

#[test]
fn a_profile_of_ones_own_is_read_like_the_named_ones() {
    let [delay, reset, left] = ["x-come-back", "x-renewal", "x-tickets"].map(HeaderName::from_static);
    let own = RateLimitProfile::generic().delay(delay).quota(reset, left);
    assert_eq!(read(&own, 503, &headers([("x-come-back", "2m")]), NOW), from(120_000, "x-come-back"));
    let lines = [("x-renewal", "9"), ("x-tickets", "0"), ("x-come-back", "3")];
    assert_eq!(read(&own, 429, &headers(lines), NOW), from(9_000, "x-renewal"));
    assert_eq!(read(&own, 429, &headers([("x-renewal", "9"), ("x-tickets", "1")]), NOW), None);
}

#[test]
fn the_longest_wait_can_be_added_to_any_clock_reading() {
    let farthest = u64::try_from(FARTHEST.as_millis()).unwrap();
    for (name, value) in [
        ("x-ratelimit-reset", "99999999999999999999999999"),
        ("x-ratelimit-reset", "9999-12-31T23:59:59Z"),
        ("x-ratelimit-reset", "99999999999999999999h99999999999999999999h"),
        ("retry-after-ms", "99999999999999999999999999"),
        ("ratelimit", "\"a\";r=0;t=999999999999999"),
        ("ratelimit", "limit=1, remaining=0, reset=999999999999999"),
    ] {
        let got = wait(name, value).unwrap();
        assert!((3_600_000..=farthest).contains(&got), "{name}: {value}: {got}");
    }
}

// Linear is some dozen milliseconds without optimisation; with the square of the length this would not end.
#[test]
fn reading_a_long_value_comes_to_an_end() {
    let size = 1 << 18;
    let fields =
        ["retry-after-ms", "retry-after", "ratelimit", "ratelimit-reset", "x-ratelimit-remaining", "age"];
    for hard in [
        ",", "a,", "1,", "\"", "\\", "a;a=", ";a", "(", "(a ", "1m", "1.", "Tue, ", "T", "a=1,", "%\"", ":",
        "9",
    ] {
        let value = hard.repeat(size / hard.len());
        let quoted = format!("\"{value}");
        let _ = asked(fields.iter().map(|name| (*name, value.as_str())));
        let _ = asked(fields.iter().map(|name| (*name, quoted.as_str())));
    }
}

/// Every header that is read, under any profile.
fn any_header() -> impl Strategy<Value = HeaderName> {
    const NAMES: &[&str] = &[
        "retry-after-ms",
        "x-ms-retry-after-ms",
        "retry-after",
        "ratelimit",
        "ratelimit-reset",
        "ratelimit-remaining",
        "x-ratelimit-reset-after",
        "x-ratelimit-retry-after",
        "x-ratelimit-reset",
        "x-ratelimit-remaining",
        "x-rate-limit-reset",
        "inin-ratelimit-reset",
        "inin-ratelimit-count",
        "inin-ratelimit-allowed",
        "x-ratelimit-reset-requests",
        "anthropic-ratelimit-tokens-reset",
        "date",
        "age",
    ];
    proptest::sample::select(NAMES).prop_map(HeaderName::from_static)
}

fn any_value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..60),
        "[0-9]{0,25}([.][0-9]{0,5})?".prop_map(String::into_bytes),
        "\"[a-z]{0,3}\"(;[rt]=-?[0-9]{0,17}){0,3}(, a;r=0;t=[0-9]{1,3})?".prop_map(String::into_bytes),
        "((limit|remaining|reset)=[0-9]{1,4},? ?){0,4}".prop_map(String::into_bytes),
        "([0-9.]{1,22}(h|m|s|ms|us|µs|ns|x)?){0,4}".prop_map(String::into_bytes),
        "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]*)?(Z|[+-][0-9]{2}:[0-9]{2}|é|.{0,7})"
            .prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever the headers say: no panic, nothing that overflows a clock, and nothing from what is no error.
    #[test]
    fn no_header_makes_it_panic_and_no_success_asks_for_a_wait(
        lines in proptest::collection::vec((any_header(), any_value()), 0..6),
        status in 100..1000_u16,
        name in proptest::sample::select(&["generic", "github", "genesys", "llm"][..]),
        now in prop_oneof![any::<u64>(), Just(NOW.as_secs())],
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.append(name, value);
            }
        }
        let profile = profile(name);
        for status in [status, 429] {
            let hint = hint(&profile, StatusCode::from_u16(status).unwrap(), &headers, Duration::from_secs(now));
            if let Some(hint) = hint {
                prop_assert!((400..600).contains(&status));
                prop_assert!(hint.delay <= FARTHEST);
                prop_assert!(headers.contains_key(hint.source));
            }
        }
    }

    #[test]
    fn a_written_timestamp_is_read_back(at in 0..253_402_300_800_u64, offset in -1439..1440_i64) {
        // The reference is httpdate's calendar, by way of its text.
        let local = at.checked_add_signed(offset * 60).filter(|local| *local < 253_402_300_800);
        prop_assume!(local.is_some());
        let text = httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(local.unwrap()));
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let month = 1 + months.iter().position(|month| *month == &text[8..11]).unwrap();
        let sign = if offset < 0 { '-' } else { '+' };
        let (hours, minutes) = (offset.abs() / 60, offset.abs() % 60);
        let text = format!(
            "{}-{month:02}-{}T{}{sign}{hours:02}:{minutes:02}", &text[12..16], &text[5..7], &text[17..25],
        );
        prop_assert_eq!(time::timestamp(&text), Some(Duration::from_secs(at)));
    }
}

#[test]
fn what_is_left_of_a_quota_is_read_of_any_response() {
    let genesys = ["inin-ratelimit-count", "inin-ratelimit-allowed", "inin-ratelimit-reset"];
    let told = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(name, value)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap())
        });
        let quota = quota(&RateLimitProfile::genesys(), &pairs.collect(), Duration::from_secs(1_800_000_000));
        quota.map(|quota| (quota.left, quota.renewed_in.as_secs()))
    };
    for (pairs, expected) in [
        (&[(genesys[0], "180"), (genesys[1], "300"), (genesys[2], "41")][..], Some((120, 41))),
        (&[(genesys[0], "301"), (genesys[1], "300"), (genesys[2], "41")], Some((0, 41))),
        (&[(genesys[0], "180"), (genesys[1], "300")], None),
        (&[(genesys[0], "180"), (genesys[2], "41")], None),
        (&[("x-ratelimit-remaining", "7"), ("x-ratelimit-reset", "30")], Some((7, 30))),
        (&[("ratelimit", "\"a\";r=50;t=30, \"b\";r=9;t=60")], Some((9, 60))),
        (&[("ratelimit", "limit=100, remaining=50, reset=5")], Some((50, 5))),
        (&[("ratelimit", "\"a\";r=50")], None),
        (&[("x-ratelimit-remaining", "7"), ("x-ratelimit-reset", "30"), ("age", "3")], None),
        // The one with least left counts.
        (
            &[("x-ratelimit-remaining", "7"), ("x-ratelimit-reset", "30"), ("ratelimit", "\"a\";r=2;t=9")],
            Some((2, 9)),
        ),
        (&[("retry-after", "7")], None),
    ] {
        assert_eq!(told(pairs), expected, "{pairs:?}");
    }
}

#[test]
fn points_in_time_and_spans_are_read_as_programs_print_them() {
    for (text, seconds) in [
        ("2023-11-14 22:14:20 +0000 UTC", 60),
        ("2023-11-15 00:14:20.25 +0200 UTC", 61),
        ("00:01:30", 90),
        ("1d2h", 93_600),
    ] {
        for name in ["retry-after", "x-ratelimit-reset"] {
            assert_eq!(wait(name, text).map(|millis| millis.div_ceil(1000)), Some(seconds), "{name}: {text}");
        }
    }
    for text in ["2023-11-14T22:14:20 UTC UTC", "01:30", "0:01:30", "-00:01:30", "00:01:30Z", "d"] {
        assert_eq!(wait("x-ratelimit-reset", text), None, "{text:?}");
    }
}
