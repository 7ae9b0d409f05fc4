//! One stream of a pusher: records out, replies in, from its welcome to its end.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hashbrown::HashMap;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tungstenite::Message;

use super::error::ClientError;
use super::push::{Frame, PushError, Refusal};
use super::pusher::{Ask, too_late};
use super::socket::{
    CLOSE_TIMEOUT, Opening, Received, Socket, Target, is_final, now, opened, receive,
    receive_welcome, reconnect_after, silence_max,
};

/// An open stream.
pub(super) struct Stream {
    sink: SplitSink<Socket, Message>,
    source: SplitStream<Socket>,
    heard: Instant,
    silence_max: Duration,
    /// Records the node lets be unanswered.
    window: usize,
    record_bytes_max: usize,
    in_flight: HashMap<u64, Ask>,
    /// Ids ever given.
    ids: u64,
    /// Records were written that may still be in a buffer.
    has_unflushed: bool,
}

/// Why a stream is no longer used.
pub(super) enum End {
    /// Nobody can send any more, and everything is answered.
    Idle,
    /// The node asked for it: the first is open in its place, the second has answers to wait for.
    Moved(Box<Stream>, Box<Stream>),
    /// It was cut.
    Broken(String),
    /// The node does not want this back end.
    Final(String),
}

impl Stream {
    /// Connects, and waits for the welcome.
    pub(super) async fn open(target: &Target) -> Result<Self, ClientError> {
        let (sink, mut source) = target.open().await?.split();
        let mut heard = now();
        let place = target.place();
        let welcome = receive_welcome(&mut source, &mut heard, &place).await?;
        let number = |name: &str| usize::try_from(welcome[name].as_u64()?).ok();
        let window = number("window").ok_or_else(|| {
            let cause = "the welcome names no window".into();
            ClientError::Protocol { place, cause }
        })?;
        Ok(Self {
            sink,
            source,
            heard,
            silence_max: silence_max(&welcome),
            window: window.max(1),
            record_bytes_max: number("max_record_bytes").unwrap_or(usize::MAX),
            in_flight: HashMap::new(),
            ids: 0,
            has_unflushed: false,
        })
    }

    /// Sends what is asked for and hands replies on, until the stream ends or is replaced by another.
    pub(super) async fn run(mut self, target: &Target, queue: &mut mpsc::Receiver<Ask>) -> End {
        let mut successor: Option<Opening<Self>> = None;
        let mut is_closed = false;
        loop {
            if is_closed && self.in_flight.is_empty() {
                self.finish().await;
                return End::Idle;
            }
            let has_room = self.in_flight.len() < self.window && !is_closed;
            tokio::select! {
                received = receive(&mut self.source, &mut self.heard, self.silence_max) => {
                    match self.handle(received) {
                        Ok(None) => {}
                        Ok(Some(wait)) => successor = Some(reopen(target.clone(), wait)),
                        Err(end) => return end,
                    }
                }
                step = next_step(&mut self.sink, queue, has_room, self.has_unflushed) => match step {
                    Ok(Step::Ask(ask)) => self.send(ask, queue),
                    Ok(Step::Closed) => is_closed = true,
                    Ok(Step::Flushed) => self.has_unflushed = false,
                    Err(error) => return self.broken(&error.to_string()),
                },
                opened = opened(&mut successor) => {
                    successor = None;
                    // Without another stream this one is used to its end.
                    if let Ok(stream) = opened {
                        return End::Moved(Box::new(stream), Box::new(self));
                    }
                }
            }
        }
    }

    /// Writes a record and those that wait behind it, as far as there is room for them.
    fn send(&mut self, first: Ask, queue: &mut mpsc::Receiver<Ask>) {
        let mut next = Some(first);
        while let Some(ask) = next.take() {
            self.write(ask);
            let has_room = self.in_flight.len() < self.window && self.is_ready();
            next = has_room.then(|| queue.try_recv().ok()).flatten();
        }
    }

    /// Whether the sink takes another record at once; if not, the next step waits for it.
    fn is_ready(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        matches!(
            self.sink.poll_ready_unpin(&mut context),
            Poll::Ready(Ok(()))
        )
    }

