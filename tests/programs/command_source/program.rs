//! What a command-line program does: it signs in and prints a token, or it does something else.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use tower::BoxError;
use tower_oauth2::{ClientCredentials, TokenCache};

/// What must not be seen of it.
pub(crate) const SECRET: &str = "mF_9.B5f-4.1JqM";

#[allow(clippy::print_stderr, reason = "such programs do")]
pub(crate) async fn run(arguments: &[OsString]) -> Result<ExitCode, BoxError> {
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_str().unwrap_or_default()).collect();
    match arguments[..] {
        ["plain", url, client] => println!("{}", token(url, client).await?),
        ["json", url, client] => {
            println!(r#"{{"accessToken": "{}", "expires_in": 300}}"#, token(url, client).await?);
        }
        ["hang"] => tokio::time::sleep(Duration::from_secs(600)).await,
        ["babble"] => println!("{}", SECRET.repeat(10_000)),
        ["broken-json"] => println!(r#"{{"accessToken": "{SECRET}"#),
        ["prose"] => println!("Your token is {SECRET}"),
        _ => {
            println!("{SECRET}");
            eprintln!("debug: the refresh token {SECRET} was refused");
            return Ok(ExitCode::from(3));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn token(url: &str, client: &str) -> Result<String, BoxError> {
    let source = ClientCredentials::builder(url, client, "hunter2").build()?;
    Ok(TokenCache::new(source).get().await?.expose().to_owned())
}
