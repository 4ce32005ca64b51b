use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

/// Runs a task so that a panic ends this task only; the process counts it.
pub(crate) async fn guarded(task: &'static str, work: impl Future<Output = ()>) {
    // What the work borrows is dropped with it: nobody sees it half changed.
    if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        tracing::error!(task, panic = text.unwrap_or("unknown"), "task panicked");
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
