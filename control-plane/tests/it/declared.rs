//! A workspace as one document: exported, applied, and what of it must never happen.

use prost::Message as _;
use sluice_proto::admin::v1::apply_configuration_request::Source;
use sluice_proto::admin::v1::connection::Scheme;
use sluice_proto::admin::v1::{self as admin, ResourceChangeKind, WorkspaceConfiguration};
use tonic::{Code, Status};

use crate::matrix::furnish;
use crate::world::{ACME, World, has, refusal, violations};

const BETA: &str = "workspaces/beta";

async fn export(world: &World, parent: &str) -> WorkspaceConfiguration {
    let request = admin::ExportConfigurationRequest { parent: parent.to_owned(), ..Default::default() };
    world.configuration().export_configuration(request).await.unwrap().into_inner().configuration.unwrap()
}

fn applying(parent: &str, configuration: WorkspaceConfiguration) -> admin::ApplyConfigurationRequest {
    admin::ApplyConfigurationRequest {
        parent: parent.to_owned(),
        source: Some(Source::Configuration(configuration)),
        ..Default::default()
    }
}

async fn apply(world: &World, request: admin::ApplyConfigurationRequest) -> Result<Vec<admin::ResourceChange>, Status> {
    world.configuration().apply_configuration(request).await.map(|answer| answer.into_inner().changes)
}

/// The document of `workspaces/acme` as one of `workspaces/beta`.
fn moved(configuration: &WorkspaceConfiguration) -> WorkspaceConfiguration {
    let (from, to) = (format!("{ACME}/"), format!("{BETA}/"));
    let move_name = |name: &mut String| *name = name.replace(&from, &to);
    let mut moved = configuration.clone();
    moved.connections.iter_mut().for_each(|one| move_name(&mut one.name));
    moved.snippets.iter_mut().for_each(|one| move_name(&mut one.name));
    moved.schema_templates.iter_mut().for_each(|one| move_name(&mut one.name));
    moved.event_definitions.iter_mut().for_each(|one| move_name(&mut one.name));
    moved.test_profiles.iter_mut().for_each(|one| move_name(&mut one.name));
    moved.incoming_integrations.iter_mut().for_each(|one| move_name(&mut one.name));
    for outgoing in &mut moved.outgoing_integrations {
        move_name(&mut outgoing.name);
        move_name(&mut outgoing.request.as_mut().unwrap().connection);
    }
    for workflow in &mut moved.workflows {
        move_name(&mut workflow.name);
        workflow.triggers.iter_mut().for_each(|trigger| move_name(&mut trigger.incoming_integration));
        for step in &mut workflow.steps {
            if let Some(admin::step::Action::OutgoingIntegration(name)) = &mut step.action {
                move_name(name);
            }
        }
    }
    moved
}

fn set_secret(configuration: &mut WorkspaceConfiguration, secret: &str) {
    for connection in &mut configuration.connections {
        if let Some(Scheme::ApiKey(key)) = &mut connection.scheme {
            key.secret = secret.to_owned();
        }
    }
}

fn kinds(changes: &[admin::ResourceChange]) -> Vec<(String, ResourceChangeKind)> {
    changes.iter().map(|change| (change.name.clone(), change.kind())).collect()
}

#[tokio::test]
async fn an_export_holds_all_drafts_and_no_secret_and_changes_nothing_where_it_came_from() {
    let world = World::new().await;
    furnish(&world, ACME, "ours", "Ours").await;
    world.connection("another", "CANARY-secret").await;
    let exported = export(&world, ACME).await;
    let text = format!("{exported:?}");
    assert!(!String::from_utf8_lossy(&exported.encode_to_vec()).contains("CANARY"), "{text}");
    let names: Vec<&str> = exported.connections.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["workspaces/acme/connections/another", "workspaces/acme/connections/ours"]);
    let each = [
        exported.snippets.len(),
        exported.schema_templates.len(),
        exported.event_definitions.len(),
        exported.test_profiles.len(),
        exported.incoming_integrations.len(),
        exported.outgoing_integrations.len(),
        exported.workflows.len(),
    ];
    assert_eq!(each, [1; 7]);
    let incoming = &exported.incoming_integrations[0];
    let servers = [&incoming.uid, &incoming.etag, &incoming.endpoint_id, &incoming.endpoint_path];
    assert!(servers.iter().all(|text| text.is_empty()) && incoming.create_time.is_none(), "{incoming:?}");
    assert_eq!(export(&world, ACME).await.encode_to_vec(), exported.encode_to_vec(), "byte for byte");

    let revision = world.revision("acme").await;
    let request = admin::GetWorkflowRequest { name: exported.workflows[0].name.clone() };
    let before = world.workflows().get_workflow(request.clone()).await.unwrap().into_inner();
    for prune in [false, true] {
        let request = admin::ApplyConfigurationRequest { prune, ..applying(ACME, exported.clone()) };
        assert_eq!(apply(&world, request).await.unwrap(), []);
    }
    assert_eq!(world.workflows().get_workflow(request).await.unwrap().into_inner(), before);
    assert_eq!((world.revision("acme").await, export(&world, ACME).await), (revision, exported));
}

