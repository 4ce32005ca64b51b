//! Settling: all that waits goes in one call, never by a timer, and several calls are under way at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use posthouse_proto::queue::v1::{SettleAnswer, SettleRequest, Settlement};
use tokio::sync::{Notify, mpsc};
use tonic::Code;

use crate::in_flight::InFlight;
use crate::job::Context;

/// Settlements of one call.
const BATCH_MAX: usize = 500;
/// Calls at a time.
const CALLS_MAX: usize = 64;
/// First wait after a call that failed; doubles.
const BACK_OFF_FIRST: Duration = Duration::from_millis(50);
/// Longest wait: results are kept as long as it takes, and no new delivery is leased meanwhile.
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// Takes settlements, and tells when they are recorded.
pub(crate) struct Settler {
    pub(crate) in_flight: Arc<InFlight>,
    /// Settled since the lease stream last looked: so much credit can be given again.
    pub(crate) settled: AtomicUsize,
    pub(crate) changed: Notify,
}

impl Settler {
    pub(crate) fn new() -> Self {
        Self { in_flight: Arc::default(), settled: AtomicUsize::new(0), changed: Notify::new() }
    }

    /// Records settlements until every sender is gone and all is recorded. What waits goes into one call; while that is
    /// on its way to disk the next begins, for the queue takes the route's next delivery as soon as it hears of an end.
    pub(crate) async fn run(&self, context: &Context, mut waiting: mpsc::Receiver<Settlement>) {
        let mut calls = FuturesUnordered::new();
        let mut batch = Vec::new();
        let mut open = true;
        while open || !calls.is_empty() {
            tokio::select! {
                n = waiting.recv_many(&mut batch, BATCH_MAX), if open && calls.len() < CALLS_MAX => match n {
                    0 => open = false,
                    _ => calls.push(self.record(context, std::mem::take(&mut batch))),
                },
                Some(()) = calls.next(), if !calls.is_empty() => {}
            }
        }
    }

    async fn record(&self, context: &Context, batch: Vec<Settlement>) {
        let request = SettleRequest { settlements: batch };
        let mut back_off = BACK_OFF_FIRST;
        let answers = loop {
            // A clone costs little against a call: texts are short, and mostly there is one.
            match context.queue.clone().settle(request.clone()).await {
                Ok(response) => break response.into_inner().answers,
                Err(status) if matches!(status.code(), Code::InvalidArgument | Code::Unimplemented) => {
                    tracing::error!(%status, settlements = request.settlements.len(), "queue refuses settlements");
                    break Vec::new();
                }
                Err(status) => {
                    tracing::warn!(%status, settlements = request.settlements.len(), "results cannot be recorded yet");
                    tokio::time::sleep(back_off).await;
                    back_off = (back_off * 2).min(BACK_OFF_MAX);
                }
            }
        };
        for (i, settlement) in request.settlements.iter().enumerate() {
            let answer = answers.get(i).copied().and_then(|answer| SettleAnswer::try_from(answer).ok());
            if answer == Some(SettleAnswer::Stale) && !settlement.results.is_empty() {
                // The named window for duplicates: somebody else has the delivery now.
                tracing::warn!("results came too late: the lease had passed on");
            }
            if let Some(lease) = &settlement.lease {
                self.in_flight.remove(lease);
            }
        }
        node::fault::point("delivery.after-settle");
        self.settled.fetch_add(request.settlements.len(), Ordering::AcqRel);
        self.changed.notify_one();
    }
}
