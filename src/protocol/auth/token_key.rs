//! The keys that verify tokens, each good for one algorithm.

use std::fmt;
use std::path::Path;

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};

use crate::config::error::{ConfigError, ConfigErrors};
use crate::config::secret;
use crate::config::section::{Auth, AuthKey, TokenAlgorithm};

/// A key and the one algorithm it is good for.
pub(super) struct TokenKey {
    kid: Option<String>,
    algorithm: TokenAlgorithm,
    key: DecodingKey,
}

impl TokenKey {
    /// Reads every configured key: `auth.keys`, then the key set.
    pub(super) fn read_all(auth: &Auth) -> Result<Vec<Self>, ConfigErrors> {
        let mut keys = Vec::new();
        let mut errors = Vec::new();
        for (i, key) in auth.keys.iter().enumerate() {
            match Self::read(&format!("auth.keys[{i}]"), key) {
                Ok(key) => keys.push(key),
                Err(error) => errors.push(error),
            }
        }
        match auth.jwks_file.as_deref().map(Self::read_set).transpose() {
            Ok(set) => keys.extend(set.into_iter().flatten()),
            Err(error) => errors.push(error),
        }
        ConfigErrors::check(errors)?;
        Ok(keys)
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    pub(super) fn algorithm_name(&self) -> &'static str {
        self.algorithm.name()
    }

    /// What one check costs, in microseconds, rounded up from `benches/auth.rs`.
    pub(super) const fn verification_us(&self) -> u32 {
        match self.algorithm {
            TokenAlgorithm::HS256 => 2,
            TokenAlgorithm::RS256 => 20,
            TokenAlgorithm::EdDSA => 40,
            TokenAlgorithm::ES256 => 53,
        }
    }

    /// Whether `signature` (base64url) over `message` is this key's.
    pub(super) fn verifies(&self, message: &[u8], signature: &str) -> bool {
        jsonwebtoken::crypto::verify(signature, message, &self.key, vendor(self.algorithm))
            .unwrap_or(false)
    }

    fn read(place: &str, key: &AuthKey) -> Result<Self, ConfigError> {
        let symmetric = key.algorithm == TokenAlgorithm::HS256;
        let (wanted, name, unwanted) = if symmetric {
            (&key.secret_file, "secret_file", &key.public_key_file)
        } else {
            (&key.public_key_file, "public_key_file", &key.secret_file)
        };
        let (Some(path), None) = (wanted, unwanted) else {
            let cause = format!("{} needs {name} and no other file", key.algorithm.name());
            return Err(ConfigError::new(place, cause));
        };
        let place = format!("{place}.{name}");
        let bytes = secret::read(&place, path)?;
        let decoded = match key.algorithm {
            TokenAlgorithm::HS256 => Ok(DecodingKey::from_secret(&bytes)),
            TokenAlgorithm::RS256 => DecodingKey::from_rsa_pem(&bytes),
            TokenAlgorithm::ES256 => DecodingKey::from_ec_pem(&bytes),
            TokenAlgorithm::EdDSA => DecodingKey::from_ed_pem(&bytes),
        };
        decoded
            .ok()
            .and_then(|decoded| Self::fitting(key.kid.clone(), key.algorithm, decoded))
            .ok_or_else(|| {
                let cause = format!("{}: no key for {}", path.display(), key.algorithm.name());
                ConfigError::new(place, cause).advise(wanted_form(key.algorithm))
            })
    }

    /// The usable keys of a set; those for other purposes are passed over.
    fn read_set(path: &Path) -> Result<Vec<Self>, ConfigError> {
        let place = "auth.jwks_file";
        let error = |cause: &str| ConfigError::new(place, format!("{}: {cause}", path.display()));
        let bytes = secret::read(place, path)?;
        let set: JwkSet = serde_json::from_slice(&bytes)
            .map_err(|e| error(&format!("no JSON Web Key Set: {e}")))?;
        let keys: Vec<_> = set.keys.iter().filter_map(Self::from_jwk).collect();
        if keys.is_empty() {
            return Err(error("no key for HS256, RS256, ES256 or EdDSA in it"));
        }
        Ok(keys)
    }

    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        let signs = matches!(
            jwk.common.public_key_use,
            None | Some(PublicKeyUse::Signature)
        );
        let algorithm = algorithm_of(jwk).filter(|_| signs)?;
        let key = DecodingKey::from_jwk(jwk).ok()?;
        Self::fitting(jwk.common.key_id.clone(), algorithm, key)
    }

    /// `None` when the key can never verify anything with the algorithm, or is too weak for it.
    fn fitting(kid: Option<String>, algorithm: TokenAlgorithm, key: DecodingKey) -> Option<Self> {
        let length = key.try_get_as_bytes().ok().map(<[u8]>::len);
        let fits = match algorithm {
            // RFC 7518, 3.2: at least as long as the hash.
            TokenAlgorithm::HS256 => length >= Some(32),
            TokenAlgorithm::ES256 => length == Some(P256_POINT_BYTES),
            TokenAlgorithm::EdDSA => length == Some(ED25519_KEY_BYTES),
            TokenAlgorithm::RS256 => true,
        };
        (fits && key.family() == vendor(algorithm).family()).then_some(Self {
            kid,
            algorithm,
            key,
        })
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({:?}, {:?})", self.kid, self.algorithm)
    }
}

fn algorithm_of(jwk: &Jwk) -> Option<TokenAlgorithm> {
    let stated = jwk.common.key_algorithm;
    let implied = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (KeyAlgorithm::RS256, TokenAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (KeyAlgorithm::ES256, TokenAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(_) => (KeyAlgorithm::EdDSA, TokenAlgorithm::EdDSA),
        AlgorithmParameters::OctetKey(_) => (KeyAlgorithm::HS256, TokenAlgorithm::HS256),
        AlgorithmParameters::EllipticCurve(_) | AlgorithmParameters::Other(_) | _ => return None,
    };
    stated
        .is_none_or(|stated| stated == implied.0)
        .then_some(implied.1)
}

pub(super) const fn vendor(algorithm: TokenAlgorithm) -> Algorithm {
    match algorithm {
        TokenAlgorithm::HS256 => Algorithm::HS256,
        TokenAlgorithm::RS256 => Algorithm::RS256,
        TokenAlgorithm::ES256 => Algorithm::ES256,
        TokenAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}

const fn wanted_form(algorithm: TokenAlgorithm) -> &'static str {
    match algorithm {
        TokenAlgorithm::HS256 => {
            "use a random secret of at least 32 bytes (`openssl rand -base64 48`)"
        }
        TokenAlgorithm::RS256 => "use an RSA public key of at least 2048 bits as PEM",
        TokenAlgorithm::ES256 => "use a P-256 public key as PEM (`openssl ec -pubout`)",
        TokenAlgorithm::EdDSA => "use an Ed25519 public key as PEM (`openssl pkey -pubout`)",
    }
}

/// An uncompressed point: a tag and two coordinates.
const P256_POINT_BYTES: usize = 65;
const ED25519_KEY_BYTES: usize = 32;
