//! The contract keeps its own conventions, and every field in it that a caller can set is kept (I9). Both are read off the
//! descriptors: what is new is checked without being named here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, ReflectMessage as _,
    Value,
};
use sluice_proto::admin::v1 as admin;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

use crate::world::{ACME, World};

const PACKAGE: &str = "sluice.admin.v1";
/// What a method that changes nothing begins with. Every other method is one that changes something.
const READING: &[&str] =
    &["Get", "List", "Watch", "Find", "Diff", "Wait", "Verify", "Parse", "Preview", "Evaluate", "Export", "Infer"];

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| DescriptorPool::decode(sluice_proto::DESCRIPTORS).unwrap());

/// What is never changed once it is made.
const UNCHANGING: &[&str] = &["JoinToken"];

/// The contract; messages of one pool can be compared.
fn pool() -> DescriptorPool {
    POOL.clone()
}

fn methods(pool: &DescriptorPool) -> Vec<MethodDescriptor> {
    let services = pool.services().filter(|service| service.package_name() == PACKAGE);
    services.flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

fn is_of(method: &MethodDescriptor, verb: &str) -> bool {
    method.name().strip_prefix(verb).is_some_and(|rest| rest.starts_with(char::is_uppercase))
}

/// What a caller creates: the messages that `Create…` takes.
fn resources(pool: &DescriptorPool) -> BTreeMap<String, MessageDescriptor> {
    let created = methods(pool).into_iter().filter(|method| is_of(method, "Create"));
    let of = |method: MethodDescriptor| {
        let name = method.name().trim_start_matches("Create").to_owned();
        let input = method.input();
        let mut taken = input.fields().filter_map(|field| field.kind().as_message().cloned());
        let resource = taken.find(|message| message.get_field_by_name("uid").is_some());
        (name.clone(), resource.unwrap_or_else(|| panic!("Create{name} takes no resource with a uid")))
    };
    created.map(of).collect()
}

fn missing(message: &MessageDescriptor, fields: &[&str]) -> Vec<String> {
    let gone = fields.iter().filter(|field| message.get_field_by_name(field).is_none());
    gone.map(|field| format!("{}.{field}", message.name())).collect()
}

/// Every convention that a method breaks.
fn broken(method: &MethodDescriptor) -> Vec<String> {
    let (input, output) = (method.input(), method.output());
    let mut found = Vec::new();
    if is_of(method, "List") {
        found.extend(missing(&input, &["page_size", "page_token"]));
        found.extend(missing(&output, &["next_page_token"]));
    }
    if is_of(method, "Submit") {
        // What is submitted brings ids of its own, which are remembered for longer than those of requests.
        found.extend(missing(&input, &["validate_only"]));
    } else if !READING.iter().any(|verb| is_of(method, verb)) {
        found.extend(missing(&input, &["validate_only", "request_id"]));
    }
    let updates = input.fields().any(|field| field.kind().as_message().is_some_and(has_uid));
    if is_of(method, "Update") && updates {
        found.extend(missing(&input, &["update_mask"]));
    }
    for verb in ["Delete", "Undelete", "Publish", "Unpublish", "Rollback"] {
        let several = input.get_field_by_name("drafts").is_some();
        if is_of(method, verb) && !several {
            found.extend(missing(&input, &["name", "etag"]));
        }
    }
    found
}

#[test]
fn every_method_and_resource_keeps_the_conventions() {
    let pool = pool();
    let found: Vec<String> = methods(&pool).iter().flat_map(broken).collect();
    assert!(found.is_empty(), "missing: {found:#?}");
    let resources = resources(&pool);
    assert!(resources.len() >= 5, "{:?}", resources.keys());
    for (name, resource) in &resources {
        let changes = !UNCHANGING.contains(&name.as_str());
        let times = if changes { &["create_time", "update_time"][..] } else { &["create_time"] };
        let found = missing(resource, &[&["name", "uid", "etag"], times].concat());
        assert!(found.is_empty(), "missing: {found:?}");
        let verbs = if changes { &["Get", "Update", "Delete"][..] } else { &["Get", "Delete"] };
        for verb in verbs {
            let method = format!("{verb}{name}");
            assert!(methods(&pool).iter().any(|one| one.name() == method), "there is no {method}");
        }
        if resource.get_field_by_name("delete_time").is_some() {
            let undelete = format!("Undelete{name}");
            assert!(methods(&pool).iter().any(|one| one.name() == undelete), "there is no {undelete}");
            let list = methods(&pool).into_iter().find(|one| one.name() == format!("List{name}s")).unwrap();
            assert_eq!(missing(&list.input(), &["filter", "order_by", "show_deleted"]), Vec::<String>::new());
        }
    }
}

/// What is said of a field in the contract.
fn comment(field: &FieldDescriptor) -> String {
    let file = field.parent_file();
    let locations = file.file_descriptor_proto().source_code_info.clone().unwrap_or_default().location;
    let said = locations.into_iter().find(|location| location.path == field.path());
    said.map(|location| location.leading_comments().to_owned()).unwrap_or_default()
}

fn is_secret(field: &FieldDescriptor) -> bool {
    sluice_proto::SENSITIVE.contains(&field.full_name())
}

/// Fields that the server writes, or that say which resource is meant.
fn is_servers(field: &FieldDescriptor) -> bool {
    comment(field).contains("Output only")
        || ["name", "etag"].contains(&field.name()) && has_uid(field.parent_message())
}

fn has_uid(message: &MessageDescriptor) -> bool {
    message.get_field_by_name("uid").is_some()
}

fn is_plain(message: &MessageDescriptor) -> bool {
    message.package_name() == "google.protobuf" || message.fields().len() == 0
}

fn joined(within: &str, name: &str) -> String {
    if within.is_empty() { name.to_owned() } else { format!("{within}.{name}") }
}

/// Every path that a caller can fill. A message within itself is gone into once.
fn fillable(message: &MessageDescriptor, within: &str, inside: &mut Vec<String>, found: &mut BTreeSet<String>) {
    inside.push(message.full_name().to_owned());
    for field in message.fields().filter(|field| !is_servers(field)) {
        let path = joined(within, field.name());
        match field.kind() {
            Kind::Message(kind) if !is_plain(&kind) && !field.is_map() => {
                if !inside.contains(&kind.full_name().to_owned()) {
                    fillable(&kind, &path, inside, found);
                }
            }
            _ => drop(found.insert(path)),
        }
    }
    inside.pop();
}

/// The paths that a message fills, lists without their places.
fn filled(message: &DynamicMessage, within: &str, found: &mut BTreeSet<String>) {
    for (field, value) in message.fields().filter(|(field, _)| !is_servers(field)) {
        let path = joined(within, field.name());
        let values = match value {
            Value::List(values) => values.clone(),
            value => vec![value.clone()],
        };
        for value in values {
            match &value {
                Value::Message(message) if !is_plain(&message.descriptor()) => filled(message, &path, found),
                _ => drop(found.insert(path.clone())),
            }
        }
    }
}

/// Changes the field at `path`; of a list the first entry that fills it. `false` when it is not filled.
fn change(message: &mut DynamicMessage, path: &[&str], wanted: Option<&serde_json::Value>) -> bool {
    let Some((name, deeper)) = path.split_first() else { return false };
    let field = message.descriptor().get_field_by_name(name).unwrap();
    if !message.has_field(&field) {
        return false;
    }
    let changed = |value: &mut Value| match value {
        Value::Message(within) if !deeper.is_empty() => change(within, deeper, wanted),
        value if deeper.is_empty() => {
            *value = other(&field, value, wanted);
            true
        }
        _ => false,
    };
    match message.get_field_mut(&field) {
        Value::List(values) => values.iter_mut().any(changed),
        value => changed(value),
    }
}

/// Another value of the field.
fn other(field: &FieldDescriptor, value: &Value, wanted: Option<&serde_json::Value>) -> Value {
    let wanted_text = wanted.and_then(|wanted| wanted.as_str());
    match (value, field.kind()) {
        (Value::String(text), _) => {
            Value::String(wanted_text.map_or_else(|| format!("{text}{}", suffix(text)), str::to_owned))
        }
        (Value::Bool(value), _) => Value::Bool(wanted.and_then(|wanted| wanted.as_bool()).unwrap_or(!value)),
        (Value::I32(number), _) => Value::I32(number + 1),
        (Value::I64(number), _) => Value::I64(number + 1),
        (Value::EnumNumber(number), Kind::Enum(kind)) => {
            let numbers: Vec<i32> = kind.values().map(|value| value.number()).filter(|other| *other != 0).collect();
            let named = wanted_text.map(|name| kind.get_value_by_name(name).unwrap().number());
            Value::EnumNumber(named.unwrap_or_else(|| *numbers.iter().find(|other| *other != number).unwrap()))
        }
        (Value::Message(message), _) if message.descriptor().get_field_by_name("seconds").is_some() => {
            let mut message = message.clone();
            let seconds = message.get_field_by_name("seconds").unwrap().as_i64().unwrap();
            message.set_field_by_name("seconds", Value::I64(seconds + 1));
            Value::Message(message)
        }
        (Value::Bytes(_), _) => Value::Bytes(STANDARD.decode(wanted_text.unwrap()).unwrap().into()),
        (Value::Map(values), _) => {
            let other = |value: &Value| Value::String(format!("{}2", value.as_str().unwrap()));
            Value::Map(values.iter().map(|(key, value)| (key.clone(), other(value))).collect())
        }
        // There is nothing in it to change.
        (Value::Message(message), _) => Value::Message(message.clone()),
        (value, _) => panic!("no other value for {}: {value:?}", field.full_name()),
    }
}

/// References have a second one beside them.
fn suffix(text: &str) -> &'static str {
    if text.starts_with("workspaces/") { "-2" } else { "2" }
}

