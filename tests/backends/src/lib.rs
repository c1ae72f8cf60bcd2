//! A dependent that has switched on both back ends of `jsonwebtoken`, so that its process-wide choice is none: assertions
//! are signed all the same. A package of its own, since features unite in a build, and one of the back ends is banned
//! from ours.

#![cfg(test)]

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use jsonwebtoken::crypto::rust_crypto;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use tower::{BoxError, service_fn};
use tower_oauth2::grants::jwt::{JwtAlgorithm, SigningKey};
use tower_oauth2::{
    ClientAuth, ClientCredentials, Secret, FetchReason, TokenRequest, TokenSource as _,
};

/// Lets a client with a new key ask once, and returns whether its assertion holds.
async fn signs() -> bool {
    let pair = rcgen::KeyPair::generate().unwrap();
    let public = DecodingKey::from_ec_der(pair.public_key_raw());
    let (sent, mut received) = tokio::sync::mpsc::unbounded_channel();
    let endpoint = service_fn(move |request: Request<tower_oauth2::Body>| {
        let sent = sent.clone();
        async move {
            sent.send(request.into_body().collect().await?.to_bytes())?;
            Ok::<_, BoxError>(Response::new(Full::new(Bytes::from_static(br#"{"access_token":"a"}"#))))
        }
    });
    let key = SigningKey::new(JwtAlgorithm::Es256, pair.serialize_pem());
    let source = ClientCredentials::builder("https://as.example.com/token", "id", Secret::none())
        .issuer("https://as.example.com")
        .auth(ClientAuth::private_key_jwt(key))
        .build_with(endpoint)
        .unwrap();
    source.token(TokenRequest::new(FetchReason::Initial)).await.unwrap();

    let body = received.recv().await.unwrap();
    let assertion = std::str::from_utf8(&body).unwrap().split("client_assertion=").nth(1).unwrap();
    let (input, signature) = assertion.rsplit_once('.').unwrap();
    // Whose verifier it is does not matter; that the other back end agrees says more.
    let verifier = (rust_crypto::DEFAULT_PROVIDER.verifier_factory)(&Algorithm::ES256, &public).unwrap();
    verifier.verify(input.as_bytes(), &BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap()).is_ok()
}

/// One test, since what is looked at belongs to the process.
#[tokio::test]
async fn assertions_are_signed_whatever_the_process_has_chosen() {
    assert!(signs().await, "nobody has chosen");

    // The control: whoever leaves the choice to the process panics.
    let by_default = std::panic::catch_unwind(|| {
        jsonwebtoken::encode(&Header::default(), &"claims", &EncodingKey::from_secret(b"secret"))
    });
    assert!(by_default.is_err(), "both back ends must be on for this test to mean anything");
    assert!(signs().await, "the process has no choice left");
}
