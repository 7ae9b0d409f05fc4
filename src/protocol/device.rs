//! An authenticated line: what its frames mean, and what it says back.

use std::borrow::Cow;

use crate::base::close::CloseReason;
use crate::base::id::MessageId;
use crate::base::time::{Now, Tick};
use crate::protocol::auth::identity::Identity;
use crate::protocol::intake::{Intake, IntakeLimits};
use crate::wire::device::{DeviceFrame, FrameError, ListFrame, encode_error, encode_pong};
use crate::wire::error::ErrorCode;
use crate::wire::reply::{Reply, encode_failure};
use crate::wire::send::SendFrame;
use crate::ws::decoder::Event;
use crate::ws::encoder;
use crate::ws::frame::Opcode;

/// How messages appear on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `tautline.v1.json`: text frames with JSON envelopes, both ways.
    Json,
    /// `tautline.v1.raw`: the payload is the frame, to the device only.
    Raw,
    /// Every message goes back as it came. For conformance tests of the stack below; no listener offers it.
    Echo,
}

/// The state of an authenticated line.
#[derive(Debug)]
pub struct Device {
    /// Who is at the far end.
    pub identity: Identity,
    /// Which line of the device this is: the greatest holds it.
    pub generation: u64,
    /// When it was authenticated, milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// How messages appear on it.
    pub dialect: Dialect,
    /// A ping of ours is unanswered.
    pub is_pong_awaited: bool,
    /// The device has been told to go away, and why.
    pub leaving: Option<CloseReason>,
    /// Why the line must leave when it must: the maximum age, unless the token runs out first or the node drains.
    pub leave_reason: CloseReason,
    /// When it was opened, or a message last came from it or went to it. Pings and broadcasts do not count: they say
    /// nothing of who is busy.
    pub active: Tick,
    /// Messages from the device.
    pub received: u32,
    /// Messages put into its outbox.
    pub delivered: u32,
    intake: Intake,
}

