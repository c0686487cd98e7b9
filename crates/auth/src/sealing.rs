//! Secrets at rest: sealed with the master key, so that a copy of a database gives none of them away.
//!
//! XChaCha20-Poly1305 with a random nonce for each secret. What a secret belongs to is sealed with it, as
//! associated data: a text that is moved to another row, project or server does not open there.
//! Deliberately absent: storage; when something is sealed anew.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, Payload};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::AuthError;
use crate::keys::Key;
use crate::random::random_bytes;

/// Begins each sealed text: another way to seal gets another one.
const VERSION: &str = "s1";
/// The nonce of `XChaCha20` (draft-irtf-cfrg-xchacha section 2), in bytes.
const NONCE_BYTES: usize = 24;
/// Bytes of a key's id, which tells keys apart and says nothing of them.
const ID_BYTES: usize = 6;
/// Keep what is derived from the master key apart from other uses of it.
const KEY_LABEL: &[u8] = b"iris secrets at rest v1: key";
const ID_LABEL: &[u8] = b"iris secrets at rest v1: id";

/// A secret in the clear, wiped from memory when dropped. It does not show itself.
#[derive(Clone, PartialEq, Eq)]
pub struct PlainSecret(Zeroizing<String>);

impl PlainSecret {
    /// Takes a secret over.
    pub fn new(secret: String) -> Self {
        Self(Zeroizing::new(secret))
    }

    /// The secret, for the one use that it is for.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PlainSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainSecret(..)")
    }
}

/// Why a sealed text did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// It was sealed with a key that this server does not have.
    #[error("it was sealed with another master key")]
    OtherKey,
    /// It belongs to something else, or was changed.
    #[error("it does not belong here, or was changed")]
    NotOurs,
}

/// The keys that secrets are sealed with and opened by. They can be changed while others seal and open.
pub struct SealingKeys(RwLock<Ring>);

/// The keys at one moment.
struct Ring {
    current: Arc<SealingKey>,
    /// From before a rotation: they open and do not seal.
    previous: Vec<Arc<SealingKey>>,
    /// How many of them, from the first one on, somebody wants to be kept.
    kept: usize,
}

impl fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKeys").field("current", &self.current().id).finish_non_exhaustive()
    }
}

