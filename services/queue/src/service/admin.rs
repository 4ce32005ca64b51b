//! What people and their programs ask for.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use posthouse_proto::queue::v1 as proto;
use tonic::Status;

use super::Service;
use crate::bodies::BodyStore;
use crate::events;
use crate::model::{Outcome, OutcomeKind, ReportKind, Reported, RouteId, State, seq_of};
use crate::settle::owes_for_removal;
use crate::store::{NewReport, RecipientChange, Selected, Selection, Store, StoreError, TraceBy};
use crate::wire;
use crate::writer::Changes;

/// Messages of a list where the caller gives no limit.
const LIST_DEFAULT: u32 = 100;
/// Messages of a list.
const LIST_MAX: u32 = 10_000;
/// Messages of a trace where the caller gives no limit.
const TRACE_DEFAULT: u32 = 20;
/// Messages of a trace.
const TRACE_MAX: u32 = 1_000;
/// Recipients that are changed in one transaction: mail goes on between two of them.
const CHANGE_BITE: u32 = 1_000;

/// What a person does to recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Hold,
    Release,
    Retry,
    Remove,
}

impl Change {
    fn event(self) -> Option<&'static str> {
        match self {
            Self::Hold => Some("held"),
            Self::Release => Some("released"),
            Self::Remove => Some("removed"),
            // The attempt that follows tells.
            Self::Retry => None,
        }
    }

    /// The states that it is made from, and what it leads to.
    fn states(self) -> (&'static [State], State) {
        match self {
            Self::Hold => (&[State::Open], State::Held),
            Self::Release => (&[State::Held], State::Open),
            Self::Retry => (&[State::Open], State::Open),
            Self::Remove => (&[State::Open, State::Held], State::Removed),
        }
    }
}

fn failed(error: &StoreError) -> Status {
    wire::status(error)
}

impl<S: Store, B: BodyStore> Service<S, B> {
    fn now_ms(&self) -> i64 {
        self.inner.clock.now().unix_ms()
    }

    fn selection(&self, filter: Option<proto::Filter>) -> Result<Selection, Status> {
        let leased = || self.inner.dispatch.lock().leased_keys();
        wire::selection(filter.unwrap_or_default(), self.now_ms(), leased)
    }

    fn summary(&self, listed: crate::store::Listed) -> proto::MessageSummary {
        let state = self.inner.dispatch.lock();
        let age_max = |transport: &str| self.inner.settings.schedule(transport).age_max;
        wire::summary(listed, self.now_ms(), |key| state.is_leased(key), age_max)
    }

    pub(super) async fn list_messages(&self, request: proto::ListRequest) -> Result<proto::ListResponse, Status> {
        let limit = if request.limit == 0 { LIST_DEFAULT } else { request.limit.min(LIST_MAX) };
        let selection = self.selection(request.filter)?;
        // One more than asked for tells whether there is more.
        let mut found = self.inner.store.list(&selection, &request.after, limit + 1).await.map_err(|e| failed(&e))?;
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let next = found.last().filter(|_| more).map(|last| last.meta.id.clone()).unwrap_or_default();
        let messages = found.into_iter().map(|listed| self.summary(listed)).collect();
        Ok(proto::ListResponse { messages, next })
    }

    pub(super) async fn show_message(&self, request: proto::ShowRequest) -> Result<proto::ShowResponse, Status> {
        let id = wire::message_id(&request.message_id)?;
        let store = &self.inner.store;
        let selection = Selection { message_ids: vec![id.clone()], ..Selection::default() };
        let listed = store.list(&selection, "", 1).await.map_err(|e| failed(&e))?.pop();
        let listed = listed.ok_or_else(|| Status::not_found("there is no such message"))?;
        let variants = store.variants(listed.meta.seq).await.map_err(|e| failed(&e))?;
        let events = store.trace(&TraceBy::MessageId(id), 1).await.map_err(|e| failed(&e))?;
        let meta = listed.meta.clone();
        Ok(proto::ShowResponse {
            variants: wire::variants(variants, &listed.recipients),
            message: Some(self.summary(listed)),
            events: events.into_iter().map(wire::event).collect(),
            origin: Some(wire::to_origin(meta.origin)),
            body_type: meta.body_type,
            smtp_utf8: meta.smtp_utf8,
            header_message_id: meta.header_message_id,
        })
    }

