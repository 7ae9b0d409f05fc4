//! A line spoken by hand, byte for byte: for what no WebSocket library sends.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::deadline::PATIENCE;
use crate::node::Node;

/// An upgraded connection.
#[derive(Debug)]
pub(crate) struct Line(TcpStream);

/// A frame from the node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) first_byte: u8,
    pub(crate) payload: Vec<u8>,
}

/// How a line ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With a close frame: code and reason.
    Closed(u16, String),
    /// Without.
    Dropped,
}

impl Line {
    /// Opens a JSON line in `dev` mode and reads its welcome.
    pub(crate) fn open(node: &Node, device_id: &str) -> Self {
        let mut line = Self::upgrade(node, device_id, "", None);
        let welcome = line.frame().expect("a welcome");
        assert_eq!(welcome.first_byte, TEXT, "{welcome:?}");
        line
    }

    /// Opens a raw line in `dev` mode.
    pub(crate) fn open_raw(node: &Node, device_id: &str) -> Self {
        let protocol = "Sec-WebSocket-Protocol: tautline.v1.raw\r\n";
        Self::upgrade(node, device_id, protocol, None)
    }

    /// Opens a JSON line whose kernel takes few bytes that nobody reads.
    pub(crate) fn open_with_small_window(node: &Node, device_id: &str) -> Self {
        Self::upgrade(node, device_id, "", Some(4_096))
    }

    fn upgrade(node: &Node, device_id: &str, headers: &str, window: Option<usize>) -> Self {
        let mut line = Self(connect(node.ready.devices, window));
        let path = format!("/ws?device_id={device_id}");
        assert!(line.send(request(&path, headers)));
        let head = line.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        line
    }

    /// Takes over a connection that has been upgraded already.
    pub(crate) fn of(stream: TcpStream) -> Self {
        Self(stream)
    }

    /// Sends bytes as they are; false when the other side no longer takes them.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.write_all(bytes.as_ref()).is_ok()
    }

    /// Reads a response head.
    pub(crate) fn head(&mut self) -> String {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte).expect("a whole head");
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    }

    /// Waits until something came back: a byte, a close or a reset.
    pub(crate) fn answered(&mut self) {
        let mut byte = [0];
        if let Err(error) = self.0.read(&mut byte) {
            assert_ne!(error.kind(), ErrorKind::WouldBlock, "nothing came");
        }
    }

    /// The next frame; `None` when the line ends first. Panics when neither comes.
    pub(crate) fn frame(&mut self) -> Option<Frame> {
        let [first_byte, short] = self.take()?;
        assert_eq!(short & 0x80, 0, "a server's frame is masked");
        let length = match short {
            126 => usize::from(u16::from_be_bytes(self.take()?)),
            127 => usize::try_from(u64::from_be_bytes(self.take()?)).unwrap(),
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.fill(&mut payload)?;
        Some(Frame {
            first_byte,
            payload,
        })
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Some(bytes)
    }

    fn fill(&mut self, buf: &mut [u8]) -> Option<()> {
        match self.0.read_exact(buf) {
            Ok(()) => Some(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("nothing came"),
            Err(_) => None,
        }
    }

    /// Reads until the line ends. The other side's close frame is not answered.
    pub(crate) fn ending(&mut self) -> Ending {
        while let Some(frame) = self.frame() {
            if frame.first_byte != CLOSE {
                continue;
            }
            let Some((code, reason)) = frame.payload.split_first_chunk() else {
                return Ending::Closed(1005, String::new());
            };
            let reason = String::from_utf8(reason.to_vec()).unwrap();
            return Ending::Closed(u16::from_be_bytes(*code), reason);
        }
        Ending::Dropped
    }

    /// How long a read may take from now on.
    pub(crate) fn set_patience(&self, patience: Duration) {
        self.0.set_read_timeout(Some(patience)).unwrap();
    }

    /// Says that nothing more comes from here.
    pub(crate) fn shut_down_writing(&self) {
        self.0.shutdown(Shutdown::Write).unwrap();
    }

    /// Resets the connection.
    pub(crate) fn reset(self) {
        let linger = Some(Duration::ZERO);
        SockRef::from(&self.0).set_linger(linger).unwrap();
    }
}

/// Connects, with a receive buffer of so many bytes.
pub(crate) fn connect(addr: SocketAddr, window: Option<usize>) -> TcpStream {
    try_connect(addr, window).expect("a connection")
}

/// Like [`connect`], at a node that may be too full to do more than reset.
pub(crate) fn try_connect(addr: SocketAddr, window: Option<usize>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
    if let Some(bytes) = window {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    socket.connect(&SockAddr::from(addr))?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    Ok(stream)
}

/// A correct upgrade request, with more headers.
pub(crate) fn request(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// A masked frame as a device sends it.
pub(crate) fn frame(first_byte: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut frame = header(first_byte, payload.len());
    let masked = payload.iter().zip(MASK.iter().cycle());
    frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    frame
}

/// The header of a masked frame that declares a length.
pub(crate) fn header(first_byte: u8, length: usize) -> Vec<u8> {
    let mut header = vec![first_byte];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => header.push(0x80 | short),
        (_, Ok(medium)) => {
            header.push(0x80 | 126);
            header.extend(medium.to_be_bytes());
        }
        _ => {
            header.push(0x80 | 127);
            header.extend((length as u64).to_be_bytes());
        }
    }
    header.extend(MASK);
    header
}

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// First bytes of whole frames.
pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8a;
/// First bytes of fragments: the first of a text, one between, the last.
pub(crate) const TEXT_FIRST: u8 = 0x01;
pub(crate) const BETWEEN: u8 = 0x00;
pub(crate) const LAST: u8 = 0x80;
