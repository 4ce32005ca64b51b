//! The life of the process: runtime, limits, signals, the end.

use std::io;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{Node, Part, systemd};

/// How long threads that cannot be interrupted (a password hash, an fsync) may hold up the end.
const THREADS_GRACE: Duration = Duration::from_secs(2);
/// Histograms keep single values until they are summed up: this often.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The runtime of everything that waits.
pub fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("posthouse").build()
}

/// Runs `work` to its end on a runtime of its own; what was spawned ends with it.
pub fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = runtime()?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(THREADS_GRACE);
    Ok(result)
}

/// Allows as many open files as the system lets this process have: every session is one.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// Sums up histograms now and then, also when nobody scrapes.
pub fn keep_metrics_small(metrics: metrics_exporter_prometheus::PrometheusHandle) {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_INTERVAL).await;
            metrics.run_upkeep();
        }
    });
}

/// The signals that end the process.
pub struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl EndSignals {
    /// From now on they are ours.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next one, as the exit code that shells give it: 143 or 130.
    pub async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.terminate.recv() => 143,
            _ = self.interrupt.recv() => 130,
        }
    }
}

/// EX_SOFTWARE of sysexits.h.
const FAILED: u8 = 70;

/// Waits for a signal, or for the end of a task that the process cannot do without, lets everybody finish, and gives the
/// exit code. A second signal ends at once.
pub async fn until_end(node: &Node, signals: &mut EndSignals) -> u8 {
    tokio::select! {
        _ = signals.next() => {}
        () = node.drain().begun() => {}
    }
    let code = drain(node, signals.next()).await;
    if node.drain().has_failed() { FAILED } else { code }
}

/// Begins the end: not ready, no new work, what is in flight is finished within the platform's grace. `now` cuts it
/// short with its exit code.
pub async fn drain(node: &Node, now: impl Future<Output = u8>) -> u8 {
    let grace = node.snapshots().current().platform.drain_max;
    tracing::info!(grace_s = grace.as_secs(), "ends: finishes what is in flight");
    systemd::tell(systemd::State::Stopping);
    node.health().set("process", Part::NotReady("is about to end".to_owned()));
    node.drain().begin();
    tokio::select! {
        () = node.drain().finished() => {
            tracing::info!("ended");
            0
        }
        () = tokio::time::sleep(grace) => {
            // Nothing is lost: what was not answered is sent again, what was leased is leased again.
            tracing::warn!("ended with work in flight: the grace is over");
            0
        }
        code = now => {
            tracing::warn!("ended with work in flight: a second signal came");
            code
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::path::PathBuf;

    use super::*;
    use crate::testing::snapshot;
    use crate::{Clock, Snapshots};

    fn node(grace: Duration) -> Node {
        let mut first = snapshot("1");
        first.platform.drain_max = grace;
        Node::new(Snapshots::new(first), PathBuf::new(), Clock::system())
    }

    #[tokio::test]
    async fn the_end_waits_for_work_in_flight_and_is_not_ready_meanwhile() {
        let node = node(Duration::from_secs(3600));
        let guard = node.drain().guard();
        let worker = node.clone();
        tokio::spawn(async move {
            worker.drain().begun().await;
            assert!(!worker.health().is_ready());
            drop(guard);
        });
        assert_eq!(drain(&node, pending()).await, 0);
        assert!(node.drain().has_begun());
    }

    #[tokio::test]
    async fn work_that_does_not_end_is_left_after_the_grace() {
        let node = node(Duration::from_millis(1));
        let _guard = node.drain().guard();
        assert_eq!(drain(&node, pending()).await, 0);
    }

    #[tokio::test]
    async fn a_second_signal_ends_at_once_with_its_code() {
        let node = node(Duration::from_secs(3600));
        let _guard = node.drain().guard();
        assert_eq!(drain(&node, ready(143)).await, 143);
    }
}
