use super::*;
use crate::fields::{kind, tree};
use sluice_proto::admin::v1::{self as admin, WorkspaceConfiguration};

const KIND: &str = "sluice.admin.v1.WorkspaceConfiguration";

fn read_text(text: &str) -> Result<WorkspaceConfiguration, Vec<Violation>> {
    let document = read(&kind(KIND).unwrap(), "configuration", text)?;
    Ok(document.message.transcode_to().unwrap())
}

fn written(configuration: &WorkspaceConfiguration) -> String {
    write(&tree(KIND, configuration).unwrap())
}

fn snippets(texts: &[&str]) -> WorkspaceConfiguration {
    let snippet = |text: &&str| admin::Snippet { text: (*text).to_owned(), ..Default::default() };
    WorkspaceConfiguration { snippets: texts.iter().map(snippet).collect(), ..Default::default() }
}

#[test]
fn people_read_it() {
    let request = admin::OutgoingRequest {
        webhook_name: "Order".to_owned(),
        method: admin::HttpMethod::Post.into(),
        url: "https://example.com/orders?a=1#x".to_owned(),
        headers: vec![
            admin::RequestHeader { name: "X-Tag".to_owned(), value: "no".to_owned() },
            admin::RequestHeader { name: "X-Day".to_owned(), value: "2026-01-31".to_owned() },
        ],
        body: Some("{\n  \"id\": {{ request.body.id }}\n}\n".to_owned()),
        timeout: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
        ..Default::default()
    };
    let outgoing = admin::OutgoingIntegration {
        name: "workspaces/acme/outgoingIntegrations/send".to_owned(),
        display_name: "Send: all of it".to_owned(),
        request: Some(request),
        ..Default::default()
    };
    let incoming = admin::IncomingIntegration {
        display_name: "Orders".to_owned(),
        authorization: Some(admin::incoming_integration::Authorization::None(Default::default())),
        ..Default::default()
    };
    let configuration = WorkspaceConfiguration {
        incoming_integrations: vec![incoming],
        outgoing_integrations: vec![outgoing],
        ..Default::default()
    };
    let text = written(&configuration);
    let expected = r#"incoming_integrations:
  - display_name: Orders
    none: {}
outgoing_integrations:
  - name: workspaces/acme/outgoingIntegrations/send
    display_name: "Send: all of it"
    request:
      webhook_name: Order
      method: POST
      url: https://example.com/orders?a=1#x
      headers:
        - name: X-Tag
          value: "no"
        - name: X-Day
          value: "2026-01-31"
      body: |
        {
          "id": {{ request.body.id }}
        }
      timeout: 30s
"#;
    // The order of the contract's fields is its own affair.
    let lines = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(&text), lines(expected), "{text}");
    assert_eq!(read_text(&text).unwrap(), configuration);
    assert_eq!(written(&WorkspaceConfiguration::default()), "{}\n");
    assert_eq!(read_text("{}").unwrap(), WorkspaceConfiguration::default());
}

/// Texts that YAML has a meaning of its own for, and texts it can hardly hold.
const PIECES: [&str; 44] = [
    "no",
    "1e3",
    "~",
    "null",
    "2026-01-31",
    "0x1f",
    "a",
    "Ä",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t",
    "\r",
    ":",
    ": ",
    "#",
    " #",
    "-",
    "- ",
    "---",
    "...",
    "'",
    "\"",
    "\\",
    "{{",
    "}}",
    "{%",
    "[",
    "]",
    ",",
    "&a",
    "*a",
    "!t",
    "|",
    ">",
    "%",
    "@",
    "`",
    "?",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{feff}😀\u{0}",
];

