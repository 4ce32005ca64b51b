//! How long a route rests whose hosts cannot be reached: a dead host is not tried for every message.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use schedule::Schedule;

/// First rest; a transport that retries sooner rests no longer than its first delay.
const PAUSE_FIRST: Duration = Duration::from_secs(60);
/// The rest doubles up to this.
const PAUSE_MAX: Duration = Duration::from_secs(900);
/// Routes whose failures are remembered; beyond it all begin anew.
const ROUTES_MAX: usize = 10_000;

/// Failures in a row, by transport and route.
#[derive(Default)]
pub(crate) struct Pauses {
    failures: Mutex<HashMap<(String, String), u32>>,
}

impl Pauses {
    /// The route could not be reached: how long it rests.
    pub(crate) fn failed(&self, transport: &str, route: &str, schedule: &Schedule) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= ROUTES_MAX {
            failures.clear();
        }
        let count = failures.entry((transport.to_owned(), route.to_owned())).or_insert(0);
        let doubled = PAUSE_FIRST.min(schedule.delay_first).saturating_mul(1 << (*count).min(10));
        *count = count.saturating_add(1);
        doubled.min(PAUSE_MAX).min(schedule.delay_max)
    }

    /// The route was reached.
    pub(crate) fn reached(&self, transport: &str, route: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if !failures.is_empty() {
            failures.remove(&(transport.to_owned(), route.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_rests_longer_each_time_until_it_is_reached() {
        let schedule = |first, max| Schedule {
            delay_first: Duration::from_secs(first),
            delay_max: Duration::from_secs(max),
            age_max: Duration::from_secs(1),
            warn_after: None,
        };
        let (pauses, usual, quick) = (Pauses::default(), schedule(300, 14_400), schedule(1, 3));
        let rest = |schedule: &Schedule| pauses.failed("t", "r", schedule).as_secs();
        assert_eq!([rest(&usual), rest(&usual), rest(&usual)], [60, 120, 240]);
        assert_eq!((0..100).map(|_| rest(&usual)).max(), Some(900));
        pauses.reached("t", "r");
        assert_eq!([rest(&quick), rest(&quick), rest(&quick)], [1, 2, 3]);
        assert_eq!(pauses.failed("t", "other", &usual).as_secs(), 60);
    }
}
