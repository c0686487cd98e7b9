//! An envelope, `s2.<id of the key>.<wrapped key>.<sealed secret>` (decision 0020): a key that is drawn for this
//! one secret seals it, and is wrapped itself by a key that is made from the master key. AES-256-GCM for both, the
//! nonce before what it was used for. A new master key wraps the key of the secret anew and leaves the secret.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, Payload};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::KeyInit;
use zeroize::Zeroizing;

use super::{PlainSecret, Unopened, associated_data};
use crate::AuthError;
use crate::random::random_bytes;

/// Begins each text of this form.
pub(super) const VERSION: &str = "s2";
/// Says what the master key makes the wrapping key for.
pub(super) const KEY_LABEL: &[u8] = b"iris secrets at rest v2: key";
/// Keep a wrapped key and a sealed secret from standing in for each other.
const WRAPPED_LABEL: &str = "s2 key";
const SECRET_LABEL: &str = "s2 secret";
/// The nonce of GCM (NIST SP 800-38D, section 8.2), in bytes.
const NONCE_BYTES: usize = 12;
const KEY_BYTES: usize = 32;

type Nonce = [u8; NONCE_BYTES];

/// What wraps the keys of secrets; the cipher wipes its key when dropped.
pub(super) struct Wrapping {
    key_id: String,
    cipher: Aes256Gcm,
}

impl Wrapping {
    /// Wraps with `key`. The id tells it apart from others and has no dot in it.
    pub(super) fn new(key_id: String, key: &[u8; KEY_BYTES]) -> Self {
        Self { key_id, cipher: Aes256Gcm::new(key.into()) }
    }

    pub(super) fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Seals a secret with a key of its own.
    pub(super) fn seal(&self, secret: &PlainSecret, owner: &[&str]) -> Result<String, AuthError> {
        self.sealed_with(secret, owner, &DataKey::drawn()?, [random_bytes()?, random_bytes()?])
    }

    fn sealed_with(
        &self,
        secret: &PlainSecret,
        owner: &[&str],
        key: &DataKey,
        [of_key, of_secret]: [Nonce; 2],
    ) -> Result<String, AuthError> {
        let msg = secret.expose().as_bytes();
        let aad = &associated_data(SECRET_LABEL, owner);
        let sealed = encrypted(&key.cipher(), of_secret, Payload { msg, aad })?;
        self.around(key, of_key, &sealed, owner)
    }

    /// The envelope around a secret that its key has sealed.
    fn around(
        &self,
        key: &DataKey,
        nonce: Nonce,
        sealed: &str,
        owner: &[&str],
    ) -> Result<String, AuthError> {
        let (msg, aad) = (key.0.as_slice(), &self.data_of_key(owner));
        let wrapped = encrypted(&self.cipher, nonce, Payload { msg, aad })?;
        Ok(format!("{VERSION}.{}.{wrapped}.{sealed}", self.key_id))
    }

    /// Opens what stands behind the id of the key.
    pub(super) fn open(&self, text: &str, owner: &[&str]) -> Result<Zeroizing<Vec<u8>>, Unopened> {
        let (key, sealed) = self.unwrapped(text, owner)?;
        decrypted(&key.cipher(), sealed, &associated_data(SECRET_LABEL, owner))
    }

    /// The same secret with its key wrapped by another one: the secret is neither opened nor changed.
    ///
    /// # Errors
    /// [`Unopened`], for the key alone.
    pub(super) fn rewrapped(
        &self,
        text: &str,
        owner: &[&str],
        by: &Self,
    ) -> Result<Result<String, AuthError>, Unopened> {
        let (key, sealed) = self.unwrapped(text, owner)?;
        Ok(random_bytes().and_then(|nonce| by.around(&key, nonce, sealed, owner)))
    }

    /// The key of a secret, and the secret as it is sealed.
    fn unwrapped<'a>(&self, text: &'a str, owner: &[&str]) -> Result<(DataKey, &'a str), Unopened> {
        let (wrapped, sealed) = text.split_once('.').ok_or(Unopened::NotOurs)?;
        let opened = decrypted(&self.cipher, wrapped, &self.data_of_key(owner))?;
        let opened = <&[u8; KEY_BYTES]>::try_from(opened.as_slice());
        Ok((DataKey(Zeroizing::new(*opened.map_err(|_| Unopened::NotOurs)?)), sealed))
    }

    fn data_of_key(&self, owner: &[&str]) -> Vec<u8> {
        associated_data(WRAPPED_LABEL, std::iter::once(&self.key_id()).chain(owner))
    }
}

/// The key that seals one secret, wiped from memory when dropped.
struct DataKey(Zeroizing<[u8; KEY_BYTES]>);

impl DataKey {
    fn drawn() -> Result<Self, AuthError> {
        random_bytes().map(Zeroizing::new).map(Self)
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new((&*self.0).into())
    }
}

fn encrypted(
    cipher: &Aes256Gcm,
    nonce: Nonce,
    payload: Payload<'_, '_>,
) -> Result<String, AuthError> {
    let sealed = cipher.encrypt(&nonce.into(), payload);
    let sealed = sealed.map_err(|_| AuthError::internal("a secret could not be sealed"))?;
    Ok(URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat()))
}

fn decrypted(cipher: &Aes256Gcm, text: &str, aad: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unopened> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Unopened::NotOurs)?;
    let (nonce, msg) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(Unopened::NotOurs)?;
    let opened = cipher.decrypt(nonce.into(), Payload { msg, aad });
    opened.map(Zeroizing::new).map_err(|_| Unopened::NotOurs)
}

#[cfg(test)]
mod tests {
    use super::super::SealingKey;
    use super::super::tests::{OWNER, key_of, secret};
    use super::*;

    /// Made by another implementation of AES-256-GCM from the words of the decision: key, nonces and the key of
    /// the secret count up, each from where the one before ended.
    const TEXT: &str = "s2.R8rOrWxW\
                        .QEFCQ0RFRkdISUpLoFG9ZgipM54Zv36ztWkf47lA2XW0nxm531LQJQB6D7SizQnK2dTG-Ou6s5QUZbE6\
                        .TE1OT1BRUlNUVVZXj7Iqs2rtvz146X_F5cSkU8DfhvN5DbOzayESQ46N2aoY";

    fn counted<const N: usize>(from: u8) -> [u8; N] {
        std::array::from_fn(|at| from + u8::try_from(at).unwrap())
    }

    #[test]
    fn the_form_is_the_one_of_the_decision() {
        let SealingKey { wrapping, .. } = SealingKey::derived(&key_of(&counted::<32>(0))).unwrap();
        let key = DataKey(Zeroizing::new(counted(32)));
        let nonces = [counted(64), counted(76)];
        assert_eq!(wrapping.sealed_with(&secret(), &OWNER, &key, nonces).unwrap(), TEXT);
        let behind_id = TEXT.strip_prefix("s2.R8rOrWxW.").unwrap();
        assert_eq!(wrapping.open(behind_id, &OWNER).unwrap().as_slice(), b"Bearer 0123456789");
    }
}
