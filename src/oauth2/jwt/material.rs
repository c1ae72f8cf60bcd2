//! A private key as its owner has it, PEM or JWK, read into one that can sign.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;

use crate::error::TokenError;
use crate::oauth2::jwt::algorithm::{JwtAlgorithm, KeyKind};
use crate::oauth2::jwt::der;

/// A key that is ready to sign by one algorithm.
pub(super) struct Material {
    algorithm: JwtAlgorithm,
    key: EncodingKey,
    /// The `kid` of a JWK, or the `private_key_id` of a key file of Google's.
    pub(super) key_id: Option<String>,
    /// The service account of a key file of Google's.
    pub(super) account: Option<String>,
}

impl Material {
    /// Makes a key of a secret that both sides know (RFC 7518 §3.2).
    pub(super) fn shared(algorithm: JwtAlgorithm, secret: &[u8]) -> Result<Self, TokenError> {
        let least = algorithm.shortest_secret();
        if secret.len() < least {
            return Err(TokenError::config(format!(
                "the client secret has {} bytes, and {algorithm} wants {least} at least (RFC 7518 §3.2); have the server \
                 make a longer one",
                secret.len()
            )));
        }
        Ok(Self { algorithm, key: EncodingKey::from_secret(secret), key_id: None, account: None })
    }

    /// Reads a private key. Errors say what is wrong and show no part of it.
    pub(super) fn read(algorithm: JwtAlgorithm, text: &str) -> Result<Self, TokenError> {
        let text = text.trim_start_matches('\u{feff}').trim_start();
        let material = if let Some(file) = KeyFile::read(text) {
            read_pem(&file.private_key.0)
                .and_then(|key| Self::of(algorithm, &key, file.private_key_id))
                .map(|material| Self { account: Some(file.client_email), ..material })
        } else if text.starts_with('{') {
            Self::read_jwk(algorithm, text)
        } else {
            read_pem(text).and_then(|key| Self::of(algorithm, &key, None))
        };
        material.map_err(|what| TokenError::config(format!("the signing key cannot be used: {what}")))
    }

    fn read_jwk(algorithm: JwtAlgorithm, text: &str) -> Result<Self, String> {
        // The text of the error would show where in the key the flaw is, and that is all it may show.
        let jwk: Jwk = serde_json::from_str(text).map_err(|error| {
            format!(
                "it is no JWK, by its line {} column {}; give a JSON object of strings",
                error.line(),
                error.column()
            )
        })?;
        if let Some(named) = jwk.alg.as_deref().filter(|named| *named != algorithm.name()) {
            return Err(format!("the JWK is for the algorithm {named:?}, not {algorithm}; choose that one"));
        }
        let key = jwk.private_key()?;
        Self::of(algorithm, &key, jwk.kid.clone())
    }

    fn of(algorithm: JwtAlgorithm, private: &PrivateKey, key_id: Option<String>) -> Result<Self, String> {
        if !algorithm.takes(private.kind) {
            return Err(format!(
                "it is {}, and {algorithm} wants {}; choose the algorithm that fits the key",
                private.kind,
                algorithm.key_kind()
            ));
        }
        let key = match private.kind {
            KeyKind::Shared => return Err("it is none that an algorithm here signs with".into()),
            KeyKind::Rsa | KeyKind::RsaPss => EncodingKey::from_rsa_der(&private.der),
            KeyKind::P256 | KeyKind::P384 => EncodingKey::from_ec_der(&private.der),
            KeyKind::Ed25519 => EncodingKey::from_ed_der(&private.der),
        };
        Ok(Self { algorithm, key, key_id, account: None })
    }

    /// Signs, by the provider that is named here: that of the process may be another one, or none.
    pub(super) fn sign(&self, input: &[u8]) -> Result<Vec<u8>, TokenError> {
        let broken = || {
            let least = if self.algorithm.key_kind() == KeyKind::Rsa {
                " (an RSA key has at least 2048 bits)"
            } else {
                ""
            };
            TokenError::config(format!(
                "the signing key cannot be used: it does not sign by {}; it is damaged, or too short{least}",
                self.algorithm
            ))
        };
        let signer =
            (DEFAULT_PROVIDER.signer_factory)(&self.algorithm.provided(), &self.key).map_err(|_| broken())?;
        signer.try_sign(input).map_err(|_| broken())
    }
}

// --- PrivateKey ---

/// A private key in the form that the provider takes: PKCS#1 for RSA, PKCS#8 for the others.
struct PrivateKey {
    kind: KeyKind,
    der: Zeroizing<Vec<u8>>,
}

