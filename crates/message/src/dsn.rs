//! Delivery status notifications: RFC 3464 in a multipart/report of RFC 6522, with RFC 6533 where a message is
//! internationalised.
//!
//! Facts go in, a whole message comes out. Whatever a sender, a recipient or a remote server wrote stays one value of
//! one field: no fact can end a line.

mod fields;
mod parse;
mod returned;
mod words;

use std::fmt;

use memchr::memmem;
use types::{Address, Domain, EnhancedCode, MessageId, Timestamp};

use self::fields::{Charset, push_field, re_encode};
pub use self::parse::{Field, ParsedReport, parse_report};
use self::returned::{Part, encoding_of};

/// What a report tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Given up.
    Failed,
    /// Attempts go on.
    Delayed,
    /// Delivered, relayed or expanded, and the sender asked for it (NOTIFY=SUCCESS).
    Delivered,
}

/// RFC 3464 section 2.3.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Given up.
    Failed,
    /// Attempts go on.
    Delayed,
    /// In a mailbox.
    Delivered,
    /// With a mail system that sends no reports of its own.
    Relayed,
    /// Handed to the members of a list.
    Expanded,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
            Self::Expanded => "expanded",
        })
    }
}

/// The facts of a report.
#[derive(Debug, Clone)]
pub struct Report<'a> {
    /// What it tells.
    pub kind: Kind,
    /// Our host name.
    pub reporting_mta: &'a Domain,
    /// Author of the report.
    pub from: &'a Address,
    /// Who is told: the envelope sender of the message it is about.
    pub to: &'a Address,
    /// Of the report.
    pub id: MessageId,
    /// Of the message it is about.
    pub about: MessageId,
    /// When the report is made.
    pub now: Timestamp,
    /// When the message came in.
    pub arrival: Timestamp,
    /// RFC 3461 section 4.4, decoded.
    pub envid: Option<&'a str>,
    /// When a delayed message will be given up.
    pub retry_until: Option<Timestamp>,
    /// One or more.
    pub recipients: &'a [Recipient<'a>],
    /// Header section of the message, CRLF at the end of each line.
    pub header: &'a [u8],
    /// What of the message comes back.
    pub returned: Returned<'a>,
    /// The message came with SMTPUTF8.
    pub smtp_utf8: bool,
}

/// What became of one recipient.
#[derive(Debug, Clone)]
pub struct Recipient<'a> {
    /// RFC 3461 section 4.2 ORCPT as `type;address`, decoded.
    pub original: Option<&'a str>,
    /// Where it was delivered to, or should have been.
    pub address: &'a str,
    /// What became of it.
    pub action: Action,
    /// Its class is that of the action, else it is not used.
    pub status: Option<EnhancedCode>,
    /// Host, and address after a space, that answered; `None`: we did.
    pub remote: Option<&'a str>,
    /// What was answered; lines separated by LF.
    pub reply: &'a str,
    /// When it was tried last.
    pub last_attempt: Option<Timestamp>,
}

/// What of a message comes back.
#[derive(Debug, Clone, Copy)]
pub enum Returned<'a> {
    /// The header section.
    Headers,
    /// The whole message, with this body; the header section alone where SMTP could not carry it.
    Full(&'a [u8]),
}

/// A report, ready to be submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Header section without the empty line.
    pub header: Vec<u8>,
    /// What follows the empty line.
    pub body: Vec<u8>,
    /// The Message-ID field, with its angle brackets.
    pub header_message_id: String,
    /// It holds octets over 127: BODY=8BITMIME.
    pub eight_bit: bool,
    /// Its own header holds UTF-8: it goes with SMTPUTF8.
    pub smtp_utf8: bool,
}

/// Makes the message of a report.
///
/// No line of it is longer than 998 octets but lines of a returned message, which are no longer either; no CR or LF is
/// outside a line end.
pub fn build(report: &Report<'_>) -> Built {
    let charset = charset_of(report);
    let text = words::text(report);
    let parts = [
        Part { content_type: "text/plain; charset=utf-8", encoding: encoding_of(&text), content: text },
        status_part(report, charset),
        returned::part(report.header, &report.returned, report.smtp_utf8),
    ];
    let eight_bit = parts.iter().any(|part| part.encoding == "8bit");
    let boundary = boundary(report.id, &parts);
    let header_message_id = format!("<{}@{}>", report.id, report.reporting_mta);
    let header = header(report, &header_message_id, &boundary, eight_bit);
    Built { body: body(&parts, &boundary), header, header_message_id, eight_bit, smtp_utf8: !report.to.is_ascii() }
}

/// RFC 6533 section 4: the international form is for what the plain one cannot say; fewer programs read it.
fn charset_of(report: &Report<'_>) -> Charset {
    let international = |recipient: &Recipient<'_>| {
        !recipient.address.is_ascii() || recipient.original.is_some_and(|original| !original.is_ascii())
    };
    match report.smtp_utf8 || report.recipients.iter().any(international) {
        true => Charset::Utf8,
        false => Charset::Ascii,
    }
}

