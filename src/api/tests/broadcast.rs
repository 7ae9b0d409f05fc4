//! `/v1/broadcasts`.

use super::*;
use crate::mailbox::command::Completion;
use crate::wire::answer::REPLAYED;
use crate::wire::broadcast::{BroadcastList, BroadcastState};

/// What a shard does that is through with a broadcast.
fn end(completion: &Completion, shard: usize, written: u64) {
    let Completion::Broadcast(broadcast) = completion else {
        panic!("{completion:?}");
    };
    let progress = &broadcast.standing.progress[shard];
    progress.lines.add(written);
    progress.endings[0].add(written);
    progress.ended_ms.add(1);
}

#[tokio::test]
async fn a_broadcast_is_told_to_all_shards_and_adds_up_what_they_say() {
    let mut bench = Bench::new(&Config::default());
    let answer = bench.call_with(Method::POST, "/v1/broadcasts", HeaderMap::new(), "hello");
    let answer = answer.await;
    assert_eq!(answer.status(), 202);
    let begun: BroadcastStatus = answer.read();
    assert_eq!(
        (begun.state, begun.service.as_str()),
        (BroadcastState::Running, "dev")
    );
    let path = format!("/v1/broadcasts/{}", begun.broadcast_id);
    for (shard, mailbox) in bench.mailboxes.iter_mut().enumerate() {
        let mut completions = Vec::new();
        mailbox.receive(&mut Vec::new(), &mut completions, 0);
        end(&completions[0], shard, 5);
    }
    let done: BroadcastStatus = bench.call(Method::GET, &path).await.read();
    assert_eq!(
        (done.state, done.lines, done.written),
        (BroadcastState::Done, 10, 10)
    );
    assert!(done.ended_ms.is_some());
    // It is too late to cancel it.
    let cancelled: BroadcastStatus = bench.call(Method::DELETE, &path).await.read();
    assert_eq!(cancelled.state, BroadcastState::Done);
    let unknown = "/v1/broadcasts/00000000000000000000000000";
    for (method, path) in [(Method::GET, unknown), (Method::DELETE, "/v1/broadcasts/x")] {
        assert_eq!(bench.call(method, path).await.error(), "unknown_broadcast");
    }
}

#[tokio::test]
async fn broadcasts_are_bounded_repeated_once_and_remembered_for_a_while() {
    let mut config = Config::default();
    config.broadcast.running_max = 2;
    let mut bench = Bench::new(&config);
    let begin = async |bench: &Bench, key: Option<&'static str>, body: &'static str| {
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            headers.insert("idempotency-key", key.parse().unwrap());
        }
        let answer = bench.call_with(Method::POST, "/v1/broadcasts", headers, body);
        answer.await
    };
    let first = begin(&bench, Some("k"), "1").await;
    let again = begin(&bench, Some("k"), "1").await;
    assert_eq!(again.parts.headers[REPLAYED], "true");
    let (first, again) = (
        first.read::<BroadcastStatus>(),
        again.read::<BroadcastStatus>(),
    );
    assert_eq!(first.broadcast_id, again.broadcast_id);
    let other = begin(&bench, Some("k"), "2").await;
    assert_eq!(other.error(), "idempotency_conflict");
    begin(&bench, None, "2").await;
    let third = begin(&bench, None, "3").await;
    assert_eq!(third.error(), "overloaded");
    let path = format!("/v1/broadcasts/{}", first.broadcast_id);
    let cancelled: BroadcastStatus = bench.call(Method::DELETE, &path).await.read();
    assert_eq!(cancelled.state, BroadcastState::Cancelled);
    assert_eq!(
        begin(&bench, None, "3").await.error(),
        "overloaded",
        "until the shards have stopped"
    );
    for _ in 0..70 {
        for (shard, mailbox) in bench.mailboxes.iter_mut().enumerate() {
            let mut completions = Vec::new();
            mailbox.receive(&mut Vec::new(), &mut completions, 0);
            completions
                .iter()
                .for_each(|completion| end(completion, shard, 1));
        }
        assert_eq!(begin(&bench, None, "3").await.status(), 202);
    }
    let list: BroadcastList = bench.call(Method::GET, "/v1/broadcasts").await.read();
    assert_eq!(list.broadcasts.len(), 64);
    assert!(
        list.broadcasts
            .is_sorted_by(|a, b| a.broadcast_id > b.broadcast_id)
    );
    assert_eq!(
        bench.call(Method::GET, &path).await.error(),
        "unknown_broadcast"
    );
}

#[tokio::test]
async fn a_broadcast_that_makes_no_sense_names_its_fault() {
    let bench = Bench::new(&Config::default());
    for (body, code) in [
        ("{", "invalid_body"),
        ("{}", "invalid_body"),
        (r#"{"data":1,"labels":{"a":1}}"#, "invalid_body"),
        (r#"{"data":1,"protocol":"x"}"#, "invalid_body"),
        (r#"{"data":1,"wait":"acked"}"#, "unknown_field"),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
        let answer = bench.call_with(Method::POST, "/v1/broadcasts", headers, body);
        assert_eq!(answer.await.error(), code, "{body}");
    }
    let query = bench.call(Method::POST, "/v1/broadcasts?wait=acked").await;
    assert_eq!(query.error(), "bad_request");
    let mut headers = HeaderMap::new();
    headers.insert("topic", "score".parse().unwrap());
    let topic = bench.call_with(Method::POST, "/v1/broadcasts", headers, "1");
    assert_eq!(topic.await.error(), "bad_request");
}
