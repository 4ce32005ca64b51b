//! A queue under test, and short words for what a test does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use node::{Clock, Node, Peer, Snapshots, Wire};
use posthouse_proto::queue::v1 as proto;
use posthouse_proto::queue::v1::accept_request::Step;
use posthouse_proto::queue::v1::queue_client::QueueClient;
use resources::Snapshot;
use resources::snapshot::Platform;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use types::MessageId;

use crate::bodies::FolderBodies;
use crate::service::Inner;
use crate::store::sqlite::SqliteStore;

pub const PATIENCE: Duration = Duration::from_secs(20);

pub type Client = QueueClient<Wire>;

/// A queue in a folder.
pub struct Bench {
    pub node: Node,
    pub clock: Clock,
    pub client: Client,
    pub inner: Arc<Inner<SqliteStore, FolderBodies>>,
    pub state_dir: Arc<tempfile::TempDir>,
}

pub fn snapshot(body_inline_max_bytes: u64) -> Snapshot {
    Snapshot {
        version: "1".to_owned(),
        resources: 1,
        platform: Platform {
            name: "main".to_owned(),
            hostname: "mx.example.org".parse().unwrap(),
            admin: None,
            dns_servers: Vec::new(),
            dns_cache: true,
            body_inline_max_bytes,
            ingress_memory_max_bytes: 128 << 20,
            free_space_min_bytes: 1 << 20,
            event_retention: Duration::from_secs(7 * 86_400),
            dovecot_passwd_file: None,
            auth_failure_floor: Duration::ZERO,
            auth_concurrency_max: 1,
            auth_failures: resources::snapshot::AuthFailures::default(),
            drain_max: Duration::from_secs(30),
            deliveries_max: 1,
            sendmail_socket: false,
        },
        listeners: BTreeMap::new(),
        transports: BTreeMap::new(),
        certificates: BTreeMap::new(),
        rules: Arc::default(),
        files: Vec::new(),
        demo_passwords: Default::default(),
    }
}

impl Bench {
    pub async fn new() -> Self {
        Self::over(Arc::new(tempfile::tempdir().unwrap()), Clock::system()).await
    }

    pub async fn over(state_dir: Arc<tempfile::TempDir>, clock: Clock) -> Self {
        let node = Node::new(Snapshots::new(snapshot(4096)), state_dir.path().to_owned(), clock.clone());
        let place = crate::Place {
            state_dir: state_dir.path(),
            clock: clock.clone(),
            settings: crate::Settings::Running(node.snapshots().clone()),
            health: Some(node.health().clone()),
            drain: Some(node.drain().clone()),
        };
        let service = crate::open(place).await.unwrap();
        let inner = Arc::clone(&service.inner);
        node.provide(Peer::Queue, crate::server(service));
        let client = QueueClient::new(node.wire(Peer::Queue)).max_decoding_message_size(usize::MAX);
        Self { node, clock, client, inner, state_dir }
    }

    /// Ends this run of the queue, as a kill would, and begins another over the same folder.
    pub async fn restart(self) -> Self {
        let Self { node, clock, client, inner, state_dir } = self;
        node.drain().begin();
        let weak = Arc::downgrade(&inner);
        drop((node, client, inner));
        until("the old queue is gone", || weak.upgrade().is_none()).await;
        Self::over(state_dir, clock).await
    }

    pub fn path(&self) -> &Path {
        self.state_dir.path()
    }

    pub async fn accept(&self, message: Message) -> String {
        let id = message.id.clone();
        let response = self.try_accept(message).await.unwrap();
        assert!(!response.already_present);
        id
    }

    pub async fn try_accept(&self, message: Message) -> Result<proto::AcceptResponse, Status> {
        let steps = tokio_stream::iter(message.steps(self.clock.now().unix_ms()));
        self.client.clone().accept(steps).await.map(tonic::Response::into_inner)
    }

    pub async fn settle(&self, settlements: Vec<proto::Settlement>) -> Vec<proto::SettleAnswer> {
        let request = proto::SettleRequest { settlements };
        let response = self.client.clone().settle(request).await.unwrap().into_inner();
        response.answers().collect()
    }

