//! Our JSON: a device's frame, a back end's record, an envelope, a batch. What is taken up makes a frame that is JSON and
//! carries the payload as it came; what is refused is refused with an id that may be echoed.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde_json::value::RawValue;
use tautline::base::id::{MessageId, is_valid_id};
use tautline::wire::batch::Batch;
use tautline::wire::cursor::Cursor;
use tautline::wire::device::{DeviceFrame, FrameError, MessageFrom, encode_message};
use tautline::wire::envelope::{SendDefaults, SendRequest};
use tautline::wire::payload::Payload;
use tautline::wire::stream::Record;

/// What a device reads.
#[derive(Deserialize)]
struct Message<'a> {
    message_id: &'a str,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    data_b64: Option<&'a str>,
}

const MESSAGES_MAX: u32 = 8;
const ID_BYTES_MAX: usize = 256;

fuzz_target!(|input: &[u8]| {
    let body = Bytes::copy_from_slice(input);
    if let Ok(request) = SendRequest::from_envelope(&body) {
        check_request(&request);
    }
    if let Ok(messages) = Batch::split(&body, MESSAGES_MAX) {
        assert!(messages.len() <= MESSAGES_MAX as usize);
        for message in messages {
            if let Ok((device, request)) =
                SendRequest::from_batch(&message, SendDefaults::default())
            {
                assert!(is_valid_id(device.as_bytes()));
                check_request(&request);
            }
        }
    }
    check_message(&Payload::from_plain(body), None);
    if let Ok(text) = str::from_utf8(input) {
        check_frame(text);
        check_record(text);
        let _cursor = Cursor::parse(text);
    }
});

fn check_frame(text: &str) {
    match DeviceFrame::decode(text) {
        Ok(DeviceFrame::Send(send)) => {
            check_id(send.id);
            check_message(&send.payload, None);
        }
        Ok(DeviceFrame::List(list)) => check_id(list.id),
        Ok(DeviceFrame::Watch { id } | DeviceFrame::Unwatch { id }) => check_id(id),
        Ok(DeviceFrame::Ping { id } | DeviceFrame::Unknown { id }) => {
            id.into_iter().for_each(check_id)
        }
        Ok(DeviceFrame::Ack { data, .. }) => data.into_iter().for_each(check_json),
        Err(FrameError::Refused { id, .. }) => check_id(id),
        Ok(DeviceFrame::Hello { .. } | DeviceFrame::Refresh { .. })
        | Err(FrameError::InvalidBody | FrameError::MissingField(_)) => {}
    }
}

fn check_record(text: &str) {
    match Record::decode(text) {
        Ok(record) => {
            check_id(record.id);
            assert!(is_valid_id(record.device_id.as_bytes()));
            check_request(&record.request);
        }
        Err(error) => error.id.into_iter().for_each(check_id),
    }
}

fn check_request(request: &SendRequest) {
    let keys = [&request.collapse_key, &request.idempotency_key];
    for key in keys.into_iter().flatten() {
        assert!(!key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    // What came as JSON is in the body, byte by byte.
    let sent = str::from_utf8(&request.payload.bytes).ok();
    check_message(&request.payload, sent);
}

/// Encodes it for a device, which reads it again.
fn check_message(payload: &Payload, sent: Option<&str>) {
    let mut out = Vec::new();
    let id = MessageId(7);
    encode_message(id, MessageFrom::Service("a\"b"), payload, true, &mut out);
    let message: Message<'_> = serde_json::from_slice(&out).expect("a frame is JSON");
    assert_eq!(message.message_id, id.to_string());
    match (message.data, message.data_b64) {
        (Some(data), None) => {
            let text = serde_json::from_str::<String>(data.get()).ok();
            let is_same =
                sent.is_none_or(|sent| data.get() == sent || text.as_deref() == Some(sent));
            assert!(is_same, "the payload arrives as it was sent");
        }
        (None, None) => assert!(
            sent.is_none_or(|sent| sent == "null"),
            "only null reads as nothing"
        ),
        (None, Some(_)) => {}
        (Some(_), Some(_)) => panic!("a message has one payload"),
    }
}

/// An id is echoed as it came.
fn check_id(id: &str) {
    assert!(id.len() <= ID_BYTES_MAX);
    check_json(id);
}

fn check_json(text: &str) {
    serde_json::from_str::<&RawValue>(text).expect("what is passed on as JSON is JSON");
}
