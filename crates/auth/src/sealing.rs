//! Secrets at rest: sealed with the master key, so that a copy of a database gives none of them away.
//!
//! Each in an envelope: a key of its own, which the master key wraps. What a secret belongs to is sealed with
//! it, as associated data: a text that is moved to another row, project or server does not open there.
//! Deliberately absent: storage; when something is sealed anew.

mod direct;
mod envelope;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::XChaCha20Poly1305;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use self::envelope::Wrapping;
use crate::AuthError;
use crate::keys::Key;

/// Bytes of a key's id, which tells keys apart and says nothing of them.
const ID_BYTES: usize = 6;
/// Says what the master key makes its id for. It is the same in each form of texts.
const ID_LABEL: &[u8] = b"iris secrets at rest v1: id";
/// Says what the master key makes the key of prints for.
const PRINT_LABEL: &[u8] = b"iris secrets at rest v1: print";
/// Bytes of a print.
const PRINT_BYTES: usize = 12;

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
        f.debug_struct("SealingKeys").field("current", &self.current().id()).finish_non_exhaustive()
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
        if ring.current.id() != new.id() {
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
        Ok(SealingKey::derived(key)?.id() == self.current().id())
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
        keys.find(|key| key.id() == id).cloned()
    }

    /// Seals `secret` for what `owner` names, part by part from the general to the specific.
    ///
    /// # Errors
    /// [`AuthError::Internal`] when the operating system has no random bytes.
    pub fn seal(&self, secret: &PlainSecret, owner: &[&str]) -> Result<String, AuthError> {
        self.current().wrapping.seal(secret, owner)
    }

    /// Seals as servers did from before there were envelopes.
    ///
    /// # Errors
    /// As [`SealingKeys::seal`].
    #[cfg(any(test, feature = "faults"))]
    pub fn seal_as_before(
        &self,
        secret: &PlainSecret,
        owner: &[&str],
    ) -> Result<String, AuthError> {
        let key = self.current();
        let text = direct::seal(&key.direct, secret, owner)?;
        Ok(format!("{}.{}.{text}", direct::VERSION, key.id()))
    }

    /// A code by which this server knows a secret again, as long as it has the same master key. Nobody else can
    /// compute it, so it does not help to guess the secret.
    pub fn print(&self, secret: &str) -> String {
        let mut prints = self.current().prints.clone();
        prints.update(secret.as_bytes());
        let print = prints.finalize().into_bytes();
        URL_SAFE_NO_PAD.encode(print.get(..PRINT_BYTES).unwrap_or_default())
    }

    /// Opens a text that was sealed for what `owner` names.
    ///
    /// # Errors
    /// [`Unopened`].
    pub fn open(&self, sealed: &str, owner: &[&str]) -> Result<PlainSecret, Unopened> {
        let sealed = Sealed::read(sealed).ok_or(Unopened::NotOurs)?;
        let key = self.by_id(sealed.key_id).ok_or(Unopened::OtherKey)?;
        let opened = match sealed.form {
            Form::Envelope => key.wrapping.open(sealed.text, owner)?,
            Form::Direct => direct::open(&key.direct, sealed.text, owner)?,
        };
        let secret = std::str::from_utf8(&opened).map_err(|_| Unopened::NotOurs)?;
        Ok(PlainSecret::new(secret.to_owned()))
    }

    /// Whether a key that is on its way out is needed to open a text.
    pub fn needs_previous(&self, sealed: &str) -> bool {
        let Some(Sealed { key_id, .. }) = Sealed::read(sealed) else { return false };
        self.by_id(key_id).is_some() && self.current().id() != key_id
    }

    /// Whether a text that one of the keys sealed is to be sealed anew: because the key is on its way out, or
    /// because it is in a form that is.
    pub fn is_outdated(&self, sealed: &str) -> bool {
        let Some(Sealed { form, key_id, .. }) = Sealed::read(sealed) else { return false };
        match form {
            Form::Envelope => self.needs_previous(sealed),
            Form::Direct => self.by_id(key_id).is_some(),
        }
    }

    /// The text sealed anew for the same owner: of an envelope only the key, without a look at the secret. None
    /// for one that is not outdated, and for one that does not open.
    ///
    /// # Errors
    /// As [`SealingKeys::seal`].
    pub fn renewed(&self, sealed: &str, owner: &[&str]) -> Result<Option<String>, AuthError> {
        if !self.is_outdated(sealed) {
            return Ok(None);
        }
        let renewed = match Sealed::read(sealed) {
            Some(Sealed { form: Form::Envelope, key_id, text }) => self
                .by_id(key_id)
                .and_then(|key| key.wrapping.rewrapped(text, owner, &self.current().wrapping).ok()),
            Some(Sealed { form: Form::Direct, .. }) | None => {
                self.open(sealed, owner).ok().map(|secret| self.seal(&secret, owner))
            }
        };
        renewed.transpose()
    }
}

