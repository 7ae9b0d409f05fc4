//! The decision whether a device may come in.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::claim::Claims;
use super::identity::Identity;
use super::token_key::TokenKey;
use crate::base::id::is_valid_id;
use crate::config::error::ConfigErrors;
use crate::config::section::{Auth, AuthMode};

/// A snapshot of the keys and rules by which devices are let in.
#[derive(Debug)]
pub struct Authenticator {
    mode: AuthMode,
    keys: Vec<TokenKey>,
    audience: Vec<String>,
    issuer: Vec<String>,
    leeway: Duration,
}

/// What a device shows.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// Its own word for who it is; good in dev mode only.
    Dev {
        /// The device's id.
        device_id: &'a str,
        /// Its account.
        user_id: Option<&'a str>,
    },
    /// A JWT.
    Token(&'a str),
    /// The name in the client certificate that TLS has verified.
    Certificate(&'a str),
}

/// A device that was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// Who it is.
    pub identity: Identity,
    /// When its token ends, leeway included, in wall-clock milliseconds; `None` when it showed none.
    pub expires_ms: Option<u64>,
}

impl Authenticator {
    /// Reads the key files.
    ///
    /// # Errors
    /// One for each key that cannot be read or used.
    pub fn new(auth: &Auth) -> Result<Self, ConfigErrors> {
        Ok(Self {
            mode: auth.mode,
            keys: TokenKey::read_all(auth)?,
            audience: auth.audience.clone(),
            issuer: auth.issuer.clone(),
            leeway: auth.leeway,
        })
    }

    /// How devices prove who they are.
    pub fn mode(&self) -> AuthMode {
        self.mode
    }

    /// What looking at a credential costs at most, in microseconds: the keys that a token may be tried against.
    pub fn verification_us(&self) -> u32 {
        let dearest = self.keys.iter().map(TokenKey::verification_us).max();
        let tried = self.keys.len().min(KEYS_TRIED_MAX);
        dearest.unwrap_or(0) * u32::try_from(tried).unwrap_or(u32::MAX)
    }

    /// Who shows this credential at `wall_ms`, if we believe it. Costs up to a tenth of a millisecond per signature.
    ///
    /// # Errors
    /// Why not. Claims are looked at only after the signature held.
    pub fn authenticate(
        &self,
        credential: Credential<'_>,
        wall_ms: u64,
    ) -> Result<Authenticated, AuthError> {
        match credential {
            Credential::Dev { device_id, user_id } => self.believe(device_id, user_id),
            Credential::Token(token) => self.verify(token, wall_ms),
            Credential::Certificate(name) => self.trust(name),
        }
    }

    fn trust(&self, name: &str) -> Result<Authenticated, AuthError> {
        if self.mode != AuthMode::Certificate {
            return Err(AuthError::Missing);
        }
        if !is_valid_id(name.as_bytes()) {
            return Err(AuthError::BadSubject);
        }
        Ok(Authenticated {
            identity: Identity::pack(name, None, [], []),
            expires_ms: None,
        })
    }

    fn believe(&self, device_id: &str, user_id: Option<&str>) -> Result<Authenticated, AuthError> {
        if self.mode != AuthMode::Dev {
            return Err(AuthError::Missing);
        }
        if !is_valid_id(device_id.as_bytes()) {
            return Err(AuthError::BadSubject);
        }
        if !user_id.is_none_or(|user| is_valid_id(user.as_bytes())) {
            return Err(AuthError::BadClaim);
        }
        let identity = Identity::pack(device_id, user_id, [], []);
        Ok(Authenticated {
            identity,
            expires_ms: None,
        })
    }

    fn verify(&self, token: &str, wall_ms: u64) -> Result<Authenticated, AuthError> {
        let token = SignedToken::parse(token)?;
        self.check_signature(&token)?;
        let claims = token.claims()?;
        let expires_ms = claims.check_time(self.leeway, wall_ms)?;
        claims.check_parties(&self.audience, &self.issuer)?;
        let identity = claims.identity()?;
        Ok(Authenticated {
            identity,
            expires_ms: Some(expires_ms),
        })
    }

