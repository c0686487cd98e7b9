//! ID tokens of `OpenID` providers: JWTs that say who somebody is there (`OpenID` Connect Core 1.0, sections 2
//! and 3.1.3.7). Pure: keys, time and what was asked for come in.
//!
//! The JWT crate checks the signature and nothing else. What a token says about keys besides the name of one
//! is not listened to, and no algorithm is taken that whoever knows the client's secret could sign with.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::Deserialize;
use serde_json::Value;
use subtle::ConstantTimeEq;

/// How far the clock of a provider may differ, in milliseconds.
const LEEWAY_MS: i64 = 60_000;
/// Longest `sub` (section 2 of the standard), in bytes.
const SUBJECT_BYTES_MAX: usize = 255;
/// Longest other text that is taken from a token, in bytes.
const TEXT_BYTES_MAX: usize = 1024;
/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 64 * 1024;
/// Most keys of one provider that are looked at.
const KEYS_MAX: usize = 64;
/// Shortest modulus of an RSA key, in bytes (RFC 7518 section 3.3).
const RSA_BYTES_MIN: usize = 256;
/// The algorithms that are taken: those with which only the provider can sign.
const TAKEN: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// Bytes of a public key of Ed25519 (RFC 8037 section 2).
const ED25519_BYTES: usize = 32;

/// The keys with which a provider signs, as it publishes them.
#[derive(Debug, Clone, Default)]
pub struct ProviderKeys(Vec<Jwk>);

impl ProviderKeys {
    /// Reads a JWK Set (RFC 7517 section 5). Keys that cannot be used are left out, as the standard wants.
    ///
    /// # Errors
    /// [`IdTokenError::Keys`] for what is no JWK Set.
    pub fn read(document: &[u8]) -> Result<Self, IdTokenError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(document).map_err(|_| IdTokenError::Keys)?;
        let keys = set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok());
        Ok(Self(keys.filter(is_usable).take(KEYS_MAX).collect()))
    }

    /// The key that a token names, or the only one where it names none (section 10.1), if it is for this
    /// algorithm. Which of several keys is meant is not tried out.
    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&Jwk> {
        let fits = |key: &&Jwk| {
            let named = key.common.key_algorithm;
            named.is_none_or(|named| named == KeyAlgorithm::from(algorithm))
        };
        match (id, self.0.as_slice()) {
            (Some(id), keys) => {
                keys.iter().filter(fits).find(|key| key.common.key_id.as_deref() == Some(id))
            }
            (None, [key]) => Some(key).filter(fits),
            (None, _) => None,
        }
    }
}

/// Whether a key is one to check signatures with, and sound.
fn is_usable(key: &Jwk) -> bool {
    let length = |text: &str| URL_SAFE_NO_PAD.decode(text).map_or(0, |bytes| bytes.len());
    let is_sound = if let AlgorithmParameters::RSA(rsa) = &key.algorithm {
        length(&rsa.n) >= RSA_BYTES_MIN
    } else if let AlgorithmParameters::OctetKeyPair(pair) = &key.algorithm {
        length(&pair.x) == ED25519_BYTES
    } else {
        // With one that is shared others could sign too.
        matches!(key.algorithm, AlgorithmParameters::EllipticCurve(_))
    };
    let is_for_signatures =
        key.common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature);
    let operations = key.common.key_operations.as_ref();
    is_sound && is_for_signatures && operations.is_none_or(|it| it.contains(&KeyOperations::Verify))
}

/// What a token has to be.
#[derive(Debug, Clone, Copy)]
pub struct IdTokenRules<'a> {
    /// What the provider calls itself.
    pub issuer: &'a str,
    /// What the provider calls us.
    pub client_id: &'a str,
    /// What was asked for, so that no other token can stand in the place of this one.
    pub nonce: &'a str,
    /// Now, in milliseconds since 1970 UTC.
    pub now_ms: i64,
}

/// What a good token says of somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdClaims {
    /// What the provider calls them; never another one.
    pub subject: String,
    /// Their address, not empty.
    pub email: Option<String>,
    /// Whether the provider knows the address to be theirs.
    pub email_verified: bool,
    /// What they want to be called, the best one first.
    pub names: Vec<String>,
}

/// Why a token is no good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdTokenError {
    /// It is no JWT with the claims that it has to have.
    #[error("the ID token is not well formed")]
    Malformed,
    /// It is signed in a way that is not taken.
    #[error("the ID token is signed with an algorithm that is not taken")]
    Algorithm,
    /// The provider publishes no such key: perhaps it has a new one.
    #[error("the ID token is signed with a key that the provider does not publish")]
    UnknownKey,
    /// Somebody else signed it, or it was changed.
    #[error("the signature of the ID token is wrong")]
    Signature,
    /// A claim is not what it has to be.
    #[error("the claim `{0}` of the ID token is wrong")]
    Claim(&'static str),
    /// Its time is over.
    #[error("the ID token has expired")]
    Expired,
    /// What the provider publishes as its keys are none.
    #[error("the keys of the provider cannot be read")]
    Keys,
}

/// The claims on the wire; times are whole seconds since 1970 UTC, with a fraction at some providers.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    azp: Option<String>,
    exp: f64,
    iat: f64,
    nbf: Option<f64>,
    nonce: Option<String>,
    #[serde(flatten)]
    told: Told,
}

/// One audience or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// What is told of somebody; also what the endpoint `userinfo` answers.
#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    email: Value,
    #[serde(default)]
    email_verified: Value,
    #[serde(default)]
    preferred_username: Value,
    #[serde(default)]
    nickname: Value,
    #[serde(default)]
    name: Value,
}

