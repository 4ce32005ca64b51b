//! The texts of events: JSON objects, one word per thing.

use serde::Serialize;

use crate::writer::Accepted;

#[derive(Serialize)]
struct Received<'a> {
    listener: &'a str,
    client: &'a str,
    helo: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    tls: &'a str,
    header_message_id: &'a str,
    body_bytes: u64,
    senders: Vec<&'a str>,
    recipients: Vec<&'a str>,
    routes: Vec<String>,
}

/// Strings and numbers always have a JSON form.
fn text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A message was committed.
pub fn received(accepted: &Accepted) -> String {
    let mut senders: Vec<&str> = accepted.variants.iter().map(|variant| &*variant.sender).collect();
    senders.dedup();
    let mut recipients = Vec::with_capacity(accepted.recipients.len());
    let mut routes: Vec<String> = Vec::new();
    for (_, recipient) in &accepted.recipients {
        recipients.push(&*recipient.address);
        if !recipient.delivered_to.is_empty() && recipient.delivered_to != recipient.address {
            recipients.push(&recipient.delivered_to);
        }
        let route = format!("{}:{}", recipient.transport, recipient.route);
        if routes.last() != Some(&route) {
            routes.push(route);
        }
    }
    let origin = &accepted.origin;
    text(&Received {
        listener: &origin.listener,
        client: &origin.client,
        helo: &origin.helo,
        user: &origin.user,
        tls: &origin.tls,
        header_message_id: &accepted.header_message_id,
        body_bytes: accepted.body_bytes,
        senders,
        recipients,
        routes,
    })
}

#[derive(Serialize)]
struct ReportEnded<'a> {
    report: i64,
    result: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
}

/// A report was committed as a message of its own.
pub fn report_sent(report: i64, message_id: &str) -> String {
    text(&ReportEnded { report, result: "submitted", message_id: Some(message_id), attempts: None })
}

/// A report will never be sent.
pub fn report_dropped(report: i64, attempts: u32) -> String {
    text(&ReportEnded { report, result: "dropped", message_id: None, attempts: Some(attempts) })
}

#[derive(Serialize)]
struct Changed<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    recipients: &'a [String],
}

/// A person changed recipients.
pub fn changed(reason: &str, recipients: &[String]) -> String {
    text(&Changed { reason, recipients })
}
