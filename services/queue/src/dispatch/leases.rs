//! Leases: who works on what, until when.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::LEASE;
use super::state::State;
use crate::model::{DueRecipient, RouteId, Seq, State as RecipientState, key, seq_of};
use crate::store::{RecipientChange, RecipientUpdate};

/// Names a lease. The epoch is the run of the process: a token of another run fits nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    pub number: i64,
    pub epoch: i64,
}

/// A delivery that somebody works on.
#[derive(Debug)]
pub struct Leased {
    pub number: i64,
    pub route: RouteId,
    pub transport: Arc<str>,
    pub seq: Seq,
    pub variant: u32,
    pub id: String,
    pub sender: String,
    pub received_at: i64,
    pub leased_at: i64,
    pub recipients: Vec<DueRecipient>,
}

/// A report that somebody writes.
#[derive(Debug, Clone)]
pub struct LeasedReport {
    pub number: i64,
    pub seq: Seq,
    pub message_id: String,
    pub attempts: u32,
}

#[derive(Debug, Clone)]
pub enum Work {
    Delivery(Arc<Leased>),
    Report(LeasedReport),
}

#[derive(Debug)]
pub struct Lease {
    pub expires: Instant,
    /// Its settle is on the way to disk: it neither expires nor is settled again.
    pub settling: bool,
    /// The attempt has ended, its settle is still to be written: the route has room for another.
    pub over: bool,
    pub work: Work,
}

impl State {
    // Leases.

    /// Begins to settle: `None` is a lease that had passed on.
    pub fn begin_settle(&mut self, token: Token, instant: Instant) -> Option<Work> {
        let lease = self.leases.get_mut(&token.number).filter(|_| token.epoch == self.epoch)?;
        if lease.settling || lease.expires <= instant {
            return None;
        }
        lease.settling = true;
        Some(lease.work.clone())
    }

    /// A holder says that its attempt is over. The route's next delivery need not wait until that is on disk.
    pub fn attempt_over(&mut self, token: Token, pause: Option<Duration>, now: i64, instant: Instant) {
        let Some(lease) = self.leases.get_mut(&token.number).filter(|_| token.epoch == self.epoch) else { return };
        if lease.over || lease.settling || lease.expires <= instant {
            return;
        }
        lease.over = true;
        let Work::Delivery(leased) = &lease.work else { return };
        let id = leased.route;
        if let Some(route) = self.routes.get_mut(&id) {
            route.in_flight = route.in_flight.saturating_sub(1);
        }
        if let Some(pause) = pause {
            self.pause(id, instant + pause);
        }
        self.ready_if_due(id, now);
    }

    /// The settle was not written: the lease lives on.
    pub fn abandon_settle(&mut self, number: i64) {
        if let Some(lease) = self.leases.get_mut(&number) {
            lease.settling = false;
        }
    }

    pub fn extend(&mut self, token: Token, instant: Instant) -> bool {
        let Some(lease) = self.leases.get_mut(&token.number).filter(|_| token.epoch == self.epoch) else {
            return false;
        };
        if lease.expires <= instant && !lease.settling {
            return false;
        }
        self.expiries.remove(&(lease.expires, token.number));
        lease.expires = instant + LEASE;
        self.expiries.insert((lease.expires, token.number));
        true
    }

    /// Ends a lease. What `updates` does not name goes back, due as it was.
    pub fn end(&mut self, number: i64, updates: &[RecipientUpdate], now: i64) {
        let Some(lease) = self.leases.remove(&number) else { return };
        self.expiries.remove(&(lease.expires, number));
        match lease.work {
            Work::Report(report) => {
                self.reports_taken.remove(&report.number);
                // Whether it is still owed, and when it is due, the store knows.
                self.report_due(now);
            }
            Work::Delivery(leased) => {
                if !lease.over
                    && let Some(route) = self.routes.get_mut(&leased.route)
                {
                    route.in_flight = route.in_flight.saturating_sub(1);
                }
                self.end_delivery(&leased, updates, now);
            }
        }
    }

