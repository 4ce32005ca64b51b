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

use std::sync::{Mutex, MutexGuard, PoisonError};

use node::Clock;
use tokio::sync::Notify;

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
}

impl Dispatch {
    /// Empty, for this run of the process.
    pub fn new(clock: Clock) -> Self {
        Self { state: Mutex::new(State::default()), bell: Notify::new(), clock }
    }

    /// The state. Held for moments, never over an await.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        // The state is plain data, whole between statements: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the run look again.
    pub fn wake(&self) {
        self.bell.notify_one();
    }

    /// The clock that everything here runs by.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }
}
