//! The secrets of one exchange, and how they are found in what a peer echoes.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use secrecy::zeroize::Zeroizing;

use super::{clean, names_a_secret};

/// The text that replaces a secret.
const REDACTED: &str = "[redacted]";

/// In place of a secret shorter than this the whole text goes: a hole in an ordinary word shows what is missing.
const SHORTEST_SECRET: usize = 4;

/// So many bytes in a row that a text shares with a secret are a piece of it, if it is not shorter itself.
const PIECE: usize = 8;

/// So much of a text is looked at. Its last [`MARGIN`] is not shown, since a piece that is cut there cannot be told.
const MAX_SEARCHED: usize = 4096;

/// Longer than a piece, however it is escaped.
const MARGIN: usize = 128;

/// So often are escapes taken off; some peers escape what is escaped already.
const MOST_LAYERS: usize = 3;

/// The bytes with which escapes begin.
const ESCAPES: &[u8] = b"%&\\";

/// Knows the secrets of one exchange, and finds them in each form in which a peer may echo them.
///
/// 1. A secret is found raw, form-encoded, in hexadecimal, and in base64, also in the middle of something longer, of a form or
///    of Basic credentials; and each of these under percent-encoding, the escapes of JSON, of Rust and of HTML, in any mixture.
///    It is found as a list of its bytes in decimals, too. Case does not matter. Other encodings are not looked for.
/// 2. Eight bytes in a row are enough: a peer may cut what it echoes. A shorter secret is found as a whole.
/// 3. Secrets are blanked out *before* the text is cut, so that no half of one survives at the edge.
/// 4. A text that holds a secret of three characters or fewer is blanked out as a whole.
/// 5. Time and memory are bounded by the lengths of the secrets and by what is looked at of the text.
#[derive(Clone, Default)]
pub(crate) struct Redactor {
    forms: Vec<Form>,
}

/// A secret as it may stand in a text, folded.
#[derive(Clone)]
struct Form {
    bytes: Zeroizing<Vec<u8>>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Found by any piece of it.
    Plain,
    /// Found by any piece of it, and then what it stands in is blanked out too: the first and the last character
    /// belong to the secret in part, and the neighbours may be the rest of a pair.
    Base64,
    /// Blanks out the whole text.
    Short,
}

