//! Finds connection failures that would repeat tomorrow, among the errors of TLS and of proxies.

use std::error::Error;
use std::io;

use rustls::AlertDescription;
use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
use tower::BoxError;

use crate::error::{Lasting, chain};

/// The alerts about a certificate.
const REFUSALS: [AlertDescription; 9] = [
    AlertDescription::CertificateRequired,
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnknownCA,
    AlertDescription::AccessDenied,
    AlertDescription::DecryptError,
];

/// Says what to do about a handshake that would fail again, as far as rustls or a proxy says so beyond doubt. An alert may be
/// a server that is just being set up, and a broken connection may be anything.
pub(super) fn advice(error: &(dyn Error + 'static)) -> Option<&'static str> {
    match in_tls(error) {
        // A clock is set, a certificate renewed, and of several servers only one may be late with it.
        Some(rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        )) => None,
        Some(rustls::Error::InvalidCertificate(_)) => Some(
            "check that the URL names the right host, and that the authority that signed its certificate is trusted here",
        ),
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            Some("the server does not speak TLS there; check the scheme and the port of the URL")
        }
        Some(rustls::Error::PeerIncompatible(_)) => {
            Some("the server knows no version or cipher of TLS that this client does; check what it offers")
        }
        _ if refusal(error) == Some(AlertDescription::CertificateRequired) => Some(
            "the server wants a client certificate, and this client has none of an authority that the server takes; give it one",
        ),
        _ => in_tunnel(error),
    }
}

/// Returns the alert by which the server ended the handshake because of the certificate of this side. With TLS 1.3 this side may
/// have written the request by then (RFC 8446 §4.4.2.4), and the server has not looked at it.
///
/// By its text, which is all that is left of it where h2 has it.
pub(super) fn refusal(error: &(dyn Error + 'static)) -> Option<AlertDescription> {
    let said = |error: &io::Error| {
        let text = error.to_string();
        REFUSALS.into_iter().find(|alert| text == rustls::Error::AlertReceived(*alert).to_string())
    };
    chain(error).find_map(|error| said(error.downcast_ref()?))
}

/// Makes the error of a client that panicked. tokio tells by a panic alone that a runtime has no I/O, and a resolver may panic as well.
pub(super) fn panicked() -> BoxError {
    let advice = "build the tokio runtime with enable_io() or enable_all(); see the message on stderr";
    Lasting { advice, source: "connecting panicked".into() }.into()
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

/// Returns the advice for a proxy that refuses and would do so again.
fn in_tunnel(error: &(dyn Error + 'static)) -> Option<&'static str> {
    chain(error).find_map(|error| {
        #[cfg(feature = "hyper-client")]
        if let Some(tunnel) = error.downcast_ref::<crate::transport::hyper::tunnel::TunnelError>() {
            return tunnel.advice();
        }
        // That of reqwest is hyper-util's, which is known by its words alone and does not tell the other refusals apart.
        (error.to_string() == "tunnel error: proxy authorization required")
            .then_some("the proxy on the way wants a user and a password, or others than these; check them")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_reqwest_says_of_a_tunnel_a_demand_for_credentials_alone_lasts() {
        let advice = |text: &str| advice(&*tower::BoxError::from(text)).is_some();
        assert!(advice("tunnel error: proxy authorization required"));
        assert!(!advice("tunnel error: unsuccessful") && !advice("tunnel error: unexpected end of file"));
    }
}
