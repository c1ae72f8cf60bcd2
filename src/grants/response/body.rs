//! One response of an endpoint, which ones are accepted, and what its body is made of.

use std::collections::BTreeMap;
use std::fmt;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::grants::response::classifier::Classifier;
use crate::grants::response::wording::Wording;
use crate::text::Redactor;

/// One response, read to its end or to where reading it made no sense.
pub(crate) struct EndpointResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The whole body, or why it was not read, as the end of a sentence about it.
    pub(crate) body: Result<Vec<u8>, String>,
}

/// Takes a body as it came. A byte order mark is taken off. Where something is not UTF-8, a mark takes its place, which no token
/// may hold.
pub(crate) fn readable(bytes: Vec<u8>) -> Vec<u8> {
    let bytes = match bytes.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => rest.to_vec(),
        None => bytes,
    };
    match String::from_utf8(bytes) {
        Ok(text) => text.into_bytes(),
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned().into_bytes(),
    }
}

/// The expectations of an endpoint before it responds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    pub(crate) acceptance: Acceptance,
    pub(crate) wording: Wording,
}

/// Which responses are taken for a token.
#[derive(Clone, Debug, Default)]
pub(crate) struct Acceptance {
    pub(crate) requested: Vec<String>,
    pub(crate) required: Vec<String>,
    pub(crate) strict_bearer: bool,
    pub(crate) classifier: Option<Classifier>,
    /// The name of a member in RFC 6749, and its name at this endpoint.
    pub(crate) renamed: Vec<(String, String)>,
    /// The token types that are accepted beside `Bearer`.
    pub(crate) token_types: Vec<String>,
    /// Members that say by their value that the response refuses; without a value if it is not JSON, which is said when the
    /// source is built.
    pub(crate) refusals: Vec<(String, Option<serde_json::Value>)>,
}

// --- Body ---

/// A body by what it is made of.
pub(crate) enum Body<'a> {
    Object(Members<'a>),
    Form(Vec<(String, String)>),
    /// Nothing that can be read; the text completes "the endpoint returned 200 with ..".
    Nonsense(String),
}

/// The members of an error response (RFC 6749 §5.2).
pub(crate) struct OAuthError {
    pub(crate) code: String,
    pub(crate) description: Option<String>,
    pub(crate) uri: Option<String>,
}

