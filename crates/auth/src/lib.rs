//! Who is calling and what they may do: passwords, tokens, key files and the authorisation gate; and the
//! sealing of secrets at rest.
//!
//! Deliberately absent: storage (callers keep the hashes), HTTP, logging, and the system clock,
//! which comes in through [`iris_agent::Clock`]. No secret has a `Debug` or `Display` that shows it.

mod access;
mod api_key;
mod authorize;
mod error;
mod fingerprint;
mod id_token;
mod keys;
mod one_time;
mod passwords;
mod pkce;
mod random;
mod refresh;
mod sealing;
mod setup;
mod ticket;

pub use access::{
    ACCESS_LIFETIME_DEFAULT, AccessClaims, AccessToken, AccessTokens, Credential, NEVER_MS,
};
pub use api_key::ApiKeySecret;
pub use authorize::{Caller, CallerUser, Denied, KeyRights, Resource, authorize};
pub use error::AuthError;
pub use fingerprint::Fingerprints;
pub use id_token::{IdClaims, IdTokenError, IdTokenRules, ProviderKeys, verify_id_token};
pub use keys::{ChangingKey, Key, load_key, load_or_create_key};
pub use one_time::OneTimeSecret;
pub use passwords::{PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN, PASSWORD_WAITERS_MAX, Passwords};
pub use pkce::PkceVerifier;
pub use refresh::{REFRESH_LIFETIME_DEFAULT, RefreshToken, RefreshTokens};
pub use sealing::{PlainSecret, SealingKeys, Unopened};
pub use setup::{SETUP_TOKEN_BYTES_MIN, SetupToken};
pub use ticket::Ticket;

/// Shortest key that may sign or derive tokens, in bytes: the output size of SHA-256 (RFC 7518 section 3.2).
pub const KEY_BYTES_MIN: usize = 32;
