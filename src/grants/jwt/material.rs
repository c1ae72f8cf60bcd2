//! A private key as its owner has it, PEM or JWK, read into one that can sign.

use std::iter;

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

use crate::error::Error;
use crate::grants::jwt::algorithm::{JwtAlgorithm, KeyKind, Primitive};
use crate::grants::jwt::der;

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
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Material {
    /// Makes a key of a secret that both sides know (RFC 7518 §3.2).
    pub(super) fn shared(algorithm: JwtAlgorithm, secret: &[u8]) -> Result<Self, Error> {
        let Primitive::Hmac(hash) = algorithm.primitive() else {
            return Err(Error::config(format!("algorithm: {algorithm} signs by no shared secret")));
        };
        let least = hash.digest_algorithm().output_len();
        if secret.len() < least {
            return Err(Error::config(format!(
                "the client secret has {} bytes, and {algorithm} wants {least} at least (RFC 7518 §3.2); have the server \
                 make a longer one",
                secret.len()
            )));
        }
        Ok(Self::of(algorithm, Key::Shared(Box::new(hmac::Key::new(hash, secret)))))
    }

    /// Reads a private key. Errors say what is wrong and show no part of it.
    pub(super) fn read(algorithm: JwtAlgorithm, text: &str) -> Result<Self, Error> {
        let text = text.trim_start_matches('\u{feff}').trim_start();
        let material = if let Some(file) = KeyFile::read(text) {
            read_pem(algorithm, &file.private_key.0).map(|key| Self {
                key_id: file.private_key_id,
                account: Some(file.client_email),
                ..Self::of(algorithm, key)
            })
        } else if text.starts_with('{') {
            Self::read_jwk(algorithm, text)
        } else {
            read_pem(algorithm, text).map(|key| Self::of(algorithm, key))
        };
        material.map_err(|what| Error::config(format!("the signing key cannot be used: {what}")))
    }

    fn read_jwk(algorithm: JwtAlgorithm, text: &str) -> Result<Self, String> {
        // The text of the error would show where in the key the flaw is, and that is all it may show.
        let jwk: Jwk = serde_json::from_str(text).map_err(|error| {
            format!(
                "it is not a JWK, at its line {} column {}; give a JSON object of strings",
                error.line(),
                error.column()
            )
        })?;
        if let Some(named) = jwk.alg.as_deref().filter(|named| *named != algorithm.name()) {
            return Err(format!("the JWK is for the algorithm {named:?}, not {algorithm}; choose that one"));
        }
        let key = jwk.private_key(algorithm)?;
        Ok(Self { key_id: jwk.kid, ..Self::of(algorithm, key) })
    }

    fn of(algorithm: JwtAlgorithm, key: Key) -> Self {
        Self { algorithm, key, key_id: None, account: None }
    }

    pub(super) fn sign(&self, input: &[u8]) -> Result<Vec<u8>, Error> {
        let random = SystemRandom::new();
        let signature = match (&self.key, self.algorithm.primitive()) {
            (Key::Shared(key), _) => Ok(hmac::sign(key, input).as_ref().to_vec()),
            (Key::Rsa(pair), Primitive::Rsa(padding)) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, input, &mut signature).map(|()| signature)
            }
            (Key::Ecdsa(pair), _) => pair.sign(&random, input).map(|signature| signature.as_ref().to_vec()),
            (Key::Ed25519(pair), _) => pair.try_sign(input).map(|signature| signature.as_ref().to_vec()),
            (Key::Rsa(_), _) => Err(aws_lc_rs::error::Unspecified),
        };
        signature.map_err(|_| {
            Error::config(format!(
                "the signing key cannot be used: it does not sign by {}; it may be damaged",
                self.algorithm
            ))
        })
    }
}

// --- Key ---

