//! Compiles the .proto files with protox and writes down which permission each method names and which fields are secrets.
//! Messages with secrets print without them.

use std::{env, fmt::Write as _, fs, path::PathBuf};

use prost::Message as _;
use prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor};

#[allow(clippy::disallowed_methods)] // a build script is told where things are through the environment
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut files = Vec::new();
    for package in ["sluice/admin/v1", "sluice/sync/v1"] {
        for entry in fs::read_dir(root.join(package))? {
            files.push(entry?.path());
        }
    }
    files.sort();
    for package in ["sluice", "google"] {
        println!("cargo:rerun-if-changed={}", root.join(package).display());
    }

    let mut compiler = protox::Compiler::new([&root])?;
    // Comments travel with the descriptors, so that reflection clients can show them.
    compiler.include_source_info(true).include_imports(true).open_files(&files)?;
    let encoded = compiler.encode_file_descriptor_set();
    fs::write(out.join("descriptors.bin"), &encoded)?;
    let pool = DescriptorPool::decode(encoded.as_slice())?;
    fs::write(out.join("permissions.rs"), permissions(&pool)?)?;
    let secret = marked(&pool, "sensitive")?;
    fs::write(
        out.join("sensitive.rs"),
        format!("&{:?}", secret.iter().map(FieldDescriptor::full_name).collect::<Vec<_>>()),
    )?;
    let secret = [secret, marked(&pool, "shown_once")?].concat();
    let mut messages: Vec<_> = secret.iter().map(FieldDescriptor::parent_message).cloned().collect();
    messages.dedup();
    fs::write(out.join("debug.rs"), messages.iter().map(|message| debug(message, &secret)).collect::<String>())?;

    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::Codec")
        // The same document has the same bytes, whoever encodes it.
        .btree_map(".")
        .skip_debug(messages.iter().map(|message| format!(".{}", message.full_name())))
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .compile_fds(prost_types_set(&encoded)?)?;
    Ok(())
}

fn prost_types_set(encoded: &[u8]) -> Result<prost_types::FileDescriptorSet, prost::DecodeError> {
    prost_types::FileDescriptorSet::decode(encoded)
}

/// One line per method: its gRPC path and the permission it names (empty when it names none).
fn permissions(pool: &DescriptorPool) -> Result<String, Box<dyn std::error::Error>> {
    let extension = pool
        .get_extension_by_name("sluice.admin.v1.permission")
        .ok_or("access.proto declares the permission option")?;
    let mut rows = String::from("&[\n");
    for service in pool.services() {
        for method in service.methods() {
            let options = method.options();
            let permission = options.get_extension(&extension);
            writeln!(
                rows,
                "    (\"/{}/{}\", {:?}),",
                service.full_name(),
                method.name(),
                permission.as_str().unwrap_or_default()
            )?;
        }
    }
    rows.push(']');
    Ok(rows)
}

/// Every field that has this option of `sensitive.proto`.
fn marked(pool: &DescriptorPool, option: &str) -> Result<Vec<FieldDescriptor>, Box<dyn std::error::Error>> {
    let extension = pool
        .get_extension_by_name(&format!("sluice.admin.v1.{option}"))
        .ok_or_else(|| format!("sensitive.proto declares the option {option}"))?;
    let fields = pool.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>());
    Ok(fields.filter(|field| field.options().get_extension(&extension).as_bool() == Some(true)).collect())
}

/// Prints a message without its secrets: whether one is there, and no more.
fn debug(message: &MessageDescriptor, sensitive: &[FieldDescriptor]) -> String {
    let package = message.package_name().replace('.', "::").replacen("sluice::", "crate::", 1);
    let name = message.name();
    let mut fields = String::new();
    let mut add = |name: &str, shown: String| fields.push_str(&format!("\n            .field({name:?}, {shown})"));
    for field in message.fields() {
        let of = field.name();
        match field.containing_oneof().filter(|_| !field.field_descriptor_proto().proto3_optional()) {
            Some(oneof) if oneof.fields().next().as_ref() != Some(&field) => {}
            Some(oneof) => add(oneof.name(), format!("&self.{}", oneof.name())),
            None if sensitive.contains(&field) => {
                add(of, format!("&if self.{of}.is_empty() {{ \"\" }} else {{ \"[redacted]\" }}"));
            }
            None => add(of, format!("&self.{of}")),
        }
    }
    format!(
        "impl ::core::fmt::Debug for {package}::{name} {{\n    \
         fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{\n        \
         f.debug_struct({name:?}){fields}\n            .finish()\n    }}\n}}\n"
    )
}
