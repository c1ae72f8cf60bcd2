//! Holds the code to the map in `CONTRIBUTING.md`: imports go down only.
//!
//! 1. A room may name rooms on lower floors and itself. Rooms on one floor may name each other only on the first.
//! 2. Every source file is on a floor, and the map in `CONTRIBUTING.md` says the same as the table here.
//! 3. Inside a room, children name their siblings and not the face (`mod.rs`), which only hands out what they make.
//! 4. A name that the front door hands out is imported from its room, so that rule 1 can see it.
//!
//! Test code keeps to rules 1, 2 and 4 as well; a `tests.rs` may look at its room's face, as its users do, and at the test
//! kit.

#![allow(clippy::unwrap_used, reason = "a test that cannot read the sources has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of each floor. A room may be a file inside a folder: the longest name that fits counts.
const FLOORS: &[(u8, &[&str])] = &[
    (
        1,
        &[
            "backoff",
            "body",
            "claims",
            "clock",
            "error",
            "extensions",
            "file",
            "headers",
            "http_transport",
            "origin",
            "runtime",
            "sync",
            "telemetry",
            "text",
        ],
    ),
    (2, &["token"]),
    (3, &["revoke", "source"]),
    (4, &["cache", "grants", "retry", "store"]),
    (5, &["auth"]),
    (6, &["pool", "stack", "tenants", "transport"]),
    (7, &["client", "guide"]),
    (8, &["providers", "test_util"]),
];

/// The room that tests on every floor may look up to.
const TEST_KIT: &str = "test_util";

/// Rooms of the first floor that exist only under `cfg(test)` and so stand on no public map.
const TEST_ROOMS: &[&str] = &["vectors"];

/// The one floor whose rooms may name each other.
const SIDEWAYS: u8 = 1;

