//! What authors work with: snippets, which become part of other templates, and event definitions and test profiles, which data
//! planes never see.

use std::sync::Arc;

use sluice_proto::admin::v1 as admin;

use super::{Parsed, template};
use crate::template::{Mode, Snippets, limits::SOURCE_BYTES};
use crate::validate::{Check, NAME_CHARS_MAX};

/// Most parameters that an event definition knows.
const PARAMETERS_MAX: usize = 500;
/// Longest path of a parameter, in characters.
const PARAMETER_CHARS_MAX: usize = 512;
/// Longest description of a parameter, in characters.
const DESCRIPTION_CHARS_MAX: usize = 1024;
/// Most events of a test profile.
const TEST_EVENTS_MAX: usize = 50;
/// Largest JSON object of a test profile, in bytes.
const OBJECT_BYTES_MAX: usize = 64 * 1024;

/// Checks a snippet by itself, with those it names. `id` is its own: it may not use itself, however far around (D26).
pub fn snippet(proto: &admin::Snippet, id: &str, snippets: &Arc<Snippets>) -> Parsed<()> {
    let mut others = Snippets::clone(snippets);
    others.set(id, &proto.text);
    let mut check = Check::with_snippets(&Arc::new(others));
    check.name("display_name", &proto.display_name, NAME_CHARS_MAX);
    if proto.text.is_empty() {
        check.fail("text", "REQUIRED", "is required");
    }
    // Where it stands decides how its inserts are encoded, which its users' compiles find out.
    let compiled = template(&mut check, "text", &proto.text, Mode::Text, SOURCE_BYTES);
    if compiled.is_some() && !id.is_empty() {
        // Read as a user reads it, it meets itself.
        template(&mut check, "text", &format!("{{% snippet {id} %}}"), Mode::Text, SOURCE_BYTES);
    }
    check.finish(Some(()))
}

/// Checks an event definition.
pub fn event_definition(proto: &admin::EventDefinition) -> Parsed<()> {
    let mut check = Check::default();
    check.name("display_name", &proto.display_name, NAME_CHARS_MAX);
    check.name("action", &proto.action, NAME_CHARS_MAX);
    check.count("parameters", proto.parameters.len(), PARAMETERS_MAX);
    for (index, parameter) in proto.parameters.iter().enumerate() {
        check.within(format!("parameters[{index}]"), |check| {
            check.name("name", &parameter.name, PARAMETER_CHARS_MAX);
            let length = parameter.description.chars().count();
            if length > DESCRIPTION_CHARS_MAX {
                let message = format!("has {length} characters; the limit is {DESCRIPTION_CHARS_MAX}");
                check.fail("description", "TOO_LONG", message);
            }
            if proto.parameters.iter().take(index).any(|earlier| earlier.name == parameter.name) {
                check.fail("name", "REPEATED", "is named before");
            }
        });
    }
    check.finish(Some(()))
}

/// Checks a test profile.
pub fn test_profile(proto: &admin::TestProfile) -> Parsed<()> {
    let mut check = Check::default();
    check.name("display_name", &proto.display_name, NAME_CHARS_MAX);
    object(&mut check, "attributes", &proto.attributes);
    check.count("events", proto.events.len(), TEST_EVENTS_MAX);
    for (index, event) in proto.events.iter().enumerate() {
        check.within(format!("events[{index}]"), |check| {
            check.name("action", &event.action, NAME_CHARS_MAX);
            object(check, "params", &event.params);
        });
    }
    check.finish(Some(()))
}

/// A JSON object, or nothing. What is wrong with it is told by place: the text may hold data.
fn object(check: &mut Check, field: &str, text: &str) {
    if text.len() > OBJECT_BYTES_MAX {
        check.fail(field, "TOO_LONG", format!("has {} bytes; the limit is {OBJECT_BYTES_MAX}", text.len()));
    } else if !text.is_empty()
        && let Err(error) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text)
    {
        let message = format!("is no JSON object: line {}, column {}", error.line(), error.column());
        check.fail(field, "JSON_INVALID", message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(found: Parsed<()>) -> Vec<(String, &'static str)> {
        found.err().unwrap_or_default().into_iter().map(|broken| (broken.field, broken.reason)).collect()
    }

    #[test]
    fn a_snippet_uses_others_and_never_itself() {
        let snippet_of =
            |text: &str| admin::Snippet { display_name: "S".to_owned(), text: text.to_owned(), ..Default::default() };
        let mut others = Snippets::new();
        others.set("other", "{% snippet own %}");
        others.set("good", "hello");
        let others = Arc::new(others);
        let found = |text: &str| reasons(snippet(&snippet_of(text), "own", &others));
        assert_eq!(found("{{ a }} {% snippet good %}"), []);
        assert_eq!(found("{% snippet own %}")[0].0, "text");
        assert_eq!(found("{% snippet other %}")[0].0, "text", "around another");
        assert_eq!(found("{% snippet nobody %}")[0], ("text".to_owned(), "UNKNOWN_SNIPPET"));
        assert_eq!(found(""), [("text".to_owned(), "REQUIRED")]);
        assert_eq!(found("{% if %}")[0].0, "text");
    }

    #[test]
    fn what_authors_note_has_limits() {
        let parameter = |name: &str, length: usize| admin::KnownParameter {
            name: name.to_owned(),
            description: "x".repeat(length),
        };
        let definition = |parameters: Vec<admin::KnownParameter>| admin::EventDefinition {
            display_name: "E".to_owned(),
            action: "order.sent".to_owned(),
            parameters,
            ..Default::default()
        };
        assert_eq!(reasons(event_definition(&definition(vec![parameter("a", 1024), parameter("b", 0)]))), []);
        let found = reasons(event_definition(&definition(vec![parameter("a", 1025), parameter("a", 0)])));
        assert_eq!(found[0], ("parameters[0].description".to_owned(), "TOO_LONG"));
        assert_eq!(found[1], ("parameters[1].name".to_owned(), "REPEATED"));
        let many = (0..501).map(|index| parameter(&index.to_string(), 0)).collect();
        assert_eq!(reasons(event_definition(&definition(many)))[0].0, "parameters");

        let profile = |attributes: &str, events: usize| admin::TestProfile {
            display_name: "P".to_owned(),
            attributes: attributes.to_owned(),
            events: vec![admin::TestEvent { action: "a".to_owned(), ..Default::default() }; events],
            ..Default::default()
        };
        assert_eq!(reasons(test_profile(&profile("{\"email\": \"a@example.com\"}", 50))), []);
        assert_eq!(reasons(test_profile(&profile("[1]", 0))), [("attributes".to_owned(), "JSON_INVALID")]);
        assert_eq!(reasons(test_profile(&profile("", 51)))[0].0, "events");
        let long = format!("{{\"a\": \"{}\"}}", "x".repeat(64 * 1024));
        assert_eq!(reasons(test_profile(&profile(&long, 0))), [("attributes".to_owned(), "TOO_LONG")]);
    }
}
