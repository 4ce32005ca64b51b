//! `posthouse trace`: what became of a message, or what is being said right now.

use std::io::Write;

use clap::Args;
use posthouse_proto::ingress::v1::{Direction, WatchRequest, WatchResponse};
use posthouse_proto::queue::v1::{Event, TraceRequest};
use serde_json::Value;
use types::MessageId;

use crate::exit::{Code, Failure, Outcome};
use crate::json;
use crate::output::{moment, printable, time_of_day};
use crate::reach::{self, Which};

/// `trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Id of a message, an address of its envelope, or its <Message-ID>
    #[arg(required_unless_present = "live")]
    what: Option<String>,
    /// At most so many messages
    #[arg(long, default_value_t = 20)]
    limit: u32,
    /// Show running SMTP dialogues, secrets masked, until interrupted
    #[arg(long, conflicts_with = "what")]
    live: bool,
    /// Only dialogues with this address or network
    #[arg(long, requires = "live", conflicts_with = "what", value_name = "ADDRESS|CIDR")]
    client_ip: Option<String>,
    /// Only dialogues of this listener
    #[arg(long, requires = "live", conflicts_with = "what")]
    listener: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Traces a message or the dialogues.
pub async fn trace(which: &Which, args: &TraceArgs, out: &mut dyn Write) -> Outcome {
    match &args.what {
        Some(what) => past(which, args, what, out).await,
        None => live(which, args, out).await,
    }
}

async fn past(which: &Which, args: &TraceArgs, what: &str, out: &mut dyn Write) -> Outcome {
    let mut reached = reach::queue(which).await?;
    for request in requests(what, args.limit) {
        let events = reached.queue.trace(request).await?.into_inner().events;
        if events.is_empty() {
            continue;
        }
        if args.json {
            for event in &events {
                writeln!(out, "{}", json::event(event))?;
            }
        } else {
            write_events(&events, out)?;
        }
        return Ok(());
    }
    Err(Failure::new(Code::Failed, "nothing is known of such a message: events are kept for spec.queue.eventRetention"))
}

/// What is asked, in order, until something is found: without its brackets a Message-ID looks like an address.
fn requests(what: &str, limit: u32) -> Vec<TraceRequest> {
    let by_message_id = |id: String| TraceRequest { header_message_id: id, limit, ..TraceRequest::default() };
    if what.parse::<MessageId>().is_ok() {
        vec![TraceRequest { message_id: what.to_owned(), limit, ..TraceRequest::default() }]
    } else if what.starts_with('<') {
        vec![by_message_id(what.to_owned())]
    } else {
        let by_address = TraceRequest { address: what.to_owned(), limit, ..TraceRequest::default() };
        vec![by_address, by_message_id(format!("<{what}>"))]
    }
}

/// One event a line, messages apart.
pub fn write_events(events: &[Event], out: &mut dyn Write) -> std::io::Result<()> {
    let mut last = "";
    for event in events {
        if event.message_id != last {
            if !last.is_empty() {
                writeln!(out)?;
            }
            writeln!(out, "{}", event.message_id)?;
            last = &event.message_id;
        }
        writeln!(out, "  {}  {:<9}  {}", moment(event.at_ms), event.kind, detail(&event.text))?;
    }
    Ok(())
}

/// `key=value` of what is set.
fn detail(text: &str) -> String {
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return printable(text) };
    let shown = fields.iter().filter_map(|(key, value)| match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) if text.contains(char::is_whitespace) => Some(format!("{key}=\"{text}\"")),
        Value::String(text) => Some(format!("{key}={text}")),
        other => Some(format!("{key}={other}")),
    });
    printable(&shown.collect::<Vec<_>>().join(" "))
}

async fn live(which: &Which, args: &TraceArgs, out: &mut dyn Write) -> Outcome {
    let mut ingress = reach::ingress(which).await?;
    let request = WatchRequest {
        client_ip: args.client_ip.clone().unwrap_or_default(),
        listener: args.listener.clone().unwrap_or_default(),
    };
    let mut lines = ingress.watch(request).await?.into_inner();
    while let Some(line) = lines.message().await? {
        if args.json {
            writeln!(out, "{}", json::line(&line))?;
        } else {
            write_line(&line, out)?;
        }
        out.flush()?;
    }
    Ok(())
}

fn write_line(line: &WatchResponse, out: &mut dyn Write) -> std::io::Result<()> {
    if line.lost > 0 {
        writeln!(out, "{} lines were lost: this end is too slow", line.lost)?;
    }
    let at = time_of_day(line.at_ms);
    let text = printable(&line.line);
    match line.direction() {
        Direction::Client => writeln!(out, "{at} {:>6} > {text}", line.session),
        Direction::Server => writeln!(out, "{at} {:>6} < {text}", line.session),
        Direction::Event | Direction::Unspecified => {
            writeln!(out, "{at} {:>6} * {text} ({}, {})", line.session, printable(&line.client), line.listener)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_traced_is_recognised() {
        let id = MessageId::new(0, 1, 2).to_string();
        type Asked = [(&'static str, &'static str, &'static str)];
        let id: &'static str = id.leak();
        let cases: [(&str, &Asked); 4] = [
            (id, &[(id, "", "")]),
            ("<a@b>", &[("", "", "<a@b>")]),
            ("a@b.example", &[("", "a@b.example", ""), ("", "", "<a@b.example>")]),
            ("@b.example", &[("", "@b.example", ""), ("", "", "<@b.example>")]),
        ];
        for (what, expected) in cases {
            let asked = requests(what, 5);
            let asked: Vec<_> = asked
                .iter()
                .map(|r| (r.message_id.as_str(), r.address.as_str(), r.header_message_id.as_str()))
                .collect();
            assert_eq!(asked, expected, "{what}");
        }
    }

    #[test]
    fn events_are_grouped_by_message_and_their_details_are_readable() {
        let event = |id: &str, kind: &str, text: &str| Event {
            message_id: id.to_owned(),
            at_ms: 0,
            kind: kind.to_owned(),
            text: text.to_owned(),
        };
        let events = [
            event("m1", "received", r#"{"client":"192.0.2.1","user":null,"size_bytes":7}"#),
            event("m1", "delivered", r#"{"reply":"250 2.0.0 ok\u001b[0m","remote":""}"#),
            event("m2", "removed", "not json"),
        ];
        let mut out = Vec::new();
        write_events(&events, &mut out).unwrap();
        let expected = "\
m1
  1970-01-01T00:00:00.000Z  received   client=192.0.2.1 size_bytes=7
  1970-01-01T00:00:00.000Z  delivered  reply=\"250 2.0.0 ok [0m\"

m2
  1970-01-01T00:00:00.000Z  removed    not json
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn lines_that_were_lost_are_told() {
        let line = WatchResponse {
            session: 7,
            direction: Direction::Client.into(),
            line: "EHLO x".to_owned(),
            lost: 3,
            ..WatchResponse::default()
        };
        let mut out = Vec::new();
        write_line(&line, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("3 lines were lost") && text.ends_with("7 > EHLO x\n"), "{text}");
    }
}