    fn write(&mut self, ask: Ask) {
        let left = ask.deadline.saturating_duration_since(now());
        if left.is_zero() || !ask.take_off() {
            return ask.answer(Err(too_late()));
        }
        self.ids += 1;
        let record = match ask.push.encode(self.ids, left) {
            Ok(record) => record,
            Err(error) => return ask.answer(Err(PushError::Malformed(error.to_string()))),
        };
        if record.len() > self.record_bytes_max {
            return ask.answer(Err(too_large(self.record_bytes_max)));
        }
        // A sink that is ready takes it; one that broke meanwhile says so at the flush.
        self.sink.start_send_unpin(Message::text(record)).ok();
        self.has_unflushed = true;
        self.in_flight.insert(self.ids, ask);
    }

    /// Takes what the node says; for a go-away, the wait it asks for.
    fn handle(&mut self, received: Received) -> Result<Option<Duration>, End> {
        let text = match received {
            Received::Text(text) => text,
            Received::Binary(_) => return Ok(None),
            Received::Closed(code, reason) => return Err(self.closed(code, &reason)),
        };
        let Ok(frame) = serde_json::from_str::<Frame>(&text) else {
            return Ok(None);
        };
        match (&*frame.r#type, frame.id) {
            ("reply", Some(id)) => {
                if let Some(ask) = self.in_flight.remove(&id) {
                    ask.answer(frame.into_result());
                }
                Ok(None)
            }
            ("goaway", _) => {
                tracing::debug!(reason = frame.reason, "the stream is to be renewed");
                Ok(Some(reconnect_after(frame.reconnect_after_ms)))
            }
            _ => Ok(None),
        }
    }

    fn closed(&mut self, code: u16, reason: &str) -> End {
        let cause = format!("the stream was closed with {code} {reason}");
        self.lose(&cause);
        if is_final(code) {
            End::Final(cause)
        } else {
            End::Broken(cause)
        }
    }

    fn broken(&mut self, cause: &str) -> End {
        self.lose(cause);
        End::Broken(cause.to_owned())
    }

    /// What was under way may have arrived or not.
    fn lose(&mut self, cause: &str) {
        for (_, ask) in self.in_flight.drain() {
            ask.answer(Err(PushError::Unknown(cause.to_owned())));
        }
    }

    /// Waits for the answers that are due, sends nothing more, and closes.
    pub(super) async fn leave(mut self) {
        // The sink may hold records that were written and not flushed.
        if let Err(error) = self.sink.flush().await {
            return self.lose(&error.to_string());
        }
        while !self.in_flight.is_empty() {
            let received = receive(&mut self.source, &mut self.heard, self.silence_max).await;
            if self.handle(received).is_err() {
                return;
            }
        }
        self.finish().await;
    }

    /// Says goodbye, and waits a little for the answer.
    async fn finish(mut self) {
        let goodbye = async {
            self.sink.close().await.ok();
            while !matches!(
                receive(&mut self.source, &mut self.heard, CLOSE_TIMEOUT).await,
                Received::Closed(..)
            ) {}
        };
        // A stream that is gone already needs no goodbye.
        tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await.ok();
    }
}

/// What is to be done next on the way out.
enum Step {
    /// A message to send; the sink is ready for it.
    Ask(Ask),
    /// Nobody can send any more.
    Closed,
    /// What was written is with the kernel.
    Flushed,
}

/// Waits for a message, if there is room for one, and for what was written to leave; messages first, so that they leave
/// together.
async fn next_step(
    sink: &mut SplitSink<Socket, Message>,
    queue: &mut mpsc::Receiver<Ask>,
    has_room: bool,
    has_unflushed: bool,
) -> Result<Step, tungstenite::Error> {
    poll_fn(|cx| {
        if has_room && let Poll::Ready(ready) = sink.poll_ready_unpin(cx) {
            ready?;
            if let Poll::Ready(ask) = queue.poll_recv(cx) {
                return Poll::Ready(Ok(ask.map_or(Step::Closed, Step::Ask)));
            }
        }
        if has_unflushed {
            return sink.poll_flush_unpin(cx).map_ok(|()| Step::Flushed);
        }
        Poll::Pending
    })
    .await
}

/// Opens another stream, after the wait that the node asked for.
fn reopen(target: Target, wait: Duration) -> Opening<Stream> {
    Box::pin(async move {
        tokio::time::sleep(wait).await;
        Stream::open(&target).await
    })
}

fn too_large(record_bytes_max: usize) -> PushError {
    PushError::Refused(Refusal {
        code: "payload_too_large".into(),
        message: format!("the record is over the {record_bytes_max} bytes that the node takes"),
        retryable: false,
        message_id: None,
        level: None,
    })
}
