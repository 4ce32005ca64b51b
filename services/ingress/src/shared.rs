use node::{Node, Peer, Wire};
use posthouse_proto::policy::v1::policy_client::PolicyClient;
use posthouse_proto::queue::v1::queue_client::QueueClient;

use crate::budget::Budget;
use crate::watch::{Hub, Registry};

/// What all sessions of the process share.
pub(crate) struct Shared {
    pub(crate) node: Node,
    /// Cloned for every call: cheap.
    pub(crate) policy: PolicyClient<Wire>,
    /// As `policy`.
    pub(crate) queue: QueueClient<Wire>,
    pub(crate) budget: Budget,
    pub(crate) hub: Hub,
    pub(crate) registry: Registry,
}

impl Shared {
    pub(crate) fn new(node: &Node) -> Self {
        Self {
            policy: PolicyClient::new(node.wire(Peer::Policy)).max_decoding_message_size(usize::MAX),
            queue: QueueClient::new(node.wire(Peer::Queue)).max_decoding_message_size(usize::MAX),
            node: node.clone(),
            budget: Budget::default(),
            hub: Hub::default(),
            registry: Registry::default(),
        }
    }
}