/// The message as a caller would have sent it: without what the server writes, and without secrets.
fn as_sent(message: &mut DynamicMessage) {
    let fields: Vec<FieldDescriptor> = message.descriptor().fields().collect();
    for field in fields.iter().filter(|field| message.has_field(field)).collect::<Vec<_>>() {
        if is_servers(field) || is_secret(field) {
            message.clear_field(field);
            continue;
        }
        match message.get_field_mut(field) {
            Value::Message(within) => as_sent(within),
            Value::List(values) => values.iter_mut().for_each(|value| {
                if let Value::Message(within) = value {
                    as_sent(within);
                }
            }),
            _ => {}
        }
    }
}

struct Dynamic(MessageDescriptor);

impl Codec for Dynamic {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self(self.0.clone())
    }

    fn decoder(&mut self) -> Self {
        Self(self.0.clone())
    }
}

impl Encoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost::Message::encode(&item, buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let decoded = DynamicMessage::decode(self.0.clone(), buffer);
        decoded.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

/// Calls a method with a request made of JSON.
async fn call(world: &World, name: &str, request: DynamicMessage) -> Result<DynamicMessage, Status> {
    let method = methods(&pool()).into_iter().find(|method| method.name() == name).unwrap();
    let mut grpc = Grpc::new(world.keyed());
    grpc.ready().await.unwrap();
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name()).parse().unwrap();
    let answer = grpc.unary(Request::new(request), path, Dynamic(method.output())).await?;
    Ok(answer.into_inner())
}

