//! What keeps a connection from being made, today and tomorrow: told from the errors of TLS and of proxies.

use std::error::Error;
use std::io;

use crate::error::chain;

/// Says what to do about a handshake that would fail again, as far as rustls or a proxy says so beyond doubt. An alert may be
/// a server that is just being set up, and a broken connection may be anything.
pub(super) fn advice(error: &(dyn Error + 'static)) -> Option<&'static str> {
    match in_tls(error) {
        Some(rustls::Error::InvalidCertificate(_)) => Some(
            "check that the URL names the right host, and that the authority that signed its certificate is trusted here",
        ),
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            Some("the server does not speak TLS there; check the scheme and the port of the URL")
        }
        Some(rustls::Error::PeerIncompatible(_)) => {
            Some("the server knows no version or cipher of TLS that this client does; check what it offers")
        }
        _ => in_tunnel(error),
    }
}

/// Finds the error of TLS in a chain, and in the I/O errors there, which do not name what they carry as their source.
fn in_tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    for _ in 0..16 {
        let error = next?;
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(carried) => Some(carried),
            None => error.source(),
        };
    }
    None
}

/// What can be done about a proxy that refuses. Its error is known by its words alone.
fn in_tunnel(error: &(dyn Error + 'static)) -> Option<&'static str> {
    chain(error).find_map(|error| match &*error.to_string() {
        "tunnel error: proxy authorization required" => {
            Some("the proxy on the way wants a user and a password, or others than these; check them")
        }
        "tunnel error: unsuccessful" => {
            Some("the proxy on the way refuses the connection; check that it may go there, or add the host to NO_PROXY")
        }
        _ => None,
    })
}
