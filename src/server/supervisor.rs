//! What systemd is told (sd_notify): ready, reloading, stopping, and that the reactors still turn.
//!
//! Without `NOTIFY_SOCKET` in the environment nothing happens. A supervisor that does not listen is no reason to stop.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Instant, interval};

use crate::ops::pulse::Pulse;
use crate::reactor::node::Node;
use crate::server::doctor::{Report, grouped};

/// The service manager that started this process, if one did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Supervisor {
    /// How long it waits for a sign of life, if it does.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// As the environment says.
    pub(super) fn of_this_process() -> Self {
        Self {
            watchdog: sd_notify::watchdog_enabled().filter(|time| !time.is_zero()),
        }
    }

    /// Every listener is open.
    pub(super) fn tell_ready(self, report: &Report) {
        let lines = grouped(report.lines_max);
        let status = format!("{} reactors, room for {lines} lines", report.reactors);
        tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    /// A reload has begun; the time tells it apart from the one before.
    pub(super) fn tell_reloading(self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "no time for the service manager"),
        }
    }

    /// The reload is over, whatever became of it: the log says.
    pub(super) fn tell_reloaded(self) {
        tell(&[NotifyState::Ready]);
    }

    /// The drain has begun.
    pub(super) fn tell_stopping(self) {
        tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
    }

    /// Gives a sign of life as long as every reactor turns, twice in the time the service manager waits.
    pub(super) async fn watch(self, node: Arc<Node>) {
        let Some(patience) = self.watchdog else {
            return;
        };
        let pulse = Pulse::new(&node.cells, Instant::now());
        let mut ticks = interval(patience / 2);
        loop {
            let now = ticks.tick().await;
            match pulse.stalled(&node.cells, now) {
                None => tell(&[NotifyState::Watchdog]),
                Some(shard) => {
                    tracing::error!(
                        shard,
                        "a reactor has stopped turning; no sign of life for the service manager"
                    );
                }
            }
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
