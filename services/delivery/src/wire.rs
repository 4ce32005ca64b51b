//! Between the messages of the queue's contract and the types of this crate.

use std::sync::Arc;
use std::time::Instant;

use posthouse_proto::queue::v1 as pb;
use posthouse_proto::queue::v1::outcome::Kind;
use resources::snapshot::{Snapshot, Transport};
use types::{Address, Timestamp};

use crate::job::{AttemptResult, BodySource, Job, JobRecipient, Outcome};

/// A delivery as it was leased: the recipients that can be attempted, and results of those that cannot.
pub(crate) fn job(
    delivery: pb::Delivery,
    transport: Arc<Transport>,
    deadline: Instant,
) -> (Job, Vec<(u32, AttemptResult)>) {
    let (ret, body_type) = (delivery.dsn_return(), delivery.body_type());
    let mut damaged = Vec::new();
    let sender = match delivery.sender.as_str() {
        "" => Ok(None),
        text => Address::parse(text).map(Some),
    };
    let mut recipients = Vec::with_capacity(delivery.recipients.len());
    for due in delivery.recipients {
        match recipient(due) {
            Ok(recipient) if sender.is_ok() => recipients.push(recipient),
            Ok(recipient) => damaged.push((recipient.number, is_damaged("the sender"))),
            Err(number) => damaged.push((number, is_damaged("the recipient"))),
        }
    }
    let body = if delivery.body_inline { BodySource::Inline(delivery.body) } else { BodySource::Queue };
    let job = Job {
        message_id: delivery.message_id,
        variant: delivery.variant,
        transport,
        route: delivery.route,
        sender: sender.unwrap_or_default(),
        envid: delivery.envid,
        ret,
        body_type,
        smtp_utf8: delivery.smtp_utf8,
        header: delivery.header,
        body,
        body_size: delivery.body_size_bytes,
        received_at: Timestamp::from_unix_ms(delivery.received_at_ms),
        recipients,
        deadline,
    };
    (job, damaged)
}

/// A row that was damaged at rest is nobody's fault who wrote the mail: it stays until somebody looks.
fn is_damaged(what: &str) -> AttemptResult {
    AttemptResult::deferred(3, 0, format!("{what} in the queue is not an address"))
}

fn recipient(due: pb::DueRecipient) -> Result<JobRecipient, u32> {
    let recipient = due.recipient.ok_or(due.number)?;
    Ok(JobRecipient {
        number: due.number,
        address: Address::parse(&recipient.address).map_err(|_| due.number)?,
        orcpt: (!recipient.original.is_empty()).then_some(recipient.original),
        notify: recipient.notify,
        delivered_to: recipient.delivered_to,
    })
}

pub(crate) fn result((number, result): (u32, AttemptResult)) -> pb::RecipientResult {
    let kind = match result.outcome {
        Outcome::Delivered { relayed, final_ } => Kind::Delivered(pb::Delivered { relayed, r#final: final_ }),
        Outcome::Deferred => Kind::Deferred(pb::Deferred::default()),
        Outcome::Failed => Kind::Failed(pb::Failed {}),
    };
    let outcome = pb::Outcome {
        kind: Some(kind),
        remote: result.remote,
        reply: result.reply,
        enhanced_code: result.enhanced.to_string(),
    };
    pb::RecipientResult { number, outcome: Some(outcome) }
}

/// What the queue must know of the transports to shape their routes.
pub(crate) fn limits(snapshot: &Snapshot) -> Vec<pb::RouteLimit> {
    let limit = |transport: &Arc<Transport>| pb::RouteLimit {
        transport: transport.name.clone(),
        in_flight_per_route_max: u32::try_from(transport.route_concurrency_max).unwrap_or(u32::MAX),
        recipients_per_delivery_max: u32::try_from(transport.recipients_max).unwrap_or(u32::MAX),
    };
    snapshot.transports.values().map(limit).collect()
}
