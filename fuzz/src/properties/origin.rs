//! Where a token may go, beside what a browser takes for the same place.

use http::Uri;
use url::Url;

use crate::input;
use crate::origin::Origin;

/// Input: an origin, then the URI of a request.
///
/// An origin is read back from what it prints. A request matches it if its own origin is the same one, and
/// only if a browser would go to the same server, too.
pub fn origin(data: &[u8]) {
    let (text, rest) = input::text_line(data);
    let (target, _) = input::text_line(rest);
    let origin = Origin::parse_with_insecure_http(&text).ok();
    let plain = text.parse::<Origin>().ok();
    if let Some(origin) = &origin {
        let printed = origin.to_string();
        assert_eq!(Origin::parse_with_insecure_http(&printed).as_ref().ok(), Some(origin));
        assert_eq!(plain.is_some(), origin.is_https() || origin.is_loopback());
        assert!(["http", "https"].contains(&origin.scheme()) && origin.port() != 0);
        assert!(!origin.host().is_empty() && !printed.contains(['@', '?', '#', '\\', '*']));
        assert_eq!(printed.matches('/').count(), 2);
    } else {
        assert!(plain.is_none());
    }
    let Ok(uri) = target.parse::<Uri>() else { return };
    let of = Origin::of(&uri);
    let origins = [origin, of.clone()];
    for origin in origins.into_iter().flatten() {
        if !origin.matches(&uri) {
            // By policy a port with a zero in front gets no token, whatever it means.
            assert!(
                of.as_ref() != Some(&origin) || uri.port().is_some_and(|port| port.as_str().starts_with('0'))
            );
            continue;
        }
        assert_eq!(of.as_ref(), Some(&origin));
        let authority = uri.authority().expect("what matches has one");
        assert!(origin.is_host(authority.as_str().as_bytes()));
        // Some names are none to a browser; what it goes to must be the same.
        if let (Ok(uri), Ok(listed)) = (Url::parse(&target), Url::parse(&origin.to_string())) {
            assert_eq!(uri.origin(), listed.origin());
            assert!(uri.username().is_empty() && uri.password().is_none());
        }
    }
}
