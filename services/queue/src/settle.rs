//! What the result of an attempt means: pure, `now` comes in.

use std::time::Duration;

use schedule::{Next, Schedule};
use serde::Serialize;
use types::Timestamp;

use crate::model::{DueRecipient, Outcome, OutcomeKind, RecipientKind, ReportKind, Reported, Seq, State, key, notify};
use crate::store::{NewReport, RecipientUpdate};

/// What of a leased delivery a settle needs.
#[derive(Debug)]
pub struct Attempt<'a> {
    pub seq: Seq,
    pub variant: u32,
    pub sender: &'a str,
    pub received_at: i64,
    pub leased_at: i64,
    pub recipients: &'a [DueRecipient],
}

/// What is to be written.
#[derive(Debug, Default)]
pub struct Settled {
    pub updates: Vec<RecipientUpdate>,
    pub report: Option<NewReport>,
    /// Kind and JSON text.
    pub events: Vec<(&'static str, String)>,
}

#[derive(Serialize)]
struct EventText<'a> {
    leased_at: i64,
    recipients: Vec<EventRecipient<'a>>,
}

#[derive(Serialize)]
struct EventRecipient<'a> {
    address: &'a str,
    attempt: u32,
    remote: String,
    reply: String,
    code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    due_at: Option<i64>,
}

/// The kinds of events of a settle, in the order in which they are written.
const KINDS: [&str; 4] = ["delivered", "deferred", "failed", "expired"];

