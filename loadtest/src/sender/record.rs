//! One WebSocket that sends: a device's line, or a back end's stream. Both send JSON records and get replies by id.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use mio::{Interest, Registry, Token};
use socket2::SockRef;

use crate::dialect::Dialect;
use crate::line::{Failure, Found, OpenLine, Upgrade};
use crate::name::{LineId, Names};
use crate::node::target::Target;
use crate::oracle::Answer;
use crate::oracle::mark::Mark;
use crate::sender::connection::{Connection, Pending, Reply};
use crate::sender::reply::Frame;
use crate::tls::TlsPlan;
use crate::transport::Transport;

/// How records are sent, on every connection of a sender.
#[derive(Clone, Debug)]
pub(crate) struct RecordPlan {
    /// Where to connect; connections take turns.
    pub(crate) targets: Vec<Target>,
    /// How to speak TLS, if at all.
    pub(crate) tls: Option<Arc<TlsPlan>>,
    /// How a connection is upgraded: each is a sender of the swarm.
    pub(crate) upgrade: Dialect,
    /// What a record looks like.
    pub(crate) form: Form,
    /// Records that may wait for their replies; the server may announce fewer.
    pub(crate) window_max: u32,
    /// The level to wait for.
    pub(crate) wait: String,
    /// How long a connection may take to open.
    pub(crate) open_timeout: Duration,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A device on its line.
    Device,
    /// A back end on a stream.
    Stream,
}

/// An open connection with the records that wait for their replies.
#[derive(Debug)]
pub(super) struct RecordConnection {
    plan: Arc<RecordPlan>,
    line: OpenLine,
    window: usize,
    pending: BTreeMap<u64, Pending>,
    next_id: u64,
    is_ended: bool,
}

/// A sending connection is one of few and carries much: its buffers are as large as is useful.
const READ_BUFFER_BYTES: usize = 16 * 1024;
const WRITE_BUFFER_BYTES: usize = 32 * 1024;

impl RecordConnection {
    /// Connects, upgrades, and waits for the welcome.
    pub(super) fn open(plan: Arc<RecordPlan>, index: u32) -> io::Result<Self> {
        let turn = index as usize % plan.targets.len();
        let target = &plan.targets[turn];
        let stream = TcpStream::connect_timeout(&target.address, plan.open_timeout)?;
        stream.set_nodelay(true)?;
        // Until it is open there is nothing else to do, so it blocks; it does not once the poll looks after it.
        stream.set_read_timeout(Some(plan.open_timeout))?;
        stream.set_write_timeout(Some(plan.open_timeout))?;
        let sender = plan.upgrade.names.sender(index);
        let request = |out: &mut Vec<u8>, key: &str| {
            plan.upgrade
                .write_upgrade(out, &target.authority, sender, key);
        };
        let tls = plan.tls.as_ref().map(|tls| tls.open(sender, turn));
        let tls = tls.transpose().map_err(io::Error::other)?;
        let stream = Transport::new(mio::net::TcpStream::from_std(stream), tls);
        let upgrade = Upgrade::new(stream, request, Duration::ZERO);
        let (line, announced) = open_line(upgrade).map_err(|failure| broken(&failure))?;
        SockRef::from(line.stream()).set_nonblocking(true)?;
        let window = announced.unwrap_or(u32::MAX).min(plan.window_max).max(1);
        Ok(Self {
            plan,
            line,
            window: window as usize,
            pending: BTreeMap::new(),
            next_id: 0,
            is_ended: false,
        })
    }

    fn handle_frame(&mut self, text: &[u8], handle: &mut dyn FnMut(Reply<'_>)) -> io::Result<()> {
        let frame = Frame::decode(text);
        let unreadable = || io::Error::other("a frame that is not JSON of a known shape");
        let (pending, answer, word) = match frame.ok_or_else(unreadable)? {
            Frame::Reply { id, answer, word } => {
                (id.and_then(|id| self.pending.remove(&id)), answer, word)
            }
            // Nobody sends to a sender.
            Frame::Other if Mark::find(text).is_some() => (None, Answer::None, "".into()),
            Frame::Other | Frame::Welcome { .. } => return Ok(()),
        };
        handle(Reply {
            pending,
            answer,
            word: &word,
        });
        Ok(())
    }

    fn end<T>(&mut self, failure: &Failure) -> io::Result<T> {
        self.is_ended = true;
        Err(broken(failure))
    }
}

impl Connection for RecordConnection {
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(self.line.source(), token, interest)
    }