fn request(name: &str, fields: serde_json::Value) -> DynamicMessage {
    let method = methods(&pool()).into_iter().find(|method| method.name() == name).unwrap();
    DynamicMessage::deserialize(method.input(), fields).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// `OutgoingIntegration` is `outgoing_integration` in requests.
fn field_of(resource: &str) -> String {
    let mut field = String::new();
    for character in resource.chars() {
        if character.is_uppercase() && !field.is_empty() {
            field.push('_');
        }
        field.extend(character.to_lowercase());
    }
    field
}

struct Row {
    resource: String,
    document: serde_json::Value,
    values: BTreeMap<String, serde_json::Value>,
}

fn rows() -> Vec<Row> {
    let text = include_str!("../../../tests/golden/contract/documents.jsonl");
    text.lines().map(row).collect()
}

fn row(line: &str) -> Row {
    let row: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let values = row["values"].as_object().unwrap().clone();
    Row {
        resource: row["resource"].as_str().unwrap().to_owned(),
        document: row["document"].clone(),
        values: values.into_iter().collect(),
    }
}

/// What documents refer to, each with a second one beside it.
async fn prepare(world: &World) {
    for suffix in ["", "-2"] {
        world.connection(&format!("crm{suffix}"), "s3cret").await;
        let key = admin::SigningSecret {
            id: "one".to_owned(),
            key: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(),
            ..Default::default()
        };
        let scheme = admin::connection::Scheme::StandardWebhooks(admin::StandardWebhooks { secrets: vec![key] });
        let connection =
            admin::Connection { display_name: "Sign".to_owned(), scheme: Some(scheme), ..Default::default() };
        let request = admin::CreateConnectionRequest {
            parent: ACME.to_owned(),
            connection_id: format!("sign{suffix}"),
            connection: Some(connection),
            ..Default::default()
        };
        world.connections().create_connection(request).await.unwrap();
        world.incoming_integration(&format!("orders{suffix}")).await;
        let fields = serde_json::json!([{"id": "note", "type": "TEXT", "label": "Note"}]);
        let schema_template = world.schema_template(&format!("order{suffix}"), &fields).await.unwrap().name;
        let name = world.outgoing_integration(&format!("send{suffix}"), "").await.name;
        let request = admin::UpdateOutgoingIntegrationRequest {
            outgoing_integration: Some(admin::OutgoingIntegration { name, schema_template, ..Default::default() }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["schema_template".to_owned()] }),
            ..Default::default()
        };
        world.outgoing().update_outgoing_integration(request).await.unwrap();
    }
}

