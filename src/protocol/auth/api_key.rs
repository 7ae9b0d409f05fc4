//! What a back end may do, by its key.

use std::path::Path;
use std::sync::Arc;

use http::request::Parts;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::config::error::{ConfigError, ConfigErrors};
use crate::config::secret;
use crate::config::section::{Api, ApiKey, ApiRole, Ops};
use crate::protocol::field::Fields;
use crate::wire::error::ErrorCode;

/// The keys of one listener. Without any, everybody may do everything: the configuration allows that on loopback only.
#[derive(Debug)]
pub struct ApiKeys {
    keys: Vec<KnownKey>,
    /// What a sender is called where no keys are needed.
    anybody: Arc<str>,
}

/// Whose requests these are, and what they may do.
struct KnownKey {
    name: Arc<str>,
    proof: Proof,
    roles: Vec<ApiRole>,
}

/// How a back end shows that it is the one.
enum Proof {
    /// A key, kept as its hash: hashes are of one length, so comparing them tells nothing about the key's.
    Hash([u8; 32]),
    /// A client certificate with this name, which TLS has verified.
    Certificate(String),
}

/// What a back end shows.
#[derive(Clone, Copy, Default)]
pub struct Shown<'a> {
    /// The `Authorization` header of its request.
    pub header: Option<&'a str>,
    /// The name in the client certificate of its connection.
    pub bearer: Option<&'a str>,
}

/// The name in the client certificate of the connection that a request came on; travels in its extensions.
#[derive(Clone, Debug)]
pub struct Bearer(pub Arc<str>);

impl<'a> Shown<'a> {
    /// What a request shows that hyper has read.
    pub fn of(parts: &'a Parts) -> Self {
        Self::by(&parts.headers, parts.extensions.get())
    }

    /// What a request with these header fields shows, on a connection of the bearer of a certificate.
    pub fn by(headers: &'a impl Fields, bearer: Option<&'a Bearer>) -> Self {
        Self {
            header: headers.text("authorization"),
            bearer: bearer.map(|bearer| &*bearer.0),
        }
    }
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
            match KnownKey::read(&format!("api.keys[{i}]"), key) {
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
            key_file: Some(key_file),
            certificate: None,
            roles,
        };
        Ok(Self::of(vec![KnownKey::read("ops", &key)?]))
    }

    fn of(keys: Vec<KnownKey>) -> Self {
        Self {
            keys,
            anybody: "dev".into(),
        }
    }

    /// The name of whoever shows this, if it may act as `role`. A key counts before a certificate.
    ///
    /// # Errors
    /// [`ApiAuthError`]; which of them tells a caller without a key nothing about the keys.
    pub fn authorize(&self, shown: Shown<'_>, role: ApiRole) -> Result<&Arc<str>, ApiAuthError> {
        if self.keys.is_empty() {
            return Ok(&self.anybody);
        }
        let key = match shown.header.and_then(bearer) {
            Some(token) => self.find(token),
            None => shown.bearer.and_then(|name| self.find_bearer(name)),
        };
        let key = key.ok_or(ApiAuthError::Unauthorized)?;
        if key.roles.contains(&role) {
            Ok(&key.name)
        } else {
            Err(ApiAuthError::Forbidden)
        }
    }

    /// Every key is compared, whether or not an earlier one matched.
    fn find(&self, presented: &str) -> Option<&KnownKey> {
        let hash = hash_of(presented.as_bytes());
        let matches = |key: &KnownKey| -> Choice {
            match &key.proof {
                Proof::Hash(known) => known.ct_eq(&hash),
                Proof::Certificate(_) => Choice::from(0),
            }
        };
        self.keys.iter().fold(None, |found, key| {
            if bool::from(matches(key)) {
                Some(key)
            } else {
                found
            }
        })
    }

    /// Names in certificates are no secrets.
    fn find_bearer(&self, name: &str) -> Option<&KnownKey> {
        let is_it =
            |key: &&KnownKey| matches!(&key.proof, Proof::Certificate(known) if known == name);
        self.keys.iter().find(is_it)
    }
}

impl KnownKey {
    fn read(place: &str, key: &ApiKey) -> Result<Self, ConfigError> {
        let proof = match (&key.key_file, &key.certificate) {
            (Some(path), None) => Proof::Hash(read_hash(&format!("{place}.key_file"), path)?),
            (None, Some(name)) => Proof::Certificate(name.clone()),
            (Some(_), Some(_)) | (None, None) => {
                let cause = "needs key_file or certificate, and not both";
                return Err(ConfigError::new(place, cause));
            }
        };
        Ok(Self {
            name: key.name.as_str().into(),
            proof,
            roles: key.roles.clone(),
        })
    }
}

