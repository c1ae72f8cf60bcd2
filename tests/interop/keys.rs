//! The keys of the clients that have one, made at the start: the private half for the client, the public one for the
//! server.

use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm};

pub(crate) static RS256: LazyLock<Key> = LazyLock::new(Key::rs256);
pub(crate) static ES256: LazyLock<Key> = LazyLock::new(Key::es256);
/// One that the server never heard of, by the name of one that it has.
pub(crate) static UNKNOWN: LazyLock<Key> = LazyLock::new(Key::es256);

pub(crate) struct Key {
    algorithm: JwtAlgorithm,
    pem: String,
    public: Value,
}

impl Key {
    fn rs256() -> Self {
        let pair = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).expect("an RSA key");
        let der: Pkcs8V1Der<'_> = pair.as_der().expect("a key that was just made");
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            BASE64_STANDARD.encode(der.as_ref())
        );
        let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        let [n, e] = [n, e].map(|number| BASE64_URL_SAFE_NO_PAD.encode(number));
        let public = json!({ "kty": "RSA", "alg": "RS256", "use": "sig", "kid": "rs256", "n": n, "e": e });
        Self { algorithm: JwtAlgorithm::Rs256, pem, public }
    }

    fn es256() -> Self {
        let pair = rcgen::KeyPair::generate().expect("an EC key");
        let (x, y) = pair.public_key_raw()[1..].split_at(32);
        let [x, y] = [x, y].map(|number| BASE64_URL_SAFE_NO_PAD.encode(number));
        let public = json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "es256", "x": x, "y": y
        });
        Self { algorithm: JwtAlgorithm::Es256, pem: pair.serialize_pem(), public }
    }

    /// What the client has.
    pub(crate) fn signing_key(&self) -> Assertion {
        let key_id = self.public["kid"].as_str().unwrap_or_default();
        Assertion::by_key(self.algorithm, self.pem.clone()).key_id(key_id)
    }
}

/// Returns what the server is told of the keys that there are.
pub(crate) fn published() -> Value {
    json!({ "keys": [RS256.public, ES256.public] })
}
