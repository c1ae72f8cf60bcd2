//! `Link` (RFC 8288 §3): where a header says that the next page is.
//!
//! 1. Field lines are one list. Commas and semicolons stand in URLs and in quotes too, so this is one pass over the text.
//! 2. Of a parameter that stands there twice the first counts (§3.3). `rel` is a list of words, in any case.
//! 3. A link with an `anchor` speaks of another resource than the one that was asked for (§3.2), and is passed over.
//! 4. Where the grammar breaks, reading goes on behind the next comma.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::LINK;

/// Returns the target of the first link with this relation.
pub(super) fn target(headers: &HeaderMap, rel: &str) -> Option<String> {
    let lines = headers.get_all(LINK).iter().map(|line| text(line.as_bytes()));
    lines.into_iter().find_map(|line| Reader { rest: &line }.find(rel))
}

/// Encodes the bytes of a line that is not UTF-8: what they mean is for the server to say, which wrote them.
fn text(line: &[u8]) -> Cow<'_, str> {
    let encoded = |&byte: &u8| match byte.is_ascii() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    str::from_utf8(line).map_or_else(|_| line.iter().map(encoded).collect(), Cow::Borrowed)
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn find(mut self, wanted: &str) -> Option<String> {
        loop {
            self.rest = self.rest.trim_start_matches([',', ' ', '\t']);
            if self.rest.is_empty() {
                return None;
            }
            let Some(link) = self.link() else {
                self.skip_element();
                continue;
            };
            let is_wanted = |rel: &str| rel.split_whitespace().any(|word| word.eq_ignore_ascii_case(wanted));
            if !link.is_elsewhere && link.rel.as_deref().is_some_and(is_wanted) {
                return Some(link.target.to_owned());
            }
        }
    }

    /// Reads a link and its parameters, up to the comma behind them.
    fn link(&mut self) -> Option<Link<'a>> {
        let opened = self.rest.strip_prefix('<')?;
        let Some((target, rest)) = opened.split_once('>') else {
            // None behind it ends either, and to look for each would take a second for a long line.
            self.rest = "";
            return None;
        };
        self.rest = rest;
        let mut link = Link { target, rel: None, is_elsewhere: false };
        loop {
            self.skip_spaces();
            match self.rest.chars().next() {
                Some(';') => self.rest = &self.rest[1..],
                None | Some(',') => return Some(link),
                Some(_) => return None,
            }
            self.skip_spaces();
            let name = self.until(['=', ';', ',', ' ', '\t']);
            self.skip_spaces();
            let value = match self.rest.strip_prefix('=') {
                Some(rest) => {
                    self.rest = rest;
                    self.skip_spaces();
                    self.value()?
                }
                None => String::new(),
            };
            if name.eq_ignore_ascii_case("rel") {
                link.rel.get_or_insert(value);
            } else if name.eq_ignore_ascii_case("anchor") {
                link.is_elsewhere = true;
            }
        }
    }

    fn value(&mut self) -> Option<String> {
        let Some(mut rest) = self.rest.strip_prefix('"') else {
            let bare = self.until([';', ',', ' ', '\t']);
            // Not of the grammar, and sent all the same.
            return Some(bare.trim_matches('\'').to_owned());
        };
        let mut value = String::new();
        loop {
            let mut chars = rest.chars();
            match chars.next()? {
                '"' => {
                    self.rest = chars.as_str();
                    return Some(value);
                }
                '\\' => value.push(chars.next()?),
                char => value.push(char),
            }
            rest = chars.as_str();
        }
    }

    fn until(&mut self, ends: impl AsRef<[char]>) -> &'a str {
        let end = self.rest.find(ends.as_ref()).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        text
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    fn skip_element(&mut self) {
        self.rest = self.rest.split_once(',').map_or("", |(_, rest)| rest);
    }
}

struct Link<'a> {
    target: &'a str,
    rel: Option<String>,
    is_elsewhere: bool,
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn next(lines: &[&str]) -> Option<String> {
        let lines = lines.iter().map(|line| (LINK, HeaderValue::from_bytes(line.as_bytes()).unwrap()));
        target(&lines.collect(), "next")
    }

    #[test]
    fn the_next_page_is_found_in_every_spelling() {
        let lines: [&[&str]; 20] = [
            &["<p2>; rel=\"next\""],
            &["<p2>;rel=next"],
            &["<p2> ; REL = \"NEXT\""],
            &["<p2>; rel=Next"],
            &["<p1>; rel=\"prev\", <p2>; rel=\"next\", <p9>; rel=\"last\""],
            &["<p1>; rel=prev", "<p2>; rel=next"],
            &["<p1>;rel=prev,<p2>;rel=next"],
            &["<p2>; rel=\"last next\""],
            &["<p2>; title=\"a, b; rel=prev\"; rel=\"next\""],
            &["<p1>; title=\"say \\\"next\\\", please\"; rel=prev, <p2>; rel=next"],
            &["<p2>; rel=\"next\"; rel=\"prev\""],
            &["<p2>; rel=next; crossorigin"],
            &["<p2>; results=\"true\"; rel=\"next\"; cursor=\"0:100:0\""],
            &["<p2>; rel='next'"],
            &["p1; rel=next, <p2>; rel=next"],
            &[", ,<p2>; rel=next,"],
            &["<p2>; rel=next, <p3>; rel=next"],
            &["<elsewhere>; rel=next; anchor=\"/other\", <p2>; rel=next"],
            &["<p1>; title*=UTF-8''n%c3%a4chste; rel=prev, <p2>; rel=next"],
            &["<p2>; title=\"nächste, bitte\"; rel=next"],
        ];
        for line in lines {
            assert_eq!(next(line).as_deref(), Some("p2"), "{line:?}");
        }
        let comma = next(&["<https://api.example.com/x?ids=1,2;3&at=a>; rel=next"]);
        assert_eq!(comma.as_deref(), Some("https://api.example.com/x?ids=1,2;3&at=a"));
    }

    #[test]
    fn what_is_not_the_next_page_is_passed_over() {
        let lines: [&[&str]; 12] = [
            &[],
            &[""],
            &["<p1>; rel=prev"],
            &["<p1>; rel=\"prev\"; title=\"rel=next\""],
            &["<p1>; rev=next"],
            &["<p1>; rel=nextpage"],
            &["<p1>"],
            &["<p1>; rel"],
            &["<p1; rel=next"],
            &["<p1>; rel=\"next"],
            &["<p1> rel=next"],
            &["<p1>; rel=prev; rel=next"],
        ];
        for line in lines {
            assert_eq!(next(line), None, "{line:?}");
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "it is the time of the processor that counts")]
    fn many_targets_that_do_not_end_are_read_in_one_pass() {
        // To look for the end of each of them to the end of the line would take minutes.
        assert_eq!(next(&[&"<,".repeat(2_000_000)]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                let _ = target(&HeaderMap::from_iter([(LINK, value)]), "next");
            }
        }

        #[test]
        fn a_link_is_found_behind_whatever_stands_before_it(before in "[<>;,=\" a-z]{0,20}") {
            // An open quote or an open target swallows the rest of its line, never the next line.
            let found = next(&[&before, "<p2>; rel=next"]);
            prop_assert!(found.is_some());
        }
    }
}
