//! The control plane's calls, without sockets: requests into the router, answers out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;
use utoipa::OpenApi;

use super::*;
use crate::api::openapi::Document;
use crate::base::id::{ConnId, Location, NodeEpoch, ShardId};
use crate::config::Config;
use crate::config::section::{ApiKey, ApiRole};
use crate::mailbox::command::{Listing, Mailbox};
use crate::mailbox::queue;
use crate::metrics::node_cells;
use crate::net::tls::policy::TlsCell;
use crate::reactor::idempotency::Window;
use crate::route::account::Accounts;
use crate::route::event::Feed;
use crate::route::presence::Presence;
use crate::wire::answer::REQUEST_ID;
use crate::wire::api::{ConnectionInfo, ConnectionPage, ErrorBody};
use crate::wire::broadcast::BroadcastStatus;
use crate::wire::error::ErrorCode;

mod broadcast;
mod drain;

/// A control plane whose reactors are mailboxes that nobody empties but the test.
pub(crate) struct Bench {
    pub(crate) control: Arc<ControlPlane>,
    pub(crate) mailboxes: Vec<Mailbox>,
}

impl Bench {
    /// To be made on a runtime.
    pub(crate) fn new(config: &Config) -> Self {
        let commands_max = config.limits.mailbox_commands_max as usize;
        let mailboxes: Vec<_> = (0..2).map(|_| Mailbox::new(commands_max, Asleep)).collect();
        let node = Arc::new(Node {
            id: "node-1".into(),
            epoch: NodeEpoch { node: 1, boot: 2 },
            presence: Presence::new(100, 2),
            accounts: Accounts::new(),
            settings: ArcSwap::from_pointee(Settings::load(config).unwrap()),
            tls: TlsCell::load(config).unwrap(),
            cells: node_cells(2),
            window: Window::default(),
            sockets: AtomicU32::new(0),
            is_unready: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            events: Feed::default(),
            failed_reloads: AtomicU64::new(0),
            pressure: crate::reactor::pressure::PressureGauge::default(),
            addresses: crate::route::address::Addresses::default(),
        });
        let posts = mailboxes.iter().map(Mailbox::post).collect();
        let runtime = tokio::runtime::Handle::current();
        let control = Arc::new(ControlPlane::new(node, posts, runtime));
        Self { control, mailboxes }
    }

    fn is_unready(&self) -> bool {
        self.control.node.is_unready.load(Ordering::Relaxed)
    }

    async fn call(&self, method: Method, path: &str) -> Answer {
        self.call_with(method, path, HeaderMap::new(), "").await
    }

    async fn call_with(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: &'static str,
    ) -> Answer {
        let mut request = Request::new(Bytes::from_static(body.as_bytes()));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        *request.headers_mut() = headers;
        let id = http::HeaderValue::from_static("r-1");
        request.headers_mut().insert(REQUEST_ID, id);
        let response = fallback(&self.control)(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let has_end = parts
            .headers
            .get(CONTENT_TYPE)
            .is_none_or(|kind| kind != EVENT_STREAM);
        let body = if has_end {
            body.collect().await.unwrap().to_bytes()
        } else {
            Bytes::new()
        };
        Answer { parts, body }
    }

    /// Lets the shards answer until the end of the test.
    fn answer_commands(&mut self, lines: &'static [u32]) {
        for (shard, mut mailbox) in (0..).zip(self.mailboxes.drain(..)) {
            let node = Arc::clone(&self.control.node);
            tokio::spawn(async move {
                loop {
                    let (mut commands, mut completions) = (Vec::new(), Vec::new());
                    mailbox.receive(&mut commands, &mut completions, 10);
                    for command in commands {
                        obey(command, &node, ShardId(shard), lines);
                    }
                    tokio::task::yield_now().await;
                }
            });
        }
    }
}

/// What a shard with lines in the slots given does.
fn obey(command: Command, node: &Node, shard: ShardId, lines: &[u32]) {
    if let Command::Kick(id, reply) = command {
        reply.send(lines.contains(&id.slot)).unwrap();
    } else if let Command::List(listing) = command {
        list(*listing, node, shard, lines);
    } else {
        panic!("{command:?}");
    }
}

fn list(listing: Listing, node: &Node, shard: ShardId, lines: &[u32]) {
    let rest: Vec<_> = lines
        .iter()
        .filter(|&&slot| slot >= listing.from_slot)
        .collect();
    let page = rest.iter().take(listing.limit);
    let infos = page.map(|&&slot| ConnectionInfo {
        connection_id: connection_id(node, shard, slot),
        device_id: format!("d-{}-{slot}", shard.0),
        user_id: listing.user_id.clone(),
        labels: BTreeMap::new(),
        protocol: "tautline.v1.json".into(),
        since_ms: 1,
    });
    let next = rest.get(listing.limit).map(|&&slot| slot);
    listing.reply.send((infos.collect(), next)).unwrap();
}

fn connection_id(node: &Node, shard: ShardId, slot: u32) -> String {
    let conn = ConnId {
        slot,
        generation: 0,
    };
    node.connection_id(Location { shard, conn }).to_string()
}

#[derive(Debug)]
struct Answer {
    parts: http::response::Parts,
    body: Bytes,
}

impl Answer {
    fn status(&self) -> u16 {
        self.parts.status.as_u16()
    }

