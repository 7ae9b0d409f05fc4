//! The claims of a token whose signature has been verified.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::authenticator::AuthError;
use super::identity::Identity;
use crate::base::id::is_valid_id;
use crate::base::time::millis;

/// What we read of a token; other claims are somebody else's.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    sub: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
    #[serde(default)]
    aud: OneOrMany,
    #[serde(default)]
    iss: OneOrMany,
    user_id: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    may_send_to: Vec<String>,
}

impl Claims {
    /// The moment from which the token is no longer good, in wall-clock milliseconds, when it is good now.
    pub(super) fn check_time(&self, leeway: Duration, wall_ms: u64) -> Result<u64, AuthError> {
        let leeway_ms = millis(leeway);
        let expires_ms =
            claimed_ms(self.exp.ok_or(AuthError::BadClaim)?)?.saturating_add(leeway_ms);
        let begins_ms = self.nbf.map_or(Ok(0), claimed_ms)?;
        if expires_ms <= wall_ms {
            return Err(AuthError::Expired);
        }
        if begins_ms > wall_ms.saturating_add(leeway_ms) {
            return Err(AuthError::NotYetValid);
        }
        Ok(expires_ms)
    }

    /// Whether the token is meant for us and made by someone we trust. Empty lists accept everything.
    pub(super) fn check_parties(
        &self,
        audience: &[String],
        issuer: &[String],
    ) -> Result<(), AuthError> {
        if !self.aud.meets(audience) {
            return Err(AuthError::WrongAudience);
        }
        if !self.iss.meets(issuer) {
            return Err(AuthError::WrongIssuer);
        }
        Ok(())
    }

    /// The identity the token grants.
    pub(super) fn identity(&self) -> Result<Identity, AuthError> {
        let device = self
            .sub
            .as_deref()
            .filter(|sub| is_valid_id(sub.as_bytes()));
        let device = device.ok_or(AuthError::BadSubject)?;
        let account = self.user_id.as_deref();
        let account_is_valid = account.is_none_or(|user| is_valid_id(user.as_bytes()));
        let rights_are_valid = self.may_send_to.len() <= RIGHTS_MAX
            && self
                .may_send_to
                .iter()
                .all(|pattern| is_valid_pattern(pattern));
        if !(account_is_valid && rights_are_valid && self.labels_are_valid()) {
            return Err(AuthError::BadClaim);
        }
        let labels = self
            .labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        let rights = self.may_send_to.iter().map(String::as_str);
        Ok(Identity::pack(device, account, labels, rights))
    }

    fn labels_are_valid(&self) -> bool {
        let bytes: usize = self
            .labels
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        let is_printable = |text: &str| !text.chars().any(char::is_control);
        let is_valid = |(key, value): (&String, &String)| {
            !key.is_empty() && is_printable(key) && is_printable(value)
        };
        self.labels.len() <= LABELS_MAX
            && bytes <= LABEL_BYTES_MAX
            && self.labels.iter().all(is_valid)
    }
}

/// `aud` and `iss` come as one string or as a list.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn meets(&self, accepted: &[String]) -> bool {
        let claimed = match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        };
        accepted.is_empty() || claimed.iter().any(|value| accepted.contains(value))
    }
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

/// Ids, or the beginning of ids followed by `*`.
fn is_valid_pattern(pattern: &str) -> bool {
    let prefix = pattern.strip_suffix('*');
    prefix == Some("") || is_valid_id(prefix.unwrap_or(pattern).as_bytes())
}

/// A NumericDate (RFC 7519): seconds since the epoch, perhaps with a fraction.
fn claimed_ms(seconds: f64) -> Result<u64, AuthError> {
    let since_epoch = Duration::try_from_secs_f64(seconds).map_err(|_| AuthError::BadClaim)?;
    Ok(millis(since_epoch))
}

const LABELS_MAX: usize = 8;
const LABEL_BYTES_MAX: usize = 256;
const RIGHTS_MAX: usize = 8;