#[test]
fn every_text_survives() {
    let mut texts: Vec<String> = PIECES.iter().map(|&piece| piece.to_owned()).collect();
    // Always the same sequence, so that a failure can be looked at again.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
    };
    for _ in 0..5_000 {
        let length = next(7);
        texts.push((0..length).map(|_| PIECES[next(PIECES.len())]).collect());
    }
    texts.push("x".repeat(5_000));
    texts.push("x y: ".repeat(1_000));
    texts.push("{{ a }}\n".repeat(1_000));
    for text in &texts {
        let configuration = snippets(&[text, text]);
        let yaml = written(&configuration);
        assert_eq!(read_text(&yaml).as_ref(), Ok(&configuration), "{text:?}: {yaml}");
        let attributes = admin::Connection { allowed_hosts: vec![text.clone()], ..Default::default() };
        let configuration = WorkspaceConfiguration { connections: vec![attributes], ..Default::default() };
        let yaml = written(&configuration);
        assert_eq!(read_text(&yaml).as_ref(), Ok(&configuration), "{text:?}: {yaml}");
        let json = serde_json::to_string_pretty(&tree(KIND, &configuration).unwrap()).unwrap();
        assert_eq!(read_text(&json).as_ref(), Ok(&configuration), "{json}");
    }
}

#[test]
fn what_people_write() {
    // A field says what its value is; anchors repeat; comments; other writings of the names; JSON with escapes.
    for (text, expected) in [
        ("snippets:\n- text: no\n- text: 1e3\n- text: 2026-01-31 # a day\n", &["no", "1e3", "2026-01-31"][..]),
        ("snippets: [{text: &a x}, {text: *a}]", &["x", "x"]),
        ("{\"snippets\": [{\"text\": \"\\ud83d\\ude00\\/\"}]}", &["😀/"]),
        ("%YAML 1.2\n---\nsnippets:\n  - text: >-\n      one\n      two\n...\n", &["one two"]),
        ("\u{feff}snippets:\n  - text:\n", &[""]),
    ] {
        assert_eq!(read_text(text), Ok(snippets(expected)), "{text}");
    }
    let camel = read_text("incomingIntegrations:\n  - displayName: x\n    deduplication: {window: 60s}\n").unwrap();
    assert_eq!(camel.incoming_integrations[0].display_name, "x");
    assert_eq!(camel.incoming_integrations[0].deduplication.as_ref().unwrap().window.unwrap().seconds, 60);
    assert_eq!(read_text(""), Ok(WorkspaceConfiguration::default()));
}

