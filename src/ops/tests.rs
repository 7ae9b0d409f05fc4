//! The pages of operators, without sockets.

use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::api::tests::Bench;
use crate::metrics::Ending;

/// A log whose writer is behind.
#[derive(Debug)]
struct StuckLog;

impl LogWriter for StuckLog {
    fn dropped_lines(&self) -> u64 {
        7
    }
}

async fn ask(node: &Arc<Node>, request: Request<Body>) -> (StatusCode, String) {
    let counts = Counts {
        refused: Arc::default(),
        log: Arc::new(StuckLog),
    };
    let response = router(node, counts).oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn page(node: &Arc<Node>, path: &str) -> (StatusCode, String) {
    let request = Request::builder().uri(path);
    ask(node, request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_scrape_adds_up_what_the_shards_counted() {
    let bench = Bench::new(&Config::default());
    let cells = &bench.control.node.cells;
    cells[0].lines.add(2);
    cells[1].lines.add(3);
    cells[0].submitted.add(5);
    cells[1].endings[Ending::Written as usize].add(3);
    cells[1].undelivered.add(1);
    cells[0].bytes_in.add(10);
    cells[1].bytes_in.add(20);
    cells[0].log_lines_dropped.add(1);
    cells[1].log_lines_dropped.add(2);
    cells[0].delivery.observe_us(300);
    cells[1].delivery.observe_us(700);
    bench.control.note_failed_reload();
    let (status, text) = page(&bench.control.node, "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    for line in [
        "tautline_lines{shard=\"0\"} 2",
        "tautline_lines{shard=\"1\"} 3",
        "tautline_messages_submitted_total 5",
        "tautline_messages_ended_total{ending=\"written\"} 3",
        "tautline_messages_imbalance 1",
        "tautline_received_bytes_total 30",
        "tautline_delivery_seconds_sum 0.001",
        "tautline_delivery_seconds_count 2",
        "tautline_delivery_seconds_bucket{le=\"0.0004\"} 1",
        "tautline_delivery_seconds_bucket{le=\"+Inf\"} 2",
        "tautline_config_reload_failures_total 1",
        "tautline_log_lines_dropped_total{cause=\"rate\"} 3",
        "tautline_log_lines_dropped_total{cause=\"queue\"} 7",
        "tautline_draining 0",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(text.contains("tautline_build_info{version=\""));
    assert!(text.contains("tautline_connections_closed_total{reason=\"drain\"} 0"));
    assert!(text.contains("tautline_connections_refused_total{cause=\"draining\"} 0"));
}

#[tokio::test]
async fn metrics_need_the_key_and_probes_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    let key_file = dir.path().join("ops.key");
    std::fs::write(&key_file, "ops-0123456789abcdef").unwrap();
    config.ops.key_file = Some(key_file);
    let bench = Bench::new(&config);
    let keyed = |key: &str| {
        let request = Request::builder().uri("/metrics");
        let request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        request.body(Body::empty()).unwrap()
    };
    let status = |answer: (StatusCode, String)| answer.0.as_u16();
    assert_eq!(status(page(&bench.control.node, "/metrics").await), 401);
    assert_eq!(status(ask(&bench.control.node, keyed("wrong")).await), 401);
    let right = keyed("ops-0123456789abcdef");
    assert_eq!(status(ask(&bench.control.node, right).await), 200);
    assert_eq!(status(page(&bench.control.node, "/livez").await), 200);
    assert_eq!(status(page(&bench.control.node, "/readyz").await), 200);
}

#[tokio::test]
async fn a_node_is_not_ready_from_the_first_moment_of_a_drain() {
    let bench = Bench::new(&Config::default());
    bench.control.node.cells[0].lines.add(1);
    bench.control.drain.begin(Default::default()).await;
    for (path, status) in [("/readyz", 503), ("/healthz", 503), ("/livez", 200)] {
        let answer = page(&bench.control.node, path).await;
        assert_eq!(answer.0.as_u16(), status, "{path}");
    }
    bench.control.drain.cancel().await.unwrap();
    assert_eq!(page(&bench.control.node, "/readyz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn other_pages_and_methods_are_refused() {
    let bench = Bench::new(&Config::default());
    assert_eq!(
        page(&bench.control.node, "/console").await.0,
        StatusCode::NOT_FOUND
    );
    let post = Request::builder().method(Method::POST).uri("/metrics");
    let answer = ask(&bench.control.node, post.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_its_key() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = Config::default();
    config.listen.ops = taken.local_addr().unwrap();
    let bench = Bench::new(&config);
    let (devices, api) = (config.listen.devices, config.listen.api);
    let neighbours = Neighbours { devices, api };
    let error = listen(&config, &bench.control.node, neighbours, Arc::new(StuckLog))
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("listen.ops") && text.contains("another process"),
        "{text}"
    );
}

#[tokio::test]
async fn alerts_and_the_board_ask_for_numbers_that_exist() {
    let bench = Bench::new(&Config::default());
    let (_, text) = page(&bench.control.node, "/metrics").await;
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let alerts = include_str!("../../deploy/prometheus-alerts.yaml");
    let board = include_str!("../../deploy/grafana.json");
    let parsed: serde_json::Value = serde_json::from_str(board).unwrap();
    assert!(parsed["panels"].as_array().unwrap().len() > 10);
    let names = [alerts, board].map(|text| text.split(|c| !is_name(c)));
    let names = names.into_iter().flatten();
    for name in names.filter(|word| word.starts_with("tautline_")) {
        let is_shown = text.lines().any(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        // Some families are empty here: nobody has configured a certificate.
        let is_declared = text.contains(&format!("# TYPE {name} "));
        assert!(is_shown || is_declared, "{name}");
    }
}
