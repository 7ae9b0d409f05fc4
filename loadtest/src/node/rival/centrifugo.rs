//! Centrifugo, with a configuration of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::node::NodeError;
use crate::node::rival::store::Store;
use crate::node::rival::{Launch, OF_ONES_OWN, Rival, RivalPlan, seconds, start_listening};

const CONFIGURATION_FILE: &str = "config.json";
/// Its default, which must be below the time between pings.
const PONG_TIMEOUT_MAX: Duration = Duration::from_secs(8);
/// Bytes it reads at once from a line: what the others have.
const READ_BUFFER_BYTES: u32 = 512;

/// Starts it, and waits until it listens.
pub(super) fn start(plan: &RivalPlan, progress: &impl Fn(&str)) -> Result<Rival, NodeError> {
    let (program, version) = match &plan.program {
        Some(program) => (program.clone(), OF_ONES_OWN.to_owned()),
        None => Store::open().centrifugo()?,
    };
    progress("starting centrifugo");
    let launch = |address, prefix: &Path| {
        let configuration = configuration(plan, address);
        let file = prefix.join(CONFIGURATION_FILE);
        fs::write(&file, &configuration)?;
        Ok(Launch {
            program: program.clone(),
            arguments: vec!["--config".to_owned(), file.display().to_string()],
            configuration,
        })
    };
    let (child, ready, configuration) = start_listening(launch)?;
    let note = format!(
        "centrifugo {version}, in which a line has a channel of its own and is open when its subscription is answered; \
         it answers a push when that is published, whoever is there, ours when it is written; with this \
         configuration:\n{configuration}"
    );
    Ok(Rival {
        child,
        ready,
        notes: vec![note],
    })
}

/// In the words of version 5. Anybody may connect, subscribe and publish, as with the others; buffers are small, as its
/// documents advise for many lines.
fn configuration(plan: &RivalPlan, address: SocketAddr) -> String {
    let ping_after = Duration::from_secs(seconds(plan.ping_after));
    let pong_timeout = PONG_TIMEOUT_MAX.min(ping_after / 2);
    let configuration = json!({
        "address": address.ip().to_string(),
        "port": address.port().to_string(),
        "log_level": "error",
        "gomaxprocs": plan.threads,
        "allow_anonymous_connect_without_token": true,
        "allow_subscribe_for_client": true,
        "allow_subscribe_for_anonymous": true,
        "api_insecure": true,
        "ping_interval": format!("{}s", ping_after.as_secs()),
        "pong_timeout": format!("{}ms", pong_timeout.as_millis()),
        "usage_stats_disable": true,
        "websocket_read_buffer_size": READ_BUFFER_BYTES,
        "websocket_use_write_buffer_pool": true,
    });
    format!("{configuration:#}\n")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::make::Make;

    #[test]
    fn a_configuration_has_threads_heartbeats_and_a_port() {
        let plan = RivalPlan {
            make: Make::Centrifugo,
            program: None,
            threads: 3,
            ping_after: Duration::from_millis(1_500),
        };
        let text = configuration(&plan, "127.0.0.1:9".parse().unwrap());
        let value: Value = serde_json::from_str(&text).unwrap();
        for (key, expected) in [
            ("port", json!("9")),
            ("gomaxprocs", json!(3)),
            ("ping_interval", json!("2s")),
            ("pong_timeout", json!("1000ms")),
        ] {
            assert_eq!(value[key], expected, "{key}");
        }
    }
}
