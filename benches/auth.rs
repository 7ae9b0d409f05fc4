//! What letting a device in costs: one token verified, by algorithm, and the bare signature check beside it.

#![expect(
    clippy::expect_used,
    reason = "a bench that cannot be set up has nothing to measure"
)]

use std::fs;
use std::hint::black_box;
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jsonwebtoken::{Algorithm, DecodingKey};
use tautline::config::section::{Auth, AuthKey, AuthMode, TokenAlgorithm};
use tautline::protocol::auth::authenticator::{Authenticator, Credential};
use tautline::protocol::auth::token_signer::{NewClaims, TokenSigner};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const NOW_MS: u64 = 1_800_000_000_000;

/// A private and a public key, as the files have them.
struct KeyPair {
    algorithm: TokenAlgorithm,
    private: Vec<u8>,
    public: Vec<u8>,
}

fn verify(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("auth");
    group.throughput(Throughput::Elements(1));
    for pair in key_pairs() {
        let name = pair.algorithm.name();
        let token = pair.token();
        let authenticator = pair.authenticator();
        group.bench_function(format!("authenticate/{name}"), |bencher| {
            let credential = Credential::Token(&token);
            bencher.iter(|| {
                authenticator
                    .authenticate(black_box(credential), NOW_MS)
                    .expect("the token is good")
            });
        });
        let (key, algorithm) = pair.vendor_key();
        let (message, signature) = token.rsplit_once('.').expect("a token has three parts");
        group.bench_function(format!("signature_only/{name}"), |bencher| {
            bencher.iter(|| {
                jsonwebtoken::crypto::verify(
                    black_box(signature),
                    message.as_bytes(),
                    &key,
                    algorithm,
                )
            });
        });
    }
    group.finish();
}

impl KeyPair {
    fn token(&self) -> String {
        let signer =
            TokenSigner::new(self.algorithm, None, &self.private).expect("the key was just made");
        let claims = NewClaims {
            sub: "tv-0123456789abc".into(),
            exp: NOW_MS / 1_000 + 3_600,
            user_id: Some("account1".into()),
            ..NewClaims::default()
        };
        signer.sign(&claims).expect("the key was just made")
    }

    fn authenticator(&self) -> Authenticator {
        let dir = tempfile::tempdir().expect("a directory for the key");
        let path = dir.path().join("key");
        fs::write(&path, &self.public).expect("the directory was just made");
        let symmetric = self.algorithm == TokenAlgorithm::HS256;
        let key = AuthKey {
            kid: None,
            algorithm: self.algorithm,
            secret_file: symmetric.then(|| path.clone()),
            public_key_file: (!symmetric).then_some(path),
        };
        let auth = Auth {
            mode: AuthMode::Jwt,
            keys: vec![key],
            ..Auth::default()
        };
        Authenticator::new(&auth).expect("the key was just made")
    }

    fn vendor_key(&self) -> (DecodingKey, Algorithm) {
        let key = match self.algorithm {
            TokenAlgorithm::HS256 => Ok(DecodingKey::from_secret(&self.public)),
            TokenAlgorithm::RS256 => DecodingKey::from_rsa_pem(&self.public),
            TokenAlgorithm::ES256 => DecodingKey::from_ec_pem(&self.public),
            TokenAlgorithm::EdDSA => DecodingKey::from_ed_pem(&self.public),
        };
        let algorithm = self
            .algorithm
            .name()
            .parse()
            .expect("names are the library's");
        (key.expect("the key was just made"), algorithm)
    }
}

fn key_pairs() -> [KeyPair; 4] {
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("keys can be made");
    let rsa_private: Pkcs8V1Der<'_> = rsa.as_der().expect("a new key has a form");
    let ec = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING)
        .expect("keys can be made");
    let ec_private = ec.to_pkcs8v1().expect("a new key has a form");
    let ed = Ed25519KeyPair::generate().expect("keys can be made");
    let ed_private = ed.to_pkcs8v1().expect("a new key has a form");
    let secret = KeyPair {
        algorithm: TokenAlgorithm::HS256,
        private: SECRET.to_vec(),
        public: SECRET.to_vec(),
    };
    [
        secret,
        pems(
            TokenAlgorithm::RS256,
            rsa_private.as_ref(),
            rsa.public_key(),
        ),
        pems(TokenAlgorithm::ES256, ec_private.as_ref(), ec.public_key()),
        pems(TokenAlgorithm::EdDSA, ed_private.as_ref(), ed.public_key()),
    ]
}

fn pems(
    algorithm: TokenAlgorithm,
    private: &[u8],
    public: &impl AsDer<PublicKeyX509Der<'static>>,
) -> KeyPair {
    let public = public.as_der().expect("a new key has a form");
    KeyPair {
        algorithm,
        private: pem("PRIVATE KEY", private),
        public: pem("PUBLIC KEY", public.as_ref()),
    }
}

fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    let body = STANDARD.encode(der);
    let lines: String = body
        .as_bytes()
        .chunks(64)
        .map(|line| format!("{}\n", String::from_utf8_lossy(line)))
        .collect();
    format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n").into_bytes()
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = verify
}
criterion_main!(benches);
