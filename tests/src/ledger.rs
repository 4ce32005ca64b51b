//! What was sent, what was answered, what arrived; and the comparison of them.
//!
//! The unit of all counts is a recipient of a message, except where a name says otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How long a settle may take to be recorded after the sink's 2xx: an arrival that is older than this when its process
/// is killed was recorded, and must not come again.
pub const SETTLE_WINDOW_MS: u64 = 3000;
/// Faults that are written out; the counts hold all of them.
const FAULTS_TOLD_MAX: usize = 50;
/// Mail to this domain is refused for ever by the sink: its senders are owed a report, and only them.
pub const REFUSED_DOMAIN: &str = "@refused.test";

/// How a client learned what became of a message that it sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 250 to the end of data, with the id of the queue.
    Accepted(String),
    /// Surely not taken: a reply before the data, or 5xx to the end of data.
    Refused(u16),
    /// 4xx to the end of data: storage may be in doubt.
    Deferred(u16),
    /// The connection ended before the answer.
    Unknown,
}

/// One attempt of a client to hand a message in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// Ledger id: the same each time the client sends the message again.
    pub id: u64,
    /// Envelope recipients.
    pub recipients: Vec<String>,
    /// What came of it.
    pub answer: Answer,
}

/// One message for one recipient that the sink has answered 2xx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Ledger id.
    pub id: u64,
    /// Envelope recipient.
    pub recipient: String,
    /// The checksum is right.
    pub whole: bool,
    /// Id that the platform gave it.
    pub queue_id: String,
    /// Process that delivered it.
    pub epoch: u64,
    /// Milliseconds of the ledger, when the sink said 2xx.
    pub at_ms: u64,
}

/// A notification that somebody could not be reached, as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounce {
    /// Ledger id of the message it is about.
    pub id: u64,
    /// Queue id of that message.
    pub about: String,
    /// Who was not reached.
    pub recipient: String,
    /// Message-ID of the notification.
    pub own_id: String,
    /// Process that delivered it.
    pub epoch: u64,
    /// Milliseconds of the ledger, when the sink said 2xx.
    pub at_ms: u64,
}

/// Everything that was written down.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// By the clients, in order.
    pub sendings: Vec<Sending>,
    /// By the sink, in order.
    pub arrivals: Vec<Arrival>,
    /// By the sink, in order.
    pub bounces: Vec<Bounce>,
    /// Mail that arrived and is not of the ledger, or is too damaged to say.
    pub strangers: Vec<String>,
    /// When each epoch was killed, in milliseconds of the ledger.
    pub ends: BTreeMap<u64, u64>,
    /// What the queue still holds: queue id and recipient.
    pub queued: BTreeSet<(String, String)>,
}

/// The records while they are being written.
pub struct Ledger {
    records: Mutex<Records>,
    began: Instant,
    next_id: std::sync::atomic::AtomicU64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Ledger {
    /// An empty one.
    #[allow(clippy::disallowed_methods, reason = "it measures time")]
    pub fn new() -> Self {
        Self { records: Mutex::default(), began: Instant::now(), next_id: 1.into() }
    }

    /// A ledger id that was not used before.
    pub fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }

    /// Milliseconds since it was opened.
    pub fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// The records, to add to them or to look.
    pub fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Recipients whose message was answered 250 so far.
    pub fn accepted(&self) -> usize {
        let records = self.records();
        let accepted = records.sendings.iter().filter(|sending| matches!(sending.answer, Answer::Accepted(_)));
        accepted.map(|sending| sending.recipients.len()).sum()
    }

    /// Compares what is written now.
    pub fn compare(&self) -> Verdict {
        compare(&self.records())
    }
}

/// What the comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Messages, each counted once however often it was sent.
    pub messages: u64,
    /// Of all sendings.
    pub sent: u64,
    /// Answered 250.
    pub accepted: u64,
    /// Answered 5xx, or refused before the data.
    pub refused: u64,
    /// Answered 4xx to the end of data.
    pub deferred: u64,
    /// Whose answer was not seen.
    pub unknown: u64,
    /// Accepted ones that arrived, at least once.
    pub delivered: u64,
    /// Accepted ones that the sender was told of: not to be delivered.
    pub bounced: u64,
    /// Accepted ones that the queue still holds.
    pub queued: u64,
    /// Accepted ones that are nowhere.
    pub lost: u64,
    /// Arrivals with a wrong body, and mail that nobody sent.
    pub damaged: u64,
    /// Window *in*: stored more than once because the 250 was not seen and the client sent it again.
    pub duplicated_in: u64,
    /// Window *out*: arrived more than once because the process was killed between the 2xx and its record.
    pub duplicated_out: u64,
    /// Every other second arrival.
    pub duplicated_unexplained: u64,
    /// Reports about mail that was not refused.
    pub bounced_wrongly: u64,
    /// The longest time between a 2xx and the kill that explains its duplicate.
    pub window_out_max_ms: u64,
    /// What is wrong, written out.
    pub faults: Vec<String>,
}

