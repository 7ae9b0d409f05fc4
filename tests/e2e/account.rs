//! The devices of an account: as a target, as a list, and as they come and go.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tungstenite::Message;

use crate::device::Device;
use crate::http::Http;
use crate::node::{BINARY, CURL_CONTENT_TYPE, Node};
use crate::token::{Issuer, SECRET, jwt_setup, now_s};

fn ids(devices: &Value) -> BTreeSet<String> {
    let devices = devices.as_array().expect("a list of devices").iter();
    devices
        .map(|device| device["device_id"].as_str().unwrap().to_owned())
        .collect()
}

fn connect_all(node: &Node, account: &str, ids: &[&str]) -> Vec<Device> {
    let devices: Vec<_> = ids
        .iter()
        .map(|id| Device::connect_of(node, id, account))
        .collect();
    await_devices(node, account, ids.len());
    devices
}

/// A line enters its account at the end of the iteration in which it is welcomed.
fn await_devices(node: &Node, account: &str, count: usize) {
    crate::deadline::eventually("the devices are listed", || {
        let page = list(node, account, "?limit=1000");
        (page["devices"].as_array()?.len() == count).then_some(())
    });
}

fn list(node: &Node, account: &str, query: &str) -> Value {
    let path = format!("/v1/users/{account}/devices{query}");
    let answer = node.request("GET", &path, &[], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn push(node: &Node, account: &str, query: &str) -> crate::http::Answer {
    let path = format!("/v1/users/{account}/messages{query}");
    node.request("POST", &path, &[CURL_CONTENT_TYPE], b"{\"hi\":1}")
}

/// Begins to watch and returns the devices shown.
fn watch(device: &mut Device) -> BTreeSet<String> {
    device.say(&json!({"type": "watch", "id": "w"}));
    let mut shown = BTreeSet::new();
    loop {
        let page = device.next();
        assert_eq!(
            (&page["type"], &page["id"]),
            (&json!("devices"), &json!("w")),
            "{page}"
        );
        for id in ids(&page["devices"]) {
            assert!(shown.insert(id), "{page}");
        }
        if page["more"] == false {
            return shown;
        }
    }
}

#[track_caller]
fn assert_presence(device: &mut Device, id: &str, state: &str, cause: &str) {
    let told = device.next();
    assert_eq!(told["type"], "presence", "{told}");
    assert_eq!(
        (&told["device_id"], &told["state"], &told["cause"]),
        (&json!(id), &json!(state), &json!(cause)),
        "{told}"
    );
    assert!(
        told["at_ms"].as_u64().unwrap() > 1_600_000_000_000,
        "{told}"
    );
}

#[test]
fn a_message_to_an_account_reaches_all_its_devices_and_nobody_else() {
    let node = Node::start(&["reactor.threads=4"]);
    let mut devices = connect_all(&node, "ann", &["tv-1", "tv-2", "phone-1"]);
    let mut other = Device::connect_of(&node, "tv-bob", "bob");
    let answer = push(&node, "ann", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!(
        (&body["result"], &body["level"]),
        (&json!("written"), &json!("written"))
    );
    assert_eq!(body["devices"], json!({"targets": 3, "reached": 3}));
    assert_eq!(ids(&body["results"]).len(), 3, "{body}");
    for result in body["results"].as_array().unwrap() {
        assert_eq!(result["level"], "written", "{result}");
        assert!(result["connection_id"].is_string() && result.get("error").is_none());
    }
    for device in &mut devices {
        let message = device.next();
        assert_eq!(message["data"], json!({"hi": 1}));
        assert_eq!(message["from"], json!({"service": "dev"}));
        assert_eq!(message["message_id"], body["message_id"]);
    }
    other.assert_alive();
    assert_eq!(push(&node, "ann", "?wait=queued").status, 202);
    push(&node, "nobody", "").assert_error(404, "device_offline");
    push(&node, "a%20b", "").assert_error(400, "invalid_id");
    node.await_metric("tautline_messages_imbalance", "", 0.0);
    node.await_metric("tautline_fanouts_total", "", 2.0);
}

#[test]
fn a_send_to_an_account_says_which_devices_it_did_not_reach() {
    let node = Node::start(&["reactor.threads=2"]);
    let mut tv = Device::connect_of(&node, "tv-1", "ann");
    let _silent = Device::connect_of(&node, "tv-2", "ann");
    let _raw = Device::connect_raw_of(&node, "raw-1", "ann");
    await_devices(&node, "ann", 3);
    let asker = std::thread::spawn({
        let (api, path) = (
            node.ready.api,
            "/v1/users/ann/messages?wait=acked&timeout_ms=300",
        );
        move || Http::connect(api).request("POST", path, &[CURL_CONTENT_TYPE], b"1")
    });
    let message = tv.next();
    tv.acknowledge(&message);
    let answer = asker.join().unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["devices"], json!({"targets": 3, "reached": 1}));
    let of = |id: &str| {
        let results = body["results"].as_array().unwrap();
        results
            .iter()
            .find(|result| result["device_id"] == id)
            .unwrap()
            .clone()
    };
    assert_eq!(of("tv-1")["level"], "acked");
    assert_eq!(
        (&of("tv-2")["level"], &of("tv-2")["error"]),
        (&json!("written"), &json!("ack_timeout"))
    );
    assert_eq!(of("raw-1")["error"], "ack_unsupported");

    // When nobody is reached, the answer is an error.
    drop(tv);
    await_devices(&node, "ann", 2);
    let answer = push(&node, "ann", "?wait=acked&timeout_ms=100");
    answer.assert_error(504, "ack_timeout");
    assert_eq!(answer.json()["error"]["level"], "written");
}

#[test]
fn a_device_sends_to_the_others_of_its_account_in_the_order_of_its_sends() {
    let node = Node::start(&["reactor.threads=4", "limits.sends_burst=1000"]);
    let mut phone = Device::connect_of(&node, "phone-1", "ann");
    let names: Vec<_> = (0..6).map(|n| format!("tv-{n}")).collect();
    let mut tvs: Vec<_> = names
        .iter()
        .map(|id| Device::connect_of(&node, id, "ann"))
        .collect();
    await_devices(&node, "ann", 7);
    for n in 0..30 {
        let to = if n % 3 == 0 {
            json!({"user": "ann"})
        } else {
            json!({"device": "tv-0"})
        };
        phone.say(&json!({"type": "send", "id": n, "to": to, "data": n}));
    }
    let mut replies: Vec<_> = (0..30).map(|_| phone.next()).collect();
    replies.sort_by_key(|reply| reply["id"].as_u64());
    for (n, reply) in replies.iter().enumerate() {
        assert_eq!(
            reply["type"], "reply",
            "the sender gets nothing of its own: {reply}"
        );
        assert_eq!(reply["result"], "written", "{reply}");
        let expected = if n % 3 == 0 {
            json!({"targets": 6, "reached": 6})
        } else {
            Value::Null
        };
        assert_eq!(reply["devices"], expected, "{reply}");
    }
    for (t, tv) in tvs.iter_mut().enumerate() {
        for n in (0..30).filter(|n| t == 0 || n % 3 == 0) {
            assert_eq!(tv.next()["data"], n, "tv-{t}");
        }
        tv.assert_alive();
    }
}

#[test]
fn an_account_with_no_other_device_is_no_target() {
    let node = Node::start(&[]);
    let mut phone = Device::connect_of(&node, "phone-1", "ann");
    phone.say(&json!({"type": "send", "id": 1, "to": {"user": "ann"}, "data": 1}));
    let reply = phone.next();
    assert_eq!(reply["error"]["code"], "target_unavailable", "{reply}");
}

#[test]
fn the_list_has_all_devices_of_the_account_in_pages() {
    let node = Node::start(&["reactor.threads=4"]);
    let names: Vec<_> = (0..25).map(|n| format!("tv-{n:02}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut devices = connect_all(&node, "ann", &names);
    let _other = Device::connect_of(&node, "tv-bob", "bob");
    let expected: BTreeSet<_> = names.iter().map(ToString::to_string).collect();

    let mut listed = BTreeSet::new();
    let mut cursor = String::new();
    loop {
        let page = list(&node, "ann", &format!("?limit=10{cursor}"));
        let found = ids(&page["devices"]);
        assert!(found.len() <= 10);
        listed.extend(found);
        for device in page["devices"].as_array().unwrap() {
            assert_eq!(device["state"], "online");
            assert!(device["connection_id"].is_string() && device["since_ms"].is_u64());
        }
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(listed, expected);

    let asker = &mut devices[0];
    let mut listed = BTreeSet::new();
    let mut request = json!({"type": "list", "id": "l", "limit": 10});
    loop {
        asker.say(&request);
        let page = asker.next();
        assert_eq!(
            (&page["type"], &page["id"]),
            (&json!("devices"), &json!("l")),
            "{page}"
        );
        listed.extend(ids(&page["devices"]));
        if page["cursor"].is_null() {
            break;
        }
        request["cursor"] = page["cursor"].clone();
    }
    assert_eq!(listed, expected);

    assert_eq!(list(&node, "nobody", "")["devices"], json!([]));
    for (path, code) in [
        ("/v1/users/a%20b/devices", "invalid_id"),
        ("/v1/users/ann/devices?limit=0", "bad_request"),
        ("/v1/users/ann/devices?limit=1001", "bad_request"),
        ("/v1/users/ann/devices?cursor=x", "bad_request"),
        ("/v1/users/ann/devices?page=2", "bad_request"),
    ] {
        node.request("GET", path, &[], b"").assert_error(400, code);
    }
    for bad in [
        json!({"limit": 0}),
        json!({"limit": 501}),
        json!({"limit": "x"}),
        json!({"cursor": "x"}),
        json!({"cursor": 7}),
    ] {
        let mut request = json!({"type": "list", "id": 1});
        request
            .as_object_mut()
            .unwrap()
            .extend(bad.as_object().unwrap().clone());
        asker.say(&request);
        let reply = asker.next();
        assert_eq!(
            (&reply["type"], &reply["error"]["code"]),
            (&json!("reply"), &json!("bad_request")),
            "{bad}"
        );
    }
}

#[test]
fn a_device_without_an_account_has_no_list() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    for kind in ["list", "watch", "unwatch"] {
        device.say(&json!({"type": kind, "id": 1}));
        let reply = device.next();
        assert_eq!(
            (&reply["type"], &reply["error"]["code"]),
            (&json!("reply"), &json!("forbidden")),
            "{kind}"
        );
        device.say(&json!({"type": kind}));
        assert_eq!(
            device.next()["error"]["code"],
            "invalid_body",
            "{kind} without an id"
        );
    }
}

#[test]
fn a_watcher_is_shown_what_is_there_and_told_what_changes() {
    let node = Node::start(&["reactor.threads=4", "presence.offline_after=300ms"]);
    let mut phone = Device::connect_of(&node, "phone-1", "ann");
    let mut tv = Device::connect_of(&node, "tv-1", "ann");
    await_devices(&node, "ann", 2);
    let shown = watch(&mut phone);
    assert_eq!(shown, BTreeSet::from(["phone-1".into(), "tv-1".into()]));
    node.await_metric("tautline_watches", "", 1.0);

    let _other = Device::connect_of(&node, "tv-bob", "bob");
    let _second = Device::connect_of(&node, "tv-2", "ann");
    assert_presence(&mut phone, "tv-2", "online", "connected");
    tv.close();
    assert_presence(&mut phone, "tv-1", "offline", "peer_closed");
    let _tv = Device::connect_of(&node, "tv-1", "ann");
    assert_presence(&mut phone, "tv-1", "online", "connected");

    phone.say(&json!({"type": "unwatch", "id": 9}));
    let reply = phone.next();
    assert_eq!((&reply["type"], &reply["id"]), (&json!("reply"), &json!(9)));
    assert!(reply.get("error").is_none(), "{reply}");
    node.await_metric("tautline_watches", "", 0.0);
    let _third = Device::connect_of(&node, "tv-3", "ann");
    await_devices(&node, "ann", 4);
    phone.assert_alive();
}

#[test]
fn a_device_that_is_back_soon_was_never_away() {
    let node = Node::start(&["reactor.threads=4", "presence.offline_after=1h"]);
    let mut phone = Device::connect_of(&node, "phone-1", "ann");
    let mut tv = Device::connect_of(&node, "tv-1", "ann");
    await_devices(&node, "ann", 2);
    watch(&mut phone);
    for round in 0..5 {
        if round % 2 == 0 {
            tv.close();
            assert_eq!(tv.close_code(), 1005);
            await_devices(&node, "ann", 1);
        }
        // Else the new line replaces the old one.
        tv = Device::connect_of(&node, "tv-1", "ann");
        await_devices(&node, "ann", 2);
    }
    // What is told comes in order: nothing came before this.
    let _last = Device::connect_of(&node, "tv-2", "ann");
    assert_presence(&mut phone, "tv-2", "online", "connected");
    node.await_metric("tautline_presence_told_total", "", 1.0);
}

#[test]
fn a_line_that_is_asked_to_leave_is_told_of_as_moving() {
    let node = Node::start(&[
        "lifetime.age_max=1500ms",
        "lifetime.age_jitter=0s",
        "lifetime.goaway_grace=20s",
    ]);
    let mut tv = Device::connect_of(&node, "tv-1", "ann");
    let mut phone = Device::connect_of(&node, "phone-1", "ann");
    await_devices(&node, "ann", 2);
    watch(&mut phone);
    assert_eq!(tv.next()["type"], "goaway");
    let told = loop {
        let frame = phone.next();
        if frame["device_id"] == "tv-1" {
            break frame;
        }
    };
    assert_eq!(
        (&told["state"], &told["cause"]),
        (&json!("moving"), &json!("max_age")),
        "{told}"
    );
    let page = list(&node, "ann", "");
    let of_tv = page["devices"]
        .as_array()
        .unwrap()
        .iter()
        .find(|device| device["device_id"] == "tv-1");
    assert_eq!(of_tv.unwrap()["state"], "moving");
    let _tv = Device::connect_of(&node, "tv-1", "ann");
    let told = loop {
        let frame = phone.next();
        if frame["device_id"] == "tv-1" {
            break frame;
        }
    };
    assert_eq!(
        (&told["state"], &told["cause"]),
        (&json!("online"), &json!("connected")),
        "{told}"
    );
}

#[test]
fn many_watchers_hear_the_same_and_there_is_a_bound() {
    let node = Node::start(&["reactor.threads=4", "limits.handshakes_max=1000"]);
    let mut watchers: Vec<_> = (0..100)
        .map(|n| Device::connect_of(&node, &format!("w-{n:03}"), "ann"))
        .collect();
    await_devices(&node, "ann", 100);
    for watcher in &mut watchers {
        assert_eq!(watch(watcher).len(), 100);
    }
    let mut late = Device::connect_of(&node, "late", "ann");
    for watcher in &mut watchers {
        assert_presence(watcher, "late", "online", "connected");
    }
    late.say(&json!({"type": "watch", "id": 1}));
    let reply = late.next();
    assert_eq!(reply["error"]["code"], "overloaded", "{reply}");
    // A place that was given up can be had.
    watchers.pop();
    let shown = crate::deadline::eventually("a place among the watchers", || {
        late.say(&json!({"type": "watch", "id": "w"}));
        let answer = late.next();
        (answer["type"] == "devices").then(|| ids(&answer["devices"]))
    });
    assert!(shown.len() >= 100);
    assert_eq!(node.metric("tautline_watches", ""), 100.0);
}

#[test]
fn a_watch_begun_again_shows_everything_again() {
    let node = Node::start(&["reactor.threads=4"]);
    let mut phone = Device::connect_of(&node, "phone-1", "ann");
    for n in 0..10 {
        let _tv = Device::connect_of(&node, &format!("tv-{n}"), "ann");
        await_devices(&node, "ann", 2);
        let shown = watch(&mut phone);
        assert!(
            shown.contains("phone-1") && shown.contains(&format!("tv-{n}")),
            "{shown:?}"
        );
        assert_eq!(node.metric("tautline_watches", ""), 1.0);
        phone.say(&json!({"type": "unwatch", "id": 0}));
        while phone.next()["type"] != "reply" {}
        drop(_tv);
        await_devices(&node, "ann", 1);
    }
}

#[test]
fn a_token_of_another_account_moves_the_line_there() {
    let (hs256, es256) = (Issuer::hs256(SECRET), Issuer::es256());
    let node = jwt_setup(&["presence.offline_after=100ms"], &hs256, &es256, "").start();
    let token = |device: &str, account: &str| {
        hs256.sign(&json!({"sub": device, "user_id": account, "exp": now_s() + 600}))
    };
    let connect = |device: &str, account: &str| {
        let path = format!("/ws?token={}", token(device, account));
        let mut device = Device::open(node.ready.devices, &path, &[]).unwrap();
        device.await_welcome();
        device
    };
    let (mut ann, mut bob) = (connect("phone-ann", "ann"), connect("phone-bob", "bob"));
    let mut tv = connect("tv-1", "ann");
    let expect = |account: &str, count| await_devices(&node, account, count);
    expect("ann", 2);
    expect("bob", 1);
    watch(&mut ann);
    watch(&mut bob);
    watch(&mut tv);
    tv.say(&json!({"type": "refresh", "token": token("tv-1", "bob")}));
    assert_presence(&mut bob, "tv-1", "online", "connected");
    assert_presence(&mut ann, "tv-1", "offline", "peer_closed");
    expect("ann", 1);
    expect("bob", 2);
    assert_eq!(
        node.metric("tautline_watches", ""),
        2.0,
        "the line watches no account that it has left"
    );
    bob.say(&json!({"type": "send", "id": 1, "to": {"user": "bob"}, "data": 1}));
    assert_eq!(tv.next()["data"], 1);
    ann.say(&json!({"type": "send", "id": 1, "to": {"device": "tv-1"}, "data": 1}));
    assert_eq!(ann.next()["error"]["code"], "target_unavailable");
}

#[test]
fn a_token_of_an_account_that_is_full_moves_no_line_there() {
    let (hs256, es256) = (Issuer::hs256(SECRET), Issuer::es256());
    let limits = ["limits.connections_per_account=1", "reactor.threads=2"];
    let node = jwt_setup(&limits, &hs256, &es256, "").start();
    let token = |device: &str, account: &str| {
        hs256.sign(&json!({"sub": device, "user_id": account, "exp": now_s() + 600}))
    };
    let connect = |device: &str, account: &str| {
        let path = format!("/ws?token={}", token(device, account));
        let mut device = Device::open(node.ready.devices, &path, &[]).unwrap();
        device.await_welcome();
        device
    };
    let (phone, mut tv) = (connect("phone-1", "ann"), connect("tv-1", "bob"));
    let move_to_ann = json!({"type": "refresh", "token": token("tv-1", "ann")});
    tv.say(&move_to_ann);
    assert_eq!(tv.next()["error"]["code"], "rate_limited");
    await_devices(&node, "ann", 1);
    await_devices(&node, "bob", 1);
    drop(phone);
    await_devices(&node, "ann", 0);
    tv.say(&move_to_ann);
    await_devices(&node, "ann", 1);
    tv.assert_alive();
}

#[test]
fn a_reload_changes_what_devices_may_send() {
    let setup =
        crate::node::Setup::new(&[]).config("[limits]\nsends_burst = 1\nsends_per_second = 1\n");
    let node = setup.start();
    std::fs::write(
        node.dir().join("tautline.toml"),
        "[limits]\nsends_burst = 50\n",
    )
    .unwrap();
    node.signal(Signal::SIGHUP);
    let mut phone = Device::connect_of(&node, "phone-1", "ann");
    crate::deadline::eventually("ten sends at once", || {
        // Another device each time: an allowance in use keeps its size.
        phone = Device::connect_of(&node, "phone-1", "ann");
        let sends = (0..10)
            .map(|n| json!({"type": "send", "id": n, "to": {"device": "phone-1"}, "data": n}));
        sends.for_each(|send| phone.send(Message::text(send.to_string())));
        phone.set_patience(Duration::from_secs(20));
        let mut refused = 0;
        let mut replies = 0;
        while replies < 10 {
            let frame = phone.next();
            replies += usize::from(frame["type"] == "reply");
            refused += usize::from(frame["error"]["code"] == "rate_limited");
        }
        (refused == 0).then_some(())
    });
}

#[test]
fn the_command_line_lists_an_account_and_shows_who_sent() {
    let node = Node::start(&[]);
    let run = |arguments: &[&str]| {
        let output = node.tautline(arguments);
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let (is_success, text) = run(&["devices", "--user", "ann"]);
    assert!(!is_success && text.is_empty(), "{text}");
    let mut phone = Device::connect_of(&node, "phone-1", "ann");
    await_devices(&node, "ann", 1);
    let (is_success, text) = run(&["devices", "--user", "ann"]);
    assert!(
        is_success && text.starts_with("phone-1  online  "),
        "{text}"
    );
    let (_, text) = run(&["devices", "--user", "ann", "--json"]);
    let device: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(device["connection_id"], phone.connection_id());

    let url = format!("ws://{}/ws", node.ready.devices);
    let mut command = Command::new(BINARY);
    command.args(["listen", "tv-1", "--user", "ann", "--once", "--url", &url]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let listener = command.spawn().unwrap();
    await_devices(&node, "ann", 2);
    phone.say(&json!({"type": "send", "id": 1, "to": {"user": "ann"}, "data": "hi"}));
    assert_eq!(phone.next()["devices"], json!({"targets": 1, "reached": 1}));
    let output = listener.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "phone-1: \"hi\"\n"
    );
}
