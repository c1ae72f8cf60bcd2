//! A key for the emulators that verify signatures, and the reading of what it signs.

use std::sync::OnceLock;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters,
    UnparsedPublicKey,
};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;

/// An RSA key of this process, and a certificate of it. Emulators share it, since making one takes a while.
pub(super) struct ServiceKey {
    /// PKCS#8.
    pub(super) private_pem: String,
    pub(super) certificate_pem: String,
    /// `x5t#S256` of the certificate.
    pub(super) thumbprint: String,
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
        let certificate = certificate(&pair);
        Self {
            private_pem: pem("PRIVATE KEY", pkcs8.as_ref()),
            certificate_pem: pem("CERTIFICATE", &certificate),
            thumbprint: BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, &certificate)),
            public: pair.public_key().as_ref().to_vec(),
        }
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

/// Makes a certificate that a key signs for itself (RFC 5280 §4.1), of version 1 and for a few decades.
fn certificate(pair: &KeyPair) -> Vec<u8> {
    const SEQUENCE: u8 = 0x30;
    // sha256WithRSAEncryption with its NULL, and commonName.
    const SHA256_WITH_RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0b, 0x05, 0];
    const COMMON_NAME: &[u8] = &[0x06, 3, 0x55, 4, 3];
    let algorithm = der(SEQUENCE, &[SHA256_WITH_RSA]);
    let name = der(SEQUENCE, &[&der(0x31, &[&der(SEQUENCE, &[COMMON_NAME, &der(0x0c, &[b"test"])])])]);
    let validity = der(SEQUENCE, &[&der(0x17, &[b"250101000000Z"]), &der(0x17, &[b"490101000000Z"])]);
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("a key that was just made");
    let body = der(SEQUENCE, &[&der(0x02, &[&[1]]), &algorithm, &name, &validity, &name, public.as_ref()]);
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &body, &mut signature).expect("a key that signs");
    der(SEQUENCE, &[&body, &algorithm, &der(0x03, &[&[0], &signature])])
}

/// Writes one element of DER.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).expect("a short element").to_be_bytes();
    let head = match length {
        [0, short] if short < 0x80 => vec![tag, short],
        [0, short] => vec![tag, 0x81, short],
        [high, low] => vec![tag, 0x82, high, low],
    };
    [head, content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::jwt::{Assertion, JwtAlgorithm, SelfSigned};
    use crate::source::{FetchReason, TokenRequest, TokenSource as _};

    #[tokio::test]
    async fn a_changed_jwt_another_key_and_another_algorithm_are_refused() {
        let key = ServiceKey::shared();
        let signer = Assertion::by_key(JwtAlgorithm::Rs256, key.private_pem.clone());
        let source = SelfSigned::new(signer.issuer("app")).unwrap();
        let token = source.token(TokenRequest::new(FetchReason::Initial)).await.unwrap();
        let jwt = token.expose();
        assert_eq!(key.verify(jwt, "RS256").unwrap().claims["iss"], "app");
        assert!(key.verify(jwt, "PS256").is_none() && ServiceKey::make().verify(jwt, "RS256").is_none());
        let (header, rest) = jwt.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        assert!(key.verify(&format!("{header}.e30.{signature}"), "RS256").is_none());
    }
}
