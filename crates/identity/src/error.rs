//! Why nobody knows who somebody is.

use iris_auth::IdTokenError;
use iris_egress::EgressError;

/// Why a login at a provider led to nobody.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It could not be asked, or did not answer within the bounds.
    #[error("the provider could not be asked: {0}")]
    Egress(#[from] EgressError),
    /// It could not be asked a moment ago, or others wait for its answer already.
    #[error("the provider does not answer: try again in a few seconds")]
    Silent,
    /// Neither TLS nor this machine.
    #[error("`{origin}` is not reached over https")]
    Insecure {
        /// Scheme, host and port.
        origin: String,
    },
    /// What it says of itself is of another provider.
    #[error("the provider calls itself another name than its issuer")]
    WrongIssuer,
    /// It does not protect the code.
    #[error("the provider does not offer PKCE with S256")]
    NoPkce,
    /// It says no.
    #[error("the provider refused: {error}")]
    Refused {
        /// Its code, such as `invalid_grant`: letters, digits and `_`, bounded.
        error: String,
    },
    /// A status that is no answer.
    #[error("the provider answered with the HTTP status {status}")]
    Status {
        /// Such as 500.
        status: u16,
    },
    /// Something else than was asked for.
    #[error("the provider answered with something else than {expected}")]
    Malformed {
        /// What it should have been.
        expected: &'static str,
    },
    /// What came back was sent by another provider (RFC 9207).
    #[error("what came back is of another provider than was asked")]
    OtherProvider,
    /// What says who somebody is is no good.
    #[error(transparent)]
    IdToken(#[from] IdTokenError),
}

impl IdentityError {
    /// Whether somebody may have played with what came back; otherwise the provider is to blame.
    pub fn is_suspicious(&self) -> bool {
        matches!(self, Self::OtherProvider | Self::IdToken(_) | Self::Refused { .. })
    }
}

/// A code of an error, with nothing in it but what such codes are made of (RFC 6749 section 5.2).
pub(crate) fn shown(error: &str) -> String {
    let plain = error.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    plain.take(64).collect()
}
