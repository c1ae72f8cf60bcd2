//! Processes that share tokens through a real store, while things go wrong: `bash tests/fleet/run.sh` starts it.
//!
//! Each case starts processes of this same program, an authorization server and an API on loopback, and counts at the
//! servers. The last line is `N passed, M failed`; the exit code is 1 if M is not 0.

#![allow(clippy::unwrap_used, reason = "a program of tests that cannot go on has failed")]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it measures and prints"
)]

mod cases;
mod fleet;
mod groups;
mod redis_server;
#[allow(dead_code, reason = "the tests of the store in Redis use the rest")]
mod slow_way;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "worker") {
        runtime.block_on(worker::run(&arguments[1..]));
        return ExitCode::SUCCESS;
    }
    let smoke = arguments.iter().any(|argument| argument == "--smoke");
    let only =
        arguments.iter().position(|argument| argument == "--only").map(|at| arguments[at + 1].as_str());
    let failed = runtime.block_on(cases::run(smoke, only));
    ExitCode::from(u8::from(failed > 0))
}
