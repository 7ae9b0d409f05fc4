use super::machine::tests::Fake;
use super::*;
use crate::net::fdtable::FdTable;

/// A machine on which a hundred thousand lines fit comfortably.
fn roomy() -> Fake {
    Fake::new(&[
        (
            "proc/meminfo",
            "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\nSwapTotal: 0 kB\n",
        ),
        ("proc/self/cgroup", "0::/\n"),
        ("proc/sys/fs/nr_open", "1048576\n"),
        ("proc/sys/fs/file-max", "9223372036854775807\n"),
        ("proc/sys/fs/file-nr", "1000\t0\t9223372036854775807\n"),
        ("proc/sys/net/core/somaxconn", "4096\n"),
        ("proc/sys/net/ipv4/tcp_mem", "100000\t150000\t200000\n"),
        ("proc/sys/net/ipv4/tcp_max_orphans", "131072\n"),
        ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
        ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
        ("proc/sys/net/netfilter/nf_conntrack_count", "44\n"),
        ("sys/fs/cgroup/cpu.max", "max 100000\n"),
        (
            "sys/kernel/mm/transparent_hugepage/enabled",
            "always [madvise] never\n",
        ),
        (
            "sys/devices/system/clocksource/clocksource0/current_clocksource",
            "tsc\n",
        ),
        (
            "usr/lib/systemd/system/tautline.service",
            "[Service]\nLimitNOFILE=1048576\n",
        ),
    ])
}

fn report(fake: &Fake) -> Report {
    let mut config = Config::default();
    config.limits.connections_max = 100_000;
    Report::new(&config, &fake.machine())
}

fn check<'a>(report: &'a Report, name: &str) -> &'a Check {
    let found = report.checks.iter().find(|check| check.name == name);
    found.unwrap_or_else(|| panic!("no {name} in {report:#?}"))
}

#[test]
fn a_roomy_machine_needs_nothing() {
    let report = report(&roomy());
    for check in &report.checks {
        assert_eq!(check.verdict, Verdict::Ok, "{check:?}");
        assert_eq!((&check.command, &check.remark), (&None, &None), "{check:?}");
    }
    assert!(report.fits());
    assert_eq!((report.lines_max, report.warning()), (100_000, None));
    assert_eq!(report.checks.len(), 15, "{report:#?}");
}

#[test]
fn each_cap_bites_at_its_number_of_lines_and_names_what_lifts_it() {
    for (name, path, content, lines, command) in [
        (
            "fs.nr_open",
            "proc/sys/fs/nr_open",
            "10256",
            20_000,
            "sysctl -w fs.nr_open=50256",
        ),
        (
            "fs.file-max",
            "proc/sys/fs/file-max",
            "11256",
            10_000,
            "sysctl -w fs.file-max=101256",
        ),
        (
            "memory",
            "proc/meminfo",
            "MemTotal: 4400 kB\nMemAvailable: 5060 kB",
            870,
            "tautline serve --set limits.connections_max=870",
        ),
        (
            "nf_conntrack_max",
            "proc/sys/net/netfilter/nf_conntrack_max",
            "50000",
            49_956,
            "sysctl -w net.netfilter.nf_conntrack_max=100044",
        ),
    ] {
        let fake = roomy();
        fake.write(path, content);
        let report = report(&fake);
        assert_eq!(report.bites_first, Some(name));
        assert_eq!(report.lines_max, lines, "{name}");
        assert_eq!(check(&report, name).lines, Some(lines), "{name}");
        assert_eq!(check(&report, name).command.as_deref(), Some(command));
        let warning = report.warning().unwrap();
        assert!(
            warning.starts_with(&format!("the first limit to bite is {name}: ")),
            "{warning}"
        );
        assert!(warning.contains(command), "{warning}");
    }
}

