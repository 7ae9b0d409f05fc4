//! What a back end may do, by its key.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::config::error::{ConfigError, ConfigErrors};
use crate::config::secret;
use crate::config::section::{Api, ApiKey, ApiRole, Ops};
use crate::wire::error::ErrorCode;

/// The keys of one listener. Without any, everybody may do everything: the configuration allows that on loopback only.
#[derive(Debug)]
pub struct ApiKeys {
    keys: Vec<HashedKey>,
    /// What a sender is called where no keys are needed.
    anybody: Arc<str>,
}

/// A key as its hash: hashes are of one length, so comparing them tells nothing about the key's.
struct HashedKey {
    name: Arc<str>,
    hash: [u8; 32],
    roles: Vec<ApiRole>,
}

impl ApiKeys {
    /// Reads the keys of the sending API.
    ///
    /// # Errors
    /// One for each key file that cannot be read, and for each key that is too short to be safe.
    pub fn new(api: &Api) -> Result<Self, ConfigErrors> {
        let mut keys = Vec::new();
        let mut errors = Vec::new();
        for (i, key) in api.keys.iter().enumerate() {
            match HashedKey::read(&format!("api.keys[{i}].key_file"), key) {
                Ok(key) => keys.push(key),
                Err(error) => errors.push(error),
            }
        }
        ConfigErrors::check(errors)?;
        Ok(Self::of(keys))
    }

    /// Reads the key of the ops listener, which may do everything there.
    ///
    /// # Errors
    /// When its file cannot be read or the key is too short.
    pub fn for_ops(ops: &Ops) -> Result<Self, ConfigErrors> {
        let Some(key_file) = ops.key_file.clone() else {
            return Ok(Self::of(Vec::new()));
        };
        let roles = vec![ApiRole::Send, ApiRole::Read, ApiRole::Admin];
        let key = ApiKey {
            name: "ops".into(),
            key_file,
            roles,
        };
        Ok(Self::of(vec![HashedKey::read("ops.key_file", &key)?]))
    }

    fn of(keys: Vec<HashedKey>) -> Self {
        Self {
            keys,
            anybody: "dev".into(),
        }
    }

    /// The name of the bearer of this `Authorization` header, if it may act as `role`.
    ///
    /// # Errors
    /// [`ApiAuthError`]; which of them tells a caller without a key nothing about the keys.
    pub fn authorize(
        &self,
        header: Option<&str>,
        role: ApiRole,
    ) -> Result<&Arc<str>, ApiAuthError> {
        if self.keys.is_empty() {
            return Ok(&self.anybody);
        }
        let key = header.and_then(bearer).and_then(|token| self.find(token));
        let key = key.ok_or(ApiAuthError::Unauthorized)?;
        if key.roles.contains(&role) {
            Ok(&key.name)
        } else {
            Err(ApiAuthError::Forbidden)
        }
    }

    /// Every key is compared, whether or not an earlier one matched.
    fn find(&self, presented: &str) -> Option<&HashedKey> {
        let hash = hash_of(presented.as_bytes());
        let matches = |key: &HashedKey| -> Choice { key.hash.ct_eq(&hash) };
        self.keys.iter().fold(None, |found, key| {
            if bool::from(matches(key)) {
                Some(key)
            } else {
                found
            }
        })
    }
}

impl HashedKey {
    fn read(place: &str, key: &ApiKey) -> Result<Self, ConfigError> {
        let secret = secret::read(place, &key.key_file)?;
        if secret.len() < KEY_BYTES_MIN || !secret.iter().all(u8::is_ascii_graphic) {
            let cause = format!("{}: no key for a header", key.key_file.display());
            return Err(ConfigError::new(place, cause)
                .advise("use at least 16 printable characters (`openssl rand -hex 32`)"));
        }
        Ok(Self {
            name: key.name.as_str().into(),
            hash: hash_of(&secret),
            roles: key.roles.clone(),
        })
    }
}

