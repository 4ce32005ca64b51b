//! Hostile input against the real binary: what can arrive, and the right answer, one module per kind of input.
//!
//! Test names begin with the number of their case. `README.md` lists every case, its test, and what does not apply yet.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "what goes wrong in a test fails the test, with its reason"
)]

mod addresses;
mod commands;
#[allow(dead_code, reason = "shared with the other targets")]
#[path = "../standalone/documents.rs"]
mod documents;
mod guessing;
mod kit;
mod loops;
mod mime;
mod panics;
mod proxy;
mod remote;
mod slow;
mod smuggling;
mod sockets;
mod spool;
mod tls;
