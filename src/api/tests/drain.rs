//! `/v1/nodes/{node_id}/drain`.

use super::*;
use crate::wire::drain::{DrainForecast, DrainState, DrainStatus};

const DRAIN: &str = "/v1/nodes/node-1/drain";

fn next_command(mailbox: &mut Mailbox) -> Option<Command> {
    let mut commands = Vec::new();
    mailbox.receive(&mut commands, &mut Vec::new(), 1);
    commands.pop()
}

/// Waits until a drain has got that far.
async fn until(control: &ControlPlane, state: DrainState) {
    let reached = async {
        while control.drain.status().state != state {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reached)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_drain_begins_once_and_can_be_taken_back() {
    let mut bench = Bench::new(&Config::default());
    bench.control.node.cells[0].lines.add(3);
    let begun = bench.call(Method::POST, DRAIN).await;
    assert_eq!(begun.status(), 202);
    let begun: DrainStatus = begun.read();
    assert_eq!((begun.state, begun.lines), (DrainState::Unready, 3));
    assert_eq!(
        begun.deadline_ms.unwrap() - begun.started_ms.unwrap(),
        25_000
    );
    let body = r#"{"deadline_ms":60000}"#;
    let again = bench.call_with(Method::POST, DRAIN, HeaderMap::new(), body);
    assert_eq!(again.await.read::<DrainStatus>(), begun);
    assert!(bench.is_unready());

    let back: DrainStatus = bench.call(Method::DELETE, DRAIN).await.read();
    assert_eq!((back.state, back.started_ms), (DrainState::Serving, None));
    assert!(!bench.is_unready());
    assert!(!bench.control.node.is_draining.load(Ordering::Relaxed));
    assert!(matches!(
        next_command(&mut bench.mailboxes[1]),
        Some(Command::Resume)
    ));
    assert_eq!(bench.call(Method::DELETE, DRAIN).await.status(), 200);
}

#[tokio::test]
async fn what_stays_beyond_the_deadline_is_closed_by_force() {
    let mut config = Config::default();
    config.drain.interval = Duration::from_millis(1);
    let mut bench = Bench::new(&config);
    let lines = &bench.control.node.cells[0].lines;
    lines.add(1);
    let body = r#"{"deadline_ms":20}"#;
    let begun = bench.call_with(Method::POST, DRAIN, HeaderMap::new(), body);
    assert_eq!(begun.await.status(), 202);
    until(&bench.control, DrainState::Forcing).await;
    assert!(bench.control.node.is_draining.load(Ordering::Relaxed));
    assert_eq!(bench.call(Method::DELETE, DRAIN).await.error(), "draining");
    lines.sub(1);
    until(&bench.control, DrainState::Drained).await;
    let mailbox = &mut bench.mailboxes[0];
    assert!(matches!(
        next_command(mailbox),
        Some(Command::Drain(order)) if order.spread_ms == 0
    ));
    assert!(matches!(next_command(mailbox), Some(Command::CloseLines)));
    assert_eq!(bench.call(Method::DELETE, DRAIN).await.status(), 200);
    assert!(!bench.is_unready());
}

#[tokio::test]
async fn a_signal_takes_a_drain_over_and_there_is_no_way_back() {
    let bench = Bench::new(&Config::default());
    bench.control.node.cells[0].lines.add(1);
    let body = r#"{"deadline_ms":3600000}"#;
    let begun = bench.call_with(Method::POST, DRAIN, HeaderMap::new(), body);
    let begun: DrainStatus = begun.await.read();
    let control = Arc::clone(&bench.control);
    let signal = tokio::spawn(async move { control.drain.run().await });
    let shortened = async {
        while bench.control.drain.status().deadline_ms >= begun.deadline_ms {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), shortened)
        .await
        .unwrap();
    assert_eq!(bench.call(Method::DELETE, DRAIN).await.error(), "draining");
    assert_eq!(bench.control.drain.status().started_ms, begun.started_ms);
    signal.abort();
}

#[tokio::test]
async fn a_node_without_lines_drains_at_once() {
    let bench = Bench::new(&Config::default());
    bench.control.drain.run().await;
    assert_eq!(bench.control.drain.status().state, DrainState::Drained);
}

#[tokio::test]
async fn a_forecast_tells_how_a_drain_would_go_and_begins_none() {
    let bench = Bench::new(&Config::default());
    bench.control.node.cells[0].lines.add(1_000);
    let forecast = |body: &'static str| {
        let bench = &bench;
        async move {
            let path = "/v1/nodes/self/drain";
            let answer = bench.call_with(Method::POST, path, HeaderMap::new(), body);
            let answer = answer.await;
            assert_eq!(answer.status(), 200);
            answer.read::<DrainForecast>()
        }
    };
    // 2 s for the load balancer, 5 s of grace and 1.1 s for the sweep leave 16.9 s.
    let by_deadline = forecast(r#"{"dry_run":true}"#).await;
    let expected = DrainForecast {
        lines: 1_000,
        lines_per_second: 60,
        duration_ms: 25_000,
        deadline_ms: 25_000,
        fits: true,
    };
    assert_eq!(by_deadline, expected);
    let by_rate = forecast(r#"{"dry_run":true,"lines_per_second":10}"#).await;
    assert_eq!((by_rate.duration_ms, by_rate.fits), (108_100, true));
    assert_eq!(by_rate.deadline_ms, by_rate.duration_ms);
    let both = r#"{"dry_run":true,"lines_per_second":10,"deadline_ms":60000}"#;
    let both = forecast(both).await;
    assert_eq!((both.deadline_ms, both.fits), (60_000, false));
    let hasty = forecast(r#"{"dry_run":true,"deadline_ms":3000}"#).await;
    assert!(!hasty.fits);
    assert!(!bench.is_unready());
    assert_eq!(bench.control.drain.status().state, DrainState::Serving);
}

#[tokio::test]
async fn a_drain_by_rate_tells_shards_how_long_and_where_to() {
    let mut config = Config::default();
    config.drain.interval = Duration::from_millis(1);
    let mut bench = Bench::new(&config);
    let cells = &bench.control.node.cells;
    cells[0].lines.add(30);
    cells[1].lines.add(10);
    cells[1].drain_gone.add(7);
    let body = r#"{"lines_per_second":20,"url":"ws://b.example/ws"}"#;
    let begun = bench.call_with(Method::POST, DRAIN, HeaderMap::new(), body);
    assert_eq!(begun.await.status(), 202);
    until(&bench.control, DrainState::Leaving).await;
    let order = loop {
        if let Some(Command::Drain(order)) = next_command(&mut bench.mailboxes[1]) {
            break order;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        (order.spread_ms, order.url.as_deref()),
        (2_000, Some("ws://b.example/ws"))
    );
    let cells = &bench.control.node.cells;
    cells[0].drain_asked.add(5);
    cells[0].drain_gone.add(3);
    cells[0].lines.sub(4);
    cells[1].drain_forced.add(1);
    let status: DrainStatus = bench.call(Method::GET, DRAIN).await.read();
    let progress = status.progress.unwrap();
    assert_eq!((progress.lines_at_start, status.lines), (40, 36));
    assert_eq!(
        (progress.asked, progress.gone, progress.forced),
        (5, 3, 1),
        "what was counted before does not count"
    );
    assert_eq!(progress.lines_per_second, 20);
    assert!(progress.eta_ms > status.started_ms.unwrap() + 2_000);
    assert_eq!(bench.call(Method::DELETE, DRAIN).await.status(), 200);
}

#[tokio::test]
async fn a_drain_that_makes_no_sense_names_its_fault() {
    let bench = Bench::new(&Config::default());
    // One by one they would take more than a day.
    bench.control.node.cells[0].lines.add(90_000);
    for (body, code) in [
        ("5", "invalid_body"),
        ("{", "invalid_body"),
        (r#"{"deadline_ms":2000}"#, "invalid_body"),
        (r#"{"deadline_ms":99999999999}"#, "invalid_body"),
        (r#"{"url":"http://b.example"}"#, "invalid_body"),
        (r#"{"lines_per_second":1}"#, "invalid_body"),
        (r#"{"dead_line":1}"#, "unknown_field"),
    ] {
        let answer = bench.call_with(Method::POST, DRAIN, HeaderMap::new(), body);
        assert_eq!(answer.await.error(), code, "{body}");
    }
    let answer = bench.call(Method::POST, "/v1/nodes/node-2/drain").await;
    assert_eq!(answer.error(), "unknown_node");
    let told = answer.read::<ErrorBody>().error.message;
    assert!(told.contains("node-1"), "{told}");
    assert!(!bench.is_unready());
}
