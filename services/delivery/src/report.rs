//! Report obligations: builds the notification, asks policy where it goes, submits it to the queue.
//!
//! The queue's commit clears the obligation in the same transaction, under the report's key: a report that is submitted
//! twice is stored once.

use bytes::Bytes;
use message::dsn::{self, Action, Built, Kind, Returned};
use node::{Node, Wire};
use posthouse_proto::policy::v1 as policy;
use posthouse_proto::policy::v1::policy_client::PolicyClient;
use posthouse_proto::queue::v1 as queue;
use posthouse_proto::queue::v1::accept_request::Step;
use posthouse_proto::queue::v1::queue_client::QueueClient;
use types::{Address, EnhancedCode, MessageId, Timestamp};

use crate::body::BodyReader;
use crate::job::{Context, ReportOutcome};

/// Octets of a body that come back; of a larger message only the header section does.
const RETURNED_BODY_OCTETS_MAX: u64 = 64 << 10;
/// Octets of a chunk of Accept.
const CHUNK_OCTETS_MAX: usize = 64 << 10;
/// A whole report: a few calls within the platform.
const REPORT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);
/// RFC 3461 section 4.1 NOTIFY=NEVER: there is no report of a report.
const NOTIFY_NEVER: u32 = 1;

/// Builds and submits one report.
pub(crate) async fn submit(context: &Context, report: queue::Report) -> ReportOutcome {
    let reporter =
        Reporter { node: context.node.clone(), queue: context.queue.clone(), policy: context.policy.clone() };
    match tokio::time::timeout(REPORT_TIMEOUT, reporter.submit(report)).await {
        Ok(Ok(())) => ReportOutcome::Submitted,
        Ok(Err(outcome)) => outcome,
        Err(_) => ReportOutcome::Later("the report took too long".into()),
    }
}

/// What a report needs.
struct Reporter {
    node: Node,
    queue: QueueClient<Wire>,
    policy: PolicyClient<Wire>,
}

impl Reporter {
    async fn submit(&self, report: queue::Report) -> Result<(), ReportOutcome> {
        // RFC 5321 section 4.5.5: never to the null reverse-path.
        if report.sender.is_empty() {
            return Err(ReportOutcome::Dropped("the message has no sender".into()));
        }
        let to = Address::parse(&report.sender).map_err(|error| ReportOutcome::Dropped(error.to_string()))?;
        if report.recipients.is_empty() {
            return Err(ReportOutcome::Dropped("no recipient is reported".into()));
        }
        let destinations = self.route(&report).await?;
        let body = self.returned_body(&report).await?;
        let id = own_id(&report)?;
        let built = self.build(&report, &to, id, body.as_deref())?;
        node::fault::point("delivery.before-report");
        self.accept(report.key, id, built, destinations).await?;
        node::fault::point("delivery.after-report");
        Ok(())
    }

    /// Where the sender's mail goes.
    async fn route(&self, report: &queue::Report) -> Result<Vec<policy::Destination>, ReportOutcome> {
        let request = policy::EnvelopeRequest {
            session: Some(policy::Session { internal: true, ..Default::default() }),
            sender: String::new(),
            recipients: vec![report.sender.clone()],
        };
        let response = self.policy.clone().envelope(request).await;
        let response = response.map_err(|status| later("policy", &status))?.into_inner();
        match response.answers.into_iter().next().and_then(|answer| answer.answer) {
            Some(policy::answer::Answer::Accepted(accepted)) if !accepted.destinations.is_empty() => {
                Ok(accepted.destinations)
            }
            // Only a refusal for ever ends the obligation; what is unknown is transient.
            Some(policy::answer::Answer::Refuse(reply)) if (500..600).contains(&reply.code) => {
                Err(ReportOutcome::Dropped(format!("the sender cannot be reached: {} {}", reply.code, reply.text)))
            }
            Some(policy::answer::Answer::Refuse(reply)) => Err(ReportOutcome::Later(reply.text)),
            _ => Err(ReportOutcome::Later("policy gave no answer".into())),
        }
    }

