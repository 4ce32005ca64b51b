use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);
const ARRIVAL: Timestamp = Timestamp::from_unix_ms(1_799_990_000_000);

struct Case {
    kind: Kind,
    to: &'static str,
    envid: Option<String>,
    original: Option<String>,
    address: String,
    action: Action,
    status: Option<EnhancedCode>,
    remote: Option<String>,
    reply: String,
    header: Vec<u8>,
    body: Option<Vec<u8>>,
    smtp_utf8: bool,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            kind: Kind::Failed,
            to: "alice@example.org",
            envid: Some("QQ314159".into()),
            original: Some("rfc822;bob@example.net".into()),
            address: "robert@example.net".into(),
            action: Action::Failed,
            status: Some(EnhancedCode::new(5, 1, 1)),
            remote: Some("mx.example.net [192.0.2.25]:25".into()),
            reply: "550 5.1.1 no such\nuser here".into(),
            header: b"Subject: hello\r\nFrom: alice@example.org\r\n".to_vec(),
            body: None,
            smtp_utf8: false,
        }
    }
}

impl Case {
    fn build(&self) -> Built {
        let recipients = [Recipient {
            original: self.original.as_deref(),
            address: &self.address,
            action: self.action,
            status: self.status,
            remote: self.remote.as_deref(),
            reply: &self.reply,
            last_attempt: Some(NOW),
        }];
        build(&Report {
            kind: self.kind,
            reporting_mta: &Domain::parse("mx1.example.org").unwrap(),
            from: &Address::parse("MAILER-DAEMON@mx1.example.org").unwrap(),
            to: &Address::parse(self.to).unwrap(),
            id: MessageId::new(0, 7, 7),
            about: MessageId::new(0, 1, 1),
            now: NOW,
            arrival: ARRIVAL,
            envid: self.envid.as_deref(),
            retry_until: Some(NOW.plus(std::time::Duration::from_secs(86_400))),
            recipients: &recipients,
            header: &self.header,
            returned: self.body.as_deref().map_or(Returned::Headers, Returned::Full),
            smtp_utf8: self.smtp_utf8,
        })
    }

    fn parsed(&self) -> ParsedReport {
        parse_report(&whole(&self.build())).unwrap()
    }
}

fn whole(built: &Built) -> Vec<u8> {
    [&built.header[..], b"\r\n", &built.body].concat()
}

fn names(fields: &[Field]) -> Vec<&str> {
    fields.iter().map(|(name, _)| name.as_str()).collect()
}

/// S11: no raw CR or LF, at most 998 octets.
fn assert_lines(octets: &[u8]) {
    for line in octets.split_inclusive(|b| *b == b'\n') {
        let line =
            line.strip_suffix(b"\r\n").unwrap_or_else(|| panic!("bare LF in {:?}", String::from_utf8_lossy(line)));
        assert!(line.len() <= 998, "{} octets", line.len());
        assert!(!line.contains(&b'\r') && !line.contains(&0), "{:?}", String::from_utf8_lossy(line));
    }
}

#[test]
fn a_failure_is_told_with_every_field_of_rfc_3464() {
    let report = Case::default().parsed();
    let header = |name| ParsedReport::value(&report.header, name).unwrap();
    assert_eq!(header("From"), "Mail Delivery Subsystem <MAILER-DAEMON@mx1.example.org>");
    assert_eq!(header("To"), "<alice@example.org>");
    assert_eq!(header("Subject"), "Undelivered mail returned to sender");
    assert_eq!(header("Auto-Submitted"), "auto-replied");
    assert_eq!(header("Date"), "Fri, 15 Jan 2027 08:00:00 +0000");
    assert_eq!(header("Message-ID"), format!("<{}@mx1.example.org>", MessageId::new(0, 7, 7)));
    assert_eq!(header("Content-Transfer-Encoding"), "7bit");
    let expected = |fields: &[(&str, &str)]| -> Vec<Field> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    assert_eq!(
        report.message,
        expected(&[
            ("Reporting-MTA", "dns; mx1.example.org"),
            ("Original-Envelope-Id", "QQ314159"),
            ("Arrival-Date", "Fri, 15 Jan 2027 05:13:20 +0000"),
            ("X-Posthouse-Message-Id", &MessageId::new(0, 1, 1).to_string()),
        ])
    );
    assert_eq!(
        report.recipients,
        [expected(&[
            ("Original-Recipient", "rfc822; bob@example.net"),
            ("Final-Recipient", "rfc822; robert@example.net"),
            ("Action", "failed"),
            ("Status", "5.1.1"),
            ("Remote-MTA", "dns; mx.example.net ([192.0.2.25]:25)"),
            ("Diagnostic-Code", "smtp; 550 5.1.1 no such user here"),
            ("Last-Attempt-Date", "Fri, 15 Jan 2027 08:00:00 +0000"),
        ])]
    );
    assert_eq!(report.returned_type, "text/rfc822-headers");
    assert_eq!(report.returned, b"Subject: hello\r\nFrom: alice@example.org\r\n");
    let text = report.text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        text.contains("<robert@example.net>: could not be delivered mx.example.net [192.0.2.25]:25 said: 550"),
        "{text}"
    );
}

