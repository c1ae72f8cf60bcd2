//! `WWW-Authenticate` (RFC 9110 §11.6.1): what a server says about a refusal.
//!
//! The grammar cannot be split at commas: they stand between challenges, between parameters of one challenge, and
//! inside quotes. So this is one pass over the bytes:
//!
//! 1. A word with an `=` behind it is a parameter of the challenge before it, any other word begins a challenge.
//! 2. After the word that begins a challenge stands a token68, parameters, or nothing.
//! 3. Field lines are one list, so parameters may go on in the next line (RFC 9110 §5.3).
//! 4. Where the grammar breaks, all that was read stays. Reading goes on behind the next comma; what stands between it
//!    and it is not certain to which the next challenge belongs, and is dropped. An open quote swallows its line.
//! 5. A comma that is missing before a parameter, or is a semicolon, is forgiven: it is sent that way, and there is no other
//!    reading.
//! 6. A URL may stand without quotes, up to the next space or comma. Any other value of visible characters may, if the
//!    element or the next parameter comes behind it.
//! 7. At most 32 challenges are kept, and 32 parameters of each; a list of ten thousand is an attack and not a refusal.

use std::fmt;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderName};

use crate::text::{Redactor, is_tchar};

/// The name under which API gateways of AWS pass on the header of the API behind them.
static REMAPPED: HeaderName = HeaderName::from_static("x-amzn-remapped-www-authenticate");

/// The most challenges that are kept, and the most parameters of one.
const MOST: usize = 32;
/// So much text is searched for the token, so that a refusal with a large header costs little.
const MOST_SEARCHED: usize = 8 * 1024;

/// One challenge of a `WWW-Authenticate` header (RFC 9110 §11.6.1): what a server says about a refusal.
///
/// Build on it for refusals that this crate does not handle by itself: claims challenges, the challenges of registries,
/// metadata of protected resources. On a response that refuses a token, auth has read them already: see
/// [`Challenges`](crate::extensions::Challenges).
///
/// # Examples
///
/// ```
/// use http::{HeaderMap, HeaderValue, header};
/// use tower_oauth2::auth::Challenge;
///
/// let mut headers = HeaderMap::new();
/// let challenge = r#"Bearer realm="api", error="insufficient_claims", claims="eyJhIjoxfQ==""#;
/// headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
/// let challenges = Challenge::read(&headers);
/// assert_eq!((challenges[0].scheme(), challenges[0].param("claims")), ("bearer", Some("eyJhIjoxfQ==")));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge {
    scheme: String,
    token68: Option<String>,
    params: Vec<(String, String)>,
}

impl Challenge {
    /// Reads the challenges of a response, all that can be read of them; at most 32. Those of `x-amzn-remapped-www-authenticate`
    /// count too: API gateways of AWS rename the header.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Vec<Self> {
        of(headers)
    }

    /// Returns the scheme in lower case, such as `bearer`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Returns the token68 that stands in place of parameters, as Negotiate sends one.
    #[must_use]
    pub fn token68(&self) -> Option<&str> {
        self.token68.as_deref()
    }

    /// Returns the value of a parameter, the first one if it stands there twice. `name` is in lower case.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params().find_map(|(param, value)| (param == name).then_some(value))
    }

    /// Returns all parameters in their order: name in lower case, value without its quotes.
    pub fn params(&self) -> impl Iterator<Item = (&str, &str)> {
        self.params.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        let params = self.params().flat_map(|(name, value)| [name, value]);
        [self.scheme()].into_iter().chain(self.token68()).chain(params)
    }

    /// Returns the challenge with its values cleaned; nothing if a secret stands in its names.
    fn cleaned(&self, redactor: &Redactor) -> Option<Self> {
        let names = [self.scheme()].into_iter().chain(self.params().map(|(name, _)| name));
        if names.into_iter().any(|name| redactor.finds(name)) {
            return None;
        }
        let mut challenge = self.clone();
        let values = challenge.params.iter_mut().map(|(_, value)| value);
        for value in values.chain(&mut challenge.token68).filter(|value| redactor.finds_each(&[value])[0]) {
            *value = redactor.clean(value);
        }
        Some(challenge)
    }
}

