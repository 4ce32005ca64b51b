//! Retry, lease and back-off arithmetic.

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
