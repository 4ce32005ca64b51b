//! Who delivers what next.
//!
//! The store knows which recipients are due; this knows who works on them: leases, holders with their credit, and per
//! route what is in flight, paused and due next. Nothing here is durable, and nothing of it grows with the number of
//! queued messages: the heads of a route are read in batches when their turn comes.
//!
//! A read of the store runs beside commits and is old when it arrives. So a recipient that is read is taken only if it
//! is not leased now, and if nothing happened to its message since the read began (`State::touched`).

mod handing;
mod holders;
mod leases;
mod recent;
mod routes;
mod run;
mod state;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use node::Clock;
use tokio::sync::Notify;
use types::Timestamp;

pub use holders::{Handout, Limit};
pub use leases::{Token, Work};
pub use run::run;
pub use state::State;

/// How long a lease lives without Extend.
pub const LEASE: std::time::Duration = std::time::Duration::from_secs(60);
/// Deliveries of one handing-out.
const BATCH_MAX: usize = 64;
/// Octets of one handing-out.
const BATCH_BYTES: u64 = 4 << 20;

/// The state behind its lock, and the bell that wakes who hands out.
pub struct Dispatch {
    state: Mutex<State>,
    bell: Notify,
    clock: Clock,
    /// Milliseconds by which [`Self::now`] is ahead of the wall clock.
    ahead: AtomicI64,
}

impl Dispatch {
    /// Empty, for this run of the process.
    pub fn new(clock: Clock) -> Self {
        Self { state: Mutex::new(State::default()), bell: Notify::new(), clock, ahead: AtomicI64::new(0) }
    }

    /// The state. Held for moments, never over an await.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        // The state is plain data, whole between statements: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time that due times are measured by: the wall clock, as long as nobody sets it back.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.clock.now().unix_ms() + self.ahead.load(Ordering::Relaxed))
    }

    /// The wall clock was set by so many milliseconds. Set back, it must not make mail wait until it has caught up: our
    /// time goes on as it was. Set forward, it pays that back; beyond that what waits is due earlier, once each.
    pub fn wall_was_set(&self, by_ms: i64) {
        let mut state = self.lock();
        state.ahead = state.ahead.saturating_sub(by_ms).max(0);
        self.ahead.store(state.ahead, Ordering::Relaxed);
        drop(state);
        self.wake();
    }

    /// Lets the run look again.
    pub fn wake(&self) {
        self.bell.notify_one();
    }
}