impl<'a> Body<'a> {
    pub(crate) fn read(response: &'a EndpointResponse) -> Self {
        let bytes = match &response.body {
            Ok(bytes) => bytes,
            Err(reason) => return Self::Nonsense(reason.clone()),
        };
        let error = match serde_json::from_slice::<Members<'_>>(bytes) {
            Ok(Members { flaw: Some(flaw), .. }) => return Self::Nonsense(flaw.into()),
            Ok(members) => return Self::Object(members),
            Err(error) => error,
        };
        let is_form = essence(&response.headers).eq_ignore_ascii_case("application/x-www-form-urlencoded");
        if is_form || bytes.starts_with(b"error=") {
            let pairs = form_urlencoded::parse(bytes);
            if pairs.count() > MOST_MEMBERS {
                return Self::Nonsense("a form of more than 256 fields".into());
            }
            return Self::Form(pairs.into_owned().collect());
        }
        let trimmed = bytes.trim_ascii_start();
        Self::Nonsense(
            match (trimmed.first(), error.classify()) {
                (None, _) => "an empty body",
                (Some(b'<'), _) => MARKUP,
                (Some(b'{'), serde_json::error::Category::Eof) => "a JSON object that is cut off",
                (Some(_), serde_json::error::Category::Data) => "JSON that is not an object",
                (Some(_), _) => "something else than JSON",
            }
            .into(),
        )
    }

    /// Tells the redactor the secrets of the response.
    pub(crate) fn teach(&self, redactor: &mut Redactor) {
        match self {
            Self::Object(members) => members.map.iter().for_each(|(name, raw)| {
                if let Some(value) = as_string(raw) {
                    redactor.learn(name, &value);
                }
            }),
            Self::Form(pairs) => pairs.iter().for_each(|(name, value)| redactor.learn(name, value)),
            Self::Nonsense(_) => {}
        }
    }

    /// Gives members the names that RFC 6749 has for them. One that has its right name already stays.
    pub(crate) fn rename(&mut self, renamed: &[(String, String)]) {
        let Self::Object(members) = self else { return };
        for (ours, theirs) in renamed {
            if members.get(ours).is_some() {
                continue;
            }
            let found = if theirs.starts_with('/') { members.at(theirs) } else { members.map.remove(theirs) };
            if let Some(raw) = found {
                members.map.insert(ours.clone(), raw);
            }
        }
    }

    /// Returns whether a member says by its value that the response refuses: `ok: false`, or one that was set.
    pub(crate) fn says_no(&self, refusals: &[(String, Option<serde_json::Value>)]) -> bool {
        let Self::Object(members) = self else { return false };
        let is = |name: &str, value: &serde_json::Value| {
            let raw = if name.starts_with('/') { members.at(name) } else { members.get(name) };
            raw.is_some_and(|raw| {
                serde_json::from_str::<serde_json::Value>(raw.get()).is_ok_and(|found| found == *value)
            })
        };
        let is_set = |value: &Option<serde_json::Value>, name: &str| {
            value.as_ref().is_some_and(|value| is(name, value))
        };
        is("ok", &serde_json::Value::Bool(false)) || refusals.iter().any(|(name, value)| is_set(value, name))
    }

    /// Returns the error that the body tells of. A code that breaks the grammar of RFC 6749 Appendix A.7 is none.
    pub(crate) fn refusal(&self) -> Option<OAuthError> {
        let read = |name: &str| match self {
            Self::Object(members) => members.string(name),
            Self::Form(pairs) => pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.clone()),
            Self::Nonsense(_) => None,
        };
        let code = read("error").filter(|code| is_error_code(code))?;
        // Genesys Cloud says `description`.
        let description = read("error_description").or_else(|| read("description"));
        Some(OAuthError { code, description, uri: read("error_uri") })
    }
}

// --- Members ---

/// The members of a JSON object, not yet read: a member that is not used is never interpreted, however deep or large.
pub(crate) struct Members<'a> {
    pub(crate) map: BTreeMap<String, &'a RawValue>,
    /// Why none of it is believed, as the end of a sentence about it.
    flaw: Option<&'static str>,
}

/// Real responses have a dozen. Each may be a secret that is looked for in all that is shown.
const MOST_MEMBERS: usize = 256;

impl<'a> Members<'a> {
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.map.get(name).copied().filter(|raw| raw.get() != "null")
    }

    pub(crate) fn string(&self, name: &str) -> Option<String> {
        self.get(name).and_then(as_string)
    }

    /// Follows a JSON pointer (RFC 6901) through objects.
    fn at(&self, pointer: &str) -> Option<&'a RawValue> {
        let mut names = pointer.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~"));
        let mut raw = self.get(&names.next()?)?;
        for name in names {
            raw = serde_json::from_str::<Members<'a>>(raw.get()).ok()?.get(&name)?;
        }
        Some(raw)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut members = Members { map: BTreeMap::new(), flaw: None };
        while let Some((name, raw)) = access.next_entry::<String, &'de RawValue>()? {
            if members.map.len() == MOST_MEMBERS {
                members.flaw = Some("a JSON object of more than 256 members");
            } else if members.map.insert(name, raw).is_some() {
                members.flaw = Some("a JSON object in which a member stands twice");
            }
        }
        Ok(members)
    }
}

// --- Helpers ---

/// The description of the response of a login page, a proxy or a firewall.
pub(crate) const MARKUP: &str = "HTML or XML instead of JSON";

/// The media type without its parameters; empty if there is none.
pub(crate) fn essence(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

pub(crate) fn as_string(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// The grammar of RFC 6749 Appendix A.7, and not empty.
fn is_error_code(code: &str) -> bool {
    !code.is_empty() && code.bytes().all(|byte| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}
