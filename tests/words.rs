//! The pages, errors and log lines that users read are in plain technical English: the words of the ecosystem, and none that
//! only this crate would use for them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};

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

/// All files of a folder.
fn files_below(folder: PathBuf) -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![folder], Vec::new());
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
    files
}

fn is_of_tests(file: &Path) -> bool {
    file.ends_with("tests.rs") || file.components().any(|part| part.as_os_str() == "tests")
}

/// The pages beside the code and each doc comment of the library and the examples, by line. Blocks of code are left out: programs
/// have their own tests.
fn prose() -> Vec<(PathBuf, usize, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = ["src", "docs", "examples"].map(|folder| files_below(root.join(folder))).concat();
    files.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|page| root.join(page)));
    let mut lines = Vec::new();
    for file in files.into_iter().filter(|file| !is_of_tests(file)) {
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
                // Names are code, old ones too.
                let words = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
                lines.push((file.clone(), at + 1, words));
            }
        }
    }
    lines
}

/// The string literals of the library and the examples with a space in them, without its tests: errors, log lines, panics.
fn messages() -> Vec<(PathBuf, usize, String)> {
    let mut lines = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["src", "examples"].map(|folder| files_below(root.join(folder))).concat() {
        let is_rust = file.extension().is_some_and(|extension| extension == "rs");
        if !is_rust || is_of_tests(&file) {
            continue;
        }
        let tokens: TokenStream = fs::read_to_string(&file).unwrap().parse().unwrap();
        let mut found = Vec::new();
        collect_strings(tokens, &mut found);
        lines.extend(found.into_iter().map(|(at, text)| (file.clone(), at, text)));
    }
    lines
}

fn collect_strings(tokens: TokenStream, found: &mut Vec<(usize, String)>) {
    let mut tokens = tokens.into_iter().peekable();
    let mut is_test = false;
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(mark) if mark.as_char() == '#' => {
                // The texts of attributes are docs, or names.
                tokens.next_if(|token| matches!(token, TokenTree::Punct(mark) if mark.as_char() == '!'));
                let attribute = tokens.next_if(|token| matches!(token, TokenTree::Group(_)));
                is_test |= attribute
                    .is_some_and(|attribute| attribute.to_string().replace(' ', "") == "[cfg(test)]");
            }
            // The end of what stands under the attribute.
            TokenTree::Punct(mark) if mark.as_char() == ';' => is_test = false,
            TokenTree::Group(group) if is_test => {
                is_test = group.delimiter() != proc_macro2::Delimiter::Brace
            }
            TokenTree::Group(group) => collect_strings(group.stream(), found),
            TokenTree::Literal(literal) if !is_test => {
                let text = literal.to_string();
                if text.contains('"') && text.contains(' ') {
                    found.push((literal.span().start().line, text));
                }
            }
            _ => {}
        }
    }
}

#[test]
fn the_docs_use_the_words_of_the_ecosystem() {
    let prose = prose();
    assert!(prose.len() > 5000, "only {} lines were read", prose.len());
    assert_plain(&prose);
}

/// A sentence names the thing that it is about. Questions and headings are left out, and the introductions of lists of rules.
#[test]
fn no_sentence_begins_with_a_clause_in_place_of_a_thing() {
    let mut broken = String::new();
    let prose = prose();
    for (file, at, line) in &prose {
        if line.starts_with('#') {
            continue;
        }
        let marks = |c: char| c.is_ascii_digit() || ". -*|#".contains(c);
        let sentences = line.trim_start_matches(marks).split(". ").filter(|sentence| !sentence.contains('?'));
        for sentence in sentences.filter(|sentence| !sentence.starts_with("What happens")) {
            if ["What ", "Who ", "Whoever ", "Whatever "].iter().any(|word| sentence.starts_with(word)) {
                broken += &format!("  {}:{at}: {sentence}\n", file.display());
            }
        }
    }
    assert!(broken.is_empty(), "name the thing, not \"what\" or \"who\" does:\n{broken}");
}

#[test]
fn the_messages_use_the_words_of_the_ecosystem() {
    let messages = messages();
    assert!(messages.len() > 700, "only {} literals were read", messages.len());
    assert_plain(&messages);
}

#[track_caller]
fn assert_plain(lines: &[(PathBuf, usize, String)]) {
    let mut broken = String::new();
    for (word, instead) in WORDS {
        let found: Vec<_> = lines.iter().filter(|(_, _, line)| line.to_lowercase().contains(word)).collect();
        if !found.is_empty() {
            broken += &format!("\"{word}\"; say: {instead}\n");
        }
        for (file, at, line) in found {
            broken += &format!("  {}:{at}: {line}\n", file.display());
        }
    }
    assert!(broken.is_empty(), "\n{broken}");
}
