//! SMTP and LMTP as state machines: bytes and `now` in, events and bytes out.
//!
//! Nothing here reads a socket or a clock, so every dialogue can be played in a test, split wherever a network may split it.
#![warn(missing_docs)]

pub mod client;
pub mod proxy;
pub mod server;
pub mod syntax;