impl Redactor {
    /// Adds a secret.
    pub(crate) fn add(&mut self, secret: &str) {
        if secret.is_empty() {
            return;
        }
        if secret.chars().count() < SHORTEST_SECRET {
            self.push(secret.as_bytes(), Kind::Short);
            return;
        }
        self.push(secret.as_bytes(), Kind::Plain);
        let hex = Zeroizing::new(secret.bytes().fold(String::new(), |mut hex, byte| {
            hex.extend(
                [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])),
            );
            hex
        }));
        self.push(hex.as_bytes(), Kind::Plain);
        self.add_base64(secret);
        let encoded = form_encoded(secret);
        if *encoded != secret {
            self.add_base64(&encoded);
        }
    }

    /// Adds a secret that came from the other side under this name, if it is one by its name. One that is very short is
    /// none: a version, a flag.
    pub(crate) fn learn(&mut self, name: &str, value: &str) {
        if names_a_secret(name) && value.chars().count() >= SHORTEST_SECRET {
            self.add(value);
        }
    }

    /// Adds client credentials: the secret, and for a short one the pair as HTTP Basic writes it, encoded and raw. A
    /// longer one is found within the pair.
    pub(crate) fn add_basic(&mut self, id: &str, secret: &str) {
        self.add(secret);
        if secret.chars().count() < SHORTEST_SECRET {
            self.add_base64(&Zeroizing::new(format!("{}:{}", *form_encoded(id), *form_encoded(secret))));
            self.add_base64(&Zeroizing::new(format!("{id}:{secret}")));
        }
    }

    /// Adds what is the same in base64 wherever the secret stands in a longer text. Folding makes one of the alphabets.
    fn add_base64(&mut self, secret: &str) {
        for shift in 0..3 {
            let mut text = Zeroizing::new(vec![0; shift]);
            text.extend_from_slice(secret.as_bytes());
            let encoded = Zeroizing::new(STANDARD_NO_PAD.encode(&*text));
            // Of the first characters some bits belong to what stands before, of the last one to what follows.
            let (first, last) = ((shift * 8).div_ceil(6), text.len() * 8 / 6);
            if last.saturating_sub(first) >= SHORTEST_SECRET {
                self.push(&encoded.as_bytes()[first..last], Kind::Base64);
            }
        }
    }

    /// Adds what another redactor knows.
    pub(crate) fn extend(&mut self, other: &Self) {
        for form in &other.forms {
            if !self.forms.iter().any(|known| *known.bytes == *form.bytes) {
                self.forms.push(form.clone());
            }
        }
    }

    fn push(&mut self, form: &[u8], kind: Kind) {
        let bytes: Zeroizing<Vec<u8>> = Zeroizing::new(form.iter().copied().map(folded).collect());
        if !self.forms.iter().any(|known| *known.bytes == *bytes) {
            self.forms.push(Form { bytes, kind });
        }
    }

    /// Returns whether a piece of a secret stands in `text`, as far as that is looked at.
    pub(crate) fn finds(&self, text: &str) -> bool {
        self.marks(prefix(text, MAX_SEARCHED)).iter().any(Option::is_some)
    }

    /// Says of each text whether a piece of a secret stands in it. All are looked at to their ends, and in one go, so their
    /// number counts for little, and their length is for the caller to bound.
    pub(crate) fn finds_each(&self, texts: &[&str]) -> Vec<bool> {
        let marks = self.marks(&texts.join("\n"));
        let mut rest = &marks[..];
        let found = |text: &&str| {
            let (own, others) = rest.split_at(text.len());
            // The last one has no line end behind it.
            rest = others.get(1..).unwrap_or_default();
            own.iter().any(Option::is_some)
        };
        texts.iter().map(found).collect()
    }

    /// Returns `text` with every known secret blanked out, then made fit to show as [`clean`] does.
    pub(crate) fn clean(&self, text: &str) -> String {
        let searched = prefix(text, MAX_SEARCHED);
        let mut marks = self.marks(searched);
        if marks.contains(&Some(Kind::Short)) {
            return REDACTED.to_owned();
        }
        spread(searched.as_bytes(), &mut marks);

        let shown = if searched.len() < text.len() { prefix(text, MAX_SEARCHED - MARGIN) } else { searched };
        let mut out = String::with_capacity(shown.len());
        let mut hidden = false;
        for (at, c) in shown.char_indices() {
            let marked = marks[at..at + c.len_utf8()].iter().any(Option::is_some);
            match (marked, hidden) {
                (true, false) => out.push_str(REDACTED),
                (true, true) => {}
                (false, _) => out.push(c),
            }
            hidden = marked;
        }
        if shown.len() < text.len() {
            out.push('…');
        }
        clean(&out)
    }

    /// Says for each byte of `text` whether it belongs to a secret, and by what it was found.
    fn marks(&self, text: &str) -> Vec<Option<Kind>> {
        let mut marks = vec![None; text.len()];
        if self.forms.is_empty() {
            return marks;
        }
        let whole = View::of(text);
        self.mark(&whole, &mut marks);
        if let Some(listed) = whole.listed() {
            self.mark(&listed, &mut marks);
        }
        // All at once, and each kind alone: what looks like an escape of another kind may be the secret's own.
        let there = || ESCAPES.chunks(1).filter(|kind| text.as_bytes().contains(&kind[0]));
        let alone = there().filter(|_| there().count() > 1);
        for kinds in std::iter::once(ESCAPES).chain(alone) {
            let mut view = whole.unescaped(kinds);
            for _ in 0..MOST_LAYERS {
                let Some(next) = view else { break };
                self.mark(&next, &mut marks);
                view = next.unescaped(ESCAPES);
            }
        }
        marks
    }

    /// Marks what a view shares with the secrets.
    fn mark(&self, view: &View, marks: &mut [Option<Kind>]) {
        let hay: Vec<u8> = view.bytes.iter().copied().map(folded).collect();
        let mut pieces: Vec<(u64, usize)> =
            hay.windows(PIECE).enumerate().map(|(at, piece)| (key(piece), at)).collect();
        pieces.sort_unstable();
        let mut done = vec![false; pieces.len()];
        // Of a long secret most pieces are not in the text, and one look tells that of nearly all of them.
        let mut may_be_there = vec![false; 1 << 16];
        pieces.iter().for_each(|(piece, _)| may_be_there[slot(*piece)] = true);
        for form in &self.forms {
            if form.bytes.len() < PIECE {
                for (at, _) in
                    hay.windows(form.bytes.len()).enumerate().filter(|(_, piece)| *piece == *form.bytes)
                {
                    view.mark(at..at + form.bytes.len(), form.kind, marks);
                }
                continue;
            }
            let mut sliding = key(&form.bytes[..PIECE - 1]);
            for byte in &form.bytes[PIECE - 1..] {
                sliding = sliding << 8 | u64::from(*byte);
                if !may_be_there[slot(sliding)] {
                    continue;
                }
                let found = pieces.partition_point(|(piece, _)| *piece < sliding);
                // Each piece is marked once: a text and a secret of one repeated character have nothing but hits.
                if done.get(found).is_none_or(|done| *done) {
                    continue;
                }
                for (_, at) in pieces[found..].iter().take_while(|(piece, _)| *piece == sliding) {
                    done[found] = true;
                    view.mark(*at..at + PIECE, form.kind, marks);
                }
            }
        }
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").finish_non_exhaustive()
    }
}

