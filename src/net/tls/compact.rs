//! A connection of TLS 1.3 after its handshake: rustls keeps the key schedule, and nothing else of it is left.

use rustls::ConnectionTrafficSecrets;
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};

use crate::metrics::TlsFailure;
use crate::net::tls::record::{
    BadRecord, Content, DECODE_ERROR, HEADER_BYTES, INTERNAL_ERROR, RecordKeys, UNEXPECTED_MESSAGE,
    record_length,
};

/// What is left of a connection.
pub(super) struct Compact {
    /// Makes the next keys from those in use.
    schedule: KernelConnection<ServerConnectionData>,
    rx: RecordKeys,
    tx: RecordKeys,
    /// New keys that the far end may still ask for without saying anything in between.
    key_updates_left: u8,
}

/// What came of a stretch of records.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// Bytes of plaintext at the front of the buffer.
    pub(super) plaintext: usize,
    /// Bytes of records that are done with.
    pub(super) consumed: usize,
    /// The far end has said that no more comes.
    pub(super) is_over: bool,
    /// It has broken the rules, or given up.
    pub(super) failure: Option<TlsFailure>,
}

impl Compact {
    /// Takes a connection over from rustls. Its handshake is done, and all that it had to say was taken from it.
    pub(super) fn take_over(connection: UnbufferedServerConnection) -> Option<Self> {
        let (secrets, schedule) = connection.dangerous_into_kernel_connection().ok()?;
        Some(Self {
            schedule,
            rx: RecordKeys::new(secrets.rx)?,
            tx: RecordKeys::new(secrets.tx)?,
            key_updates_left: KEY_UPDATES_MAX,
        })
    }

    /// Opens the whole records of `buf[start..end]`, and puts what they say at the front of `buf`. What must be answered
    /// goes to `outgoing`.
    pub(super) fn open(
        &mut self,
        buf: &mut [u8],
        start: usize,
        end: usize,
        outgoing: &mut Vec<u8>,
    ) -> Opened {
        let mut opened = Opened::default();
        while opened.failure.is_none() && !opened.is_over {
            let at = start + opened.consumed;
            let length = match record_length(&buf[at..end]) {
                Ok(Some(length)) if length <= end - at => length,
                Ok(_) => break,
                Err(bad) => {
                    self.refuse(bad, &mut opened, outgoing);
                    break;
                }
            };
            opened.consumed += length;
            match self.rx.open(&mut buf[at..at + length]) {
                Err(bad) => self.refuse(bad, &mut opened, outgoing),
                Ok((Content::Data, count)) => {
                    // What is written lies before what is read: a record is longer than what it says.
                    buf.copy_within(
                        at + HEADER_BYTES..at + HEADER_BYTES + count,
                        opened.plaintext,
                    );
                    opened.plaintext += count;
                    if count > 0 {
                        self.key_updates_left = KEY_UPDATES_MAX;
                    }
                }
                Ok((Content::Alert, count)) => {
                    let alert = &buf[at + HEADER_BYTES..at + HEADER_BYTES + count];
                    match *alert {
                        [_, CLOSE_NOTIFY] => opened.is_over = true,
                        // Said before a goodbye by some, for no good reason.
                        [_, USER_CANCELED] => self.count_update(&mut opened, outgoing),
                        [_, _] => opened.failure = Some(TlsFailure::Alert),
                        _ => self.refuse(BadRecord(DECODE_ERROR), &mut opened, outgoing),
                    }
                }
                Ok((Content::Handshake, count)) => {
                    let message = &buf[at + HEADER_BYTES..at + HEADER_BYTES + count];
                    self.handle_key_update(message, &mut opened, outgoing);
                }
            }
        }
        opened
    }

    /// The only message of a handshake that may come now (section 4.6.3). Nobody cuts its five bytes.
    fn handle_key_update(&mut self, message: &[u8], opened: &mut Opened, outgoing: &mut Vec<u8>) {
        let [KEY_UPDATE, 0, 0, 1, request @ (0 | 1)] = *message else {
            return self.refuse(BadRecord(UNEXPECTED_MESSAGE), opened, outgoing);
        };
        self.count_update(opened, outgoing);
        if opened.failure.is_some() {
            return;
        }
        let is_renewed = renew(&mut self.rx, self.schedule.update_rx_secret());
        if !is_renewed || request == 1 && !self.renew_own(outgoing) {
            self.refuse(BadRecord(INTERNAL_ERROR), opened, outgoing);
        }
    }

    /// Bounds what costs us something and says nothing.
    fn count_update(&mut self, opened: &mut Opened, outgoing: &mut Vec<u8>) {
        match self.key_updates_left.checked_sub(1) {
            Some(left) => self.key_updates_left = left,
            None => self.refuse(BadRecord(UNEXPECTED_MESSAGE), opened, outgoing),
        }
    }

    /// Announces new keys of our own, and takes them into use.
    fn renew_own(&mut self, outgoing: &mut Vec<u8>) -> bool {
        let announcement = [KEY_UPDATE, 0, 0, 1, 0];
        self.tx.seal(Content::Handshake, &announcement, outgoing)
            && renew(&mut self.tx, self.schedule.update_tx_secret())
    }

    fn refuse(&mut self, BadRecord(alert): BadRecord, opened: &mut Opened, out: &mut Vec<u8>) {
        opened.failure = Some(TlsFailure::Misbehaved);
        // If not even that can be sealed, the far end learns it from the end of the connection.
        self.tx.seal(Content::Alert, &[FATAL, alert], out);
    }

    /// Appends a record with data.
    pub(super) fn seal(&mut self, plaintext: &[u8], outgoing: &mut Vec<u8>) -> bool {
        if self.tx.are_worn() && !self.renew_own(outgoing) {
            return false;
        }
        self.tx.seal(Content::Data, plaintext, outgoing)
    }

    /// Appends our goodbye.
    pub(super) fn say_goodbye(&mut self, outgoing: &mut Vec<u8>) {
        // If it cannot be sealed, the far end learns it from the end of the connection.
        self.tx
            .seal(Content::Alert, &[WARNING, CLOSE_NOTIFY], outgoing);
    }
}

/// Puts the next keys of a direction in the place of the old ones.
fn renew(
    keys: &mut RecordKeys,
    next: Result<(u64, ConnectionTrafficSecrets), rustls::Error>,
) -> bool {
    let next = next.ok().and_then(RecordKeys::new);
    let is_there = next.is_some();
    next.into_iter().for_each(|next| *keys = next);
    is_there
}

/// As many as rustls and BoringSSL take.
const KEY_UPDATES_MAX: u8 = 32;
const KEY_UPDATE: u8 = 24;
const WARNING: u8 = 1;
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
