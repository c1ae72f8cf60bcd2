//! A member of a JSON text, by its name or by a JSON pointer (RFC 6901), without making a tree of the whole.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// Where in a JSON text something stands: a name is a member at the top, and what begins with a slash is a pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member(String);

/// So many levels are read by `serde_json`, and by most others.
const DEEPEST: usize = 127;

impl Member {
    pub(super) fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the value as it stands there.
    pub(super) fn find<'a>(&self, json: &'a [u8]) -> Result<Option<&'a RawValue>, serde_json::Error> {
        let mut value: &RawValue = serde_json::from_slice(json)?;
        for step in steps(&self.0) {
            let mut reader = serde_json::Deserializer::from_str(value.get());
            match PointerStep(&step).deserialize(&mut reader)? {
                Some(found) => value = found,
                None => return Ok(None),
            }
        }
        Ok(Some(value))
    }

    /// Returns whether another member beside this one is an array with something in it, and which.
    pub(super) fn find_other_array(&self, json: &[u8]) -> Option<String> {
        let parent = self.0.rfind('/').filter(|_| self.0.starts_with('/')).map_or("", |at| &self.0[..at]);
        let parent = Self(parent.to_owned()).find(json).ok()??;
        let members: serde_json::Map<String, Value> = serde_json::from_str(parent.get()).ok()?;
        let is_full = |value: &Value| value.as_array().is_some_and(|array| !array.is_empty());
        members.into_iter().find_map(|(name, value)| is_full(&value).then_some(name))
    }

    /// Puts a value there, and makes the objects on the way.
    pub(super) fn set(&self, json: &mut Value, new: Value) -> Result<(), &'static str> {
        // A saved position names it, perhaps one that others have written. What is too deep overflows the stack when it is
        // written or dropped.
        if steps(&self.0).nth(DEEPEST).is_some() {
            return Err("would be deeper than JSON can be read");
        }
        let mut place = json;
        for step in steps(&self.0) {
            if place.is_null() {
                *place = Value::Object(serde_json::Map::new());
            }
            place = match place {
                Value::Object(members) => members.entry(step.into_owned()).or_insert(Value::Null),
                Value::Array(items) => {
                    let item = index(&step).and_then(|index| items.get_mut(index));
                    item.ok_or("has no item of that number on the way")?
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                    return Err("has something else than an object on the way");
                }
            };
        }
        *place = new;
        Ok(())
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns how many items an array has; a null has none. Nothing for any other value.
pub(super) fn count(value: &RawValue) -> Option<u64> {
    match value.get().as_bytes().first()? {
        b'[' => serde_json::from_str::<Counted>(value.get()).ok().map(|counted| counted.0),
        b'n' => Some(0),
        _ => None,
    }
}

/// Returns a whole number, which some write as a string.
pub(super) fn number(value: &RawValue) -> Option<u64> {
    value.get().trim_matches('"').parse().ok()
}

fn steps(path: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let pointer = path.strip_prefix('/');
    // A name is one step, also with slashes in it; the empty path is the whole text.
    let name = Some(path).filter(|path| pointer.is_none() && !path.is_empty());
    let steps = pointer.map(|pointer| pointer.split('/').map(unescape));
    name.map(Cow::Borrowed).into_iter().chain(steps.into_iter().flatten())
}

/// RFC 6901 §4.
fn unescape(step: &str) -> Cow<'_, str> {
    match step.contains('~') {
        true => step.replace("~1", "/").replace("~0", "~").into(),
        false => step.into(),
    }
}

fn index(step: &str) -> Option<usize> {
    // "+1" would be read, and no leading zero may stand there (RFC 6901 §4).
    let is_number = step.bytes().all(|byte| byte.is_ascii_digit()) && (step == "0" || !step.starts_with('0'));
    step.parse().ok().filter(|_| is_number)
}

// --- PointerStep ---

/// Reads one member or one item of a value, and passes over the others.
struct PointerStep<'s>(&'s str);

impl<'de> DeserializeSeed<'de> for PointerStep<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for PointerStep<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            // Of several the last one counts, as in a tree of serde_json.
            if key == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let wanted = index(self.0);
        let (mut at, mut found) = (0, None);
        loop {
            if Some(at) == wanted {
                found = items.next_element()?;
            } else if items.next_element::<IgnoredAny>()?.is_none() {
                return Ok(found);
            }
            if Some(at) == wanted && found.is_none() {
                return Ok(None);
            }
            at += 1;
        }
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }
}

