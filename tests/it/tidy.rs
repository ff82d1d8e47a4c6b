//! The walls of the house: what may depend on what, how long things may grow, what may not be written at all.
//!
//! Every rule is a function of a text that returns what it finds, so that each is shown to notice something.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// One package of the house.
struct Room {
    name: &'static str,
    /// The packages of the house it is built on: exactly these.
    on: &'static [&'static str],
    /// What it may use from outside.
    outside: Outside,
    /// What it may use only if a feature asks for it.
    optional: &'static [&'static str],
}

enum Outside {
    /// Nothing but these.
    Only(&'static [&'static str]),
    /// Anything but these.
    Not(&'static [&'static str]),
}
use Outside::{Not, Only};

/// HTTP clients other than the one of `sluice-egress`.
const CLIENTS: [&str; 6] = ["reqwest", "ureq", "isahc", "curl", "surf", "awc"];

/// The table of dependencies. A new edge is a design change.
const HOUSE: &[Room] = &[
    Room {
        name: "sluice-proto",
        on: &[],
        outside: Only(&["prost", "prost-types", "tonic", "tonic-prost"]),
        optional: &["tonic", "tonic-prost"],
    },
    Room { name: "sluice-tls", on: &[], outside: Not(&["prost", "redis", "sqlx", "tonic"]), optional: &[] },
    Room {
        name: "sluice-core",
        on: &["sluice-proto"],
        // Pure: no runtime, no network, no store, no clock, no environment, no randomness.
        outside: Only(&[
            "aho-corasick",
            "base64",
            "bytes",
            "chacha20poly1305",
            "hex",
            "hmac",
            "indexmap",
            "ipnet",
            "jiff",
            "md-5",
            "minijinja",
            "percent-encoding",
            "prost",
            "prost-types",
            "regex",
            "ring",
            "serde",
            "serde_json",
            "sha1",
            "sha2",
            "thiserror",
            "url",
            "zeroize",
        ]),
        optional: &[],
    },
    Room {
        name: "sluice-egress",
        on: &["sluice-core"],
        outside: Not(&["prost", "redis", "sqlx", "tonic"]),
        optional: &[],
    },
    Room {
        name: "sluice-data-plane",
        on: &["sluice-core", "sluice-egress", "sluice-proto", "sluice-tls"],
        outside: Not(&["rustls", "tokio-rustls"]),
        optional: &[],
    },
    Room {
        name: "sluice-control-plane",
        on: &["sluice-core", "sluice-proto", "sluice-tls"],
        outside: Not(&["hyper", "hyper-util", "redis", "rustls", "tokio-rustls"]),
        optional: &[],
    },
    Room { name: "sluice-client", on: &["sluice-proto"], outside: Only(&["tonic"]), optional: &[] },
    Room {
        name: "sluice",
        on: &[
            "sluice-client",
            "sluice-control-plane",
            "sluice-core",
            "sluice-data-plane",
            "sluice-egress",
            "sluice-proto",
            "sluice-tls",
        ],
        outside: Not(&["redis", "sqlx"]),
        optional: &[],
    },
    Room {
        name: "sluice-tests",
        on: &[
            "sluice",
            "sluice-client",
            "sluice-control-plane",
            "sluice-core",
            "sluice-data-plane",
            "sluice-egress",
            "sluice-proto",
            "sluice-tls",
        ],
        outside: Not(&[]),
        optional: &[],
    },
];

/// Lines of a file without its tests.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 70;
/// Files and functions that are longer than that, and how long they may be. This list only shrinks.
const LONGER: &[(&str, usize)] = &[("deploy/sluice/src/destination.rs", 611)];

/// Where connections are opened: the one way out, the line to the control plane, the demo, which plays the sender of its own story, and the
/// command that asks a plane whether it is ready.
const DIALLERS: &[&str] =
    &["data-plane/egress/src/", "tls/src/client.rs", "deploy/sluice/src/demo.rs", "deploy/sluice/src/main.rs"];
