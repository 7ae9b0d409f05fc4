//! What lies between a socket and the bytes it carries: a PROXY header first, TLS then; either may be missing.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::metrics::TlsFailure;
use crate::net::proxy::ProxyHeader;
use crate::net::stream::{Breach, Io, outcome, retry};
use crate::net::tls::policy::TlsPolicy;
use crate::net::tls::session::{Secured, Session};

/// The layers of one connection.
#[derive(Debug)]
pub(super) struct Layer {
    /// What is wanted until the application can be heard, and then no more.
    opening: Option<Box<Opening>>,
    tls: Tls,
    /// The socket may hold more than was read, or the end is known and not told.
    holds_more: bool,
    /// Our side is to be shut once the last record is out.
    is_finishing: bool,
}

#[derive(Debug, Default)]
struct Opening {
    /// A header that must come before anything else.
    proxy: Option<ProxyHeader>,
    news: News,
}

/// What becomes known while the layers are put in place. Told once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Microseconds of this thread's time that a handshake has taken, about.
    pub cost_us: u32,
    /// For whom a load balancer has made the connection.
    pub source: Option<SocketAddr>,
    /// A TLS handshake was completed.
    pub secured: Option<Secured>,
}

#[derive(Debug)]
enum Tls {
    None,
    /// Nothing has come yet, so nothing is spent on it yet.
    Awaited(Arc<TlsPolicy>),
    Session(Session),
}

impl Layer {
    /// The layers that a new connection begins with, if any.
    pub(super) fn new(is_proxied: bool, tls: Option<Arc<TlsPolicy>>) -> Option<Box<Self>> {
        (is_proxied || tls.is_some()).then(|| {
            Box::new(Self {
                opening: Some(Box::new(Opening {
                    proxy: is_proxied.then(ProxyHeader::default),
                    news: News::default(),
                })),
                tls: tls.map_or(Tls::None, Tls::Awaited),
                holds_more: false,
                is_finishing: false,
            })
        })
    }

    /// Whether the socket's bytes are the application's from now on, and nothing is left to tell.
    pub(super) fn is_spent(&self) -> bool {
        self.opening.is_none() && matches!(self.tls, Tls::None)
    }

    /// Whether the far end cannot speak to the application yet.
    pub(super) fn is_opening(&self) -> bool {
        self.awaits_header()
            || match &self.tls {
                Tls::None => false,
                Tls::Awaited(_) => true,
                Tls::Session(session) => session.is_opening(),
            }
    }

    fn awaits_header(&self) -> bool {
        self.opening
            .as_ref()
            .is_some_and(|opening| opening.proxy.is_some())
    }

    pub(super) fn holds_more(&self) -> bool {
        self.holds_more
    }

    pub(super) fn take_news(&mut self) -> Option<News> {
        let news = std::mem::take(&mut self.opening.as_mut()?.news);
        if !self.is_opening() {
            self.opening = None;
        }
        (news != News::default()).then_some(news)
    }

    /// Reads once from the socket, and unwraps what came to the front of `buf`.
    pub(super) fn fill(&mut self, socket: &mut (impl Read + Write), buf: &mut [u8]) -> Io {
        debug_assert!(buf.len() > 2 * Session::HEADROOM, "no room to unwrap in");
        self.holds_more = false;
        if let Tls::Session(session) = &mut self.tls {
            if let Some(failure) = session.take_failure() {
                return Io::Refused(Breach::Tls(failure));
            }
            if session.is_over() {
                return Io::Closed;
            }
        }
        let start = match &self.tls {
            Tls::Session(session) => session.prepare(buf),
            Tls::None | Tls::Awaited(_) => Session::HEADROOM,
        };
        let count = match outcome(retry(|| socket.read(&mut buf[start..]))) {
            Io::Ready(count) => count,
            nothing @ (Io::Silent | Io::Blocked | Io::Closed | Io::Failed(_) | Io::Refused(_)) => {
                return nothing;
            }
        };
        let end = start + count;
        self.holds_more = end == buf.len();
        match self.unwrap(socket, buf, end) {
            Ok(0) => Io::Silent,
            Ok(plaintext) => Io::Ready(plaintext),
            Err(breach) => Io::Refused(breach),
        }
    }

