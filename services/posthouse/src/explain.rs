//! `posthouse explain`: what would be answered to an envelope, and why.

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use posthouse_proto::policy::v1::{
    Accepted, Answer, EnvelopeRequest, ExplainResponse, RecipientStory, Reply, Session, answer,
};
use resources::Snapshot;
use resources::snapshot::{Endpoint, Identity, TlsMode};
use serde_json::{Value, json};

use crate::exit::{Code, Failure, Outcome};
use crate::output::printable;

/// `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Folder of the site
    dir: PathBuf,
    /// Name of the MailListener
    #[arg(long)]
    listener: String,
    /// Address of the client; not for a Unix socket
    #[arg(long, value_name = "ADDRESS")]
    client_ip: Option<IpAddr>,
    /// What the client says in EHLO
    #[arg(long, default_value = "client.invalid", value_name = "NAME")]
    helo: String,
    /// User that has logged in
    #[arg(long, value_name = "ADDRESS")]
    auth: Option<String>,
    /// Envelope sender; `<>` or nothing is the null reverse-path
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    from: String,
    /// Recipients
    #[arg(long, value_name = "ADDRESS", required = true)]
    to: Vec<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Explains, by the code that decides in production.
pub fn explain(args: &ExplainArgs, out: &mut dyn Write) -> Outcome {
    let snapshot = Arc::new(crate::site::load(&args.dir, &node::default_dir(&args.dir))?);
    let request = request(args, &snapshot)?;
    let answered = node::process::block_on(policy::explain_offline(&snapshot, request.clone()))?;
    let explained = answered.map_err(|status| Failure::new(Code::Usage, status.message().to_owned()))?;
    if args.json {
        writeln!(out, "{}", as_json(&explained))?;
        return Ok(());
    }
    write_text(&request, &explained, out)
}

fn request(args: &ExplainArgs, snapshot: &Snapshot) -> Result<EnvelopeRequest, Failure> {
    let listener = snapshot.listeners.get(&args.listener);
    let is_builtin = args.listener == ingress::SENDMAIL_LISTENER && snapshot.platform.sendmail_socket;
    if listener.is_none() && !is_builtin {
        let names: Vec<_> = snapshot.listeners.keys().map(String::as_str).collect();
        let text = format!("there is no listener `{}`: {} are there", args.listener, names.join(", "));
        return Err(Failure::new(Code::Usage, text));
    }
    let is_socket = listener.is_none_or(|listener| matches!(listener.endpoint, Endpoint::Unix(_)));
    if !is_socket && args.client_ip.is_none() {
        return Err(Failure::new(
            Code::Usage,
            "--client-ip is needed: this listener takes connections from the network",
        ));
    }
    let strip = |text: &str| text.trim_start_matches('<').trim_end_matches('>').to_owned();
    let session = Session {
        listener: args.listener.clone(),
        client_ip: if is_socket { String::new() } else { args.client_ip.map(|ip| ip.to_string()).unwrap_or_default() },
        address_known: listener.is_none_or(|listener| listener.identity != Identity::Unknown),
        helo: args.helo.clone(),
        user: args.auth.clone().unwrap_or_default(),
        // Whoever has logged in came by TLS, unless the listener has none.
        tls: listener.is_some_and(|listener| {
            matches!(listener.tls.mode, TlsMode::Required | TlsMode::Implicit)
                || (args.auth.is_some() && listener.tls.mode == TlsMode::Opportunistic)
        }),
        ..Session::default()
    };
    let recipients = args.to.iter().map(|to| strip(to)).collect();
    Ok(EnvelopeRequest { session: Some(session), sender: strip(&args.from), recipients })
}

fn write_text(request: &EnvelopeRequest, explained: &ExplainResponse, out: &mut dyn Write) -> Outcome {
    let session = request.session.clone().unwrap_or_default();
    let client = if session.client_ip.is_empty() { "a socket of this host" } else { &session.client_ip };
    writeln!(out, "listener  {}, client {client}, EHLO {}", session.listener, printable(&session.helo))?;
    if !session.user.is_empty() {
        writeln!(out, "user      {}", printable(&session.user))?;
    }
    writeln!(out, "sender    <{}>", printable(&request.sender))?;
    for (recipient, answer, story) in rows(explained) {
        writeln!(out, "\nrecipient <{}>", printable(&recipient))?;
        for step in story.iter().flat_map(|story| &story.steps) {
            let mark = if step.matched { "yes" } else { "no " };
            writeln!(out, "  {mark}  {}: {}", printable(&step.rule), printable(&step.reason))?;
        }
        match &answer.answer {
            Some(answer::Answer::Accepted(accepted)) => write_accepted(accepted, out)?,
            Some(answer::Answer::Refuse(reply)) => writeln!(out, "  =>   {}", reply_line(reply))?,
            None => writeln!(out, "  =>   no answer")?,
        }
    }
    Ok(())
}

