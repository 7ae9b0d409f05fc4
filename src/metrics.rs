//! What a shard counts. Each shard writes its own cells, and a scrape adds them up.
//!
//! A cell has one writer, so counting is a plain load and store: no locked instruction, no line shared between
//! cores. Names, help texts and the text format are the business of `ops`.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::base::close::CloseReason;

/// A number that one thread changes and others read.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds to the number. Only the owning shard may call this.
    pub fn add(&self, n: u64) {
        // Relaxed: a counter publishes nothing but itself, and it has a single writer.
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Takes from the number, for gauges. Only the owning shard may call this.
    pub fn sub(&self, n: u64) {
        self.add(n.wrapping_neg());
    }

    /// The number now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A latency histogram in microseconds with fixed, roughly logarithmic buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Cell; Self::BOUNDS_US.len() + 1],
    sum_us: Cell,
}

impl Histogram {
    /// Upper bounds of the buckets, in microseconds; one more bucket takes what is above.
    pub const BOUNDS_US: [u64; 16] = [
        50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 102_400, 409_600,
        1_638_400, 6_553_600, 26_214_400,
    ];

    /// Counts one observation.
    pub fn observe_us(&self, us: u64) {
        self.buckets[Self::BOUNDS_US.partition_point(|&bound| bound < us)].add(1);
        self.sum_us.add(us);
    }

    /// Counts per bucket, the one above all bounds last.
    pub fn counts(&self) -> [u64; Self::BOUNDS_US.len() + 1] {
        self.buckets.each_ref().map(Cell::value)
    }

    /// Sum of all observations, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.value()
    }
}

/// Why a connection was turned away before it became one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The connection table, or the descriptor table, is full.
    TableFull,
    /// Memory is short.
    Memory,
    /// Its address has as many connections as it may, or makes them too fast.
    AddressLimit,
    /// Its account has as many lines as it may.
    AccountLimit,
    /// The node is leaving.
    Draining,
    /// The request head was malformed, oversize or not an upgrade.
    BadRequest,
    /// The `Origin` is not on the list.
    ForbiddenOrigin,
    /// The credential was missing or bad.
    Unauthorized,
    /// A load balancer's connection did not begin with a PROXY protocol header.
    ProxyHeader,
}

impl Refusal {
    /// Every cause, in metric order.
    pub const ALL: [Self; 9] = [
        Self::TableFull,
        Self::Memory,
        Self::AddressLimit,
        Self::AccountLimit,
        Self::Draining,
        Self::BadRequest,
        Self::ForbiddenOrigin,
        Self::Unauthorized,
        Self::ProxyHeader,
    ];

    /// The metric label.
    pub const fn word(self) -> &'static str {
        match self {
            Self::TableFull => "table_full",
            Self::Memory => "memory",
            Self::AddressLimit => "address_limit",
            Self::AccountLimit => "account_limit",
            Self::Draining => "draining",
            Self::BadRequest => "bad_request",
            Self::ForbiddenOrigin => "forbidden_origin",
            Self::Unauthorized => "unauthorized",
            Self::ProxyHeader => "proxy_header",
        }
    }
}

/// Why a TLS connection failed, in its handshake or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFailure {
    /// The first bytes were not TLS.
    NotTls,
    /// No version, cipher suite or key exchange in common.
    Incompatible,
    /// The far end wanted another application protocol than HTTP/1.1.
    Protocol,
    /// The client certificate was missing, or no authority of ours stands behind it.
    Certificate,
    /// The far end refused us: most often it does not know our certificate's authority.
    Alert,
    /// What came broke the rules of TLS, or was tampered with.
    Misbehaved,
}

impl TlsFailure {
    /// Every cause, in metric order.
    pub const ALL: [Self; 6] = [
        Self::NotTls,
        Self::Incompatible,
        Self::Protocol,
        Self::Certificate,
        Self::Alert,
        Self::Misbehaved,
    ];