impl PrivateKey {
    fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, String> {
        let mut parts =
            der::Reader::new(pkcs8).sequence().ok_or("it is no PKCS#8 inside; is it complete?")?;
        let mut read = || {
            parts.next(der::INTEGER)?;
            let mut algorithm = parts.sequence()?;
            let family = algorithm.next(der::OID)?;
            Some((family, algorithm, parts.next(der::OCTET_STRING)?))
        };
        let (family, mut parameters, inside) = read().ok_or("it is no PKCS#8 inside; is it complete?")?;
        let kind = match family {
            // What the provider takes is in the wrapping.
            der::RSA => return Ok(Self { kind: KeyKind::Rsa, der: Zeroizing::new(inside.to_vec()) }),
            der::RSA_PSS => return Ok(Self { kind: KeyKind::RsaPss, der: Zeroizing::new(inside.to_vec()) }),
            der::EC => match parameters.next(der::OID) {
                Some(der::P256) => KeyKind::P256,
                Some(der::P384) => KeyKind::P384,
                _ => return Err("it is on a curve that no algorithm here uses; take P-256 or P-384".into()),
            },
            der::ED25519 => KeyKind::Ed25519,
            _ => {
                return Err(
                    "it is of a kind that no algorithm here uses; take RSA, P-256, P-384 or Ed25519".into()
                );
            }
        };
        Ok(Self { kind, der: Zeroizing::new(pkcs8.to_vec()) })
    }

    /// Wraps a key as RFC 5915 has it, which says by itself on which curve it is.
    fn from_sec1(sec1: &[u8]) -> Result<Self, String> {
        let mut parts = der::Reader::new(sec1).sequence().ok_or("it is no EC key inside; is it complete?")?;
        let length = parts
            .next(der::INTEGER)
            .and_then(|_| parts.next(der::OCTET_STRING))
            .ok_or("it is no EC key inside; is it complete?")?
            .len();
        match length {
            32 => Ok(Self::on_curve(KeyKind::P256, der::P256, sec1)),
            48 => Ok(Self::on_curve(KeyKind::P384, der::P384, sec1)),
            _ => Err("it is on a curve that no algorithm here uses; take P-256 or P-384".into()),
        }
    }

    fn on_curve(kind: KeyKind, curve: &[u8], sec1: &[u8]) -> Self {
        let algorithm = der::element(
            der::SEQUENCE,
            &[&der::element(der::OID, &[der::EC]), &der::element(der::OID, &[curve])],
        );
        Self { kind, der: wrapped(&algorithm, sec1) }
    }
}

/// PKCS#8 (RFC 5958), version 1.
fn wrapped(algorithm: &[u8], inside: &[u8]) -> Zeroizing<Vec<u8>> {
    der::element(
        der::SEQUENCE,
        &[&der::unsigned(&[]), algorithm, &der::element(der::OCTET_STRING, &[inside])],
    )
}

// --- KeyFile ---

/// The file in which Google hands out the key of a service account.
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
fn read_pem(text: &str) -> Result<PrivateKey, String> {
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
            Ok(PrivateKey { kind: KeyKind::Rsa, der: Zeroizing::new(key.secret_pkcs1_der().to_vec()) })
        }
        PrivateKeyDer::Sec1(key) => PrivateKey::from_sec1(key.secret_sec1_der()),
        PrivateKeyDer::Pkcs8(key) => PrivateKey::from_pkcs8(key.secret_pkcs8_der()),
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
    fn private_key(&self) -> Result<PrivateKey, String> {
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => self.rsa(),
            ("EC", Some("P-256")) => self.on_curve(KeyKind::P256, der::P256, 32),
            ("EC", Some("P-384")) => self.on_curve(KeyKind::P384, der::P384, 48),
            ("OKP", Some("Ed25519")) => self.ed25519(),
            (kty, crv) => Err(format!(
                "the JWK is of the kind {kty:?} {:?}; take RSA, EC on P-256 or P-384, or OKP Ed25519",
                crv.unwrap_or_default()
            )),
        }
    }

    fn rsa(&self) -> Result<PrivateKey, String> {
        let mut members = vec![der::unsigned(&[])];
        for (name, number) in [
            ("n", &self.n),
            ("e", &self.e),
            ("d", &self.d),
            ("p", &self.p),
            ("q", &self.q),
            ("dp", &self.dp),
            ("dq", &self.dq),
            ("qi", &self.qi),
        ] {
            members.push(der::unsigned(&member(name, number)?));
        }
        let members: Vec<&[u8]> = members.iter().map(|number| &***number).collect();
        Ok(PrivateKey { kind: KeyKind::Rsa, der: der::element(der::SEQUENCE, &members) })
    }

    fn on_curve(&self, kind: KeyKind, curve: &[u8], length: usize) -> Result<PrivateKey, String> {
        let (d, x, y) = (member("d", &self.d)?, member("x", &self.x)?, member("y", &self.y)?);
        if [&d, &x, &y].iter().any(|number| number.len() != length) {
            return Err(format!(
                "a number of the JWK has another length than the {length} bytes of its curve"
            ));
        }
        let point = der::element(der::BIT_STRING, &[&[0, 4], &x, &y]);
        let sec1 = der::element(
            der::SEQUENCE,
            &[&der::unsigned(&[1]), &der::element(der::OCTET_STRING, &[&d]), &der::element(0xa1, &[&point])],
        );
        Ok(PrivateKey::on_curve(kind, curve, &sec1))
    }

    fn ed25519(&self) -> Result<PrivateKey, String> {
        let seed = member("d", &self.d)?;
        let algorithm = der::element(der::SEQUENCE, &[&der::element(der::OID, &[der::ED25519])]);
        let der = wrapped(&algorithm, &der::element(der::OCTET_STRING, &[&seed]));
        Ok(PrivateKey { kind: KeyKind::Ed25519, der })
    }
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
