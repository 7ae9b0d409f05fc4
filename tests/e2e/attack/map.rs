//! `docs/security.md` says which test shows what: every row is there, and every test it names exists.

use std::fs;
use std::path::{Path, PathBuf};

/// The rows, A01 to this one.
const ROWS: usize = 44;

#[test]
fn every_row_has_a_test_that_exists_or_a_reason() {
    let document = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let rows: Vec<_> = document
        .lines()
        .filter(|line| line.starts_with("| A"))
        .collect();
    assert_eq!(rows.len(), ROWS);
    let mut faults = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let number = format!("A{:02}", index + 1);
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [found, _, does, shown] = cells[..] else {
            panic!("{number}: not four cells: {row}");
        };
        assert_eq!(found, number);
        assert!(does.len() > 12, "{number}: what does the node do?");
        let names: Vec<_> = named(shown).collect();
        let has_reason = shown.starts_with("– ") && shown.len() > 30;
        if names.is_empty() && !has_reason {
            faults.push(format!("{number}: neither a test nor a reason"));
        }
        let missing = names.iter().filter(|name| !exists(name));
        faults.extend(missing.map(|name| format!("{number}: there is no {name}")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What stands between backticks.
fn named(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Whether there is such a test, or such a stage of `cargo tool test`.
fn exists(name: &str) -> bool {
    if let Some(stage) = name.strip_prefix("cargo tool test ") {
        let stages = fs::read_to_string(root().join("tools/src/stage.rs")).unwrap();
        let (first, rest) = stage.split_at(1);
        return stages.contains(&format!("    {}{rest},\n", first.to_uppercase()));
    }
    let Some((module, test)) = name.rsplit_once("::") else {
        return false;
    };
    let files = files_of(module);
    let mut sources = files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok());
    sources.any(|source| has_test(&source, test))
}

/// Where a module may stand: among the end-to-end tests, or in the sources, where `tests` is often part of the file.
fn files_of(module: &str) -> Vec<PathBuf> {
    let inline = module.strip_suffix("::tests").unwrap_or(module);
    let places = [("tests/e2e", module), ("src", module), ("src", inline)];
    let files = places.map(|(top, module)| {
        let path = root().join(top).join(module.replace("::", "/"));
        [path.with_extension("rs"), path.join("mod.rs")]
    });
    files.into_iter().flatten().collect()
}

/// Whether a function of that name follows an attribute that makes it a test.
fn has_test(source: &str, name: &str) -> bool {
    let start = format!("fn {name}(");
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    let is_it = |line: &str| line.trim_start_matches("async ").starts_with(&start);
    let above = |at: usize| {
        lines[..at]
            .iter()
            .rev()
            .take_while(|line| line.starts_with("#["))
    };
    let is_test = |line: &&str| line.contains("test]") || line.contains("test(");
    (0..lines.len()).any(|at| is_it(lines[at]) && above(at).any(is_test))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_name_without_its_test_is_noticed() {
    assert!(exists("attack::map::a_name_without_its_test_is_noticed"));
    assert!(exists(
        "head::guard::tests::sound_requests_pass_byte_for_byte"
    ));
    assert!(exists("cargo tool test deny"));
    for made_up in [
        "attack::map::exists",
        "attack::map::no_such_test",
        "no_such_module::a_name_without_its_test_is_noticed",
        "cargo tool test nonsense",
        "plain words",
    ] {
        assert!(!exists(made_up), "{made_up}");
    }
}
