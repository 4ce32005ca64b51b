//! The lease loop: takes deliveries while there is room, attempts each in a task of its own, gives back what is left in the end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use node::Part;
use posthouse_proto::queue::v1::{ExtendRequest, LeaseRequest, LeaseResponse, LeaseToken, Settlement};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::in_flight::InFlight;
use crate::job::Context;
use crate::settle::Settler;
use crate::{attempt, wire};

/// A quarter of the life of a lease (60 s): it is prolonged at half its life at the latest, so one Extend that is lost
/// costs nothing.
const EXTEND_INTERVAL: Duration = Duration::from_secs(15);
/// First wait before the queue is asked again; doubles.
const RECONNECT_FIRST: Duration = Duration::from_millis(50);
/// Longest wait before the queue is asked again.
const RECONNECT_MAX: Duration = Duration::from_secs(5);
/// Credit is given in portions of this share of the room.
const GRANT_SHARE: usize = 4;
/// Requests that wait for the queue to read them.
const REQUESTS_MAX: usize = 16;
/// Settlements that wait to be recorded: a full channel holds the attempts that would add to it.
const SETTLEMENTS_MAX: usize = 1024;
/// At the end: how long the queue may take to end its stream, and to record what is given back.
const FAREWELL_MAX: Duration = Duration::from_secs(10);

/// What the loop works with.
struct Loop {
    context: Context,
    settler: Arc<Settler>,
    settlements: mpsc::Sender<Settlement>,
    attempts: JoinSet<()>,
}

/// Why a stream was left.
enum Left {
    Drain,
    Ended(Result<(), Status>),
}

/// Runs until the drain is over.
pub(crate) async fn run(context: Context) {
    let settler = Arc::new(Settler::new());
    let (settlements, waiting) = mpsc::channel(SETTLEMENTS_MAX);
    let recorder = tokio::spawn({
        let (context, settler) = (context.clone(), Arc::clone(&settler));
        async move { settler.run(&context, waiting).await }
    });
    let sweeper = tokio::spawn({
        let pool = Arc::clone(&context.pool);
        async move { pool.sweep().await }
    });
    let extender = tokio::spawn(extend(context.clone(), Arc::clone(&settler.in_flight), EXTEND_INTERVAL));
    let mut work = Loop { context, settler, settlements, attempts: JoinSet::new() };
    work.lease().await;
    let (context, settlements) = work.finish().await;
    extender.abort();
    sweeper.abort();
    drop(settlements);
    if timeout(FAREWELL_MAX, recorder).await.is_err() {
        tracing::error!("results could not be recorded before the end: their deliveries will be attempted again");
    }
    context.pool.close().await;
}

impl Loop {
    /// Opens a stream after the other until the drain begins.
    async fn lease(&mut self) {
        let drain = self.context.node.drain().clone();
        let mut wait = RECONNECT_FIRST;
        while !drain.has_begun() {
            let mut took_anything = false;
            match self.stream(&mut took_anything).await {
                Left::Drain => return,
                Left::Ended(Ok(())) => tracing::info!("queue ended the lease stream"),
                Left::Ended(Err(status)) => tracing::warn!(%status, "lease stream broke off"),
            }
            let trouble = "the queue hands out no deliveries now".to_owned();
            self.context.node.health().set("delivery", Part::Degraded(trouble));
            if took_anything {
                wait = RECONNECT_FIRST;
            }
            let jitter = wait.mul_f64(rand::random_range(0.5..1.0));
            tokio::select! {
                () = sleep(jitter) => {}
                () = drain.begun() => return,
            }
            wait = (wait * 2).min(RECONNECT_MAX);
        }
    }

    /// One stream, from its opening to its trailers.
    async fn stream(&mut self, took_anything: &mut bool) -> Left {
        let node = self.context.node.clone();
        let mut snapshots = node.snapshots().watch();
        let (requests, outgoing) = mpsc::channel(REQUESTS_MAX);
        // Deliveries that the queue may hand out or has handed out.
        let mut granted = self.room();
        self.settler.settled.store(0, Ordering::Release);
        let credit = u32::try_from(granted.saturating_sub(self.settler.in_flight.len())).unwrap_or(u32::MAX);
        let open = LeaseRequest {
            holder: format!("delivery-{:016x}", rand::random::<u64>()),
            credit,
            limits: wire::limits(&node.snapshots().current()),
        };
        if requests.send(open).await.is_err() {
            return Left::Ended(Ok(()));
        }
        let mut stream = tokio::select! {
            opened = async { self.context.queue.clone().lease(ReceiverStream::new(outgoing)).await } => match opened {
                Ok(response) => response.into_inner(),
                Err(status) => return Left::Ended(Err(status)),
            },
            () = node.drain().begun() => return Left::Drain,
        };
        node.health().set("delivery", Part::Ready);
        loop {
            tokio::select! {
                response = stream.message() => match response {
                    Ok(Some(response)) => {
                        *took_anything = true;
                        self.begin(response);
                    }
                    Ok(None) => return Left::Ended(Ok(())),
                    Err(status) => return Left::Ended(Err(status)),
                },
                () = self.settler.changed.notified() => {
                    // What has ended is looked after here, and not with a wake-up of its own.
                    while self.attempts.try_join_next().is_some() {}
                    granted = granted.saturating_sub(self.settler.settled.swap(0, Ordering::AcqRel));
                    if !self.grant(&requests, &mut granted, false).await {
                        continue; // The stream says why.
                    }
                }
                Ok(()) = snapshots.changed() => {
                    // The queue reads its requests as long as the stream lives.
                    let _ = self.grant(&requests, &mut granted, true).await;
                }
                () = node.drain().begun() => {
                    drop(requests);
                    self.read_to_the_end(stream).await;
                    return Left::Drain;
                }
            }
        }
    }

