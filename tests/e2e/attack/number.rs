//! What strangers say does not multiply: not in metrics, not in the log, not in the ports that are open.

use std::collections::BTreeSet;
use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::canary::Canary;
use crate::device::Device;
use crate::http::{Http, encode};
use crate::line::request;
use crate::node::Node;

#[test]
fn ten_thousand_names_make_no_new_metric() {
    const NAMES: usize = 10_000;
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let series = || node.ops("/metrics").text().lines().count();
    let before = series();
    let mut api = Http::connect(node.ready.api);
    let mut ops = Http::connect(node.ready.ops);
    for batch in 0..NAMES / 100 {
        let names = (0..100).map(|i| format!("n{batch}-{i}"));
        let paths = names.flat_map(|name| {
            let headers = [
                ("User-Agent", name.as_str()),
                ("X-Request-Id", name.as_str()),
            ];
            let known = encode("GET", &format!("/v1/devices/{name}"), &headers, b"");
            let unknown = encode("GET", &format!("/{name}"), &headers, b"");
            [known, unknown]
        });
        let requests: Vec<_> = paths.collect();
        api.send(requests.concat());
        for _ in &requests {
            assert_eq!(api.answer().expect("an answer").status, 404);
        }
        let path = format!("/{batch}");
        assert_eq!(ops.request("GET", &path, &[], b"").status, 404);
    }
    for i in 0..500 {
        let mut http = Http::connect(node.ready.devices);
        http.send(request(
            &format!("/n{i}?device_id=n{i}"),
            &format!("Origin: http://n{i}\r\n"),
        ));
        assert_eq!(http.answer().expect("an answer").status, 404);
    }
    assert_eq!(series(), before);
    drop((api, ops));
    canary.survives();
}

#[test]
fn nothing_a_stranger_says_makes_a_line_of_the_log() {
    let mut node = Node::with_one_reactor(&["log.format=json", "log.level=trace"]);
    let mut canary = Canary::on(&node);
    let forged = r#"x"}{"level":"FATAL","message":"forged"}"#;
    for (name, value) in [
        ("Origin", format!("http://{forged}")),
        ("User-Agent", forged.to_owned()),
        ("X-Request-Id", forged.to_owned()),
        ("Sec-WebSocket-Protocol", forged.to_owned()),
        ("Authorization", format!("Bearer {forged}")),
        ("Cookie", format!("tt={forged}")),
        ("X", "a\tb\u{85}c\u{2028}d\u{202e}e".to_owned()),
    ] {
        for addr in [node.ready.devices, node.ready.api, node.ready.ops] {
            for path in [
                "/ws?device_id=tv-1&x=%0a%22%7d%7b%22level%22:%22FATAL%22%7d",
                "/%0a%7b",
                "/v1/devices/%0a",
            ] {
                let mut http = Http::connect(addr);
                http.send(request(path, &format!("{name}: {value}\r\n")));
                http.answer_to_upgrade();
            }
        }
    }
    let mut device = Device::connect(&node, "tv-1");
    for text in [
        forged,
        "\n{\"level\":\"FATAL\"}",
        "{\"type\":\"\\n{\\\"level\\\":\\\"FATAL\\\"}\"}",
    ] {
        device.send(tungstenite::Message::text(text));
        assert_eq!(device.next()["type"], "error");
    }
    drop(device);
    canary.survives();
    drop(canary);
    node.signal(Signal::SIGTERM);
    node.exit_status();
    let log = node.log();
    assert!(log.lines().count() > 3, "nothing is logged: {log}");
    for line in log.lines() {
        let event: Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("no event: {line}"));
        assert_ne!(event["level"], "FATAL", "{line}");
        assert!(!line.contains("forged"), "{line}");
    }
}

#[test]
fn a_node_listens_on_loopback_and_where_it_says_and_nowhere_else() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let ready = &node.ready;
    let announced = [ready.devices, ready.api, ready.peer, ready.ops];
    let announced: BTreeSet<_> = announced.iter().map(ToString::to_string).collect();
    assert_eq!(listening(node.pid()), announced);
    assert!(
        announced.iter().all(|addr| addr.starts_with("127.0.0.1:")),
        "{announced:?}"
    );
    // Nothing on them changes anything without being asked by the right method, and no page shows who is here.
    for path in [
        "/",
        "/debug/pprof/",
        "/admin",
        "/v1/connections",
        "/env",
        "/console",
    ] {
        assert_eq!(node.ops(path).status, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE"] {
        let answer = Http::connect(node.ready.ops).request(method, "/metrics", &[], b"");
        assert_eq!(answer.status, 405, "{method}");
    }
    canary.survives();
}

/// The addresses on which any thread of a process listens, from the kernel.
fn listening(pid: u32) -> BTreeSet<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let tasks: Vec<_> = tasks.map(|task| task.unwrap().path().join("fd")).collect();
    let files = tasks.iter().flat_map(|task| fs::read_dir(task).unwrap());
    let sockets: BTreeSet<_> = files
        .filter_map(|file| fs::read_link(file.unwrap().path()).ok())
        .filter_map(|link| {
            Some(
                link.to_str()?
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .to_owned(),
            )
        })
        .collect();
    let tables = ["tcp", "tcp6"]
        .map(|name| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    lines
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let is_ours = fields.get(3) == Some(&LISTEN) && sockets.contains(*fields.get(9)?);
            is_ours.then(|| address(fields[1]))
        })
        .collect()
}

/// `0100007F:1CE8` is 127.0.0.1:7400.
fn address(hex: &str) -> String {
    let (ip, port) = hex.split_once(':').unwrap();
    let port = u16::from_str_radix(port, 16).unwrap();
    match u32::from_str_radix(ip, 16) {
        Ok(ip) => format!("{}:{port}", std::net::Ipv4Addr::from(ip.swap_bytes())),
        Err(_) => format!("[{ip}]:{port}"),
    }
}

/// The state's number in the kernel's table.
const LISTEN: &str = "0A";
