//! A token endpoint that takes each refresh token once, and ends the grant when one comes a second time.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::task::yield_now;
use tower::{BoxError, Service};
use tower_oauth2::grants::GrantBuilder;
use tower_oauth2::{AccessToken, Error, FetchReason, RefreshTokenGrant, TokenRequest, TokenSource};

use crate::scripted::{Body, URL};

/// The server. Its first refresh token is `RT0`, the next `RT1`, and the access token that comes with `RT1` is `AT1`.
#[derive(Clone, Default)]
pub(crate) struct Rotating {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    newest: u32,
    /// How many answers were taken to their end.
    delivered: u32,
    reuses: u32,
    /// What came, in order.
    sent: Vec<String>,
    running: u32,
    most_at_once: u32,
}

impl Rotating {
    /// Builds a source that begins with the first refresh token.
    pub(crate) fn source(&self) -> RefreshTokenGrant {
        self.build(builder(Some("RT0")))
    }

    pub(crate) fn build(&self, builder: GrantBuilder<RefreshTokenGrant>) -> RefreshTokenGrant {
        builder.build_with(self.clone()).unwrap()
    }

    /// Returns which refresh tokens came, in order.
    pub(crate) fn sent(&self) -> Vec<String> {
        self.state.lock().unwrap().sent.clone()
    }

    pub(crate) fn reuses(&self) -> u32 {
        self.state.lock().unwrap().reuses
    }

    /// Returns how many refresh tokens were spent, and how many answers were taken to their end.
    pub(crate) fn spent_and_delivered(&self) -> (u32, u32) {
        let state = self.state.lock().unwrap();
        (state.newest, state.delivered)
    }

    pub(crate) fn most_at_once(&self) -> u32 {
        self.state.lock().unwrap().most_at_once
    }

    fn answer(&self, form: &str) -> (StatusCode, String) {
        let fields: Vec<(String, String)> = form_urlencoded::parse(form.as_bytes()).into_owned().collect();
        let sent = fields.iter().find(|field| field.0 == "refresh_token").unwrap().1.clone();
        let mut state = self.state.lock().unwrap();
        state.sent.push(sent.clone());
        if state.reuses > 0 || sent != format!("RT{}", state.newest) {
            state.reuses += 1;
            return (StatusCode::BAD_REQUEST, r#"{"error":"invalid_grant"}"#.into());
        }
        state.newest += 1;
        let number = state.newest;
        let answer = format!(
            r#"{{"access_token":"AT{number}","token_type":"Bearer","expires_in":3600,"refresh_token":"RT{number}"}}"#
        );
        (StatusCode::OK, answer)
    }
}

impl Service<Request<tower_oauth2::Body>> for Rotating {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tower_oauth2::Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            let form = request.into_body().collect().await?.to_bytes();
            {
                let mut state = server.state.lock().unwrap();
                state.running += 1;
                state.most_at_once = state.most_at_once.max(state.running);
            }
            let _here = Here(server.clone());
            // On the way there; then the deed; then on the way back.
            yield_now().await;
            let (status, answer) = server.answer(std::str::from_utf8(&form)?);
            yield_now().await;
            // The body comes in pieces as well.
            let (first, second) = answer.split_at(answer.len() / 2);
            let pieces = [first, second].map(|piece| Bytes::copy_from_slice(piece.as_bytes()));
            let pieces = stream::unfold((server, pieces.into_iter()), |(server, mut pieces)| async move {
                yield_now().await;
                let Some(piece) = pieces.next() else {
                    server.state.lock().unwrap().delivered += 1;
                    return None;
                };
                Some((Ok::<_, BoxError>(Frame::data(piece)), (server, pieces)))
            });
            let mut response = Response::new(StreamBody::new(Box::pin(pieces)).boxed_unsync());
            *response.status_mut() = status;
            Ok(response)
        })
    }
}

/// A request that is being answered.
struct Here(Rotating);

impl Drop for Here {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().running -= 1;
    }
}

/// A builder that begins with this refresh token.
pub(crate) fn builder(refresh_token: Option<&str>) -> GrantBuilder<RefreshTokenGrant> {
    RefreshTokenGrant::builder(URL, "reports", "hunter2-hunter2")
        .refresh_token(refresh_token.unwrap_or_default())
}

/// Fetches for the first time.
pub(crate) async fn renew(source: &impl TokenSource) -> Result<AccessToken, Error> {
    source.token(TokenRequest::new(FetchReason::Initial)).await
}