impl IdClaims {
    fn new(subject: String, told: &Told) -> Self {
        let text = |value: &Value| {
            let text = value.as_str().map(str::trim).unwrap_or_default();
            (1..=TEXT_BYTES_MAX).contains(&text.len()).then(|| text.to_owned())
        };
        let email_verified = match &told.email_verified {
            Value::Bool(is_verified) => *is_verified,
            // Some providers write it as a text.
            Value::String(text) => text == "true",
            Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => false,
        };
        let names = [&told.preferred_username, &told.nickname, &told.name];
        let names = names.into_iter().filter_map(text).collect();
        Self { subject, email: text(&told.email), email_verified, names }
    }

    /// Reads what the endpoint `userinfo` answers (section 5.3.2).
    ///
    /// # Errors
    /// [`IdTokenError::Malformed`]; [`IdTokenError::Claim`] when it is about somebody else than `subject`.
    pub fn of_userinfo(document: &[u8], subject: &str) -> Result<Self, IdTokenError> {
        #[derive(Deserialize)]
        struct Userinfo {
            sub: String,
            #[serde(flatten)]
            told: Told,
        }
        let userinfo: Userinfo =
            serde_json::from_slice(document).map_err(|_| IdTokenError::Malformed)?;
        if userinfo.sub != subject {
            return Err(IdTokenError::Claim("sub"));
        }
        Ok(Self::new(userinfo.sub, &userinfo.told))
    }
}

/// Checks everything about a token: form, algorithm, key, signature, whose it is, for whom, when, and for
/// which request.
///
/// # Errors
/// [`IdTokenError`], but for `Keys`. After `UnknownKey` it may be good with newer keys.
pub fn verify_id_token(
    token: &str,
    keys: &ProviderKeys,
    rules: IdTokenRules<'_>,
) -> Result<IdClaims, IdTokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(IdTokenError::Malformed);
    }
    let header = header_of(token)?;
    if !TAKEN.contains(&header.alg) {
        return Err(IdTokenError::Algorithm);
    }
    let key = keys.find(header.kid.as_deref(), header.alg).ok_or(IdTokenError::UnknownKey)?;
    let key = DecodingKey::from_jwk(key).map_err(|_| IdTokenError::UnknownKey)?;
    let claims = signed(token, &key, header.alg)?;
    check(&claims, rules)?;
    Ok(IdClaims::new(claims.sub, &claims.told))
}

/// The header of a token, if it demands nothing of us (RFC 7515 section 4.1.11).
fn header_of(token: &str) -> Result<Header, IdTokenError> {
    // An algorithm that the crate does not know, such as `none`, does not parse.
    let header = jsonwebtoken::decode_header(token).map_err(|_| IdTokenError::Malformed)?;
    let is_jwt = header.typ.as_deref().is_none_or(|typ| typ.eq_ignore_ascii_case("jwt"));
    if header.crit.is_some() || !is_jwt { Err(IdTokenError::Malformed) } else { Ok(header) }
}

fn signed(token: &str, key: &DecodingKey, algorithm: Algorithm) -> Result<Claims, IdTokenError> {
    use jsonwebtoken::errors::ErrorKind;
    let mut signature_only = Validation::new(algorithm);
    signature_only.required_spec_claims.clear();
    signature_only.validate_exp = false;
    signature_only.validate_aud = false;
    let decoded = jsonwebtoken::decode::<Value>(token, key, &signature_only);
    let is_malformed = |kind: &ErrorKind| {
        matches!(kind, ErrorKind::Json(_) | ErrorKind::Base64(_) | ErrorKind::Utf8(_))
    };
    let decoded = decoded.map_err(|error| {
        if is_malformed(error.kind()) { IdTokenError::Malformed } else { IdTokenError::Signature }
    })?;
    serde_json::from_value(decoded.claims).map_err(|_| IdTokenError::Malformed)
}

fn check(claims: &Claims, rules: IdTokenRules<'_>) -> Result<(), IdTokenError> {
    let IdTokenRules { issuer, client_id, nonce, now_ms } = rules;
    let require = |is_right: bool, name: &'static str| {
        if is_right { Ok(()) } else { Err(IdTokenError::Claim(name)) }
    };
    require(claims.iss == issuer, "iss")?;
    let (is_for_us, is_for_others) = match &claims.aud {
        Audience::One(audience) => (audience == client_id, false),
        Audience::Several(all) => {
            (all.iter().any(|it| it == client_id), all.iter().any(|it| it != client_id))
        }
    };
    require(is_for_us, "aud")?;
    // A token for several has to name the one that asked for it.
    let azp = claims.azp.as_deref();
    require(azp.map_or(!is_for_others, |azp| azp == client_id), "azp")?;
    require(is_subject(&claims.sub), "sub")?;
    let given = claims.nonce.as_deref().unwrap_or_default();
    require(bool::from(given.as_bytes().ct_eq(nonce.as_bytes())), "nonce")?;
    #[expect(clippy::cast_precision_loss, reason = "milliseconds are exact for 200,000 years")]
    let (now, leeway) = (now_ms as f64 / 1000.0, LEEWAY_MS as f64 / 1000.0);
    require(claims.iat <= now + leeway, "iat")?;
    require(claims.nbf.is_none_or(|nbf| nbf <= now + leeway), "nbf")?;
    if claims.exp + leeway <= now { Err(IdTokenError::Expired) } else { Ok(()) }
}

/// Whether a text can be what a provider calls somebody.
fn is_subject(text: &str) -> bool {
    (1..=SUBJECT_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
}

#[cfg(test)]
#[path = "id_token_tests.rs"]
mod tests;
