//! What a request is about, read from its bytes with the descriptors of the contract: whichever method is called, the door learns
//! which resource is asked for. Hides reflection.

use std::collections::HashMap;

use bytes::Bytes;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};

/// Every method of the contract by its gRPC path.
#[derive(Debug)]
pub(crate) struct Contract {
    methods: HashMap<String, Method>,
}

/// A method of the contract.
#[derive(Debug)]
pub(crate) struct Method {
    /// What a caller must hold.
    pub(crate) permission: &'static str,
    /// Many messages come from the caller, for as long as it likes.
    pub(crate) takes_stream: bool,
    input: MessageDescriptor,
    /// Where a request names the resource it is about: field by field from the outside. Empty when it is about the whole server.
    resource: Vec<FieldDescriptor>,
}

/// A request that was read.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The resource it is about, or the one it is to be made in; `None` when the method is about the whole server.
    pub(crate) resource: Option<String>,
}

impl Contract {
    pub(crate) fn new() -> Self {
        let pool = DescriptorPool::decode(sluice_proto::DESCRIPTORS).expect("our own descriptors are whole");
        let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()).filter_map(|method| {
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            let permission = sluice_proto::permission(&path)?;
            let resource = resource(&method);
            let takes_stream = method.is_client_streaming();
            Some((path, Method { permission, takes_stream, input: method.input(), resource }))
        });
        Self { methods: methods.collect() }
    }

    /// The method with this path; `None` for one that the contract does not have or that names no permission.
    pub(crate) fn method(&self, path: &str) -> Option<&Method> {
        self.methods.get(path)
    }
}

impl Method {
    /// Reads a request; `None` when it is not the message of the method.
    pub(crate) fn read(&self, message: Bytes) -> Option<Asked> {
        let mut message = DynamicMessage::decode(self.input.clone(), message).ok()?;
        let resource = match self.resource.as_slice() {
            [] => None,
            [path @ .., last] => {
                for field in path {
                    message = message.get_field(field).as_message()?.clone();
                }
                Some(message.get_field(last).as_str()?.to_owned())
            }
        };
        Some(Asked { resource })
    }

    /// Where a request names its resource, as a path; empty for the whole server.
    #[cfg(test)]
    fn resource_path(&self) -> String {
        self.resource.iter().map(FieldDescriptor::name).collect::<Vec<_>>().join(".")
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
    use prost::Message as _;
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
        assert_eq!(whole, ["CreateWorkspace", "ListDataPlanes", "ListMasterKeys", "ListWorkspaces", "Report", "Sync"]);
    }
}
