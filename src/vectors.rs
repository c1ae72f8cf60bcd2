//! The test vectors of `tests/vectors`, read by the tests of every module.
//!
//! Each row comes with the one expectation that this crate has to meet. `tests/vectors/here.json` names the rows where that
//! is not the first one: the number of the alternative, or what is done instead, and why.
//!
//! `tests/mutate-vectors.sh` copies the folder, makes one expectation of the copy wrong, names the copy in `TEST_VECTORS`, and
//! looks whether a test sees it.

use serde_json::Value;

/// Reads the vectors of one set.
pub(crate) fn read(set: &str) -> Vec<Value> {
    let here = document("here");
    let mut rows = document(set)["vectors"].take();
    let rows = rows.as_array_mut().unwrap();
    rows.iter_mut().for_each(|row| meet(row, &here["rows"]));
    std::mem::take(rows)
}

/// Reads the vectors of one set, and those from the field that have its form.
#[allow(dead_code, reason = "the tests that read this file as a module of their own need less of it")]
pub(crate) fn rows(set: &str) -> Vec<Value> {
    let field = read("field").into_iter().filter(|row| row["set"] == set);
    read(set).into_iter().chain(field).collect()
}

fn document(name: &str) -> Value {
    let folder = std::env::var("TEST_VECTORS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors").to_owned());
    let text = std::fs::read_to_string(format!("{folder}/{name}.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Puts the expectation that this crate meets in the place of the first one, and drops the others.
fn meet(row: &mut Value, here: &Value) {
    let differs = row["id"].as_str().and_then(|id| here.get(id));
    let mut others = row.as_object_mut().unwrap().remove("alternatives").unwrap_or_default();
    if let Some(differs) = differs {
        let number = differs["alternative"].as_u64();
        row["expect"] = match number.and_then(|number| usize::try_from(number).ok()) {
            Some(number) => others[number - 1].take(),
            None => differs["expect"].clone(),
        };
    }
}
