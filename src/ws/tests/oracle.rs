//! Ours against itself in other cuts, and against tungstenite's `WebSocket` in the role of a server.
//!
//! The fuzz targets include this file too, so it names the decoder only through its parent.

use std::borrow::Cow;
use std::io::{self, Read, Write};

use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::{Decoder, Event, Limits, Violation};

/// Everything a stream of bytes led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) events: Vec<Event<'static>>,
    pub(super) violation: Option<Violation>,
}

/// Feeds `bytes` in pieces of the given sizes, over and over; without sizes, in one piece.
pub(super) fn run(bytes: &[u8], sizes: &[usize], limits: &Limits) -> Run {
    let mut run = Run::default();
    let mut decoder = Decoder::default();
    let mut sizes = sizes.iter().copied().cycle();
    let mut rest = bytes;
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(rest.len()).clamp(1, rest.len());
        let (piece, tail) = rest.split_at(size);
        if let Err(violation) = feed(&mut decoder, piece, limits, &mut run.events) {
            run.violation = Some(violation);
            return run;
        }
        rest = tail;
    }
    run
}

/// Any cut of the stream gives the same events and the same end.
pub(super) fn assert_cut_does_not_matter(bytes: &[u8], sizes: &[usize], limits: &Limits) {
    assert_eq!(run(bytes, sizes, limits), run(bytes, &[], limits));
}

/// Both decoders see the same events and refuse at the same place.
///
/// Where ours is stricter it may only see less: lengths that are not minimal, and close codes that must not be on
/// the wire (which tungstenite hands on as 1002). Up to the first close, because tungstenite stops there. It also
/// hands on 1014 as 1002, being older than that entry of the registry.
pub(super) fn assert_agrees_with_tungstenite(bytes: &[u8], limits: &Limits) {
    let mut ours = run(bytes, &[], limits);
    if let Some(close) = ours
        .events
        .iter()
        .position(|e| matches!(e, Event::Close(_)))
    {
        ours.events.truncate(close + 1);
        ours.violation = None;
    }
    match ours.violation {
        None => {
            let (mut events, fails) = run_tungstenite(bytes, limits);
            if matches!(ours.events.last(), Some(Event::Close(Some(close))) if close.code == 1014) {
                assert_eq!(events.pop(), Some(protocol_violation()));
                ours.events.pop();
            }
            assert_eq!(ours.events, events);
            assert!(!fails, "only tungstenite refuses {bytes:02x?}");
        }
        Some(Violation::LengthNotMinimal | Violation::CloseCode) => {
            let (events, _) = run_tungstenite(bytes, limits);
            assert!(events.starts_with(&ours.events));
        }
        Some(_) => {
            // tungstenite judges a frame when its last byte is there: zeros complete it.
            let completed = [bytes, &vec![0; limits.message_bytes_max + 128]].concat();
            let (events, fails) = run_tungstenite(&completed, limits);
            assert_eq!(ours.events, events);
            assert!(fails, "only ours refuses {bytes:02x?}");
        }
    }
}

fn feed(
    decoder: &mut Decoder,
    piece: &[u8],
    limits: &Limits,
    events: &mut Vec<Event<'static>>,
) -> Result<(), Violation> {
    let mut piece = piece.to_vec();
    let mut at = 0;
    loop {
        let decoded = decoder.decode(&mut piece[at..], limits, 7)?;
        at += decoded.consumed;
        let Some(event) = decoded.event else {
            assert_eq!(at, piece.len(), "without an event all input is consumed");
            return Ok(());
        };
        events.push(owned(event));
    }
}

fn owned(event: Event<'_>) -> Event<'static> {
    match event {
        Event::Text(text) => Event::Text(text.into_owned().into()),
        Event::Binary(bytes) => Event::Binary(bytes.into_owned().into()),
        Event::Ping(bytes) => Event::Ping(bytes.into_owned().into()),
        Event::Pong(bytes) => Event::Pong(bytes.into_owned().into()),
        Event::Close(close) => Event::Close(close.map(|close| super::CloseFrame {
            code: close.code,
            reason: Cow::Owned(close.reason.into_owned()),
        })),
    }
}

/// The events tungstenite sees, up to the first close, and whether it refuses the stream.
fn run_tungstenite(bytes: &[u8], limits: &Limits) -> (Vec<Event<'static>>, bool) {
    let config = WebSocketConfig::default()
        .read_buffer_size(0)
        .max_frame_size(Some(limits.message_bytes_max))
        .max_message_size(Some(limits.message_bytes_max));
    let mut socket =
        WebSocket::from_partially_read(Drained, bytes.to_vec(), Role::Server, Some(config));
    let mut events = Vec::new();
    loop {
        match socket.read() {
            Ok(message) => events.push(event(message)),
            Err(Error::Io(_)) => return (events, false),
            Err(_) => return (events, true),
        }
        if matches!(events.last(), Some(Event::Close(_))) {
            return (events, false);
        }
    }
}

/// What tungstenite makes of a close code it does not allow.
fn protocol_violation() -> Event<'static> {
    Event::Close(Some(super::CloseFrame {
        code: 1002,
        reason: "Protocol violation".into(),
    }))
}

fn event(message: Message) -> Event<'static> {
    match message {
        Message::Text(text) => Event::Text(text.as_str().to_owned().into()),
        Message::Binary(bytes) => Event::Binary(bytes.to_vec().into()),
        Message::Ping(bytes) => Event::Ping(bytes.to_vec().into()),
        Message::Pong(bytes) => Event::Pong(bytes.to_vec().into()),
        Message::Close(close) => Event::Close(close.map(|close| super::CloseFrame {
            code: close.code.into(),
            reason: close.reason.as_str().to_owned().into(),
        })),
        Message::Frame(_) => unreachable!("reading yields no raw frames"),
    }
}

/// A socket that has nothing more to read and takes every answer.
struct Drained;

impl Read for Drained {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Write for Drained {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
