//! What operators and their machines ask: the list of lines, kicks, the API's description, numbers and probes.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::device::Device;
use crate::http::Http;
use crate::node::{Node, Setup};
use crate::token::{Issuer, SECRET, jwt_setup};

#[test]
fn lines_are_listed_page_by_page() {
    let node = Node::start(&["reactor.threads=3"]);
    let connect = |d: usize| {
        let account = format!("user-{}", d % 2);
        Device::connect_of(&node, &format!("tv-{d}"), &account)
    };
    let devices: Vec<_> = (0..10).map(connect).collect();
    let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = page(&node, &format!("?limit=3{cursor}"));
        let connections = page["connections"].as_array().unwrap();
        assert!(connections.len() <= 3, "{page}");
        seen.extend(
            connections
                .iter()
                .map(|c| c["connection_id"].as_str().unwrap().to_owned()),
        );
        pages += 1;
        let Some(next) = page["cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
        assert!(pages < 20, "endless");
    }
    let expected: BTreeSet<_> = devices.iter().map(Device::connection_id).collect();
    assert_eq!(seen.len(), 10, "one twice or missing");
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), expected);
    let mine = page(&node, "?user_id=user-1");
    assert_eq!(mine["connections"].as_array().unwrap().len(), 5, "{mine}");
    assert_eq!(mine["connections"][0]["user_id"], "user-1");
}

fn page(node: &Node, query: &str) -> Value {
    let answer = node.request("GET", &format!("/v1/connections{query}"), &[], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn a_list_that_makes_no_sense_is_400() {
    let node = Node::start(&[]);
    for query in [
        "?limit=0",
        "?limit=-1",
        "?limit=x",
        "?limit=1000000",
        "?cursor=nonsense",
        "?cursor=*",
        "?cursor=",
        "?nonsense=1",
    ] {
        let answer = node.request("GET", &format!("/v1/connections{query}"), &[], b"");
        answer.assert_error(400, "bad_request");
    }
}

#[test]
fn a_kicked_line_is_closed_with_4504() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    let path = format!("/v1/connections/{}", device.connection_id());
    let answer = node.request("DELETE", &path, &[], b"");
    assert!(
        [200, 202, 204].contains(&answer.status),
        "{}",
        answer.text()
    );
    let (_, code, reason) = device.ending();
    assert_eq!((code, reason.as_str()), (4504, "kicked"));
    node.await_metric("tautline_lines", "", 0.0);
    let again = node.request("DELETE", &path, &[], b"");
    assert!([404, 410].contains(&again.status), "{}", again.text());
    for nonsense in ["x", "%00", "..", &"a".repeat(500)] {
        let answer = node.request("DELETE", &format!("/v1/connections/{nonsense}"), &[], b"");
        assert!(
            (400..500).contains(&answer.status),
            "{nonsense:.20}: {}",
            answer.text()
        );
    }
}

#[test]
fn a_kick_never_hits_the_next_line_of_the_device() {
    let node = Node::start(&["reactor.threads=1"]);
    let mut first = Device::connect(&node, "tv-1");
    let path = format!("/v1/connections/{}", first.connection_id());
    first.close();
    first.close_code();
    let mut others: Vec<_> = (0..5).map(|_| Device::connect(&node, "tv-1")).collect();
    let answer = node.request("DELETE", &path, &[], b"");
    assert!([404, 410].contains(&answer.status), "{}", answer.text());
    others.last_mut().unwrap().assert_alive();
}

#[test]
fn a_drain_over_the_api_can_be_watched_and_cancelled() {
    let node = Node::start(&["drain.deadline=60s", "drain.interval=30s"]);
    let mut device = Device::connect(&node, "tv-1");
    let path = format!("/v1/nodes/{}/drain", node.ready.node_id);
    let started = node.request("POST", &path, &[], b"");
    assert!([200, 202].contains(&started.status), "{}", started.text());
    assert_eq!(node.ops("/readyz").status, 503);
    assert_eq!(node.request("GET", &path, &[], b"").status, 200);
    let cancelled = node.request("DELETE", &path, &[], b"");
    assert!(
        [200, 202, 204].contains(&cancelled.status),
        "{}",
        cancelled.text()
    );
    crate::deadline::eventually("readiness on", || {
        (node.ops("/readyz").status == 200).then_some(())
    });
    device.assert_alive();
    let elsewhere = node.request("POST", "/v1/nodes/another-node/drain", &[], b"");
    assert_eq!(elsewhere.status, 404, "{}", elsewhere.text());
}

#[test]
fn the_api_describes_itself() {
    let node = Node::start(&[]);
    let answer = node.request("GET", "/openapi.json", &[], b"");
    assert_eq!(answer.status, 200);
    let api = answer.json();
    assert!(api["openapi"].as_str().unwrap().starts_with("3."));
    let paths = api["paths"].as_object().unwrap();
    for path in [
        "/v1/devices/{device_id}/messages",
        "/v1/devices/{device_id}",
        "/v1/connections",
        "/v1/connections/{connection_id}",
        "/v1/broadcasts",
        "/v1/broadcasts/{broadcast_id}",
        "/v1/users/{user_id}/devices",
        "/v1/users/{user_id}/messages",
    ] {
        assert!(paths.contains_key(path), "{path} is not described");
    }
    let topics = "/v1/topics/{topic}/messages";
    assert!(!paths.contains_key(topics), "described, not built");
}

#[test]
fn probes_and_numbers_are_served() {
    let node = Node::start(&[]);
    for probe in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(node.ops(probe).status, 200, "{probe}");
    }
    assert_eq!(node.ops("/nope").status, 404);
    let page = node.ops("/metrics");
    assert_eq!(page.status, 200);
    let text = page.text();
    let names = text.lines().filter(|line| !line.starts_with('#'));
    for line in names {
        assert!(line.starts_with("tautline_"), "{line}");
    }
    for name in [
        "tautline_lines",
        "tautline_connections_closed_total",
        "tautline_connections_refused_total",
        "tautline_build_info",
    ] {
        assert!(text.contains(name), "no {name}");
    }
}