/// What the shard has to do about a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Nothing more.
    Keep,
    /// Nothing more: the frame made no sense and was answered with an `error`.
    Corrected,
    /// Close the line.
    Close(CloseReason),
    /// Check the token and prolong the line.
    Refresh(Cow<'a, str>),
    /// A message was acknowledged, with this JSON for its sender.
    Acked(MessageId, Option<&'a str>),
    /// Send a message to other devices.
    Send(SendFrame<'a>),
    /// Answer with a page of the account's devices.
    List(ListFrame<'a>),
    /// Tell of the account's devices, in answer to the request of this id.
    Watch(&'a str),
    /// Tell no more of them.
    Unwatch(&'a str),
}

impl Device {
    /// Makes the state of a line that is authenticated now.
    pub fn new(
        identity: Identity,
        generation: u64,
        dialect: Dialect,
        leave_reason: CloseReason,
        now: Now,
    ) -> Self {
        Self {
            identity,
            generation,
            since_ms: now.wall_ms,
            dialect,
            is_pong_awaited: false,
            leaving: None,
            leave_reason,
            active: now.tick(),
            received: 0,
            delivered: 0,
            intake: Intake::default(),
        }
    }

    /// Whether the line may send so many bytes more in this second.
    pub fn admits_bytes(&mut self, bytes: usize, limits: IntakeLimits, now: Now) -> bool {
        self.intake.admits_bytes(bytes, limits, now.tick())
    }

    /// Takes one event of the line; what it answers is appended to `out` as frames.
    pub fn handle_event<'a>(
        &mut self,
        event: &'a Event<'_>,
        limits: IntakeLimits,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Verdict<'a> {
        self.is_pong_awaited = false;
        if !self.intake.admits_frame(limits, now.tick()) {
            return Verdict::Close(CloseReason::PolicyViolation);
        }
        match event {
            Event::Text(text) => self.handle_text(text, limits, now, out),
            Event::Binary(bytes) => self.handle_binary(bytes, out),
            Event::Ping(payload) => {
                if !self.intake.admits_ping(limits, now.tick()) {
                    return Verdict::Close(CloseReason::PolicyViolation);
                }
                encoder::encode(Opcode::Pong, payload, out);
                Verdict::Keep
            }
            Event::Pong(_) => Verdict::Keep,
            Event::Close(frame) => {
                encoder::encode_close_answer(frame.as_ref().map(|frame| frame.code), out);
                Verdict::Close(CloseReason::PeerClosed)
            }
        }
    }

    fn handle_text<'a>(
        &mut self,
        text: &'a str,
        limits: IntakeLimits,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Verdict<'a> {
        self.received = self.received.saturating_add(1);
        match self.dialect {
            Dialect::Json => {
                let frame = DeviceFrame::decode(text);
                if !matches!(frame, Ok(DeviceFrame::Ping { .. })) {
                    self.active = now.tick();
                }
                // What costs more than it says is bounded with the pings: a refresh verifies a signature.
                let is_costly = matches!(
                    frame,
                    Ok(DeviceFrame::Ping { .. } | DeviceFrame::Refresh { .. })
                );
                if is_costly && !self.intake.admits_ping(limits, now.tick()) {
                    return Verdict::Close(CloseReason::PolicyViolation);
                }
                handle_frame(frame, out)
            }
            Dialect::Raw => Verdict::Close(CloseReason::UnsupportedData),
            Dialect::Echo => {
                encoder::encode(Opcode::Text, text.as_bytes(), out);
                Verdict::Keep
            }
        }
    }

    fn handle_binary<'a>(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Verdict<'a> {
        self.received = self.received.saturating_add(1);
        match self.dialect {
            Dialect::Json | Dialect::Raw => Verdict::Close(CloseReason::UnsupportedData),
            Dialect::Echo => {
                encoder::encode(Opcode::Binary, bytes, out);
                Verdict::Keep
            }
        }
    }
}

fn handle_frame<'a>(
    frame: Result<DeviceFrame<'a>, FrameError<'a>>,
    out: &mut Vec<u8>,
) -> Verdict<'a> {
    let (id, code, cause) = match frame {
        Ok(DeviceFrame::Ping { id }) => {
            let mut pong = Vec::new();
            encode_pong(id, &mut pong);
            encoder::encode(Opcode::Text, &pong, out);
            return Verdict::Keep;
        }
        Ok(DeviceFrame::Refresh { token }) => return Verdict::Refresh(token.into()),
        Ok(DeviceFrame::Ack { message_id, data }) => return Verdict::Acked(message_id, data),
        Ok(DeviceFrame::Send(send)) => return Verdict::Send(send),
        Ok(DeviceFrame::List(list)) => return Verdict::List(list),
        Ok(DeviceFrame::Watch { id }) => return Verdict::Watch(id),
        Ok(DeviceFrame::Unwatch { id }) => return Verdict::Unwatch(id),
        Ok(DeviceFrame::Hello { .. }) => (
            None,
            ErrorCode::BadRequest,
            "the line is authenticated already; use refresh".into(),
        ),
        Ok(DeviceFrame::Unknown { id }) => (
            id,
            ErrorCode::UnknownType,
            "this node does not know the frame's type".into(),
        ),
        Err(FrameError::InvalidBody) => (
            None,
            ErrorCode::InvalidBody,
            "a frame is one JSON object with a string `type`".into(),
        ),
        Err(FrameError::Refused { id, code, cause }) => {
            encode_refusal(id, code, cause, out);
            return Verdict::Corrected;
        }
        Err(FrameError::MissingField(field)) => (
            None,
            ErrorCode::InvalidBody,
            Cow::Owned(format!("`{field}` is missing or malformed")),
        ),
    };
    let mut answer = Vec::new();
    encode_error(id, code, &cause, &mut answer);
    encoder::encode(Opcode::Text, &answer, out);
    Verdict::Corrected
}

/// Appends the reply to a request that came to nothing at once.
pub fn encode_refusal(id: &str, code: ErrorCode, cause: &str, out: &mut Vec<u8>) {
    let mut text = Vec::new();
    encode_failure(&Reply::to(id), code, cause, &mut text);
    encoder::encode(Opcode::Text, &text, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: IntakeLimits = IntakeLimits {
        frames: 200,
        bytes: 1 << 20,
        pings: 20,
    };

    fn device(dialect: Dialect) -> Device {
        let identity = Identity::pack("tv-1", Some("ann"), [], []);
        Device::new(identity, 1, dialect, CloseReason::MaxAge, Now::default())
    }

    fn answer(dialect: Dialect, event: &Event<'_>) -> (String, Verdict<'static>) {
        let mut out = Vec::new();
        let verdict = match device(dialect).handle_event(event, LIMITS, Now::default(), &mut out) {
            Verdict::Keep => Verdict::Keep,
            Verdict::Corrected => Verdict::Corrected,
            Verdict::Close(reason) => Verdict::Close(reason),
            Verdict::Refresh(token) => Verdict::Refresh(token.into_owned().into()),
            Verdict::Acked(id, _) => Verdict::Acked(id, None),
            Verdict::Send(_) | Verdict::List(_) | Verdict::Watch(_) | Verdict::Unwatch(_) => {
                unreachable!("no test here asks for anything")
            }
        };
        (
            String::from_utf8_lossy(out.get(2..).unwrap_or_default()).into_owned(),
            verdict,
        )
    }

    #[test]
    fn a_broken_message_is_answered_and_the_line_stays() {
        for bad in ["", "no json", r#"{"type":"dance"}"#, r#"{"type":"ack"}"#] {
            let (text, verdict) = answer(Dialect::Json, &Event::Text(bad.into()));
            assert!(text.contains(r#""type":"error""#), "{bad}: {text}");
            assert_eq!(verdict, Verdict::Corrected);
        }
    }

    #[test]
    fn a_raw_line_takes_nothing_but_control_frames() {
        let closed = Verdict::Close(CloseReason::UnsupportedData);
        assert_eq!(answer(Dialect::Raw, &Event::Text("{}".into())).1, closed);
        assert_eq!(
            answer(Dialect::Json, &Event::Binary(b"x"[..].into())).1,
            closed
        );
        assert_eq!(
            answer(Dialect::Raw, &Event::Ping(b"x"[..].into())),
            ("x".into(), Verdict::Keep)
        );
    }

    #[test]
    fn a_ping_flood_ends_the_line_and_a_slow_one_does_not() {
        let mut device = device(Dialect::Json);
        let mut ping = |ms: u64| {
            let now = Now {
                us: ms * 1_000,
                wall_ms: 0,
            };
            device.handle_event(&Event::Ping(b""[..].into()), LIMITS, now, &mut Vec::new())
                == Verdict::Keep
        };
        assert!((0..200).all(|i| ping(i * 60)));
        assert!((0..20).all(|_| ping(20_000)));
        assert!(!ping(20_000));
    }

    #[test]
    fn a_flood_of_small_frames_ends_the_line_before_they_are_parsed() {
        let mut device = device(Dialect::Json);
        let mut sends = |text: &'static str| {
            let event = Event::Text(text.into());
            device.handle_event(&event, LIMITS, Now::default(), &mut Vec::new())
                != Verdict::Close(CloseReason::PolicyViolation)
        };
        assert!((0..200).all(|_| sends("no json")));
        assert!(!sends("no json"));
    }
}
