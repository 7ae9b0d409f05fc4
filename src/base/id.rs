//! Names of things: devices, accounts, shards, connections, messages.

use std::fmt;

use base64::Engine as _;
use base64::display::Base64Display;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Longest id a device, account, topic or node may have, in bytes (`docs/protocol.md`, ids).
pub const ID_BYTES_MAX: usize = 128;

/// Whether the bytes form a valid id: `[A-Za-z0-9._:-]{1,128}`.
///
/// Everything that names a device, an account or a node passes here before it reaches a table, a log or a key.
pub fn is_valid_id(bytes: &[u8]) -> bool {
    let is_id_byte = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
    (1..=ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(is_id_byte)
}

/// A shard of this node, and so the reactor that owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// A connection within its shard: the slot in the arena and the slot's generation.
///
/// Generations make stale ids miss instead of reaching the slot's next tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// Index in the shard's arena.
    pub slot: u32,
    /// How often the slot had been used before; wraps after 2³² tenants.
    pub generation: u32,
}

/// A connection anywhere on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The owning shard.
    pub shard: ShardId,
    /// The connection within it.
    pub conn: ConnId,
}

/// What tells this run of this node from every other: carried in connection and message ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeEpoch {
    /// Fingerprint of the node id: the first 32 bits of its SHA-256, so that every node computes the same.
    pub node: u32,
    /// Drawn at random when the process starts.
    pub boot: u32,
}

/// The public, opaque name of a connection: node, node epoch, shard, slot and generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId {
    /// The node and its run.
    pub epoch: NodeEpoch,
    /// Where on that node.
    pub location: Location,
}

impl ConnectionId {
    const BYTES: usize = 18;

    /// Reads the text form; `None` when it is not one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; Self::BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let u32_at =
            |i: usize| u32::from_be_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        (length == Self::BYTES).then(|| Self {
            epoch: NodeEpoch {
                node: u32_at(0),
                boot: u32_at(4),
            },
            location: Location {
                shard: ShardId(u16::from_be_bytes([bytes[8], bytes[9]])),
                conn: ConnId {
                    slot: u32_at(10),
                    generation: u32_at(14),
                },
            },
        })
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; Self::BYTES];
        bytes[0..4].copy_from_slice(&self.epoch.node.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.epoch.boot.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.location.shard.0.to_be_bytes());
        bytes[10..14].copy_from_slice(&self.location.conn.slot.to_be_bytes());
        bytes[14..18].copy_from_slice(&self.location.conn.generation.to_be_bytes());
        Base64Display::new(&bytes, &URL_SAFE_NO_PAD).fmt(f)
    }
}

/// The id of an accepted message: 26 characters that sort by time of acceptance and never repeat.
///
/// 48 bits of wall-clock milliseconds, 32 of the run of the node, 16 of the shard, 32 of a counter. The run is
/// drawn at random at start, so a restart with a clock set back repeats nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u128);

impl MessageId {
    /// Length of the text form, in bytes.
    pub const TEXT_BYTES: usize = 26;

    /// Composes an id from its parts.
    pub fn new(wall_ms: u64, epoch: NodeEpoch, shard: ShardId, counter: u32) -> Self {
        let run = epoch.node.rotate_left(16) ^ epoch.boot;
        let tail = u128::from(run) << 48 | u128::from(shard.0) << 32 | u128::from(counter);
        Self(u128::from(wall_ms) << 80 | tail)
    }

    /// Reads the text form; `None` when it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |c: u8| CROCKFORD.iter().position(|&d| d == c);
        let fits = text.len() == Self::TEXT_BYTES && text.as_bytes()[0] <= b'7';
        fits.then(|| {
            text.bytes()
                .try_fold(0_u128, |id, c| Some(id << 5 | digit(c)? as u128))
        })?
        .map(Self)
    }

    /// The text form, without an allocation.
    pub fn to_text(self) -> [u8; Self::TEXT_BYTES] {
        let mut text = [0; Self::TEXT_BYTES];
        // 128 bits fill 26 digits of 5 bits with two zero bits in front, so the sort order is kept.
        for (i, digit) in text.iter_mut().rev().enumerate() {
            *digit = CROCKFORD[(self.0 >> (5 * i)) as usize & 31];
        }
        text
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_text()
            .iter()
            .try_for_each(|&digit| fmt::Write::write_char(f, char::from(digit)))
    }
}

/// Crockford's base 32: sorts like the bytes, survives being read aloud, is safe in a URL.
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: NodeEpoch = NodeEpoch {
        node: 0xDEAD_BEEF,
        boot: 7,
    };

    #[test]
    fn ids_outside_the_alphabet_are_refused() {
        assert!(is_valid_id(b"tv-1.living_room:A"));
        assert!(is_valid_id(&[b'a'; ID_BYTES_MAX]));
        for bad in [
            &b""[..],
            b"a b",
            b"a/b",
            b"..%00",
            b"a\n",
            "é".as_bytes(),
            &[b'a'; ID_BYTES_MAX + 1],
        ] {
            assert!(!is_valid_id(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_connection_id_survives_its_text_form() {
        let conn = ConnId {
            slot: 1_000_000,
            generation: u32::MAX,
        };
        let id = ConnectionId {
            epoch: EPOCH,
            location: Location {
                shard: ShardId(515),
                conn,
            },
        };
        assert_eq!(id.to_string().len(), 24);
        assert_eq!(ConnectionId::parse(&id.to_string()), Some(id));
        for bad in [
            "",
            "AAAA",
            "not base64 at all, mind",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert_eq!(ConnectionId::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn message_ids_sort_by_time_and_survive_their_text_form() {
        let early = MessageId::new(1_700_000_000_000, EPOCH, ShardId(3), u32::MAX);
        let late = MessageId::new(1_700_000_000_001, EPOCH, ShardId(0), 0);
        assert!(early.to_string() < late.to_string());
        assert_eq!(early.to_string().len(), MessageId::TEXT_BYTES);
        assert_eq!(MessageId::parse(&early.to_string()), Some(early));
        assert_eq!(MessageId::parse(&"Z".repeat(26)), None);
        assert_eq!(MessageId::parse("short"), None);
    }
}
