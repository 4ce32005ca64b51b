//! Values for tests of this crate.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use node::{Clock, Node, Peer, Snapshots};
use posthouse_proto::policy::v1 as policy;
use posthouse_proto::policy::v1::policy_server::{Policy, PolicyServer};
use posthouse_proto::queue::v1 as queue;
use posthouse_proto::queue::v1::accept_request::Step;
use posthouse_proto::queue::v1::queue_server::{Queue, QueueServer};
use resources::Snapshot;
use resources::snapshot::Platform;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// A snapshot of a platform that does nothing.
pub(crate) fn snapshot() -> Snapshot {
    Snapshot {
        version: "1".to_owned(),
        resources: 1,
        platform: Platform {
            name: "main".to_owned(),
            hostname: "mx1.example.org".parse().unwrap(),
            admin: None,
            dns_servers: Vec::new(),
            dns_cache: true,
            body_inline_max_bytes: 256 << 10,
            ingress_memory_max_bytes: 128 << 20,
            free_space_min_bytes: 0,
            event_retention: Duration::from_secs(60),
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
        demo_passwords: Default::default(),
        files: Vec::new(),
    }
}

type Shared<T> = Arc<Mutex<T>>;
type Stream<T> = ReceiverStream<Result<T, Status>>;

/// What the fakes answer, and what they were told.
#[derive(Clone, Default)]
pub(crate) struct Fakes {
    pub(crate) answer: Arc<Mutex<Option<Result<policy::answer::Answer, Status>>>>,
    pub(crate) asked: Arc<Mutex<Vec<policy::EnvelopeRequest>>>,
    pub(crate) body: Shared<Option<Result<Vec<u8>, Status>>>,
    pub(crate) read: Arc<Mutex<Vec<String>>>,
    pub(crate) chunk_octets: Option<usize>,
    pub(crate) accept_fails: Arc<Mutex<Option<Status>>>,
    pub(crate) accepted: Shared<Vec<(queue::Commit, Vec<u8>)>>,
}

fn none<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not part of this test"))
}

#[tonic::async_trait]
impl Policy for Fakes {
    async fn envelope(
        &self,
        request: Request<policy::EnvelopeRequest>,
    ) -> Result<Response<policy::EnvelopeResponse>, Status> {
        self.asked.lock().unwrap().push(request.into_inner());
        let answer = self.answer.lock().unwrap().clone().expect("an answer")?;
        let answers = vec![policy::Answer { answer: Some(answer) }];
        Ok(Response::new(policy::EnvelopeResponse { answers, ..Default::default() }))
    }
    async fn connect(&self, _: Request<policy::ConnectRequest>) -> Result<Response<policy::ConnectResponse>, Status> {
        none()
    }
    async fn authenticate(
        &self,
        _: Request<policy::AuthenticateRequest>,
    ) -> Result<Response<policy::AuthenticateResponse>, Status> {
        none()
    }
    async fn decide(&self, _: Request<policy::DecideRequest>) -> Result<Response<policy::DecideResponse>, Status> {
        none()
    }
    async fn explain(&self, _: Request<policy::EnvelopeRequest>) -> Result<Response<policy::ExplainResponse>, Status> {
        none()
    }
}

#[tonic::async_trait]
impl Queue for Fakes {
    type LeaseStream = Stream<queue::LeaseResponse>;
    type ReadBodyStream = Stream<queue::ReadBodyResponse>;
    type ExportStream = Stream<queue::ReadBodyResponse>;

    async fn accept(
        &self,
        request: Request<Streaming<queue::AcceptRequest>>,
    ) -> Result<Response<queue::AcceptResponse>, Status> {
        let mut stream = request.into_inner();
        let mut body = Vec::new();
        while let Some(step) = stream.next().await {
            match step?.step {
                Some(Step::Chunk(chunk)) => body.extend_from_slice(&chunk),
                Some(Step::Commit(commit)) => {
                    if let Some(status) = self.accept_fails.lock().unwrap().clone() {
                        return Err(status);
                    }
                    self.accepted.lock().unwrap().push((commit, body));
                    return Ok(Response::new(queue::AcceptResponse { already_present: false }));
                }
                _ => break,
            }
        }
        Err(Status::invalid_argument("no commit"))
    }

    async fn read_body(
        &self,
        request: Request<queue::ReadBodyRequest>,
    ) -> Result<Response<Self::ReadBodyStream>, Status> {
        self.read.lock().unwrap().push(request.into_inner().message_id);
        let body = self.body.lock().unwrap().clone().expect("a body")?;
        let (sender, receiver) = tokio::sync::mpsc::channel(body.len().max(1));
        for chunk in body.chunks(self.chunk_octets.unwrap_or(7)) {
            sender.try_send(Ok(queue::ReadBodyResponse { chunk: Bytes::copy_from_slice(chunk) })).unwrap();
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn lease(&self, _: Request<Streaming<queue::LeaseRequest>>) -> Result<Response<Self::LeaseStream>, Status> {
        none()
    }
    async fn settle(&self, _: Request<queue::SettleRequest>) -> Result<Response<queue::SettleResponse>, Status> {
        none()
    }
    async fn extend(&self, _: Request<queue::ExtendRequest>) -> Result<Response<queue::ExtendResponse>, Status> {
        none()
    }
    async fn list(&self, _: Request<queue::ListRequest>) -> Result<Response<queue::ListResponse>, Status> {
        none()
    }
    async fn show(&self, _: Request<queue::ShowRequest>) -> Result<Response<queue::ShowResponse>, Status> {
        none()
    }
    async fn export(&self, _: Request<queue::ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        none()
    }
    async fn hold(&self, _: Request<queue::ChangeRequest>) -> Result<Response<queue::ChangeResponse>, Status> {
        none()
    }
    async fn release(&self, _: Request<queue::ChangeRequest>) -> Result<Response<queue::ChangeResponse>, Status> {
        none()
    }
    async fn retry_now(&self, _: Request<queue::ChangeRequest>) -> Result<Response<queue::ChangeResponse>, Status> {
        none()
    }
    async fn remove(&self, _: Request<queue::ChangeRequest>) -> Result<Response<queue::ChangeResponse>, Status> {
        none()
    }
    async fn trace(&self, _: Request<queue::TraceRequest>) -> Result<Response<queue::TraceResponse>, Status> {
        none()
    }
    async fn status(&self, _: Request<queue::StatusRequest>) -> Result<Response<queue::StatusResponse>, Status> {
        none()
    }
    async fn backup(&self, _: Request<queue::BackupRequest>) -> Result<Response<queue::BackupResponse>, Status> {
        none()
    }
}

impl Fakes {
    /// A node whose wires end here.
    pub(crate) fn node(&self, state_dir: &Path) -> Node {
        let node = Node::new(Snapshots::new(snapshot()), state_dir.to_owned(), Clock::system());
        node.provide(Peer::Policy, PolicyServer::new(self.clone()));
        node.provide(Peer::Queue, QueueServer::new(self.clone()));
        node
    }
}
