//! Budgets of failed logins: of a source, and of a name, however many sources guess at it.
//!
//! In memory, bounded, and lost at a restart: they slow guessing down, nothing rests on them. What is kept is a hash under a random key, never a name.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use resources::snapshot::AuthFailures;

/// Sources and names that are remembered at a time, each with 40 octets or so.
const TRACKED_MAX: usize = 1 << 16;
/// Pairs of user and source that have logged in.
const FRIENDS_MAX: usize = 1 << 16;
/// Bits of an IPv6 address that are one source: what a provider hands to one customer.
const SOURCE_IPV6_PREFIX: u32 = 64;

/// Counts failed logins.
#[derive(Default)]
pub(crate) struct Budgets {
    hasher: RandomState,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    levels: HashMap<u64, Level>,
    /// When they last logged in.
    friends: HashMap<u64, Instant>,
}

/// Failures that are not forgiven yet.
#[derive(Clone, Copy)]
struct Level {
    failures: f64,
    at: Instant,
}

impl Level {
    /// `max` failures are forgiven in a window, evenly.
    fn at(self, now: Instant, max: u32, bounds: &AuthFailures) -> f64 {
        let windows = now.saturating_duration_since(self.at).as_secs_f64() / bounds.window.as_secs_f64().max(1e-3);
        (self.failures - windows * f64::from(max)).max(0.0)
    }
}

/// A login that counts as failed until it is given back.
#[derive(Debug)]
pub(crate) struct Charge {
    keys: Vec<(u64, u32)>,
    /// User and source, where the source is known.
    pair: Option<u64>,
}

/// The kinds of keys.
#[derive(Hash)]
enum Kind {
    Source,
    User,
    Pair,
}

impl Budgets {
    /// Counts a login as failed before its password is looked at, so that a thousand at a time are a thousand; `None`: there were too many.
    ///
    /// A user's own sources are apart: whoever guesses at a name from elsewhere cannot keep its user out.
    pub(crate) fn charge(
        &self,
        bounds: &AuthFailures,
        now: Instant,
        source: Option<IpAddr>,
        user: &str,
    ) -> Option<Charge> {
        let source = source.map(whole);
        let pair = source.map(|source| self.hasher.hash_one((Kind::Pair, source, user)));
        let mut state = self.lock();
        let mut keys = match pair {
            Some(pair) if state.friends.contains_key(&pair) => vec![(pair, bounds.per_user_max)],
            _ => {
                let of_user = (self.hasher.hash_one((Kind::User, user)), bounds.per_user_max);
                let of_source = |source| (self.hasher.hash_one((Kind::Source, source)), bounds.per_source_max);
                source.map(of_source).into_iter().chain([of_user]).collect()
            }
        };
        keys.retain(|(_, max)| *max > 0);
        let level = |key, max| state.levels.get(&key).map_or(0.0, |level: &Level| level.at(now, max, bounds));
        let levels: Vec<f64> = keys.iter().map(|(key, max)| level(*key, *max)).collect();
        if keys.iter().zip(&levels).any(|((_, max), level)| level + 1.0 > f64::from(*max)) {
            return None;
        }
        for ((key, _), level) in keys.iter().zip(levels) {
            state.levels.insert(*key, Level { failures: level + 1.0, at: now });
        }
        state.make_room();
        Some(Charge { keys, pair })
    }

    /// The login had no fault of the client's.
    pub(crate) fn give_back(&self, charge: &Charge) {
        let mut state = self.lock();
        for (key, _) in &charge.keys {
            if let Some(level) = state.levels.get_mut(key) {
                level.failures = (level.failures - 1.0).max(0.0);
            }
        }
    }

