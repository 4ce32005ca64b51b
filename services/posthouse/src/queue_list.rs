//! `posthouse queue list|show|cat`.

use std::io::Write;

use clap::{Args, ValueEnum};
use posthouse_proto::queue::v1::{
    ExportRequest, Filter, ListRequest, MessageSummary, RecipientState, ShowRequest, ShowResponse,
};
use types::MessageId;

use crate::exit::{Code, Failure, Outcome};
use crate::json;
use crate::output::{Table, count, moment, parse_span, printable, size, span_ms};
use crate::reach::{self, Reached, Which};

/// Messages asked for at a time; the contract allows 10,000.
const PAGE: u32 = 500;

/// Which messages are meant; all conditions must hold.
#[derive(Debug, Clone, Default, Args)]
pub struct FilterArgs {
    /// Ids of messages
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Envelope sender: an address, or @domain
    #[arg(long, value_name = "ADDRESS")]
    pub sender: Option<String>,
    /// Recipient: an address, or @domain
    #[arg(long, value_name = "ADDRESS")]
    pub recipient: Option<String>,
    /// Route that recipients are grouped by, as in `list`
    #[arg(long)]
    pub route: Option<String>,
    /// Name of a MailTransport
    #[arg(long)]
    pub transport: Option<String>,
    /// Recipients in this state (`--state` is the state folder)
    #[arg(long, value_enum, value_name = "STATE")]
    pub only: Option<State>,
    /// Received longer ago, as in 90s, 10m, 4h, 5d
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    pub older_than: Option<std::time::Duration>,
}

/// A state by its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum State {
    /// Due now
    Due,
    /// Due later
    Waiting,
    /// Being delivered
    Leased,
    /// Kept back until released
    Held,
    /// Delivered
    Delivered,
    /// Given up or refused
    Failed,
}

impl FilterArgs {
    /// The filter of the contract; ids are checked here, where the person is.
    pub fn filter(&self) -> Result<Filter, Failure> {
        for id in &self.ids {
            id.parse::<MessageId>().map_err(|error| Failure::new(Code::Usage, format!("`{id}`: {error}")))?;
        }
        let state = match self.only {
            None => RecipientState::Unspecified,
            Some(State::Due) => RecipientState::Due,
            Some(State::Waiting) => RecipientState::Waiting,
            Some(State::Leased) => RecipientState::Leased,
            Some(State::Held) => RecipientState::Held,
            Some(State::Delivered) => RecipientState::Delivered,
            Some(State::Failed) => RecipientState::Failed,
        };
        Ok(Filter {
            message_ids: self.ids.clone(),
            sender: self.sender.clone().unwrap_or_default(),
            recipient: self.recipient.clone().unwrap_or_default(),
            route: self.route.clone().unwrap_or_default(),
            transport: self.transport.clone().unwrap_or_default(),
            state: state.into(),
            older_than_s: self.older_than.map_or(0, |age| age.as_secs()),
        })
    }
}

/// `queue list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// At most so many messages
    #[arg(long, default_value_t = 1000)]
    limit: u64,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Lists messages, newest first.
pub async fn list(which: &Which, args: &ListArgs, out: &mut dyn Write) -> Outcome {
    let mut reached = reach::queue(which).await?;
    let filter = args.filter.filter()?;
    let now_ms = node::Clock::system().now().unix_ms();
    let mut table = Table::new(&["ID", "AGE", "SIZE", "SENDER", "RECIPIENT", "ROUTE", "STATE", "NEXT", "LAST REPLY"]);
    let mut shown = 0;
    let all = for_each(&mut reached, filter, args.limit, |message| {
        shown += 1;
        if args.json {
            writeln!(out, "{}", json::message(&message))?;
        } else {
            rows(&mut table, &message, now_ms);
        }
        Ok(())
    })
    .await?;
    if !args.json {
        if shown > 0 {
            table.write(out)?;
        }
        let more = if all { "" } else { ", and there are more: --limit" };
        writeln!(out, "{}{more}", count(shown, "message"))?;
    }
    Ok(())
}

