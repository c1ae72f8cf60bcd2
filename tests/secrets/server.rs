//! A server on loopback that says what it is told to, on a thread of its own.

use std::sync::{Arc, Mutex, mpsc};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderName, HeaderValue, Request, Response, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tower_oauth2::test_util::Loopback;

use crate::words;

/// A server and what it says to every request.
pub(crate) struct Server {
    pub(crate) origin: String,
    says: Arc<Mutex<Says>>,
}

/// What a server says.
#[derive(Clone)]
pub(crate) enum Says {
    Reply {
        status: u16,
        headers: Vec<(&'static str, Vec<u8>)>,
        body: String,
    },
    /// All that came with the request, as the description of an error of OAuth 2.0 and of a challenge.
    Mirror {
        status: u16,
    },
    /// Nothing, for ever.
    Nothing,
}

impl Says {
    pub(crate) fn reply(status: u16, body: impl Into<String>) -> Self {
        Self::Reply { status, headers: Vec::new(), body: body.into() }
    }

    /// Adds a header. What no header can carry is left out of it.
    pub(crate) fn header(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        if let Self::Reply { headers, .. } = &mut self
            && HeaderValue::from_bytes(value.as_ref()).is_ok()
        {
            headers.push((name, value.as_ref().to_vec()));
        }
        self
    }

    /// A token with all that may come with one.
    pub(crate) fn token(access_token: &str) -> Self {
        let answer = serde_json::json!({
            "access_token": access_token, "token_type": "Bearer", "expires_in": 600, "scope": "read",
            "refresh_token": words::REFRESH, "session_token": words::SESSION,
        });
        Self::reply(200, answer.to_string())
    }
}

impl Server {
    pub(crate) fn start(says: Says) -> Self {
        let says = Arc::new(Mutex::new(says));
        let shared = Arc::clone(&says);
        let router = Router::new().fallback(move |request: Request<Body>| {
            let says = shared.lock().unwrap().clone();
            answer(says, request)
        });
        let (ready, origin) = mpsc::channel();
        // It ends with the process.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = Loopback::start(router).await.unwrap();
                ready.send(listener.origin()).unwrap();
                std::future::pending::<()>().await;
            });
        });
        Self { origin: origin.recv().unwrap(), says }
    }

    pub(crate) fn say(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }
}

async fn answer(says: Says, request: Request<Body>) -> Response<Body> {
    let (status, headers, body) = match says {
        Says::Nothing => std::future::pending().await,
        Says::Reply { status, headers, body } => (status, headers, body),
        Says::Mirror { status } => {
            let (head, body) = request.into_parts();
            let body = String::from_utf8_lossy(&to_bytes(body, 1 << 20).await.unwrap()).into_owned();
            let sent = head.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
            let sent = String::from_utf8_lossy(sent);
            let all = format!("{sent} | {body} | {}", STANDARD.encode(&body));
            let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{sent}\"");
            let answer = serde_json::json!({"error": "mirror", "error_description": all, "error_uri": body});
            (status, vec![("www-authenticate", challenge.into_bytes())], answer.to_string())
        }
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status.try_into().unwrap();
    for (name, value) in headers {
        response
            .headers_mut()
            .append(HeaderName::from_static(name), HeaderValue::from_bytes(&value).unwrap());
    }
    response
}
