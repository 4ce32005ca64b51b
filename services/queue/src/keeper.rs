//! Work in the background: recovery, checkpoints, trimming, sweeping, gauges.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use node::Clock;
use types::Timestamp;

use crate::bodies::BodyStore;
use crate::context::{Condition, Settings, Trouble};
use crate::dispatch::Dispatch;
use crate::service::Inner;
use crate::store::{Store, StoreError};
use crate::writer::Writer;

/// How often it looks.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks at old events and idle routes.
const TRIM_EVERY: Duration = Duration::from_secs(60);
/// Events of one bite; between two bites mail goes on.
const TRIM_BITE: u32 = 500;
/// Between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
/// An unknown body file that is younger may belong to a message that is being accepted.
const SWEEP_AGE: Duration = Duration::from_secs(24 * 3600);
/// Names of one question to the store.
const SWEEP_BITE: usize = 1000;
/// A wall clock that goes further than this away from the monotonic one has been set.
const JUMP: Duration = Duration::from_secs(10);

/// What the keeper looks after.
pub(crate) struct Keeper<S, B> {
    pub store: Arc<S>,
    pub bodies: Arc<B>,
    pub dispatch: Arc<Dispatch>,
    pub writer: Writer,
    pub settings: Settings,
    pub condition: Condition,
    pub clock: Clock,
}

/// Looks after the store until the service is gone.
pub(crate) async fn run<S: Store, B: BodyStore>(keeper: Keeper<S, B>, service: std::sync::Weak<Inner<S, B>>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let start = keeper.clock.instant();
    let (mut trimmed, mut swept) = (None, start);
    let mut jumps = Jumps::new(&keeper.clock);
    loop {
        ticks.tick().await;
        let Some(inner) = service.upgrade() else { return };
        // Free space comes back without anybody asking.
        inner.space.is_enough();
        drop(inner);
        keeper.gauges();
        if let Some(by_ms) = jumps.look(&keeper.clock) {
            keeper.dispatch.wall_was_set(by_ms);
        }
        if keeper.condition.has(Trouble::Bodies) && keeper.bodies.probe().await.is_ok() {
            keeper.condition.set(Trouble::Bodies, None);
        }
        if keeper.condition.troubled().is_some() {
            keeper.writer.probe().await;
            continue;
        }
        keeper.log("checkpoint", keeper.store.tidy().await);
        let now = keeper.clock.instant();
        if trimmed.is_none_or(|at| now.saturating_duration_since(at) >= TRIM_EVERY) {
            trimmed = Some(now);
            keeper.log("trimming events", keeper.trim().await);
            keeper.writer.trim_routes();
        }
        if now.saturating_duration_since(swept) >= SWEEP_EVERY {
            swept = now;
            keeper.sweep_older(SWEEP_AGE).await;
        }
    }
}

impl<S: Store, B: BodyStore> Keeper<S, B> {
    fn log(&self, work: &'static str, result: Result<(), StoreError>) {
        if let Err(error) = result {
            tracing::warn!(%error, work, "background work failed, trying again");
        }
    }

    fn gauges(&self) {
        let now = self.dispatch.now().unix_ms();
        let (counts, leased, oldest) = {
            let state = self.dispatch.lock();
            (state.counts, state.leased(), state.due(now).1)
        };
        let gauge = |state: &'static str, value: u64| {
            metrics::gauge!("posthouse_queue_messages", "state" => state).set(value as f64);
        };
        gauge("waiting", counts.open.saturating_sub(leased as u64));
        gauge("leased", leased as u64);
        gauge("held", counts.held);
        gauge("report", counts.reports);
        let age = oldest.map_or(0, |oldest| now.saturating_sub(oldest));
        metrics::gauge!("posthouse_queue_oldest_due_seconds").set(age as f64 / 1000.0);
    }

    async fn trim(&self) -> Result<(), StoreError> {
        let retention = self.settings.event_retention();
        let until = self.clock.now().unix_ms().saturating_sub(i64::try_from(retention.as_millis()).unwrap_or(i64::MAX));
        while self.store.trim_events(until, TRIM_BITE).await? == u64::from(TRIM_BITE) {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn sweep_older(&self, age: Duration) {
        let now = system_time(self.clock.now());
        let Some(until) = now.checked_sub(age) else { return };
        if let Err(error) = sweep(&*self.store, &*self.bodies, until).await {
            tracing::warn!(%error, "sweep of body files failed, trying again");
        }
    }
}

fn system_time(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(at.unix_ms()).unwrap_or(0))
}

/// Deletes what runs before this one left: nobody else writes into the folder.
pub(crate) async fn sweep_at_start<S: Store, B: BodyStore>(store: Arc<S>, bodies: Arc<B>, started: Timestamp) {
    /// The clock of a file system lags by a tick or two.
    const LAG: Duration = Duration::from_secs(1);
    let Some(until) = system_time(started).checked_sub(LAG) else { return };
    if let Err(error) = sweep(&*store, &*bodies, until).await {
        tracing::warn!(%error, "sweep of body files failed, trying again");
    }
}

/// Why a sweep stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SweepError {
    #[error("listing bodies: {0}")]
    List(#[from] std::io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Deletes body files from before `until` that no message needs.
pub(crate) async fn sweep<S: Store, B: BodyStore>(
    store: &S,
    bodies: &B,
    until: SystemTime,
) -> Result<usize, SweepError> {
    node::fault::point("queue.sweep");
    let names = bodies.list(until).await?;
    let mut swept = 0;
    for bite in names.chunks(SWEEP_BITE) {
        let known = store.known_bodies(bite).await?;
        let unknown: Vec<String> = bite.iter().filter(|name| !known.contains(*name)).cloned().collect();
        swept += unknown.len();
        bodies.delete(unknown).await;
        node::fault::point("queue.sweep-removed");
    }
    if swept > 0 {
        tracing::info!(files = swept, "leftover body files deleted");
    }
    Ok(swept)
}

/// Notices a wall clock that was set, and by how many milliseconds.
struct Jumps {
    wall: i64,
    monotonic: std::time::Instant,
}

impl Jumps {
    fn new(clock: &Clock) -> Self {
        Self { wall: clock.now().unix_ms(), monotonic: clock.instant() }
    }

    fn look(&mut self, clock: &Clock) -> Option<i64> {
        let next = Self::new(clock);
        let passed = next.monotonic.saturating_duration_since(self.monotonic).as_millis() as i64;
        let jumped = next.wall - self.wall - passed;
        *self = next;
        if jumped.unsigned_abs() <= JUMP.as_millis() as u64 {
            return None;
        }
        tracing::warn!(seconds = jumped / 1000, "wall clock was set");
        Some(jumped)
    }
}
