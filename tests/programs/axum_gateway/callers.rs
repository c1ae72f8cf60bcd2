//! The callers of the gateway.

use axum::body::{Body, Bytes};
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tower::{BoxError, ServiceExt as _};
use tower_oauth2::transport::{HyperClient, IncomingBody};

/// A caller with a key.
pub(crate) struct Caller {
    url: String,
    key: String,
    http: HyperClient,
}

/// A stream that the upstream sends back as it comes.
pub(crate) struct Echo {
    sent: mpsc::Sender<Bytes>,
    back: IncomingBody,
}

impl Caller {
    pub(crate) fn new(url: &str, key: impl Into<String>) -> Self {
        Self { url: url.to_owned(), key: key.into(), http: HyperClient::new() }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Response<IncomingBody>, BoxError> {
        let request = self.request(path).body(Body::empty())?;
        let mut response = self.http.clone().oneshot(request).await?;
        while let Some(frame) = response.body_mut().frame().await {
            frame?;
        }
        Ok(response)
    }

    /// Sends headers that must not come through beside one that must, and returns how many of each did.
    pub(crate) async fn planted(&self) -> Result<(usize, usize), BoxError> {
        let mut request = self.request("/headers").header("connection", "x-hop");
        for name in ["cookie", "host", "x-hop", "keep-alive", "te", "x-kept"] {
            request = request.header(name, "planted");
        }
        let response = self.http.clone().oneshot(request.body(Body::empty())?).await?.collect().await?;
        let response = String::from_utf8(response.to_bytes().into())?;
        let kept = response.matches("x-kept: planted").count();
        Ok((response.matches("planted").count() - kept + response.matches(&self.key).count(), kept))
    }

    /// Sends so many requests at once, and returns how many got no 200.
    pub(crate) async fn crowd(&self, requests: usize) -> usize {
        let mut tasks = JoinSet::new();
        for number in 0..requests {
            let request = self.request(&format!("/mine/items/{number}")).body(Body::empty());
            let http = self.http.clone();
            tasks.spawn(async move {
                let response = http.oneshot(request?).await?;
                let status = response.status();
                response.into_body().collect().await?;
                Ok::<_, BoxError>(status == StatusCode::OK)
            });
        }
        let done = tasks.join_all().await;
        done.into_iter().filter(|done| !matches!(done, Ok(true))).count()
    }

    /// Opens a stream.
    pub(crate) async fn echo(&self) -> Result<Echo, BoxError> {
        let (sent, pieces) = mpsc::channel(1);
        let pieces = stream::unfold(pieces, |mut pieces: mpsc::Receiver<Bytes>| async {
            pieces.recv().await.map(|piece| (Ok::<_, BoxError>(piece), pieces))
        });
        let request = Request::post(format!("{}/echo", self.url))
            .header("authorization", format!("Bearer {}", self.key))
            .body(Body::from_stream(pieces))?;
        Ok(Echo { sent, back: self.http.clone().oneshot(request).await?.into_body() })
    }

    fn request(&self, path: &str) -> http::request::Builder {
        Request::get(format!("{}{path}", self.url)).header("authorization", format!("Bearer {}", self.key))
    }
}

impl Echo {
    /// Sends a piece, and returns whether it came back.
    pub(crate) async fn pass(&mut self, piece: &'static str) -> Result<bool, BoxError> {
        self.sent.send(Bytes::from_static(piece.as_bytes())).await?;
        let mut came = Vec::new();
        while came.len() < piece.len() {
            let Some(frame) = self.back.frame().await else { return Ok(false) };
            came.extend(frame?.into_data().unwrap_or_default());
        }
        Ok(came == piece.as_bytes())
    }

    /// Sends no more, and returns whether the response ends there.
    pub(crate) async fn finish(mut self) -> Result<bool, BoxError> {
        drop(self.sent);
        Ok(self.back.frame().await.transpose()?.is_none())
    }
}
