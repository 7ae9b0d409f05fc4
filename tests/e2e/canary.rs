//! The healthy line beside the one that misbehaves: it must go on getting its messages, and the node's gauges must
//! come back to where they were.

use std::time::Duration;

use crate::deadline::{Deadline, PATIENCE, eventually, pause};
use crate::device::Device;
use crate::node::Node;

/// A device that has nothing to do with the trouble.
#[derive(Debug)]
pub(crate) struct Canary<'n> {
    node: &'n Node,
    device: Device,
    before: Vec<f64>,
    songs: u32,
}

impl<'n> Canary<'n> {
    /// Puts one on a node in `dev` mode.
    pub(crate) fn on(node: &'n Node) -> Self {
        Self::with(node, Device::connect(node, "canary"))
    }

    /// Takes this device, whose id is `canary`.
    pub(crate) fn with(node: &'n Node, device: Device) -> Self {
        let mut canary = Self {
            node,
            device,
            before: Vec::new(),
            songs: 0,
        };
        canary.sing();
        // Its own message may still be on its way out of the books.
        canary.before = eventually("a quiet node", || {
            let gauges = gauges(node);
            gauges[1..]
                .iter()
                .all(|&value| value == 0.0)
                .then_some(gauges)
        });
        canary
    }

    /// Gets a message, as if nothing had happened.
    #[track_caller]
    pub(crate) fn sing(&mut self) {
        self.songs += 1;
        let answer = self
            .node
            .push("canary", "", self.songs.to_string().as_bytes());
        assert_eq!(
            answer.status,
            200,
            "the canary fell silent: {}",
            answer.text()
        );
        let message = self.device.next();
        assert_eq!(message["data"], self.songs, "{message}");
    }

    /// Gets a message, and nothing is left of the trouble.
    #[track_caller]
    pub(crate) fn survives(&mut self) {
        self.sing();
        let deadline = Deadline::after(PATIENCE);
        loop {
            let now = gauges(self.node);
            if now == self.before {
                return;
            }
            let before = &self.before;
            assert!(
                !deadline.has_passed(),
                "{GAUGES:?} are {now:?}, were {before:?}"
            );
            pause(Duration::from_millis(10));
        }
    }
}

fn gauges(node: &Node) -> Vec<f64> {
    GAUGES.map(|name| node.metric(name, "")).to_vec()
}

const GAUGES: [&str; 5] = [
    "tautline_lines",
    "tautline_handshakes",
    "tautline_outbox_bytes",
    "tautline_undelivered",
    "tautline_ledger_imbalance",
];