/// Goes through messages page by page; `false` when `limit` came before the end.
pub async fn for_each(
    reached: &mut Reached,
    filter: Filter,
    limit: u64,
    mut each: impl FnMut(MessageSummary) -> Outcome,
) -> Result<bool, Failure> {
    let mut after = String::new();
    let mut left = limit;
    while left > 0 {
        let page = u32::try_from(left).unwrap_or(PAGE).min(PAGE);
        let request = ListRequest { filter: Some(filter.clone()), limit: page, after: after.clone() };
        let answer = reached.queue.list(request).await?.into_inner();
        left = left.saturating_sub(answer.messages.len() as u64);
        for message in answer.messages {
            each(message)?;
        }
        if answer.next.is_empty() {
            return Ok(true);
        }
        after = answer.next;
    }
    Ok(false)
}

fn rows(table: &mut Table, message: &MessageSummary, now_ms: i64) {
    for (n, summary) in message.recipients.iter().enumerate() {
        let recipient = summary.recipient.clone().unwrap_or_default();
        let first = |text: String| if n == 0 { text } else { String::new() };
        let next = match summary.state() {
            RecipientState::Waiting => span_ms(now_ms, summary.due_at_ms),
            _ => String::new(),
        };
        let why = if summary.hold_reason.is_empty() { &summary.last_reply } else { &summary.hold_reason };
        table.row([
            first(message.message_id.clone()),
            first(span_ms(message.received_at_ms, now_ms)),
            first(size(message.size_bytes)),
            first(reverse_path(&message.sender)),
            recipient.address,
            recipient.route,
            json::state(summary.state()).to_owned(),
            next,
            why.clone(),
        ]);
    }
}

fn reverse_path(sender: &str) -> String {
    if sender.is_empty() { "<>".to_owned() } else { sender.to_owned() }
}

/// `queue show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Id of a message
    id: MessageId,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Shows what is known of one message.
pub async fn show(which: &Which, args: &ShowArgs, out: &mut dyn Write) -> Outcome {
    let mut reached = reach::queue(which).await?;
    let shown = reached.queue.show(ShowRequest { message_id: args.id.to_string() }).await?.into_inner();
    if args.json {
        writeln!(out, "{}", json::show(&shown))?;
        return Ok(());
    }
    write_message(&shown, node::Clock::system().now().unix_ms(), out)
}

fn write_message(shown: &ShowResponse, now_ms: i64, out: &mut dyn Write) -> Outcome {
    let message = shown.message.clone().unwrap_or_default();
    let origin = shown.origin.clone().unwrap_or_default();
    let age = span_ms(message.received_at_ms, now_ms);
    writeln!(out, "id         {}", message.message_id)?;
    writeln!(out, "message-id {}", printable(&shown.header_message_id))?;
    writeln!(out, "sender     {}", printable(&reverse_path(&message.sender)))?;
    writeln!(out, "size       {}", size(message.size_bytes))?;
    writeln!(out, "received   {} ({age} ago)", moment(message.received_at_ms))?;
    let from = [
        ("by", &origin.listener),
        ("from", &origin.client),
        ("helo", &origin.helo),
        ("user", &origin.user),
        ("with", &origin.tls),
    ];
    let from: Vec<String> = from.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| format!("{k} {v}")).collect();
    writeln!(out, "origin     {}\n", printable(&from.join(", ")))?;
    let mut table =
        Table::new(&["RECIPIENT", "TRANSPORT", "ROUTE", "STATE", "TRIED", "NEXT", "GIVEN UP", "REMOTE", "LAST REPLY"]);
    for summary in &message.recipients {
        let recipient = summary.recipient.clone().unwrap_or_default();
        let later = |at_ms: i64| if at_ms > now_ms { format!("in {}", span_ms(now_ms, at_ms)) } else { String::new() };
        table.row([
            recipient.address,
            recipient.transport,
            recipient.route,
            json::state(summary.state()).to_owned(),
            summary.attempts.to_string(),
            later(summary.due_at_ms),
            later(summary.expires_at_ms),
            summary.last_remote.clone(),
            if summary.hold_reason.is_empty() { summary.last_reply.clone() } else { summary.hold_reason.clone() },
        ]);
    }
    table.write(out)?;
    writeln!(out)?;
    crate::trace::write_events(&shown.events, out)?;
    Ok(())
}

