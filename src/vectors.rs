//! The test vectors of `tests/vectors`, read by the tests of every room.

use serde_json::Value;

/// Reads the vectors of one set.
pub(crate) fn read(set: &str) -> Vec<Value> {
    let path = format!("{}/tests/vectors/{set}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let set: Value = serde_json::from_str(&text).unwrap();
    set["vectors"].as_array().unwrap().clone()
}

/// Returns the expected result of a vector, then the other acceptable ones.
pub(crate) fn acceptable(vector: &Value) -> Vec<&Value> {
    let alternatives = vector["alternatives"].as_array().into_iter().flatten();
    std::iter::once(&vector["expect"]).chain(alternatives).collect()
}
