//! No room: an honest refusal, and room again.

use crate::canary::Canary;
use crate::deadline::eventually;
use crate::device::Device;
use crate::http::Http;
use crate::line::{Line, connect, request, try_connect};
use crate::node::{Node, Setup};

#[test]
fn a_full_node_says_503_and_when_to_come_back() {
    let node = Node::with_one_reactor(&["limits.connections_max=5"]);
    let mut canary = Canary::on(&node);
    let mut devices: Vec<_> = (0..4)
        .map(|d| Device::connect(&node, &format!("tv-{d}")))
        .collect();
    let mut http = Http::connect(node.ready.devices);
    http.send(request("/ws?device_id=tv-9", ""));
    let answer = http.answer().expect("an answer");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["error"]["code"], "overloaded");
    let seconds: u32 = answer
        .header("retry-after")
        .expect("Retry-After")
        .parse()
        .unwrap();
    assert!(seconds > 0);
    http.rest();
    node.await_metric(
        "tautline_connections_refused_total",
        r#"cause="table_full""#,
        1.0,
    );
    canary.sing();
    devices.pop().unwrap().close();
    let mut late = eventually("room for one", || {
        Device::open(node.ready.devices, "/ws?device_id=tv-9", &[]).ok()
    });
    late.await_welcome();
    assert_eq!(node.push("tv-9", "", b"1").status, 200);
    drop((devices, late));
    canary.survives();
}

#[test]
fn reconnects_of_a_full_node_find_room_as_lines_leave() {
    let node = Node::start(&["limits.connections_max=3", "reactor.threads=2"]);
    for round in 0..30 {
        let device = eventually("room", || {
            Device::open(
                node.ready.devices,
                &format!("/ws?device_id=tv-{round}"),
                &[],
            )
            .ok()
        });
        drop(device);
    }
    node.await_metric("tautline_lines", "", 0.0);
    node.await_metric("tautline_handshakes", "", 0.0);
}

#[test]
fn a_storm_of_unfinished_handshakes_is_bounded() {
    let node = Node::start(&[
        "limits.handshakes_max=10",
        "reactor.threads=1",
        "limits.handshake_timeout=2s",
    ]);
    let mut canary = Canary::on(&node);
    let storm: Vec<_> = (0..100)
        .map(|_| Http::connect(node.ready.devices))
        .collect();
    canary.sing();
    drop(storm);
    canary.survives();
    Device::connect(&node, "tv-1").assert_alive();
}

#[test]
fn a_node_out_of_descriptors_goes_on_when_some_come_free() {
    let setup = Setup::new(&["reactor.threads=1"]).descriptors_max(300);
    let node = setup.start();
    let mut canary = Canary::on(&node);
    let crowd: Vec<_> = (0..400)
        .map(|_| try_connect(node.ready.devices, None))
        .collect();
    let waiting = try_connect(node.ready.devices, None).map(|stream| {
        let mut line = Line::of(stream);
        line.send(request("/ws?device_id=tv-1", ""));
        line
    });
    drop(crowd);
    // It was told 503, reset, or is let in now; it is not forgotten.
    if let Ok(mut line) = waiting {
        line.answered();
    }
    let mut device = eventually("room", || {
        Device::try_open(node.ready.devices, "/ws?device_id=tv-2", &[]).ok()
    });
    device.await_welcome();
    drop(device);
    canary.survives();
}

#[test]
fn devices_beyond_the_descriptors_do_not_shut_senders_out() {
    let setup = Setup::new(&["reactor.threads=1"]).descriptors_max(300);
    let node = setup.start();
    let mut canary = Canary::on(&node);
    let crowd: Vec<_> = (0..400)
        .map(|_| try_connect(node.ready.devices, None))
        .collect();
    canary.sing();
    drop(crowd);
    canary.survives();
}

#[test]
fn senders_beyond_the_limit_do_not_crowd_devices_out() {
    let node = Node::start(&["api.connections_max=4", "reactor.threads=1"]);
    let mut device = Device::connect(&node, "tv-1");
    let mut kept: Vec<_> = (0..4).map(|_| Http::connect(node.ready.api)).collect();
    for http in &mut kept {
        assert_eq!(
            http.request("GET", "/v1/devices/tv-1", &[], b"").status,
            200
        );
    }
    Http::connect(node.ready.api).rest();
    assert_eq!(
        kept[0]
            .request("POST", "/v1/devices/tv-1/messages", &[], b"1")
            .status,
        200
    );
    assert_eq!(device.next()["data"], 1);
    drop(kept);
    node.await_metric("tautline_api_connections", "", 0.0);
    assert_eq!(node.device_status("tv-1"), 200);
}

#[test]
fn running_out_of_descriptors_is_counted_and_over_when_there_are_some_again() {
    let node = Node::start(&["reactor.threads=1"]);
    let mut canary = Canary::on(&node);
    // Both are accepted while there are descriptors.
    let mut ops = Http::connect(node.ready.ops);
    ops.request("GET", "/livez", &[], b"");
    node.limit_descriptors(8);
    let mut waiting = Line::of(connect(node.ready.devices, None));
    waiting.send(request("/ws?device_id=tv-1", ""));
    eventually("an accept that fails", || {
        let page = ops.request("GET", "/metrics", &[], b"").text();
        let failed = page
            .lines()
            .find_map(|line| line.strip_prefix("tautline_accept_errors_total "));
        (failed? != "0").then_some(())
    });
    node.limit_descriptors(20_000);
    // No new connection knocks: the listener tries again by itself.
    waiting.answered();
    drop((waiting, ops));
    canary.survives();
}
