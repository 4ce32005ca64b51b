//! The SMTP, submission and LMTP sessions of the outside world: sockets, TLS, PROXY protocol, and the way of a message
//! into the queue.
//!
//! What a session says is decided by the state machine of `smtp::server`; this crate moves its bytes, asks policy and queue, and keeps
//! the bounds that sessions share.
#![warn(missing_docs)]

mod body;
mod budget;
mod census;
mod certificates;
mod commit;
mod connection;
mod identity;
mod listeners;
mod message;
mod panics;
mod passwd;
mod shared;
mod shell;
mod socket;
mod stream;
mod terms;
mod timer;
mod transaction;
mod watch;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use node::{Node, Peer};
use posthouse_proto::ingress::v1::ingress_server::IngressServer;

use crate::listeners::Manager;
pub use crate::listeners::{LISTENERS_FILE, ListenerFault, SENDMAIL_LISTENER, SENDMAIL_SOCKET};
use crate::shared::Shared;

/// Says why ingress cannot start: every listener that cannot, with the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct StartError(pub Vec<ListenerFault>);

/// Opens every listener of the current snapshot and serves sessions until the node drains.
///
/// On return the sockets are open and their addresses are in [`LISTENERS_FILE`]. Later snapshots are followed: a listener that cannot be opened then
/// is logged, shown in the health of the node, and tried again with the next one.
pub async fn start(node: &Node) -> Result<(), StartError> {
    let shared = Arc::new(Shared::new(node));
    let service = watch::Service::new(Arc::clone(&shared));
    node.provide(Peer::Ingress, IngressServer::new(service).max_decoding_message_size(usize::MAX));
    let changes = node.snapshots().watch();
    let mut manager = Manager::new(shared);
    let faults = manager.apply(&node.snapshots().current()).await;
    if !faults.is_empty() {
        return Err(StartError(faults));
    }
    tokio::spawn(manager.follow(changes));
    Ok(())
}
