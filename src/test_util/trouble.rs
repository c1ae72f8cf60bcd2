//! Failures that a fake is told to have.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};
use tower::BoxError;

use crate::body::Body;

/// A failure of a server, which a fake has instead of its normal response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// A 429 with `Retry-After`, in whole seconds.
    TooManyRequests {
        /// When the client may come back.
        retry_after: Duration,
    },
    /// A 503 with `Retry-After`, in whole seconds.
    Unavailable {
        /// When the client may come back.
        retry_after: Duration,
    },
    /// No response, until the client gives up.
    Hang,
    /// A broken connection. Over HTTP/1.1 and in the process the client cannot tell whether the work was done.
    Disconnect,
}

/// The failures that were set.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    next: Mutex<VecDeque<Trouble>>,
}

impl Troubles {
    pub(super) fn order(&self, times: usize, trouble: Trouble) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.extend(std::iter::repeat_n(trouble, times));
    }

    pub(super) fn next(&self) -> Option<Trouble> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl Trouble {
    /// Makes it.
    pub(super) async fn make(self) -> Result<Response<Body>, BoxError> {
        match self {
            Self::TooManyRequests { retry_after } => Ok(busy(StatusCode::TOO_MANY_REQUESTS, retry_after)),
            Self::Unavailable { retry_after } => Ok(busy(StatusCode::SERVICE_UNAVAILABLE, retry_after)),
            Self::Hang => pending().await,
            Self::Disconnect => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
        }
    }
}

fn busy(status: StatusCode, retry_after: Duration) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after.as_secs()));
    response
}