/// What a connection, or the address for one, is got by. A store's own client is not in it: it calls the store.
const DIALS: [&str; 11] = [
    "TcpStream::connect",
    "TcpSocket",
    "UdpSocket",
    "UnixStream::connect",
    "lookup_host",
    "to_socket_addrs",
    "hyper::client",
    "hyper_util::client",
    "hickory_resolver",
    "TlsConnector",
    "HttpConnector",
];
/// Who calls the control plane over gRPC, which is inside the house.
const GRPC_CALLERS: &[&str] = &["clients/rust/src/", "data-plane/server/src/link.rs"];
/// What a gRPC client is made by.
const GRPC_CALLS: [&str; 3] = ["transport::Endpoint", "transport::{Channel", "transport::Channel"];
/// Packages, and features of packages, that open connections: only the one way out asks for them.
const CONNECTING: [(&str, &str); 6] = [
    ("hyper", "client"),
    ("hyper-util", "client"),
    ("hickory-resolver", ""),
    ("tokio-native-tls", ""),
    ("tower-http", "follow-redirect"),
    ("socket2", ""),
];
/// Packages that may ask for a gRPC client.
const GRPC_CLIENTS: [&str; 3] = ["sluice-client", "sluice-data-plane", "sluice-tests"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the root").to_owned()
}

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().expect("cargo metadata")
}

/// What a package says it needs to be built, without what its tests need.
fn needs(package: &Package) -> impl Iterator<Item = &cargo_metadata::Dependency> {
    package.dependencies.iter().filter(|needed| needed.kind == DependencyKind::Normal)
}

/// Where a package and its row of the table differ.
fn walls(room: &Room, package: &Package) -> Vec<String> {
    let ours: BTreeSet<&str> = needs(package).map(|needed| &*needed.name).filter(|name| is_ours(name)).collect();
    let table: BTreeSet<&str> = room.on.iter().copied().collect();
    let mut found = Vec::new();
    if ours != table {
        found.push(format!("{} is built on {ours:?}, the table says {table:?}", room.name));
    }
    for needed in needs(package).filter(|needed| !is_ours(&needed.name)) {
        let name = needed.name.as_str();
        let allowed = match &room.outside {
            Only(these) => these.contains(&name),
            Not(these) => !these.contains(&name),
        };
        if !allowed || CLIENTS.contains(&name) {
            found.push(format!("{} may not use {name}", room.name));
        }
        found.extend(connects(&package.name, name, &needed.features));
        if room.optional.contains(&name) && !needed.optional {
            found.push(format!("{} may use {name} only behind a feature", room.name));
        }
    }
    let built_with = package.dependencies.iter().any(|needed| needed.kind == DependencyKind::Build);
    if built_with && room.name != "sluice-proto" {
        found.push(format!("{} has a build script's dependencies; only the contract is generated", room.name));
    }
    found
}

/// What a package asks for that could open a connection past the one way out (I6).
fn connects(package: &str, needed: &str, features: &[String]) -> Option<String> {
    let asks = |wanted: &str| wanted.is_empty() || features.iter().any(|feature| feature.starts_with(wanted));
    let connecting = CONNECTING.iter().any(|(name, feature)| *name == needed && asks(feature));
    let calling = needed == "tonic" && (asks("channel") || asks("transport"));
    let allowed = (!connecting || package == "sluice-egress") && (!calling || GRPC_CLIENTS.contains(&package));
    (!allowed).then(|| format!("{package} may not open connections by {needed}"))
}

fn is_ours(name: &str) -> bool {
    name == "sluice" || name.starts_with("sluice-")
}

