//! The seam between the queue and what holds it.

pub mod sqlite;

use std::collections::HashSet;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::model::{
    Content, Event, MessageMeta, NewMessage, ReportKind, Reported, RouteId, Seq, State, StoredRecipient, StoredReport,
    Variant,
};

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The store is in trouble: full, read-only, broken, or a commit in doubt. Transient, nobody's fault.
    #[error("store: {0}")]
    Trouble(String),
    /// There is no room. Transient as other trouble is; the client is told which.
    #[error("store is full: {0}")]
    Full(String),
    /// The store is well; it is this request that it cannot take.
    #[error("store refused: {0}")]
    Refused(String),
}

impl StoreError {
    /// Whether it is the store that is not well. Everything but the fault of one request.
    pub fn is_trouble(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

/// What one operation wants to write. Several are written in one transaction.
#[derive(Debug, Default, Clone)]
pub struct Write {
    /// Inserted where neither the id nor a trace of it is here, and the report that it fulfils is still owed.
    pub message: Option<Arc<NewMessage>>,
    /// Routes that the store may not know yet.
    pub routes: Vec<NewRoute>,
    /// Results of attempts.
    pub updates: Vec<RecipientUpdate>,
    /// Changes by people.
    pub changes: Vec<RecipientChange>,
    /// New obligations; one that is here stays as it is.
    pub reports: Vec<NewReport>,
    /// Obligations that are fulfilled or dropped.
    pub reports_done: Vec<i64>,
    /// Obligations that are due later.
    pub reports_later: Vec<ReportLater>,
    /// Lines of history.
    pub events: Vec<Event>,
    /// Messages that leave the store if nothing of them is open or owed.
    pub finish: Vec<Seq>,
    /// The same by id.
    pub finish_ids: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct NewRoute {
    pub route: RouteId,
    pub transport: Arc<str>,
    pub name: Arc<str>,
}

#[derive(Debug, Clone)]
pub struct RecipientUpdate {
    pub key: i64,
    /// `Open` leaves a hold that came meanwhile in place.
    pub state: State,
    pub due: i64,
    pub attempts: u32,
    pub warned: bool,
    pub at: i64,
    pub remote: String,
    pub reply: String,
    pub code: String,
}

/// A change that is made where the recipient is in state `from`.
#[derive(Debug, Clone)]
pub struct RecipientChange {
    pub key: i64,
    pub from: State,
    pub to: State,
    pub due: Option<i64>,
    pub reason: String,
}

#[derive(Debug, Clone)]
pub struct NewReport {
    pub number: i64,
    pub seq: Seq,
    pub variant: u32,
    pub kind: ReportKind,
    pub due: i64,
    pub expires_at: i64,
    pub recipients: Vec<Reported>,
}

#[derive(Debug, Clone)]
pub struct ReportLater {
    pub number: i64,
    pub due: i64,
    pub attempts: u32,
}

/// What a transaction did.
#[derive(Debug, Default)]
pub struct Written {
    /// Messages that are new in the store.
    pub inserted: HashSet<Seq>,
    /// Recipients whose change took place.
    pub changed: Vec<i64>,
    /// Obligations that are new.
    pub reports: Vec<i64>,
    /// Obligations that are gone.
    pub reports_done: Vec<i64>,
    /// Messages that left, and the files of their bodies.
    pub finished: Vec<(Seq, Option<String>)>,
}

/// What a process must know of its store when it starts.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Greater than in every run before, durable.
    pub epoch: i64,
    /// The next message's number.
    pub next_seq: Seq,
    pub messages: u64,
    pub open: u64,
    pub held: u64,
    pub reports: u64,
}

#[derive(Debug, Clone)]
pub struct StoredRoute {
    pub route: RouteId,
    pub transport: Arc<str>,
    pub name: Arc<str>,
    /// When its first open recipient is due.
    pub due: Option<i64>,
}

/// An open recipient of a route.
#[derive(Debug, Clone, Copy)]
pub struct HeadRow {
    pub route: RouteId,
    pub due: i64,
    pub key: i64,
    pub variant: u32,
    pub bytes: u64,
}

/// Names recipients of one message-variant.
#[derive(Debug, Clone)]
pub struct Pick {
    pub seq: Seq,
    pub variant: u32,
    pub numbers: Vec<u32>,
}

/// A report, or the number of one that cannot be read and the reason.
pub type ReadReport = Result<StoredReport, (i64, String)>;

/// Which recipients a person means. Conditions are joined by AND; what is empty does not filter.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    pub message_ids: Vec<String>,
    pub sender: String,
    pub recipient: String,
    pub route: String,
    pub transport: String,
    pub states: Vec<State>,
    pub due_until: Option<i64>,
    pub due_after: Option<i64>,
    pub received_until: Option<i64>,
    /// Only these.
    pub keys: Option<Vec<i64>>,
    /// None of these.
    pub keys_not: Vec<i64>,
}

/// A recipient that a [`Selection`] found, with what a report needs.
#[derive(Debug, Clone)]
pub struct Selected {
    pub message_id: String,
    pub received_at: i64,
    pub sender: String,
    pub recipient: StoredRecipient,
}

/// A message of a list.
#[derive(Debug, Clone)]
pub struct Listed {
    pub meta: MessageMeta,
    pub sender: String,
    pub recipients: Vec<StoredRecipient>,
}

/// Whose events are asked for.
#[derive(Debug, Clone)]
pub enum TraceBy {
    MessageId(String),
    Address(String),
    HeaderMessageId(String),
}

/// A durable home of messages.
///
/// Reads see what was written before they began. Every call may fail with [`StoreError::Trouble`] and be repeated.
pub trait Store: Send + Sync + 'static {
    /// Reads what a process must know, raises the epoch, durably, and drops routes that no open or held recipient uses.
    fn load(&self) -> impl Future<Output = Result<Loaded, StoreError>> + Send;