    pub(super) async fn trace_messages(&self, request: proto::TraceRequest) -> Result<proto::TraceResponse, Status> {
        let limit = if request.limit == 0 { TRACE_DEFAULT } else { request.limit.min(TRACE_MAX) };
        let by = match (request.message_id, request.address, request.header_message_id) {
            (id, _, _) if !id.is_empty() => TraceBy::MessageId(wire::message_id(&id)?),
            (_, address, _) if !address.is_empty() => TraceBy::Address(address),
            (_, _, header) if !header.is_empty() => TraceBy::HeaderMessageId(header),
            _ => return Err(Status::invalid_argument("name a message id, an address or a Message-ID")),
        };
        let events = self.inner.store.trace(&by, limit).await.map_err(|e| failed(&e))?;
        Ok(proto::TraceResponse { events: events.into_iter().map(wire::event).collect() })
    }

    pub(super) async fn tell_status(&self) -> Result<proto::StatusResponse, Status> {
        let now = self.now_ms();
        let (counts, leased, (routes, oldest)) = {
            let state = self.inner.dispatch.lock();
            (state.counts, state.leased() as u64, state.due(now))
        };
        self.inner.space.is_enough();
        let trouble = self.inner.condition.refuses();
        let due = match self.inner.store.due_count(&routes, now).await {
            Ok(due) => due.saturating_sub(leased),
            // The store's trouble is part of the answer.
            Err(_) => 0,
        };
        Ok(proto::StatusResponse {
            messages: counts.messages,
            due,
            waiting: counts.open.saturating_sub(due).saturating_sub(leased),
            leased,
            held: counts.held,
            reports: counts.reports,
            oldest_due_age_ms: oldest.map_or(0, |oldest| now.saturating_sub(oldest)),
            writable: trouble.is_none(),
            trouble: trouble.unwrap_or_default(),
        })
    }

    /// Makes a change in bites, each durable; the whole is idempotent and may be repeated where it stopped.
    pub(super) async fn change(
        &self,
        request: proto::ChangeRequest,
        change: Change,
    ) -> Result<proto::ChangeResponse, Status> {
        let filter = request.filter.unwrap_or_default();
        if filter == proto::Filter::default() && !request.all {
            return Err(Status::invalid_argument("the filter is empty: name what you mean, or say all"));
        }
        let mut selection = self.selection(Some(filter))?;
        let (from, _) = change.states();
        match selection.states.is_empty() {
            true => selection.states = from.to_vec(),
            false => selection.states.retain(|state| from.contains(state)),
        }
        let mut answer = proto::ChangeResponse::default();
        if selection.states.is_empty() {
            return Ok(answer);
        }
        let mut after = 0;
        let mut messages = HashSet::new();
        loop {
            let found = self.inner.store.select(&selection, after, CHANGE_BITE).await.map_err(|e| failed(&e))?;
            let Some(last) = found.last() else { break };
            after = last.recipient.key;
            let changes = self.changes(change, &found, &request.reason, request.report);
            let done = self.inner.writer.change(changes).await.map_err(|e| failed(&e))?;
            answer.recipients += done.len() as u64;
            messages.extend(done.into_iter().map(seq_of));
        }
        answer.messages = messages.len() as u64;
        Ok(answer)
    }

