//! The one task that writes: all that waits becomes one transaction.
//!
//! A group forms while the one before is on its way to disk, never by a timer: a lonely operation waits for nobody.

use std::sync::Arc;

use node::Clock;
use tokio::sync::{mpsc, oneshot};
use types::Timestamp;

use crate::bodies::BodyStore;
use crate::context::{Cleaner, Condition, Settings};
use crate::dispatch::{Dispatch, State, Token, Work};
use crate::events;
use crate::model::{
    Body, Event, NewMessage, NewRecipient, Origin, Outcome, Recipient, ReportKey, RouteId, State as RecipientState, Variant, seq_of,
};
use crate::settle::{Attempt, settle};
use crate::store::{NewReport, NewRoute, RecipientChange, RecipientUpdate, ReportLater, Store, StoreError, Write, Written};

/// Operations of one group.
const GROUP_MAX: usize = 512;
/// Octets of bodies and header sections of one group.
const GROUP_BYTES: u64 = 16 << 20;
/// Operations that wait for the writer; whoever comes then waits to be let in.
const WAITING_MAX: usize = 1024;
/// Attempts to submit a report before it is dropped: five days by the default schedule.
const REPORT_ATTEMPTS_MAX: u32 = 36;

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

    /// Lets the writer find out whether trouble is over.
    pub async fn probe(&self) {
        let (reply, answer) = oneshot::channel();
        if self.ops.send(Op::Probe(reply)).await.is_ok() {
            let _ = answer.await;
        }
    }
}

/// An operation that is ready to be written, and what happens when it was.
struct Prepared {
    write: Write,
    then: Then,
}

enum Then {
    Accept { message: Arc<NewMessage>, reply: Reply<bool> },
    Settle { ends: Vec<End>, answers: Vec<Answer>, reply: Reply<Vec<Answer>> },
    Change { changes: Vec<(RecipientChange, RouteId)>, reply: Option<Reply<Vec<i64>>> },
    DropReport,
}

/// A lease that ends with a settle.
struct End {
    number: i64,
    updates: Vec<RecipientUpdate>,
}

pub struct Task<S, B> {
    pub store: Arc<S>,
    pub dispatch: Arc<Dispatch>,
    pub settings: Settings,
    pub condition: Condition,
    pub cleaner: Arc<Cleaner<B>>,
    pub clock: Clock,
}

/// Starts the writer over a store that has been loaded.
pub fn start<S: Store, B: BodyStore>(task: Task<S, B>) -> Writer {
    let (ops, waiting) = mpsc::channel(WAITING_MAX);
    tokio::spawn(task.run(waiting));
    Writer { ops }
}

impl<S: Store, B: BodyStore> Task<S, B> {
    async fn run(self, mut waiting: mpsc::Receiver<Op>) {
        let mut ops = Vec::with_capacity(GROUP_MAX);
        let mut next: Option<Op> = None;
        loop {
            let first = match next.take() {
                Some(op) => op,
                None => match waiting.recv().await {
                    Some(op) => op,
                    None => return,
                },
            };
            let mut bytes = weight(&first);
            let mut apart = Apart::default();
            apart.admit(&first);
            ops.push(first);
            while ops.len() < GROUP_MAX && bytes < GROUP_BYTES {
                let Ok(op) = waiting.try_recv() else { break };
                bytes += weight(&op);
                if !apart.admit(&op) {
                    next = Some(op);
                    break;
                }
                ops.push(op);
            }
            self.group(&mut ops).await;
        }
    }

