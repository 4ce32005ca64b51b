//! One attempt: from a lease to its settlement, whatever happens.

use std::time::Duration;

use node::panics::caught;
use posthouse_proto::queue::v1 as pb;
use resources::snapshot::TransportKind;

use crate::hosts::Attempt;
use crate::job::{AttemptResult, Context, Job, Outcome, ReportOutcome};
use crate::{lmtp, maildir, mbox, program, relay, wire};

/// What an attempt may take beyond its time-out, to end by itself and keep the results it has.
const TIMEOUT_GRACE: Duration = Duration::from_secs(5);

/// Attempts a delivery. Never fails: what goes wrong is a deferral.
pub(crate) async fn deliver(context: &Context, delivery: pb::Delivery) -> pb::Settlement {
    let lease = delivery.lease;
    let numbers: Vec<u32> = delivery.recipients.iter().map(|recipient| recipient.number).collect();
    let id = delivery.message_id.clone();
    settled(&id, lease, numbers, try_deliver(context, delivery)).await
}

/// An attempt that panics ends as a deferral: its lease is not held until it expires, and nobody hears of a bounce.
pub(crate) fn settled(
    id: &str,
    lease: Option<pb::LeaseToken>,
    numbers: Vec<u32>,
    attempt: impl Future<Output = pb::Settlement>,
) -> impl Future<Output = pb::Settlement> {
    // Nothing is shared with the attempt but what is whole between its steps.
    let attempt = caught(attempt);
    async move {
        attempt.await.unwrap_or_else(|panic| {
            tracing::error!(id, what = panic.what, location = panic.location, "an attempt panicked");
            let result = AttemptResult::deferred(3, 0, "the attempt broke off");
            let results = numbers.into_iter().map(|number| wire::result((number, result.clone()))).collect();
            pb::Settlement { lease, results, ..Default::default() }
        })
    }
}

async fn try_deliver(context: &Context, delivery: pb::Delivery) -> pb::Settlement {
    node::fault::point("delivery.attempt");
    let clock = context.node.clock();
    let (lease, began) = (delivery.lease, clock.instant());
    let snapshot = context.node.snapshots().current();
    let Some(transport) = snapshot.transports.get(&delivery.transport).cloned() else {
        return gone(delivery);
    };
    drop(snapshot);
    let deadline = began + transport.attempt_timeout;
    let (job, mut results) = wire::job(delivery, transport, deadline);
    let attempt = if job.recipients.is_empty() { Attempt::from(Vec::new()) } else { within_time(context, &job).await };
    results.extend(attempt.results);
    let took = clock.instant().saturating_duration_since(began);
    tell(&job, &results, took);
    let (name, route) = (&job.transport.name, &job.route);
    let pause = match attempt.unreachable {
        Some(reason) => {
            let rest = context.pauses.failed(name, route, &job.transport.schedule);
            // A rest of no time is none.
            Some(pb::RoutePause { seconds: u32::try_from(rest.as_secs()).unwrap_or(u32::MAX), reason })
                .filter(|pause| pause.seconds > 0)
        }
        None => {
            context.pauses.reached(name, route);
            None
        }
    };
    let results = results.into_iter().map(wire::result).collect();
    pb::Settlement { lease, results, pause, ..Default::default() }
}

/// A transport that is gone defers and says so; when it is back, so is its mail.
fn gone(delivery: pb::Delivery) -> pb::Settlement {
    tracing::warn!(id = delivery.message_id, transport = delivery.transport, "transport is not configured");
    let result = AttemptResult::deferred(3, 5, format!("transport {} is not configured", delivery.transport));
    let results = delivery.recipients.iter().map(|recipient| wire::result((recipient.number, result.clone())));
    pb::Settlement { lease: delivery.lease, results: results.collect(), ..Default::default() }
}

