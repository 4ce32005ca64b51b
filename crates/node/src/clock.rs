use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use types::Timestamp;

/// Wall and monotonic time. Nobody else reads a clock; tests turn it by hand.
#[derive(Clone)]
pub struct Clock {
    /// Milliseconds that are added to both clocks: zero outside tests.
    ahead_ms: Arc<AtomicI64>,
}

impl Clock {
    /// The clocks of the system.
    pub fn system() -> Self {
        Self { ahead_ms: Arc::new(AtomicI64::new(0)) }
    }

    /// The wall clock.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads it")]
    pub fn now(&self) -> Timestamp {
        let system = Timestamp::from(SystemTime::now());
        Timestamp::from_unix_ms(system.unix_ms() + self.ahead_ms.load(Ordering::Relaxed))
    }

    /// The monotonic clock.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads it")]
    pub fn instant(&self) -> Instant {
        let ahead = u64::try_from(self.ahead_ms.load(Ordering::Relaxed)).unwrap_or(0);
        Instant::now() + Duration::from_millis(ahead)
    }

    /// Turns both clocks on, for tests.
    pub fn advance(&self, by: Duration) {
        self.ahead_ms.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
    }
}