    fn has_room(&self) -> bool {
        !self.is_ended && self.pending.len() < self.window
    }

    fn push(&mut self, pending: Pending, body: &[u8]) -> io::Result<()> {
        let id = self.next_id;
        self.next_id += 1;
        self.pending.insert(id, pending);
        let text = record(&self.plan, id, pending.line, body);
        match self.line.write(text) {
            Ok(()) => Ok(()),
            Err(failure) => self.end(&failure),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.line.flush() {
            Ok(()) => Ok(()),
            Err(failure) => self.end(&failure),
        }
    }

    fn fill(&mut self, is_ending: bool, handle: &mut dyn FnMut(Reply<'_>)) -> io::Result<()> {
        self.line.wake(is_ending);
        loop {
            match self.line.read() {
                Ok(Found::Message(text)) => {
                    if let Err(error) = self.handle_frame(&text, handle) {
                        self.is_ended = true;
                        return Err(error);
                    }
                }
                Ok(Found::Ping | Found::Other) => {}
                Ok(Found::Nothing) => return Ok(()),
                Err(failure) => return self.end(&failure),
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    fn abandon(&mut self) -> Vec<Pending> {
        self.is_ended = true;
        std::mem::take(&mut self.pending).into_values().collect()
    }

    fn is_ended(&self) -> bool {
        self.is_ended
    }
}

/// Upgrades and hears the welcome, over a stream that blocks.
fn open_line(mut upgrade: Upgrade) -> Result<(OpenLine, Option<u32>), Failure> {
    let is_sent = upgrade.flush()?;
    let tail = upgrade.read(&mut [0; 4096])?;
    let tail = tail.filter(|_| is_sent).ok_or(Failure::Timeout)?;
    let mut line = upgrade.into_sending(tail, READ_BUFFER_BYTES, WRITE_BUFFER_BYTES);
    let announced = await_welcome(&mut line)?;
    Ok((line, announced))
}

/// The window that the server announces.
fn await_welcome(line: &mut OpenLine) -> Result<Option<u32>, Failure> {
    loop {
        line.wake(true);
        match line.read()? {
            Found::Message(text) => {
                if let Some(Frame::Welcome { window }) = Frame::decode(&text) {
                    return Ok(window);
                }
            }
            Found::Ping | Found::Other => {}
            Found::Nothing => return Err(Failure::Timeout),
        }
    }
}

/// A record for a line. Names need no escaping, and a body is JSON.
fn record(plan: &RecordPlan, id: u64, line: LineId, body: &[u8]) -> String {
    let names: &Names = &plan.upgrade.names;
    let (device, wait) = (names.device(line), &plan.wait);
    let start = match plan.form {
        Form::Device => r#"{"type":"send","id":""#,
        Form::Stream => r#"{"id":""#,
    };
    let mut text = Vec::with_capacity(128 + body.len());
    let head = write!(text, r#"{start}{id}","to":{{"device":"{device}"}},"data":"#);
    text.extend_from_slice(body);
    let tail = write!(text, r#","wait":"{wait}"}}"#);
    debug_assert!(head.and(tail).is_ok(), "a vector takes every byte");
    String::from_utf8(text).unwrap_or_default()
}

fn broken(failure: &Failure) -> io::Error {
    io::Error::other(failure.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ACCOUNT_LINES;

    fn plan(form: Form) -> RecordPlan {
        let upgrade = Dialect {
            make: crate::make::Make::Tautline,
            names: Names::new(0, 10, ACCOUNT_LINES),
            line_path: "/ws".parse().unwrap(),
            push_path: "/".parse().unwrap(),
            subprotocol: None,
            tokens: None,
            headers: Vec::new(),
        };
        RecordPlan {
            targets: Vec::new(),
            tls: None,
            upgrade,
            form,
            window_max: 1,
            wait: "written".to_owned(),
            open_timeout: Duration::ZERO,
        }
    }

    #[test]
    fn a_device_names_the_type_and_a_stream_does_not() {
        assert_eq!(
            record(&plan(Form::Device), 5, LineId(3), b"\"~x~\""),
            r#"{"type":"send","id":"5","to":{"device":"dev-000000000003"},"data":"~x~","wait":"written"}"#
        );
        assert_eq!(
            record(&plan(Form::Stream), 5, LineId(3), b"[1]"),
            r#"{"id":"5","to":{"device":"dev-000000000003"},"data":[1],"wait":"written"}"#
        );
    }
}