    /// Writes one group and answers everybody in it.
    async fn group(&self, ops: &mut Vec<Op>) {
        if let Some(reason) = self.condition.troubled() {
            if let Err(error) = self.recover().await {
                tracing::debug!(%error, "store is still in trouble");
                for op in ops.drain(..) {
                    refuse(op, &StoreError::Trouble(reason.clone()));
                }
                return;
            }
        }
        let (now, instant) = (self.clock.now(), self.clock.instant());
        let mut writes = Vec::with_capacity(ops.len());
        let mut thens = Vec::with_capacity(ops.len());
        {
            let mut state = self.dispatch.lock();
            for op in ops.drain(..) {
                if let Some(prepared) = self.prepare(op, &mut state, now, instant) {
                    writes.push(prepared.write);
                    thens.push(prepared.then);
                }
            }
        }
        if writes.is_empty() {
            self.dispatch.wake();
            return;
        }
        metrics::histogram!("posthouse_queue_group_size").record(writes.len() as f64);
        let result = self.store.write(&writes).await;
        metrics::histogram!("posthouse_queue_commit_seconds")
            .record(self.clock.instant().saturating_duration_since(instant).as_secs_f64());
        match result {
            Ok(written) => self.done(&writes, thens, &written),
            Err(StoreError::Refused(reason)) if writes.len() > 1 => {
                tracing::warn!(reason, "a group was refused, writing its operations one by one");
                for (write, then) in writes.into_iter().zip(thens) {
                    let group = [write];
                    match self.store.write(&group).await {
                        Ok(written) => self.done(&group, vec![then], &written),
                        Err(error) => self.failed(vec![then], &error),
                    }
                }
            }
            Err(error) => self.failed(thens, &error),
        }
        self.dispatch.wake();
    }

    /// After trouble: looks what is really there before anything else is written or handed out.
    async fn recover(&self) -> Result<(), StoreError> {
        self.store.probe().await?;
        let loaded = self.store.load().await?;
        let routes = self.store.routes().await?;
        self.dispatch.lock().load(&loaded, routes, self.clock.now().unix_ms());
        self.dispatch.wake();
        self.condition.well();
        Ok(())
    }

    fn prepare(&self, op: Op, state: &mut State, now: Timestamp, instant: std::time::Instant) -> Option<Prepared> {
        match op {
            Op::Accept(accepted, reply) => Some(prepare_accept(*accepted, state, now, reply)),
            Op::Settle(settlements, reply) => {
                let mut write = Write::default();
                let mut ends = Vec::with_capacity(settlements.len());
                let mut answers = Vec::with_capacity(settlements.len());
                for settlement in settlements {
                    let Some(work) = state.begin_settle(settlement.token, instant) else {
                        answers.push(Answer::Stale);
                        continue;
                    };
                    answers.push(Answer::Recorded);
                    let updates = self.prepare_settle(&work, &settlement, state, now, &mut write);
                    if let (Some(pause), Work::Delivery(leased)) = (settlement.pause, &work) {
                        state.pause(leased.route, instant + pause);
                    }
                    ends.push(End { number: settlement.token.number, updates });
                }
                if write.is_empty() {
                    // Leases that go back, or passed on: nothing of that is durable.
                    for end in ends {
                        state.end(end.number, &[], now.unix_ms());
                    }
                    let _ = reply.send(Ok(answers));
                    return None;
                }
                Some(Prepared { write, then: Then::Settle { ends, answers, reply } })
            }
            Op::Change(changes, reply) => Some(prepare_change(changes, reply, state, now)),
            Op::DropReport(number) => {
                let write = Write { reports_done: vec![number], ..Write::default() };
                Some(Prepared { write, then: Then::DropReport })
            }
            Op::Probe(reply) => {
                // Trouble was looked into before the group was prepared.
                let _ = reply.send(());
                None
            }
        }
    }

    fn prepare_settle(
        &self,
        work: &Work,
        settlement: &Settlement,
        state: &mut State,
        now: Timestamp,
        write: &mut Write,
    ) -> Vec<RecipientUpdate> {
        match work {
            Work::Delivery(leased) => {
                if settlement.results.is_empty() {
                    return Vec::new();
                }
                let attempt = Attempt {
                    seq: leased.seq,
                    variant: leased.variant,
                    sender: &leased.sender,
                    received_at: leased.received_at,
                    leased_at: leased.leased_at,
                    recipients: &leased.recipients,
                };
                let schedule = self.settings.schedule(&leased.transport);
                let settled = settle(&attempt, &settlement.results, &schedule, now, leased.number);
                for (kind, text) in settled.events {
                    write.events.push(event(state, leased.id.clone(), now, kind, text));
                }
                write.reports.extend(settled.report);
                write.finish.push(leased.seq);
                write.updates.extend(settled.updates.iter().cloned());
                settled.updates
            }
            Work::Report(report) => {
                let attempts = report.attempts + 1;
                let drop = settlement.report == ReportEnd::Dropped || attempts >= REPORT_ATTEMPTS_MAX;
                match settlement.report {
                    ReportEnd::None => {}
                    _ if drop => {
                        let text = events::report_dropped(report.number, attempts);
                        write.events.push(event(state, report.message_id.clone(), now, "report", text));
                        write.reports_done.push(report.number);
                        write.finish.push(report.seq);
                    }
                    _ => {
                        let schedule = schedule::Schedule::default();
                        let wait = match schedule.next(attempts, std::time::Duration::ZERO) {
                            schedule::Next::RetryIn(wait) => wait,
                            schedule::Next::GiveUp => schedule.delay_max,
                        };
                        let due = now.plus(wait).unix_ms();
                        write.reports_later.push(ReportLater { number: report.number, due, attempts });
                    }
                }
                Vec::new()
            }
        }
    }

