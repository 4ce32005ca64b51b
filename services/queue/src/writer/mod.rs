//! The one task that writes: all that waits becomes one transaction.
//!
//! A group forms while the one before is on its way to disk: a message waits for nobody. Results alone wait some
//! milliseconds for a message, and share its commit.

mod prepare;
mod task;

use tokio::sync::{mpsc, oneshot};

pub use task::{Task, start};

use crate::dispatch::Token;
use crate::model::{Body, Origin, Outcome, Recipient, ReportKey, RouteId, State as RecipientState, Variant};
use crate::store::{NewReport, RecipientChange, StoreError};

/// Operations that wait for the writer; whoever comes then waits to be let in.
const WAITING_MAX: usize = 1024;

/// A message that ingress has committed; it has no number yet.
#[derive(Debug)]
pub struct Accepted {
    pub id: String,
    pub received_at: i64,
    pub body: Body,
    pub body_bytes: u64,
    pub body_type: i32,
    pub smtp_utf8: bool,
    pub origin: Origin,
    pub header_message_id: String,
    pub variants: Vec<Variant>,
    /// With the variant of each.
    pub recipients: Vec<(u32, Recipient)>,
    pub report: Option<ReportKey>,
}

/// What became of a lease.
#[derive(Debug)]
pub struct Settlement {
    pub token: Token,
    pub results: Vec<(u32, Outcome)>,
    pub pause: Option<std::time::Duration>,
    pub report: ReportEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportEnd {
    None,
    Failed,
    Dropped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Recorded,
    Stale,
}

/// Changes that people make, and what follows of them.
#[derive(Debug, Default)]
pub struct Changes {
    /// With the route of each.
    pub changes: Vec<(RecipientChange, RouteId)>,
    /// Message id, kind, text.
    pub events: Vec<(String, &'static str, String)>,
    /// Their numbers are given by the writer.
    pub reports: Vec<NewReport>,
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

enum Op {
    Accept(Box<Accepted>, Reply<bool>),
    Settle(Vec<Settlement>, Reply<Vec<Answer>>),
    Change(Changes, Option<Reply<Vec<i64>>>),
    DropReport(i64),
    TrimRoutes,
    Probe(oneshot::Sender<()>),
}

/// The way to the writer. Cloning is cheap.
#[derive(Clone)]
pub struct Writer {
    ops: mpsc::Sender<Op>,
}

/// The writer is gone with the process's end.
fn gone() -> StoreError {
    StoreError::Trouble("the queue has stopped".to_owned())
}

impl Writer {
    /// Makes a message durable. `true`: its id was here already, and nothing was written.
    pub async fn accept(&self, accepted: Accepted) -> Result<bool, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.ops.send(Op::Accept(Box::new(accepted), reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Records results. Durable on return; one answer per settlement.
    pub async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<Answer>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.ops.send(Op::Settle(settlements, reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Makes changes durable. Returns the keys of those that took place.
    pub async fn change(&self, changes: Changes) -> Result<Vec<i64>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.ops.send(Op::Change(changes, Some(reply))).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Holds recipients that cannot be read, soon.
    pub fn set_aside(&self, keys: Vec<(i64, RouteId)>, reason: String) {
        let hold = |(key, route)| {
            let (from, to) = (RecipientState::Open, RecipientState::Held);
            (RecipientChange { key, from, to, due: None, reason: reason.clone() }, route)
        };
        let changes = Changes { changes: keys.into_iter().map(hold).collect(), ..Changes::default() };
        // A full channel means a busy store: the message is passed over in this run all the same.
        let _ = self.ops.try_send(Op::Change(changes, None));
    }

    /// Drops an obligation that cannot be read, soon.
    pub fn drop_report(&self, number: i64) {
        let _ = self.ops.try_send(Op::DropReport(number));
    }

    /// Lets go of routes that nothing is queued for, soon: between two groups, so that no message is on its way to one.
    pub fn trim_routes(&self) {
        let _ = self.ops.try_send(Op::TrimRoutes);
    }

    /// Lets the writer find out whether trouble is over.
    pub async fn probe(&self) {
        let (reply, answer) = oneshot::channel();
        if self.ops.send(Op::Probe(reply)).await.is_ok() {
            let _ = answer.await;
        }
    }
}