    /// The metric label.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::Incompatible => "incompatible",
            Self::Protocol => "protocol",
            Self::Certificate => "certificate",
            Self::Alert => "alert",
            Self::Misbehaved => "misbehaved",
        }
    }
}

/// How a message that was taken up ended: exactly one of these is counted for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The kernel took the last byte of its frame, and no `ack` was asked for or none came.
    Written,
    /// The device acknowledged it.
    Acked,
    /// The line ended before its frame was written.
    Lost,
    /// The device was not there.
    Offline,
    /// Its time was over before any byte of its frame was taken.
    Expired,
    /// A newer message with its collapse key took its place.
    Superseded,
    /// The outbox had no room for it.
    SlowConsumer,
    /// The line it was bound to is gone, or cannot do what was asked.
    Refused,
    /// The device gets messages from other devices faster than it may.
    RateLimited,
    /// A mailbox or a table on the way was full.
    Busy,
}

impl Ending {
    /// Every ending, in metric order.
    pub const ALL: [Self; 10] = [
        Self::Written,
        Self::Acked,
        Self::Lost,
        Self::Offline,
        Self::Expired,
        Self::Superseded,
        Self::SlowConsumer,
        Self::Refused,
        Self::RateLimited,
        Self::Busy,
    ];

    /// The metric label.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Acked => "acked",
            Self::Lost => "lost",
            Self::Offline => "offline",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
            Self::SlowConsumer => "slow_consumer",
            Self::Refused => "refused",
            Self::RateLimited => "rate_limited",
            Self::Busy => "busy",
        }
    }
}

/// What became of a broadcast at a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BroadcastEnding {
    /// The kernel took the last byte of the frame.
    Written,
    /// The line was left out, because it does not read what it has been sent already.
    Slow,
    /// The line ended first.
    Gone,
    /// The line is not meant.
    Unmatched,
    /// The broadcast was over before the line had its turn.
    Unreached,
}

impl BroadcastEnding {
    /// Every ending, in metric order.
    pub const ALL: [Self; 5] = [
        Self::Written,
        Self::Slow,
        Self::Gone,
        Self::Unmatched,
        Self::Unreached,
    ];

    /// The metric label.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Slow => "slow",
            Self::Gone => "gone",
            Self::Unmatched => "unmatched",
            Self::Unreached => "unreached",
        }
    }
}

