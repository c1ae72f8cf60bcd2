//! The messages of the compiler about a common mistake, produced by the compiler itself.
//!
//! The programs are compiled against the library that this test was linked with, which lies beside the test.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(all(feature = "hyper-client", feature = "stack"))]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const BUILDER: &str =
    r#"tower_oauth2::ClientCredentials::builder("https://login.example.com/token", "billing", "secret")"#;
const SOURCE: &str = r#"tower_oauth2::AccessToken::bearer("mF_9.B5f-4.1JqM").unwrap()"#;

#[test]
fn an_unfinished_builder_is_told_to_be_finished() {
    let calls = [
        r#"tower_oauth2::ApiClient::connect("https://api.example.com", SOURCE)"#,
        r#"tower_oauth2::ApiClient::builder("https://api.example.com", SOURCE)"#,
        r#"tower_oauth2::AuthLayer::for_origin(SOURCE, "https://api.example.com")"#,
        "tower_oauth2::AuthLayer::for_any_https_origin_unchecked(SOURCE)",
        r#"tower_oauth2::stack::Stack::for_base_url(SOURCE, "https://api.example.com")"#,
        "tower_oauth2::TokenCache::new(SOURCE)",
    ];
    let library = library();
    for call in calls {
        let message = compile(&library, &call.replace("SOURCE", BUILDER)).unwrap_err();
        for part in ["GrantBuilder<", "not a `TokenSource`", "finish a builder by `.build()?`"] {
            assert!(message.contains(part), "{call}\n{part}\n{message}");
        }
        let finished = call.replace("SOURCE", &format!("{BUILDER}.build().unwrap()"));
        assert_eq!(compile(&library, &finished), Ok(()), "{finished}");
    }
}

#[test]
fn the_text_of_a_token_is_told_how_to_become_a_source() {
    let call = r#"tower_oauth2::AuthLayer::for_origin("mF_9.B5f-4.1JqM", "https://api.example.com")"#;
    let message = compile(&library(), call).unwrap_err();
    assert!(message.contains("`AccessToken::bearer(token)?`"), "{message}");
}

#[test]
fn arguments_in_the_wrong_order_are_told_the_right_one() {
    let library = library();
    for call in [
        format!(r#"tower_oauth2::ApiClient::connect({SOURCE}, "https://api.example.com")"#),
        format!(r#"tower_oauth2::AuthLayer::for_origin("https://api.example.com", {SOURCE})"#),
    ] {
        let message = compile(&library, &call).unwrap_err();
        assert!(message.contains("an `ApiClient` takes its base URL first"), "{message}");
    }
}

#[test]
fn a_cache_is_told_that_it_needs_no_other_around_it() {
    for cache in ["tower_oauth2::TokenCache::new(SOURCE)", "&tower_oauth2::TokenCache::new(SOURCE)"] {
        let call = format!("tower_oauth2::TokenCache::new({})", cache.replace("SOURCE", SOURCE));
        let message = compile(&library(), &call).unwrap_err();
        assert!(message.contains("a `TokenCache` needs no other around it"), "{message}");
    }
}

#[test]
fn what_is_no_http_client_is_told_how_to_become_one() {
    let call =
        format!(r#"tower_oauth2::ApiClient::builder("https://api.example.com", {SOURCE}).build_with(())"#);
    let message = compile(&library(), &call).unwrap_err();
    for part in [
        "`transport::HyperClient` for hyper, `transport::ReqwestClient` for reqwest",
        "in place of a `BoxService` take tower's `BoxCloneSyncService`",
    ] {
        assert!(message.contains(part), "{part}\n{message}");
    }
}

#[test]
fn what_cannot_revoke_is_told_what_can() {
    let calls = [
        ("|_| async { Ok(()) }", "a closure becomes one by `revoker_fn`"),
        (
            r#"tower_oauth2::grants::Revocation::builder("https://login.example.com/revoke", "billing", "secret")"#,
            "finish a builder by `.build()?`",
        ),
    ];
    for (revoker, cure) in calls {
        let call = format!("tower_oauth2::TokenCache::builder({SOURCE}).revoke_with({revoker})");
        let message = compile(&library(), &call).unwrap_err();
        assert!(message.contains("not a `TokenRevoker`") && message.contains(cure), "{message}");
    }
}

/// The newest library of this directory that has what this test was compiled with.
fn library() -> PathBuf {
    let test = env::current_exe().unwrap();
    let beside = fs::read_dir(test.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let mut libraries: Vec<PathBuf> = beside
        .filter(|path| path.extension().is_some_and(|extension| extension == "rlib"))
        .filter(|path| path.file_stem().unwrap().to_str().unwrap().starts_with("libtower_oauth2-"))
        .collect();
    libraries.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    let control = format!(r#"tower_oauth2::ApiClient::connect("https://api.example.com", {SOURCE})"#);
    let compiles = |library: &PathBuf| compile(library, &control).is_ok();
    libraries.into_iter().rev().find(compiles).unwrap()
}

/// Compiles a program of one expression. Returns what the compiler says against it.
fn compile(library: &Path, expression: &str) -> Result<(), String> {
    use std::hash::{BuildHasher as _, RandomState};

    let name = format!("tower_oauth2_program_{:x}", RandomState::new().hash_one(expression));
    let directory = env::temp_dir().join(name);
    fs::create_dir(&directory).unwrap();
    let program = directory.join("program.rs");
    fs::write(&program, format!("fn main() {{ let _ = {expression}; }}\n")).unwrap();
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(compiler)
        .args(["--edition=2024", "--crate-type=bin", "--emit=metadata", "--color=never"])
        .arg("--extern")
        .arg(format!("tower_oauth2={}", library.display()))
        .arg("-L")
        .arg(format!("dependency={}", library.parent().unwrap().display()))
        .arg("--out-dir")
        .arg(&directory)
        .arg(&program)
        .output()
        .unwrap();
    fs::remove_dir_all(&directory).unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}