#[test]
fn packages_depend_on_each_other_as_the_table_says() {
    let metadata = metadata();
    let packages = metadata.workspace_packages();
    let named: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(named, HOUSE.iter().map(|room| room.name).collect(), "a package without a row, or a row without one");
    let found: Vec<String> = packages
        .iter()
        .flat_map(|package| {
            let room = HOUSE.iter().find(|room| room.name == package.name.as_str()).expect("compared above");
            walls(room, package)
        })
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_walls_notice_what_is_not_in_the_table() {
    let metadata = metadata();
    let packages = metadata.workspace_packages();
    let package = |name: &str| *packages.iter().find(|package| package.name.as_str() == name).expect("a package");
    let room = |on, outside, optional| Room { name: "x", on, outside, optional };
    let edge_missing = room(&[], Not(&[]), &[]);
    assert_eq!(walls(&edge_missing, package("sluice-client")).len(), 1);
    let edge_gone = room(&["sluice-proto", "sluice-egress"], Not(&[]), &[]);
    assert_eq!(walls(&edge_gone, package("sluice-client")).len(), 1);
    let forbidden = room(&["sluice-proto"], Not(&["tonic"]), &[]);
    assert_eq!(walls(&forbidden, package("sluice-client")), ["x may not use tonic"]);
    let unknown = room(&["sluice-proto"], Only(&[]), &[]);
    assert_eq!(walls(&unknown, package("sluice-client")), ["x may not use tonic"]);
    let always = room(&["sluice-proto"], Not(&[]), &["tonic"]);
    assert_eq!(walls(&always, package("sluice-client")), ["x may use tonic only behind a feature"]);
    let generated = room(&[], Not(&[]), &[]);
    assert_eq!(walls(&generated, package("sluice-proto")).len(), 1);
}

#[test]
fn no_other_http_client_is_in_the_tree() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    let holds = |name: &str| lock.contains(&format!("name = \"{name}\"\n"));
    assert!(holds("hyper"), "the lock file is not read as it is written");
    for name in CLIENTS.iter().chain(&["native-tls", "openssl", "openssl-sys"]) {
        assert!(!holds(name), "{name} is in the tree");
    }
}

/// The text files of the repository with their paths from its root.
fn files(extensions: &[&str]) -> Vec<(String, String)> {
    let root = root();
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let hidden = name.starts_with('.') && name != ".ci";
            if path.is_dir() && !hidden && name != "target" && name != "node_modules" {
                folders.push(path);
            } else if path.is_file() && !hidden && wanted(name, extensions) {
                let from_root = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
                files.extend(std::fs::read_to_string(&path).ok().map(|text| (from_root, text)));
            }
        }
    }
    files.sort();
    assert!(files.len() > 5, "the repository's files are not found");
    files
}

fn wanted(name: &str, extensions: &[&str]) -> bool {
    extensions.is_empty() || extensions.iter().any(|extension| name.ends_with(extension))
}

/// Code that is only there for tests: whole files, and what follows the first `#[cfg(test)]`.
fn is_for_tests(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs" || part == "suite.rs")
}

fn without_tests(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod ").map_or(text, |at| &text[..at])
}

/// Files and functions over their limit, unless listed.
fn too_long(path: &str, text: &str, longer: &[(&str, usize)]) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |what: String, lines: usize, limit: usize| {
        let listed = longer.iter().find(|(name, _)| *name == what).map(|(_, lines)| *lines);
        if lines > listed.unwrap_or(limit) {
            found.push(format!("{what} has {lines} lines; {} are allowed", listed.unwrap_or(limit)));
        }
        if listed.is_some() && lines <= limit {
            found.push(format!("{what} has {lines} lines and needs no entry in the list any more"));
        }
    };
    let text = if is_for_tests(path) { text } else { without_tests(text) };
    if !is_for_tests(path) {
        check(path.to_owned(), text.lines().count(), FILE_LINES_MAX);
    }
    for (name, lines) in functions(text) {
        check(format!("{path}::{name}"), lines, FUNCTION_LINES_MAX);
    }
    found
}

/// The functions of a formatted file and their lines, signature and closing brace included.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut functions = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let Some(name) = function_name(code) else { continue };
        let close = format!("{indent}}}");
        let ends = |line: &&str| line.starts_with(&close) || (line.starts_with(indent) && line.ends_with(';'));
        let one_line = code.ends_with('}') || code.ends_with(';');
        let length = match one_line {
            true => 1,
            // A `;` ends a signature without a body; within a body lines are indented deeper.
            false => lines[start + 1..]
                .iter()
                .position(|line| ends(line) && !line[indent.len()..].starts_with(' '))
                .map_or(lines.len() - start, |after| after + 2),
        };
        functions.push((name.to_owned(), length));
    }
    functions
}

