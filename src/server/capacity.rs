//! What this host lets the node hold, compared with what the configuration wants.

use crate::config::Config;
use crate::net::fdtable::descriptors_max;

/// The node's size, and which limit bites first.
#[derive(Clone, Debug)]
pub(super) struct Capacity {
    /// Event loops.
    pub(super) reactors: u16,
    /// Most connections one reactor may hold.
    pub(super) slots_max: u32,
    /// Lines the configuration wants.
    wanted: u32,
    /// Descriptors one table may hold.
    descriptors: u64,
    /// Memory that is free now, in bytes, if the system tells.
    memory: Option<u64>,
    /// What an idle line takes of it.
    line_bytes: u64,
}

impl Capacity {
    /// Measures the host.
    pub(super) fn of(config: &Config) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let reactors = match config.reactor.threads {
            0 => u16::try_from(cores).unwrap_or(u16::MAX),
            threads => threads,
        };
        let descriptors = descriptors_max();
        let slots = descriptors.saturating_sub(SPARE_DESCRIPTORS).max(1);
        let slots_max = u32::try_from(slots).unwrap_or(u32::MAX).min(SLOTS_MAX);
        Self {
            reactors,
            slots_max,
            wanted: config.limits.connections_max,
            descriptors,
            memory: available_memory(),
            line_bytes: if config.devices_tls.is_on() {
                LINE_BYTES + TLS_BYTES
            } else {
                LINE_BYTES
            },
        }
    }

    /// Lines that fit under every limit.
    pub(super) fn lines(&self) -> u64 {
        [
            u64::from(self.wanted),
            self.by_descriptors(),
            self.by_memory().unwrap_or(u64::MAX),
        ]
        .into_iter()
        .min()
        .unwrap_or(0)
    }

    /// Which limit bites before the configured one, and what lifts it; `None` when none does.
    pub(super) fn advice(&self) -> Option<String> {
        let wanted = u64::from(self.wanted);
        let (by_descriptors, by_memory) =
            (self.by_descriptors(), self.by_memory().unwrap_or(u64::MAX));
        if by_descriptors.min(by_memory) >= wanted {
            return None;
        }
        Some(if by_descriptors <= by_memory {
            format!(
                "descriptors bite first: {} per reactor x {} reactors hold {by_descriptors} lines of the {wanted} \
                 configured; raise LimitNOFILE (ulimit -n), or add reactors (reactor.threads)",
                self.descriptors, self.reactors
            )
        } else {
            format!(
                "memory bites first: what is free holds about {by_memory} lines of the {wanted} configured \
                 ({} bytes each, most of it the kernel's)",
                self.line_bytes
            )
        })
    }

    fn by_descriptors(&self) -> u64 {
        u64::from(self.slots_max) * u64::from(self.reactors)
    }

    fn by_memory(&self) -> Option<u64> {
        self.memory.map(|bytes| bytes / self.line_bytes)
    }
}

fn available_memory() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Descriptors a table needs besides connections: polls and wakers of all reactors, listeners, logs.
const SPARE_DESCRIPTORS: u64 = 256;
/// Slots a location can name (`route/presence.rs`).
const SLOTS_MAX: u32 = 1 << 22;
/// What an idle line takes: about 4.1 KB of kernel memory for its socket, and 200 bytes of ours.
const LINE_BYTES: u64 = 4_400;
/// What TLS adds to it: rustls' state.
const TLS_BYTES: u64 = 2_300;
