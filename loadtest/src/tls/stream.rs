//! One line's TLS, with no buffer that outlives what is in it.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;

use rustls::HandshakeKind;
use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic,
};

/// The state of TLS beside its socket, which is lent for each call.
pub(crate) struct TlsStream {
    connection: UnbufferedClientConnection,
    /// Read and not yet a whole record.
    incoming: Vec<u8>,
    /// Decrypted and not yet taken, from `taken` on.
    plain: Vec<u8>,
    taken: usize,
    /// Encrypted and not yet sent.
    outgoing: Vec<u8>,
    is_ended: bool,
}

const READ_BYTES: usize = 4 * 1024;
/// What a record is longer than what it carries, at least.
const RECORD_OVERHEAD: usize = 32;

impl TlsStream {
    pub(super) fn new(connection: UnbufferedClientConnection) -> Self {
        Self {
            connection,
            incoming: Vec::new(),
            plain: Vec::new(),
            taken: 0,
            outgoing: Vec::new(),
            is_ended: false,
        }
    }

    /// Whether the handshake is done and resumed an earlier session.
    pub(crate) fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Reads what was decrypted, or what the socket has.
    pub(crate) fn read(
        &mut self,
        socket: &mut (impl Read + Write),
        buf: &mut [u8],
    ) -> io::Result<usize> {
        loop {
            let count = self.take(buf);
            if count > 0 || self.is_ended {
                return Ok(count);
            }
            self.advance(&[])?;
            self.push_out(socket)?;
            if self.plain.is_empty() && !self.is_ended {
                self.read_socket(socket)?;
            }
        }
    }

    /// Encrypts all of `buf`; during the handshake, advances that.
    pub(crate) fn write(
        &mut self,
        socket: &mut (impl Read + Write),
        buf: &[u8],
    ) -> io::Result<usize> {
        self.flush(socket)?;
        while !self.advance(buf)? {
            self.push_out(socket)?;
            self.read_socket(socket)?;
            if self.is_ended {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        self.push_out(socket)?;
        Ok(buf.len())
    }

    /// Sends what is encrypted.
    pub(crate) fn flush(&mut self, socket: &mut impl Write) -> io::Result<()> {
        let mut sent = 0;
        let result = loop {
            if sent == self.outgoing.len() {
                break Ok(());
            }
            match socket.write(&self.outgoing[sent..]) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(count) => sent += count,
                Err(error) => break Err(error),
            }
        };
        remove(&mut self.outgoing, sent);
        result
    }

    /// Sends what the socket takes of it now.
    fn push_out(&mut self, socket: &mut impl Write) -> io::Result<()> {
        match self.flush(socket) {
            Err(error) if !is_not_yet(&error) => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Works through what has come in; whether `app` was encrypted, which it is once the handshake is done.
    fn advance(&mut self, app: &[u8]) -> io::Result<bool> {
        loop {
            let UnbufferedStatus {
                mut discard, state, ..
            } = self.connection.process_tls_records(&mut self.incoming);
            let end = match state.map_err(io::Error::other)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(io::Error::other)?;
                        discard += record.discard;
                        self.plain.extend_from_slice(record.payload);
                    }
                    None
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    append(&mut self.outgoing, 0, |out| match data.encode(out) {
                        Err(EncodeError::InsufficientSize(size)) => Ok(Err(size.required_size)),
                        other => other.map(Ok).map_err(io::Error::other),
                    })?;
                    None
                }
                ConnectionState::TransmitTlsData(data) => {
                    // It is in `outgoing`, and nothing overtakes it there.
                    data.done();
                    None
                }
                ConnectionState::WriteTraffic(traffic) => {
                    encrypt(traffic, app, &mut self.outgoing)?;
                    Some(true)
                }
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    self.is_ended = true;
                    Some(false)
                }
                ConnectionState::BlockedHandshake | ConnectionState::ReadEarlyData(_) | _ => {
                    Some(false)
                }
            };
            remove(&mut self.incoming, discard);
            if let Some(is_written) = end {
                return Ok(is_written);
            }
        }
    }

    fn read_socket(&mut self, socket: &mut impl Read) -> io::Result<()> {
        let mut scratch = [0; READ_BYTES];
        let count = socket.read(&mut scratch)?;
        self.is_ended = count == 0;
        self.incoming.extend_from_slice(&scratch[..count]);
        Ok(())
    }

    fn take(&mut self, buf: &mut [u8]) -> usize {
        let rest = &self.plain[self.taken..];
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        if self.taken == self.plain.len() {
            self.plain = Vec::new();
            self.taken = 0;
        }
        count
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The library shows nothing of its state, which has the keys.
        f.debug_struct("TlsStream").finish_non_exhaustive()
    }
}

fn encrypt<D>(
    mut traffic: WriteTraffic<'_, D>,
    app: &[u8],
    outgoing: &mut Vec<u8>,
) -> io::Result<()> {
    if app.is_empty() {
        return Ok(());
    }
    let room = app.len() + RECORD_OVERHEAD;
    append(outgoing, room, |out| match traffic.encrypt(app, out) {
        Err(EncryptError::InsufficientSize(size)) => Ok(Err(size.required_size)),
        other => other.map(Ok).map_err(io::Error::other),
    })
}

