//! A token from a program that prints one, such as `gcloud auth print-access-token` or `az account get-access-token`.
//!
//! ```sh
//! cargo run --example command_source
//! ```
//!
//! 1. The program is started with its arguments as they are. No shell sees them.
//! 2. It has ten seconds, and ends with its time: it is killed where it hangs, and where nobody waits for it any more.
//! 3. It may print 64 KiB: a token alone, or JSON with `access_token`, `accessToken` or `token`, and perhaps `expires_in` or
//!    `expires_on`.
//! 4. What it writes to its standard error, and what it prints when it fails, is shown nowhere. Such programs write tokens
//!    there when they are asked to be verbose.
//! 5. How long a token lives that says nothing of it is for the cache's `max_age` to say.
//!
//! In this example the program is the example itself, started once more. The exit code is 1 if a request failed, if a
//! failure of the program was told as another one, or if an error held what it had written.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a program that measures and prints")]

#[path = "command_source/program.rs"]
mod program;

use std::env;
use std::error::Error as StdError;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, SystemTime};

use http::Request;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::test_util::{FakeApi, FakeAuthorizationServer, FakeClient};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{
    AccessToken, AuthLayer, Body, Error, ErrorKind, FetchReason, RetryPolicy, TokenCache, TokenRequest,
    TokenSource,
};

// --- What you write ---

/// The source: which program, with which arguments.
#[derive(Clone)]
struct CommandSource {
    program: PathBuf,
    arguments: Vec<OsString>,
    timeout: Duration,
}

/// A program that prints more is not printing a token.
const LONGEST: u64 = 64 * 1024;

impl TokenSource for CommandSource {
    async fn token(&self, _request: TokenRequest) -> Result<AccessToken, Error> {
        let printed = tokio::time::timeout(self.timeout, self.run()).await.map_err(|_| {
            Error::transient("the program that prints the token did not end in time, and was killed")
        })??;
        let printed = printed.expose_secret().trim();
        if printed.starts_with('{') { of_json(printed) } else { AccessToken::bearer(printed) }
    }
}

impl CommandSource {
    fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), arguments: Vec::new(), timeout: Duration::from_secs(10) }
    }

    /// Adds an argument, as it is.
    fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs the program to its end, and returns what it printed.
    async fn run(&self) -> Result<SecretString, Error> {
        let mut program = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                Error::config("the program that prints the token cannot be started; check its path")
                    .with_source(error)
            })?;
        let lost =
            |error| Error::transient("what the program printed for a token was lost").with_source(error);
        let mut printed = Vec::new();
        if let Some(output) = program.stdout.take() {
            output.take(LONGEST + 1).read_to_end(&mut printed).await.map_err(lost)?;
        }
        if printed.len() as u64 > LONGEST {
            return Err(Error::protocol("the program that prints the token prints too much"));
        }
        let printed = String::from_utf8(printed).map(SecretString::from).map_err(|_| {
            Error::protocol("the program that prints the token prints something else than text")
        })?;
        let ended = program.wait().await.map_err(lost)?;
        if !ended.success() {
            // Its exit code is not a secret. What it said may be one.
            let hint = "the program printed no token; run it by hand to see why, you may have to sign in";
            return Err(Error::grant(hint).with_source(ended.to_string()));
        }
        Ok(printed)
    }
}

fn of_json(printed: &str) -> Result<AccessToken, Error> {
    // The reader's own error would quote what it read.
    let printed: Value = serde_json::from_str(printed)
        .map_err(|_| Error::protocol("the program printed JSON that cannot be read"))?;
    let token = ["access_token", "accessToken", "token"].iter().find_map(|name| printed[name].as_str());
    let token = token.ok_or_else(|| Error::protocol("the program printed JSON without a token"))?;
    let token = AccessToken::bearer(token)?;
    Ok(match (printed["expires_in"].as_u64(), printed["expires_on"].as_u64()) {
        (Some(seconds), _) => token.with_lifetime(Duration::from_secs(seconds)),
        (None, Some(unix)) => match SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(unix)) {
            Some(end) => token.with_expires_at(end),
            None => token,
        },
        (None, None) => token,
    })
}

// --- What it is good for ---

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let itself = env::args_os().skip(1).collect::<Vec<_>>();
    if !itself.is_empty() {
        return program::run(&itself).await;
    }
    let client = FakeClient::confidential("$(whoami); echo 'the cli'", "hunter2");
    let server = FakeAuthorizationServer::builder().client(client).start().await?;
    let api = FakeApi::builder(&server).start().await?;
    let me = CommandSource::new(env::current_exe()?);

    // Plain and JSON, each for fifteen requests; in the midst every token is revoked.
    let mut failed = 0;
    for form in ["plain", "json"] {
        let login =
            me.clone().argument(form).argument(server.token_url()).argument("$(whoami); echo 'the cli'");
        let cache = TokenCache::builder(login).max_age(Duration::from_secs(300)).build();
        let client = ServiceBuilder::new()
            .layer(RetryPolicy::default())
            .layer(AuthLayer::for_origin(cache, api.origin())?)
            .service(HyperClient::new());
        for number in 0..15 {
            if number == 10 {
                server.revoke_all();
            }
            let request = Request::get(api.origin()).body(Body::empty())?;
            failed += u32::from(!client.clone().oneshot(request).await?.status().is_success());
        }
    }
    let runs = server.counts().tokens;

    // What can go wrong, and whose side it is. No error may hold what the program wrote.
    let cases = [
        (CommandSource::new("/nowhere/to/be/found"), ErrorKind::Config),
        (me.clone().argument("fail"), ErrorKind::Grant),
        (me.clone().argument("hang").timeout(Duration::from_millis(300)), ErrorKind::Transient),
        (me.clone().argument("babble"), ErrorKind::Protocol),
        (me.clone().argument("broken-json"), ErrorKind::Protocol),
        (me.clone().argument("prose"), ErrorKind::Protocol),
    ];
    let (all, mut told, mut leaks) = (cases.len(), 0, 0);
    for (source, expected) in cases {
        if let Err(error) = source.token(TokenRequest::new(FetchReason::Initial)).await {
            told += usize::from(error.kind() == expected);
            leaks += usize::from(chain(&error).contains(program::SECRET));
        }
    }

    println!(
        "command_source: requests=30 failed={failed} runs={runs} failures_told={told}/{all} leaks={leaks}"
    );
    let as_it_should = (failed, runs, told, leaks) == (0, 4, all, 0);
    Ok(if as_it_should { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Everything that a log would show of an error.
fn chain(error: &dyn StdError) -> String {
    let below = error.source().map(chain).unwrap_or_default();
    format!("{error} {error:?} {below}")
}
