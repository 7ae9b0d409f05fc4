//! The `reply` frame: what became of a device's request or a back end's record, under the id it came with.

use crate::base::id::MessageId;
use crate::wire::api::{Level, SendOutcome};
use crate::wire::device::append;
use crate::wire::error::ErrorCode;
use crate::wire::payload::{encode_number, encode_string};

/// What every reply says.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The request's id, as the raw JSON it came as.
    pub id: &'a str,
    /// The message that was sent, if one was.
    pub message_id: Option<MessageId>,
    /// The level reached so far.
    pub level: Option<Level>,
    /// From reading the request to answering it, in milliseconds.
    pub latency_ms: u64,
    /// For a message to an account: how many of its devices it reached, and for how many it was.
    pub devices: Option<(usize, usize)>,
    /// What the target said with its `ack`, as raw JSON.
    pub data: Option<&'a str>,
}

impl<'a> Reply<'a> {
    /// Says which request it answers, and nothing more yet.
    pub fn to(id: &'a str) -> Self {
        Self {
            id,
            message_id: None,
            level: None,
            latency_ms: 0,
            devices: None,
            data: None,
        }
    }
}

/// Appends the `reply` to a request that was carried out.
pub fn encode_success(reply: &Reply<'_>, result: SendOutcome, out: &mut Vec<u8>) {
    encode_head(reply, out);
    encode_word(br#","result":""#, result.word().as_bytes(), out);
    encode_tail(reply, out);
    if let Some((reached, targets)) = reply.devices {
        append(
            out,
            format_args!(r#","devices":{{"targets":{targets},"reached":{reached}}}"#),
        );
    }
    if let Some(data) = reply.data {
        append(out, format_args!(r#","data":{data}"#));
    }
    out.push(b'}');
}

/// Appends the `reply` to a request that was carried out and has no result but that.
pub fn encode_done(id: &str, out: &mut Vec<u8>) {
    append(
        out,
        format_args!(r#"{{"type":"reply","id":{id},"latency_ms":0}}"#),
    );
}

/// Appends the `reply` to a request that was not.
pub fn encode_failure(reply: &Reply<'_>, code: ErrorCode, message: &str, out: &mut Vec<u8>) {
    encode_head(reply, out);
    encode_tail(reply, out);
    append(
        out,
        format_args!(r#","error":{{"code":"{}","message":"#, code.word()),
    );
    encode_string(message, out);
    append(
        out,
        format_args!(r#","retryable":{}}}}}"#, code.is_retryable()),
    );
}

// A reply goes out for each message of a stream, so its frame is copied together: formatting took a tenth of our part.

fn encode_head(reply: &Reply<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"reply","id":"#);
    out.extend_from_slice(reply.id.as_bytes());
    if let Some(message_id) = reply.message_id {
        encode_word(br#","message_id":""#, &message_id.to_text(), out);
    }
}

fn encode_tail(reply: &Reply<'_>, out: &mut Vec<u8>) {
    if let Some(level) = reply.level {
        encode_word(br#","level":""#, level.word().as_bytes(), out);
    }
    out.extend_from_slice(br#","latency_ms":"#);
    encode_number(reply.latency_ms, out);
}

/// Appends a member whose value needs no escaping: its name up to the opening quote, and its value.
fn encode_word(name: &[u8], word: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(word);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const REPLY: Reply<'_> = Reply {
        id: r#""a\"b""#,
        message_id: Some(MessageId(7)),
        level: Some(Level::Written),
        latency_ms: 3,
        devices: None,
        data: Some(r#"{"n": 1}"#),
    };

    #[test]
    fn replies_are_json_and_echo_the_id_as_it_came() {
        let mut out = Vec::new();
        encode_success(&REPLY, SendOutcome::Written, &mut out);
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            value,
            json!({"type":"reply","id":"a\"b","message_id":MessageId(7).to_string(),"result":"written","level":"written","latency_ms":3,"data":{"n":1}})
        );

        out.clear();
        let devices = Some((2, 3));
        encode_success(&Reply { devices, ..REPLY }, SendOutcome::Acked, &mut out);
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["devices"], json!({"targets":3,"reached":2}));

        out.clear();
        let reply = Reply {
            message_id: None,
            level: None,
            ..REPLY
        };
        encode_failure(&reply, ErrorCode::TargetUnavailable, "not\nthere", &mut out);
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            value,
            json!({"type":"reply","id":"a\"b","latency_ms":3,"error":{"code":"target_unavailable","message":"not\nthere","retryable":true}})
        );
    }
}
