//! Proof Key for Code Exchange (RFC 7636): who got a code can show that they asked for it.

use std::fmt;
use std::ops::RangeInclusive;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::AuthError;
use crate::random::random_bytes;

/// Random bytes of a verifier: 43 characters, as section 4.1 recommends.
const VERIFIER_BYTES: usize = 32;

/// How long a verifier may be (section 4.1), in bytes.
const VERIFIER_LENGTHS: RangeInclusive<usize> = 43..=128;
/// Length of a challenge by `S256`: a SHA-256 in base64url, in bytes.
const CHALLENGE_BYTES: usize = 43;

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

    /// Whether a text can be the challenge of a verifier: 43 characters of base64url, without padding.
    pub fn is_challenge(text: &str) -> bool {
        text.len() == CHALLENGE_BYTES
            && URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32)
    }

    /// Whether a verifier that somebody shows belongs to a challenge that was told before. One that is shorter
    /// or longer than section 4.1 allows belongs to none.
    pub fn proves(verifier: &str, challenge: &str) -> bool {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
        let is_one = VERIFIER_LENGTHS.contains(&verifier.len()) && verifier.bytes().all(is_plain);
        let shown = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        is_one && bool::from(shown.as_bytes().ct_eq(challenge.as_bytes()))
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
    fn a_verifier_proves_its_own_challenge_and_no_other() {
        let verifier = PkceVerifier::random().unwrap();
        let challenge = verifier.challenge();
        assert!(PkceVerifier::is_challenge(&challenge));
        assert!(PkceVerifier::proves(verifier.as_str(), &challenge));
        let other = PkceVerifier::random().unwrap();
        assert!(!PkceVerifier::proves(other.as_str(), &challenge));
        // `plain` is no method of ours: a challenge is not its own verifier.
        assert!(!PkceVerifier::proves(&challenge, &challenge));
        let digest = |text: &str| URL_SAFE_NO_PAD.encode(Sha256::digest(text));
        for bad in [String::new(), "a".repeat(42), "a".repeat(129), format!("{}=", "a".repeat(43))]
        {
            assert!(!PkceVerifier::proves(&bad, &digest(&bad)), "{bad}");
        }
        for good in ["a".repeat(43), "-._~".repeat(32)] {
            assert!(PkceVerifier::proves(&good, &digest(&good)), "{good}");
        }
        for bad in ["", "x", &challenge[1..], &format!("{challenge}="), &"+".repeat(43)] {
            assert!(!PkceVerifier::is_challenge(bad), "{bad}");
        }
    }

    #[test]
    fn verifiers_are_long_never_the_same_and_do_not_show_themselves() {
        let (one, two) = (PkceVerifier::random().unwrap(), PkceVerifier::random().unwrap());
        assert_ne!(one.as_str(), two.as_str());
        assert_eq!(one.as_str().len(), 43);
        assert_eq!(format!("{one:?}"), "PkceVerifier(..)");
    }
}