fn write_accepted(accepted: &Accepted, out: &mut dyn Write) -> Outcome {
    writeln!(out, "  =>   accepted by {}", printable(&accepted.rule))?;
    if !accepted.tags.is_empty() {
        writeln!(out, "       tags {}", accepted.tags.join(", "))?;
    }
    for to in &accepted.destinations {
        write!(
            out,
            "       <{}> by transport {}, route {}",
            printable(&to.address),
            to.transport,
            printable(&to.route)
        )?;
        if to.sender_rewritten {
            write!(out, ", sender <{}>", printable(&to.sender))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn reply_line(reply: &Reply) -> String {
    printable(&format!("{} {} {}", reply.code, reply.enhanced_code, reply.text)).replace("  ", " ")
}

/// Answers and stories stand in the order of the recipients.
fn rows(explained: &ExplainResponse) -> Vec<(String, Answer, Option<&RecipientStory>)> {
    let answers = explained.response.iter().flat_map(|response| &response.answers);
    answers
        .enumerate()
        .map(|(n, answer)| {
            let story = explained.stories.get(n);
            (story.map(|story| story.recipient.clone()).unwrap_or_default(), answer.clone(), story)
        })
        .collect()
}

fn as_json(explained: &ExplainResponse) -> Value {
    let version = explained.response.as_ref().map(|response| response.snapshot_version.clone());
    let recipients: Vec<Value> = rows(explained)
        .into_iter()
        .map(|(recipient, answer, story)| {
            let steps: Vec<Value> = story
                .iter()
                .flat_map(|story| &story.steps)
                .map(|step| json!({ "rule": step.rule, "matched": step.matched, "reason": step.reason }))
                .collect();
            json!({ "recipient": recipient, "steps": steps, "answer": answer_json(&answer) })
        })
        .collect();
    json!({ "snapshot_version": version, "recipients": recipients })
}

fn answer_json(answer: &Answer) -> Value {
    match &answer.answer {
        Some(answer::Answer::Refuse(reply)) => {
            json!({ "refuse": { "code": reply.code, "enhanced_code": reply.enhanced_code, "text": reply.text } })
        }
        Some(answer::Answer::Accepted(accepted)) => {
            let destinations: Vec<Value> = accepted
                .destinations
                .iter()
                .map(|to| {
                    json!({
                        "address": to.address,
                        "transport": to.transport,
                        "route": to.route,
                        "delivered_to": to.delivered_to,
                        "sender": if to.sender_rewritten { json!(to.sender) } else { Value::Null },
                    })
                })
                .collect();
            json!({ "accept": { "rule": accepted.rule, "tags": accepted.tags, "destinations": destinations } })
        }
        None => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use posthouse_proto::policy::v1::{Destination, EnvelopeResponse, Step};

    use super::*;

    fn explained() -> ExplainResponse {
        let accepted = Accepted {
            rule: "default/1".to_owned(),
            tags: vec!["clean".to_owned()],
            destinations: vec![Destination {
                address: "alice@example.org".to_owned(),
                transport: "mailboxes".to_owned(),
                route: "mailboxes".to_owned(),
                ..Destination::default()
            }],
        };
        let refuse = Reply { code: 550, enhanced_code: "5.1.1".to_owned(), text: "no such user".to_owned() };
        let story = |recipient: &str, matched| RecipientStory {
            recipient: recipient.to_owned(),
            steps: vec![Step { rule: "default/1".to_owned(), matched, reason: "the domain is ours".to_owned() }],
        };
        ExplainResponse {
            response: Some(EnvelopeResponse {
                snapshot_version: "7".to_owned(),
                answers: vec![
                    Answer { answer: Some(answer::Answer::Accepted(accepted)) },
                    Answer { answer: Some(answer::Answer::Refuse(refuse)) },
                ],
                decide: false,
            }),
            stories: vec![story("info@example.org", true), story("nobody@example.org", false)],
        }
    }

    #[test]
    fn the_story_of_every_recipient_is_told_with_its_end() {
        let request = EnvelopeRequest {
            session: Some(Session {
                listener: "mx".to_owned(),
                client_ip: "192.0.2.1".to_owned(),
                helo: "x".to_owned(),
                ..Session::default()
            }),
            sender: String::new(),
            recipients: Vec::new(),
        };
        let mut out = Vec::new();
        write_text(&request, &explained(), &mut out).unwrap();
        let expected = "\
listener  mx, client 192.0.2.1, EHLO x
sender    <>

recipient <info@example.org>
  yes  default/1: the domain is ours
  =>   accepted by default/1
       tags clean
       <alice@example.org> by transport mailboxes, route mailboxes

recipient <nobody@example.org>
  no   default/1: the domain is ours
  =>   550 5.1.1 no such user
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn programs_read_the_same_as_json() {
        let value = as_json(&explained());
        assert_eq!(value["recipients"][0]["answer"]["accept"]["destinations"][0]["transport"], "mailboxes");
        assert_eq!(value["recipients"][1]["answer"]["refuse"]["code"], 550);
        assert_eq!(value["recipients"][1]["steps"][0]["matched"], false);
    }
}