#[tokio::test]
async fn an_empty_workspace_gets_all_drafts() {
    let world = World::new().await;
    furnish(&world, ACME, "ours", "Ours").await;
    world.workspace("beta").await;
    let document = moved(&export(&world, ACME).await);
    let missing = violations(&apply(&world, applying(BETA, document.clone())).await.unwrap_err());
    assert_eq!(missing.len(), 1, "only the secret: {missing:?}");
    assert_eq!(missing[0].0, "configuration.connections[0].api_key.secret");

    let mut with_secret = document.clone();
    set_secret(&mut with_secret, "CANARY-secret");
    let tried = admin::ApplyConfigurationRequest { validate_only: true, ..applying(BETA, with_secret.clone()) };
    let tried = apply(&world, tried).await.unwrap();
    assert_eq!(export(&world, BETA).await, WorkspaceConfiguration::default(), "it was only tried");
    let id = "7b1c4a52-0c44-4f43-8f4e-8f6f0a3c1f10".to_owned();
    let request = admin::ApplyConfigurationRequest { request_id: id, ..applying(BETA, with_secret) };
    let made = apply(&world, request.clone()).await.unwrap();
    assert_eq!(apply(&world, request).await.unwrap(), made, "the same request has the same answer");
    assert_eq!((made.len(), kinds(&tried)), (8, kinds(&made)));
    assert!(made.iter().all(|change| change.kind() == ResourceChangeKind::ResourceAdded), "{made:?}");
    assert!(!format!("{made:?}").contains("CANARY") && format!("{made:?}").contains("[redacted]"));
    assert_eq!(export(&world, BETA).await, document);
    assert_eq!(apply(&world, applying(BETA, document)).await.unwrap(), [], "the secret stays as it is");
    let request = admin::GetConnectionRequest { name: format!("{BETA}/connections/ours") };
    let connection = world.connections().get_connection(request).await.unwrap().into_inner();
    assert!(matches!(connection.scheme, Some(Scheme::ApiKey(key)) if key.secret_set), "it has its secret");
}

#[tokio::test]
async fn what_differs_is_told_field_by_field() {
    let world = World::new().await;
    furnish(&world, ACME, "ours", "Ours").await;
    let mut document = export(&world, ACME).await;
    document.snippets[0].text = "other".to_owned();
    document.workflows[0].steps[0].step_name = "renamed".to_owned();
    let changes = apply(&world, applying(ACME, document.clone())).await.unwrap();
    let field = |path: &str, old: &str, new: &str| admin::FieldChange {
        path: path.to_owned(),
        old_value: Some(old.to_owned()),
        new_value: Some(new.to_owned()),
    };
    let fields: Vec<_> = changes.iter().map(|change| (change.kind(), change.fields.clone())).collect();
    let changed = ResourceChangeKind::ResourceChanged;
    assert_eq!(fields[0], (changed, vec![field("text", "\"Ours\"", "\"other\"")]));
    assert_eq!(fields[1], (changed, vec![field("steps[0].step_name", "\"first\"", "\"renamed\"")]));
    assert_eq!(fields.len(), 2);
    document.snippets[0].etag = "other".to_owned();
    let refused = apply(&world, applying(ACME, document.clone())).await.unwrap_err();
    assert_eq!(refusal(&refused), (Code::Aborted, "ETAG_MISMATCH".to_owned()));
}

