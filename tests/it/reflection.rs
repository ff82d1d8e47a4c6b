//! A client that knows nothing of the contract: it asks the server for it, builds its messages from JSON, and can do what
//! generated code can.

use std::collections::BTreeMap;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use prost_types::FileDescriptorProto;
use serde_json::{Value, json};
use sluice_tests::{Request, World, reason};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use tonic_reflection::pb::v1alpha;

/// Messages that are known only while the client runs.
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
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))
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

/// A caller with a key, or without one.
#[derive(Clone)]
struct Caller {
    channel: Channel,
    key: Option<String>,
}

impl Caller {
    async fn connect(world: &World, key: Option<&str>) -> Self {
        let channel = Endpoint::from_shared(world.grpc_url()).unwrap().connect().await.unwrap();
        Self { channel, key: key.map(str::to_owned) }
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(key) = &self.key {
            let bearer = AsciiMetadataValue::try_from(format!("Bearer {key}")).unwrap();
            request.metadata_mut().insert("authorization", bearer);
        }
        request
    }

    /// Asks the server about itself.
    async fn ask(&self, question: MessageRequest) -> Result<MessageResponse, Status> {
        let question = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        let stream = self.request(tokio_stream::once(question));
        let mut answers =
            ServerReflectionClient::new(self.channel.clone()).server_reflection_info(stream).await?.into_inner();
        let answer: ServerReflectionResponse = answers.message().await?.expect("an answer to every question");
        Ok(answer.message_response.expect("an answer that says something"))
    }

    async fn services(&self) -> Result<Vec<String>, Status> {
        match self.ask(MessageRequest::ListServices(String::new())).await? {
            MessageResponse::ListServicesResponse(list) => Ok(names(list.service.into_iter().map(|one| one.name))),
            other => panic!("not a list of services: {other:?}"),
        }
    }

    /// The same list, from a server that is asked in the older version of the protocol.
    async fn services_alpha(&self) -> Result<Vec<String>, Status> {
        use v1alpha::server_reflection_client::ServerReflectionClient;
        use v1alpha::server_reflection_request::MessageRequest;
        use v1alpha::server_reflection_response::MessageResponse;
        let question = v1alpha::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let stream = self.request(tokio_stream::once(question));
        let mut answers =
            ServerReflectionClient::new(self.channel.clone()).server_reflection_info(stream).await?.into_inner();
        match answers.message().await?.unwrap().message_response.unwrap() {
            MessageResponse::ListServicesResponse(list) => Ok(names(list.service.into_iter().map(|one| one.name))),
            other => panic!("not a list of services: {other:?}"),
        }
    }

    /// The files of these services and all they import.
    async fn descriptors(&self, services: &[String]) -> DescriptorPool {
        let mut files = BTreeMap::new();
        let mut questions: Vec<_> = services.iter().cloned().map(MessageRequest::FileContainingSymbol).collect();
        while let Some(question) = questions.pop() {
            let MessageResponse::FileDescriptorResponse(answer) = self.ask(question.clone()).await.unwrap() else {
                panic!("no file for {question:?}");
            };
            for bytes in answer.file_descriptor_proto {
                let file = FileDescriptorProto::decode(bytes.as_slice()).unwrap();
                let missing = file.dependency.iter().filter(|name| !files.contains_key(*name));
                questions.extend(missing.cloned().map(MessageRequest::FileByFilename));
                files.insert(file.name().to_owned(), file);
            }
        }
        let mut pool = DescriptorPool::new();
        pool.add_file_descriptor_protos(files.into_values()).unwrap();
        pool
    }

