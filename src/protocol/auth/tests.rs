//! Tokens good and forged.

use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::authenticator::{AuthError, Authenticated, Authenticator, Credential, TOKEN_BYTES_MAX};
use super::token_signer::TokenSigner;
use crate::config::section::{Auth, AuthKey, AuthMode, TokenAlgorithm};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const NOW_S: u64 = 1_800_000_000;
const ALGORITHMS: [TokenAlgorithm; 4] = [
    TokenAlgorithm::HS256,
    TokenAlgorithm::RS256,
    TokenAlgorithm::ES256,
    TokenAlgorithm::EdDSA,
];

/// A key pair in files.
struct KeyFiles {
    dir: TempDir,
    algorithm: TokenAlgorithm,
    private: Vec<u8>,
    public: Vec<u8>,
}

impl KeyFiles {
    fn generate(algorithm: TokenAlgorithm) -> Self {
        let (private, public) = match algorithm {
            TokenAlgorithm::HS256 => (SECRET.to_vec(), SECRET.to_vec()),
            TokenAlgorithm::RS256 => {
                let pair = signature::RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
                let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
                pems(private.as_ref(), public.as_ref())
            }
            TokenAlgorithm::ES256 => {
                let pair =
                    EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
                pems(pair.to_pkcs8v1().unwrap().as_ref(), public.as_ref())
            }
            TokenAlgorithm::EdDSA => {
                let pair = Ed25519KeyPair::generate().unwrap();
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
                pems(pair.to_pkcs8v1().unwrap().as_ref(), public.as_ref())
            }
        };
        let dir = tempfile::tempdir().unwrap();
        Self {
            dir,
            algorithm,
            private,
            public,
        }
    }

    fn configured(&self, kid: Option<&str>) -> AuthKey {
        let path = self.dir.path().join("key");
        std::fs::write(&path, &self.public).unwrap();
        configured(self.algorithm, kid, path)
    }

    fn signer(&self, kid: Option<&str>) -> TokenSigner {
        TokenSigner::new(self.algorithm, kid.map(Into::into), &self.private).unwrap()
    }
}

fn configured(algorithm: TokenAlgorithm, kid: Option<&str>, path: PathBuf) -> AuthKey {
    let symmetric = algorithm == TokenAlgorithm::HS256;
    AuthKey {
        kid: kid.map(Into::into),
        algorithm,
        secret_file: symmetric.then(|| path.clone()),
        public_key_file: (!symmetric).then_some(path),
    }
}

fn pems(private: &[u8], public: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let pem = |label, der| {
        let body = STANDARD.encode(der);
        let lines: Vec<_> = body
            .as_bytes()
            .chunks(64)
            .map(|line| str::from_utf8(line).unwrap())
            .collect();
        format!(
            "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
            lines.join("\n")
        )
        .into_bytes()
    };
    (pem("PRIVATE KEY", private), pem("PUBLIC KEY", public))
}

fn authenticator(keys: Vec<AuthKey>) -> Authenticator {
    let auth = Auth {
        mode: AuthMode::Jwt,
        keys,
        leeway: Duration::from_secs(60),
        ..Auth::default()
    };
    Authenticator::new(&auth).unwrap()
}

fn show(authenticator: &Authenticator, token: &str) -> Result<Authenticated, AuthError> {
    authenticator.authenticate(Credential::Token(token), NOW_S * 1_000)
}

fn good_claims() -> Value {
    json!({"sub": "tv-1", "exp": NOW_S + 100, "user_id": "ann"})
}

/// The good claims with one changed; `null` removes it.
fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = good_claims();
    let object = claims.as_object_mut().unwrap();
    if value.is_null() {
        object.remove(name);
    } else {
        object.insert(name.into(), value);
    }
    claims
}

fn encode_unsigned(header: &Value, claims: &Value) -> String {
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    format!("{}.{}", part(header), part(claims))
}

