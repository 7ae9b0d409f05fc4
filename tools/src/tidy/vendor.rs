//! Vendor owners: each crate we build on is spoken to by one part of the product, almost always.

use super::Violation;
use super::path::UsePath;
use super::source::Source;

struct Owner {
    /// The crate, or a part of it with owners of its own.
    vendor: &'static str,
    /// Modules that may name it, everything below them included.
    modules: &'static [&'static str],
    reason: &'static str,
}

const OWNERS: &[Owner] = &[
    owner(
        "arc_swap",
        &["reactor", "server", "api", "ops", "net::tls"],
        "the settings cell of the node, and its TLS: replaced by a reload, loaded by the rest",
    ),
    owner(
        "aws_lc_rs",
        &["net::tls", "client"],
        "the records of TLS, and rustls' provider of that name; jsonwebtoken brings its own cryptography",
    ),
    owner(
        "axum",
        &["api", "ops"],
        "the control plane's router; hot calls are answered in the reactor",
    ),
    owner(
        "clap",
        &["main", "cli", "config"],
        "the command line; `config` for what can be set by flag and variable",
    ),
    owner("clap_complete", &["cli"], "shell completions"),
    owner(
        "crossbeam",
        &["base", "mailbox", "metrics", "route"],
        "what crosses threads: mailboxes, presence, metric cells",
    ),
    owner(
        "futures_util",
        &["api", "client"],
        "streams of the control plane's answers, and of a client's WebSocket",
    ),
    owner(
        "httparse",
        &["head"],
        "request heads have one reader with one set of limits",
    ),
    owner(
        "httpdate",
        &["reactor::api"],
        "answers that hyper does not write have its `date`",
    ),
    owner(
        "humantime",
        &["config", "cli"],
        "durations are typed everywhere behind the configuration",
    ),
    owner(
        "humantime_serde",
        &["config"],
        "durations are typed everywhere behind the configuration",
    ),
    owner(
        "hyper",
        &["reactor::api"],
        "HTTP is polled by the reactor's own small executor",
    ),
    owner(
        "http_body_util",
        &["api", "reactor::api"],
        "bodies of the sending API",
    ),
    owner(
        "ipnet",
        &["config", "reactor"],
        "networks are typed in the configuration, and asked at the door",
    ),
    owner(
        "jsonwebtoken",
        &["protocol::auth", "cli::token"],
        "tokens are verified in one place, and made by `tautline token`",
    ),
    owner(
        "loom",
        &["mailbox", "route"],
        "the two lock-free structures",
    ),
    owner(
        "mio",
        &["net", "mailbox", "reactor"],
        "sockets, wakers, the loop: nothing else knows of readiness",
    ),
    owner(
        "nix",
        &["net", "server", "ops", "config"],
        "system calls on sockets and threads; signals, limits and the host's name in the control plane",
    ),
    owner(
        "parking_lot",
        &[
            "server",
            "api",
            "ops",
            "client",
            "config",
            "metrics",
            "mailbox",
            "route::account",
            "reactor::idempotency",
        ],
        "locks belong to the control plane, to the hand-over of a mailbox, and to a stripe of the accounts or of the \
         idempotency keys",
    ),
    owner(
        "ppp",
        &["net"],
        "PROXY headers are read before anything else of a connection",
    ),
    owner(
        "prometheus_client",
        &["metrics", "ops"],
        "the text a scrape reads",
    ),
    owner(
        "rustls",
        &["net", "client"],
        "TLS of what we accept has one place; `client` is the other side of it",
    ),
    owner(
        "rustls_native_certs",
        &["client"],
        "whom a client believes when it is not told",
    ),
    owner(
        "sd_notify",
        &["server"],
        "the service manager is told by the composition root",
    ),
    owner("socket2", &["net"], "socket options have one place"),
    owner(
        "tikv_jemallocator",
        &["main"],
        "the binary chooses the allocator, not the library",
    ),
    owner(
        "tokio",
        &["server", "api", "ops", "client"],
        "the control plane's runtime; reactors have their own loop",
    ),
    owner(
        "tokio::sync",
        &["mailbox", "reactor", "route"],
        "only the channels on which the control plane waits for a reactor, and hears what happens to lines",
    ),
    owner(
        "tokio_rustls",
        &["ops", "client"],
        "what is tokio's: the ops listener, and a client; reactors drive TLS themselves",
    ),
    owner(
        "tokio_tungstenite",
        &["client"],
        "the client's WebSocket, on tokio",
    ),
    owner("toml", &["config"], "the configuration file"),
    owner("tower", &["api", "ops"], "middleware of the control plane"),
    owner(
        "tower_http",
        &["api", "ops"],
        "middleware of the control plane",
    ),
    owner(
        "tracing_appender",
        &["server"],
        "log lines go through one writer thread",
    ),
    owner(
        "tracing_subscriber",
        &["server"],
        "where log lines go is decided once",
    ),
    owner(
        "tungstenite",
        &["ws", "client"],
        "RFC 6455 on its public parts; its client is the device side",
    ),
    owner("uapi", &["net"], "the system calls no other crate offers"),
    owner("ureq", &["client"], "the sender's side of the API"),
    owner(
        "x509_parser",
        &["net"],
        "names and dates in certificates; whether they are good is rustls' business",
    ),
    owner(
        "utoipa",
        &["api", "wire"],
        "the OpenAPI document stands beside its routes, and a body's schema beside the body",
    ),
];

