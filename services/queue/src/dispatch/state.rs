//! Routes and leases.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::holders::{Handout, Holders};
use super::leases::Lease;
use super::recent::{Recent, fresh_content};
use super::routes::{HEADS_MAX, Head, ROUTE_FRESH_MAX, Route};
use crate::model::{NewMessage, RouteId, Seq, State as RecipientState, key};
use crate::store::{Loaded, NewRoute, StoredRoute};

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
    pub(super) counter: i64,
    pub(super) next_seq: Seq,
    pub(super) next_route: RouteId,
    pub(super) routes: HashMap<RouteId, Route>,
    pub(super) ids: HashMap<Arc<str>, HashMap<Arc<str>, RouteId>>,
    /// Routes with something due, in turn.
    pub(super) ready: VecDeque<RouteId>,
    /// Routes that stand still because of a holder's limit.
    pub(super) blocked: Vec<RouteId>,
    pub(super) timers: BTreeSet<(i64, RouteId)>,
    pub(super) pauses: BTreeSet<(Instant, RouteId)>,
    pub(super) heads: usize,
    pub(super) leases: HashMap<i64, Lease>,
    pub(super) expiries: BTreeSet<(Instant, i64)>,
    /// Recipients that are leased or about to be.
    pub(super) taken: HashSet<i64>,
    /// Recipients that people changed while they were leased.
    pub(super) changed: HashMap<i64, RecipientState>,
    /// Messages that something happened to since the last read began.
    pub(super) touched: HashSet<Seq>,
    /// The first message of the group that is being written. From its commit on readers see it; it counts as here only when
    /// the writer says so, or it would be here twice.
    pub writing: Option<Seq>,
    /// Messages that cannot be read and could not be marked so.
    pub(super) unreadable: HashSet<Seq>,
    pub(super) recent: Recent,
    pub holders: Holders,
    pub counts: Counts,
    pub(super) reports_taken: HashSet<i64>,
    pub(super) next_report: Option<i64>,
    pub(super) stopped: bool,
    /// Milliseconds by which due times are ahead of the wall clock; see `Dispatch::now`.
    pub ahead: i64,
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

    /// Routes that nothing is left of in memory, up to `limit`. The store may drop them from now on: it is told of each
    /// again with the next recipient.
    pub fn idle_routes(&mut self, limit: usize, instant: Instant) -> Vec<RouteId> {
        let idle = self.routes.iter_mut().filter(|(_, route)| route.stored && route.is_idle(instant));
        idle.take(limit)
            .map(|(id, route)| {
                route.stored = false;
                *id
            })
            .collect()
    }

    #[cfg(test)]
    pub fn known_routes(&self) -> usize {
        self.routes.len()
    }

    /// Routes that the store has dropped.
    pub fn forget_routes(&mut self, dropped: &[RouteId]) {
        for id in dropped {
            let Some(route) = self.routes.remove(id) else { continue };
            if let Some(names) = self.ids.get_mut(&route.transport) {
                names.remove(&route.name);
                if names.is_empty() {
                    self.ids.remove(&route.transport);
                }
            }
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
                self.recent.keep(message, instant);
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
        let in_order = !route.is_due(now) && route.heads.len() < ROUTE_FRESH_MAX && self.heads < HEADS_MAX;
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
    pub(super) fn ready_if_due(&mut self, id: RouteId, now: i64) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        if route.queued {
            return;
        }
        if !route.heads.is_empty() || route.is_due(now) {
            route.queued = true;
            self.ready.push_back(id);
        } else if let Some(due) = route.next_due
            && route.timer.is_none_or(|timer| due < timer)
        {
            route.timer = Some(due);
            self.timers.insert((due, id));
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::routes::HEADS_MAX;
    use crate::store::HeadRow;

    #[test]
    fn a_route_gets_a_head_however_many_rest_in_memory() {
        let mut state = State::default();
        let (route, _) = state.route("mx", "alive.example");
        state.heads = HEADS_MAX;
        let row = |n| HeadRow { route, due: 1, key: key(n, 0), variant: 0, bytes: 1 };
        state.filled(&[(route, 256)], &[row(1), row(2)], 10);
        let filled = &state.routes[&route];
        assert_eq!((filled.heads.len(), filled.next_due, filled.queued), (1, Some(1), true));
    }
}