fn header(report: &Report<'_>, message_id: &str, boundary: &str, eight_bit: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let mut field = |name, value: &str| push_field(&mut out, Charset::Utf8, name, value);
    field("Date", &fields::date(report.now));
    field("From", &format!("Mail Delivery Subsystem <{}>", report.from));
    field("To", &format!("<{}>", report.to));
    field("Subject", words::subject(report.kind));
    field("Message-ID", message_id);
    // RFC 3834 section 5: nobody answers this.
    field("Auto-Submitted", "auto-replied");
    field("MIME-Version", "1.0");
    field("Content-Type", &format!("multipart/report; report-type=delivery-status; boundary=\"{boundary}\""));
    field("Content-Transfer-Encoding", if eight_bit { "8bit" } else { "7bit" });
    out
}

fn body(parts: &[Part], boundary: &str) -> Vec<u8> {
    let size: usize = parts.iter().map(|part| part.content.len() + 256).sum();
    let mut out = Vec::with_capacity(size);
    out.extend_from_slice(b"This is a delivery status notification in MIME format (RFC 3464).\r\n");
    for part in parts {
        out.extend_from_slice(b"\r\n--");
        out.extend_from_slice(boundary.as_bytes());
        out.extend_from_slice(b"\r\n");
        push_field(&mut out, Charset::Ascii, "Content-Type", part.content_type);
        push_field(&mut out, Charset::Ascii, "Content-Transfer-Encoding", part.encoding);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&part.content);
    }
    out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    out
}

/// RFC 2046 section 5.1.1: it may not occur in what it separates.
fn boundary(id: MessageId, parts: &[Part]) -> String {
    let occurs = |boundary: &str| parts.iter().any(|part| memmem::find(&part.content, boundary.as_bytes()).is_some());
    let mut boundary = format!("=_{id}");
    let mut n = 0u64;
    while occurs(&boundary) {
        n += 1;
        boundary = format!("=_{id}.{n}");
    }
    boundary
}

fn status_part(report: &Report<'_>, charset: Charset) -> Part {
    let mut content = Vec::with_capacity(512);
    let mut field = |name, value: &str| push_field(&mut content, charset, name, value);
    field("Reporting-MTA", &format!("dns; {}", report.reporting_mta));
    if let Some(envid) = report.envid {
        field("Original-Envelope-Id", &re_encode(envid));
    }
    field("Arrival-Date", &fields::date(report.arrival));
    field("X-Posthouse-Message-Id", &report.about.to_string());
    for recipient in report.recipients {
        content.extend_from_slice(b"\r\n");
        recipient_fields(&mut content, charset, report, recipient);
    }
    let content_type = match charset {
        Charset::Ascii => "message/delivery-status",
        Charset::Utf8 => "message/global-delivery-status",
    };
    Part { content_type, encoding: encoding_of(&content), content }
}

fn recipient_fields(out: &mut Vec<u8>, charset: Charset, report: &Report<'_>, recipient: &Recipient<'_>) {
    let mut field = |name, value: &str| push_field(out, charset, name, value);
    if let Some((kind, address)) = recipient.original.and_then(|original| original.split_once(';')) {
        field("Original-Recipient", &format!("{}; {}", re_encode(kind), re_encode(address)));
    }
    let kind = if recipient.address.is_ascii() { "rfc822" } else { "utf-8" };
    field("Final-Recipient", &format!("{kind}; {}", re_encode(recipient.address)));
    field("Action", &recipient.action.to_string());
    field("Status", &status(recipient).to_string());
    if let Some(remote) = recipient.remote {
        let (host, rest) = remote.split_once(char::is_whitespace).unwrap_or((remote, ""));
        let comment = rest.replace(['(', ')', '\\'], "");
        match comment.trim() {
            "" => field("Remote-MTA", &format!("dns; {host}")),
            comment => field("Remote-MTA", &format!("dns; {host} ({comment})")),
        }
    }
    if !recipient.reply.is_empty() {
        // RFC 3464 section 2.3.6: what is no SMTP reply may not say that it is one.
        let kind = if is_smtp_reply(recipient.reply) { "smtp" } else { "x-posthouse" };
        field("Diagnostic-Code", &format!("{kind}; {}", recipient.reply));
    }
    if let Some(at) = recipient.last_attempt {
        field("Last-Attempt-Date", &fields::date(at));
    }
    if let (Action::Delayed, Some(until)) = (recipient.action, report.retry_until) {
        field("Will-Retry-Until", &fields::date(until));
    }
}

/// RFC 3464 section 2.3.4: the code agrees with the action. What failed for its age keeps its transient code.
fn status(recipient: &Recipient<'_>) -> EnhancedCode {
    let classes: &[u8] = match recipient.action {
        Action::Failed => &[5, 4],
        Action::Delayed => &[4],
        Action::Delivered | Action::Relayed | Action::Expanded => &[2],
    };
    match recipient.status {
        Some(code) if classes.contains(&code.class) => code,
        _ => EnhancedCode::new(classes[0], 0, 0),
    }
}

fn is_smtp_reply(reply: &str) -> bool {
    let bytes = reply.as_bytes();
    matches!(bytes, [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9'])
        || matches!(bytes, [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9', b' ' | b'-' | b'\n', ..])
}

#[cfg(test)]
mod tests;
