//! Each token that is right beside those that differ from it in one thing.

use serde_json::json;
use tokens::{AUDIENCE, ISSUER, Signer, claims, claims_but, encode, hs256, jwks, now, unsigned};

use super::*;
use crate::config::KeysAt;

#[allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "shared with the integration tests")]
#[path = "../../../tests/it/tokens.rs"]
mod tokens;

const USER: &str = "USR-1";

/// An end user's rule with these keys, in a folder that lives as long.
struct Bound {
    end_user: EndUser,
    remembered: Remembered,
    folder: tempfile::TempDir,
}

impl Bound {
    fn new(keys: &str, change: impl FnOnce(&mut config::EndUser, &std::path::Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("jwks"), keys).unwrap();
        let mut settings = config::EndUser {
            header: HeaderName::from_static("x-token"),
            issuer: ISSUER.into(),
            audience: AUDIENCE.into(),
            jwks: KeysAt::File(folder.path().join("jwks")),
            ca_file: None,
            algorithms: vec![Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA],
            claim: "sub".into(),
            user_map_file: None,
            leeway: Duration::from_secs(30),
        };
        change(&mut settings, folder.path());
        let end_user = EndUser::new(&settings, &mut Vec::new()).unwrap();
        Self { end_user, remembered: Remembered::default(), folder }
    }

    fn ask(&mut self, token: &str) -> Result<String, Reason> {
        let mut headers = HeaderMap::new();
        headers.insert("x-token", token.parse().unwrap());
        self.ask_with(&headers)
    }

    fn ask_with(&mut self, headers: &HeaderMap) -> Result<String, Reason> {
        let user = self.end_user.identify(CallerIndex::of(0), headers, &mut self.remembered);
        user.map(|user| user.to_string())
    }
}

fn bound(signers: &[&Signer]) -> Bound {
    Bound::new(&jwks(signers), |_, _| ())
}

#[test]
fn tokens_of_every_kind_of_key_are_verified() {
    let signers = [Signer::rsa("r"), Signer::ec("e"), Signer::ed("d")];
    let mut bound = bound(&signers.each_ref());
    for signer in &signers {
        assert_eq!(bound.ask(&signer.token(&claims(USER))), Ok(USER.into()), "{}", signer.algorithm);
        let stranger = match signer.kid {
            "r" => Signer::rsa("r"),
            "e" => Signer::ec("e"),
            _ => Signer::ed("d"),
        };
        let forged = stranger.token(&claims(USER));
        assert_eq!(bound.ask(&forged), Err(Reason::TokenSignature), "{}", signer.algorithm);
    }
    let pss = signers[0].token_with(&json!({ "alg": "PS256", "kid": "r" }), &claims(USER));
    assert_eq!(bound.ask(&pss), Ok(USER.into()));
}

