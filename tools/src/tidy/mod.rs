//! `cargo tool tidy`: the rules of the house that no compiler lint knows.
//!
//! Every source is read once into tokens (so strings and comments cannot confuse a rule) and shown to each rule.
//! The tables of a rule and its exceptions stand in its own file, each line with its reason.

mod glossary;
mod layer;
mod path;
mod shape;
mod source;
mod text;
mod vendor;

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result};
use walkdir::{DirEntry, WalkDir};

use self::source::Source;

/// A rule that was broken, where, and why the rule exists.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    place: String,
    message: String,
    reason: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    {}", self.place, self.message, self.reason)
    }
}

/// What one scan saw.
#[derive(Debug)]
pub(crate) struct Scan {
    /// How many files were read.
    pub(crate) files: usize,
    /// Every rule broken, in the order of the files.
    pub(crate) violations: Vec<Violation>,
}

/// Reads every text file of the workspace and reports what breaks a rule.
pub(crate) fn scan(root: &Path) -> Result<Scan> {
    let mut scan = Scan {
        files: 0,
        violations: Vec::new(),
    };
    let entries = WalkDir::new(root).sort_by_file_name().into_iter();
    for entry in entries.filter_entry(|e| e.depth() == 0 || is_ours(e)) {
        let entry = entry?;
        let path = entry.path().strip_prefix(root)?.to_string_lossy();
        if entry.file_type().is_file() && text::is_text(&path) {
            let content = std::fs::read_to_string(entry.path())
                .with_context(|| format!("cannot read {path}"))?;
            scan.files += 1;
            scan.violations.extend(check_file(&path, &content)?);
        }
    }
    Ok(scan)
}

fn is_ours(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    !matches!(
        &*name,
        ".git" | "target" | "node_modules" | "results" | "corpus"
    )
}

fn check_file(path: &str, content: &str) -> Result<Vec<Violation>> {
    let mut violations = text::check(path, content);
    if path.ends_with(".rs") {
        let source = Source::parse(path, content)?;
        let rules = [layer::check, vendor::check, glossary::check, shape::check];
        violations.extend(rules.iter().flat_map(|rule| rule(&source)));
    }
    Ok(violations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_reports_each_violation_with_its_place_and_reason() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("src/ws")).unwrap();
        std::fs::create_dir_all(root.path().join("target")).unwrap();
        let source = "//! Frames.\n\nuse crate::route::Router;\n";
        std::fs::write(root.path().join("src/ws/frame.rs"), source).unwrap();
        std::fs::write(root.path().join("target/made.rs"), source).unwrap();

        let scan = scan(root.path()).unwrap();

        assert_eq!(scan.files, 1);
        let [violation] = &scan.violations[..] else {
            panic!("{:?}", scan.violations);
        };
        let line = violation.to_string();
        assert!(
            line.starts_with("src/ws/frame.rs:3: ws (layer 1) imports route"),
            "{line}"
        );
        assert!(line.contains("strictly down"), "{line}");
    }
}