    fn read<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The error's word; every error names its request.
    fn error(&self) -> String {
        let error = self.read::<ErrorBody>().error;
        let code = ErrorCode::from_word(&error.code).unwrap();
        assert_eq!(
            (code.status(), error.request_id.as_str()),
            (self.status(), "r-1")
        );
        assert!(!error.message.is_empty());
        error.code
    }
}

struct Asleep;

impl queue::Wake for Asleep {
    fn wake(&self) {}
}

#[tokio::test]
async fn what_is_not_a_call_is_told_so() {
    let bench = Bench::new(&Config::default());
    for path in [
        "/",
        "/v1",
        "/v1/devices/tv-1/inbox",
        "/v1/topics",
        "/v2/connections",
    ] {
        assert_eq!(
            bench.call(Method::GET, path).await.error(),
            "unknown_route",
            "{path}"
        );
    }
    for (path, allowed) in [
        ("/v1/devices/tv-1/messages", "POST"),
        ("/v1/devices/tv-1", "GET,HEAD"),
        ("/v1/connections/abc", "DELETE"),
    ] {
        let answer = bench.call(Method::PUT, path).await;
        assert_eq!(answer.error(), "method_not_allowed");
        assert_eq!(answer.parts.headers[ALLOW], allowed);
    }
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_ENCODING, "gzip".parse().unwrap());
    let answer = bench.call_with(Method::POST, "/v1/nodes/node-1/drain", headers, "{}");
    assert_eq!(answer.await.error(), "unsupported_media_type");
}

#[tokio::test]
async fn a_call_that_panics_answers_500() {
    let router = answering(Router::new().route("/", get(async || -> &str { panic!("boom") })));
    let request = Request::builder().uri("/").header(REQUEST_ID, "r-1");
    let request = request.body(axum::body::Body::empty()).unwrap();
    let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    assert_eq!(Answer { parts, body }.error(), "internal");
}

#[tokio::test]
async fn a_key_opens_the_calls_of_its_role() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    for (name, role) in [
        ("reader", ApiRole::Read),
        ("admin", ApiRole::Admin),
        ("sender", ApiRole::Send),
    ] {
        let key_file = dir.path().join(name);
        std::fs::write(&key_file, format!("{name}-0123456789abcdef")).unwrap();
        config.api.keys.push(ApiKey {
            name: name.into(),
            key_file: Some(key_file),
            certificate: None,
            roles: vec![role],
        });
    }
    let mut bench = Bench::new(&config);
    bench.answer_commands(&[]);
    let drain = "/v1/nodes/node-1/drain";
    for (key, path, status) in [
        ("reader", "/v1/connections", 200),
        ("admin", "/v1/connections", 403),
        ("nobody", "/v1/connections?limit=0", 401),
        ("admin", drain, 200),
        ("reader", drain, 403),
        ("sender", "/v1/broadcasts", 200),
        ("reader", "/v1/broadcasts", 403),
        ("admin", "/v1/broadcasts", 403),
        ("nobody", "/openapi.json", 200),
    ] {
        let mut headers = HeaderMap::new();
        let bearer = format!("Bearer {key}-0123456789abcdef");
        headers.insert(AUTHORIZATION, bearer.parse().unwrap());
        let answer = bench.call_with(Method::GET, path, headers, "").await;
        assert_eq!(answer.status(), status, "{key} {path}");
    }
}

#[tokio::test]
async fn the_list_walks_all_shards_page_by_page() {
    let mut bench = Bench::new(&Config::default());
    bench.answer_commands(&[0, 3, 4]);
    let mut devices = Vec::new();
    let mut path = "/v1/connections?limit=2&user_id=ann".to_owned();
    loop {
        let page: ConnectionPage = bench.call(Method::GET, &path).await.read();
        assert!(page.connections.len() <= 2);
        assert!(
            page.connections
                .iter()
                .all(|line| line.user_id.as_deref() == Some("ann"))
        );
        devices.extend(page.connections.into_iter().map(|line| line.device_id));
        let Some(cursor) = page.cursor else { break };
        path = format!("/v1/connections?limit=2&user_id=ann&cursor={cursor}");
    }
    assert_eq!(
        devices,
        ["d-0-0", "d-0-3", "d-0-4", "d-1-0", "d-1-3", "d-1-4"]
    );
}

