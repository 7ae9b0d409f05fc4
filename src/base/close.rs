//! Why a connection ends: the one table behind close codes, metric labels, log words and reconnect advice.

use std::fmt;

/// Every reason a connection can end for. The word is what the close frame, the metric label and the log line say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CloseReason {
    /// The device, or the back end, closed or hung up.
    PeerClosed,
    /// The socket failed: reset, timed out by TCP, unreachable.
    NetworkError,
    /// The head did not arrive, or authentication did not finish, within the handshake deadline.
    HandshakeTimeout,
    /// The request head was refused with an HTTP status.
    Refused,
    /// TLS failed, in the handshake or later.
    TlsFailed,
    /// A frame broke RFC 6455.
    ProtocolError,
    /// A kind of data this line does not take: binary on a JSON line, anything on a raw one.
    UnsupportedData,
    /// Text that is not UTF-8.
    InvalidPayload,
    /// Too many fragments, too slow a message, too many pings.
    PolicyViolation,
    /// A message over the limit.
    MessageTooBig,
    /// The node is leaving.
    Drain,
    /// The outbox passed its limit, or made no progress for too long.
    SlowConsumer,
    /// No pong within the deadline: the far end is gone.
    PongTimeout,
    /// A connection without heartbeat was silent for too long.
    Idle,
    /// The line reached its maximum age.
    MaxAge,
    /// The token ran out and was not refreshed.
    TokenExpired,
    /// The node had no room.
    Overload,
    /// The credential was missing, bad or forged.
    Unauthorized,
    /// A newer line of the same device took over.
    Replaced,
    /// An operator closed it.
    Kicked,
    /// The node is stopping at once.
    Shutdown,
}

/// Who caused the end of a connection: what a dashboard groups by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The device or the back end at the far end.
    Device,
    /// The path between.
    Network,
    /// This node.
    Node,
    /// A person.
    Operator,
}

impl CloseReason {
    /// Every reason, in the order of the metric table.
    pub const ALL: [Self; 21] = [
        Self::PeerClosed,
        Self::NetworkError,
        Self::HandshakeTimeout,
        Self::Refused,
        Self::TlsFailed,
        Self::ProtocolError,
        Self::UnsupportedData,
        Self::InvalidPayload,
        Self::PolicyViolation,
        Self::MessageTooBig,
        Self::Drain,
        Self::SlowConsumer,
        Self::PongTimeout,
        Self::Idle,
        Self::MaxAge,
        Self::TokenExpired,
        Self::Overload,
        Self::Unauthorized,
        Self::Replaced,
        Self::Kicked,
        Self::Shutdown,
    ];

    /// The WebSocket close code. RFC 6455 codes where they fit (section 7.4.1); of ours, 4000–4499 ask the device
    /// to come back and 4500–4999 tell it not to.
    pub const fn code(self) -> u16 {
        self.row().0
    }

    /// The lower_snake word, at most 32 bytes.
    pub const fn word(self) -> &'static str {
        self.row().1
    }

    /// Who caused it.
    pub const fn blame(self) -> Blame {
        self.row().2
    }

    /// Whether the device should come back, with backoff.
    pub const fn reconnects(self) -> bool {
        self.row().3
    }

    const fn row(self) -> (u16, &'static str, Blame, bool) {
        match self {
            Self::PeerClosed => (1000, "peer_closed", Blame::Device, true),
            Self::NetworkError => (1006, "network_error", Blame::Network, true),
            Self::HandshakeTimeout => (1008, "handshake_timeout", Blame::Device, true),
            Self::Refused => (1006, "refused", Blame::Device, true),
            Self::TlsFailed => (1015, "tls_failed", Blame::Device, true),
            Self::ProtocolError => (1002, "protocol_error", Blame::Device, false),
            Self::UnsupportedData => (1003, "unsupported_data", Blame::Device, false),
            Self::InvalidPayload => (1007, "invalid_payload", Blame::Device, false),
            Self::PolicyViolation => (1008, "policy_violation", Blame::Device, false),
            Self::MessageTooBig => (1009, "message_too_big", Blame::Device, false),
            Self::Drain => (4000, "drain", Blame::Node, true),
            Self::SlowConsumer => (4002, "slow_consumer", Blame::Device, true),
            Self::PongTimeout => (4003, "pong_timeout", Blame::Network, true),
            Self::Idle => (4004, "idle", Blame::Device, true),
            Self::MaxAge => (4005, "max_age", Blame::Node, true),
            Self::TokenExpired => (4006, "token_expired", Blame::Device, true),
            Self::Overload => (4007, "overload", Blame::Node, true),
            Self::Unauthorized => (4500, "unauthorized", Blame::Device, false),
            Self::Replaced => (4502, "replaced", Blame::Device, false),
            Self::Kicked => (4504, "kicked", Blame::Operator, false),
            Self::Shutdown => (1012, "shutdown", Blame::Operator, true),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_every_reason_at_its_index() {
        for (i, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i, "{reason}");
        }
    }

    #[test]
    fn our_codes_tell_whether_to_come_back() {
        for reason in CloseReason::ALL.into_iter().filter(|r| r.code() >= 4000) {
            assert_eq!(reason.reconnects(), reason.code() < 4500, "{reason}");
        }
    }

    #[test]
    fn the_page_for_device_teams_lists_every_reason() {
        let row = |line: &'static str| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            let code: u16 = cells.next()?.parse().ok()?;
            let word = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
            Some((code, word, cells.next()? == "yes"))
        };
        let page = include_str!("../../docs/protocol.md");
        let mut listed: Vec<_> = page.lines().filter_map(row).collect();
        let mut expected = CloseReason::ALL.map(|r| (r.code(), r.word(), r.reconnects()));
        listed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(listed, expected);
    }

    #[test]
    fn words_are_short_snake_case_and_unique() {
        let mut words: Vec<_> = CloseReason::ALL.iter().map(|r| r.word()).collect();
        assert!(
            words
                .iter()
                .all(|w| w.len() <= 32 && w.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        );
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), CloseReason::ALL.len());
    }
}