#[test]
fn descriptors_count_for_each_reactor_only_if_each_has_a_table() {
    let mut fake = roomy();
    fake.process.descriptors = 20_000;
    let own = report(&fake);
    assert_eq!(
        (own.bites_first, own.lines_max),
        (Some("descriptors"), 39_488)
    );
    assert_eq!(
        check(&own, "descriptors").command.as_deref(),
        Some("ulimit -n 50256")
    );
    let remark = check(&own, "descriptors").remark.as_deref().unwrap();
    assert!(
        remark.contains("LimitNOFILE=50256") && remark.contains("reactor.threads=6"),
        "{remark}"
    );
    assert_eq!(check(&own, "descriptor_tables").verdict, Verdict::Ok);
    fake.process.table = FdTable::Shared;
    let shared = report(&fake);
    assert_eq!(shared.lines_max, 19_744);
    assert_eq!(
        check(&shared, "descriptors").command.as_deref(),
        Some("ulimit -n 100256")
    );
    assert_eq!(check(&shared, "descriptor_tables").verdict, Verdict::Advice);
    // The advice holds: with it they fit.
    fake.process.descriptors = 100_256;
    assert!(report(&fake).fits());
}

#[test]
fn the_narrowest_of_several_caps_bites_first() {
    let mut fake = roomy();
    fake.write("proc/meminfo", "MemTotal: 44000 kB\nMemAvailable: 50000 kB");
    fake.write("proc/sys/net/netfilter/nf_conntrack_max", "5044");
    fake.process.descriptors = 10_000;
    let report = report(&fake);
    let caps: Vec<_> = report
        .checks
        .iter()
        .take(3)
        .map(|check| (check.name, check.lines))
        .collect();
    let expected = [
        ("nf_conntrack_max", 5_000),
        ("memory", 8_704),
        ("descriptors", 19_488),
    ];
    assert_eq!(caps, expected.map(|(name, lines)| (name, Some(lines))));
    assert_eq!(report.lines_max, 5_000);
}

#[test]
fn what_makes_a_full_node_suffer_is_advice_and_does_not_bite() {
    let hundred_and_a_half = ("sys/fs/cgroup/cpu.max", "150000 100000");
    let thp = "sys/kernel/mm/transparent_hugepage/enabled";
    let clock = "sys/devices/system/clocksource/clocksource0";
    let dropin = "etc/systemd/system/tautline.service.d/override.conf";
    for (name, (path, content), command) in [
        (
            "cpu_quota",
            hundred_and_a_half,
            Some("systemctl set-property tautline.service CPUQuota="),
        ),
        (
            "net.core.somaxconn",
            ("proc/sys/net/core/somaxconn", "128"),
            Some("sysctl -w net.core.somaxconn=4096"),
        ),
        (
            "net.ipv4.tcp_mem",
            ("proc/sys/net/ipv4/tcp_mem", "1 2 3"),
            Some("sysctl -w net.ipv4.tcp_mem='75000 100000 200000'"),
        ),
        (
            "net.ipv4.tcp_max_orphans",
            ("proc/sys/net/ipv4/tcp_max_orphans", "9"),
            Some("sysctl -w net.ipv4.tcp_max_orphans=100000"),
        ),
        (
            "swap",
            ("proc/meminfo", "SwapTotal: 9 kB"),
            Some("swapoff -a"),
        ),
        (
            "transparent_hugepage",
            (thp, "[always] madvise never"),
            Some("echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"),
        ),
        (
            "clock_source",
            (&format!("{clock}/current_clocksource"), "hpet"),
            None,
        ),
        (
            "unit",
            (dropin, "[Service]\nLimitNOFILE=1024:2048"),
            Some("systemctl edit tautline"),
        ),
    ] {
        let fake = roomy();
        fake.write(path, content);
        let report = report(&fake);
        assert_eq!(check(&report, name).verdict, Verdict::Advice, "{name}");
        assert_eq!(check(&report, name).command.as_deref(), command);
        assert!(check(&report, name).remark.is_some(), "{name}");
        assert!(report.fits(), "{name}");
        assert_eq!(report.warning(), None, "{name}");
    }
}

