//! Calls of any method of the contract, with requests written as JSON.

use std::collections::BTreeSet;

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, MethodDescriptor};
use serde_json::{Value, json};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Messages as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// A method of the contract.
#[derive(Clone)]
pub(crate) struct AnyMethod(MethodDescriptor);

/// Every method of the contract, by path.
pub(crate) fn methods() -> Vec<AnyMethod> {
    let pool = DescriptorPool::decode(sluice_proto::DESCRIPTORS).unwrap();
    let mut methods: Vec<_> =
        pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()).map(AnyMethod).collect();
    methods.sort_by_key(AnyMethod::path);
    methods
}

/// One of the paths that the contract gives a method.
pub(crate) struct Binding {
    /// `get`, `post`, …
    pub(crate) verb: String,
    /// With its places: `/v1/{name=workspaces/*}`.
    pub(crate) path: String,
    /// Nothing, `*` or a field.
    pub(crate) body: String,
}

impl AnyMethod {
    /// Its paths.
    pub(crate) fn bindings(&self) -> Vec<Binding> {
        let option = self.0.parent_pool().get_extension_by_name("google.api.http").unwrap();
        let rule = self.0.options().get_extension(&option).as_message().unwrap().clone();
        let more = rule.get_field_by_name("additional_bindings").unwrap().into_owned();
        let rules = std::iter::once(&rule).chain(more.as_list().unwrap().iter().map(|one| one.as_message().unwrap()));
        let binding = |rule: &DynamicMessage| {
            let text = |field: &str| rule.get_field_by_name(field).unwrap().as_str().unwrap().to_owned();
            let verb = ["get", "put", "post", "delete", "patch"].into_iter().find(|verb| !text(verb).is_empty())?;
            Some(Binding { verb: verb.to_owned(), path: text(verb), body: text("body") })
        };
        rules.filter_map(binding).collect()
    }

    /// `package.Service/Method`.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.0.parent_service().full_name(), self.0.name())
    }

    pub(crate) fn permission(&self) -> &'static str {
        sluice_proto::permission(&format!("/{}", self.path())).unwrap()
    }

    pub(crate) fn input(&self) -> MessageDescriptor {
        self.0.input()
    }

    /// One message answers one message.
    pub(crate) fn is_unary(&self) -> bool {
        !self.0.is_client_streaming() && !self.0.is_server_streaming()
    }

    pub(crate) fn takes_stream(&self) -> bool {
        self.0.is_client_streaming()
    }

    /// Where a request names what it is about: `name`, `parent`, or `name` in what is updated.
    pub(crate) fn resource(&self) -> Option<Vec<String>> {
        let input = self.input();
        let named = |message: &MessageDescriptor, field: &str| message.get_field_by_name(field).is_some();
        if let Some(field) = ["name", "parent"].into_iter().find(|field| named(&input, field)) {
            return Some(vec![field.to_owned()]);
        }
        let updated = input.fields().find(|field| field.kind().as_message().is_some_and(|kind| named(kind, "name")));
        let updated = updated.filter(|_| self.0.name().starts_with("Update"));
        updated.map(|field| vec![field.name().to_owned(), "name".to_owned()])
    }

    /// The smallest request about this resource, which changes nothing where that can be asked for.
    pub(crate) fn smallest(&self, resource: &str) -> Value {
        let mut request = json!({});
        if let Some(path) = self.resource() {
            put(&mut request, &path, json!(resource));
        }
        if self.input().get_field_by_name("validate_only").is_some() {
            put(&mut request, &["validate_only".to_owned()], json!(true));
        }
        if self.0.name() == "WaitServed" {
            put(&mut request, &["timeout".to_owned()], json!("0s"));
        }
        request
    }

    /// Calls it; the answer, or the first of several. A stream that only waits has answered with nothing.
    pub(crate) async fn call(&self, channel: Channel, key: Option<&str>, request: &Value) -> Result<Bytes, Status> {
        let message = DynamicMessage::deserialize(self.input(), request)
            .unwrap_or_else(|error| panic!("{}: {error}: {request}", self.path()));
        self.call_with(channel, key, message.encode_to_vec().into()).await
    }

    pub(crate) async fn call_with(&self, channel: Channel, key: Option<&str>, bytes: Bytes) -> Result<Bytes, Status> {
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.unwrap();
        let mut request = Request::new(tokio_stream::once(bytes));
        if let Some(key) = key {
            request.metadata_mut().insert("authorization", MetadataValue::try_from(format!("Bearer {key}")).unwrap());
        }
        let path = format!("/{}", self.path()).parse().unwrap();
        let mut answers = grpc.streaming(request, path, Raw).await?.into_inner();
        if self.0.is_server_streaming() {
            return Ok(Bytes::new());
        }
        Ok(answers.message().await?.unwrap_or_default())
    }

    /// What was answered, as JSON with the names of the contract's fields.
    pub(crate) fn answer(&self, bytes: &[u8]) -> Value {
        let message = DynamicMessage::decode(self.0.output(), bytes).unwrap();
        let options = prost_reflect::SerializeOptions::new().use_proto_field_name(true);
        message.serialize_with_options(serde_json::value::Serializer, &options).unwrap()
    }

    /// Every place of a request where a text can stand, as a path; what is repeated has one element.
    pub(crate) fn texts(&self) -> BTreeSet<Vec<String>> {
        let mut found = BTreeSet::new();
        texts(&self.input(), &mut Vec::new(), &mut found);
        found
    }
}

fn texts(message: &MessageDescriptor, path: &mut Vec<String>, found: &mut BTreeSet<Vec<String>>) {
    const DEEPEST: usize = 8;
    if path.len() >= DEEPEST || message.full_name().starts_with("google.") {
        return;
    }
    for field in message.fields().filter(|field| !field.is_map()) {
        path.push(field.name().to_owned());
        if field.is_list() {
            path.push("0".to_owned());
        }
        match field.kind() {
            Kind::String => drop(found.insert(path.clone())),
            Kind::Message(inner) => texts(&inner, path, found),
            _ => {}
        }
        if field.is_list() {
            path.pop();
        }
        path.pop();
    }
}

/// Puts a value where the path leads, making what is missing on the way.
pub(crate) fn put(request: &mut Value, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        *request = value;
        return;
    };
    if first == "0" {
        if !request.is_array() {
            *request = json!([Value::Null]);
        }
        put(&mut request[0], rest, value);
    } else {
        if !request.is_object() {
            *request = json!({});
        }
        put(&mut request[first.as_str()], rest, value);
    }
}

/// Puts a value into a request, taking away the other alternatives of every choice on the way.
pub(crate) fn put_choosing(message: &MessageDescriptor, request: &mut Value, path: &[String], value: Value) {
    let mut at = &mut *request;
    let mut message = message.clone();
    for part in path {
        if part == "0" {
            if !at.is_array() {
                *at = json!([{}]);
            }
            at = &mut at[0];
            continue;
        }
        let field = message.get_field_by_name(part).unwrap();
        if !at.is_object() {
            *at = json!({});
        }
        if let Some(oneof) = field.containing_oneof() {
            for other in oneof.fields().filter(|other| other != &field) {
                at.as_object_mut().unwrap().remove(other.name());
            }
        }
        at = &mut at[part.as_str()];
        if let Kind::Message(inner) = field.kind() {
            message = inner;
        }
    }
    *at = value;
}
