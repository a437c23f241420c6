//! Generates the protocol's messages, client and server from `*/*.proto`, without protoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;
use protox::Compiler;

const INCLUDES: [&str; 2] = ["inference", "penstock"];
const ROOTS: [&str; 2] = ["grpc_service.proto", "feedback.proto"]; // the first imports model_config.proto

fn main() -> Result<(), Box<dyn Error>> {
    for include in INCLUDES {
        println!("cargo::rerun-if-changed={include}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);

    let mut compiler = Compiler::new(INCLUDES)?;
    compiler.include_imports(true).include_source_info(true).open_files(ROOTS)?;
    let mut files = compiler.file_descriptor_set();

    // The client takes any channel: leaving the transport out keeps this crate free of a TCP stack.
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .build_transport(false)
        .bytes(".")
        .codec_path("crate::codec::Codec")
        .compile_fds(files.clone())?;

    // Comments have reached the generated code; reflection has no use for them.
    for file in &mut files.file {
        file.source_code_info = None;
    }
    fs::write(out.join("inference.binpb"), files.encode_to_vec())?;
    Ok(())
}
