//! Sessions over real sockets, with a policy and a queue of the test's own behind the wires.

mod client;
mod delivery;
mod fakes;
mod listening;
mod proxy;
mod tls;
mod watching;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use node::{Clock, Node, Peer, Snapshots};
use posthouse_proto::policy::v1::policy_server::PolicyServer;
use posthouse_proto::queue::v1::queue_server::QueueServer;
use resources::Snapshot;
use resources::snapshot::{
    Auth, Certificate, ClientCertificates, Endpoint, Identity, Limits, LineEnds, Listener, Platform, Protocol, Tls,
    TlsMode, TlsVersion,
};
use types::Domain;

use crate::tests::client::Client;
use crate::tests::fakes::{FakePolicy, FakeQueue};

/// A test never waits longer for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node with ingress and what stands in for the rest.
struct Site {
    node: Node,
    policy: Arc<FakePolicy>,
    queue: Arc<FakeQueue>,
    dir: tempfile::TempDir,
}

impl Site {
    async fn start(listeners: Vec<Listener>) -> Self {
        Self::start_with(snapshot(listeners)).await
    }

    async fn start_with(snapshot: Snapshot) -> Self {
        let site = Self::prepare(snapshot);
        crate::start(&site.node).await.unwrap();
        site
    }

    fn prepare(snapshot: Snapshot) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::new(Snapshots::new(snapshot), dir.path().to_owned(), Clock::system());
        let (policy, queue) = (Arc::new(FakePolicy::default()), Arc::new(FakeQueue::default()));
        node.provide(Peer::Policy, PolicyServer::from_arc(Arc::clone(&policy)));
        node.provide(Peer::Queue, QueueServer::from_arc(Arc::clone(&queue)));
        Self { node, policy, queue, dir }
    }

    /// The first bound address of a listener, as it is published.
    fn address(&self, listener: &str) -> String {
        self.addresses()[listener][0].clone()
    }

    fn addresses(&self) -> BTreeMap<String, Vec<String>> {
        let text = std::fs::read(self.dir.path().join(crate::LISTENERS_FILE)).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// A client that has read the greeting.
    async fn connect(&self, listener: &str) -> Client {
        let mut client = Client::connect(&self.address(listener)).await;
        client.expect("220 ").await;
        client
    }

    /// Puts another snapshot in force and waits until ingress follows it.
    async fn reload(&self, snapshot: Snapshot, followed: impl Fn(&Self) -> bool) {
        self.node.snapshots().replace(snapshot);
        eventually(|| followed(self)).await;
    }
}

/// Waits until a condition holds.
async fn eventually(mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the condition never held");
}

fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

fn snapshot(listeners: Vec<Listener>) -> Snapshot {
    Snapshot {
        version: "1".to_owned(),
        resources: 1,
        platform: Platform {
            name: "main".to_owned(),
            hostname: domain("mx1.example.org"),
            admin: None,
            dns_servers: Vec::new(),
            dns_cache: true,
            body_inline_max_bytes: 256 << 10,
            ingress_memory_max_bytes: 128 << 20,
            free_space_min_bytes: 0,
            event_retention: Duration::from_secs(3600),
            dovecot_passwd_file: None,
            auth_failure_floor: Duration::from_secs(1),
            auth_concurrency_max: 4,
            auth_failures: resources::snapshot::AuthFailures::default(),
            drain_max: Duration::from_secs(30),
            deliveries_max: 1,
            sendmail_socket: false,
        },
        listeners: listeners.into_iter().map(|listener| (listener.name.clone(), Arc::new(listener))).collect(),
        transports: BTreeMap::new(),
        certificates: BTreeMap::new(),
        rules: Arc::default(),
        demo_passwords: Default::default(),
        files: Vec::new(),
    }
}

/// A plain SMTP listener on a port of the system's choice.
fn listener(name: &str) -> Listener {
    Listener {
        name: name.to_owned(),
        protocol: Protocol::Smtp,
        endpoint: Endpoint::Tcp { addresses: vec!["127.0.0.1".parse().unwrap()], port: 0, v6_only: false },
        tls: Tls {
            mode: TlsMode::Off,
            certificates: Vec::new(),
            self_signed: false,
            version_min: TlsVersion::V1_2,
            client_certificates: ClientCertificates::Off,
            client_authorities: None,
        },
        auth: Auth { offered: false, required: false, without_tls: false },
        identity: Identity::Direct,
        loopback_is_local: false,
        hostname: domain("mx1.example.org"),
        tags: Vec::new(),
        line_ends: LineEnds::Refuse,
        received_client: true,
        limits: Limits::default(),
    }
}

fn submission(name: &str) -> Listener {
    let mut listener = listener(name);
    listener.protocol = Protocol::Submission;
    listener.auth = Auth { offered: true, required: true, without_tls: false };
    with_tls(listener, TlsMode::Required, "cert")
}

fn with_tls(mut listener: Listener, mode: TlsMode, secret: &str) -> Listener {
    listener.tls.mode = mode;
    listener.tls.certificates = vec![secret.to_owned()];
    listener
}

/// A snapshot with a certificate for `localhost` in the Secret `cert`.
fn with_certificate(mut snapshot: Snapshot) -> (Snapshot, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let chain = made.cert.pem().into_bytes();
    let certificate = Certificate { chain_pem: chain.clone(), key_pem: made.signing_key.serialize_pem().into_bytes() };
    snapshot.certificates.insert("cert".to_owned(), Arc::new(certificate));
    (snapshot, chain)
}