#[test]
fn a_delay_says_until_when_attempts_go_on() {
    let case = Case {
        kind: Kind::Delayed,
        action: Action::Delayed,
        status: None,
        reply: "450 busy".into(),
        ..Case::default()
    };
    let report = case.parsed();
    let value = |name| ParsedReport::value(&report.recipients[0], name);
    assert_eq!(value("Action"), Some("delayed"));
    assert_eq!(value("Status"), Some("4.0.0"));
    assert_eq!(value("Will-Retry-Until"), Some("Sat, 16 Jan 2027 08:00:00 +0000"));
    let text = report.text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("the attempts go on until Sat, 16 Jan 2027 08:00:00 +0000"), "{text}");
    assert_eq!(ParsedReport::value(&Case::default().parsed().recipients[0], "Will-Retry-Until"), None);
}

#[test]
fn the_status_agrees_with_the_action() {
    let code = EnhancedCode::new;
    let cases = [
        (Action::Failed, Some(code(5, 7, 1)), "5.7.1"),
        (Action::Failed, Some(code(4, 4, 7)), "4.4.7"),
        (Action::Failed, Some(code(2, 0, 0)), "5.0.0"),
        (Action::Failed, None, "5.0.0"),
        (Action::Delayed, Some(code(5, 0, 0)), "4.0.0"),
        (Action::Delivered, Some(code(2, 1, 5)), "2.1.5"),
        (Action::Relayed, Some(code(5, 0, 0)), "2.0.0"),
        (Action::Expanded, None, "2.0.0"),
    ];
    for (action, status, expected) in cases {
        let report = Case { action, status, ..Case::default() }.parsed();
        assert_eq!(ParsedReport::value(&report.recipients[0], "Status"), Some(expected), "{action} {status:?}");
        assert_eq!(ParsedReport::value(&report.recipients[0], "Action"), Some(&*action.to_string()));
    }
}

#[test]
fn only_a_reply_is_called_smtp() {
    for (reply, expected) in [
        ("550 no", "smtp; 550 no"),
        ("550-no\n550 never", "smtp; 550-no 550 never"),
        ("550", "smtp; 550"),
        ("connection refused", "x-posthouse; connection refused"),
        ("5500 things", "x-posthouse; 5500 things"),
    ] {
        let report = Case { reply: reply.into(), ..Case::default() }.parsed();
        assert_eq!(ParsedReport::value(&report.recipients[0], "Diagnostic-Code"), Some(expected));
    }
    let silent = Case { reply: String::new(), remote: None, ..Case::default() }.parsed();
    assert_eq!(ParsedReport::value(&silent.recipients[0], "Diagnostic-Code"), None);
    assert_eq!(ParsedReport::value(&silent.recipients[0], "Remote-MTA"), None);
}

#[test]
fn an_internationalised_message_is_reported_as_rfc_6533_says() {
    let case = Case {
        smtp_utf8: true,
        address: "b\u{fc}b@example.net".into(),
        original: Some("utf-8;b\u{fc}b@example.net".into()),
        header: "Subject: gr\u{fc}n\r\n".as_bytes().to_vec(),
        body: Some(b"text\r\n".to_vec()),
        ..Case::default()
    };
    let built = case.build();
    assert!(built.eight_bit && !built.smtp_utf8, "the sender's own address is ASCII: 8BITMIME is enough");
    let message = String::from_utf8(whole(&built)).unwrap();
    assert!(
        message.contains("Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit"),
        "{message}"
    );
    let report = case.parsed();
    assert_eq!(ParsedReport::value(&report.recipients[0], "Final-Recipient"), Some("utf-8; b\u{fc}b@example.net"));
    assert_eq!(report.returned_type, "message/global");
    assert!(Case { to: "\u{e4}lice@example.org", ..Case::default() }.build().smtp_utf8);
}

#[test]
fn a_foreign_reply_stays_ascii_in_a_plain_report() {
    let case = Case { reply: "550 unbekannter Empf\u{e4}nger".into(), ..Case::default() };
    let report = case.parsed();
    assert_eq!(
        ParsedReport::value(&report.recipients[0], "Diagnostic-Code"),
        Some("smtp; 550 unbekannter Empf\\x{E4}nger")
    );
    assert!(report.text.contains("Empf\u{e4}nger"));
    assert!(case.build().eight_bit, "the text for people is UTF-8");
}

