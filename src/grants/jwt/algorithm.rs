//! The algorithms that sign an assertion.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::hmac::{self, HMAC_SHA256, HMAC_SHA384, HMAC_SHA512};
use aws_lc_rs::signature::{
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    RsaEncoding,
};

use crate::error::Error;

/// An algorithm of RFC 7518 §3.1 or RFC 8037 §3.1.
///
/// There is no `none`: an unsigned assertion proves nothing (RFC 8725 §3.1). It is read from its registered
/// name, and shown by it.
///
/// # Examples
///
/// ```
/// use tower_oauth2::grants::jwt::JwtAlgorithm;
///
/// assert_eq!("ES256".parse::<JwtAlgorithm>()?, JwtAlgorithm::Es256);
/// assert!("none".parse::<JwtAlgorithm>().is_err());
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JwtAlgorithm {
    /// `HS256`: HMAC with SHA-256, by a secret that both sides know.
    Hs256,
    /// `HS384`: HMAC with SHA-384.
    Hs384,
    /// `HS512`: HMAC with SHA-512.
    Hs512,
    /// `RS256`: RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// `RS384`: RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// `RS512`: RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// `PS256`: RSASSA-PSS with SHA-256.
    Ps256,
    /// `PS384`: RSASSA-PSS with SHA-384.
    Ps384,
    /// `PS512`: RSASSA-PSS with SHA-512.
    Ps512,
    /// `ES256`: ECDSA on the curve P-256 with SHA-256.
    Es256,
    /// `ES384`: ECDSA on the curve P-384 with SHA-384.
    Es384,
    /// `EdDSA` on the curve Ed25519.
    EdDsa,
}

/// The type of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    Shared,
    Rsa,
    /// For RSASSA-PSS alone (RFC 4055 §1.2).
    RsaPss,
    P256,
    P384,
    Ed25519,
}

/// How aws-lc signs by an algorithm.
pub(super) enum Primitive {
    Hmac(hmac::Algorithm),
    Rsa(&'static dyn RsaEncoding),
    P256,
    P384,
    Ed25519,
}

impl JwtAlgorithm {
    const ALL: [Self; 12] = [
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// Returns the registered name, such as `ES256`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// Returns whether both sides hold the same secret.
    pub(crate) fn is_symmetric(self) -> bool {
        self.key_kind() == KeyKind::Shared
    }

    pub(super) fn primitive(self) -> Primitive {
        self.row().1
    }

    /// The registered name, and how it signs.
    fn row(self) -> (&'static str, Primitive) {
        match self {
            Self::Hs256 => ("HS256", Primitive::Hmac(HMAC_SHA256)),
            Self::Hs384 => ("HS384", Primitive::Hmac(HMAC_SHA384)),
            Self::Hs512 => ("HS512", Primitive::Hmac(HMAC_SHA512)),
            Self::Rs256 => ("RS256", Primitive::Rsa(&RSA_PKCS1_SHA256)),
            Self::Rs384 => ("RS384", Primitive::Rsa(&RSA_PKCS1_SHA384)),
            Self::Rs512 => ("RS512", Primitive::Rsa(&RSA_PKCS1_SHA512)),
            Self::Ps256 => ("PS256", Primitive::Rsa(&RSA_PSS_SHA256)),
            Self::Ps384 => ("PS384", Primitive::Rsa(&RSA_PSS_SHA384)),
            Self::Ps512 => ("PS512", Primitive::Rsa(&RSA_PSS_SHA512)),
            Self::Es256 => ("ES256", Primitive::P256),
            Self::Es384 => ("ES384", Primitive::P384),
            Self::EdDsa => ("EdDSA", Primitive::Ed25519),
        }
    }

    pub(super) fn key_kind(self) -> KeyKind {
        match self.primitive() {
            Primitive::Hmac(_) => KeyKind::Shared,
            Primitive::Rsa(_) => KeyKind::Rsa,
            Primitive::P256 => KeyKind::P256,
            Primitive::P384 => KeyKind::P384,
            Primitive::Ed25519 => KeyKind::Ed25519,
        }
    }

    /// Returns whether a key made for this signs by the algorithm.
    pub(super) fn takes(self, kind: KeyKind) -> bool {
        match kind {
            KeyKind::RsaPss => matches!(self, Self::Ps256 | Self::Ps384 | Self::Ps512),
            KeyKind::Shared | KeyKind::Rsa | KeyKind::P256 | KeyKind::P384 | KeyKind::Ed25519 => {
                kind == self.key_kind()
            }
        }
    }

    /// Returns the length of one of the two numbers of an ECDSA signature (RFC 7518 §3.4).
    pub(super) fn ecdsa_half(self) -> Option<usize> {
        match self.key_kind() {
            KeyKind::P256 => Some(32),
            KeyKind::P384 => Some(48),
            KeyKind::Shared | KeyKind::Rsa | KeyKind::RsaPss | KeyKind::Ed25519 => None,
        }
    }
}

impl fmt::Display for JwtAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// By the registered name, whose case counts.
impl FromStr for JwtAlgorithm {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|algorithm| algorithm.name() == name);
        known.ok_or_else(|| {
            Error::config(format!(
                "algorithm: {name:?} signs no assertion here; take RS256, PS256, ES256, EdDSA or one of their kin, and \
                 HS256 where the client secret signs"
            ))
        })
    }
}

// --- KeyKind ---

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared => "a shared secret",
            Self::Rsa => "an RSA key",
            Self::RsaPss => "an RSA key for PSS alone",
            Self::P256 => "a key on the curve P-256",
            Self::P384 => "a key on the curve P-384",
            Self::Ed25519 => "an Ed25519 key",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_is_read_from_the_name_that_it_shows() {
        for algorithm in JwtAlgorithm::ALL {
            assert_eq!(algorithm.to_string().parse::<JwtAlgorithm>().unwrap(), algorithm);
        }
    }

    #[test]
    fn what_signs_nothing_is_refused() {
        for name in ["none", "None", "", "es256", "ES256K", "A128KW"] {
            let error = name.parse::<JwtAlgorithm>().unwrap_err();
            assert!(error.is_config() && error.to_string().starts_with("algorithm: "), "{error}");
        }
    }
}
