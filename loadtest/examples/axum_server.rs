//! What one would otherwise write: a push server of a hundred lines on axum and tokio, tuned as well as it goes.
//!
//! `loadtest compare` measures it beside ours. It has no limits, no identity, no drain and no metrics, so what it costs
//! is a lower bound for this way to build. Usage: `axum_server THREADS PING_SECONDS`
#![expect(
    clippy::print_stdout,
    reason = "the line that says where it listens is for the one who started it"
)]

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use dashmap::DashMap;
use serde::Deserialize;
use socket2::{Domain, Socket, Type};
use tikv_jemallocator::Jemalloc;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Who is there, by device.
type Lines = Arc<DashMap<Box<str>, mpsc::Sender<Push>>>;

/// A message, and who waits until it is written, if anybody does.
type Push = (Utf8Bytes, Option<oneshot::Sender<()>>);

type AnyError = Box<dyn std::error::Error>;

/// The smallest that does not slow it down.
const BUFFER_BYTES: usize = 512;
/// Messages that may wait for a line.
const OUTBOX_MESSAGES_MAX: usize = 64;
const BACKLOG: i32 = 4_096;

#[derive(Clone)]
struct Server {
    lines: Lines,
    ping_after: Duration,
}

#[derive(Deserialize)]
struct Identity {
    device_id: Box<str>,
}

#[derive(Deserialize)]
struct Patience {
    wait: Option<Level>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Queued,
    Written,
}

fn main() -> Result<(), AnyError> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or("usage: axum_server THREADS PING_SECONDS");
    let threads = next()?.parse()?;
    let ping_after = Duration::try_from_secs_f64(next()?.parse()?)?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?;
    runtime.block_on(serve(ping_after))
}

async fn serve(ping_after: Duration) -> Result<(), AnyError> {
    let server = Server {
        lines: Lines::default(),
        ping_after,
    };
    let router = Router::new()
        .route("/ws", get(open))
        .route("/v1/devices/{device}/messages", post(push))
        .with_state(server);
    let listener = listen()?;
    let address = listener.local_addr()?;
    println!(r#"{{"event":"ready","devices":"{address}","api":"{address}"}}"#);
    let listener = listener.tap_io(|stream| {
        // A line without it works too.
        drop(stream.set_nodelay(true));
    });
    Ok(axum::serve(listener, router).await?)
}

fn listen() -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn open(
    upgrade: WebSocketUpgrade,
    Query(identity): Query<Identity>,
    State(server): State<Server>,
) -> Response {
    upgrade
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(0)
        .on_upgrade(move |line| stay(line, identity.device_id, server))
}

/// A line's life: messages out, pings into silence, whatever comes in ends the silence.
async fn stay(mut line: WebSocket, device: Box<str>, server: Server) {
    let (post, mut outbox) = mpsc::channel(OUTBOX_MESSAGES_MAX);
    server.lines.insert(device.clone(), post.clone());
    let mut due = Instant::now() + server.ping_after;
    loop {
        let outcome = tokio::select! {
            message = outbox.recv() => match message {
                Some((text, waiting)) => {
                    let outcome = line.send(Message::Text(text)).await;
                    if outcome.is_ok() && let Some(waiting) = waiting {
                        // Who has gone needs no answer.
                        waiting.send(()).ok();
                    }
                    outcome
                }
                None => break,
            },
            received = line.recv() => match received {
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {
                    due = Instant::now() + server.ping_after;
                    Ok(())
                }
            },
            () = sleep_until(due) => {
                due = Instant::now() + server.ping_after;
                line.send(Message::Ping(Default::default())).await
            }
        };
        if outcome.is_err() {
            break;
        }
    }
    server
        .lines
        .remove_if(&device, |_, newer| newer.same_channel(&post));
}

async fn push(
    Path(device): Path<String>,
    Query(patience): Query<Patience>,
    State(server): State<Server>,
    body: String,
) -> StatusCode {
    let (waiting, written) = match patience.wait {
        Some(Level::Written) => {
            let (waiting, written) = oneshot::channel();
            (Some(waiting), Some(written))
        }
        Some(Level::Queued) | None => (None, None),
    };
    let outcome = match server.lines.get(device.as_str()) {
        Some(post) => post.try_send((body.into(), waiting)),
        None => return StatusCode::NOT_FOUND,
    };
    match (outcome, written) {
        (Err(_), _) => StatusCode::SERVICE_UNAVAILABLE,
        (Ok(()), None) => StatusCode::OK,
        (Ok(()), Some(written)) => match written.await {
            Ok(()) => StatusCode::OK,
            // The line has ended with the message in its outbox.
            Err(_) => StatusCode::BAD_GATEWAY,
        },
    }
}