fn read_hash(place: &str, path: &Path) -> Result<[u8; 32], ConfigError> {
    let secret = secret::read(place, path)?;
    if secret.len() < KEY_BYTES_MIN || !secret.iter().all(u8::is_ascii_graphic) {
        let cause = format!("{}: no key for a header", path.display());
        return Err(ConfigError::new(place, cause)
            .advise("use at least 16 printable characters (`openssl rand -hex 32`)"));
    }
    Ok(hash_of(&secret))
}

impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shown({:?})", self.bearer)
    }
}

impl std::fmt::Debug for KnownKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KnownKey({}, {:?})", self.name, self.roles)
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
            key_file: Some(key_file),
            certificate: None,
            roles: roles.to_vec(),
        }
    }

    fn bearing(header: &str) -> Shown<'_> {
        Shown {
            header: Some(header),
            bearer: None,
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
        let ask = |header: &str, role| keys.authorize(bearing(header), role).map(|_name| ());
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
            keys.authorize(Shown::default(), ApiRole::Send),
            Err(ApiAuthError::Unauthorized)
        );
    }

    #[test]
    fn a_certificate_stands_for_a_key_unless_a_key_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let billing = ApiKey {
            name: "billing".into(),
            key_file: None,
            certificate: Some("billing.internal".into()),
            roles: vec![ApiRole::Send],
        };
        let keys = vec![key(&dir, ADMIN, &[ApiRole::Admin]), billing];
        let keys = ApiKeys::new(&Api {
            keys,
            ..Api::default()
        })
        .unwrap();
        let ask = |header, bearer, role| keys.authorize(Shown { header, bearer }, role).cloned();
        let billing = Some("billing.internal");
        assert_eq!(&*ask(None, billing, ApiRole::Send).unwrap(), "billing");
        assert_eq!(
            ask(None, billing, ApiRole::Admin),
            Err(ApiAuthError::Forbidden)
        );
        for (header, bearer) in [
            (None, Some("")),
            (None, Some("billing.internal.evil")),
            (Some("Bearer wrong-0123456789"), billing),
        ] {
            let answer = ask(header, bearer, ApiRole::Send);
            assert_eq!(answer, Err(ApiAuthError::Unauthorized), "{bearer:?}");
        }
        let admin = format!("Bearer {ADMIN}");
        assert!(ask(Some(&admin), billing, ApiRole::Admin).is_ok());
    }

    #[test]
    fn a_wrong_key_takes_one_way_however_near_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let keys = ["0", "1", "2"].map(|n| key(&dir, &format!("{SENDER}{n}"), &[ApiRole::Send]));
        let keys = ApiKeys::new(&Api {
            keys: keys.to_vec(),
            ..Api::default()
        })
        .unwrap();
        for (what, presented) in [
            ("all but the last byte", format!("{SENDER}3")),
            ("the length", "x".repeat(SENDER.len() + 1)),
            ("nothing", "x".into()),
        ] {
            let header = format!("Bearer {presented}");
            let shown = bearing(&header);
            #[expect(clippy::disallowed_methods, reason = "measured for whoever reads it")]
            let start = std::time::Instant::now();
            for _ in 0..1_000 {
                let refused = keys.authorize(shown, ApiRole::Send);
                assert_eq!(refused, Err(ApiAuthError::Unauthorized), "{what}");
            }
            println!("a key that shares {what}: {:?} for 1,000", start.elapsed());
        }
        // Every one of ours is found, so none shadows another.
        for n in 0..3 {
            let header = format!("Bearer {SENDER}{n}");
            assert!(keys.authorize(bearing(&header), ApiRole::Send).is_ok());
        }
    }

    #[test]
    fn without_keys_nobody_is_asked() {
        let keys = ApiKeys::new(&Api::default()).unwrap();
        assert_eq!(
            &**keys.authorize(Shown::default(), ApiRole::Admin).unwrap(),
            "dev"
        );
        let keys = ApiKeys::for_ops(&Ops::default()).unwrap();
        assert!(keys.authorize(Shown::default(), ApiRole::Read).is_ok());
    }

    #[test]
    fn short_and_missing_keys_are_refused_by_place() {
        let dir = tempfile::tempdir().unwrap();
        let missing = ApiKey {
            name: "gone".into(),
            key_file: Some(dir.path().join("gone")),
            certificate: None,
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