impl Verdict {
    /// Nothing lost, nothing damaged, no unexplained duplicate.
    pub fn is_clean(&self) -> bool {
        self.lost + self.damaged + self.duplicated_unexplained + self.bounced_wrongly == 0
    }

    /// Adds the counts of another storm, over another ledger.
    pub fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.deferred += other.deferred;
        self.unknown += other.unknown;
        self.delivered += other.delivered;
        self.bounced += other.bounced;
        self.queued += other.queued;
        self.lost += other.lost;
        self.damaged += other.damaged;
        self.duplicated_in += other.duplicated_in;
        self.duplicated_out += other.duplicated_out;
        self.duplicated_unexplained += other.duplicated_unexplained;
        self.bounced_wrongly += other.bounced_wrongly;
        self.window_out_max_ms = self.window_out_max_ms.max(other.window_out_max_ms);
        self.faults.extend(other.faults.iter().cloned());
        self.faults.truncate(FAULTS_TOLD_MAX);
    }

    /// The counts, by name.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "messages": self.messages,
            "sent": self.sent,
            "accepted": self.accepted,
            "refused": self.refused,
            "deferred": self.deferred,
            "unknown": self.unknown,
            "delivered": self.delivered,
            "bounced": self.bounced,
            "queued": self.queued,
            "lost": self.lost,
            "damaged": self.damaged,
            "duplicated_in": self.duplicated_in,
            "duplicated_out": self.duplicated_out,
            "duplicated_unexplained": self.duplicated_unexplained,
            "bounced_wrongly": self.bounced_wrongly,
            "window_out_max_ms": self.window_out_max_ms,
            "faults": self.faults,
        })
    }

    /// Fails a test that must be clean.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.is_clean(), "the ledger is not clean: {self:#?}");
    }

    fn fault(&mut self, text: String) {
        if self.faults.len() < FAULTS_TOLD_MAX {
            self.faults.push(text);
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "sent {}, accepted {}, delivered {}, bounced {}, queued {}, lost {}, damaged {}; duplicated: in {}, out {} \
             (within {} ms), unexplained {}",
            self.sent,
            self.accepted,
            self.delivered,
            self.bounced,
            self.queued,
            self.lost,
            self.damaged,
            self.duplicated_in,
            self.duplicated_out,
            self.window_out_max_ms,
            self.duplicated_unexplained
        )?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

/// Epoch and time of each arrival.
type Times = Vec<(u64, u64)>;

/// What is known of one message for one recipient.
#[derive(Default)]
struct Account<'a> {
    accepted: Vec<&'a str>,
    /// Sendings that may have been stored although no 250 was seen.
    doubtful: usize,
    sent: bool,
    /// Epoch, time, whether whole; by the id of the queue.
    arrivals: BTreeMap<&'a str, Vec<(u64, u64, bool)>>,
    /// By the id of the queue and the id of the report.
    bounces: BTreeMap<&'a str, BTreeMap<&'a str, Times>>,
}

/// Compares what was answered with what arrived and what is still queued.
pub fn compare(records: &Records) -> Verdict {
    let mut verdict = Verdict::default();
    let mut accounts: BTreeMap<(u64, &str), Account<'_>> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for sending in &records.sendings {
        ids.insert(sending.id);
        let recipients = sending.recipients.len() as u64;
        verdict.sent += recipients;
        *match &sending.answer {
            Answer::Accepted(_) => &mut verdict.accepted,
            Answer::Refused(_) => &mut verdict.refused,
            Answer::Deferred(_) => &mut verdict.deferred,
            Answer::Unknown => &mut verdict.unknown,
        } += recipients;
        for recipient in &sending.recipients {
            let account = accounts.entry((sending.id, recipient)).or_default();
            account.sent = true;
            match &sending.answer {
                Answer::Accepted(queue_id) => account.accepted.push(queue_id),
                Answer::Refused(_) => {}
                Answer::Deferred(_) | Answer::Unknown => account.doubtful += 1,
            }
        }
    }
    verdict.messages = ids.len() as u64;
    for arrival in &records.arrivals {
        let account = accounts.entry((arrival.id, &arrival.recipient)).or_default();
        let found = account.arrivals.entry(&arrival.queue_id).or_default();
        found.push((arrival.epoch, arrival.at_ms, arrival.whole));
    }
    for bounce in &records.bounces {
        let account = accounts.entry((bounce.id, &bounce.recipient)).or_default();
        let found = account.bounces.entry(&bounce.about).or_default().entry(&bounce.own_id).or_default();
        found.push((bounce.epoch, bounce.at_ms));
    }
    for ((id, recipient), account) in &accounts {
        account.judge(*id, recipient, records, &mut verdict);
    }
    for stranger in &records.strangers {
        verdict.damaged += 1;
        verdict.fault(format!("arrived and nobody sent it: {stranger}"));
    }
    verdict
}

