//! The push library and the device of the crate, against the real server: what they promise when it breaks.

use std::collections::BTreeSet;
use std::future::Future;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tautline::client::device::{Device, DeviceEvent, DeviceMessage, DeviceOptions};
use tautline::client::error::ClientError;
use tautline::client::push::{Push, PushError};
use tautline::client::pusher::{Pusher, PusherOptions};
use tautline::wire::api::Level;
use tokio::time::timeout;

use crate::deadline::PATIENCE;
use crate::node::{BINARY, Node, Setup};

fn pusher_options(node: &Node) -> PusherOptions {
    PusherOptions::new(format!("ws://{}/v1/stream", node.ready.peer))
}

fn device_options(node: &Node, device_id: &str) -> DeviceOptions {
    DeviceOptions::new(format!("ws://{}/ws", node.ready.devices)).named(device_id, None)
}

/// A device that is on its line.
async fn connect(node: &Node, device_id: &str) -> Device {
    let mut device = Device::connect(device_options(node, device_id))
        .await
        .unwrap();
    let event = soon(device.receive()).await.unwrap();
    let DeviceEvent::Connected(welcome) = event else {
        panic!("{event:?}");
    };
    assert_eq!(welcome["device_id"], device_id);
    device
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("nothing came of it")
}

/// The next message, whatever happens to lines meanwhile.
async fn next_message(device: &mut Device) -> DeviceMessage {
    loop {
        let event = soon(device.receive()).await.expect("the device lives on");
        if let DeviceEvent::Message(message) = event {
            return message;
        }
    }
}

#[tokio::test]
async fn a_push_ends_with_a_receipt_or_the_node_s_reason() {
    let node = Node::start(&[]);
    let mut device = connect(&node, "tv-1").await;
    let pusher = Pusher::start(pusher_options(&node)).unwrap();
    let receipt = soon(pusher.send(Push::json("tv-1", &json!({"hi": 1})).unwrap())).await;
    let receipt = receipt.unwrap();
    assert_eq!(receipt.level, Level::Written);
    let message = next_message(&mut device).await.frame;
    assert_eq!(
        (&message["data"], message["message_id"].as_str()),
        (&json!({"hi": 1}), Some(&*receipt.message_id))
    );

    let acked = pusher.send(Push::bytes("tv-1", [0xff]).wait(Level::Acked));
    let (acked, message) = tokio::join!(soon(acked), next_message(&mut device));
    assert_eq!(acked.unwrap().level, Level::Acked);
    assert_eq!(message.frame["data_b64"], "/w==");

    let Err(PushError::Refused(refusal)) = soon(pusher.send(Push::text("nobody", "x"))).await
    else {
        panic!("nobody got it");
    };
    assert_eq!(
        (&*refusal.code, refusal.retryable),
        ("device_offline", true)
    );
    let long = pusher.send(Push::text("tv-1", &"x".repeat(300_000)));
    assert!(
        matches!(soon(long).await, Err(PushError::Refused(refusal)) if refusal.code == "payload_too_large")
    );
    let bad = soon(pusher.send(Push::text("a b", "x"))).await;
    assert!(matches!(bad, Err(PushError::Refused(refusal)) if refusal.code == "invalid_id"));
    // After all that the stream is the first one.
    assert!(soon(pusher.send(Push::text("tv-1", "x"))).await.is_ok());
    assert_eq!(node.metric("tautline_streams_opened_total", ""), 1.0);
    soon(pusher.close()).await;
    node.await_metric("tautline_streams", "", 0.0);
}

#[tokio::test]
async fn thousands_of_sends_share_a_stream_in_order_and_a_close_waits_for_them() {
    const SENDS: usize = 3_000;
    let node = Node::start(&["reactor.threads=2", "api.stream_window=100"]);
    let mut device = connect(&node, "tv-1").await;
    let pusher = Pusher::start(pusher_options(&node)).unwrap();
    let reader = tokio::spawn(async move {
        for n in 0..SENDS {
            assert_eq!(next_message(&mut device).await.frame["data"], n);
        }
    });
    let mut posted = Vec::new();
    for n in 0..SENDS {
        let push = Push::json("tv-1", &n).unwrap();
        posted.push(soon(pusher.post(push)).await.unwrap());
    }
    let mut ids = BTreeSet::new();
    for posted in posted {
        ids.insert(soon(posted.receipt()).await.unwrap().message_id);
    }
    assert_eq!(ids.len(), SENDS);
    soon(reader).await.unwrap();

    let mut slow = connect(&node, "tv-2").await;
    let pending = pusher.send(Push::text("tv-2", "x").wait(Level::Acked));
    let mut pending = Box::pin(pending);
    assert!(
        timeout(Duration::from_millis(200), &mut pending)
            .await
            .is_err()
    );
    drop(pending);
    let pusher = std::sync::Arc::new(pusher);
    let other = std::sync::Arc::clone(&pusher);
    let late =
        tokio::spawn(async move { other.send(Push::text("tv-2", "y").wait(Level::Acked)).await });
    while next_message(&mut slow).await.frame["data"] != "y" {}
    assert!(soon(late).await.unwrap().is_ok());
    let pusher = std::sync::Arc::into_inner(pusher).unwrap();
    soon(pusher.close()).await;
}

