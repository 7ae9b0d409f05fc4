//! One address or one account that takes more than its share, and all the others.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::canary::Canary;
use crate::deadline::eventually;
use crate::device::Device;
use crate::http::Http;
use crate::line::request;
use crate::node::Node;

/// Connects from an address of 127/8.
fn connect_from(last: u8, to: SocketAddr) -> std::io::Result<Http> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, 7, last));
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect(&to.into())?;
    Ok(Http::over(TcpStream::from(socket)))
}

/// What a device at that address is told; `None` when it is cut off without a word.
fn status(node: &Node, last: u8, device_id: &str) -> Option<(u16, Http)> {
    let mut http = connect_from(last, node.ready.devices).ok()?;
    http.send(request(&format!("/ws?device_id={device_id}"), ""));
    let answer = http.answer()?;
    if answer.status == 429 {
        assert_eq!(answer.json()["error"]["code"], "rate_limited");
        assert!(answer.header("retry-after").is_some());
    }
    Some((answer.status, http))
}

#[test]
fn an_address_with_too_many_connections_is_refused_then_cut_and_others_are_not() {
    let node = Node::start(&["limits.connections_per_address=3", "reactor.threads=2"]);
    let mut canary = Canary::on(&node);
    let statuses: Vec<_> = (0..8)
        .map(|d| status(&node, 1, &format!("tv-{d}")))
        .collect();
    let codes: Vec<_> = statuses
        .iter()
        .map(|told| told.as_ref().map(|(status, _)| *status))
        .collect();
    assert_eq!(codes[..3], [Some(101); 3]);
    // A refused connection counts until it has ended, so that not even refusals are had without end.
    assert!(codes[3..].contains(&Some(429)), "{codes:?}");
    assert!(!codes[3..].contains(&Some(101)), "{codes:?}");
    let other = status(&node, 2, "tv-other");
    assert_eq!(other.as_ref().map(|(status, _)| *status), Some(101));
    drop((statuses, other));
    let again = eventually("room for the address", || {
        status(&node, 1, "tv-9").filter(|(status, _)| *status == 101)
    });
    drop(again);
    canary.survives();
}

#[test]
fn an_address_that_connects_too_fast_is_refused_for_a_second() {
    let node = Node::start(&["limits.connects_per_address=4", "reactor.threads=1"]);
    let mut canary = Canary::on(&node);
    let mut told = |n: u32| status(&node, 1, &format!("tv-{n}")).map(|(status, _)| status);
    // The turn of a second may fall in between once, not twice.
    let codes: Vec<_> = (0..13).map(&mut told).collect();
    assert!(codes.iter().any(|status| *status != Some(101)), "{codes:?}");
    eventually("the next second", || (told(99) == Some(101)).then_some(()));
    canary.survives();
}

#[test]
fn an_exempt_network_has_no_limit() {
    let node = Node::start(&[
        "limits.connections_per_address=1",
        "limits.exempt_networks=[\"127.0.7.4/30\"]",
    ]);
    let devices: Vec<_> = (0..5)
        .map(|d| status(&node, 5, &format!("tv-{d}")))
        .collect();
    assert!(
        devices
            .iter()
            .all(|told| told.as_ref().is_some_and(|(status, _)| *status == 101))
    );
    let one = status(&node, 8, "tv-a");
    assert_eq!(one.as_ref().map(|(status, _)| *status), Some(101));
    assert_eq!(
        status(&node, 8, "tv-b").map(|(status, _)| status),
        Some(429)
    );
}

#[test]
fn an_account_with_too_many_lines_gets_no_more_and_others_do() {
    let node = Node::start(&["limits.connections_per_account=2", "reactor.threads=2"]);
    let mut canary = Canary::on(&node);
    let open = |device: &str, user: &str| Device::connect_of(&node, device, user);
    let mut first = open("tv-1", "ann");
    let second = open("tv-2", "ann");
    let full = |device: &str| {
        let path = format!("/ws?device_id={device}&user_id=ann");
        Device::open(node.ready.devices, &path, &[]).err()
    };
    assert_eq!(full("tv-3"), Some(429));
    let mut other = open("tv-4", "bob");
    // A newer line of a device takes the older one's place, not a further one.
    let mut again = open("tv-1", "ann");
    assert_eq!(first.ending().1, 4502);
    assert_eq!(full("tv-3"), Some(429));
    again.assert_alive();
    node.await_metric(
        "tautline_connections_refused_total",
        r#"cause="account_limit""#,
        2.0,
    );
    other.assert_alive();
    drop((again, second, other));
    canary.survives();
}