    pub(super) fn end_delivery(&mut self, leased: &Leased, updates: &[RecipientUpdate], now: i64) {
        self.touched.insert(leased.seq);
        if !updates.is_empty() {
            self.recent.forget(leased.seq);
        }
        let mut due: Option<i64> = None;
        let mut may_have = |at: i64| due = Some(due.map_or(at, |other| other.min(at)));
        for recipient in &leased.recipients {
            let key = key(leased.seq, recipient.number);
            self.taken.remove(&key);
            let before = self.changed.remove(&key).unwrap_or(RecipientState::Open);
            match updates.iter().find(|update| update.key == key) {
                None if before == RecipientState::Open => may_have(recipient.due),
                Some(update) if update.state == RecipientState::Open && before == RecipientState::Open => {
                    may_have(update.due);
                }
                Some(update) if update.state != RecipientState::Open => match before {
                    RecipientState::Open => self.counts.open = self.counts.open.saturating_sub(1),
                    RecipientState::Held => self.counts.held = self.counts.held.saturating_sub(1),
                    _ => {}
                },
                _ => {}
            }
        }
        if let Some(route) = self.routes.get_mut(&leased.route) {
            route.taken = route.taken.saturating_sub(leased.recipients.len() as u32);
            route.may_have(due);
        }
        self.ready_if_due(leased.route, now);
    }

    pub(super) fn expire(&mut self, now: i64, instant: Instant) {
        let mut spared = Vec::new();
        while let Some((at, number)) = self.expiries.first().copied().filter(|(at, _)| *at <= instant) {
            self.expiries.pop_first();
            if self.leases.get(&number).is_some_and(|lease| lease.settling) {
                spared.push((at, number));
                continue;
            }
            tracing::info!(lease = number, "lease expired");
            self.end(number, &[], now);
        }
        self.expiries.extend(spared);
    }

    /// Nothing of a route is leased for a while.
    pub fn pause(&mut self, id: RouteId, until: Instant) {
        if let Some(route) = self.routes.get_mut(&id)
            && route.paused_until.is_none_or(|other| other < until)
        {
            route.paused_until = Some(until);
            self.pauses.insert((until, id));
        }
    }

    // People.

    /// Whether a recipient was removed while it was leased.
    pub fn was_removed(&self, key: i64) -> bool {
        self.changed.get(&key) == Some(&RecipientState::Removed)
    }

    /// Changes that took place in the store.
    pub fn changed(&mut self, done: &[(RecipientChange, RouteId)], now: i64) {
        for (change, id) in done {
            let seq = seq_of(change.key);
            self.touched.insert(seq);
            self.recent.forget(seq);
            if self.taken.contains(&change.key) && change.to != change.from {
                self.changed.insert(change.key, change.to);
            }
            match change.from {
                RecipientState::Open => self.counts.open = self.counts.open.saturating_sub(1),
                RecipientState::Held => self.counts.held = self.counts.held.saturating_sub(1),
                _ => {}
            }
            match change.to {
                RecipientState::Open => self.counts.open += 1,
                RecipientState::Held => self.counts.held += 1,
                _ => {}
            }
            if change.to == RecipientState::Open {
                // Whoever makes mail due by hand means it.
                self.unreadable.remove(&seq);
                if let Some(route) = self.routes.get_mut(id) {
                    route.paused_until = None;
                    route.may_have(Some(change.due.unwrap_or(now)));
                }
            }
            // Heads in memory may be among the changed: all of the route are read again.
            if let Some(route) = self.routes.get_mut(id)
                && let Some(first) = route.heads.front().map(|head| head.due)
            {
                self.heads -= route.heads.len();
                route.heads.clear();
                route.may_have(Some(first));
            }
            self.ready_if_due(*id, now);
        }
    }
}
