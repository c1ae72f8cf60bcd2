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

/// How aws-lc signs by an algorithm.
pub(super) enum Primitive {
    Hmac(hmac::Algorithm),
    Pkcs1(&'static dyn RsaEncoding),
    Pss(&'static dyn RsaEncoding),
    P256,
    P384,
    Ed25519,
}

/// The algorithms in the order of their names above, each with its registered name and how it signs.
static ROWS: [(JwtAlgorithm, &str, Primitive); 12] = [
    (JwtAlgorithm::Hs256, "HS256", Primitive::Hmac(HMAC_SHA256)),
    (JwtAlgorithm::Hs384, "HS384", Primitive::Hmac(HMAC_SHA384)),
    (JwtAlgorithm::Hs512, "HS512", Primitive::Hmac(HMAC_SHA512)),
    (JwtAlgorithm::Rs256, "RS256", Primitive::Pkcs1(&RSA_PKCS1_SHA256)),
    (JwtAlgorithm::Rs384, "RS384", Primitive::Pkcs1(&RSA_PKCS1_SHA384)),
    (JwtAlgorithm::Rs512, "RS512", Primitive::Pkcs1(&RSA_PKCS1_SHA512)),
    (JwtAlgorithm::Ps256, "PS256", Primitive::Pss(&RSA_PSS_SHA256)),
    (JwtAlgorithm::Ps384, "PS384", Primitive::Pss(&RSA_PSS_SHA384)),
    (JwtAlgorithm::Ps512, "PS512", Primitive::Pss(&RSA_PSS_SHA512)),
    (JwtAlgorithm::Es256, "ES256", Primitive::P256),
    (JwtAlgorithm::Es384, "ES384", Primitive::P384),
    (JwtAlgorithm::EdDsa, "EdDSA", Primitive::Ed25519),
];

impl JwtAlgorithm {
    /// Returns the registered name, such as `ES256`.
    #[must_use]
    pub fn name(self) -> &'static str {
        ROWS[self as usize].1
    }

    /// Returns whether both sides hold the same secret.
    pub(crate) fn is_symmetric(self) -> bool {
        matches!(self.primitive(), Primitive::Hmac(_))
    }

    pub(super) fn primitive(self) -> &'static Primitive {
        &ROWS[self as usize].2
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
        let known = ROWS.iter().find(|row| row.1 == name);
        known.map(|row| row.0).ok_or_else(|| {
            Error::config(format!(
                "algorithm: {name:?} signs no assertion here; take RS256, PS256, ES256, EdDSA or one of their kin, and \
                 HS256 where the client secret signs"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_is_read_from_the_name_that_it_shows() {
        for (at, (algorithm, name, _)) in ROWS.iter().enumerate() {
            assert_eq!((*algorithm as usize, algorithm.to_string().as_str()), (at, *name));
            assert_eq!(name.parse::<JwtAlgorithm>().unwrap(), *algorithm);
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