fn function_name(code: &str) -> Option<&str> {
    let mut rest = code;
    if let Some(public) = rest.strip_prefix("pub") {
        rest = public.strip_prefix('(').and_then(|scope| scope.split_once(')')).map_or(public, |(_, rest)| rest);
        rest = rest.strip_prefix(' ')?;
    }
    for word in ["const ", "async ", "unsafe ", "extern \"C\" "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let rest = rest.strip_prefix("fn ")?;
    Some(rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
}

/// What may not be written.
fn forbidden(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut refuse = |needle: &str, why: &str, text: &str| {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| line.contains(needle)) {
            found.push(format!("{path}:{}: {why}: {}", number + 1, line.trim()));
        }
    };
    let todo = ["todo", "!("].concat();
    refuse(&todo, "unfinished", text);
    refuse(&["unimplemented", "!("].concat(), "unfinished", text);
    let code = without_tests(text);
    if !is_for_tests(path) {
        refuse(&["unbounded", "_channel"].concat(), "nothing is unbounded (I8)", code);
        refuse(&["mpsc::", "unbounded"].concat(), "nothing is unbounded (I8)", code);
        if !DIALLERS.iter().any(|dialler| path.starts_with(dialler)) {
            DIALS.iter().for_each(|dial| refuse(dial, "only sluice-egress opens connections (I6)", code));
        }
        if !GRPC_CALLERS.iter().any(|caller| path.starts_with(caller)) {
            GRPC_CALLS
                .iter()
                .for_each(|call| refuse(call, "only the link and the client call the control plane", code));
        }
    }
    found
}

/// Rooms named after nothing.
fn badly_named(path: &str) -> Option<String> {
    let stem = |part: &str| part.strip_suffix(".rs").unwrap_or(part).to_owned();
    let bad = ["util", "utils", "common", "helper", "helpers", "types", "misc", "manager"];
    path.split('/').map(stem).any(|part| bad.contains(&part.as_str())).then(|| path.to_owned())
}

/// Paths of somebody's machine.
fn machine_paths(path: &str, text: &str) -> Vec<String> {
    let places = ["work", "home", "root", "Users", "mnt"].map(|place| format!("/{place}/"));
    let starts = |line: &str, at: usize| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|before| " \t\"'`=:(".contains(before))
    };
    text.lines()
        .enumerate()
        .filter(|(_, line)| {
            places.iter().any(|place| line.match_indices(place.as_str()).any(|(at, _)| starts(line, at)))
        })
        .map(|(number, line)| format!("{path}:{}: {}", number + 1, line.trim()))
        .collect()
}

/// Methods of a contract that name no permission.
fn without_permission(text: &str) -> (usize, Vec<String>) {
    let methods: Vec<&str> = text.split("\n  rpc ").skip(1).collect();
    let names = |method: &str| {
        let options = method.split("\n  }").next().unwrap_or_default();
        options.contains("permission) = \"") && !options.contains("permission) = \"\"")
    };
    let nameless = methods.iter().filter(|method| !names(method));
    let nameless = nameless.map(|method| method.split('(').next().unwrap_or_default().to_owned());
    (methods.len(), nameless.collect())
}

#[test]
fn files_fit_a_sitting_and_functions_a_screen() {
    let found: Vec<String> = files(&[".rs"]).iter().flat_map(|(path, text)| too_long(path, text, LONGER)).collect();
    assert!(found.is_empty(), "{found:#?}");
    let all = files(&[".rs"]);
    for (name, _) in LONGER {
        let path = name.split("::").next().unwrap_or_default();
        assert!(all.iter().any(|(known, _)| known == path), "{name} is in the list and not in the repository");
    }
}

