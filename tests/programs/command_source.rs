//! A token from a program that prints one, such as `gcloud auth print-access-token` or `az account get-access-token`.
//!
//! 1. The program is started with its arguments as they are. No shell sees them.
//! 2. It has ten seconds. Then it is killed, and also if its token is not waited for any more.
//! 3. It may print 64 KiB: a token alone, or JSON with `access_token`, `accessToken` or `token`, and perhaps `expires_in` or
//!    `expires_on`.
//! 4. What it writes to its standard error, and what it prints when it fails, is shown nowhere. Such programs write tokens
//!    there when they are asked to be verbose.

use std::error::Error as StdError;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use http::{Request, Response, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};
use tower_oauth2::retry::RequestBody;
use tower_oauth2::test_util::timed;
use tower_oauth2::{
    AccessToken, AuthLayer, Body, Error, ErrorKind, FetchReason, RetryPolicy, TokenCache, TokenRequest,
    TokenSource, source_fn,
};

/// The source: which program, with which arguments.
#[derive(Clone)]
struct CommandSource {
    program: PathBuf,
    arguments: Vec<OsString>,
}

/// A program that takes longer hangs.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A program that prints more is not printing a token.
const LONGEST: u64 = 64 * 1024;

impl TokenSource for CommandSource {
    async fn token(&self, _request: TokenRequest) -> Result<AccessToken, Error> {
        let printed = tokio::time::timeout(TIMEOUT, self.run()).await.map_err(|_| {
            Error::new(
                ErrorKind::Transient,
                "the program that prints the token did not end in time, and was killed",
            )
        })??;
        let printed = printed.expose_secret().trim();
        if printed.starts_with('{') { of_json(printed) } else { AccessToken::bearer(printed) }
    }
}

impl CommandSource {
    fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), arguments: Vec::new() }
    }

    /// Adds an argument, as it is.
    fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
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
                Error::new(
                    ErrorKind::Config,
                    "the program that prints the token cannot be started; check its path",
                )
                .with_source(error)
            })?;
        let lost = |error| {
            Error::new(ErrorKind::Transient, "what the program printed for a token was lost")
                .with_source(error)
        };
        let mut printed = Vec::new();
        if let Some(output) = program.stdout.take() {
            output.take(LONGEST + 1).read_to_end(&mut printed).await.map_err(lost)?;
        }
        if printed.len() as u64 > LONGEST {
            return Err(Error::new(ErrorKind::Protocol, "the program that prints the token prints too much"));
        }
        let printed = String::from_utf8(printed).map(SecretString::from).map_err(|_| {
            Error::new(
                ErrorKind::Protocol,
                "the program that prints the token prints something else than text",
            )
        })?;
        let ended = program.wait().await.map_err(lost)?;
        if !ended.success() {
            // Its exit code is not a secret. What it said may be one.
            let hint = "the program printed no token; run it by hand to see why, you may have to sign in";
            return Err(Error::new(ErrorKind::Grant, hint).with_source(ended.to_string()));
        }
        Ok(printed)
    }
}

