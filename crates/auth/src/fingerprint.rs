//! What tells one text with a secret in it from another and says nothing of the secret: a plain hash could be
//! tried out.
//!
//! It is kept for a day, beside the outcome of a command, and has to be the same after a change of the master
//! key: therefore it is made with the key that signs access tokens.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::AuthError;

/// Keeps it apart from other uses of the key.
const LABEL: &[u8] = b"iris fingerprints v1";

/// Makes fingerprints of texts.
#[derive(Clone)]
pub struct Fingerprints(Hmac<Sha256>);

impl fmt::Debug for Fingerprints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprints(..)")
    }
}

impl Fingerprints {
    /// Makes them with a key made from `key`, which may also sign access tokens.
    ///
    /// # Errors
    /// [`AuthError::Internal`], which would be a mistake in this crate.
    pub fn new(key: &[u8]) -> Result<Self, AuthError> {
        let derived = keyed(key)?.chain_update(LABEL).finalize().into_bytes();
        Ok(Self(keyed(&derived)?))
    }

    /// The fingerprint of a text, 43 characters.
    pub fn of(&self, text: &[u8]) -> String {
        let keyed = self.0.clone().chain_update(text);
        URL_SAFE_NO_PAD.encode(keyed.finalize().into_bytes())
    }
}

fn keyed(key: &[u8]) -> Result<Hmac<Sha256>, AuthError> {
    let keyed = <Hmac<Sha256> as KeyInit>::new_from_slice(key);
    keyed.map_err(|_| AuthError::internal("a key cannot be used"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_tell_texts_apart_and_need_the_key() {
        let [ours, others] = [[1; 32], [2; 32]].map(|key| Fingerprints::new(&key).unwrap());
        assert_eq!(ours.of(b"a"), ours.of(b"a"));
        assert_ne!(ours.of(b"a"), ours.of(b"b"));
        assert_ne!(ours.of(b"a"), others.of(b"a"));
        assert_eq!(ours.of(b"a").len(), 43);
        assert_eq!(format!("{ours:?}"), "Fingerprints(..)");
    }
}
