//! A user with a browser: types the code of a device flow, signs in, agrees (RFC 8628), so that there is a refresh token.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use tower::BoxError;

use super::server::{Registered, Server};

/// What a device is told (RFC 8628 §3.2).
#[derive(Deserialize)]
struct Device {
    device_code: String,
    verification_uri_complete: String,
}

/// Walks a device flow of a client with HTTP Basic, and returns the token response as it came.
pub(crate) async fn sign_in(server: &Server, client: Registered) -> Result<Bytes, BoxError> {
    let mut device = Browser::new();
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", client.id, client.secret)));
    let scope = [("scope", "openid offline_access items:read"), ("client_id", client.id)];
    let (status, body) = device.post(&server.device_url().parse()?, &scope, Some(&basic)).await?;
    if status != StatusCode::OK {
        return Err(format!("the device endpoint answered {status}").into());
    }
    let told: Device = serde_json::from_slice(&body)?;
    Browser::new().agree(&told.verification_uri_complete).await?;
    let grant = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("device_code", told.device_code.as_str()),
    ];
    match device.post(&server.token_url().parse()?, &grant, Some(&basic)).await? {
        (StatusCode::OK, body) => Ok(body),
        (status, _) => Err(format!("the device got {status} for its code").into()),
    }
}

/// As much of a browser as it takes: cookies, redirects, and the first form of each page.
struct Browser {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    /// By name and path.
    cookies: BTreeMap<(String, String), String>,
}

impl Browser {
    fn new() -> Self {
        Self { http: HttpClient::builder(TokioExecutor::new()).build_http(), cookies: BTreeMap::new() }
    }

    /// Fills in and sends one form after the other, until there is a page without.
    async fn agree(&mut self, url: &str) -> Result<(), BoxError> {
        let mut at: Uri = url.parse()?;
        let mut page = self.go(&mut at, Method::GET, Bytes::new()).await?;
        for _ in 0..10 {
            let Some(form) = Form::first_of(&page) else { return Ok(()) };
            let fields = form.fields.iter().map(|(name, value)| match name.as_str() {
                "login" | "password" => (name.as_str(), "somebody"),
                name => (name, value.as_str()),
            });
            let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
            at = resolved(&at, &form.action)?;
            page = self.go(&mut at, Method::POST, body.into()).await?;
        }
        Err("the pages of the server never end".into())
    }

    /// Fetches a page, redirects included, and says in `at` where it was.
    async fn go(&mut self, at: &mut Uri, mut method: Method, mut body: Bytes) -> Result<String, BoxError> {
        for _ in 0..10 {
            let (status, location, page) = self.exchange(at, method, std::mem::take(&mut body), None).await?;
            match location {
                Some(location) if status.is_redirection() => *at = resolved(at, &location)?,
                _ if status.is_success() => return Ok(String::from_utf8(page.to_vec())?),
                _ => return Err(format!("{} answered {status}", at.path()).into()),
            }
            method = Method::GET;
        }
        Err("the redirects of the server never end".into())
    }

    async fn post(
        &mut self,
        url: &Uri,
        fields: &[(&str, &str)],
        authorization: Option<&str>,
    ) -> Result<(StatusCode, Bytes), BoxError> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let (status, _, body) = self.exchange(url, Method::POST, body.into(), authorization).await?;
        Ok((status, body))
    }

    async fn exchange(
        &mut self,
        url: &Uri,
        method: Method,
        body: Bytes,
        authorization: Option<&str>,
    ) -> Result<(StatusCode, Option<String>, Bytes), BoxError> {
        let mut request = Request::builder()
            .method(&method)
            .uri(url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let fitting = self.cookies.iter().filter(|((_, path), _)| url.path().starts_with(path));
        let cookies: Vec<String> = fitting.map(|((name, _), value)| format!("{name}={value}")).collect();
        if !cookies.is_empty() {
            request = request.header(header::COOKIE, cookies.join("; "));
        }
        let request = request.body(Full::from(body))?;
        let answer = tokio::time::timeout(Duration::from_secs(10), self.http.request(request)).await??;
        for cookie in answer.headers().get_all(header::SET_COOKIE) {
            self.keep(cookie.to_str()?);
        }
        let location = answer.headers().get(header::LOCATION).map(|location| location.to_str());
        let location = location.transpose()?.map(str::to_owned);
        Ok((answer.status(), location, answer.into_body().collect().await?.to_bytes()))
    }

    fn keep(&mut self, cookie: &str) {
        let mut parts = cookie.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { return };
        let path = parts.find_map(|part| part.strip_prefix("path=")).unwrap_or("/");
        self.cookies.insert((name.to_owned(), path.to_owned()), value.to_owned());
    }
}

/// A form of a page.
struct Form {
    action: String,
    fields: Vec<(String, String)>,
}

impl Form {
    fn first_of(page: &str) -> Option<Self> {
        let (_, form) = page.split_once("<form")?;
        let (form, _) = form.split_once("</form>")?;
        let (tag, inside) = form.split_once('>')?;
        let fields = inside.split("<input").skip(1).filter_map(|input| {
            let tag = input.split_once('>').map_or(input, |(tag, _)| tag);
            Some((attribute(tag, "name")?, attribute(tag, "value").unwrap_or_default()))
        });
        Some(Self { action: attribute(tag, "action")?, fields: fields.collect() })
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!("{name}=\""))?;
    let (value, _) = rest.split_once('"')?;
    Some(value.replace("&quot;", "\"").replace("&#39;", "'").replace("&amp;", "&"))
}

/// Resolves a link of a page at `base`.
fn resolved(base: &Uri, link: &str) -> Result<Uri, BoxError> {
    if link.contains("://") {
        return Ok(link.parse()?);
    }
    let authority = base.authority().ok_or("a page without a host")?;
    Ok(format!("http://{authority}{link}").parse()?)
}
