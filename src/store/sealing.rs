//! Seals what a store keeps, and names it, so that neither tells a reader anything.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use chacha20poly1305::aead::{AeadInOut as _, KeyInit as _};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use secrecy::zeroize::Zeroizing;
use sha2::Sha256;

use super::token_store::StoreKey;
use crate::error::Error;
use crate::source::SourceIdentity;
use crate::text;

/// The first byte of a value.
const PLAIN: u8 = 0;
const SEALED: u8 = 1;

const ID: usize = 8;
const NONCE: usize = 24;

/// The key under which tokens are sealed in a store: 32 random bytes, the same for all processes.
///
/// Values are sealed with XChaCha20-Poly1305 and bound to their place: the key of the entry, its version and the fence of its
/// writer. To make one: `openssl rand -base64 32`.
///
/// # Rotation
///
/// The first key seals, and all of them open. Give all processes the new key as a [further](Self::also) one first, then put
/// it in front, and remove the old one when no value is sealed under it any more. Until the oldest key is removed, the names
/// of the entries stay as they are; with it they change, and a refresh token that is kept in the store is lost, unless
/// the entry has a [name of its own](super::SharedBuilder::key).
///
/// # Examples
///
/// ```
/// use tower_oauth2::store::SealingKey;
///
/// let old = SealingKey::new([7; 32]);
/// let key = SealingKey::new([8; 32]).also(&old);
/// assert!(!format!("{key:?}").contains('7'));
/// ```
#[derive(Clone)]
pub struct SealingKey {
    /// The first one seals; without any, values are in plain text.
    keys: Arc<[Key]>,
}

#[derive(Clone)]
struct Key {
    /// By which a value says which key it needs.
    id: [u8; ID],
    seals: Zeroizing<[u8; 32]>,
    names: Zeroizing<[u8; 32]>,
}

/// Where a value belongs. One that was moved from elsewhere, or put back, cannot be opened.
pub(super) struct Place<'a> {
    pub(super) key: &'a StoreKey,
    pub(super) version: u64,
    pub(super) fence: u64,
}

