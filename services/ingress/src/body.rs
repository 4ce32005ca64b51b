use std::time::Duration;

use bytes::{Bytes, BytesMut};
use node::Wire;
use posthouse_proto::queue::v1::accept_request::Step;
use posthouse_proto::queue::v1::queue_client::QueueClient;
use posthouse_proto::queue::v1::{Abort, AcceptRequest, AcceptResponse, Commit};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status};

use crate::budget::Account;
use crate::stream::READ_BYTES;

/// Octets of a chunk to the queue: its contract.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks on their way to the queue: the next one is filled while it writes one.
const CHUNKS_AHEAD: usize = 2;
/// Smaller pieces are copied together, so that a message of many short reads holds no read buffer each.
const PIECE_COPIED_BYTES: usize = 4 << 10;
/// How long the queue may take for a chunk of a body that flows.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the queue may take to commit: shorter than a client waits for the reply to its last byte (RFC 5321 section 4.5.3.2.6).
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The bounds of a body in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyBounds {
    /// Bodies over this flow to the queue while they arrive.
    pub(crate) inline_max_bytes: u64,
    /// Budget of all messages of the process.
    pub(crate) memory_max_bytes: u64,
}

/// A body on its way into the queue.
///
/// A small one stays here until the message is decided, and goes as one exchange. One that outgrows the threshold, or arrives while the
/// budget is used up, opens its exchange early and flows; then the queue's flow control holds the client back.
pub(crate) struct Body {
    queue: QueueClient<Wire>,
    bounds: BodyBounds,
    account: Account,
    /// What is held, in order; `tail` comes last.
    pieces: Vec<Bytes>,
    tail: BytesMut,
    held: u64,
    size: u64,
    exchange: Option<Exchange>,
}

/// An open Accept stream.
struct Exchange {
    steps: mpsc::Sender<AcceptRequest>,
    answer: JoinHandle<Result<Response<AcceptResponse>, Status>>,
    /// The queue takes no more: the answer says why.
    broken: bool,
}

impl Body {
    pub(crate) fn new(queue: QueueClient<Wire>, bounds: BodyBounds, account: Account) -> Self {
        Self { queue, bounds, account, pieces: Vec::new(), tail: BytesMut::new(), held: 0, size: 0, exchange: None }
    }

    /// Octets of the body so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Says what the message holds beside its body; true while all messages together stay within the budget.
    pub(crate) fn hold(&mut self, beside: u64) -> bool {
        self.account.hold(self.held + beside, self.bounds.memory_max_bytes)
    }

    /// Takes the next octets. `beside` is what the message holds beside its body.
    pub(crate) async fn push(&mut self, bytes: Bytes, beside: u64) {
        let octets = bytes.len() as u64;
        self.size += octets;
        if self.exchange.as_ref().is_some_and(|exchange| exchange.broken) {
            return;
        }
        self.held += octets;
        if bytes.len() < PIECE_COPIED_BYTES {
            self.tail.extend_from_slice(&bytes);
            if self.tail.len() >= READ_BYTES / 2 {
                self.cut_tail();
            }
        } else {
            self.cut_tail();
            self.pieces.push(bytes);
        }
        let within = self.hold(beside);
        if self.exchange.is_none() && (self.held > self.bounds.inline_max_bytes || !within) {
            self.open();
        }
        if self.exchange.is_some() && !self.pieces.is_empty() {
            self.flow().await;
            self.hold(beside);
        }
    }

    /// Ends the message. `Ok`: it is committed.
    ///
    /// An answer that got lost is asked for once more, under the same message id.
    pub(crate) async fn commit(mut self, commit: impl Fn() -> Commit) -> Result<(), Status> {
        self.cut_tail();
        let first = match self.exchange.take() {
            None => self.accept(commit()).await,
            Some(exchange) => self.end(exchange, commit()).await,
        };
        match first {
            // A body that flowed is no longer here: then the commit alone asks whether the message is there.
            Err(status) if is_lost(&status) => self.accept(commit()).await.map_err(|again| {
                tracing::warn!(first = %status.code(), again = %again.code(), "no answer to commit");
                status
            }),
            answer => answer,
        }
    }

    /// Drops the message.
    pub(crate) async fn abort(self) {
        if let Some(exchange) = self.exchange {
            let abort = AcceptRequest { step: Some(Step::Abort(Abort {})) };
            // A stream that ends without commit leaves nothing either.
            let _ = timeout(CHUNK_TIMEOUT, exchange.steps.send(abort)).await;
        }
    }

    fn cut_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push(self.tail.split().freeze());
        }
    }

    fn open(&mut self) {
        let (steps, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let mut queue = self.queue.clone();
        let answer = tokio::spawn(async move { queue.accept(ReceiverStream::new(receiver)).await });
        self.exchange = Some(Exchange { steps, answer, broken: false });
        self.cut_tail();
    }

    /// Sends what is held, whole chunks of it.
    async fn flow(&mut self) {
        let Some(exchange) = &mut self.exchange else { return };
        for chunk in chunks(std::mem::take(&mut self.pieces)) {
            if !matches!(timeout(CHUNK_TIMEOUT, exchange.steps.send(chunk)).await, Ok(Ok(()))) {
                exchange.broken = true;
                self.tail = BytesMut::new();
                break;
            }
        }
        self.held = self.tail.len() as u64;
    }

    /// Commits a body that flowed.
    async fn end(&mut self, exchange: Exchange, commit: Commit) -> Result<(), Status> {
        self.exchange = Some(exchange);
        self.flow().await;
        let Some(mut exchange) = self.exchange.take() else { return Err(Status::internal("no exchange")) };
        let finish = async {
            if !exchange.broken {
                let commit = AcceptRequest { step: Some(Step::Commit(commit)) };
                // Where the queue takes no more, its answer says why.
                let _ = exchange.steps.send(commit).await;
            }
            drop(exchange.steps);
            match (&mut exchange.answer).await {
                Ok(answer) => answer,
                Err(_) => Err(Status::internal("the exchange with the queue panicked")),
            }
        };
        let answer = timeout(COMMIT_TIMEOUT, finish).await;
        exchange.answer.abort();
        match answer {
            Ok(Ok(_)) if exchange.broken => Err(Status::internal("the queue answered before the end")),
            Ok(answer) => answer.map(drop),
            Err(_) => Err(Status::deadline_exceeded("commit took too long")),
        }
    }

    /// The whole exchange at once.
    async fn accept(&mut self, commit: Commit) -> Result<(), Status> {
        let mut steps: Vec<AcceptRequest> = chunks(self.pieces.clone()).collect();
        steps.push(AcceptRequest { step: Some(Step::Commit(commit)) });
        match timeout(COMMIT_TIMEOUT, self.queue.accept(tokio_stream::iter(steps))).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(Status::deadline_exceeded("commit took too long")),
        }
    }
}

/// Pieces as steps of an exchange, none over the bound.
fn chunks(pieces: Vec<Bytes>) -> impl Iterator<Item = AcceptRequest> {
    pieces.into_iter().flat_map(|mut piece| {
        std::iter::from_fn(move || {
            let chunk = piece.split_to(piece.len().min(CHUNK_BYTES));
            (!chunk.is_empty()).then(|| AcceptRequest { step: Some(Step::Chunk(chunk)) })
        })
    })
}

/// Whether the message may have been committed although the answer says nothing of it.
fn is_lost(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::Internal | Code::Aborted
    )
}