#[tokio::test]
async fn what_was_under_way_when_the_node_was_killed_is_unknown_and_the_next_goes_through() {
    let node = Node::start(&[]);
    // A device that never acknowledges, so that its message stays under way.
    let mut deaf = crate::device::Device::connect(&node, "deaf");
    let pusher = Pusher::start(pusher_options(&node)).unwrap();
    let sent = pusher.send(Push::text("deaf", "x").wait(Level::Acked));
    let mut sent = Box::pin(sent);
    assert!(
        timeout(Duration::from_millis(300), &mut sent)
            .await
            .is_err()
    );
    assert_eq!(deaf.next()["data"], "x");
    let mut node = node;
    node.kill();
    let result = soon(sent).await;
    assert!(matches!(result, Err(PushError::Unknown(_))), "{result:?}");
    // Nobody is there: it is not sent, and may be tried again.
    let result =
        soon(pusher.send(Push::text("deaf", "x").timeout(Duration::from_millis(300)))).await;
    assert!(matches!(result, Err(PushError::NotSent(_))), "{result:?}");
    let node = node.restart();
    let _device = connect(&node, "tv-1").await;
    let result = soon(pusher.send(Push::text("tv-1", "x").timeout(PATIENCE))).await;
    assert!(result.is_ok(), "{result:?}");
}

#[tokio::test]
async fn a_pusher_that_may_not_says_so_at_once() {
    let setup = Setup::new(&[]).key("a", "a-key-0123456789", &["send"]);
    let node = setup.start();
    let wrong = pusher_options(&node).key("another-0123456789");
    let refused = Pusher::connect(wrong.clone()).await.unwrap_err();
    assert!(
        matches!(refused, ClientError::Refused { status: 401, .. }),
        "{refused}"
    );
    let pusher = Pusher::start(wrong).unwrap();
    let result = soon(pusher.send(Push::text("tv-1", "x"))).await;
    assert!(matches!(result, Err(PushError::Ended(_))), "{result:?}");
    let pusher = Pusher::connect(pusher_options(&node).key("a-key-0123456789"))
        .await
        .unwrap();
    let result = soon(pusher.send(Push::text("tv-1", "x"))).await;
    assert!(matches!(result, Err(PushError::Refused(refusal)) if refusal.code == "device_offline"));
}