#[test]
fn a_node_to_try_out_serves_a_device_in_a_page_with_its_ports() {
    let node = Node::start(&[]);
    let page = node.ops("/device");
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    let (devices, api) = (node.ready.devices.port(), node.ready.api.port());
    let reached = format!(r#"{{ devices: "ws:{devices}", api: "http:{api}" }}"#);
    assert!(page.text().contains(&reached), "{}", page.text());
    let client = node.ops("/tautline.js");
    assert_eq!(
        client.header("content-type"),
        Some("text/javascript; charset=utf-8")
    );
    assert!(client.text().contains("export class Tautline"));
}

#[test]
fn a_node_with_keys_serves_no_page() {
    let (hs256, es256) = (Issuer::hs256(SECRET), Issuer::es256());
    let node = jwt_setup(&[], &hs256, &es256, "").start();
    for path in ["/device", "/tautline.js"] {
        assert_eq!(node.ops(path).status, 404, "{path}");
    }
}

#[test]
fn numbers_need_the_key_when_there_is_one_and_probes_do_not() {
    let setup = Setup::new(&[]);
    let path = setup.file("ops.key", "an-ops-key-of-some-length-0123456789");
    let node = setup
        .config(&format!("[ops]\nkey_file = {path:?}\n"))
        .start();
    assert_eq!(node.ops("/livez").status, 200);
    assert_eq!(node.ops("/readyz").status, 200);
    assert_eq!(node.ops("/metrics").status, 401);
    let get = |key: &str| {
        let headers = [("Authorization", key)];
        Http::connect(node.ready.ops)
            .request("GET", "/metrics", &headers, b"")
            .status
    };
    assert_eq!(get("Bearer wrong"), 401);
    assert_eq!(get("Bearer an-ops-key-of-some-length-0123456789"), 200);
}

#[test]
fn garbage_on_the_ops_port_harms_nobody() {
    let node = Node::start(&[]);
    for garbage in [
        &b"\x16\x03\x01\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        &[b'x'; 100_000],
    ] {
        let http = Http::connect(node.ready.ops);
        http.send(garbage);
        http.shut_down_writing();
    }
    assert_eq!(node.ops("/livez").status, 200);
}
