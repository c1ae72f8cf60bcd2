use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderName, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};

use proptest::prelude::*;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;
use crate::error::ErrorKind;
use crate::grants::endpoint::transport;
use crate::grants::response::classifier::{Classifier, Refusal};
use crate::grants::response::expected::Acceptance;
use crate::grants::response::verdict::Evidence;
use crate::vectors;

const NOW: Duration = Duration::from_secs(1_700_000_000);

fn answer(status: u16, content_type: Option<&str>, body: impl AsRef<[u8]>) -> EndpointResponse {
    let mut headers = HeaderMap::new();
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
    }
    let body = Ok(body.as_ref().to_vec());
    EndpointResponse { status: StatusCode::from_u16(status).unwrap(), headers, body }
}

fn json_answer(status: u16, body: &str) -> EndpointResponse {
    answer(status, Some("application/json"), body)
}

fn accepting(acceptance: Acceptance) -> Expected {
    Expected { acceptance, url: "token URL".to_owned(), ..Expected::default() }
}

fn read_plainly(answer: &EndpointResponse) -> Result<AccessToken, Refused> {
    read(answer, &accepting(Acceptance::default()), &mut Redactor::default(), NOW)
}

fn error_of(answer: &EndpointResponse) -> Error {
    read_plainly(answer).unwrap_err().error
}

