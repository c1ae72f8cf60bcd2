//! The properties of all targets, on stable: on the seeds, and on what a few changes make of them.
//!
//! Five hundred inputs each, or `FUZZ_CASES`.

use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};
use tower_oauth2_fuzz::{TARGETS, seeds};

/// What breaks readers: the marks of their grammars, ends of ranges, bytes that are no text.
const PIECES: [&[u8]; 26] = [
    b",",
    b";",
    b"=",
    b"\"",
    b"\\",
    b":",
    b" ",
    b"\t",
    b"\n",
    b"%",
    b"&",
    b"(",
    b")",
    b"0",
    b"9",
    b"-",
    b"+",
    b".",
    b"\x00",
    b"\x01",
    b"\x04",
    b"\xff",
    b"\xc3\xbc",
    b"\xe2\x80\x8b",
    b"18446744073709551616",
    b"2147483648",
];

/// One change of an input.
#[derive(Clone, Debug)]
enum Change {
    Replace(Index, u8),
    Insert(Index, &'static [u8]),
    Remove(Index, Index),
    Repeat(Index, Index),
    Append(Vec<u8>),
}

impl Change {
    fn any() -> impl Strategy<Value = Self> {
        let index = any::<Index>;
        prop_oneof![
            (index(), any::<u8>()).prop_map(|(at, byte)| Self::Replace(at, byte)),
            (index(), select(&PIECES[..])).prop_map(|(at, piece)| Self::Insert(at, piece)),
            (index(), index()).prop_map(|(from, to)| Self::Remove(from, to)),
            (index(), index()).prop_map(|(from, to)| Self::Repeat(from, to)),
            vec(any::<u8>(), 0..24).prop_map(Self::Append),
        ]
    }

    fn apply(&self, input: &mut Vec<u8>) {
        // One more than there are bytes, so that there always is a place.
        let places = input.len() + 1;
        let range = |one: &Index, other: &Index| {
            let (one, other) = (one.index(places), other.index(places));
            one.min(other)..one.max(other)
        };
        match self {
            Self::Replace(at, byte) => match input.get_mut(at.index(places)) {
                Some(place) => *place = *byte,
                None => input.push(*byte),
            },
            Self::Insert(at, piece) => {
                let at = at.index(places);
                input.splice(at..at, piece.iter().copied());
            }
            Self::Remove(from, to) => {
                input.drain(range(from, to));
            }
            Self::Repeat(from, to) => {
                let range = range(from, to);
                let (end, piece) = (range.end, input[range].to_vec());
                input.splice(end..end, piece);
            }
            Self::Append(bytes) => input.extend_from_slice(bytes),
        }
    }
}

/// An input that is shown as text.
#[derive(Clone)]
struct Input(Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

fn smoke(target: &str) {
    let (_, property) = TARGETS.into_iter().find(|known| known.0 == target).expect("a target");
    let seeds = seeds(target);
    seeds.iter().for_each(|seed| property(seed));

    let cases =
        std::env::var("FUZZ_CASES").map_or(500, |cases| cases.parse().expect("FUZZ_CASES is a number"));
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let input = (select(seeds), vec(Change::any(), 0..12)).prop_map(|(mut input, changes)| {
        changes.iter().for_each(|change| change.apply(&mut input));
        Input(input)
    });
    TestRunner::new(config)
        .run(&input, |input| {
            property(&input.0);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{target}: {error}"));
}

macro_rules! properties_hold {
    ($($target:ident)*) => {
        $(
            #[test]
            fn $target() {
                smoke(stringify!($target));
            }
        )*

        #[test]
        fn every_target_is_tried() {
            assert_eq!([$(stringify!($target)),*], TARGETS.map(|(name, _)| name));
        }
    };
}

properties_hold! {
    challenge claims grpc http_date metadata origin rate_limit redactor replay_body retry_after structured token_answer
}