#[test]
fn every_claim_must_be_right() {
    let signer = Signer::ec("e");
    let mut bound = bound(&[&signer]);
    for (name, value) in [
        ("aud", json!(["other", AUDIENCE])),
        ("exp", json!(now() - 10)),
        ("nbf", json!(now() + 10)),
        ("nbf", json!(null)),
        ("iat", json!(null)),
        ("exp", json!(now() as f64 + 99.5)),
    ] {
        let token = signer.token(&claims_but(USER, name, value.clone()));
        assert_eq!(bound.ask(&token), Ok(USER.into()), "{name} {value}");
    }
    for (name, value, reason) in [
        ("exp", json!(now() - 60), Reason::TokenExpired),
        ("exp", json!(null), Reason::TokenClaim),
        ("exp", json!("2099"), Reason::TokenClaim),
        ("exp", json!(-1), Reason::TokenClaim),
        ("nbf", json!(now() + 60), Reason::TokenEarly),
        ("nbf", json!("x"), Reason::TokenClaim),
        ("iss", json!("https://other.example"), Reason::TokenIssuer),
        ("iss", json!(format!("{ISSUER}/")), Reason::TokenIssuer),
        ("iss", json!(null), Reason::TokenClaim),
        ("iss", json!(1), Reason::TokenClaim),
        ("aud", json!("other"), Reason::TokenAudience),
        ("aud", json!([]), Reason::TokenAudience),
        ("aud", json!(null), Reason::TokenClaim),
        ("sub", json!(null), Reason::TokenClaim),
        ("sub", json!(1), Reason::TokenClaim),
        ("sub", json!([USER]), Reason::TokenMalformed),
    ] {
        let token = signer.token(&claims_but(USER, name, value.clone()));
        assert_eq!(bound.ask(&token), Err(reason), "{name} {value}");
    }
    let twice = format!(r#"{{"sub":"USR-2",{}"#, &claims(USER).to_string()[1..]);
    let header = json!({ "alg": "ES256", "kid": "e" }).to_string();
    // Signed as it stands: `serde_json` would keep one of the two.
    assert_eq!(bound.ask(&signer.token_of_texts(&header, &twice)), Err(Reason::TokenMalformed));
}

#[test]
fn no_algorithm_is_mistaken_for_another() {
    let (rsa, ec) = (Signer::rsa("r"), Signer::ec("e"));
    let mut bound = bound(&[&rsa, &ec]);
    let claims = claims(USER);
    let header = |algorithm: &str, kid: &str| json!({ "alg": algorithm, "kid": kid });
    for none in ["none", "None", "NONE", ""] {
        let token = unsigned(&header(none, "r"), &claims);
        assert_eq!(bound.ask(&token), Err(Reason::TokenMalformed), "{none}");
    }
    // The public key, in each form that it is published in, as the secret of an HMAC.
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", encode(rsa.public()));
    let modulus = rsa.jwk()["n"].as_str().unwrap().to_owned();
    for secret in [rsa.public(), ec.public(), pem.as_bytes(), modulus.as_bytes(), b""] {
        for kid in ["r", "e"] {
            let token = hs256(&header("HS256", kid), &claims, secret);
            assert_eq!(bound.ask(&token), Err(Reason::TokenAlgorithm));
        }
    }
    for (signer, algorithm, kid, reason) in [
        (&ec, "RS256", "r", Reason::TokenSignature),
        (&rsa, "ES256", "e", Reason::TokenSignature),
        (&ec, "ES256", "r", Reason::TokenKey),
        (&rsa, "RS256", "e", Reason::TokenKey),
        (&rsa, "PS256", "e", Reason::TokenKey),
        (&rsa, "RS512", "r", Reason::TokenAlgorithm),
        (&ec, "ES384", "e", Reason::TokenAlgorithm),
        (&rsa, "XX", "r", Reason::TokenMalformed),
    ] {
        let token = signer.token_with(&header(algorithm, kid), &claims);
        assert_eq!(bound.ask(&token), Err(reason), "{algorithm} {kid}");
    }
    // PKCS #1 under the name of PSS, and the reverse.
    let token = rsa.token_with(&header("PS256", "r"), &claims);
    let (_, signature) = token.rsplit_once('.').unwrap();
    let signed = unsigned(&header("RS256", "r"), &claims);
    assert_eq!(bound.ask(&format!("{signed}{signature}")), Err(Reason::TokenSignature));
}

#[test]
fn a_kid_names_a_key_of_the_set_and_nothing_else() {
    let (one, two, stranger) = (Signer::ec("one"), Signer::ec("two"), Signer::ec("one"));
    let mut bound = bound(&[&one, &two]);
    let claims = claims(USER);
    let with = |signer: &Signer, header| signer.token_with(&header, &claims);
    assert_eq!(bound.ask(&with(&two, json!({ "alg": "ES256", "kid": "two" }))), Ok(USER.into()));
    for (header, reason) in [
        (json!({ "alg": "ES256", "kid": "one" }), Reason::TokenSignature),
        (json!({ "alg": "ES256", "kid": "TWO" }), Reason::TokenKey),
        (json!({ "alg": "ES256", "kid": "" }), Reason::TokenKey),
        (json!({ "alg": "ES256", "kid": "../two" }), Reason::TokenKey),
        (json!({ "alg": "ES256", "kid": "/dev/null" }), Reason::TokenKey),
        (json!({ "alg": "ES256", "kid": "' OR 1=1 --" }), Reason::TokenKey),
        (json!({ "alg": "ES256" }), Reason::TokenKey),
        (json!({ "alg": "ES256", "kid": 2 }), Reason::TokenMalformed),
        (json!({ "alg": "ES256", "kid": "two", "crit": ["b64"], "b64": false }), Reason::TokenMalformed),
    ] {
        assert_eq!(bound.ask(&with(&two, header.clone())), Err(reason), "{header}");
    }
    // A key that the token brings along is not looked at.
    let own =
        json!({ "alg": "ES256", "kid": "one", "jwk": stranger.jwk(), "jku": "https://evil.example/jwks" });
    assert_eq!(bound.ask(&with(&stranger, own)), Err(Reason::TokenSignature));
}

#[test]
fn what_is_no_token_is_none() {
    let signer = Signer::ec("e");
    let mut bound = bound(&[&signer]);
    let token = signer.token(&claims(USER));
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let flipped =
        format!("{signed}.{}{}", if signature.starts_with('A') { 'B' } else { 'A' }, &signature[1..]);
    assert_eq!(bound.ask(&flipped), Err(Reason::TokenSignature));
    for wrong in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        signed,
        &format!("{token}."),
        &format!(".{token}"),
        &format!("{token}."),
        &format!("Bearer {token}"),
        &format!("{token}, {token}"),
        &format!("{token}="),
    ] {
        assert!(bound.ask(wrong).is_err(), "{wrong}");
    }
    assert_eq!(bound.ask_with(&HeaderMap::new()), Err(Reason::TokenAbsent));
    let mut twice = HeaderMap::new();
    twice.append("x-token", token.parse().unwrap());
    assert_eq!(bound.ask_with(&twice), Ok(USER.into()));
    twice.append("x-token", token.parse().unwrap());
    assert_eq!(bound.ask_with(&twice), Err(Reason::TokenRepeated));
}