    /// The group is durable: memory follows, and everybody is answered.
    fn done(&self, writes: &[Write], thens: Vec<Then>, written: &Written) {
        let (now, instant) = (self.clock.now().unix_ms(), self.clock.instant());
        let mut answers: Vec<Box<dyn FnOnce() + Send>> = Vec::with_capacity(thens.len());
        {
            let mut state = self.dispatch.lock();
            let mut messages = Vec::new();
            for write in writes {
                for route in &write.routes {
                    state.route_stored(route.route);
                }
            }
            for then in thens {
                match then {
                    Then::Accept { message, reply } => {
                        let new = written.inserted.contains(&message.seq);
                        if new {
                            messages.push(message);
                        }
                        answers.push(Box::new(move || drop(reply.send(Ok(!new)))));
                    }
                    Then::Settle { ends, answers: of, reply } => {
                        for end in &ends {
                            state.end(end.number, &end.updates, now);
                        }
                        answers.push(Box::new(move || drop(reply.send(Ok(of)))));
                    }
                    Then::Change { mut changes, reply } => {
                        let done: std::collections::HashSet<i64> = written.changed.iter().copied().collect();
                        changes.retain(|(change, _)| done.contains(&change.key));
                        state.changed(&changes, now);
                        let keys = changes.iter().map(|(change, _)| change.key).collect();
                        if let Some(reply) = reply {
                            answers.push(Box::new(move || drop(reply.send(Ok(keys)))));
                        }
                    }
                    Then::DropReport => {}
                }
            }
            state.committed(&messages, now, instant);
            let counts = &mut state.counts;
            counts.messages = counts.messages.saturating_sub(written.finished.len() as u64);
            counts.reports += written.reports.len() as u64;
            counts.reports = counts.reports.saturating_sub(written.reports_done.len() as u64);
            if !written.reports.is_empty() {
                state.report_due(now);
            }
        }
        for answer in answers {
            answer();
        }
        let files: Vec<String> = written.finished.iter().filter_map(|(_, file)| file.clone()).collect();
        if !files.is_empty() {
            self.cleaner.delete(files);
        }
    }

    /// Nothing of it counts: everybody may come again.
    fn failed(&self, thens: Vec<Then>, error: &StoreError) {
        if let StoreError::Trouble(reason) = error {
            self.condition.trouble(reason.clone());
        } else {
            tracing::warn!(%error, "an operation was refused by the store");
        }
        let mut state = self.dispatch.lock();
        for then in thens {
            match then {
                Then::Accept { reply, .. } => drop(reply.send(Err(error.clone()))),
                Then::Settle { ends, reply, .. } => {
                    for end in ends {
                        state.abandon_settle(end.number);
                    }
                    drop(reply.send(Err(error.clone())));
                }
                Then::Change { reply: Some(reply), .. } => drop(reply.send(Err(error.clone()))),
                Then::Change { reply: None, .. } | Then::DropReport => {}
            }
        }
    }
}

impl Write {
    fn is_empty(&self) -> bool {
        self.message.is_none()
            && self.updates.is_empty()
            && self.changes.is_empty()
            && self.reports.is_empty()
            && self.reports_done.is_empty()
            && self.reports_later.is_empty()
            && self.events.is_empty()
    }
}