    /// The key decides the algorithm; the header may only agree with it.
    fn check_signature(&self, token: &SignedToken<'_>) -> Result<(), AuthError> {
        let kid = token.header.kid.as_deref();
        let mut named = self
            .keys
            .iter()
            .filter(|key| kid.is_none() || key.kid() == kid)
            .peekable();
        named.peek().ok_or(AuthError::UnknownKey)?;
        let mut usable = named
            .filter(|key| key.algorithm_name() == token.header.alg)
            .peekable();
        usable.peek().ok_or(AuthError::WrongAlgorithm)?;
        let holds = usable
            .take(KEYS_TRIED_MAX)
            .any(|key| key.verifies(token.message, token.signature));
        if holds {
            Ok(())
        } else {
            Err(AuthError::BadSignature)
        }
    }
}

impl Authenticated {
    /// Lets it stand if the client certificate, when one that names its bearer was shown, is of the same device.
    ///
    /// # Errors
    /// [`AuthError::WrongBearer`] otherwise: a stolen token is of no use without its device's certificate.
    pub fn bound_to(self, bearer: Option<&str>) -> Result<Self, AuthError> {
        match bearer {
            Some(name) if name != self.identity.device() => Err(AuthError::WrongBearer),
            _ => Ok(self),
        }
    }
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dev { device_id, user_id } => write!(f, "Dev({device_id:?}, {user_id:?})"),
            Self::Token(_) => f.write_str("Token(…)"),
            Self::Certificate(name) => write!(f, "Certificate({name:?})"),
        }
    }
}

/// Why a device was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthError {
    /// No credential, or none that is good here.
    Missing,
    /// Not a JWT, or longer than one may be.
    Malformed,
    /// The header names a key we do not have.
    UnknownKey,
    /// The header names another algorithm than the key is for.
    WrongAlgorithm,
    /// The signature does not hold.
    BadSignature,
    /// `exp` has passed.
    Expired,
    /// `nbf` has not come.
    NotYetValid,
    /// `aud` names others.
    WrongAudience,
    /// `iss` names someone we do not trust.
    WrongIssuer,
    /// The device's id is missing or not a valid id.
    BadSubject,
    /// Another claim is missing, of the wrong type or beyond its bound.
    BadClaim,
    /// The client certificate is another device's.
    WrongBearer,
}

impl AuthError {
    /// Every error, in the order of declaration.
    pub const ALL: [Self; 12] = [
        Self::Missing,
        Self::Malformed,
        Self::UnknownKey,
        Self::WrongAlgorithm,
        Self::BadSignature,
        Self::Expired,
        Self::NotYetValid,
        Self::WrongAudience,
        Self::WrongIssuer,
        Self::BadSubject,
        Self::BadClaim,
        Self::WrongBearer,
    ];

    /// The lower_snake word for logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongAudience => "wrong_audience",
            Self::WrongIssuer => "wrong_issuer",
            Self::BadSubject => "bad_subject",
            Self::BadClaim => "bad_claim",
            Self::WrongBearer => "wrong_bearer",
        }
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Missing {
            "no credential: bring a token, or in dev mode ?device_id=NAME"
        } else {
            self.word()
        })
    }
}

impl std::error::Error for AuthError {}

/// A token cut into its parts, nothing of it believed yet.
struct SignedToken<'a> {
    header: TokenHeader,
    /// Header and payload as they were signed.
    message: &'a [u8],
    payload: &'a str,
    signature: &'a str,
}

/// The part of a token's header that matters: anything else in it could only widen what we accept.
#[derive(Deserialize)]
struct TokenHeader {
    alg: String,
    kid: Option<String>,
    /// Extensions we would have to understand (RFC 7515, 4.1.11); we know none.
    crit: Option<serde::de::IgnoredAny>,
}

impl<'a> SignedToken<'a> {
    fn parse(token: &'a str) -> Result<Self, AuthError> {
        if token.is_empty() {
            return Err(AuthError::Missing);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(AuthError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(AuthError::Malformed)?;
        let header: TokenHeader = decode(header).ok_or(AuthError::Malformed)?;
        if header.crit.is_some() {
            return Err(AuthError::Malformed);
        }
        Ok(Self {
            header,
            message: message.as_bytes(),
            payload,
            signature,
        })
    }

    fn claims(&self) -> Result<Claims, AuthError> {
        decode(self.payload).ok_or(AuthError::BadClaim)
    }
}

/// Reads one part of a token.
fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Option<T> {
    let json = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&json).ok()
}

/// Longest token, in bytes; also what bounds the work on one.
pub const TOKEN_BYTES_MAX: usize = 4_096;

/// Keys tried for a token that names none: each costs a signature check.
const KEYS_TRIED_MAX: usize = 4;
