//! Delivery status notifications from facts that a sender, a recipient and a remote server wrote.

use message::dsn::{Action, Kind, ParsedReport, Recipient, Report, Returned, build, parse_report};
use smtp::syntax::{Command, decode_xtext, encode_xtext, parse_command};
use types::{Address, Domain, EnhancedCode, MessageId, Timestamp};

use crate::input::{Input, check_lines};

/// Recipients of a report.
const RECIPIENTS_MAX: usize = 6;

/// Parts that end with 0xFF: ENVID and ORCPT as xtext, header section, body, then four parts for each recipient. Properties:
///
/// - what decodes from xtext holds no control, and encodes back to what decodes to the same;
/// - a report is lines of at most 998 octets and reads back as three parts with a group of fields for each recipient; no
///   fact becomes a field of its own (S11);
/// - the fields of status agree with the action.
pub fn dsn(data: &[u8]) {
    let mut input = Input::new(data);
    let (flags, kind, returned, now) = (input.octet(), input.octet(), input.flag(), input.number());
    let (envid, orcpt) = (input.text(), input.text());
    let envid = envid_of(&envid).or_else(|| decode(&envid));
    let orcpt = orcpt_of(&orcpt).or_else(|| decode(&orcpt));
    let (header, body) = (input.part(), input.part());
    let mut facts = Vec::new();
    while !input.is_empty() && facts.len() < RECIPIENTS_MAX {
        facts.push((input.octet(), input.text(), input.text(), input.text()));
    }
    if facts.is_empty() {
        facts.push((0, "a@b.example".into(), "".into(), "".into()));
    }
    let recipients: Vec<Recipient<'_>> = facts
        .iter()
        .map(|(what, address, remote, reply)| Recipient {
            original: orcpt.as_deref().filter(|_| what & 0x80 == 0),
            address,
            action: [Action::Failed, Action::Delayed, Action::Delivered, Action::Relayed, Action::Expanded]
                [usize::from(*what % 5)],
            status: (what & 0x40 != 0).then(|| EnhancedCode::new(what >> 3 & 7, u16::from(*what), 999)),
            remote: (!remote.is_empty()).then_some(remote.as_ref()),
            reply,
            last_attempt: (what & 0x20 != 0).then(|| Timestamp::from_unix_ms(now)),
        })
        .collect();
    let to = Address::parse(&facts[0].1).unwrap_or_else(|_| Address::parse("sender@s.example").unwrap());
    let report = Report {
        kind: [Kind::Failed, Kind::Delayed, Kind::Delivered][usize::from(kind % 3)],
        reporting_mta: &Domain::parse("mx.example.org").unwrap(),
        from: &Address::parse("mailer-daemon@example.org").unwrap(),
        to: &to,
        id: MessageId::new(0, 1, 2),
        about: MessageId::new(0, 1, 3),
        now: Timestamp::from_unix_ms(now),
        arrival: Timestamp::from_unix_ms(now.wrapping_sub(1000)),
        envid: envid.as_deref().filter(|_| flags & 1 == 0),
        retry_until: (flags & 2 == 0).then(|| Timestamp::from_unix_ms(now.wrapping_add(1))),
        recipients: &recipients,
        header,
        returned: if returned { Returned::Full(body) } else { Returned::Headers },
        smtp_utf8: flags & 4 != 0,
    };
    check(&report);
    // Whatever somebody sends as a report is read without harm, too.
    let _ = parse_report(data);
}

fn decode(text: &str) -> Option<String> {
    let decoded = decode_xtext(text).ok()?;
    assert!(!decoded.chars().any(char::is_control));
    let encoded = encode_xtext(&decoded);
    assert!(encoded.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'='));
    assert_eq!(decode_xtext(&encoded).as_ref(), Ok(&decoded));
    Some(decoded)
}

fn envid_of(text: &str) -> Option<String> {
    match parse_command(format!("MAIL FROM:<> ENVID={text}").as_bytes()) {
        Ok(Command::Mail(mail)) => mail.envid,
        _ => None,
    }
}

fn orcpt_of(text: &str) -> Option<String> {
    match parse_command(format!("RCPT TO:<a@b> ORCPT={text}").as_bytes()) {
        Ok(Command::Rcpt { rcpt, .. }) => rcpt.orcpt,
        _ => None,
    }
}

fn check(report: &Report<'_>) {
    let built = build(report);
    check_lines(&built.header);
    check_lines_of_body(&built.body);
    assert_eq!(built.eight_bit, !built.body.is_ascii());
    assert_eq!(built.smtp_utf8, !built.header.is_ascii());
    let whole = [&built.header[..], b"\r\n", &built.body].concat();
    let parsed = parse_report(&whole).expect("a report reads back");
    let names = |fields: &[message::dsn::Field]| fields.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let header = [
        "Date",
        "From",
        "To",
        "Subject",
        "Message-ID",
        "Auto-Submitted",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
    ];
    assert_eq!(names(&parsed.header), header);
    let known = ["Reporting-MTA", "Original-Envelope-Id", "Arrival-Date", "X-Posthouse-Message-Id"];
    assert!(names(&parsed.message).iter().all(|name| known.contains(&name.as_str())), "{:?}", parsed.message);
    assert_eq!(parsed.recipients.len(), report.recipients.len());
    for (fields, recipient) in parsed.recipients.iter().zip(report.recipients) {
        check_recipient(fields, recipient);
    }
}

fn check_recipient(fields: &[message::dsn::Field], recipient: &Recipient<'_>) {
    let known = [
        "Original-Recipient",
        "Final-Recipient",
        "Action",
        "Status",
        "Remote-MTA",
        "Diagnostic-Code",
        "Last-Attempt-Date",
        "Will-Retry-Until",
    ];
    for (at, (name, _)) in fields.iter().enumerate() {
        assert!(known.contains(&name.as_str()), "{fields:?}");
        assert!(fields[..at].iter().all(|(before, _)| before != name), "{name} twice: {fields:?}");
    }
    assert_eq!(ParsedReport::value(fields, "Action"), Some(recipient.action.to_string().as_str()));
    let status: EnhancedCode =
        ParsedReport::value(fields, "Status").and_then(|status| status.parse().ok()).expect("a status");
    let fits = match recipient.action {
        Action::Failed => matches!(status.class, 4 | 5),
        Action::Delayed => status.class == 4,
        Action::Delivered | Action::Relayed | Action::Expanded => status.class == 2,
    };
    assert!(fits, "{status} of {:?}", recipient.action);
    assert!(ParsedReport::value(fields, "Final-Recipient").is_some());
}

/// The body may end without CRLF only where what is returned does.
fn check_lines_of_body(body: &[u8]) {
    assert!(body.ends_with(b"--\r\n"));
    check_lines(body);
    assert!(!body.contains(&0));
}
