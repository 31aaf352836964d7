//! Tokens of end users, signed with keys made on the spot: right ones, and wrong ones of every kind. It shares no code
//! with what verifies them.

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
        RSA_PSS_SHA256, RsaKeyPair,
    },
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

pub const ISSUER: &str = "https://id.example";
pub const AUDIENCE: &str = "mxgate-test";

/// An issuer's key.
pub struct Signer {
    pub kid: &'static str,
    pub algorithm: &'static str,
    key: Key,
}

enum Key {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    pub fn rsa(kid: &'static str) -> Self {
        Self { kid, algorithm: "RS256", key: Key::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()) }
    }

    pub fn ec(kid: &'static str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { kid, algorithm: "ES256", key: Key::Ec(key) }
    }

    pub fn ed(kid: &'static str) -> Self {
        Self { kid, algorithm: "EdDSA", key: Key::Ed(Ed25519KeyPair::generate().unwrap()) }
    }

    /// What of it is published.
    pub fn jwk(&self) -> Value {
        let public = self.public();
        match &self.key {
            Key::Rsa(_) => {
                // RFC 8017, A.1.1: a sequence of two integers; 2048 bits begin with a zero byte.
                let (modulus, exponent) = (&public[9..265], &public[267..270]);
                json!({ "kty": "RSA", "kid": self.kid, "use": "sig", "n": encode(modulus), "e": encode(exponent) })
            }
            Key::Ec(_) => {
                let (x, y) = (&public[1..33], &public[33..65]);
                json!({ "kty": "EC", "kid": self.kid, "crv": "P-256", "x": encode(x), "y": encode(y) })
            }
            Key::Ed(_) => json!({ "kty": "OKP", "kid": self.kid, "crv": "Ed25519", "x": encode(public) }),
        }
    }

    /// The public key's bytes.
    pub fn public(&self) -> &[u8] {
        match &self.key {
            Key::Rsa(key) => key.public_key().as_ref(),
            Key::Ec(key) => key.public_key().as_ref(),
            Key::Ed(key) => key.public_key().as_ref(),
        }
    }

    /// The public key as PEM.
    pub fn public_pem(&self) -> String {
        let der = match &self.key {
            Key::Rsa(key) => AsDer::<PublicKeyX509Der<'_>>::as_der(key.public_key()),
            Key::Ec(key) => key.public_key().as_der(),
            Key::Ed(key) => key.public_key().as_der(),
        };
        let text = STANDARD.encode(der.unwrap().as_ref());
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    /// A token with these claims, as an issuer makes it.
    pub fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "alg": self.algorithm, "kid": self.kid, "typ": "JWT" }), claims)
    }

    /// The same with a header of the test's own. An RSA key signs as the header says, PKCS #1 or PSS.
    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        self.token_of_texts(&header.to_string(), &claims.to_string())
    }

    /// The same for texts, which may be what no `Value` can be.
    pub fn token_of_texts(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let message = signed.as_bytes();
        let signature = match &self.key {
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                let how = if header.contains("PS256") { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                key.sign(how, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Key::Ec(key) => key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Key::Ed(key) => key.sign(message).as_ref().to_vec(),
        };
        format!("{signed}.{}", encode(&signature))
    }
}

/// A token that is signed with a shared secret.
pub fn hs256(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let signed = signed_part(header, claims);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", encode(tag.as_ref()))
}

/// A token that nobody signed.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.", signed_part(header, claims))
}

/// The set that an issuer with these keys publishes.
pub fn jwks(signers: &[&Signer]) -> String {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() }).to_string()
}

/// Claims that are right, for this user.
pub fn claims(user: &str) -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": user, "exp": now() + 600, "nbf": now() - 5, "iat": now() })
}

/// The same with one claim changed, or without it.
pub fn claims_but(user: &str, name: &str, value: Value) -> Value {
    let mut claims = claims(user);
    match value {
        Value::Null => _ = claims.as_object_mut().unwrap().remove(name),
        value => claims[name] = value,
    }
    claims
}

pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn signed_part(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()))
}
