//! What an attempt is given, and what it gives back. Every transport is a function from a [`Job`] to results.

use std::sync::Arc;

use bytes::Bytes;
use node::{Node, Wire};
use posthouse_proto::policy::v1::policy_client::PolicyClient;
use posthouse_proto::queue::v1::queue_client::QueueClient;
use posthouse_proto::queue::v1::{BodyType, DsnReturn};
use resources::snapshot::Transport;
use types::{Address, EnhancedCode, Reply, Timestamp};

use crate::body::BodyReader;
use crate::pauses::Pauses;
use crate::pool::Pool;
use crate::resolver::Resolver;
use crate::tls::TlsConfigs;

/// What every attempt may use. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) node: Node,
    pub(crate) queue: QueueClient<Wire>,
    pub(crate) policy: PolicyClient<Wire>,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) tls: Arc<TlsConfigs>,
    pub(crate) pauses: Arc<Pauses>,
}

/// One leased delivery: one message for the due recipients of one route.
pub(crate) struct Job {
    pub(crate) message_id: String,
    pub(crate) variant: u32,
    /// From the snapshot that is in force when the attempt begins.
    pub(crate) transport: Arc<Transport>,
    pub(crate) route: String,
    /// `None`: the null reverse-path.
    pub(crate) sender: Option<Address>,
    /// RFC 3461 section 4.4, decoded; empty: none.
    pub(crate) envid: String,
    pub(crate) ret: DsnReturn,
    pub(crate) body_type: BodyType,
    pub(crate) smtp_utf8: bool,
    /// Whole header section without the empty line, as the queue keeps it: ends in CRLF unless it is empty.
    pub(crate) header: Bytes,
    pub(crate) body: BodySource,
    /// Octets of the body.
    pub(crate) body_size: u64,
    pub(crate) received_at: Timestamp,
    pub(crate) recipients: Vec<JobRecipient>,
    /// When the attempt must have ended (monotonic clock of the node).
    pub(crate) deadline: std::time::Instant,
}

/// Where the body is.
pub(crate) enum BodySource {
    /// Travelled with the lease.
    Inline(Bytes),
    /// Is read from the queue while it is sent.
    Queue,
}

/// One recipient of a job.
#[derive(Debug, Clone)]
pub(crate) struct JobRecipient {
    /// Within the message: what its result is told by.
    pub(crate) number: u32,
    pub(crate) address: Address,
    /// RFC 3461 section 4.2 as `type;address`, decoded.
    pub(crate) orcpt: Option<String>,
    /// Bits: 1 never, 2 success, 4 failure, 8 delay; 0: not given.
    pub(crate) notify: u32,
    /// The address that the outside wrote to; empty: the same.
    pub(crate) delivered_to: String,
}

impl Job {
    /// Reads the body, wherever it is, from its first octet on. Can be asked for again.
    pub(crate) fn body(&self, context: &Context) -> BodyReader {
        match &self.body {
            BodySource::Inline(body) => BodyReader::inline(body.clone()),
            BodySource::Queue => BodyReader::from_queue(context.queue.clone(), self.message_id.clone()),
        }
    }

    /// The same result for every recipient.
    pub(crate) fn all(&self, result: &AttemptResult) -> Vec<(u32, AttemptResult)> {
        self.recipients.iter().map(|recipient| (recipient.number, result.clone())).collect()
    }
}

/// What became of one recipient in one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AttemptResult {
    pub(crate) outcome: Outcome,
    /// Host and address that answered, as in `mx.example.org [192.0.2.1]:25`; empty: ours.
    pub(crate) remote: String,
    /// The full reply, controls escaped, lines separated by LF, or what we have to say ourselves.
    pub(crate) reply: String,
    pub(crate) enhanced: EnhancedCode,
}

/// The three ends of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Somebody else answers for it now.
    Delivered {
        /// To a host that offers no DSN.
        relayed: bool,
        /// Into a mailbox of ours.
        final_: bool,
    },
    /// Will be tried again by the transport's schedule.
    Deferred,
    /// Trying again will not help.
    Failed,
}

impl AttemptResult {
    /// Into a mailbox of ours; `text` says what took it.
    pub(crate) fn delivered(text: impl Into<String>) -> Self {
        Self::ours(Outcome::Delivered { relayed: false, final_: true }, EnhancedCode::new(2, 0, 0), text)
    }

    /// Not now, for a reason of our own, as in `4.3.0`.
    pub(crate) fn deferred(subject: u16, detail: u16, text: impl Into<String>) -> Self {
        Self::ours(Outcome::Deferred, EnhancedCode::new(4, subject, detail), text)
    }

    /// Never, for a reason of our own, as in `5.1.2`.
    pub(crate) fn failed(subject: u16, detail: u16, text: impl Into<String>) -> Self {
        Self::ours(Outcome::Failed, EnhancedCode::new(5, subject, detail), text)
    }

    fn ours(outcome: Outcome, enhanced: EnhancedCode, text: impl Into<String>) -> Self {
        // Reply replaces the controls of texts that others may have had a hand in.
        let reply = Reply::new(200, None, text);
        Self { outcome, remote: String::new(), reply: reply.text().to_owned(), enhanced }
    }
}

/// What became of a report obligation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReportOutcome {
    /// Accepted by the queue: the commit cleared the obligation.
    Submitted,
    /// Not now: it stays due.
    Later(String),
    /// Never: the obligation is cleared, with an event.
    Dropped(String),
}
