//! Secret random bytes from the operating system.

use crate::AuthError;

/// Draws `N` bytes that nobody can predict.
///
/// # Errors
/// [`AuthError::Internal`] when the operating system has none to give.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], AuthError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| AuthError::internal(error.to_string()))?;
    Ok(bytes)
}
