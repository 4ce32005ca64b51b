use std::future::Future;

use node::panics::caught;

/// Runs a task so that a panic ends this task only; the process counts it.
pub(crate) fn guarded(task: &'static str, work: impl Future<Output = ()>) -> impl Future<Output = ()> {
    // What the work borrows is dropped with it: nobody sees it half changed.
    let work = caught(work);
    async move {
        if let Err(panic) = work.await {
            tracing::error!(task, what = panic.what, location = panic.location, "a task panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_stays_within_its_task() {
        guarded("test", async { panic!("one bad message") }).await;
        let mut ran = false;
        guarded("test", async { ran = true }).await;
        assert!(ran);
    }
}
