//! Short of memory: newcomers are refused first, then idle lines go, then messages are refused; and all is well again.

use nix::sys::signal::Signal;

use crate::deadline::eventually;
use crate::device::Device;
use crate::node::{Node, Setup};

/// Puts a bound on the node's memory, beside what its flags say.
fn bound(node: &Node, memory: &str) {
    std::fs::write(node.dir().join("tautline.toml"), memory).unwrap();
    node.signal(Signal::SIGHUP);
}

/// A process of some megabytes is far beyond this: every watermark is passed.
const FAR_BEYOND: &str = "[memory]\nlimit = \"1MiB\"\n";
/// Some megabytes of this are a percent or more.
const ONLY_REFUSE_LINES: &str = "[memory]\nlimit = \"512MiB\"\nrefuse_lines_at = 1\n";

#[test]
fn a_node_short_of_memory_gives_up_newcomers_then_idle_lines_then_messages_and_recovers() {
    let node = Setup::new(&["reactor.threads=1"]).config("").start();
    let mut devices: Vec<_> = (0..20)
        .map(|d| Device::connect(&node, &format!("tv-{d}")))
        .collect();
    bound(&node, FAR_BEYOND);
    node.await_metric("tautline_memory_pressure", "", 3.0);

    let refused = Device::open(node.ready.devices, "/ws?device_id=tv-new", &[]).err();
    assert_eq!(refused, Some(503));
    node.await_metric(
        "tautline_connections_refused_total",
        r#"cause="memory""#,
        1.0,
    );
    let answer = node.push("tv-0", "", b"1");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.json()["error"]["code"], "overloaded");
    assert!(answer.header("retry-after").is_some());

    let (_, code, reason) = devices.pop().unwrap().ending();
    assert_eq!((code, reason.as_str()), (4007, "overload"));
    node.await_metric("tautline_lines", "", 0.0);
    node.await_metric("tautline_lines_shed_total", "", 20.0);
    drop(devices);

    bound(&node, "");
    node.await_metric("tautline_memory_pressure", "", 0.0);
    let mut device = eventually("room", || {
        Device::open(node.ready.devices, "/ws?device_id=tv-1", &[]).ok()
    });
    device.await_welcome();
    assert_eq!(node.push("tv-1", "", b"1").status, 200);
    assert_eq!(device.next()["data"], 1);
    node.await_metric("tautline_messages_imbalance", "", 0.0);
}

#[test]
fn lines_that_are_here_stay_while_only_newcomers_are_refused() {
    let node = Setup::new(&["reactor.threads=1"]).config("").start();
    let mut device = Device::connect(&node, "tv-1");
    bound(&node, ONLY_REFUSE_LINES);
    node.await_metric("tautline_memory_pressure", "", 1.0);
    let refused = Device::open(node.ready.devices, "/ws?device_id=tv-2", &[]).err();
    assert_eq!(refused, Some(503));
    assert_eq!(node.push("tv-1", "", b"1").status, 200);
    assert_eq!(device.next()["data"], 1);
}
