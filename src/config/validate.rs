//! What no single key can tell: that the tree as a whole may be started.

use std::net::SocketAddr;
use std::time::Duration;

use super::Config;
use super::error::{ConfigError, ConfigErrors};
use super::section::AuthMode;
use super::size::Size;
use crate::base::id::is_valid_id;

impl Config {
    /// Finds impossible values and combinations, and listeners that would be open to everybody. Key files are not read.
    ///
    /// # Errors
    /// All that was found.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let mut errors = self.open_listeners();
        errors.extend(self.auth_mistakes());
        errors.extend(self.tls_mistakes());
        errors.extend(self.zeros());
        errors.extend(self.contradictions());
        errors.extend(self.limit_mistakes());
        errors.extend(self.memory_mistakes());
        ConfigErrors::check(errors)
    }

    fn open_listeners(&self) -> Vec<ConfigError> {
        let lacks_tokens = self.auth.mode == AuthMode::Dev;
        let lacks_api_keys = self.api.keys.is_empty();
        let lacks_ops_key = self.ops.key_file.is_none();
        let open = |key: &str, addr: SocketAddr, lacks: bool, what: &str, advice: &str| {
            let is_open = lacks && !addr.ip().to_canonical().is_loopback();
            is_open.then(|| {
                let cause = format!("{addr} is not loopback, and {what}");
                ConfigError::new(format!("listen.{key}"), cause).advise(advice)
            })
        };
        [
            open(
                "devices",
                self.listen.devices,
                lacks_tokens,
                "with auth.mode = \"dev\" anybody could be any device",
                "set auth.mode = \"jwt\" and [[auth.keys]] or auth.jwks_file",
            ),
            open(
                "api",
                self.listen.api,
                lacks_api_keys,
                "without a key anybody could send",
                "add [[api.keys]] with name, key_file and roles",
            ),
            open(
                "peer",
                self.listen.peer,
                lacks_api_keys,
                "without a key anybody could send",
                "add [[api.keys]] with name, key_file and roles",
            ),
            open(
                "ops",
                self.listen.ops,
                lacks_ops_key,
                "without a key anybody could read the metrics",
                "set ops.key_file",
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn auth_mistakes(&self) -> Vec<ConfigError> {
        let is_jwt = self.auth.mode == AuthMode::Jwt;
        let no_token_key = self.auth.keys.is_empty() && self.auth.jwks_file.is_none();
        let node_id_is_bad = self
            .node
            .id
            .as_deref()
            .is_some_and(|id| !is_valid_id(id.as_bytes()));
        let cookie_is_open = self.auth.cookie.is_some() && self.auth.origins.is_empty();
        found([
            (
                node_id_is_bad,
                "node.id",
                "not of the form [A-Za-z0-9._:-]{1,128}",
                "choose another",
            ),
            (
                is_jwt && no_token_key,
                "auth.mode",
                "\"jwt\" needs a key that verifies tokens",
                "add [[auth.keys]] or set auth.jwks_file",
            ),
            (
                self.auth.mode != AuthMode::Dev && self.api.keys.is_empty(),
                "api.keys",
                "none, although auth.mode is not \"dev\"",
                "add [[api.keys]] with name, key_file and roles",
            ),
            (
                cookie_is_open,
                "auth.cookie",
                "browsers send cookies on behalf of any page",
                "list the pages that may connect in auth.origins",
            ),
        ])
    }

    /// Zero is never a bound or a timeout; where it means something the key says so and is not listed here.
    fn zeros(&self) -> Vec<ConfigError> {
        let (api, limits, lifetime) = (&self.api, &self.limits, &self.lifetime);
        let zeros = [
            ("listen.backlog", self.listen.backlog == 0),
            ("api.body_bytes_max", is_empty(api.body_bytes_max)),
            ("api.head_timeout", api.head_timeout.is_zero()),
            ("api.body_timeout", api.body_timeout.is_zero()),
            ("api.idle_timeout", api.idle_timeout.is_zero()),
            ("api.timeout_default", api.timeout_default.is_zero()),
            ("api.timeout_max", api.timeout_max.is_zero()),
            ("api.connections_max", api.connections_max == 0),
            ("api.streams_max", api.streams_max == 0),
            ("api.stream_window", api.stream_window == 0),
            ("api.stream_idle_timeout", api.stream_idle_timeout.is_zero()),
            ("api.event_readers_max", api.event_readers_max == 0),
            ("api.event_buffer_max", api.event_buffer_max == 0),
            ("api.event_heartbeat", api.event_heartbeat.is_zero()),
            ("api.batch_messages_max", api.batch_messages_max == 0),
            ("api.idempotency_window", api.idempotency_window.is_zero()),
            ("heartbeat.ping_after", self.heartbeat.ping_after.is_zero()),
            (
                "heartbeat.pong_timeout",
                self.heartbeat.pong_timeout.is_zero(),
            ),
            ("limits.connections_max", limits.connections_max == 0),
            ("limits.handshakes_max", limits.handshakes_max == 0),
            (
                "limits.handshake_timeout",
                limits.handshake_timeout.is_zero(),
            ),
            ("limits.head_bytes_max", is_empty(limits.head_bytes_max)),
            (
                "limits.message_bytes_max",
                is_empty(limits.message_bytes_max),
            ),
            (
                "limits.ack_data_bytes_max",
                is_empty(limits.ack_data_bytes_max),
            ),
            ("limits.fragments_max", limits.fragments_max == 0),
            ("limits.message_timeout", limits.message_timeout.is_zero()),
            ("limits.outbox_bytes_max", is_empty(limits.outbox_bytes_max)),
            (
                "limits.outbox_stall_timeout",
                limits.outbox_stall_timeout.is_zero(),
            ),
            (
                "limits.mailbox_commands_max",
                limits.mailbox_commands_max == 0,
            ),
            ("limits.sends_per_second", limits.sends_per_second == 0),
            ("limits.sends_burst", limits.sends_burst == 0),
            (
                "limits.receives_per_second",
                limits.receives_per_second == 0,
            ),
            ("limits.receives_burst", limits.receives_burst == 0),
            ("lifetime.age_max", lifetime.age_max.is_zero()),
            ("lifetime.goaway_grace", lifetime.goaway_grace.is_zero()),
            ("lifetime.close_timeout", lifetime.close_timeout.is_zero()),
            ("drain.deadline", self.drain.deadline.is_zero()),
            (
                "broadcast.bytes_per_second",
                is_empty(self.broadcast.bytes_per_second),
            ),
            ("broadcast.running_max", self.broadcast.running_max == 0),
        ];
        found(zeros.map(|(key, is_zero)| (is_zero, key, "zero", "choose a greater value")))
    }

    fn contradictions(&self) -> Vec<ConfigError> {
        let listen = &self.listen;
        let listen = [listen.devices, listen.api, listen.peer, listen.ops];
        let is_taken = |i: usize| listen[i].port() != 0 && listen[..i].contains(&listen[i]);
        let (heartbeat, lifetime, drain) = (&self.heartbeat, &self.lifetime, &self.drain);
        found([
            (
                is_taken(1),
                "listen.api",
                "the same as listen.devices",
                "choose another port",
            ),
            (
                is_taken(2),
                "listen.peer",
                "the same as another listener",
                "choose another port",
            ),
            (
                is_taken(3),
                "listen.ops",
                "the same as another listener",
                "choose another port",
            ),
            (
                heartbeat.pong_timeout >= heartbeat.ping_after,
                "heartbeat.pong_timeout",
                "not below heartbeat.ping_after, so pings would overlap",
                "choose a smaller value",
            ),
            (
                lifetime.age_jitter >= lifetime.age_max,
                "lifetime.age_jitter",
                "not below lifetime.age_max, so lines could end at once",
                "choose a smaller value",
            ),
            (
                drain.interval >= drain.deadline,
                "drain.interval",
                "not below drain.deadline, so no line would have time to leave",
                "choose a smaller value",
            ),
            (
                self.api.stream_window > STREAM_WINDOW_MOST,
                "api.stream_window",
                "above 65536, which is what all streams of a reactor may have unanswered",
                "choose a smaller value",
            ),
            (
                self.api.timeout_default > self.api.timeout_max,
                "api.timeout_default",
                "above api.timeout_max",
                "choose a smaller value",
            ),
            (
                self.api.idempotency_keys_max < IDEMPOTENCY_KEYS_LEAST,
                "api.idempotency_keys_max",
                "below 16",
                "choose a greater value",
            ),
            (
                self.longest() > LONGEST,
                "durations",
                "one is above a year, which no deadline here can hold",
                "choose a smaller value",
            ),
        ])
    }

    fn memory_mistakes(&self) -> Vec<ConfigError> {
        let memory = &self.memory;
        found([
            (
                memory.limit.is_some_and(|limit| limit.as_u64() == 0),
                "memory.limit",
                "zero",
                "choose a greater value, or leave it out",
            ),
            (
                memory.refuse_lines_at == 0,
                "memory.refuse_lines_at",
                "zero, so no line could ever be opened",
                "choose a share of memory in percent",
            ),
            (
                memory.shed_lines_at < memory.refuse_lines_at,
                "memory.shed_lines_at",
                "below memory.refuse_lines_at, so lines would be closed while new ones are let in",
                "choose a greater value",
            ),
            (
                memory.refuse_messages_at < memory.shed_lines_at,
                "memory.refuse_messages_at",
                "below memory.shed_lines_at",
                "choose a greater value",
            ),
        ])
    }

    fn limit_mistakes(&self) -> Vec<ConfigError> {
        let limits = &self.limits;
        found([
            (
                limits.head_bytes_max > HEAD_BYTES_MOST,
                "limits.head_bytes_max",
                "above 64KiB, which no browser or proxy sends",
                "choose a smaller value",
            ),
            (
                limits.outbox_bytes_max < limits.message_bytes_max,
                "limits.outbox_bytes_max",
                "below limits.message_bytes_max, so the longest message could never be sent",
                "choose a greater value",
            ),
            (
                limits.bytes_per_second > BYTES_PER_SECOND_MOST,
                "limits.bytes_per_second",
                "above 15MiB, which the count of a line cannot hold",
                "choose a smaller value, or 0 for no limit",
            ),
            (
                limits.bytes_per_second.bytes() > 0
                    && limits.bytes_per_second < limits.message_bytes_max,
                "limits.bytes_per_second",
                "below limits.message_bytes_max, so the longest message would end its line",
                "choose a greater value, or 0 for no limit",
            ),
            (
                limits.frames_per_second == u16::MAX,
                "limits.frames_per_second",
                "more than the count of a line can hold",
                "choose a smaller value, or 0 for no limit",
            ),
            (
                limits.pings_per_second == u8::MAX,
                "limits.pings_per_second",
                "more than the count of a line can hold",
                "choose a smaller value, or 0 for no limit",
            ),
        ])
    }

    fn longest(&self) -> Duration {
        let (api, limits, lifetime) = (&self.api, &self.limits, &self.lifetime);
        let all = [
            self.auth.leeway,
            api.head_timeout,
            api.body_timeout,
            api.idle_timeout,
            api.timeout_max,
            api.event_heartbeat,
            api.stream_idle_timeout,
            api.idempotency_window,
            self.heartbeat.ping_after,
            limits.handshake_timeout,
            limits.message_timeout,
            limits.outbox_stall_timeout,
            lifetime.age_max,
            lifetime.goaway_grace,
            lifetime.close_timeout,
            self.drain.deadline,
        ];
        all.into_iter().max().unwrap_or_default()
    }
}

/// What a line's count of bytes can hold (`protocol::intake`).
const BYTES_PER_SECOND_MOST: Size = Size::kib(15 * 1_024);
/// A mistake when true: place, cause, advice.
type Finding = (bool, &'static str, &'static str, &'static str);

fn found<const N: usize>(findings: [Finding; N]) -> Vec<ConfigError> {
    let error = |(_, place, cause, advice): Finding| ConfigError::new(place, cause).advise(advice);
    findings
        .into_iter()
        .filter(|finding| finding.0)
        .map(error)
        .collect()
}

fn is_empty(size: Size) -> bool {
    size.bytes() == 0
}

const STREAM_WINDOW_MOST: u32 = 65_536;
/// One key for each part of the window that has a lock of its own (`reactor::idempotency`).
const IDEMPOTENCY_KEYS_LEAST: u32 = 16;
const HEAD_BYTES_MOST: Size = Size::kib(64);
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3_600);

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(toml: &str) -> Vec<String> {
        let config: Config = toml::from_str(toml).unwrap();
        let errors = config.validate().err();
        errors
            .into_iter()
            .flat_map(|e| e.0)
            .map(|e| e.place)
            .collect()
    }

    #[test]
    fn the_defaults_may_be_started() {
        assert!(Config::default().validate().is_ok());
    }

    #[test]
    fn a_listener_open_to_the_network_needs_keys() {
        let open = "[listen]\ndevices = \"0.0.0.0:7400\"\napi = \"[::]:7401\"\npeer = \"[::]:7402\"\nops = \"10.0.0.1:7403\"\n";
        assert_eq!(
            mistakes(open),
            ["listen.devices", "listen.api", "listen.peer", "listen.ops"]
        );
        let keyed = "[auth]\nmode = \"jwt\"\njwks_file = \"j\"\n[ops]\nkey_file = \"k\"\n
            [[api.keys]]\nname = \"a\"\nkey_file = \"k\"\nroles = [\"send\"]\n";
        assert_eq!(mistakes(&format!("{open}{keyed}")), [""; 0]);
        assert_eq!(
            mistakes("[listen]\ndevices = \"127.9.9.9:0\"\napi = \"[::1]:0\""),
            [""; 0]
        );
    }

    #[test]
    fn auth_must_be_complete() {
        assert_eq!(mistakes("auth.mode = \"jwt\""), ["auth.mode", "api.keys"]);
        assert_eq!(mistakes("auth.cookie = \"t\""), ["auth.cookie"]);
        assert_eq!(mistakes("node.id = \"a b\""), ["node.id"]);
    }

    #[test]
    fn impossible_values_are_found() {
        for (toml, place) in [
            ("heartbeat.ping_after = \"15s\"", "heartbeat.pong_timeout"),
            ("lifetime.age_max = \"3m\"", "lifetime.age_jitter"),
            ("drain.deadline = \"2s\"", "drain.interval"),
            (
                "limits.outbox_bytes_max = \"1KiB\"",
                "limits.outbox_bytes_max",
            ),
            ("limits.connections_max = 0", "limits.connections_max"),
            ("api.timeout_max = \"1s\"", "api.timeout_default"),
            ("limits.head_bytes_max = \"1MiB\"", "limits.head_bytes_max"),
            ("api.idempotency_keys_max = 15", "api.idempotency_keys_max"),
            ("api.batch_messages_max = 0", "api.batch_messages_max"),
            ("lifetime.age_max = \"10years\"", "durations"),
            ("listen.api = \"127.0.0.1:7400\"", "listen.api"),
            ("listen.peer = \"127.0.0.1:7401\"", "listen.peer"),
            ("api.stream_window = 65537", "api.stream_window"),
            ("listen.ops = \"127.0.0.1:7400\"", "listen.ops"),
        ] {
            assert_eq!(mistakes(toml), [place], "{toml}");
        }
    }
}