// --- Counted ---

/// How many items an array has.
struct Counted(u64);

impl<'de> serde::Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Count;

        impl<'de> Visitor<'de> for Count {
            type Value = Counted;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Counted, A::Error> {
                let mut count = 0;
                while items.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Counted(count))
            }
        }

        deserializer.deserialize_seq(Count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const BODY: &str = r#"{"next": "n1", "paging": {"cursors": {"after": 7}}, "a/b": 1, "m~n": 2, "@odata.nextLink": "u",
        "items": [{"id": 1}, {"id": 2}], "last": null, "twice": 1, "twice": 2, "big": 12345678901234567890123}"#;

    fn find(path: &str) -> Option<&str> {
        Member::new(path).find(BODY.as_bytes()).unwrap().map(RawValue::get)
    }

    #[test]
    fn a_member_is_found_by_name_or_pointer() {
        for (path, value) in [
            ("next", Some("\"n1\"")),
            ("/next", Some("\"n1\"")),
            ("/paging/cursors/after", Some("7")),
            ("@odata.nextLink", Some("\"u\"")),
            ("a/b", Some("1")),
            ("/a~1b", Some("1")),
            ("/m~0n", Some("2")),
            ("/items/1/id", Some("2")),
            ("/items/2", None),
            ("/items/01", None),
            ("/items/-", None),
            ("/items/id", None),
            ("/next/x", None),
            ("/last/x", None),
            ("last", Some("null")),
            ("twice", Some("2")),
            ("big", Some("12345678901234567890123")),
            ("paging.cursors", None),
            ("other", None),
        ] {
            assert_eq!(find(path), value, "{path}");
        }
        assert!(Member::new("x").find(b"<html>").is_err());
        assert!(Member::new("x").find(b"{\"x\": 1").is_err());
    }

    #[test]
    fn items_are_counted_and_numbers_read() {
        let raw = |path| Member::new(path).find(BODY.as_bytes()).unwrap().unwrap();
        assert_eq!((count(raw("items")), count(raw("last")), count(raw("paging"))), (Some(2), Some(0), None));
        for (text, read) in
            [("12", Some(12)), ("\"12\"", Some(12)), ("-1", None), ("1.5", None), ("null", None)]
        {
            assert_eq!(number(&RawValue::from_string(text.to_owned()).unwrap()), read, "{text}");
        }
    }

    #[test]
    fn a_value_is_put_where_the_path_says() {
        let mut body = json!({ "paging": { "size": 25 }, "list": [{}] });
        Member::new("/paging/number").set(&mut body, 2.into()).unwrap();
        Member::new("cursor").set(&mut body, "c".into()).unwrap();
        Member::new("/new/deep").set(&mut body, 1.into()).unwrap();
        Member::new("/list/0/x").set(&mut body, 3.into()).unwrap();
        let paging = json!({ "size": 25, "number": 2 });
        assert_eq!(
            body,
            json!({ "paging": paging, "cursor": "c", "new": { "deep": 1 }, "list": [{ "x": 3 }] })
        );
        assert!(Member::new("/cursor/x").set(&mut body, 1.into()).is_err());
        assert!(Member::new("/list/7").set(&mut body, 1.into()).is_err());
    }

    proptest! {
        #[test]
        fn a_pointer_finds_what_serde_json_finds(
            path in "(/(a|b|0|1|c~1d|e~0f)){0,3}",
            json in proptest::sample::select(vec![
                r#"{"a": {"b": [1, {"a": 2}]}, "b": [[3], 4], "c/d": 5, "e~f": {"a": "x"}}"#,
                r#"[{"a": 1}, [2, [3]]]"#,
                "7",
                r#"{"0": {"1": 8}}"#,
            ]),
        ) {
            let tree: Value = serde_json::from_str(json).unwrap();
            let found = Member::new(path.clone()).find(json.as_bytes()).unwrap();
            let found = found.map(|found| serde_json::from_str::<Value>(found.get()).unwrap());
            prop_assert_eq!(found.as_ref(), tree.pointer(&path));
        }
    }
}
