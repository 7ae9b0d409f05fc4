//! Many messages in one request.

use serde_json::{Value, json};

use crate::device::Device;
use crate::http::Answer;
use crate::node::{JSON_CONTENT_TYPE, Node};

const BATCH: &str = "/v1/messages:batch";

fn send(node: &Node, query: &str, batch: &Value) -> Answer {
    let path = format!("{BATCH}{query}");
    node.request(
        "POST",
        &path,
        &[JSON_CONTENT_TYPE],
        batch.to_string().as_bytes(),
    )
}

fn results(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["results"].as_array().unwrap().clone()
}

fn to(device: &str, data: impl Into<Value>) -> Value {
    json!({"to": {"device": device}, "data": data.into()})
}

#[test]
fn a_batch_answers_for_each_of_its_messages_in_order() {
    let node = Node::start(&["limits.message_bytes_max=1KiB"]);
    let mut first = Device::connect(&node, "tv-1");
    let mut second = Device::connect(&node, "tv-2");
    let _raw = Device::connect_raw(&node, "tv-raw");
    let mut acked = to("tv-raw", 1);
    acked["wait"] = json!("acked");
    let mut queued = to("tv-2", "b64");
    queued["wait"] = json!("queued");
    let mut bound = to("tv-2", 1);
    bound["connection_id"] = json!(first.connection_id());
    let batch = json!({"messages": [
        to("tv-1", 1),
        to("nobody", 1),
        queued,
        to("a b", 1),
        {"to": {"device": "tv-1"}, "data": 1, "dat": 2},
        {"to": {"user": "ann"}, "data": 1},
        {"data": 1},
        7,
        acked,
        bound,
        to("tv-1", "x".repeat(2_000)),
        to("tv-1", 2),
    ]});
    let results = results(&send(&node, "", &batch));
    let seen: Vec<_> = results
        .iter()
        .map(|result| {
            let word = result["error"]["code"]
                .as_str()
                .or_else(|| result["result"].as_str());
            (result["status"].as_u64().unwrap(), word.unwrap())
        })
        .collect();
    assert_eq!(
        seen,
        [
            (200, "written"),
            (404, "device_offline"),
            (202, "queued"),
            (400, "invalid_id"),
            (400, "unknown_field"),
            (400, "unknown_field"),
            (400, "invalid_body"),
            (400, "invalid_body"),
            (400, "ack_unsupported"),
            (410, "connection_gone"),
            (413, "payload_too_large"),
            (200, "written"),
        ]
    );
    let message = first.next();
    assert_eq!(
        (&message["data"], &message["message_id"]),
        (&json!(1), &results[0]["message_id"])
    );
    assert_eq!(first.next()["data"], 2);
    assert_eq!(second.next()["data"], "b64");
    second.assert_alive();
}

#[test]
fn a_thousand_messages_arrive_in_order_and_others_have_their_turn() {
    let node = Node::start(&["reactor.threads=1"]);
    let mut devices = ["tv-0", "tv-1", "tv-2"].map(|id| Device::connect(&node, id));
    let before = node.metric("tautline_iterations_total", "");
    let messages: Vec<_> = (0..1_000)
        .map(|n| to(&format!("tv-{}", n % 3), n))
        .collect();
    let results = results(&send(
        &node,
        "?wait=written",
        &json!({"messages": messages}),
    ));
    assert_eq!(results.len(), 1_000);
    assert!(
        results.iter().all(|result| result["status"] == 200),
        "{results:?}"
    );
    for n in 0..1_000 {
        assert_eq!(devices[n % 3].next()["data"], n);
    }
    // 64 per iteration at most.
    let iterations = node.metric("tautline_iterations_total", "") - before;
    assert!(iterations >= 15.0, "{iterations}");
    node.await_metric("tautline_messages_imbalance", "", 0.0);
}

#[test]
fn what_a_message_leaves_out_is_said_by_the_query() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    let mut own = to("tv-1", 2);
    own["wait"] = json!("queued");
    let batch = json!({"messages": [to("tv-1", 1), own]});
    let results = results(&send(&node, "?wait=acked&timeout_ms=300", &batch));
    assert_eq!(results[0]["status"], 504);
    assert_eq!(results[0]["error"]["level"], "written");
    assert_eq!(results[1]["result"], "queued");
    assert_eq!(device.next()["ack"], true);
    assert!(device.next().get("ack").is_none());
}

#[test]
fn a_message_of_a_batch_has_its_own_idempotency_key() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    let keyed = |n: u32| {
        let mut message = to("tv-1", n);
        message["idempotency_key"] = json!(format!("k-{n}"));
        message
    };
    let first = results(&send(&node, "", &json!({"messages": [keyed(1), keyed(2)]})));
    let again = results(&send(&node, "", &json!({"messages": [keyed(2), keyed(3)]})));
    assert_eq!(again[0], first[1]);
    for n in 1..4 {
        assert_eq!(device.next()["data"], n);
    }
    device.assert_alive();
}

#[test]
fn a_batch_that_makes_no_sense_is_refused_whole() {
    let node = Node::start(&["api.batch_messages_max=2"]);
    let mut device = Device::connect(&node, "tv-1");
    let good = to("tv-1", 1);
    for (batch, status, code) in [
        (json!([good]), 400, "invalid_body"),
        (json!({}), 400, "invalid_body"),
        (json!({"messages": good}), 400, "invalid_body"),
        (
            json!({"messages": [good], "wait": "acked"}),
            400,
            "unknown_field",
        ),
        (
            json!({"messages": [good, good, good]}),
            413,
            "payload_too_large",
        ),
    ] {
        send(&node, "", &batch).assert_error(status, code);
    }
    send(&node, "?wait=soon", &json!({"messages": []})).assert_error(400, "bad_request");
    let body = json!({"messages": [good]}).to_string();
    for name in ["TTL", "Topic", "Idempotency-Key"] {
        let answer = node.request(
            "POST",
            BATCH,
            &[JSON_CONTENT_TYPE, (name, "1")],
            body.as_bytes(),
        );
        answer.assert_error(400, "bad_request");
    }
    assert_eq!(
        send(&node, "", &json!({"messages": []})).json(),
        json!({"results": []})
    );
    node.request("GET", BATCH, &[], b"")
        .assert_error(405, "method_not_allowed");
    device.assert_alive();
    assert_eq!(node.metric("tautline_messages_submitted_total", ""), 0.0);
}

/// Longer than what is made of an answer at once, to somebody whose socket takes all of it.
#[test]
fn a_long_answer_arrives_whole() {
    let node = Node::start(&[]);
    let messages: Vec<_> = (0..1_000).map(|_| to("nobody", 1)).collect();
    let batch = json!({ "messages": messages }).to_string();
    let id = "r".repeat(128);
    let headers = [JSON_CONTENT_TYPE, ("X-Request-Id", &*id)];
    let answer = node.request("POST", BATCH, &headers, batch.as_bytes());
    assert_eq!(results(&answer).len(), 1_000);
    assert!(answer.text().len() > 256 * 1024, "{}", answer.text().len());
}