/// The document is refused at this field for this reason, in words that say this and nothing that stands in it.
fn refused(text: &str, field: &str, reason: &str, told: &str) {
    let shown: String = text.chars().take(100).collect();
    let found = read_text(text).unwrap_err();
    let one = found.iter().find(|one| one.field == field && one.reason == reason);
    let one = one.unwrap_or_else(|| panic!("{shown}: {found:?}"));
    assert!(one.message.contains(told) && !one.message.contains("CANARY"), "{shown}: {one:?}");
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_field_and_not_told() {
    for (text, field, reason, told) in [
        (
            "snippets:\n  - text: a\n    text: CANARY\n",
            "document",
            "REPEATED",
            "line 3: `text` is there already, on line 2",
        ),
        ("snippets:\n- nmae: CANARY\n", "configuration.snippets[0].nmae", "FIELD_UNKNOWN", "line 2 of"),
        ("\nsnippet: CANARY\n", "configuration.snippet", "FIELD_UNKNOWN", "line 2 of"),
        ("snippets: CANARY\n", "configuration.snippets", "VALUE_INVALID", "must be a list"),
        (
            "snippets:\n- CANARY\n",
            "configuration.snippets[0]",
            "VALUE_INVALID",
            "line 2 of the document: must be a mapping",
        ),
        ("- CANARY\n", "configuration", "VALUE_INVALID", "must be a mapping"),
        (
            "outgoingIntegrations:\n  - request:\n      method: CANARY\n",
            "configuration.outgoing_integrations[0].request.method",
            "VALUE_INVALID",
            "line 3 of the document: must be one of HTTP_METHOD_UNSPECIFIED, ",
        ),
        (
            "outgoing_integrations:\n  - request: {timeout: CANARY}\n",
            "configuration.outgoing_integrations[0].request.timeout",
            "VALUE_INVALID",
            "must be a duration",
        ),
        (
            "incoming_integrations:\n  - deduplication: {allow_unseen: no}\n",
            "configuration.incoming_integrations[0].deduplication.allow_unseen",
            "VALUE_INVALID",
            "must be `true` or `false`",
        ),
        (
            "incoming_integrations:\n  - none: {}\n    jwt: {}\n",
            "configuration.incoming_integrations[0].jwt",
            "REPEATED",
            "there can be one of this and `none`",
        ),
        (
            "snippets:\n- display_name: a\n  displayName: CANARY\n",
            "configuration.snippets[0].display_name",
            "REPEATED",
            "under its other name",
        ),
    ] {
        refused(text, field, reason, told);
    }
}

#[test]
fn what_is_no_yaml_or_too_much_of_it_is_refused() {
    let aliases = |count: usize| format!("snippets: [{{text: &a x}}{}]", ", {text: *a}".repeat(count));
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let sized = |bytes: usize| format!("#{}", "x".repeat(bytes - 1));
    // Each anchor is ten of the one before.
    let mut bomb = "a: &a [CANARY, CANARY, CANARY, CANARY, CANARY, CANARY, CANARY, CANARY, CANARY]\n".to_owned();
    for (one, before) in "bcdefghi".chars().zip("abcdefgh".chars()) {
        let nine = vec![format!("*{before}"); 9].join(", ");
        bomb.push_str(&format!("{one}: &{one} [{nine}]\n"));
    }
    for (text, reason, told) in [
        ("snippets: [{text: 'CANARY}]".to_owned(), "YAML_INVALID", "line 1, column"),
        ("snippets:\n\t- CANARY: 1".to_owned(), "YAML_INVALID", "line 2"),
        ("{}\n---\nCANARY: 1".to_owned(), "YAML_INVALID", "another document begins"),
        ("snippets: !CANARY []".to_owned(), "YAML_INVALID", "tags"),
        ("? [CANARY]\n: 1".to_owned(), "YAML_INVALID", "a key must be a text"),
        ("snippets: &a [*a]".to_owned(), "YAML_INVALID", "an alias stands within"),
        ("snippets: *CANARY".to_owned(), "YAML_INVALID", "unknown anchor"),
        (aliases(101), "TOO_MANY_ALIASES", "more than 100 aliases"),
        (
            format!("snippets: [{{text: &a {}}}, {{text: *a}}, {{text: *a}}]", "x".repeat(1_100_000)),
            "DOCUMENT_TOO_LARGE",
            "its aliases repeat more than 2097152 bytes",
        ),
        (bomb, "DOCUMENT_TOO_LARGE", "its aliases repeat more than 2097152 bytes"),
        (deep(66), "DOCUMENT_TOO_DEEP", "more than 64 deep"),
        (deep(100_000), "DOCUMENT_TOO_DEEP", "more than 64 deep"),
        (sized((2 << 20) + 1), "DOCUMENT_TOO_LARGE", "has 2097153 bytes; the limit is 2097152"),
    ] {
        refused(&text, "document", reason, told);
    }
    assert!(read_text(&aliases(100)).is_ok());
    assert!(read_text(&sized(2 << 20)).is_ok());
    // As deep as a document may be, it is read; that it is no configuration is another matter.
    assert_eq!(read_text(&deep(65)).unwrap_err()[0].reason, "VALUE_INVALID");
}

#[test]
fn a_broken_rule_is_pointed_at() {
    let text = "snippets:\n  - name: a\n    text: |\n      x\n\n  - name: b\n";
    let lines = read(&kind(KIND).unwrap(), "configuration", text).ok().unwrap().lines;
    for (field, line) in [
        ("configuration.snippets[0].text", 3),
        ("configuration.snippets[1].text", 6),
        ("configuration.snippets[1].display_name", 6),
        ("configuration.workflows", 1),
    ] {
        let told = lines.point(vec![violation(field, "REQUIRED", "is required")]);
        assert_eq!(told[0].message, format!("line {line} of the document: is required"), "{field}");
    }
    assert_eq!(lines.point(vec![violation("parent", "REQUIRED", "is required")])[0].message, "is required");
}
