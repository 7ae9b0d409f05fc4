//! A simulated device: a small client of its own, so that the server's codec is not its own witness.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::Value;

use super::back_end::BackEnd;
use super::chat::Watched;
use super::wire::Wire;

/// One connection of one device.
#[derive(Debug)]
pub(super) struct Line {
    /// The device's number, which is its name.
    pub(super) device: usize,
    /// The shard that accepted it.
    pub(super) shard: usize,
    pub(super) wire: Rc<RefCell<Wire>>,
    /// Reads nothing.
    pub(super) is_stalled: bool,
    /// Answers nothing, and will never finish: gone without a word.
    pub(super) is_vanished: bool,
    /// Ignores go-aways, so that the node has to force it.
    pub(super) is_deaf: bool,
    /// Acknowledges nothing.
    pub(super) is_mute: bool,
    /// The connection's number.
    pub(super) number: u64,
    /// What it was shown of its account, while it watches.
    pub(super) watched: Option<Watched>,
    /// Not a device at all, but a back end that streams.
    pub(super) back_end: Option<BackEnd>,
    received: Vec<u8>,
    is_upgraded: bool,
    is_refused: bool,
}

/// What a device hears.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    Text(Value),
    Ping(Vec<u8>),
    Pong,
    Close(u16),
    /// The node did not let it in.
    Refused(u16),
}

impl Line {
    pub(super) fn new(number: u64, device: usize, shard: usize, wire: Rc<RefCell<Wire>>) -> Self {
        Self {
            device,
            shard,
            wire,
            is_stalled: false,
            is_vanished: false,
            is_deaf: false,
            is_mute: false,
            number,
            watched: None,
            back_end: None,
            received: Vec::new(),
            is_upgraded: false,
            is_refused: false,
        }
    }

    /// Whether either end has given the connection up.
    pub(super) fn is_over(&self) -> bool {
        let wire = self.wire.borrow();
        wire.is_cut
            || wire.is_dropped_by_node
            || (wire.is_ended_by_node && wire.outbound.is_empty())
    }

    /// Puts a text frame on its way.
    pub(super) fn say(&self, text: &str, arrives_ms: u64) {
        let frame = frame(1, text.as_bytes());
        self.wire.borrow_mut().send(&frame, arrives_ms);
    }

    /// The upgrade request.
    pub(super) fn request(device: usize) -> Vec<u8> {
        format!(
            "GET /ws?device_id=d-{device}&user_id=a-{} HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            device % 3
        )
        .into_bytes()
    }

    /// Reads what has come and takes the whole frames out of it.
    pub(super) fn hear(&mut self) -> Vec<Heard> {
        if self.is_stalled || self.is_vanished || self.is_refused {
            return Vec::new();
        }
        self.received.extend(self.wire.borrow_mut().read_all());
        if !self.is_upgraded {
            let Some(end) = self
                .received
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
            else {
                return Vec::new();
            };
            let head = String::from_utf8_lossy(&self.received);
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            if status != 101 {
                // Nothing else is in the way of a device of the simulation.
                assert!(status == 429 || status == 503, "{head}");
                self.is_refused = true;
                return vec![Heard::Refused(status)];
            }
            self.received.drain(..end + 4);
            self.is_upgraded = true;
        }
        std::iter::from_fn(|| self.take_frame()).collect()
    }

    fn take_frame(&mut self) -> Option<Heard> {
        let [first, second, ..] = *self.received else {
            return None;
        };
        let (length, start) = match second {
            126 => (
                usize::from(u16::from_be_bytes([
                    *self.received.get(2)?,
                    *self.received.get(3)?,
                ])),
                4,
            ),
            length => (usize::from(length), 2),
        };
        assert!(
            second < 127,
            "a frame of the simulation is short, and a server's is not masked"
        );
        if self.received.len() < start + length {
            return None;
        }
        let payload = self.received[start..start + length].to_vec();
        self.received.drain(..start + length);
        Some(match first {
            0x81 => Heard::Text(serde_json::from_slice(&payload).expect("a text frame is JSON")),
            0x88 => Heard::Close(u16::from_be_bytes([payload[0], payload[1]])),
            0x89 => Heard::Ping(payload),
            0x8a => Heard::Pong,
            other => panic!("unexpected frame {other:#x}"),
        })
    }
}

/// A masked client frame.
pub(super) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [1, 2, 3, 4];
    let mut frame = match u8::try_from(payload.len()) {
        Ok(short) if short < 126 => vec![0x80 | opcode, 0x80 | short],
        Ok(length) => vec![0x80 | opcode, 0x80 | 126, 0, length],
        Err(_) => panic!("frames here are short"),
    };
    frame.extend(MASK);
    frame.extend(
        payload
            .iter()
            .enumerate()
            .map(|(i, byte)| byte ^ MASK[i % 4]),
    );
    frame
}
