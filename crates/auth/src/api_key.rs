//! API keys: `iris_`, thirty random characters and six that check them, as the tokens of GitHub have it
//! (<https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/>).
//!
//! A text that is no key is known as such without asking a database, and a key that leaks is found by its
//! form. Only the hash of a key is stored.

use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::AuthError;
use crate::random::random_bytes;

/// Begins each key.
const PREFIX: &str = "iris_";
/// Digits, capitals, small letters: in this order they are the digits of base 62.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 178 bits.
const RANDOM_CHARS: usize = 30;
/// 32 bits in base 62.
const CHECK_CHARS: usize = 6;
/// Characters of a key that are shown at each end.
const SHOWN_CHARS: usize = 4;

/// An API key in plain text; only its hash may be stored.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKeySecret(Zeroizing<String>);

impl ApiKeySecret {
    /// Draws a key.
    ///
    /// # Errors
    /// [`AuthError::Internal`] when the operating system has no random bytes.
    pub fn random() -> Result<Self, AuthError> {
        let mut body = Zeroizing::new(String::with_capacity(RANDOM_CHARS + CHECK_CHARS));
        while body.len() < RANDOM_CHARS {
            let bytes = Zeroizing::new(random_bytes::<RANDOM_CHARS>()?);
            // Of 256 values the last 8 would make some characters likelier than others.
            let fair = bytes.iter().filter(|byte| usize::from(**byte) < 4 * ALPHABET.len());
            let chars = fair.map(|byte| digit(usize::from(*byte) % ALPHABET.len()));
            let missing = RANDOM_CHARS - body.len();
            body.extend(chars.take(missing));
        }
        let check = check(&body);
        Ok(Self(Zeroizing::new(format!("{PREFIX}{}{check}", body.as_str()))))
    }

    /// The secret, for the one answer that hands it out.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What to store of it.
    pub fn hash(&self) -> [u8; 32] {
        Self::hash_of(self.as_str())
    }

    /// Its first and last characters, by which its owner knows it.
    pub fn hint(&self) -> String {
        let (_, body) = self.0.split_at(PREFIX.len());
        let (first, rest) = body.split_at(SHOWN_CHARS);
        let (_, last) = rest.split_at(rest.len() - SHOWN_CHARS);
        format!("{PREFIX}{first}...{last}")
    }

    /// Whether a text looks like a key at all, right or wrong.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Whether a text has the form of a key, its check included. Nobody is asked.
    ///
    /// ```
    /// # fn main() -> Result<(), iris_auth::AuthError> {
    /// let key = iris_auth::ApiKeySecret::random()?;
    /// assert!(iris_auth::ApiKeySecret::is_well_formed(key.as_str()));
    /// assert!(!iris_auth::ApiKeySecret::is_well_formed("iris_0"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_well_formed(text: &str) -> bool {
        let Some(body) = text.strip_prefix(PREFIX) else { return false };
        let is_of_alphabet = body.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if body.len() != RANDOM_CHARS + CHECK_CHARS || !is_of_alphabet {
            return false;
        }
        let (random, checked) = body.split_at(RANDOM_CHARS);
        check(random) == checked
    }

    /// The SHA-256 of a key, by which the store finds it. A key has 178 random bits, so a slow hash would
    /// add nothing.
    pub fn hash_of(text: &str) -> [u8; 32] {
        Sha256::digest(text).into()
    }
}

impl fmt::Debug for ApiKeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeySecret(..)")
    }
}

fn digit(value: usize) -> char {
    char::from(ALPHABET.get(value).copied().unwrap_or(b'0'))
}

/// The CRC-32 of a text in base 62, with zeros before it.
fn check(text: &str) -> String {
    let mut rest = crc32(text.as_bytes()) as usize;
    let mut digits = [b'0'; CHECK_CHARS];
    for place in digits.iter_mut().rev() {
        *place = ALPHABET.get(rest % ALPHABET.len()).copied().unwrap_or(b'0');
        rest /= ALPHABET.len();
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

/// CRC-32 as Ethernet and gzip have it (RFC 1952 section 8), bit by bit: the text is short.
fn crc32(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_long_never_the_same_and_do_not_show_themselves() {
        let (one, two) = (ApiKeySecret::random().unwrap(), ApiKeySecret::random().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.as_str().len(), 5 + 36);
        assert!(ApiKeySecret::is_well_formed(one.as_str()));
        assert_eq!(format!("{one:?}"), "ApiKeySecret(..)");
        let hint = one.hint();
        assert_eq!(hint.len(), 5 + 4 + 3 + 4);
        assert!(hint.starts_with(&one.as_str()[..9]) && hint.ends_with(&one.as_str()[37..]));
    }

    #[test]
    fn the_check_is_the_known_one() {
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(check("123456789"), "3jZRME");
    }

    #[test]
    fn what_is_no_key_is_known_without_asking_anybody() {
        let key = ApiKeySecret::random().unwrap();
        let key = key.as_str();
        for wrong in ["", "iris_", "irr_0", &key[1..], &key[..40], &format!("{key}0"), " iris_"] {
            assert!(!ApiKeySecret::is_well_formed(wrong), "{wrong}");
        }
        assert!(!ApiKeySecret::is_well_formed(&key.replace("iris_", "IRIS_")));
    }

    proptest! {
        #[test]
        fn one_changed_character_is_noticed(place in 5_usize..41, other in 0_usize..62) {
            let key = ApiKeySecret::random().unwrap();
            let mut bytes = key.as_str().as_bytes().to_vec();
            prop_assume!(bytes[place] != ALPHABET[other]);
            bytes[place] = ALPHABET[other];
            prop_assert!(!ApiKeySecret::is_well_formed(&String::from_utf8(bytes).unwrap()));
        }

        #[test]
        fn any_text_is_answered_without_a_panic(text in ".{0,60}") {
            prop_assert!(!ApiKeySecret::is_well_formed(&text));
            let key = ["iris_", &text].concat();
            prop_assert!(!ApiKeySecret::is_well_formed(&key));
        }
    }
}
