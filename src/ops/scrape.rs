//! `/metrics`: what the shards count, added up when somebody asks, in the text that Prometheus reads.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::base::close::CloseReason;
use crate::metrics::{
    BroadcastEnding, Cell, Ending, Histogram, NodeCells, Refusal, ShardCells, TlsFailure, total,
};
use crate::net::fdtable::descriptors_max;
use crate::ops::Counts;
use crate::ops::memory::resident_bytes;
use crate::reactor::node::Node;

/// Reads a node's numbers.
#[derive(Debug)]
pub(super) struct Scrape(Registry);

impl Scrape {
    /// What the text is, for the `Content-Type` header.
    pub(super) const CONTENT_TYPE: &str =
        "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// The numbers of a node, and what is counted beside it.
    pub(super) fn new(node: &Arc<Node>, counts: Counts) -> Self {
        let mut registry = Registry::with_prefix("tautline");
        let numbers = Numbers(Arc::clone(node), counts);
        registry.register_collector(Box::new(numbers));
        Self(registry)
    }

    /// The numbers as they are now.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string has no way to fail.
        text::encode(&mut text, &self.0).ok();
        text
    }
}

/// The numbers of a node, read when a scrape asks for them.
#[derive(Debug)]
struct Numbers(Arc<Node>, Counts);

impl Collector for Numbers {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.encode_node(&mut page)?;
        let cells = &self.0.cells;
        encode_gauges(cells, &mut page)?;
        encode_counters(cells, &mut page)?;
        encode_families(cells, &mut page)?;
        for (about, histogram) in HISTOGRAMS {
            page.histogram(*about, cells.iter().map(|shard| histogram(shard)))?;
        }
        Ok(())
    }
}

