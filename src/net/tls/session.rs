//! One TLS connection, without its socket: records in, plaintext out, and the other way round.
//!
//! It owns bytes only while a record is incomplete or the socket has not taken one. rustls shakes hands; of what it holds
//! then, an idle line of TLS 1.3 keeps the keys and their schedule (`compact`), one of TLS 1.2 everything.

use std::sync::Arc;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, WriteTraffic};
use rustls::{Error, HandshakeKind, ProtocolVersion};

use crate::metrics::TlsFailure;
use crate::net::tls::compact::Compact;
use crate::net::tls::policy::TlsPolicy;
use crate::net::tls::record::PLAINTEXT_BYTES_MAX;

/// The state of one connection.
pub struct Session {
    state: State,
    policy: Arc<TlsPolicy>,
    /// Bytes of a record, or of a message of the handshake, that is not whole.
    incoming: Vec<u8>,
    /// Records that the socket has not taken.
    outgoing: Vec<u8>,
    /// Bytes of plaintext in the last of them.
    sealed: usize,
    /// The far end waits for none of them: they are tickets, which go along with the first record that says something.
    is_patient: bool,
    stage: Stage,
    /// Its cost has been reported.
    is_charged: bool,
    /// The end of its handshake has been reported.
    is_secured: bool,
    has_said_goodbye: bool,
}

/// Who speaks TLS.
enum State {
    /// rustls, while hands are shaken, and to the end with TLS 1.2.
    Whole(Box<UnbufferedServerConnection>),
    /// We, with what rustls has left us.
    Compact(Box<Compact>),
    /// Nobody: it has failed.
    Gone,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Shaking hands.
    Opening,
    /// Data may flow.
    Open,
    /// The far end has said that no more comes.
    Over,
    /// Nothing can be read or written any more; the cause is still to be told.
    Failing(TlsFailure),
    /// As before, and it was told.
    Failed,
}

/// A handshake that was completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secured {
    /// An earlier session was resumed.
    pub is_resumed: bool,
    /// Who the far end is by its certificate: empty if that does not say, `None` if nobody asks or none was shown.
    pub bearer: Option<Box<str>>,
}

/// What came of records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Bytes of plaintext, at the front of the buffer.
    pub plaintext: usize,
    /// The handshake was completed by them.
    pub secured: Option<Secured>,
    /// About how many microseconds a handshake has just kept the thread busy.
    pub cost_us: u32,
}

impl Session {
    /// How much of a read buffer is left free in front of the records, so that there is always room for the plaintext
    /// of one more of them.
    pub const HEADROOM: usize = RECORD_BYTES_MAX;

    /// The state of a connection just accepted.
    ///
    /// # Errors
    /// When rustls cannot use the policy, which it has accepted before.
    pub fn new(policy: Arc<TlsPolicy>) -> Result<Self, TlsFailure> {
        let tls = UnbufferedServerConnection::new(Arc::clone(policy.server()));
        Ok(Self {
            state: State::Whole(Box::new(tls.map_err(|_| TlsFailure::Incompatible)?)),
            policy,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            sealed: 0,
            is_patient: false,
            stage: Stage::Opening,
            is_charged: false,
            is_secured: false,
            has_said_goodbye: false,
        })
    }

    /// Whether hands are still being shaken.
    pub fn is_opening(&self) -> bool {
        self.stage == Stage::Opening
    }

    /// Whether the far end has said that no more comes.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Whether records can no longer be exchanged.
    pub fn has_failed(&self) -> bool {
        matches!(self.stage, Stage::Failing(_) | Stage::Failed)
    }

    /// Why it failed; told once.
    pub fn take_failure(&mut self) -> Option<TlsFailure> {
        let Stage::Failing(failure) = self.stage else {
            return None;
        };
        self.stage = Stage::Failed;
        Some(failure)
    }

    /// Puts what is held of an incomplete record behind the [`Self::HEADROOM`], and says where what comes next is to be
    /// put.
    pub fn prepare(&self, buf: &mut [u8]) -> usize {
        let end = Self::HEADROOM + self.incoming.len();
        buf[Self::HEADROOM..end].copy_from_slice(&self.incoming);
        end
    }

