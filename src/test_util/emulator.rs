//! The frame of the emulators of vendors: what they share, and how each of them gets from a request to its response.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, request};
use http_body_util::BodyExt as _;
use serde_json::json;
use tower::BoxError;

use super::strict::{Faults, Refusal, json_response};
use super::trouble::{Trouble, Troubles};
use crate::body::Body;

/// State shared by the clones of an emulator: its settings, and the state of the server.
#[derive(Debug)]
pub(super) struct Emulator<Setup, State> {
    pub(super) setup: Setup,
    state: Mutex<State>,
    pub(super) faults: Faults,
    /// For requests of the API.
    pub(super) troubles: Troubles,
    /// For requests for tokens.
    #[cfg_attr(
        not(feature = "jwt"),
        allow(dead_code, reason = "those of the other emulators fail in a way of their own")
    )]
    pub(super) token_troubles: Troubles,
}

impl<Setup, State> Emulator<Setup, State> {
    pub(super) fn new(setup: Setup, state: State) -> Self {
        Self {
            setup,
            state: Mutex::new(state),
            faults: Faults::default(),
            troubles: Troubles::default(),
            token_troubles: Troubles::default(),
        }
    }

    // Every change under this lock is a single step, so what a panic leaves behind is sound.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a vendor responds.
pub(super) trait Vendor: Send + Sync + 'static {
    /// Returns the failure that was set for a request.
    fn trouble(&self, _head: &request::Parts) -> Option<Trouble> {
        None
    }

    /// Returns how long a request takes.
    fn latency(&self) -> Duration {
        Duration::ZERO
    }

    /// Responds to a request.
    fn respond(&self, head: &request::Parts, body: &Bytes) -> Result<Response<Body>, Refusal>;

    /// Makes the response to a request with a fault.
    fn refuse(&self, _head: &request::Parts, fault: &str) -> Response<Body> {
        let body = json!({ "error": "invalid_request", "error_description": fault });
        json_response(StatusCode::BAD_REQUEST, &body)
    }
}

/// Responds to a request whose body is read to its end.
pub(super) async fn respond<Setup, State>(
    vendor: Arc<Emulator<Setup, State>>,
    request: Request<Body>,
) -> Result<Response<Body>, BoxError>
where
    Emulator<Setup, State>: Vendor,
{
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let latency = vendor.latency();
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    if let Some(trouble) = vendor.trouble(&head) {
        return trouble.make().await;
    }
    Ok(vendor.respond(&head, &body).unwrap_or_else(|refusal| match refusal {
        Refusal::Response(response) => *response,
        Refusal::Fault(fault) => {
            vendor.faults.keep(&fault);
            vendor.refuse(&head, &fault)
        }
    }))
}

/// Makes an emulator with a `line` and something `shared` a service, which says what was wrong and what it counted.
macro_rules! emulator_service {
    ($fake:ident, $counts:ty) => {
        crate::test_util::line::fake_service!($fake, |fake, request| {
            crate::test_util::emulator::respond(std::sync::Arc::clone(&fake.shared), request)
        });

        impl $fake {
            /// Returns the faults of the requests so far. It is empty if all requests were right.
            #[must_use]
            pub fn faults(&self) -> Vec<String> {
                self.shared.faults.all()
            }

            /// Returns the counts so far.
            #[must_use]
            pub fn counts(&self) -> $counts {
                self.shared.state().counts
            }
        }

        impl std::fmt::Debug for $fake {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($fake)).field("counts", &self.counts()).finish_non_exhaustive()
            }
        }
    };
}
pub(super) use emulator_service;