impl Key {
    /// Reads a key in DER. Which kind it is shows by who can read it.
    fn read(algorithm: JwtAlgorithm, der: &[u8], form: &str) -> Result<Self, String> {
        let kinds = [KeyKind::Rsa, KeyKind::RsaPss, KeyKind::P256, KeyKind::P384, KeyKind::Ed25519];
        let wanted_first = iter::once(algorithm.key_kind()).chain(kinds);
        let (kind, key) = wanted_first
            .into_iter()
            .find_map(|kind| Some((kind, Self::of_kind(kind, der)?)))
            .ok_or_else(|| format!("it is {form} inside; is it complete?"))?;
        fits(algorithm, kind)?;
        Ok(key)
    }

    fn of_kind(kind: KeyKind, der: &[u8]) -> Option<Self> {
        match kind {
            KeyKind::Shared => None,
            KeyKind::Rsa => {
                RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)).ok().map(Self::Rsa)
            }
            KeyKind::RsaPss => RsaKeyPair::from_der(inside_pss(der)?).ok().map(Self::Rsa),
            KeyKind::P256 => Self::ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, der),
            KeyKind::P384 => Self::ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, der),
            KeyKind::Ed25519 => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(Self::Ed25519),
        }
    }

    /// Reads PKCS#8, or RFC 5915 alone.
    fn ecdsa(curve: &'static EcdsaSigningAlgorithm, der: &[u8]) -> Option<Self> {
        EcdsaKeyPair::from_private_key_der(curve, der).ok().map(Self::Ecdsa)
    }
}

/// Checks that an algorithm signs with keys of this kind.
fn fits(algorithm: JwtAlgorithm, kind: KeyKind) -> Result<(), String> {
    match algorithm.takes(kind) {
        true => Ok(()),
        false => Err(format!(
            "it is {kind}, and {algorithm} wants {}; choose the algorithm that fits the key",
            algorithm.key_kind()
        )),
    }
}

/// Returns the key inside PKCS#8 for RSASSA-PSS alone (RFC 4055 §1.2), which aws-lc-rs does not take in its wrapping.
fn inside_pss(pkcs8: &[u8]) -> Option<&[u8]> {
    let mut parts = der::Reader::new(pkcs8).sequence()?;
    parts.next(der::INTEGER)?;
    parts.sequence()?.next(der::OID).filter(|oid| *oid == der::RSA_PSS)?;
    parts.next(der::OCTET_STRING)
}

// --- KeyFile ---

/// The file in which Google issues the key of a service account.
#[derive(Deserialize)]
struct KeyFile {
    #[serde(rename = "type")]
    kind: String,
    private_key: Wiped,
    private_key_id: Option<String>,
    client_email: String,
}

impl KeyFile {
    fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|file: &Self| file.kind == "service_account")
    }
}

// --- PEM ---

/// Reads the first private key of a PEM text, which may hold its certificates as well.
fn read_pem(algorithm: JwtAlgorithm, text: &str) -> Result<Key, String> {
    if text.contains("-----BEGIN ") && !text.trim().contains(['\n', '\r']) {
        let became = if text.contains("\\n") { "the two characters \\n" } else { "spaces" };
        return Err(format!(
            "its line ends became {became}, as in a variable that was quoted on the way; give the text with its lines, or a file"
        ));
    }
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
    match &*key {
        PrivateKeyDer::Pkcs1(key) => {
            Key::read(algorithm, key.secret_pkcs1_der(), "no RSA key of at least 2048 bits")
        }
        PrivateKeyDer::Sec1(key) => {
            Key::read(algorithm, key.secret_sec1_der(), "no EC key on P-256 or P-384")
        }
        PrivateKeyDer::Pkcs8(key) => Key::read(
            algorithm,
            key.secret_pkcs8_der(),
            "no PKCS#8 with a key of RSA (at least 2048 bits), on P-256 or P-384, or of Ed25519",
        ),
        _ => Err("the PEM text holds no private key".into()),
    }
}

// --- Jwk ---