    /// Settles every recipient of a delivery with one outcome.
    pub async fn settle_all(&self, delivery: &proto::Delivery, kind: proto::outcome::Kind) -> proto::SettleAnswer {
        self.settle(vec![settlement(delivery, kind)]).await[0]
    }

    pub async fn show(&self, id: &str) -> Result<proto::ShowResponse, Status> {
        let request = proto::ShowRequest { message_id: id.to_owned() };
        self.client.clone().show(request).await.map(tonic::Response::into_inner)
    }

    pub async fn status(&self) -> proto::StatusResponse {
        self.client.clone().status(proto::StatusRequest {}).await.unwrap().into_inner()
    }

    pub async fn trace(&self, id: &str) -> Vec<proto::Event> {
        let request = proto::TraceRequest { message_id: id.to_owned(), ..proto::TraceRequest::default() };
        self.client.clone().trace(request).await.unwrap().into_inner().events
    }

    pub async fn kinds(&self, id: &str) -> Vec<String> {
        self.trace(id).await.into_iter().map(|event| event.kind).collect()
    }

    pub async fn body(&self, id: &str, offset: u64) -> Result<Vec<u8>, Status> {
        let request = proto::ReadBodyRequest { message_id: id.to_owned(), offset };
        collect(self.client.clone().read_body(request).await?.into_inner()).await
    }

    pub fn body_files(&self) -> Vec<String> {
        let mut names = Vec::new();
        for folder in std::fs::read_dir(self.path().join("queue/bodies")).unwrap() {
            for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
                names.push(file.unwrap().file_name().into_string().unwrap());
            }
        }
        names
    }

    pub async fn holder(&self, credit: u32) -> Holder {
        self.holder_with(credit, Vec::new()).await
    }

    pub async fn holder_with(&self, credit: u32, limits: Vec<proto::RouteLimit>) -> Holder {
        let (requests, stream) = mpsc::channel(16);
        requests.send(proto::LeaseRequest { holder: "test".to_owned(), credit, limits }).await.unwrap();
        let stream = self.client.clone().lease(ReceiverStream::new(stream)).await.unwrap().into_inner();
        Holder { requests, stream, deliveries: Vec::new(), reports: Vec::new() }
    }
}

pub async fn collect(mut stream: Streaming<proto::ReadBodyResponse>) -> Result<Vec<u8>, Status> {
    let mut body = Vec::new();
    while let Some(part) = stream.message().await? {
        assert!(part.chunk.len() <= 64 << 10);
        body.extend_from_slice(&part.chunk);
    }
    Ok(body)
}

/// A lease stream, read one delivery at a time.
pub struct Holder {
    pub requests: mpsc::Sender<proto::LeaseRequest>,
    stream: Streaming<proto::LeaseResponse>,
    deliveries: Vec<proto::Delivery>,
    reports: Vec<proto::Report>,
}

impl Holder {
    async fn more(&mut self) {
        let batch = tokio::time::timeout(PATIENCE, self.stream.message()).await.expect("nothing was handed out");
        let batch = batch.unwrap().expect("the stream ended");
        self.deliveries.extend(batch.deliveries);
        self.reports.extend(batch.reports);
    }

    pub async fn delivery(&mut self) -> proto::Delivery {
        while self.deliveries.is_empty() {
            self.more().await;
        }
        self.deliveries.remove(0)
    }

    pub async fn report(&mut self) -> proto::Report {
        while self.reports.is_empty() {
            self.more().await;
        }
        self.reports.remove(0)
    }

    pub async fn credit(&self, credit: u32) {
        self.requests.send(proto::LeaseRequest { credit, ..proto::LeaseRequest::default() }).await.unwrap();
    }

    /// Whether nothing comes, after everything that was on its way had its turn.
    pub async fn nothing(&mut self) -> bool {
        let wait = tokio::time::timeout(Duration::from_millis(600), self.stream.message()).await;
        wait.is_err() && self.deliveries.is_empty() && self.reports.is_empty()
    }

