//! The test vectors of `tests/vectors`, read by the tests of every room.
//!
//! `tests/mutate-vectors.sh` has one expectation read as another one, and looks whether a test sees it: the variable
//! `MUTATED_VECTOR` names the set and the number of the leaf.

use serde_json::Value;

/// Reads the vectors of one set.
pub(crate) fn read(set: &str) -> Vec<Value> {
    let path = format!("{}/tests/vectors/{set}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut document: Value = serde_json::from_str(&text).unwrap();
    let vectors = document["vectors"].as_array_mut().unwrap();
    if let Some(mut left) = mutated(set) {
        for vector in &mut *vectors {
            let id = vector["id"].clone();
            mutate(&mut vector["expect"], &mut left, &format!("{id} expect"));
        }
    }
    std::mem::take(vectors)
}

/// Reads the vectors of one set, and those from the field that have its form.
#[allow(dead_code, reason = "the tests that read this file as a module of their own need less of it")]
pub(crate) fn rows(set: &str) -> Vec<Value> {
    let field = read("field").into_iter().filter(|row| row["set"] == set);
    read(set).into_iter().chain(field).collect()
}

/// Returns the expected result of a vector, then the other acceptable ones.
pub(crate) fn acceptable(vector: &Value) -> Vec<&Value> {
    let alternatives = vector["alternatives"].as_array().into_iter().flatten();
    std::iter::once(&vector["expect"]).chain(alternatives).collect()
}

/// Returns which leaf of a set is to be read as another value.
fn mutated(set: &str) -> Option<Option<u64>> {
    let variable = std::env::var("MUTATED_VECTOR").ok()?;
    let (named, leaf) = variable.split_once(':')?;
    (named == set).then(|| leaf.parse().ok())
}

/// Changes the leaf that comes after so many others.
fn mutate(value: &mut Value, left: &mut Option<u64>, path: &str) {
    match value {
        Value::Array(list) => {
            list.iter_mut().enumerate().for_each(|(at, inner)| mutate(inner, left, &format!("{path}/{at}")));
        }
        Value::Object(members) => {
            members.iter_mut().for_each(|(name, inner)| mutate(inner, left, &format!("{path}/{name}")));
        }
        leaf => match left {
            Some(0) => {
                *leaf = match &*leaf {
                    Value::String(text) => format!("{text}~").into(),
                    Value::Number(number) => match number.as_i64() {
                        Some(number) => (number + 7).into(),
                        None => (number.as_f64().unwrap_or_default() + 7.0).into(),
                    },
                    Value::Bool(bool) => (!*bool).into(),
                    _ => "not null".into(),
                };
                #[allow(clippy::print_stdout, reason = "the script reads which one it was")]
                {
                    println!("mutated: {path} is {leaf}");
                }
                *left = None;
            }
            Some(more) => *more -= 1,
            None => {}
        },
    }
}