    /// Takes the records between the [`Self::HEADROOM`] and `end`. What they say is then at the front of `buf`; a
    /// failure is told by [`Self::take_failure`] after it.
    pub fn receive(&mut self, buf: &mut [u8], end: usize) -> Received {
        let mut received = Received::default();
        let waiting = self.outgoing.len();
        let mut start = Self::HEADROOM;
        while let State::Whole(tls) = &mut self.state {
            let (front, records) = buf.split_at_mut(start);
            let free = &mut front[received.plaintext..];
            let (discard, step) = step(tls, &mut records[..end - start], free, &mut self.outgoing);
            start += discard;
            match step {
                Step::Read(count) => received.plaintext += count,
                Step::Again => {}
                Step::Over => self.stage = Stage::Over,
                Step::Failed(failure) => {
                    self.fail(failure);
                    break;
                }
                Step::Done => break,
            }
        }
        self.report(&mut received);
        if let State::Compact(compact) = &mut self.state
            && self.stage == Stage::Open
        {
            let room = &mut buf[received.plaintext..];
            let shift = received.plaintext;
            let opened = compact.open(room, start - shift, end - shift, &mut self.outgoing);
            received.plaintext += opened.plaintext;
            start += opened.consumed;
            if opened.is_over {
                self.stage = Stage::Over;
            }
            if let Some(failure) = opened.failure {
                self.fail(failure);
            }
        }
        if !self.is_over() && end - start > RECORD_BYTES_MAX {
            // A message of the handshake beyond all measure.
            self.fail(TlsFailure::Misbehaved);
        }
        // The request may come in a read of its own; what is to be answered at once takes them along.
        let is_unchanged = self.is_patient && self.outgoing.len() == waiting;
        self.is_patient = (received.secured.is_some() || is_unchanged)
            && self.stage == Stage::Open
            && matches!(self.state, State::Compact(_));
        // Exactly as much as needed: many connections may hold a piece of something.
        self.incoming = if self.has_failed() || self.is_over() {
            Vec::new()
        } else {
            buf[start..end].to_vec()
        };
        received
    }

    /// Notes what the records have brought about.
    fn report(&mut self, received: &mut Received) {
        let State::Whole(tls) = &self.state else {
            return;
        };
        let kind = tls.handshake_kind();
        let is_resumed = kind == Some(HandshakeKind::Resumed);
        // Known as soon as our part of the work is done, also when the far end never finishes its own.
        if kind.is_some() && !self.is_charged {
            self.is_charged = true;
            received.cost_us = self.policy.cost_us(is_resumed);
        }
        if !self.is_secured && !tls.is_handshaking() && !self.has_failed() {
            self.is_secured = true;
            let certificate = tls.peer_certificates().and_then(|chain| chain.first());
            received.secured = Some(Secured {
                is_resumed,
                bearer: certificate.and_then(|der| self.policy.bearer(der)),
            });
            // The goodbye may have come along.
            let is_over = self.is_over();
            let is_ours = tls.protocol_version() == Some(ProtocolVersion::TLSv1_3);
            if !is_over {
                self.stage = Stage::Open;
            }
            if is_ours && !is_over {
                self.take_over();
            }
        }
    }

    /// Takes over from rustls what an open connection needs.
    fn take_over(&mut self) {
        if let State::Whole(tls) = std::mem::replace(&mut self.state, State::Gone) {
            match Compact::take_over(*tls) {
                Some(compact) => self.state = State::Compact(Box::new(compact)),
                // No suite that we offer, and no state that we are in, comes to this.
                None => self.fail(TlsFailure::Misbehaved),
            }
        }
    }

    /// Ends it, with the alert that rustls has for the far end.
    fn fail(&mut self, failure: TlsFailure) {
        self.stage = Stage::Failing(failure);
        if let State::Whole(mut tls) = std::mem::replace(&mut self.state, State::Gone) {
            // What has come is not looked at again.
            while tls.wants_write()
                && let Ok(ConnectionState::EncodeTlsData(data)) =
                    tls.process_tls_records(&mut []).state
            {
                encode(data, &mut self.outgoing);
            }
        }
    }

    /// Puts as much plaintext as one record holds behind the records to send, if none with plaintext waits; how much that
    /// was.
    pub fn seal(&mut self, plaintext: &[u8]) -> usize {
        debug_assert_eq!(self.sealed, 0, "a record waits already");
        self.is_patient = false;
        let plaintext = &plaintext[..plaintext.len().min(PLAINTEXT_BYTES_MAX)];
        let is_sealed = match &mut self.state {
            State::Compact(compact) => compact.seal(plaintext, &mut self.outgoing),
            State::Whole(_) => self.write(plaintext.len(), |traffic, out| {
                traffic.encrypt(plaintext, out)
            }),
            State::Gone => false,
        };
        self.sealed = if is_sealed { plaintext.len() } else { 0 };
        self.sealed
    }

    /// Puts the goodbye of TLS into the records to send, once.
    pub fn say_goodbye(&mut self) {
        let is_due = matches!(self.stage, Stage::Open | Stage::Over) && !self.has_said_goodbye;
        if is_due {
            (self.has_said_goodbye, self.is_patient) = (true, false);
            if let State::Compact(compact) = &mut self.state {
                compact.say_goodbye(&mut self.outgoing);
            } else {
                self.write(0, |traffic, out| traffic.queue_close_notify(out));
            }
        }
    }

