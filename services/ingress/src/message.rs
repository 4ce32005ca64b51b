use bytes::Bytes;
use message::{HeaderFault, HeaderLimits, HeaderSplitter};
use types::{MessageId, Reply, Timestamp};

use crate::body::{Body, BodyBounds};
use crate::shared::Shared;
use crate::terms::Terms;

/// Until there are several queue shards.
const SHARD: u16 = 0;
/// A header section up to this is taken even when the budget is used up: it cannot flow, and ordinary mail must go on.
const HEADER_UNBUDGETED_BYTES: usize = 64 << 10;

/// A message that arrives.
pub(crate) struct Incoming {
    id: MessageId,
    received_at: Timestamp,
    splitter: HeaderSplitter,
    /// The answer to a message that is refused while it arrives.
    fault: Option<Reply>,
    body: Body,
    /// Where the splitter puts what belongs to the body; empty between chunks.
    slices: Vec<Bytes>,
}

/// A message whose last byte is here.
pub(crate) struct Whole {
    pub(crate) id: MessageId,
    pub(crate) received_at: Timestamp,
    /// As it was received.
    pub(crate) header: Vec<u8>,
    pub(crate) body: Body,
}

impl Incoming {
    pub(crate) fn new(shared: &Shared, terms: &Terms) -> Self {
        let received_at = shared.node.clock().now();
        let unix_ms = u64::try_from(received_at.unix_ms()).unwrap_or(0);
        let limits = &terms.listener.limits;
        let bounds =
            BodyBounds { inline_max_bytes: terms.body_inline_max_bytes, memory_max_bytes: terms.memory_max_bytes };
        Self {
            id: MessageId::new(SHARD, unix_ms, rand::random()),
            received_at,
            splitter: HeaderSplitter::new(HeaderLimits {
                bytes_max: limits.header_max_bytes,
                fields_max: limits.header_fields_max,
                received_max: limits.received_fields_max,
            }),
            fault: None,
            body: Body::new(shared.queue.clone(), bounds, shared.budget.account()),
            slices: Vec::new(),
        }
    }

    /// Its name from now on.
    pub(crate) fn id(&self) -> MessageId {
        self.id
    }

    /// Takes the next octets. What breaks a bound is remembered, and the rest of the message is dropped.
    pub(crate) async fn push(&mut self, chunk: Bytes) {
        if self.fault.is_some() {
            return;
        }
        if let Err(fault) = self.splitter.push(chunk, &mut self.slices) {
            self.refuse(refusal(fault));
            return;
        }
        let header = self.splitter.header_len();
        if self.slices.is_empty() && !self.body.hold(header as u64) && header > HEADER_UNBUDGETED_BYTES {
            self.refuse(Reply::enhanced(452, 4, 3, 1, "no memory for such a header section, try again later"));
            return;
        }
        self.pass_on().await;
    }

    /// Nothing of the message is kept any more.
    fn refuse(&mut self, reply: Reply) {
        self.fault = Some(reply);
        self.slices = Vec::new();
        self.splitter = HeaderSplitter::new(HeaderLimits { bytes_max: 0, fields_max: 0, received_max: 0 });
        self.body.hold(0);
    }

    async fn pass_on(&mut self) {
        let beside = self.splitter.header_len() as u64;
        for slice in self.slices.drain(..) {
            self.body.push(slice, beside).await;
        }
    }

    /// Ends the message, or says why it is refused.
    pub(crate) async fn finish(mut self) -> Result<Whole, Reply> {
        if let Some(reply) = self.fault {
            self.body.abort().await;
            return Err(reply);
        }
        let beside = self.splitter.header_len() as u64;
        let header = self.splitter.finish(&mut self.slices);
        for slice in self.slices {
            self.body.push(slice, beside).await;
        }
        Ok(Whole { id: self.id, received_at: self.received_at, header, body: self.body })
    }

    /// Drops the message.
    pub(crate) async fn abandon(self) {
        self.body.abort().await;
    }
}

fn refusal(fault: HeaderFault) -> Reply {
    match fault {
        HeaderFault::TooLarge => Reply::enhanced(552, 5, 3, 4, "header section is too large"),
        HeaderFault::TooManyFields => Reply::enhanced(554, 5, 6, 0, "too many header fields"),
        // RFC 5321 section 6.3.
        HeaderFault::TooManyReceived => Reply::enhanced(554, 5, 4, 6, "too many hops, this is a mail loop"),
    }
}
