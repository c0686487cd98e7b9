use jsonwebtoken::EncodingKey;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: i64 = 1_790_000_000_000;
const SECONDS: i64 = NOW / 1_000;
const RULES: IdTokenRules<'_> =
    IdTokenRules { issuer: "https://i.example", client_id: "iris", nonce: "n-1", now_ms: NOW };

/// A key of each kind, with the algorithm that it signs with.
fn signers() -> [(Algorithm, EncodingKey); 3] {
    let rsa = EncodingKey::from_rsa_der(include_bytes!("../tests/keys/rsa.der"));
    let ec = EncodingKey::from_ec_der(include_bytes!("../tests/keys/ec.der"));
    let ed = EncodingKey::from_ed_der(include_bytes!("../tests/keys/ed.der"));
    [(Algorithm::RS256, rsa), (Algorithm::ES256, ec), (Algorithm::EdDSA, ed)]
}

/// The public key, as a provider publishes it.
fn published(id: &str, algorithm: Algorithm, key: &EncodingKey) -> Value {
    let mut key = json!(Jwk::from_encoding_key(key, algorithm).unwrap());
    key["kid"] = id.into();
    key["use"] = "sig".into();
    key
}

fn keys() -> ProviderKeys {
    let all =
        signers().map(|(algorithm, key)| published(&format!("{algorithm:?}"), algorithm, &key));
    ProviderKeys::read(json!({ "keys": all }).to_string().as_bytes()).unwrap()
}

fn claims() -> Value {
    json!({ "iss": "https://i.example", "aud": "iris", "sub": "ann", "nonce": "n-1",
            "iat": SECONDS, "exp": SECONDS + 300, "email": "ann@example.com",
            "email_verified": true, "preferred_username": "ann", "name": "Ann Example" })
}

/// `base` with other fields; null takes one away.
fn with(mut base: Value, other: &Value) -> Value {
    let fields = base.as_object_mut().unwrap();
    for (name, value) in other.as_object().unwrap() {
        if value.is_null() {
            fields.remove(name)
        } else {
            fields.insert(name.clone(), value.clone())
        };
    }
    base
}

