//! Keys and tokens, made for one test.

use std::time::SystemTime;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::node::Setup;

/// What signs tokens, and what verifies them.
pub(crate) struct Issuer {
    algorithm: Algorithm,
    key: EncodingKey,
    /// The secret, or the public key as PEM: what the node is given.
    pub(crate) verifier: Vec<u8>,
}

impl Issuer {
    /// HS256 with this secret.
    pub(crate) fn hs256(secret: &str) -> Self {
        Self {
            algorithm: Algorithm::HS256,
            key: EncodingKey::from_secret(secret.as_bytes()),
            verifier: secret.into(),
        }
    }

    /// ES256 with a new key.
    pub(crate) fn es256() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(public.as_ref())
        );
        Self {
            algorithm: Algorithm::ES256,
            key: EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref()),
            verifier: pem.into_bytes(),
        }
    }

    /// A token with exactly these claims.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        jsonwebtoken::encode(&Header::new(self.algorithm), claims, &self.key).unwrap()
    }

    /// A token with these claims, and an algorithm in its header that the key is not for.
    pub(crate) fn sign_as(&self, algorithm: Algorithm, claims: &Value) -> String {
        jsonwebtoken::encode(&Header::new(algorithm), claims, &self.key).unwrap()
    }

    /// A token with these claims and any header, signed by the key as the key can.
    pub(crate) fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", part(header), part(claims));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm);
        format!("{message}.{}", signature.unwrap())
    }

    /// A token of a device that is good for so many seconds; negative: it ended so long ago.
    pub(crate) fn token(&self, device_id: &str, seconds: i64) -> String {
        self.sign(&json!({"sub": device_id, "exp": now_s() + seconds}))
    }
}

/// A token that nobody signed.
pub(crate) fn unsigned(claims: &Value) -> String {
    let header = json!({"alg": "none", "typ": "JWT"});
    format!("{}.{}.", part(&header), part(claims))
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// The wall clock, in seconds.
pub(crate) fn now_s() -> i64 {
    let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since_epoch.as_secs()).unwrap()
}

/// A node in `jwt` mode with both issuers' keys, one API key with every role, and more lines in the section `auth`.
pub(crate) fn jwt_setup(settings: &[&str], hs256: &Issuer, es256: &Issuer, auth: &str) -> Setup {
    let setup = Setup::new(settings);
    let secret = setup.file("hs256.key", &hs256.verifier);
    let public = setup.file("es256.pem", &es256.verifier);
    let toml = format!(
        r#"
        [auth]
        mode = "jwt"
        leeway = "0s"
        {auth}
        [[auth.keys]]
        algorithm = "HS256"
        secret_file = {secret:?}
        [[auth.keys]]
        algorithm = "ES256"
        public_key_file = {public:?}
        "#
    );
    let setup = setup
        .config(&toml)
        .key("all", API_KEY, &["send", "read", "admin"]);
    setup.api_key(API_KEY)
}

/// The key of the node's own requests.
pub(crate) const API_KEY: &str = "an-api-key-that-nobody-guesses-0123456789";
/// A secret long enough for HS256.
pub(crate) const SECRET: &str = "a-shared-secret-of-more-than-32-bytes";
