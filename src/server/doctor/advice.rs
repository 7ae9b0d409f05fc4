//! What lets the lines fit and makes a full node suffer.

use super::bound::descriptors_needed;
use super::machine::Machine;
use super::{Check, CheckFn, Wanted, grouped};
use crate::net::fdtable::FdTable;

pub(super) const CHECKS: &[CheckFn] = &[
    unit,
    descriptor_tables,
    cores,
    cpu_quota,
    backlog,
    migration,
    tcp_memory,
    orphans,
    swap,
    huge_pages,
    clock_source,
    local_ports,
];

/// The limit that the installed unit sets, which is not the one of the shell that asks.
fn unit(wanted: &Wanted, machine: &Machine) -> Option<Check> {
    let dropins = "etc/systemd/system/tautline.service.d";
    let dropins = machine
        .files
        .names(dropins)
        .into_iter()
        .map(|name| format!("{dropins}/{name}"));
    let units = [
        "etc/systemd/system/tautline.service",
        "usr/lib/systemd/system/tautline.service",
        "lib/systemd/system/tautline.service",
    ];
    let unit = units.iter().find_map(|path| machine.files.text(path))?;
    let texts = std::iter::once(unit).chain(dropins.filter_map(|path| machine.files.text(&path)));
    let set: Vec<_> = texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| Some(line.trim().strip_prefix("LimitNOFILE=")?.to_owned()))
        .collect();
    let needed = descriptors_needed(wanted, machine);
    // `soft:hard`, and the server raises the one to the other.
    let limit = set
        .last()
        .map(|limit| limit.rsplit(':').next().unwrap_or(limit));
    let is_good = limit.is_some_and(|limit| {
        limit == "infinity" || limit.parse::<u64>().is_ok_and(|limit| limit >= needed)
    });
    let check = Check::advice("unit", is_good)
        .found(
            limit.map_or_else(
                || "no LimitNOFILE".into(),
                |limit| format!("LimitNOFILE={limit}"),
            ),
            grouped(needed),
        )
        .remedy(
            "systemctl edit tautline",
            format!("write [Service] and LimitNOFILE={needed}, then restart it"),
        );
    Some(check)
}

fn descriptor_tables(_: &Wanted, machine: &Machine) -> Option<Check> {
    let table = machine.process.table;
    let found = match table {
        FdTable::Unshared => "one for each reactor, by unshare",
        FdTable::CloseRange => "one for each reactor, by close_range",
        FdTable::Shared => "one for all reactors",
    };
    let check = Check::advice("descriptor_tables", table.is_own())
        .found(found, "one for each reactor")
        .remedy(
            "",
            "permit unshare or close_range in the seccomp filter: reactors contend on one table, and one limit counts for all",
        );
    Some(check)
}

fn cores(wanted: &Wanted, machine: &Machine) -> Option<Check> {
    let cores = machine.process.cores;
    let check = Check::advice("cores", wanted.reactors <= cores)
        .found(format!("{cores} usable"), format!("{} reactors", wanted.reactors))
        .remedy(
            "tautline serve --set reactor.threads=0",
            "more reactors than cores cost switches between them; they are worth it only where descriptors bite",
        );
    Some(check)
}

/// A loop that has used the quota up stands still for the rest of the period.
fn cpu_quota(wanted: &Wanted, machine: &Machine) -> Option<Check> {
    let percent = machine.quota_percent()?;
    let is_good = percent >= u64::from(wanted.reactors) * 100;
    let check = Check::advice("cpu_quota", is_good)
        .found(
            format!("{}.{:02} cores", percent / 100, percent % 100),
            format!("{} reactors", wanted.reactors),
        )
        .remedy(
            "systemctl set-property tautline.service CPUQuota=",
            "a reactor that has used the quota up stands still for the rest of the period",
        );
    Some(check)
}

/// The kernel cuts a listener's queue to it without a word.
fn backlog(wanted: &Wanted, machine: &Machine) -> Option<Check> {
    let max = machine.files.number("proc/sys/net/core/somaxconn")?;
    let check = Check::advice("net.core.somaxconn", max >= wanted.backlog)
        .found(grouped(max), format!("{} (listen.backlog)", grouped(wanted.backlog)))
        .remedy(
            format!("sysctl -w net.core.somaxconn={}", wanted.backlog),
            "a storm of reconnects overflows the accept queue, and the excess is tried again a second later",
        );
    Some(check)
}

