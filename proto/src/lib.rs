//! The contract: the messages and services of Sluice, generated from the `.proto` files of this package when it is built.
//!
//! Messages need no feature. `client` adds the generated clients, `server` the service traits.

/// What administrators and SDKs speak: workspaces, connections, integrations, workflows, events.
pub mod admin {
    /// Version 1.
    #[allow(missing_docs, unreachable_pub, clippy::all, rust_2018_idioms)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/sluice.admin.v1.rs"));
    }
}

/// What the planes speak with each other.
pub mod sync {
    /// Version 1.
    #[allow(missing_docs, unreachable_pub, clippy::all, rust_2018_idioms)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/sluice.sync.v1.rs"));
    }
}

/// All descriptors with their comments, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Every method's gRPC path and the permission it names in the contract.
pub const PERMISSIONS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/permissions.rs"));

/// The permission a method needs; `None` for a method that is unknown or names none, which is refused.
pub fn permission(path: &str) -> Option<&'static str> {
    PERMISSIONS.iter().find(|(method, _)| *method == path).map(|(_, permission)| *permission).filter(|p| !p.is_empty())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};

    use super::*;

    /// Every path of a file's descriptor that must carry a comment, with what to call it.
    fn commentable(file: &FileDescriptorProto) -> Vec<(Vec<i32>, String)> {
        let mut paths = Vec::new();
        for (index, message) in (0..).zip(&file.message_type) {
            of_message(message, vec![4, index], &mut paths);
        }
        for (index, listed) in (0..).zip(&file.enum_type) {
            paths.push((vec![5, index], listed.name().to_owned()));
            let values = (0..).zip(&listed.value);
            paths.extend(values.map(|(value, of)| (vec![5, index, 2, value], of.name().to_owned())));
        }
        for (index, service) in (0..).zip(&file.service) {
            paths.push((vec![6, index], service.name().to_owned()));
            let methods = (0..).zip(&service.method);
            paths.extend(methods.map(|(method, of)| (vec![6, index, 2, method], of.name().to_owned())));
        }
        paths
    }

    fn of_message(message: &DescriptorProto, path: Vec<i32>, paths: &mut Vec<(Vec<i32>, String)>) {
        for (index, field) in (0..).zip(&message.field) {
            paths.push(([path.as_slice(), &[2, index]].concat(), format!("{}.{}", message.name(), field.name())));
        }
        for (index, nested) in (0..).zip(&message.nested_type) {
            of_message(nested, [path.as_slice(), &[3, index]].concat(), paths);
        }
        paths.push((path, message.name().to_owned()));
    }

    #[test]
    fn everything_is_commented() {
        let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        let ours: Vec<_> = set.file.iter().filter(|file| file.package().starts_with("sluice.")).collect();
        assert!(ours.len() > 8);
        for file in ours {
            let locations = &file.source_code_info.as_ref().unwrap().location;
            for (path, name) in commentable(file) {
                let commented = locations.iter().any(|at| at.path == path && !at.leading_comments().trim().is_empty());
                assert!(commented, "{}: {name} has no comment", file.name());
            }
        }
    }

    #[test]
    fn every_method_names_a_permission() {
        assert!(PERMISSIONS.len() > 20);
        for (method, permission) in PERMISSIONS {
            assert!(!permission.is_empty(), "{method} names no permission");
        }
    }
}