#[tokio::test]
async fn a_stream_that_is_asked_to_leave_is_renewed_without_a_send_that_fails() {
    let node = Node::start(&["api.stream_idle_timeout=1s", "lifetime.goaway_grace=500ms"]);
    let _device = connect(&node, "tv-1").await;
    let pusher = Pusher::connect(pusher_options(&node)).await.unwrap();
    for _ in 0..4 {
        // Idle for long enough to be asked each time.
        tokio::time::sleep(Duration::from_millis(1_400)).await;
        let result = soon(pusher.send(Push::text("tv-1", "x"))).await;
        assert!(result.is_ok(), "{result:?}");
    }
    assert!(node.metric("tautline_streams_opened_total", "") > 1.0);
    soon(pusher.close()).await;
    node.await_metric("tautline_streams", "", 0.0);
    let closed = |reason| node.metric("tautline_connections_closed_total", reason);
    assert_eq!(
        closed(r#"reason="idle""#),
        0.0,
        "it left before it was closed"
    );
}

#[tokio::test]
async fn a_device_changes_lines_without_losing_or_doubling_a_message() {
    const AGE_MS: u64 = 900;
    let node = Node::start(&[
        &format!("lifetime.age_max={AGE_MS}ms"),
        "lifetime.age_jitter=300ms",
        "lifetime.goaway_grace=500ms",
        "reactor.threads=3",
    ]);
    let mut device = connect(&node, "tv-1").await;
    let pusher = Pusher::connect(pusher_options(&node)).await.unwrap();
    let sender = async {
        let mut sent = 0;
        // Several lives of a line.
        for _ in 0..600 {
            let push = Push::json("tv-1", &sent).unwrap();
            let result = soon(pusher.send(push)).await;
            assert!(result.is_ok(), "{sent}: {result:?}");
            sent += 1;
            tokio::time::sleep(Duration::from_millis(8)).await;
        }
        soon(pusher.send(Push::text("tv-1", "end"))).await.unwrap();
        sent
    };
    let receiver = async {
        let (mut heard, mut lines) = (Vec::new(), 1);
        loop {
            match soon(device.receive()).await.expect("the device lives on") {
                DeviceEvent::Message(message) if message.frame["data"] == "end" => {
                    return (heard, lines);
                }
                DeviceEvent::Message(message) => {
                    heard.push(message.frame["data"].as_u64().unwrap())
                }
                DeviceEvent::Connected(_) => lines += 1,
                DeviceEvent::Leaving(goaway, _) => assert_eq!(goaway["reason"], "max_age"),
                other => panic!("{other:?}"),
            }
        }
    };
    let (sent, (heard, lines)) = tokio::join!(sender, receiver);
    assert_eq!(heard, (0..sent).collect::<Vec<u64>>());
    assert!(lines > 3, "only {lines} lines");
    let closed = node.metric("tautline_connections_closed_total", r#"reason="max_age""#);
    assert_eq!(closed, 0.0, "it left before it was closed");
}

#[tokio::test]
async fn a_device_comes_back_to_a_node_that_was_killed() {
    let node = Node::start(&[]);
    let mut device = connect(&node, "tv-1").await;
    let node = node.restart();
    let mut is_connected = false;
    while !is_connected {
        match soon(device.receive()).await.unwrap() {
            DeviceEvent::Disconnected(_, wait) => assert!(wait <= Duration::from_secs(30)),
            DeviceEvent::Connected(_) => is_connected = true,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(node.push("tv-1", "", b"1").status, 200);
    assert_eq!(next_message(&mut device).await.frame["data"], 1);
    soon(device.close()).await;
    node.await_metric("tautline_lines", "", 0.0);
}

#[tokio::test]
async fn a_device_that_is_not_wanted_back_ends_with_the_reason() {
    let node = Node::start(&[]);
    let mut first = connect(&node, "tv-1").await;
    let _second = connect(&node, "tv-1").await;
    let end = soon(first.receive()).await.unwrap_err();
    let ClientError::Closed { code, reason, .. } = end else {
        panic!("{end}");
    };
    assert_eq!((code, &*reason), (4502, "replaced"));
    assert!(soon(first.receive()).await.is_err(), "and stays ended");
    let nobody = Device::connect(device_options(&node, "a b")).await;
    assert!(matches!(
        nobody,
        Err(ClientError::Refused { status: 400, .. })
    ));
}

#[tokio::test]
async fn a_raw_device_gets_payloads() {
    let node = Node::start(&[]);
    let mut device = Device::connect(device_options(&node, "tv-1").raw())
        .await
        .unwrap();
    assert_eq!(
        soon(device.receive()).await.unwrap(),
        DeviceEvent::Connected(Value::Null)
    );
    crate::deadline::eventually("online", || {
        (node.device_status("tv-1") == 200).then_some(())
    });
    for payload in [&b"hello"[..], b"\xff\x00", br#"{"type":"message"}"#] {
        assert_eq!(node.push("tv-1", "", payload).status, 200);
        let event = soon(device.receive()).await.unwrap();
        assert_eq!(event, DeviceEvent::Payload(payload.to_vec()));
    }
}

#[test]
fn the_command_line_listens_and_sends() {
    let node = Node::start(&[]);
    let url = format!("ws://{}/ws", node.ready.devices);
    let stream = format!("ws://{}/v1/stream", node.ready.peer);
    let listener = Command::new(BINARY)
        .args(["listen", "tv-1", "--once", "--url", &url])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    crate::deadline::eventually("online", || {
        (node.device_status("tv-1") == 200).then_some(())
    });
    let send = |stream: &str, wait: &str| -> Output {
        let mut command = Command::new(BINARY);
        command.args(["send", "tv-1", "{\"hi\":1}", "--json"]);
        command.args(["--wait", wait, "--stream", stream]);
        command.output().unwrap()
    };
    let sent = send(&stream, "acked");
    assert!(sent.status.success(), "{sent:?}");
    let receipt: Value = serde_json::from_slice(&sent.stdout).unwrap();
    assert_eq!(
        (&receipt["result"], &receipt["level"]),
        (&json!("acked"), &json!("acked"))
    );
    let heard = listener.wait_with_output().unwrap();
    assert!(heard.status.success());
    assert_eq!(heard.stdout, b"{\"hi\":1}\n");

    let refused = send(&stream, "written");
    assert_eq!(refused.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(answer["error"]["code"], "device_offline");
    let elsewhere = send("ws://127.0.0.1:1/v1/stream", "written");
    assert_eq!(elsewhere.status.code(), Some(1));
}
