//! A tunnel through a proxy, by CONNECT (RFC 9110 §9.3.6). A refusal keeps its status, since some of them pass.

use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use hyper::rt::{Read, ReadBuf, Write};
use secrecy::zeroize::Zeroizing;
use tower::BoxError;

use super::proxy::Detour;
use crate::clock;
use crate::error::chain;
use crate::headers::rate_limit;

/// The head of a proxy's response may be this long.
const MAX_HEAD: usize = 8 * 1024;

/// The reason why there is no tunnel.
#[derive(Debug)]
pub(crate) enum TunnelError {
    /// There was no proxy to ask for one.
    NoProxy(BoxError),
    /// The proxy refuses it, and perhaps says for how long.
    Refused(StatusCode, Option<Duration>),
    /// The proxy does not speak HTTP, or breaks off.
    Broken(io::Error),
}

impl TunnelError {
    /// Returns whether the proxy would refuse again, and what can be done about it. Every other refusal may pass: the proxy
    /// may be overloaded, or not reach the server, or it says when to come back.
    pub(crate) fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Refused(StatusCode::PROXY_AUTHENTICATION_REQUIRED, _) => {
                Some("the proxy on the way wants a user and a password, or others than these; check them")
            }
            Self::Refused(
                StatusCode::FORBIDDEN
                | StatusCode::METHOD_NOT_ALLOWED
                | StatusCode::NOT_IMPLEMENTED
                | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS,
                None,
            ) => Some(
                "the proxy on the way refuses the connection; check that it may go there, or add the host to NO_PROXY",
            ),
            Self::Refused(..) | Self::NoProxy(_) | Self::Broken(_) => None,
        }
    }

    /// Returns the wait that the proxy asks for, if this stands in the chain of an error.
    pub(super) fn wait_in(error: &(dyn Error + 'static)) -> Option<Duration> {
        chain(error).find_map(|error| match error.downcast_ref()? {
            Self::Refused(_, wait) => *wait,
            Self::NoProxy(_) | Self::Broken(_) => None,
        })
    }
}

/// Asks a proxy, over a connection to it, for a tunnel to `destination`.
pub(super) async fn open<T: Read + Write + Unpin>(
    mut proxy: T,
    detour: &Detour,
    destination: &Uri,
) -> Result<T, TunnelError> {
    let host = destination.host().unwrap_or_default();
    let port = destination.port_u16().unwrap_or(443);
    let mut head = Zeroizing::new(Vec::with_capacity(512));
    head.extend_from_slice(format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").as_bytes());
    if let Some(credentials) = &detour.credentials {
        head.extend_from_slice(b"Proxy-Authorization: ");
        head.extend_from_slice(credentials.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    write(&mut proxy, &head).await.map_err(TunnelError::Broken)?;
    let (status, headers) = response(&mut proxy).await.map_err(TunnelError::Broken)?;
    if status.is_success() {
        return Ok(proxy);
    }
    Err(TunnelError::Refused(status, rate_limit::wait(status, &headers, clock::unix_time())))
}

async fn write<T: Write + Unpin>(proxy: &mut T, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = poll_fn(|cx| Pin::new(&mut *proxy).poll_write(cx, bytes)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
    }
    poll_fn(|cx| Pin::new(&mut *proxy).poll_flush(cx)).await
}

/// Reads the head of the response. Nothing comes behind it before this side has begun with TLS.
async fn response<T: Read + Unpin>(proxy: &mut T) -> io::Result<(StatusCode, HeaderMap)> {
    let mut head = Vec::with_capacity(512);
    let mut piece = [0; 512];
    loop {
        if let Some(end) = end_of(&head) {
            match status_of(&head)? {
                // Another response follows (RFC 9110 §15.2).
                interim if interim.is_informational() => drop(head.drain(..end)),
                status => return Ok((status, headers_of(&head[..end]))),
            }
            continue;
        }
        let mut piece = ReadBuf::new(&mut piece);
        poll_fn(|cx| Pin::new(&mut *proxy).poll_read(cx, piece.unfilled())).await?;
        if piece.filled().is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(piece.filled());
        if head.len() > MAX_HEAD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the head of the response is too long"));
        }
    }
}

/// Returns where a head ends: behind an empty line. Some servers end lines by a line feed alone (RFC 9112 §2.2).
fn end_of(head: &[u8]) -> Option<usize> {
    let mut line_ends = (0..head.len()).filter(|at| head[*at] == b'\n');
    line_ends.find_map(|at| match head[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

fn status_of(head: &[u8]) -> io::Result<StatusCode> {
    let is_http = head.starts_with(b"HTTP/1.");
    let status =
        head.split(|byte| *byte == b' ').nth(1).and_then(|word| StatusCode::from_bytes(word.get(..3)?).ok());
    status
        .filter(|_| is_http)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the proxy does not speak HTTP/1.1"))
}

/// Reads the lines behind the first one, as far as they are headers.
fn headers_of(head: &[u8]) -> HeaderMap {
    let header = |line: &[u8]| {
        let (name, value) = line.split_at_checked(line.iter().position(|byte| *byte == b':')?)?;
        Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value[1..].trim_ascii()).ok()?))
    };
    head.split(|byte| *byte == b'\n').filter_map(header).collect()
}

impl fmt::Display for TunnelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProxy(_) => f.write_str("the proxy cannot be reached"),
            Self::Refused(status, _) => write!(f, "the proxy returned {status} to CONNECT"),
            Self::Broken(_) => f.write_str("the proxy broke off"),
        }
    }
}

impl Error for TunnelError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NoProxy(error) => Some(&**error),
            Self::Refused(..) => None,
            Self::Broken(error) => Some(error),
        }
    }
}
