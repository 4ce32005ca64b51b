//! The part that people read.

use super::fields::{Charset, plain};
use super::{Action, Kind, Report, Returned, fields};

/// Width that text is wrapped at.
const WRAP_COLUMNS: usize = 76;
/// Recipients that are described in words; the rest stands in the machine-readable part.
const RECIPIENTS_MAX: usize = 100;

pub(super) fn subject(kind: Kind) -> &'static str {
    match kind {
        Kind::Failed => "Undelivered mail returned to sender",
        Kind::Delayed => "Delayed mail: still trying to deliver",
        Kind::Delivered => "Mail delivery report",
    }
}

pub(super) fn text(report: &Report<'_>) -> Vec<u8> {
    let mut out = String::with_capacity(1024);
    wrap(&mut out, "", &format!("This is the mail system at host {}.", report.reporting_mta));
    out.push_str("\r\n");
    let arrived = fields::date(report.arrival);
    wrap(&mut out, "", &format!("This is about your message of {arrived}. {}", introduction(report)));
    out.push_str("\r\n");
    for recipient in report.recipients.iter().take(RECIPIENTS_MAX) {
        wrap(&mut out, "", &format!("<{}>: {}", recipient.address, what_happened(recipient.action)));
        match (recipient.reply.is_empty(), recipient.remote) {
            (true, _) => {}
            (false, Some(remote)) => wrap(&mut out, "    ", &format!("{remote} said: {}", recipient.reply)),
            (false, None) => wrap(&mut out, "    ", recipient.reply),
        }
        out.push_str("\r\n");
    }
    let more = report.recipients.len().saturating_sub(RECIPIENTS_MAX);
    if more > 0 {
        wrap(&mut out, "", &format!("... and {more} more; all of them are listed in the next part."));
        out.push_str("\r\n");
    }
    let returned = match report.returned {
        Returned::Full(_) => "the message itself",
        Returned::Headers => "the header of the message",
    };
    wrap(&mut out, "", &format!("Details for programs and {returned} follow. Its id here is {}.", report.about));
    out.into_bytes()
}

fn introduction(report: &Report<'_>) -> String {
    match report.kind {
        Kind::Failed => {
            "It could not be delivered to the recipients below, and no further attempt will be made.".into()
        }
        Kind::Delayed => {
            let until = match report.retry_until {
                Some(until) => format!(" until {}", fields::date(until)),
                None => String::new(),
            };
            format!(
                "It has not been delivered to the recipients below yet. You need not do anything: the attempts go on{until}, \
                 and you will be told if they fail."
            )
        }
        Kind::Delivered => "You asked to be told of its delivery. This is what became of it.".into(),
    }
}

fn what_happened(action: Action) -> &'static str {
    match action {
        Action::Failed => "could not be delivered",
        Action::Delayed => "not delivered yet",
        Action::Delivered => "delivered",
        Action::Relayed => "handed to a mail system that sends no reports of delivery",
        Action::Expanded => "delivered to a list of recipients",
    }
}

/// Appends `text` in lines that begin with `indent`. Controls become spaces; a word that is too long is broken.
fn wrap(out: &mut String, indent: &str, text: &str) {
    let text = plain(text, Charset::Utf8);
    let mut column = 0;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let mut rest = word;
        while !rest.is_empty() {
            // Long, but not so long that a line of text could pass 998 octets.
            let (piece, after) = rest.split_at(fields::boundary_at(rest, 10 * WRAP_COLUMNS));
            if column > 0 && column + 1 + piece.len() > WRAP_COLUMNS {
                out.push_str("\r\n");
                column = 0;
            }
            out.push_str(if column == 0 { indent } else { " " });
            column += if column == 0 { indent.len() } else { 1 } + piece.len();
            out.push_str(piece);
            rest = after;
        }
    }
    out.push_str("\r\n");
}
