//! Who takes deliveries.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::leases::Token;
use crate::model::{Content, StoredReport};

/// Credit that one holder can pile up.
const CREDIT_MAX: u32 = 10_000;
/// Batches that wait for a holder who reads slowly.
const BATCHES_MAX: usize = 256;

/// One batch for a holder.
#[derive(Debug, Default)]
pub struct Handout {
    pub deliveries: Vec<(Token, Arc<str>, Arc<str>, Content)>,
    pub reports: Vec<(Token, StoredReport)>,
}

/// Bounds of a transport's routes.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub in_flight_per_route: u32,
    pub recipients_per_delivery: u32,
}

impl Default for Limit {
    /// As for a transport whose resource says nothing.
    fn default() -> Self {
        Self { in_flight_per_route: 10, recipients_per_delivery: 100 }
    }
}

pub struct Holder {
    id: u64,
    credit: u32,
    limits: HashMap<Arc<str>, Limit>,
    out: mpsc::Sender<Handout>,
}

/// All holders, asked in turn.
#[derive(Default)]
pub struct Holders {
    list: Vec<Holder>,
    next_id: u64,
    turn: usize,
}

impl Holders {
    pub fn open(&mut self) -> (u64, mpsc::Receiver<Handout>) {
        let (out, receiver) = mpsc::channel(BATCHES_MAX);
        self.next_id += 1;
        self.list.push(Holder { id: self.next_id, credit: 0, limits: HashMap::new(), out });
        (self.next_id, receiver)
    }

    pub fn close(&mut self, id: u64) {
        self.list.retain(|holder| holder.id != id);
    }

    /// Ends every stream: the process is about to end.
    pub fn close_all(&mut self) {
        self.list.clear();
    }

    pub fn credit(&mut self, id: u64, more: u32) {
        if let Some(holder) = self.list.iter_mut().find(|holder| holder.id == id) {
            holder.credit = holder.credit.saturating_add(more).min(CREDIT_MAX);
        }
    }

    pub fn limit(&mut self, id: u64, limits: HashMap<Arc<str>, Limit>) {
        if let Some(holder) = self.list.iter_mut().find(|holder| holder.id == id) {
            holder.limits = limits;
        }
    }

    pub fn any_credit(&self) -> bool {
        self.list.iter().any(Holder::can_take)
    }

    /// Takes one credit of the next holder who would take one more delivery of a route; tells who, and how many
    /// recipients it may have.
    pub fn take(&mut self, transport: &str, in_flight: u32) -> Option<(u64, u32)> {
        let n = self.list.len();
        for step in 0..n {
            let at = (self.turn + step) % n;
            let holder = &mut self.list[at];
            let limit = holder.limits.get(transport).copied().unwrap_or_default();
            if holder.can_take() && in_flight < limit.in_flight_per_route {
                holder.credit -= 1;
                self.turn = (at + 1) % n;
                return Some((self.list[at].id, limit.recipients_per_delivery.max(1)));
            }
        }
        None
    }

    /// Sends a batch; `false`: the holder is gone or does not read.
    pub fn send(&mut self, id: u64, handout: Handout) -> Result<(), Handout> {
        match self.list.iter().find(|holder| holder.id == id) {
            Some(holder) => holder.out.try_send(handout).map_err(|error| match error {
                mpsc::error::TrySendError::Full(handout) | mpsc::error::TrySendError::Closed(handout) => handout,
            }),
            None => Err(handout),
        }
    }
}

impl Holder {
    fn can_take(&self) -> bool {
        self.credit > 0 && !self.out.is_closed() && self.out.capacity() > 0
    }
}