impl Numbers {
    fn encode_node(&self, page: &mut Page<'_>) -> fmt::Result {
        let build = ("build", None, "What is running");
        page.begin(build, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        let draining = ("draining", None, "1 from the first moment of a drain");
        page.gauge(
            draining,
            i64::from(self.0.is_unready.load(Ordering::Relaxed)),
        )?;
        let descriptors = (
            "descriptors_max",
            None,
            "Descriptors that each reactor may hold",
        );
        page.begin(descriptors, MetricType::Gauge)?
            .encode_gauge(&descriptors_max())?;
        if let Some(bytes) = resident_bytes() {
            let memory = ("memory", BYTES, "Resident memory of the process");
            page.begin(memory, MetricType::Gauge)?
                .encode_gauge(&bytes)?;
        }
        let help = "0: enough memory; 1: new lines are refused; 2: idle lines are shed; 3: new messages are refused";
        let pressure = i64::from(self.0.pressure.level() as u8);
        page.gauge(("memory_pressure", None, help), pressure)?;
        self.encode_certificates(page)?;
        let events = &self.0.events;
        let readers = (
            "event_readers",
            None,
            "Subscribers to connection events now",
        );
        page.gauge(readers, level(events.readers()))?;
        let help = "Connection events that a reader was too slow for";
        let missed = ("event_reader_misses", None, help);
        page.counter(missed, events.missed_by_readers())?;
        let help = "Reloads that left the old configuration in place";
        let reloads = ("config_reload_failures", None, help);
        page.counter(reloads, self.0.failed_reloads.load(Ordering::Relaxed))?;
        let help = "Connections to this listener that were closed because too many are open";
        let refused = ("ops_connections_refused", None, help);
        page.counter(refused, self.1.refused.load(Ordering::Relaxed))?;
        let close_lines = total(&self.0.cells, |shard| &shard.log_lines_dropped);
        let causes = [("rate", close_lines), ("queue", self.1.log.dropped_lines())];
        let help = "Log lines not written: close lines beyond their rate, and lines that the writer had no room for";
        page.family(("log_lines_dropped", None, help), "cause", &causes)
    }
}

impl Numbers {
    fn encode_certificates(&self, page: &mut Page<'_>) -> fmt::Result {
        let tls = &self.0.tls;
        let help = "Changed certificates that were taken into use without a reload";
        let reloads = ("certificate_reloads", None, help);
        page.counter(reloads, tls.reloads.load(Ordering::Relaxed))?;
        let help = "Changed certificates that could not be used, so that the old ones stayed";
        let failures = ("certificate_reload_failures", None, help);
        page.counter(failures, tls.failed_reloads.load(Ordering::Relaxed))?;
        let help = "When the first certificate of a listener ends, in seconds since the Unix epoch";
        let ends = ("certificate_not_after", SECONDS, help);
        let mut family = page.begin(ends, MetricType::Gauge)?;
        for (listener, policy) in tls.policies.load().iter() {
            family
                .encode_family(&[("listener", listener)])?
                .encode_gauge(&policy.not_after_s())?;
        }
        Ok(())
    }
}

fn encode_gauges(cells: &NodeCells, page: &mut Page<'_>) -> fmt::Result {
    let lines = ("lines", None, "Authenticated device lines open now");
    let mut family = page.begin(lines, MetricType::Gauge)?;
    for (shard, cells) in cells.iter().enumerate() {
        let label = [("shard", shard.to_string())];
        family
            .encode_family(&label)?
            .encode_gauge(&level(cells.lines.value()))?;
    }
    for (about, cell) in GAUGES {
        page.gauge(*about, level(total(cells, cell)))?;
    }
    let help = "Messages taken up that neither ended nor wait: not 0 for long only if one was lost";
    page.gauge(("messages_imbalance", None, help), imbalance(cells))
}

fn encode_counters(cells: &NodeCells, page: &mut Page<'_>) -> fmt::Result {
    for (about, cell) in COUNTERS {
        page.counter(*about, total(cells, cell))?;
    }
    Ok(())
}

fn encode_families(cells: &NodeCells, page: &mut Page<'_>) -> fmt::Result {
    let sum = |cell: &dyn Fn(&ShardCells) -> &Cell| total(cells, cell);
    let causes = Refusal::ALL.map(|cause| {
        let count = sum(&|shard| &shard.refused[cause as usize]);
        (cause.word(), count)
    });
    let help = "Connections turned away before they became lines";
    page.family(("connections_refused", None, help), "cause", &causes)?;
    let kinds = [
        ("full", sum(&|shard| &shard.tls_full)),
        ("resumed", sum(&|shard| &shard.tls_resumed)),
    ];
    let help = "TLS handshakes completed, of devices and back ends";
    page.family(("tls_handshakes", None, help), "kind", &kinds)?;
    let failures = TlsFailure::ALL.map(|failure| {
        let count = sum(&|shard| &shard.tls_failures[failure as usize]);
        (failure.word(), count)
    });
    let help = "TLS connections that failed, in their handshake or later";
    page.family(("tls_failures", None, help), "cause", &failures)?;
    let reasons = CloseReason::ALL.map(|reason| {
        let count = sum(&|shard| &shard.closed[reason as usize]);
        (reason.word(), count)
    });
    let help = "Connections ended";
    page.family(("connections_closed", None, help), "reason", &reasons)?;
    let endings = Ending::ALL.map(|ending| {
        let count = sum(&|shard| &shard.endings[ending as usize]);
        (ending.word(), count)
    });
    let broadcasts = BroadcastEnding::ALL.map(|ending| {
        let count = sum(&|shard| &shard.broadcast_endings[ending as usize]);
        (ending.word(), count)
    });
    let help = "What became of broadcasts at the lines that were open when they began";
    page.family(("broadcast_lines_ended", None, help), "ending", &broadcasts)?;
    let help = "How messages ended that were taken up";
    page.family(("messages_ended", None, help), "ending", &endings)
}

/// What was taken up, less what ended, what waits in outboxes and what awaits an `ack`: the messages between two
/// shards, and none other.
/// The cells are read one after the other while they change, so under load it may pass through small values of either
/// sign; it comes back to 0.
fn imbalance(cells: &NodeCells) -> i64 {
    let ended = Ending::ALL
        .map(|ending| total(cells, |shard| &shard.endings[ending as usize]))
        .into_iter()
        .fold(0, u64::wrapping_add);
    let submitted = total(cells, |shard| &shard.submitted);
    let waiting = [
        total(cells, |shard| &shard.undelivered),
        total(cells, |shard| &shard.unacked),
    ];
    let accounted = waiting.into_iter().fold(ended, u64::wrapping_add);
    level(submitted.wrapping_sub(accounted))
}

/// A number that goes up and down: cells wrap, and read as signed they are right.
fn level(value: u64) -> i64 {
    value.cast_signed()
}

/// A metric's name, unit and help text.
type About = (&'static str, Option<&'static Unit>, &'static str);

/// The page that a scrape reads, being written.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn begin(
        &mut self,
        (name, unit, help): About,
        kind: MetricType,
    ) -> Result<MetricEncoder<'_>, fmt::Error> {
        self.0.encode_descriptor(name, help, unit, kind)
    }

    fn gauge(&mut self, about: About, value: i64) -> fmt::Result {
        self.begin(about, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counter(&mut self, about: About, value: u64) -> fmt::Result {
        self.begin(about, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn family(&mut self, about: About, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        let mut family = self.begin(about, MetricType::Counter)?;
        for (word, value) in values {
            family
                .encode_family(&[(label, *word)])?
                .encode_counter::<NoLabelSet, _, u64>(value, None)?;
        }
        Ok(())
    }

    fn histogram<'a>(
        &mut self,
        about: About,
        shards: impl Iterator<Item = &'a Histogram>,
    ) -> fmt::Result {
        let bounds = Histogram::BOUNDS_US.iter().map(|&us| seconds(us));
        let mut buckets: Vec<_> = bounds
            .chain([f64::INFINITY])
            .map(|bound| (bound, 0))
            .collect();
        let mut sum_us = 0;
        for shard in shards {
            sum_us += shard.sum_us();
            for (bucket, count) in buckets.iter_mut().zip(shard.counts()) {
                bucket.1 += count;
            }
        }
        let count = buckets.iter().map(|bucket| bucket.1).sum();
        let mut metric = self.begin(about, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(seconds(sum_us), count, &buckets, None)
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

const BYTES: Option<&Unit> = Some(&Unit::Bytes);
const SECONDS: Option<&Unit> = Some(&Unit::Seconds);

type Read<T> = fn(&ShardCells) -> &T;

const GAUGES: &[(About, Read<Cell>)] = &[
    (
        (
            "handshakes",
            None,
            "Sockets accepted that are not authenticated yet",
        ),
        |c| &c.handshakes,
    ),
    (
        ("api_connections", None, "Connections of back ends open now"),
        |c| &c.api_connections,
    ),
    (("streams", None, "Streams of back ends open now"), |c| {
        &c.streams
    }),
    (("outbox", BYTES, "Bytes that wait for their socket"), |c| {
        &c.outbox_bytes
    }),
    (
        (
            "undelivered",
            None,
            "Messages whose frame is not written yet",
        ),
        |c| &c.undelivered,
    ),
    (
        (
            "broadcast_waiting",
            None,
            "Lines in whose outbox a broadcast waits",
        ),
        |c| &c.broadcast_waiting,
    ),
    (("watches", None, "Devices that watch their account"), |c| {
        &c.watches
    }),
    (
        (
            "unacknowledged",
            None,
            "Messages that were written and await the device's ack",
        ),
        |c| &c.unacked,
    ),
];

const COUNTERS: &[(About, Read<Cell>)] = &[
    (("connections_accepted", None, "Sockets accepted"), |c| {
        &c.accepted
    }),
    (
        (
            "accept_errors",
            None,
            "Failures of accept itself, as when descriptors run out",
        ),
        |c| &c.accept_errors,
    ),
    (("lines_opened", None, "Lines authenticated"), |c| &c.opened),
    (
        (
            "lines_shed",
            None,
            "Idle lines closed because memory was short",
        ),
        |c| &c.shed,
    ),
    (
        (
            "drain_asked",
            None,
            "Lines asked to go away because the node drains",
        ),
        |c| &c.drain_asked,
    ),
    (
        (
            "drain_gone",
            None,
            "Lines that have gone while the node drained, asked or not",
        ),
        |c| &c.drain_gone,
    ),
    (
        (
            "drain_forced",
            None,
            "Lines closed by a drain because they did not go",
        ),
        |c| &c.drain_forced,
    ),
    (
        ("auth_failures", None, "Credentials of devices that failed"),
        |c| &c.auth_failures,
    ),
    (("messages_received", None, "Messages from devices"), |c| {
        &c.received
    }),
    (
        ("frame_errors", None, "Device frames answered with an error"),
        |c| &c.frame_errors,
    ),
    (
        (
            "messages_submitted",
            None,
            "Messages taken up for delivery, from back ends and devices, one for each device they are for",
        ),
        |c| &c.submitted,
    ),
    (
        ("sends", None, "Messages that devices asked to be sent"),
        |c| &c.sends,
    ),
    (
        (
            "sends_rate_limited",
            None,
            "Messages of devices over their sender's allowance",
        ),
        |c| &c.sends_rate_limited,
    ),
    (
        (
            "fanouts",
            None,
            "Messages to all devices of an account that were taken up",
        ),
        |c| &c.fanouts,
    ),
    (
        (
            "fanouts_refused",
            None,
            "Messages to accounts refused: too many at once, or to too many lines",
        ),
        |c| &c.fanouts_refused,
    ),
    (
        (
            "broadcast_lines",
            None,
            "Lines that were open when broadcasts began",
        ),
        |c| &c.broadcast_lines,
    ),
    (
        (
            "presence_told",
            None,
            "Comings and goings told to devices that watch their account",
        ),
        |c| &c.presence_told,
    ),
    (
        (
            "replies_undeliverable",
            None,
            "Answers to requests of lines that had ended before",
        ),
        |c| &c.replies_undeliverable,
    ),
    (
        (
            "waits_timed_out",
            None,
            "Requests whose level was not reached in time",
        ),
        |c| &c.timeouts,
    ),
    (("pings_sent", None, "WebSocket pings sent"), |c| &c.pings),
    (("pongs_received", None, "WebSocket pongs received"), |c| {
        &c.pongs
    }),
    (("received", BYTES, "Bytes read from sockets"), |c| {
        &c.bytes_in
    }),
    (("sent", BYTES, "Bytes written to sockets"), |c| {
        &c.bytes_out
    }),
    (
        (
            "mailbox_refusals",
            None,
            "Commands refused because a mailbox was full",
        ),
        |c| &c.mailbox_full,
    ),
    (
        (
            "messages_missed",
            None,
            "Messages given back by a reactor because their device had left it",
        ),
        |c| &c.missed,
    ),
    (
        (
            "messages_held",
            None,
            "Messages held because an earlier one to their device was on its way to another reactor",
        ),
        |c| &c.held,
    ),
    (("iterations", None, "Iterations of the loops"), |c| {
        &c.iterations
    }),
    (("api_requests", None, "Requests of back ends"), |c| {
        &c.api_requests
    }),
    (("streams_opened", None, "Streams authenticated"), |c| {
        &c.streams_opened
    }),
    (
        ("stream_records", None, "Records of streams taken up"),
        |c| &c.stream_records,
    ),
    (
        (
            "stream_errors",
            None,
            "Frames of streams that were no records",
        ),
        |c| &c.stream_errors,
    ),
    (
        (
            "connection_events",
            None,
            "Events of lines coming and going handed to the control plane",
        ),
        |c| &c.events,
    ),
    (
        (
            "connection_events_missed",
            None,
            "Events of lines dropped because the control plane was too far behind",
        ),
        |c| &c.events_missed,
    ),
    (
        (
            "idempotency_replays",
            None,
            "Requests answered again because of their Idempotency-Key",
        ),
        |c| &c.replays,
    ),
    (
        (
            "idempotency_keys_forgotten",
            None,
            "Idempotency keys forgotten before their time, because there were too many",
        ),
        |c| &c.keys_forgotten,
    ),
];

const HISTOGRAMS: &[(About, Read<Histogram>)] = &[
    (
        (
            "delivery",
            SECONDS,
            "From taking a message up to writing its frame",
        ),
        |c| &c.delivery,
    ),
    (
        (
            "handshake",
            SECONDS,
            "From accepting a socket to its welcome",
        ),
        |c| &c.handshake,
    ),
    (
        (
            "iteration",
            SECONDS,
            "From the end of a wait to the next, in a loop",
        ),
        |c| &c.iteration,
    ),
];
