//! Schema templates: forms with versions, published and taken away like everything that is used (R006, F70 to F72, D25).

use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use sluice_proto::admin::v1 as admin;
use sluice_proto::admin::v1::infer_schema_template_request::Source;
use tonic::{Code, Status};

use crate::world::{ACME, World, has, refusal, violations};

/// A message from its JSON form.
pub(crate) fn message<M: prost::Message + Default>(name: &str, document: &Value) -> M {
    let pool = DescriptorPool::decode(sluice_proto::DESCRIPTORS).unwrap();
    let descriptor = pool.get_message_by_name(&format!("sluice.admin.v1.{name}")).unwrap();
    let message =
        DynamicMessage::deserialize(descriptor, document).unwrap_or_else(|error| panic!("{document}: {error}"));
    message.transcode_to().unwrap()
}

fn form(fields: &Value) -> admin::SchemaTemplate {
    message("SchemaTemplate", &json!({"display_name": "Form", "fields": fields}))
}

impl World {
    pub(crate) async fn schema_template(&self, id: &str, fields: &Value) -> Result<admin::SchemaTemplate, Status> {
        let request = admin::CreateSchemaTemplateRequest {
            parent: ACME.to_owned(),
            schema_template_id: id.to_owned(),
            schema_template: Some(form(fields)),
            ..Default::default()
        };
        Ok(self.schema_templates().create_schema_template(request).await?.into_inner())
    }

    pub(crate) async fn change_schema(&self, name: &str, fields: &Value) -> Result<admin::SchemaTemplate, Status> {
        let schema_template = Some(admin::SchemaTemplate { name: name.to_owned(), ..form(fields) });
        let request = admin::UpdateSchemaTemplateRequest { schema_template, ..Default::default() };
        Ok(self.schema_templates().update_schema_template(request).await?.into_inner())
    }

    pub(crate) async fn publish_schema(&self, name: &str) -> Result<admin::SchemaTemplate, Status> {
        let request = admin::PublishSchemaTemplateRequest { name: name.to_owned(), ..Default::default() };
        Ok(self.schema_templates().publish_schema_template(request).await?.into_inner())
    }
}

