//! Compiles `proto/` without a system `protoc`.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let ours = ["log.proto", "peer.proto", "data.proto"];
    compile(protox::compile(ours, ["proto"])?)?;
    let etcd = ["kv.proto", "rpc.proto", "lock.proto", "election.proto"];
    let etcd = protox::compile(etcd, ["proto/etcd"])?;
    // For reflection, and for the names of the JSON gateway.
    let file = PathBuf::from(std::env::var("OUT_DIR")?).join("etcd.descriptors");
    std::fs::write(file, etcd.encode_to_vec())?;
    compile(etcd)
}

fn compile(descriptors: prost_types::FileDescriptorSet) -> Result<(), Box<dyn std::error::Error>> {
    let config = tonic_prost_build::configure().bytes(".").build_client(true).build_server(true);
    Ok(config.compile_fds(descriptors)?)
}
