//! What is known of a route: bounded, however much is queued for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::model::Seq;

/// Heads of one route that are read at a time.
pub(super) const ROUTE_HEADS_MAX: usize = 256;
/// Heads of one route that are kept in memory while they come from commits: what waits there need not be read.
pub(super) const ROUTE_FRESH_MAX: usize = 4096;
/// Heads of all routes that are kept in memory, beyond one of each.
pub(super) const HEADS_MAX: usize = 32 << 10;

/// Recipients of one message-variant that are due.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) seq: Seq,
    pub(super) variant: u32,
    pub(super) due: i64,
    pub(super) bytes: u64,
    pub(super) numbers: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct Route {
    pub(super) transport: Arc<str>,
    pub(super) name: Arc<str>,
    /// Whether the store knows the route.
    pub(super) stored: bool,
    pub(super) in_flight: u32,
    /// Recipients in flight.
    pub(super) taken: u32,
    pub(super) paused_until: Option<Instant>,
    /// The store may have something, beyond the heads here and the leases, that is due from then on.
    pub(super) next_due: Option<i64>,
    pub(super) heads: VecDeque<Head>,
    /// Stands in `ready`, or its heads are being read.
    pub(super) queued: bool,
    /// The earliest entry in `timers`.
    pub(super) timer: Option<i64>,
}

impl Route {
    pub(super) fn new(transport: Arc<str>, name: Arc<str>) -> Self {
        Self {
            transport,
            name,
            stored: false,
            in_flight: 0,
            taken: 0,
            paused_until: None,
            next_due: None,
            heads: VecDeque::new(),
            queued: false,
            timer: None,
        }
    }

    pub(super) fn may_have(&mut self, due: Option<i64>) {
        self.next_due = match (self.next_due, due) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    pub(super) fn is_due(&self, now: i64) -> bool {
        self.next_due.is_some_and(|due| due <= now)
    }

    /// Nothing waits, works or rests here. The store may still have held mail of it.
    pub(super) fn is_idle(&self, instant: Instant) -> bool {
        let waits = self.queued || self.timer.is_some() || self.next_due.is_some() || !self.heads.is_empty();
        !waits && self.in_flight == 0 && !self.is_paused(instant)
    }

    pub(super) fn is_paused(&self, instant: Instant) -> bool {
        self.paused_until.is_some_and(|until| until > instant)
    }
}
