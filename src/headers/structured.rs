//! Structured fields (RFC 9651), as far as `RateLimit` needs them: lists and dictionaries, and of the values whole numbers.
//!
//! A field that breaks the grammar anywhere is ignored as a whole (RFC 9651 §4.2). Inner lists, dates and display strings,
//! which no form of `RateLimit` has, break it too. Nothing recurses, and every byte is looked at a fixed number of times.

use crate::text::is_tchar;

/// A bare item (RFC 9651 §3.3), as far as it is read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bare {
    Integer(i64),
    /// A string or a token: something that can be a name.
    Word,
    Other,
}

/// A member of a list or a dictionary, with its parameters in their order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Member<'a> {
    pub(super) value: Bare,
    params: Vec<(&'a [u8], Bare)>,
}

impl Member<'_> {
    /// Returns a parameter. Of several with its name the last counts (RFC 9651 §3.1.2).
    pub(super) fn param(&self, name: &str) -> Option<Bare> {
        last(&self.params, name).copied()
    }
}

/// Reads a list (RFC 9651 §4.2.1).
pub(super) fn list(field: &[u8]) -> Option<Vec<Member<'_>>> {
    members(field, Cursor::member)
}

/// Reads a dictionary (RFC 9651 §4.2.2).
pub(super) fn dictionary(field: &[u8]) -> Option<Vec<(&[u8], Member<'_>)>> {
    members(field, |cursor| {
        let key = cursor.key()?;
        let member = match cursor.accept(b'=') {
            true => cursor.member()?,
            false => Member { value: Bare::Other, params: cursor.params()? },
        };
        Some((key, member))
    })
}

/// Returns the value of a key. Of several the last counts.
pub(super) fn last<'v, T>(pairs: &'v [(&[u8], T)], name: &str) -> Option<&'v T> {
    pairs.iter().rev().find_map(|(key, value)| (*key == name.as_bytes()).then_some(value))
}

fn members<'a, T>(field: &'a [u8], member: impl Fn(&mut Cursor<'a>) -> Option<T>) -> Option<Vec<T>> {
    let mut cursor = Cursor { rest: field.trim_ascii() };
    let mut members = Vec::new();
    while !cursor.rest.is_empty() {
        members.push(member(&mut cursor)?);
        cursor.take(is_space);
        if cursor.rest.is_empty() {
            break;
        }
        cursor.expect(b',')?;
        cursor.take(is_space);
        if cursor.rest.is_empty() {
            // A comma promises another member.
            return None;
        }
    }
    Some(members)
}

// --- Cursor ---

