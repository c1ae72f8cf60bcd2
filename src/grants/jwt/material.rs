//! A key as its owner has it, read into one that can sign: PEM, a JWK, or a secret that both sides know.

use std::collections::HashMap;

use aws_lc_rs::error::KeyRejected;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::error::Error;
use crate::grants::jwt::algorithm::{JwtAlgorithm, Primitive};
use crate::grants::jwt::der;
use crate::text;

/// A key that is ready to sign by one algorithm.
pub(super) struct Material {
    algorithm: JwtAlgorithm,
    key: Key,
    /// The `kid` of a JWK, or the `private_key_id` of a key file of Google's.
    pub(super) key_id: Option<String>,
    /// The service account of a key file of Google's.
    pub(super) account: Option<String>,
}

/// A key as aws-lc has it.
enum Key {
    /// Boxed: it is twenty times as large as the others.
    Shared(Box<hmac::Key>),
    Rsa(RsaKeyPair),
    /// For RSASSA-PSS alone (RFC 4055 §1.2).
    RsaPss(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Material {
    /// Reads a private key, or a secret that both sides know. Errors say what is wrong and show no part of it.
    pub(super) fn read(algorithm: JwtAlgorithm, text: &str) -> Result<Self, Error> {
        let start = text.trim_start_matches('\u{feff}').trim_start();
        let material = match algorithm.primitive() {
            Primitive::Hmac(hash) => read_secret(*hash, text).map(|key| Self::of(algorithm, key)),
            _ if start.starts_with('{') => Self::read_json(algorithm, start),
            _ => read_pem(start).map(|key| Self::of(algorithm, key)),
        };
        material.map_err(|what| unusable(&what))
    }

    /// Reads a JWK, or the file in which Google issues the key of a service account.
    fn read_json(algorithm: JwtAlgorithm, text: &str) -> Result<Self, String> {
        // The text of the error would show where in the key the flaw is, and that is all it may show.
        let object: KeyObject<'_> = serde_json::from_str(text).map_err(|error| {
            format!(
                "it is not a JWK, at its line {} column {}; give a JSON object",
                error.line(),
                error.column()
            )
        })?;
        let string = |name: &str| object.string(name).map(|text| text.to_string());
        if string("type").as_deref() == Some("service_account") {
            let key = read_pem(&object.string("private_key").unwrap_or_default())?;
            let (key_id, account) = (string("private_key_id"), string("client_email"));
            return Ok(Self { algorithm, key, key_id, account });
        }
        if let Some(named) = string("alg").filter(|named| named != algorithm.name()) {
            return Err(format!("the JWK is for the algorithm {named:?}, not {algorithm}; choose that one"));
        }
        Ok(Self { key_id: string("kid"), ..Self::of(algorithm, object.private_key()?) })
    }

    fn of(algorithm: JwtAlgorithm, key: Key) -> Self {
        Self { algorithm, key, key_id: None, account: None }
    }

    pub(super) fn sign(&self, input: &[u8]) -> Result<Vec<u8>, Error> {
        let random = SystemRandom::new();
        let signature = match (&self.key, self.algorithm.primitive()) {
            (Key::Shared(key), Primitive::Hmac(_)) => Ok(hmac::sign(key, input).as_ref().to_vec()),
            (Key::Rsa(pair), Primitive::Pkcs1(padding) | Primitive::Pss(padding))
            | (Key::RsaPss(pair), Primitive::Pss(padding)) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*padding, &random, input, &mut signature).map(|()| signature)
            }
            (Key::P256(pair), Primitive::P256) | (Key::P384(pair), Primitive::P384) => {
                pair.sign(&random, input).map(|signature| signature.as_ref().to_vec())
            }
            (Key::Ed25519(pair), Primitive::Ed25519) => {
                pair.try_sign(input).map(|signature| signature.as_ref().to_vec())
            }
            (key, _) => {
                return Err(unusable(&format!(
                    "it is {}, which does not sign by {}; choose the algorithm that fits the key",
                    key.kind(),
                    self.algorithm
                )));
            }
        };
        signature.map_err(|_| unusable(&format!("it does not sign by {}; it may be damaged", self.algorithm)))
    }
}