/// Everything one shard counts.
#[derive(Debug, Default)]
pub struct ShardCells {
    /// Authenticated device lines open now.
    pub lines: Cell,
    /// Sockets accepted that are not authenticated yet.
    pub handshakes: Cell,
    /// API connections open now.
    pub api_connections: Cell,
    /// Back ends' streams open now.
    pub streams: Cell,
    /// Streams authenticated since the start.
    pub streams_opened: Cell,
    /// Records of streams that were taken up.
    pub stream_records: Cell,
    /// Frames of streams answered with an error because they are no records.
    pub stream_errors: Cell,
    /// Sockets accepted.
    pub accepted: Cell,
    /// Failures of `accept` itself: out of descriptors, aborted before it was taken.
    pub accept_errors: Cell,
    /// Connections turned away, by cause.
    pub refused: [Cell; Refusal::ALL.len()],
    /// Connections ended, by reason.
    pub closed: [Cell; CloseReason::ALL.len()],
    /// TLS handshakes completed with a certificate and a signature.
    pub tls_full: Cell,
    /// TLS handshakes that resumed an earlier session.
    pub tls_resumed: Cell,
    /// TLS connections that failed, by cause.
    pub tls_failures: [Cell; TlsFailure::ALL.len()],
    /// Lines authenticated since the start.
    pub opened: Cell,
    /// Credentials that failed, whether the line was refused or closed.
    pub auth_failures: Cell,
    /// Messages from devices.
    pub received: Cell,
    /// Device frames answered with an `error`.
    pub frame_errors: Cell,
    /// Messages that were taken up for delivery, one for each device they are for.
    pub submitted: Cell,
    /// How those ended.
    pub endings: [Cell; Ending::ALL.len()],
    /// Messages that devices asked to be sent.
    pub sends: Cell,
    /// Those that were over their sender's allowance.
    pub sends_rate_limited: Cell,
    /// Messages to all devices of an account that were taken up.
    pub fanouts: Cell,
    /// Those that were not: too many at once, or to too many lines.
    pub fanouts_refused: Cell,
    /// Lines that were open when broadcasts began.
    pub broadcast_lines: Cell,
    /// Lines in whose outbox a broadcast waits.
    pub broadcast_waiting: Cell,
    /// What became of broadcasts at lines.
    pub broadcast_endings: [Cell; BroadcastEnding::ALL.len()],
    /// Watches of accounts, now.
    pub watches: Cell,
    /// Frames told to watchers.
    pub presence_told: Cell,
    /// Answers to requests of lines that had ended before.
    pub replies_undeliverable: Cell,
    /// Messages in outboxes whose frame is not written yet.
    pub undelivered: Cell,
    /// Messages that were written and await the device's `ack`.
    pub unacked: Cell,
    /// Waits that reached their deadline first.
    pub timeouts: Cell,
    /// WebSocket pings sent.
    pub pings: Cell,
    /// WebSocket pongs received.
    pub pongs: Cell,
    /// Bytes read from sockets.
    pub bytes_in: Cell,
    /// Bytes written to sockets.
    pub bytes_out: Cell,
    /// Bytes waiting in outboxes now.
    pub outbox_bytes: Cell,
    /// Commands refused because a mailbox was full.
    pub mailbox_full: Cell,
    /// Messages given back because their device was not where they looked for it.
    pub missed: Cell,
    /// Messages held because an earlier one to their device was on its way to another shard.
    pub held: Cell,
    /// Idle lines closed because memory was short.
    pub shed: Cell,
    /// Lines that drains asked to go away.
    pub drain_asked: Cell,
    /// Lines that have gone while the node drained.
    pub drain_gone: Cell,
    /// Lines that drains had to close.
    pub drain_forced: Cell,
    /// Iterations of the loop.
    pub iterations: Cell,
    /// Requests answered by the sending API.
    pub api_requests: Cell,
    /// Connection events handed to the control plane.
    pub events: Cell,
    /// Connection events dropped because the control plane was too far behind.
    pub events_missed: Cell,
    /// Requests answered again because of their idempotency key.
    pub replays: Cell,
    /// Idempotency keys forgotten before their time, because there were too many.
    pub keys_forgotten: Cell,
    /// Close lines not logged because of the rate limit.
    pub log_lines_dropped: Cell,
    /// From taking a message up to writing its frame.
    pub delivery: Histogram,
    /// From accepting a socket to its `welcome`.
    pub handshake: Histogram,
    /// From the end of the wait to the end of the iteration.
    pub iteration: Histogram,
}

/// The cells of all shards, for whoever reads them.
pub type NodeCells = std::sync::Arc<[CachePadded<ShardCells>]>;

/// Makes the cells of a node.
pub fn node_cells(shards: usize) -> NodeCells {
    (0..shards)
        .map(|_| CachePadded::new(ShardCells::default()))
        .collect()
}

/// Adds up one number over all shards.
pub fn total(cells: &NodeCells, number: impl Fn(&ShardCells) -> &Cell) -> u64 {
    cells
        .iter()
        .map(|shard| number(shard).value())
        .fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_fall_into_the_first_bucket_that_holds_them() {
        let histogram = Histogram::default();
        [0, 50, 51, 30_000_000]
            .into_iter()
            .for_each(|us| histogram.observe_us(us));
        let counts = histogram.counts();
        assert_eq!((counts[0], counts[1], counts[16]), (2, 1, 1));
        assert_eq!(histogram.sum_us(), 30_000_101);
    }

    #[test]
    fn a_gauge_goes_up_and_down_over_shards() {
        let cells = node_cells(2);
        cells[0].lines.add(5);
        cells[1].lines.add(2);
        cells[0].lines.sub(4);
        assert_eq!(total(&cells, |c| &c.lines), 3);
    }
}
