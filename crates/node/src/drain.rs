use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Tells everybody that the process is about to end, and knows who still works.
///
/// Services stop taking new work when it begins, finish what is in flight, and drop their guards.
#[derive(Clone)]
pub struct Drain {
    begun: Arc<watch::Sender<bool>>,
    working: Arc<watch::Sender<usize>>,
    failed: Arc<AtomicBool>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            begun: Arc::new(watch::channel(false).0),
            working: Arc::new(watch::channel(0).0),
            failed: Arc::default(),
        }
    }
}

impl Drain {
    /// Begins it.
    pub fn begin(&self) {
        self.begun.send_replace(true);
    }

    /// Runs a task that the process cannot do without. If it panics the process ends in good order, and not well: then
    /// whoever started it starts it anew.
    pub fn essential(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let drain = self.clone();
        let running = tokio::spawn(task);
        tokio::spawn(async move {
            if running.await.is_err_and(|error| error.is_panic()) {
                tracing::error!(name, "a task that cannot be done without panicked, the process ends");
                drain.failed.store(true, Ordering::Release);
                drain.begin();
            }
        });
    }

    /// Whether the process ends because of such a task.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_an_essential_task_ends_the_process_and_its_good_end_does_not() {
        let drain = Drain::default();
        let (done, ended) = tokio::sync::oneshot::channel();
        drain.essential("good", async move { done.send(()).unwrap() });
        ended.await.unwrap();
        assert!(!drain.has_begun());
        drain.essential("bad", async { panic!("as the test wants it") });
        drain.begun().await;
        assert!(drain.has_failed());
    }
}