#[tokio::test]
async fn a_broken_document_changes_nothing_and_names_every_place() {
    let world = World::new().await;
    furnish(&world, ACME, "ours", "Ours").await;
    world.workspace("rival").await;
    let exported = export(&world, ACME).await;
    let mut document = exported.clone();
    document.event_definitions[0].display_name = "Changed".to_owned();
    document.snippets[0].text = "{% if %}".to_owned();
    document
        .connections
        .push(admin::Connection { name: "workspaces/rival/connections/a".to_owned(), ..Default::default() });
    document.connections.push(document.connections[0].clone());
    document.outgoing_integrations[0].request.as_mut().unwrap().url = "no url".to_owned();
    document.workflows[0].triggers[0].incoming_integration = format!("{ACME}/incomingIntegrations/absent");
    let found = violations(&apply(&world, applying(ACME, document)).await.unwrap_err());
    assert!(has(&found, "configuration.connections[1].name", "NAME_INVALID"), "{found:?}");
    assert!(has(&found, "configuration.connections[2].name", "REPEATED"), "{found:?}");
    let workflow = "configuration.workflows[0].triggers[0].incoming_integration";
    assert!(has(&found, workflow, "RESOURCE_NOT_FOUND"), "{found:?}");
    for place in ["configuration.snippets[0].text", "configuration.outgoing_integrations[0].request.url"] {
        assert!(found.iter().any(|(field, _)| field == place), "{place}: {found:?}");
    }
    assert_eq!(export(&world, ACME).await, exported);
    let many = vec![exported.snippets[0].clone(); 2_001];
    let request = applying(ACME, WorkspaceConfiguration { snippets: many, ..Default::default() });
    let found = violations(&apply(&world, request).await.unwrap_err());
    assert!(has(&found, "configuration", "CONFIGURATION_TOO_LARGE"), "{found:?}");
    let absent = violations(
        &apply(&world, admin::ApplyConfigurationRequest { parent: ACME.to_owned(), ..Default::default() })
            .await
            .unwrap_err(),
    );
    assert!(has(&absent, "configuration", "REQUIRED"), "{absent:?}");
}

#[tokio::test]
async fn only_pruning_deletes_and_never_what_is_published() {
    let world = World::new().await;
    let connection = world.connection("crm", "s3cret").await.name;
    let outgoing = world.outgoing_integration("send", &connection).await.name;
    let incoming = world.incoming_integration("orders").await.name;
    let workflow = world.workflow("flow", &incoming, &outgoing).await.name;
    let full = export(&world, ACME).await;
    let empty = WorkspaceConfiguration::default();
    assert_eq!(apply(&world, applying(ACME, empty.clone())).await.unwrap(), []);
    assert_eq!(export(&world, ACME).await, full);

    let pruning = |configuration: &WorkspaceConfiguration| admin::ApplyConfigurationRequest {
        prune: true,
        ..applying(ACME, configuration.clone())
    };
    let users = WorkspaceConfiguration { connections: Vec::new(), ..full.clone() };
    let found = violations(&apply(&world, pruning(&users)).await.unwrap_err());
    assert!(has(&found, "prune", "RESOURCE_IN_USE"), "{found:?}");
    world.publish_incoming(&incoming).await.unwrap();
    let found = violations(&apply(&world, pruning(&empty)).await.unwrap_err());
    assert!(has(&found, "prune", "RESOURCE_PUBLISHED"), "{found:?}");
    assert_eq!(export(&world, ACME).await, full);

    let request = admin::UnpublishIncomingIntegrationRequest { name: incoming.clone(), ..Default::default() };
    world.incoming().unpublish_incoming_integration(request).await.unwrap();
    let removed = kinds(&apply(&world, pruning(&empty)).await.unwrap());
    let gone = [workflow, outgoing, incoming, connection].map(|name| (name, ResourceChangeKind::ResourceRemoved));
    assert_eq!(removed, gone);
    assert_eq!(export(&world, ACME).await, empty);
    let found = violations(&apply(&world, applying(ACME, full)).await.unwrap_err());
    assert!(has(&found, "configuration.connections[0].name", "RESOURCE_DELETED"), "{found:?}");
}

