//! The decoder from outside: the substance of Autobahn's small cases, attacks, cuts, and an independent twin.

use super::decoder::{CloseFrame, Decoder, Event};
use super::frame::Limits;
use super::violation::Violation;

mod attack;
mod autobahn;
mod oracle;
mod split;

const LIMITS: Limits = Limits {
    message_bytes_max: 65_536,
    fragments_max: 64,
};

/// A masked frame as a device sends it, with the first header byte as given.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length @ ..126) => out.push(0x80 | length.to_be_bytes()[1]),
        Ok(length) => {
            out.push(0x80 | 126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    append_masked(payload, &mut out);
    out
}

fn append_masked(payload: &[u8], out: &mut Vec<u8>) {
    let key = [0x5a, 0x01, 0xff, 0x80];
    out.extend_from_slice(&key);
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k));
}

fn text(payload: &str) -> Event<'static> {
    Event::Text(payload.to_owned().into())
}

fn ping(payload: &[u8]) -> Event<'static> {
    Event::Ping(payload.to_owned().into())
}

fn pong(payload: &[u8]) -> Event<'static> {
    Event::Pong(payload.to_owned().into())
}
