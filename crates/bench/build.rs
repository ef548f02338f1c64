//! Compiles the little of etcd's API that the comparison speaks, without a system `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/etcd/kv.proto", "proto/etcd/watch.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_client(true)
        .build_server(false)
        .compile_fds(descriptors)?;
    Ok(())
}
