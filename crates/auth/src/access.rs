//! Access tokens: short-lived JWTs (RFC 7519) that prove one login of one user.
//!
//! The JWT crate checks the signature and nothing else: its clock cannot be moved by a test, and its
//! defaults accept tokens that we must refuse. Every claim is checked here, in `AccessTokens::verify`.

use std::sync::Arc;
use std::time::Duration;

use iris_agent::Clock;
use iris_protocol::{AuthSessionId, UserId};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::{AuthError, KEY_BYTES_MIN};

/// How long an access token is good unless configured otherwise.
pub const ACCESS_LIFETIME_DEFAULT: Duration = Duration::from_mins(15);

/// How far the clocks of two servers may differ, in milliseconds.
const LEEWAY_MS: i64 = 5_000;
const ALGORITHM: Algorithm = Algorithm::HS256;
const ISSUER: &str = "iris";
const AUDIENCE: &str = "iris";
const KIND: &str = "access";

/// A token and when it ends.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken {
    /// The JWT; a secret.
    pub token: String,
    /// Milliseconds since 1970 UTC, a whole second.
    pub expires_at_ms: i64,
}

/// What a valid token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessClaims {
    /// The user.
    pub user_id: UserId,
    /// The login that the token belongs to.
    pub auth_session_id: AuthSessionId,
    /// The user's epoch when the token was issued; a token of an older epoch is void.
    pub epoch: i64,
    /// Milliseconds since 1970 UTC.
    pub expires_at_ms: i64,
}

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
    signing_key: EncodingKey,
    verifying_key: DecodingKey,
    lifetime: Duration,
    clock: Arc<dyn Clock>,
}

impl AccessTokens {
    /// Signs with `key`; tokens are good for [`ACCESS_LIFETIME_DEFAULT`].
    ///
    /// # Errors
    /// [`AuthError::KeyTooShort`] when the key has fewer than [`KEY_BYTES_MIN`] bytes.
    pub fn new(key: &[u8], clock: Arc<dyn Clock>) -> Result<Self, AuthError> {
        if key.len() < KEY_BYTES_MIN {
            return Err(AuthError::KeyTooShort { found: key.len() });
        }
        Ok(Self {
            signing_key: EncodingKey::from_secret(key),
            verifying_key: DecodingKey::from_secret(key),
            lifetime: ACCESS_LIFETIME_DEFAULT,
            clock,
        })
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
        let token = jsonwebtoken::encode(&Header::new(ALGORITHM), &claims, &self.signing_key)
            .map_err(AuthError::internal)?;
        Ok(AccessToken { token, expires_at_ms: exp.saturating_mul(1_000) })
    }

    /// Checks everything about a token but the user's epoch, which the caller compares.
    ///
    /// # Errors
    /// [`AuthError::Expired`] when only its time is over, [`AuthError::Invalid`] for every other
    /// reason.
    pub fn verify(&self, token: &str) -> Result<AccessClaims, AuthError> {
        let mut signature_only = Validation::new(ALGORITHM);
        signature_only.required_spec_claims.clear();
        signature_only.validate_exp = false;
        signature_only.validate_aud = false;
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.verifying_key, &signature_only)
            .map_err(|_| AuthError::Invalid)?;
        let (header, claims) = (decoded.header, decoded.claims);

        // RFC 7515 section 4.1.11: a critical extension that is not understood voids the token, and
        // none is understood here.
        let is_ours = header.crit.is_none()
            && claims.iss == ISSUER
            && claims.aud == AUDIENCE
            && claims.typ == KIND;
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
            auth_session_id: claims.sid,
            epoch: claims.ver,
            expires_at_ms,
        })
    }
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
