//! The form from before there were envelopes, `s1.<id of the key>.<nonce and sealed secret>`: XChaCha20-Poly1305
//! directly under a key that is made from the master key. It is opened still, and written no more.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, Payload};
use zeroize::Zeroizing;

use super::{Unopened, associated_data};

/// Begins each text of this form.
pub(super) const VERSION: &str = "s1";
/// Says what the master key makes the key for.
pub(super) const KEY_LABEL: &[u8] = b"iris secrets at rest v1: key";
/// The nonce of `XChaCha20` (draft-irtf-cfrg-xchacha section 2), in bytes.
const NONCE_BYTES: usize = 24;

/// Opens what stands behind the id of the key.
pub(super) fn open(
    cipher: &XChaCha20Poly1305,
    text: &str,
    owner: &[&str],
) -> Result<Zeroizing<Vec<u8>>, Unopened> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Unopened::NotOurs)?;
    let (nonce, msg) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(Unopened::NotOurs)?;
    let payload = Payload { msg, aad: &associated_data(VERSION, owner) };
    cipher.decrypt(nonce.into(), payload).map(Zeroizing::new).map_err(|_| Unopened::NotOurs)
}

/// Seals as servers did that knew no other form, for tests of what they left.
#[cfg(any(test, feature = "faults"))]
pub(super) fn seal(
    cipher: &XChaCha20Poly1305,
    secret: &super::PlainSecret,
    owner: &[&str],
) -> Result<String, crate::AuthError> {
    let nonce = crate::random::random_bytes::<NONCE_BYTES>()?;
    let (msg, aad) = (secret.expose().as_bytes(), &associated_data(VERSION, owner));
    let sealed = cipher.encrypt(&nonce.into(), Payload { msg, aad });
    let sealed = sealed.map_err(|_| crate::AuthError::internal("a secret could not be sealed"))?;
    Ok(URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat()))
}
