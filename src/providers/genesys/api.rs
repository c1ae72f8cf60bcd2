//! The token in use and missing permissions, as the API reports them.

use std::error::Error as StdError;
use std::fmt;

use http::{Request, Response, StatusCode};
use http_body::Body as HttpBody;
use serde::Deserialize;
use tower::BoxError;
use tower_service::Service;

use crate::body::Body;
use crate::client::pages::Next;
use crate::client::{ApiClient, ApiError, ApiResponse};
use crate::error::Error;
use crate::text::clean;

/// The response to `GET tokens/me`: the token in use.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TokenInfo {
    organization: Named,
    authorized_scope: Option<Vec<String>>,
    #[serde(rename = "OAuthClient")]
    client: Named,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    id: Option<String>,
    name: Option<String>,
}

/// Why the API refused a request.
///
/// `Display` and `Debug` show what the API cannot have copied from the request: the status, a code that is a word, the permissions
/// that a 403 wants, the correlation id. The API's own [`message`](Self::message) may repeat a part of the request, so it is in
/// neither.
#[derive(Clone)]
pub struct Refused {
    origin: String,
    status: StatusCode,
    code: Option<String>,
    message: Option<String>,
    permissions: Vec<String>,
    correlation_id: Option<String>,
}

/// The error body of the API.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    message: Option<String>,
    code: Option<String>,
}

/// The body of an error that is longer is not read to its end, and says nothing.
const MOST_BYTES: usize = 64 * 1024;

// --- TokenInfo ---

/// Asks the API about the token in use. It is a health check: it tells that the token endpoint, the token and the API are
/// good, and wants no permission.
///
/// # Cancel safety
///
/// Dropping the future drops the request.
///
/// # Errors
///
/// As [`ApiRequest::send`](crate::client::ApiRequest::send), and if the API refuses.
pub async fn token_info<S, RB>(api: &ApiClient<S>) -> Result<TokenInfo, ApiError>
where
    S: Service<Request<Body>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    RB: HttpBody,
    RB::Error: Into<BoxError>,
{
    api.get("tokens/me").send().await?.error_for_status()?.json().await
}

impl TokenInfo {
    /// Returns id and name of the organization, as far as the API says them.
    #[must_use]
    pub fn organization(&self) -> (Option<&str>, Option<&str>) {
        (self.organization.id.as_deref(), self.organization.name.as_deref())
    }

    /// Returns id and name of the OAuth client, as far as the API says them.
    #[must_use]
    pub fn client(&self) -> (Option<&str>, Option<&str>) {
        (self.client.id.as_deref(), self.client.name.as_deref())
    }

    /// Returns the scopes that the client is authorized for; nothing if the API does not say.
    #[must_use]
    pub fn scopes(&self) -> Option<&[String]> {
        self.authorized_scope.as_deref()
    }

    /// Checks before the first call of a program that the client has the scopes that the program needs. `users` stands for
    /// `users:readonly` too.
    ///
    /// # Errors
    ///
    /// A configuration error that names the scopes that are missing. Where the API says nothing about scopes, none is.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use tower_oauth2::providers::genesys;
    ///
    /// # async fn example(api: &tower_oauth2::ApiClient) -> Result<(), tower::BoxError> {
    /// genesys::token_info(api).await?.require_scopes(["users:readonly", "analytics"])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn require_scopes<I>(&self, scopes: I) -> Result<(), Error>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let Some(granted) = &self.authorized_scope else { return Ok(()) };
        let is_granted = |scope: &str| {
            let whole = scope.strip_suffix(":readonly").unwrap_or(scope);
            granted.iter().any(|granted| granted == scope || granted == whole)
        };
        let missing: Vec<String> = scopes
            .into_iter()
            .map(|scope| scope.as_ref().to_owned())
            .filter(|scope| !is_granted(scope))
            .collect();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(Error::config(format!(
                "the OAuth client lacks the scopes {}; add them to the client in the administration of Genesys Cloud",
                missing.join(", ")
            ))),
        }
    }
}

// --- Refused ---

/// Makes an error of a response of 4xx or 5xx that says why: which permission is missing, and the correlation id that the
/// vendor's support asks for. In place of [`ApiResponse::error_for_status`].
///
/// # Cancel safety
///
/// Dropping the future drops the body.
///
/// # Errors
///
/// [`Refused`] if the status is one of those, with any body.
///
/// # Examples
///
/// ```no_run
/// use tower_oauth2::providers::genesys;
///
/// # async fn example(api: &tower_oauth2::ApiClient) -> Result<(), tower::BoxError> {
/// let response = api.get("users/me").send().await?;
/// match genesys::error_for_status(response).await {
///     Ok(response) => println!("{}", response.text().await?),
///     Err(refused) if !refused.permissions().is_empty() => println!("ask for {:?}", refused.permissions()),
///     Err(refused) => return Err(refused.into()),
/// }
/// # Ok(())
/// # }
/// ```
pub async fn error_for_status<RB>(response: ApiResponse<RB>) -> Result<ApiResponse<RB>, Refused>
where
    RB: HttpBody,
    RB::Error: Into<BoxError>,
{
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return Ok(response);
    }
    let correlation_id = response.headers().get("inin-correlation-id").and_then(|id| id.to_str().ok());
    let (correlation_id, origin) = (correlation_id.map(clean), response.origin_of());
    let body = response.limited_bytes(MOST_BYTES).await.unwrap_or_default();
    let body: ErrorBody = serde_json::from_slice(&body).unwrap_or_default();
    let is_denied = status == StatusCode::FORBIDDEN;
    let permissions = body.message.as_deref().filter(|_| is_denied).map(permissions_in).unwrap_or_default();
    Err(Refused {
        origin,
        status,
        code: body.code.filter(|code| is_code(code)),
        message: body.message.as_deref().map(clean),
        permissions,
        correlation_id,
    })
}

