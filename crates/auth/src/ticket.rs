//! Tickets: secrets that may stand in a URL, because they are good for one stream, or for one authorization at
//! another server, and a short time.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::AuthError;
use crate::random::random_bytes;

/// Tells a ticket from other secrets at a glance.
const PREFIX: &str = "irt_";
const TICKET_BYTES: usize = 32;

/// A ticket in plain text; only its hash may be kept.
pub struct Ticket(Zeroizing<String>);

impl Ticket {
    /// Draws a ticket.
    ///
    /// # Errors
    /// [`AuthError::Internal`] when the operating system has no random bytes.
    pub fn random() -> Result<Self, AuthError> {
        let bytes = Zeroizing::new(random_bytes::<TICKET_BYTES>()?);
        Ok(Self(Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes.as_slice())))))
    }

    /// The secret, for the one answer that hands it out.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The SHA-256 of a ticket, by which it is found. A ticket has 256 random bits, so a slow hash
    /// would add nothing.
    pub fn hash_of(ticket: &str) -> [u8; 32] {
        Sha256::digest(ticket).into()
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_long_never_the_same_and_do_not_show_themselves() {
        let (one, two) = (Ticket::random().unwrap(), Ticket::random().unwrap());
        assert_ne!(one.as_str(), two.as_str());
        assert!(one.as_str().starts_with(PREFIX));
        assert_eq!(one.as_str().len(), 4 + 43);
        assert_eq!(format!("{one:?}"), "Ticket(..)");
    }
}