    /// The user has logged in from there.
    pub(crate) fn succeeded(&self, charge: &Charge, now: Instant) {
        self.give_back(charge);
        if let Some(pair) = charge.pair {
            let mut state = self.lock();
            state.friends.insert(pair, now);
            if state.friends.len() > FRIENDS_MAX {
                keep_half(&mut state.friends, |at| *at);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whoever failed longest ago is forgotten; it takes a flood to get there.
    fn make_room(&mut self) {
        if self.levels.len() > TRACKED_MAX {
            keep_half(&mut self.levels, |level| level.at);
        }
    }
}

fn keep_half<T>(map: &mut HashMap<u64, T>, at: impl Fn(&T) -> Instant) {
    let mut moments: Vec<Instant> = map.values().map(&at).collect();
    let middle = moments.len() / 2;
    let (_, median, _) = moments.select_nth_unstable(middle);
    let median = *median;
    map.retain(|_, value| at(value) > median);
}

fn whole(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(four) => four.into(),
        IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits() & (u128::MAX << (128 - SOURCE_IPV6_PREFIX))).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BOUNDS: AuthFailures = AuthFailures { per_source_max: 3, per_user_max: 5, window: Duration::from_secs(3600) };

    #[allow(clippy::disallowed_methods, reason = "some moment to begin with")]
    fn start() -> Instant {
        Instant::now()
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_source_has_a_budget_over_all_names_and_a_name_over_all_sources() {
        let (budgets, now) = (Budgets::default(), start());
        let free = |source: &str, user: &str| budgets.charge(&BOUNDS, now, ip(source), user).is_some();
        let one_source =
            [free("192.0.2.1", "a"), free("192.0.2.1", "b"), free("192.0.2.1", "c"), free("192.0.2.1", "d")];
        assert_eq!(one_source, [true, true, true, false]);
        let one_name: Vec<bool> = (2..9).map(|n| free(&format!("192.0.2.{n}"), "x")).collect();
        assert_eq!(one_name, [true, true, true, true, true, false, false]);
        assert!(free("2001:db8::1", "p") && free("2001:db8::2", "q") && free("2001:db8::3", "r"));
        assert!(!free("2001:db8::4", "s"), "a /64 is one source");
        assert!(budgets.charge(&BOUNDS, now, None, "t").is_some(), "without an address the name counts alone");
    }

    #[test]
    fn failures_are_forgiven_with_time_and_successes_do_not_count() {
        let (budgets, now) = (Budgets::default(), start());
        for _ in 0..3 {
            assert!(budgets.charge(&BOUNDS, now, ip("192.0.2.1"), "a").is_some());
        }
        assert!(budgets.charge(&BOUNDS, now + Duration::from_secs(600), ip("192.0.2.1"), "a").is_none());
        let charge = budgets.charge(&BOUNDS, now + Duration::from_secs(1300), ip("192.0.2.1"), "a").unwrap();
        budgets.give_back(&charge);
        assert!(budgets.charge(&BOUNDS, now + Duration::from_secs(1300), ip("192.0.2.1"), "a").is_some());
    }

    #[test]
    fn whoever_guesses_at_a_name_does_not_keep_its_user_out() {
        let (budgets, now) = (Budgets::default(), start());
        let charge = budgets.charge(&BOUNDS, now, ip("192.0.2.1"), "alice").unwrap();
        budgets.succeeded(&charge, now);
        for n in 2..7 {
            assert!(budgets.charge(&BOUNDS, now, ip(&format!("192.0.2.{n}")), "alice").is_some());
        }
        assert!(budgets.charge(&BOUNDS, now, ip("192.0.2.9"), "alice").is_none());
        let own: Vec<bool> = (0..6).map(|_| budgets.charge(&BOUNDS, now, ip("192.0.2.1"), "alice").is_some()).collect();
        assert_eq!(own, [true, true, true, true, true, false], "its own source has a budget too");
    }

    #[test]
    fn a_flood_of_names_takes_no_more_than_the_room_there_is() {
        let (budgets, now) = (Budgets::default(), start());
        let wide = AuthFailures { per_source_max: 0, ..BOUNDS };
        for n in 0..(TRACKED_MAX as u64 * 2) {
            let at = now + Duration::from_millis(n / 100);
            assert!(budgets.charge(&wide, at, None, &format!("user{n}")).is_some());
        }
        assert!(budgets.lock().levels.len() <= TRACKED_MAX);
    }
}