const fn owner(
    vendor: &'static str,
    modules: &'static [&'static str],
    reason: &'static str,
) -> Owner {
    Owner {
        vendor,
        modules,
        reason,
    }
}

const LOADTEST_REASON: &str =
    "the load generator never links what it measures: a fault shared by both sides would not show";

/// Reports every crate that is named outside its owners.
pub(crate) fn check(source: &Source) -> Vec<Violation> {
    let paths = source.paths();
    if source.is_within("loadtest") {
        let ours = paths.iter().filter(|p| p.segments[0] == "tautline");
        let report = |p: &UsePath| {
            source.violation(
                p.line,
                "loadtest names tautline".to_owned(),
                LOADTEST_REASON,
            )
        };
        return ours.map(report).collect();
    }
    if !source.is_product() {
        return Vec::new();
    }
    paths
        .iter()
        .filter_map(|path| trespass(path, source))
        .collect()
}

/// Whether a path that begins so leads out of this project.
pub(crate) fn is_foreign(first_segment: &str) -> bool {
    let is_standard = ["std", "core", "alloc"].contains(&first_segment);
    is_standard || OWNERS.iter().any(|o| o.vendor == first_segment)
}

fn trespass(path: &UsePath, source: &Source) -> Option<Violation> {
    let owners: Vec<_> = OWNERS.iter().filter(|o| o.covers(path)).collect();
    let most_specific = owners.iter().max_by_key(|o| o.vendor.len())?;
    let is_owned = owners
        .iter()
        .flat_map(|o| o.modules)
        .any(|m| source.is_within(m));
    let message = || {
        format!(
            "{} belongs to {}",
            most_specific.vendor,
            most_specific.modules.join(", ")
        )
    };
    (!is_owned).then(|| source.violation(path.line, message(), most_specific.reason))
}

impl Owner {
    fn covers(&self, path: &UsePath) -> bool {
        let mut segments = path.segments.iter();
        self.vendor
            .split("::")
            .all(|v| segments.next().is_some_and(|s| s == v))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        let source = Source::parse(path, text).unwrap();
        check(&source).into_iter().map(|v| v.message).collect()
    }

    #[test]
    fn every_owner_has_its_crate_to_itself() {
        for owner in OWNERS {
            let text = format!("use {}::thing;", owner.vendor);
            assert_eq!(
                messages("src/nowhere/thing.rs", &text).len(),
                1,
                "{}",
                owner.vendor
            );
            for module in owner.modules {
                let path = format!("src/{}/thing.rs", module.replace("::", "/"));
                assert!(
                    messages(&path, &text).is_empty(),
                    "{} in {module}",
                    owner.vendor
                );
            }
        }
    }

    #[test]
    fn a_part_of_a_crate_may_have_more_owners_than_the_whole() {
        let text = "use tokio::{sync::oneshot, time};";
        assert_eq!(
            messages("src/mailbox/mod.rs", text),
            ["tokio belongs to server, api, ops, client"]
        );
        assert!(messages("src/api/mod.rs", text).is_empty());
    }

    #[test]
    fn only_part_of_the_reactor_speaks_hyper() {
        assert_eq!(
            messages("src/reactor/shard.rs", "fn f(_: hyper::Request<()>) {}").len(),
            1
        );
        assert!(messages("src/reactor/api/mod.rs", "use hyper::Request;").is_empty());
    }

    #[test]
    fn tests_are_free_and_loadtest_never_links_the_product() {
        assert!(
            messages(
                "src/head/mod.rs",
                "#[cfg(test)] mod tests { use tungstenite::Message; }"
            )
            .is_empty()
        );
        assert!(messages("tests/push.rs", "use tungstenite::Message;").is_empty());
        assert!(messages("loadtest/src/idle.rs", "use tungstenite::Message;").is_empty());
        assert_eq!(
            messages("loadtest/src/idle.rs", "use tautline::ws;"),
            ["loadtest names tautline"]
        );
    }
}