async fn export_text(world: &World, parent: &str, format: admin::DocumentFormat) -> String {
    let request = admin::ExportConfigurationRequest { parent: parent.to_owned(), format: format.into() };
    let answer = world.configuration().export_configuration(request).await.unwrap().into_inner();
    assert_eq!(answer.configuration, None, "the text stands for it");
    answer.document
}

fn applying_text(parent: &str, document: &str) -> admin::ApplyConfigurationRequest {
    let source = Some(Source::Document(document.to_owned()));
    admin::ApplyConfigurationRequest { parent: parent.to_owned(), source, ..Default::default() }
}

#[tokio::test]
async fn a_document_as_text_is_exported_read_and_applied() {
    let world = World::new().await;
    furnish(&world, ACME, "ours", "no").await;
    let exported = export(&world, ACME).await;
    let yaml = export_text(&world, ACME, admin::DocumentFormat::Yaml).await;
    assert!(yaml.contains("\nsnippets:\n  - name: workspaces/acme/snippets/ours\n"), "{yaml}");
    assert!(yaml.contains("display_name: \"no\"\n"), "{yaml}");
    let json = export_text(&world, ACME, admin::DocumentFormat::Json).await;
    assert!(json.starts_with("{\n  \"connections\": [") && json.contains("\"displayName\": \"no\""), "{json}");
    for text in [&yaml, &json] {
        assert!(!text.contains("s3cret"), "{text}");
        for prune in [false, true] {
            let request = admin::ApplyConfigurationRequest { prune, ..applying_text(ACME, text) };
            assert_eq!(apply(&world, request).await.unwrap(), [], "{text}");
        }
        assert_eq!(export(&world, ACME).await, exported);
    }
    let changed = yaml.replacen("text: \"no\"", "text: yes # without quotes", 1);
    let changes = apply(&world, applying_text(ACME, &changed)).await.unwrap();
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(changes[0].fields[0].new_value.as_deref(), Some("\"yes\""));
}

#[tokio::test]
async fn what_is_wrong_in_a_text_is_told_with_its_line_and_field() {
    let world = World::new().await;
    let broken = "snippets:\n  - name: workspaces/acme/snippets/first\n    display_name: A\n    text: |\n      one\n      {% if %}\nworkflows:\n  - name: workspaces/acme/workflows/flow\n    display_name: W\n    triggers:\n      - incoming_integration: workspaces/acme/incomingIntegrations/absent\n";
    let refused = apply(&world, applying_text(ACME, broken)).await.unwrap_err();
    let details = crate::world::details(&refused);
    let told = |field: &str| {
        let found = details.bad_request().unwrap().field_violations.iter().find(|one| one.field == field);
        found.unwrap_or_else(|| panic!("{field}: {details:?}")).description.clone()
    };
    assert!(told("configuration.snippets[0].text").starts_with("line 4 of the document: "), "{details:?}");
    let trigger = told("configuration.workflows[0].triggers[0].incoming_integration");
    assert!(trigger.starts_with("line 11 of the document: "), "{trigger}");
    let twice = apply(&world, applying_text(ACME, "snippets: []\nsnippets: []\n")).await.unwrap_err();
    assert!(has(&violations(&twice), "document", "REPEATED"), "{twice:?}");
    assert!(twice.message().contains("line 2"), "{}", twice.message());
    let unknown = apply(&world, applying_text(ACME, "snippets:\n- nmae: x\n")).await.unwrap_err();
    assert!(has(&violations(&unknown), "configuration.snippets[0].nmae", "FIELD_UNKNOWN"), "{unknown:?}");
    // What belongs to another workspace is not there, whatever the document says.
    let elsewhere = apply(&world, applying_text("workspaces/nobody", "}")).await.unwrap_err();
    assert_eq!(elsewhere.code(), Code::NotFound);
    let format = admin::ExportConfigurationRequest { parent: ACME.to_owned(), format: 9 };
    let refused = world.configuration().export_configuration(format).await.unwrap_err();
    assert!(has(&violations(&refused), "format", "UNKNOWN"), "{refused:?}");
}

