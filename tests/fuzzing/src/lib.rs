//! What is fuzzed: one function per target, which panics where a property is broken.
//!
//! The targets of `fuzz/` call these functions under libFuzzer; the test of this package replays the committed corpora
//! on stable, so that whatever was found once is looked for in every ordinary run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic is how a fuzzer hears of a finding"
)]
#![warn(missing_docs)]

mod address;
mod crypt;
mod dsn;
mod grpc;
mod header_walk;
mod input;
mod proto_ingress;
mod proto_policy;
mod proto_queue;
mod proxy_header;
mod resource_yaml;
mod smtp_client;
mod smtp_server;

pub use address::address;
pub use crypt::crypt;
pub use dsn::dsn;
pub use header_walk::header_walk;
pub use proto_ingress::proto_ingress;
pub use proto_policy::proto_policy;
pub use proto_queue::proto_queue;
pub use proxy_header::proxy_header;
pub use resource_yaml::resource_yaml;
pub use smtp_client::smtp_client;
pub use smtp_server::smtp_server;

/// A target: takes an input, panics where a property is broken.
pub type Target = fn(&[u8]);

/// Every target by its name, which is the name of its corpus as well.
pub const TARGETS: &[(&str, Target)] = &[
    ("smtp_server", smtp_server),
    ("smtp_client", smtp_client),
    ("proxy_header", proxy_header),
    ("address", address),
    ("header_walk", header_walk),
    ("dsn", dsn),
    ("crypt", crypt),
    ("resource_yaml", resource_yaml),
    ("proto_queue", proto_queue),
    ("proto_policy", proto_policy),
    ("proto_ingress", proto_ingress),
];
