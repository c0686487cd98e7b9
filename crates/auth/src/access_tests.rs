//! Access tokens against forged, broken and outdated ones.

use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Sha256, Sha512};

use super::*;

const KEY: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
const NOW_MS: i64 = 1_790_000_000_000;
const NOW_SECONDS: i64 = NOW_MS / 1_000;

struct TestClock(AtomicI64);

impl TestClock {
    fn advance(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn tokens() -> (AccessTokens, Arc<TestClock>) {
    let clock = Arc::new(TestClock(AtomicI64::new(NOW_MS)));
    (AccessTokens::new(KEY, clock.clone()).unwrap(), clock)
}

fn user() -> UserId {
    UserId::from_bits(7)
}

fn login() -> AuthSessionId {
    AuthSessionId::from_bits(8)
}

fn good_header() -> Value {
    json!({"alg": "HS256", "typ": "JWT", "kid": SigningKey::new(KEY).unwrap().id})
}

fn good_claims() -> Value {
    json!({"iss": "iris", "aud": "iris", "sub": user(), "sid": login(), "ver": 3, "typ": "access",
        "iat": NOW_SECONDS, "exp": NOW_SECONDS + 900})
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A token with any header and claims, rightly signed with our key.
fn forge(header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY).unwrap();
    mac.update(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

fn with(mut value: Value, key: &str, new: Value) -> Value {
    value[key] = new;
    value
}

fn without(mut value: Value, key: &str) -> Value {
    value.as_object_mut().unwrap().remove(key);
    value
}

#[track_caller]
fn assert_invalid(token: &str, what: &str) {
    let result = tokens().0.verify_access(token);
    assert!(matches!(result, Err(AuthError::Invalid)), "{what}: {result:?}");
}

#[test]
fn an_issued_token_says_who_it_is_for() {
    let (tokens, _) = tokens();
    let issued = tokens.issue(&user(), &login(), 3).unwrap();
    assert_eq!(issued.expires_at_ms, NOW_MS + 15 * 60 * 1_000);
    let expected = AccessClaims {
        user_id: user(),
        credential: Credential::Login(login()),
        epoch: 3,
        expires_at_ms: issued.expires_at_ms,
    };
    assert_eq!(tokens.verify_access(&issued.token).unwrap(), expected);
    assert_eq!(tokens.verify_access(&forge(&good_header(), &good_claims())).unwrap(), expected);
}

#[test]
fn a_token_expires_after_its_lifetime_and_five_seconds() {
    let (tokens, clock) = tokens();
    let tokens = tokens.lifetime(Duration::from_mins(1));
    let issued = tokens.issue(&user(), &login(), 1).unwrap();
    clock.advance(60_000 + LEEWAY_MS - 1);
    tokens.verify_access(&issued.token).unwrap();
    clock.advance(1);
    assert!(matches!(tokens.verify_access(&issued.token), Err(AuthError::Expired)));
}

#[test]
fn every_required_claim_is_required_and_typed() {
    for claim in ["exp", "iat", "sub", "aud", "iss", "sid", "ver", "typ"] {
        assert_invalid(&forge(&good_header(), &without(good_claims(), claim)), claim);
        for wrong in [json!(null), json!([]), json!({}), json!("soon"), json!(1.5)] {
            let claims = with(good_claims(), claim, wrong.clone());
            assert_invalid(&forge(&good_header(), &claims), &format!("{claim} = {wrong}"));
        }
    }
}

#[test]
fn a_claim_with_a_wrong_value_is_refused() {
    for (claim, wrong) in [
        ("iss", json!("evil")),
        ("aud", json!("refresh")),
        ("aud", json!(["iris", "evil"])),
        ("typ", json!("refresh")),
        ("sub", json!("usr_7")),
        ("sid", json!(user())),
        ("exp", json!((NOW_SECONDS + 900).to_string())),
        ("exp", json!(u64::MAX)),
        ("iat", json!(NOW_SECONDS + 86_400)),
        ("iat", json!(NOW_SECONDS + 6)),
        ("nbf", json!(NOW_SECONDS + 6)),
        ("nbf", json!("now")),
    ] {
        let claims = with(good_claims(), claim, wrong.clone());
        assert_invalid(&forge(&good_header(), &claims), &format!("{claim} = {wrong}"));
    }
}

#[test]
fn clocks_may_differ_by_the_leeway() {
    for claim in ["iat", "nbf"] {
        let claims = with(good_claims(), claim, json!(NOW_SECONDS + 5));
        tokens().0.verify_access(&forge(&good_header(), &claims)).unwrap();
    }
}

#[test]
fn a_foreign_token_is_invalid_even_when_its_time_is_over() {
    let expired = with(good_claims(), "exp", json!(NOW_SECONDS - 30));
    assert!(matches!(
        tokens().0.verify_access(&forge(&good_header(), &expired)),
        Err(AuthError::Expired)
    ));
    assert_invalid(&forge(&good_header(), &with(expired, "aud", json!("other"))), "aud");
}

#[test]
fn only_hs256_without_critical_extensions_is_accepted() {
    for header in [
        with(good_header(), "alg", json!("none")),
        with(good_header(), "alg", json!("None")),
        with(good_header(), "alg", json!("HS512")),
        with(good_header(), "alg", json!("RS256")),
        without(good_header(), "alg"),
        with(good_header(), "crit", json!(["exp"])),
        with(good_header(), "crit", json!([])),
        with(good_header(), "crit", json!("b64")),
    ] {
        assert_invalid(&forge(&header, &good_claims()), &header.to_string());
    }
}

/// A5 of the threat model.
#[test]
fn a_header_that_names_another_key_is_refused() {
    let other = SigningKey::new(&[9; 32]).unwrap().id;
    for kid in ["", "../../dev/null", "/dev/null", "' OR 1=1", "0", other.as_str()] {
        assert_invalid(&forge(&with(good_header(), "kid", json!(kid)), &good_claims()), kid);
    }
    assert_invalid(&forge(&without(good_header(), "kid"), &good_claims()), "no kid");
    assert_invalid(&forge(&with(good_header(), "kid", json!([])), &good_claims()), "a list");
    let jwk = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(KEY)});
    for (name, value) in [
        ("jku", json!("https://evil.example/keys")),
        ("jwk", jwk),
        ("x5u", json!("https://evil.example/chain")),
        ("x5c", json!(["MIIB"])),
        ("typ", json!("at+jwt")),
    ] {
        assert_invalid(&forge(&with(good_header(), name, value), &good_claims()), name);
    }
    assert_invalid(&forge(&without(good_header(), "typ"), &good_claims()), "no type");
}

/// A5 and A6 of the threat model: what readers of tokens were ever led astray by, rightly signed with our key.
#[test]
fn a_token_that_can_be_read_in_two_ways_is_refused() {
    let signed = |header: &str, claims: &str| {
        let message =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let mut mac = Hmac::<Sha256>::new_from_slice(KEY).unwrap();
        mac.update(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    };
    let (header, claims) = (good_header().to_string(), good_claims().to_string());
    tokens().0.verify_access(&signed(&header, &claims)).unwrap();
    let also = |text: &str, field: &str| text.replacen('{', &format!("{{{field},"), 1);
    for (header, claims) in [
        (also(&header, r#""alg":"none""#), claims.clone()),
        (also(&header, r#""kid":"0""#), claims.clone()),
        (header.clone(), also(&claims, r#""aud":"evil""#)),
        (header.clone(), also(&claims, &format!(r#""sub":"{}""#, UserId::from_bits(9)))),
        (header.clone(), also(&claims, r#""exp":1"#)),
        (header.clone(), format!("{claims}{claims}")),
        (header.clone(), format!("[{claims}]")),
        (format!("[{header}]"), claims.clone()),
        (String::new(), claims.clone()),
        (header.clone(), String::new()),
    ] {
        assert_invalid(&signed(&header, &claims), &format!("{header} {claims}"));
    }
    for alg in ["hs256", "HS384", "RS384", "PS256", "ES256", "ES384", "EdDSA", "HS256 ", "nOnE"] {
        assert_invalid(&forge(&with(good_header(), "alg", json!(alg)), &good_claims()), alg);
    }
    for exp in [json!(-1), json!(i64::MIN), json!(0)] {
        let past = forge(&good_header(), &with(good_claims(), "exp", exp.clone()));
        assert!(matches!(tokens().0.verify_access(&past), Err(AuthError::Expired)), "{exp}");
    }
    let good = forge(&good_header(), &good_claims());
    let parts: Vec<&str> = good.split('.').collect();
    for text in [
        format!(" {good}"),
        format!("{good} "),
        format!("{good}\n"),
        format!("{good}="),
        format!("{good}\0"),
        format!("Bearer {good}"),
        good.replace('.', ". "),
        good.replacen('.', "=.", 1),
        // An encrypted token (RFC 7516) has five parts.
        format!("{good}.{}.{}", parts[0], parts[1]),
        format!("{}..{}", parts[0], parts[2]),
        format!(".{}.{}", parts[1], parts[2]),
        good.to_uppercase(),
        format!("{good},{good}"),
    ] {
        assert_invalid(&text, &text);
    }
}

/// A5 of the threat model: the public key of a pair, or any text, as the secret of an HMAC.
#[test]
fn a_token_signed_with_what_everybody_knows_is_refused() {
    for secret in [&b""[..], b"secret", b"-----BEGIN PUBLIC KEY-----", &[0; 32]] {
        let message = format!("{}.{}", encode(&good_header()), encode(&good_claims()));
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
        mac.update(message.as_bytes());
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()));
        assert_invalid(&token, &String::from_utf8_lossy(secret));
    }
}

#[test]
fn tokens_of_the_key_before_a_rotation_are_good_and_no_new_ones_are_made_with_it() {
    let (old, clock) = tokens();
    let token = old.issue(&user(), &login(), 3).unwrap().token;
    let rotated = AccessTokens::new(&[9; 32], clock.clone()).unwrap();
    assert!(matches!(rotated.verify_access(&token), Err(AuthError::Invalid)));
    let rotated = rotated.previous_key(KEY).unwrap();
    rotated.verify_access(&token).unwrap();
    let new = rotated.issue(&user(), &login(), 3).unwrap().token;
    rotated.verify_access(&new).unwrap();
    assert!(matches!(old.verify_access(&new), Err(AuthError::Invalid)));
    let short = AccessTokens::new(KEY, clock).unwrap().previous_key(&[1; 31]);
    assert!(matches!(short, Err(AuthError::KeyTooShort { found: 31 })));
}

#[test]
fn a_token_without_a_right_signature_is_invalid() {
    let good = forge(&good_header(), &good_claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    assert_invalid(message, "no signature");
    assert_invalid(&format!("{message}."), "empty signature");
    assert_invalid(&format!("{message}.{}", &signature[1..]), "short signature");
    assert_invalid(&format!("{good}.x"), "four parts");

    let mut mac = Hmac::<Sha512>::new_from_slice(KEY).unwrap();
    let message = format!(
        "{}.{}",
        encode(&with(good_header(), "alg", json!("HS512"))),
        encode(&good_claims())
    );
    mac.update(message.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    assert_invalid(&format!("{message}.{signature}"), "rightly signed with HS512");

    let other = AccessTokens::new(&[9; 32], tokens().1).unwrap();
    assert_invalid(&other.issue(&user(), &login(), 3).unwrap().token, "another key");
}

#[test]
fn a_short_key_is_refused() {
    let clock = tokens().1;
    for length in [0, 31] {
        let result = AccessTokens::new(&vec![1; length], clock.clone());
        assert!(matches!(result, Err(AuthError::KeyTooShort { found }) if found == length));
    }
}

proptest! {
    #[test]
    fn a_changed_byte_voids_a_token(position in any::<prop::sample::Index>(), byte in 32_u8..127) {
        let good = forge(&good_header(), &good_claims());
        let mut bytes = good.clone().into_bytes();
        let position = position.index(bytes.len());
        prop_assume!(bytes[position] != byte);
        bytes[position] = byte;
        prop_assert!(tokens().0.verify_access(&String::from_utf8(bytes).unwrap()).is_err());
    }

    #[test]
    fn any_text_is_answered_without_a_panic(text in ".{0,200}") {
        prop_assert!(tokens().0.verify_access(&text).is_err());
    }
}
