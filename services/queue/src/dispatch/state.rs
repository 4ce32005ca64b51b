//! Routes and leases.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::holders::{Handout, Holders};
use super::recent::{Recent, fresh_content};
use super::{BATCH_BYTES, BATCH_MAX, LEASE};
use crate::model::{Content, DueRecipient, NewMessage, RouteId, Seq, State as RecipientState, key, seq_of};
use crate::store::{HeadRow, Loaded, NewRoute, RecipientChange, RecipientUpdate, StoredRoute};

/// Heads of one route that are kept in memory.
const ROUTE_HEADS_MAX: usize = 256;
/// Heads of all routes that are kept in memory.
const HEADS_MAX: usize = 32 << 10;
/// Routes whose heads are read at a time.
const REFILLS_MAX: usize = 64;

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
    pub work: Work,
}

/// Recipients of one message-variant that are due.
#[derive(Debug)]
struct Head {
    seq: Seq,
    variant: u32,
    due: i64,
    bytes: u64,
    numbers: Vec<u32>,
}

#[derive(Debug)]
struct Route {
    transport: Arc<str>,
    name: Arc<str>,
    /// Whether the store knows the route.
    stored: bool,
    in_flight: u32,
    /// Recipients in flight.
    taken: u32,
    paused_until: Option<Instant>,
    /// The store may have something, beyond the heads here and the leases, that is due from then on.
    next_due: Option<i64>,
    heads: VecDeque<Head>,
    /// Stands in `ready`, or its heads are being read.
    queued: bool,
    /// The earliest entry in `timers`.
    timer: Option<i64>,
}

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

#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub messages: u64,
    pub open: u64,
    pub held: u64,
    pub reports: u64,
}

/// See the module.
#[derive(Default)]
pub struct State {
    pub epoch: i64,
    counter: i64,
    next_seq: Seq,
    next_route: RouteId,
    routes: HashMap<RouteId, Route>,
    ids: HashMap<Arc<str>, HashMap<Arc<str>, RouteId>>,
    /// Routes with something due, in turn.
    ready: VecDeque<RouteId>,
    /// Routes that stand still because of a holder's limit.
    blocked: Vec<RouteId>,
    timers: BTreeSet<(i64, RouteId)>,
    pauses: BTreeSet<(Instant, RouteId)>,
    heads: usize,
    leases: HashMap<i64, Lease>,
    expiries: BTreeSet<(Instant, i64)>,
    /// Recipients that are leased or about to be.
    taken: HashSet<i64>,
    /// Recipients that people changed while they were leased.
    changed: HashMap<i64, RecipientState>,
    /// Messages that something happened to since the last read began.
    touched: HashSet<Seq>,
    /// Messages that cannot be read and could not be marked so.
    unreadable: HashSet<Seq>,
    recent: Recent,
    pub holders: Holders,
    pub counts: Counts,
    reports_taken: HashSet<i64>,
    next_report: Option<i64>,
    stopped: bool,
}

impl State {
    /// A number that no run has given before: leases, reports and events are named by it, and ordered.
    pub fn number(&mut self) -> i64 {
        self.counter += 1;
        self.epoch << 32 | self.counter
    }

    pub fn seq(&mut self) -> Seq {
        self.next_seq += 1;
        self.next_seq - 1
    }

    /// Takes over what the store has: at the start, and after trouble, when commits were in doubt.
    pub fn load(&mut self, loaded: &Loaded, routes: Vec<StoredRoute>, now: i64) {
        if self.epoch == 0 {
            self.epoch = loaded.epoch;
        }
        self.next_seq = self.next_seq.max(loaded.next_seq);
        self.counts =
            Counts { messages: loaded.messages, open: loaded.open, held: loaded.held, reports: loaded.reports };
        self.next_report = Some(i64::MIN);
        for route in self.routes.values_mut() {
            route.stored = false;
        }
        for stored in routes {
            self.next_route = self.next_route.max(stored.route);
            let of_transport = self.ids.entry(Arc::clone(&stored.transport)).or_default();
            let id = *of_transport.entry(Arc::clone(&stored.name)).or_insert(stored.route);
            let route = self.routes.entry(id).or_insert_with(|| Route::new(stored.transport, stored.name));
            route.stored = true;
            route.may_have(stored.due);
            self.ready_if_due(id, now);
        }
    }