fn unusable(what: &str) -> Error {
    Error::config(format!("the signing key cannot be used: {what}"))
}

/// Reads a secret that both sides know (RFC 7518 §3.2).
fn read_secret(hash: hmac::Algorithm, secret: &str) -> Result<Key, String> {
    let secret = text::trimmed(secret).as_bytes();
    let is_object = secret.starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(secret).is_ok();
    if secret.starts_with(b"-----BEGIN ") || is_object {
        let what = if is_object { "a JSON object" } else { "PEM" };
        return Err(format!(
            "it is {what}, and the algorithm wants a secret; choose the one that fits the key"
        ));
    }
    let (length, least) = (secret.len(), hash.digest_algorithm().output_len());
    if length < least {
        return Err(format!(
            "the secret has {length} bytes, and the algorithm wants {least} at least; have the server make a longer one"
        ));
    }
    Ok(Key::Shared(Box::new(hmac::Key::new(hash, secret))))
}

// --- Key ---

impl Key {
    /// Reads a key in DER. Which kind it is shows by who can read it.
    fn read(der: &[u8]) -> Option<Self> {
        let rsa = || RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)).ok();
        let rsa_pss = || RsaKeyPair::from_der(der::inside_pss(der)?).ok();
        // PKCS#8, or RFC 5915 alone.
        let ecdsa = |curve| EcdsaKeyPair::from_private_key_der(curve, der).ok();
        let ed25519 = || Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok();
        rsa()
            .map(Self::Rsa)
            .or_else(|| rsa_pss().map(Self::RsaPss))
            .or_else(|| ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING).map(Self::P256))
            .or_else(|| ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING).map(Self::P384))
            .or_else(|| ed25519().map(Self::Ed25519))
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Shared(_) => "a shared secret",
            Self::Rsa(_) => "an RSA key",
            Self::RsaPss(_) => "an RSA key for PSS alone",
            Self::P256(_) => "a key on the curve P-256",
            Self::P384(_) => "a key on the curve P-384",
            Self::Ed25519(_) => "an Ed25519 key",
        }
    }
}

// --- PEM ---

/// Reads the first private key of a PEM text, which may hold its certificates as well.
fn read_pem(text: &str) -> Result<Key, String> {
    if let Some(flaw) = flaw_of_pem(text) {
        return Err(flaw);
    }
    let text = &*unindented(text);
    let labels: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----"))
        .collect();
    if labels.contains(&"ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(
            "it is encrypted with a passphrase; store it without one, readable for this process alone \
                    (openssl pkcs8 -topk8 -nocrypt)"
                .into(),
        );
    }
    let is_private = |label: &&str| matches!(*label, "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY");
    if !labels.iter().any(is_private) {
        return Err(match labels.first() {
            None => "it is neither PEM nor a JWK; PEM begins with -----BEGIN PRIVATE KEY-----".into(),
            Some(&"OPENSSH PRIVATE KEY") => {
                "it is a key of OpenSSH's own form; convert it (ssh-keygen -p -m PKCS8 -f FILE)".into()
            }
            Some(&"PUBLIC KEY" | &"RSA PUBLIC KEY") => "it is a public key; give the private one".into(),
            Some(&"CERTIFICATE") => "it is a certificate; give the private key of it".into(),
            Some(_) => "the PEM text holds no private key".into(),
        });
    }
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes());
    let key = key.map_err(|_| "its PEM text is damaged: a line is missing or is no base64")?;
    // It does not wipe itself.
    let key = Zeroizing::new(key);
    Key::read(key.secret_der()).ok_or_else(|| {
        "its PEM text holds no key of RSA (at least 2048 bits), on P-256 or P-384, or of Ed25519; is it complete?"
            .into()
    })
}

/// Takes off what a file of YAML or of code puts before the lines of a PEM text. In one piece of memory, so that it leaves nothing
/// behind.
pub(super) fn unindented(text: &str) -> Zeroizing<String> {
    let mut lines = Zeroizing::new(String::with_capacity(text.len() + 1));
    for line in text.lines() {
        lines.push_str(line.trim());
        lines.push('\n');
    }
    lines
}