async fn webhook_key(world: &World) -> String {
    let api_key = admin::AccessKey {
        display_name: "sender".to_owned(),
        roles: vec!["workspaces/acme/roles/webhook-sender".to_owned()],
        ..Default::default()
    };
    let request = admin::CreateApiKeyRequest { parent: ACME.to_owned(), api_key: Some(api_key), ..Default::default() };
    world.api_keys().create_api_key(request).await.unwrap().into_inner().name
}

fn with_keys(value: &serde_json::Value, keys: &[String; 2]) -> serde_json::Value {
    let text = value.to_string().replace("workspaces/acme/apiKeys/KEY2", &keys[1]);
    serde_json::from_str(&text.replace("workspaces/acme/apiKeys/KEY", &keys[0])).unwrap()
}

/// Every field that a caller can set is set to another value with an update, and read back.
#[tokio::test]
async fn what_can_be_set_is_kept() {
    let world = World::new().await;
    prepare(&world).await;
    let keys = [webhook_key(&world).await, webhook_key(&world).await];
    let pool = pool();
    let mut failures: Vec<String> = Vec::new();
    let mut covered: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (number, row) in rows().into_iter().enumerate() {
        let (resource, field) = (row.resource.clone(), field_of(&row.resource));
        let mut create = serde_json::json!({ field.clone(): with_keys(&row.document, &keys), format!("{field}_id"): format!("doc-{number}") });
        if resource != "Workspace" {
            create["parent"] = ACME.into();
        }
        let made = call(&world, &format!("Create{resource}"), request(&format!("Create{resource}"), create)).await;
        let made = made.unwrap_or_else(|refused| panic!("document {number}, {resource}: {}", told(&refused)));
        let name = made.get_field_by_name("name").unwrap().as_str().unwrap().to_owned();
        let message = pool.get_message_by_name(&format!("{PACKAGE}.{resource}")).unwrap();
        let document = DynamicMessage::deserialize(message, with_keys(&row.document, &keys)).unwrap();
        let mut paths = BTreeSet::new();
        filled(&document, "", &mut paths);
        for path in &paths {
            let wanted = row.values.get(path).map(|value| with_keys(value, &keys));
            let kept = set(&world, &resource, &name, &document, path, wanted.as_ref()).await;
            failures.extend(kept.err().map(|why| format!("document {number}, {resource}.{path}: {why}")));
        }
        covered.entry(resource).or_default().extend(paths);
    }
    assert!(failures.is_empty(), "{failures:#?}");
    for (resource, message) in resources(&pool).into_iter().filter(|(_, message)| has_delete_time(message)) {
        let mut all = BTreeSet::new();
        fillable(&message, "", &mut Vec::new(), &mut all);
        // A token becomes an API key when it is stored.
        all.retain(|path| path != "token.token");
        let found = covered.remove(&resource).unwrap_or_default();
        let forgotten: Vec<_> = all.difference(&found).collect();
        assert!(forgotten.is_empty(), "no document of {resource} fills {forgotten:#?}");
    }
    assert_eq!(covered.keys().collect::<Vec<_>>(), Vec::<&String>::new(), "no such resources");
}

