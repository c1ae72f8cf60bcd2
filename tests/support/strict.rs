//! A provider that takes each request to the letter: method, URL, every header that is not the crate's own, every field of the
//! body, and the signature of an assertion.

#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{self, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Map, Value};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, service_fn};

pub(crate) type Transport = BoxCloneSyncService<Request<tower_oauth2::Body>, Response<Full<Bytes>>, BoxError>;

/// One request to the letter, and the response to it.
#[derive(Clone)]
pub(crate) struct Turn {
    line: String,
    headers: BTreeMap<String, String>,
    body: Body,
    /// The public key that the assertions of the request verify with.
    key: Option<Vec<u8>>,
    answer: (u16, String),
}

#[derive(Clone)]
enum Body {
    None,
    /// Names and values. A value that begins with `jwt:` is a JWT with these claims and header members at least.
    Form(Vec<(String, String)>),
    Json(Value),
}

/// Headers that are the crate's own, unless a turn names them.
const OWN: [&str; 4] = ["accept", "accept-encoding", "user-agent", "content-type"];
const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

pub(crate) fn post(url: &str) -> Turn {
    Turn {
        line: format!("POST {url}"),
        headers: BTreeMap::new(),
        body: Body::None,
        key: None,
        answer: (200, String::new()),
    }
}

pub(crate) fn get(url: &str) -> Turn {
    Turn { line: format!("GET {url}"), ..post(url) }
}

impl Turn {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    pub(crate) fn basic(self, id: &str, secret: &str) -> Self {
        self.header("authorization", &format!("Basic {}", STANDARD.encode(format!("{id}:{secret}"))))
    }

    pub(crate) fn form(mut self, fields: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.body = Body::Form(fields.iter().map(owned).collect());
        self
    }

    pub(crate) fn json(mut self, body: Value) -> Self {
        self.body = Body::Json(body);
        self
    }

    pub(crate) fn signed_by(mut self, pair: &KeyPair) -> Self {
        self.key = Some(pair.public_key().as_ref().to_vec());
        self
    }

    pub(crate) fn answers(self, status: u16, body: &Value) -> Self {
        self.answers_text(status, &body.to_string())
    }

    pub(crate) fn answers_text(mut self, status: u16, body: &str) -> Self {
        self.answer = (status, body.to_owned());
        self
    }

    /// Says what is wrong with a request, or missing in it, or too much.
    pub(crate) fn check(&self, request: &Request<Bytes>) -> Result<(), String> {
        same("the request", &format!("{} {}", request.method(), request.uri()), &self.line)?;
        let is_told =
            |name: &str| self.headers.contains_key(name) || !OWN.contains(&name) || name == "content-type";
        let seen: Vec<(String, String)> = request
            .headers()
            .iter()
            .filter(|(name, _)| is_told(name.as_str()))
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let mut wanted: Vec<_> =
            self.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        match &self.body {
            Body::None => same("the body", &String::from_utf8_lossy(request.body()), "")?,
            Body::Form(fields) => {
                wanted.push(("content-type".into(), FORM.into()));
                let seen = form_urlencoded::parse(request.body()).into_owned().collect();
                self.check_pairs(seen, fields.clone())?;
            }
            Body::Json(body) => {
                wanted.push(("content-type".into(), JSON.into()));
                let seen: Value =
                    serde_json::from_slice(request.body()).map_err(|error| error.to_string())?;
                same("the body", &seen.to_string(), &body.to_string())?;
            }
        }
        self.check_pairs(seen, wanted)
    }

    fn check_pairs(
        &self,
        mut seen: Vec<(String, String)>,
        mut wanted: Vec<(String, String)>,
    ) -> Result<(), String> {
        seen.sort();
        wanted.sort();
        let names = |list: &[(String, String)]| {
            list.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>().join(" ")
        };
        same("the names", &names(&seen), &names(&wanted))?;
        seen.iter().zip(&wanted).try_for_each(|((name, seen), (_, wanted))| {
            check_value(name, seen, wanted)?;
            match (&self.key, wanted.starts_with("jwt:")) {
                (Some(key), true) => check_signature(name, seen, key),
                (Some(_), false) | (None, _) => Ok(()),
            }
        })
    }
}

fn same(what: &str, seen: &str, wanted: &str) -> Result<(), String> {
    if seen == wanted { Ok(()) } else { Err(format!("{what}: {seen:?} is not {wanted:?}")) }
}