/// Says what happened to a PEM text on its way, if something did: it stands in quotes, or a line of its frame is none any more.
pub(super) fn flaw_of_pem(text: &str) -> Option<String> {
    let text = text.trim();
    if !text.contains("-----BEGIN ") {
        return None;
    }
    let is_whole = |line: &str| {
        let label = line.trim().strip_prefix("-----BEGIN ").and_then(|line| line.strip_suffix("-----"));
        label.is_some_and(|label| !label.contains('-'))
    };
    if text.lines().any(is_whole) {
        return None;
    }
    let became = if text.contains("\\n") { "the two characters \\n" } else { "spaces" };
    Some(match text.starts_with(['"', '\'']) && text.contains('\n') {
        true => "it stands in quotes; give the text without them".into(),
        false => format!(
            "its line ends became {became}, as in a variable that was quoted on the way; give the text with its lines, or a file"
        ),
    })
}

// --- KeyObject ---

/// A JSON object that has a private key in its members (RFC 7517, RFC 7518 §6). They are read one by one, and what is read
/// wipes itself.
#[derive(Deserialize)]
struct KeyObject<'a>(#[serde(borrow)] HashMap<String, &'a RawValue>);

impl KeyObject<'_> {
    fn string(&self, name: &str) -> Option<Zeroizing<String>> {
        serde_json::from_str(self.0.get(name)?.get()).ok().map(Zeroizing::new)
    }

    fn number(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, String> {
        let Some(text) = self.string(name) else {
            return Err(match name {
                "d" => "the JWK has no member \"d\", so it is a public key; give the private one".into(),
                name => format!("the JWK has no member {name:?}, which a private key of its kind has"),
            });
        };
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
        bytes.map(Zeroizing::new).map_err(|_| format!("the member {name:?} of the JWK is no base64url"))
    }

    fn private_key(&self) -> Result<Key, String> {
        let [kty, crv] = ["kty", "crv"].map(|name| self.string(name).unwrap_or_default());
        match (kty.as_str(), crv.as_str()) {
            ("RSA", _) => self.rsa().map(Key::Rsa),
            ("EC", "P-256") => self.on_curve(&ECDSA_P256_SHA256_FIXED_SIGNING).map(Key::P256),
            ("EC", "P-384") => self.on_curve(&ECDSA_P384_SHA384_FIXED_SIGNING).map(Key::P384),
            ("OKP", "Ed25519") => {
                let pair = Ed25519KeyPair::from_seed_unchecked(&self.number("d")?);
                pair.map(Key::Ed25519).map_err(inconsistent)
            }
            ("", _) if self.0.contains_key("keys") => {
                Err("it is a set of JWKs; give the one that signs, by itself".into())
            }
            (kty, crv) => Err(format!(
                "the JWK is of the kind {kty:?} {crv:?}; take RSA, EC on P-256 or P-384, or OKP Ed25519"
            )),
        }
    }

    fn rsa(&self) -> Result<RsaKeyPair, String> {
        // The public ones may have no zeros in front.
        let (n, e) = (self.number("n")?, self.number("e")?);
        let components = KeyPairComponents {
            public_key: PublicKeyComponents { n: der::without_zeros(&n), e: der::without_zeros(&e) },
            d: self.number("d")?,
            p: self.number("p")?,
            q: self.number("q")?,
            dP: self.number("dp")?,
            dQ: self.number("dq")?,
            qInv: self.number("qi")?,
        };
        RsaKeyPair::from_components(&components).map_err(inconsistent)
    }

    fn on_curve(&self, curve: &'static EcdsaSigningAlgorithm) -> Result<EcdsaKeyPair, String> {
        let (d, x, y) = (self.number("d")?, self.number("x")?, self.number("y")?);
        // The form of a point that is not compressed (SEC 1 §2.3.3).
        let point = [&[4], &x[..], &y[..]].concat();
        EcdsaKeyPair::from_private_key_and_public_key(curve, &d, &point).map_err(inconsistent)
    }
}

fn inconsistent(rejected: KeyRejected) -> String {
    format!("the numbers of the JWK are no key that can sign ({rejected})")
}

#[cfg(test)]
mod tests;