/// A sealed text, taken apart.
struct Sealed<'a> {
    form: Form,
    key_id: &'a str,
    /// What stands behind.
    text: &'a str,
}

/// How a text is sealed, which its first part says.
#[derive(Clone, Copy)]
enum Form {
    Envelope,
    /// It is opened, and sealed anew as an envelope.
    Direct,
}

impl<'a> Sealed<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (version, text) = text.split_once('.')?;
        let form = match version {
            envelope::VERSION => Form::Envelope,
            direct::VERSION => Form::Direct,
            _ => return None,
        };
        let (key_id, text) = text.split_once('.')?;
        Some(Self { form, key_id, text })
    }
}

/// What is made of one master key; the ciphers wipe their keys when dropped.
struct SealingKey {
    wrapping: Wrapping,
    direct: XChaCha20Poly1305,
    prints: Hmac<Sha256>,
}

impl SealingKey {
    fn derived(master: &Key) -> Result<Self, AuthError> {
        let made = |label| mac(master, label).map(Zeroizing::new);
        let id = made(ID_LABEL)?;
        let id = URL_SAFE_NO_PAD.encode(id.get(..ID_BYTES).unwrap_or_default());
        let direct = XChaCha20Poly1305::new((&*made(direct::KEY_LABEL)?).into());
        let prints = keyed(&*made(PRINT_LABEL)?)?;
        Ok(Self { wrapping: Wrapping::new(id, &*made(envelope::KEY_LABEL)?), direct, prints })
    }

    /// Has no dot in it.
    fn id(&self) -> &str {
        self.wrapping.key_id()
    }
}

fn mac(master: &Key, label: &[u8]) -> Result<[u8; 32], AuthError> {
    let mut keyed = keyed(master.as_bytes())?;
    keyed.update(label);
    Ok(keyed.finalize().into_bytes().into())
}

fn keyed(key: &[u8]) -> Result<Hmac<Sha256>, AuthError> {
    let keyed = <Hmac<Sha256> as KeyInit>::new_from_slice(key);
    keyed.map_err(|_| AuthError::internal("a key cannot be used"))
}