    /// Gives the queue as much credit as there is room, and the limits where they may have changed.
    async fn grant(&self, requests: &mpsc::Sender<LeaseRequest>, granted: &mut usize, limits: bool) -> bool {
        let room = self.room();
        let more = room.saturating_sub(*granted);
        // In portions: a message for every settle would be work for both sides.
        if !limits && (more == 0 || more < room / GRANT_SHARE) {
            return true;
        }
        *granted += more;
        let limits = if limits { wire::limits(&self.context.node.snapshots().current()) } else { Vec::new() };
        let credit = u32::try_from(more).unwrap_or(u32::MAX);
        requests.send(LeaseRequest { holder: String::new(), credit, limits }).await.is_ok()
    }

    fn room(&self) -> usize {
        self.context.node.snapshots().current().platform.deliveries_max.max(1)
    }

    fn begin(&mut self, response: LeaseResponse) {
        for delivery in response.deliveries {
            let lease = delivery.lease;
            let context = self.context.clone();
            self.spawn(lease, async move { attempt::deliver(&context, delivery).await });
        }
        for report in response.reports {
            let lease = report.lease;
            let context = self.context.clone();
            self.spawn(lease, async move { attempt::report(&context, report).await });
        }
    }

    fn spawn(&mut self, lease: Option<LeaseToken>, work: impl Future<Output = Settlement> + Send + 'static) {
        let (settler, settlements) = (Arc::clone(&self.settler), self.settlements.clone());
        if let Some(lease) = lease {
            settler.in_flight.add(lease);
        }
        self.attempts.spawn(async move {
            node::fault::point("delivery.after-lease");
            let settlement = work.await;
            node::fault::point("delivery.before-settle");
            if let Some(lease) = &settlement.lease {
                settler.in_flight.settling(lease);
            }
            // The recorder outlives the attempts.
            let _ = settlements.send(settlement).await;
        });
    }

    /// What was on its way when we stopped leasing is given back unbegun.
    async fn read_to_the_end(&mut self, mut stream: Streaming<LeaseResponse>) {
        let read = timeout(FAREWELL_MAX, async {
            while let Ok(Some(response)) = stream.message().await {
                let deliveries = response.deliveries.into_iter().filter_map(|delivery| delivery.lease);
                let reports = response.reports.into_iter().filter_map(|report| report.lease);
                for lease in deliveries.chain(reports) {
                    self.give_back(lease).await;
                }
            }
        });
        if read.await.is_err() {
            tracing::warn!("queue did not end the lease stream");
        }
    }

    /// Waits for the attempts in flight, as long as there is grace; what is left goes back.
    async fn finish(mut self) -> (Context, mpsc::Sender<Settlement>) {
        let grace = self.context.node.snapshots().current().platform.drain_max;
        let all = timeout(grace, async { while self.attempts.join_next().await.is_some() {} });
        if all.await.is_err() {
            tracing::warn!(attempts = self.attempts.len(), "attempts are broken off: their time is over");
            self.attempts.shutdown().await;
        }
        for lease in self.settler.in_flight.unsettled() {
            self.give_back(lease).await;
        }
        (self.context, self.settlements)
    }

    async fn give_back(&self, lease: LeaseToken) {
        // Without results: due at once, for whoever comes next.
        let _ = self.settlements.send(Settlement { lease: Some(lease), ..Default::default() }).await;
    }
}

/// Prolongs what takes long.
pub(crate) async fn extend(context: Context, in_flight: Arc<InFlight>, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let leases = in_flight.to_extend();
        if leases.is_empty() {
            continue;
        }
        match context.queue.clone().extend(ExtendRequest { leases }).await {
            Ok(response) => {
                let stale = response.into_inner().stale.len();
                if stale > 0 {
                    tracing::warn!(stale, "leases had passed on before they could be prolonged");
                }
            }
            Err(status) => tracing::warn!(%status, "leases cannot be prolonged yet"),
        }
    }
}