/// Sets one field of a document to another value and reads it back.
async fn set(
    world: &World,
    resource: &str,
    name: &str,
    document: &DynamicMessage,
    path: &str,
    wanted: Option<&serde_json::Value>,
) -> Result<(), String> {
    let mut changed = document.clone();
    assert!(change(&mut changed, &path.split('.').collect::<Vec<_>>(), wanted), "{path} is filled");
    let before = etag_of(world, resource, name).await;
    let mut sent = changed.clone();
    sent.set_field_by_name("name", Value::String(name.to_owned()));
    let mut update = request(&format!("Update{resource}"), serde_json::json!({}));
    update.set_field_by_name(&field_of(resource), Value::Message(sent));
    let answered = call(world, &format!("Update{resource}"), update).await;
    let mut kept = answered.map_err(|refused| told(&refused))?;
    if kept.get_field_by_name("etag").unwrap().as_str() == Some(&before) && changed != *document {
        return Err("counts as no change".to_owned());
    }
    as_sent(&mut kept);
    as_sent(&mut changed);
    let [kept, changed] = [kept, changed].map(|message| serde_json::to_value(message).unwrap());
    if kept == changed { Ok(()) } else { Err(format!("is {kept}, was set to {changed}")) }
}

/// What is wrong, without the bytes of the details.
fn told(refused: &Status) -> String {
    format!("{} {:?}", refused.message(), refused.get_error_details().bad_request())
}

fn has_delete_time(message: &MessageDescriptor) -> bool {
    message.get_field_by_name("delete_time").is_some()
}

async fn etag_of(world: &World, resource: &str, name: &str) -> String {
    let get = request(&format!("Get{resource}"), serde_json::json!({ "name": name }));
    let found = call(world, &format!("Get{resource}"), get).await.unwrap();
    found.get_field_by_name("etag").unwrap().as_str().unwrap().to_owned()
}

#[test]
fn a_method_that_breaks_a_convention_is_noticed() {
    let pool = pool();
    let watch = methods(&pool).into_iter().find(|method| method.name() == "WatchDeliveries").unwrap();
    assert!(broken(&watch).is_empty());
    let get = pool.get_message_by_name(&format!("{PACKAGE}.GetWorkflowRequest")).unwrap();
    assert_eq!(missing(&get, &["name", "etag"]), ["GetWorkflowRequest.etag"]);
}
