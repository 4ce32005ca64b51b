use std::pin::Pin;
use std::time::{Duration, Instant};

use node::Clock;
use tokio::time::Sleep;

/// The one timer of a session. A deadline that moves on is not registered anew: the timer fires at the earlier moment and sleeps on.
pub(crate) struct Timer {
    sleep: Pin<Box<Sleep>>,
    armed: Instant,
}

impl Timer {
    pub(crate) fn new(deadline: Instant, clock: &Clock) -> Self {
        let wait = deadline.saturating_duration_since(clock.instant());
        Self { sleep: Box::pin(tokio::time::sleep(wait)), armed: deadline }
    }

    /// Waits until the deadline. Nothing is lost when it is dropped before.
    pub(crate) async fn until(&mut self, deadline: Instant, clock: &Clock) {
        if deadline < self.armed {
            self.arm(deadline, clock);
        }
        loop {
            self.sleep.as_mut().await;
            if clock.instant() >= deadline {
                return;
            }
            self.arm(deadline, clock);
        }
    }

    fn arm(&mut self, deadline: Instant, clock: &Clock) {
        // A timer may fire a fraction early; it never spins.
        let wait = deadline.saturating_duration_since(clock.instant()).max(Duration::from_millis(1));
        self.armed = deadline;
        self.sleep.as_mut().reset(tokio::time::Instant::now() + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deadline_may_move_in_both_directions() {
        let clock = Clock::system();
        let start = clock.instant();
        let mut timer = Timer::new(start + Duration::from_secs(3600), &clock);
        timer.until(start + Duration::from_millis(20), &clock).await;
        assert!(clock.instant() >= start + Duration::from_millis(20));
        timer.until(start + Duration::from_millis(40), &clock).await;
        assert!(clock.instant() >= start + Duration::from_millis(40));
    }
}
