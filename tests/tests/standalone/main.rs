//! The platform in one process, as its users run it: the real binary, real peers.

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
mod sessions;
mod tables;