    /// The route of a new recipient; the second value tells the store of one that it does not know.
    pub fn route(&mut self, transport: &str, name: &str) -> (RouteId, Option<NewRoute>) {
        let known = self.ids.get(transport).and_then(|names| names.get(name)).copied();
        let id = known.unwrap_or_else(|| {
            self.next_route += 1;
            let (transport, name): (Arc<str>, Arc<str>) = (transport.into(), name.into());
            self.ids.entry(Arc::clone(&transport)).or_default().insert(Arc::clone(&name), self.next_route);
            self.routes.insert(self.next_route, Route::new(transport, name));
            self.next_route
        });
        let new = self.routes.get(&id).filter(|route| !route.stored).map(|route| NewRoute {
            route: id,
            transport: Arc::clone(&route.transport),
            name: Arc::clone(&route.name),
        });
        (id, new)
    }

    /// The names of a route, shared.
    pub fn route_names(&self, id: RouteId) -> Option<(Arc<str>, Arc<str>)> {
        self.routes.get(&id).map(|route| (Arc::clone(&route.transport), Arc::clone(&route.name)))
    }

    pub fn route_stored(&mut self, id: RouteId) {
        if let Some(route) = self.routes.get_mut(&id) {
            route.stored = true;
        }
    }

    /// Nothing more is handed out.
    pub fn stop(&mut self) {
        self.stopped = true;
        self.holders.close_all();
    }

    // Messages in.

