//! Attempts against scripted peers on loopback, a DNS server that says what the test wants, and a queue that is not there.

mod leasing;
mod lmtp;
mod mx;
mod peer;
mod queue;
mod relay;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use node::{Clock, Node, Peer as To, Snapshots};
use posthouse_proto::queue::v1 as pb;
use posthouse_proto::queue::v1::outcome::Kind;
use posthouse_proto::queue::v1::queue_server::QueueServer;
use resources::Snapshot;
use resources::snapshot::{ClientTls, ClientTlsMode, HostPort, Relay, RelayTo, Transport, TransportKind, Verify};
use schedule::Schedule;

use crate::job::Context;
use crate::testing;

pub(crate) const NO_TLS: ClientTls = ClientTls { mode: ClientTlsMode::Off, verify: Verify::Full, authorities: None };

/// A node over a fake queue and the given transports.
struct Bench {
    node: Node,
    context: Context,
    queue: queue::FakeQueue,
    _state: tempfile::TempDir,
}

impl Bench {
    fn new(transports: Vec<Transport>) -> Self {
        Self::with(transports, |_| {})
    }

    fn with(transports: Vec<Transport>, change: impl FnOnce(&mut Snapshot)) -> Self {
        let mut snapshot = testing::snapshot();
        snapshot.platform.deliveries_max = 10;
        snapshot.transports = by_name(transports);
        change(&mut snapshot);
        let state = tempfile::tempdir().unwrap();
        let node = Node::new(Snapshots::new(snapshot), state.path().to_owned(), Clock::system());
        let queue = queue::FakeQueue::default();
        node.provide(To::Queue, QueueServer::new(queue.clone()));
        let context = crate::context(&node);
        Self { node, context, queue, _state: state }
    }

    /// One attempt: the settlement in words, one line for each recipient.
    async fn attempt(&self, delivery: pb::Delivery) -> Vec<String> {
        words(&self.settle(delivery).await)
    }

    async fn settle(&self, delivery: pb::Delivery) -> pb::Settlement {
        crate::attempt::deliver(&self.context, delivery).await
    }
}

fn by_name(transports: Vec<Transport>) -> std::collections::BTreeMap<String, Arc<Transport>> {
    transports.into_iter().map(|transport| (transport.name.clone(), Arc::new(transport))).collect()
}

/// `1 failed 5.1.1 550 5.1.1 who?`
fn words(settlement: &pb::Settlement) -> Vec<String> {
    let word = |result: &pb::RecipientResult| {
        let outcome = result.outcome.clone().unwrap();
        let kind = match outcome.kind.unwrap() {
            Kind::Delivered(pb::Delivered { relayed: true, .. }) => "relayed",
            Kind::Delivered(pb::Delivered { r#final: true, .. }) => "delivered",
            Kind::Delivered(_) => "passed",
            Kind::Deferred(_) => "deferred",
            Kind::Failed(_) => "failed",
        };
        format!("{} {kind} {} {}", result.number, outcome.enhanced_code, outcome.reply)
    };
    settlement.results.iter().map(word).collect()
}

fn transport(name: &str, kind: TransportKind) -> Transport {
    Transport {
        name: name.into(),
        kind,
        schedule: Schedule {
            delay_first: Duration::from_secs(300),
            delay_max: Duration::from_secs(3600),
            age_max: Duration::from_secs(86_400),
            warn_after: None,
        },
        route_concurrency_max: 10,
        recipients_max: 100,
        attempt_timeout: Duration::from_secs(20),
    }
}

fn relay(to: RelayTo) -> Relay {
    Relay { to, tls: NO_TLS, auth: None, auth_without_tls: false, helo: None }
}

fn smart(hosts: &[&peer::Peer]) -> Relay {
    let host = |peer: &&peer::Peer| HostPort { host: "127.0.0.1".into(), port: peer.address.port() };
    relay(RelayTo::Hosts(hosts.iter().map(host).collect()))
}

fn out(relay: Relay) -> Transport {
    transport("out", TransportKind::Relay(relay))
}

fn delivery(transport: &str, recipients: &[&str]) -> pb::Delivery {
    let due = |(i, address): (usize, &&str)| pb::DueRecipient {
        number: i as u32 + 1,
        recipient: Some(pb::Recipient {
            address: (*address).to_owned(),
            transport: transport.to_owned(),
            delivered_to: "outside@us.example".to_owned(),
            ..Default::default()
        }),
        attempts: 0,
    };
    pb::Delivery {
        lease: Some(pb::LeaseToken { delivery: 1, fence: 1 }),
        message_id: "m1".into(),
        transport: transport.into(),
        route: "route".into(),
        header: Bytes::from_static(b"Subject: hi\r\n"),
        sender: "s@us.example".into(),
        body: Bytes::from_static(b"text\r\n.dot\r\n"),
        body_inline: true,
        body_size_bytes: 12,
        recipients: recipients.iter().enumerate().map(due).collect(),
        ..Default::default()
    }
}