    /// The next end of the stream.
    pub async fn ended(&mut self) -> bool {
        matches!(tokio::time::timeout(PATIENCE, self.stream.message()).await, Ok(Ok(None)))
    }
}

pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// A message to accept.
#[derive(Clone)]
pub struct Message {
    pub id: String,
    pub body: Vec<u8>,
    pub variants: Vec<proto::Variant>,
    pub report: Option<proto::ReportKey>,
    pub header_message_id: String,
}

pub fn message_id() -> String {
    MessageId::new(0, 1_700_000_000_000, rand::random()).to_string()
}

pub fn recipient(address: &str) -> proto::Recipient {
    let route = address.split('@').nth(1).unwrap().to_owned();
    let transport = "mx".to_owned();
    proto::Recipient { address: address.to_owned(), transport, route, ..proto::Recipient::default() }
}

impl Message {
    pub fn to(addresses: &[&str]) -> Self {
        let variant = proto::Variant {
            header: "Subject: test\r\nFrom: s@sender.example\r\n".into(),
            sender: "s@sender.example".to_owned(),
            recipients: addresses.iter().map(|address| recipient(address)).collect(),
            ..proto::Variant::default()
        };
        Self {
            id: message_id(),
            body: b"hello\r\n".to_vec(),
            variants: vec![variant],
            report: None,
            header_message_id: "<1@sender.example>".to_owned(),
        }
    }

    pub fn with_body(mut self, body: Vec<u8>) -> Self {
        self.body = body;
        self
    }

    pub fn from(mut self, sender: &str) -> Self {
        self.variants[0].sender = sender.to_owned();
        self
    }

    pub fn notify(mut self, notify: u32) -> Self {
        self.variants[0].recipients.iter_mut().for_each(|recipient| recipient.notify = notify);
        self
    }

    pub fn commit(&self, now: i64) -> proto::Commit {
        proto::Commit {
            message_id: self.id.clone(),
            variants: self.variants.clone(),
            body_size_bytes: self.body.len() as u64,
            received_at_ms: now,
            body_type: proto::BodyType::BodyType8bitmime as i32,
            smtp_utf8: false,
            origin: Some(proto::Origin {
                listener: "mx".to_owned(),
                client: "192.0.2.1".to_owned(),
                helo: "client.example".to_owned(),
                ..proto::Origin::default()
            }),
            report: self.report.clone(),
            header_message_id: self.header_message_id.clone(),
        }
    }

    pub fn steps(&self, now: i64) -> Vec<proto::AcceptRequest> {
        let mut steps: Vec<_> = self.body.chunks(64 << 10).map(|part| Step::Chunk(part.to_vec().into())).collect();
        steps.push(Step::Commit(self.commit(now)));
        steps.into_iter().map(|step| proto::AcceptRequest { step: Some(step) }).collect()
    }
}

pub fn settlement(delivery: &proto::Delivery, kind: proto::outcome::Kind) -> proto::Settlement {
    let results = delivery.recipients.iter().map(|due| result(due.number, kind)).collect();
    proto::Settlement { lease: delivery.lease, results, ..proto::Settlement::default() }
}

pub fn result(number: u32, kind: proto::outcome::Kind) -> proto::RecipientResult {
    let outcome = proto::Outcome {
        kind: Some(kind),
        remote: "mx.example [192.0.2.9]".to_owned(),
        reply: "the answer".to_owned(),
        enhanced_code: "2.0.0".to_owned(),
    };
    proto::RecipientResult { number, outcome: Some(outcome) }
}

pub const DELIVERED: proto::outcome::Kind =
    proto::outcome::Kind::Delivered(proto::Delivered { relayed: false, r#final: true });
pub const DEFERRED: proto::outcome::Kind = proto::outcome::Kind::Deferred(proto::Deferred { retry_after_s: 0 });
pub const FAILED: proto::outcome::Kind = proto::outcome::Kind::Failed(proto::Failed {});