#[test]
fn an_envelope_cannot_write_fields_of_its_own() {
    let case = Case {
        envid: Some("id\r\nBcc: eve@example.com".into()),
        original: Some("rfc822;b@c\r\n\r\nAction: delivered".into()),
        remote: Some("mx\r\nX: y".into()),
        reply: "550 no\r\n\r\n--boundary\r\nContent-Type: text/html".into(),
        ..Case::default()
    };
    let report = case.parsed();
    assert_eq!(ParsedReport::value(&report.message, "Original-Envelope-Id"), Some("id+0D+0ABcc: eve@example.com"));
    assert_eq!(
        ParsedReport::value(&report.recipients[0], "Original-Recipient"),
        Some("rfc822; b@c+0D+0A+0D+0AAction: delivered")
    );
    assert_eq!(names(&report.recipients[0]), names(&Case::default().parsed().recipients[0]));
}

#[test]
fn the_boundary_does_not_occur_inside() {
    let id = MessageId::new(0, 7, 7);
    let body = format!("--=_{id}\r\n--=_{id}.1--\r\n--=_{id}.2\r\n");
    let report = Case { body: Some(body.clone().into_bytes()), ..Case::default() }.parsed();
    assert!(report.returned.ends_with(body.as_bytes()));
    assert!(ParsedReport::value(&report.header, "Content-Type").unwrap().contains(&format!("=_{id}.3\"")));
}

#[test]
fn eight_bit_content_comes_back_as_it_was() {
    let body = b"caf\xe9\r\n".to_vec();
    let case = Case { body: Some(body.clone()), ..Case::default() };
    assert!(case.build().eight_bit);
    let report = case.parsed();
    assert_eq!(ParsedReport::value(&report.header, "Content-Transfer-Encoding"), Some("8bit"));
    assert_eq!(report.returned_type, "message/rfc822");
    assert!(report.returned.ends_with(&body));
}

#[test]
fn a_thousand_recipients_make_a_bounded_text() {
    let addresses: Vec<String> = (0..1000).map(|n| format!("r{n}@example.net")).collect();
    let recipient = |address| Recipient {
        original: None,
        address,
        action: Action::Failed,
        status: None,
        remote: None,
        reply: "550 no",
        last_attempt: None,
    };
    let recipients: Vec<Recipient<'_>> = addresses.iter().map(|address| recipient(address.as_str())).collect();
    let domain = Domain::parse("mx1.example.org").unwrap();
    let address = Address::parse("a@example.org").unwrap();
    let built = build(&Report {
        kind: Kind::Failed,
        reporting_mta: &domain,
        from: &address,
        to: &address,
        id: MessageId::new(0, 7, 7),
        about: MessageId::new(0, 1, 1),
        now: NOW,
        arrival: ARRIVAL,
        envid: None,
        retry_until: None,
        recipients: &recipients,
        header: b"A: b\r\n",
        returned: Returned::Headers,
        smtp_utf8: false,
    });
    let report = parse_report(&whole(&built)).unwrap();
    assert_eq!(report.recipients.len(), 1000);
    assert!(report.text.contains("and 900 more"));
}

proptest! {
    #[test]
    fn hostile_facts_stay_inside_their_fields(
        envid in proptest::option::of(any::<String>()),
        original in proptest::option::of("(rfc822;)?[\\PC\r\n\0;]{0,60}"),
        address in any::<String>(),
        remote in proptest::option::of("[a-z \r\n()\0\\[\\]]{0,2000}"),
        reply in "(550[ -])?([\r\n\0\u{2028}a-zA-Z:. \u{e4}-]|\r\n[A-Z][a-z]+: ){0,1200}",
        smtp_utf8: bool,
    ) {
        let case = Case { envid, original, address, remote, reply, smtp_utf8, ..Case::default() };
        let built = case.build();
        let message = whole(&built);
        assert_lines(&message);
        let report = parse_report(&message).unwrap();
        let expected: Vec<&str> = ["Reporting-MTA", "Original-Envelope-Id", "Arrival-Date", "X-Posthouse-Message-Id"]
            .into_iter().filter(|name| case.envid.is_some() || *name != "Original-Envelope-Id").collect();
        prop_assert_eq!(names(&report.message), expected);
        prop_assert_eq!(report.recipients.len(), 1);
        let known = ["Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date"];
        let found = names(&report.recipients[0]);
        prop_assert!(found.iter().all(|name| known.contains(name)), "{:?}", found);
        prop_assert!(found.is_sorted_by_key(|name| known.iter().position(|k| k == name)), "{:?}", found);
        prop_assert!(built.eight_bit || message.is_ascii());
    }

    #[test]
    fn hostile_messages_come_back_in_lines_that_travel(header: Vec<u8>, body: Vec<u8>, smtp_utf8: bool) {
        let case = Case { header, body: Some(body), smtp_utf8, ..Case::default() };
        let built = case.build();
        let message = whole(&built);
        assert_lines(&message);
        prop_assert!(parse_report(&message).is_some());
        prop_assert!(built.eight_bit || message.is_ascii());
    }
}
