//! The answers of the services as JSON for programs: one object a line.

use posthouse_proto::ingress::v1 as ingress;
use posthouse_proto::queue::v1 as queue;
use serde_json::{Value, json};

use crate::output::moment;

/// A message of the queue.
pub fn message(message: &queue::MessageSummary) -> Value {
    json!({
        "id": message.message_id,
        "sender": message.sender,
        "size_bytes": message.size_bytes,
        "received_at": moment(message.received_at_ms),
        "recipients": message.recipients.iter().map(recipient).collect::<Vec<_>>(),
    })
}

fn recipient(summary: &queue::RecipientSummary) -> Value {
    let recipient = summary.recipient.clone().unwrap_or_default();
    json!({
        "address": recipient.address,
        "delivered_to": recipient.delivered_to,
        "original": optional(&recipient.original),
        "transport": recipient.transport,
        "route": recipient.route,
        "variant": summary.variant,
        "state": state(summary.state()),
        "attempts": summary.attempts,
        "due_at": moment_or_null(summary.due_at_ms),
        "expires_at": moment_or_null(summary.expires_at_ms),
        "last_remote": optional(&summary.last_remote),
        "last_reply": optional(&summary.last_reply),
        "hold_reason": optional(&summary.hold_reason),
    })
}

/// Everything that is known of a message.
pub fn show(shown: &queue::ShowResponse) -> Value {
    let origin = shown.origin.clone().unwrap_or_default();
    let mut value = message(&shown.message.clone().unwrap_or_default());
    value["message_id"] = optional(&shown.header_message_id);
    value["body_type"] = json!(body_type(shown.body_type()));
    value["smtp_utf8"] = json!(shown.smtp_utf8);
    value["origin"] = json!({
        "listener": origin.listener,
        "client": origin.client,
        "helo": optional(&origin.helo),
        "user": optional(&origin.user),
        "tls": optional(&origin.tls),
    });
    value["variants"] = shown
        .variants
        .iter()
        .map(|variant| json!({ "sender": variant.sender, "envid": optional(&variant.envid), "header": String::from_utf8_lossy(&variant.header) }))
        .collect();
    value["events"] = shown.events.iter().map(event).collect();
    value
}

/// One event of a message's life.
pub fn event(event: &queue::Event) -> Value {
    let detail = serde_json::from_str(&event.text).unwrap_or_else(|_| json!(event.text));
    json!({ "id": event.message_id, "at": moment(event.at_ms), "kind": event.kind, "detail": detail })
}

/// A line of a dialogue.
pub fn line(line: &ingress::WatchResponse) -> Value {
    json!({
        "session": line.session,
        "at": moment(line.at_ms),
        "client": optional(&line.client),
        "listener": optional(&line.listener),
        "direction": match line.direction() {
            ingress::Direction::Client => "client",
            ingress::Direction::Server => "server",
            ingress::Direction::Event | ingress::Direction::Unspecified => "event",
        },
        "line": line.line,
        "lost": line.lost,
    })
}

/// A running session.
pub fn session(session: &ingress::SessionSummary) -> Value {
    json!({
        "session": session.session,
        "client": session.client,
        "listener": session.listener,
        "state": session.state,
        "user": optional(&session.user),
        "started_at": moment(session.started_at_ms),
        "messages": session.messages,
    })
}

/// The word for a state.
pub fn state(state: queue::RecipientState) -> &'static str {
    match state {
        queue::RecipientState::Due => "due",
        queue::RecipientState::Waiting => "waiting",
        queue::RecipientState::Leased => "leased",
        queue::RecipientState::Held => "held",
        queue::RecipientState::Delivered => "delivered",
        queue::RecipientState::Failed => "failed",
        queue::RecipientState::Unspecified => "unknown",
    }
}

fn body_type(body_type: queue::BodyType) -> &'static str {
    match body_type {
        queue::BodyType::BodyType7bit | queue::BodyType::Unspecified => "7bit",
        queue::BodyType::BodyType8bitmime => "8bitmime",
        queue::BodyType::Binarymime => "binarymime",
    }
}

fn optional(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}

fn moment_or_null(unix_ms: i64) -> Value {
    if unix_ms == 0 { Value::Null } else { json!(moment(unix_ms)) }
}