    /// Messages that are durable now: whoever waits gets them from memory.
    pub fn committed(&mut self, messages: &[Arc<NewMessage>], now: i64, instant: Instant) {
        let mut handouts: BTreeMap<u64, Handout> = BTreeMap::new();
        for message in messages {
            self.counts.messages += 1;
            self.counts.open += message.recipients.len() as u64;
            let mut kept = false;
            for ((variant, route), numbers) in deliveries(message) {
                self.offer(message, variant, route, numbers, (now, instant), &mut handouts, &mut kept);
            }
            if kept {
                self.recent.keep(message);
            }
        }
        for (holder, handout) in handouts {
            self.send(holder, handout, now);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the inner step of `committed`, apart for its length")]
    fn offer(
        &mut self,
        message: &Arc<NewMessage>,
        variant: u32,
        id: RouteId,
        mut numbers: Vec<u32>,
        (now, instant): (i64, Instant),
        handouts: &mut BTreeMap<u64, Handout>,
        kept: &mut bool,
    ) {
        while !numbers.is_empty() {
            let Some(route) = self.routes.get_mut(&id) else { return };
            let waits = !route.heads.is_empty() || route.is_due(now) || route.queued;
            let holder = match waits || route.is_paused(instant) || self.stopped {
                true => None,
                false => self.holders.take(&route.transport, route.in_flight),
            };
            let Some((holder, max)) = holder else { break };
            let rest = numbers.split_off(numbers.len().min(max as usize));
            let Some(content) = fresh_content(message, variant, &numbers) else { return };
            for number in &numbers {
                self.taken.insert(key(message.seq, *number));
            }
            route.in_flight += 1;
            route.taken += numbers.len() as u32;
            let handout = handouts.entry(holder).or_default();
            handout.deliveries.extend(self.lease(id, content, now, instant));
            numbers = rest;
        }
        if numbers.is_empty() {
            return;
        }
        let Some(route) = self.routes.get_mut(&id) else { return };
        let in_order = !route.is_due(now) && route.heads.len() < ROUTE_HEADS_MAX && self.heads < HEADS_MAX;
        // While heads are being read, what is committed now may be among them.
        let reading = route.queued && route.heads.is_empty();
        if in_order && !reading {
            let bytes = message.delivery_bytes(variant);
            route.heads.push_back(Head { seq: message.seq, variant, due: message.due, bytes, numbers });
            self.heads += 1;
        } else {
            route.may_have(Some(message.due));
        }
        *kept = true;
        self.ready_if_due(id, now);
    }

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
    fn pick(&mut self, id: RouteId, now: i64, instant: Instant, plan: &mut Plan) -> u64 {
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
                if self.taken.contains(&row.key) || self.unreadable.contains(&seq) {
                    continue;
                }
                if self.touched.contains(&seq) || self.heads >= HEADS_MAX {
                    route.may_have(Some(row.due));
                    continue;
                }
                let number = crate::model::number_of(row.key);
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

    fn send(&mut self, holder: u64, handout: Handout, now: i64) {
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

    fn lease(
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
            leased_at: now,
            recipients: content.recipients.clone(),
        };
        self.insert(token.number, Work::Delivery(Arc::new(leased)), instant);
        Some((token, transport, name, content))
    }

    fn insert(&mut self, number: i64, work: Work, instant: Instant) {
        let expires = instant + LEASE;
        self.leases.insert(number, Lease { expires, settling: false, work });
        self.expiries.insert((expires, number));
    }

    /// Leases reports. `limit`: how many were asked for.
    pub fn hand_out_reports(&mut self, read: Vec<crate::model::StoredReport>, limit: u32, now: i64, instant: Instant) {
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
            Work::Delivery(leased) => self.end_delivery(&leased, updates, now),
        }
    }

    fn end_delivery(&mut self, leased: &Leased, updates: &[RecipientUpdate], now: i64) {
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
            route.in_flight = route.in_flight.saturating_sub(1);
            route.taken = route.taken.saturating_sub(leased.recipients.len() as u32);
            route.may_have(due);
        }
        self.ready_if_due(leased.route, now);
    }

    fn expire(&mut self, now: i64, instant: Instant) {
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
        if let Some(route) = self.routes.get_mut(&id) {
            if route.paused_until.is_none_or(|other| other < until) {
                route.paused_until = Some(until);
                self.pauses.insert((until, id));
            }
        }
    }

    // People.

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
            if let Some(route) = self.routes.get_mut(id) {
                if let Some(first) = route.heads.front().map(|head| head.due) {
                    self.heads -= route.heads.len();
                    route.heads.clear();
                    route.may_have(Some(first));
                }
            }
            self.ready_if_due(*id, now);
        }
    }

    // What others see.

    pub fn is_leased(&self, key: i64) -> bool {
        self.taken.contains(&key)
    }

    pub fn leased_keys(&self) -> Vec<i64> {
        self.taken.iter().copied().collect()
    }

    pub fn leased(&self) -> usize {
        self.taken.len()
    }

    /// Routes with something due, and since when the first of it is.
    pub fn due(&self, now: i64) -> (Vec<RouteId>, Option<i64>) {
        let first = |route: &Route| route.heads.front().map(|head| head.due).into_iter().chain(route.next_due).min();
        let mut oldest: Option<i64> = None;
        let mut routes = Vec::new();
        for (id, route) in &self.routes {
            if let Some(due) = first(route).filter(|due| *due <= now) {
                oldest = Some(oldest.map_or(due, |other| other.min(due)));
                routes.push(*id);
            } else if route.queued || route.in_flight > 0 {
                routes.push(*id);
            }
        }
        (routes, oldest)
    }

    /// Whether time alone may bring work.
    pub fn waits_for_time(&self) -> bool {
        !self.timers.is_empty() || !self.pauses.is_empty() || !self.leases.is_empty() || self.next_report.is_some()
    }

    /// Routes that stood still may move: there is new credit, or there are new limits.
    pub fn unblock(&mut self, now: i64) {
        for id in std::mem::take(&mut self.blocked) {
            self.ready_if_due(id, now);
        }
    }

    /// Puts a route where it belongs: in line, or among the timers.
    fn ready_if_due(&mut self, id: RouteId, now: i64) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        if route.queued {
            return;
        }
        if !route.heads.is_empty() || route.is_due(now) {
            route.queued = true;
            self.ready.push_back(id);
        } else if let Some(due) = route.next_due {
            if route.timer.is_none_or(|timer| due < timer) {
                route.timer = Some(due);
                self.timers.insert((due, id));
            }
        }
    }
}

impl Route {
    fn new(transport: Arc<str>, name: Arc<str>) -> Self {
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

    fn may_have(&mut self, due: Option<i64>) {
        self.next_due = match (self.next_due, due) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    fn is_due(&self, now: i64) -> bool {
        self.next_due.is_some_and(|due| due <= now)
    }

    fn is_paused(&self, instant: Instant) -> bool {
        self.paused_until.is_some_and(|until| until > instant)
    }
}

/// The deliveries of a message: its recipients by variant and route.
fn deliveries(message: &NewMessage) -> BTreeMap<(u32, RouteId), Vec<u32>> {
    let mut found: BTreeMap<(u32, RouteId), Vec<u32>> = BTreeMap::new();
    for (number, recipient) in (0..).zip(&message.recipients) {
        found.entry((recipient.variant, recipient.route)).or_default().push(number);
    }
    found
}
