//! Panics: each is a bug, is counted once and logged once, and ends no more than the piece of work that it struck.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

thread_local! {
    /// The work that runs on this thread reports its own panics.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
    /// The last panic of such work on this thread.
    static LAST: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// What is known of a panic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Panic {
    /// Its text.
    pub what: String,
    /// File and line.
    pub location: String,
}

/// From now on panics are counted and logged like everything else; those inside [`caught`] are logged by whoever caught
/// them, who knows what the work was about.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let what = info.payload_as_str().unwrap_or("no text").to_owned();
        metrics::counter!("posthouse_task_panics_total").increment(1);
        if CAUGHT.get() {
            LAST.set(Some(Panic { what, location }));
        } else {
            tracing::error!(what, location, "a task panicked");
        }
    }));
    metrics::counter!("posthouse_task_panics_total").increment(0);
}

/// Runs `work` to its end, or to its panic. The caller logs the panic, once, with what it knows.
///
/// What the work borrowed may be half changed: after a panic the caller reads no more of it than it must.
///
/// The work is boxed: handed from one future to the next by value it would stand in each of them.
pub fn caught<F: Future>(work: F) -> Caught<F> {
    Caught { work: Box::pin(work) }
}

/// See [`caught`].
pub struct Caught<F> {
    work: Pin<Box<F>>,
}

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, Panic>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outer = CAUGHT.replace(true);
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| self.work.as_mut().poll(context)));
        CAUGHT.set(outer);
        match polled {
            Ok(polled) => polled.map(Ok),
            // Without our hook, as in the tests of a crate, nothing is known but that it was.
            Err(_) => Poll::Ready(Err(LAST.take().unwrap_or_default())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_its_own_work_only() {
        assert!(caught(async { panic!("one bad message") }).await.is_err());
        assert_eq!(caught(async { 7 }).await, Ok(7));
        let twice = caught(async {
            let inner = caught(async { panic!("inside") }).await;
            assert!(CAUGHT.get(), "the outer work is still watched");
            inner.is_err()
        });
        assert_eq!(twice.await, Ok(true));
        assert!(!CAUGHT.get());
    }
}