#[test]
fn a_bound_on_the_process_counts_what_is_ours() {
    let mut config = Config::default();
    config.limits.connections_max = 100_000;
    config.memory.limit = Some(bytesize::ByteSize::mib(40));
    let small = Report::new(&config, &roomy().machine());
    assert_eq!(
        (small.bites_first, small.lines_max),
        (Some("memory.limit"), 10_485)
    );
    let command = check(&small, "memory.limit").command.as_deref().unwrap();
    let mib = command
        .strip_prefix("tautline serve --set memory.limit=")
        .unwrap();
    config.memory.limit = Some(mib.parse().unwrap());
    assert!(Report::new(&config, &roomy().machine()).fits(), "{command}");
}

#[test]
fn an_encrypted_line_takes_more() {
    let fake = roomy();
    fake.write(
        "proc/meminfo",
        "MemTotal: 600000 kB\nMemAvailable: 600000 kB\n",
    );
    let mut config = Config::default();
    config.limits.connections_max = 100_000;
    assert!(Report::new(&config, &fake.machine()).fits());
    config.devices_tls.certificate_file = Some("node.pem".into());
    let report = Report::new(&config, &fake.machine());
    let lines = 600_000 * 1_024 * 85 / 100 / 5_700;
    assert_eq!(
        (report.bites_first, report.lines_max),
        (Some("memory"), lines)
    );
}

#[test]
fn a_faster_clock_is_named_if_there_is_one() {
    let fake = roomy();
    let clock = "sys/devices/system/clocksource/clocksource0";
    fake.write(&format!("{clock}/current_clocksource"), "acpi_pm");
    fake.write(
        &format!("{clock}/available_clocksource"),
        "hpet kvm-clock acpi_pm",
    );
    let report = report(&fake);
    let command = format!("echo kvm-clock > /{clock}/current_clocksource");
    assert_eq!(check(&report, "clock_source").command, Some(command));
}

#[test]
fn more_reactors_than_cores_are_advice() {
    let mut config = Config::default();
    config.limits.connections_max = 1_000;
    config.reactor.threads = 3;
    let report = Report::new(&config, &roomy().machine());
    assert_eq!(check(&report, "cores").verdict, Verdict::Advice);
    assert_eq!(report.reactors, 3);
}

#[test]
fn who_shares_ports_is_told_when_queues_are_not_handed_over() {
    let name = "net.ipv4.tcp_migrate_req";
    let fake = roomy();
    fake.write("proc/sys/net/ipv4/tcp_migrate_req", "0\n");
    assert!(report(&fake).checks.iter().all(|check| check.name != name));
    let mut config = Config::default();
    config.limits.connections_max = 1_000;
    config.listen.share = true;
    let report = Report::new(&config, &fake.machine());
    assert_eq!(check(&report, name).verdict, Verdict::Advice);
    fake.write("proc/sys/net/ipv4/tcp_migrate_req", "1\n");
    let report = Report::new(&config, &fake.machine());
    assert_eq!(check(&report, name).verdict, Verdict::Ok);
}

#[test]
fn a_machine_that_tells_nothing_has_only_what_the_process_knows() {
    let report = report(&Fake::new(&[]));
    let names: Vec<_> = report.checks.iter().map(|check| check.name).collect();
    assert_eq!(names, ["descriptors", "descriptor_tables", "cores"]);
}

#[test]
fn this_machine_can_be_looked_at() {
    let report = Report::new(&Config::default(), &Machine::of_this_process());
    assert!(report.checks.len() > 5, "{report:#?}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["lines_wanted"], 1_000_000);
    assert_eq!(report.fits(), report.bites_first.is_none());
}

#[test]
fn numbers_are_grouped_by_three() {
    let texts = [0, 999, 1_000, 39_488, 1_000_000].map(grouped);
    assert_eq!(texts, ["0", "999", "1,000", "39,488", "1,000,000"]);
}
