//! The contract of a signer that keeps its key: hardware, or a key management service.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::error::Error;
use crate::grants::jwt::algorithm::JwtAlgorithm;
use crate::grants::jwt::der;

/// Signs assertions with a key that does not leave where it is: an HSM, or a key management service.
///
/// It is asked once for each attempt at the token endpoint. Where it fails, no request is sent.
///
/// # Cancel safety
///
/// The future is dropped where the fetch is: at the deadline of the cache, or when the runtime shuts down. Nothing else
/// limits how long it takes.
///
/// # Examples
///
/// ```
/// use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm, JwtSigner};
/// use tower_oauth2::{ClientAuth, Error};
///
/// struct Vault;
///
/// impl JwtSigner for Vault {
///     fn algorithm(&self) -> JwtAlgorithm {
///         JwtAlgorithm::Es256
///     }
///
///     fn key_id(&self) -> Option<String> {
///         Some("billing-7".into())
///     }
///
///     async fn sign(&self, input: &[u8]) -> Result<Vec<u8>, Error> {
///         ask_vault(input).await.map_err(|error| Error::transient("the vault did not sign").with_source(error))
///     }
/// }
/// # async fn ask_vault(_input: &[u8]) -> Result<Vec<u8>, std::io::Error> { Ok(vec![0; 64]) }
///
/// let auth = ClientAuth::private_key_jwt(Assertion::by_signer(Vault));
/// ```
pub trait JwtSigner: Send + Sync + 'static {
    /// Returns the algorithm, which stands in the header of what is signed.
    fn algorithm(&self) -> JwtAlgorithm;

    /// Returns the name of the key (`kid`), if the server is to be told. Asked before each signature.
    fn key_id(&self) -> Option<String> {
        None
    }

    /// Signs the bytes given: header and claims, as RFC 7515 §5.1 joins them.
    ///
    /// An ECDSA signature may be the two numbers as RFC 7518 §3.4 joins them, or DER, as key management services give it.
    ///
    /// # Errors
    ///
    /// The error that stopped the signer. A transient error is tried again as a token request is.
    fn sign(&self, input: &[u8]) -> impl Future<Output = Result<Vec<u8>, Error>> + Send;
}

/// A signer that is shared.
impl<S: JwtSigner> JwtSigner for Arc<S> {
    fn algorithm(&self) -> JwtAlgorithm {
        S::algorithm(self)
    }

    fn key_id(&self) -> Option<String> {
        S::key_id(self)
    }

    fn sign(&self, input: &[u8]) -> impl Future<Output = Result<Vec<u8>, Error>> + Send {
        S::sign(self, input)
    }
}

// --- DynSigner ---

/// The private twin of [`JwtSigner`] that can be a trait object.
pub(super) trait DynSigner: Send + Sync {
    fn algorithm(&self) -> JwtAlgorithm;
    fn key_id(&self) -> Option<String>;
    fn sign<'a>(&'a self, input: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Error>>;
}

impl<S: JwtSigner> DynSigner for S {
    fn algorithm(&self) -> JwtAlgorithm {
        JwtSigner::algorithm(self)
    }

    fn key_id(&self) -> Option<String> {
        JwtSigner::key_id(self)
    }

    fn sign<'a>(&'a self, input: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Error>> {
        Box::pin(async move { joined(JwtSigner::algorithm(self), JwtSigner::sign(self, input).await?) })
    }
}

impl fmt::Debug for dyn DynSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSigner").field("algorithm", &self.algorithm()).finish_non_exhaustive()
    }
}

/// Brings an ECDSA signature into the form of RFC 7518 §3.4.
fn joined(algorithm: JwtAlgorithm, signature: Vec<u8>) -> Result<Vec<u8>, Error> {
    let Some(half) = algorithm.ecdsa_half() else { return Ok(signature) };
    if signature.len() == 2 * half {
        return Ok(signature);
    }
    let numbers = || {
        let mut pair = der::Reader::new(&signature).sequence()?;
        let mut out = vec![0; 2 * half];
        for end in [half, 2 * half] {
            let number = der::without_zeros(pair.next(der::INTEGER)?);
            out[end - half..end].get_mut(half.checked_sub(number.len())?..)?.copy_from_slice(number);
        }
        Some(out)
    };
    numbers().ok_or_else(|| {
        Error::config(format!(
            "the signer returned {} bytes, which are no {algorithm} signature; it has {} bytes, or is DER",
            signature.len(),
            2 * half
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ecdsa_signature_may_come_as_der() {
        let (r, s) = ([&[0x81][..], &[7; 31]].concat(), vec![9; 30]);
        // A number whose first bit is set has a zero in front.
        let signature = [&[0x30, 67, 0x02, 33, 0][..], &r, &[0x02, 30], &s].concat();
        let joined_up = joined(JwtAlgorithm::Es256, signature).unwrap();
        assert_eq!(joined_up, [&r[..], &[0, 0], &s].concat());
        assert_eq!(joined(JwtAlgorithm::Es256, joined_up.clone()).unwrap(), joined_up);
        assert_eq!(joined(JwtAlgorithm::Rs256, vec![1, 2]).unwrap(), [1, 2]);
    }

    #[test]
    fn what_is_no_signature_of_the_algorithm_is_refused() {
        let too_long = [&[0x30, 69, 0x02, 33][..], &[1; 33], &[0x02, 32], &[1; 32]].concat();
        for signature in [vec![], vec![0; 63], vec![0x30, 0x06], too_long] {
            let error = joined(JwtAlgorithm::Es256, signature).unwrap_err();
            assert!(error.is_config() && error.to_string().contains("ES256"), "{error}");
        }
    }
}
