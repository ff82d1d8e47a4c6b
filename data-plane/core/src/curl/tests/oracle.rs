//! What the real curl sent for each command, against what the gateway would send after an import: through the door of
//! the wire, rendered, with the suggested connection's credentials.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::Value as Json;
use sluice_proto::admin::v1 as admin;

use super::golden;
use crate::address::{UrlPolicy, check_url};
use crate::credentials;
use crate::curl::{Import, Suggestion, import};
use crate::model::{Placement, Placements, Scheme};
use crate::request;
use crate::template::{Context, Mode, Template};
use crate::wire;

/// What goes out. Header values are bytes, each a character, as in the golden file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sent {
    method: String,
    /// Host and port in canonical form.
    origin: String,
    /// Path and query.
    target: String,
    authorization: Vec<String>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

fn bytes_as_chars(text: &str) -> String {
    text.bytes().map(char::from).collect()
}

impl Sent {
    fn take_headers(&mut self, headers: impl Iterator<Item = (String, String)>) {
        for (name, value) in headers {
            if name.eq_ignore_ascii_case("authorization") {
                self.authorization.push(value);
            } else if (&*name.to_lowercase(), &*value) != ("accept", "*/*") && name != "Host" {
                self.headers.push((name, value));
            }
        }
    }

    fn recorded(sent: &Json) -> Self {
        let url = sent["url"].as_str().unwrap();
        let rest = url.split_once("://").unwrap().1;
        let (authority, target) = rest.split_at(rest.find('/').unwrap());
        let canonical = url::Url::parse(&format!("{}://{authority}/", url.split(':').next().unwrap())).unwrap();
        let body = base64::engine::general_purpose::STANDARD.decode(sent["body_base64"].as_str().unwrap()).unwrap();
        let mut recorded = Self {
            method: sent["method"].as_str().unwrap().to_owned(),
            origin: canonical.origin().ascii_serialization(),
            target: target.to_owned(),
            body,
            ..Self::default()
        };
        let text = |value: &Json| value.as_str().unwrap().to_owned();
        let headers = sent["headers"].as_array().unwrap().iter();
        recorded.take_headers(headers.map(|header| (text(&header[0]), text(&header[1]))));
        recorded
    }

    /// The stored texts, where rendering would fill inserts in.
    fn unrendered(import: &Import) -> Self {
        let mut sent = Self {
            method: import.request.method.clone(),
            body: import.request.body.clone().unwrap_or_default().into_bytes(),
            ..Self::default()
        };
        let rest = import.request.url.strip_prefix("https://").unwrap();
        let (authority, target) = rest.split_at(rest.find('/').unwrap());
        sent.origin = format!("https://{authority}");
        sent.target = target.to_owned();
        sent.take_headers(
            import.request.headers.iter().map(|header| (header.name.clone(), bytes_as_chars(&header.value))),
        );
        sent.authorization.extend(import.connection.as_ref().map(authorization));
        sent
    }

    /// As a delivery makes it.
    fn rendered(import: &Import) -> Result<Self, String> {
        let mut draft = admin::OutgoingRequest { webhook_name: "w".to_owned(), ..admin::OutgoingRequest::default() };
        // What declares JSON and is not would be refused on save (D07); such bodies are for the exact mode.
        draft.set_template_mode(admin::TemplateMode::Exact);
        import.request.clone().put_into(&mut draft);
        let outgoing = admin::OutgoingIntegration {
            display_name: "o".to_owned(),
            request: Some(draft),
            ..admin::OutgoingIntegration::default()
        };
        let policy = UrlPolicy::default();
        let model = wire::outgoing(&outgoing, &policy).map_err(|found| found[0].reason.to_owned())?;
        let rendered = request::render(&model.request.template, &Context::new(), &policy)
            .map_err(|unmade| format!("{unmade:?}"))?;
        let url = check_url(&rendered.url, &policy).unwrap();
        let mut sent = Self {
            method: rendered.method,
            origin: url.as_url().origin().ascii_serialization(),
            target: url.path_and_query().to_owned(),
            body: rendered.body.unwrap_or_default().into_bytes(),
            ..Self::default()
        };
        let headers = rendered.headers.into_iter();
        sent.take_headers(headers.map(|(name, value)| (name, bytes_as_chars(&value))));
        sent.authorization.extend(import.connection.as_ref().map(authorization));
        Ok(sent)
    }
}

