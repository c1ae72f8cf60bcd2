//! Servers of the user's own: which they are, and what goes wrong on the way to them, in one line.

use std::env::VarError;
use std::error::Error as StdError;

use http::Uri;
use tower::BoxError;
use tower_oauth2::{Error, Origin};

/// These name the servers. All are needed, or none.
const VARIABLES: [&str; 4] = ["TOKEN_URL", "CLIENT_ID", "CLIENT_SECRET", "API_URL"];

pub(crate) struct Yours {
    pub(crate) token_url: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    pub(crate) api_url: Uri,
    pub(crate) api_origin: Origin,
    /// Separated by spaces; may be empty.
    pub(crate) scope: String,
}

impl Yours {
    /// Reads the environment; `None` if it names no servers at all.
    pub(crate) fn from_env() -> Result<Option<Self>, BoxError> {
        if VARIABLES.iter().all(|name| std::env::var_os(name).is_none()) {
            return Ok(None);
        }
        let mut values = Vec::new();
        let mut missing = Vec::new();
        for name in VARIABLES {
            match read(name)? {
                value if value.is_empty() => missing.push(name),
                value => values.push(value),
            }
        }
        let Ok([token_url, client_id, client_secret, api_url]) = <[String; 4]>::try_from(values) else {
            let missing = missing.join(", ");
            return Err(format!(
                "not set: {missing}; for servers of your own set all of {}, for the local ones none",
                VARIABLES.join(", ")
            )
            .into());
        };
        let (api_url, api_origin) = check_api_url(&api_url)?;
        let scope = read("SCOPE")?;
        Ok(Some(Self { token_url, client_id, client_secret, api_url, api_origin, scope }))
    }
}

fn read(name: &str) -> Result<String, BoxError> {
    match std::env::var(name) {
        Ok(value) => Ok(value),
        Err(VarError::NotPresent) => Ok(String::new()),
        // The error's own text would show the value.
        Err(VarError::NotUnicode(_)) => Err(format!("{name} is not UTF-8").into()),
    }
}

/// The URL itself is not repeated: it may hold a key.
fn check_api_url(url: &str) -> Result<(Uri, Origin), BoxError> {
    let refuse = |what: &str| format!("API_URL {what}, such as https://api.example.com/v1/items");
    if !url.contains("://") {
        return Err(refuse("does not begin with http:// or https://; give the whole URL").into());
    }
    let api_url: Uri =
        url.parse().map_err(|error| refuse(&format!("is no URL ({error}); give a whole one")))?;
    let (Some(scheme), Some(authority)) = (api_url.scheme(), api_url.authority()) else {
        return Err(refuse("names no host; give the whole URL").into());
    };
    let origin =
        format!("{scheme}://{authority}").parse::<Origin>().map_err(|error| format!("API_URL: {error}"))?;
    Ok((api_url, origin))
}

/// Returns an error with what caused it on one line.
pub(crate) fn one_line(error: &(dyn StdError + 'static)) -> String {
    // A token error says what caused it.
    let depth = if error.is::<Error>() { 1 } else { 8 };
    let mut line = String::new();
    for error in std::iter::successors(Some(error), |&error| error.source()).take(depth) {
        let text = error.to_string();
        // Some repeat in their own text what caused them.
        if !line.contains(&text) {
            line += if line.is_empty() { "" } else { ": " };
            line += &text;
        }
    }
    line.replace(char::is_control, " ")
}

/// Returns what to look at where every request failed in this way.
pub(crate) fn advice(failure: &str) -> &'static str {
    match failure.get(..3) {
        Some("401" | "403") => "does the API take tokens of this server, with this scope?",
        Some("404" | "405") => "a GET is sent; is the path of API_URL right?",
        Some("429") => "the API takes no more requests now; try later",
        Some(status) if status.parse::<u16>().is_ok() => "the response is the API's own",
        _ => "is API_URL right, and can it be reached from here?",
    }
}