/// A 200 with these members besides a token.
fn with_members(members: &str) -> AccessToken {
    read_plainly(&json_answer(200, &format!(r#"{{"access_token":"AT1","token_type":"Bearer",{members}}}"#)))
        .unwrap()
}

// --- Vectors ---

/// A string, or one that is to be repeated.
fn text_of(value: &Value) -> String {
    match value {
        Value::Object(parts) => parts["repeat"]
            .as_str()
            .unwrap()
            .repeat(usize::try_from(parts["count"].as_u64().unwrap()).unwrap()),
        text => text.as_str().unwrap().to_owned(),
    }
}

async fn answer_of(input: &Value) -> EndpointResponse {
    let text = match &input["body_generated"] {
        Value::Null => input["body"].as_str().unwrap().to_owned(),
        parts => [&text_of(&parts["prefix"]), &text_of(parts), &text_of(&parts["suffix"])]
            .map(String::as_str)
            .concat(),
    };
    let mut answer =
        answer(u16::try_from(input["status"].as_u64().unwrap()).unwrap(), input["content_type"].as_str(), "");
    let body = crate::body::Body::from(text);
    answer.body = transport::read_capped(body).await.unwrap();
    for pair in input["headers"].as_array().into_iter().flatten() {
        let [name, value] = [0, 1].map(|at| pair[at].as_str().unwrap());
        answer.headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    answer
}

async fn run(vector: &Value) -> Result<AccessToken, Refused> {
    let scope = vector["input"]["request"]["scope"].as_str().unwrap_or_default();
    let requested = scope.split_ascii_whitespace().map(str::to_owned).collect();
    let expected = accepting(Acceptance { requested, ..Acceptance::default() });
    read(&answer_of(&vector["input"]).await, &expected, &mut Redactor::default(), NOW)
}

fn sorted(scopes: impl IntoIterator<Item = impl Into<String>>) -> Vec<String> {
    let mut scopes: Vec<String> = scopes.into_iter().map(Into::into).collect();
    scopes.sort();
    scopes.dedup();
    scopes
}

/// Compares a token with what a vector expects. Of `scope` not the text is kept, but the scopes in it.
fn is_token(token: &AccessToken, expect: &Value, requested_refresh: Option<&str>) -> bool {
    let granted = sorted(token.scopes().unwrap_or_default().iter().cloned());
    let refresh = token.refresh_secret().map(ExposeSecret::expose_secret);
    let lifetime = token.lifetime().map(|lifetime| lifetime.as_secs());
    expect["result"] == "token"
        && text_of(&expect["access_token"]) == token.secret().expose_secret()
        && expect["token_type"] == token.scheme()
        && match &expect["expires_in"] {
            Value::Object(bound) => lifetime >= bound["at_least"].as_u64(),
            exact => *exact == json!(lifetime),
        }
        && expect["refresh_token"] == json!(refresh)
        && match &expect["granted_scope"] {
            Value::Array(scopes) => granted == sorted(scopes.iter().map(|scope| scope.as_str().unwrap())),
            _ => expect["scope"].is_string() || granted.is_empty(),
        }
        && expect["scope"].as_str().is_none_or(|text| granted == sorted(text.split(' ')))
        && expect
            .get("stored_refresh_token")
            .is_none_or(|stored| *stored == json!(refresh.or(requested_refresh)))
        && expect.get("issued_token_type").is_none_or(|kind| {
            *kind == json!(token.extra("issued_token_type").map(ExposeSecret::expose_secret))
        })
}

fn is_error(refused: &Refused, expect: &Value) -> bool {
    let error = &refused.error;
    let is_type = error.to_string().contains("token of the type");
    (match expect["result"].as_str().unwrap() {
        "malformed" => error.is_protocol() && error.code().is_none() && !is_type,
        "unsupported_token_type" => {
            let named = expect["token_type"].as_str().map(|name| format!("token of the type {name}, "));
            error.is_protocol() && is_type && named.is_none_or(|named| error.to_string().contains(&named))
        }
        "oauth_error" => {
            let description = match &expect["description"] {
                Value::Object(rule) => {
                    rule["must_not_contain_control_chars_when_displayed"] == true
                        && !error.description().unwrap().contains(char::is_control)
                }
                exact => expect.get("description").is_none() || *exact == json!(error.description()),
            };
            expect["error"] == json!(error.code())
                && description
                && expect.get("uri").is_none_or(|uri| *uri == json!(error.uri()))
        }
        "http_error" => error.code().is_none() && expect["status"] == json!(error.status().unwrap().as_u16()),
        _ => false,
    }) && expect.get("action").is_none_or(|action| {
        let is_lost = error.is_grant() && refused.verdict.refresh_token == Evidence::Ended;
        match action.as_str().unwrap() {
            "fail" => !error.is_temporary() && !is_lost,
            "reauthorize" => is_lost,
            // Nothing here polls; that waiting helps is all there is to say.
            "retry_later" | "poll_again" => error.is_temporary(),
            _ => false,
        }
    }) && expect
        .get("delay_ms")
        .is_none_or(|delay| u128::from(delay.as_u64().unwrap()) == refused.verdict.hint.unwrap().as_millis())
}

#[tokio::test]
async fn every_vector_of_token_responses_gives_its_result() {
    let vectors = vectors::rows("token_response");
    for vector in &vectors {
        let result = run(vector).await;
        let refresh = vector["input"]["request"]["refresh_token"].as_str();
        let expect = &vector["expect"];
        let right = match &result {
            Ok(token) => is_token(token, expect, refresh),
            Err(refused) => is_error(refused, expect),
        };
        assert!(right, "{} {}: {result:?}", vector["id"], vector["title"]);
    }
    assert_eq!(vectors.len(), 68);
}

#[tokio::test]
async fn every_vector_of_token_errors_gives_its_result() {
    let vectors = vectors::rows("token_error");
    for vector in &vectors {
        let refused = run(vector).await.unwrap_err();
        let right = is_error(&refused, &vector["expect"]);
        assert!(right, "{} {}: {refused:?}", vector["id"], vector["title"]);
    }
    assert_eq!(vectors.len(), 41);
}

// --- Properties ---

proptest! {
    #[test]
    fn no_answer_whatever_makes_it_panic(
        status in 200_u16..600,
        body in prop::collection::vec(any::<u8>(), 0..200),
        content_type in "[ -~]{0,40}",
    ) {
        let _ = read_plainly(&answer(status, Some(&content_type), body));
    }

    #[test]
    fn no_members_whatever_make_it_panic_or_give_a_token_that_no_header_carries(
        status in prop::sample::select(vec![200_u16, 201, 400, 401, 429, 500]),
        members in prop::collection::btree_map(
            prop::sample::select(KNOWN.to_vec()),
            prop_oneof![
                any::<String>().prop_map(Value::from),
                "[!-~]{0,20}".prop_map(Value::from),
                any::<f64>().prop_map(Value::from),
                any::<i64>().prop_map(Value::from),
                Just(Value::Null),
                Just(json!({"a": [1]})),
            ],
            0..8,
        ),
    ) {
        if let Ok(token) = read_plainly(&json_answer(status, &json!(members).to_string())) {
            prop_assert!(status < 300 && !token.bare_header_value().is_empty());
        }
    }

    #[test]
    fn a_secret_that_comes_back_in_a_description_is_never_shown(
        secret in "[ -~]{8,30}",
        before in ".{0,300}",
        after in ".{0,300}",
    ) {
        let mut redactor = Redactor::default();
        redactor.add(&secret);
        let body = json!({"error": "invalid_client", "error_description": format!("{before}{secret}{after}")});
        let error =
            read(&json_answer(401, &body.to_string()), &accepting(Acceptance::default()), &mut redactor, NOW).unwrap_err().error;
        prop_assert!(!error.to_string().contains(&secret) && !error.description().unwrap().contains(&secret));
    }
}

// --- Tokens ---

#[test]
fn other_string_members_are_kept_and_other_types_are_not() {
    let token = with_members(r#""instance_url":"https://x","id_token":"a.b.c","n":1,"o":{"s":"t"},"z":null"#);
    let extra = |name: &str| token.extra(name).map(|value| value.expose_secret().to_owned());
    assert_eq!(extra("instance_url").as_deref(), Some("https://x"));
    assert_eq!(extra("id_token").as_deref(), Some("a.b.c"));
    for name in ["n", "o", "z", "access_token", "token_type"] {
        assert_eq!(extra(name), None, "{name}");
    }
}

#[test]
fn a_life_that_makes_no_sense_is_unknown_and_one_below_zero_is_over() {
    for (text, seconds) in [
        ("-1", Some(0)),
        ("\"-5\"", Some(0)),
        ("-0.5", Some(0)),
        ("0.9", Some(0)),
        ("\"60.7\"", Some(60)),
        ("1e30", Some(u64::MAX)),
        ("\"inf\"", None),
        ("\"NaN\"", None),
        ("-1e999", None),
        ("[60]", None),
        ("false", None),
    ] {
        let token = with_members(&format!(r#""expires_in":{text}"#));
        assert_eq!(token.lifetime().map(|lifetime| lifetime.as_secs()), seconds, "{text}");
    }
}

#[test]
fn nesting_of_any_depth_is_passed_over_and_never_overflows_the_stack() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(with_members(&format!(r#""x":{deep}"#)).scheme(), "Bearer");
    assert!(with_members(&format!(r#""scope":{deep}"#)).scopes().is_none());
    assert!(with_members(&format!(r#""expires_in":{deep}"#)).lifetime().is_none());
    assert!(error_of(&json_answer(200, &"[".repeat(100_000))).is_protocol());
    assert!(error_of(&json_answer(200, &r#"{"a":"#.repeat(100_000))).is_protocol());
    assert!(error_of(&json_answer(400, &format!(r#"{{"error":{deep}}}"#))).is_protocol());
}

#[test]
fn a_token_outside_the_grammar_is_accepted_unless_strict() {
    let odd = json_answer(200, r#"{"access_token":"00D5!AQ|x:y","token_type":"Bearer"}"#);
    assert_eq!(read_plainly(&odd).unwrap().header_value(), "Bearer 00D5!AQ|x:y");
    let strict = accepting(Acceptance { strict_bearer: true, ..Acceptance::default() });
    let error = read(&odd, &strict, &mut Redactor::default(), NOW).unwrap_err().error;
    assert!(error.is_protocol() && !format!("{error:?}").contains("00D5"), "{error}");
}

#[test]
fn required_scopes_are_looked_for_where_the_server_says_what_it_granted() {
    let claims = |payload: &str| {
        use base64::Engine as _;
        format!("e30.{}.c2ln", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(payload))
    };
    let ask = |token: &str, scope: &str, requested: &[&str]| {
        let owned = |list: &[&str]| list.iter().map(|scope| (*scope).to_owned()).collect();
        let expected = accepting(Acceptance {
            requested: owned(requested),
            required: owned(&["a", "b"]),
            ..Acceptance::default()
        });
        let body = format!(r#"{{"access_token":"{token}","token_type":"Bearer"{scope}}}"#);
        read(&json_answer(200, &body), &expected, &mut Redactor::default(), NOW)
            .map_err(|refused| refused.error)
    };
    // The answer's own word.
    assert!(ask("t", r#","scope":"c b a""#, &[]).is_ok());
    assert!(ask("t", r#","scope":["b","a"]"#, &[]).is_ok());
    assert!(ask("t", r#","scope":"a,b,c""#, &[]).is_ok());
    assert!(ask("t", r#","scope":"a""#, &["a", "b"]).unwrap_err().to_string().contains("required scopes b:"));
    assert!(ask("t", r#","scope":"A B""#, &[]).unwrap_err().to_string().contains("required scopes a b:"));
    // Else the token's.
    assert!(ask(&claims(r#"{"scope":"a b"}"#), "", &[]).is_ok());
    assert!(ask(&claims(r#"{"scp":["a","b"]}"#), "", &[]).is_ok());
    let error = ask(&claims(r#"{"scope":"a"}"#), "", &["a", "b"]).unwrap_err();
    assert!(error.is_config() && error.to_string().contains("required scopes b:"), "{error}");
    assert!(ask(&claims(r#"{"scope":"a"}"#), r#","scope":"a b""#, &[]).is_ok());
    // Else what was asked for.
    assert!(ask("opaque", "", &["a", "b"]).is_ok());
    assert!(ask("opaque", "", &["a"]).is_err());
}

// --- Errors ---

#[test]
fn every_kind_of_answer_has_a_class_and_a_line_that_helps() {
    for (answer, class, part) in [
        (
            json_answer(401, r#"{"error":"invalid_client"}"#),
            ErrorKind::Config,
            "401 invalid_client: check the client id",
        ),
        (json_answer(400, r#"{"error":"invalid_scope"}"#), ErrorKind::Config, "check the scopes"),
        (json_answer(400, r#"{"error":"invalid_target"}"#), ErrorKind::Config, "check the resource"),
        (json_answer(400, r#"{"error":"unauthorized_client"}"#), ErrorKind::Config, "allow the client"),
        (json_answer(400, r#"{"error":"unsupported_grant_type"}"#), ErrorKind::Config, "token URL"),
        (json_answer(400, r#"{"error":"invalid_grant"}"#), ErrorKind::Grant, "has expired, was revoked"),
        (json_answer(400, r#"{"error":"odd","description":"why"}"#), ErrorKind::Grant, "400 odd (why)"),
        (json_answer(401, r#"{"error":"odd"}"#), ErrorKind::Config, "401 odd: check the client id"),
        (
            json_answer(400, r#"{"error":"temporarily_unavailable"}"#),
            ErrorKind::Transient,
            "temporarily_unavailable",
        ),
        (json_answer(500, r#"{"error":"invalid_grant"}"#), ErrorKind::Transient, "on the server's side"),
        (json_answer(503, "{}"), ErrorKind::Transient, "on the server's side"),
        (json_answer(429, "{}"), ErrorKind::Throttled, "asks clients to wait"),
        (answer(403, None, ""), ErrorKind::Config, "403, with an empty body: check the client id"),
        (
            answer(404, Some("text/html; x=y"), "<p>"),
            ErrorKind::Config,
            "XML instead of JSON (text/html): is the token URL",
        ),
        (answer(400, None, ""), ErrorKind::Protocol, "400 without an error of OAuth 2.0, with an empty body"),
        (
            answer(418, Some("text/plain"), "tea"),
            ErrorKind::Protocol,
            "something else than JSON (text/plain)",
        ),
        (answer(408, None, ""), ErrorKind::Transient, "408"),
        (answer(200, Some("text/html"), "<html>"), ErrorKind::Protocol, "200 with HTML or XML"),
        (answer(200, None, " "), ErrorKind::Protocol, "200 with an empty body"),
        (answer(200, None, "{\"access_token\":\"AT1\""), ErrorKind::Protocol, "cut off"),
        (answer(200, None, "{\"a\":1,\"a\":1}"), ErrorKind::Protocol, "stands twice"),
        (answer(200, None, b"{\"a\":\"\xff\"}"), ErrorKind::Protocol, "200 with"),
        (json_answer(200, r#"{"error":{"code":1}}"#), ErrorKind::Protocol, "without access_token"),
        (json_answer(200, r#"{"access_token":"A","token_type":1}"#), ErrorKind::Protocol, "not a string"),
        (
            answer(200, Some("application/x-www-form-urlencoded"), "access_token=a"),
            ErrorKind::Protocol,
            "a form",
        ),
    ] {
        let error = error_of(&answer);
        assert_eq!(error.kind(), class, "{error}");
        assert!(error.to_string().contains(part), "{error} <- {part}");
        assert_eq!(error.status(), Some(answer.status));
    }
}

#[test]
fn patience_that_is_asked_for_is_passed_on() {
    let mut busy = answer(503, None, "");
    busy.headers.insert("retry-after", HeaderValue::from_static("30"));
    let refused = read_plainly(&busy).unwrap_err();
    assert_eq!(refused.verdict.hint, Some(Duration::from_secs(30)));
    assert!(refused.error.is_throttled());
    let Some(until) = refused.error.retry_at() else { panic!("{:?}", refused.error) };
    let left = until.saturating_duration_since(crate::clock::now().into());
    assert!(left > Duration::from_secs(20) && left <= Duration::from_secs(30));
    // Elsewhere it says when to try again, and not whose side it is.
    busy.status = StatusCode::BAD_GATEWAY;
    let refused = read_plainly(&busy).unwrap_err();
    assert!(refused.error.is_transient() && refused.verdict.hint.is_some());
}

#[test]
fn a_form_encoded_error_is_read_and_a_form_never_becomes_a_token() {
    for (content_type, body) in [
        (Some("application/x-www-form-urlencoded"), "x=1&error=invalid_client&error_description=a+b"),
        (None, "error=invalid_client&error_description=a+b"),
    ] {
        let error = error_of(&answer(400, content_type, body));
        assert_eq!((error.code(), error.description()), (Some("invalid_client"), Some("a b")));
    }
}

#[test]
fn a_redirect_is_refused_with_its_target_and_no_more_of_it() {
    let mut redirect = answer(307, None, "");
    let target = "https://elsewhere.example.net:8443/S3CR3T?code=S3CR3T";
    redirect.headers.insert(LOCATION, HeaderValue::from_static(target));
    let error = error_of(&redirect);
    assert!(
        error.is_config() && error.to_string().contains("to https://elsewhere.example.net:8443, which"),
        "{error}"
    );
    assert!(!format!("{error} {error:?}").contains("S3CR3T"), "{error}");
    redirect.headers.insert(LOCATION, HeaderValue::from_static("/relative"));
    assert!(error_of(&redirect).to_string().contains("a redirect, which"));
}

#[test]
fn a_classifier_knows_better_and_says_so() {
    let classifier = Classifier(Arc::new(|refusal: &Refusal<'_>| {
        (refusal.status() == StatusCode::BAD_REQUEST
            && refusal.code() == Some("invalid_request")
            && refusal.headers().contains_key("x-limit")
            && refusal.description()?.starts_with("the limit is reached;"))
        .then_some(ErrorKind::Throttled)
    }));
    let expected = accepting(Acceptance { classifier: Some(classifier), ..Acceptance::default() });
    let ask = |answer: &EndpointResponse| read(answer, &expected, &mut Redactor::default(), NOW).unwrap_err();
    let mut limited =
        json_answer(400, r#"{"error":"invalid_request","description":"the limit is reached; wait"}"#);
    assert!(!ask(&limited).error.is_throttled());
    limited.headers.insert("x-limit", HeaderValue::from_static("0"));
    let refused = ask(&limited);
    assert!(refused.verdict.is_proof && refused.error.is_throttled());
    assert!(refused.error.to_string().ends_with(": it asks clients to wait"), "{}", refused.error);
}

#[test]
fn secrets_of_the_request_and_of_the_answer_are_blanked_out() {
    let mut redactor = Redactor::default();
    redactor.add_basic("billing", "S3CR3T");
    let body = r#"{"error":"S3CR3T","error_description":"S3CR3T TOK3N-A R3FR3SH","error_uri":"https://x/S3CR3T",
        "access_token":"TOK3N-A","refresh_token":"R3FR3SH","token_type":"Bearer"}"#;
    let form =
        "error=odd&error_description=S3CR3T+TOK3N-A+R3FR3SH&access_token=TOK3N-A&refresh_token=R3FR3SH";
    for answer in [json_answer(200, body), answer(400, Some("application/x-www-form-urlencoded"), form)] {
        let error =
            read(&answer, &accepting(Acceptance::default()), &mut redactor.clone(), NOW).unwrap_err().error;
        let told = (error.code(), error.description(), error.uri());
        let shown = format!("{error} {error:?} {error:#?} {told:?}");
        for secret in ["S3CR3T", "TOK3N-A", "R3FR3SH"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(shown.contains("[redacted]"));
    }
}
