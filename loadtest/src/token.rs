//! A signed token for every line, made before the first one opens, so that signing costs the run nothing.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header};
use serde_json::json;
use thiserror::Error;

use crate::name::{LineId, Names};

/// What signs the tokens: `ALGORITHM:FILE`, such as `ES256:device-key.pem`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SigningKey {
    algorithm: Algorithm,
    file: PathBuf,
}

/// The tokens of all lines, senders included, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    first: LineId,
    texts: Arc<[Box<str>]>,
}

/// A key that cannot be used.
#[derive(Debug, Error)]
pub(crate) enum TokenError {
    /// The file cannot be read.
    #[error("{0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// The file holds no key of that kind.
    #[error("{0} holds no such key: {1}")]
    Key(PathBuf, jsonwebtoken::errors::Error),
}

impl FromStr for SigningKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let usage =
            "ALGORITHM:FILE with HS256, RS256, ES256 or EdDSA, such as ES256:device-key.pem";
        let (algorithm, file) = text.split_once(':').ok_or(usage)?;
        let algorithm = match algorithm {
            "HS256" => Algorithm::HS256,
            "RS256" => Algorithm::RS256,
            "ES256" => Algorithm::ES256,
            "EdDSA" => Algorithm::EdDSA,
            _ => return Err(usage),
        };
        Ok(Self {
            algorithm,
            file: file.into(),
        })
    }
}

impl Tokens {
    /// Signs a token for each of the first `lines` lines, with a list of whom they may send to unless it is empty.
    ///
    /// # Errors
    /// When the key cannot be read or does not sign.
    pub(crate) fn sign(
        key: &SigningKey,
        names: &Names,
        lines: u32,
        may_send_to: &[String],
    ) -> Result<Self, TokenError> {
        let bytes =
            std::fs::read(&key.file).map_err(|error| TokenError::Read(key.file.clone(), error))?;
        let unusable = |error| TokenError::Key(key.file.clone(), error);
        let secret = match key.algorithm.family() {
            AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(&bytes),
            AlgorithmFamily::Ec => EncodingKey::from_ec_pem(&bytes),
            AlgorithmFamily::Ed => EncodingKey::from_ed_pem(&bytes),
            // One line break at the end of a secret's file is not part of it, as the server has it.
            AlgorithmFamily::Hmac => Ok(EncodingKey::from_secret(
                bytes.strip_suffix(b"\n").unwrap_or(&bytes),
            )),
        }
        .map_err(unusable)?;
        let header = Header::new(key.algorithm);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let expires = (now + LIFETIME).as_secs();
        let first = names.first();
        let token = |n| {
            let line = LineId(first.0 + n);
            let (device, account) = (names.device(line), names.account(line));
            let mut claims = json!({"sub": device, "user_id": account, "exp": expires});
            if !may_send_to.is_empty() {
                claims["may_send_to"] = json!(may_send_to);
            }
            jsonwebtoken::encode(&header, &claims, &secret).map(String::into_boxed_str)
        };
        let texts = (0..lines).map(token).collect::<Result<_, _>>();
        let texts = texts.map_err(unusable)?;
        Ok(Self { first, texts })
    }

    /// A line's token; none for a line beyond those signed for.
    pub(crate) fn of(&self, LineId(n): LineId) -> Option<&str> {
        let place = n.checked_sub(self.first.0)?;
        self.texts.get(place as usize).map(AsRef::as_ref)
    }
}

/// Longer than any run.
const LIFETIME: Duration = Duration::from_secs(24 * 3_600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ACCOUNT_LINES;

    #[test]
    fn each_line_has_a_token_with_its_own_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        std::fs::write(&file, [7; 32]).unwrap();
        let key: SigningKey = format!("HS256:{}", file.display()).parse().unwrap();
        let names = Names::new(10, 2, ACCOUNT_LINES);
        let tokens = Tokens::sign(&key, &names, 2, &["dev-*".to_owned()]).unwrap();
        let claims = |n| {
            let token = tokens.of(LineId(n))?;
            let claims = jsonwebtoken::dangerous::insecure_decode::<serde_json::Value>(token);
            Some(claims.unwrap().claims)
        };
        let second = claims(11).unwrap();
        assert_eq!(second["sub"], json!("dev-000000000011"));
        assert_eq!(second["may_send_to"], json!(["dev-*"]));
        assert_eq!((claims(9), claims(12)), (None, None));
        let plain = Tokens::sign(&key, &names, 1, &[]).unwrap();
        let plain = jsonwebtoken::dangerous::insecure_decode::<serde_json::Value>(
            plain.of(LineId(10)).unwrap(),
        );
        assert_eq!(plain.unwrap().claims.get("may_send_to"), None);
    }

    #[test]
    fn a_key_that_is_none_is_refused_before_the_run() {
        for bad in ["HS256", "none:x", "es256:x"] {
            assert!(bad.parse::<SigningKey>().is_err(), "{bad}");
        }
        let missing = "ES256:/nowhere/key.pem".parse().unwrap();
        assert!(matches!(
            Tokens::sign(&missing, &Names::new(0, 1, ACCOUNT_LINES), 1, &[]),
            Err(TokenError::Read(..))
        ));
    }
}
