//! The healthy line beside the one that misbehaves: it gets a message every few milliseconds as long as the trouble
//! lasts, and when it is over the node holds what it held before.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::census::Census;
use crate::deadline::{eventually, pause};
use crate::device::Device;
use crate::http::Http;
use crate::node::{CURL_CONTENT_TYPE, Node};

/// A device that has nothing to do with the trouble, and a thread that sends to it.
#[derive(Debug)]
pub(crate) struct Canary<'n, S = TcpStream> {
    node: &'n Node,
    before: Census,
    signals: Arc<Signals>,
    voice: Voice<S>,
}

/// Where the singer is.
#[derive(Debug)]
enum Voice<S> {
    Singing(JoinHandle<Singer<S>>),
    Resting(Box<Singer<S>>),
    /// It has failed, or is being asked to stop.
    Lost,
}

/// What the test and its singer tell each other.
#[derive(Debug, Default)]
struct Signals {
    is_over: AtomicBool,
    /// Songs asked for that are to come over a connection of their own, and how many of those were heard.
    asked: AtomicU32,
    heard: AtomicU32,
}

/// The sender and the receiver of the songs.
#[derive(Debug)]
struct Singer<S> {
    device: Device<S>,
    /// Kept open while it sings, as a back end's would be.
    http: Option<Http>,
    api: std::net::SocketAddr,
    authorization: Option<String>,
    songs: u32,
    last: Instant,
    latencies: Vec<Duration>,
    longest_silence: Duration,
}

impl<'n> Canary<'n> {
    /// Puts one on a node in `dev` mode.
    pub(crate) fn on(node: &'n Node) -> Self {
        Self::with(node, Device::connect(node, "canary"))
    }
}

impl<'n, S: Read + Write + Send + 'static> Canary<'n, S> {
    /// Takes this device, whose id is `canary`.
    pub(crate) fn with(node: &'n Node, device: Device<S>) -> Self {
        let mut singer = Singer::new(node, device);
        (0..QUIET_SONGS).for_each(|_| singer.sing());
        let before = Census::of_quiet(node);
        println!("canary: {} before the trouble", singer.record());
        singer.rest();
        let signals = Arc::<Signals>::default();
        let shared = Arc::clone(&signals);
        let singing = thread::spawn(move || singer.sing_on(&shared));
        Self {
            node,
            before,
            signals,
            voice: Voice::Singing(singing),
        }
    }

    /// Gets a message over a new connection, as if nothing had happened.
    #[track_caller]
    pub(crate) fn sing(&mut self) {
        if let Voice::Resting(singer) = &mut self.voice {
            return singer.sing_anew();
        }
        let asked = self.signals.asked.fetch_add(1, Ordering::Relaxed) + 1;
        eventually("the canary sings", || {
            self.hear();
            (self.signals.heard.load(Ordering::Relaxed) >= asked).then_some(())
        });
    }

    /// Got its messages throughout, gets one now, and nothing is left of the trouble.
    #[track_caller]
    pub(crate) fn survives(&mut self) {
        self.hush();
        let Voice::Resting(singer) = &mut self.voice else {
            panic!("the canary fell silent");
        };
        println!("canary: {} during it", singer.record());
        assert!(
            singer.longest_silence < INTERVAL,
            "the canary heard nothing for {:?}",
            singer.longest_silence
        );
        singer.sing_anew();
        self.before.await_return(self.node);
        singer.http = None;
    }

    /// Fails as the singer has failed.
    fn hear(&mut self) {
        if matches!(&self.voice, Voice::Singing(singing) if singing.is_finished()) {
            self.hush();
        }
    }

    fn hush(&mut self) {
        self.signals.is_over.store(true, Ordering::Relaxed);
        match std::mem::replace(&mut self.voice, Voice::Lost) {
            Voice::Singing(singing) => match singing.join() {
                Ok(singer) => self.voice = Voice::Resting(Box::new(singer)),
                Err(failure) => panic::resume_unwind(failure),
            },
            other => self.voice = other,
        }
    }
}

impl<S> Drop for Canary<'_, S> {
    fn drop(&mut self) {
        self.signals.is_over.store(true, Ordering::Relaxed);
        if !thread::panicking()
            && let Voice::Singing(singing) = std::mem::replace(&mut self.voice, Voice::Lost)
            && let Err(failure) = singing.join()
        {
            panic::resume_unwind(failure);
        }
    }
}

impl<S: Read + Write> Singer<S> {
    fn new(node: &Node, device: Device<S>) -> Self {
        Self {
            device,
            http: Some(Http::connect(node.ready.api)),
            api: node.ready.api,
            authorization: node.authorization(),
            songs: 0,
            last: now(),
            latencies: Vec::new(),
            longest_silence: Duration::ZERO,
        }
    }

    /// Sings until it is told to stop.
    fn sing_on(mut self, signals: &Signals) -> Self {
        self.last = now();
        while !signals.is_over.load(Ordering::Relaxed) {
            if signals.asked.load(Ordering::Relaxed) > signals.heard.load(Ordering::Relaxed) {
                self.sing_anew();
                signals.heard.fetch_add(1, Ordering::Relaxed);
            } else {
                self.sing();
            }
            pause(BREATH);
        }
        self
    }

    /// A message over the connection it keeps.
    fn sing(&mut self) {
        let mut http = self.http.take().expect("it has its connection");
        self.song(&mut http);
        self.http = Some(http);
    }

    /// A message over a new connection.
    fn sing_anew(&mut self) {
        self.song(&mut Http::connect(self.api));
    }

    fn song(&mut self, http: &mut Http) {
        self.songs += 1;
        let start = now();
        let key = self.authorization.as_deref();
        let key = key.map(|key| ("Authorization", key));
        let headers: Vec<_> = [CURL_CONTENT_TYPE].into_iter().chain(key).collect();
        let body = self.songs.to_string();
        let path = "/v1/devices/canary/messages";
        let answer = http.request("POST", path, &headers, body.as_bytes());
        let text = answer.text();
        assert_eq!(answer.status, 200, "the canary fell silent: {text}");
        let message = self.device.next();
        assert_eq!(message["data"], self.songs, "{message}");
        let end = now();
        self.latencies.push(end - start);
        self.longest_silence = self.longest_silence.max(end - self.last);
        self.last = end;
    }

    /// Forgets how it has been.
    fn rest(&mut self) {
        self.latencies.clear();
        self.longest_silence = Duration::ZERO;
    }

    /// How it has been: for whoever reads the output, not for the test to judge.
    fn record(&mut self) -> String {
        self.latencies.sort_unstable();
        let songs = self.latencies.len();
        let at = |percent: usize| {
            let index = songs * percent / 100;
            let latency = self.latencies.get(index.min(songs.saturating_sub(1)));
            latency.copied().unwrap_or_default()
        };
        let (p50, p99, silence) = (at(50), at(99), self.longest_silence);
        format!("{songs} songs, p50 {p50:?}, p99 {p99:?}, longest silence {silence:?}")
    }
}

#[expect(clippy::disallowed_methods, reason = "a test has its own clock")]
fn now() -> Instant {
    Instant::now()
}

/// In every stretch of this length the canary must have got a message. Long, because tests share two cores with a
/// build; what the reactor does to it is told by the percentiles in the output.
const INTERVAL: Duration = Duration::from_secs(2);
/// Between two songs.
const BREATH: Duration = Duration::from_millis(10);
/// To warm the node up, and to know how long a song takes when nothing is wrong.
const QUIET_SONGS: u32 = 20;