fn form_encoded(text: &str) -> Zeroizing<String> {
    Zeroizing::new(form_urlencoded::byte_serialize(text.as_bytes()).collect())
}

/// The one spelling of a byte in which it is compared. A plus is a space in a form and a minus in the other alphabet of
/// base64; what is a control character may have become a space on the way.
fn folded(byte: u8) -> u8 {
    match byte {
        b'+' | b'-' | 0..=b' ' | 0x7f => b' ',
        b'_' => b'/',
        _ => byte.to_ascii_lowercase(),
    }
}

fn key(piece: &[u8]) -> u64 {
    piece.iter().fold(0, |key, byte| key << 8 | u64::from(*byte))
}

/// One of 65536 places for a piece.
fn slot(piece: u64) -> usize {
    let [high, low, ..] = piece.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    usize::from(u16::from_be_bytes([high, low]))
}

/// Marks what base64 is found in, up to where another alphabet begins.
fn spread(text: &[u8], marks: &mut [Option<Kind>]) {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte);
    for at in 1..text.len() {
        if marks[at - 1] == Some(Kind::Base64) && (is_base64(text[at]) || text[at] == b'=') {
            marks[at] = Some(Kind::Base64);
        }
    }
    for at in (1..text.len()).rev() {
        if marks[at] == Some(Kind::Base64) && is_base64(text[at - 1]) {
            marks[at - 1] = Some(Kind::Base64);
        }
    }
}