impl std::fmt::Debug for HashedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HashedKey({}, {:?})", self.name, self.roles)
    }
}

/// Why a back end may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiAuthError {
    /// No key, or none of ours.
    Unauthorized,
    /// The key lacks the role.
    Forbidden,
}

impl ApiAuthError {
    /// The word of the error table.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Unauthorized => ErrorCode::Unauthorized,
            Self::Forbidden => ErrorCode::Forbidden,
        }
    }

    /// The cause and the next step, for people.
    pub const fn cause(self) -> &'static str {
        match self {
            Self::Unauthorized => "send `Authorization: Bearer <api key>`",
            Self::Forbidden => "the key lacks the role for this call",
        }
    }
}

/// The token of an `Authorization: Bearer` header; the scheme's case does not count (RFC 9110, 11.1).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_start())
}

fn hash_of(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

const KEY_BYTES_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: &str = "sender-0123456789";
    const ADMIN: &str = "admin-0123456789a";

    fn key(dir: &tempfile::TempDir, secret: &str, roles: &[ApiRole]) -> ApiKey {
        let key_file = dir.path().join(secret);
        std::fs::write(&key_file, format!("{secret}\n")).unwrap();
        ApiKey {
            name: "test".into(),
            key_file,
            roles: roles.to_vec(),
        }
    }

    #[test]
    fn a_key_may_do_what_its_roles_say() {
        let dir = tempfile::tempdir().unwrap();
        let keys = vec![
            key(&dir, SENDER, &[ApiRole::Send, ApiRole::Read]),
            key(&dir, ADMIN, &[ApiRole::Admin]),
        ];
        let keys = ApiKeys::new(&Api {
            keys,
            ..Api::default()
        })
        .unwrap();
        let ask = |header: &str, role| keys.authorize(Some(header), role).map(|_name| ());
        assert_eq!(ask(&format!("Bearer {SENDER}"), ApiRole::Send), Ok(()));
        assert_eq!(ask(&format!("bearer  {SENDER} "), ApiRole::Read), Ok(()));
        assert_eq!(
            ask(&format!("Bearer {SENDER}"), ApiRole::Admin),
            Err(ApiAuthError::Forbidden)
        );
        assert_eq!(ask(&format!("Bearer {ADMIN}"), ApiRole::Admin), Ok(()));
        for header in [
            "",
            "Bearer",
            "Bearer ",
            SENDER,
            "Basic c2VuZGVy",
            "Bearer sender-012345678",
            "Bearer sender-01234567890",
        ] {
            assert_eq!(
                ask(header, ApiRole::Send),
                Err(ApiAuthError::Unauthorized),
                "{header}"
            );
        }
        assert_eq!(
            keys.authorize(None, ApiRole::Send),
            Err(ApiAuthError::Unauthorized)
        );
    }

    #[test]
    fn without_keys_nobody_is_asked() {
        let keys = ApiKeys::new(&Api::default()).unwrap();
        assert_eq!(&**keys.authorize(None, ApiRole::Admin).unwrap(), "dev");
        let keys = ApiKeys::for_ops(&Ops::default()).unwrap();
        assert!(keys.authorize(None, ApiRole::Read).is_ok());
    }

    #[test]
    fn short_and_missing_keys_are_refused_by_place() {
        let dir = tempfile::tempdir().unwrap();
        let missing = ApiKey {
            name: "gone".into(),
            key_file: dir.path().join("gone"),
            roles: vec![],
        };
        let keys = vec![key(&dir, "short", &[]), missing];
        let errors = ApiKeys::new(&Api {
            keys,
            ..Api::default()
        })
        .unwrap_err();
        let places: Vec<_> = errors.0.iter().map(|e| e.place.as_str()).collect();
        assert_eq!(places, ["api.keys[0].key_file", "api.keys[1].key_file"]);
        assert!(!errors.to_string().contains(SENDER));
    }
}
