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
    /// [`AuthError::EmptySetupToken`] when there is nothing in it to know.
    pub fn new(text: String) -> Result<Self, AuthError> {
        let text = Zeroizing::new(text);
        if text.trim().is_empty() {
            return Err(AuthError::EmptySetupToken);
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
    fn an_operator_may_choose_a_token_but_not_an_empty_one() {
        assert!(SetupToken::new("chosen".to_owned()).unwrap().matches("chosen"));
        for empty in ["", "  \n"] {
            let result = SetupToken::new(empty.to_owned());
            assert!(matches!(result, Err(AuthError::EmptySetupToken)));
        }
    }

    #[test]
    fn a_token_does_not_show_itself() {
        assert_eq!(format!("{:?}", SetupToken::random().unwrap()), "SetupToken(..)");
    }
}
