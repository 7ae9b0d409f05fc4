//! A broadcast, as all shards see it: frames that are encoded once, whom they are for, and how far each shard has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::utils::CachePadded;

use crate::base::id::MessageId;
use crate::metrics::{BroadcastEnding, Cell};
use crate::wire::broadcast::{Audience, LineProtocol};
use crate::wire::device::{MessageFrom, encode_message};
use crate::wire::payload::Payload;
use crate::ws::encoder;
use crate::ws::frame::Opcode;

/// One message on its way to all lines of the node.
#[derive(Debug)]
pub struct Broadcast {
    /// What is left of it when its frames have gone.
    pub standing: Arc<Standing>,
    json: Box<[u8]>,
    raw: Box<[u8]>,
}

/// What a broadcast is, and how far it has come.
#[derive(Debug)]
pub struct Standing {
    /// Its id, the same for all devices.
    pub id: MessageId,
    /// Its number on this node: by it a shard knows what its frames have come to.
    pub number: u32,
    /// Whom it is for.
    pub audience: Audience,
    /// When its time is over, milliseconds since the Unix epoch.
    pub expires_ms: Option<u64>,
    is_cancelled: AtomicBool,
    /// How far each shard has come, in order.
    pub progress: Box<[CachePadded<Progress>]>,
}

/// How far one shard has come: written by it, read by whoever asks.
#[derive(Debug, Default)]
pub struct Progress {
    /// Lines that were open when it began.
    pub lines: Cell,
    /// Lines in whose outbox the frame waits.
    pub waiting: Cell,
    /// What became of the others.
    pub endings: [Cell; BroadcastEnding::ALL.len()],
    /// When the last line was dealt with, milliseconds since the Unix epoch; 0 before.
    pub ended_ms: Cell,
}

impl Broadcast {
    /// Encodes the frames, once for however many lines get them.
    pub fn new(standing: Arc<Standing>, service: &str, payload: &Payload) -> Self {
        let (mut text, mut json, mut raw) = (Vec::new(), Vec::new(), Vec::new());
        let from = MessageFrom::Service(service);
        encode_message(standing.id, from, payload, false, &mut text);
        encoder::encode(Opcode::Text, &text, &mut json);
        encode_raw(payload, &mut raw);
        Self {
            standing,
            json: json.into(),
            raw: raw.into(),
        }
    }

    /// The finished frame for lines of a sub-protocol.
    pub fn frame(&self, protocol: LineProtocol) -> &[u8] {
        match protocol {
            LineProtocol::Json => &self.json,
            LineProtocol::Raw => &self.raw,
        }
    }
}

impl Standing {
    /// A broadcast that none of so many shards has heard of.
    pub fn new(
        id: MessageId,
        number: u32,
        audience: Audience,
        expires_ms: Option<u64>,
        shards: usize,
    ) -> Self {
        Self {
            id,
            number,
            audience,
            expires_ms,
            is_cancelled: AtomicBool::new(false),
            progress: (0..shards).map(|_| CachePadded::default()).collect(),
        }
    }

    /// Has shards stop where they are.
    pub fn cancel(&self) {
        // Relaxed: it publishes nothing but itself, and a slice later is soon enough.
        self.is_cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }

    /// Whether its time is over.
    pub fn has_expired(&self, wall_ms: u64) -> bool {
        self.expires_ms.is_some_and(|at| at <= wall_ms)
    }

    /// Whether every shard has dealt with all of its lines.
    pub fn is_ended(&self) -> bool {
        self.progress.iter().all(|shard| shard.ended_ms.value() > 0)
    }

    /// Adds up one number over all shards.
    pub fn total(&self, number: impl Fn(&Progress) -> &Cell) -> u64 {
        let numbers = self.progress.iter().map(|shard| number(shard).value());
        numbers.fold(0, u64::wrapping_add)
    }
}

/// Appends the frame of a message to a raw line: the payload, and nothing else.
pub fn encode_raw(payload: &Payload, out: &mut Vec<u8>) {
    let opcode = if payload.is_text() {
        Opcode::Text
    } else {
        Opcode::Binary
    };
    encoder::encode(opcode, &payload.bytes, out);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn each_sub_protocol_has_its_frame() {
        let payload = Payload::from_plain(Bytes::from_static(b"\xff"));
        let standing = Standing::new(MessageId(7), 1, Audience::default(), Some(5), 2);
        let broadcast = Broadcast::new(Arc::new(standing), "news", &payload);
        let json = broadcast.frame(LineProtocol::Json);
        assert_eq!(json[0], 0x81);
        let text = String::from_utf8_lossy(json);
        assert!(
            text.contains(r#""from":{"service":"news"},"data_b64":"/w==""#),
            "{text}"
        );
        assert_eq!(broadcast.frame(LineProtocol::Raw), [0x82, 1, 0xff]);
        let standing = &broadcast.standing;
        assert!(standing.has_expired(5) && !standing.has_expired(4));
    }

    #[test]
    fn it_has_ended_when_every_shard_says_so() {
        let standing = Standing::new(MessageId(7), 1, Audience::default(), None, 2);
        standing.progress[0].ended_ms.add(9);
        assert!(!standing.is_ended());
        standing.progress[1].ended_ms.add(9);
        assert!(standing.is_ended());
        standing.progress[0].lines.add(3);
        standing.progress[1].lines.add(4);
        assert_eq!(standing.total(|shard| &shard.lines), 7);
    }
}
