//! From device to device: who reaches whom, what the sender is told, and what nobody is told.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tungstenite::Message;

use crate::canary::Canary;
use crate::deadline::eventually;
use crate::device::Device;
use crate::line::{Line, TEXT, frame};
use crate::node::Node;
use crate::token::{Issuer, SECRET, jwt_setup, now_s};

fn send(device: &mut Device, id: &Value, to: &str, more: Value) {
    let mut send = json!({"type": "send", "id": id, "to": {"device": to}, "data": "hello"});
    let more = more.as_object().unwrap().clone();
    send.as_object_mut().unwrap().extend(more);
    device.say(&send);
}

fn reply(device: &mut Device, id: &Value) -> Value {
    let reply = device.next();
    assert_eq!(reply["type"], "reply", "{reply}");
    assert_eq!(reply["id"], *id, "{reply}");
    assert!(reply["latency_ms"].is_u64(), "{reply}");
    reply
}

#[track_caller]
fn assert_refused(device: &mut Device, id: &Value, code: &str) -> Value {
    let reply = reply(device, id);
    assert_eq!(reply["error"]["code"], code, "{reply}");
    assert!(reply.get("result").is_none(), "{reply}");
    reply
}

/// What a reply says besides the ids it carries.
fn without_ids(mut reply: Value) -> Value {
    reply.as_object_mut().unwrap().remove("id");
    reply
}

#[test]
fn a_device_reaches_another_of_its_account_and_is_told_how_far_it_came() {
    let node = Node::start(&["reactor.threads=4"]);
    let mut phone = Device::connect_of(&node, "phone-1", "ann");
    let mut tv = Device::connect_of(&node, "tv-1", "ann");
    for (id, wait) in [
        (json!(1), "queued"),
        (json!("b"), "written"),
        (json!([3]), "acked"),
    ] {
        send(
            &mut phone,
            &id,
            "tv-1",
            json!({"wait": wait, "data": {"a": [1, null]}}),
        );
        let message = tv.next();
        assert_eq!(message["type"], "message");
        assert_eq!(message["from"], json!({"device": "phone-1"}));
        assert_eq!(message["data"], json!({"a": [1, null]}));
        assert_eq!(message["ack"] == true, wait == "acked");
        if wait == "acked" {
            tv.acknowledge(&message);
        }
        let reply = reply(&mut phone, &id);
        assert_eq!(reply["result"], wait, "{reply}");
        assert_eq!(reply["level"], wait, "{reply}");
        assert_eq!(reply["message_id"], message["message_id"], "{reply}");
    }
    node.await_metric("tautline_sends_total", "", 3.0);
    node.await_metric("tautline_messages_imbalance", "", 0.0);
}

