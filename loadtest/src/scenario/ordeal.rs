//! What a stage's server and lines go through: other lines, comebacks, a kill, an end, a restart.

use std::time::Duration;

use crate::arg::LineArg;
use crate::dialect::Dialect;
use crate::scenario::reading::Reading;
use crate::scenario::{RunError, Stage, TICK, cut};
use crate::swarm::Swarm;
use crate::swarm::catch::Catch;
use crate::swarm::strike::{Blow, SHADOW_LEAD, Selection, Strike};

/// What is remembered of the server from reading to reading.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peak {
    /// CPU time of all its processes, at the last reading: one that is killed can no longer be asked.
    cpu: Duration,
    /// The most resident memory since watching began.
    seen: u64,
    /// The kernel's own peak of the process when watching began. Once that has risen it is exact, also between readings.
    process: u64,
}

impl Stage {
    /// Ends all lines.
    pub(crate) fn end_lines(&mut self) -> Result<Catch, RunError> {
        let swarm = std::mem::replace(&mut self.swarm, Swarm::empty(self.node.serving));
        Ok(swarm.stop(cut(&self.node))?)
    }

    /// Opens other lines than those that were ended.
    pub(crate) fn open_lines(&mut self, lines: &LineArg, dialect: Dialect) -> Result<(), RunError> {
        self.lines = 0;
        self.grow(lines, dialect)
    }

    /// Waits until `expected` lines have ended since a reading and all that were open then are so again, or the time is
    /// over.
    pub(crate) fn await_returns(
        &mut self,
        phase: &'static str,
        before: &Reading,
        expected: u64,
        timeout: Duration,
    ) -> Result<Reading, RunError> {
        let (open, ended) = (before.total.open(), before.total.ended);
        let deadline = self.clock.now() + timeout;
        self.watch_until(phase, open.max(1), deadline, |reading| {
            if reading.total.ended - ended < expected {
                return 0;
            }
            reading.total.open().max(u64::from(open == 0))
        })
    }

    /// Waits until all lines that opened are open again, or the time is over.
    pub(crate) fn await_all(&mut self, timeout: Duration) -> Result<Reading, RunError> {
        let deadline = self.clock.now() + timeout;
        self.watch_until("return", 1, deadline, |reading| {
            u64::from(reading.total.away() == 0)
        })
    }

    /// Kills the server, and starts it again after a while. Shadows lie on these lines, which are all, for twice their
    /// lead: the node dies in the middle.
    pub(crate) fn kill_and_restart(
        &mut self,
        lines: Selection,
        down: Duration,
    ) -> Result<(), RunError> {
        self.swarm.strike(Strike {
            at: self.clock.now() + 2 * SHADOW_LEAD,
            lines,
            blow: Blow::Doom,
        });
        self.hold("shadow", SHADOW_LEAD)?;
        self.swarm.start_storm(self.clock.now());
        self.node.kill()?;
        self.hold("down", down.max(SHADOW_LEAD))?;
        self.restart()
    }

    /// Waits until the server has ended that was asked to.
    pub(crate) fn await_end(&mut self, timeout: Duration) -> Result<(), RunError> {
        let deadline = self.clock.now() + timeout;
        while !self.node.is_ended()? {
            if self.clock.now() > deadline || self.is_halted() {
                let text = "the server did not end in time".to_owned();
                self.record.faults.push(text);
                self.node.kill()?;
            }
            self.hold("end", TICK)?;
        }
        Ok(())
    }

    /// Starts the server again that has ended.
    pub(crate) fn restart(&mut self) -> Result<(), RunError> {
        let Some(restart) = self.node.begin_restart() else {
            return Err(RunError::Usage(
                "only a server that is started here can be started again",
            ));
        };
        self.watch_done("restart", || restart.is_done())?;
        Ok(self.node.finish_restart(restart, self.peak.cpu)?)
    }

    /// Watches the server's memory from now on.
    pub(crate) fn start_peak(&mut self) {
        let process = self.node.sample().unwrap_or_default().rss_peak;
        self.peak.seen = 0;
        self.peak.process = process;
    }

    /// The most it had since.
    pub(crate) fn rss_peak(&self) -> Option<u64> {
        (self.peak.seen > 0).then_some(self.peak.seen)
    }
}

impl Peak {
    /// Takes notice of a reading.
    pub(super) fn note(&mut self, reading: &Reading) {
        let Some(server) = reading.server else {
            return;
        };
        self.cpu = server.cpu;
        self.seen = self.seen.max(server.rss);
        if server.rss_peak > self.process {
            self.seen = self.seen.max(server.rss_peak);
        }
    }
}
