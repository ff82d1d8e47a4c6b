//! Cases from `tests/golden`.

use serde_json::Value;

/// Every line of a golden file.
pub(super) fn cases(file: &str) -> Vec<Value> {
    let path = format!("{}/../../tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A run such as `{70000}` stands for that many `a`.
pub(super) fn expanded(text: &str) -> String {
    let mut parts = text.split('{');
    let mut expanded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once('}').and_then(|(count, rest)| Some((count.parse().ok()?, rest))) {
            Some((count, rest)) => expanded.extend(["a".repeat(count).as_str(), rest]),
            None => expanded.extend(["{", part]),
        }
    }
    expanded
}
