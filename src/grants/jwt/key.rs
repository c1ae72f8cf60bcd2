//! A private key: where it is read, and what its signatures say of it.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};

use crate::error::Error;
use crate::grants::client::secret::Secret;
use crate::grants::jwt::algorithm::JwtAlgorithm;
use crate::grants::jwt::material::Material;

/// A private key that signs assertions: PEM or a JWK, read each time it is used.
///
/// PEM may be PKCS#8 (`PRIVATE KEY`), PKCS#1 (`RSA PRIVATE KEY`) or SEC 1 (`EC PRIVATE KEY`), without a passphrase, and
/// may have certificates beside the key. A JWK is one JSON object with the private members, of RSA all of RFC 7518
/// §6.3.2 but `oth`. The JSON file in which Google issues the key of a service account is understood as it is: with its key
/// id, and its account as the issuer of assertions that name no other.
///
/// A key that is given as a value is checked when the source is built, any other at its first use.
///
/// # Examples
///
/// ```
/// use tower_oauth2::Secret;
/// use tower_oauth2::grants::jwt::{JwtAlgorithm, SigningKey};
///
/// let mounted = SigningKey::new(JwtAlgorithm::Rs256, Secret::from_file("/run/secrets/key.pem")).key_id("2026-11");
/// let given = SigningKey::new(JwtAlgorithm::EdDsa, r#"{"kty":"OKP","crv":"Ed25519","d":"S3CR3T","x":"..."}"#);
/// assert!(!format!("{given:?}").contains("S3CR3T"));
/// ```
#[derive(Clone)]
pub struct SigningKey {
    algorithm: JwtAlgorithm,
    key: Secret,
    key_id: Option<String>,
    certificate: Option<Secret>,
}

impl SigningKey {
    /// Creates the key from the algorithm that it is for, and from where it is.
    #[must_use]
    pub fn new(algorithm: JwtAlgorithm, key: impl Into<Secret>) -> Self {
        Self { algorithm, key: key.into(), key_id: None, certificate: None }
    }

    /// Sets the name by which the server knows the key (`kid`). Default: that of the JWK, else none.
    #[must_use]
    pub fn key_id(mut self, key_id: impl Into<String>) -> Self {
        self.key_id = Some(key_id.into());
        self
    }

    /// Names the key by its certificate: the SHA-256 thumbprint of the first one in this PEM text goes into the header
    /// as `x5t#S256` (RFC 7515 §4.1.8). It is read as the key is, and may be the same file.
    #[must_use]
    pub fn certificate(mut self, pem: impl Into<Secret>) -> Self {
        self.certificate = Some(pem.into());
        self
    }

    pub(super) fn algorithm(&self) -> JwtAlgorithm {
        self.algorithm
    }

    /// Returns where the key is.
    pub(super) fn secret(&self) -> &Secret {
        &self.key
    }

    /// Returns the name that was set. That of a JWK is known when it is read.
    pub(super) fn name(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// Returns whether the key may come in a file that names its account.
    pub(super) fn may_name_account(&self) -> bool {
        match self.key.value() {
            Some(text) => self.material(text).is_ok_and(|material| material.account.is_some()),
            None => true,
        }
    }

    /// Makes a key of the text that was read.
    pub(super) fn material(&self, text: &SecretString) -> Result<Material, Error> {
        Material::read(self.algorithm, text.expose_secret())
    }

    /// Reads the certificate and returns its thumbprint.
    pub(super) async fn thumbprint(&self) -> Result<Option<String>, Error> {
        let Some(certificate) = &self.certificate else { return Ok(None) };
        let pem = certificate.read_as("certificate").await?;
        thumbprint(pem.expose_secret()).map(Some)
    }

    /// Checks what can be checked without a file, a variable or a closure.
    pub(super) fn check(&self) -> Result<(), Error> {
        if let Some(text) = self.key.value() {
            // A signature is the one proof that the key is whole.
            self.material(text)?.sign(b"")?;
        }
        match self.certificate.as_ref().and_then(Secret::value) {
            Some(pem) => thumbprint(pem.expose_secret()).map(drop),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm)
            .field("key", &self.key)
            .field("key_id", &self.key_id)
            .field("certificate", &self.certificate)
            .finish()
    }
}

fn thumbprint(pem: &str) -> Result<String, Error> {
    let unusable = || {
        Error::config(
            "the certificate of the signing key cannot be used: it is not PEM text with a certificate",
        )
    };
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| unusable())?;
    Ok(URL_SAFE_NO_PAD.encode(digest(&SHA256, &certificate)))
}
