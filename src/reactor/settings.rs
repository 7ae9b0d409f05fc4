//! What a reactor goes by: the configured limits, and who may come in. Replaced whole on reload.

use ipnet::IpNet;

use crate::base::time::millis;
use crate::config::error::ConfigErrors;
use crate::config::{Config, section};
use crate::head::request;
use crate::protocol::auth::api_key::ApiKeys;
use crate::protocol::auth::authenticator::Authenticator;
use crate::protocol::auth::origin::OriginPolicy;
use crate::protocol::heartbeat::Heartbeat;
use crate::protocol::intake::IntakeLimits;
use crate::ws::frame;

/// An immutable snapshot of everything that a reload may change.
#[derive(Debug)]
pub struct Settings {
    /// Bounds on what a device may use.
    pub limits: section::Limits,
    /// What devices are told of each other.
    pub presence: section::Presence,
    /// Bounds on messages, as the decoder wants them.
    pub frames: frame::Limits,
    /// The same for records of back ends' streams, which have an envelope around their payload.
    pub records: frame::Limits,
    /// Bounds on request heads, as the parser wants them.
    pub heads: request::Limits,
    /// Bounds on what a line may send in a second.
    pub intake: IntakeLimits,
    /// How long lines live.
    pub lifetime: section::Lifetime,
    /// When memory is short.
    pub memory: section::Memory,
    /// How fast messages to all lines go out.
    pub broadcast: section::Broadcast,
    /// How the node leaves.
    pub drain: section::Drain,
    /// Bounds on the sending API.
    pub api: section::Api,
    /// When to ping, and when to give up.
    pub heartbeat: Heartbeat,
    /// Who a device is.
    pub authenticator: Authenticator,
    /// Where load balancers are that announce for whom they connect.
    pub proxy_networks: Vec<IpNet>,
    /// Which browsers' pages may connect.
    pub origins: OriginPolicy,
    /// Which cookie may carry a token.
    pub cookie: Option<String>,
    /// Which back ends may do what.
    pub api_keys: ApiKeys,
    /// Who may read the metrics.
    pub ops_keys: ApiKeys,
    /// Lines echo what they receive: for conformance tests only.
    pub is_echo: bool,
}

impl Settings {
    /// Reads the key files that the configuration names.
    ///
    /// # Errors
    /// [`ConfigErrors`] naming the file that cannot be read or makes no sense.
    pub fn load(config: &Config) -> Result<Self, ConfigErrors> {
        let limits = config.limits.clone();
        Ok(Self {
            frames: frame::Limits {
                message_bytes_max: limits.message_bytes_max.as_usize(),
                fragments_max: limits.fragments_max,
            },
            records: frame::Limits {
                message_bytes_max: config.api.body_bytes_max.as_usize(),
                fragments_max: limits.fragments_max,
            },
            intake: IntakeLimits {
                frames: limits.frames_per_second,
                bytes: limits.bytes_per_second.bytes(),
                pings: limits.pings_per_second,
            },
            presence: config.presence.clone(),
            lifetime: config.lifetime.clone(),
            memory: config.memory.clone(),
            broadcast: config.broadcast.clone(),
            drain: config.drain.clone(),
            api: config.api.clone(),
            heads: request::Limits {
                head_bytes_max: limits.head_bytes_max.as_usize(),
                target_bytes_max: TARGET_BYTES_MAX,
            },
            heartbeat: Heartbeat {
                ping_after: config.heartbeat.ping_after,
                pong_timeout: config.heartbeat.pong_timeout,
            },
            authenticator: Authenticator::new(&config.auth)?,
            origins: OriginPolicy::new(&config.auth).map_err(|error| ConfigErrors(vec![error]))?,
            proxy_networks: config.listen.proxy_networks.clone(),
            cookie: config.auth.cookie.clone(),
            api_keys: ApiKeys::new(&config.api)?,
            ops_keys: ApiKeys::for_ops(&config.ops)?,
            is_echo: false,
            limits,
        })
    }

    /// How long a sender waits for its level: as long as it asks, within the node's bound.
    pub(crate) fn patience_ms(&self, asked_ms: Option<u64>) -> u64 {
        let ms = asked_ms.unwrap_or_else(|| millis(self.api.timeout_default));
        ms.min(millis(self.api.timeout_max))
    }
}

/// The longest request target: a token in the query fits.
const TARGET_BYTES_MAX: usize = 6 * 1024;
