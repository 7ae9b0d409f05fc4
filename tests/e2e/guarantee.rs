//! The page of guarantees names the tests that hold it to them.

use std::fs;
use std::path::Path;

#[test]
fn every_guarantee_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/guarantees.md")).unwrap();
    let mut sources = String::new();
    read_all(&root.join("tests"), &mut sources);
    read_all(&root.join("src"), &mut sources);
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| ---"));
    let mut named = 0;
    for row in rows {
        let last = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let tests = last.split('`').skip(1).step_by(2);
        for test in tests {
            let is_there = sources.contains(&format!("fn {test}("));
            assert!(is_there, "docs/guarantees.md names no test: {test}");
            named += 1;
        }
        let is_heading = last.trim() == "test";
        assert!(
            is_heading || last.contains('`'),
            "a row without a test: {row}"
        );
    }
    assert!(named > 20, "{named}");
}

fn read_all(directory: &Path, into: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}
