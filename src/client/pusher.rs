//! The push library: messages to devices over one pipelined stream that mends itself.
//!
//! ```no_run
//! use tautline::client::push::{Push, PushError};
//! use tautline::client::pusher::{Pusher, PusherOptions};
//! use tautline::wire::api::Level;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let options = PusherOptions::new("ws://127.0.0.1:7402/v1/stream").key("the api key");
//! let pusher = Pusher::start(options)?;
//! let push = Push::json("tv-1", &serde_json::json!({"hi": 1}))?.wait(Level::Acked);
//! match pusher.send(push).await {
//!     Ok(receipt) => println!("{} is {:?}", receipt.message_id, receipt.level),
//!     // The stream was cut after the message had left: the device may have it.
//!     Err(PushError::Unknown(cause)) => println!("perhaps: {cause}"),
//!     Err(error) => println!("no: {error}"),
//! }
//! pusher.close().await;
//! # Ok(())
//! # }
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::error::ClientError;
use super::push::{Push, PushError, Receipt};
use super::socket::{Target, now, parse_url};
use super::stream::{End, Stream};

/// Where and how to push.
#[derive(Clone, Debug)]
pub struct PusherOptions {
    url: String,
    key: Option<String>,
    ca_file: Option<PathBuf>,
    timeout: Duration,
    waiting_max: usize,
}

impl PusherOptions {
    /// Streams to this address: `ws://host:7402/v1/stream`, or `wss://`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            key: None,
            ca_file: None,
            timeout: Duration::from_secs(10),
            waiting_max: 1_024,
        }
    }

    /// Shows this API key, which needs the role `send`.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// With `wss://`, the authorities in this file vouch for the node instead of the system's.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// How long a message may take to its level if it does not say itself. 10 s unless this says otherwise.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many messages may wait for the stream; beyond it [`Pusher::send`] waits. 1,024 unless this says otherwise.
    #[must_use]
    pub fn waiting_max(mut self, waiting_max: usize) -> Self {
        self.waiting_max = waiting_max.max(1);
        self
    }

    fn target(&self) -> Result<Target, ClientError> {
        let url = parse_url(&self.url)?;
        Target::new(&url, PROTOCOL, self.key.clone(), self.ca_file.as_deref())
    }
}

/// A back end's way to every device: one stream, shared by all who send, renewed when it breaks.
///
/// Messages to one device arrive in the order in which [`Pusher::post`] returned, as long as the stream lives. A message
/// is sent at most once: what was under way when the stream was cut ends as [`PushError::Unknown`]. Dropping the
/// pusher lets what was sent be answered; [`Pusher::close`] waits for that.
#[derive(Debug)]
pub struct Pusher {
    asks: mpsc::Sender<Ask>,
    timeout: Duration,
    closing: Arc<Notify>,
    task: JoinHandle<()>,
}

/// A message that waits for its answer.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) push: Push,
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Result<Receipt, PushError>>,
    fate: Arc<AtomicU8>,
}

impl Ask {
    /// Whether the message may be sent: not if whoever sent it has given it up.
    pub(super) fn take_off(&self) -> bool {
        let taken = self
            .fate
            .compare_exchange(WAITING, SENT, Ordering::SeqCst, Ordering::SeqCst);
        taken.is_ok()
    }

    pub(super) fn answer(self, result: Result<Receipt, PushError>) {
        // Who has given up needs no answer.
        self.answer.send(result).ok();
    }
}

impl Pusher {
    /// Starts to connect. Messages may be sent at once; they wait for the stream as long as they have time. Must be
    /// called on a tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub fn start(options: PusherOptions) -> Result<Self, ClientError> {
        let target = options.target()?;
        Ok(Self::keep(options, target, None))
    }

    /// Connects, for programs that want to know at once whether that works; later streams are tried again and again.
    /// Must be called on a tokio runtime.
    ///
    /// # Errors
    /// When the first stream cannot be opened.
    pub async fn connect(options: PusherOptions) -> Result<Self, ClientError> {
        let target = options.target()?;
        let stream = Stream::open(&target).await?;
        Ok(Self::keep(options, target, Some(stream)))
    }

    fn keep(options: PusherOptions, target: Target, stream: Option<Stream>) -> Self {
        let (asks, queue) = mpsc::channel(options.waiting_max);
        let closing = Arc::new(Notify::new());
        let keeper = Keeper {
            target,
            queue,
            closing: Arc::clone(&closing),
            leaving: JoinSet::new(),
        };
        let task = tokio::spawn(keeper.run(stream));
        Self {
            asks,
            closing,
            timeout: options.timeout,
            task,
        }
    }

    /// Sends a message and waits until it has reached its level.
    ///
    /// # Errors
    /// [`PushError`] says whether the message may have arrived all the same. Dropping the future gives the message up
    /// if it has not been sent.
    pub async fn send(&self, push: Push) -> Result<Receipt, PushError> {
        self.post(push).await?.receipt().await
    }

    /// Puts a message in line, to be sent behind those that were put there before, and returns at once if there is
    /// room. This is how one sender keeps a stream full: post many, then wait for their receipts.
    ///
    /// # Errors
    /// [`PushError::NotSent`] when there was no room before the message's time was up.
    pub async fn post(&self, push: Push) -> Result<Posted, PushError> {
        let timeout = push.own_timeout().unwrap_or(self.timeout);
        let deadline = now() + timeout;
        let (answer, receipt) = oneshot::channel();
        let fate = Arc::new(AtomicU8::new(WAITING));
        let ask = Ask {
            push,
            deadline,
            answer,
            fate: Arc::clone(&fate),
        };
        match tokio::time::timeout_at(deadline, self.asks.send(ask)).await {
            Ok(Ok(())) => Ok(Posted {
                receipt,
                deadline,
                fate,
            }),
            Ok(Err(_)) => Err(ended()),
            Err(_) => Err(too_late()),
        }
    }

    /// Takes no more messages, and waits until those that were taken are answered.
    pub async fn close(self) {
        let Self {
            asks,
            closing,
            task,
            ..
        } = self;
        drop(asks);
        closing.notify_one();
        // It ends with the last answer, or with its last attempt; a panic in it was reported where it happened.
        task.await.ok();
    }
}

