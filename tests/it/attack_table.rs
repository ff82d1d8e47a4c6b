//! Where each attack on the administration has its tests (A01 to A22): `tests/golden/access/attacks.jsonl`, one row a line. And those
//! on what the tree is built of (A22), which have no server.

use std::path::{Path, PathBuf};

use cargo_metadata::MetadataCommand;
use serde_json::Value;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the root").to_owned()
}

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether the file has this test. Its attribute stands before it, maybe with others between; or it is one of a suite that runs on
/// several backends and names it.
pub(crate) fn has_test(text: &str, name: &str) -> bool {
    if text.contains(&format!("async fn {name}(backend: Backend)")) {
        return text.lines().any(|line| line.trim() == name);
    }
    let Some((before, _)) = text.split_once(&format!("fn {name}()")) else { return false };
    before.lines().rev().take(4).any(|line| line.trim_start().starts_with("#[test]") || line.contains("tokio::test"))
}

/// Each row names tests that are there, or says why there are none.
pub(crate) fn assert_covered(rows: &[Value]) {
    for row in rows {
        let tests = row["tests"].as_array().unwrap();
        let reason = row.get("untested").and_then(Value::as_str).unwrap_or_default();
        assert!(!tests.is_empty() || !reason.is_empty(), "{row}");
        assert_there(row);
    }
}

/// The rows of a table of tests.
pub(crate) fn rows(path: &str) -> Vec<Value> {
    read(path).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Each test that the row names as `path::name` is there.
pub(crate) fn assert_there(row: &Value) {
    assert!(!row["what"].as_str().unwrap().is_empty(), "{row}");
    for test in row["tests"].as_array().unwrap() {
        let (path, name) = test.as_str().unwrap().split_once("::").unwrap();
        assert!(has_test(&read(path), name), "{}: {path} has no test {name}", row["row"]);
    }
}

#[test]
fn every_attack_has_a_test_that_is_there() {
    let rows = rows("tests/golden/access/attacks.jsonl");
    let named: Vec<&str> = rows.iter().map(|row| row["row"].as_str().unwrap()).collect();
    let expected: Vec<String> = (1..=22).map(|number| format!("A{number:02}")).collect();
    assert_eq!(named, expected);
    for row in &rows {
        assert!(!row["tests"].as_array().unwrap().is_empty(), "{row}");
        assert_there(row);
    }
    assert!(!has_test("fn nope() {}", "nope") && has_test("#[test]\nfn yes() {}", "yes"));
    let of_a_suite = "async fn yes(backend: Backend) {}";
    assert!(!has_test(of_a_suite, "yes") && has_test(&format!("{of_a_suite}\nsuite!(\n    yes\n)"), "yes"));
}

#[test]
fn a22_what_may_come_into_the_tree_is_written_down_and_can_be_read() {
    let deny: toml::Table = read("deny.toml").parse().expect("deny.toml");
    assert_eq!(deny["advisories"]["yanked"].as_str(), Some("deny"));
    assert_eq!(deny["advisories"]["ignore"].as_array().map(Vec::len), Some(0), "a known hole is mended, not ignored");
    for key in ["unknown-registry", "unknown-git"] {
        assert_eq!(deny["sources"][key].as_str(), Some("deny"), "{key}");
    }
    assert_eq!(deny["bans"]["wildcards"].as_str(), Some("deny"));
    let licences = deny["licenses"]["allow"].as_array().unwrap();
    assert!(licences.len() > 3 && licences.iter().all(|licence| !licence.as_str().unwrap().contains("GPL")));

    // The bans are true of the tree, and everything in it comes from the one registry with its checksum.
    let lock: toml::Table = read("Cargo.lock").parse().expect("Cargo.lock");
    let packages = lock["package"].as_array().unwrap();
    for ban in deny["bans"]["deny"].as_array().unwrap().iter().filter(|ban| ban.get("wrappers").is_none()) {
        let banned = &ban["crate"];
        assert!(!packages.iter().any(|package| &package["name"] == banned), "{banned:?} is in the tree");
    }
    let registry = "registry+https://github.com/rust-lang/crates.io-index";
    for package in packages.iter().filter(|package| !package["name"].as_str().unwrap().starts_with("sluice")) {
        assert_eq!(package.get("source").and_then(toml::Value::as_str), Some(registry), "{package:?}");
        assert!(package.get("checksum").is_some(), "{package:?}");
    }
}

#[test]
fn a22_every_licence_in_the_tree_is_one_of_the_list() {
    let deny: toml::Table = read("deny.toml").parse().expect("deny.toml");
    let names = |list: &toml::Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let allowed = names(&deny["licenses"]["allow"]);
    let exceptions = deny["licenses"]["exceptions"].as_array().unwrap();
    let read =
        MetadataCommand::new().manifest_path(root().join("Cargo.toml")).other_options(["--locked".to_owned()]).exec();
    let foreign: Vec<_> =
        read.expect("cargo metadata").packages.into_iter().filter(|package| package.source.is_some()).collect();
    assert!(foreign.len() > 100, "the tree was read");
    for package in foreign {
        let own = exceptions.iter().find(|exception| exception["crate"].as_str() == Some(package.name.as_str()));
        let allowed = own.map_or_else(|| allowed.clone(), |own| names(&own["allow"]));
        let licence = package.license.as_deref().unwrap_or_else(|| panic!("{} has no licence", package.name));
        let expression = spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX).unwrap();
        let permitted = expression.evaluate(|wanted| allowed.contains(&wanted.to_string()));
        assert!(permitted, "{} {}: {licence} is not in the list of deny.toml", package.name, package.version);
    }
}

#[test]
fn a22_no_package_writes_unsafe_code() {
    let workspace: toml::Table = read("Cargo.toml").parse().expect("Cargo.toml");
    assert_eq!(workspace["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
    let members = workspace["workspace"]["members"].as_array().unwrap();
    assert!(members.len() > 5);
    for member in members {
        let manifest: toml::Table = read(&format!("{}/Cargo.toml", member.as_str().unwrap())).parse().unwrap();
        assert_eq!(manifest["lints"]["workspace"].as_bool(), Some(true), "{member:?}");
    }
}
