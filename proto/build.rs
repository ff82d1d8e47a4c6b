//! Compiles the .proto files with protox and writes down which permission each method names.

use std::{env, fmt::Write as _, fs, path::PathBuf};

use prost::Message as _;

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
    println!("cargo:rerun-if-changed={}", root.join("sluice").display());

    let mut compiler = protox::Compiler::new([&root])?;
    // Comments travel with the descriptors, so that reflection clients can show them.
    compiler.include_source_info(true).include_imports(true).open_files(&files)?;
    let encoded = compiler.encode_file_descriptor_set();
    fs::write(out.join("descriptors.bin"), &encoded)?;
    fs::write(out.join("permissions.rs"), permissions(&encoded)?)?;

    tonic_prost_build::configure()
        .bytes(".")
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .compile_fds(prost_types_set(&encoded)?)?;
    Ok(())
}

fn prost_types_set(encoded: &[u8]) -> Result<prost_types::FileDescriptorSet, prost::DecodeError> {
    prost_types::FileDescriptorSet::decode(encoded)
}

/// One line per method: its gRPC path and the permission it names (empty when it names none).
fn permissions(encoded: &[u8]) -> Result<String, Box<dyn std::error::Error>> {
    let pool = prost_reflect::DescriptorPool::decode(encoded)?;
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