/// Returns the challenges for a marker: values in which a secret stands are cleaned, and a challenge with one elsewhere is
/// left out, as are those beyond the first 8 KiB of text.
pub(crate) fn without_secrets(challenges: &[Challenge], redactor: &Redactor) -> Vec<Challenge> {
    let mut left = MOST_SEARCHED;
    let searched = challenges.iter().map_while(|challenge| {
        let text = challenge.texts().collect::<Vec<_>>().join("\n");
        left = left.checked_sub(text.len())?;
        Some(text)
    });
    let searched: Vec<String> = searched.collect();
    let found = redactor.finds_each(&searched.iter().map(String::as_str).collect::<Vec<_>>());
    let cleaned = challenges.iter().zip(found).map(|(challenge, found)| match found {
        false => Some(challenge.clone()),
        true => challenge.cleaned(redactor),
    });
    cleaned.flatten().collect()
}

/// Shows names alone: a server may echo the token in a value.
impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.params().map(|(name, _)| name).collect();
        f.debug_struct("Challenge")
            .field("scheme", &self.scheme)
            .field("params", &names)
            .finish_non_exhaustive()
    }
}

/// Reads the challenges of a response.
pub(crate) fn of(headers: &HeaderMap) -> Vec<Challenge> {
    let lines = headers.get_all(WWW_AUTHENTICATE).iter().chain(headers.get_all(&REMAPPED));
    parse(lines.map(|line| line.as_bytes()))
}

/// Reads the challenges of field lines by the rules above.
pub(crate) fn parse<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Vec<Challenge> {
    let mut reader = Reader { challenges: Vec::new(), open: false };
    for line in lines {
        reader.line(&mut Cursor { rest: line });
    }
    reader.challenges
}

// --- Reader ---

struct Reader {
    challenges: Vec<Challenge>,
    /// Whether a parameter that comes now belongs to the last challenge.
    open: bool,
}

/// The grammar broke here.
struct Broken;

impl Reader {
    fn line(&mut self, line: &mut Cursor<'_>) {
        loop {
            line.skip(|byte| is_space(byte) || b",;".contains(&byte));
            if line.rest.is_empty() || self.challenges.len() > MOST {
                break;
            }
            let read = self.element(line).is_ok()
                && (line.at_element_end() || line.at_param() || line.rest.first() == Some(&b';'));
            if !read {
                self.open = false;
                line.skip_element();
            }
        }
        if self.challenges.len() > MOST {
            self.challenges.truncate(MOST);
            self.open = false;
        }
    }

    fn element(&mut self, line: &mut Cursor<'_>) -> Result<(), Broken> {
        let word = line.token()?;
        let spaces = line.skip(is_space);
        if line.rest.first() == Some(&b'=') {
            return self.param(word, line);
        }
        let challenge = Challenge { scheme: lower(word), token68: None, params: Vec::new() };
        self.challenges.push(challenge);
        self.open = true;
        if spaces == 0 || line.at_element_end() {
            return Ok(());
        }
        if let Some(token68) = line.token68() {
            if let Some(challenge) = self.challenges.last_mut() {
                challenge.token68 = Some(text(token68));
            }
            // Parameters cannot follow; what looks like one belongs to no challenge.
            self.open = false;
            return Ok(());
        }
        let name = line.token()?;
        line.skip(is_space);
        self.param(name, line)
    }

    /// Reads from the `=` behind a name.
    fn param(&mut self, name: &[u8], line: &mut Cursor<'_>) -> Result<(), Broken> {
        if line.skip_one(b'=').is_err() {
            return Err(Broken);
        }
        line.skip(is_space);
        let value = match line.rest.first() {
            Some(b'"') => line.quoted()?,
            _ => text(line.unquoted().map_or_else(|| line.token(), Ok)?),
        };
        if let Some(challenge) = self.challenges.last_mut().filter(|_| self.open)
            && challenge.params.len() < MOST
        {
            challenge.params.push((lower(name), value));
        }
        Ok(())
    }
}

// --- Cursor ---

