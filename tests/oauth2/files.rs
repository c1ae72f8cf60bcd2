//! Secrets in files that are rotated while a source waits.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Request, Response};
use http_body_util::Full;
use tower::{BoxError, service_fn};
use tower_oauth2::grants::{SecurityToken, TokenExchange, TokenType};
use tower_oauth2::{
    AccessToken, ClientCredentials, Error, ErrorKind, FetchReason, FileToken, Secret, TokenCache,
    TokenRequest, TokenSource, source_fn,
};

use crate::scripted::URL;

struct Scratch(PathBuf);

impl Scratch {
    fn holding(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tower-oauth2-files-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

type Transport =
    tower::util::BoxCloneSyncService<Request<tower_oauth2::Body>, Response<Full<Bytes>>, BoxError>;

/// A server that takes one secret only.
fn server(right: &'static str) -> Transport {
    Transport::new(service_fn(move |request: Request<tower_oauth2::Body>| {
        let sent = request.headers()[AUTHORIZATION].to_str().unwrap().to_owned();
        async move {
            use base64::Engine as _;
            let expected = base64::engine::general_purpose::STANDARD.encode(format!("billing:{right}"));
            let (status, body) = match sent == format!("Basic {expected}") {
                true => (200, r#"{"access_token":"AT1","token_type":"Bearer"}"#),
                false => (401, r#"{"error":"invalid_client"}"#),
            };
            let response = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
            Ok::<_, BoxError>(response.body(Full::from(body))?)
        }
    }))
}

#[tokio::test]
async fn a_secret_file_that_was_changed_ends_the_wait_within_a_second() {
    let file = Scratch::holding("wrong", "not-the-secret");
    let source = ClientCredentials::builder(URL, "billing", Secret::from_file(&file.0));
    let source = source.build_with(server("the-right-secret")).unwrap();
    assert!(!source.has_changed(), "it was not read yet");
    let cache = TokenCache::new(source);
    assert_eq!(cache.get().await.unwrap_err().kind(), ErrorKind::Config);
    std::fs::write(&file.0, "the-right-secret").unwrap();
    let begun = std::time::Instant::now();
    while cache.get().await.is_err() {
        // Real time: the file system keeps none other.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(begun.elapsed() < Duration::from_secs(8), "the wait of ten seconds was not ended");
    }
}

#[tokio::test]
async fn every_source_says_when_its_file_has_changed() {
    let file = Scratch::holding("all", "first");
    let secret = || Secret::from_file(&file.0);
    let request = || TokenRequest::new(FetchReason::Initial);
    let credentials =
        ClientCredentials::builder(URL, "billing", secret()).build_with(server("other")).unwrap();
    let subject = SecurityToken::new(secret(), TokenType::JWT);
    let exchange =
        TokenExchange::builder(URL, subject).client("billing", "x").build_with(server("other")).unwrap();
    let behind = TokenCache::new(FileToken::new(&file.0));
    let chained = behind.as_source();
    let either = FileToken::new(&file.0).or(source_fn(|_| async { AccessToken::bearer("other") }));
    credentials.token(request()).await.unwrap_err();
    exchange.token(request()).await.unwrap_err();
    chained.token(request()).await.unwrap();
    either.token(request()).await.unwrap();
    let changed =
        || [credentials.has_changed(), exchange.has_changed(), chained.has_changed(), either.has_changed()];
    assert_eq!(changed(), [false; 4]);
    std::fs::write(&file.0, "a second one, which is longer").unwrap();
    assert_eq!(changed(), [true; 4]);
    std::fs::remove_file(&file.0).unwrap();
    assert_eq!(changed(), [true; 4]);
}

/// Remembers whether it was told that its token is good.
struct Told(Arc<AtomicBool>);

impl TokenSource for Told {
    async fn token(&self, _: TokenRequest) -> Result<AccessToken, Error> {
        AccessToken::bearer("subject")
    }

    fn accepted(&self, _: &AccessToken) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn an_exchange_tells_the_source_of_its_subject_that_the_token_was_good() {
    for (right, is_told) in [("right", true), ("other", false)] {
        let told = Arc::new(AtomicBool::new(false));
        let subject = SecurityToken::new(Told(Arc::clone(&told)), TokenType::JWT);
        let source = TokenExchange::builder(URL, subject).client("billing", "right");
        let source = source.build_with(server(right)).unwrap();
        assert_eq!(source.token(TokenRequest::new(FetchReason::Initial)).await.is_ok(), is_told);
        assert_eq!(told.load(Ordering::SeqCst), is_told);
    }
}
