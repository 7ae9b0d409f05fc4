//! What a reactor goes by: the configured limits, and who may come in. Replaced whole on reload.

use crate::config::{self, Config, ConfigError};
use crate::protocol::auth::{ApiKeys, Authenticator, OriginPolicy};
use crate::protocol::heartbeat::Heartbeat;
use crate::ws::frame;

/// An immutable snapshot of everything that a reload may change.
#[derive(Debug)]
pub struct Settings {
    /// Bounds on what a device may use.
    pub limits: config::Limits,
    /// Bounds on messages, as the decoder wants them.
    pub frames: frame::Limits,
    /// How long lines live.
    pub lifetime: config::Lifetime,
    /// How the node leaves.
    pub drain: config::Drain,
    /// Bounds on the sending API.
    pub api: config::Api,
    /// When to ping, and when to give up.
    pub heartbeat: Heartbeat,
    /// Who a device is.
    pub authenticator: Authenticator,
    /// Which browsers' pages may connect.
    pub origins: OriginPolicy,
    /// Which cookie may carry a token.
    pub cookie: Option<String>,
    /// Which back ends may do what.
    pub api_keys: ApiKeys,
    /// Lines echo what they receive: for conformance tests only.
    pub is_echo: bool,
}

impl Settings {
    /// Reads the key files that the configuration names.
    ///
    /// # Errors
    /// [`ConfigError`] naming the file that cannot be read or makes no sense.
    pub fn load(config: &Config) -> Result<Self, ConfigError> {
        let limits = config.limits.clone();
        Ok(Self {
            frames: frame::Limits {
                message_bytes_max: limits.message_bytes_max.as_usize(),
                fragments_max: limits.fragments_max.into(),
            },
            limits,
            lifetime: config.lifetime.clone(),
            drain: config.drain.clone(),
            api: config.api.clone(),
            heartbeat: Heartbeat {
                ping_after: config.heartbeat.ping_after,
                pong_timeout: config.heartbeat.pong_timeout,
            },
            authenticator: Authenticator::load(&config.auth)?,
            origins: OriginPolicy::new(&config.auth)?,
            cookie: config.auth.cookie.clone(),
            api_keys: ApiKeys::load(&config.api)?,
            is_echo: false,
        })
    }
}
