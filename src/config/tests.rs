//! Loading: who wins, and what a mistake is told.

use std::path::PathBuf;
use std::time::Duration;

use super::Config;
use super::error::ConfigErrors;
use super::name;
use super::section::{Key, LogFormat, LogLevel};
use super::source::{Loaded, Sources};

struct Given {
    dir: tempfile::TempDir,
    sources: Sources,
}

impl Given {
    fn nothing() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            sources: Sources::default(),
        }
    }

    fn file(mut self, text: &str) -> Self {
        std::fs::write(self.path(), text).unwrap();
        self.sources.file = Some(self.path());
        self
    }

    fn variable(mut self, name: &str, text: &str) -> Self {
        self.sources.environment.push((name.into(), text.into()));
        self
    }

    fn flag(mut self, flag: &str) -> Self {
        self.sources.flags.push(flag.into());
        self
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("t.toml")
    }

    fn load(&self) -> Result<Loaded, ConfigErrors> {
        self.sources.load()
    }

    /// The mistakes, a line each, without the directory of the file.
    fn mistakes(&self) -> Vec<String> {
        let dir = format!("{}/", self.dir.path().display());
        let text = self.load().unwrap_err().to_string().replace(&dir, "");
        text.lines().map(Into::into).collect()
    }
}

#[test]
fn the_sections_and_keys_listed_are_those_of_the_tree() {
    let tree = Config::default().to_table();
    for (name, keys) in &tree {
        for key in keys.as_table().unwrap().keys() {
            assert!(
                name::all().any(|setting| setting == (name, key)),
                "{name}.{key}"
            );
        }
    }
    assert_eq!(tree.len(), Config::SECTIONS.len());
}

#[test]
fn flags_beat_the_environment_which_beats_the_file_which_beats_defaults() {
    let given = Given::nothing()
        .file("[drain]\ndeadline = \"30s\"\ninterval = \"3s\"\n[log]\nlevel = \"warn\"\n")
        .variable("TAUTLINE_DRAIN_DEADLINE", "40s")
        .variable("TAUTLINE_LOG_LEVEL", "debug")
        .variable("HOME", "/root")
        .flag("drain.deadline=50s");
    let loaded = given.load().unwrap();
    assert_eq!(loaded.config.drain.deadline, Duration::from_secs(50));
    assert_eq!(loaded.config.drain.interval, Duration::from_secs(3));
    assert_eq!(loaded.config.log.level, LogLevel::Debug);
    assert_eq!(loaded.config.log.format, LogFormat::Text);
    assert_eq!(loaded.origins["drain.deadline"], "--set drain.deadline");
    assert_eq!(loaded.origins["log.level"], "TAUTLINE_LOG_LEVEL");
    assert_eq!(
        loaded.origins["drain.interval"],
        given.path().display().to_string()
    );
    assert!(!loaded.origins.contains_key("log.format"));
}

#[test]
fn text_is_read_by_the_kind_of_the_key() {
    let loaded = Given::nothing()
        .variable("TAUTLINE_NODE_ID", "42")
        .variable("TAUTLINE_REACTOR_THREADS", "16")
        .variable("TAUTLINE_LISTEN_SHARE", "true")
        .variable("TAUTLINE_LIMITS_MESSAGE_BYTES_MAX", "1024")
        .variable("TAUTLINE_AUTH_ORIGINS", "a.example, https://b.example,")
        .flag("auth.audience=[\"x,y\"]")
        .flag("listen.devices=127.0.0.1:0")
        .load()
        .unwrap();
    let config = loaded.config;
    assert_eq!(config.node.id(), "42");
    assert_eq!(config.reactor.threads, 16);
    assert!(config.listen.share);
    assert_eq!(config.limits.message_bytes_max.bytes(), 1_024);
    assert_eq!(config.auth.origins, ["a.example", "https://b.example"]);
    assert_eq!(config.auth.audience, ["x,y"]);
    assert_eq!(config.listen.devices.port(), 0);
}