fn of_json(printed: &str) -> Result<AccessToken, Error> {
    // The reader's own error would quote what it read.
    let printed: Value = serde_json::from_str(printed)
        .map_err(|_| Error::new(ErrorKind::Protocol, "the program printed JSON that cannot be read"))?;
    let token = ["access_token", "accessToken", "token"].iter().find_map(|name| printed[name].as_str());
    let token =
        token.ok_or_else(|| Error::new(ErrorKind::Protocol, "the program printed JSON without a token"))?;
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

// --- What is judged ---

/// What must not be seen of a program.
const SECRET: &str = "mF_9.B5f-4.1JqM";

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Self, BoxError> {
        let path = std::env::temp_dir().join(format!("command_source-{name}-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Writes a file, and returns the source whose program prints it.
    fn printed(&self, name: &str, content: &str) -> Result<CommandSource, BoxError> {
        let path = self.0.join(name);
        fs::write(&path, content)?;
        Ok(CommandSource::new("cat").argument(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays in the temporary one does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn a_program_is_started_once_per_token_and_without_a_shell() -> Result<(), BoxError> {
    let folder = Folder::new("tokens")?;
    for form in ["plain", "json"] {
        // A shell would make another name of it.
        let name = format!("$(whoami); echo 'the {form} token'");
        let print = |token: &str| match form {
            "plain" => folder.printed(&name, &format!("{token}\n")),
            _ => folder.printed(&name, &format!(r#"{{"accessToken": "{token}", "expires_in": 300}}"#)),
        };
        let (login, runs) = (print("token-1")?, Arc::new(AtomicU32::new(0)));
        let count = Arc::clone(&runs);
        let counted = source_fn(move |request| {
            count.fetch_add(1, Relaxed);
            let login = login.clone();
            async move { login.token(request).await }
        });
        let cache = TokenCache::builder(counted).max_age(Duration::from_secs(300)).build();
        // An API that accepts one token at a time.
        let good = Arc::new(Mutex::new("Bearer token-1"));
        let accepted = Arc::clone(&good);
        let api = service_fn(move |request: Request<RequestBody<Body>>| {
            let is_good = request.headers()[header::AUTHORIZATION] == *accepted.lock().unwrap();
            let response = Response::builder().status(if is_good { 200 } else { 401 });
            let response = response.header(header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"");
            std::future::ready(response.body(Body::empty()))
        });
        let client = ServiceBuilder::new()
            .layer(RetryPolicy::default())
            .layer(AuthLayer::for_origin(cache, "https://api.test")?)
            .service(api);

        for number in 0..15 {
            if number == 10 {
                print("token-2")?;
                *good.lock().unwrap() = "Bearer token-2";
            }
            let request = Request::get("https://api.test/items").body(Body::empty())?;
            assert_eq!(client.clone().oneshot(request).await?.status(), 200, "{form}, request {number}");
        }
        assert_eq!(runs.load(Relaxed), 2, "{form}");
    }
    Ok(())
}

#[tokio::test]
async fn what_goes_wrong_is_told_without_what_was_printed() -> Result<(), BoxError> {
    let folder = Folder::new("failures")?;
    let script = format!("echo {SECRET}; echo 'debug: the refresh token {SECRET} was refused' >&2; exit 3");
    let cases = [
        (CommandSource::new("/nowhere/to/be/found"), ErrorKind::Config),
        (CommandSource::new("sh").argument("-c").argument(script), ErrorKind::Grant),
        (folder.printed("babble", &SECRET.repeat(10_000))?, ErrorKind::Protocol),
        (folder.printed("broken JSON", &format!(r#"{{"accessToken": "{SECRET}"#))?, ErrorKind::Protocol),
        (folder.printed("prose", &format!("Your token is {SECRET}"))?, ErrorKind::Protocol),
    ];
    for (source, expected) in cases {
        let error = source.token(TokenRequest::new(FetchReason::Initial)).await.unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
        let shown = chain(&error);
        assert!(!shown.contains(SECRET), "{shown}");
    }
    Ok(())
}

/// The clock stands still while the program runs, and goes on to the timeout when nothing else is left to do.
#[tokio::test(start_paused = true)]
async fn a_program_that_hangs_is_given_up() {
    let source = CommandSource::new("sleep").argument("600");
    let (token, took) = timed(source.token(TokenRequest::new(FetchReason::Initial))).await;
    let error = token.unwrap_err();
    assert_eq!((error.kind(), took), (ErrorKind::Transient, TIMEOUT), "{error}");
}

/// Everything that a log would show of an error.
fn chain(error: &dyn StdError) -> String {
    let below = error.source().map(chain).unwrap_or_default();
    format!("{error} {error:?} {below}")
}
