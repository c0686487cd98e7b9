//! The setup token: proves that the caller may create the first admin.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::AuthError;
use crate::random::random_bytes;

/// 192 bits: out of reach for guessing, and 32 characters to copy.
const TOKEN_BYTES: usize = 24;

/// Shortest token that an operator may choose, in bytes without the white space around it.
pub const SETUP_TOKEN_BYTES_MIN: usize = 16;

/// A one-time token that its owner reads from the terminal or the configuration.
#[derive(Clone)]
pub struct SetupToken(Zeroizing<String>);

impl SetupToken {
    /// Draws a new token.
    ///
    /// # Errors
    /// [`AuthError::Internal`] when the operating system has no random bytes.
    pub fn random() -> Result<Self, AuthError> {
        Ok(Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(random_bytes::<TOKEN_BYTES>()?))))
    }

    /// Takes the token that the operator chose.
    ///
    /// # Errors
    /// [`AuthError::SetupTokenTooShort`] when it has less than [`SETUP_TOKEN_BYTES_MIN`].
    pub fn new(text: String) -> Result<Self, AuthError> {
        let text = Zeroizing::new(text);
        if text.trim().len() < SETUP_TOKEN_BYTES_MIN {
            return Err(AuthError::SetupTokenTooShort);
        }
        Ok(Self(text))
    }

    /// The secret, for printing it to the operator.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Says whether `offered` is this token, in a time that tells neither its text nor its length.
    pub fn matches(&self, offered: &str) -> bool {
        Sha256::digest(self.as_str()).ct_eq(&Sha256::digest(offered)).into()
    }
}

impl fmt::Debug for SetupToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SetupToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_text_matches() {
        let token = SetupToken::random().unwrap();
        let text = token.as_str().to_owned();
        assert_eq!(text.len(), 32);
        assert!(token.matches(&text));
        for wrong in ["", &text[1..], &format!("{text} "), SetupToken::random().unwrap().as_str()] {
            assert!(!token.matches(wrong), "{wrong}");
        }
    }

    #[test]
    fn an_operator_may_choose_a_token_but_not_a_short_one() {
        let shortest = "x".repeat(SETUP_TOKEN_BYTES_MIN);
        assert!(SetupToken::new(shortest.clone()).unwrap().matches(&shortest));
        for short in ["", &shortest[1..], &format!("{}\n", &shortest[1..]), &" ".repeat(99)] {
            let error = SetupToken::new(short.to_owned()).unwrap_err();
            assert_eq!(error.to_string(), "the setup token needs at least `16` bytes");
        }
    }

    #[test]
    fn a_token_does_not_show_itself() {
        assert_eq!(format!("{:?}", SetupToken::random().unwrap()), "SetupToken(..)");
    }
}
