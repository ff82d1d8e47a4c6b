//! Schema templates and the values of their fields, case by case in `tests/golden/schema` (D25, F70, S40).

use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use sluice_core::template::{Context, Mode, OnMissing, Template};
use sluice_core::{validate, wire};
use sluice_proto::admin::v1::SchemaTemplate;

use crate::golden::cases;

/// A schema template of these fields.
fn form(fields: &Value) -> SchemaTemplate {
    let pool = DescriptorPool::decode(sluice_proto::DESCRIPTORS).unwrap();
    let message = pool.get_message_by_name("sluice.admin.v1.SchemaTemplate").unwrap();
    let document = json!({"display_name": "Form", "fields": fields});
    let message = DynamicMessage::deserialize(message, &document).unwrap_or_else(|error| panic!("{document}: {error}"));
    message.transcode_to().unwrap()
}

/// A list that would be too long to write down: `{"times": 101, "of": {...}}`, with the number for `#`.
fn spread(fields: &Value) -> Value {
    let Some(times) = fields["times"].as_u64() else { return fields.clone() };
    let text = fields["of"].to_string();
    (0..times).map(|number| serde_json::from_str::<Value>(&text.replace('#', &number.to_string())).unwrap()).collect()
}

#[test]
fn what_a_form_may_be() {
    for case in cases("schema/templates.jsonl") {
        let found = validate::schema_template(&form(&spread(&case["fields"])));
        let told: Vec<String> = found.iter().map(|broken| format!("{}: {}", broken.field, broken.reason)).collect();
        assert_eq!(json!(told), case["refused"], "{case}\n{found:?}");
    }
}

#[test]
fn what_a_value_may_be() {
    let print = Template::compile("{{ context.a|tojson }}", Mode::Text).unwrap();
    for case in cases("schema/values.jsonl") {
        let form =
            wire::schema_template(&form(&json!([case["field"]]))).unwrap_or_else(|found| panic!("{case}: {found:?}"));
        let given = Template::compile("{{ given }}", Mode::Text).unwrap();
        let mut context = Context::new();
        context.set("given", case["given"].as_str().unwrap().into());
        let filled = form.fill(&[("a".to_owned(), given)], OnMissing::Empty, &mut context);
        match filled {
            Ok(_) => {
                let text = case["text"].as_str().map_or_else(|| case["value"].to_string(), str::to_owned);
                assert_eq!(print.render(&context, OnMissing::Empty).unwrap().text, text, "{case}");
            }
            Err(unmade) => {
                let sluice_core::request::Unmade::Failed(failure) = unmade else { panic!("{case}") };
                assert_eq!(failure.reason.description(), "FORM_VALUE_INVALID");
                assert_eq!(json!(failure.message.strip_prefix("form_values[a]: ")), case["refused"], "{case}");
            }
        }
    }
}

/// P5: a member of an audience becomes an entry of an ad segment; the value is rendered before the body, and once.
#[test]
fn an_audience_member_goes_to_an_ad_segment() {
    let form = wire::schema_template(&form(&json!([{"id": "segmentId", "type": "TEXT", "label": "Segment"}]))).unwrap();
    let body = "{% set ids = customer.adFormID|split('|') %}{\"segment\":\"{% context segmentId %}\",\"users\":[{% for id in ids %}\
                {\"id\":\"{{ id|trim }}\"}{% if not loop.last %},{% endif %}{% endfor %}]}";
    let body = Template::compile(body, Mode::Json).unwrap();
    let value = Template::compile("seg-{{ 40 + 2 }}", Mode::Text).unwrap();
    let mut context = Context::new();
    let customer = json!({"adFormID": "2122903280729231000|2122903280729231001"});
    context.set("customer", sluice_core::template::value_from_json(&customer));
    form.fill(&[("segmentId".to_owned(), value)], OnMissing::Empty, &mut context).unwrap();
    let expected = r#"{"segment":"seg-42","users":[{"id":"2122903280729231000"},{"id":"2122903280729231001"}]}"#;
    assert_eq!(body.render(&context, OnMissing::Empty).unwrap().text, expected);
}
