//! What a request is about, read from its bytes with the descriptors of the contract: whichever method is called, the door learns
//! which resource is asked for. Hides reflection.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, ReflectMessage as _};

use crate::fields::CONTRACT;
use crate::paths::{Paths, read_json};

/// Every method of the contract by its gRPC path.
#[derive(Debug)]
pub(crate) struct Contract {
    methods: HashMap<String, Method>,
    /// The paths that methods have beside their gRPC path.
    pub(crate) paths: Paths,
}

/// A method of the contract.
#[derive(Debug)]
pub(crate) struct Method {
    /// The gRPC path.
    pub(crate) path: String,
    /// The path without its first slash, as the contract's list has it.
    pub(crate) name: &'static str,
    /// What a caller must hold.
    pub(crate) permission: &'static str,
    /// Many messages come from the caller, for as long as it likes.
    pub(crate) takes_stream: bool,
    /// It answers with many messages.
    pub(crate) answers_stream: bool,
    /// It is there to change something.
    pub(crate) changes: bool,
    input: MessageDescriptor,
    output: MessageDescriptor,
    /// Where a request names the resource it is about: field by field from the outside. Empty when it is about the whole server.
    resource: Vec<FieldDescriptor>,
}

/// A request that was read.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The resource it is about, or the one it is to be made in; `None` when the method is about the whole server.
    pub(crate) resource: Option<String>,
    /// It asks to check everything and to change nothing.
    pub(crate) validate_only: bool,
    /// The caller's id of it; empty when there is none.
    pub(crate) request_id: String,
    /// The fields that it sets, as paths; what is repeated counts as one.
    pub(crate) fields: Vec<String>,
}

/// What the permissions of data planes begin with.
pub(crate) const SYNC: &str = "sync.";

/// What methods that change no resource end with, as their permissions name it; every other method counts as one that changes
/// something. Events that are submitted are traffic, shown among the incoming requests.
const READING: [&str; 8] = ["submit", "get", "list", "watch", "findUsages", "waitServed", "verify", "export"];

impl Contract {
    pub(crate) fn new() -> Self {
        let methods =
            CONTRACT.services().flat_map(|service| service.methods().collect::<Vec<_>>()).filter_map(|method| {
                let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
                let permission = sluice_proto::permission(&path)?;
                let (listed, _) = sluice_proto::PERMISSIONS.iter().find(|(listed, _)| *listed == path)?;
                let name = listed.strip_prefix('/').unwrap_or(listed);
                let resource = resource(&method);
                let takes_stream = method.is_client_streaming();
                let verb = permission.rsplit('.').next().unwrap_or_default();
                // What data planes report is no change that anybody asks for.
                let changes = !READING.contains(&verb) && !permission.starts_with(SYNC);
                let answers_stream = method.is_server_streaming();
                let (input, output) = (method.input(), method.output());
                let method = Method {
                    path: path.clone(),
                    name,
                    permission,
                    takes_stream,
                    answers_stream,
                    changes,
                    input,
                    output,
                    resource,
                };
                Some((path, method))
            });
        Self { methods: methods.collect(), paths: Paths::new(&CONTRACT) }
    }

    /// The method with this path; `None` for one that the contract does not have or that names no permission.
    pub(crate) fn method(&self, path: &str) -> Option<&Method> {
        self.methods.get(path)
    }
}

impl Method {
    /// Its requests say which resource they are about; of a stream the first one does.
    pub(crate) fn names_resource(&self) -> bool {
        !self.resource.is_empty()
    }

    /// Reads a request; `None` when it is not the message of the method.
    pub(crate) fn read(&self, message: Bytes) -> Option<Asked> {
        let message = DynamicMessage::decode(self.input.clone(), message).ok()?;
        let resource = match self.resource.as_slice() {
            [] => None,
            [path @ .., last] => {
                let inner = path
                    .iter()
                    .try_fold(message.clone(), |message, field| message.get_field(field).as_message().cloned());
                Some(text(&inner?, last.name()))
            }
        };
        let validate_only = message.get_field_by_name("validate_only").and_then(|value| value.as_bool());
        let mut fields = Vec::new();
        set_fields("", &message, &mut fields);
        let named = self.resource.iter().map(FieldDescriptor::name).collect::<Vec<_>>().join(".");
        fields.retain(|field| *field != named && !OF_THE_CALL.contains(&field.as_str()));
        Some(Asked {
            resource,
            validate_only: validate_only.unwrap_or_default(),
            request_id: text(&message, "request_id"),
            fields,
        })
    }

    /// The name of what an answer shows; empty when it shows nothing that has one.
    pub(crate) fn answered(&self, answer: &[u8]) -> String {
        DynamicMessage::decode(self.output.clone(), answer)
            .map_or_else(|_| String::new(), |answer| text(&answer, "name"))
    }

    /// A request in the canonical JSON form, encoded.
    ///
    /// # Errors
    /// It is not one; the text says where, and nothing of what was sent.
    pub(crate) fn read_json(&self, text: &[u8]) -> Result<Bytes, String> {
        read_json(&self.input, text).map(|message| message.encode_to_vec().into())
    }

    /// An encoded answer in the canonical JSON form.
    pub(crate) fn show_json(&self, message: &[u8]) -> Option<String> {
        serde_json::to_string(&DynamicMessage::decode(self.output.clone(), message).ok()?).ok()
    }

    /// Where a request names its resource, as a path; empty for the whole server.
    #[cfg(test)]
    fn resource_path(&self) -> String {
        self.resource.iter().map(FieldDescriptor::name).collect::<Vec<_>>().join(".")
    }
}

