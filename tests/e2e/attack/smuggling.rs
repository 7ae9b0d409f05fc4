//! Requests that two readers could cut differently, on every port that speaks HTTP: one refusal, the end of the
//! connection, and never an answer to the request hidden behind.

use std::net::SocketAddr;
use std::time::Duration;

use crate::canary::Canary;
use crate::device::Device;
use crate::http::Http;
use crate::line::request;
use crate::node::Node;

/// A port, as an attacker sees it.
struct Target {
    name: &'static str,
    addr: SocketAddr,
    /// A correct head without its empty line: request line, `Host`, and what else the port wants.
    head: String,
    /// A correct request that must never be answered.
    hidden: String,
    /// Whether a body may follow the head, so that mistakes in one are refused as such.
    takes_bodies: bool,
}

fn targets(node: &Node) -> [Target; 4] {
    let start = |line: &str| format!("{line} HTTP/1.1\r\nHost: t\r\n");
    let upgrade = request("/ws?device_id=tv-2", "").replace("Host: test", "Host: t");
    let stream = request("/v1/stream", "").replace("Host: test", "Host: t");
    let push = start("POST /v1/devices/tv-1/messages");
    [
        Target {
            name: "devices",
            addr: node.ready.devices,
            head: upgrade.strip_suffix("\r\n").unwrap().to_owned(),
            hidden: request("/ws?device_id=smuggled", ""),
            takes_bodies: false,
        },
        Target {
            name: "api",
            addr: node.ready.api,
            hidden: format!("{push}Content-Length: 8\r\n\r\nsmuggled"),
            head: push,
            takes_bodies: true,
        },
        Target {
            name: "peer",
            addr: node.ready.peer,
            head: stream.strip_suffix("\r\n").unwrap().to_owned(),
            hidden: stream,
            takes_bodies: false,
        },
        Target {
            name: "ops",
            addr: node.ready.ops,
            head: start("GET /metrics"),
            hidden: format!("{}\r\n", start("GET /livez")),
            takes_bodies: false,
        },
    ]
}

impl Target {
    /// The head with more lines, closed by its empty line.
    fn with(&self, lines: &str) -> String {
        format!("{}{lines}\r\n", self.head)
    }

    /// The head with something else in it.
    fn replaced(&self, from: &str, to: &str) -> String {
        assert!(self.head.contains(from), "{from:?} is not in {}", self.name);
        format!("{}\r\n", self.head.replacen(from, to, 1))
    }

    /// Sends each request with the hidden one behind it: what is wrong with the answers.
    fn judge(&self, requests: impl IntoIterator<Item = String>) -> Vec<String> {
        let judge = |request: String| {
            Some(format!(
                "{}: {request:?} {}",
                self.name,
                self.fault(&request)?
            ))
        };
        requests.into_iter().filter_map(judge).collect()
    }

    fn fault(&self, request: &str) -> Option<String> {
        let mut http = Http::connect(self.addr);
        http.send(format!("{request}{}", self.hidden));
        let (all, is_closed) = http.read_to_close(Duration::from_secs(2));
        let all = String::from_utf8_lossy(&all);
        let status: u16 = all
            .get(9..12)
            .unwrap_or_default()
            .parse()
            .unwrap_or_default();
        let answers = answers(&all);
        let is_refused = [400, 405, 414, 431, 505].contains(&status);
        let fault = format!("{answers} answers, first {:.20?}, closed: {is_closed}", all);
        (!is_refused || answers != 1 || !is_closed).then_some(fault)
    }
}

/// How many answers begin in these bytes.
fn answers(all: &str) -> usize {
    let starts = all.split("HTTP/1.1 ").skip(1);
    starts
        .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        .count()
}

#[track_caller]
fn refused(cases: fn(&Target) -> Vec<String>) {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let mut victim = Device::connect(&node, "tv-1");
    let targets = targets(&node);
    let faults: Vec<_> = targets
        .iter()
        .flat_map(|target| target.judge(cases(target)))
        .collect();
    assert!(
        faults.is_empty(),
        "not refused once and closed:\n{}",
        faults.join("\n")
    );
    assert_eq!(node.device_status("smuggled"), 404);
    victim.assert_alive();
    drop(victim);
    canary.survives();
}

#[test]
fn a_body_whose_length_is_told_in_two_ways_is_refused() {
    refused(|target| {
        let lines = [
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
            "Content-Length: 0\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 0, 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: \r\n",
            "Content-Length: +0\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x0\r\n",
            "Content-Length: 1e1\r\n",
            "Content-Length: 1_0\r\n",
            "Content-Length: 0 5\r\n",
            "Content-Length: 0;\r\n",
            "Content-Length: ٣\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: chunked,identity\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding: chunked;q=1\r\n",
            "Transfer-Encoding: \u{b}chunked\r\n",
            "Transfer-Encoding: \r\n",
            "Transfer-Encoding : chunked\r\n",
            "Content-Length : 5\r\n",
            "Content-Length\t: 5\r\n",
        ];
        let in_http_1_0 = target
            .with("Transfer-Encoding: chunked\r\n")
            .replace("HTTP/1.1", "HTTP/1.0");
        let requests = lines
            .iter()
            .map(|lines| target.with(lines))
            .chain([in_http_1_0]);
        requests.map(|head| format!("{head}0\r\n\r\n")).collect()
    });
}