/// Compares a value; one that should be a JWT by its header and its claims.
pub(crate) fn check_value(name: &str, seen: &str, wanted: &str) -> Result<(), String> {
    let Some(parts) = wanted.strip_prefix("jwt:") else { return same(name, seen, wanted) };
    let both = jwt_members(seen).ok_or_else(|| format!("{name}: {seen:?} is not a JWT"))?;
    let wanted: Map<String, Value> = serde_json::from_str(parts).unwrap();
    for (member, value) in &wanted {
        let value = Some(value).filter(|value| !value.is_null());
        if both.get(member) != value {
            return Err(format!("{name}: {member} of {both:?} is not {value:?}"));
        }
    }
    let time = |member: &str| both.get(member).and_then(Value::as_u64);
    match (time("iat"), time("exp")) {
        (Some(from), Some(to)) if (1..=3600).contains(&to.saturating_sub(from)) => Ok(()),
        times => Err(format!("{name}: these are not the times of an assertion: {times:?}")),
    }
}

fn jwt_members(jwt: &str) -> Option<Map<String, Value>> {
    let mut both = Map::new();
    for part in jwt.strip_prefix("Bearer ").unwrap_or(jwt).split('.').take(2) {
        let part: Map<String, Value> = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()?;
        both.extend(part);
    }
    Some(both)
}

fn check_signature(name: &str, jwt: &str, key: &[u8]) -> Result<(), String> {
    let wrong = || format!("{name}: the signature is not that of the key");
    let (signed, signature) = jwt.rsplit_once('.').ok_or_else(wrong)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| wrong())?;
    UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, key)
        .verify(signed.as_bytes(), &signature)
        .map_err(|_| wrong())
}

/// Plays turns in order. The second value checks that all were played, and returns them with the requests that came.
pub(crate) fn provider<const N: usize>(
    turns: [Turn; N],
) -> (Transport, impl Fn() -> Vec<(Turn, Request<Bytes>)>) {
    let left = Arc::new(Mutex::new(VecDeque::from_iter(turns)));
    let played = Arc::new(Mutex::new(Vec::new()));
    let both = (Arc::clone(&left), Arc::clone(&played));
    let transport = service_fn(move |request: Request<tower_oauth2::Body>| {
        let turn = left.lock().unwrap().pop_front().expect("a request that the provider does not expect");
        let played = Arc::clone(&played);
        async move {
            let (parts, body) = request.into_parts();
            let request = Request::from_parts(parts, body.collect().await?.to_bytes());
            if let Err(wrong) = turn.check(&request) {
                panic!("{}: {wrong}", turn.line);
            }
            let mut response = Response::new(Full::new(Bytes::from(turn.answer.1.clone())));
            *response.status_mut() = StatusCode::from_u16(turn.answer.0)?;
            played.lock().unwrap().push((turn, request));
            Ok::<_, BoxError>(response)
        }
    });
    (BoxCloneSyncService::new(transport), move || {
        let (left, played) = &both;
        assert!(left.lock().unwrap().is_empty(), "not all was asked");
        std::mem::take(&mut played.lock().unwrap())
    })
}

pub(crate) fn rsa_pair() -> KeyPair {
    KeyPair::generate(KeySize::Rsa2048).unwrap()
}

pub(crate) fn pem(pair: &KeyPair) -> String {
    let pkcs8: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let text = STANDARD.encode(pkcs8.as_ref());
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}

// --- Requests with one thing wrong ---