    fn changes(&self, change: Change, found: &[Selected], reason: &str, report: bool) -> Changes {
        let now = self.now_ms();
        let (_, to) = change.states();
        let due = matches!(change, Change::Release | Change::Retry).then_some(now);
        let changed = |one: &Selected| -> (RecipientChange, RouteId) {
            let key = one.recipient.key;
            let reason = if change == Change::Release { String::new() } else { reason.to_owned() };
            (RecipientChange { key, from: one.recipient.state, to, due, reason }, one.recipient.route)
        };
        let mut by_message: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for one in found {
            by_message.entry(&one.message_id).or_default().push(one.recipient.recipient.address.clone());
        }
        let events = change.event().map_or_else(Vec::new, |kind| {
            let text =
                |(id, addresses): (&str, Vec<String>)| (id.to_owned(), kind, events::changed(reason, &addresses));
            by_message.into_iter().map(text).collect()
        });
        let reports = match change == Change::Remove && report {
            true => self.removal_reports(found, reason, now),
            false => Vec::new(),
        };
        Changes { changes: found.iter().map(changed).collect(), events, reports }
    }

    /// One report per message-variant for what is removed.
    fn removal_reports(&self, found: &[Selected], reason: &str, now: i64) -> Vec<NewReport> {
        let mut reports: BTreeMap<(i64, u32), NewReport> = BTreeMap::new();
        let reply = match reason.is_empty() {
            true => "removed from the queue by the administrator".to_owned(),
            false => format!("removed from the queue by the administrator: {reason}"),
        };
        for one in found.iter().filter(|one| owes_for_removal(&one.sender, one.recipient.recipient.notify)) {
            let (seq, variant) = (seq_of(one.recipient.key), one.recipient.variant);
            let report = reports.entry((seq, variant)).or_insert_with(|| NewReport {
                number: 0,
                seq,
                variant,
                kind: ReportKind::Failed,
                due: now,
                expires_at: 0,
                recipients: Vec::new(),
            });
            report.recipients.push(Reported {
                recipient: one.recipient.recipient.clone(),
                outcome: Outcome {
                    kind: OutcomeKind::Failed,
                    remote: String::new(),
                    reply: reply.clone(),
                    // RFC 3463 section 3.8: X.7.1 not authorised, message refused, by policy.
                    code: "5.7.1".to_owned(),
                },
                at: one.recipient.last_at.unwrap_or(now),
            });
        }
        reports.into_values().collect()
    }

    /// Copies the store, then the bodies that the copy speaks of; no body is deleted meanwhile.
    pub(super) async fn back_up(&self, request: proto::BackupRequest) -> Result<proto::BackupResponse, Status> {
        let target = PathBuf::from(&request.directory);
        if !target.is_absolute() {
            return Err(Status::invalid_argument("directory is not an absolute path"));
        }
        let folder = prepare_backup(&target, &self.inner.folder).await?;
        let _pause = self.inner.cleaner.pause();
        let copied = self.inner.store.backup(&folder).await.map_err(|e| failed(&e))?;
        let bodies = self.inner.bodies.copy(copied.body_files, &folder.join(crate::BODIES)).await;
        let bodies = bodies.map_err(|error| Status::unavailable(format!("bodies not copied: {error}")))?;
        Ok(proto::BackupResponse { messages: copied.messages, bytes: copied.bytes + bodies })
    }
}

/// The folder inside `target` that has the queue's layout.
async fn prepare_backup(target: &Path, queue: &Path) -> Result<PathBuf, Status> {
    if target.starts_with(queue) {
        return Err(Status::invalid_argument("directory is inside the queue's own folder"));
    }
    let folder = target.join(crate::FOLDER);
    let (target, made) = (target.to_owned(), folder.clone());
    let done = tokio::task::spawn_blocking(move || -> std::io::Result<bool> {
        std::fs::create_dir_all(&target)?;
        if std::fs::read_dir(&target)?.next().is_some() {
            return Ok(false);
        }
        crate::make_private(&made)?;
        Ok(true)
    });
    match done.await {
        Ok(Ok(true)) => Ok(folder),
        Ok(Ok(false)) => Err(Status::failed_precondition("directory is not empty")),
        Ok(Err(error)) => Err(Status::failed_precondition(format!("directory cannot be used: {error}"))),
        Err(error) => Err(Status::internal(error.to_string())),
    }
}
