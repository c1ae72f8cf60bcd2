//! A key for the emulators that verify signatures, and the reading of what it signs.

use std::sync::OnceLock;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;

/// An RSA key of this process. Emulators share it, since making one takes a while.
pub(super) struct ServiceKey {
    /// PKCS#8.
    pub(super) private_pem: String,
    public: Vec<u8>,
}

/// A JWT whose signature holds.
pub(super) struct Verified {
    pub(super) header: Value,
    pub(super) claims: Value,
}

impl ServiceKey {
    pub(super) fn shared() -> &'static Self {
        static KEY: OnceLock<ServiceKey> = OnceLock::new();
        KEY.get_or_init(Self::make)
    }

    fn make() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("a library that makes RSA keys");
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().expect("a key that was just made");
        Self { private_pem: pem("PRIVATE KEY", pkcs8.as_ref()), public: pair.public_key().as_ref().to_vec() }
    }

    /// Reads a JWT of this algorithm, `RS256` or `PS256`, that the key signed.
    pub(super) fn verify(&self, jwt: &str, algorithm: &str) -> Option<Verified> {
        let (signed, signature) = jwt.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let read = |part: &str| -> Option<Value> {
            serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()
        };
        let verified = Verified { header: read(header)?, claims: read(claims)? };
        let parameters: &'static RsaParameters = match algorithm {
            "RS256" => &RSA_PKCS1_2048_8192_SHA256,
            "PS256" => &RSA_PSS_2048_8192_SHA256,
            _ => return None,
        };
        if verified.header["alg"] != algorithm {
            return None;
        }
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        UnparsedPublicKey::new(parameters, &self.public).verify(signed.as_bytes(), &signature).ok()?;
        Some(verified)
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for (at, letter) in text.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            out.push('\n');
        }
        out.push(letter);
    }
    out + &format!("\n-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::jwt::{Assertion, JwtAlgorithm, SelfSigned, SigningKey};
    use crate::source::{FetchReason, TokenRequest, TokenSource as _};

    #[tokio::test]
    async fn a_changed_jwt_another_key_and_another_algorithm_are_refused() {
        let key = ServiceKey::shared();
        let signer = SigningKey::new(JwtAlgorithm::Rs256, key.private_pem.clone());
        let source = SelfSigned::new(Assertion::by_key(signer).issuer("app")).unwrap();
        let token = source.token(TokenRequest::new(FetchReason::Initial)).await.unwrap();
        let jwt = token.expose();
        assert_eq!(key.verify(jwt, "RS256").unwrap().claims["iss"], "app");
        assert!(key.verify(jwt, "PS256").is_none() && ServiceKey::make().verify(jwt, "RS256").is_none());
        let (header, rest) = jwt.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        assert!(key.verify(&format!("{header}.e30.{signature}"), "RS256").is_none());
    }
}
