use std::fmt::Write as _;
use std::net::IpAddr;

use types::{Address, Domain, MessageId, Timestamp};

use crate::date::rfc5322_date;

/// Octets of a client's text (HELO, user name) that are shown.
const CLIENT_TEXT_OCTETS_MAX: usize = 255;

/// The trace field that a receiving server puts in front of a message (RFC 5321 section 4.4).
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Who sent it.
    pub client: Client<'a>,
    /// Our name.
    pub hostname: &'a Domain,
    /// What was spoken.
    pub protocol: Protocol,
    /// With TLS.
    pub tls: Option<Tls<'a>>,
    /// The client authenticated.
    pub authenticated: bool,
    /// The transaction used SMTPUTF8.
    pub utf8: bool,
    /// Ours.
    pub id: MessageId,
    /// The recipient, where there is one only: several would tell of each other.
    pub recipient: Option<&'a Address>,
    /// When the message arrived.
    pub at: Timestamp,
}

/// Who sent a message.
#[derive(Debug, Clone, Copy)]
pub enum Client<'a> {
    /// A host: what it calls itself, and its address.
    Host {
        /// Argument of HELO, EHLO or LHLO, as it was received.
        helo: &'a str,
        /// `None`: the listener cannot tell.
        address: Option<IpAddr>,
    },
    /// A user of this machine.
    Local {
        /// Login name.
        user: &'a str,
    },
    /// Left out.
    Hidden,
}

/// What was spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HELO.
    Smtp,
    /// EHLO.
    Esmtp,
    /// LHLO.
    Lmtp,
}

/// A TLS connection.
#[derive(Debug, Clone, Copy)]
pub struct Tls<'a> {
    /// As in `TLSv1.3`.
    pub version: &'a str,
    /// As in `TLS13_AES_256_GCM_SHA384`.
    pub cipher: &'a str,
}

impl Received<'_> {
    /// The folded field with its CRLFs. No line is longer than 998 octets, and nothing a client said can end one (S11).
    pub fn to_field(&self) -> String {
        let mut field = String::with_capacity(384);
        field.push_str("Received: ");
        self.write_from(&mut field);
        // Writing to a String cannot fail.
        let _ = write!(field, "by {} with {}", self.hostname, self.with());
        if let Some(tls) = self.tls {
            let _ = write!(field, " ({} {})", clean(tls.version), clean(tls.cipher));
        }
        let _ = write!(field, "\r\n\tid {}", self.id);
        if let Some(recipient) = self.recipient {
            let _ = write!(field, "\r\n\tfor <{}>", clean_line(&recipient.to_string()));
        }
        let _ = write!(field, ";\r\n\t{}\r\n", rfc5322_date(self.at));
        field
    }

    fn write_from(&self, field: &mut String) {
        let _ = match self.client {
            Client::Hidden => Ok(()),
            Client::Local { user } => write!(field, "from localhost (local user {})\r\n\t", clean(user)),
            Client::Host { helo, address: None } => write!(field, "from {}\r\n\t", clean(helo)),
            Client::Host { helo, address: Some(IpAddr::V4(four)) } => {
                write!(field, "from {} ([{four}])\r\n\t", clean(helo))
            }
            Client::Host { helo, address: Some(IpAddr::V6(six)) } => match six.to_ipv4_mapped() {
                Some(four) => write!(field, "from {} ([{four}])\r\n\t", clean(helo)),
                None => write!(field, "from {} ([IPv6:{six}])\r\n\t", clean(helo)),
            },
        };
    }

    /// RFC 3848, with the names of RFC 6531 section 4.3.
    fn with(&self) -> &'static str {
        match (self.protocol, self.tls.is_some(), self.authenticated, self.utf8) {
            (Protocol::Smtp, ..) => "SMTP",
            (Protocol::Esmtp, false, false, false) => "ESMTP",
            (Protocol::Esmtp, false, true, false) => "ESMTPA",
            (Protocol::Esmtp, true, false, false) => "ESMTPS",
            (Protocol::Esmtp, true, true, false) => "ESMTPSA",
            (Protocol::Esmtp, false, false, true) => "UTF8SMTP",
            (Protocol::Esmtp, false, true, true) => "UTF8SMTPA",
            (Protocol::Esmtp, true, false, true) => "UTF8SMTPS",
            (Protocol::Esmtp, true, true, true) => "UTF8SMTPSA",
            (Protocol::Lmtp, false, false, false) => "LMTP",
            (Protocol::Lmtp, false, true, false) => "LMTPA",
            (Protocol::Lmtp, true, false, false) => "LMTPS",
            (Protocol::Lmtp, true, true, false) => "LMTPSA",
            (Protocol::Lmtp, false, false, true) => "UTF8LMTP",
            (Protocol::Lmtp, false, true, true) => "UTF8LMTPA",
            (Protocol::Lmtp, true, false, true) => "UTF8LMTPS",
            (Protocol::Lmtp, true, true, true) => "UTF8LMTPSA",
        }
    }
}

