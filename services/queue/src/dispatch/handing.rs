//! What is handed out next, and to whom.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::holders::Handout;
use super::leases::{Lease, Leased, LeasedReport, Token, Work};
use super::routes::{HEADS_MAX, Head, ROUTE_HEADS_MAX};
use super::state::State;
use super::{BATCH_BYTES, BATCH_MAX, LEASE};
use crate::model::{Content, RouteId, Seq, StoredReport, key, number_of, seq_of};
use crate::store::HeadRow;

/// Routes whose heads are read at a time.
const REFILLS_MAX: usize = 64;

/// A delivery whose holder is chosen.
#[derive(Debug)]
pub struct Picked {
    pub holder: u64,
    pub route: RouteId,
    pub seq: Seq,
    pub variant: u32,
    pub due: i64,
    pub numbers: Vec<u32>,
    pub content: Option<Content>,
}

/// What there is to do now.
#[derive(Debug, Default)]
pub struct Plan {
    pub refills: Vec<(RouteId, u32)>,
    pub picks: Vec<Picked>,
    /// Read so many reports.
    pub reports: Option<u32>,
}

impl State {
    // Handing out.

    /// Gives back what expired, looks what became due, and chooses what is handed out next.
    pub fn plan(&mut self, now: i64, instant: Instant) -> Plan {
        self.touched.clear();
        self.expire(now, instant);
        while let Some((due, id)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.timers.pop_first();
            if let Some(route) = self.routes.get_mut(&id).filter(|route| route.timer == Some(due)) {
                route.timer = None;
            }
            self.ready_if_due(id, now);
        }
        while let Some((_, id)) = self.pauses.first().copied().filter(|(until, _)| *until <= instant) {
            self.pauses.pop_first();
            self.ready_if_due(id, now);
        }
        let mut plan = Plan::default();
        if self.stopped {
            return plan;
        }
        if self.next_report.is_some_and(|due| due <= now) && self.holders.any_credit() {
            self.next_report = None;
            plan.reports = Some(BATCH_MAX as u32 / 2 + self.reports_taken.len() as u32);
        }
        let mut bytes = 0;
        while plan.picks.len() < BATCH_MAX && bytes < BATCH_BYTES && plan.refills.len() < REFILLS_MAX {
            if !self.holders.any_credit() {
                break;
            }
            let Some(id) = self.ready.pop_front() else { break };
            bytes += self.pick(id, now, instant, &mut plan);
        }
        plan
    }

    /// One turn of a route. Returns the octets that were picked.
    pub(super) fn pick(&mut self, id: RouteId, now: i64, instant: Instant, plan: &mut Plan) -> u64 {
        let Some(route) = self.routes.get_mut(&id) else { return 0 };
        route.queued = false;
        if route.is_paused(instant) {
            return 0;
        }
        if route.heads.is_empty() {
            if route.is_due(now) {
                route.next_due = None;
                route.queued = true;
                plan.refills.push((id, ROUTE_HEADS_MAX as u32 + route.taken));
            }
            return 0;
        }
        let Some((holder, max)) = self.holders.take(&route.transport, route.in_flight) else {
            self.blocked.push(id);
            return 0;
        };
        let Some(mut head) = route.heads.pop_front() else { return 0 };
        let numbers = if head.numbers.len() > max as usize {
            let rest = head.numbers.split_off(max as usize);
            let numbers = std::mem::replace(&mut head.numbers, rest);
            route.heads.push_front(Head { numbers: std::mem::take(&mut head.numbers), ..head });
            numbers
        } else {
            self.heads -= 1;
            head.numbers
        };
        route.in_flight += 1;
        route.taken += numbers.len() as u32;
        for number in &numbers {
            self.taken.insert(key(head.seq, *number));
        }
        let content = self.recent.content(head.seq, head.variant, &numbers);
        let (seq, variant, due) = (head.seq, head.variant, head.due);
        plan.picks.push(Picked { holder, route: id, seq, variant, due, numbers, content });
        self.ready_if_due(id, now);
        head.bytes
    }

    /// Heads as they were read. `asked`: routes and how many rows each was asked for.
    pub fn filled(&mut self, asked: &[(RouteId, u32)], rows: &[HeadRow], now: i64) {
        let mut of_route: HashMap<RouteId, Vec<&HeadRow>> = HashMap::new();
        for row in rows {
            of_route.entry(row.route).or_default().push(row);
        }
        for (id, limit) in asked {
            let rows = of_route.remove(id).unwrap_or_default();
            let Some(route) = self.routes.get_mut(id) else { continue };
            route.queued = false;
            if rows.len() as u32 == *limit {
                route.may_have(rows.last().map(|row| row.due));
            }
            for row in rows {
                let seq = seq_of(row.key);
                if row.due > now {
                    route.may_have(Some(row.due));
                    break;
                }
                let arriving = self.writing.is_some_and(|first| seq >= first);
                if arriving || self.taken.contains(&row.key) || self.unreadable.contains(&seq) {
                    continue;
                }
                // One head a route is always let in: routes that rest with theirs must not hold up the others.
                let full = self.heads >= HEADS_MAX && !route.heads.is_empty();
                if self.touched.contains(&seq) || full {
                    route.may_have(Some(row.due));
                    continue;
                }
                let number = number_of(row.key);
                match route.heads.back_mut() {
                    Some(last) if (last.seq, last.variant, last.due) == (seq, row.variant, row.due) => {
                        last.numbers.push(number);
                    }
                    _ => {
                        let (variant, due, bytes) = (row.variant, row.due, row.bytes);
                        route.heads.push_back(Head { seq, variant, due, bytes, numbers: vec![number] });
                        self.heads += 1;
                    }
                }
            }
            self.ready_if_due(*id, now);
        }
    }

