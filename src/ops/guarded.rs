//! A connection of the ops port between the socket and hyper: requests framed by the letter, under a deadline.
//!
//! hyper behind axum takes what two readers could cut differently, and has no clock here: a connection that says
//! nothing, or says it slowly, would stay for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep};

use crate::head::guard::Guard;
use crate::head::request::{BadHead, Limits};
use crate::head::response::Response;

/// A socket that hands on sound requests, tells the first that is not its status, and ends.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    heads: Limits,
    guard: Guard,
    /// Bytes that passed the guard, and how many of them hyper has read.
    passed: Vec<u8>,
    read: usize,
    is_input_over: bool,
    is_refused: bool,
    /// The answer to a bad request, written after the answers that are due.
    last_words: Vec<u8>,
    /// Until when the far end has to do something.
    patience: Pin<Box<Sleep>>,
    /// Its place among the connections, given back when it is dropped.
    _place: OwnedSemaphorePermit,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S, heads: Limits, place: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            heads,
            guard: Guard::default(),
            passed: Vec::new(),
            read: 0,
            is_input_over: false,
            is_refused: false,
            last_words: Vec::new(),
            patience: Box::pin(sleep(REQUEST_TIMEOUT)),
            _place: place,
        }
    }

    /// Takes bytes of the socket.
    fn receive(&mut self, bytes: &[u8]) {
        if self.guard.is_between_requests() {
            self.grant(REQUEST_TIMEOUT);
        }
        if let Err(bad) = self.guard.receive(bytes, &self.heads, &mut self.passed) {
            self.refuse(bad);
        } else if self.guard.is_between_requests() {
            self.grant(IDLE_TIMEOUT);
        }
    }

    /// Nothing after a bad request is read. In a body, the request itself is cut short.
    fn refuse(&mut self, bad: BadHead) {
        self.is_input_over = true;
        self.is_refused = true;
        if self.guard.is_in_head() {
            let status = StatusCode::from_u16(bad.status()).unwrap_or(StatusCode::BAD_REQUEST);
            Response::new(status, "").encode(&mut self.last_words);
        }
    }

    /// Hands hyper what has passed.
    fn hand_on(&mut self, buf: &mut ReadBuf<'_>) {
        let unread = &self.passed[self.read..];
        let n = unread.len().min(buf.remaining());
        buf.put_slice(&unread[..n]);
        self.read += n;
        if self.read == self.passed.len() {
            self.passed.clear();
            self.read = 0;
        }
    }

    fn grant(&mut self, time: Duration) {
        // tokio's own clock, which its tests can stop.
        self.patience.as_mut().reset(Instant::now() + time);
    }

    /// What a socket that is not ready comes to: more waiting, or the end.
    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(self.patience.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> Guarded<S> {
    /// Reads from the socket: how many bytes, 0 at its end.
    fn fill(&mut self, bytes: &mut [u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(bytes);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
            Poll::Ready(read) => Poll::Ready(read.map(|()| buf.filled().len())),
            Poll::Pending => self.wait(cx),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.read < this.passed.len() {
                this.hand_on(buf);
                return Poll::Ready(Ok(()));
            }
            if this.is_input_over {
                return Poll::Ready(Ok(()));
            }
            let mut bytes = [0; READ_BYTES_MAX];
            match ready!(this.fill(&mut bytes, cx))? {
                0 => this.is_input_over = true,
                n => this.receive(&bytes[..n]),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_write(cx, bytes) {
            Poll::Pending => this.wait(cx),
            written => written,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.last_words.is_empty() {
            match Pin::new(&mut this.stream).poll_write(cx, &this.last_words) {
                Poll::Pending => return this.wait(cx),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(written) => drop(this.last_words.drain(..written?)),
            }
            this.grant(CLOSE_TIMEOUT);
        }
        ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        // Bytes nobody read would turn the last words into a reset.
        let mut bytes = [0; READ_BYTES_MAX];
        while this.is_refused && ready!(this.fill(&mut bytes, cx))? > 0 {}
        Poll::Ready(Ok(()))
    }
}

/// From the first byte of a request to its last, and from the accept to the first request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two requests, or for the answer to be read: longer than a scrape's interval is, as a rule.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// For the far end to finish after it was refused.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Read from the socket at once: a request of a scraper is shorter.
const READ_BYTES_MAX: usize = 2 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::Semaphore;

    use super::*;

    const LIMITS: Limits = Limits {
        head_bytes_max: 1_024,
        target_bytes_max: 512,
    };
    const REQUEST: &[u8] = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";

    /// The far end, and the connection as hyper has it.
    fn pair() -> (DuplexStream, Guarded<DuplexStream>) {
        let (far, near) = duplex(64 * 1024);
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        (far, Guarded::new(near, LIMITS, place))
    }

    #[tokio::test]
    async fn sound_requests_pass_and_what_follows_a_bad_one_does_not() {
        let (mut far, mut guarded) = pair();
        let stream = [REQUEST, b"GET /x HTTP/1.1\nHost: a\n\n", REQUEST].concat();
        far.write_all(&stream).await.unwrap();
        let mut passed = Vec::new();
        guarded.read_to_end(&mut passed).await.unwrap();
        assert_eq!(passed, REQUEST);
        far.shutdown().await.unwrap();
        guarded.shutdown().await.unwrap();
        let mut answer = String::new();
        far.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("Connection: close"), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_trickles_has_one_deadline() {
        let (mut far, mut guarded) = pair();
        let reading = tokio::spawn(async move { guarded.read_u8().await });
        for byte in b"GET /".iter().chain(&[b'x'; 100]) {
            far.write_all(&[*byte]).await.ok();
            sleep(Duration::from_millis(200)).await;
        }
        let error = reading.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_scraper_may_wait_between_two_scrapes_and_a_stranger_may_not() {
        let (mut far, mut guarded) = pair();
        let mut request = vec![0; REQUEST.len()];
        for _ in 0..2 {
            far.write_all(REQUEST).await.unwrap();
            guarded.read_exact(&mut request).await.unwrap();
            let early = tokio::time::timeout(Duration::from_secs(60), guarded.read_u8()).await;
            assert!(early.is_err(), "{early:?}");
        }
        let started = Instant::now();
        let (_far, mut silent) = pair();
        assert!(silent.read_u8().await.is_err());
        assert_eq!(started.elapsed().as_secs(), REQUEST_TIMEOUT.as_secs());
    }
}