#[test]
fn unknown_names_are_told_with_place_and_nearest_name() {
    let given = Given::nothing()
        .file("[heartbeat]\n  ping_aftr = \"45s\"\n[limit]\nfragments_max = 3\n")
        .variable("TAUTLINE_AUTH_MOD", "secret-value")
        .flag("listen.devces=127.0.0.1:1")
        .flag("log.level");
    assert_eq!(
        given.mistakes(),
        [
            "t.toml:2:3: no such key: heartbeat.ping_aftr; did you mean heartbeat.ping_after?",
            "t.toml:3:2: no such section: limit; did you mean limits?",
            "TAUTLINE_AUTH_MOD: no such variable; did you mean TAUTLINE_AUTH_MODE?",
            "--set listen.devces: no such key; did you mean listen.devices?",
            "--set log.level: no value; write --set section.key=value",
        ]
    );
}

#[test]
fn wrong_values_are_told_with_their_place() {
    for (text, expected) in [
        ("[drain]\ndeadline = 25\n", "t.toml:2:12: invalid type"),
        (
            "[limits]\nconnections_max = -1\n",
            "t.toml:2:19: invalid value",
        ),
        (
            "[limits]\nmessage_bytes_max = \"5GiB\"\n",
            "t.toml:2:21: 5.0 GiB is more",
        ),
        (
            "listen.api = \"localhost:1\"\n",
            "t.toml:1:14: invalid socket address",
        ),
        (
            "[[auth.keys]]\nalgorithm = \"none\"\n",
            "t.toml:2:13: unknown variant `none`",
        ),
        (
            "[[auth.keys]]\nalgoritm = \"HS256\"\n",
            "t.toml:2:1: unknown field `algoritm`, expected one of",
        ),
        ("[drain\n", "t.toml:1:7: unclosed table"),
        ("drain = 5\n", "t.toml:1:9: invalid type"),
    ] {
        let mistakes = Given::nothing().file(text).mistakes();
        assert!(
            mistakes[0].starts_with(expected),
            "{mistakes:?} is not {expected}"
        );
    }
    let mistakes = Given::nothing()
        .variable("TAUTLINE_REACTOR_THREADS", "many")
        .mistakes();
    assert!(
        mistakes[0].starts_with("TAUTLINE_REACTOR_THREADS: "),
        "{mistakes:?}"
    );
    let mistakes = Given::nothing().flag("drain.deadline=soon").mistakes();
    assert!(
        mistakes[0].starts_with("--set drain.deadline: "),
        "{mistakes:?}"
    );
}

#[test]
fn a_missing_file_is_told_with_the_next_step() {
    let mut given = Given::nothing();
    given.sources.file = Some(given.path());
    assert_eq!(
        given.mistakes(),
        ["t.toml: No such file or directory (os error 2); `tautline config init` writes a file"]
    );
}

#[test]
fn a_tree_that_may_not_be_started_is_not_loaded() {
    let mistakes = Given::nothing()
        .variable("TAUTLINE_LISTEN_API", "0.0.0.0:7401")
        .mistakes();
    assert_eq!(
        mistakes,
        [
            "listen.api: 0.0.0.0:7401 is not loopback, and without a key anybody could send; \
          add [[api.keys]] with name, key_file and roles"
        ]
    );
}

/// A key's row in `docs/configuration.md`: its default, and its documentation up to the example.
fn row(section: &str, key: &Key, default: Option<&toml::Value>) -> String {
    let about = key.about.iter().map(|line| line.trim());
    let about: Vec<_> = about.take_while(|line| !line.starts_with("[[")).collect();
    let default = default.map_or_else(|| "unset".into(), |value| format!("`{value}`"));
    format!(
        "| `{section}.{}` | {default} | {} |",
        key.name,
        about.join(" ")
    )
}

#[test]
fn the_page_for_operators_has_every_key_with_its_default() {
    let page = include_str!("../../docs/configuration.md");
    let defaults = Config::default().to_table();
    for section in Config::SECTIONS {
        assert!(page.contains(&format!("### `[{}]`", section.name)));
        let about: Vec<_> = section.about.iter().map(|line| line.trim()).collect();
        assert!(page.contains(&about.join(" ")), "{about:?}");
        for key in section.keys {
            let row = row(section.name, key, defaults[section.name].get(key.name));
            assert!(
                page.contains(&row),
                "docs/configuration.md lacks this row:\n{row}"
            );
        }
    }
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| `") && line.contains('.'));
    let is_key = |line: &&str| {
        name::all().any(|(section, key)| line.starts_with(&format!("| `{section}.{key}` ")))
    };
    let unknown: Vec<_> = rows.filter(|line| !is_key(line)).collect();
    assert!(unknown.is_empty(), "no such keys: {unknown:#?}");
}
