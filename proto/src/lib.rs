//! The contract: the messages and services of Sluice, generated from the `.proto` files of this package when it is built.
//!
//! Messages need no feature. `client` adds the generated clients, `server` the service traits.

/// How the generated clients and services write messages.
#[cfg(any(feature = "client", feature = "server"))]
pub mod codec;

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

/// The full names of all fields that are secrets (K09), for example `sluice.admin.v1.ApiKey.secret`. They are input only: the control plane
/// takes them out of a message before it keeps it, and messages print without them.
pub const SENSITIVE: &[&str] = include!(concat!(env!("OUT_DIR"), "/sensitive.rs"));

include!(concat!(env!("OUT_DIR"), "/debug.rs"));

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
        // The entries of a map are the compiler's.
        let is_entry = |nested: &DescriptorProto| nested.options.as_ref().is_some_and(|options| options.map_entry());
        for (index, nested) in (0..).zip(&message.nested_type).filter(|(_, nested)| !is_entry(nested)) {
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

    /// Every field of ours: its full name, what it is, and what is said of it.
    fn fields() -> Vec<(String, prost_types::FieldDescriptorProto, String)> {
        let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        let mut fields = Vec::new();
        for file in set.file.iter().filter(|file| file.package().starts_with("sluice.")) {
            let locations = &file.source_code_info.as_ref().unwrap().location;
            for (index, message) in (0..).zip(&file.message_type) {
                for (number, field) in (0..).zip(&message.field) {
                    let comment = locations.iter().find(|at| at.path == [4, index, 2, number]);
                    let comment = comment.map(|at| at.leading_comments().to_owned()).unwrap_or_default();
                    let name = format!("{}.{}.{}", file.package(), message.name(), field.name());
                    fields.push((name, field.clone(), comment));
                }
            }
        }
        fields
    }

    /// K09: a field that is a secret says so, by its option and by its comment.
    #[test]
    fn every_secret_field_is_marked() {
        assert!(SENSITIVE.len() >= 9, "{SENSITIVE:?}");
        // What sounds like a secret and is none, and what the server makes and shows once.
        let harmless = ["page_token", "next_page_token", "resume_token", "public_key"];
        for (name, field, comment) in fields() {
            let marked = SENSITIVE.contains(&name.as_str());
            assert_eq!(marked, comment.contains("Input only"), "{name}: marked and `Input only`, or neither");
            let is_text = matches!(field.r#type(), prost_types::field_descriptor_proto::Type::String);
            let last = field.name().rsplit('_').next().unwrap();
            let sounds_secret = is_text && ["secret", "password", "token", "key"].contains(&last);
            let shown_once = ["AccessKey.key", "JoinToken.token"].iter().any(|one| name.ends_with(one));
            // The name of a key, not the key.
            let named = ["AuditEntry.api_key", "JwtAuthorization.api_key"].iter().any(|one| name.ends_with(one));
            assert!(
                marked || !sounds_secret || shown_once || named || harmless.contains(&field.name()),
                "{name} sounds like a secret"
            );
        }
    }

    /// K09: what is printed of a message has no secret in it, however deep.
    #[test]
    fn messages_print_without_their_secrets() {
        use admin::v1::connection::Scheme;
        const CANARY: &str = "CANARY-9f3c";
        let key = admin::v1::ApiKey { secret: CANARY.to_owned(), secret_set: true, ..Default::default() };
        let connection = admin::v1::Connection { scheme: Some(Scheme::ApiKey(key)), ..Default::default() };
        let request = admin::v1::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
        let shown = format!("{request:?}");
        assert!(!shown.contains(CANARY) && shown.contains(r#"secret: "[redacted]", secret_set: true"#), "{shown}");
        let made = admin::v1::AccessKey { key: CANARY.to_owned(), ..Default::default() };
        assert!(!format!("{made:?}").contains(CANARY), "{made:?}");
        let empty = format!("{:?}", admin::v1::ApiKey::default());
        assert!(empty.contains(r#"secret: """#), "{empty}");
        // Every message with a secret, from its bytes: all its text fields hold the canary.
        for (name, field, _) in fields().into_iter().filter(|(name, ..)| SENSITIVE.contains(&name.as_str())) {
            let mut bytes = Vec::new();
            prost::encoding::string::encode(field.number().unsigned_abs(), &CANARY.to_owned(), &mut bytes);
            let shown = printed(name.rsplit_once('.').unwrap().0, &bytes);
            assert!(!shown.contains(CANARY) && shown.contains("[redacted]"), "{name}: {shown}");
        }
    }

    /// A message of this name as it prints.
    fn printed(name: &str, bytes: &[u8]) -> String {
        macro_rules! any {
            ($($message:ident),*) => {
                match name.rsplit('.').next().unwrap() {
                    $(stringify!($message) => format!("{:?}", admin::v1::$message::decode(bytes).unwrap()),)*
                    "EnrollDataPlaneRequest" => {
                        format!("{:?}", sync::v1::EnrollDataPlaneRequest::decode(bytes).unwrap())
                    }
                    other => panic!("{other} has a secret: print it here"),
                }
            };
        }
        any!(
            ApiKey,
            CustomConnection,
            ImportCurlRequest,
            LoginPassword,
            MetaAuthorization,
            OAuth2ClientCredentials,
            ParseCurlRequest,
            Sha256Authentication,
            SigningSecret,
            StageSecretRequest,
            SyneriseApiKey,
            Token
        )
    }
}
