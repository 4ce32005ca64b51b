//! Commands as they go on the wire.

use std::fmt::Write as _;

use super::{Body, Envelope, Extensions, Protocol, Recipient, Ret, notify};

/// MAIL with the parameters that the peer offers. Parameters only go where their extension is offered.
pub(super) fn mail(envelope: &Envelope, offered: &Extensions, protocol: Protocol, out: &mut Vec<u8>) {
    let mut line = String::with_capacity(128);
    match &envelope.sender {
        Some(sender) => _ = write!(line, "MAIL FROM:<{sender}>"),
        None => line.push_str("MAIL FROM:<>"),
    }
    if offered.size.is_some() {
        _ = write!(line, " SIZE={}", envelope.size);
    }
    if envelope.body == Body::EightBit && offered.eight_bit_mime {
        line.push_str(" BODY=8BITMIME");
    }
    if needs_utf8(envelope) && offered.smtp_utf8 {
        line.push_str(" SMTPUTF8");
    }
    if passes_dsn(offered, protocol) {
        match envelope.ret {
            Some(Ret::Full) => line.push_str(" RET=FULL"),
            Some(Ret::Headers) => line.push_str(" RET=HDRS"),
            None => {}
        }
        if let Some(envid) = envelope.envid.as_deref().filter(|envid| is_printable(envid)) {
            _ = write!(line, " ENVID={}", xtext(envid));
        }
    }
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// RCPT with the parameters that the peer offers.
pub(super) fn rcpt(recipient: &Recipient, offered: &Extensions, protocol: Protocol, out: &mut Vec<u8>) {
    let mut line = String::with_capacity(128);
    _ = write!(line, "RCPT TO:<{}>", recipient.address);
    if passes_dsn(offered, protocol) {
        if recipient.notify != 0 {
            line.push_str(" NOTIFY=");
            line.push_str(&notify_words(recipient.notify));
        }
        if let Some(orcpt) = recipient.orcpt.as_deref().and_then(orcpt) {
            line.push_str(" ORCPT=");
            line.push_str(&orcpt);
        }
    }
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Whether the transaction cannot do without SMTPUTF8 (RFC 6531 section 3.1). Recipients are judged one by one.
pub(super) fn needs_utf8(envelope: &Envelope) -> bool {
    envelope.smtp_utf8
        || envelope.sender.as_ref().is_some_and(|sender| !sender.is_ascii())
        || envelope.recipients.iter().any(|recipient| !recipient.address.is_ascii())
}

/// Over LMTP the reports of a delivery are ours to write (the peer is final), so nothing is passed on.
pub(super) fn passes_dsn(offered: &Extensions, protocol: Protocol) -> bool {
    offered.dsn && protocol == Protocol::Smtp
}

fn notify_words(bits: u32) -> String {
    if bits & notify::NEVER != 0 {
        return "NEVER".into();
    }
    let words = [(notify::SUCCESS, "SUCCESS"), (notify::FAILURE, "FAILURE"), (notify::DELAY, "DELAY")];
    words.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, word)| *word).collect::<Vec<_>>().join(",")
}

/// `type;address` encoded, or `None` where it cannot be (RFC 3461 section 4.2, RFC 6533 section 3 for other than ASCII).
fn orcpt(decoded: &str) -> Option<String> {
    let (kind, address) = decoded.split_once(';')?;
    let fits = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !fits || address.is_empty() || address.chars().any(char::is_control) {
        return None;
    }
    if address.is_ascii() {
        return Some(format!("{kind};{}", xtext(address)));
    }
    kind.eq_ignore_ascii_case("utf-8").then(|| format!("utf-8;{}", unitext(address)))
}

fn is_printable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

/// RFC 3461 section 4: `+`, `=` and all that is not printable ASCII as `+XX`.
fn xtext(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        match byte {
            b'!'..=b'~' if byte != b'+' && byte != b'=' => out.push(char::from(byte)),
            _ => _ = write!(out, "+{byte:02X}"),
        }
    }
    out
}

/// RFC 6533 section 3, utf-8-addr-unitext: fits where SMTPUTF8 is not offered, too.
fn unitext(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        match c {
            '!'..='~' if !matches!(c, '+' | '=' | '\\') => out.push(c),
            _ => _ = write!(out, "\\x{{{:X}}}", u32::from(c)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use types::Address;

    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn mail_carries_what_is_offered_and_nothing_else() {
        let all = Extensions { eight_bit_mime: true, smtp_utf8: true, dsn: true, size: Some(0), ..Default::default() };
        let none = Extensions::default();
        let plain = Envelope {
            sender: Some(address("a b@x.org".replace(' ', ".").as_str())),
            size: 42,
            body: Body::EightBit,
            smtp_utf8: true,
            ret: Some(Ret::Headers),
            envid: Some("QQ+31=4 1".into()),
            recipients: Vec::new(),
        };
        let null =
            Envelope { sender: None, body: Body::SevenBit, smtp_utf8: false, ret: None, envid: None, ..plain.clone() };
        let hostile = Envelope { envid: Some("x\r\nRSET".into()), ..null.clone() };
        let cases = [
            (&plain, &none, Protocol::Smtp, "MAIL FROM:<a.b@x.org>\r\n"),
            (
                &plain,
                &all,
                Protocol::Smtp,
                "MAIL FROM:<a.b@x.org> SIZE=42 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+2B31+3D4+201\r\n",
            ),
            (&plain, &all, Protocol::Lmtp, "MAIL FROM:<a.b@x.org> SIZE=42 BODY=8BITMIME SMTPUTF8\r\n"),
            (&null, &all, Protocol::Smtp, "MAIL FROM:<> SIZE=42\r\n"),
            (&hostile, &all, Protocol::Smtp, "MAIL FROM:<> SIZE=42\r\n"),
        ];
        for (envelope, offered, protocol, expected) in cases {
            let mut out = Vec::new();
            mail(envelope, offered, protocol, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn rcpt_passes_dsn_parameters_where_dsn_is_offered() {
        let dsn = Extensions { dsn: true, ..Default::default() };
        let cases = [
            ("b@y.org", 0, None, "RCPT TO:<b@y.org>\r\n"),
            ("b@y.org", 1 | 4, None, "RCPT TO:<b@y.org> NOTIFY=NEVER\r\n"),
            (
                "b@y.org",
                2 | 4 | 8,
                Some("rfc822;b+x@z.org"),
                "RCPT TO:<b@y.org> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;b+2Bx@z.org\r\n",
            ),
            ("\"b c\"@y.org", 4, Some("no type"), "RCPT TO:<\"b c\"@y.org> NOTIFY=FAILURE\r\n"),
            ("b@y.org", 0, Some("utf-8;bü+@z.org"), "RCPT TO:<b@y.org> ORCPT=utf-8;b\\x{FC}\\x{2B}@z.org\r\n"),
            ("b@y.org", 0, Some("rfc822;bü@z.org"), "RCPT TO:<b@y.org>\r\n"),
            ("b@y.org", 0, Some("rfc822;x\r\ncc:y"), "RCPT TO:<b@y.org>\r\n"),
        ];
        for (to, notify, orcpt, expected) in cases {
            let recipient = Recipient { address: address(to), orcpt: orcpt.map(str::to_owned), notify };
            let mut out = Vec::new();
            rcpt(&recipient, &dsn, Protocol::Smtp, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
            let mut out = Vec::new();
            rcpt(&recipient, &Extensions::default(), Protocol::Smtp, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("RCPT TO:<{}>\r\n", recipient.address));
        }
    }
}
