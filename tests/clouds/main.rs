//! The large clouds: each preset against an emulator that checks a request strictly.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod entra;
mod github;
mod google;

use std::collections::HashMap;
use std::path::PathBuf;

use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;
use tower_oauth2::Body;
use tower_oauth2::client::ApiRequest;
use tower_oauth2::transport::HttpTransport;

/// Variables and their values.
type Variables<'a> = &'a [(&'a str, &'a str)];

/// Looks variables up in a list.
fn variables<'a>(set: Variables<'a>) -> impl Fn(&str) -> Option<String> + use<'a> {
    let set: HashMap<String, String> =
        set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    move |name| set.get(name).cloned()
}

/// Sends a request, and returns the caller as the API knows it.
async fn caller_of(request: ApiRequest) -> String {
    // Files are read off this thread, which the paused clock does not wait for.
    tokio::time::resume();
    let response = request.send().await.unwrap().error_for_status().unwrap();
    let body: Value = response.json().await.unwrap();
    tokio::time::pause();
    body["caller"].as_str().unwrap().to_owned()
}

/// A whole request, to be sent to an emulator as it is or with one thing wrong.
#[derive(Clone)]
struct RawRequest {
    method: Method,
    url: String,
    headers: HeaderMap,
    body: String,
}

impl RawRequest {
    /// Changes one thing.
    fn but(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut letter = self.clone();
        change(&mut letter);
        letter
    }

    fn header(&mut self, name: &'static str, value: &str) {
        self.headers.insert(name, value.parse().unwrap());
    }

    async fn send(self, fake: impl HttpTransport) -> (StatusCode, String) {
        let mut request = Request::builder().method(self.method).uri(self.url);
        *request.headers_mut().unwrap() = self.headers;
        let request = request.body(Body::from(self.body)).unwrap();
        let response = fake.oneshot(request).await.map_err(Into::into).unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.map_err(Into::into).unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

/// A file of its own, removed at the end.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn holding(name: &str, text: impl AsRef<[u8]>) -> Self {
        let path = std::env::temp_dir().join(format!("tower-oauth2-{name}-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self { path }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