#[test]
fn chunks_that_are_not_by_the_letter_are_refused() {
    refused(|target| {
        if !target.takes_bodies {
            // A body is refused at its head, or not read.
            return Vec::new();
        }
        let bodies = [
            "\r\n\r\n",
            "zz\r\n\r\n",
            "-1\r\n\r\n",
            "+1\r\nx\r\n0\r\n\r\n",
            "0x1\r\nx\r\n0\r\n\r\n",
            "1 \r\nx\r\n0\r\n\r\n",
            " 1\r\nx\r\n0\r\n\r\n",
            "1_0\r\nx\r\n0\r\n\r\n",
            "fffffffffffffffff\r\n\r\n",
            "10000000000000000\r\nx\r\n0\r\n\r\n",
            "100000000\r\nx\r\n0\r\n\r\n",
            "1\nx\n0\n\n",
            "1\r\nxyz\r\n0\r\n\r\n",
            "1\r\nx0\r\n\r\n",
            "1\r\nx\n0\r\n\r\n",
            "1\r\nx\r0\r\n\r\n",
            "1;a\nb\r\nx\r\n0\r\n\r\n",
            "1;a\0\r\nx\r\n0\r\n\r\n",
            "1;a\rb\r\nx\r\n0\r\n\r\n",
            "0\n\r\n",
            "0\r\n\n",
            "0\r\nX: a\n\r\n",
            "0\r\n X: a\r\n\r\n",
        ];
        let head = target.with("Transfer-Encoding: chunked\r\n");
        bodies.iter().map(|body| format!("{head}{body}")).collect()
    });
}

#[test]
fn header_lines_outside_the_grammar_are_refused() {
    refused(|target| {
        let lines = [
            "X: a\nY: b\r\n",
            "X: a\rY: b\r\n",
            "X: a\r\n b\r\n",
            "X: a\r\n\tb\r\n",
            "X: a\0b\r\n",
            "X: a\u{7f}b\r\n",
            "X\0: a\r\n",
            "X\u{1}: a\r\n",
            "Xé: a\r\n",
            "X Y: a\r\n",
            "X(): a\r\n",
            ": a\r\n",
            "nonsense\r\n",
            "Host: evil\r\n",
        ];
        let hosts = [
            "",
            "Host: a b\r\n",
            "Host: a@b\r\n",
            "Host: a/b\r\n",
            "Host : t\r\n",
            " Host: t\r\n",
            "Host: t\n",
        ];
        let added = lines.iter().map(|lines| target.with(lines));
        let changed = hosts
            .iter()
            .map(|host| target.replaced("Host: t\r\n", host));
        let feeds = format!("{}\n", target.head.replace("\r\n", "\n"));
        added.chain(changed).chain([feeds]).collect()
    });
}

#[test]
fn request_lines_outside_the_grammar_are_refused() {
    refused(|target| {
        let versions = [
            "HTTP/1.2",
            "HTTP/2.0",
            "HTTP/0.9",
            "HTTP/1.1.1",
            "HTTP/11",
            "HTTP/1,1",
            "http/1.1",
            "HTTP/ 1.1",
            "1.1",
        ];
        let versions = versions.map(|version| target.replaced("HTTP/1.1", version));
        let method = target.head.split(' ').next().unwrap().to_owned();
        let lines = [
            target.replaced(" /", "  /"),
            target.replaced(" /", "\t/"),
            target.replaced(" HTTP", "\tHTTP"),
            target.replaced(" HTTP", "  HTTP"),
            target.replaced("HTTP/1.1\r\n", "HTTP/1.1 \r\n"),
            target.replaced("HTTP/1.1\r\n", "HTTP/1.1\n"),
            target.replaced(" HTTP/1.1\r\n", "\r\n"),
            target.replaced(&method, &method.to_lowercase()),
            target.replaced(&method, &format!("{method}\0")),
            target.replaced(&method, ""),
            target.replaced(" /", " /\0"),
            target.replaced(" /", " /\u{1f}"),
            target.replaced(" /", " é/"),
            target.replaced(" /", " ?"),
            format!("\r\n{}", target.with("")),
            format!("\n{}", target.with("")),
            format!(" {}", target.with("")),
            "GET /\r\n".into(),
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
            "CONNECT t:80 HTTP/1.1\r\nHost: t\r\n\r\n".into(),
            "\u{16}\u{3}\u{1}\u{2}\r\n\r\n".into(),
        ];
        versions.into_iter().chain(lines).collect()
    });
}

#[test]
fn a_refused_upgrade_hides_no_request_of_another_port() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let mut victim = Device::connect(&node, "tv-1");
    let [devices, api, ..] = targets(&node);
    let refused = devices.replaced("Version: 13", "Version: 8");
    let mut http = Http::connect(devices.addr);
    http.send(format!("{refused}{}", api.hidden));
    let (all, is_closed) = http.read_to_close(Duration::from_secs(5));
    let all = String::from_utf8_lossy(&all).into_owned();
    assert!(all.starts_with("HTTP/1.1 426 ") && is_closed, "{all}");
    assert_eq!(answers(&all), 1, "{all}");
    victim.assert_alive();
    drop(victim);
    canary.survives();
}