    /// Calls `service/Method` with a message and returns the answer, both as JSON.
    async fn call(&self, pool: &DescriptorPool, method: &str, message: Value) -> Result<Value, Status> {
        let (service, name) = method.split_once('/').unwrap();
        let service = pool.get_service_by_name(service).unwrap_or_else(|| panic!("no service {service}"));
        let found = service.methods().find(|method| method.name() == name);
        let found = found.unwrap_or_else(|| panic!("no method {method}"));
        let message = DynamicMessage::deserialize(found.input(), message).unwrap();
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        let path = format!("/{method}").parse().unwrap();
        let answer = grpc.unary(self.request(message), path, Dynamic(found.output())).await?;
        Ok(serde_json::to_value(answer.into_inner()).unwrap())
    }
}

/// In order; without reflection itself, of which each version of the protocol lists its own.
fn names(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<_> = names.filter(|name| !name.starts_with("grpc.reflection.")).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn a_client_without_generated_code_configures_an_endpoint() {
    let world = World::start().await;
    let caller = Caller::connect(&world, Some(&world.admin_key)).await;
    let services = caller.services().await.unwrap();
    assert_eq!(caller.services_alpha().await.unwrap(), services, "both versions of the protocol tell the same");
    for service in ["WorkspaceService", "ConnectionService", "IncomingIntegrationService", "WorkflowService"] {
        let full = format!("sluice.admin.v1.{service}");
        assert!(services.contains(&full), "{full} is not among {services:?}");
    }
    let pool = caller.descriptors(&services).await;
    let call = async |method: &str, message: Value| {
        caller.call(&pool, &format!("sluice.admin.v1.{method}"), message).await.unwrap()
    };

    let workspace = json!({"workspaceId": "dynamic", "workspace": {"displayName": "Dynamic"}});
    let workspace = call("WorkspaceService/CreateWorkspace", workspace).await;
    assert_eq!(workspace["name"], "workspaces/dynamic");
    let incoming = json!({
        "parent": workspace["name"],
        "incomingIntegrationId": "orders",
        "incomingIntegration": {"displayName": "Orders", "none": {}},
    });
    let draft = call("IncomingIntegrationService/CreateIncomingIntegration", incoming).await;
    assert_eq!(draft["hasUnpublishedChanges"], true);
    let publish = json!({"name": draft["name"], "etag": draft["etag"]});
    let published = call("IncomingIntegrationService/PublishIncomingIntegration", publish).await;
    assert_eq!(published["publishedVersion"], "1");
    let list = json!({"parent": workspace["name"]});
    let listed = call("IncomingIntegrationService/ListIncomingIntegrations", list).await;
    assert_eq!(listed["incomingIntegrations"], json!([published]));

    world.served().await;
    let path = published["endpointPath"].as_str().unwrap();
    assert_eq!(world.send(&Request::post(path, "{}")).await.status, 200);
}

#[tokio::test]
async fn a_refusal_reaches_a_client_without_generated_code() {
    let world = World::start().await;
    let caller = Caller::connect(&world, Some(&world.admin_key)).await;
    let pool = caller.descriptors(&caller.services().await.unwrap()).await;
    let missing = json!({"name": "workspaces/nobody"});
    let status = caller.call(&pool, "sluice.admin.v1.WorkspaceService/GetWorkspace", missing).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "RESOURCE_NOT_FOUND"));
}

#[tokio::test]
async fn only_health_is_told_without_a_key() {
    let world = World::start().await;
    let known = Caller::connect(&world, Some(&world.admin_key)).await;
    let pool = known.descriptors(&known.services().await.unwrap()).await;

    for key in [None, Some("sluice_nobody_nothing")] {
        let stranger = Caller::connect(&world, key).await;
        for status in [stranger.services().await.unwrap_err(), stranger.services_alpha().await.unwrap_err()] {
            assert_eq!(
                (status.code(), reason(&status).as_str()),
                (Code::Unauthenticated, "API_KEY_INVALID"),
                "{key:?}"
            );
        }
        let health = stranger.call(&pool, "grpc.health.v1.Health/Check", json!({})).await.unwrap();
        assert_eq!(health, json!({"status": "SERVING"}), "{key:?}");
    }
}
