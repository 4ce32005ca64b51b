//! Retry, lease and back-off arithmetic.
#![warn(missing_docs)]

use std::time::Duration;

/// When a delivery is tried again, warned of and given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Wait after the first failure.
    pub delay_first: Duration,
    /// The wait doubles up to this.
    pub delay_max: Duration,
    /// A message that is older is given up (RFC 5321 section 4.5.4.1: 4 to 5 days).
    pub age_max: Duration,
    /// The sender is told of a delay after this; `None`: never.
    pub warn_after: Option<Duration>,
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Try again after this long.
    RetryIn(Duration),
    /// The message is too old: every open recipient fails.
    GiveUp,
}

/// The platform's default.
impl Default for Schedule {
    fn default() -> Self {
        Self {
            delay_first: Duration::from_secs(5 * 60),
            delay_max: Duration::from_secs(4 * 3600),
            age_max: Duration::from_secs(5 * 24 * 3600),
            warn_after: Some(Duration::from_secs(4 * 3600)),
        }
    }
}

impl Schedule {
    /// What follows the failure of attempt number `attempt` (from 1) of a message that is `age` old.
    ///
    /// The wait never reaches beyond `age_max`: the last attempt is made at that age, and what fails then is given up.
    /// An age that a clock turned back made negative is given as zero.
    pub fn next(&self, attempt: u32, age: Duration) -> Next {
        let left = self.age_max.saturating_sub(age);
        if left.is_zero() {
            return Next::GiveUp;
        }
        Next::RetryIn(self.delay(attempt).min(left))
    }

    /// The same where the wait is given from outside, for example by a peer: bounded by `delay_max` and `age_max`.
    pub fn next_after(&self, wait: Duration, age: Duration) -> Next {
        let left = self.age_max.saturating_sub(age);
        if left.is_zero() {
            return Next::GiveUp;
        }
        Next::RetryIn(wait.min(self.delay_max.max(self.delay_first)).min(left))
    }

    /// Whether the sender must be told now that a message `age` old is delayed. `warned`: he has been.
    pub fn warn_due(&self, age: Duration, warned: bool) -> bool {
        !warned && self.warn_after.is_some_and(|after| age >= after)
    }

    /// The wait after attempt number `attempt`, regardless of age.
    fn delay(&self, attempt: u32) -> Duration {
        // 2^31 times anything over a second is beyond every delay_max that makes sense.
        let doublings = attempt.saturating_sub(1).min(31);
        self.delay_first.saturating_mul(1 << doublings).min(self.delay_max.max(self.delay_first))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(60 * n)
    }

    fn hours(n: u64) -> Duration {
        minutes(60 * n)
    }

    fn days(n: u64) -> Duration {
        hours(24 * n)
    }

    #[test]
    fn retry_delay_doubles_up_to_its_cap_and_then_gives_up() {
        let schedule = Schedule::default();
        let cases = [
            ("first failure", 1, minutes(0), Next::RetryIn(minutes(5))),
            ("an attempt that was not counted", 0, minutes(0), Next::RetryIn(minutes(5))),
            ("doubles", 2, minutes(5), Next::RetryIn(minutes(10))),
            ("doubles again", 3, minutes(15), Next::RetryIn(minutes(20))),
            ("below the cap", 6, hours(3), Next::RetryIn(minutes(160))),
            ("capped", 7, hours(6), Next::RetryIn(hours(4))),
            ("far beyond the cap", u32::MAX, hours(20), Next::RetryIn(hours(4))),
            ("cut to the last attempt", 30, days(5) - minutes(1), Next::RetryIn(minutes(1))),
            ("the last attempt failed", 31, days(5), Next::GiveUp),
            ("a clock that jumped ahead", 1, days(400), Next::GiveUp),
            ("first failure long after arrival", 1, days(4), Next::RetryIn(minutes(5))),
        ];
        for (name, attempt, age, expected) in cases {
            assert_eq!(schedule.next(attempt, age), expected, "{name}");
        }
    }

    #[test]
    fn a_wait_from_outside_stays_within_the_schedule() {
        let schedule = Schedule::default();
        let cases = [
            ("as asked", minutes(1), minutes(0), Next::RetryIn(minutes(1))),
            ("not beyond the longest wait", days(30), minutes(0), Next::RetryIn(hours(4))),
            ("not beyond the last attempt", hours(3), days(5) - hours(1), Next::RetryIn(hours(1))),
            ("too old", minutes(1), days(5), Next::GiveUp),
        ];
        for (name, wait, age, expected) in cases {
            assert_eq!(schedule.next_after(wait, age), expected, "{name}");
        }
    }

    #[test]
    fn the_sender_is_warned_once_and_only_where_the_schedule_says_so() {
        let default = Schedule::default();
        let silent = Schedule { warn_after: None, ..default };
        let cases = [
            ("too early", default, hours(4) - minutes(1), false, false),
            ("due", default, hours(4), false, true),
            ("long due", default, days(3), false, true),
            ("already warned", default, days(3), true, false),
            ("a clock that jumped back", default, Duration::ZERO, false, false),
            ("never", silent, days(4), false, false),
        ];
        for (name, schedule, age, warned, expected) in cases {
            assert_eq!(schedule.warn_due(age, warned), expected, "{name}");
        }
    }

    #[test]
    fn a_schedule_whose_cap_is_below_its_first_delay_still_waits() {
        let odd = Schedule { delay_max: Duration::ZERO, ..Schedule::default() };
        assert_eq!(odd.next(9, Duration::ZERO), Next::RetryIn(minutes(5)));
    }

    proptest! {
        #[test]
        fn no_retry_is_planned_beyond_the_age_that_is_given_up(attempt: u32, age_s in 0u64..1_000_000) {
            let schedule = Schedule::default();
            let age = Duration::from_secs(age_s);
            match schedule.next(attempt, age) {
                Next::RetryIn(wait) => prop_assert!(!wait.is_zero() && age + wait <= schedule.age_max),
                Next::GiveUp => prop_assert!(age >= schedule.age_max),
            }
        }
    }
}