impl SealingKeys {
    /// Seals with a key made from `current`; opens with it and with those made from `previous`.
    ///
    /// # Errors
    /// [`AuthError::Internal`], which would be a mistake in this crate.
    pub fn new<'a>(
        current: &Key,
        previous: impl IntoIterator<Item = &'a Key>,
    ) -> Result<Self, AuthError> {
        let derived = |key: &Key| SealingKey::derived(key).map(Arc::new);
        let previous = previous.into_iter().map(derived).collect::<Result<Vec<_>, _>>()?;
        let (current, kept) = (derived(current)?, previous.len());
        Ok(Self(RwLock::new(Ring { current, previous, kept })))
    }

    /// Opens with a key made from `key` too, until it is forgotten.
    ///
    /// # Errors
    /// As [`SealingKeys::new`].
    pub fn open_with(&self, key: &Key) -> Result<(), AuthError> {
        let key = Arc::new(SealingKey::derived(key)?);
        self.0.write().unwrap_or_else(PoisonError::into_inner).previous.push(key);
        Ok(())
    }

    /// Seals with a key made from `key` from now on; what opens now goes on to. Does nothing where that is
    /// the key already.
    ///
    /// # Errors
    /// As [`SealingKeys::new`]; nothing is changed then.
    pub fn seal_with(&self, key: &Key) -> Result<(), AuthError> {
        let new = Arc::new(SealingKey::derived(key)?);
        let mut ring = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if ring.current.id != new.id {
            let before = std::mem::replace(&mut ring.current, new);
            ring.previous.push(before);
        }
        Ok(())
    }

    /// Whether `key` is the one that is sealed with.
    ///
    /// # Errors
    /// As [`SealingKeys::new`].
    pub fn seals_with(&self, key: &Key) -> Result<bool, AuthError> {
        Ok(SealingKey::derived(key)?.id == self.current().id)
    }

    /// Opens no more with the keys that were current before, but for those that were there from the beginning.
    pub fn forget_previous(&self) {
        let mut ring = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let kept = ring.kept;
        ring.previous.truncate(kept);
    }

    /// Whether there is a key that opens and does not seal.
    pub fn has_previous(&self) -> bool {
        !self.0.read().unwrap_or_else(PoisonError::into_inner).previous.is_empty()
    }

    fn current(&self) -> Arc<SealingKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).current)
    }

    fn by_id(&self, id: &str) -> Option<Arc<SealingKey>> {
        let ring = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut keys = std::iter::once(&ring.current).chain(&ring.previous);
        keys.find(|key| key.id == id).cloned()
    }

    /// Seals `secret` for what `owner` names, part by part from the general to the specific.
    ///
    /// # Errors
    /// [`AuthError::Internal`] when the operating system has no random bytes.
    pub fn seal(&self, secret: &PlainSecret, owner: &[&str]) -> Result<String, AuthError> {
        let nonce = random_bytes::<NONCE_BYTES>()?;
        let (msg, aad) = (secret.expose().as_bytes(), &associated_data(owner));
        let key = self.current();
        let sealed = key.cipher.encrypt(&nonce.into(), Payload { msg, aad });
        let sealed = sealed.map_err(|_| AuthError::internal("a secret could not be sealed"))?;
        let text = URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat());
        Ok(format!("{VERSION}.{}.{text}", key.id))
    }

    /// Opens a text that was sealed for what `owner` names.
    ///
    /// # Errors
    /// [`Unopened`].
    pub fn open(&self, sealed: &str, owner: &[&str]) -> Result<PlainSecret, Unopened> {
        let mut parts = sealed.splitn(3, '.');
        let (Some(VERSION), Some(id), Some(text)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(Unopened::NotOurs);
        };
        let key = self.by_id(id).ok_or(Unopened::OtherKey)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Unopened::NotOurs)?;
        let (nonce, msg) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(Unopened::NotOurs)?;
        let payload = Payload { msg, aad: &associated_data(owner) };
        let opened = key.cipher.decrypt(nonce.into(), payload).map_err(|_| Unopened::NotOurs)?;
        match String::from_utf8(opened) {
            Ok(secret) => Ok(PlainSecret::new(secret)),
            Err(_) => Err(Unopened::NotOurs),
        }
    }

    /// Whether a text was sealed with a key that is on its way out.
    pub fn is_outdated(&self, sealed: &str) -> bool {
        let Some(id) = sealed.split('.').nth(1) else { return false };
        let ring = self.0.read().unwrap_or_else(PoisonError::into_inner);
        ring.current.id != id && ring.previous.iter().any(|key| key.id == id)
    }

    /// The text sealed anew for the same owner; none for one that the current key sealed, and for one that
    /// does not open.
    ///
    /// # Errors
    /// As [`SealingKeys::seal`].
    pub fn renewed(&self, sealed: &str, owner: &[&str]) -> Result<Option<String>, AuthError> {
        if !self.is_outdated(sealed) {
            return Ok(None);
        }
        let opened = self.open(sealed, owner).ok();
        opened.map(|secret| self.seal(&secret, owner)).transpose()
    }
}

/// One key; the cipher wipes it when dropped.
struct SealingKey {
    /// Has no dot in it.
    id: String,
    cipher: XChaCha20Poly1305,
}

impl SealingKey {
    fn derived(master: &Key) -> Result<Self, AuthError> {
        let key = Zeroizing::new(mac(master, KEY_LABEL)?);
        let id = mac(master, ID_LABEL)?;
        let id = URL_SAFE_NO_PAD.encode(id.get(..ID_BYTES).unwrap_or_default());
        let cipher = XChaCha20Poly1305::new_from_slice(key.as_slice());
        let cipher = cipher.map_err(|_| AuthError::internal("a key has the wrong length"))?;
        Ok(Self { id, cipher })
    }
}

fn mac(master: &Key, label: &[u8]) -> Result<[u8; 32], AuthError> {
    let keyed = <Hmac<Sha256> as KeyInit>::new_from_slice(master.as_bytes());
    let mut keyed = keyed.map_err(|_| AuthError::internal("a key cannot be used"))?;
    keyed.update(label);
    Ok(keyed.finalize().into_bytes().into())
}

