//! Maximum age: a go-away first, the code when it is ignored.

use tungstenite::Message;

use crate::device::Device;
use crate::node::Node;

const SHORT: [&str; 3] = [
    "lifetime.age_max=1s",
    "lifetime.age_jitter=0s",
    "lifetime.goaway_grace=1s",
];

#[test]
fn an_old_line_is_asked_to_leave_and_closed_when_it_does_not() {
    let node = Node::start(&SHORT);
    let mut device = Device::connect(&node, "tv-1");
    assert_eq!(device.welcome["max_age_ms"], 1_000);
    let goaway = device.next();
    assert_eq!(
        (&goaway["type"], &goaway["reason"]),
        (&"goaway".into(), &"max_age".into()),
        "{goaway}"
    );
    assert!(
        goaway["reconnect_after_ms"].is_u64() && goaway["deadline_ms"].is_u64(),
        "{goaway}"
    );
    assert_eq!(
        node.push("tv-1", "", b"1").status,
        200,
        "it still gets messages"
    );
    assert_eq!(device.next()["data"], 1);
    let (_, code, reason) = device.ending();
    assert_eq!((code, reason.as_str()), (4005, "max_age"));
    node.await_metric("tautline_lines", "", 0.0);
    node.await_metric(
        "tautline_connections_closed_total",
        r#"reason="max_age""#,
        1.0,
    );
}

#[test]
fn a_device_that_leaves_when_asked_closes_first() {
    let node = Node::start(&SHORT);
    let mut device = Device::connect(&node, "tv-1");
    assert_eq!(device.next()["type"], "goaway");
    let mut next = Device::connect(&node, "tv-1b");
    device.close();
    assert_eq!(device.close_code(), 1005, "its own close is echoed");
    next.assert_alive();
}

#[test]
fn an_old_raw_line_is_closed_with_the_code_and_no_other_frame() {
    let node = Node::start(&SHORT);
    let mut device = Device::connect_raw(&node, "tv-1");
    let (before, code, _) = device.ending();
    assert_eq!(code, 4005);
    assert!(before.iter().all(Message::is_ping), "{before:?}");
}
