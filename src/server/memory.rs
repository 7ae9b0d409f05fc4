//! The watch over memory: reads how much is used and tells the reactors how short it is.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config::section::Memory;
use crate::ops::kernel::Files;
use crate::ops::memory::{of_process, of_surroundings};
use crate::reactor::node::Node;
use crate::reactor::pressure::Pressure;

/// Watches until the process ends.
pub(super) async fn watch(node: Arc<Node>) {
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        interval.tick().await;
        let settings = node.settings.load();
        let Some((percent, level)) = pressure(&settings.memory) else {
            continue;
        };
        if node.pressure.set(level) {
            match level {
                Pressure::None => tracing::info!("memory is at {percent} %: enough again"),
                Pressure::RefuseLines => {
                    tracing::warn!("memory is at {percent} %: new lines are refused");
                }
                Pressure::ShedLines => {
                    tracing::warn!("memory is at {percent} %: the newest idle lines are closed");
                }
                Pressure::RefuseMessages => {
                    tracing::error!("memory is at {percent} %: new messages are refused");
                }
            }
        }
    }
}

fn pressure(memory: &Memory) -> Option<(u8, Pressure)> {
    let usage = match memory.limit {
        Some(limit) => of_process(limit.as_u64()),
        None => of_surroundings(&Files::below(Path::new("/"))),
    };
    let percent = usage?.percent();
    let watermarks = [
        memory.refuse_lines_at,
        memory.shed_lines_at,
        memory.refuse_messages_at,
    ];
    Some((percent, Pressure::at(percent, watermarks)))
}

/// How often memory is looked at: at 20,000 new lines a second and 4.4 KB each, 44 MB later.
const INTERVAL: Duration = Duration::from_millis(500);
