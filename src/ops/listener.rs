//! Who may be on the ops port: few at once, since nobody needs more.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::serve::Listener;
use tokio::sync::Semaphore;

use crate::ops::guarded::Guarded;
use crate::reactor::node::Node;

/// Hands on connections, as many as may be open at once, and closes those beyond.
#[derive(Debug)]
pub(super) struct OpsListener<L> {
    inner: L,
    places: Arc<Semaphore>,
    refused: Arc<AtomicU64>,
    node: Arc<Node>,
}

impl<L: Listener> OpsListener<L> {
    /// Connections it closes are counted in `refused`.
    pub(super) fn new(inner: L, node: &Arc<Node>, refused: Arc<AtomicU64>) -> Self {
        Self {
            inner,
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            refused,
            node: Arc::clone(node),
        }
    }
}

impl<L: Listener> Listener for OpsListener<L> {
    type Io = Guarded<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, addr) = self.inner.accept().await;
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                let heads = self.node.settings.load().heads;
                return (Guarded::new(stream, heads, place), addr);
            }
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.inner.local_addr()
    }
}

/// Connections at once: scrapers, probes and the people who look, with room to spare. Some 20 KB each.
const CONNECTIONS_MAX: usize = 256;