#[tokio::test]
async fn a_list_that_makes_no_sense_names_its_fault() {
    let bench = Bench::new(&Config::default());
    for (query, code) in [
        ("limit=0", "bad_request"),
        ("limit=1001", "bad_request"),
        ("limit=ten", "bad_request"),
        ("cursor=AAAA", "bad_request"),
        ("colour=red", "bad_request"),
        ("user_id=a%20b", "invalid_id"),
    ] {
        let answer = bench
            .call(Method::GET, &format!("/v1/connections?{query}"))
            .await;
        assert_eq!(answer.error(), code, "{query}");
    }
}

#[tokio::test]
async fn a_shard_without_room_or_life_is_not_waited_for() {
    let mut config = Config::default();
    config.limits.mailbox_commands_max = 1;
    let mut bench = Bench::new(&config);
    bench.control.posts[0].post(Command::Reload).unwrap();
    let answer = bench.call(Method::GET, "/v1/connections").await;
    assert_eq!(answer.error(), "overloaded");
    assert!(answer.parts.headers.contains_key(RETRY_AFTER));
    bench.mailboxes.clear();
    let answer = bench.call(Method::GET, "/v1/connections").await;
    assert_eq!(answer.error(), "overloaded");
}

#[tokio::test]
async fn a_kick_tells_whether_the_line_was_there() {
    let mut bench = Bench::new(&Config::default());
    bench.answer_commands(&[7]);
    let node = Arc::clone(&bench.control.node);
    let kick = |id: String| {
        let path = format!("/v1/connections/{id}");
        let bench = &bench;
        async move { bench.call(Method::DELETE, &path).await }
    };
    let there = kick(connection_id(&node, ShardId(1), 7)).await;
    assert_eq!((there.status(), there.body.len()), (204, 0));
    for gone in [
        connection_id(&node, ShardId(1), 8),
        connection_id(&node, ShardId(9), 7),
    ] {
        assert_eq!(kick(gone).await.error(), "connection_gone");
    }
    assert_eq!(kick("no-id".into()).await.error(), "bad_request");
}

#[tokio::test]
async fn codes_docs_and_openapi_say_the_same() {
    let words: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.word()).collect();

    let row = |line: &'static str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let word = cells.next()?.strip_suffix('`')?;
        Some((
            word,
            cells.next()?.parse::<u16>().ok()?,
            cells.next()? == "yes",
        ))
    };
    let documented: Vec<_> = include_str!("../../../docs/api.md")
        .lines()
        .filter_map(row)
        .collect();
    assert_eq!(
        documented.iter().map(|row| row.0).collect::<BTreeSet<_>>(),
        words
    );
    for (word, status, is_retryable) in documented {
        let code = ErrorCode::from_word(word).unwrap();
        assert_eq!(
            (code.status(), code.is_retryable()),
            (status, is_retryable),
            "{word}"
        );
    }

    let bench = Bench::new(&Config::default());
    let document: Value = bench.call(Method::GET, "/openapi.json").await.read();
    let listed = document["components"]["schemas"]["ErrorCode"]["enum"].as_array();
    let listed: BTreeSet<_> = listed
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    assert_eq!(listed, words);
    for (status, response) in responses(&document) {
        for word in response["description"].as_str().unwrap().split('`') {
            if let Some(code) = ErrorCode::from_word(word) {
                assert_eq!(code.status().to_string(), *status, "{word}");
            }
        }
    }
}

fn responses(document: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let items = document["paths"].as_object().unwrap().values();
    let operations = items.flat_map(|item| item.as_object().unwrap().values());
    operations.flat_map(|operation| operation["responses"].as_object().unwrap())
}

#[tokio::test]
async fn every_documented_call_exists() {
    let mut bench = Bench::new(&Config::default());
    bench.answer_commands(&[]);
    let body = bench.call_with(Method::POST, "/v1/broadcasts", HeaderMap::new(), "1");
    let begun: BroadcastStatus = body.await.read();
    let document = serde_json::to_value(Document::openapi()).unwrap();
    let docs = include_str!("../../../docs/api.md");
    for (path, item) in document["paths"].as_object().unwrap() {
        assert!(
            docs.contains(path.as_str()),
            "docs/api.md is silent on {path}"
        );
        let filled = path
            .replace("{node_id}", "node-1")
            .replace("{device_id}", "tv-1")
            .replace("{broadcast_id}", &begun.broadcast_id);
        for method in item.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let answer = bench.call(method, &filled).await;
            let is_missing = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED]
                .contains(&answer.parts.status);
            assert!(!is_missing, "{path}: {answer:?}");
        }
    }
}

/// The type of an answer without an end.
const EVENT_STREAM: &str = "text/event-stream";
