//! The limits that cap the number of lines.

use bytesize::ByteSize;

use super::machine::Machine;
use super::{Check, CheckFn, Wanted, grouped};
use crate::server::capacity::{SPARE_DESCRIPTORS, descriptor_lines};

pub(super) const CHECKS: &[CheckFn] = &[
    descriptors,
    table_size,
    open_files,
    memory,
    memory_limit,
    tracked_connections,
];

/// RLIMIT_NOFILE: of a reactor where each has a table of its own, of the process otherwise.
fn descriptors(wanted: &Wanted, machine: &Machine) -> Option<Check> {
    let process = machine.process;
    let lines = descriptor_lines(process.descriptors, process.table, wanted.reactors);
    let needed = descriptors_needed(wanted, machine);
    let per_table = process.descriptors.saturating_sub(SPARE_DESCRIPTORS).max(1);
    let (of, remedy) = if process.table.is_own() {
        let reactors = wanted.lines.div_ceil(per_table);
        (
            format!("in each of {} reactors", wanted.reactors),
            format!(", or more reactors: reactor.threads={reactors}"),
        )
    } else {
        (
            "in all, because reactors share one table here".into(),
            String::new(),
        )
    };
    let check = Check::cap("descriptors", wanted, lines)
        .found(format!("{} {of}", grouped(process.descriptors)), grouped(needed))
        .remedy(
            format!("ulimit -n {needed}"),
            format!("as root; LimitNOFILE={needed} in a unit, --ulimit nofile={needed} for docker{remedy}"),
        );
    Some(check)
}

/// What RLIMIT_NOFILE may be raised to.
fn table_size(wanted: &Wanted, machine: &Machine) -> Option<Check> {
    let max = machine.files.number("proc/sys/fs/nr_open")?;
    let lines = descriptor_lines(max, machine.process.table, wanted.reactors);
    let needed = descriptors_needed(wanted, machine);
    let check = Check::cap("fs.nr_open", wanted, lines)
        .found(grouped(max), grouped(needed))
        .remedy(
            format!("sysctl -w fs.nr_open={needed}"),
            "the limit on descriptors cannot be raised beyond it",
        );
    Some(check)
}

/// Open files of the whole machine.
fn open_files(wanted: &Wanted, machine: &Machine) -> Option<Check> {
    let max = machine.files.number("proc/sys/fs/file-max")?;
    let open = machine.files.number("proc/sys/fs/file-nr").unwrap_or(0);
    let needed = open + SPARE_DESCRIPTORS + wanted.lines;
    let lines = max.saturating_sub(open + SPARE_DESCRIPTORS);
    let check = Check::cap("fs.file-max", wanted, lines)
        .found(
            format!("{}, {} of them in use", grouped(max), grouped(open)),
            grouped(needed),
        )
        .remedy(format!("sysctl -w fs.file-max={needed}"), "");
    Some(check)
}

/// What is left until new lines are refused. A bound on the process leaves the whole machine to the kernel.
fn memory(wanted: &Wanted, machine: &Machine) -> Option<Check> {
    let percent = match wanted.memory.limit {
        None => wanted.memory.refuse_lines_at,
        Some(_) => 100,
    };
    let left = machine.memory(percent)?;
    let line_bytes = LINE_BYTES + tls_bytes(wanted);
    let lines = left.bytes / line_bytes;
    let needed = wanted.lines * line_bytes;
    let size = |bytes| ByteSize(bytes).display().iec().to_string();
    let (whose, command) = if left.is_grouped {
        (
            "in the control group",
            "systemctl set-property tautline.service MemoryMax=infinity".into(),
        )
    } else {
        (
            "on the machine",
            format!("tautline serve --set limits.connections_max={lines}"),
        )
    };
    let remark = format!(
        "{line_bytes} bytes for an idle line, most of them the kernel's; or a larger machine"
    );
    let check = Check::cap("memory", wanted, lines)
        .found(format!("{} left {whose}", size(left.bytes)), size(needed))
        .remedy(command, remark);
    Some(check)
}

/// What the process may use by itself, the kernel's part apart.
fn memory_limit(wanted: &Wanted, _: &Machine) -> Option<Check> {
    let limit = wanted.memory.limit?.as_u64();
    let percent = u64::from(wanted.memory.refuse_lines_at);
    let line_bytes = OWN_BYTES + tls_bytes(wanted);
    let usable = limit / 100 * percent;
    let lines = usable.saturating_sub(BASE_BYTES) / line_bytes;
    let needed = (wanted.lines * line_bytes + BASE_BYTES).div_ceil(percent.max(1)) * 100;
    let size = |bytes| ByteSize(bytes).display().iec().to_string();
    let check = Check::cap("memory.limit", wanted, lines)
        .found(format!("{percent} % of {}", size(limit)), size(needed))
        .remedy(
            format!(
                "tautline serve --set memory.limit={}MiB",
                needed.div_ceil(1 << 20)
            ),
            "from memory.refuse_lines_at on new lines are refused",
        );
    Some(check)
}

/// Where the firewall follows connections, each line is one.
fn tracked_connections(wanted: &Wanted, machine: &Machine) -> Option<Check> {
    let max = machine
        .files
        .number("proc/sys/net/netfilter/nf_conntrack_max")?;
    let count = machine
        .files
        .number("proc/sys/net/netfilter/nf_conntrack_count");
    let count = count.unwrap_or(0);
    let needed = count + wanted.lines;
    let check = Check::cap("nf_conntrack_max", wanted, max.saturating_sub(count))
        .found(
            format!("{}, {} of them in use", grouped(max), grouped(count)),
            grouped(needed),
        )
        .remedy(
            format!("sysctl -w net.netfilter.nf_conntrack_max={needed}"),
            "or do not track the port (nft: `notrack`)",
        );
    Some(check)
}

fn tls_bytes(wanted: &Wanted) -> u64 {
    if wanted.has_tls { TLS_BYTES } else { 0 }
}

/// Descriptors that one table must be able to hold.
pub(super) fn descriptors_needed(wanted: &Wanted, machine: &Machine) -> u64 {
    let tables = if machine.process.table.is_own() {
        u64::from(wanted.reactors.max(1))
    } else {
        1
    };
    wanted.lines.div_ceil(tables) + SPARE_DESCRIPTORS
}

/// What an idle line takes: 195 bytes of ours at 240,000 lines, accounts included, and about 4.1 KB of kernel memory for
/// its socket, as measured (`loadtest/results`, idle), with a little on top.
const LINE_BYTES: u64 = 4_400;
/// What TLS 1.3 adds to it: keys, their schedule, two buffers that are empty. TLS 1.2 takes three times as much.
const TLS_BYTES: u64 = 1_300;
/// Of a line without TLS, what is ours.
const OWN_BYTES: u64 = 200;
/// What the process takes without lines, and for buffers.
const BASE_BYTES: u64 = 32 << 20;
