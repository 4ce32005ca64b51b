//! Between protobuf and the queue's own values. What breaks the contract is refused here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use posthouse_proto::queue::v1 as proto;
use tonic::Status;
use types::MessageId;

use crate::dispatch::{Handout, Limit, Token};
use crate::model::{
    Body, Content, Event, FIELD_MAX_BYTES, HEADERS_MAX_BYTES, Origin, Outcome, OutcomeKind, RECIPIENTS_MAX,
    REPLY_MAX_BYTES, Recipient, ReportKey, State, StoredRecipient, StoredReport, Variant,
};
use crate::store::{Listed, Selection, StoreError};
use crate::writer::{Accepted, ReportEnd, Settlement};

/// The longest pause of a route that a holder can ask for.
const PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);

pub fn status(error: &StoreError) -> Status {
    match error {
        StoreError::Full(reason) => Status::resource_exhausted(format!("store is full: {reason}")),
        StoreError::Trouble(reason) => Status::unavailable(format!("store: {reason}")),
        StoreError::Refused(reason) => Status::invalid_argument(reason.clone()),
    }
}

fn invalid(what: impl Into<String>) -> Status {
    Status::invalid_argument(what)
}

/// A text of the envelope: bounded, and without controls, which no RFC allows there.
fn field(text: String, what: &str) -> Result<String, Status> {
    if text.len() > FIELD_MAX_BYTES {
        return Err(invalid(format!("{what} is longer than {FIELD_MAX_BYTES} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid(format!("{what} holds a control character")));
    }
    Ok(text)
}

/// A text that is kept for people: what does not belong there is replaced or cut.
fn note(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    if text.contains(|c: char| c.is_control() && c != '\n') {
        text = text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect();
    }
    text
}

pub fn message_id(text: &str) -> Result<String, Status> {
    text.parse::<MessageId>().map(|id| id.to_string()).map_err(|error| invalid(format!("message_id: {error}")))
}

fn recipient(recipient: proto::Recipient) -> Result<Recipient, Status> {
    if recipient.address.is_empty() || recipient.transport.is_empty() {
        return Err(invalid("a recipient has no address or no transport"));
    }
    Ok(Recipient {
        address: field(recipient.address, "address")?,
        original: field(recipient.original, "original")?,
        notify: recipient.notify,
        transport: field(recipient.transport, "transport")?.into(),
        route: field(recipient.route, "route")?.into(),
        delivered_to: field(recipient.delivered_to, "delivered_to")?,
    })
}

fn to_recipient(recipient: &Recipient) -> proto::Recipient {
    proto::Recipient {
        address: recipient.address.clone(),
        original: recipient.original.clone(),
        notify: recipient.notify,
        transport: recipient.transport.to_string(),
        route: recipient.route.to_string(),
        delivered_to: recipient.delivered_to.clone(),
    }
}

fn origin(origin: proto::Origin) -> Origin {
    let note = |text| note(text, FIELD_MAX_BYTES);
    Origin {
        listener: note(origin.listener),
        client: note(origin.client),
        helo: note(origin.helo),
        user: note(origin.user),
        tls: note(origin.tls),
    }
}

pub fn to_origin(origin: Origin) -> proto::Origin {
    let Origin { listener, client, helo, user, tls } = origin;
    proto::Origin { listener, client, helo, user, tls }
}

/// The commit of a message whose body has arrived. A body in a file has its name already.
pub fn commit(commit: proto::Commit, body: Body, body_bytes: u64) -> Result<Accepted, Status> {
    if commit.body_size_bytes != body_bytes {
        let said = commit.body_size_bytes;
        return Err(invalid(format!("body_size_bytes is {said}, but {body_bytes} came")));
    }
    let headers: usize = commit.variants.iter().map(|variant| variant.header.len()).sum();
    let count: usize = commit.variants.iter().map(|variant| variant.recipients.len()).sum();
    if headers > HEADERS_MAX_BYTES {
        return Err(invalid(format!("header sections are larger than {HEADERS_MAX_BYTES} bytes")));
    }
    if count > RECIPIENTS_MAX {
        return Err(invalid(format!("more than {RECIPIENTS_MAX} recipients")));
    }
    if commit.variants.is_empty() || commit.variants.iter().any(|variant| variant.recipients.is_empty()) {
        return Err(invalid("a message or a variant has no recipient"));
    }
    let mut variants = Vec::with_capacity(commit.variants.len());
    let mut recipients = Vec::with_capacity(count);
    for (n, variant) in (0..).zip(commit.variants) {
        for one in variant.recipients {
            recipients.push((n, recipient(one)?));
        }
        variants.push(Variant {
            // A copy: the slice would keep the whole buffer that it came in.
            header: Bytes::copy_from_slice(&variant.header),
            sender: field(variant.sender, "sender")?,
            envid: field(variant.envid, "envid")?,
            dsn_return: variant.dsn_return,
        });
    }
    let report = commit.report.map(report_key).transpose()?;
    Ok(Accepted {
        id: message_id(&commit.message_id)?,
        received_at: commit.received_at_ms,
        body,
        body_bytes,
        body_type: commit.body_type,
        smtp_utf8: commit.smtp_utf8,
        origin: origin(commit.origin.unwrap_or_default()),
        header_message_id: note(commit.header_message_id, FIELD_MAX_BYTES),
        variants,
        recipients,
        report,
    })
}

fn report_key(key: proto::ReportKey) -> Result<ReportKey, Status> {
    let number = i64::try_from(key.settle_number).map_err(|_| invalid("settle_number is out of range"))?;
    Ok(ReportKey { message_id: message_id(&key.message_id)?, number })
}

/// `None` is a token that we cannot have given.
fn token(token: Option<proto::LeaseToken>) -> Token {
    let token = token.unwrap_or_default();
    let number = |n: u64| i64::try_from(n).unwrap_or(-1);
    Token { number: number(token.delivery), epoch: number(token.fence) }
}

fn to_token(token: Token) -> proto::LeaseToken {
    proto::LeaseToken { delivery: token.number.unsigned_abs(), fence: token.epoch.unsigned_abs() }
}

pub fn tokens(leases: Vec<proto::LeaseToken>) -> Vec<(proto::LeaseToken, Token)> {
    leases.into_iter().map(|lease| (lease, token(Some(lease)))).collect()
}

pub fn settlement(settlement: proto::Settlement) -> Result<Settlement, Status> {
    let results = settlement.results.into_iter().map(|result| {
        let outcome = result.outcome.and_then(outcome).ok_or_else(|| invalid("a result has no outcome"))?;
        Ok((result.number, outcome))
    });
    let pause = settlement.pause.map(|pause| Duration::from_secs(pause.seconds.into()).min(PAUSE_MAX));
    let report = match (settlement.report_dropped, settlement.report_failed) {
        (true, _) => ReportEnd::Dropped,
        (false, true) => ReportEnd::Failed,
        (false, false) => ReportEnd::None,
    };
    Ok(Settlement { token: token(settlement.lease), results: results.collect::<Result<_, Status>>()?, pause, report })
}

fn outcome(outcome: proto::Outcome) -> Option<Outcome> {
    let kind = match outcome.kind? {
        proto::outcome::Kind::Delivered(delivered) => {
            OutcomeKind::Delivered { relayed: delivered.relayed, into_mailbox: delivered.r#final }
        }
        proto::outcome::Kind::Deferred(deferred) => OutcomeKind::Deferred { retry_after_s: deferred.retry_after_s },
        proto::outcome::Kind::Failed(proto::Failed {}) => OutcomeKind::Failed,
    };
    Some(Outcome {
        kind,
        remote: note(outcome.remote, REPLY_MAX_BYTES),
        reply: note(outcome.reply, REPLY_MAX_BYTES),
        code: note(outcome.enhanced_code, 16),
    })
}

fn to_outcome(outcome: &Outcome) -> proto::Outcome {
    let kind = match outcome.kind {
        OutcomeKind::Delivered { relayed, into_mailbox } => {
            proto::outcome::Kind::Delivered(proto::Delivered { relayed, r#final: into_mailbox })
        }
        OutcomeKind::Deferred { retry_after_s } => proto::outcome::Kind::Deferred(proto::Deferred { retry_after_s }),
        OutcomeKind::Failed => proto::outcome::Kind::Failed(proto::Failed {}),
    };
    proto::Outcome {
        kind: Some(kind),
        remote: outcome.remote.clone(),
        reply: outcome.reply.clone(),
        enhanced_code: outcome.code.clone(),
    }
}

pub fn limits(limits: Vec<proto::RouteLimit>) -> std::collections::HashMap<Arc<str>, Limit> {
    let limit = |limit: proto::RouteLimit| {
        let of = Limit {
            in_flight_per_route: limit.in_flight_per_route_max.max(1),
            recipients_per_delivery: limit.recipients_per_delivery_max.max(1),
        };
        (Arc::from(limit.transport), of)
    };
    limits.into_iter().map(limit).collect()
}

pub fn handout(handout: Handout) -> proto::LeaseResponse {
    let deliveries = handout.deliveries.into_iter();
    proto::LeaseResponse {
        deliveries: deliveries
            .map(|(token, transport, route, content)| delivery(token, &transport, &route, content))
            .collect(),
        reports: handout.reports.into_iter().map(|(token, owed)| report(token, owed)).collect(),
    }
}

fn delivery(token: Token, transport: &str, route: &str, content: Content) -> proto::Delivery {
    let recipients = content.recipients.iter().map(|due| proto::DueRecipient {
        number: due.number,
        recipient: Some(to_recipient(&due.recipient)),
        attempts: due.attempts,
    });
    proto::Delivery {
        lease: Some(to_token(token)),
        message_id: content.id,
        variant: content.variant,
        transport: transport.to_owned(),
        route: route.to_owned(),
        recipients: recipients.collect(),
        header: content.text.header,
        sender: content.text.sender,
        envid: content.text.envid,
        dsn_return: content.text.dsn_return,
        body_type: content.body_type,
        smtp_utf8: content.smtp_utf8,
        body_size_bytes: content.body_bytes,
        body_inline: content.body.is_some(),
        body: content.body.unwrap_or_default(),
        received_at_ms: content.received_at,
    }
}

fn report(token: Token, owed: StoredReport) -> proto::Report {
    let recipients = owed.recipients.iter().map(|reported| proto::ReportedRecipient {
        recipient: Some(to_recipient(&reported.recipient)),
        outcome: Some(to_outcome(&reported.outcome)),
        last_attempt_at_ms: reported.at,
    });
    proto::Report {
        lease: Some(to_token(token)),
        key: Some(proto::ReportKey {
            message_id: owed.key.message_id.clone(),
            settle_number: owed.key.number.unsigned_abs(),
        }),
        kind: owed.kind as i32,
        recipients: recipients.collect(),
        message_id: owed.key.message_id,
        sender: owed.text.sender,
        envid: owed.text.envid,
        dsn_return: owed.text.dsn_return,
        header: owed.text.header,
        body_size_bytes: owed.body_bytes,
        received_at_ms: owed.received_at,
        smtp_utf8: owed.smtp_utf8,
        expires_at_ms: owed.expires_at,
    }
}

/// What a person means. `now` in milliseconds; `leased`: the keys that are.
pub fn selection(filter: proto::Filter, now: i64, leased: impl FnOnce() -> Vec<i64>) -> Result<Selection, Status> {
    use proto::RecipientState as Wanted;
    let age_ms = i64::try_from(filter.older_than_s).unwrap_or(i64::MAX).saturating_mul(1000);
    let mut selection = Selection {
        message_ids: filter.message_ids,
        sender: filter.sender,
        recipient: filter.recipient,
        route: filter.route,
        transport: filter.transport,
        received_until: (age_ms > 0).then(|| now.saturating_sub(age_ms)),
        ..Selection::default()
    };
    let wanted = Wanted::try_from(filter.state).map_err(|_| invalid("state is unknown"))?;
    match wanted {
        Wanted::Unspecified => {}
        Wanted::Due | Wanted::Waiting => {
            selection.states = vec![State::Open];
            selection.keys_not = leased();
            selection.due_until = (wanted == Wanted::Due).then_some(now);
            selection.due_after = (wanted == Wanted::Waiting).then_some(now);
        }
        Wanted::Leased => {
            selection.states = vec![State::Open];
            selection.keys = Some(leased());
        }
        Wanted::Held => selection.states = vec![State::Held],
        Wanted::Delivered => selection.states = vec![State::Delivered],
        Wanted::Failed => selection.states = vec![State::Failed, State::Removed],
    }
    Ok(selection)
}

/// A message of a list. `leased`: whether a key is; `expires`: the age that a transport gives up at.
pub fn summary(
    listed: Listed,
    now: i64,
    leased: impl Fn(i64) -> bool,
    age_max: impl Fn(&str) -> Duration,
) -> proto::MessageSummary {
    let received_at = listed.meta.received_at;
    let one = |one: &StoredRecipient| proto::RecipientSummary {
        recipient: Some(to_recipient(&one.recipient)),
        state: shown_state(one, now, leased(one.key)) as i32,
        attempts: one.attempts,
        due_at_ms: one.due,
        last_reply: one.last_reply.clone(),
        last_remote: one.last_remote.clone(),
        variant: one.variant,
        hold_reason: one.hold_reason.clone(),
        expires_at_ms: types::Timestamp::from_unix_ms(received_at).plus(age_max(&one.recipient.transport)).unix_ms(),
    };
    proto::MessageSummary {
        recipients: listed.recipients.iter().map(one).collect(),
        message_id: listed.meta.id,
        sender: listed.sender,
        size_bytes: listed.meta.body_bytes,
        received_at_ms: received_at,
    }
}

fn shown_state(one: &StoredRecipient, now: i64, leased: bool) -> proto::RecipientState {
    match one.state {
        State::Open if leased => proto::RecipientState::Leased,
        State::Open if one.due <= now => proto::RecipientState::Due,
        State::Open => proto::RecipientState::Waiting,
        State::Held => proto::RecipientState::Held,
        State::Delivered => proto::RecipientState::Delivered,
        State::Failed | State::Removed => proto::RecipientState::Failed,
    }
}

/// Variants with their recipients, as they were accepted.
pub fn variants(variants: Vec<Variant>, recipients: &[StoredRecipient]) -> Vec<proto::Variant> {
    let variant = |(n, variant): (u32, Variant)| proto::Variant {
        header: variant.header,
        sender: variant.sender,
        envid: variant.envid,
        dsn_return: variant.dsn_return,
        recipients: recipients.iter().filter(|one| one.variant == n).map(|one| to_recipient(&one.recipient)).collect(),
    };
    (0..).zip(variants).map(variant).collect()
}

pub fn event(event: Event) -> proto::Event {
    proto::Event { message_id: event.message_id, at_ms: event.at, kind: event.kind, text: event.text }
}

pub fn chunk(chunk: Bytes) -> proto::ReadBodyResponse {
    proto::ReadBodyResponse { chunk }
}
