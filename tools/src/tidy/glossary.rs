//! The glossary: one word per thing, in the names we give. A library's own names stay as they are.

use super::Violation;
use super::source::{Source, Token};

struct Banned {
    /// The word, or two words in a row.
    word: &'static str,
    instead: &'static str,
    /// Modules where the word means something else.
    fine_in: &'static [&'static str],
}

const BANNED: &[Banned] = &[
    banned("broker", "node", &[]),
    banned("instance", "node", &[]),
    banned("remote", "peer", &[]),
    banned(
        "client",
        "device",
        &["api", "cli", "client", "loadtest", "ops", "tests", "tools"],
    ),
    banned("tenant", "account", &[]),
    banned("customer", "account", &[]),
    banned("handler", "protocol, or handle_* for a reaction", &[]),
    banned("principal", "identity", &[]),
    banned(
        "claims",
        "identity",
        &["protocol::auth", "cli::token", "tests"],
    ),
    banned("worker", "reactor", &["loadtest"]),
    banned("executor", "reactor", &["reactor::api"]),
    banned("partition", "shard", &["protocol::sim", "tests"]),
    banned(
        "keepalive",
        "heartbeat (keepalive is TCP's)",
        &["net", "config"],
    ),
    banned(
        "keep alive",
        "heartbeat (keepalive is TCP's)",
        &["net", "config", "reactor::api", "loadtest", "tests"],
    ),
    banned("evict", "reap", &[]),
    banned("takeover", "replaced", &[]),
    banned("ghosted", "replaced", &[]),
    banned("channel", "mailbox, or connection", &[]),
    banned("send queue", "outbox", &[]),
    banned("write queue", "outbox", &[]),
    banned("packet", "frame", &[]),
    banned("p2p", "d2d", &[]),
    banned("dispatch", "route", &[]),
    banned("forward", "deliver", &[]),
    banned("driver", "backend, adapter", &[]),
    banned("provider", "backend, adapter", &[]),
];

const fn banned(
    word: &'static str,
    instead: &'static str,
    fine_in: &'static [&'static str],
) -> Banned {
    Banned {
        word,
        instead,
        fine_in,
    }
}

const REASON: &str =
    "one word per thing, in code, documents, metrics and logs (CONTRIBUTING.md, words)";

/// First words that say nothing about what a function does.
const EMPTY_VERBS: &[Banned] = &[
    banned("get", "what it gives", &[]),
    banned("do", "what it does", &[]),
    // Elsewhere it is the noun: the CPU time of a process.
    banned(
        "process",
        "what it does",
        &["loadtest", "ops", "server", "tools"],
    ),
];

/// The standard library's own, for containers.
const ACCESSORS: &[&str] = &["get", "get_mut", "get_ref"];

const VERB_REASON: &str =
    "a question is a plain noun, an action says what it does (CONTRIBUTING.md, words)";

const DEFINING: &[&str] = &[
    "struct", "enum", "trait", "type", "fn", "mod", "const", "static",
];

/// Reports every definition that is named by a banned word.
pub(crate) fn check(source: &Source) -> Vec<Violation> {
    // The modules that lib.rs names are looked at by the layer rule.
    if source.module.is_empty() {
        return Vec::new();
    }
    let named = definitions(&source.tokens);
    named
        .flat_map(|(keyword, name)| check_name(keyword, name, source))
        .collect()
}

fn check_name(keyword: &str, name: &Token, source: &Source) -> Vec<Violation> {
    let words = words(&name.text);
    let is_action = keyword == "fn" && words.len() > 1 && !ACCESSORS.contains(&name.text.as_str());
    let verb = words.get(..1).filter(|_| is_action).unwrap_or_default();
    let banned = BANNED
        .iter()
        .filter(|b| b.is_in(&words))
        .map(|b| (b, REASON));
    let empty = EMPTY_VERBS
        .iter()
        .filter(|b| b.is_in(verb))
        .map(|b| (b, VERB_REASON));
    let hits = banned.chain(empty).filter(|(b, _)| !b.is_fine(source));
    let report = |(hit, reason): (&Banned, _)| {
        let message = format!(
            "{keyword} {}: for \"{}\" say {}",
            name.text, hit.word, hit.instead
        );
        source.violation(name.line, message, reason)
    };
    hits.map(report).collect()
}

/// Each name that is given, with the keyword that gives it.
fn definitions(tokens: &[Token]) -> impl Iterator<Item = (&str, &Token)> {
    tokens.windows(3).filter_map(|t| {
        let [before, keyword, name] = t else {
            return None;
        };
        // `&'static str` and `*const u8` define nothing, nor does `const` in `const fn`.
        let is_definition = DEFINING.contains(&keyword.text.as_str())
            && !matches!(before.text.as_str(), "'" | "*" | "::")
            && name.is_ident
            && name.text != "fn";
        is_definition.then_some((keyword.text.as_str(), name))
    })
}

/// `DeviceList` and `device_list` are `["device", "list"]`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for c in name.chars() {
        if c == '_' || c.is_uppercase() && was_lower {
            words.push(String::new());
        }
        was_lower = c.is_lowercase();
        if let Some(word) = words.last_mut().filter(|_| c != '_') {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|w| !w.is_empty());
    words
}

impl Banned {
    fn is_in(&self, words: &[String]) -> bool {
        let banned: Vec<_> = self.word.split(' ').collect();
        let plural = format!("{}s", self.word);
        words.windows(banned.len()).any(|w| w == banned) || words.contains(&plural)
    }

    fn is_fine(&self, source: &Source) -> bool {
        self.fine_in.iter().any(|m| source.is_within(m))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        let text = format!("//! A file.\n{text}");
        let source = Source::parse(path, &text).unwrap();
        check(&source).into_iter().map(|v| v.message).collect()
    }

    #[test]
    fn every_banned_word_fires_in_names_of_each_shape() {
        for banned in BANNED {
            let snake = banned.word.replace(' ', "_");
            assert_eq!(
                messages("src/base/id.rs", &format!("fn open_{snake}() {{}}")).len(),
                1,
                "{snake}"
            );
            assert_eq!(
                messages(
                    "src/base/id.rs",
                    &format!("const {}_MAX: u8 = 1;", snake.to_uppercase())
                )
                .len(),
                1
            );
            for module in banned.fine_in {
                let path = format!("src/{}/x.rs", module.replace("::", "/"));
                assert!(
                    messages(&path, &format!("fn open_{snake}() {{}}")).is_empty(),
                    "{snake} in {module}"
                );
            }
        }
        assert_eq!(messages("src/ws/mod.rs", "struct PacketReader;").len(), 1);
        assert_eq!(messages("src/ws/mod.rs", "mod packets {}").len(), 1);
    }

    #[test]
    fn words_are_matched_whole_and_only_where_a_name_is_given() {
        assert!(messages("src/ws/mod.rs", "fn instances_are_not_reported() {}").len() == 1);
        assert!(messages("src/ws/mod.rs", "fn instantly() {} fn forwardly() {}").is_empty());
        assert!(
            messages(
                "src/ws/mod.rs",
                "fn f(remote: &'static packet) { dispatch() }"
            )
            .is_empty()
        );
    }

    #[test]
    fn empty_verbs_are_reported() {
        for name in ["get_id", "do_work", "process_frame"] {
            assert_eq!(
                messages("src/ws/mod.rs", &format!("fn {name}() {{}}")).len(),
                1,
                "{name}"
            );
        }
        assert!(
            messages(
                "src/ws/mod.rs",
                "fn get() {} fn get_mut() {} fn donate_id() {}"
            )
            .is_empty()
        );
    }
}