/// The rest of a field. None from any step: the grammar broke.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !wanted(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn accept(&mut self, wanted: u8) -> bool {
        let there = self.rest.first() == Some(&wanted);
        if there {
            self.rest = &self.rest[1..];
        }
        there
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        self.accept(wanted).then_some(())
    }

    fn member(&mut self) -> Option<Member<'a>> {
        Some(Member { value: self.bare()?, params: self.params()? })
    }

    fn params(&mut self) -> Option<Vec<(&'a [u8], Bare)>> {
        let mut params = Vec::new();
        while self.accept(b';') {
            self.take(|byte| byte == b' ');
            let key = self.key()?;
            let value = if self.accept(b'=') { self.bare()? } else { Bare::Other };
            params.push((key, value));
        }
        Some(params)
    }

    fn key(&mut self) -> Option<&'a [u8]> {
        if !matches!(self.rest.first()?, b'a'..=b'z' | b'*') {
            return None;
        }
        Some(self.take(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*')))
    }

    fn bare(&mut self) -> Option<Bare> {
        match self.rest.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'*' | b'A'..=b'Z' | b'a'..=b'z' => {
                self.take(|byte| is_tchar(byte) || matches!(byte, b':' | b'/'));
                Some(Bare::Word)
            }
            b':' => self.bytes(),
            b'?' => {
                self.next();
                matches!(self.next()?, b'0' | b'1').then_some(Bare::Other)
            }
            _ => None,
        }
    }

    /// Reads an integer of at most 15 digits, or a decimal of at most 12 and 3 (RFC 9651 §4.2.4).
    fn number(&mut self) -> Option<Bare> {
        let negative = self.accept(b'-');
        let whole = self.take(|byte| byte.is_ascii_digit());
        if self.accept(b'.') {
            let decimals = self.take(|byte| byte.is_ascii_digit());
            let fits = (1..=12).contains(&whole.len()) && (1..=3).contains(&decimals.len());
            return fits.then_some(Bare::Other);
        }
        if !(1..=15).contains(&whole.len()) {
            return None;
        }
        let number = whole.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
        Some(Bare::Integer(if negative { -number } else { number }))
    }

    fn string(&mut self) -> Option<Bare> {
        self.expect(b'"')?;
        loop {
            match self.next()? {
                b'"' => return Some(Bare::Word),
                b'\\' => {
                    if !matches!(self.next()?, b'"' | b'\\') {
                        return None;
                    }
                }
                b' '..=b'~' => {}
                _ => return None,
            }
        }
    }

    /// Reads a byte sequence. Its bytes are not used here, so padding is not looked at.
    fn bytes(&mut self) -> Option<Bare> {
        self.expect(b':')?;
        self.take(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
        self.expect(b':')?;
        Some(Bare::Other)
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(field: &str) -> Option<Vec<Bare>> {
        Some(list(field.as_bytes())?.iter().map(|member| member.value).collect())
    }

    #[test]
    fn every_type_of_item_that_is_needed_is_known() {
        use Bare::{Integer, Other, Word};
        let all =
            "1, -0, 999999999999999, -1.5, 123456789012.123, \"a \\\"\\\\b\", a/b:c, *t, :YQ==:, ::, ?0, ?1";
        let words = [Word, Word, Word];
        let expected = [Integer(1), Integer(0), Integer(999_999_999_999_999), Other, Other]
            .into_iter()
            .chain(words)
            .chain([Other; 4]);
        assert_eq!(values(all), Some(expected.collect()));
        assert_eq!(values(""), Some(vec![]));
        assert_eq!(values("  a \t,\t b  "), Some(vec![Word, Word]));
    }

    #[test]
    fn what_breaks_the_grammar_is_no_list() {
        for broken in [
            ",",
            "a,",
            "a,,b",
            "a b",
            "a ;b",
            "a; b=",
            "a;B",
            "a;",
            "a;\tb",
            "-",
            "--1",
            "+1",
            "1.",
            "1.2345",
            ".5",
            "1234567890123456",
            "1234567890123.1",
            "\"a",
            "\"a\\b\"",
            "\"\u{e9}\"",
            "\"a\tb\"",
            ":a",
            ":a-:",
            "?2",
            "?",
            "%\"a\"",
            "@1",
            "(a b)",
            "a;b=()",
            "a=1",
            "{}",
            "é",
            "'a'",
        ] {
            assert_eq!(values(broken), None, "{broken}");
        }
    }

    #[test]
    fn of_two_parameters_or_keys_the_last_counts() {
        let members = list(b"\"x\";r=0;t=30; t=7;pk=:YQ==:;flag").unwrap();
        assert_eq!(
            (members[0].param("r"), members[0].param("t")),
            (Some(Bare::Integer(0)), Some(Bare::Integer(7)))
        );
        assert_eq!((members[0].param("flag"), members[0].param("q")), (Some(Bare::Other), None));
        let pairs = dictionary(b"a=1, b, c;x=2 ,a=3;y").unwrap();
        assert_eq!(last(&pairs, "a").map(|member| member.value), Some(Bare::Integer(3)));
        assert_eq!(last(&pairs, "c").and_then(|member| member.param("x")), Some(Bare::Integer(2)));
        assert!(last(&pairs, "d").is_none());
        for broken in ["a=", "A=1", "a=1,", "1=a", "a =1", "a= 1"] {
            assert!(dictionary(broken.as_bytes()).is_none(), "{broken}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(field in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (list(&field), dictionary(&field));
        }

        #[test]
        fn nothing_like_a_field_makes_it_panic(field in "[a-c0-9;=,.\"\\\\()@%:?* \t-]{0,60}") {
            let _ = (list(field.as_bytes()), dictionary(field.as_bytes()));
        }
    }
}
