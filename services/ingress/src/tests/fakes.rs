use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use posthouse_proto::policy::v1::policy_server::Policy;
use posthouse_proto::policy::v1::{self as policy, answer};
use posthouse_proto::queue::v1::accept_request::Step;
use posthouse_proto::queue::v1::queue_server::Queue;
use posthouse_proto::queue::v1::{self as queue, Commit};
use tonic::{Request, Response, Status, Streaming};

type Answer<T> = Result<Response<T>, Status>;

/// Answers by the recipient's local part.
#[derive(Default)]
pub(super) struct FakePolicy {
    pub(super) envelopes: Mutex<Vec<policy::EnvelopeRequest>>,
    pub(super) decisions: Mutex<Vec<policy::DecideRequest>>,
    pub(super) refuses_sessions: AtomicBool,
}

fn reply(code: u32, enhanced_code: &str, text: &str) -> policy::Reply {
    policy::Reply { code, enhanced_code: enhanced_code.to_owned(), text: text.to_owned() }
}

fn judge(recipient: &str) -> policy::Answer {
    let destination = |address: &str, sender: Option<&str>| policy::Destination {
        address: address.to_owned(),
        transport: "box".to_owned(),
        route: "box".to_owned(),
        delivered_to: recipient.to_owned(),
        sender: sender.unwrap_or_default().to_owned(),
        sender_rewritten: sender.is_some(),
    };
    let destinations = match recipient.split('@').next().unwrap_or_default() {
        "unknown" => {
            let refuse = reply(550, "5.1.1", "no such user");
            return policy::Answer { answer: Some(answer::Answer::Refuse(refuse)) };
        }
        "forward" => {
            vec![destination("keep@example.org", None), destination("far@example.net", Some("srs@example.org"))]
        }
        _ => vec![destination(recipient, None)],
    };
    let accepted = policy::Accepted { destinations, ..policy::Accepted::default() };
    policy::Answer { answer: Some(answer::Answer::Accepted(accepted)) }
}

#[tonic::async_trait]
impl Policy for FakePolicy {
    async fn connect(&self, _: Request<policy::ConnectRequest>) -> Answer<policy::ConnectResponse> {
        let refuse = self.refuses_sessions.load(Ordering::SeqCst).then(|| reply(554, "5.7.1", "go away"));
        Ok(Response::new(policy::ConnectResponse { refuse, snapshot_version: "1".to_owned() }))
    }

    async fn authenticate(
        &self,
        request: Request<policy::AuthenticateRequest>,
    ) -> Answer<policy::AuthenticateResponse> {
        use policy::authenticate_response::Answer;
        let request = request.into_inner();
        let answer = match (request.user.as_str(), &*request.password) {
            ("trouble", _) => return Err(Status::unavailable("directory")),
            ("alice", b"secret") => Answer::User("alice@example.org".to_owned()),
            _ => Answer::Refuse(reply(535, "5.7.8", "wrong")),
        };
        Ok(Response::new(policy::AuthenticateResponse { answer: Some(answer) }))
    }

    async fn envelope(&self, request: Request<policy::EnvelopeRequest>) -> Answer<policy::EnvelopeResponse> {
        let request = request.into_inner();
        let says = |local: &str| request.recipients.iter().any(|recipient| recipient.starts_with(local));
        if says("trouble@") {
            return Err(Status::unavailable("table"));
        }
        let response = policy::EnvelopeResponse {
            snapshot_version: "1".to_owned(),
            answers: request.recipients.iter().map(|recipient| judge(recipient)).collect(),
            decide: says("decide"),
        };
        self.envelopes.lock().unwrap().push(request);
        Ok(Response::new(response))
    }

    async fn decide(&self, request: Request<policy::DecideRequest>) -> Answer<policy::DecideResponse> {
        let request = request.into_inner();
        let header = String::from_utf8_lossy(&request.header).into_owned();
        let mut response = policy::DecideResponse::default();
        if header.contains("X-Refuse: all") {
            response.refuse = Some(reply(550, "5.7.1", "From is not yours"));
        }
        if header.contains("X-Refuse: first") {
            response.answers = request.answers.clone();
            response.answers[0].answer = Some(answer::Answer::Refuse(reply(550, "5.7.1", "not for you")));
        }
        self.decisions.lock().unwrap().push(request);
        if header.contains("X-Refuse: trouble") {
            return Err(Status::unavailable("table"));
        }
        Ok(Response::new(response))
    }

    async fn explain(&self, _: Request<policy::EnvelopeRequest>) -> Answer<policy::ExplainResponse> {
        Err(Status::unimplemented("test"))
    }
}

/// What became of one Accept stream.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) commit: Commit,
    pub(super) body: Vec<u8>,
}

impl Stored {
    pub(super) fn header(&self) -> String {
        String::from_utf8(self.commit.variants[0].header.to_vec()).unwrap()
    }
}

/// What the queue does with the next commits.
pub(super) enum Fault {
    /// Answers this and stores nothing.
    Refuse(Status),
    /// Stores the message, and the answer gets lost.
    LoseAnswer,
    /// Ends the stream at its first chunk.
    Break(Status),
}

