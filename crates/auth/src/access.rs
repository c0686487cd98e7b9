//! Access tokens: short-lived JWTs (RFC 7519) that prove one login of one user.
//!
//! The JWT crate checks the signature and nothing else: its clock cannot be moved by a test, and its
//! defaults accept tokens that we must refuse. Every header and claim is checked here, in
//! `AccessTokens::verify_access`. The key is named by the token (`kid`), so that tokens of the key before
//! the last rotation are good until they end.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use iris_agent::Clock;
use iris_protocol::{AuthSessionId, KeyId, UserId};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::{AuthError, KEY_BYTES_MIN};

/// How long an access token is good unless configured otherwise.
pub const ACCESS_LIFETIME_DEFAULT: Duration = Duration::from_mins(15);

/// How far the clocks of two servers may differ, in milliseconds.
const LEEWAY_MS: i64 = 5_000;
const ALGORITHM: Algorithm = Algorithm::HS256;
const ISSUER: &str = "iris";
const AUDIENCE: &str = "iris";
const KIND: &str = "access";
/// The type in the header of our tokens (RFC 7519 section 5.1).
const HEADER_TYPE: &str = "JWT";
/// Keeps the id of a key apart from other uses of it.
const ID_LABEL: &[u8] = b"iris access token v1: key id";
/// Bytes of the id of a key, which tells keys apart and says nothing of them.
const ID_BYTES: usize = 8;

/// A token and when it ends.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken {
    /// The JWT; a secret.
    pub token: String,
    /// Milliseconds since 1970 UTC, a whole second.
    pub expires_at_ms: i64,
}

/// What somebody shows to prove who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// An access token of this login.
    Login(AuthSessionId),
    /// This API key.
    Key(KeyId),
}

impl Credential {
    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            Self::Login(id) => id.as_str(),
            Self::Key(id) => id.as_str(),
        }
    }
}

/// What a valid access token or API key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessClaims {
    /// The user.
    pub user_id: UserId,
    /// The login or the key.
    pub credential: Credential,
    /// The user's epoch when the token was issued; a token of an older epoch is void. 0 for keys, which
    /// have none.
    pub epoch: i64,
    /// Milliseconds since 1970 UTC; [`NEVER_MS`] for a key without end.
    pub expires_at_ms: i64,
}

/// The end of a key without end: that of the year 9999, in milliseconds since 1970 UTC.
pub const NEVER_MS: i64 = 253_402_300_799_000;

/// The claims on the wire; times are whole seconds since 1970 UTC. A missing claim, or one of
/// another type, does not parse.
#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: UserId,
    sid: AuthSessionId,
    ver: i64,
    typ: String,
    iat: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
}

/// Issues and verifies access tokens.
pub struct AccessTokens {
    current: SigningKey,
    /// From before the last rotation: it verifies and does not sign.
    previous: Option<SigningKey>,
    lifetime: Duration,
    clock: Arc<dyn Clock>,
}

struct SigningKey {
    /// `kid` of tokens that it signs.
    id: String,
    signing: EncodingKey,
    verifying: DecodingKey,
}

impl SigningKey {
    fn new(key: &[u8]) -> Result<Self, AuthError> {
        if key.len() < KEY_BYTES_MIN {
            return Err(AuthError::KeyTooShort { found: key.len() });
        }
        let keyed = Hmac::<Sha256>::new_from_slice(key);
        let keyed = keyed.map_err(|error| AuthError::internal(error.to_string()))?;
        let digest = keyed.chain_update(ID_LABEL).finalize().into_bytes();
        let id = digest.iter().copied().take(ID_BYTES).collect::<Vec<u8>>();
        let id = URL_SAFE_NO_PAD.encode(id);
        let (signing, verifying) = (EncodingKey::from_secret(key), DecodingKey::from_secret(key));
        Ok(Self { id, signing, verifying })
    }
}

impl AccessTokens {
    /// Signs with `key`; tokens are good for [`ACCESS_LIFETIME_DEFAULT`].
    ///
    /// # Errors
    /// [`AuthError::KeyTooShort`] when the key has fewer than [`KEY_BYTES_MIN`] bytes.
    pub fn new(key: &[u8], clock: Arc<dyn Clock>) -> Result<Self, AuthError> {
        let current = SigningKey::new(key)?;
        Ok(Self { current, previous: None, lifetime: ACCESS_LIFETIME_DEFAULT, clock })
    }

