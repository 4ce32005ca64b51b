use std::sync::Arc;

use tokio::sync::watch;

/// Tells everybody that the process is about to end, and knows who still works.
///
/// Services stop taking new work when it begins, finish what is in flight, and drop their guards.
#[derive(Clone)]
pub struct Drain {
    begun: Arc<watch::Sender<bool>>,
    working: Arc<watch::Sender<usize>>,
}

impl Default for Drain {
    fn default() -> Self {
        Self { begun: Arc::new(watch::channel(false).0), working: Arc::new(watch::channel(0).0) }
    }
}

impl Drain {
    /// Begins it.
    pub fn begin(&self) {
        self.begun.send_replace(true);
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        *self.begun.borrow()
    }

    /// Waits until it begins.
    pub async fn begun(&self) {
        let mut receiver = self.begun.subscribe();
        // The sender lives in self: waiting cannot fail.
        let _ = receiver.wait_for(|begun| *begun).await;
    }

    /// Says that there is work that should be finished before the process ends.
    pub fn guard(&self) -> DrainGuard {
        self.working.send_modify(|n| *n += 1);
        DrainGuard { working: Arc::clone(&self.working) }
    }

    /// Waits until no guard is left.
    pub async fn finished(&self) {
        let mut receiver = self.working.subscribe();
        let _ = receiver.wait_for(|n| *n == 0).await;
    }
}

/// Work that should be finished before the process ends.
pub struct DrainGuard {
    working: Arc<watch::Sender<usize>>,
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        self.working.send_modify(|n| *n -= 1);
    }
}