async fn within_time(context: &Context, job: &Job) -> Attempt {
    // Network transports end in time by themselves, with the results they have; this is for the others.
    let wait = job.transport.attempt_timeout + TIMEOUT_GRACE;
    match tokio::time::timeout(wait, by_transport(context, job)).await {
        Ok(attempt) => attempt,
        Err(_) => job.all(&AttemptResult::deferred(4, 7, "the attempt took too long")).into(),
    }
}

async fn by_transport(context: &Context, job: &Job) -> Attempt {
    match &job.transport.kind {
        TransportKind::Lmtp { target, tls } => lmtp::deliver(context, job, target, tls).await,
        TransportKind::Relay(relay) => relay::deliver(context, job, relay).await,
        TransportKind::Maildir { .. } => maildir::deliver(context, job).await.into(),
        TransportKind::Mbox { .. } => mbox::deliver(context, job).await.into(),
        TransportKind::Program(_) => program::deliver(context, job).await.into(),
    }
}

/// Counts and logs results: one line for each kind of result and remote, with addresses on level debug only.
fn tell(job: &Job, results: &[(u32, AttemptResult)], took: Duration) {
    let transport = &job.transport.name;
    metrics::histogram!("posthouse_delivery_seconds", "transport" => transport.clone()).record(took.as_secs_f64());
    for (number, result) in results {
        let labels = [
            ("transport", transport.clone()),
            ("result", word(result.outcome).to_owned()),
            ("class", class(result).to_owned()),
        ];
        metrics::counter!("posthouse_deliveries_total", &labels).increment(1);
        let recipient = job.recipients.iter().find(|recipient| recipient.number == *number);
        tracing::debug!(
            id = job.message_id,
            recipient = recipient.map(|recipient| tracing::field::display(&recipient.address)),
            result = word(result.outcome),
            reply = result.reply,
            "recipient attempted"
        );
    }
    let mut told: Vec<(&AttemptResult, usize)> = Vec::new();
    for (_, result) in results {
        let same = |known: &&mut (&AttemptResult, usize)| {
            known.0.outcome == result.outcome && known.0.remote == result.remote && known.0.enhanced == result.enhanced
        };
        match told.iter_mut().find(same) {
            Some((_, count)) => *count += 1,
            None => told.push((result, 1)),
        }
    }
    for (result, recipients) in told {
        tracing::info!(
            id = job.message_id,
            variant = job.variant,
            transport,
            result = word(result.outcome),
            code = %result.enhanced,
            remote = result.remote,
            recipients,
            took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "delivery attempted"
        );
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Delivered { .. } => "delivered",
        Outcome::Deferred => "deferred",
        Outcome::Failed => "failed",
    }
}

/// The subject of the enhanced code (RFC 3463 section 3): what it was about.
fn class(result: &AttemptResult) -> &'static str {
    match result.enhanced.subject {
        1 => "address",
        2 => "mailbox",
        3 => "system",
        4 => "network",
        5 => "protocol",
        6 => "content",
        7 => "policy",
        _ => "other",
    }
}

/// Submits a report. Never fails.
pub(crate) async fn report(context: &Context, report: pb::Report) -> pb::Settlement {
    let (lease, message) = (report.lease, report.message_id.clone());
    let outcome = caught(crate::report::submit(context, report)).await.unwrap_or_else(|panic| {
        tracing::error!(id = message, what = panic.what, location = panic.location, "a report panicked");
        ReportOutcome::Later("the report broke off".into())
    });
    let mut settlement = pb::Settlement { lease, ..Default::default() };
    match outcome {
        ReportOutcome::Submitted => tracing::info!(id = message, "report submitted"),
        ReportOutcome::Later(reason) => {
            tracing::warn!(id = message, reason, "report stays due");
            settlement.report_failed = true;
        }
        ReportOutcome::Dropped(reason) => {
            tracing::warn!(id = message, reason, "report dropped");
            settlement.report_dropped = true;
        }
    }
    settlement
}
