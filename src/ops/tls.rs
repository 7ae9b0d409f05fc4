//! TLS on the ops listener: handshakes beside each other, so that a slow one keeps no probe waiting.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::reactor::node::Node;

/// Connections whose handshake is done.
#[derive(Debug)]
pub(super) struct TlsListener {
    done: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    addr: SocketAddr,
}

impl TlsListener {
    /// Begins to accept; each connection gets the policy in force when it comes.
    pub(super) fn new(listener: TcpListener, addr: SocketAddr, node: Arc<Node>) -> Self {
        let (sender, done) = mpsc::channel(HANDSHAKES_MAX);
        tokio::spawn(accept(listener, node, sender));
        Self { done, addr }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.done.recv().await {
            Some(connection) => connection,
            // The accepting task ends with the runtime only.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}

type Sender = mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>;

async fn accept(mut listener: TcpListener, node: Arc<Node>, sender: Sender) {
    let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut policy = node.tls.policies.load().ops.clone();
    loop {
        // axum's own: errors of `accept` are waited out.
        let (stream, from) = Listener::accept(&mut listener).await;
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        // Whether there is TLS was decided at the start; a reload may change only how.
        policy = node.tls.policies.load().ops.clone().or(policy);
        if let Some(policy) = &policy {
            let acceptor = TlsAcceptor::from(Arc::clone(policy.server()));
            tokio::spawn(shake_hands(acceptor, stream, from, sender.clone(), place));
        }
    }
}

async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    from: SocketAddr,
    sender: Sender,
    _place: OwnedSemaphorePermit,
) {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        // The listener has gone with the runtime.
        Ok(Ok(stream)) => sender.send((stream, from)).await.unwrap_or_default(),
        Ok(Err(error)) => tracing::debug!(%error, "TLS failed on the ops listener"),
        Err(_) => tracing::debug!("a TLS handshake on the ops listener took too long"),
    }
}

/// Handshakes at once; who comes then waits in the kernel's queue.
const HANDSHAKES_MAX: usize = 64;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