    /// Writes a group in one transaction: on return it is durable as a whole; on an error none of it counts (where the
    /// error is trouble, it may still turn out to be there). `Refused` names one operation's own fault: the caller then
    /// writes them one by one. May block the thread that polls it: the writer has one of its own.
    fn write(&self, group: &[Write]) -> impl Future<Output = Result<Written, StoreError>> + Send;

    /// All routes with the time when each is next due.
    fn routes(&self) -> impl Future<Output = Result<Vec<StoredRoute>, StoreError>> + Send;

    /// Drops those of these routes that no open or held recipient uses, durably. Returns which.
    fn drop_routes(&self, routes: &[RouteId]) -> impl Future<Output = Result<Vec<RouteId>, StoreError>> + Send;

    /// The first open recipients of each route by due time, due or not, up to the number asked for.
    fn heads(&self, asks: &[(RouteId, u32)]) -> impl Future<Output = Result<Vec<HeadRow>, StoreError>> + Send;

    /// What deliveries carry, one answer per pick in order: `Ok(None)` is gone; `Err` is a row that cannot be read.
    fn contents(
        &self,
        picks: &[Pick],
    ) -> impl Future<Output = Result<Vec<Result<Option<Content>, String>>, StoreError>> + Send;

    /// Obligations by due time, due or not; one that cannot be read comes as `(number, reason)`.
    fn reports(&self, limit: u32) -> impl Future<Output = Result<Vec<ReadReport>, StoreError>> + Send;

    /// One message by id.
    fn message(&self, id: &str) -> impl Future<Output = Result<Option<MessageMeta>, StoreError>> + Send;
    /// The body of a message that is kept inline.
    fn body(&self, seq: Seq) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send;
    /// All variants of a message, in order.
    fn variants(&self, seq: Seq) -> impl Future<Output = Result<Vec<Variant>, StoreError>> + Send;

    /// Messages with a recipient that is meant, newest first, with all their recipients, going on after an id.
    fn list(
        &self,
        selection: &Selection,
        after: &str,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Listed>, StoreError>> + Send;
    /// Recipients that are meant, in the order of their keys, going on after a key.
    fn select(
        &self,
        selection: &Selection,
        after: i64,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Selected>, StoreError>> + Send;
    /// Events of up to `limit` messages, the newest messages, oldest event first.
    fn trace(&self, by: &TraceBy, limit: u32) -> impl Future<Output = Result<Vec<Event>, StoreError>> + Send;
    /// How many open recipients of these routes are due until `until`.
    fn due_count(&self, routes: &[RouteId], until: i64) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Which of these body files messages still need.
    fn known_bodies(&self, names: &[String]) -> impl Future<Output = Result<HashSet<String>, StoreError>> + Send;
    /// Drops up to `limit` events from before `until` whose messages are gone. Returns how many.
    fn trim_events(&self, until: i64, limit: u32) -> impl Future<Output = Result<u64, StoreError>> + Send;
    /// Work that keeps the store fast, off the path of messages.
    fn tidy(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Writes something durable and harmless: tells whether trouble is over.
    fn probe(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// A consistent copy in a folder whose layout is that of `<state>/queue`. Returns the names of the body files that it needs, how
    /// many messages it has, and its size.
    fn backup(&self, folder: &Path) -> impl Future<Output = Result<BackedUp, StoreError>> + Send;
}

/// What [`Store::backup`] wrote.
#[derive(Debug, Default)]
pub struct BackedUp {
    pub body_files: Vec<String>,
    pub messages: u64,
    pub bytes: u64,
}