    /// Takes tokens of another key too, which signs none: the one before a rotation.
    ///
    /// # Errors
    /// As [`AccessTokens::new`].
    pub fn previous_key(mut self, key: &[u8]) -> Result<Self, AuthError> {
        self.previous = Some(SigningKey::new(key)?);
        Ok(self)
    }

    /// Sets how long tokens are good, in whole seconds.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Makes a token for one login of a user.
    ///
    /// # Errors
    /// [`AuthError::Internal`] when it cannot be encoded.
    pub fn issue(
        &self,
        user_id: &UserId,
        auth_session_id: &AuthSessionId,
        user_epoch: i64,
    ) -> Result<AccessToken, AuthError> {
        let iat = self.clock.now_ms().div_euclid(1_000);
        let lifetime_seconds = i64::try_from(self.lifetime.as_secs()).unwrap_or(i64::MAX);
        let exp = iat.saturating_add(lifetime_seconds);
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user_id.clone(),
            sid: auth_session_id.clone(),
            ver: user_epoch,
            typ: KIND.to_owned(),
            iat,
            exp,
            nbf: None,
        };
        let header = Header { kid: Some(self.current.id.clone()), ..Header::new(ALGORITHM) };
        let token = jsonwebtoken::encode(&header, &claims, &self.current.signing)
            .map_err(AuthError::internal)?;
        Ok(AccessToken { token, expires_at_ms: exp.saturating_mul(1_000) })
    }

    /// Checks everything about a token but the user's epoch, which the caller compares: signature and
    /// algorithm, every header, every claim, the times.
    ///
    /// # Errors
    /// [`AuthError::Expired`] when only its time is over, [`AuthError::Invalid`] for every other
    /// reason.
    pub fn verify_access(&self, token: &str) -> Result<AccessClaims, AuthError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Invalid)?;
        let key = self.key_of(&header).ok_or(AuthError::Invalid)?;
        let mut signature_only = Validation::new(ALGORITHM);
        signature_only.required_spec_claims.clear();
        signature_only.validate_exp = false;
        signature_only.validate_aud = false;
        let decoded = jsonwebtoken::decode::<Claims>(token, &key.verifying, &signature_only)
            .map_err(|_| AuthError::Invalid)?;
        let claims = decoded.claims;

        let is_ours = claims.iss == ISSUER && claims.aud == AUDIENCE && claims.typ == KIND;
        let now_ms = self.clock.now_ms();
        let latest_start_ms = now_ms.saturating_add(LEEWAY_MS);
        let has_begun = claims.iat.saturating_mul(1_000) <= latest_start_ms
            && claims.nbf.is_none_or(|nbf| nbf.saturating_mul(1_000) <= latest_start_ms);
        if !is_ours || !has_begun {
            return Err(AuthError::Invalid);
        }

        let expires_at_ms = claims.exp.saturating_mul(1_000);
        if expires_at_ms.saturating_add(LEEWAY_MS) <= now_ms {
            return Err(AuthError::Expired);
        }
        Ok(AccessClaims {
            user_id: claims.sub,
            credential: Credential::Login(claims.sid),
            epoch: claims.ver,
            expires_at_ms,
        })
    }

    /// The key of ours that a header names. A header with anything else to say about keys, or with an
    /// extension that has to be understood (RFC 7515 section 4.1.11), is none of ours.
    fn key_of(&self, header: &Header) -> Option<&SigningKey> {
        let is_plain = header.alg == ALGORITHM
            && header.typ.as_deref() == Some(HEADER_TYPE)
            && header.crit.is_none()
            && header.jku.is_none()
            && header.jwk.is_none()
            && header.x5u.is_none()
            && header.x5c.is_none();
        let id = header.kid.as_deref().filter(|_| is_plain)?;
        [Some(&self.current), self.previous.as_ref()].into_iter().flatten().find(|key| key.id == id)
    }
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