/// The members of RFC 7517 and RFC 7518 §6 that a private key has.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
    n: Option<Wiped>,
    e: Option<Wiped>,
    d: Option<Wiped>,
    p: Option<Wiped>,
    q: Option<Wiped>,
    dp: Option<Wiped>,
    dq: Option<Wiped>,
    qi: Option<Wiped>,
    x: Option<Wiped>,
    y: Option<Wiped>,
}

/// A text that wipes itself.
#[derive(Deserialize)]
#[serde(from = "String")]
struct Wiped(Zeroizing<String>);

impl From<String> for Wiped {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl Jwk {
    fn private_key(&self, algorithm: JwtAlgorithm) -> Result<Key, String> {
        let (kind, key) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => (KeyKind::Rsa, self.rsa()?),
            ("EC", Some("P-256")) => (KeyKind::P256, self.on_curve(&ECDSA_P256_SHA256_FIXED_SIGNING, 32)?),
            ("EC", Some("P-384")) => (KeyKind::P384, self.on_curve(&ECDSA_P384_SHA384_FIXED_SIGNING, 48)?),
            ("OKP", Some("Ed25519")) => (KeyKind::Ed25519, self.ed25519()?),
            (kty, crv) => {
                return Err(format!(
                    "the JWK is of the kind {kty:?} {:?}; take RSA, EC on P-256 or P-384, or OKP Ed25519",
                    crv.unwrap_or_default()
                ));
            }
        };
        fits(algorithm, kind)?;
        Ok(key)
    }

    fn rsa(&self) -> Result<Key, String> {
        // The public ones may have no zeros in front.
        let (n, e) = (member("n", &self.n)?, member("e", &self.e)?);
        let public_key = PublicKeyComponents { n: der::without_zeros(&n), e: der::without_zeros(&e) };
        let (d, p, q) = (member("d", &self.d)?, member("p", &self.p)?, member("q", &self.q)?);
        let (dp, dq, qi) = (member("dp", &self.dp)?, member("dq", &self.dq)?, member("qi", &self.qi)?);
        let components = KeyPairComponents {
            public_key,
            d: &d[..],
            p: &p[..],
            q: &q[..],
            dP: &dp[..],
            dQ: &dq[..],
            qInv: &qi[..],
        };
        RsaKeyPair::from_components(&components).map(Key::Rsa).map_err(inconsistent)
    }

    fn on_curve(&self, curve: &'static EcdsaSigningAlgorithm, length: usize) -> Result<Key, String> {
        let (d, x, y) = (member("d", &self.d)?, member("x", &self.x)?, member("y", &self.y)?);
        if [&d, &x, &y].iter().any(|number| number.len() != length) {
            return Err(format!(
                "a number of the JWK has another length than the {length} bytes of its curve"
            ));
        }
        // The form of a point that is not compressed (SEC 1 §2.3.3).
        let point = [&[4], &x[..], &y[..]].concat();
        let pair = EcdsaKeyPair::from_private_key_and_public_key(curve, &d, &point);
        pair.map(Key::Ecdsa).map_err(inconsistent)
    }

    fn ed25519(&self) -> Result<Key, String> {
        let seed = member("d", &self.d)?;
        Ed25519KeyPair::from_seed_unchecked(&seed).map(Key::Ed25519).map_err(inconsistent)
    }
}

fn inconsistent(rejected: KeyRejected) -> String {
    format!("the numbers of the JWK are no key that can sign ({rejected})")
}

fn member(name: &str, number: &Option<Wiped>) -> Result<Zeroizing<Vec<u8>>, String> {
    let Some(Wiped(text)) = number else {
        return Err(match name {
            "d" => "the JWK has no member \"d\", so it is a public key; give the private one".into(),
            name => format!("the JWK has no member {name:?}, which a private key of its kind has"),
        });
    };
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
    bytes.map(Zeroizing::new).map_err(|_| format!("the member {name:?} of the JWK is no base64url"))
}

#[cfg(test)]
mod tests;