impl Refused {
    /// Returns the status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the code of the API, such as `missing.any.permissions`. Text that does not look like a code counts as none: more
    /// than 64 characters, or others than letters, `.`, `_` and `-`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// Returns the API's own words, on one line and cut to a few hundred characters. They may repeat a part of the request, also a
    /// secret: look at them before you log them.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Returns the permissions that a 403 asks for, such as `telephony:plugin:all`. With `missing.any.permissions` one of
    /// them is enough, with `missing.permissions` all are needed (*not confirmed* by the vendor's pages).
    #[must_use]
    pub fn permissions(&self) -> &[String] {
        &self.permissions
    }

    /// Returns the correlation id of the response.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_oauth2::providers::genesys::Refused;
    ///
    /// /// The line of a ticket for the vendor's support.
    /// fn ticket(refused: &Refused) -> String {
    ///     format!("request {} failed", refused.correlation_id().unwrap_or("without an id"))
    /// }
    /// # let _ = ticket;
    /// ```
    #[must_use]
    pub fn correlation_id(&self) -> Option<&str> {
        self.correlation_id.as_deref()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the API at {} returned {}", self.origin, self.status)?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        if !self.permissions.is_empty() {
            let any = if self.code.as_deref() == Some("missing.any.permissions") { "one of " } else { "" };
            let wanted = self.permissions.join(", ");
            write!(f, ": it wants {any}{wanted}; give the OAuth client a role with it")?;
        }
        match &self.correlation_id {
            Some(id) => write!(f, "; correlation id {id}"),
            None => Ok(()),
        }
    }
}

/// Without the message.
impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("origin", &self.origin)
            .field("status", &self.status)
            .field("code", &self.code)
            .field("permissions", &self.permissions)
            .field("correlation_id", &self.correlation_id)
            .finish_non_exhaustive()
    }
}

impl StdError for Refused {}

/// Tells a code from a token that was echoed: of random characters, hardly any 64 are without a digit.
fn is_code(code: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'.' | b'_' | b'-');
    (1..=64).contains(&code.len()) && code.bytes().all(is_part)
}

/// Finds the permissions in a message of any wording: three names with colons between.
fn permissions_in(message: &str) -> Vec<String> {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let words = message.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '*')));
    let words = words.map(|word| word.trim_matches(':'));
    let is_permission = |word: &&str| {
        let parts: Vec<&str> = word.split(':').collect();
        parts.len() == 3
            && parts[..2].iter().all(|part| is_name(part))
            && (is_name(parts[2]) || parts[2] == "*")
    };
    words.filter(is_permission).take(32).map(clean).collect()
}

// --- Pages ---

/// The pages of most lists of the API: `pageNumber`, `pageCount`, `entities` and `total`.
pub fn entities() -> Next {
    Next::page_number("pageNumber").page_count("pageCount").items("entities").total("total")
}

/// The lists that name the URL of their next page: `nextUri`.
pub fn next_uri() -> Next {
    Next::url("nextUri").items("entities").total("total")
}

/// The queries for details of conversations, whose page stands in the JSON body: `paging.pageNumber`. The last page is the one
/// with which all of `totalHits` have come.
pub fn conversations() -> Next {
    Next::page_number("/paging/pageNumber").items("conversations").total("totalHits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_found_in_a_message_of_any_words() {
        for (message, permissions) in [
            (
                "You must have at least one of the following permissions assigned: [telephony:plugin:all]",
                &["telephony:plugin:all"][..],
            ),
            (
                "missing the following permission(s): routing:queue:view, routing:queue:edit.",
                &["routing:queue:view", "routing:queue:edit"],
            ),
            (
                "assigned: [analytics:conversationDetail:view, directory:*:*]",
                &["analytics:conversationDetail:view"],
            ),
            ("see https://developer.genesys.cloud: it is 12:30", &[]),
            ("no: permission", &[]),
        ] {
            assert_eq!(permissions_in(message), permissions, "{message}");
        }
    }

    #[test]
    fn a_scope_covers_its_reading_and_what_is_missing_is_named() {
        let info: TokenInfo = serde_json::from_str(
            r#"{"organization": {"id": "o1", "name": "North"}, "authorizedScope": ["users", "analytics:readonly"],
                "OAuthClient": {"id": "c1", "name": "reports"}, "more": 1}"#,
        )
        .unwrap();
        assert_eq!((info.organization().0, info.client().1), (Some("o1"), Some("reports")));
        assert!(info.require_scopes(["users", "users:readonly", "analytics:readonly"]).is_ok());
        let error = info.require_scopes(["analytics", "users", "routing:readonly"]).unwrap_err();
        assert!(error.is_config() && error.to_string().contains("analytics, routing:readonly;"), "{error}");
        assert!(TokenInfo::default().require_scopes(["analytics"]).is_ok());
    }
}