/// As the connection would send it, once accepted.
fn authorization(suggestion: &Suggestion) -> String {
    let scheme = match suggestion {
        Suggestion::LoginPassword { login, password } => {
            Scheme::LoginPassword { login: login.clone(), password: password.clone() }
        }
        Suggestion::ApiKey { header, value, secret } => {
            let value = Template::compile(value, Mode::Header).unwrap();
            let headers = vec![Placement { name: header.clone(), value }];
            Scheme::ApiKey { secret: secret.clone(), placements: Placements { headers, url_parameters: vec![] } }
        }
    };
    let credential = credentials::credential(&scheme, None).unwrap();
    let [(name, value)] = &credential.headers[..] else { panic!("one header") };
    assert!(name.eq_ignore_ascii_case("authorization"));
    value.expose().to_owned()
}

/// What is wrong with the outcome of a row.
fn judge(row: &Json, differs: Option<&Json>) -> Result<(), String> {
    let command = row["command"].as_str().unwrap();
    let imported = import(command);
    let refused = differs.map_or(&row["reason"], |differs| &differs["refused"]);
    if let Some(expected) = refused.as_str() {
        return match imported {
            Err(refusal) if refusal.reason.code() == expected => Ok(()),
            Err(refusal) => Err(format!("expected {expected}, refused: {refusal}")),
            Ok(import) => Err(format!("expected {expected}, got {import:?}")),
        };
    }
    let import = imported.map_err(|refusal| refusal.to_string())?;
    let mut recorded = row["sent"].clone();
    if let Some(other) = differs.and_then(|differs| differs["sent"].as_object()) {
        if recorded.is_null() {
            recorded = serde_json::json!({"method": "GET", "headers": [], "body_base64": ""});
        }
        recorded.as_object_mut().unwrap().extend(other.clone());
    }
    let is_template = import.notes.iter().any(|note| note.code() == "template_markup");
    let sent = match Sent::rendered(&import) {
        Err(code) if differs.is_some_and(|differs| differs["on_save"] == code) => Sent::unrendered(&import),
        Err(code) => return Err(format!("cannot be saved: {code}")),
        Ok(_) if differs.is_some_and(|differs| differs["on_save"].is_string()) => return Err("can be saved".to_owned()),
        Ok(_) if is_template => Sent::unrendered(&import),
        Ok(sent) => sent,
    };
    if recorded["url"].is_null() {
        return Err(format!("nothing is recorded; sent {sent:?}"));
    }
    let recorded = Sent::recorded(&recorded);
    if sent == recorded { Ok(()) } else { Err(format!("\n     sent {sent:?}\n recorded {recorded:?}")) }
}

#[test]
fn sends_what_curl_sent() {
    let differs: BTreeMap<String, Json> = golden("differs")
        .into_iter()
        .map(|row| {
            assert!(row["why"].as_str().is_some_and(|why| !why.is_empty()), "a difference needs a reason: {row}");
            (row["name"].as_str().unwrap().to_owned(), row)
        })
        .collect();
    let rows = golden("commands");
    let mut failures = Vec::new();
    for row in &rows {
        let name = row["name"].as_str().unwrap();
        if let Err(failure) = judge(row, differs.get(name)) {
            failures.push(format!("{name}: {:.300}\n {failure:.1500}", row["command"].as_str().unwrap()));
        }
        if differs.contains_key(name) {
            assert!(judge(row, None).is_err(), "{name} no longer differs");
        }
    }
    for name in differs.keys() {
        assert!(rows.iter().any(|row| row["name"] == name.as_str()), "{name} is no row");
    }
    let alike = rows.len() - differs.len();
    println!("curl: {alike} of {} commands alike, {} differ:", rows.len(), differs.len());
    for (name, row) in &differs {
        println!("  {name}: {}", row["why"].as_str().unwrap_or_default());
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), rows.len(), failures.join("\n"));
}
