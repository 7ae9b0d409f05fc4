//! A device has one line: the newest.

use std::thread;

use crate::device::Device;
use crate::node::Node;

#[test]
fn a_second_line_of_a_device_replaces_the_first() {
    let node = Node::start(&["reactor.threads=4"]);
    let mut first = Device::connect(&node, "tv-1");
    let mut second = Device::connect(&node, "tv-1");
    let (before, code, reason) = first.ending();
    assert_eq!((code, reason.as_str()), (4502, "replaced"));
    assert!(
        before.is_empty(),
        "a replaced device is not asked to reconnect: {before:?}"
    );
    assert_eq!(node.push("tv-1", "", b"1").status, 200);
    assert_eq!(second.next()["data"], 1);
    node.await_metric("tautline_lines", "", 1.0);
    node.await_metric(
        "tautline_connections_closed_total",
        r#"reason="replaced""#,
        1.0,
    );
}

#[test]
fn a_replaced_line_that_does_not_finish_holds_nobody_up_who_waits_for_its_ack() {
    let node = Node::start(&["reactor.threads=2", "lifetime.close_timeout=60s"]);
    let mut first = Device::connect(&node, "tv-1");
    thread::scope(|scope| {
        // Longer than anybody here has patience.
        let push = scope.spawn(|| node.push("tv-1", "?wait=acked&timeout_ms=60000", b"1"));
        assert_eq!(first.next()["ack"], true);
        let _second = Device::connect(&node, "tv-1");
        let answer = push.join().unwrap();
        answer.assert_error(504, "ack_timeout");
        assert_eq!(answer.json()["error"]["level"], "written");
    });
    assert_eq!(first.close_code(), 4502);
}

#[test]
fn a_raw_line_is_replaced_with_its_code() {
    let node = Node::start(&[]);
    let mut first = Device::connect_raw(&node, "tv-1");
    let _second = Device::connect(&node, "tv-1");
    assert_eq!(first.close_code(), 4502);
}

#[test]
fn a_burst_of_reconnects_leaves_the_newest_line() {
    let node = Node::start(&["reactor.threads=4"]);
    let mut devices: Vec<_> = (0..50).map(|_| Device::connect(&node, "tv-1")).collect();
    let mut newest = devices.pop().unwrap();
    for device in &mut devices {
        assert_eq!(device.close_code(), 4502);
    }
    node.await_metric("tautline_lines", "", 1.0);
    assert_eq!(node.push("tv-1", "", b"1").status, 200);
    assert_eq!(newest.next()["data"], 1);
    newest.assert_alive();
}

#[test]
fn of_lines_that_race_exactly_one_stays_and_it_gets_the_messages() {
    let node = Node::start(&["reactor.threads=4"]);
    let connect = || -> Vec<_> { (0..10).map(|_| Device::connect(&node, "tv-1")).collect() };
    let devices: Vec<_> = thread::scope(|scope| {
        let racers: Vec<_> = (0..5).map(|_| scope.spawn(connect)).collect();
        racers
            .into_iter()
            .flat_map(|racer| racer.join().unwrap())
            .collect()
    });
    node.await_metric("tautline_lines", "", 1.0);
    let info = node.request("GET", "/v1/devices/tv-1", &[], b"").json();
    let is_holder = |device: &Device| info["connection_id"] == device.connection_id();
    let (mut holders, mut losers): (Vec<_>, Vec<_>) = devices.into_iter().partition(is_holder);
    assert_eq!(holders.len(), 1, "{info}");
    assert_eq!(node.push("tv-1", "", b"1").status, 200);
    assert_eq!(holders[0].next()["data"], 1);
    for device in &mut losers {
        assert_eq!(device.close_code(), 4502);
    }
}