impl SealingKey {
    /// Creates the key from its bytes, which must be random.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        let key = Zeroizing::new(key);
        let derive = |purpose: &str| Zeroizing::new(mac(&*key, [purpose]));
        let mut id = [0; ID];
        id.copy_from_slice(&derive("tower-oauth2 id")[..ID]);
        let key = Key { id, seals: derive("tower-oauth2 seal"), names: derive("tower-oauth2 name") };
        Self { keys: [key].into() }
    }

    /// Reads the key from an environment variable, as base64 or hex. It is read now.
    ///
    /// # Errors
    ///
    /// A configuration error if the variable is not set, or is not 32 bytes.
    pub fn from_env(variable: impl AsRef<str>) -> Result<Self, Error> {
        let variable = variable.as_ref();
        let place = format!("the environment variable {variable}");
        let Some(value) = std::env::var_os(variable) else {
            return Err(Error::config(format!("there is no sealing key: set {place}")));
        };
        Self::read(&place, &Zeroizing::new(value.into_encoded_bytes()))
    }

    /// Reads the key from a file, as base64, hex, or the 32 bytes alone. It is read now, on this thread.
    ///
    /// # Errors
    ///
    /// A configuration error if the file cannot be read, or is not 32 bytes.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let place = format!("the file {}", path.as_ref().display());
        let bytes = std::fs::read(path).map(Zeroizing::new).map_err(|error| {
            Error::config(format!("the sealing key cannot be read from {place}")).with_source(error)
        })?;
        Self::read(&place, &bytes)
    }

    /// Keeps tokens in plain text: with this, any reader of the store has them, and any writer can put in others. For tests,
    /// and for stores that only this process can reach.
    #[must_use]
    pub fn insecure_plaintext() -> Self {
        Self { keys: Arc::default() }
    }

    /// Opens values as well that were sealed under these keys.
    #[must_use]
    pub fn also(self, older: &Self) -> Self {
        Self { keys: self.keys.iter().chain(older.keys.iter()).cloned().collect() }
    }

    fn read(place: &str, bytes: &[u8]) -> Result<Self, Error> {
        decode(bytes).map(Self::new).ok_or_else(|| {
            Error::config(format!(
                "the sealing key in {place} is not 32 bytes as base64 or hex; make one by: openssl rand -base64 32"
            ))
        })
    }

    /// Names the entry of a source and a user: by the oldest key, so that a new one in front changes no name.
    pub(super) fn name(&self, identity: &SourceIdentity, principal: Option<&str>) -> Result<StoreKey, Error> {
        let key: &[u8] = self.keys.last().map_or(&[], |key| &*key.names);
        let principal = principal.map(|principal| format!("@{principal}"));
        let name = mac(key, identity.words().chain(principal.as_deref()));
        StoreKey::new(name.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    /// Seals a value for its place.
    pub(super) fn seal(&self, place: &Place<'_>, value: &[u8]) -> Result<Bytes, Error> {
        let Some(key) = self.keys.first() else {
            return Ok([&[PLAIN], value].concat().into());
        };
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|error| {
            Error::transient("the system gave no random numbers").with_source(error.to_string())
        })?;
        let mut sealed = Vec::with_capacity(1 + ID + NONCE + value.len() + 16);
        sealed.push(SEALED);
        sealed.extend_from_slice(&key.id);
        sealed.extend_from_slice(&nonce);
        // Encrypted where it is, so that no copy of the plain text is left.
        let head = sealed.len();
        sealed.extend_from_slice(value);
        let tag = cipher(key)
            .encrypt_inout_detached(&XNonce::from(nonce), &place.bytes(), sealed[head..].as_mut().into())
            .map_err(|_too_long| Error::config("the value is too long to be sealed"))?;
        sealed.extend_from_slice(&tag);
        Ok(sealed.into())
    }

    /// Opens a value that was sealed for its place.
    pub(super) fn open(&self, place: &Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let refuse = |why: &str| Err(Error::protocol(format!("the stored value cannot be used: {why}")));
        match (sealed.split_first(), self.keys.is_empty()) {
            (Some((&PLAIN, value)), true) => Ok(Zeroizing::new(value.to_vec())),
            (Some((&PLAIN, _)), false) => refuse("it is in plain text, and a sealed one is expected"),
            (Some((&SEALED, _)), true) => refuse("it is sealed, and there is no sealing key"),
            (Some((&SEALED, rest)), false) => {
                let Some((id, rest)) = rest.split_first_chunk::<ID>() else { return refuse("it is cut off") };
                let Some((nonce, rest)) = rest.split_first_chunk::<NONCE>() else {
                    return refuse("it is cut off");
                };
                let Some(key) = self.keys.iter().find(|key| key.id == *id) else {
                    return refuse("it is sealed under a key that this process was not given");
                };
                let mut value = Zeroizing::new(rest.to_vec());
                let opened = cipher(key).decrypt_in_place(&XNonce::from(*nonce), &place.bytes(), &mut *value);
                if opened.is_err() {
                    return refuse("it was changed, or belongs to another place");
                }
                Ok(value)
            }
            (Some(_), _) => refuse("it is of another program, or of a newer version of this one"),
            (None, _) => refuse("it is empty"),
        }
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKey").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

// --- Place ---

impl Place<'_> {
    fn bytes(&self) -> Vec<u8> {
        let (version, fence) = (self.version.to_be_bytes(), self.fence.to_be_bytes());
        [b"tower-oauth2", &version[..], &fence[..], self.key.as_str().as_bytes()].concat()
    }
}

// --- Helpers ---

fn cipher(key: &Key) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&(*key.seals).into())
}

/// HMAC-SHA-256 of words, each with its length in front.
fn mac<'a>(key: &[u8], words: impl IntoIterator<Item = &'a str>) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for word in words {
        mac.update(&u64::try_from(word.len()).unwrap_or(u64::MAX).to_be_bytes());
        mac.update(word.as_bytes());
    }
    mac.finalize().into_bytes().into()
}

