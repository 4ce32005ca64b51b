//! What the queue keeps, free of protobuf and of SQL.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Small number of a message inside its store.
pub type Seq = i64;
/// Small number of a route inside its store.
pub type RouteId = i64;

/// Recipients of a message.
pub const RECIPIENTS_MAX: usize = 10_000;
/// Octets of one chunk of a body.
pub const CHUNK_MAX_BYTES: usize = 64 << 10;
/// Octets of the header sections of a message, all variants: each copy of a 1 MiB section counts.
pub const HEADERS_MAX_BYTES: usize = 64 << 20;
/// Octets of an address, a route, an ORCPT, an ENVID and the like.
pub const FIELD_MAX_BYTES: usize = 4096;
/// Octets of a reply that are kept.
pub const REPLY_MAX_BYTES: usize = 4096;

/// Bits of a recipient's number in its key.
const NUMBER_BITS: u32 = 16;

/// Key of a recipient: the message and the number within.
pub fn key(seq: Seq, number: u32) -> i64 {
    seq << NUMBER_BITS | i64::from(number)
}

/// The message of a key.
pub fn seq_of(key: i64) -> Seq {
    key >> NUMBER_BITS
}

/// The number within the message of a key.
pub fn number_of(key: i64) -> u32 {
    u32::try_from(key & ((1 << NUMBER_BITS) - 1)).unwrap_or(0)
}

/// Where a message came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub listener: String,
    pub client: String,
    pub helo: String,
    pub user: String,
    pub tls: String,
}

/// One delivery obligation, as it was accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    pub address: String,
    pub original: String,
    pub notify: u32,
    pub transport: Arc<str>,
    pub route: Arc<str>,
    pub delivered_to: String,
}

/// RFC 3461 section 4.1: bits of NOTIFY.
pub mod notify {
    pub const NEVER: u32 = 1;
    pub const SUCCESS: u32 = 2;
    pub const FAILURE: u32 = 4;
    pub const DELAY: u32 = 8;
}

/// Where the body of a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Inline(Bytes),
    File(String),
}

/// A message on its way into the store. Its recipients are numbered from 0, in the order of the variants.
#[derive(Debug)]
pub struct NewMessage {
    pub seq: Seq,
    pub id: String,
    pub received_at: i64,
    pub due: i64,
    pub body: Body,
    pub body_bytes: u64,
    pub body_type: i32,
    pub smtp_utf8: bool,
    pub origin: Origin,
    pub header_message_id: String,
    pub variants: Vec<Variant>,
    pub recipients: Vec<NewRecipient>,
    /// The report obligation that this message fulfils.
    pub report: Option<ReportKey>,
}

impl NewMessage {
    /// What a delivery of a variant weighs in memory.
    pub fn delivery_bytes(&self, variant: u32) -> u64 {
        let header = self.variants.get(variant as usize).map_or(0, |v| v.header.len());
        let body = match &self.body {
            Body::Inline(body) => body.len(),
            Body::File(_) => 0,
        };
        (header + body) as u64
    }
}

#[derive(Debug, Clone)]
pub struct NewRecipient {
    pub variant: u32,
    pub route: RouteId,
    pub recipient: Recipient,
}

/// Recipients that share a header section and an envelope sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    pub header: Bytes,
    pub sender: String,
    pub envid: String,
    pub dsn_return: i32,
}

/// Names a report obligation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportKey {
    pub message_id: String,
    pub number: i64,
}

/// State of a recipient in the store. A lease is not a state of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Open = 0,
    Held = 1,
    Delivered = 2,
    Failed = 3,
    Removed = 4,
}

impl State {
    pub fn from_number(number: i64) -> Option<Self> {
        [Self::Open, Self::Held, Self::Delivered, Self::Failed, Self::Removed].into_iter().find(|s| *s as i64 == number)
    }
}

/// What became of one attempt at one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub kind: OutcomeKind,
    pub remote: String,
    pub reply: String,
    pub code: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeKind {
    Delivered { relayed: bool, into_mailbox: bool },
    Deferred { retry_after_s: u32 },
    Failed,
}

/// One recipient of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    pub recipient: Recipient,
    pub outcome: Outcome,
    pub at: i64,
}

/// What a settle did to one recipient: the kind of its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecipientKind {
    Delivered = 0,
    Deferred = 1,
    Failed = 2,
    Expired = 3,
}

/// What a report says. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportKind {
    Delivered = 3,
    Delayed = 2,
    Failed = 1,
}

impl ReportKind {
    /// Failed outweighs delayed, which outweighs delivered.
    pub fn gravity(self) -> u8 {
        match self {
            Self::Delivered => 0,
            Self::Delayed => 1,
            Self::Failed => 2,
        }
    }

    pub fn from_number(number: i64) -> Option<Self> {
        [Self::Delivered, Self::Delayed, Self::Failed].into_iter().find(|kind| *kind as i64 == number)
    }
}

/// What is kept of a message beside its text.
#[derive(Debug, Clone)]
pub struct MessageMeta {
    pub seq: Seq,
    pub id: String,
    pub received_at: i64,
    pub body_bytes: u64,
    pub body_file: Option<String>,
    pub body_type: i32,
    pub smtp_utf8: bool,
    pub header_message_id: String,
    pub origin: Origin,
}

/// A recipient as the store has it.
#[derive(Debug, Clone)]
pub struct StoredRecipient {
    pub key: i64,
    pub variant: u32,
    pub route: RouteId,
    pub state: State,
    pub due: i64,
    pub attempts: u32,
    pub warned: bool,
    pub recipient: Recipient,
    pub last_at: Option<i64>,
    pub last_remote: String,
    pub last_reply: String,
    pub last_code: String,
    pub hold_reason: String,
}

/// A line of a message's history. `text` is a JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub message_id: String,
    pub number: i64,
    pub at: i64,
    pub kind: String,
    pub text: String,
    /// Written only where this message is in the store after the inserts of the same operation.
    pub only_with: Option<Seq>,
}

/// Everything that a delivery carries: read from the store, or kept from the commit.
#[derive(Debug, Clone)]
pub struct Content {
    pub seq: Seq,
    pub variant: u32,
    pub id: String,
    pub received_at: i64,
    pub body_bytes: u64,
    pub body: Option<Bytes>,
    pub body_type: i32,
    pub smtp_utf8: bool,
    pub text: Variant,
    pub recipients: Vec<DueRecipient>,
}

#[derive(Debug, Clone)]
pub struct DueRecipient {
    pub number: u32,
    pub recipient: Recipient,
    pub attempts: u32,
    pub warned: bool,
    pub due: i64,
}

/// A report obligation with what is needed to write it.
#[derive(Debug, Clone)]
pub struct StoredReport {
    pub key: ReportKey,
    pub seq: Seq,
    pub variant: u32,
    pub kind: ReportKind,
    pub due: i64,
    pub attempts: u32,
    pub expires_at: i64,
    pub recipients: Vec<Reported>,
    pub text: Variant,
    pub body_bytes: u64,
    pub received_at: i64,
    pub smtp_utf8: bool,
}