/// The first bytes of `text`, not more than `most`, without a broken character at the end.
fn prefix(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

// --- View ---

/// A text without some of its escapes, and where each byte stood in the original.
struct View {
    bytes: Vec<u8>,
    /// Where each byte begins in the original; one more than there are bytes.
    starts: Vec<usize>,
}

impl View {
    fn of(text: &str) -> Self {
        Self { bytes: text.as_bytes().to_vec(), starts: (0..=text.len()).collect() }
    }

    fn mark(&self, range: Range<usize>, kind: Kind, marks: &mut [Option<Kind>]) {
        for mark in &mut marks[self.starts[range.start]..self.starts[range.end]] {
            *mark = (*mark).max(Some(kind));
        }
    }

    /// Takes lists of bytes in decimals, as `Debug` writes them, for the bytes. Nothing if there is none.
    fn listed(&self) -> Option<Self> {
        let mut next = Self { bytes: Vec::with_capacity(self.bytes.len()), starts: Vec::new() };
        let (mut at, mut found) = (0, false);
        while at < self.bytes.len() {
            let numbers = decimals(&self.bytes, at);
            if numbers.len() < SHORTEST_SECRET {
                let end = numbers.last().map_or(at + 1, |(_, range)| range.end);
                next.bytes.extend_from_slice(&self.bytes[at..end]);
                next.starts.extend_from_slice(&self.starts[at..end]);
                at = end;
                continue;
            }
            found = true;
            for (byte, range) in numbers {
                next.bytes.push(byte);
                next.starts.push(self.starts[range.start]);
                at = range.end;
            }
        }
        next.starts.push(self.starts[at]);
        found.then_some(next)
    }

    /// Takes one layer of escapes off, of those kinds that begin so: percent-encoding, the entities of HTML, and what stands
    /// behind a backslash in JSON and in Rust. Nothing if there is none.
    fn unescaped(&self, kinds: &[u8]) -> Option<Self> {
        if !self.bytes.iter().any(|byte| kinds.contains(byte)) {
            return None;
        }
        let mut next = Self { bytes: Vec::with_capacity(self.bytes.len()), starts: Vec::new() };
        let mut at = 0;
        while at < self.bytes.len() {
            let rest = &self.bytes[at..];
            let (read, length) = match rest[0] {
                kind if !kinds.contains(&kind) => None,
                b'%' => percent(rest),
                b'&' => entity(rest),
                _ => backslash(rest),
            }
            .unwrap_or((Unit::Byte(rest[0]), 1));
            match read {
                Unit::Byte(byte) => next.bytes.push(byte),
                Unit::Char(c) => next.bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
            next.starts.resize(next.bytes.len(), self.starts[at]);
            at += length;
        }
        next.starts.push(self.starts[at]);
        Some(next)
    }
}

/// The bytes of a list in decimals that begins at `at`, and where they stand, what separates them included.
fn decimals(text: &[u8], mut at: usize) -> Vec<(u8, Range<usize>)> {
    let mut numbers = Vec::new();
    // Not in the middle of a longer number.
    if at > 0 && text[at - 1].is_ascii_digit() {
        return numbers;
    }
    loop {
        let length = text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let Some(byte) =
            std::str::from_utf8(&text[at..at + length]).ok().and_then(|digits| digits.parse().ok())
        else {
            return numbers;
        };
        let end = at + length;
        let gap = text[end..].iter().take_while(|byte| matches!(byte, b',' | b' ' | b'\n')).count();
        numbers.push((byte, at..end + gap));
        if gap == 0 {
            return numbers;
        }
        at = end + gap;
    }
}

/// The meaning of an escape.
enum Unit {
    Byte(u8),
    Char(char),
}

fn percent(text: &[u8]) -> Option<(Unit, usize)> {
    let value = number(text.get(1..3)?, 16)?;
    Some((Unit::Byte(u8::try_from(value).ok()?), 3))
}

fn entity(text: &[u8]) -> Option<(Unit, usize)> {
    let end = text.iter().take(12).position(|byte| *byte == b';')?;
    let c = match &text[1..end].to_ascii_lowercase()[..] {
        b"amp" => '&',
        b"lt" => '<',
        b"gt" => '>',
        b"quot" => '"',
        b"apos" => '\'',
        [b'#', b'x', digits @ ..] => char::from_u32(number(digits, 16)?)?,
        [b'#', digits @ ..] => char::from_u32(number(digits, 10)?)?,
        _ => return None,
    };
    Some((Unit::Char(c), end + 1))
}

fn backslash(text: &[u8]) -> Option<(Unit, usize)> {
    match text.get(1)? {
        byte @ (b'"' | b'\'' | b'\\' | b'/') => Some((Unit::Byte(*byte), 2)),
        b'n' | b'r' | b't' | b'b' | b'f' | b'0' => Some((Unit::Byte(b' '), 2)),
        b'x' => Some((Unit::Byte(u8::try_from(number(text.get(2..4)?, 16)?).ok()?), 4)),
        b'u' if text.get(2) == Some(&b'{') => {
            let end = text.iter().take(12).position(|byte| *byte == b'}')?;
            Some((Unit::Char(char::from_u32(number(&text[3..end], 16)?)?), end + 1))
        }
        b'u' => {
            let first = number(text.get(2..6)?, 16)?;
            if let Some(c) = char::from_u32(first) {
                return Some((Unit::Char(c), 6));
            }
            let second = text.get(6..12)?.strip_prefix(b"\\u").and_then(|digits| number(digits, 16))?;
            let units = [u16::try_from(first).ok()?, u16::try_from(second).ok()?];
            let c = char::decode_utf16(units).next()?.ok()?;
            Some((Unit::Char(c), 12))
        }
        _ => None,
    }
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u32::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    fn redactor(secrets: &[&str]) -> Redactor {
        let mut redactor = Redactor::default();
        for secret in secrets {
            redactor.add(secret);
        }
        redactor
    }

    #[test]
    fn a_secret_is_found_in_every_form() {
        let secret = "S3cr&t /+ü\"x";
        let redactor = redactor(&[secret]);
        for echoed in [
            secret.to_owned(),
            form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
            form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>().to_lowercase(),
            STANDARD.encode(secret),
            URL_SAFE_NO_PAD.encode(secret),
            serde_json::Value::from(secret).to_string(),
        ] {
            let shown = redactor.clean(&format!("you sent <{echoed}> to me"));
            assert!(shown.contains(REDACTED) && !shown.contains(&echoed), "{echoed} -> {shown}");
        }
    }

    #[test]
    fn a_secret_at_the_edge_of_the_cut_leaves_no_half() {
        let secret = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
        for lead in 200..260 {
            let shown =
                redactor(&[secret]).clean(&format!("{}{secret}{}", "-".repeat(lead), "-".repeat(900)));
            assert!(!shown.contains("ABCD"), "{lead}: {shown}");
        }
    }

    #[test]
    fn a_list_of_the_bytes_of_a_secret_is_found() {
        let secret = "S3CR3T-hunter2";
        let redactor = redactor(&[secret]);
        for echoed in [
            format!("{:?}", secret.as_bytes()),
            secret.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(","),
            format!("1, 2, {:?}", &secret.as_bytes()[2..12]),
        ] {
            let shown = redactor.clean(&format!("the buffer {echoed} is bad"));
            assert!(
                shown.contains(REDACTED) && !shown.contains("67, 82") && !shown.contains("67,82"),
                "{shown}"
            );
        }
        for text in ["1, 2, 3, 4, 5", "10.0.0.1:8080, 256, 999", "1700000000", "9"] {
            assert_eq!(redactor.clean(text), text);
        }
    }

    #[test]
    fn basic_credentials_are_found_as_the_header_carries_them() {
        let mut redactor = Redactor::default();
        redactor.add_basic("my:client", "pa ss");
        for pair in ["my%3Aclient:pa+ss", "my:client:pa ss"] {
            let echoed = STANDARD.encode(pair);
            assert_eq!(redactor.clean(&format!("Basic {echoed}")), "Basic [redacted]");
        }
    }

    #[test]
    fn a_secret_inside_another_does_not_uncover_it() {
        let shown = redactor(&["alpha", "alphabet-soup"]).clean("got alphabet-soup and alpha");
        assert_eq!(shown, "got [redacted] and [redacted]");
    }

    #[test]
    fn text_outside_ascii_survives() {
        assert_eq!(redactor(&["geheim"]).clean("Fehler: übergeheimß"), "Fehler: über[redacted]ß");
    }

    #[test]
    fn a_secret_within_base64_is_found_at_each_offset_and_takes_its_surroundings_along() {
        let redactor = redactor(&["0123456789-secret+/~"]);
        for before in ["", "a", "ab", "abc", "grant_type=x&pin="] {
            for behind in ["", "z", "&more=1"] {
                let text = format!("{before}0123456789-secret+/~{behind}");
                for echoed in [STANDARD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
                    assert_eq!(redactor.clean(&format!("got <{echoed}>.")), "got <[redacted]>.", "{text}");
                }
            }
        }
    }

    #[test]
    fn escapes_are_taken_off_in_any_mixture() {
        let redactor = redactor(&["a&b<c>\"d'e/ü+ʘ%f\\g"]);
        for echoed in [
            r#"a&amp;b&lt;c&gt;&quot;d&#39;e/ü+ʘ%f\g"#,
            r"a&b<c>&#x22;d&apos;e\/\u00fc+\u0298%f\\g",
            r#"a&b<c>\"d\'e/\u{fc}+\u{298}%f\\g"#,
            "a%26b%3cc%3E%22d%27e%2F%C3%BC%2B%CA%98%25f%5Cg",
            "a%2526b%253cc%253E%2522d%2527e%252F%25C3%25BC%252B%25CA%2598%2525f%255Cg",
            "A&AMP;b<C>%22d'E/ü+ʘ%25F%5CG",
        ] {
            let shown = redactor.clean(&format!("<{echoed}>"));
            assert_eq!(shown, "<[redacted]>", "{echoed}");
        }
    }

    #[test]
    fn a_secret_that_looks_like_an_escape_is_found_under_those_of_another_kind() {
        for (secret, echoed) in [
            ("s\u{11}\u{fffd}+%df", r#"s\u{11}\u{fffd}+%df"#),
            ("pass\"%41%42word", r#"pass\"%41%42word"#),
            ("pass&amp;wo+rd", "pass&amp;wo%2Brd"),
            (r"pa\x41ss<word", r"pa\x41ss&lt;word"),
        ] {
            assert_eq!(redactor(&[secret]).clean(&format!("<{echoed}>")), "<[redacted]>", "{secret}");
        }
        // One layer more than most peers make.
        let thrice = "s3cret-word".bytes().fold(String::new(), |text, byte| format!("{text}%2525{byte:02x}"));
        assert_eq!(redactor(&["s3cret-word"]).clean(&thrice), REDACTED);
    }

    #[test]
    fn what_is_no_escape_stays_as_it_is() {
        for text in ["100 % & more; \\ \\u \\u{110000} \\ud800 \\x4 %4 %+1 &#; &#xyz; &", "%", "\\", "&amp"] {
            assert_eq!(redactor(&["unrelated-secret"]).clean(text), text);
        }
    }

    #[test]
    fn a_piece_that_the_server_cut_off_is_found() {
        let redactor = redactor(&["ABCDEFGHIJKLMNOPQRSTUVWXYZ"]);
        assert_eq!(redactor.clean("token ABCDEFGH.. is bad"), "token [redacted].. is bad");
        assert_eq!(redactor.clean("token ..IJKLMNOPQRSTU is bad"), "token ..[redacted] is bad");
        assert_eq!(redactor.clean("ABCDEFG"), "ABCDEFG");
    }

    #[test]
    fn a_very_short_secret_blanks_out_the_whole_text() {
        assert_eq!(redactor(&["ab"]).clean("the table is full"), REDACTED);
        assert_eq!(redactor(&["ab"]).clean("nothing here"), "nothing here");
        assert_eq!(redactor(&[""]).clean("nothing here"), "nothing here");
        let mut basic = Redactor::default();
        basic.add_basic("billing", "ab");
        assert_eq!(basic.clean("Basic YmlsbGluZzphYg=="), "Basic [redacted]");
    }

    #[test]
    fn a_member_is_a_secret_by_its_name() {
        let mut redactor = Redactor::default();
        for (name, value) in [
            ("id_token", "secret-one"),
            ("token_type", "secret-two"),
            ("trace", "secret-ten"),
            ("token_v", "v1"),
        ] {
            redactor.learn(name, value);
        }
        let text = "secret-one secret-two secret-ten v1".replace("secret-", "");
        assert_eq!(redactor.clean(&text), text);
        assert!(redactor.finds("<secret-one>") && !redactor.finds("v1"));
    }

    #[test]
    fn a_text_and_a_secret_of_one_character_are_searched_to_the_end() {
        // Where all hits are looked at again for each byte of the secret, this does not end.
        let shown = redactor(&[&"a".repeat(1 << 20)]).clean(&"a".repeat(1 << 20));
        assert_eq!(shown, "[redacted]…");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic_and_none_is_changed_without_a_secret(text in ".{0,300}", secret in ".{8,40}") {
            let shown = redactor(&[&secret]).clean(&text);
            proptest::prop_assert!(shown.chars().count() <= super::super::MAX_SHOWN);
            let echo = redactor(&[&secret]).clean(&format!("<{secret}>"));
            proptest::prop_assert!(echo.contains(REDACTED));
            proptest::prop_assert_eq!(Redactor::default().clean(&text), clean(&text));
        }

        #[test]
        fn lists_of_all_kinds_are_read_without_panic(text in "[0-9, ]{0,80}") {
            redactor(&["unrelated-secret"]).clean(&text);
        }

        #[test]
        fn escapes_of_all_kinds_are_read_without_panic(text in r"([%&\\#u{};x0-9a-fA-F]|amp|ü){0,60}") {
            redactor(&["unrelated-secret"]).clean(&text);
        }
    }
}