#[test]
fn a_subject_is_mapped_where_there_is_a_map() {
    let signer = Signer::ec("e");
    let mut bound = Bound::new(&jwks(&[&signer]), |settings, folder| {
        std::fs::write(folder.join("map"), "auth0|7\tUSR-1\n").unwrap();
        settings.user_map_file = Some(folder.join("map"));
        settings.claim = "https://claims.example/customer".into();
    });
    let token = |subject: &str| {
        let claim = "https://claims.example/customer";
        signer.token(&claims_but("USR-2", claim, json!(subject)))
    };
    assert_eq!(bound.ask(&token("auth0|7")), Ok("USR-1".into()));
    assert_eq!(bound.ask(&token("auth0|8")), Err(Reason::NotMapped));
    assert_eq!(bound.ask(&token("USR-1")), Err(Reason::NotMapped), "the guid itself is no subject");
    assert!(bound.folder.path().exists());
}

#[test]
fn a_verified_token_is_remembered_for_its_caller_and_keys_within_its_time() {
    let mut remembered = Remembered::default();
    let key =
        |digest: u8, caller, keys| TokenKey { digest: [digest; 32], caller: CallerIndex::of(caller), keys };
    let user: Rc<str> = USER.into();
    remembered.put(key(7, 1, 1), 1000, 1020, &user);
    assert_eq!(remembered.get(&key(7, 1, 1), 1000).as_deref(), Some(USER));
    assert_eq!(remembered.get(&key(7, 1, 1), 1019).as_deref(), Some(USER));
    for (key, now) in [
        (key(7, 1, 1), 1020),
        (key(7, 1, 1), 999),
        (key(7, 2, 1), 1000),
        (key(7, 1, 2), 1000),
        (key(8, 1, 1), 1000),
    ] {
        assert_eq!(remembered.get(&key, now), None, "{now}");
    }
    remembered.put(key(9, 1, 1), 1000, 9999, &user);
    assert!(remembered.get(&key(9, 1, 1), 1059).is_some());
    assert!(remembered.get(&key(9, 1, 1), 1060).is_none(), "a minute at most");
    // Good only by its leeway: verified anew each time.
    remembered.put(key(5, 1, 1), 1000, 990, &user);
    assert!(remembered.get(&key(5, 1, 1), 1000).is_none());
    for digest in 0..=255 {
        remembered.put(key(digest, 1, 1), 1000, 1020, &user);
    }
    assert_eq!(remembered.0.len(), SLOTS);
}