/// A client's text as one word that opens no comment, address or new field: what is no host name character becomes `?`.
fn clean(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(CLIENT_TEXT_OCTETS_MAX)
        .map(|c| if c.is_ascii_alphanumeric() || "-._:[]".contains(c) { c } else { '?' })
        .collect();
    if out.is_empty() {
        out.push_str("unknown");
    }
    out
}

/// The text without controls.
fn clean_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::header::{LINE_OCTETS_MAX, fields};

    fn check_lines(field: &str) {
        assert!(field.ends_with("\r\n"));
        for (i, line) in field.strip_suffix("\r\n").unwrap().split("\r\n").enumerate() {
            assert!(line.len() <= LINE_OCTETS_MAX && !line.contains(['\r', '\n', '\0']), "{line:?}");
            assert!(i == 0 || line.starts_with('\t'), "{line:?}");
        }
        assert_eq!(fields(field.as_bytes()).count(), 1);
    }

    fn base<'a>(hostname: &'a Domain, client: Client<'a>) -> Received<'a> {
        Received {
            client,
            hostname,
            protocol: Protocol::Esmtp,
            tls: None,
            authenticated: false,
            utf8: false,
            id: MessageId::new(0, 1, 2),
            recipient: None,
            at: Timestamp::from_unix_ms(1795373632000),
        }
    }

    #[test]
    fn the_trace_field_tells_how_a_message_came() {
        let hostname = Domain::parse("mx1.example.org").unwrap();
        let recipient = Address::parse("a@example.org").unwrap();
        let host = |helo, address: &str| Client::Host { helo, address: Some(address.parse().unwrap()) };
        let tls = Some(Tls { version: "TLSv1.3", cipher: "TLS13_AES_256_GCM_SHA384" });
        let id = MessageId::new(0, 1, 2);
        let end = format!("\r\n\tid {id};\r\n\tSun, 22 Nov 2026 18:53:52 +0000\r\n");
        let cases = [
            (
                base(&hostname, host("client.example", "192.0.2.1")),
                "Received: from client.example ([192.0.2.1])\r\n\tby mx1.example.org with ESMTP",
            ),
            (
                Received { tls, authenticated: true, ..base(&hostname, host("[IPv6:::1]", "2001:db8::1")) },
                "Received: from [IPv6:::1] ([IPv6:2001:db8::1])\r\n\tby mx1.example.org with ESMTPSA (TLSv1.3 TLS13_AES_256_GCM_SHA384)",
            ),
            (
                Received { protocol: Protocol::Smtp, ..base(&hostname, host("x", "::ffff:192.0.2.1")) },
                "Received: from x ([192.0.2.1])\r\n\tby mx1.example.org with SMTP",
            ),
            (
                base(&hostname, Client::Local { user: "root" }),
                "Received: from localhost (local user root)\r\n\tby mx1.example.org with ESMTP",
            ),
            (base(&hostname, Client::Hidden), "Received: by mx1.example.org with ESMTP"),
            (
                Received {
                    protocol: Protocol::Lmtp,
                    utf8: true,
                    ..base(&hostname, Client::Host { helo: "", address: None })
                },
                "Received: from unknown\r\n\tby mx1.example.org with UTF8LMTP",
            ),
        ];
        for (received, expected) in cases {
            let field = received.to_field();
            check_lines(&field);
            assert_eq!(field, format!("{expected}{end}"));
        }
        let field = Received { recipient: Some(&recipient), ..base(&hostname, Client::Hidden) }.to_field();
        assert!(field.contains("\r\n\tfor <a@example.org>;\r\n\t"), "{field}");
    }

    proptest! {
        #[test]
        fn no_client_text_breaks_out_of_the_trace_field(helo: String, user: String) {
            let hostname = Domain::parse("mx1.example.org").unwrap();
            let host = Client::Host { helo: &helo, address: None };
            let tls = Some(Tls { version: &helo, cipher: &user });
            check_lines(&Received { tls, ..base(&hostname, host) }.to_field());
            check_lines(&base(&hostname, Client::Local { user: &user }).to_field());
        }
    }
}
