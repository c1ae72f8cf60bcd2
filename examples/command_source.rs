//! Takes tokens from a program that prints them, such as `gcloud auth print-access-token`.
//!
//! ```sh
//! cargo run --example command_source                                     # runs echo
//! cargo run --example command_source -- gcloud auth print-access-token   # runs what you say
//! ```

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::env;
use std::process::Stdio;
use std::time::Duration;

use http::{Request, Response, header};
use tokio::process::Command;
use tokio::time::timeout;
use tower::{BoxError, service_fn};
use tower_oauth2::{AccessToken, ApiClient, Body, Error, ErrorKind, TokenCache, TokenRequest, TokenSource};

/// The program and its arguments. No shell sees them.
struct CommandSource {
    command: Vec<String>,
}

impl TokenSource for CommandSource {
    async fn token(&self, _request: TokenRequest) -> Result<AccessToken, Error> {
        let [program, arguments @ ..] = &self.command[..] else {
            return Err(Error::new(ErrorKind::Config, "there is no program to run"));
        };
        let run = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            // Such programs write tokens there when they are verbose.
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = timeout(Duration::from_secs(10), run)
            .await
            .map_err(|_| Error::new(ErrorKind::Transient, "the program took longer than 10 s"))?
            .map_err(|error| {
                Error::new(ErrorKind::Config, "the program cannot be started").with_source(error)
            })?;
        // The exit code is not a secret. What the program printed may be one.
        if !output.status.success() {
            let message = "the program failed; run it by hand, you may have to sign in";
            return Err(Error::new(ErrorKind::Grant, message).with_source(output.status.to_string()));
        }
        let printed = String::from_utf8(output.stdout)
            .map_err(|_| Error::new(ErrorKind::Protocol, "the program printed something else than text"))?;
        AccessToken::bearer(printed.trim())
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut command: Vec<String> = env::args().skip(1).collect();
    if command.is_empty() {
        command = ["echo", "mF_9.B5f-4.1JqM"].map(str::to_owned).into();
    }
    // The token says nothing of its end, so it is fetched anew every five minutes.
    let cache = TokenCache::builder(CommandSource { command }).max_age(Duration::from_secs(300)).build();

    // This stands for your API.
    let fake = service_fn(async |request: Request<Body>| {
        let length = request.headers()[header::AUTHORIZATION].len() - "Bearer ".len();
        Ok::<_, BoxError>(Response::new(Body::from(format!("a token of {length} characters came"))))
    });
    let api = ApiClient::builder("https://api.example.com", cache).build_with(fake)?;
    println!("{}", api.get("reports").send().await?.error_for_status()?.text().await?);
    Ok(())
}
