//! The writer's task.

use std::sync::Arc;
use std::time::Duration;

use node::{Clock, Drain};
use tokio::sync::{mpsc, oneshot};
use types::Timestamp;

use super::prepare::{prepare_accept, prepare_change, prepare_settle};
use super::{Answer, Op, Reply, WAITING_MAX, Writer};
use crate::bodies::BodyStore;
use crate::context::{Cleaner, Condition, Settings};
use crate::dispatch::{Dispatch, State, Work};
use crate::model::{Body, NewMessage, RouteId};
use crate::store::{RecipientChange, RecipientUpdate, Store, StoreError, Write, Written};

/// Operations of one group.
const GROUP_MAX: usize = 512;
/// Octets of bodies and header sections of one group.
const GROUP_BYTES: u64 = 16 << 20;

/// How long results alone wait for a message to share its commit: one commit a message instead of two where little goes
/// on, and nobody waits for a result but its own record. It is also what the window of duplicates *out* grows by.
const SETTLES_WAIT_MAX: Duration = Duration::from_millis(4);

/// Idle routes that are dropped in one go: some ten milliseconds.
const ROUTES_TRIMMED_MAX: usize = 4096;

/// An operation that is ready to be written, and what happens when it was.
pub(super) struct Prepared {
    pub(super) write: Write,
    pub(super) then: Then,
}

pub(super) enum Then {
    Accept { message: Arc<NewMessage>, reply: Reply<bool> },
    Settle { ends: Vec<End>, answers: Vec<Answer>, reply: Reply<Vec<Answer>> },
    Change { changes: Vec<(RecipientChange, RouteId)>, reply: Option<Reply<Vec<i64>>> },
    DropReport,
}

