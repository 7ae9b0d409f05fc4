//! Makes tokens, for `tautline token create`, tests and benches. The server itself never signs.

use std::collections::BTreeMap;

use jsonwebtoken::{EncodingKey, Header};
use serde::{Deserialize, Serialize};

use super::authenticator::AuthError;
use super::claim::Claims;
use super::token_key::vendor;
use crate::config::section::TokenAlgorithm;

/// A private key or shared secret with the algorithm it signs with.
pub struct TokenSigner {
    header: Header,
    key: EncodingKey,
}

/// The claims of a new token, as the authenticator reads them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NewClaims {
    /// The device's id.
    pub sub: String,
    /// End of validity, seconds since the epoch.
    pub exp: u64,
    /// The account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whom the device may send to besides its own account.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub may_send_to: Vec<String>,
    /// For whom the token is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
}

impl NewClaims {
    /// Whether the authenticator would accept them.
    ///
    /// # Errors
    /// What it would say.
    pub fn check(&self) -> Result<(), AuthError> {
        let claims = serde_json::to_value(self).and_then(Claims::deserialize);
        claims
            .map_err(|_| AuthError::BadClaim)?
            .identity()
            .map(drop)
    }
}

impl TokenSigner {
    /// A signer from a secret (HS256) or a private key as PEM.
    ///
    /// # Errors
    /// When the key is none for the algorithm.
    pub fn new(
        algorithm: TokenAlgorithm,
        kid: Option<String>,
        key: &[u8],
    ) -> Result<Self, SignError> {
        let key = match algorithm {
            TokenAlgorithm::HS256 => Ok(EncodingKey::from_secret(key)),
            TokenAlgorithm::RS256 => EncodingKey::from_rsa_pem(key),
            TokenAlgorithm::ES256 => EncodingKey::from_ec_pem(key),
            TokenAlgorithm::EdDSA => EncodingKey::from_ed_pem(key),
        };
        let header = Header {
            kid,
            ..Header::new(vendor(algorithm))
        };
        Ok(Self {
            header,
            key: key.map_err(SignError)?,
        })
    }

    /// A token with these claims.
    ///
    /// # Errors
    /// When the key turns out to be unusable.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, SignError> {
        jsonwebtoken::encode(&self.header, claims, &self.key).map_err(SignError)
    }
}

impl std::fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenSigner({:?})", self.header.alg)
    }
}

/// The key cannot sign.
#[derive(Debug, thiserror::Error)]
#[error("the key cannot sign: {0}")]
pub struct SignError(jsonwebtoken::errors::Error);
