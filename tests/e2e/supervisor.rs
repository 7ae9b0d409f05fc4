//! What a service manager is told: a socket in place of systemd's.

use std::os::unix::net::UnixDatagram;

use nix::sys::signal::Signal;

use crate::deadline::{PATIENCE, eventually};
use crate::device::Device;
use crate::node::{Node, Setup};

/// A service manager that waits to be told.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    /// A node that was started by one, with more variables if it wants signs of life.
    fn start(variables: &[(&str, &str)]) -> (Self, Node) {
        let mut setup = Setup::new(&["drain.deadline=5s", "drain.interval=0s"]);
        let path = setup.dir().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        setup = setup.variable("NOTIFY_SOCKET", path.to_str().unwrap());
        for (name, value) in variables {
            setup = setup.variable(name, value);
        }
        (Self { socket }, setup.start())
    }

    /// What it is told next, signs of life apart.
    fn next(&self) -> Vec<String> {
        loop {
            let told = self.hear();
            if told != ["WATCHDOG=1"] {
                return told;
            }
        }
    }

    fn hear(&self) -> Vec<String> {
        let mut bytes = [0; 4_096];
        let length = self.socket.recv(&mut bytes).expect("it is told something");
        let text = std::str::from_utf8(&bytes[..length]).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn the_manager_hears_of_readiness_reloads_and_the_drain() {
    let (manager, mut node) = Manager::start(&[]);
    let ready = manager.next();
    assert_eq!(ready[0], "READY=1");
    assert!(
        ready[1].starts_with("STATUS=") && ready[1].contains("room for"),
        "{ready:?}"
    );
    // It was told the truth: devices get in.
    let mut device = Device::connect(&node, "tv-1");
    node.signal(Signal::SIGHUP);
    let reloading = manager.next();
    assert_eq!(reloading[0], "RELOADING=1");
    let usec = reloading[1].strip_prefix("MONOTONIC_USEC=").unwrap();
    assert!(usec.parse::<u64>().unwrap() > 0);
    assert_eq!(manager.next(), ["READY=1"]);
    node.signal(Signal::SIGTERM);
    assert_eq!(manager.next(), ["STOPPING=1", "STATUS=draining"]);
    device.assert_alive();
    device.close();
    assert_eq!(node.exit_status().code(), Some(0));
}

#[test]
fn the_manager_gets_a_sign_of_life_as_long_as_reactors_turn() {
    let (manager, _node) = Manager::start(&[("WATCHDOG_USEC", "200000")]);
    let first = manager.next();
    assert_eq!(first[0], "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.hear(), ["WATCHDOG=1"]);
    }
}

#[test]
fn a_manager_that_does_not_listen_is_no_reason_to_stop() {
    let setup = Setup::new(&[]);
    let nowhere = setup.dir().join("nowhere");
    let setup = setup
        .variable("NOTIFY_SOCKET", nowhere.to_str().unwrap())
        .variable("WATCHDOG_USEC", "0");
    let node = setup.start();
    Device::connect(&node, "tv-1").assert_alive();
    eventually("the warning", || {
        node.log().contains("service manager").then_some(())
    });
}
