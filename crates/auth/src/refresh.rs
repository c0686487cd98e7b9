//! Refresh tokens: opaque, stored only as hashes, and replaced at each use.
//!
//! A child token is derived from its parent with a key of the server. When the answer to a refresh
//! is lost, the client asks again with the parent and can be given the same child, although nobody
//! stored it. Everything else that is used twice is taken as stolen (RFC 9700 section 4.14.2).

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::random::random_bytes;
use crate::{AuthError, KEY_BYTES_MIN};

/// How long a refresh token is good unless configured otherwise.
pub const REFRESH_LIFETIME_DEFAULT: Duration = Duration::from_hours(30 * 24);

/// Tells a refresh token from other secrets at a glance.
const PREFIX: &str = "irr_";
const TOKEN_BYTES: usize = 32;
/// Keeps the derived key apart from other uses of the same server key.
const KEY_LABEL: &[u8] = b"iris refresh token v1";

/// A refresh token in plain text; only its hash may be stored.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken(Zeroizing<String>);

impl RefreshToken {
    fn from_bytes(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// The secret, for the one answer that hands it out.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What to store of it.
    pub fn hash(&self) -> [u8; 32] {
        RefreshTokens::hash_of(self.as_str())
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(..)")
    }
}

/// Makes refresh tokens.
pub struct RefreshTokens {
    derivation: Hmac<Sha256>,
    /// From before the last rotation of the key: for answers that were lost around it.
    previous: Option<Hmac<Sha256>>,
}

impl RefreshTokens {
    /// Derives children with a key made from `key`, which may also sign access tokens.
    ///
    /// # Errors
    /// [`AuthError::KeyTooShort`] when the key has fewer than [`KEY_BYTES_MIN`] bytes.
    pub fn new(key: &[u8]) -> Result<Self, AuthError> {
        if key.len() < KEY_BYTES_MIN {
            return Err(AuthError::KeyTooShort { found: key.len() });
        }
        Ok(Self { derivation: derivation(key)?, previous: None })
    }

    /// Knows the children that another key made too: the one before a rotation.
    ///
    /// # Errors
    /// As [`RefreshTokens::new`].
    pub fn previous_key(mut self, key: &[u8]) -> Result<Self, AuthError> {
        self.previous = Self::new(key)?.derivation.into();
        Ok(self)
    }

    /// Draws the first token of a login.
    ///
    /// # Errors
    /// [`AuthError::Internal`] when the operating system has no random bytes.
    pub fn first(&self) -> Result<RefreshToken, AuthError> {
        Ok(RefreshToken::from_bytes(Zeroizing::new(random_bytes::<TOKEN_BYTES>()?).as_slice()))
    }

    /// The one child that `parent` has, each time the same.
    pub fn child_of(&self, parent: &str) -> RefreshToken {
        RefreshToken::from_bytes(
            Zeroizing::new(mac(&self.derivation, parent.as_bytes())).as_slice(),
        )
    }

    /// The child of `parent` that has this hash, made with the key or the one before.
    pub fn child_with_hash(&self, parent: &str, hash: &[u8; 32]) -> Option<RefreshToken> {
        let made = |derivation: &Hmac<Sha256>| {
            RefreshToken::from_bytes(Zeroizing::new(mac(derivation, parent.as_bytes())).as_slice())
        };
        let mut children = [Some(&self.derivation), self.previous.as_ref()].into_iter().flatten();
        children.by_ref().map(made).find(|child| child.hash() == *hash)
    }

    /// The SHA-256 of a token, by which the store finds it. The token has 256 random bits, so a slow
    /// hash would add nothing.
    pub fn hash_of(token: &str) -> [u8; 32] {
        Sha256::digest(token).into()
    }
}

fn derivation(key: &[u8]) -> Result<Hmac<Sha256>, AuthError> {
    keyed(Zeroizing::new(mac(&keyed(key)?, KEY_LABEL)).as_slice())
}

fn keyed(key: &[u8]) -> Result<Hmac<Sha256>, AuthError> {
    Hmac::new_from_slice(key).map_err(|error| AuthError::internal(error.to_string()))
}

fn mac(keyed: &Hmac<Sha256>, message: &[u8]) -> [u8; 32] {
    keyed.clone().chain_update(message).finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> RefreshTokens {
        RefreshTokens::new(&[7; KEY_BYTES_MIN]).unwrap()
    }

    #[test]
    fn first_tokens_are_long_and_never_the_same() {
        let (one, two) = (tokens().first().unwrap(), tokens().first().unwrap());
        assert_ne!(one, two);
        assert!(one.as_str().starts_with("irr_"));
        assert_eq!(one.as_str().len(), 4 + 43);
    }

    #[test]
    fn a_parent_has_one_child_under_one_key() {
        let parent = tokens().first().unwrap();
        let child = tokens().child_of(parent.as_str());
        assert_eq!(child, tokens().child_of(parent.as_str()));
        assert_ne!(child, parent);
        assert_ne!(child, tokens().child_of(child.as_str()));
        let elsewhere = RefreshTokens::new(&[8; KEY_BYTES_MIN]).unwrap();
        assert_ne!(child, elsewhere.child_of(parent.as_str()));
        assert_eq!(child.as_str().len(), parent.as_str().len());
    }

    #[test]
    fn a_child_of_the_key_before_a_rotation_is_found_again() {
        let parent = tokens().first().unwrap();
        let child = tokens().child_of(parent.as_str());
        let rotated = RefreshTokens::new(&[8; KEY_BYTES_MIN]).unwrap();
        assert_eq!(rotated.child_with_hash(parent.as_str(), &child.hash()), None);
        let rotated = rotated.previous_key(&[7; KEY_BYTES_MIN]).unwrap();
        let found = rotated.child_with_hash(parent.as_str(), &child.hash());
        assert_eq!(found, Some(child.clone()));
        assert_ne!(rotated.child_of(parent.as_str()), child);
    }

    #[test]
    fn a_child_cannot_be_made_with_the_server_key_alone() {
        let plain = mac(&keyed(&[7; KEY_BYTES_MIN]).unwrap(), b"irr_parent");
        assert_ne!(RefreshToken::from_bytes(&plain), tokens().child_of("irr_parent"));
    }

    #[test]
    fn the_hash_is_sha_256_of_the_text() {
        // FIPS 180-2, appendix B.1.
        let expected = [0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea];
        assert_eq!(RefreshTokens::hash_of("abc")[..8], expected);
        let token = tokens().first().unwrap();
        assert_eq!(token.hash(), RefreshTokens::hash_of(token.as_str()));
    }

    #[test]
    fn a_token_does_not_show_itself() {
        let token = tokens().first().unwrap();
        assert_eq!(format!("{token:?}"), "RefreshToken(..)");
    }

    #[test]
    fn a_short_key_is_refused() {
        let result = RefreshTokens::new(&[7; KEY_BYTES_MIN - 1]);
        assert!(matches!(result, Err(AuthError::KeyTooShort { found: 31 })));
    }
}