/// The label, which says what is sealed and in which form, and the parts, each with its length before it: no two
/// lists of parts are the same data.
fn associated_data<'a>(label: &str, parts: impl IntoIterator<Item = &'a &'a str>) -> Vec<u8> {
    let mut data = label.as_bytes().to_vec();
    for part in parts {
        data.extend((part.len() as u64).to_be_bytes());
        data.extend(part.as_bytes());
    }
    data
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{load_key, load_or_create_key};

    pub(super) const OWNER: [&str; 3] = ["prj_1", "tol_1", "authorization"];
    /// As a server sealed it that knew no envelopes, with the key of [`old_key`].
    const OLD_TEXT: &str =
        "s1.R8rOrWxW.ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7gPrMGnfKq8Fr4l5IRmvOlMyoMlF7LFOSxUeXAlvcMYQ6";

    pub(super) fn key_of(bytes: &[u8]) -> Key {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        std::fs::write(&path, bytes).unwrap();
        load_key(&path).unwrap()
    }

    fn old_key() -> Key {
        key_of(&std::array::from_fn::<u8, 32, _>(|at| u8::try_from(at).unwrap()))
    }

    fn key() -> Key {
        let directory = tempfile::tempdir().unwrap();
        load_or_create_key(&directory.path().join("master.key")).unwrap()
    }

    pub(super) fn secret() -> PlainSecret {
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
        for text in [sealed, keys.seal_as_before(&secret(), &OWNER).unwrap()] {
            assert_eq!(keys.open(&text, &OWNER), Ok(secret()));
            for other in others {
                assert_eq!(keys.open(&text, other), Err(Unopened::NotOurs), "{other:?}");
            }
        }
    }

    #[test]
    fn a_text_from_before_the_envelopes_opens_and_becomes_one() {
        let (old, new) = (old_key(), key());
        let keys = SealingKeys::new(&old, None).unwrap();
        assert_eq!(keys.open(OLD_TEXT, &OWNER), Ok(secret()));
        assert_eq!(keys.open(OLD_TEXT, &OWNER[..2]), Err(Unopened::NotOurs));
        // Its key is the one of now, its form is not.
        assert!(keys.is_outdated(OLD_TEXT) && !keys.needs_previous(OLD_TEXT));
        let envelope = keys.renewed(OLD_TEXT, &OWNER).unwrap().unwrap();
        assert!(envelope.starts_with("s2.R8rOrWxW.") && !keys.is_outdated(&envelope));
        keys.seal_with(&new).unwrap();
        assert!(keys.needs_previous(OLD_TEXT));
        let of_new = keys.renewed(OLD_TEXT, &OWNER).unwrap().unwrap();
        keys.forget_previous();
        assert!(of_new.starts_with("s2.") && !of_new.contains("R8rOrWxW"));
        assert_eq!(keys.open(&of_new, &OWNER), Ok(secret()));
        assert_eq!(keys.open(OLD_TEXT, &OWNER), Err(Unopened::OtherKey));
        assert!(!keys.is_outdated(OLD_TEXT), "nothing can be done about it");
    }

    #[test]
    fn a_rotation_wraps_the_key_of_a_secret_anew_and_leaves_the_secret() {
        let keys = SealingKeys::new(&key(), None).unwrap();
        let sealed = keys.seal(&secret(), &OWNER).unwrap();
        keys.seal_with(&key()).unwrap();
        let again = keys.renewed(&sealed, &OWNER).unwrap().unwrap();
        let [before, after] = [&sealed, &again].map(|text| text.split('.').collect::<Vec<_>>());
        assert_eq!((before.len(), after.len()), (4, 4));
        assert_eq!((before[0], before[3]), (after[0], after[3]));
        assert!(before[1] != after[1] && before[2] != after[2], "{again}");
        assert_eq!(keys.open(&again, &OWNER), Ok(secret()));
    }

    #[test]
    fn no_part_of_a_text_goes_with_another_text() {
        let keys = SealingKeys::new(&key(), None).unwrap();
        let texts = [(); 2].map(|()| keys.seal(&secret(), &OWNER).unwrap());
        let [one, other] = texts.each_ref().map(|text| text.split('.').collect::<Vec<_>>());
        for part in [2, 3] {
            let mut mixed = one.clone();
            mixed[part] = other[part];
            assert_eq!(keys.open(&mixed.join("."), &OWNER), Err(Unopened::NotOurs), "{part}");
        }
        let swapped = [one[0], one[1], one[3], one[2]].join(".");
        assert_eq!(keys.open(&swapped, &OWNER), Err(Unopened::NotOurs));
        // A key by which it can be opened too, but did not wrap it.
        keys.seal_with(&key()).unwrap();
        let of_new = keys.seal(&secret(), &OWNER).unwrap();
        let id = of_new.split('.').nth(1).unwrap();
        let renamed = [one[0], id, one[2], one[3]].join(".");
        assert_eq!(keys.open(&renamed, &OWNER), Err(Unopened::NotOurs));
        let downgraded = format!("s1.{}.{}", one[1], one[3]);
        assert_eq!(keys.open(&downgraded, &OWNER), Err(Unopened::NotOurs));
    }

    #[test]
    fn each_byte_of_each_part_counts() {
        let keys = SealingKeys::new(&key(), None).unwrap();
        let sealed = keys.seal(&secret(), &OWNER).unwrap();
        let parts: Vec<&str> = sealed.split('.').collect();
        for part in [2, 3] {
            let bytes = URL_SAFE_NO_PAD.decode(parts[part]).unwrap();
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                let mut parts = parts.clone();
                let changed = URL_SAFE_NO_PAD.encode(changed);
                parts[part] = &changed;
                let opened = keys.open(&parts.join("."), &OWNER);
                assert_eq!(opened, Err(Unopened::NotOurs), "{part} {at}");
            }
            for length in 0..bytes.len() {
                let mut parts = parts.clone();
                let cut = URL_SAFE_NO_PAD.encode(&bytes[..length]);
                parts[part] = &cut;
                assert_eq!(keys.open(&parts.join("."), &OWNER), Err(Unopened::NotOurs));
            }
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
        fn a_text_that_was_changed_does_not_open(place in 0_usize..200, to in any::<char>()) {
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