/// A lease that ends with a settle.
pub(super) struct End {
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

/// Starts the writer over a store that has been loaded, in a thread of its own: a store may block it, and no commit waits
/// for a turn among the sessions. Without the writer nothing is taken and nothing settled.
pub fn start<S: Store, B: BodyStore>(task: Task<S, B>, drain: Option<&Drain>) -> std::io::Result<Writer> {
    let (ops, waiting) = mpsc::channel(WAITING_MAX);
    let runtime = tokio::runtime::Handle::current();
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new().name("queue-writer".to_owned()).spawn(move || {
        runtime.block_on(task.run(waiting));
        let _ = ended.send(());
    })?;
    if let Some(drain) = drain {
        // Without a word it has panicked.
        #[allow(clippy::panic, reason = "the panic of the thread goes on in the task that is watched")]
        drain.essential("queue writer", async { end.await.unwrap_or_else(|_| panic!("the writer's thread panicked")) });
    }
    Ok(Writer { ops })
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
            if matches!(first, Op::TrimRoutes) {
                self.trim_routes().await;
                continue;
            }
            let mut bytes = weight(&first);
            let mut apart = Apart::default();
            apart.admit(&first);
            let mut patience = Patience::of(&first);
            ops.push(first);
            while ops.len() < GROUP_MAX && bytes < GROUP_BYTES {
                let Some(op) = patience.next(&mut waiting).await else { break };
                bytes += weight(&op);
                if !apart.admit(&op) {
                    next = Some(op);
                    break;
                }
                patience.admit(&op);
                ops.push(op);
            }
            self.group(&mut ops).await;
        }
    }

    /// Writes one group and answers everybody in it.
    async fn group(&self, ops: &mut Vec<Op>) {
        if self.condition.troubled().is_some()
            && let Err(error) = self.recover().await
        {
            tracing::debug!(%error, "store is still in trouble");
            for op in ops.drain(..) {
                refuse(op, &error);
            }
            return;
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
        self.begin(&writes);
        let result = self.store.write(&writes).await;
        metrics::histogram!("posthouse_queue_commit_seconds")
            .record(self.clock.instant().saturating_duration_since(instant).as_secs_f64());
        match result {
            Ok(written) => self.done(&writes, thens, &written),
            Err(StoreError::Refused(reason)) if writes.len() > 1 => {
                tracing::warn!(reason, "a group was refused, writing its operations one by one");
                for (write, then) in writes.into_iter().zip(thens) {
                    let group = [write];
                    self.begin(&group);
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

    /// What these bring is not to be found by reading before it is known here.
    fn begin(&self, writes: &[Write]) {
        let messages = writes.iter().filter_map(|write| write.message.as_ref());
        self.dispatch.lock().writing = messages.map(|message| message.seq).min();
    }

    async fn trim_routes(&self) {
        let idle = self.dispatch.lock().idle_routes(ROUTES_TRIMMED_MAX, self.clock.instant());
        if idle.is_empty() {
            return;
        }
        match self.store.drop_routes(&idle).await {
            Ok(dropped) => self.dispatch.lock().forget_routes(&dropped),
            Err(error) => tracing::warn!(%error, "idle routes not dropped"),
        }
    }

    /// After trouble: looks what is really there before anything else is written or handed out.
    async fn recover(&self) -> Result<(), StoreError> {
        self.store.probe().await?;
        let loaded = self.store.load().await?;
        let routes = self.store.routes().await?;
        let now = self.dispatch.now().unix_ms();
        self.dispatch.lock().load(&loaded, routes, now);
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
                    let updates = prepare_settle(&self.settings, &work, &settlement, state, now, &mut write);
                    if let (Some(pause), Work::Delivery(leased)) = (settlement.pause, &work) {
                        state.pause(leased.route, instant + pause);
                    }
                    ends.push(End { number: settlement.token.number, updates });
                }
                if write.is_empty() {
                    // Leases that go back, or passed on: nothing of that is durable.
                    for end in ends {
                        let now = now.unix_ms() + state.ahead;
                        state.end(end.number, &[], now);
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
            // It is no part of a group.
            Op::TrimRoutes => None,
            Op::Probe(reply) => {
                // Trouble was looked into before the group was prepared.
                let _ = reply.send(());
                None
            }
        }
    }

    /// The group is durable: memory follows, and everybody is answered.
    fn done(&self, writes: &[Write], thens: Vec<Then>, written: &Written) {
        let (now, instant) = (self.dispatch.now().unix_ms(), self.clock.instant());
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
            state.writing = None;
            let counts = &mut state.counts;
            counts.messages = counts.messages.saturating_sub(written.finished.len() as u64);
            counts.reports += written.reports.len() as u64;
            counts.reports = counts.reports.saturating_sub(written.reports_done.len() as u64);
            if !written.reports.is_empty() {
                state.report_due(now);
            }
        }
        node::fault::point("queue.before-answer");
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
        if error.is_trouble() {
            self.condition.trouble(error.to_string());
        } else {
            tracing::warn!(%error, "an operation was refused by the store");
        }
        let mut state = self.dispatch.lock();
        state.writing = None;
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

/// Results alone wait a moment for company; everything else waits for nothing.
struct Patience {
    until: Option<tokio::time::Instant>,
}

impl Patience {
    fn of(first: &Op) -> Self {
        let mut patience = Self { until: Some(tokio::time::Instant::now() + SETTLES_WAIT_MAX) };
        patience.admit(first);
        patience
    }

    fn admit(&mut self, op: &Op) {
        if !matches!(op, Op::Settle(..)) {
            self.until = None;
        }
    }

    /// What waits already; what comes in time, where only results are on their way.
    async fn next(&self, waiting: &mut mpsc::Receiver<Op>) -> Option<Op> {
        match (waiting.try_recv(), self.until) {
            (Ok(op), _) => Some(op),
            (Err(_), Some(until)) => tokio::time::timeout_at(until, waiting.recv()).await.ok().flatten(),
            (Err(_), None) => None,
        }
    }
}

/// What cannot stand twice in one transaction: changes (of one recipient), and reports under one key. What drops routes
/// stands alone.
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
            Op::TrimRoutes => false,
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
        Op::Change(_, None) | Op::DropReport(_) | Op::TrimRoutes => {}
    }
}
