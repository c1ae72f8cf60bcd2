//! What an issuer says about itself, beside what a browser takes for the same places.

use serde_json::Value;
use url::Url;

use crate::input;
use crate::grants::discovery::metadata::{Metadata, check_issuer, well_known};
use crate::grants::endpoint::url as address;
use crate::grants::response::expected::EndpointKind;
use crate::origin::Origin;
use crate::text::Redactor;

/// Input: an issuer, then a document.
///
/// Where metadata are looked for is the issuer's own server. A document counts only in the name of this very issuer, and a
/// browser would send what is meant for its endpoint to the same server.
pub fn metadata(data: &[u8]) {
    let (text, document) = input::text_line(data);
    let Ok(server) = check_issuer(&text, Origin::is_loopback) else { return };
    for (well_known, _) in well_known(&text) {
        let (_, asked) = address::read(&well_known, Origin::is_loopback).expect("so is what is made of it");
        assert_eq!(asked, server);
        if let Ok(url) = Url::parse(&well_known) {
            assert_eq!(url.origin(), Url::parse(&text).expect("a part of it is one too").origin());
        }
    }
    let metadata = match Metadata::read(document, &text, &Redactor::default()) {
        Ok(metadata) => metadata,
        Err(error) => {
            let what = error.to_string();
            assert!(what.len() < 4096 && !what.contains(char::is_control));
            return;
        }
    };
    // What nobody asks for is passed over, whatever bytes it is made of.
    let Ok(document) = serde_json::from_slice::<Value>(document) else { return };
    assert_eq!(document["issuer"], *text);
    let mut places = vec![(EndpointKind::Token, false, &document["token_endpoint"])];
    let alias = &document["mtls_endpoint_aliases"]["token_endpoint"];
    if alias.is_string() {
        places.push((EndpointKind::Token, true, alias));
    }
    for (kind, mtls, place) in places {
        let url = metadata.url(kind, mtls).expect("there is one in the document");
        assert_eq!(place, url);
        let Ok((_, origin)) = address::read(url, |_| false) else { continue };
        assert!(origin.is_https() && !url.contains('#'));
        if let Ok(url) = Url::parse(url) {
            assert!(url.username().is_empty() && url.password().is_none());
            assert_eq!(url.origin(), Url::parse(&origin.to_string()).expect("an origin").origin());
        }
    }
}
