//! The platform in one process, as its users run it: the real binary, real peers.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "what goes wrong in a test fails the test, with its reason"
)]

mod check;
mod commands;
mod documents;
mod local;
mod mailboxes;
mod operating;
mod probes;
mod proxy;
mod relay;
mod reload;
mod restart;
mod rules;
mod sessions;
mod tables;
