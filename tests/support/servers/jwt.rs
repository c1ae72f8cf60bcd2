//! Keys and the JWTs that they sign: what a platform or a client has, and what an authorization server verifies.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde_json::{Value, json};

/// A private key for ES256.
#[derive(Debug)]
pub struct PrivateKey {
    pair: rcgen::KeyPair,
}

/// The public half of a [`PrivateKey`].
#[derive(Clone, Debug)]
pub struct PublicKey {
    point: Vec<u8>,
}

impl PrivateKey {
    /// Makes a new key.
    pub fn generate() -> Self {
        Self { pair: rcgen::KeyPair::generate().expect("a key on P-256 can always be made") }
    }

    /// Returns the key as a file has it.
    pub fn pem(&self) -> String {
        self.pair.serialize_pem()
    }

    pub fn public(&self) -> PublicKey {
        PublicKey { point: self.pair.public_key_raw().to_vec() }
    }

    /// Signs claims.
    pub fn sign(&self, claims: &Value) -> String {
        let encode = |part: &Value| BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
        let input = format!("{}.{}", encode(&json!({ "alg": "ES256", "typ": "JWT" })), encode(claims));
        let key = EncodingKey::from_ec_der(&self.pair.serialize_der());
        let signer =
            (DEFAULT_PROVIDER.signer_factory)(&Algorithm::ES256, &key).expect("a key that was made for it");
        let signature = signer.try_sign(input.as_bytes()).expect("a key that was made for it");
        format!("{input}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

impl PublicKey {
    /// Returns what tells a fake server whether this key's private half signed a JWT.
    pub fn verifier(self) -> impl Fn(&str) -> bool + Send + Sync + 'static {
        move |jwt| self.verifies(jwt).unwrap_or_default()
    }

    fn verifies(&self, jwt: &str) -> Option<bool> {
        let (input, signature) = jwt.rsplit_once('.')?;
        let (header, _claims) = input.split_once('.')?;
        let header: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        // The algorithm is the key's, never the one that the JWT would like (RFC 8725 §3.1).
        if header["alg"] != "ES256" {
            return None;
        }
        let key = DecodingKey::from_ec_der(&self.point);
        let verifier = (DEFAULT_PROVIDER.verifier_factory)(&Algorithm::ES256, &key).ok()?;
        Some(verifier.verify(input.as_bytes(), &BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?).is_ok())
    }
}
