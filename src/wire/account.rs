//! The frames about an account's devices: pages of them, and their coming and going.

use crate::base::close::CloseReason;
use crate::wire::api::DeviceState;
use crate::wire::device::append;

/// A device of an account, as other devices of it see it.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// The device.
    pub device_id: &'a str,
    /// How it is.
    pub state: DeviceState,
}

/// What follows a page of devices.
#[derive(Clone, Copy, Debug)]
pub enum Rest<'a> {
    /// For a `list`: where the next page begins, if there is one.
    Cursor(Option<&'a str>),
    /// For a `watch`: whether more of the account's devices follow.
    More(bool),
}

/// Appends a `devices`: a page of the account's devices. `id` is the raw JSON id of the request it answers.
pub fn encode_devices<'a>(
    id: &str,
    devices: impl IntoIterator<Item = Listed<'a>>,
    rest: Rest<'_>,
    out: &mut Vec<u8>,
) {
    append(
        out,
        format_args!(r#"{{"type":"devices","id":{id},"devices":["#),
    );
    for (i, Listed { device_id, state }) in devices.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        // Ids need no escaping: their alphabet is checked.
        let state = state.word();
        append(
            out,
            format_args!(r#"{{"device_id":"{device_id}","state":"{state}"}}"#),
        );
    }
    match rest {
        Rest::Cursor(Some(cursor)) => append(out, format_args!(r#"],"cursor":"{cursor}"}}"#)),
        Rest::Cursor(None) => out.extend_from_slice(br#"],"cursor":null}"#),
        Rest::More(more) => append(out, format_args!(r#"],"more":{more}}}"#)),
    }
}

/// Appends a `presence`: a device of the account has come, is to move, or has gone.
pub fn encode_presence(
    device_id: &str,
    state: DeviceState,
    cause: Cause,
    at_ms: u64,
    out: &mut Vec<u8>,
) {
    let (state, cause) = (state.word(), cause.word());
    append(
        out,
        format_args!(
            r#"{{"type":"presence","device_id":"{device_id}","state":"{state}","cause":"{cause}","at_ms":{at_ms}}}"#
        ),
    );
}

/// Why a device's state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It opened a line.
    Connected,
    /// Its line was asked to go away, or ended.
    Line(CloseReason),
}

impl Cause {
    const fn word(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Line(reason) => reason.word(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn pages_and_changes_are_json() {
        let listed = |device_id, state| Listed { device_id, state };
        let page = [
            listed("tv-1", DeviceState::Online),
            listed("tv-2", DeviceState::Moving),
        ];
        for (rest, name, expected) in [
            (Rest::Cursor(Some("AAAA")), "cursor", json!("AAAA")),
            (Rest::Cursor(None), "cursor", Value::Null),
            (Rest::More(true), "more", json!(true)),
        ] {
            let mut out = Vec::new();
            encode_devices("7", page, rest, &mut out);
            let value: Value = serde_json::from_slice(&out).unwrap();
            let devices = json!([{"device_id":"tv-1","state":"online"},{"device_id":"tv-2","state":"moving"}]);
            assert_eq!(
                value,
                json!({"type":"devices","id":7,"devices":devices,name:expected})
            );
        }
        let mut out = Vec::new();
        let cause = Cause::Line(CloseReason::PongTimeout);
        encode_presence("tv-1", DeviceState::Offline, cause, 5, &mut out);
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            value,
            json!({"type":"presence","device_id":"tv-1","state":"offline","cause":"pong_timeout","at_ms":5})
        );
    }
}