/// Judges the results of one attempt. `number` names the report, if one is owed: one per variant and settle.
pub fn settle(
    attempt: &Attempt<'_>,
    results: &[(u32, Outcome)],
    schedule: &Schedule,
    now: Timestamp,
    number: i64,
) -> Settled {
    let mut settled = Settled::default();
    let age = now.since(Timestamp::from_unix_ms(attempt.received_at));
    let mut events: [Vec<EventRecipient<'_>>; 4] = Default::default();
    let mut owed: Vec<(ReportKind, Reported)> = Vec::new();
    for (recipient_number, outcome) in results {
        let Some(due) = attempt.recipients.iter().find(|r| r.number == *recipient_number) else { continue };
        let attempts = due.attempts.saturating_add(1);
        let judged = judge(outcome, attempts, age, due.warned, schedule);
        let due_at = match judged.retry_in {
            Some(wait) => now.plus(wait).unix_ms(),
            None => now.unix_ms(),
        };
        let at = now.unix_ms();
        if let Some(kind) = owes(attempt.sender, due.recipient.notify, &judged, outcome) {
            let outcome = judged.outcome.clone();
            owed.push((kind, Reported { recipient: due.recipient.clone(), outcome, at }));
        }
        events[judged.kind as usize].push(EventRecipient {
            address: &due.recipient.address,
            attempt: attempts,
            remote: judged.outcome.remote.clone(),
            reply: judged.outcome.reply.clone(),
            code: judged.outcome.code.clone(),
            due_at: judged.retry_in.map(|_| due_at),
        });
        settled.updates.push(RecipientUpdate {
            key: key(attempt.seq, *recipient_number),
            state: judged.state,
            due: due_at,
            attempts,
            warned: due.warned || judged.warn,
            at,
            remote: judged.outcome.remote,
            reply: judged.outcome.reply,
            code: judged.outcome.code,
        });
    }
    for (kind, recipients) in KINDS.into_iter().zip(events) {
        if !recipients.is_empty() {
            let text = EventText { leased_at: attempt.leased_at, recipients };
            // Strings and numbers always have a JSON form.
            settled.events.push((kind, serde_json::to_string(&text).unwrap_or_default()));
        }
    }
    settled.report = report(attempt, owed, schedule, now, number);
    settled
}

/// One result against the schedule.
struct Judged {
    state: State,
    outcome: Outcome,
    retry_in: Option<Duration>,
    warn: bool,
    kind: RecipientKind,
}

fn judge(outcome: &Outcome, attempts: u32, age: Duration, warned: bool, schedule: &Schedule) -> Judged {
    let judged = |state, kind| Judged { state, outcome: outcome.clone(), retry_in: None, warn: false, kind };
    let retry_after_s = match outcome.kind {
        OutcomeKind::Delivered { .. } => return judged(State::Delivered, RecipientKind::Delivered),
        OutcomeKind::Failed => return judged(State::Failed, RecipientKind::Failed),
        OutcomeKind::Deferred { retry_after_s } => retry_after_s,
    };
    let next = match retry_after_s {
        0 => schedule.next(attempts, age),
        seconds => schedule.next_after(Duration::from_secs(seconds.into()), age),
    };
    match next {
        Next::RetryIn(wait) => Judged {
            retry_in: Some(wait),
            warn: schedule.warn_due(age, warned),
            ..judged(State::Open, RecipientKind::Deferred)
        },
        Next::GiveUp => {
            let mut expired = judged(State::Failed, RecipientKind::Expired);
            expired.outcome.kind = OutcomeKind::Failed;
            expired.outcome.reply = format!("message expired, the last answer was: {}", outcome.reply);
            // RFC 3463 section 3.5: X.4.7 delivery time expired.
            "4.4.7".clone_into(&mut expired.outcome.code);
            expired
        }
    }
}

/// Whether the sender must be told, and of what (RFC 3461 sections 4.1 and 5.2). Never to the null reverse-path.
fn owes(sender: &str, asked: u32, judged: &Judged, outcome: &Outcome) -> Option<ReportKind> {
    if sender.is_empty() || asked & notify::NEVER != 0 {
        return None;
    }
    let wants = |bit| asked & bit != 0;
    let (kind, wanted) = match (judged.state, outcome.kind) {
        (State::Delivered, OutcomeKind::Delivered { relayed, into_mailbox }) => {
            (ReportKind::Delivered, wants(notify::SUCCESS) && (relayed || into_mailbox))
        }
        (State::Failed, _) => (ReportKind::Failed, asked == 0 || wants(notify::FAILURE)),
        _ => (ReportKind::Delayed, judged.warn && (asked == 0 || wants(notify::DELAY))),
    };
    wanted.then_some(kind)
}

/// One report holds all that is owed; its kind is the gravest.
fn report(
    attempt: &Attempt<'_>,
    owed: Vec<(ReportKind, Reported)>,
    schedule: &Schedule,
    now: Timestamp,
    number: i64,
) -> Option<NewReport> {
    let kind = owed.iter().map(|(kind, _)| *kind).max_by_key(|kind| kind.gravity())?;
    Some(NewReport {
        number,
        seq: attempt.seq,
        variant: attempt.variant,
        kind,
        due: now.unix_ms(),
        expires_at: Timestamp::from_unix_ms(attempt.received_at).plus(schedule.age_max).unix_ms(),
        recipients: owed.into_iter().map(|(_, reported)| reported).collect(),
    })
}

/// Whether the sender must be told that a recipient was removed by hand.
pub fn owes_for_removal(sender: &str, asked: u32) -> bool {
    !sender.is_empty() && asked & notify::NEVER == 0 && (asked == 0 || asked & notify::FAILURE != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Recipient;

    const HOUR_MS: i64 = 3_600_000;

    fn outcome(kind: OutcomeKind) -> Outcome {
        Outcome { kind, remote: "mx".into(), reply: "answer".into(), code: String::new() }
    }

    fn check(
        sender: &str,
        asked: u32,
        kind: OutcomeKind,
        age_h: i64,
        warned: bool,
    ) -> (State, Option<ReportKind>, Settled) {
        let recipient = Recipient { address: "a@b.example".into(), notify: asked, ..Recipient::default() };
        let recipients = [DueRecipient { number: 0, recipient, attempts: 0, warned, due: 0 }];
        let attempt = Attempt { seq: 1, variant: 0, sender, received_at: 0, leased_at: 0, recipients: &recipients };
        let now = Timestamp::from_unix_ms(age_h * HOUR_MS);
        let settled = settle(&attempt, &[(0, outcome(kind))], &Schedule::default(), now, 9);
        (settled.updates[0].state, settled.report.as_ref().map(|r| r.kind), settled)
    }

    #[test]
    fn who_is_told_of_what_follows_notify_and_the_outcome() {
        use notify::{DELAY, FAILURE, NEVER, SUCCESS};
        const MAILBOX: OutcomeKind = OutcomeKind::Delivered { relayed: false, into_mailbox: true };
        const RELAYED: OutcomeKind = OutcomeKind::Delivered { relayed: true, into_mailbox: false };
        const PASSED_ON: OutcomeKind = OutcomeKind::Delivered { relayed: false, into_mailbox: false };
        const DEFERRED: OutcomeKind = OutcomeKind::Deferred { retry_after_s: 0 };
        let s = "s@a.example";
        let delivered = Some(ReportKind::Delivered);
        let failed = Some(ReportKind::Failed);
        let delayed = Some(ReportKind::Delayed);
        let cases = [
            ("delivered, nothing asked", s, 0, MAILBOX, 0, false, State::Delivered, None),
            ("delivered, success asked", s, SUCCESS, MAILBOX, 0, false, State::Delivered, delivered),
            ("relayed, success asked", s, SUCCESS | FAILURE, RELAYED, 0, false, State::Delivered, delivered),
            ("the next host tells", s, SUCCESS, PASSED_ON, 0, false, State::Delivered, None),
            ("delivered, failure asked", s, FAILURE, MAILBOX, 0, false, State::Delivered, None),
            ("null sender, success asked", "", SUCCESS, MAILBOX, 0, false, State::Delivered, None),
            ("failed, nothing asked", s, 0, OutcomeKind::Failed, 0, false, State::Failed, failed),
            ("failed, failure asked", s, FAILURE, OutcomeKind::Failed, 0, false, State::Failed, failed),
            ("failed, success asked", s, SUCCESS, OutcomeKind::Failed, 0, false, State::Failed, None),
            ("failed, never", s, NEVER, OutcomeKind::Failed, 0, false, State::Failed, None),
            ("failed, null sender", "", 0, OutcomeKind::Failed, 0, false, State::Failed, None),
            ("deferred early", s, 0, DEFERRED, 1, false, State::Open, None),
            ("deferred late", s, 0, DEFERRED, 5, false, State::Open, delayed),
            ("deferred late, delay asked", s, DELAY, DEFERRED, 5, false, State::Open, delayed),
            ("deferred late, delay not asked", s, FAILURE, DEFERRED, 5, false, State::Open, None),
            ("deferred late, warned", s, 0, DEFERRED, 5, true, State::Open, None),
            ("deferred late, null sender", "", 0, DEFERRED, 5, false, State::Open, None),
            ("expired", s, 0, DEFERRED, 120, true, State::Failed, failed),
            ("expired, never", s, NEVER, DEFERRED, 120, false, State::Failed, None),
        ];
        for (name, sender, asked, kind, age_h, warned, state, report) in cases {
            let (found_state, found_report, _) = check(sender, asked, kind, age_h, warned);
            assert_eq!((found_state, found_report), (state, report), "{name}");
        }
    }

    #[test]
    fn what_expires_fails_with_the_code_and_the_last_answer() {
        let (_, _, settled) = check("s@a.example", 0, OutcomeKind::Deferred { retry_after_s: 0 }, 120, true);
        let report = settled.report.unwrap();
        assert_eq!(report.recipients[0].outcome.code, "4.4.7");
        assert_eq!(report.recipients[0].outcome.kind, OutcomeKind::Failed);
        assert!(report.recipients[0].outcome.reply.contains("answer"));
        assert_eq!(settled.events[0].0, "expired");
    }

    #[test]
    fn a_retry_is_due_by_the_schedule_or_as_the_holder_asked() {
        for (asked, expected_min) in [(0, 5), (60, 1), (24 * 3600, 240)] {
            let (_, _, settled) = check("", 0, OutcomeKind::Deferred { retry_after_s: asked }, 0, false);
            assert_eq!(settled.updates[0].due, expected_min * 60_000, "asked {asked}");
            assert_eq!(settled.updates[0].attempts, 1);
        }
    }

    #[test]
    fn a_clock_behind_the_arrival_neither_expires_nor_warns() {
        let (state, report, settled) = check("s@a.example", 0, OutcomeKind::Deferred { retry_after_s: 0 }, -24, false);
        assert_eq!((state, report), (State::Open, None));
        assert!(!settled.updates[0].warned);
    }

    #[test]
    fn one_report_holds_all_that_a_settle_owes_and_is_of_the_gravest_kind() {
        let of = |number, asked| DueRecipient {
            number,
            recipient: Recipient { notify: asked, ..Recipient::default() },
            attempts: 0,
            warned: false,
            due: 0,
        };
        let recipients = [of(0, notify::SUCCESS), of(1, 0), of(2, 0)];
        let attempt = Attempt {
            seq: 1,
            variant: 0,
            sender: "s@a.example",
            received_at: 0,
            leased_at: 0,
            recipients: &recipients,
        };
        let results = [
            (0, outcome(OutcomeKind::Delivered { relayed: true, into_mailbox: false })),
            (1, outcome(OutcomeKind::Failed)),
            (2, outcome(OutcomeKind::Deferred { retry_after_s: 0 })),
            (7, outcome(OutcomeKind::Failed)),
        ];
        let now = Timestamp::from_unix_ms(5 * HOUR_MS);
        let settled = settle(&attempt, &results, &Schedule::default(), now, 9);
        let report = settled.report.unwrap();
        assert_eq!((report.kind, report.recipients.len(), report.number), (ReportKind::Failed, 3, 9));
        assert_eq!(settled.updates.len(), 3, "a number that was not leased is passed over");
        let kinds: Vec<_> = settled.events.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, ["delivered", "deferred", "failed"]);
    }
}
