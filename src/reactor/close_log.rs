//! One structured line per connection at its end, and a bound on how many there are.

use crate::base::bucket::TokenBucket;
use crate::base::close::CloseReason;
use crate::base::id::ConnId;
use crate::base::time::Now;
use crate::net::stream::Transport;
use crate::protocol::device::Device;
use crate::protocol::stream::Stream;
use crate::reactor::shard::{Shard, dialect_name};

/// How many close lines a shard may still write. A storm is told by counters, not by a million lines.
#[derive(Debug)]
pub(crate) struct CloseLog(TokenBucket);

impl Default for CloseLog {
    fn default() -> Self {
        Self(TokenBucket::new(LINES_PER_SECOND, LINES_BURST))
    }
}

impl<T: Transport> Shard<T> {
    /// Writes the line for an authenticated device. Ids are checked and need no escaping; payloads and tokens never
    /// appear.
    pub(crate) fn log_close(&mut self, device: &Device, id: ConnId, reason: CloseReason, now: Now) {
        if !self.may_log_close(now) {
            return;
        }
        tracing::info!(
            target: "tautline::close",
            reason = reason.word(),
            device = device.identity.device(),
            account = device.identity.account(),
            connection = %self.node.connection_id_of(self.id, id),
            protocol = dialect_name(device.dialect),
            age_ms = now.wall_ms.saturating_sub(device.since_ms),
            received = device.received,
            delivered = device.delivered,
            "line closed"
        );
    }

    /// Writes the line for a back end's stream.
    pub(crate) fn log_stream_close(
        &mut self,
        stream: &Stream,
        id: ConnId,
        reason: CloseReason,
        now: Now,
    ) {
        if !self.may_log_close(now) {
            return;
        }
        tracing::info!(
            target: "tautline::close",
            reason = reason.word(),
            service = &*stream.service,
            connection = %self.node.connection_id_of(self.id, id),
            age_ms = now.wall_ms.saturating_sub(stream.since_ms),
            records = stream.records,
            unanswered = stream.unanswered(),
            "stream closed"
        );
    }

    /// Whether there is room for another line; one there is none for is counted.
    fn may_log_close(&mut self, now: Now) -> bool {
        let has_room = self.close_log.0.take(1, now);
        if !has_room {
            self.cells().log_lines_dropped.add(1);
        }
        has_room
    }
}

/// Close lines per second and shard in the long run.
const LINES_PER_SECOND: u32 = 50;
/// Close lines a shard may write at once.
const LINES_BURST: u32 = 500;
