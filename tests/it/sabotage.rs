//! A campaign that never fails proves nothing: for each of its invariants (I1 to I18 of the fault campaign) there is at least one bug on
//! purpose that turns a test red, in `tests/golden/faults/sabotage.jsonl`. Bugs that a build can switch on, and those of Redis scripts, are
//! tried by the tests they name in every run. Those of the source are built here, in the long mode.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sluice_tests::long;

use crate::attack_table::{has_test, read, root, rows};

/// Where the other kinds of bugs are.
const FAULTS: &str = "data-plane/server/src/inbox/fault.rs";
const SCRIPTS: &str = "data-plane/server/src/inbox/suite/model.rs";
/// Which package a test is in, by where it lies.
const PACKAGES: [(&str, &str); 5] = [
    ("data-plane/core/", "sluice-core"),
    ("data-plane/egress/", "sluice-egress"),
    ("data-plane/server/", "sluice-data-plane"),
    ("control-plane/", "sluice-control-plane"),
    ("tests/", "sluice-tests"),
];

fn table() -> Vec<Value> {
    rows("tests/golden/faults/sabotage.jsonl")
}

fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_else(|| panic!("{field} is missing: {row}"))
}

fn package_of(path: &str) -> &'static str {
    PACKAGES.iter().find(|(folder, _)| path.starts_with(folder)).unwrap_or_else(|| panic!("{path}")).1
}

#[test]
fn every_invariant_has_a_bug_that_a_test_notices() {
    let rows = table();
    let mut named: Vec<&str> = rows.iter().map(|row| text(row, "invariant")).collect();
    named.dedup();
    assert_eq!(named, (1..=18).map(|n| format!("I{n}")).collect::<Vec<_>>());
    for row in &rows {
        assert!(!text(row, "bug").is_empty());
        let (path, name) = text(row, "test").split_once("::").unwrap();
        assert!(has_test(&read(path), name), "{path} has no test {name}");
        let place = ["fault", "script", "file"].into_iter().find(|kind| row.get(*kind).is_some()).unwrap();
        match place {
            "fault" => assert!(read(FAULTS).contains(&format!("    {},", text(row, "fault"))), "{row}"),
            "script" => assert!(read(SCRIPTS).contains(&format!("\"{}\"", text(row, "script"))), "{row}"),
            _ => {
                let source = read(text(row, "file"));
                assert_eq!(source.matches(text(row, "take")).count(), 1, "stands there once: {row}");
                assert_ne!(text(row, "take"), text(row, "put"));
                package_of(path);
            }
        }
    }
}

/// A copy of the tree, built beside the tests' own: what is tried here must not get in their way.
struct Tree {
    folder: PathBuf,
    target: PathBuf,
}

impl Tree {
    fn copy() -> Self {
        // target/debug/deps/it-…
        let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().join("sabotage");
        let folder = target.join("tree");
        let _none_yet = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        for entry in std::fs::read_dir(root()).unwrap() {
            let path = entry.unwrap().path();
            let is_built = ["target", ".git", "node_modules"].iter().any(|name| path.ends_with(name));
            if !is_built {
                assert!(Command::new("cp").arg("-r").arg(&path).arg(&folder).status().unwrap().success());
            }
        }
        Self { folder, target }
    }

    /// Whether the test of this row fails with its bug. A bug that is not built is no bug.
    fn notices(&self, row: &Value) -> bool {
        let file = self.folder.join(text(row, "file"));
        let good = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, good.replace(text(row, "take"), text(row, "put"))).unwrap();
        let (path, name) = text(row, "test").split_once("::").unwrap();
        let told = self.run(package_of(path), name);
        std::fs::write(&file, good).unwrap();
        told.contains("test result: FAILED") && told.contains(&format!("{name} ... FAILED"))
    }

    fn run(&self, package: &str, name: &str) -> String {
        let mut cargo = Command::new("cargo");
        cargo.args(["test", "--locked", "-p", package, name]).current_dir(&self.folder);
        cargo.env("CARGO_TARGET_DIR", &self.target).env_remove("SLUICE_LONG");
        let done = cargo.output().unwrap();
        String::from_utf8_lossy(&done.stdout).into_owned()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_dir_all(Path::new(&self.folder));
    }
}

#[test]
fn each_bug_of_the_source_is_noticed() {
    if !long::is_long() {
        return;
    }
    let tree = Tree::copy();
    let of_the_source: Vec<Value> = table().into_iter().filter(|row| row.get("file").is_some()).collect();
    let unnoticed: Vec<&Value> = of_the_source.iter().filter(|row| !tree.notices(row)).collect();
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}