#[test]
fn nothing_is_unfinished_unbounded_or_dials_by_itself() {
    let found: Vec<String> = files(&[".rs"]).iter().flat_map(|(path, text)| forbidden(path, text)).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn names_say_something_and_no_machine_is_named() {
    let all = files(&[]);
    let names: Vec<String> = all.iter().filter_map(|(path, _)| badly_named(path)).collect();
    assert!(names.is_empty(), "named after nothing: {names:#?}");
    let texts = all.iter().filter(|(path, _)| path != "Cargo.lock" && !path.ends_with(".jsonl"));
    let paths: Vec<String> = texts.flat_map(|(path, text)| machine_paths(path, text)).collect();
    assert!(paths.is_empty(), "machine paths: {paths:#?}");
}

#[test]
fn every_method_names_its_permission() {
    let mut methods = 0;
    for (path, text) in files(&[".proto"]) {
        let (count, nameless) = without_permission(&text);
        assert!(nameless.is_empty(), "{path}: {nameless:?} name no permission");
        methods += count;
    }
    // The same methods that the control plane looks up when it is called.
    assert_eq!(methods, sluice_proto::PERMISSIONS.len());
    assert!(sluice_proto::PERMISSIONS.iter().all(|(_, permission)| !permission.is_empty()));
}

#[test]
fn every_ban_says_why() {
    let bans = |file: &str, entry: &str| -> Vec<String> {
        let text = std::fs::read_to_string(root().join(file)).expect("a file of the root");
        let entries = text.lines().filter(|line| line.trim_start().starts_with(entry));
        entries.map(str::to_owned).collect()
    };
    let all = [bans("clippy.toml", "{ path ="), bans("deny.toml", "{ crate =")].concat();
    assert!(all.len() > 10, "the bans are not found: {all:?}");
    let silent: Vec<&String> = all.iter().filter(|ban| !ban.contains("reason = \"")).collect();
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn the_rules_notice_what_they_are_there_for() {
    let long = format!("fn long() {{\n{}}}\n\nfn short() {{}}\n", "    call();\n".repeat(FUNCTION_LINES_MAX - 1));
    assert_eq!(functions(&long), [("long".to_owned(), FUNCTION_LINES_MAX + 1), ("short".to_owned(), 1)]);
    assert_eq!(too_long("a/src/b.rs", &long, &[]).len(), 1);
    assert!(too_long("a/src/b.rs", &long, &[("a/src/b.rs::long", FUNCTION_LINES_MAX + 1)]).is_empty());
    assert_eq!(too_long("a/src/b.rs", "", &[("a/src/b.rs", 700)]).len(), 1);
    assert_eq!(too_long("a/src/b.rs", &"\n".repeat(FILE_LINES_MAX + 1), &[]).len(), 1);
    let signature = "pub(crate) async fn many(\n    a: u8,\n) -> u8\nwhere\n    u8: Copy,\n{\n    a\n}\n";
    assert_eq!(functions(signature), [("many".to_owned(), 8)]);

    for line in ["todo", "unimplemented"] {
        assert_eq!(forbidden("a/src/b.rs", &format!("fn a() {{ {line}!() }}")).len(), 1);
    }
    for dial in DIALS {
        assert_eq!(forbidden("data-plane/server/src/b.rs", &format!("use x::{dial}(a)")).len(), 1, "{dial}");
        assert!(forbidden("data-plane/egress/src/b.rs", dial).is_empty());
    }
    for call in GRPC_CALLS {
        assert_eq!(forbidden("data-plane/server/src/b.rs", call).len(), 1, "{call}");
        assert!(forbidden("data-plane/server/src/link.rs", call).is_empty());
    }
    let features = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(connects("sluice-data-plane", "hyper", &features(&["server", "client"])).is_some());
    assert!(connects("sluice-data-plane", "hyper-util", &features(&["client-legacy"])).is_some());
    assert!(connects("sluice-data-plane", "hickory-resolver", &[]).is_some());
    assert!(connects("sluice-control-plane", "tonic", &features(&["channel"])).is_some());
    assert!(connects("sluice-data-plane", "hyper-util", &features(&["server"])).is_none());
    assert!(connects("sluice-egress", "hyper", &features(&["client"])).is_none());
    assert_eq!(forbidden("a/src/b.rs", &["unbounded", "_channel()"].concat()).len(), 1);

    assert!(badly_named("a/src/helpers.rs").is_some() && badly_named("a/src/common/mod.rs").is_some());
    assert!(badly_named("a/src/commons.rs").is_none());
    assert_eq!(machine_paths("a", &["cd /", "home/me"].concat()).len(), 1);
    assert!(machine_paths("a", "workspaces/acme/workflows/x and a/root/b").is_empty());

    let contract =
        "service S {\n  rpc A(B) returns (C) {\n    option (permission) = \"a.b\";\n  }\n  rpc D(E) returns (F);\n}\n";
    assert_eq!(without_permission(contract), (2, vec!["D".to_owned()]));
}