/// What cannot stand twice in one transaction: changes (of one recipient), and reports under one key.
#[derive(Default)]
struct Apart {
    change: bool,
    reports: Vec<i64>,
}

impl Apart {
    fn admit(&mut self, op: &Op) -> bool {
        match op {
            Op::Change(..) => !std::mem::replace(&mut self.change, true),
            Op::Accept(accepted, _) => match &accepted.report {
                Some(key) if self.reports.contains(&key.number) => false,
                Some(key) => {
                    self.reports.push(key.number);
                    true
                }
                None => true,
            },
            _ => true,
        }
    }
}

fn weight(op: &Op) -> u64 {
    match op {
        Op::Accept(accepted, _) => {
            let headers: usize = accepted.variants.iter().map(|variant| variant.header.len()).sum();
            let body = if let Body::Inline(body) = &accepted.body { body.len() } else { 0 };
            (headers + body) as u64
        }
        _ => 0,
    }
}

fn refuse(op: Op, error: &StoreError) {
    match op {
        Op::Accept(_, reply) => drop(reply.send(Err(error.clone()))),
        Op::Settle(_, reply) => drop(reply.send(Err(error.clone()))),
        Op::Change(_, Some(reply)) => drop(reply.send(Err(error.clone()))),
        Op::Probe(reply) => drop(reply.send(())),
        Op::Change(_, None) | Op::DropReport(_) => {}
    }
}

fn event(state: &mut State, message_id: String, now: Timestamp, kind: &str, text: String) -> Event {
    let number = state.number();
    Event { message_id, number, at: now.unix_ms(), kind: kind.to_owned(), text, only_with: None }
}

fn prepare_accept(accepted: Accepted, state: &mut State, now: Timestamp, reply: Reply<bool>) -> Prepared {
    let text = events::received(&accepted);
    let seq = state.seq();
    let mut routes: Vec<NewRoute> = Vec::new();
    let mut recipients = Vec::with_capacity(accepted.recipients.len());
    for (variant, mut recipient) in accepted.recipients {
        let (route, new) = state.route(&recipient.transport, &recipient.route);
        if let Some((transport, name)) = state.route_names(route) {
            // One copy of the names for all mail of the route.
            (recipient.transport, recipient.route) = (transport, name);
        }
        if let Some(new) = new.filter(|new| !routes.iter().any(|route| route.route == new.route)) {
            routes.push(new);
        }
        recipients.push(NewRecipient { variant, route, recipient });
    }
    let received = Event { only_with: Some(seq), ..event(state, accepted.id.clone(), now, "received", text) };
    let mut write = Write { routes, events: vec![received], ..Write::default() };
    if let Some(key) = &accepted.report {
        write.reports_done.push(key.number);
        write.finish_ids.push(key.message_id.clone());
        let text = events::report_sent(key.number, &accepted.id);
        let sent = event(state, key.message_id.clone(), now, "report", text);
        write.events.push(Event { only_with: Some(seq), ..sent });
    }
    let message = Arc::new(NewMessage {
        seq,
        id: accepted.id,
        received_at: accepted.received_at,
        due: now.unix_ms(),
        body: accepted.body,
        body_bytes: accepted.body_bytes,
        body_type: accepted.body_type,
        smtp_utf8: accepted.smtp_utf8,
        origin: accepted.origin,
        header_message_id: accepted.header_message_id,
        variants: accepted.variants,
        recipients,
        report: accepted.report,
    });
    write.message = Some(Arc::clone(&message));
    Prepared { write, then: Then::Accept { message, reply } }
}

fn prepare_change(changes: Changes, reply: Option<Reply<Vec<i64>>>, state: &mut State, now: Timestamp) -> Prepared {
    let mut write = Write { changes: changes.changes.iter().map(|(c, _)| c.clone()).collect(), ..Write::default() };
    write.finish = write.changes.iter().map(|change| seq_of(change.key)).collect();
    write.finish.dedup();
    for (message_id, kind, text) in changes.events {
        write.events.push(event(state, message_id, now, kind, text));
    }
    for report in changes.reports {
        let number = state.number();
        write.reports.push(NewReport { number, ..report });
    }
    Prepared { write, then: Then::Change { changes: changes.changes, reply } }
}