/// Appends what `write` writes: its length, or how much room it wants.
fn append(
    out: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> io::Result<Result<usize, usize>>,
) -> io::Result<()> {
    let start = out.len();
    loop {
        out.resize(start + room, 0);
        match write(&mut out[start..])? {
            Ok(count) => {
                out.truncate(start + count);
                return Ok(());
            }
            Err(wanted) => room = wanted,
        }
    }
}

/// Removes the front, and the memory with the last of it: idle lines are many.
fn remove(bytes: &mut Vec<u8>, count: usize) {
    if count == bytes.len() {
        drop(mem::take(bytes));
    } else {
        bytes.drain(..count);
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected
    )
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection};

    use super::*;
    use crate::name::LineId;
    use crate::tls::TlsPlan;

    /// A socket between a line and a server, which takes a few bytes at a time.
    #[derive(Default)]
    struct Wire {
        to_line: VecDeque<u8>,
        to_server: VecDeque<u8>,
        room: usize,
    }

    const BYTES_PER_CALL: usize = 7;
    const BYTES_PER_ROUND: usize = 2_000;

    impl Read for Wire {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let count = buf.len().min(BYTES_PER_CALL).min(self.to_line.len());
            if count == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.to_line.read(&mut buf[..count])
        }
    }

    impl Write for Wire {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            let count = buf.len().min(BYTES_PER_CALL).min(self.room);
            if count == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room -= count;
            self.to_server.write(&buf[..count])
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn server_config() -> Arc<ServerConfig> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = builder.with_no_client_auth();
        Arc::new(
            builder
                .with_single_cert(vec![made.cert.der().clone()], key)
                .unwrap(),
        )
    }

    /// Lets the server have what the line sent, and the line what the server answers; what the server read.
    fn serve(server: &mut ServerConnection, wire: &mut Wire) -> Vec<u8> {
        let mut plain = Vec::new();
        while !wire.to_server.is_empty() {
            server.read_tls(&mut wire.to_server).unwrap();
            server.process_new_packets().unwrap();
            // It ends with what was there, since the line has not hung up.
            let end = server.reader().read_to_end(&mut plain);
            assert!(end.is_err_and(|error| is_not_yet(&error)));
        }
        while server.wants_write() {
            server.write_tls(&mut wire.to_line).unwrap();
        }
        wire.room = BYTES_PER_ROUND;
        plain
    }

    /// Sends `sent` to the server and `answer` back, over a line of the plan; its TLS afterwards.
    fn exchange(
        plan: &TlsPlan,
        config: &Arc<ServerConfig>,
        line: LineId,
        sent: &[u8],
        answer: &[u8],
    ) -> Box<TlsStream> {
        let mut line = plan.open(line, 0).unwrap();
        let mut server = ServerConnection::new(config.clone()).unwrap();
        let mut wire = Wire::default();
        let (mut done, mut received, mut answered) = (0, Vec::new(), Vec::new());
        while received.len() < sent.len() {
            if done < sent.len() {
                match line.write(&mut wire, &sent[done..]) {
                    Ok(count) => done += count,
                    Err(error) => assert!(is_not_yet(&error), "{error}"),
                }
            } else {
                drop(line.flush(&mut wire));
            }
            received.extend(serve(&mut server, &mut wire));
        }
        assert_eq!(received, sent);
        server.writer().write_all(answer).unwrap();
        while server.wants_write() {
            server.write_tls(&mut wire.to_line).unwrap();
        }
        let mut buf = [0; 100];
        loop {
            match line.read(&mut wire, &mut buf) {
                Ok(count) => answered.extend_from_slice(&buf[..count]),
                Err(error) if is_not_yet(&error) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(answered, answer);
        line
    }

    #[test]
    fn bytes_arrive_through_a_slow_socket_and_leave_no_buffer_behind() {
        let config = server_config();
        let plan = TlsPlan::new(&["localhost".to_owned()], None, 0.0).unwrap();
        let long = vec![7; 40_000];
        for (sent, answer) in [(&b"GET /"[..], &b"101"[..]), (&long, &long)] {
            let line = exchange(&plan, &config, LineId(0), sent, answer);
            let kept = [&line.incoming, &line.plain, &line.outgoing].map(Vec::capacity);
            assert_eq!(kept, [0; 3]);
            assert!(!line.is_resumed());
        }
    }

    #[test]
    fn a_line_resumes_what_an_earlier_one_left_if_it_is_to() {
        let config = server_config();
        for (resume, expected) in [
            (0.0, [false; 4]),
            (0.5, [false, true, false, true]),
            (1.0, [false, true, true, true]),
        ] {
            let plan = TlsPlan::new(&["localhost".to_owned()], None, resume).unwrap();
            let resumed =
                [0, 1, 2, 3].map(|n| exchange(&plan, &config, LineId(n), b"a", b"b").is_resumed());
            assert_eq!(resumed, expected);
        }
    }
}
