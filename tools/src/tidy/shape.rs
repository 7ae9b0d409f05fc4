//! The shape of a source: its length, its name, the words it begins with, one path per type.

use super::source::Source;
use super::{Violation, vendor};

const LINES_MAX: usize = 600;
const LINES_REASON: &str =
    "a file this long holds two things: find the second and give it its own name";

const HOMELESS: &[&str] = &[
    "util", "utils", "common", "helper", "helpers", "types", "manager", "misc",
];
const HOMELESS_REASON: &str =
    "a thing without a home has not been understood yet: name the module after its main type";

const DOC_REASON: &str =
    "documents stand where the reader stands: what this is, who calls it, what never happens in it";
const DOC_LINES_MAX: usize = 15;

const REEXPORT_REASON: &str = "one path for each of our types: only lib.rs re-exports";

/// Reports files that are too long, unnamed, silent about themselves, or re-export.
pub(crate) fn check(source: &Source) -> Vec<Violation> {
    let rules = [check_length, check_name, check_doc, check_reexports];
    rules.iter().flat_map(|rule| rule(source)).collect()
}

fn check_length(source: &Source) -> Vec<Violation> {
    let lines = source.text.lines().count();
    let message = format!("{lines} lines, more than {LINES_MAX}");
    let is_long = lines > LINES_MAX;
    is_long
        .then(|| source.violation(LINES_MAX + 1, message, LINES_REASON))
        .into_iter()
        .collect()
}

fn check_name(source: &Source) -> Vec<Violation> {
    let homeless = source
        .module
        .iter()
        .filter(|m| HOMELESS.contains(&m.as_str()));
    let report = |m: &String| source.violation(1, format!("a module named {m}"), HOMELESS_REASON);
    homeless.map(report).collect()
}

fn check_doc(source: &Source) -> Vec<Violation> {
    let doc_lines = source
        .text
        .lines()
        .take_while(|l| l.starts_with("//!"))
        .count();
    let is_silent = doc_lines == 0 && !source.is_test();
    let message = if is_silent {
        "does not begin with a //! comment".to_owned()
    } else if doc_lines > DOC_LINES_MAX && source.path.ends_with("/mod.rs") {
        format!("begins with {doc_lines} lines of //!, more than {DOC_LINES_MAX}")
    } else {
        return Vec::new();
    };
    vec![source.violation(1, message, DOC_REASON)]
}

fn check_reexports(source: &Source) -> Vec<Violation> {
    if source.path.ends_with("lib.rs") {
        return Vec::new();
    }
    let reexports = source.tokens.windows(3).filter(|t| {
        let is_public = matches!(t[0].text.as_str(), "pub" | ")");
        is_public && t[1].text == "use" && !vendor::is_foreign(&t[2].text)
    });
    let report = |line| source.violation(line, "re-exports".to_owned(), REEXPORT_REASON);
    reexports.map(|t| report(t[1].line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        let source = Source::parse(path, text).unwrap();
        check(&source).into_iter().map(|v| v.message).collect()
    }

    #[test]
    fn long_files_are_reported() {
        let lines = |n: usize| format!("//! Doc.\n{}", "const A: u8 = 1;\n".repeat(n - 1));
        assert!(messages("src/ws/frame.rs", &lines(600)).is_empty());
        assert_eq!(
            messages("src/ws/frame.rs", &lines(601)),
            ["601 lines, more than 600"]
        );
    }

    #[test]
    fn homeless_modules_are_reported() {
        for name in HOMELESS {
            assert_eq!(
                messages(&format!("src/{name}/mod.rs"), "//! Doc.").len(),
                1,
                "{name}"
            );
            assert_eq!(
                messages(&format!("tests/{name}.rs"), "//! Doc.").len(),
                1,
                "{name}"
            );
        }
    }

    #[test]
    fn silent_and_wordy_files_are_reported() {
        assert_eq!(messages("src/ws/mod.rs", "use std::fmt;").len(), 1);
        assert_eq!(messages("src/ws/mod.rs", &"//! Doc.\n".repeat(16)).len(), 1);
        assert!(messages("src/ws/tests.rs", "use super::Frame;").is_empty());
    }

    #[test]
    fn reexports_outside_the_root_are_reported() {
        assert_eq!(
            messages("src/ws/mod.rs", "//! Doc.\npub use frame::Frame;").len(),
            1
        );
        assert_eq!(
            messages("src/ws/mod.rs", "//! Doc.\npub(crate) use frame::Frame;").len(),
            1
        );
        assert!(messages("src/lib.rs", "//! Doc.\npub use ws::Frame;").is_empty());
        assert!(messages("src/ws/mod.rs", "//! Doc.\npub(super) use loom::thread;").is_empty());
        assert!(messages("src/ws/mod.rs", "//! Doc.\nmod frame;\nuse frame::Frame;").is_empty());
    }
}
