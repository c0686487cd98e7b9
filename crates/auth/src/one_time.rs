//! Secrets of links that are good once: to set a password, to accept an invitation.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::AuthError;
use crate::random::random_bytes;

/// Tells such a secret from others at a glance.
const PREFIX: &str = "iro_";
const SECRET_BYTES: usize = 32;

/// A secret in plain text; only its hash may be stored.
pub struct OneTimeSecret(Zeroizing<String>);

impl OneTimeSecret {
    /// Draws a secret.
    ///
    /// # Errors
    /// [`AuthError::Internal`] when the operating system has no random bytes.
    pub fn random() -> Result<Self, AuthError> {
        let bytes = Zeroizing::new(random_bytes::<SECRET_BYTES>()?);
        Ok(Self(Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes.as_slice())))))
    }

    /// The secret, for the one answer or mail that hands it out.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What to store of it.
    pub fn hash(&self) -> [u8; 32] {
        Self::hash_of(self.as_str())
    }

    /// The SHA-256 of a secret, by which the store finds it. It has 256 random bits, so a slow hash would
    /// add nothing.
    pub fn hash_of(secret: &str) -> [u8; 32] {
        Sha256::digest(secret).into()
    }
}

impl fmt::Debug for OneTimeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneTimeSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_never_the_same_and_do_not_show_themselves() {
        let (one, two) = (OneTimeSecret::random().unwrap(), OneTimeSecret::random().unwrap());
        assert_ne!(one.as_str(), two.as_str());
        assert_eq!(one.as_str().len(), 4 + 43);
        assert_eq!(one.hash(), OneTimeSecret::hash_of(one.as_str()));
        assert_eq!(format!("{one:?}"), "OneTimeSecret(..)");
    }
}