/// Fields of requests that say how they are meant, and are no content.
const OF_THE_CALL: [&str; 4] = ["etag", "validate_only", "request_id", "update_mask"];

fn text(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The paths of all fields that are set, but for those within what is repeated.
fn set_fields(path: &str, message: &DynamicMessage, found: &mut Vec<String>) {
    for (field, value) in message.fields() {
        let path = if path.is_empty() { field.name().to_owned() } else { format!("{path}.{}", field.name()) };
        match value.as_message() {
            Some(inner)
                if inner.fields().next().is_some() && inner.descriptor().package_name() != "google.protobuf" =>
            {
                set_fields(&path, inner, found);
            }
            _ => found.push(path),
        }
    }
}

/// `name`, `parent`, or in an update the `name` of what is updated (AIP-131 to 135).
fn resource(method: &MethodDescriptor) -> Vec<FieldDescriptor> {
    let named = |message: &MessageDescriptor, field: &str| {
        message.get_field_by_name(field).filter(|field| field.kind() == Kind::String && !field.is_list())
    };
    let input = method.input();
    if let Some(field) = named(&input, "name").or_else(|| named(&input, "parent")) {
        return vec![field];
    }
    let updated = input.fields().find_map(|field| {
        let name = named(field.kind().as_message()?, "name")?;
        Some(vec![field, name])
    });
    updated.filter(|_| method.name().starts_with("Update")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_proto::admin::v1 as admin;

    const SERVICE: &str = "/sluice.admin.v1";

    #[test]
    fn a_request_says_what_it_is_about() {
        let contract = Contract::new();
        let read = |method: &str, message: Vec<u8>| {
            contract.method(&format!("{SERVICE}.{method}")).unwrap().read(message.into()).map(|asked| asked.resource)
        };
        let get = admin::GetConnectionRequest { name: "workspaces/a/connections/b".to_owned() };
        let expected = Some("workspaces/a/connections/b".to_owned());
        assert_eq!(read("ConnectionService/GetConnection", get.encode_to_vec()), Some(expected.clone()));
        let connection = Some(admin::Connection { name: expected.clone().unwrap(), ..Default::default() });
        let update = admin::UpdateConnectionRequest { connection, ..Default::default() };
        assert_eq!(read("ConnectionService/UpdateConnection", update.encode_to_vec()), Some(expected.clone()));
        // The last of several is the one that counts, as everywhere.
        let other = admin::Connection { name: "workspaces/x/connections/y".to_owned(), ..Default::default() };
        let first = admin::UpdateConnectionRequest { connection: Some(other), ..Default::default() };
        let both = [first.encode_to_vec(), update.encode_to_vec()].concat();
        assert_eq!(read("ConnectionService/UpdateConnection", both), Some(expected));
        assert_eq!(read("ConnectionService/UpdateConnection", Vec::new()), Some(Some(String::new())));
        assert_eq!(read("WorkspaceService/ListWorkspaces", Vec::new()), Some(None));
        assert!(read("ConnectionService/GetConnection", vec![0xff]).is_none());
        assert!(contract.method("/sluice.admin.v1.ConnectionService/DropEverything").is_none());
    }

    #[test]
    fn a_request_says_what_it_sets_and_never_to_what() {
        let contract = Contract::new();
        let scheme = admin::connection::Scheme::ApiKey(admin::ApiKey {
            secret: "CANARY".to_owned(),
            headers: vec![admin::CredentialPlacement { name: "CANARY".to_owned(), value: String::new() }],
            ..Default::default()
        });
        let connection = admin::Connection {
            name: "workspaces/a/connections/b".to_owned(),
            scheme: Some(scheme),
            ..Default::default()
        };
        let request_id = "67e55044-10b1-426f-9247-bb680e5fe0c8".to_owned();
        let update = admin::UpdateConnectionRequest { connection: Some(connection), request_id, ..Default::default() };
        let method = contract.method(&format!("{SERVICE}.ConnectionService/UpdateConnection")).unwrap();
        let asked = method.read(update.encode_to_vec().into()).unwrap();
        assert_eq!(asked.fields, ["connection.api_key.secret", "connection.api_key.headers"]);
        assert_eq!((asked.request_id.as_str(), asked.validate_only), (update.request_id.as_str(), false));
    }

    #[test]
    fn methods_that_change_something() {
        let contract = Contract::new();
        for (path, method) in &contract.methods {
            let name = path.rsplit('/').next().unwrap();
            let reads = [
                "Submit", "Get", "List", "Watch", "Diff", "Find", "Wait", "Verify", "Parse", "Preview", "Evaluate",
                "Export", "Infer",
            ];
            let reads = path.starts_with("/sluice.sync.") || reads.iter().any(|verb| name.starts_with(verb));
            assert_eq!(method.changes, !reads, "{path}");
        }
    }

    /// Which methods are about the whole server: a key of a workspace can call none of them.
    #[test]
    fn methods_of_the_whole_server() {
        let contract = Contract::new();
        let mut whole: Vec<&str> = contract
            .methods
            .iter()
            .filter(|(_, method)| method.resource_path().is_empty())
            .filter_map(|(path, _)| path.rsplit('/').next())
            .collect();
        whole.sort_unstable();
        let of_data_planes = ["EnrollDataPlane", "RenewDataPlane", "Report", "Sync"];
        whole.retain(|name| !of_data_planes.contains(name));
        let expected = [
            "CreateJoinToken",
            "CreateWorkspace",
            "ListDataPlanes",
            "ListJoinTokens",
            "ListMasterKeys",
            "ListWorkspaces",
            "StartStoreEpoch",
        ];
        assert_eq!(whole, expected);
    }
}