#[tokio::test]
async fn a_form_is_changed_in_drafts_and_kept_in_versions() {
    let world = World::new().await;
    let before = world.revision("acme").await;
    let name =
        world.schema_template("order", &json!([{"id": "note", "type": "TEXT", "label": "Note"}])).await.unwrap().name;
    assert_eq!(name, format!("{ACME}/schemaTemplates/order"));
    assert_eq!(world.publish_schema(&name).await.unwrap().published_version, 1);
    let changed = json!([{"id": "note", "type": "TEXT_AREA", "label": "Note"}]);
    assert!(world.change_schema(&name, &changed).await.unwrap().has_unpublished_changes);
    assert_eq!(world.publish_schema(&name).await.unwrap().published_version, 2);
    assert_eq!(world.revision("acme").await, before, "no data plane needs it by itself");

    let diff = admin::DiffVersionsRequest { name: name.clone(), from_version: 1, to_version: 2 };
    let changes = world.versions().diff_versions(diff).await.unwrap().into_inner().changes;
    assert_eq!(changes.iter().map(|change| change.path.as_str()).collect::<Vec<_>>(), ["fields[0].type"]);
    let rollback =
        admin::RollbackVersionRequest { name: format!("{name}/versions/1"), publish: true, ..Default::default() };
    world.versions().rollback_version(rollback).await.unwrap();
    let get = admin::GetSchemaTemplateRequest { name: name.clone() };
    let now = world.schema_templates().get_schema_template(get).await.unwrap().into_inner();
    assert_eq!((now.published_version, now.fields[0].r#type()), (3, admin::schema_field::Type::Text));

    let delete = admin::DeleteSchemaTemplateRequest { name: name.clone(), ..Default::default() };
    let refused = world.schema_templates().delete_schema_template(delete.clone()).await.unwrap_err();
    assert_eq!(refusal(&refused), (Code::FailedPrecondition, "RESOURCE_IN_USE".to_owned()));
    let unpublish = admin::UnpublishSchemaTemplateRequest { name: name.clone(), ..Default::default() };
    world.schema_templates().unpublish_schema_template(unpublish).await.unwrap();
    world.schema_templates().delete_schema_template(delete).await.unwrap();
    let undelete = admin::UndeleteSchemaTemplateRequest { name: name.clone(), ..Default::default() };
    let back = world.schema_templates().undelete_schema_template(undelete).await.unwrap().into_inner();
    assert_eq!((back.published_version, back.fields.len()), (0, 1));
    assert_eq!(world.publish_schema(&name).await.unwrap().published_version, 4, "numbers are never used again");
}

#[tokio::test]
async fn a_form_is_proposed_from_a_sample() {
    let world = World::new().await;
    let infer = |source: Source| {
        let request = admin::InferSchemaTemplateRequest { parent: ACME.to_owned(), source: Some(source) };
        let mut client = world.schema_templates();
        async move { client.infer_schema_template(request).await.map(tonic::Response::into_inner) }
    };
    let json = r#"{"order": {"id": "CANARY", "day": "2026-11-22"}, "total": 5}"#;
    let answer = infer(Source::Json(json.to_owned())).await.unwrap();
    assert!(!format!("{answer:?}").contains("CANARY"), "{answer:?}");
    let proposed = admin::SchemaTemplate { display_name: "Order".to_owned(), ..answer.schema_template.unwrap() };
    let types: Vec<_> = proposed.fields.iter().map(|field| (field.id.as_str(), field.r#type())).collect();
    use admin::schema_field::Type;
    assert_eq!(types, [("order_id", Type::Text), ("order_day", Type::Date), ("total", Type::Number)]);
    let request = admin::CreateSchemaTemplateRequest {
        parent: ACME.to_owned(),
        schema_template: Some(proposed),
        ..Default::default()
    };
    world.schema_templates().create_schema_template(request).await.unwrap();

    let refused = infer(Source::Json("{\"a\": CANARY}".to_owned())).await.unwrap_err();
    assert!(has(&violations(&refused), "json", "JSON_INVALID") && !refused.message().contains("CANARY"), "{refused:?}");
    let incoming = world.incoming_integration("orders").await.name;
    let refused = infer(Source::IncomingIntegration(incoming.clone())).await.unwrap_err();
    assert!(has(&violations(&refused), "incoming_integration", "NO_SAMPLE"), "{refused:?}");
    let refused = infer(Source::IncomingIntegration(format!("{incoming}-2"))).await.unwrap_err();
    assert!(has(&violations(&refused), "incoming_integration", "RESOURCE_NOT_FOUND"), "{refused:?}");
}

/// What is filled into forms survives a workspace's document as YAML, in the same order each time, and needs no quotes there.
#[tokio::test]
async fn form_values_are_part_of_a_document() {
    let world = World::new().await;
    let field = |id: &str| json!({"id": id, "type": "TEXT", "label": id});
    let fields: Value = ["a", "b", "c", "d", "e"].into_iter().map(field).collect();
    let schema = world.schema_template("order", &fields).await.unwrap().name;
    world.incoming_integration("orders").await;
    let document = format!(
        r#"
outgoing_integrations:
- name: {ACME}/outgoingIntegrations/send
  display_name: Send
  schema_template: {schema}
  request: {{webhook_name: Send, method: POST, url: "https://crm.example.com/", body: "{{}}"}}
workflows:
- name: {ACME}/workflows/flow
  display_name: Flow
  triggers:
  - incoming_integration: {ACME}/incomingIntegrations/orders
  steps:
  - step_name: Send
    outgoing_integration: {ACME}/outgoingIntegrations/send
    form_values:
      e: 5
      a: true
      c: "{{{{ request.body.c }}}}"
      b: x
      d: 2026-11-22
"#
    );
    let apply = |document: String| {
        let source = Some(admin::apply_configuration_request::Source::Document(document));
        let request = admin::ApplyConfigurationRequest { parent: ACME.to_owned(), source, ..Default::default() };
        let mut client = world.configuration();
        async move { client.apply_configuration(request).await.unwrap().into_inner().changes }
    };
    assert_eq!(apply(document).await.len(), 2);
    let export = |format: admin::DocumentFormat| {
        let request = admin::ExportConfigurationRequest { parent: ACME.to_owned(), format: format.into() };
        let mut client = world.configuration();
        async move { client.export_configuration(request).await.unwrap().into_inner().document }
    };
    let exported = export(admin::DocumentFormat::Json).await;
    let values: String = exported.split_whitespace().collect();
    let sorted = r#""formValues":{"a":"true","b":"x","c":"{{request.body.c}}","d":"2026-11-22","e":"5"}"#;
    assert!(values.contains(sorted), "{exported}");
    let exported = export(admin::DocumentFormat::Yaml).await;
    let expected = r#"form_values: {"a":"true","b":"x","c":"{{ request.body.c }}","d":"2026-11-22","e":"5"}"#;
    assert!(exported.contains(expected), "{exported}");
    assert_eq!(apply(exported).await, []);
}