fn decode(bytes: &[u8]) -> Option<[u8; 32]> {
    // Random bytes are hardly all letters: 32 of those are half a key in hex.
    if !bytes.is_ascii()
        && let Ok(key) = bytes.try_into()
    {
        return Some(key);
    }
    let text = text::trimmed(std::str::from_utf8(bytes).ok()?);
    let decoded = if text.len() == 64 {
        let digits = text.as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| !pair.contains('+'))?;
            u8::from_str_radix(pair, 16).ok()
        });
        digits.collect::<Option<Vec<u8>>>()?
    } else {
        let text = text.trim_end_matches('=');
        STANDARD_NO_PAD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text)).ok()?
    };
    Zeroizing::new(decoded).as_slice().try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(name: &str) -> StoreKey {
        StoreKey::new(name).unwrap()
    }

    fn place(key: &StoreKey) -> Place<'_> {
        Place { key, version: 3, fence: 5 }
    }

    fn sealing() -> SealingKey {
        SealingKey::new([1; 32])
    }

    #[test]
    fn a_sealed_value_opens_in_its_place_alone() {
        let (one, two) = (key("one"), key("two"));
        let sealed = sealing().seal(&place(&one), b"S3CR3T").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"S3CR3T"));
        assert_eq!(*sealing().open(&place(&one), &sealed).unwrap(), b"S3CR3T");
        assert_ne!(sealing().seal(&place(&one), b"S3CR3T").unwrap(), sealed, "a nonce is used once");
        for elsewhere in [
            Place { key: &two, ..place(&one) },
            Place { version: 4, ..place(&one) },
            Place { fence: 6, ..place(&one) },
        ] {
            assert!(sealing().open(&elsewhere, &sealed).is_err());
        }
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let one = key("one");
        let sealed = sealing().seal(&place(&one), b"a token").unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[at] ^= 1;
            assert!(sealing().open(&place(&one), &changed).is_err(), "byte {at}");
            assert!(sealing().open(&place(&one), &sealed[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(sealed.len(), 1 + 8 + 24 + 7 + 16);
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let one = key("one");
        let (old, new) = (sealing(), SealingKey::new([2; 32]));
        let both = new.clone().also(&old);
        let by_old = old.seal(&place(&one), b"x").unwrap();
        let by_both = both.seal(&place(&one), b"y").unwrap();
        assert_eq!(*both.open(&place(&one), &by_old).unwrap(), b"x");
        assert_eq!(*new.open(&place(&one), &by_both).unwrap(), b"y");
        let error = old.open(&place(&one), &by_both).unwrap_err();
        assert!(error.to_string().contains("a key that this process was not given"), "{error}");
    }

    #[test]
    fn plain_and_sealed_values_do_not_stand_in_for_each_other() {
        let (one, plain) = (key("one"), SealingKey::insecure_plaintext());
        let written = plain.seal(&place(&one), b"x").unwrap();
        assert_eq!(*plain.open(&place(&one), &written).unwrap(), b"x");
        assert!(sealing().open(&place(&one), &written).is_err());
        assert!(plain.open(&place(&one), &sealing().seal(&place(&one), b"x").unwrap()).is_err());
    }

    #[test]
    fn a_key_is_read_in_each_form() {
        let bytes: [u8; 32] = std::array::from_fn(|at| u8::try_from(at * 8).unwrap());
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        for form in [
            bytes.to_vec(),
            hex.clone().into_bytes(),
            hex.to_uppercase().into_bytes(),
            format!("{hex}\r\n").into_bytes(),
            format!("{}=\n", STANDARD_NO_PAD.encode(bytes)).into_bytes(),
            URL_SAFE_NO_PAD.encode(bytes).into_bytes(),
        ] {
            assert_eq!(decode(&form), Some(bytes), "{form:?}");
        }
        for form in [&b""[..], b"short", &hex.as_bytes()[..32], &[200; 31], &[200; 33], &[b'+'; 64]] {
            assert_eq!(decode(form), None, "{form:?}");
        }
    }

    #[test]
    fn a_key_that_is_not_there_is_named() {
        let error = SealingKey::from_env("TOWER_OAUTH2_NO_SUCH_KEY").unwrap_err();
        assert!(error.is_config() && error.to_string().contains("TOWER_OAUTH2_NO_SUCH_KEY"), "{error}");
        let error = SealingKey::from_file("/does/not/exist").unwrap_err();
        assert!(error.is_config() && error.to_string().contains("/does/not/exist"), "{error}");
    }

    #[test]
    fn a_name_outlives_a_new_key_in_front() {
        let identity = SourceIdentity::new("vault").with("role", "billing");
        let name = |key: &SealingKey, principal| key.name(&identity, principal).unwrap();
        let both = SealingKey::new([2; 32]).also(&sealing());
        assert_eq!(name(&both, None), name(&sealing(), None));
        assert_ne!(name(&SealingKey::new([2; 32]), None), name(&sealing(), None));
        assert_ne!(name(&sealing(), Some("a")), name(&sealing(), None));
        assert_ne!(name(&sealing(), Some("a")), name(&sealing(), Some("b")));
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let one = key("one");
            prop_assert!(sealing().open(&place(&one), &bytes).is_err());
        }

        #[test]
        fn identities_that_differ_have_names_that_differ(
            one in prop::collection::vec(("[ab.=]{0,3}", "[ab.=]{0,3}"), 0..4),
            other in prop::collection::vec(("[ab.=]{0,3}", "[ab.=]{0,3}"), 0..4),
        ) {
            let identity = |pairs: &[(String, String)]| {
                pairs.iter().fold(SourceIdentity::new("x"), |made, (name, value)| made.with(name, value))
            };
            let name = |pairs| sealing().name(&identity(pairs), None).unwrap();
            prop_assert_eq!(name(&one) == name(&other), one == other);
        }
    }
}
