//! Rules for every text file: no unfinished work, no path of one person's machine.

use std::sync::LazyLock;

use regex::Regex;

use super::Violation;

const EXTENSIONS: &[&str] = &[
    "rs", "md", "toml", "json", "py", "mjs", "js", "ts", "html", "sh", "yml", "yaml", "service",
];

struct Rule {
    pattern: Regex,
    reason: &'static str,
}

static RULES: LazyLock<[Rule; 2]> = LazyLock::new(|| {
    // Written with character classes so that the patterns do not find themselves.
    let rule = |pattern: &str, reason| Rule {
        #[expect(
            clippy::expect_used,
            reason = "the patterns are constant, and every test compiles them"
        )]
        pattern: Regex::new(pattern).expect("a constant pattern"),
        reason,
    };
    [
        rule(
            r"\b(TOD[O]|FIXM[E]|XX[X])\b",
            "what is not finished is an issue, not a comment",
        ),
        rule(
            r#"(^|[\s"'`(=:])/(home|root|tmp|work|Users)/\w"#,
            "no path of one machine: take it as an argument, from the environment, or a temporary directory",
        ),
    ]
});

/// Whether these rules are for the file.
pub(crate) fn is_text(path: &str) -> bool {
    let extension = path.rsplit_once('.').map_or("", |(_, e)| e);
    EXTENSIONS.contains(&extension) && !path.ends_with("package-lock.json")
}

/// Reports every line that breaks a rule.
pub(crate) fn check(path: &str, content: &str) -> Vec<Violation> {
    let lines = content.lines().enumerate();
    let in_line = |(at, line): (usize, &str)| {
        let hits = RULES.iter().filter_map(|r| {
            r.pattern
                .find(line)
                .map(|m| (m.as_str().to_owned(), r.reason))
        });
        let place = format!("{path}:{}", at + 1);
        let report = move |(found, reason): (String, _)| Violation {
            place: place.clone(),
            message: format!("mentions {}", found.trim()),
            reason,
        };
        hits.map(report).collect::<Vec<_>>()
    };
    lines.flat_map(in_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_work_is_reported() {
        for word in ["TO-DO", "FIX-ME", "XX-X"].map(|w| format!("// {}: later", w.replace('-', "")))
        {
            assert_eq!(check("src/a.rs", &word).len(), 1, "{word}");
        }
        assert!(check("src/a.rs", "// METHODOLOGY, mktemp XXXXXX").is_empty());
    }

    #[test]
    fn paths_of_one_machine_are_reported() {
        for path in ["home", "root", "tmp", "Users"].map(|d| format!("see \"/{d}/ann/notes\"")) {
            assert_eq!(check("README.md", &path).len(), 1, "{path}");
        }
        assert!(check("README.md", "GET /v1/home/x, target/tmp/x, /tmp").is_empty());
    }
}