    /// Takes what was read: the header off, then the records.
    fn unwrap(
        &mut self,
        socket: &mut impl Write,
        buf: &mut [u8],
        end: usize,
    ) -> Result<usize, Breach> {
        let mut end = end;
        if let Some(opening) = &mut self.opening
            && let Some(header) = &mut opening.proxy
        {
            let input = &buf[Session::HEADROOM..end];
            let Ok(proxied) = header.receive(input) else {
                (opening.proxy, self.tls) = (None, Tls::None);
                return Err(Breach::ProxyHeader);
            };
            let Some(proxied) = proxied else {
                return Ok(0);
            };
            opening.proxy = None;
            opening.news.source = proxied.source;
            buf.copy_within(Session::HEADROOM + proxied.consumed..end, Session::HEADROOM);
            end -= proxied.consumed;
            // What follows may have come along, and no edge will tell of it.
            self.holds_more = true;
        }
        if end == Session::HEADROOM {
            return Ok(0);
        }
        if let Tls::Awaited(policy) = &self.tls {
            // Anything else is somebody who speaks plainly to this port; who is told so in the same way.
            if buf[Session::HEADROOM] != HANDSHAKE_RECORD {
                self.tls = Tls::None;
                return Err(Breach::Tls(TlsFailure::NotTls));
            }
            self.tls = Tls::Session(Session::new(Arc::clone(policy)).map_err(Breach::Tls)?);
        }
        let Tls::Session(session) = &mut self.tls else {
            buf.copy_within(Session::HEADROOM..end, 0);
            return Ok(end - Session::HEADROOM);
        };
        if session.has_failed() {
            // What still comes is of no use to anybody.
            self.holds_more = true;
            return Ok(0);
        }
        let received = session.receive(buf, end);
        if let Some(opening) = &mut self.opening {
            opening.news.cost_us += received.cost_us;
            opening.news.secured = received.secured;
        }
        if session.owes() {
            send(session, socket);
        }
        if received.plaintext == 0
            && let Some(failure) = session.take_failure()
        {
            return Err(Breach::Tls(failure));
        }
        self.holds_more |= session.is_over() || session.has_failed();
        Ok(received.plaintext)
    }

    /// Hands the socket plaintext, wrapped: no more than a record at a time, and not reported as gone before the socket
    /// has all of it.
    pub(super) fn flush(&mut self, socket: &mut impl Write, bytes: &[u8]) -> Io {
        let session = match &mut self.tls {
            Tls::Session(session) => session,
            Tls::Awaited(_) => return Io::Closed,
            Tls::None => return outcome(retry(|| socket.write(bytes))),
        };
        // Behind records of the session's own, so that they leave together.
        let is_lost = session.sealed() == 0 && session.seal(bytes) == 0;
        let sent = send(session, socket);
        if is_lost { Io::Closed } else { sent }
    }

    /// How many of the bytes that were to be flushed are in a record that the socket has not taken whole.
    pub(super) fn pledged(&self) -> usize {
        match &self.tls {
            Tls::Session(session) => session.sealed(),
            Tls::None | Tls::Awaited(_) => 0,
        }
    }

    /// Whether records wait that the socket has not taken.
    pub(super) fn owes(&self) -> bool {
        matches!(&self.tls, Tls::Session(session) if session.owes())
    }

    /// Hands the socket the records that wait: what became of that, as of any write.
    pub(super) fn settle(&mut self, socket: &mut impl Write) -> Io {
        match &mut self.tls {
            Tls::Session(session) => send(session, socket),
            Tls::None | Tls::Awaited(_) => Io::Blocked,
        }
    }

    /// Says goodbye as TLS wants it.
    pub(super) fn say_goodbye(&mut self, socket: &mut impl Write) {
        if let Tls::Session(session) = &mut self.tls {
            session.say_goodbye();
            send(session, socket);
        }
    }

    /// Notes that our side is to be shut; `true` when it can be at once.
    pub(super) fn begin_finish(&mut self) -> bool {
        self.is_finishing = true;
        if self.is_opening() {
            // Nobody shakes hands any more; what still comes is dropped as it is.
            (self.opening, self.tls) = (None, Tls::None);
        }
        !self.owes()
    }

    /// Whether our side is to be shut, and can be.
    pub(super) fn may_finish(&self) -> bool {
        self.is_finishing && !self.owes()
    }
}

/// Hands the socket the records that wait: `Ready` with the plaintext in them once it has them all.
fn send(session: &mut Session, socket: &mut impl Write) -> Io {
    while !session.outgoing().is_empty() {
        match outcome(retry(|| socket.write(session.outgoing()))) {
            Io::Ready(count) => {
                if let Some(plaintext) = session.take_sent(count) {
                    return Io::Ready(plaintext);
                }
            }
            nothing @ (Io::Silent | Io::Blocked | Io::Closed | Io::Failed(_) | Io::Refused(_)) => {
                return nothing;
            }
        }
    }
    Io::Ready(0)
}

/// The first byte of a connection that speaks TLS (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 22;
