//! One response of an endpoint, and what its body is made of.

use std::collections::BTreeMap;
use std::fmt;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::text::Redactor;

/// One response, read to its end or to where reading it made no sense.
pub(crate) struct EndpointResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The whole body, or why it was not read, as the end of a sentence about it.
    pub(crate) body: Result<Vec<u8>, String>,
}

/// The members of a body: those of a JSON object, or of a form, which may hold an error.
///
/// A member that is not used is never interpreted, however deep or large.
#[derive(Default)]
pub(crate) struct Body {
    pub(crate) members: BTreeMap<String, Box<RawValue>>,
    /// Why it is not a JSON object that can be believed, as the end of "the endpoint returned 200 with ..".
    pub(crate) flaw: Option<String>,
}

/// Real responses have a dozen. Each may be a secret that is looked for in all that is shown.
const MOST_MEMBERS: usize = 256;

/// The description of the response of a login page, a proxy or a firewall.
pub(crate) const MARKUP: &str = "HTML or XML instead of JSON";

impl Body {
    pub(crate) fn read(response: &EndpointResponse) -> Self {
        let bytes = match &response.body {
            Ok(bytes) => bytes,
            Err(reason) => return Self::nonsense(reason),
        };
        let error = match serde_json::from_slice::<Self>(bytes) {
            Ok(Self { flaw: Some(flaw), .. }) => return Self::nonsense(&flaw),
            Ok(body) => return body,
            Err(error) => error,
        };
        let is_form = essence(&response.headers).eq_ignore_ascii_case("application/x-www-form-urlencoded");
        if is_form || bytes.starts_with(b"error=") {
            return Self::read_form(bytes);
        }
        Self::nonsense(match (bytes.trim_ascii_start().first(), error.classify()) {
            (None, _) => "an empty body",
            (Some(b'<'), _) => MARKUP,
            (Some(b'{'), serde_json::error::Category::Eof) => "a JSON object that is cut off",
            (Some(_), serde_json::error::Category::Data) => "JSON that is not an object",
            (Some(_), _) => "something else than JSON",
        })
    }

    fn read_form(bytes: &[u8]) -> Self {
        let mut body = Self::default();
        for (name, value) in form_urlencoded::parse(bytes) {
            if let Ok(raw) = to_raw_value(&value) {
                body.insert(name.into_owned(), raw);
            }
        }
        match body.flaw {
            Some(flaw) => Self::nonsense(&flaw),
            None => Self { flaw: Some("a form instead of JSON".into()), ..body },
        }
    }

    fn nonsense(what: &str) -> Self {
        Self { members: BTreeMap::new(), flaw: Some(what.into()) }
    }

    fn insert(&mut self, name: String, raw: Box<RawValue>) {
        if self.members.len() == MOST_MEMBERS {
            self.flaw = Some("more than 256 members".into());
        } else if self.members.insert(name, raw).is_some() {
            self.flaw = Some("a member that stands twice".into());
        }
    }

    /// Tells the redactor the secrets of the response.
    pub(crate) fn teach(&self, redactor: &mut Redactor) {
        for (name, raw) in &self.members {
            if let Some(value) = as_string(raw) {
                redactor.learn(name, &value);
            }
        }
    }

    /// Gives members the names that RFC 6749 has for them. One that has its right name already stays.
    pub(crate) fn rename(&mut self, renamed: &[(String, String)]) {
        for (ours, theirs) in renamed {
            if self.get(ours).is_some() {
                continue;
            }
            if let Some(raw) = self.at(theirs) {
                self.members.remove(theirs);
                self.members.insert(ours.clone(), raw);
            }
        }
    }

    /// Returns whether a member says by its value that the response refuses: `ok: false`, or one that was set.
    pub(crate) fn says_no(&self, refusals: &[(String, String)]) -> bool {
        let value = |json: &str| serde_json::from_str::<Value>(json).ok();
        let is = |name: &str, json: &str| self.at(name).is_some_and(|raw| value(raw.get()) == value(json));
        is("ok", "false") || refusals.iter().any(|(name, json)| is(name, json))
    }

    /// Returns the code of the error that the body tells of (RFC 6749 §5.2). One that breaks the grammar of RFC 6749
    /// Appendix A.7 is none.
    pub(crate) fn error_code(&self) -> Option<String> {
        let is_legal = |byte: u8| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        self.string("error").filter(|code| !code.is_empty() && code.bytes().all(is_legal))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&RawValue> {
        self.members.get(name).map(|raw| &**raw).filter(|raw| raw.get() != "null")
    }

    pub(crate) fn string(&self, name: &str) -> Option<String> {
        self.get(name).and_then(as_string)
    }

    /// Returns the member of this name, or the one that a JSON pointer (RFC 6901) leads to.
    pub(crate) fn at(&self, path: &str) -> Option<Box<RawValue>> {
        let Some(pointer) = path.strip_prefix('/') else {
            return self.get(path).map(ToOwned::to_owned);
        };
        let (first, rest) = pointer.split_at(pointer.find('/').unwrap_or(pointer.len()));
        let first = self.get(&first.replace("~1", "/").replace("~0", "~"))?;
        let member: Value = serde_json::from_str(first.get()).ok()?;
        to_raw_value(member.pointer(rest).filter(|value| !value.is_null())?).ok()
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self::default())
    }
}

/// Fills an empty one.
impl<'de> Visitor<'de> for Body {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<Self, A::Error> {
        while let Some((name, raw)) = access.next_entry()? {
            self.insert(name, raw);
        }
        Ok(self)
    }
}

// --- Helpers ---

/// Takes a body as it came. A byte order mark is taken off. Where something is not UTF-8, a mark takes its place, which no token
/// may hold.
pub(crate) fn readable(bytes: &[u8]) -> Vec<u8> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned().into_bytes()
}

/// The media type without its parameters; empty if there is none.
pub(crate) fn essence(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

pub(crate) fn as_string(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}