fn token(header: &Value, claims: &Value, key: &EncodingKey) -> String {
    let header: Header = serde_json::from_value(header.clone()).unwrap();
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

/// A token of the elliptic curve with other claims.
fn signed_with(other: &Value) -> String {
    let [_, (_, key), _] = signers();
    token(&json!({ "alg": "ES256", "kid": "ES256" }), &with(claims(), other), &key)
}

fn verify(token: &str) -> Result<IdClaims, IdTokenError> {
    verify_id_token(token, &keys(), RULES)
}

#[test]
fn a_token_of_each_algorithm_is_good() {
    for (algorithm, key) in signers() {
        let name = format!("{algorithm:?}");
        let token = token(&json!({ "alg": name, "kid": name, "typ": "JWT" }), &claims(), &key);
        let expected = IdClaims {
            subject: "ann".to_owned(),
            email: Some("ann@example.com".to_owned()),
            email_verified: true,
            names: vec!["ann".to_owned(), "Ann Example".to_owned()],
        };
        assert_eq!(verify(&token), Ok(expected), "{name}");
    }
}

#[test]
fn claims_that_are_not_what_was_asked_for_are_refused() {
    use IdTokenError::{Claim, Expired, Malformed};
    for (other, expected) in [
        (json!({ "iss": "https://i.example/" }), Claim("iss")),
        (json!({ "iss": "https://evil.example" }), Claim("iss")),
        (json!({ "iss": null }), Malformed),
        (json!({ "aud": "other" }), Claim("aud")),
        (json!({ "aud": [] }), Claim("aud")),
        (json!({ "aud": ["other"] }), Claim("aud")),
        (json!({ "aud": null }), Malformed),
        (json!({ "aud": ["iris", "other"] }), Claim("azp")),
        (json!({ "aud": ["iris", "other"], "azp": "other" }), Claim("azp")),
        (json!({ "azp": "other" }), Claim("azp")),
        (json!({ "sub": "" }), Claim("sub")),
        (json!({ "sub": "a".repeat(256) }), Claim("sub")),
        (json!({ "sub": 7 }), Malformed),
        (json!({ "sub": null }), Malformed),
        (json!({ "nonce": "n-2" }), Claim("nonce")),
        (json!({ "nonce": null }), Claim("nonce")),
        (json!({ "nonce": "" }), Claim("nonce")),
        (json!({ "iat": SECONDS + 61 }), Claim("iat")),
        (json!({ "iat": null }), Malformed),
        (json!({ "nbf": SECONDS + 61 }), Claim("nbf")),
        (json!({ "exp": SECONDS - 60 }), Expired),
        (json!({ "exp": null }), Malformed),
        (json!({ "exp": "never" }), Malformed),
    ] {
        assert_eq!(verify(&signed_with(&other)), Err(expected), "{other}");
    }
}

#[test]
fn claims_at_their_bounds_are_good() {
    for other in [
        json!({ "aud": ["iris"] }),
        json!({ "aud": ["iris", "other"], "azp": "iris" }),
        json!({ "azp": "iris" }),
        json!({ "iat": SECONDS + 60, "nbf": SECONDS + 60 }),
        json!({ "exp": SECONDS - 59 }),
        json!({ "iat": 1.5, "exp": 1e15 }),
        json!({ "sub": "a".repeat(255) }),
    ] {
        assert!(verify(&signed_with(&other)).is_ok(), "{other}");
    }
}

#[test]
fn an_address_is_verified_only_where_the_provider_says_so() {
    for (said, expected) in [
        (json!(true), true),
        (json!("true"), true),
        (json!(false), false),
        (json!("false"), false),
        (json!(1), false),
        (json!(null), false),
    ] {
        let claims = verify(&signed_with(&json!({ "email_verified": said }))).unwrap();
        assert_eq!(claims.email_verified, expected, "{said}");
    }
    let odd = json!({ "email": 7, "name": "", "preferred_username": [] });
    let claims = verify(&signed_with(&odd)).unwrap();
    assert_eq!((claims.email, claims.names), (None, Vec::new()));
}

#[test]
fn no_token_decides_how_it_is_checked() {
    let [(_, rsa), (_, ec), (_, ed)] = signers();
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    for none in ["none", "None", "NONE", ""] {
        let unsigned =
            format!("{}.{}.", encode(&json!({ "alg": none, "kid": "RS256" })), encode(&claims()));
        assert_eq!(verify(&unsigned), Err(IdTokenError::Malformed), "{none}");
    }
    // Signed with what everybody can read.
    let public = published("RS256", Algorithm::RS256, &rsa);
    let modulus = URL_SAFE_NO_PAD.decode(public["n"].as_str().unwrap()).unwrap();
    for secret in [modulus.as_slice(), b"iris", b""] {
        let key = EncodingKey::from_secret(secret);
        let forged = token(&json!({ "alg": "HS256", "kid": "RS256" }), &claims(), &key);
        assert_eq!(verify(&forged), Err(IdTokenError::Algorithm));
    }
    let unknown = IdTokenError::UnknownKey;
    for (header, key, expected) in [
        (json!({ "alg": "ES256", "kid": "other" }), &ec, unknown.clone()),
        (json!({ "alg": "ES256", "kid": "../ES256" }), &ec, unknown.clone()),
        (json!({ "alg": "ES256" }), &ec, unknown.clone()),
        // The key is there, for another algorithm.
        (json!({ "alg": "EdDSA", "kid": "ES256" }), &ed, unknown.clone()),
        (json!({ "alg": "PS256", "kid": "RS256" }), &rsa, unknown),
        (json!({ "alg": "ES256", "kid": "ES256", "crit": ["b64"] }), &ec, IdTokenError::Malformed),
        (json!({ "alg": "ES256", "kid": "ES256", "typ": "at+jwt" }), &ec, IdTokenError::Malformed),
    ] {
        assert_eq!(verify(&token(&header, &claims(), key)), Err(expected), "{header}");
    }
    // A key that it brings along is not looked at.
    let jwk = published("mine", Algorithm::EdDSA, &ed);
    let header =
        json!({ "alg": "EdDSA", "kid": "mine", "jwk": jwk, "jku": "https://evil.example/" });
    assert_eq!(verify(&token(&header, &claims(), &ed)), Err(IdTokenError::UnknownKey));
}

#[test]
fn a_token_that_names_no_key_is_good_where_there_is_only_one() {
    let [(_, rsa), (_, ec), (_, ed)] = signers();
    let of =
        |keys: Value| ProviderKeys::read(json!({ "keys": keys }).to_string().as_bytes()).unwrap();
    let nameless = |key: Value| with(key, &json!({ "kid": null }));
    let [rsa_key, ec_key] = [(Algorithm::RS256, &rsa), (Algorithm::ES256, &ec)]
        .map(|(algorithm, key)| published("one", algorithm, key));
    let unnamed = token(&json!({ "alg": "ES256" }), &claims(), &ec);
    let check = |token: &str, keys: Value| {
        verify_id_token(token, &of(keys), RULES).map(|claims| claims.subject)
    };
    let ann = Ok("ann".to_owned());
    assert_eq!(check(&unnamed, json!([ec_key])), ann);
    assert_eq!(check(&unnamed, json!([nameless(ec_key.clone())])), ann);
    // Of keys that are for something else there may be more.
    let for_secrets = with(rsa_key.clone(), &json!({ "use": "enc" }));
    assert_eq!(check(&unnamed, json!([for_secrets, ec_key])), ann);

    let unknown = Err(IdTokenError::UnknownKey);
    assert_eq!(check(&unnamed, json!([])), unknown);
    for two in [json!([ec_key, rsa_key]), json!([ec_key, nameless(ec_key.clone())])] {
        assert_eq!(check(&unnamed, two), unknown);
    }
    // It is for another algorithm, or another key signed.
    let for_other = with(ec_key.clone(), &json!({ "alg": "ES384" }));
    assert_eq!(check(&unnamed, json!([for_other])), unknown);
    let of_other = token(&json!({ "alg": "EdDSA" }), &claims(), &ed);
    assert_eq!(check(&of_other, json!([ec_key])), unknown);
    let for_any = with(ec_key.clone(), &json!({ "alg": null }));
    assert_eq!(check(&of_other, json!([for_any])), Err(IdTokenError::Signature));
    // A name that is not there is not the same as none.
    let named = token(&json!({ "alg": "ES256", "kid": "two" }), &claims(), &ec);
    assert_eq!(check(&named, json!([ec_key])), unknown);
    assert_eq!(check(&named, json!([nameless(ec_key.clone())])), unknown);
}

#[test]
fn what_was_changed_or_is_no_token_is_refused() {
    let good = signed_with(&json!({}));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let other = URL_SAFE_NO_PAD.encode(with(claims(), &json!({ "sub": "root" })).to_string());
    let swapped = format!("{header}.{other}.{signature}");
    assert_eq!(verify(&swapped), Err(IdTokenError::Signature));
    assert_eq!(verify(&format!("{signed}.")), Err(IdTokenError::Signature));
    for bad in ["", ".", "..", "a.b.c", signed, &good[1..], &"x".repeat(TOKEN_BYTES_MAX + 1)] {
        assert!(verify(bad).is_err(), "{bad}");
    }
}

#[test]
fn keys_that_are_none_are_left_out() {
    let [(_, rsa), _, (_, ed)] = signers();
    let rsa = published("RS256", Algorithm::RS256, &rsa);
    let ed = published("EdDSA", Algorithm::EdDSA, &ed);
    let count = |keys: Value| {
        ProviderKeys::read(json!({ "keys": keys }).to_string().as_bytes()).unwrap().0.len()
    };
    assert_eq!(count(json!([rsa, ed])), 2);
    for bad in [
        with(rsa.clone(), &json!({ "use": "enc" })),
        with(rsa.clone(), &json!({ "n": "AQAB" })),
        with(rsa.clone(), &json!({ "key_ops": ["sign"] })),
        with(rsa.clone(), &json!({ "kty": "RSA", "n": 7 })),
        // Shorter than the library expects.
        with(ed.clone(), &json!({ "x": "AQAB" })),
        json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "RS256", "alg": "HS256" }),
        json!({ "kty": "new", "kid": "RS256" }),
        json!("no key"),
    ] {
        assert_eq!(count(json!([bad, rsa])), 1, "{bad}");
    }
    for bad in ["", "[]", "{}", r#"{"keys": {}}"#] {
        assert_eq!(ProviderKeys::read(bad.as_bytes()).unwrap_err(), IdTokenError::Keys, "{bad}");
    }
}

#[test]
fn what_userinfo_tells_is_of_the_same_person() {
    let told = json!({ "sub": "ann", "email": "a@b.c", "email_verified": true, "nickname": "a" });
    let claims = IdClaims::of_userinfo(told.to_string().as_bytes(), "ann").unwrap();
    assert_eq!((claims.email.as_deref(), claims.email_verified), (Some("a@b.c"), true));
    assert_eq!(claims.names, ["a"]);
    let other = IdClaims::of_userinfo(told.to_string().as_bytes(), "ben");
    assert_eq!(other, Err(IdTokenError::Claim("sub")));
    assert_eq!(IdClaims::of_userinfo(b"{}", "ann"), Err(IdTokenError::Malformed));
}

proptest! {
    #[test]
    fn whatever_a_provider_sends_is_read(token in "\\PC{0,80}", document in "\\PC{0,80}") {
        prop_assert!(verify(&token).is_err());
        ProviderKeys::read(document.as_bytes()).ok();
    }
}
