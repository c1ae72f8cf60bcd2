//! The pages that users read are in plain technical English: the words of the ecosystem, and none that only this crate would
//! use for them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};

/// What not to say, and what to say instead.
const WORDS: &[(&str, &str)] = &[
    ("answer", "response, return, respond"),
    ("hand out", "return"),
    ("handed out", "returned"),
    ("hands out", "returns"),
    ("time-out", "timeout"),
    ("of one's own", "your own"),
    ("whoever", "name the caller, the task or the server"),
    ("nobody", "name what does not happen"),
    ("somebody", "name the caller, the task or the server"),
    ("anybody", "any caller, any client"),
];

/// README, CONTRIBUTING and each doc comment of the library, by line. What stands in a block of code is left out: messages and
/// programs have tests of their own.
fn prose() -> Vec<(PathBuf, usize, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    let mut folders = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    let mut lines = Vec::new();
    for file in files {
        let is_rust = file.extension().is_some_and(|extension| extension == "rs");
        let text = fs::read_to_string(&file).unwrap();
        let mut is_code = false;
        for (at, line) in text.lines().enumerate() {
            let line = line.trim_start();
            let line = match line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) {
                Some(comment) => comment.trim_start(),
                None if is_rust => continue,
                None => line,
            };
            if line.starts_with("```") {
                is_code = !is_code;
            } else if !is_code {
                lines.push((file.clone(), at + 1, line.to_lowercase()));
            }
        }
    }
    lines
}

#[test]
fn the_docs_use_the_words_of_the_ecosystem() {
    let prose = prose();
    assert!(prose.len() > 5000, "only {} lines were read", prose.len());
    let mut broken = String::new();
    for (word, instead) in WORDS {
        let found: Vec<_> = prose.iter().filter(|(_, _, line)| line.contains(word)).collect();
        if !found.is_empty() {
            broken += &format!("\"{word}\"; say: {instead}\n");
        }
        for (file, at, line) in found {
            broken += &format!("  {}:{at}: {line}\n", file.display());
        }
    }
    assert!(broken.is_empty(), "\n{broken}");
}
