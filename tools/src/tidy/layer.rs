//! The layer rule: `crate::…` paths in `src` point strictly down.

use super::Violation;
use super::path::UsePath;
use super::source::Source;

const REASON: &str = "imports point strictly down (ARCHITECTURE.md, layers): what is below can be read, tested and \
                      reused without what is above; pass a value down, or move the thing that is shared";

/// Each top-level module and its layer. A new module gets its line here.
const LAYERS: &[(&str, u8)] = &[
    ("main", 6),
    ("cli", 6),
    ("server", 6),
    ("api", 5),
    ("ops", 5),
    ("client", 5),
    ("reactor", 4),
    ("protocol", 3),
    ("mailbox", 2),
    ("route", 2),
    ("net", 1),
    ("head", 1),
    ("ws", 1),
    ("wire", 1),
    ("base", 0),
];

/// Anyone above `base` may read these; they read only `base` and each other.
const LEAVES: &[&str] = &["config", "metrics", "error"];

/// Imports inside one layer that are allowed: from, to, why.
const SIDEWAYS: &[(&str, &str, &str)] = &[
    ("main", "cli", "the binary parses its arguments"),
    ("main", "server", "the binary starts what it parsed"),
    ("cli", "server", "`serve` starts the composition root"),
    (
        "route",
        "mailbox",
        "the router posts to the mailbox of the shard it chose",
    ),
    (
        "api",
        "ops",
        "probes and metrics share the control plane's router",
    ),
];

/// Reports every import that does not point down.
pub(crate) fn check(source: &Source) -> Vec<Violation> {
    let Some(own) = source.module.first().filter(|_| source.is_product()) else {
        return Vec::new();
    };
    if rank(own).is_none() {
        let message = format!("module {own} has no layer: add it to tools/src/tidy/layer.rs");
        return vec![source.violation(1, message, REASON)];
    }
    let upward = |path: &UsePath| {
        let target = target(path, source)?;
        let message = refusal(own, &target)?;
        Some(source.violation(path.line, message, REASON))
    };
    source.paths().iter().filter_map(upward).collect()
}

fn refusal(own: &str, target: &str) -> Option<String> {
    let (Some(from), Some(to)) = (rank(own), rank(target)) else {
        return None;
    };
    let is_listed = SIDEWAYS.iter().any(|&(f, t, _)| f == own && t == target);
    let are_leaves = LEAVES.contains(&own) && LEAVES.contains(&target);
    let is_allowed = own == target || to < from || is_listed || are_leaves;
    let name = |rank: u8| {
        if rank == LEAF {
            "leaf".to_owned()
        } else {
            format!("layer {}", rank / 2)
        }
    };
    (!is_allowed).then(|| format!("{own} ({}) imports {target} ({})", name(from), name(to)))
}

/// Layers doubled, so that leaves fit between `base` and layer 1.
fn rank(module: &str) -> Option<u8> {
    let layer = LAYERS
        .iter()
        .find(|(m, _)| *m == module)
        .map(|(_, layer)| 2 * layer);
    layer.or_else(|| LEAVES.contains(&module).then_some(LEAF))
}

const LEAF: u8 = 1;

/// The top-level module a path leads to, `super`s resolved; `None` for paths out of the crate.
fn target(path: &UsePath, source: &Source) -> Option<String> {
    let supers = path.segments.iter().take_while(|s| *s == "super").count();
    let climbs_out = supers > 0 && supers == source.module.len();
    let name = match path.segments.first()?.as_str() {
        "crate" => path.segments.get(1),
        "super" if climbs_out => path.segments.get(supers),
        _ => None,
    };
    name.cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        let source = Source::parse(path, text).unwrap();
        check(&source).into_iter().map(|v| v.message).collect()
    }

    #[test]
    fn upward_and_sideways_imports_are_reported() {
        let text = "use crate::{base::id::ConnId, reactor::Shard};\nuse crate::ws::Frame;";
        assert_eq!(
            messages("src/protocol/device.rs", text),
            ["protocol (layer 3) imports reactor (layer 4)"]
        );
        assert_eq!(messages("src/wire/peer.rs", text).len(), 2);
        assert_eq!(
            messages("src/mailbox/mod.rs", "use crate::route::Router;").len(),
            1
        );
    }

    #[test]
    fn supers_are_resolved() {
        assert_eq!(
            messages("src/ws/frame.rs", "use super::super::route::Router;").len(),
            1
        );
        assert!(messages("src/ws/frame.rs", "use super::mask;").is_empty());
    }

    #[test]
    fn leaves_may_be_read_by_all_above_base_and_read_only_base() {
        assert!(messages("src/net/tcp.rs", "use crate::metrics::Cell;").is_empty());
        assert!(
            messages(
                "src/config/mod.rs",
                "use crate::{base::id, error::StartError};"
            )
            .is_empty()
        );
        assert_eq!(
            messages("src/config/mod.rs", "use crate::ws::Frame;"),
            ["config (leaf) imports ws (layer 1)"]
        );
        assert_eq!(
            messages("src/base/id.rs", "use crate::config::Config;").len(),
            1
        );
    }

    #[test]
    fn listed_neighbours_tests_and_the_crate_root_are_free() {
        assert!(messages("src/route/mod.rs", "use crate::mailbox::Post;").is_empty());
        assert!(
            messages(
                "src/ws/mod.rs",
                "#[cfg(test)] mod tests { use crate::route::Router; }"
            )
            .is_empty()
        );
        assert!(messages("src/ws/tests.rs", "use crate::route::Router;").is_empty());
        assert!(messages("src/lib.rs", "pub use crate::server::Server;").is_empty());
    }

    #[test]
    fn a_module_without_a_layer_is_reported() {
        assert_eq!(messages("src/cluster/mod.rs", "").len(), 1);
    }
}
