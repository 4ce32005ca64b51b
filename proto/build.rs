//! Compiles the .proto files with protox: no protoc is needed on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["queue", "policy", "ingress"].map(|service| format!("proto/posthouse/{service}/v1/{service}.proto"));
    for file in &files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(&files, ["proto"])?;
    // Clients are made over a `Wire`, never by an address: no transport constructors (they clash with rpc Connect, too).
    // `bytes` fields are `Bytes`: a body that is decoded shares the memory it arrived in.
    tonic_prost_build::configure().build_transport(false).bytes(".").compile_fds(descriptors)?;
    Ok(())
}
