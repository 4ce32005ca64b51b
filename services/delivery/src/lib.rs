//! Delivery: leases due deliveries from the queue, attempts them by their transport, and settles the results.

mod attempt;
mod body;
mod connection;
mod exchange;
mod hosts;
mod in_flight;
mod job;
mod lease;
mod lmtp;
mod own;
mod pauses;
mod pool;
mod relay;
mod resolver;
mod settle;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod wire;

pub mod as_user;
mod local;
mod maildir;
mod mbox;
mod program;
mod report;

use std::sync::Arc;

use node::{Node, Part, Peer};
use posthouse_proto::policy::v1::policy_client::PolicyClient;
use posthouse_proto::queue::v1::queue_client::QueueClient;

use crate::job::Context;

/// Why delivery cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {}

/// Starts delivery: it works until the node drains, and holds a guard of the drain until all is settled or given back.
///
/// # Errors
/// None now: what is missing (the queue, a resolver) is waited for.
pub async fn start(node: &Node) -> Result<(), StartError> {
    let context = context(node);
    node.health().set("delivery", Part::Ready);
    // Held from now on: a drain that begins before the task does is waited for, too.
    let working = node.drain().guard();
    tokio::spawn(async move {
        lease::run(context).await;
        drop(working);
    });
    Ok(())
}

fn context(node: &Node) -> Context {
    let unlimited = usize::MAX;
    Context {
        queue: QueueClient::new(node.wire(Peer::Queue)).max_decoding_message_size(unlimited),
        policy: PolicyClient::new(node.wire(Peer::Policy)).max_decoding_message_size(unlimited),
        resolver: Arc::new(resolver::Resolver::new(node.snapshots().clone())),
        pool: Arc::new(pool::Pool::new(node.clock().clone())),
        tls: Arc::default(),
        pauses: Arc::default(),
        node: node.clone(),
    }
}