/// Keeps messages in memory.
#[derive(Default)]
pub(super) struct FakeQueue {
    pub(super) stored: Mutex<Vec<Stored>>,
    pub(super) faults: Mutex<VecDeque<Fault>>,
    /// Octets of bodies that arrived, committed or not.
    pub(super) arrived: AtomicUsize,
    pub(super) largest_chunk: AtomicUsize,
    pub(super) streams: AtomicUsize,
    /// Streams that ended without commit.
    pub(super) dropped: AtomicUsize,
}

impl FakeQueue {
    pub(super) fn only(&self) -> Stored {
        let stored = self.stored.lock().unwrap();
        assert_eq!(stored.len(), 1);
        stored[0].clone()
    }

    pub(super) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }

    fn commit(&self, commit: Commit, body: Vec<u8>) -> Answer<queue::AcceptResponse> {
        let fault = self.faults.lock().unwrap().pop_front();
        if let Some(Fault::Refuse(status) | Fault::Break(status)) = fault {
            return Err(status);
        }
        let mut stored = self.stored.lock().unwrap();
        let already_present = stored.iter().any(|known| known.commit.message_id == commit.message_id);
        if !already_present && commit.body_size_bytes != body.len() as u64 {
            return Err(Status::invalid_argument("body size"));
        }
        if !already_present {
            stored.push(Stored { commit, body });
        }
        match fault {
            Some(Fault::LoseAnswer) => Err(Status::unknown("connection lost")),
            _ => Ok(Response::new(queue::AcceptResponse { already_present })),
        }
    }
}

fn none<T>() -> Answer<T> {
    Err(Status::unimplemented("test"))
}

type NoStream<T> = tokio_stream::Empty<Result<T, Status>>;

#[tonic::async_trait]
impl Queue for FakeQueue {
    async fn accept(&self, request: Request<Streaming<queue::AcceptRequest>>) -> Answer<queue::AcceptResponse> {
        self.streams.fetch_add(1, Ordering::SeqCst);
        let mut steps = request.into_inner();
        let mut body = Vec::new();
        while let Some(step) = steps.message().await? {
            match step.step {
                Some(Step::Chunk(chunk)) => {
                    let broken = matches!(self.faults.lock().unwrap().front(), Some(Fault::Break(_)));
                    if broken && let Some(Fault::Break(status)) = self.faults.lock().unwrap().pop_front() {
                        return Err(status);
                    }
                    self.largest_chunk.fetch_max(chunk.len(), Ordering::SeqCst);
                    self.arrived.fetch_add(chunk.len(), Ordering::SeqCst);
                    body.extend_from_slice(&chunk);
                }
                Some(Step::Commit(commit)) => return self.commit(commit, body),
                Some(Step::Abort(_)) | None => break,
            }
        }
        self.dropped.fetch_add(1, Ordering::SeqCst);
        Err(Status::cancelled("no commit"))
    }

    type LeaseStream = NoStream<queue::LeaseResponse>;
    async fn lease(&self, _: Request<Streaming<queue::LeaseRequest>>) -> Answer<Self::LeaseStream> {
        none()
    }

    type ReadBodyStream = NoStream<queue::ReadBodyResponse>;
    async fn read_body(&self, _: Request<queue::ReadBodyRequest>) -> Answer<Self::ReadBodyStream> {
        none()
    }

    async fn settle(&self, _: Request<queue::SettleRequest>) -> Answer<queue::SettleResponse> {
        none()
    }

    async fn extend(&self, _: Request<queue::ExtendRequest>) -> Answer<queue::ExtendResponse> {
        none()
    }

    async fn list(&self, _: Request<queue::ListRequest>) -> Answer<queue::ListResponse> {
        none()
    }

    async fn show(&self, _: Request<queue::ShowRequest>) -> Answer<queue::ShowResponse> {
        none()
    }

    type ExportStream = NoStream<queue::ReadBodyResponse>;
    async fn export(&self, _: Request<queue::ExportRequest>) -> Answer<Self::ExportStream> {
        none()
    }

    async fn hold(&self, _: Request<queue::ChangeRequest>) -> Answer<queue::ChangeResponse> {
        none()
    }

    async fn release(&self, _: Request<queue::ChangeRequest>) -> Answer<queue::ChangeResponse> {
        none()
    }

    async fn retry_now(&self, _: Request<queue::ChangeRequest>) -> Answer<queue::ChangeResponse> {
        none()
    }

    async fn remove(&self, _: Request<queue::ChangeRequest>) -> Answer<queue::ChangeResponse> {
        none()
    }

    async fn trace(&self, _: Request<queue::TraceRequest>) -> Answer<queue::TraceResponse> {
        none()
    }

    async fn status(&self, _: Request<queue::StatusRequest>) -> Answer<queue::StatusResponse> {
        none()
    }

    async fn backup(&self, _: Request<queue::BackupRequest>) -> Answer<queue::BackupResponse> {
        none()
    }
}