    /// The heads could not be read: later.
    pub fn not_filled(&mut self, asked: &[(RouteId, u32)], later: i64) {
        for (id, _) in asked {
            if let Some(route) = self.routes.get_mut(id) {
                route.queued = false;
                route.may_have(Some(later));
            }
            self.ready_if_due(*id, i64::MIN);
        }
    }

    /// Leases what was picked, or gives it back where something happened meanwhile.
    pub fn hand_out(&mut self, picked: Vec<(Picked, Option<Content>)>, now: i64, instant: Instant) {
        let mut handouts: BTreeMap<u64, Handout> = BTreeMap::new();
        for (pick, content) in picked {
            let Some(content) = content else {
                self.unpick(&pick, None, now);
                continue;
            };
            if self.touched.contains(&pick.seq) || self.stopped {
                self.unpick(&pick, Some(pick.due), now);
                continue;
            }
            // Some may have left the open state since their heads were read.
            for number in pick.numbers.iter().filter(|n| !content.recipients.iter().any(|r| r.number == **n)) {
                self.taken.remove(&key(pick.seq, *number));
                if let Some(route) = self.routes.get_mut(&pick.route) {
                    route.taken = route.taken.saturating_sub(1);
                }
            }
            let handout = handouts.entry(pick.holder).or_default();
            handout.deliveries.extend(self.lease(pick.route, content, now, instant));
        }
        for (holder, handout) in handouts {
            self.send(holder, handout, now);
        }
    }

    pub(super) fn send(&mut self, holder: u64, handout: Handout, now: i64) {
        if let Err(handout) = self.holders.send(holder, handout) {
            let n = handout.deliveries.len() + handout.reports.len();
            self.holders.credit(holder, u32::try_from(n).unwrap_or(u32::MAX));
            let numbers = handout.deliveries.iter().map(|(token, ..)| token.number);
            for number in numbers.chain(handout.reports.iter().map(|(token, _)| token.number)) {
                self.end(number, &[], now);
            }
        }
    }

    /// Gives a pick back: its credit, its place, and where it is still due, its turn.
    pub fn unpick(&mut self, pick: &Picked, due: Option<i64>, now: i64) {
        self.holders.credit(pick.holder, 1);
        for number in &pick.numbers {
            self.taken.remove(&key(pick.seq, *number));
        }
        if let Some(route) = self.routes.get_mut(&pick.route) {
            route.in_flight = route.in_flight.saturating_sub(1);
            route.taken = route.taken.saturating_sub(pick.numbers.len() as u32);
            route.may_have(due);
        }
        self.ready_if_due(pick.route, now);
    }

    /// A message that cannot be read is not tried again in this run.
    pub fn unreadable(&mut self, seq: Seq) {
        self.unreadable.insert(seq);
    }

    pub(super) fn lease(
        &mut self,
        id: RouteId,
        content: Content,
        now: i64,
        instant: Instant,
    ) -> Option<(Token, Arc<str>, Arc<str>, Content)> {
        let (transport, name) = self.route_names(id)?;
        let token = Token { number: self.number(), epoch: self.epoch };
        let leased = Leased {
            number: token.number,
            route: id,
            transport: Arc::clone(&transport),
            seq: content.seq,
            variant: content.variant,
            id: content.id.clone(),
            sender: content.text.sender.clone(),
            received_at: content.received_at,
            leased_at: now - self.ahead,
            recipients: content.recipients.clone(),
        };
        self.insert(token.number, Work::Delivery(Arc::new(leased)), instant);
        Some((token, transport, name, content))
    }

    pub(super) fn insert(&mut self, number: i64, work: Work, instant: Instant) {
        let expires = instant + LEASE;
        self.leases.insert(number, Lease { expires, settling: false, over: false, work });
        self.expiries.insert((expires, number));
    }

    /// Leases reports. `limit`: how many were asked for.
    pub fn hand_out_reports(&mut self, read: Vec<StoredReport>, limit: u32, now: i64, instant: Instant) {
        if read.len() as u32 >= limit {
            self.report_due(read.last().map_or(now, |report| report.due));
        }
        for report in read {
            if self.reports_taken.contains(&report.key.number) {
                continue;
            }
            if report.due > now {
                self.report_due(report.due);
                break;
            }
            // A report counts as a delivery; no route holds it back.
            let Some((holder, _)) = self.holders.take("", 0) else {
                self.report_due(report.due);
                break;
            };
            let token = Token { number: self.number(), epoch: self.epoch };
            self.reports_taken.insert(report.key.number);
            let work = LeasedReport {
                number: report.key.number,
                seq: report.seq,
                message_id: report.key.message_id.clone(),
                attempts: report.attempts,
            };
            self.insert(token.number, Work::Report(work), instant);
            let handout = Handout { deliveries: Vec::new(), reports: vec![(token, report)] };
            self.send(holder, handout, now);
        }
    }

    /// A report is due then.
    pub fn report_due(&mut self, due: i64) {
        self.next_report = Some(self.next_report.map_or(due, |other| other.min(due)));
    }
}