    /// The body, where it comes back: of failures (RFC 3461 section 4.3), unless only headers were asked for, up to a size.
    async fn returned_body(&self, report: &queue::Report) -> Result<Option<Vec<u8>>, ReportOutcome> {
        let wanted = report.kind() == queue::ReportKind::Failed && report.dsn_return() != queue::DsnReturn::Headers;
        if !wanted || report.body_size_bytes > RETURNED_BODY_OCTETS_MAX {
            return Ok(None);
        }
        let mut reader = BodyReader::from_queue(self.queue.clone(), report.message_id.clone());
        let mut body = Vec::new();
        while let Some(chunk) = reader.next().await.map_err(|error| ReportOutcome::Later(error.to_string()))? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > RETURNED_BODY_OCTETS_MAX {
                return Ok(None);
            }
        }
        Ok(Some(body))
    }

    fn build(
        &self,
        report: &queue::Report,
        to: &Address,
        id: MessageId,
        body: Option<&[u8]>,
    ) -> Result<Built, ReportOutcome> {
        let hostname = self.node.snapshots().current().platform.hostname.clone();
        let from = Address::from_parts("MAILER-DAEMON", hostname.clone())
            .map_err(|error| ReportOutcome::Later(error.to_string()))?;
        let about: MessageId =
            report.message_id.parse().map_err(|_| ReportOutcome::Dropped("the message id is none".into()))?;
        let kind = match report.kind() {
            queue::ReportKind::Failed => Kind::Failed,
            queue::ReportKind::Delayed => Kind::Delayed,
            queue::ReportKind::Delivered => Kind::Delivered,
            queue::ReportKind::Unspecified => return Err(ReportOutcome::Dropped("the report has no kind".into())),
        };
        let recipients: Vec<dsn::Recipient<'_>> =
            report.recipients.iter().map(|reported| recipient(kind, reported)).collect();
        Ok(dsn::build(&dsn::Report {
            kind,
            reporting_mta: &hostname,
            from: &from,
            to,
            id,
            about,
            now: self.node.clock().now(),
            arrival: Timestamp::from_unix_ms(report.received_at_ms),
            envid: some(&report.envid),
            retry_until: moment(report.expires_at_ms),
            recipients: &recipients,
            header: &report.header,
            returned: body.map_or(Returned::Headers, Returned::Full),
            smtp_utf8: report.smtp_utf8,
        }))
    }

    async fn accept(
        &self,
        key: Option<queue::ReportKey>,
        id: MessageId,
        built: Built,
        destinations: Vec<policy::Destination>,
    ) -> Result<(), ReportOutcome> {
        let body = Bytes::from(built.body);
        let commit = queue::Commit {
            message_id: id.to_string(),
            variants: vec![queue::Variant {
                header: Bytes::from(built.header),
                sender: String::new(),
                envid: String::new(),
                dsn_return: queue::DsnReturn::Headers.into(),
                recipients: destinations.into_iter().map(addressed).collect(),
            }],
            body_size_bytes: body.len() as u64,
            received_at_ms: self.node.clock().now().unix_ms(),
            body_type: if built.eight_bit { queue::BodyType::BodyType8bitmime } else { queue::BodyType::BodyType7bit }
                .into(),
            smtp_utf8: built.smtp_utf8,
            origin: Some(queue::Origin { client: "local".into(), ..Default::default() }),
            report: key,
            header_message_id: built.header_message_id,
        };
        let chunks = (0..body.len())
            .step_by(CHUNK_OCTETS_MAX)
            .map(|start| Step::Chunk(body.slice(start..body.len().min(start + CHUNK_OCTETS_MAX))));
        let steps: Vec<queue::AcceptRequest> =
            chunks.chain([Step::Commit(commit)]).map(|step| queue::AcceptRequest { step: Some(step) }).collect();
        // Whether it was there before does not matter: the obligation is cleared.
        self.queue.clone().accept(tokio_stream::iter(steps)).await.map_err(|status| later("queue", &status))?;
        Ok(())
    }
}

/// The id of a report follows from what it is about: a second one of the same settle has the same id, and the queue knows
/// that it has had it, even when the obligation came back because the commit of the settle was in doubt.
fn own_id(report: &queue::Report) -> Result<MessageId, ReportOutcome> {
    let about: MessageId =
        report.message_id.parse().map_err(|_| ReportOutcome::Dropped("the message id is none".into()))?;
    let settle = report.key.as_ref().map_or(0, |key| key.settle_number);
    let mut bytes = *about.as_bytes();
    let mut random = [0; 8];
    random.copy_from_slice(&bytes[8..]);
    // SplitMix64: ids of neighbouring settles have nothing in common.
    let mut mixed = u64::from_be_bytes(random).wrapping_add(settle.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bytes[8..].copy_from_slice(&(mixed ^ (mixed >> 31)).to_be_bytes());
    Ok(bytes.into())
}

fn later(service: &str, status: &tonic::Status) -> ReportOutcome {
    ReportOutcome::Later(format!("{service}: {:?}: {}", status.code(), status.message()))
}

fn recipient(kind: Kind, reported: &queue::ReportedRecipient) -> dsn::Recipient<'_> {
    let (original, address) = match &reported.recipient {
        Some(recipient) => (some(&recipient.original), recipient.address.as_str()),
        None => (None, ""),
    };
    let outcome = reported.outcome.as_ref();
    dsn::Recipient {
        original,
        address,
        action: action(kind, outcome),
        status: outcome.and_then(|outcome| outcome.enhanced_code.parse::<EnhancedCode>().ok()),
        remote: outcome.and_then(|outcome| some(&outcome.remote)),
        reply: outcome.map_or("", |outcome| &outcome.reply),
        last_attempt: moment(reported.last_attempt_at_ms),
    }
}

fn action(kind: Kind, outcome: Option<&queue::Outcome>) -> Action {
    match (kind, outcome.and_then(|outcome| outcome.kind.as_ref())) {
        (Kind::Failed, _) => Action::Failed,
        (Kind::Delayed, _) => Action::Delayed,
        (Kind::Delivered, Some(queue::outcome::Kind::Delivered(delivered))) if delivered.relayed => Action::Relayed,
        (Kind::Delivered, Some(queue::outcome::Kind::Delivered(delivered))) if !delivered.r#final => Action::Expanded,
        (Kind::Delivered, _) => Action::Delivered,
    }
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn moment(unix_ms: i64) -> Option<Timestamp> {
    (unix_ms > 0).then(|| Timestamp::from_unix_ms(unix_ms))
}

fn addressed(destination: policy::Destination) -> queue::Recipient {
    queue::Recipient {
        address: destination.address,
        original: String::new(),
        notify: NOTIFY_NEVER,
        transport: destination.transport,
        route: destination.route,
        delivered_to: destination.delivered_to,
    }
}

#[cfg(test)]
mod tests;
