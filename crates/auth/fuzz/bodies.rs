//! What the fuzz targets check; a test runs the same functions over mutations of corpora.

use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use iris_agent::Clock;
use iris_auth::{AccessTokens, ApiKeySecret, SealingKeys, load_or_create_key};
use iris_protocol::{
    AuthSessionId, Command, ErrorCode, Operation, RequestFrame, UserId, from_slice_strict,
};
use serde_json::Value;
use sha2::Sha256;

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
const NOW_MS: i64 = 1_790_000_000_000;
/// How far clocks may differ, in milliseconds.
const LEEWAY_MS: i64 = 5_000;
/// Longest error about a frame, in bytes.
const ERROR_BYTES_MAX: usize = 1_000;

struct Noon;

impl Clock for Noon {
    fn now_ms(&self) -> i64 {
        NOW_MS
    }
}

static TOKENS: LazyLock<AccessTokens> =
    LazyLock::new(|| AccessTokens::new(KEY, Arc::new(Noon)).expect("the key is long enough"));

/// The id of the key, as a header names it.
static KEY_ID: LazyLock<String> = LazyLock::new(|| {
    let issued = TOKENS.issue(&UserId::from_bits(1), &AuthSessionId::from_bits(2), 1);
    let token = issued.expect("it can be issued").token;
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().expect("a part")).expect("base64");
    let header: Value = serde_json::from_slice(&header).expect("json");
    header["kid"].as_str().expect("a key id").to_owned()
});

static SEALING: LazyLock<SealingKeys> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory");
    let key = load_or_create_key(&directory.path().join("key")).expect("a key");
    SealingKeys::new(&key, None).expect("it can be used")
});

/// Any text is no token of ours, no sealed secret, and a key only in the shape of one. Two lines as header and
/// claims of a token that is rightly signed are taken only where both say what they must.
pub(crate) fn tokens(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    assert!(TOKENS.verify_access(&text).is_err(), "{text:?} is taken");
    assert!(SEALING.open(&text, &["a", "b"]).is_err(), "{text:?} is opened");
    assert!(!SEALING.is_outdated(&text), "{text:?} is of a key before");
    if ApiKeySecret::is_well_formed(&text) {
        assert!(ApiKeySecret::is_meant(&text), "{text:?} is a key and none");
    }
    let text = text.replace("KID", &KEY_ID);
    let Some((header, claims)) = text.split_once('\n') else { return };
    let Ok(taken) = TOKENS.verify_access(&signed(header, claims)) else { return };
    let read = |text: &str| serde_json::from_str::<Value>(text).expect("what is taken is JSON");
    let (header, claims) = (read(header), read(claims));
    assert_eq!((&header["alg"], &header["typ"]), (&"HS256".into(), &"JWT".into()));
    assert_eq!(header["kid"], KEY_ID.as_str());
    for name in ["crit", "jku", "jwk", "x5u", "x5c"] {
        assert!(header[name].is_null(), "{header}");
    }
    let names = (&claims["iss"], &claims["aud"], &claims["typ"]);
    assert_eq!(names, (&"iris".into(), &"iris".into(), &"access".into()));
    assert_eq!(claims["sub"], taken.user_id.as_str());
    assert_eq!(claims["sid"], taken.credential.id());
    let seconds = |name: &str| claims[name].as_i64().expect("whole seconds").saturating_mul(1_000);
    assert!(seconds("exp").saturating_add(LEEWAY_MS) > NOW_MS, "{claims}");
    assert!(seconds("iat") <= NOW_MS + LEEWAY_MS, "{claims}");
}

/// A token with any header and claims, signed with our key.
fn signed(header: &str, claims: &str) -> String {
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
    let message = format!("{header}.{claims}");
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY).expect("any length will do");
    mac.update(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// Any bytes are a request or refused in few words; a request reads the same when it is written down again, and
/// so does its command.
pub(crate) fn envelopes(data: &[u8]) {
    if let Ok(strict) = from_slice_strict(data) {
        let theirs: Value = serde_json::from_slice(data).expect("what we read everybody reads");
        assert_eq!(strict, theirs);
    }
    let frame = match RequestFrame::parse(data) {
        Ok(frame) => frame,
        Err(refused) => {
            assert_eq!(refused.error.code, ErrorCode::InvalidRequest);
            assert!(refused.error.message.len() < ERROR_BYTES_MAX, "{}", refused.error);
            return;
        }
    };
    let written = serde_json::to_vec(&frame).expect("it can be written");
    assert_eq!(RequestFrame::parse(&written), Ok(frame.clone()));
    let Ok(operation) = Operation::in_envelope(&frame.r#type) else { return };
    if let Ok(command) = Command::decode(operation, frame.payload) {
        assert_eq!(Command::decode(operation, command.to_value()), Ok(command));
    }
}
