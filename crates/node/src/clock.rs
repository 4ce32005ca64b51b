use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use types::Timestamp;

/// Wall and monotonic time. Nobody else reads a clock; tests turn it by hand.
#[derive(Clone)]
pub struct Clock {
    /// Milliseconds that are added to both clocks: zero outside tests.
    ahead_ms: Arc<AtomicI64>,
    /// Milliseconds that are added to the wall clock alone.
    wall_ms: Arc<AtomicI64>,
}

impl Clock {
    /// The clocks of the system.
    pub fn system() -> Self {
        Self { ahead_ms: Arc::default(), wall_ms: Arc::default() }
    }

    /// The wall clock.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads it")]
    pub fn now(&self) -> Timestamp {
        let system = Timestamp::from(SystemTime::now());
        let added = self.ahead_ms.load(Ordering::Relaxed) + self.wall_ms.load(Ordering::Relaxed);
        Timestamp::from_unix_ms(system.unix_ms() + added)
    }

    /// The monotonic clock.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads it")]
    pub fn instant(&self) -> Instant {
        let ahead = u64::try_from(self.ahead_ms.load(Ordering::Relaxed)).unwrap_or(0);
        Instant::now() + Duration::from_millis(ahead)
    }

    /// Sets the wall clock on or back by so many milliseconds, for tests: the monotonic one does not see it.
    pub fn jump_wall(&self, by_ms: i64) {
        self.wall_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Turns both clocks on, for tests.
    pub fn advance(&self, by: Duration) {
        self.ahead_ms.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
    }
}