/// Makes of a request each one that has one thing wrong, with what that is.
pub(crate) fn wrong_ones(request: &Request<Bytes>) -> Vec<(String, Request<Bytes>)> {
    let mut all = Vec::new();
    let mut add = |what: String, change: &dyn Fn(&mut Request<Bytes>)| {
        let mut other = request.clone();
        change(&mut other);
        all.push((what, other));
    };
    add("method".into(), &|other| *other.method_mut() = http::Method::PUT);
    let uri = request.uri().to_string();
    let (base, query) = uri.split_once('?').unwrap_or((&uri, ""));
    let query_mark = if query.is_empty() { "" } else { "?" };
    let mut uris = vec![
        (uri.replacen("://", "://not.", 1), "host"),
        (uri.replacen("https", "http", 1), "scheme"),
        (format!("{base}/x{query_mark}{query}"), "path"),
    ];
    for other in wrong_pairs(query) {
        let mark = if other.is_empty() { "" } else { "?" };
        uris.push((format!("{base}{mark}{other}"), "query"));
    }
    for (uri, what) in &uris {
        add(format!("{what}: {uri}"), &|other| *other.uri_mut() = uri.parse().unwrap());
    }
    let told = |name: &http::HeaderName| name == "content-type" || !OWN.contains(&name.as_str());
    for name in request.headers().keys().filter(|name| told(name)) {
        let value = request.headers()[name].to_str().unwrap().to_owned();
        add(format!("{name} is missing"), &|other| drop(other.headers_mut().remove(name)));
        add(format!("{name} differs"), &|other| {
            let value = format!("{value}x").parse().unwrap();
            other.headers_mut().insert(name.clone(), value);
        });
    }
    add("one more header".into(), &|other| drop(other.headers_mut().insert("x-more", "1".parse().unwrap())));
    let text = std::str::from_utf8(request.body()).unwrap();
    let is_form = request.headers().get("content-type").is_some_and(|value| value == FORM);
    let bodies = match serde_json::from_slice::<Value>(request.body()) {
        Ok(body) => wrong_values(&body).iter().map(Value::to_string).collect(),
        Err(_) if is_form => wrong_pairs(text),
        Err(_) => vec!["x=1".to_owned()],
    };
    for body in bodies {
        add(format!("body: {body}"), &|other| *other.body_mut() = Bytes::from(body.clone()));
    }
    all
}

fn wrong_pairs(text: &str) -> Vec<String> {
    let pairs: Vec<(String, String)> = form_urlencoded::parse(text.as_bytes()).into_owned().collect();
    let mut all = vec![[&pairs[..], &[("more".into(), "1".into())]].concat()];
    for at in 0..pairs.len() {
        let (name, value) = &pairs[at];
        let put = |new: &[(String, String)]| [&pairs[..at], new, &pairs[at + 1..]].concat();
        all.push(put(&[]));
        all.push(put(&[pairs[at].clone(), pairs[at].clone()]));
        all.push(put(&[(format!("{name}x"), value.clone())]));
        all.push(put(&[(name.clone(), format!("{value}x"))]));
        all.extend(wrong_claims(value).into_iter().map(|value| put(&[(name.clone(), value)])));
    }
    let write = |pairs: Vec<(String, String)>| {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
    };
    all.into_iter().map(write).collect()
}

/// Makes of a JWT each one that has another claim or lacks one, under the same signature.
pub(crate) fn wrong_claims(jwt: &str) -> Vec<String> {
    let parts: Vec<&str> = jwt.split('.').collect();
    let [header, claims, signature] = parts[..] else { return Vec::new() };
    let claims = URL_SAFE_NO_PAD.decode(claims).ok().and_then(|json| serde_json::from_slice(&json).ok());
    let Some(Value::Object(claims)) = claims else { return Vec::new() };
    let write =
        |claims: Value| format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    wrong_values(&Value::Object(claims)).into_iter().map(write).collect()
}

/// Makes of a JSON value each one that differs in one place.
fn wrong_values(value: &Value) -> Vec<Value> {
    match value {
        Value::Object(members) => {
            let mut all = vec![with(members, "more", Some(Value::Bool(true)))];
            for (name, value) in members {
                all.push(with(members, name, None));
                all.extend(wrong_values(value).into_iter().map(|value| with(members, name, Some(value))));
            }
            all
        }
        Value::Array(items) => {
            let mut all = vec![Value::Array(Vec::new())];
            for at in 0..items.len() {
                all.extend(wrong_values(&items[at]).into_iter().map(|value| {
                    let mut items = items.clone();
                    items[at] = value;
                    Value::Array(items)
                }));
            }
            all
        }
        Value::String(text) => vec![Value::String(format!("{text}x")), Value::Null],
        Value::Number(number) => vec![Value::String(number.to_string()), Value::from(1)],
        Value::Bool(_) | Value::Null => vec![Value::from("x")],
    }
}

fn with(members: &Map<String, Value>, name: &str, value: Option<Value>) -> Value {
    let mut members = members.clone();
    match value {
        Some(value) => drop(members.insert(name.to_owned(), value)),
        None => drop(members.remove(name)),
    }
    Value::Object(members)
}