    /// Has rustls write records, after those it has to send by itself; `false` when the connection cannot.
    fn write(
        &mut self,
        length: usize,
        mut act: impl FnMut(
            &mut WriteTraffic<'_, ServerConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
    ) -> bool {
        let State::Whole(tls) = &mut self.state else {
            return false;
        };
        if !matches!(self.stage, Stage::Open | Stage::Over) {
            return false;
        }
        loop {
            // With what is held of a record, which rustls has looked at before.
            let status = tls.process_tls_records(&mut self.incoming);
            let discard = status.discard;
            let is_written = match status.state {
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    encode(data, &mut self.outgoing);
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::PeerClosed) => None,
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    Some(append(length, &mut self.outgoing, |out| {
                        act(&mut traffic, out)
                    }))
                }
                Ok(_) | Err(_) => Some(false),
            };
            self.incoming.drain(..discard);
            if let Some(is_written) = is_written {
                return is_written;
            }
        }
    }

    /// How much plaintext is in the records that wait.
    pub fn sealed(&self) -> usize {
        self.sealed
    }

    /// Records that the socket is to be given.
    pub fn outgoing(&self) -> &[u8] {
        &self.outgoing
    }

    /// Whether there are some, and the far end may wait for them.
    pub fn owes(&self) -> bool {
        !self.outgoing.is_empty() && !self.is_patient
    }

    /// Notes that the socket took some of them; once it has them all, how much plaintext that was.
    pub fn take_sent(&mut self, count: usize) -> Option<usize> {
        if count < self.outgoing.len() {
            self.outgoing.drain(..count);
            return None;
        }
        self.outgoing = Vec::new();
        Some(std::mem::take(&mut self.sealed))
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

/// What to do after a state of rustls'.
enum Step {
    /// Go on; so many bytes of plaintext were written.
    Read(usize),
    /// Go on.
    Again,
    /// Go on; the far end has said that no more comes.
    Over,
    /// More records are needed.
    Done,
    /// It is at its end.
    Failed(TlsFailure),
}

/// One state of rustls': how many bytes of the records are done with, and what to do.
fn step(
    tls: &mut UnbufferedServerConnection,
    records: &mut [u8],
    free: &mut [u8],
    outgoing: &mut Vec<u8>,
) -> (usize, Step) {
    let status = tls.process_tls_records(records);
    let discard = status.discard;
    let step = match status.state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut count = 0;
            while let Some(Ok(record)) = traffic.next_record() {
                let end = count + record.payload.len();
                // There is room: a record is longer than what it says.
                if let Some(place) = free.get_mut(count..end) {
                    place.copy_from_slice(record.payload);
                    count = end;
                }
            }
            Step::Read(count)
        }
        Ok(ConnectionState::EncodeTlsData(data)) => {
            encode(data, outgoing);
            Step::Again
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            // It is in `outgoing`, from where it goes once and in order.
            data.done();
            Step::Again
        }
        Ok(ConnectionState::PeerClosed) => Step::Over,
        Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Step::Done,
        // Both sides have said goodbye.
        Ok(ConnectionState::Closed) => Step::Done,
        // Early data is never offered, and rustls has no further state.
        Ok(_) => Step::Failed(TlsFailure::Misbehaved),
        Err(error) => Step::Failed(cause(&error)),
    };
    (discard, step)
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, outgoing: &mut Vec<u8>) {
    let start = outgoing.len();
    // The first attempt says how long it is.
    if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
        outgoing.resize(start + size.required_size, 0);
        let written = data.encode(&mut outgoing[start..]).unwrap_or(0);
        outgoing.truncate(start + written);
    }
}

/// Appends a record of about `length` bytes; `false` when it cannot be written at all.
fn append(
    length: usize,
    outgoing: &mut Vec<u8>,
    mut act: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> bool {
    let start = outgoing.len();
    let mut room = length + RECORD_OVERHEAD_BYTES;
    loop {
        outgoing.resize(start + room, 0);
        match act(&mut outgoing[start..]) {
            Ok(written) => {
                outgoing.truncate(start + written);
                return true;
            }
            Err(EncryptError::InsufficientSize(size)) if size.required_size > room => {
                room = size.required_size;
            }
            Err(EncryptError::InsufficientSize(_) | EncryptError::EncryptExhausted) => {
                outgoing.truncate(start);
                return false;
            }
        }
    }
}

/// The cause that a failure is counted under.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "rustls has some hundred errors, and we six causes"
)]
fn cause(error: &Error) -> TlsFailure {
    match error {
        Error::PeerIncompatible(_) => TlsFailure::Incompatible,
        Error::NoApplicationProtocol => TlsFailure::Protocol,
        Error::NoCertificatesPresented | Error::InvalidCertificate(_) => TlsFailure::Certificate,
        Error::AlertReceived(_) => TlsFailure::Alert,
        _ => TlsFailure::Misbehaved,
    }
}

/// A whole record with its header, of TLS 1.2, which is the longer.
const RECORD_BYTES_MAX: usize = PLAINTEXT_BYTES_MAX + 2_048 + 5;
/// Header, type, tag and explicit nonce of a record, whatever the suite.
const RECORD_OVERHEAD_BYTES: usize = 64;
