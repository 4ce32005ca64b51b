//! What an operation writes.

use std::sync::Arc;

use types::Timestamp;

use super::task::{Prepared, Then};
use super::{Accepted, Changes, Reply, ReportEnd, Settlement};
use crate::context::Settings;
use crate::dispatch::{State, Work};
use crate::events;
use crate::model::{Event, NewMessage, NewRecipient, Outcome, OutcomeKind, key, seq_of};
use crate::settle::{Attempt, settle};
use crate::store::{NewReport, NewRoute, RecipientUpdate, ReportLater, Write};

/// Attempts to submit a report before it is dropped: five days by the default schedule.
const REPORT_ATTEMPTS_MAX: u32 = 36;

/// Adds what became of one lease. Returns what became of its recipients.
pub(super) fn prepare_settle(
    settings: &Settings,
    work: &Work,
    settlement: &Settlement,
    state: &mut State,
    now: Timestamp,
    write: &mut Write,
) -> Vec<RecipientUpdate> {
    match work {
        Work::Delivery(leased) => {
            // What was removed meanwhile has its end, and its report where one was asked for: a failure adds nothing.
            let counts = |(number, outcome): &&(u32, Outcome)| {
                matches!(outcome.kind, OutcomeKind::Delivered { .. }) || !state.was_removed(key(leased.seq, *number))
            };
            let results: Vec<_> = settlement.results.iter().filter(counts).cloned().collect();
            if results.is_empty() {
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
            let schedule = settings.schedule(&leased.transport);
            let mut settled = settle(&attempt, &results, &schedule, now, leased.number);
            for update in &mut settled.updates {
                update.due += state.ahead;
            }
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
                    let due = now.plus(wait).unix_ms() + state.ahead;
                    write.reports_later.push(ReportLater { number: report.number, due, attempts });
                }
            }
            Vec::new()
        }
    }
}

fn event(state: &mut State, message_id: String, now: Timestamp, kind: &str, text: String) -> Event {
    let number = state.number();
    Event { message_id, number, at: now.unix_ms(), kind: kind.to_owned(), text, only_with: None }
}

pub(super) fn prepare_accept(accepted: Accepted, state: &mut State, now: Timestamp, reply: Reply<bool>) -> Prepared {
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
        due: now.unix_ms() + state.ahead,
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

pub(super) fn prepare_change(
    changes: Changes,
    reply: Option<Reply<Vec<i64>>>,
    state: &mut State,
    now: Timestamp,
) -> Prepared {
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
