//! IPv6, on its own and beside IPv4.

use std::net::SocketAddr;
use std::process::Command;

use crate::device::Device;
use crate::node::{Node, Setup};
use crate::token::{Issuer, SECRET, jwt_setup};

/// A node that listens on IPv6, where this machine has it.
fn start(settings: &[&str]) -> Option<Node> {
    std::net::TcpListener::bind("[::1]:0").ok()?;
    let on = ["devices", "api", "ops"].map(|name| format!("listen.{name}=[::1]:0"));
    let mut setup = Setup::new(&[]);
    for setting in on
        .iter()
        .map(String::as_str)
        .chain(settings.iter().copied())
    {
        setup = setup.set(setting);
    }
    Some(setup.start())
}

#[test]
fn a_node_listens_on_ipv6_loopback_without_keys() {
    let Some(node) = start(&[]) else { return };
    assert!(node.ready.devices.to_string().starts_with("[::1]:"));
    let mut device = Device::connect(&node, "tv-1");
    assert_eq!(node.push("tv-1", "", b"1").status, 200);
    assert_eq!(device.next()["data"], 1);
    assert_eq!(node.ops("/livez").status, 200);
    let origin = [("Origin", "http://[::1]:8080")];
    assert!(Device::open(node.ready.devices, "/ws?device_id=tv-2", &origin).is_ok());
}

#[test]
fn the_command_line_takes_addresses_in_brackets() {
    let Some(node) = start(&[]) else { return };
    let _device = Device::connect(&node, "tv-1");
    let sent = Command::new(env!("CARGO_BIN_EXE_tautline"))
        .args(["send", "tv-1", "1", "--stream"])
        .arg(format!("ws://{}/v1/stream", node.ready.peer))
        .output()
        .unwrap();
    assert!(sent.status.success(), "{sent:?}");
    let heard = Command::new(env!("CARGO_BIN_EXE_tautline"))
        .args(["listen", "tv-2", "--once", "--url"])
        .arg(format!("ws://{}/ws", node.ready.devices))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    crate::deadline::eventually("tv-2 is there", || {
        (node.device_status("tv-2") == 200).then_some(())
    });
    assert_eq!(node.push("tv-2", "", b"\"hi\"").status, 200);
    let heard = heard.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&heard.stdout), "\"hi\"\n");
}

#[test]
fn the_unspecified_address_takes_both_families_and_needs_keys() {
    let refused = Setup::new(&[]).set("listen.devices=[::]:0").start_refused();
    assert!(
        refused.contains("listen.devices: [::]:0 is not loopback"),
        "{refused}"
    );
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let (hs256, es256) = (Issuer::hs256(SECRET), Issuer::es256());
    let setup = jwt_setup(&["listen.devices=[::]:0"], &hs256, &es256, "");
    let node = setup.start();
    let port = node.ready.devices.port();
    for (d, ip) in ["127.0.0.1", "::1"].into_iter().enumerate() {
        let addr = SocketAddr::new(ip.parse().unwrap(), port);
        let path = format!("/ws?token={}", hs256.token(&format!("tv-{d}"), 600));
        Device::open(addr, &path, &[]).unwrap().await_welcome();
    }
}

#[test]
fn an_ipv4_address_in_ipv6s_clothes_is_loopback_too() {
    let Some(node) = start(&["listen.devices=[::ffff:127.0.0.1]:0"]) else {
        return;
    };
    let addr = SocketAddr::from(([127, 0, 0, 1], node.ready.devices.port()));
    Device::connect_anywhere(addr, "tv-1").assert_alive();
}