#[test]
fn bytes_arrive_as_bytes_and_a_raw_line_gets_the_payload_alone() {
    let node = Node::start(&[]);
    let mut phone = Device::connect_of(&node, "phone-1", "ann");
    let mut tv = Device::connect_of(&node, "tv-1", "ann");
    let mut raw = Device::connect_raw_of(&node, "raw-1", "ann");
    let bytes = json!({"type": "send", "id": 1, "to": {"device": "tv-1"}, "data_b64": "/wD+"});
    phone.say(&bytes);
    assert_eq!(tv.next()["data_b64"], "/wD+");
    assert_eq!(reply(&mut phone, &json!(1))["result"], "written");

    send(&mut phone, &json!(2), "raw-1", json!({"data": {"x": 1}}));
    assert_eq!(raw.receive(), Message::text(r#"{"x":1}"#));
    assert_eq!(reply(&mut phone, &json!(2))["result"], "written");
    send(&mut phone, &json!(3), "raw-1", json!({"wait": "acked"}));
    assert_refused(&mut phone, &json!(3), "ack_unsupported");

    raw.send(Message::text(bytes.to_string()));
    assert_eq!(raw.close_code(), 1003, "a raw line cannot send");
}

#[test]
fn away_and_forbidden_look_the_same() {
    let node = Node::start(&["reactor.threads=4"]);
    let mut phone = Device::connect_of(&node, "phone-1", "ann");
    let mut others = [
        Device::connect_of(&node, "tv-bob", "bob"),
        Device::connect(&node, "tv-nobodys"),
    ];
    let mut answers = BTreeSet::new();
    for wait in ["queued", "written", "acked"] {
        for (id, to) in (1..).zip([
            json!({"device": "tv-bob"}),
            json!({"device": "tv-nobodys"}),
            json!({"device": "tv-absent"}),
            json!({"user": "bob"}),
            json!({"user": "absent"}),
            json!({"topic": "news"}),
        ]) {
            phone.say(&json!({"type": "send", "id": id, "to": to, "data": 1, "wait": wait}));
            let refused = assert_refused(&mut phone, &json!(id), "target_unavailable");
            assert_eq!(refused["error"]["retryable"], true);
            let mut refused = without_ids(refused);
            refused.as_object_mut().unwrap().remove("latency_ms");
            answers.insert(refused.to_string());
        }
    }
    assert_eq!(answers.len(), 1, "they can be told apart: {answers:?}");
    for other in &mut others {
        other.assert_alive();
    }
    let mut nobody = Device::connect(&node, "tv-alone");
    send(&mut nobody, &json!(1), "tv-nobodys", json!({}));
    assert_refused(&mut nobody, &json!(1), "target_unavailable");
    node.await_metric("tautline_messages_imbalance", "", 0.0);
}

#[test]
fn a_token_may_name_whom_its_device_reaches() {
    let (hs256, es256) = (Issuer::hs256(SECRET), Issuer::es256());
    let node = jwt_setup(&[], &hs256, &es256, "").start();
    let connect = |device: &str, account: Option<&str>, rights: Value| {
        let mut claims = json!({"sub": device, "exp": now_s() + 600, "may_send_to": rights});
        if let Some(account) = account {
            claims["user_id"] = account.into();
        }
        let path = format!("/ws?token={}", hs256.sign(&claims));
        let mut device = Device::open(node.ready.devices, &path, &[]).unwrap();
        device.await_welcome();
        device
    };
    let mut till = connect("till-1", Some("shop"), json!(["ann", "tv-bob-*", "lamp"]));
    let mut targets = [
        ("tv-ann", connect("tv-ann", Some("ann"), json!([]))),
        ("tv-bob-1", connect("tv-bob-1", Some("bob"), json!([]))),
        ("lamp", connect("lamp", None, json!([]))),
    ];
    for (id, target) in &mut targets {
        send(&mut till, &json!(*id), id, json!({}));
        assert_eq!(target.next()["from"]["device"], "till-1");
        assert_eq!(reply(&mut till, &json!(*id))["result"], "written");
        // Rights go one way.
        send(target, &json!(1), "till-1", json!({}));
        assert_refused(target, &json!(1), "target_unavailable");
    }
    let mut bob = connect("phone-bob", Some("bob"), json!([]));
    send(&mut till, &json!(4), "phone-bob", json!({}));
    assert_refused(&mut till, &json!(4), "target_unavailable");
    for (id, user, result) in [(5, "ann", "written"), (6, "bob", "")] {
        till.say(&json!({"type": "send", "id": id, "to": {"user": user}, "data": 1}));
        assert_eq!(
            reply(&mut till, &json!(id))["result"]
                .as_str()
                .unwrap_or(""),
            result
        );
    }
    assert_eq!(targets[0].1.next()["data"], 1);
    bob.assert_alive();
}

#[test]
fn a_device_may_send_to_itself() {
    let node = Node::start(&[]);
    let mut phone = Device::connect_of(&node, "phone-1", "ann");
    send(&mut phone, &json!(1), "phone-1", json!({}));
    let mut frames = [phone.next(), phone.next()];
    frames.sort_by_key(|frame| frame["type"] == "reply");
    assert_eq!(frames[0]["from"]["device"], "phone-1");
    assert_eq!(frames[1]["result"], "written");
}

#[test]
fn who_does_not_acknowledge_in_time_is_a_timeout_with_the_level_so_far() {
    let node = Node::start(&[]);
    let mut phone = Device::connect_of(&node, "phone-1", "ann");
    let mut tv = Device::connect_of(&node, "tv-1", "ann");
    send(
        &mut phone,
        &json!(1),
        "tv-1",
        json!({"wait": "acked", "timeout_ms": 50}),
    );
    let message = tv.next();
    let refused = assert_refused(&mut phone, &json!(1), "ack_timeout");
    assert_eq!(refused["level"], "written");
    assert_eq!(refused["message_id"], message["message_id"]);
    tv.acknowledge(&message);
    tv.assert_alive();
    phone.assert_alive();

    send(&mut phone, &json!(2), "tv-1", json!({"wait": "acked"}));
    tv.next();
    tv.close();
    let refused = assert_refused(&mut phone, &json!(2), "ack_timeout");
    assert_eq!(refused["level"], "written");
}

#[test]
fn a_message_to_a_device_that_moves_to_a_newer_line_is_delivered_or_refused_never_lost() {
    let node = Node::start(&["reactor.threads=4"]);
    let mut phone = Device::connect_of(&node, "phone-1", "ann");
    let mut old = Device::connect_of(&node, "tv-1", "ann");
    let mut heard = 0;
    for round in 0..20 {
        send(&mut phone, &json!(round), "tv-1", json!({}));
        let mut new = Device::connect_of(&node, "tv-1", "ann");
        let was_written = reply(&mut phone, &json!(round))["result"] == "written";
        let (before, code, _) = old.ending();
        assert_eq!(code, 4502);
        send(&mut phone, &json!("last"), "tv-1", json!({"data": "last"}));
        assert_eq!(reply(&mut phone, &json!("last"))["result"], "written");
        let on_old = before.iter().filter(|frame| frame.is_text()).count();
        let mut on_new = 0;
        while new.next()["data"] != "last" {
            on_new += 1;
        }
        assert!(on_old + on_new <= 1, "one message came twice");
        assert!(on_old + on_new == usize::from(was_written), "round {round}");
        heard += on_old + on_new;
        old = new;
    }
    assert!(heard > 0);
    node.await_metric("tautline_messages_imbalance", "", 0.0);
}

#[test]
fn a_target_that_does_not_read_loses_its_line_and_the_sender_is_told() {
    let node = Node::start(&[
        "limits.outbox_bytes_max=128KiB",
        "limits.bytes_per_second=0",
        "limits.sends_burst=1000",
        "limits.receives_burst=1000",
    ]);
    let mut phone = Device::connect_of(&node, "phone-1", "ann");
    let mut canary = Canary::on(&node);
    let _tv = Line::open_with_small_window(&node, "tv-1&user_id=ann");
    let payload = "x".repeat(60_000);
    let told = (0..400).find_map(|n| {
        send(
            &mut phone,
            &json!(n),
            "tv-1",
            json!({"wait": "queued", "data": payload}),
        );
        let reply = reply(&mut phone, &json!(n));
        reply["error"]["code"].as_str().map(str::to_owned)
    });
    assert_eq!(told.as_deref(), Some("slow_consumer"));
    eventually("offline", || {
        (node.device_status("tv-1") == 404).then_some(())
    });
    canary.survives();
}

#[test]
fn a_reply_that_nobody_waits_for_any_more_is_counted() {
    let node = Node::start(&["reactor.threads=2"]);
    let mut tv = Device::connect_of(&node, "tv-1", "ann");
    let mut phone = Device::connect_of(&node, "phone-1", "ann");
    send(&mut phone, &json!(1), "tv-1", json!({"wait": "acked"}));
    let message = tv.next();
    phone.close();
    phone.ending();
    node.await_metric("tautline_replies_undeliverable_total", "", 1.0);
    tv.acknowledge(&message);
    tv.assert_alive();
    node.await_metric("tautline_messages_ended_total", r#"ending="acked""#, 1.0);
}

#[test]
fn sending_is_bounded_by_the_sender_and_by_the_target() {
    let node = Node::start(&[
        "limits.sends_per_second=1",
        "limits.sends_burst=3",
        "limits.receives_per_second=1",
        "limits.receives_burst=4",
    ]);
    let mut tv = Device::connect_of(&node, "tv-1", "ann");
    let mut phones = ["phone-1", "phone-2"].map(|id| Device::connect_of(&node, id, "ann"));
    let mut results = Vec::new();
    for phone in &mut phones {
        for n in 0..4 {
            send(phone, &json!(n), "tv-1", json!({}));
            let reply = reply(phone, &json!(n));
            let code = reply["error"]["code"].as_str().unwrap_or("written");
            results.push(code.to_owned());
        }
    }
    let refused = results
        .iter()
        .filter(|code| *code == "rate_limited")
        .count();
    // A bucket may gain a token or two meanwhile, but no more.
    assert!((2..=4).contains(&refused), "{results:?}");
    assert_eq!(results[0], "written");
    assert!(node.metric("tautline_sends_rate_limited_total", "") >= 1.0);
    assert!(node.metric("tautline_messages_ended_total", r#"ending="rate_limited""#) >= 1.0);
    // Back ends are not bounded by it.
    for _ in 0..10 {
        assert_eq!(node.push("tv-1", "", b"1").status, 200);
    }
    for _ in 0..8 - refused + 10 {
        tv.next();
    }
    tv.assert_alive();
}

#[test]
fn a_malformed_send_is_answered_and_the_line_stays() {
    let node = Node::start(&[
        "limits.message_bytes_max=1KiB",
        "limits.outbox_bytes_max=2KiB",
    ]);
    let mut phone = Device::connect_of(&node, "phone-1", "ann");
    let long = "x".repeat(300);
    for (send, kind, code) in [
        (
            json!({"to": {"device": "a"}, "data": 1}),
            "error",
            "invalid_body",
        ),
        (
            json!({"id": long, "to": {"device": "a"}, "data": 1}),
            "error",
            "invalid_body",
        ),
        (json!({"id": 1, "data": 1}), "reply", "invalid_body"),
        (
            json!({"id": 1, "to": {"device": "a b"}, "data": 1}),
            "reply",
            "invalid_id",
        ),
        (
            json!({"id": 1, "to": {"device": ""}, "data": 1}),
            "reply",
            "invalid_id",
        ),
        (
            json!({"id": 1, "to": {"user": "a/b"}, "data": 1}),
            "reply",
            "invalid_id",
        ),
        (
            json!({"id": 1, "to": {"device": "a", "user": "b"}, "data": 1}),
            "reply",
            "invalid_body",
        ),
        (
            json!({"id": 1, "to": {"device": "a"}}),
            "reply",
            "invalid_body",
        ),
        (
            json!({"id": 1, "to": {"device": "a"}, "data_b64": "%"}),
            "reply",
            "invalid_body",
        ),
        (
            json!({"id": 1, "to": {"device": "a"}, "data": 1, "wait": "soon"}),
            "reply",
            "invalid_body",
        ),
        (
            json!({"id": 1, "to": {"device": "a"}, "data": 1, "timeout_ms": "9"}),
            "reply",
            "invalid_body",
        ),
    ] {
        let mut send = send;
        send["type"] = "send".into();
        phone.say(&send);
        let answer = phone.next();
        assert_eq!(answer["type"], kind, "{send}: {answer}");
        assert_eq!(answer["error"]["code"], code, "{send}: {answer}");
        if kind == "reply" {
            assert_eq!(answer["id"], 1);
        }
    }
    node.await_metric("tautline_frame_errors_total", "", 11.0);
    phone.assert_alive();
    let too_long =
        json!({"type": "send", "id": 1, "to": {"device": "a"}, "data": "x".repeat(1_100)});
    phone.say(&too_long);
    assert_eq!(phone.close_code(), 1009);
}

#[test]
fn a_pending_id_cannot_be_used_again_and_pending_requests_are_bounded() {
    let node = Node::start(&["limits.sends_burst=200", "limits.receives_burst=200"]);
    let mut phone = Device::connect_of(&node, "phone-1", "ann");
    let mut tv = Device::connect_of(&node, "tv-1", "ann");
    send(&mut phone, &json!("a"), "tv-1", json!({"wait": "acked"}));
    let first = tv.next();
    send(&mut phone, &json!("a"), "tv-1", json!({"data": "again"}));
    let error = phone.next();
    assert_eq!(
        (&error["type"], &error["id"]),
        (&json!("error"), &json!("a"))
    );
    assert_eq!(error["error"]["code"], "bad_request");
    tv.acknowledge(&first);
    assert_eq!(reply(&mut phone, &json!("a"))["result"], "acked");
    send(&mut phone, &json!("a"), "tv-1", json!({}));
    tv.next();
    assert_eq!(reply(&mut phone, &json!("a"))["result"], "written");

    for n in 0..65 {
        send(&mut phone, &json!(n), "tv-1", json!({"wait": "acked"}));
    }
    assert_refused(&mut phone, &json!(64), "rate_limited");
    for n in 0..64 {
        let message = tv.next();
        tv.acknowledge(&message);
        assert_eq!(reply(&mut phone, &json!(n))["result"], "acked");
    }
}

#[test]
fn a_thousand_messages_of_one_device_arrive_in_order() {
    let node = Node::start(&[
        "reactor.threads=4",
        "limits.sends_burst=2000",
        "limits.receives_burst=2000",
        "limits.frames_per_second=0",
    ]);
    let mut phone = Device::connect_of(&node, "phone-1", "ann");
    let mut tv = Device::connect_of(&node, "tv-1", "ann");
    for batch in 0..20 {
        for n in batch * 50..(batch + 1) * 50 {
            send(
                &mut phone,
                &json!(n),
                "tv-1",
                json!({"data": n, "wait": "queued"}),
            );
        }
        for n in batch * 50..(batch + 1) * 50 {
            assert_eq!(tv.next()["data"], n);
            assert_eq!(phone.next()["type"], "reply");
        }
    }
}

#[test]
fn a_send_in_the_frame_after_the_token_is_taken_up() {
    let (hs256, es256) = (Issuer::hs256(SECRET), Issuer::es256());
    let node = jwt_setup(&[], &hs256, &es256, "").start();
    let claims = json!({"sub": "phone-1", "user_id": "ann", "exp": now_s() + 600});
    let hello = json!({"type": "hello", "token": hs256.sign(&claims)}).to_string();
    let send = json!({"type": "send", "id": 1, "to": {"device": "phone-1"}, "data": 7}).to_string();
    let mut stream = crate::line::connect(node.ready.devices, None);
    use std::io::Write as _;
    stream
        .write_all(crate::line::request("/ws", "").as_bytes())
        .unwrap();
    let mut line = Line::of(stream);
    assert!(line.head().starts_with("HTTP/1.1 101 "));
    assert!(line.send([frame(TEXT, hello), frame(TEXT, send)].concat()));
    let kinds: Vec<_> = (0..3)
        .map(|_| {
            let frame = line.frame().unwrap();
            let frame: Value = serde_json::from_slice(&frame.payload).unwrap();
            frame["type"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(kinds[0], "welcome");
    assert!(kinds.contains(&"message".to_owned()) && kinds.contains(&"reply".to_owned()));
}