impl Account<'_> {
    fn judge(&self, id: u64, recipient: &str, records: &Records, verdict: &mut Verdict) {
        if !self.sent {
            verdict.damaged += 1;
            verdict.fault(format!("message {id} arrived for {recipient}, to whom nobody sent it"));
            return;
        }
        let refused = recipient.ends_with(REFUSED_DOMAIN);
        for queue_id in &self.accepted {
            let arrived = self.arrivals.get(queue_id).is_some_and(|all| all.iter().any(|(.., whole)| *whole));
            let bounced = refused && self.bounces.contains_key(queue_id);
            if arrived {
                verdict.delivered += 1;
            } else if bounced {
                verdict.bounced += 1;
            } else if records.queued.contains(&((*queue_id).to_owned(), recipient.to_owned())) {
                verdict.queued += 1;
            } else {
                verdict.lost += 1;
                verdict.fault(format!("lost: message {id} for {recipient}, accepted as {queue_id}"));
            }
        }
        self.judge_copies(id, recipient, verdict);
        for (queue_id, arrivals) in &self.arrivals {
            let damaged = arrivals.iter().filter(|(.., whole)| !whole).count() as u64;
            if damaged > 0 {
                verdict.damaged += damaged;
                verdict.fault(format!("damaged: message {id} for {recipient}, {queue_id}"));
            }
            let times: Vec<_> = arrivals.iter().map(|(epoch, at, _)| (*epoch, *at)).collect();
            judge_repeats(&times, &format!("message {id} for {recipient}, {queue_id}"), records, verdict);
        }
        self.judge_bounces(id, recipient, records, verdict);
    }

    /// The message under several ids of the queue: window *in*, as long as so many sendings had no answer.
    fn judge_copies(&self, id: u64, recipient: &str, verdict: &mut Verdict) {
        let known: BTreeSet<&str> = self.arrivals.keys().chain(self.bounces.keys()).copied().collect();
        let strays = known.iter().filter(|queue_id| !self.accepted.contains(queue_id)).count();
        let unexplained = strays.saturating_sub(self.doubtful);
        if unexplained > 0 {
            verdict.duplicated_unexplained += unexplained as u64;
            verdict.fault(format!(
                "unexplained: message {id} for {recipient} is here under {} ids, with {} accepted and {} in doubt",
                known.len(),
                self.accepted.len(),
                self.doubtful
            ));
        }
        verdict.duplicated_in += known.len().saturating_sub(1 + unexplained) as u64;
    }

    fn judge_bounces(&self, id: u64, recipient: &str, records: &Records, verdict: &mut Verdict) {
        if !recipient.ends_with(REFUSED_DOMAIN) && !self.bounces.is_empty() {
            verdict.bounced_wrongly += 1;
            verdict.fault(format!("message {id} for {recipient} was given up, and nobody refused it"));
        }
        for (queue_id, reports) in &self.bounces {
            if reports.len() > 1 {
                // One settle owes one report; a second one is no repeat of the first.
                verdict.duplicated_unexplained += reports.len() as u64 - 1;
                verdict.fault(format!("unexplained: {} reports about {recipient} of {queue_id}", reports.len()));
            }
            for (own_id, times) in reports {
                judge_repeats(times, &format!("report {own_id} about {recipient} of {queue_id}"), records, verdict);
            }
        }
    }
}

