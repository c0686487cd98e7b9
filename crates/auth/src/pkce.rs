//! Proof Key for Code Exchange (RFC 7636): who got a code can show that they asked for it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::AuthError;
use crate::random::random_bytes;

/// Random bytes of a verifier: 43 characters, as section 4.1 recommends.
const VERIFIER_BYTES: usize = 32;

/// A verifier in plain text; who asks for a code tells its challenge alone.
pub struct PkceVerifier(Zeroizing<String>);

impl PkceVerifier {
    /// Draws a verifier.
    ///
    /// # Errors
    /// [`AuthError::Internal`] when the operating system has no random bytes.
    pub fn random() -> Result<Self, AuthError> {
        let bytes = Zeroizing::new(random_bytes::<VERIFIER_BYTES>()?);
        Ok(Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()))))
    }

    /// The secret, for the one request that shows it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is told before, by the method `S256` (section 4.2).
    ///
    /// ```
    /// # fn main() -> Result<(), iris_auth::AuthError> {
    /// let verifier = iris_auth::PkceVerifier::random()?;
    /// assert_eq!(verifier.challenge().len(), 43);
    /// # Ok(())
    /// # }
    /// ```
    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.0.as_bytes()))
    }
}

impl fmt::Debug for PkceVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PkceVerifier(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_the_one_of_the_standard() {
        // RFC 7636 appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned();
        let verifier = PkceVerifier(Zeroizing::new(verifier));
        assert_eq!(verifier.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn verifiers_are_long_never_the_same_and_do_not_show_themselves() {
        let (one, two) = (PkceVerifier::random().unwrap(), PkceVerifier::random().unwrap());
        assert_ne!(one.as_str(), two.as_str());
        assert_eq!(one.as_str().len(), 43);
        assert_eq!(format!("{one:?}"), "PkceVerifier(..)");
    }
}
