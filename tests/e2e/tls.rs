//! Devices over TLS: what must be agreed on, what passes, and what becomes of those who speak something else.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::HandshakeKind;
use serde_json::json;
use tungstenite::Message;

use crate::authority::{Authority, TlsStream, rsa, secure, shake_hands, welcome};
use crate::deadline::{Deadline, PATIENCE, pause};
use crate::device::Device;
use crate::http::Http;
use crate::line::{connect, request};
use crate::node::Node;

fn closed_for(node: &Node, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    node.metric("tautline_connections_closed_total", &label)
}

#[test]
fn a_device_over_tls_is_pushed_to_and_answers() {
    for version in rustls::ALL_VERSIONS {
        let authority = Authority::new();
        let node = authority.setup(&[]).start();
        let mut far = authority.far_with(&[version]);
        far.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut device = welcome(node.ready.devices, &Arc::new(far), "tv-1");
        assert_eq!(device.stream().conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        let pushed = node.push("tv-1", "", b"hello");
        assert_eq!(pushed.status, 200, "{}", pushed.text());
        assert_eq!(device.next()["data"], "hello");
        device.assert_alive();
        assert_eq!(
            node.metric("tautline_tls_handshakes_total", "kind=\"full\""),
            1.0
        );
    }
}

#[test]
fn an_rsa_chain_serves_as_well() {
    let authority = Authority::new();
    let setup = authority.setup(&[]);
    authority.write_pair(&setup, &rsa());
    let node = setup.start();
    for version in rustls::ALL_VERSIONS {
        let far = Arc::new(authority.far_with(&[version]));
        welcome(node.ready.devices, &far, "tv-1").assert_alive();
    }
}

#[test]
fn a_session_is_resumed_on_whichever_reactor_it_comes_to() {
    let authority = Authority::new();
    for version in rustls::ALL_VERSIONS {
        let node = authority.setup(&["reactor.threads=4"]).start();
        let far = Arc::new(authority.far_with(&[version]));
        let mut devices: Vec<_> = (0..12)
            .map(|d| welcome(node.ready.devices, &far, &format!("tv-{d}")))
            .collect();
        let kinds = devices
            .iter_mut()
            .map(|device| device.stream().conn.handshake_kind());
        let resumed = kinds.filter(|kind| *kind == Some(HandshakeKind::Resumed));
        assert_eq!(resumed.count(), 11, "{version:?}");
        let kind = |kind: &str| node.metric("tautline_tls_handshakes_total", kind);
        assert_eq!(
            (kind("kind=\"full\""), kind("kind=\"resumed\"")),
            (1.0, 11.0)
        );
        let shards = (0..4)
            .filter(|shard| node.metric("tautline_lines", &format!("shard=\"{shard}\"")) > 0.0);
        assert!(shards.count() > 1, "all lines on one reactor prove nothing");
    }
}

#[test]
fn long_messages_pass_both_ways_over_many_records() {
    let authority = Authority::new();
    let limits = [
        "limits.message_bytes_max=2MiB",
        "limits.outbox_bytes_max=4MiB",
        "limits.bytes_per_second=0",
        "api.body_bytes_max=2MiB",
    ];
    let node = authority.setup(&limits).start();
    let far = Arc::new(authority.far());
    let mut device = welcome(node.ready.devices, &far, "tv-1");
    let payload = "x".repeat(1_000_000);
    let pushing = std::thread::scope(|scope| {
        let pushing = scope.spawn(|| node.push("tv-1", "", payload.as_bytes()).status);
        assert!(
            device.next()["data"] == *payload,
            "what came is not what was sent"
        );
        pushing.join().unwrap()
    });
    assert_eq!(pushing, 200);
    device.say(&json!({"type": "a-new-one", "id": "1", "padding": payload}));
    assert_eq!(device.next()["error"]["code"], "unknown_type");
    device.assert_alive();
}

#[test]
fn frames_that_come_with_the_end_of_the_handshake_are_read() {
    let authority = Authority::new();
    let node = authority.setup(&[]).start();
    let mut stream = secure(
        connect(node.ready.devices, None),
        &Arc::new(authority.far()),
    );
    // rustls sends it behind its own Finished, in one piece.
    stream
        .conn
        .writer()
        .write_all(request("/ws?device_id=tv-1", "").as_bytes())
        .unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
}

#[test]
fn a_handshake_may_come_byte_by_byte() {
    struct Trickle(std::net::TcpStream);
    impl Read for Trickle {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(buf)
        }
    }
    impl Write for Trickle {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.write(&bytes[..1])
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let authority = Authority::new();
    let node = authority.setup(&[]).start();
    let stream = secure(
        connect(node.ready.devices, None),
        &Arc::new(authority.far()),
    );
    let stream = rustls::StreamOwned::new(stream.conn, Trickle(stream.sock));
    let mut device = Device::over(stream, "/ws?device_id=tv-1", &[]).unwrap();
    device.await_welcome();
    device.assert_alive();
}

/// Reads until the other side says goodbye; false when it only hangs up.
fn says_goodbye(stream: &mut TlsStream) -> bool {
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => true,
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_node_says_goodbye_whoever_closes_first() {
    let authority = Authority::new();
    let node = authority.setup(&[]).start();
    let far = Arc::new(authority.far());
    let mut device = welcome(node.ready.devices, &far, "tv-1");
    let path = format!("/v1/connections/{}", device.connection_id());
    assert_eq!(node.request("DELETE", &path, &[], b"").status, 204);
    assert_eq!(device.close_code(), 4504);
    assert!(says_goodbye(device.stream()), "kicked");
    let mut device = welcome(node.ready.devices, &far, "tv-2");
    device.close();
    assert_eq!(device.close_code(), 1005, "as it was said");
    assert!(says_goodbye(device.stream()), "closed by the device");
    let mut refused = shake_hands(node.ready.devices, &far).unwrap();
    refused.write_all(request("/nope", "").as_bytes()).unwrap();
    assert!(says_goodbye(&mut refused), "refused");
    node.await_metric("tautline_lines", "", 0.0);
}

#[test]
fn a_goodbye_without_a_close_frame_ends_the_line() {
    let authority = Authority::new();
    let node = authority.setup(&[]).start();
    let mut device = welcome(node.ready.devices, &Arc::new(authority.far()), "tv-1");
    // The socket stays open: only the record says it.
    device.stream().conn.send_close_notify();
    device.stream().flush().unwrap();
    node.await_metric("tautline_lines", "", 0.0);
    assert_eq!(closed_for(&node, "peer_closed"), 1.0);
}

#[test]
fn who_speaks_plainly_to_a_port_with_tls_is_told_so() {
    let authority = Authority::new();
    let setup = authority.setup(&[]);
    let api = Authority::settings(&setup, "api_tls");
    let node = setup.set(&api[0]).set(&api[1]).start();
    for addr in [node.ready.devices, node.ready.api] {
        let mut http = Http::connect(addr);
        http.send(request("/ws?device_id=tv-1", ""));
        let answer = http.answer().expect("an answer in plain");
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains("https://"), "{}", answer.text());
        assert!(http.rest().is_empty());
    }
    node.await_metric("tautline_tls_failures_total", "cause=\"not_tls\"", 2.0);
    assert_eq!(closed_for(&node, "tls_failed"), 2.0);
}

#[test]
fn what_is_no_tls_or_has_nothing_in_common_is_counted_by_its_cause() {
    let authority = Authority::new();
    let node = authority.setup(&["devices_tls.version_min=1.3"]).start();
    let addr = node.ready.devices;
    let mut http2 = authority.far();
    http2.alpn_protocols = vec![b"h2".to_vec()];
    let old = authority.far_with(&[&rustls::version::TLS12]);
    let stranger = Authority::new().far();
    for (far, cause) in [
        (http2, "protocol"),
        (old, "incompatible"),
        (stranger, "alert"),
    ] {
        assert!(shake_hands(addr, &Arc::new(far)).is_err(), "{cause}");
        let label = format!("cause=\"{cause}\"");
        node.await_metric("tautline_tls_failures_total", &label, 1.0);
    }
    for (count, garbage) in [
        (1.0, &b"\x16\x03\x01\x00\x05hello"[..]),
        (2.0, &[0x16; 9_000]),
    ] {
        let mut http = Http::connect(addr);
        http.send(garbage);
        http.rest();
        node.await_metric("tautline_tls_failures_total", "cause=\"misbehaved\"", count);
    }
    node.await_metric("tautline_handshakes", "", 0.0);
    let mut device = welcome(addr, &Arc::new(authority.far()), "tv-1");
    device.assert_alive();
}

#[test]
fn a_tampered_record_ends_an_open_line() {
    let authority = Authority::new();
    let node = authority.setup(&[]).start();
    let mut device = welcome(node.ready.devices, &Arc::new(authority.far()), "tv-1");
    let stream = device.stream();
    stream.sock.write_all(b"\x17\x03\x03\x00\x20").unwrap();
    stream.sock.write_all(&[7; 32]).unwrap();
    node.await_metric("tautline_lines", "", 0.0);
    assert_eq!(closed_for(&node, "tls_failed"), 1.0);
    assert_eq!(
        node.metric("tautline_tls_failures_total", "cause=\"misbehaved\""),
        1.0
    );
}

#[test]
fn a_handshake_that_does_not_end_ends_at_the_deadline() {
    let authority = Authority::new();
    let timeouts = ["limits.handshake_timeout=700ms", "api.head_timeout=700ms"];
    let setup = authority.setup(&timeouts);
    let api = Authority::settings(&setup, "api_tls");
    let node = setup.set(&api[0]).set(&api[1]).start();
    for addr in [node.ready.devices, node.ready.api] {
        let before = closed_for(&node, "handshake_timeout");
        // Nothing at all; half a hello; TLS without a request, on the devices' port.
        let mut silent = Http::connect(addr);
        let mut half = Http::connect(addr);
        half.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
        let expected = before + 2.0;
        silent.rest();
        half.rest();
        let label = "reason=\"handshake_timeout\"";
        node.await_metric("tautline_connections_closed_total", label, expected);
    }
    let far = Arc::new(authority.far());
    let mut mute = shake_hands(node.ready.devices, &far).unwrap();
    says_goodbye(&mut mute);
    node.await_metric("tautline_handshakes", "", 0.0);
    // TLS was agreed on, so it is an idle connection like another.
    let mut idle = shake_hands(node.ready.api, &far).unwrap();
    pause(Duration::from_secs(1));
    idle.write_all(b"GET /openapi.json HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    idle.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn a_device_that_does_not_read_is_a_slow_consumer_over_tls_too() {
    let authority = Authority::new();
    let node = authority.setup(&["limits.outbox_bytes_max=128KiB"]).start();
    let socket = connect(node.ready.devices, Some(4_096));
    let stream = secure(socket, &Arc::new(authority.far()));
    let mut device = Device::over(stream, "/ws?device_id=tv-1", &[]).unwrap();
    device.await_welcome();
    let payload = vec![b'x'; 60_000];
    let deadline = Deadline::after(PATIENCE);
    let mut written = 0;
    loop {
        match node.push("tv-1", "?wait=queued", &payload).status {
            202 => written += 1,
            503 => break,
            404 => break,
            status => panic!("{status}"),
        }
        assert!(!deadline.has_passed(), "never too much: {written}");
    }
    let (before, code, _) = device.ending();
    let whole = before.iter().all(|message| match message {
        Message::Text(text) => text.as_str().contains(&"x".repeat(60_000)),
        _ => false,
    });
    assert!(whole, "what did arrive is whole");
    assert!([4002, 1006].contains(&code), "{code}");
    node.await_metric("tautline_undelivered", "", 0.0);
    node.await_metric("tautline_messages_imbalance", "", 0.0);
}

#[test]
fn written_over_tls_means_that_it_was_all_taken() {
    let authority = Authority::new();
    let limits = [
        "limits.outbox_bytes_max=8MiB",
        "limits.outbox_stall_timeout=60s",
    ];
    let node = authority.setup(&limits).start();
    let socket = connect(node.ready.devices, Some(4_096));
    let stream = secure(socket, &Arc::new(authority.far()));
    let mut device = Device::over(stream, "/ws?device_id=tv-1", &[]).unwrap();
    device.await_welcome();
    // Until the kernel's buffers are full.
    let payload = vec![b'x'; 60_000];
    let mut written = 0;
    let unwritten = loop {
        let answer = node.push("tv-1", "?timeout_ms=500", &payload);
        match answer.status {
            200 => written += 1,
            504 => break answer,
            status => panic!("{status}"),
        }
        assert!(written < 1_000, "never full");
    };
    assert_eq!(unwritten.json()["error"]["level"], "queued");
    // All of it comes, in order, once it is read.
    for _ in 0..=written {
        assert_eq!(device.next()["data"].as_str().unwrap().len(), 60_000);
    }
    device.assert_alive();
}

#[test]
fn the_sending_api_speaks_tls() {
    let authority = Authority::new();
    let setup = authority.setup(&[]);
    let api = Authority::settings(&setup, "api_tls");
    let node = setup.set(&api[0]).set(&api[1]).start();
    let far = Arc::new(authority.far());
    let mut device = welcome(node.ready.devices, &far, "tv-1");
    let mut stream = shake_hands(node.ready.api, &far).unwrap();
    for n in 0..3 {
        let body = n.to_string();
        let request = format!(
            "POST /v1/devices/tv-1/messages HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(device.next()["data"], n);
        let mut answer = [0; 4_096];
        let count = stream.read(&mut answer).unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 200 "));
    }
}

#[test]
fn the_command_line_speaks_tls_and_believes_only_whom_it_is_told_to() {
    let authority = Authority::new();
    let setup = authority.setup(&[]);
    let root = setup.file("root.pem", authority.pem());
    let sections = ["api_tls", "peer_tls"].map(|name| Authority::settings(&setup, name));
    let settings = sections.iter().flatten();
    let node = settings
        .fold(setup, |setup, setting| setup.set(setting))
        .start();
    let mut listen = Command::new(env!("CARGO_BIN_EXE_tautline"));
    listen
        .args(["listen", "tv-1", "--once", "--url"])
        .arg(format!("wss://{}/ws", node.ready.devices))
        .stdout(Stdio::piped());
    let mut stranger = listen.stderr(Stdio::piped()).spawn().unwrap();
    assert!(
        !stranger.wait().unwrap().success(),
        "nobody vouches for the node"
    );
    let heard = listen.arg("--ca-file").arg(&root).spawn().unwrap();
    node.await_metric("tautline_lines", "", 1.0);
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tautline"));
        command.args(args).arg("--ca-file").arg(&root);
        command.output().unwrap()
    };
    let asked = run(&[
        "devices",
        "tv-1",
        "--api",
        &format!("https://{}", node.ready.api),
    ]);
    assert!(asked.status.success(), "{asked:?}");
    let stream = format!("wss://{}/v1/stream", node.ready.peer);
    let sent = run(&["send", "tv-1", "\"hi\"", "--stream", &stream]);
    assert!(sent.status.success(), "{sent:?}");
    let heard = heard.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&heard.stdout), "\"hi\"\n");
}

#[test]
fn the_ops_listener_speaks_tls() {
    let authority = Authority::new();
    let setup = authority.setup(&[]);
    let ops = Authority::settings(&setup, "ops_tls");
    let node = setup.set(&ops[0]).set(&ops[1]).start();
    let far = Arc::new(authority.far());
    // Who never finishes the handshake keeps nobody else waiting.
    let _silent: Vec<_> = (0..10).map(|_| connect(node.ready.ops, None)).collect();
    for page in ["/livez", "/metrics"] {
        let mut stream = shake_hands(node.ready.ops, &far).unwrap();
        let request = format!("GET {page} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}
