use types::{Domain, MessageId, Timestamp};

use crate::date::rfc5322_date;
use crate::header::{LINE_OCTETS_MAX, fields};

/// The fields that a submission server adds where a client left them out: Date and Message-ID (RFC 6409 section 8).
///
/// Whole lines with CRLF; empty where nothing is missing.
pub fn missing_fields(header: &[u8], hostname: &Domain, id: MessageId, now: Timestamp) -> String {
    let (mut date, mut message_id) = (false, false);
    for field in fields(header) {
        date |= field.is("date");
        message_id |= field.is("message-id");
    }
    let mut missing = String::new();
    if !date {
        missing.push_str(&format!("Date: {}\r\n", rfc5322_date(now)));
    }
    if !message_id {
        missing.push_str(&format!("Message-ID: <{id}@{hostname}>\r\n"));
    }
    missing
}

/// The value of the first Message-ID field with its angle brackets, on one line and without controls, to trace a message by.
pub fn message_id(header: &[u8]) -> Option<String> {
    let field = fields(header).find(|field| field.is("message-id"))?;
    let value: String = field.unfolded().chars().filter(|c| !c.is_control()).collect();
    let fits = !value.is_empty() && value.len() <= LINE_OCTETS_MAX;
    fits.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_added() {
        let hostname = Domain::parse("mx1.example.org").unwrap();
        let id = MessageId::new(0, 1, 2);
        let date = "Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n";
        let own = format!("Message-ID: <{id}@mx1.example.org>\r\n");
        for (header, expected) in [
            ("Date: x\r\nMessage-Id: <a@b>\r\n", String::new()),
            ("date : x\r\n", own.clone()),
            ("MESSAGE-ID: <a@b>\r\n", date.to_owned()),
            ("Subject: Date:\r\n", format!("{date}{own}")),
            ("", format!("{date}{own}")),
        ] {
            assert_eq!(missing_fields(header.as_bytes(), &hostname, id, Timestamp::default()), expected, "{header:?}");
        }
    }

    #[test]
    fn the_message_id_is_the_first_one_on_one_line() {
        let long = format!("Message-ID: <{}>\r\n", "a".repeat(999));
        for (header, expected) in [
            ("Message-ID: <a@b>\r\nMessage-ID: <c@d>\r\n", Some("<a@b>")),
            ("message-id:\r\n <a@b>\r\n", Some("<a@b>")),
            ("Message-ID: <a\0\x07@b>\r\n", Some("<a@b>")),
            ("Message-ID:\r\n", None),
            ("Subject: x\r\n", None),
            (&long, None),
        ] {
            assert_eq!(message_id(header.as_bytes()).as_deref(), expected, "{header:?}");
        }
    }
}