#[tokio::test]
async fn a_document_of_another_workspace_becomes_one_of_this() {
    let world = World::new().await;
    furnish(&world, ACME, "ours", "Ours").await;
    world.workspace("beta").await;
    let mut document = export(&world, ACME).await;
    // A text that only looks like a name stays.
    document.snippets[0].text = format!("{ACME}/snippets/ours");
    let expected = moved(&document);
    let expected = WorkspaceConfiguration {
        snippets: vec![admin::Snippet { text: document.snippets[0].text.clone(), ..expected.snippets[0].clone() }],
        ..expected
    };
    set_secret(&mut document, "s3cret");
    apply(&world, applying(BETA, document.clone())).await.unwrap();
    assert_eq!(export(&world, BETA).await, expected);
    assert_ne!(export(&world, ACME).await.snippets, document.snippets, "where it came from, nothing changes");
    let yaml = export_text(&world, ACME, admin::DocumentFormat::Yaml).await;
    let changes = apply(&world, applying_text(BETA, &yaml)).await.unwrap();
    assert_eq!(changes.len(), 1, "only the snippet: {changes:?}");
    // Of two workspaces at once it is none.
    document.snippets[0].name = format!("{BETA}/snippets/ours");
    let found = violations(&apply(&world, applying(BETA, document)).await.unwrap_err());
    assert!(has(&found, "configuration.workflows[0].name", "NAME_INVALID"), "{found:?}");
}

#[tokio::test]
async fn steps_keep_their_ids_by_their_names() {
    let world = World::new().await;
    furnish(&world, ACME, "ours", "Ours").await;
    let before = export(&world, ACME).await;
    let mut document = before.clone();
    for step in &mut document.workflows[0].steps {
        assert!(!std::mem::take(&mut step.step_id).is_empty());
    }
    assert_eq!(apply(&world, applying(ACME, document.clone())).await.unwrap(), [], "nothing is other than it was");
    let first = document.workflows[0].steps[0].clone();
    document.workflows[0].steps.insert(0, admin::Step { step_name: "before".to_owned(), ..first });
    apply(&world, applying(ACME, document)).await.unwrap();
    let after = export(&world, ACME).await.workflows[0].steps.clone();
    assert_eq!(after[1], before.workflows[0].steps[0]);
    assert_ne!(after[0].step_id, after[1].step_id);
}

#[tokio::test]
async fn a_document_has_a_limit_in_bytes() {
    const LIMIT: usize = 2 << 20;
    let world = World::new().await;
    let snippet = |at: usize, bytes: usize| admin::Snippet {
        name: format!("{ACME}/snippets/s-{at}"),
        display_name: "S".to_owned(),
        text: "x".repeat(bytes),
        ..Default::default()
    };
    let full =
        WorkspaceConfiguration { snippets: (0..40).map(|at| snippet(at, 50_000)).collect(), ..Default::default() };
    let sized = |bytes: usize| {
        let mut configuration = full.clone();
        let missing = bytes - configuration.encoded_len();
        configuration.snippets.extend([snippet(40, 50_000), snippet(41, 50_000)]);
        let over = configuration.encoded_len() - full.encoded_len() - missing;
        configuration.snippets[40].text.truncate(50_000 - over);
        configuration
    };
    assert_eq!(sized(LIMIT).encoded_len(), LIMIT);
    let tried =
        |configuration| admin::ApplyConfigurationRequest { validate_only: true, ..applying(ACME, configuration) };
    assert_eq!(apply(&world, tried(sized(LIMIT))).await.unwrap().len(), 42);
    let refused = apply(&world, tried(sized(LIMIT + 1))).await.unwrap_err();
    assert!(has(&violations(&refused), "configuration", "CONFIGURATION_TOO_LARGE"), "{refused:?}");
    assert!(refused.message().contains("2097153 bytes; the limit is 2097152"), "{}", refused.message());
    // As text it is a little longer: what fits as a message need not.
    apply(&world, applying(ACME, sized(LIMIT))).await.unwrap();
    assert_eq!(export(&world, ACME).await.encoded_len(), LIMIT);
    let format = admin::DocumentFormat::Yaml.into();
    let request = admin::ExportConfigurationRequest { parent: ACME.to_owned(), format };
    let refused = world.configuration().export_configuration(request).await.unwrap_err();
    assert!(has(&violations(&refused), "format", "CONFIGURATION_TOO_LARGE"), "{refused:?}");
}
