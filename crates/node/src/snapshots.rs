use std::sync::Arc;

use arc_swap::ArcSwap;
use resources::Snapshot;
use tokio::sync::watch;

/// The last good snapshot. Cloning is cheap; reading takes no lock.
#[derive(Clone)]
pub struct Snapshots {
    current: Arc<ArcSwap<Snapshot>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Snapshots {
    /// Starts with a first good one.
    pub fn new(first: Snapshot) -> Self {
        Self { current: Arc::new(ArcSwap::from_pointee(first)), changed: Arc::new(watch::channel(0).0) }
    }

    /// The one that is in force. Hold it for one decision, not for a session.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Puts a new one in force.
    pub fn replace(&self, next: Snapshot) {
        self.current.store(Arc::new(next));
        self.changed.send_modify(|n| *n += 1);
    }

    /// Its value changes whenever a new one is in force.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
