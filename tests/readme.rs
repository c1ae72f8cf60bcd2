//! Holds the commands of the README and of docs/EVIDENCE.md to what cargo takes, and the examples to what a user can copy. The
//! code of the README is compiled with the docs.

#![allow(clippy::unwrap_used, reason = "a test that cannot read the sources has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const PAGES: &str = concat!(include_str!("../README.md"), include_str!("../docs/EVIDENCE.md"));
const MANIFEST: &str = include_str!("../Cargo.toml");

/// What cargo switches on by itself.
const DEFAULT: [&str; 2] = ["hyper-client", "stack"];

#[test]
fn each_example_is_named_with_the_features_that_it_needs() {
    let needed = needed();
    let mut seen = 0;
    for command in PAGES.split("cargo run --example ").skip(1) {
        let end = command.find(['`', '\n', '#']).unwrap();
        let mut words = command[..end].split_whitespace();
        let name = words.next().unwrap();
        let given = match words.next() {
            Some("--features") => words.next().unwrap().split(',').collect(),
            Some(word) => panic!("{name}: {word}"),
            None => Vec::new(),
        };
        let needs = needed.get(name).unwrap_or_else(|| panic!("there is no example {name}"));
        let missing: Vec<_> = needs.iter().filter(|feature| !given.contains(*feature)).collect();
        assert!(missing.is_empty(), "{name} needs {missing:?}");
        seen += 1;
    }
    assert!(seen > 16, "{seen} commands");
}

#[test]
fn an_example_is_one_short_file() {
    // The first two are demonstrations, with modules of their own. The last is a whole store.
    const LONGER: [&str; 4] = ["quickstart.rs", "observed.rs", "genesys_analytics.rs", "keychain.rs"];
    let mut seen = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() || LONGER.contains(&name) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.lines().count() <= 80, "{name} has {} lines", text.lines().count());
        assert!(!text.lines().any(|line| line.starts_with("mod ")), "{name} has a module");
        seen += 1;
    }
    assert!(seen >= 15, "{seen} examples");
}

/// The features of each example, without the default ones.
fn needed() -> BTreeMap<&'static str, Vec<&'static str>> {
    let examples = MANIFEST.split("\n[[example]]\n").skip(1);
    examples
        .map(|example| {
            let example = example.split("\n[").next().unwrap();
            let value = |key: &str| {
                let line = example.lines().find(|line| line.starts_with(key)).unwrap();
                line.split('"').skip(1).step_by(2).collect::<Vec<_>>()
            };
            let features =
                value("required-features").into_iter().filter(|feature| !DEFAULT.contains(feature)).collect();
            (value("name")[0], features)
        })
        .collect()
}