/// The parts, each with its length before it: no two lists of parts are the same text.
fn associated_data(owner: &[&str]) -> Vec<u8> {
    let mut data = VERSION.as_bytes().to_vec();
    for part in owner {
        data.extend((part.len() as u64).to_be_bytes());
        data.extend(part.as_bytes());
    }
    data
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::load_or_create_key;

    const OWNER: [&str; 3] = ["prj_1", "tol_1", "authorization"];

    fn key() -> Key {
        let directory = tempfile::tempdir().unwrap();
        load_or_create_key(&directory.path().join("master.key")).unwrap()
    }

    fn secret() -> PlainSecret {
        PlainSecret::new("Bearer 0123456789".to_owned())
    }

    #[test]
    fn a_secret_opens_for_what_it_was_sealed_for_and_for_nothing_else() {
        let keys = SealingKeys::new(&key(), None).unwrap();
        let sealed = keys.seal(&secret(), &OWNER).unwrap();
        assert!(!sealed.contains("0123456789"));
        assert_eq!(keys.open(&sealed, &OWNER), Ok(secret()));
        let others: [&[&str]; 5] = [
            &["prj_2", "tol_1", "authorization"],
            &["prj_1", "tol_2", "authorization"],
            &["prj_1", "tol_1", "x-key"],
            &["prj_1tol_1", "authorization"],
            &[],
        ];
        for other in others {
            assert_eq!(keys.open(&sealed, other), Err(Unopened::NotOurs), "{other:?}");
        }
    }

    #[test]
    fn the_same_secret_is_never_sealed_to_the_same_text() {
        let keys = SealingKeys::new(&key(), None).unwrap();
        assert_ne!(keys.seal(&secret(), &OWNER).unwrap(), keys.seal(&secret(), &OWNER).unwrap());
    }

    #[test]
    fn after_a_rotation_the_key_before_still_opens_and_a_stranger_does_not() {
        let (old, new) = (key(), key());
        let before = SealingKeys::new(&old, None).unwrap();
        let sealed = before.seal(&secret(), &OWNER).unwrap();
        let rotated = SealingKeys::new(&new, Some(&old)).unwrap();
        assert_eq!(rotated.open(&sealed, &OWNER), Ok(secret()));
        assert!(rotated.is_outdated(&sealed) && !before.is_outdated(&sealed));
        let resealed = rotated.seal(&secret(), &OWNER).unwrap();
        assert!(!rotated.is_outdated(&resealed));
        assert_eq!(before.open(&resealed, &OWNER), Err(Unopened::OtherKey));
        let stranger = SealingKeys::new(&new, None).unwrap();
        assert_eq!(stranger.open(&sealed, &OWNER), Err(Unopened::OtherKey));
    }

    #[test]
    fn keys_change_while_they_are_in_use() {
        let (old, new) = (key(), key());
        let keys = SealingKeys::new(&old, None).unwrap();
        let sealed = keys.seal(&secret(), &OWNER).unwrap();
        assert_eq!(keys.renewed(&sealed, &OWNER).unwrap(), None, "it is of the current key");
        assert!(!keys.has_previous());
        keys.seal_with(&new).unwrap();
        keys.seal_with(&new).unwrap();
        assert!(keys.seals_with(&new).unwrap() && !keys.seals_with(&old).unwrap());
        assert!(keys.has_previous() && keys.is_outdated(&sealed));
        assert_eq!(keys.open(&sealed, &OWNER), Ok(secret()));
        let again = keys.renewed(&sealed, &OWNER).unwrap().unwrap();
        assert_eq!(keys.renewed(&again, &OWNER).unwrap(), None);
        assert_eq!(keys.renewed(&sealed, &OWNER[..1]).unwrap(), None, "it is of somebody else");
        keys.forget_previous();
        assert_eq!(keys.open(&sealed, &OWNER), Err(Unopened::OtherKey));
        assert_eq!(keys.open(&again, &OWNER), Ok(secret()));
        let keeping = SealingKeys::new(&new, Some(&old)).unwrap();
        keeping.open_with(&key()).unwrap();
        keeping.forget_previous();
        assert_eq!(keeping.open(&sealed, &OWNER), Ok(secret()));
        let only_new = SealingKeys::new(&new, None).unwrap();
        assert_eq!(only_new.open(&again, &OWNER), Ok(secret()));
    }

    #[test]
    fn nothing_shows_a_secret() {
        let keys = SealingKeys::new(&key(), None).unwrap();
        assert_eq!(format!("{:?}", secret()), "PlainSecret(..)");
        assert!(format!("{keys:?}").starts_with("SealingKeys { current: \""));
    }

    proptest! {
        #[test]
        fn a_text_that_was_changed_does_not_open(place in 0_usize..80, to in any::<char>()) {
            let keys = SealingKeys::new(&key(), None).unwrap();
            let sealed = keys.seal(&secret(), &OWNER).unwrap();
            let mut changed: Vec<char> = sealed.chars().collect();
            let place = place % changed.len();
            prop_assume!(changed[place] != to);
            changed[place] = to;
            let changed: String = changed.into_iter().collect();
            prop_assert!(keys.open(&changed, &OWNER).is_err());
        }
    }
}