/// `queue cat`.
#[derive(Debug, Args)]
pub struct CatArgs {
    /// Id of a message
    id: MessageId,
    /// Which header section, where recipients have different ones
    #[arg(long, default_value_t = 0)]
    variant: u32,
}

/// Writes the text of a message as it would be sent.
pub async fn cat(which: &Which, args: &CatArgs, out: &mut dyn Write) -> Outcome {
    let mut reached = reach::queue(which).await?;
    let request = ExportRequest { message_id: args.id.to_string(), variant: args.variant };
    let mut chunks = reached.queue.export(request).await?.into_inner();
    while let Some(chunk) = chunks.message().await? {
        out.write_all(&chunk.chunk)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use posthouse_proto::queue::v1::{Event, Origin, Recipient, RecipientSummary};

    use super::*;

    fn summary() -> MessageSummary {
        let recipient = |address: &str, state: RecipientState, due_at_ms| RecipientSummary {
            recipient: Some(Recipient {
                address: address.to_owned(),
                transport: "mx".to_owned(),
                route: "example.net".to_owned(),
                ..Recipient::default()
            }),
            state: state.into(),
            attempts: 2,
            due_at_ms,
            last_reply: "450 4.2.0 later\nmuch later".to_owned(),
            expires_at_ms: 500_000_000,
            ..RecipientSummary::default()
        };
        MessageSummary {
            message_id: "0001abc".to_owned(),
            sender: String::new(),
            size_bytes: 2048,
            received_at_ms: 40_000,
            recipients: vec![
                recipient("a@example.net", RecipientState::Waiting, 400_000),
                recipient("b@example.net", RecipientState::Delivered, 0),
            ],
        }
    }

    #[test]
    fn a_message_has_a_row_for_every_recipient() {
        let mut table =
            Table::new(&["ID", "AGE", "SIZE", "SENDER", "RECIPIENT", "ROUTE", "STATE", "NEXT", "LAST REPLY"]);
        rows(&mut table, &summary(), 100_000);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let expected = "\
ID       AGE  SIZE     SENDER  RECIPIENT      ROUTE        STATE      NEXT  LAST REPLY
0001abc  1m   2.0 KiB  <>      a@example.net  example.net  waiting    5m    450 4.2.0 later much later
                               b@example.net  example.net  delivered        450 4.2.0 later much later
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_message_is_shown_with_its_origin_and_its_events() {
        let shown = ShowResponse {
            message: Some(summary()),
            events: vec![Event {
                message_id: "0001abc".to_owned(),
                at_ms: 41_000,
                kind: "deferred".to_owned(),
                text: r#"{"remote":"mx.example.net","reply":"450 4.2.0 later"}"#.to_owned(),
            }],
            origin: Some(Origin { listener: "mx".to_owned(), client: "192.0.2.1".to_owned(), ..Origin::default() }),
            header_message_id: "<1@example.org>".to_owned(),
            ..ShowResponse::default()
        };
        let mut out = Vec::new();
        write_message(&shown, 100_000, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for expected in [
            "received   1970-01-01T00:00:40.000Z (1m ago)",
            "origin     by mx, from 192.0.2.1",
            "message-id <1@example.org>",
            "deferred",
            "remote=mx.example.net",
        ] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
        let value = json::show(&shown);
        assert_eq!(value["events"][0]["detail"]["reply"], "450 4.2.0 later");
        assert_eq!(value["recipients"][1]["state"], "delivered");
        assert_eq!(value["recipients"][1]["due_at"], serde_json::Value::Null);
    }

    #[test]
    fn an_id_that_is_none_is_refused_before_anything_is_asked() {
        let args = FilterArgs { ids: vec!["nonsense".to_owned()], ..FilterArgs::default() };
        assert_eq!(args.filter().unwrap_err().code, Code::Usage);
        let args = FilterArgs { only: Some(State::Held), ..FilterArgs::default() };
        assert_eq!(args.filter().unwrap().state(), RecipientState::Held);
    }
}