/// Without it, whoever waits in the queue of a listener that closes is told 503 instead of being handed over.
fn migration(wanted: &Wanted, machine: &Machine) -> Option<Check> {
    let setting = machine.files.number("proc/sys/net/ipv4/tcp_migrate_req");
    let on = setting.filter(|_| wanted.shares_ports)?;
    let check = Check::advice("net.ipv4.tcp_migrate_req", on == 1)
        .found(on.to_string(), "1 (listen.share)")
        .remedy(
            "sysctl -w net.ipv4.tcp_migrate_req=1",
            "connections that wait for a process that ends are refused instead of handed to the one that takes over",
        );
    Some(check)
}

/// Idle sockets need none of it; one page each when everybody is sent something at once.
fn tcp_memory(wanted: &Wanted, machine: &Machine) -> Option<Check> {
    let [low, pressure, high] = machine.files.numbers("proc/sys/net/ipv4/tcp_mem")[..] else {
        return None;
    };
    let needed = wanted.lines;
    let (low, high) = (low.max(needed * 3 / 4), high.max(needed * 2));
    let check = Check::advice("net.ipv4.tcp_mem", pressure >= needed)
        .found(
            format!("pressure at {} pages", grouped(pressure)),
            format!("{}, one for each line", grouped(needed)),
        )
        .remedy(
            format!("sysctl -w net.ipv4.tcp_mem='{low} {needed} {high}'"),
            "beyond it the kernel cuts the buffers of all sockets, as when everybody is sent something at once",
        );
    Some(check)
}

/// Sockets that were closed and whose last bytes are not acknowledged.
fn orphans(wanted: &Wanted, machine: &Machine) -> Option<Check> {
    let max = machine.files.number("proc/sys/net/ipv4/tcp_max_orphans")?;
    let check = Check::advice("net.ipv4.tcp_max_orphans", max >= wanted.lines)
        .found(grouped(max), grouped(wanted.lines))
        .remedy(
            format!("sysctl -w net.ipv4.tcp_max_orphans={}", wanted.lines),
            "when all lines are closed at once, those beyond it are reset, and their close code is lost",
        );
    Some(check)
}

fn swap(_: &Wanted, machine: &Machine) -> Option<Check> {
    let kib = machine.files.field("proc/meminfo", "SwapTotal")?;
    let check = Check::advice("swap", kib == 0)
        .found(format!("{} kB", grouped(kib)), "none")
        .remedy(
            "swapoff -a",
            "or MemorySwapMax=0 in the unit: a reactor that waits for a page keeps all of its lines waiting",
        );
    Some(check)
}

fn huge_pages(_: &Wanted, machine: &Machine) -> Option<Check> {
    let path = "sys/kernel/mm/transparent_hugepage/enabled";
    let text = machine.files.text(path)?;
    let chosen = text.split(['[', ']']).nth(1)?;
    let check = Check::advice("transparent_hugepage", chosen != "always")
        .found(chosen, "madvise or never")
        .remedy(
            format!("echo madvise > /{path}"),
            "memory that was given back comes back in pieces of 2 MiB, and compacting them holds reactors up",
        );
    Some(check)
}

/// Any other makes each look at the clock a system call.
fn clock_source(_: &Wanted, machine: &Machine) -> Option<Check> {
    let dir = "sys/devices/system/clocksource/clocksource0";
    let text = machine.files.text(&format!("{dir}/current_clocksource"))?;
    let source = text.trim();
    let available = machine.files.text(&format!("{dir}/available_clocksource"));
    let available = available.unwrap_or_default();
    let better = available
        .split_whitespace()
        .find(|name| FAST_CLOCKS.contains(name));
    let command = better.map(|name| format!("echo {name} > /{dir}/current_clocksource"));
    let check = Check::advice("clock_source", FAST_CLOCKS.contains(&source))
        .found(source, "one that is read without a system call")
        .remedy(
            command.unwrap_or_default(),
            "each look at the clock is a system call with this one",
        );
    Some(check)
}

/// Said because people look for it: it bounds outgoing connections only.
fn local_ports(_: &Wanted, machine: &Machine) -> Option<Check> {
    let [first, last] = machine
        .files
        .numbers("proc/sys/net/ipv4/ip_local_port_range")[..]
    else {
        return None;
    };
    let count = last.saturating_sub(first) + 1;
    let check = Check::advice("net.ipv4.ip_local_port_range", true).found(
        format!(
            "{first} to {last}: {} outgoing to one address",
            grouped(count)
        ),
        "none: lines come in",
    );
    Some(check)
}

/// Clocks that user space reads by itself.
const FAST_CLOCKS: [&str; 4] = [
    "tsc",
    "kvm-clock",
    "hyperv_clocksource_tsc_page",
    "arch_sys_counter",
];