/// The rest of a field line. Every step consumes what it looked at, so that a line takes linear time.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Skips what `unwanted` says and returns how much that was.
    fn skip(&mut self, unwanted: impl Fn(u8) -> bool) -> usize {
        self.take(unwanted).len()
    }

    fn skip_one(&mut self, wanted: u8) -> Result<(), Broken> {
        self.rest = self.rest.strip_prefix(&[wanted]).ok_or(Broken)?;
        Ok(())
    }

    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !wanted(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// Reads a word of RFC 9110 §5.6.2.
    fn token(&mut self) -> Result<&'a [u8], Broken> {
        let token = self.take(is_tchar);
        if token.is_empty() { Err(Broken) } else { Ok(token) }
    }

    /// Reads a value that should stand in quotes, as some servers write their realm, scopes, or Base64; else it moves nothing.
    fn unquoted(&mut self) -> Option<&'a [u8]> {
        let begins = |scheme: &str| {
            self.rest.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme.as_bytes()))
        };
        let is_url = begins("https://") || begins("http://");
        let mut ahead = Cursor { rest: self.rest };
        // Up to the semicolon and no further: to look through the rest of the line for each of many would take quadratic time.
        let value = ahead
            .take(|byte| byte.is_ascii_graphic() && !b",\"\\".contains(&byte) && (is_url || byte != b';'));
        let rest = ahead.rest;
        if !is_url && (value.is_empty() || !(ahead.at_element_end() || ahead.at_param())) {
            return None;
        }
        self.rest = rest;
        Some(value)
    }

    /// Reads a token68 (RFC 9110 §11.2) if one fills the element; else it moves nothing.
    fn token68(&mut self) -> Option<&'a [u8]> {
        let mut ahead = Cursor { rest: self.rest };
        let body = ahead.skip(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte));
        let whole = body + ahead.skip(|byte| byte == b'=');
        if body == 0 || !ahead.at_element_end() {
            return None;
        }
        let token68 = &self.rest[..whole];
        self.rest = ahead.rest;
        Some(token68)
    }

    /// Reads a quoted string (RFC 9110 §5.6.4): a backslash stands for the next byte.
    fn quoted(&mut self) -> Result<String, Broken> {
        let mut value = Vec::new();
        self.skip_one(b'"')?;
        loop {
            value.extend_from_slice(self.take(|byte| byte != b'"' && byte != b'\\'));
            match self.rest {
                [b'"', rest @ ..] => {
                    self.rest = rest;
                    return Ok(text(&value));
                }
                [b'\\', byte, rest @ ..] => {
                    value.push(*byte);
                    self.rest = rest;
                }
                _ => {
                    self.rest = &[];
                    return Err(Broken);
                }
            }
        }
    }

    /// Skips spaces and returns whether the element ends there.
    fn at_element_end(&mut self) -> bool {
        self.skip(is_space);
        matches!(self.rest.first(), None | Some(b','))
    }

    /// Returns whether a word with an `=` behind it comes next. It moves nothing.
    fn at_param(&self) -> bool {
        let mut ahead = Cursor { rest: self.rest };
        let word = ahead.skip(is_tchar);
        ahead.skip(is_space);
        word > 0 && ahead.rest.first() == Some(&b'=')
    }

    /// Skips to the comma that ends the element. One inside quotes does not.
    fn skip_element(&mut self) {
        loop {
            self.skip(|byte| byte != b',' && byte != b'"');
            if self.rest.first() != Some(&b'"') || self.quoted().is_err() {
                break;
            }
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn lower(word: &[u8]) -> String {
    text(word).to_ascii_lowercase()
}

/// Bytes above 0x7F are UTF-8 or nothing that can be read, but never a reason to lose the rest.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use http::{HeaderValue, header};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::vectors;

    fn read(line: &str) -> Vec<Challenge> {
        parse([line.as_bytes()])
    }

    /// The form in which the vectors write a list of challenges.
    fn shown(challenges: &[Challenge]) -> Value {
        let one = |challenge: &Challenge| {
            let params: Vec<_> = challenge.params().map(|(name, value)| json!([name, value])).collect();
            json!({ "scheme": challenge.scheme(), "token68": challenge.token68(), "params": params })
        };
        challenges.iter().map(one).collect()
    }

    fn lines(input: &Value) -> Vec<Vec<u8>> {
        let texts =
            |name: &str| input[name].as_array().into_iter().flatten().map(|line| line.as_str().unwrap());
        let utf8 = texts("lines").map(|line| line.as_bytes().to_vec());
        let latin1 =
            texts("lines_latin1").map(|line| line.chars().map(|c| u8::try_from(c).unwrap()).collect());
        let generated = input.get("line_generated").map(|parts| {
            let part = |name: &str| parts[name].as_str().unwrap_or_default();
            let count = usize::try_from(parts["count"].as_u64().unwrap()).unwrap();
            format!("{}{}{}", part("prefix"), part("repeat").repeat(count), part("suffix")).into_bytes()
        });
        utf8.chain(latin1).chain(generated).collect()
    }

    fn passes(got: &[Challenge], expected: &Value) -> bool {
        let scheme = expected["scheme"].as_str();
        let mut found = got.iter().filter(|challenge| Some(challenge.scheme()) == scheme);
        match expected["match"].as_str().unwrap() {
            "exact" => shown(got) == expected["challenges"],
            "prefix" => {
                let wanted = expected["challenges"].as_array().unwrap();
                shown(got).as_array().unwrap().starts_with(wanted)
            }
            "contains_scheme" => found.next().is_some(),
            "contains_param" => {
                let [name, value] = [0, 1].map(|at| expected["param"][at].as_str().unwrap());
                found.any(|challenge| challenge.param(name) == Some(value))
            }
            "no_panic" => true,
            other => panic!("the vectors know a match that this test does not: {other}"),
        }
    }

    #[test]
    fn what_should_stand_in_quotes_or_behind_a_comma_is_read_as_it_is_meant() {
        for (line, params) in [
            (
                "Bearer realm=host:443/p, error=\"invalid_token\"",
                vec!["realm=host:443/p", "error=invalid_token"],
            ),
            ("Bearer realm=urn:a:b error=invalid_token", vec!["realm=urn:a:b", "error=invalid_token"]),
            ("Bearer claims=eyJhIjox==, error=x", vec!["claims=eyJhIjox==", "error=x"]),
            ("Bearer scope=repository:a/b:pull,push=1", vec!["scope=repository:a/b:pull", "push=1"]),
            ("Bearer realm=HTTPS://host/;a, error=x", vec!["realm=HTTPS://host/;a", "error=x"]),
            ("Bearer realm=\"a\"; error=\"invalid_token\"", vec!["realm=a", "error=invalid_token"]),
            ("Bearer realm=a;error=invalid_token", vec!["realm=a", "error=invalid_token"]),
        ] {
            let challenges = read(line);
            let read: Vec<_> =
                challenges[0].params().map(|(name, value)| format!("{name}={value}")).collect();
            assert_eq!(
                (challenges.len(), read),
                (1, params.into_iter().map(str::to_owned).collect()),
                "{line}"
            );
        }
    }

    #[test]
    fn every_vector_of_challenges_passes_by_its_first_expectation() {
        let vectors = vectors::rows("challenges");
        assert_eq!(vectors.len(), 44);
        for vector in vectors {
            let lines = lines(&vector["input"]);
            assert!(!lines.is_empty(), "{}", vector["id"]);
            let got = parse(lines.iter().map(Vec::as_slice));
            assert!(passes(&got, &vector["expect"]), "{}: {got:?}", vector["id"]);
        }
    }

    #[test]
    fn a_break_costs_no_challenge_before_or_behind_it() {
        let schemes = |line: &str| -> Vec<String> {
            read(line).iter().map(|challenge| challenge.scheme().to_owned()).collect()
        };
        assert_eq!(
            schemes("Basic realm=\"ok\", Bearer realm=\"x\" junk, DPoP algs=ES256"),
            ["basic", "bearer", "dpop"]
        );
        assert_eq!(schemes("@?, Bearer"), ["bearer"]);
        assert_eq!(schemes("Bearer @ \"a, Basic\" , DPoP"), ["bearer", "dpop"]);
        let next_line = parse([b"Bearer realm=\"open".as_slice(), b"error=x, DPoP a=b"]);
        assert_eq!(
            shown(&next_line),
            json!([
                { "scheme": "bearer", "token68": null, "params": [] },
                { "scheme": "dpop", "token68": null, "params": [["a", "b"]] },
            ])
        );
    }

    #[test]
    fn a_parameter_without_an_owner_is_nobodys() {
        assert!(read("error=\"invalid_token\"").is_empty());
        // The comma is missing before DPoP, so its error must not become one of Bearer.
        assert_eq!(read("Bearer realm=a DPoP algs=b, error=use_dpop_nonce")[0].param("error"), None);
        assert_eq!(read("Negotiate abc=, error=x")[0].param("error"), None);
    }

    #[test]
    fn a_missing_comma_costs_no_parameter() {
        let challenges = read("Bearer realm=\"a\" error=\"invalid_token\" scope=b, DPoP algs=c");
        assert_eq!(challenges[0].param("error"), Some("invalid_token"));
        assert_eq!(challenges[0].param("scope"), Some("b"));
        assert_eq!(challenges[1].param("algs"), Some("c"));
    }

    #[test]
    fn names_are_found_in_lower_case_and_the_first_of_two_wins() {
        let challenges = read("bEaReR ErRoR=\"Invalid_Token\", error=other");
        assert_eq!(challenges[0].scheme(), "bearer");
        assert_eq!(challenges[0].param("error"), Some("Invalid_Token"));
    }

    #[test]
    fn only_the_header_of_the_origin_server_is_read() {
        let mut headers = HeaderMap::new();
        headers.insert(header::PROXY_AUTHENTICATE, HeaderValue::from_static("Bearer error=x"));
        assert!(of(&headers).is_empty());
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=x"));
        assert_eq!(of(&headers)[1].param("error"), Some("x"));
    }

    #[test]
    fn a_flood_is_cut_off() {
        assert_eq!(read(&"a,".repeat(10_000)).len(), MOST);
        let many: String = (0..10_000).map(|n| format!("p{n}=v,")).collect();
        let challenges = read(&format!("Bearer {many} DPoP a=b"));
        assert_eq!(challenges[0].params().count(), MOST);
        assert_eq!(challenges[1].param("a"), Some("b"));
        let lines = vec![b"Bearer a=b".as_slice(); 10_000];
        assert_eq!(parse(lines).len(), MOST);
        let (first, next) = ("a,".repeat(MOST + 1), "error=x");
        assert_eq!(parse([first.as_bytes(), next.as_bytes()])[MOST - 1].param("error"), None);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the time that parsing takes is the subject")]
    fn parsing_takes_linear_time() {
        let size = 1 << 18;
        let quoted =
            [",", "a ", "a=", "\"", "\\", "=", "a b", "a \"\\\"", "a=\"b\" ", "a,", " ", "a \",", "x=a,"];
        let unquoted = ["a=b;", "a=b c=d ", "a=b:c ", "a=https://x;y "];
        for hard in quoted.iter().chain(&unquoted) {
            let line = hard.repeat(size / hard.len());
            let started = Instant::now();
            let _ = read(&line);
            let _ = read(&format!("Bearer x=\"{line}\", {line}"));
            // Linear is a few dozen milliseconds without optimisation; quadratic would be minutes.
            assert!(started.elapsed() < Duration::from_secs(10), "{hard:?}");
        }
    }

    fn a_token() -> impl Strategy<Value = String> {
        "[A-Za-z0-9!#$%&'*+.^_`|~-]{1,8}"
    }

    fn a_challenge() -> impl Strategy<Value = (String, Result<String, Vec<(String, String)>>)> {
        let token68 = "[A-Za-z0-9._~+/-]{1,8}={0,2}";
        let params = vec((a_token(), "[ -~äß\t]{0,12}"), 0..5);
        (a_token(), prop_oneof![token68.prop_map(Ok), params.prop_map(Err)])
    }

    #[test]
    fn a_url_without_quotes_is_a_value() {
        let challenges =
            read("Bearer realm=https://api.example.com/a?b=c,error=invalid_token, Basic realm=http://x");
        assert_eq!(challenges[0].param("realm"), Some("https://api.example.com/a?b=c"));
        assert_eq!(challenges[0].param("error"), Some("invalid_token"));
        assert_eq!(challenges[1].param("realm"), Some("http://x"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(lines in vec(vec(any::<u8>(), 0..200), 0..4)) {
            let _ = parse(lines.iter().map(Vec::as_slice));
        }

        #[test]
        fn nothing_like_a_challenge_makes_it_panic(line in "[aB=,\"\\\\ \t;@]{0,60}") {
            let challenges = read(&line);
            prop_assert!(challenges.iter().all(|challenge| !challenge.scheme().is_empty()));
        }

        #[test]
        fn what_is_well_formed_is_read_back(
            challenges in vec(a_challenge(), 0..6), comma in "( |\t)?,[ ,\t]{0,3}", equals in " ?= ?",
        ) {
            let mut lines = Vec::new();
            let mut expected = Vec::new();
            for (scheme, rest) in challenges {
                let mut challenge = Challenge { scheme: lower(scheme.as_bytes()), token68: None, params: Vec::new() };
                lines.push(match rest {
                    Ok(token68) => {
                        let line = format!("{scheme}  {token68}");
                        challenge.token68 = Some(token68);
                        line
                    }
                    Err(params) => {
                        let mut written = Vec::new();
                        for (at, (name, value)) in params.into_iter().enumerate() {
                            let plain = at % 2 == 0 && !value.is_empty() && value.bytes().all(is_tchar);
                            let quoted = format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
                            written.push(format!("{name}{equals}{}", if plain { &value } else { &quoted }));
                            challenge.params.push((name.to_ascii_lowercase(), value));
                        }
                        format!("{scheme} {}", written.join(&comma))
                    }
                });
                expected.push(challenge);
            }
            prop_assert_eq!(&read(&lines.join(&comma)), &expected);
            prop_assert_eq!(&parse(lines.iter().map(String::as_bytes)), &expected);
        }
    }
}