#[test]
fn every_algorithm_lets_its_tokens_in() {
    for algorithm in ALGORITHMS {
        let files = KeyFiles::generate(algorithm);
        let authenticator = authenticator(vec![files.configured(None)]);
        let token = files.signer(None).sign(&good_claims()).unwrap();
        let device = show(&authenticator, &token).unwrap();
        assert_eq!(device.identity.device(), "tv-1", "{algorithm:?}");
        assert_eq!(device.identity.account(), Some("ann"));
        assert_eq!(device.expires_ms, Some((NOW_S + 160) * 1_000));

        let (message, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        bytes[5] ^= 1;
        let forged = format!("{message}.{}", URL_SAFE_NO_PAD.encode(bytes));
        assert_eq!(show(&authenticator, &forged), Err(AuthError::BadSignature));
        assert_eq!(
            show(&authenticator, &format!("{message}.")),
            Err(AuthError::BadSignature)
        );
        let other = encode_unsigned(
            &json!({"alg": algorithm.name()}),
            &claims_with("sub", json!("tv-2")),
        );
        assert_eq!(
            show(&authenticator, &format!("{other}.{signature}")),
            Err(AuthError::BadSignature)
        );
    }
}

#[test]
fn claims_are_checked_one_by_one() {
    let files = KeyFiles::generate(TokenAlgorithm::HS256);
    let authenticator = authenticator(vec![files.configured(None)]);
    let nine: Vec<_> = (0..9).map(|i| format!("d{i}")).collect();
    let nine_labels: Value = nine
        .iter()
        .map(|k| (k.clone(), json!("")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let table = [
        ("exp", Value::Null, Err(AuthError::BadClaim)),
        ("exp", json!("9999999999"), Err(AuthError::BadClaim)),
        ("exp", json!(-1), Err(AuthError::BadClaim)),
        ("exp", json!(1e300), Err(AuthError::BadClaim)),
        ("exp", json!([NOW_S]), Err(AuthError::BadClaim)),
        ("exp", json!(0), Err(AuthError::Expired)),
        ("exp", json!(NOW_S - 60), Err(AuthError::Expired)),
        ("exp", json!(NOW_S - 59), Ok(())),
        ("exp", json!(NOW_S as f64 + 0.5), Ok(())),
        ("nbf", json!(NOW_S + 61), Err(AuthError::NotYetValid)),
        ("nbf", json!(NOW_S + 60), Ok(())),
        ("nbf", json!("0"), Err(AuthError::BadClaim)),
        ("sub", Value::Null, Err(AuthError::BadSubject)),
        ("sub", json!(""), Err(AuthError::BadSubject)),
        ("sub", json!("tv 1"), Err(AuthError::BadSubject)),
        ("sub", json!("t\nroot"), Err(AuthError::BadSubject)),
        ("sub", json!("t".repeat(129)), Err(AuthError::BadSubject)),
        ("sub", json!(7), Err(AuthError::BadClaim)),
        ("user_id", Value::Null, Ok(())),
        ("user_id", json!("a/b"), Err(AuthError::BadClaim)),
        ("user_id", json!(""), Err(AuthError::BadClaim)),
        ("labels", json!({"model": "X 1", "os": ""}), Ok(())),
        ("labels", json!({"": "x"}), Err(AuthError::BadClaim)),
        ("labels", json!({"a": "x\ny"}), Err(AuthError::BadClaim)),
        ("labels", json!({"a": "x".repeat(255)}), Ok(())),
        (
            "labels",
            json!({"a": "x".repeat(256)}),
            Err(AuthError::BadClaim),
        ),
        ("labels", nine_labels, Err(AuthError::BadClaim)),
        ("labels", json!({"a": 1}), Err(AuthError::BadClaim)),
        ("may_send_to", json!(["ann", "tv-*", "*"]), Ok(())),
        ("may_send_to", json!(["t*v"]), Err(AuthError::BadClaim)),
        ("may_send_to", json!(["**"]), Err(AuthError::BadClaim)),
        ("may_send_to", json!([""]), Err(AuthError::BadClaim)),
        ("may_send_to", json!(nine), Err(AuthError::BadClaim)),
        ("aud", json!("anyone"), Ok(())),
        ("aud", json!(5), Err(AuthError::BadClaim)),
        ("anything", json!({"else": [1]}), Ok(())),
    ];
    for (name, value, expected) in table {
        let token = files
            .signer(None)
            .sign(&claims_with(name, value.clone()))
            .unwrap();
        assert_eq!(
            show(&authenticator, &token).map(|_| ()),
            expected,
            "{name} {value}"
        );
    }
}

#[test]
fn forged_headers_are_refused() {
    let files = KeyFiles::generate(TokenAlgorithm::RS256);
    let authenticator = authenticator(vec![files.configured(Some("k1"))]);
    let with_header = |header: Value| format!("{}.AAAA", encode_unsigned(&header, &good_claims()));
    // The classic: an HMAC keyed with the public key, which a confused verifier would accept.
    let swap = TokenSigner::new(TokenAlgorithm::HS256, Some("k1".into()), &files.public).unwrap();
    let table = [
        (String::new(), AuthError::Missing),
        ("a".into(), AuthError::Malformed),
        ("..".into(), AuthError::Malformed),
        ("a.b.c".into(), AuthError::Malformed),
        ("é.é.é".into(), AuthError::Malformed),
        ("e30.e30.".into(), AuthError::Malformed),
        ("a".repeat(1 << 20), AuthError::Malformed),
        (with_header(json!([])), AuthError::Malformed),
        (with_header(json!({"alg": 1})), AuthError::Malformed),
        (
            with_header(json!({"alg": "RS256", "kid": 1})),
            AuthError::Malformed,
        ),
        (
            with_header(json!({"alg": "RS256", "crit": ["exp"]})),
            AuthError::Malformed,
        ),
        (
            with_header(json!({"alg": "none"})),
            AuthError::WrongAlgorithm,
        ),
        (
            with_header(json!({"alg": "None", "kid": "k1"})),
            AuthError::WrongAlgorithm,
        ),
        (
            with_header(json!({"alg": "RS512", "kid": "k1"})),
            AuthError::WrongAlgorithm,
        ),
        (
            swap.sign(&good_claims()).unwrap(),
            AuthError::WrongAlgorithm,
        ),
        (
            with_header(json!({"alg": "RS256", "kid": "../../etc/passwd"})),
            AuthError::UnknownKey,
        ),
        (
            with_header(json!({"alg": "RS256", "kid": "k1"})),
            AuthError::BadSignature,
        ),
        (
            with_header(json!({"alg": "RS256", "kid": "k1", "jwk": {"kty": "RSA"}})),
            AuthError::BadSignature,
        ),
    ];
    for (token, expected) in table {
        let shown: String = token.chars().take(80).collect();
        assert_eq!(show(&authenticator, &token), Err(expected), "{shown}");
    }
    let good = files.signer(Some("k1")).sign(&good_claims()).unwrap();
    assert!(show(&authenticator, &good).is_ok());
    assert!(good.len() < TOKEN_BYTES_MAX);
}

#[test]
fn kid_selects_and_without_it_keys_of_the_algorithm_are_tried() {
    let first = KeyFiles::generate(TokenAlgorithm::EdDSA);
    let second = KeyFiles::generate(TokenAlgorithm::EdDSA);
    let hmac = KeyFiles::generate(TokenAlgorithm::HS256);
    let keys = vec![
        hmac.configured(Some("h")),
        first.configured(Some("a")),
        second.configured(Some("b")),
    ];
    let authenticator = authenticator(keys);
    let sign = |files: &KeyFiles, kid| files.signer(kid).sign(&good_claims()).unwrap();
    assert!(show(&authenticator, &sign(&second, Some("b"))).is_ok());
    assert!(show(&authenticator, &sign(&second, None)).is_ok());
    assert_eq!(
        show(&authenticator, &sign(&second, Some("a"))),
        Err(AuthError::BadSignature)
    );
    assert_eq!(
        show(&authenticator, &sign(&second, Some("h"))),
        Err(AuthError::WrongAlgorithm)
    );
    assert_eq!(
        show(&authenticator, &sign(&second, Some("c"))),
        Err(AuthError::UnknownKey)
    );
}

#[test]
fn audience_and_issuer_count_when_configured() {
    let files = KeyFiles::generate(TokenAlgorithm::HS256);
    let auth = Auth {
        mode: AuthMode::Jwt,
        keys: vec![files.configured(None)],
        audience: vec!["push".into(), "push2".into()],
        issuer: vec!["login".into()],
        ..Auth::default()
    };
    let authenticator = Authenticator::new(&auth).unwrap();
    for (aud, iss, expected) in [
        (json!("push"), json!("login"), Ok(())),
        (json!(["x", "push2"]), json!("login"), Ok(())),
        (json!("pus"), json!("login"), Err(AuthError::WrongAudience)),
        (Value::Null, json!("login"), Err(AuthError::WrongAudience)),
        (json!([]), json!("login"), Err(AuthError::WrongAudience)),
        (json!("push"), json!("evil"), Err(AuthError::WrongIssuer)),
        (json!("push"), Value::Null, Err(AuthError::WrongIssuer)),
    ] {
        let mut claims = claims_with("aud", aud.clone());
        if !iss.is_null() {
            claims["iss"] = iss.clone();
        }
        let token = files.signer(None).sign(&claims).unwrap();
        assert_eq!(
            show(&authenticator, &token).map(|_| ()),
            expected,
            "{aud} {iss}"
        );
    }
}

#[test]
fn a_device_names_itself_in_dev_mode_only() {
    let name = |device_id, user_id| Credential::Dev { device_id, user_id };
    let dev = Authenticator::new(&Auth::default()).unwrap();
    let device = dev.authenticate(name("tv-1", Some("ann")), 0).unwrap();
    assert_eq!(
        (device.identity.device(), device.expires_ms),
        ("tv-1", None)
    );
    assert_eq!(
        dev.authenticate(name("tv 1", None), 0),
        Err(AuthError::BadSubject)
    );
    assert_eq!(
        dev.authenticate(name("", None), 0),
        Err(AuthError::BadSubject)
    );
    assert_eq!(
        dev.authenticate(name("tv-1", Some("")), 0),
        Err(AuthError::BadClaim)
    );
    let token = encode_unsigned(&json!({"alg": "HS256"}), &good_claims()) + ".AAAA";
    assert_eq!(show(&dev, &token), Err(AuthError::UnknownKey));
    assert_eq!(
        authenticator(vec![]).authenticate(name("tv-1", None), 0),
        Err(AuthError::Missing)
    );
}

#[test]
fn keys_come_from_a_key_set_too() {
    let secret = KeyFiles::generate(TokenAlgorithm::HS256);
    let set = json!({"keys": [
        {"kty": "oct", "kid": "s", "k": URL_SAFE_NO_PAD.encode(SECRET)},
        {"kty": "oct", "kid": "weak", "k": "AAAA"},
        {"kty": "oct", "kid": "other", "alg": "HS512", "k": URL_SAFE_NO_PAD.encode(SECRET)},
        {"kty": "RSA", "kid": "enc", "use": "enc", "n": "AQAB", "e": "AQAB"},
    ]});
    let path = secret.dir.path().join("jwks.json");
    std::fs::write(&path, set.to_string()).unwrap();
    let auth = Auth {
        mode: AuthMode::Jwt,
        jwks_file: Some(path.clone()),
        ..Auth::default()
    };
    let authenticator = Authenticator::new(&auth).unwrap();
    let sign = |kid| secret.signer(Some(kid)).sign(&good_claims()).unwrap();
    assert!(show(&authenticator, &sign("s")).is_ok());
    for kid in ["weak", "other", "enc"] {
        assert_eq!(
            show(&authenticator, &sign(kid)),
            Err(AuthError::UnknownKey),
            "{kid}"
        );
    }
    std::fs::write(&path, "{\"keys\": []}").unwrap();
    assert!(Authenticator::new(&auth).is_err());
}

#[test]
fn a_key_of_the_wrong_kind_or_strength_is_refused_by_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, "short").unwrap();
    for algorithm in ALGORITHMS {
        let auth = Auth {
            keys: vec![configured(algorithm, None, path.clone())],
            ..Auth::default()
        };
        let error = Authenticator::new(&auth).unwrap_err().to_string();
        assert!(error.starts_with("auth.keys[0]."), "{error}");
        assert!(!error.contains("short"), "{error}");
    }
    let rsa = KeyFiles::generate(TokenAlgorithm::EdDSA);
    let key = AuthKey {
        algorithm: TokenAlgorithm::ES256,
        ..rsa.configured(None)
    };
    assert!(
        Authenticator::new(&Auth {
            keys: vec![key],
            ..Auth::default()
        })
        .is_err()
    );
    let key = AuthKey {
        secret_file: Some(path),
        ..rsa.configured(None)
    };
    assert!(
        Authenticator::new(&Auth {
            keys: vec![key],
            ..Auth::default()
        })
        .is_err()
    );
}

#[test]
fn words_are_short_snake_case_and_unique() {
    let mut words: Vec<_> = AuthError::ALL.iter().map(|e| e.word()).collect();
    assert!(
        words
            .iter()
            .all(|w| w.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    );
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), AuthError::ALL.len());
}
