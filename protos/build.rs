//! Compiles the schemas with protox, so that no `protoc` need be installed.

use std::error::Error;

const SCHEMAS: [&str; 11] = [
    "snix/castore/v1/castore.proto",
    "snix/castore/v1/rpc_blobstore.proto",
    "snix/castore/v1/rpc_directory.proto",
    "snix/store/v1/rpc_pathinfo.proto",
    "snix/build/v1/rpc_build.proto",
    "igloo/castore/v1/content.proto",
    "igloo/store/v1/store.proto",
    "igloo/build/v1/build.proto",
    "igloo/evaluator/v1/evaluate.proto",
    "igloo/coordinator/v1/coordinator.proto",
    "igloo/evaluator/v1/evaluator.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for folder in ["snix", "igloo"] {
        println!("cargo::rerun-if-changed={folder}");
    }
    let descriptors = protox::compile(SCHEMAS, ["."])?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}