/// The same thing arrived several times: each time but the last must have been cut off by a kill before it was recorded.
fn judge_repeats(times: &[(u64, u64)], what: &str, records: &Records, verdict: &mut Verdict) {
    let mut times = times.to_vec();
    times.sort_unstable();
    for pair in times.windows(2) {
        let [(epoch, at), (later, _)] = pair else { continue };
        let window = records.ends.get(epoch).map(|end| end.saturating_sub(*at));
        match window {
            Some(window) if later > epoch && window <= SETTLE_WINDOW_MS => {
                verdict.duplicated_out += 1;
                verdict.window_out_max_ms = verdict.window_out_max_ms.max(window);
            }
            _ => {
                verdict.duplicated_unexplained += 1;
                verdict.fault(format!(
                    "unexplained: {what} arrived in epoch {epoch} at {at} ms (which ended {window:?} ms later) and \
                     again in epoch {later}"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(id: u64, recipient: &str, answer: Answer) -> Sending {
        Sending { id, recipients: vec![recipient.to_owned()], answer }
    }

    fn accepted(queue_id: &str) -> Answer {
        Answer::Accepted(queue_id.to_owned())
    }

    fn arrived(id: u64, recipient: &str, queue_id: &str, epoch: u64, at_ms: u64) -> Arrival {
        let (recipient, queue_id) = (recipient.to_owned(), queue_id.to_owned());
        Arrival { id, recipient, whole: true, queue_id, epoch, at_ms }
    }

    fn bounced(recipient: &str, own_id: &str, epoch: u64) -> Bounce {
        let (recipient, own_id) = (recipient.to_owned(), own_id.to_owned());
        Bounce { id: 1, about: "q1".to_owned(), recipient, own_id, epoch, at_ms: 0 }
    }

    /// Counts without the texts.
    #[track_caller]
    fn check(records: &Records, expected: &Verdict) {
        let mut verdict = compare(records);
        assert_eq!(verdict.is_clean(), verdict.faults.is_empty(), "{verdict}");
        verdict.faults.clear();
        assert_eq!(&verdict, expected);
    }

    fn one() -> Verdict {
        Verdict { messages: 1, sent: 1, accepted: 1, ..Verdict::default() }
    }

    #[test]
    fn what_was_accepted_and_arrived_once_is_clean() {
        let records = Records {
            sendings: vec![sent(1, "a@b.test", accepted("q1"))],
            arrivals: vec![arrived(1, "a@b.test", "q1", 1, 10)],
            ..Records::default()
        };
        check(&records, &Verdict { delivered: 1, ..one() });
        assert!(compare(&records).is_clean());
    }

    #[test]
    fn what_was_accepted_and_is_nowhere_is_lost_for_each_recipient_apart() {
        let both = Sending { id: 1, recipients: vec!["a@b.test".into(), "c@b.test".into()], answer: accepted("q1") };
        let records =
            Records { sendings: vec![both], arrivals: vec![arrived(1, "a@b.test", "q1", 1, 10)], ..Records::default() };
        check(&records, &Verdict { sent: 2, accepted: 2, delivered: 1, lost: 1, ..one() });
        assert!(!compare(&records).is_clean());
    }

    #[test]
    fn an_arrival_under_another_id_does_not_hide_the_loss_of_the_accepted_one() {
        let records = Records {
            sendings: vec![sent(1, "a@b.test", Answer::Unknown), sent(1, "a@b.test", accepted("q2"))],
            arrivals: vec![arrived(1, "a@b.test", "q1", 1, 10)],
            ..Records::default()
        };
        check(&records, &Verdict { sent: 2, unknown: 1, lost: 1, ..one() });
    }

    #[test]
    fn what_is_still_queued_is_not_lost() {
        let records = Records {
            sendings: vec![sent(1, "a@b.test", accepted("q1"))],
            queued: BTreeSet::from([("q1".to_owned(), "a@b.test".to_owned())]),
            ..Records::default()
        };
        check(&records, &Verdict { queued: 1, ..one() });
        let other = Records { queued: BTreeSet::from([("q1".to_owned(), "c@b.test".to_owned())]), ..records };
        check(&other, &Verdict { lost: 1, ..one() });
    }

    #[test]
    fn a_wrong_checksum_is_damage_and_loss() {
        let damaged = Arrival { whole: false, ..arrived(1, "a@b.test", "q1", 1, 10) };
        let records = Records {
            sendings: vec![sent(1, "a@b.test", accepted("q1"))],
            arrivals: vec![damaged],
            ..Records::default()
        };
        check(&records, &Verdict { damaged: 1, lost: 1, ..one() });
    }

    #[test]
    fn mail_that_nobody_sent_is_damage() {
        let records = Records {
            sendings: vec![sent(1, "a@b.test", accepted("q1"))],
            arrivals: vec![arrived(1, "a@b.test", "q1", 1, 10), arrived(1, "x@b.test", "q1", 1, 10)],
            strangers: vec!["hello".to_owned()],
            ..Records::default()
        };
        check(&records, &Verdict { delivered: 1, damaged: 2, ..one() });
    }

    #[test]
    fn a_message_whose_250_was_never_seen_may_arrive_or_not() {
        for answer in [Answer::Unknown, Answer::Deferred(451)] {
            let mut records = Records { sendings: vec![sent(1, "a@b.test", answer)], ..Records::default() };
            assert!(compare(&records).is_clean());
            records.arrivals.push(arrived(1, "a@b.test", "q1", 1, 10));
            assert!(compare(&records).is_clean());
        }
    }

    #[test]
    fn sent_again_after_an_unknown_answer_is_a_duplicate_in() {
        let records = Records {
            sendings: vec![sent(1, "a@b.test", Answer::Unknown), sent(1, "a@b.test", accepted("q2"))],
            arrivals: vec![arrived(1, "a@b.test", "q1", 1, 10), arrived(1, "a@b.test", "q2", 1, 11)],
            ..Records::default()
        };
        check(&records, &Verdict { sent: 2, unknown: 1, delivered: 1, duplicated_in: 1, ..one() });
    }

    #[test]
    fn more_copies_than_sendings_in_doubt_are_unexplained() {
        let records = Records {
            sendings: vec![sent(1, "a@b.test", accepted("q1"))],
            arrivals: vec![arrived(1, "a@b.test", "q1", 1, 10), arrived(1, "a@b.test", "q2", 1, 10)],
            ..Records::default()
        };
        check(&records, &Verdict { delivered: 1, duplicated_unexplained: 1, ..one() });
        let refused = Records { sendings: vec![sent(1, "a@b.test", Answer::Refused(550))], ..records };
        let verdict = compare(&refused);
        assert_eq!(verdict.duplicated_unexplained, 2, "what was refused must not arrive: {verdict}");
    }

    #[test]
    fn killed_between_the_2xx_and_its_record_is_a_duplicate_out() {
        let records = Records {
            sendings: vec![sent(1, "a@b.test", accepted("q1"))],
            arrivals: vec![arrived(1, "a@b.test", "q1", 1, 100), arrived(1, "a@b.test", "q1", 2, 300)],
            ends: BTreeMap::from([(1, 150)]),
            ..Records::default()
        };
        check(&records, &Verdict { delivered: 1, duplicated_out: 1, window_out_max_ms: 50, ..one() });
    }

    #[test]
    fn a_second_arrival_without_a_kill_close_to_the_first_is_unexplained() {
        let twice = |epochs: [u64; 2], ends: &[(u64, u64)]| Records {
            sendings: vec![sent(1, "a@b.test", accepted("q1"))],
            arrivals: epochs.map(|epoch| arrived(1, "a@b.test", "q1", epoch, 100)).to_vec(),
            ends: ends.iter().copied().collect(),
            ..Records::default()
        };
        let unexplained = Verdict { delivered: 1, duplicated_unexplained: 1, ..one() };
        check(&twice([1, 1], &[(1, 150)]), &unexplained);
        check(&twice([1, 2], &[]), &unexplained);
        check(&twice([1, 2], &[(1, 100 + SETTLE_WINDOW_MS + 1)]), &unexplained);
    }

    #[test]
    fn a_refused_recipient_is_owed_exactly_one_report() {
        let to = "x@refused.test";
        let mut records = Records { sendings: vec![sent(1, to, accepted("q1"))], ..Records::default() };
        check(&records, &Verdict { lost: 1, ..one() });
        records.bounces.push(bounced(to, "r1", 1));
        check(&records, &Verdict { bounced: 1, ..one() });
        records.bounces.push(bounced(to, "r1", 2));
        records.ends.insert(1, 5);
        check(&records, &Verdict { bounced: 1, duplicated_out: 1, window_out_max_ms: 5, ..one() });
        records.bounces.push(bounced(to, "r2", 2));
        assert_eq!(compare(&records).duplicated_unexplained, 1, "a second report of one settle");
    }

    #[test]
    fn a_report_about_somebody_who_was_not_refused_is_wrong() {
        let to = "a@b.test";
        let records = Records {
            sendings: vec![sent(1, to, accepted("q1"))],
            arrivals: vec![arrived(1, to, "q1", 1, 10)],
            bounces: vec![bounced(to, "r1", 1)],
            ..Records::default()
        };
        check(&records, &Verdict { delivered: 1, bounced_wrongly: 1, ..one() });
    }
}
