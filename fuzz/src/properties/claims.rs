//! What an access token says of itself.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::claims::Claims;
use crate::input;
use crate::token::AccessToken;

/// Input: the time by the clock of this side, then the payload of a token, or a token as it is.
///
/// No token lives longer than it says, whatever the clock.
pub fn claims(data: &[u8]) {
    let (now, payload) = input::time(data);
    let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload));
    for token in [token, String::from_utf8_lossy(payload).into_owned()] {
        let Some(claims) = Claims::read(&token) else { continue };
        if let Some(left) = claims.lifetime(now) {
            let expires = claims.expires.expect("what has no end has no lifetime");
            assert!(!left.is_zero() && left <= expires);
            let issued = claims.issued.filter(|issued| *issued < expires);
            assert!(issued.is_none_or(|issued| left <= expires - issued));
            assert!(expires <= now || left <= expires - now);
        }
        if let Some(scopes) = claims.scopes {
            let token = AccessToken::bearer("t").expect("a letter is a token").with_scopes(scopes.clone());
            assert_eq!(token.scopes(), Some(&scopes[..]));
        }
    }
}