/// A message that is on its way. Dropping it gives the message up if it has not been sent.
#[derive(Debug)]
pub struct Posted {
    receipt: oneshot::Receiver<Result<Receipt, PushError>>,
    deadline: Instant,
    fate: Arc<AtomicU8>,
}

impl Posted {
    /// Waits until the message has reached its level.
    ///
    /// # Errors
    /// As [`Pusher::send`].
    pub async fn receipt(mut self) -> Result<Receipt, PushError> {
        let heard = |answer: Result<_, _>| answer.unwrap_or_else(|_| Err(ended()));
        match tokio::time::timeout_at(self.deadline, &mut self.receipt).await {
            Ok(answer) => return heard(answer),
            Err(_) if self.give_up() => return Err(too_late()),
            Err(_) => {}
        }
        // It was sent. The node's own answer to a late level says more than ours would.
        match tokio::time::timeout_at(self.deadline + GRACE, &mut self.receipt).await {
            Ok(answer) => heard(answer),
            Err(_) => Err(PushError::Unknown("no answer came in time".into())),
        }
    }

    /// Whether the message was not sent, and now will not be.
    fn give_up(&self) -> bool {
        let given_up =
            self.fate
                .compare_exchange(WAITING, GIVEN_UP, Ordering::SeqCst, Ordering::SeqCst);
        given_up.is_ok()
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Keeps a stream open as long as anybody may send.
struct Keeper {
    target: Target,
    queue: mpsc::Receiver<Ask>,
    /// The pusher was closed: waits are over.
    closing: Arc<Notify>,
    /// Streams that were left and wait for their last answers.
    leaving: JoinSet<()>,
}

impl Keeper {
    async fn run(mut self, mut next: Option<Stream>) {
        let mut backoff = Backoff::default();
        loop {
            let opened = match next.take() {
                Some(stream) => Ok(stream),
                None => Stream::open(&self.target).await,
            };
            let began = now();
            let cause = match opened {
                Ok(stream) => match stream.run(&self.target, &mut self.queue).await {
                    End::Idle => break,
                    End::Moved(stream, left) => {
                        self.leaving.spawn(left.leave());
                        next = Some(*stream);
                        continue;
                    }
                    End::Broken(cause) => cause,
                    End::Final(cause) => return self.refuse_all(&cause).await,
                },
                Err(error) if error.is_retryable() => error.to_string(),
                Err(error) => return self.refuse_all(&error.to_string()).await,
            };
            tracing::debug!(%cause, "no stream");
            let wait = backoff.next(began.elapsed(), rand::random());
            if !self.wait(wait, &cause).await {
                break;
            }
        }
        self.leaving.join_all().await;
    }

    /// Waits for the next attempt; false when nobody can send any more: what waits had its attempt.
    async fn wait(&mut self, wait: Duration, cause: &str) -> bool {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.closing.notified() => {}
        }
        if !self.queue.is_closed() {
            return true;
        }
        while let Ok(ask) = self.queue.try_recv() {
            ask.answer(Err(PushError::NotSent(cause.to_owned())));
        }
        false
    }

    /// Answers whoever still sends: there will be no stream.
    async fn refuse_all(mut self, cause: &str) {
        while let Some(ask) = self.queue.recv().await {
            ask.answer(Err(PushError::Ended(cause.to_owned())));
        }
        self.leaving.join_all().await;
    }
}

/// What became of a message whose time was up before a stream had room for it.
pub(super) fn too_late() -> PushError {
    PushError::NotSent("no stream took it".into())
}

fn ended() -> PushError {
    PushError::Ended("its task is gone".into())
}

const WAITING: u8 = 0;
const SENT: u8 = 1;
const GIVEN_UP: u8 = 2;

const PROTOCOL: &str = "tautline.v1.stream.json";
/// How much longer than the node this side waits.
const GRACE: Duration = Duration::from_secs(2);