#[test]
fn imports_go_down_only() {
    let house = House::of(&sources());
    let broken: Vec<String> = sources().iter().flat_map(|(file, text)| house.check(file, text)).collect();
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn every_source_file_is_on_a_floor() {
    for file in sources().keys().filter(|file| *file != "lib.rs") {
        let module = module_of(file);
        assert!(
            room(&module).is_some(),
            "src/{file} is on no floor: add its room to the table in tests/floors.rs"
        );
    }
}

#[test]
fn the_map_in_contributing_says_the_same() {
    let map = include_str!("../CONTRIBUTING.md");
    let mut rows = 0;
    for line in map.lines().filter_map(|line| line.strip_prefix("| ")) {
        let mut cells = line.split('|').map(str::trim);
        let (Some(floor), Some(rooms)) = (cells.next(), cells.next()) else { continue };
        let Ok(floor) = floor.split(' ').next().unwrap_or_default().parse::<u8>() else { continue };
        let (_, table) = FLOORS.iter().find(|(number, _)| *number == floor).unwrap_or_else(|| {
            panic!("CONTRIBUTING.md has a floor {floor} that the table in tests/floors.rs has not");
        });
        let mut drawn: Vec<&str> = rooms.split_whitespace().map(|room| room.trim_matches('`')).collect();
        drawn.sort_unstable();
        assert_eq!(drawn, *table, "floor {floor} differs between CONTRIBUTING.md and tests/floors.rs");
        rows += 1;
    }
    assert_eq!(rows, FLOORS.len(), "CONTRIBUTING.md does not draw every floor of tests/floors.rs");
}

#[test]
fn no_unsafe_code_gets_in() {
    let front_door = tokens(&sources()["lib.rs"]).join("");
    assert!(front_door.contains("#![forbid(unsafe_code)]"), "src/lib.rs must forbid unsafe code");
}

// --- The checker, checked ---

#[test]
fn an_import_that_goes_up_or_sideways_is_found_in_any_spelling() {
    for (file, text) in [
        ("token.rs", "use crate::cache::TokenCache;"),
        ("token.rs", "use crate::{clock, cache::{TokenCache as Cache}};"),
        ("token.rs", "use crate::{clock::{self, now}, source};"),
        ("token.rs", "fn f() { crate::auth::layer::f::<u8>() }"),
        ("token.rs", "use super::cache::TokenCache;"),
        ("token.rs", "mod tests { use super::super::cache::TokenCache; }"),
        ("token.rs", "macro_rules! m { () => { $crate::cache::f() } }"),
        ("token.rs", "use crate :: cache;"),
        ("cache/flight.rs", "use crate::retry::policy::RetryPolicy;"),
        ("cache/mod.rs", "pub use super::auth::layer::AuthLayer;"),
        ("cache/flight.rs", "use super::super::grants;"),
        ("cache/flight.rs", "impl<'a> A<'a> { fn f() -> char { '\"' } }\nuse crate::retry; // \""),
        ("auth/layer.rs", "use crate::transport;"),
        ("auth/layer.rs", "use crate::test_util::Script;"),
        ("auth/layer.rs", "use crate::AccessToken;"),
        ("auth/layer.rs", "use crate::*;"),
        ("cache/flight.rs", "use super::TokenCache;"),
        ("cache/flight.rs", "use super::*;"),
        ("cache/flight.rs", "use crate::cache::{state, TokenCache};"),
    ] {
        let broken = example().check(file, text);
        assert_eq!(broken.len(), 1, "{file}: {text}: {broken:?}");
    }
}

#[test]
fn an_import_that_goes_down_is_let_through() {
    for (file, text) in [
        (
            "cache/flight.rs",
            "use crate::token::AccessToken;\nuse super::state::State;\nuse crate::cache::state;",
        ),
        ("cache/mod.rs", "mod flight;\npub use self::flight::Flight;"),
        ("cache/tests.rs", "use super::*; use crate::cache::TokenCache;"),
        ("cache/tests.rs", "use crate::test_util::Script;"),
        ("cache/state_tests.rs", "use super::*; use crate::cache::state::State;"),
        ("cache/flight.rs", "mod tests { use super::*; use super::super::state::State; }"),
        ("error.rs", "use crate::clock; use crate::text;"),
        (
            "token.rs",
            "/// See [`TokenCache`](crate::cache::TokenCache).\n//! crate::auth\n/* crate::auth /* */ crate::auth */",
        ),
        (
            "token.rs",
            "const A: &str = \"crate::auth \\\" crate::auth\"; const B: &str = r#\"crate::auth \" crate::auth\"#;",
        ),
        (
            "auth/layer.rs",
            "pub(crate) fn f<'a>(a: &'a u8) -> &'a u8 { a } pub(super) fn g() {} pub(in crate::auth) fn h() {}",
        ),
    ] {
        let broken = example().check(file, text);
        assert!(broken.is_empty(), "{file}: {text}: {broken:?}");
    }
}

fn example() -> House {
    let files = [
        "lib.rs",
        "cache/mod.rs",
        "cache/state.rs",
        "cache/flight.rs",
        "cache/tests.rs",
        "cache/state_tests.rs",
        "auth/mod.rs",
        "auth/layer.rs",
    ];
    House::of(&files.map(|file| (file.to_owned(), String::new())).into())
}

// --- House ---

/// The modules that are files, and those of them that are faces of a folder.
struct House {
    modules: Vec<Vec<String>>,
    faces: Vec<Vec<String>>,
}

impl House {
    fn of(sources: &BTreeMap<String, String>) -> Self {
        let faces = sources.keys().filter(|file| file.ends_with("/mod.rs"));
        Self {
            modules: sources.keys().map(|file| module_of(file)).collect(),
            faces: faces.map(|file| module_of(file)).collect(),
        }
    }

    /// Returns a sentence for every path in `text` that breaks a rule.
    fn check(&self, file: &str, text: &str) -> Vec<String> {
        // The front door hands out what every floor has.
        if file == "lib.rs" {
            return Vec::new();
        }
        let module = module_of(file);
        let paths = paths(&module, &tokens(text));
        paths.iter().filter_map(|path| self.verdict(file, &module, path)).collect()
    }

    fn verdict(&self, file: &str, module: &[String], path: &[String]) -> Option<String> {
        let name = format!("crate::{}", path.join("::"));
        let Some((to_floor, to_room)) = room(path) else {
            return Some(format!(
                "src/{file} imports {name}, which is no room: import it from where it lives"
            ));
        };
        let (floor, own_room) = room(module)?;
        let tests = module.last().is_some_and(|name| name == "tests");
        if tests && to_room == TEST_KIT {
            return None;
        }
        if own_room != to_room && (to_floor > floor || to_floor == floor && floor != SIDEWAYS) {
            let way = if to_floor > floor { "up" } else { "sideways" };
            return Some(format!(
                "src/{file} (floor {floor}) imports {name} (floor {to_floor}): imports go down, never {way}"
            ));
        }
        let face = self.faces.iter().find(|face| {
            let below = module.len() > face.len() && module.starts_with(face);
            let handed_out = path.starts_with(face)
                && !self.modules.contains(&path[..path.len().min(face.len() + 1)].to_vec());
            below && handed_out
        })?;
        (!tests && path.len() > face.len()).then(|| {
            format!("src/{file} imports {name} from the face of its own room: import it from the sibling that makes it ({} is only a face)", face.join("::"))
        })
    }
}

/// Returns the floor and the name of the room in which a module or an item is.
fn room(path: &[String]) -> Option<(u8, String)> {
    let tests = TEST_ROOMS.iter().map(|room| (1, *room));
    let rooms =
        FLOORS.iter().flat_map(|(floor, rooms)| rooms.iter().map(|room| (*floor, *room))).chain(tests);
    let fits = rooms.filter(|(_, room)| {
        room.split('/').zip(path).filter(|(a, b)| a == b).count() == room.split('/').count()
    });
    fits.max_by_key(|(_, room)| room.len()).map(|(floor, room)| (floor, room.to_owned()))
}

/// Returns the path of a file's module. The tests of `state.rs` lie beside it in `state_tests.rs`.
fn module_of(file: &str) -> Vec<String> {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    let path = path.strip_suffix("_tests").map_or(path.to_owned(), |tested| format!("{tested}/tests"));
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

fn sources() -> BTreeMap<String, String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&src, &mut files);
    let name = |path: &Path| path.strip_prefix(&src).unwrap().to_str().unwrap().replace('\\', "/");
    files.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

// --- A small reader of Rust ---

/// Finds every path that begins at the crate's root, or climbs with `super`, as segments from the root.
fn paths(module: &[String], tokens: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    // The modules written out in the file, with the depth of braces at which each ends.
    let mut inline: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                inline.retain(|(_, ends)| *ends <= depth);
            }
            "mod" if tokens.get(at + 2).is_some_and(|token| token == "{") => {
                inline.push((tokens[at + 1].clone(), depth + 1));
            }
            "crate" | "super" if tokens.get(at + 1).is_some_and(|token| token == "::") => {
                let mut base: Vec<String> = match tokens[at].as_str() {
                    "crate" => Vec::new(),
                    _ => module.iter().cloned().chain(inline.iter().map(|(name, _)| name.clone())).collect(),
                };
                while tokens.get(at).is_some_and(|token| token == "super")
                    && tokens.get(at + 1).is_some_and(|token| token == "::")
                {
                    base.pop();
                    at += 2;
                }
                if tokens.get(at).is_some_and(|token| token == "crate") {
                    at += 2;
                }
                tree(&base, tokens, &mut at, &mut found);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Reads one tree of a `use`, or a path in an expression: `a::b`, `a::{b, c::*}`, `self`.
fn tree(base: &[String], tokens: &[String], at: &mut usize, found: &mut Vec<Vec<String>>) {
    let mut path = base.to_vec();
    loop {
        match tokens.get(*at).map(String::as_str) {
            Some("{") => {
                *at += 1;
                while tokens.get(*at).is_some_and(|token| token != "}") {
                    let before = *at;
                    tree(&path, tokens, at, found);
                    // Steps over `as Name` and commas, and never stands still.
                    while tokens.get(*at).is_some_and(|token| token != "," && token != "}") {
                        *at += 1;
                    }
                    if tokens.get(*at).is_some_and(|token| token == ",") || *at == before {
                        *at += 1;
                    }
                }
                *at += 1;
                return;
            }
            Some("self") => {}
            Some(segment) if segment == "*" || is_word(segment) => path.push(segment.to_owned()),
            _ => break,
        }
        *at += 1;
        if tokens.get(*at).is_none_or(|token| token != "::") {
            break;
        }
        *at += 1;
    }
    found.push(path);
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Splits Rust into words, `::` and single signs, without comments, strings and characters.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let starts = |at: usize, what: &str| chars[at..].iter().take(what.len()).copied().eq(what.chars());
    let mut tokens: Vec<String> = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let from = at;
        match chars[at] {
            c if c.is_alphabetic() || c == '_' => {
                while at < chars.len() && (chars[at].is_alphanumeric() || chars[at] == '_') {
                    at += 1;
                }
                let word: String = chars[from..at].iter().collect();
                let raw = word.ends_with('r') && word.len() <= 2;
                let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
                if raw && chars.get(at + hashes) == Some(&'"') {
                    let end = format!("\"{}", "#".repeat(hashes));
                    at += hashes + 1;
                    while at < chars.len() && !starts(at, &end) {
                        at += 1;
                    }
                    at += end.len();
                } else {
                    tokens.push(word);
                }
            }
            '/' if starts(at, "//") => {
                while at < chars.len() && chars[at] != '\n' {
                    at += 1;
                }
            }
            '/' if starts(at, "/*") => {
                let mut depth = 0;
                loop {
                    match () {
                        () if at >= chars.len() => break,
                        () if starts(at, "/*") => (depth, at) = (depth + 1, at + 2),
                        () if starts(at, "*/") => (depth, at) = (depth - 1, at + 2),
                        () => at += 1,
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            '"' => {
                at += 1;
                while at < chars.len() && chars[at] != '"' {
                    at += if chars[at] == '\\' { 2 } else { 1 };
                }
                at += 1;
            }
            // A character ends with a quote; a lifetime does not.
            '\'' if chars.get(at + 1) == Some(&'\\') => {
                at += 3;
                while at < chars.len() && chars[at] != '\'' {
                    at += 1;
                }
                at += 1;
            }
            '\'' if chars.get(at + 2) == Some(&'\'') => at += 3,
            ':' if starts(at, "::") => {
                tokens.push("::".to_owned());
                at += 2;
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(c.to_string());
                }
                at += 1;
            }
        }
    }
    tokens
}
