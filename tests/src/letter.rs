//! Messages of the ledger: each carries its id and a checksum of its body, in a header field and in the body.

use std::fmt::Write;

use crate::random::Random;

/// Makes the message of this id: the same id and size make the same octets. Lines end in CRLF; nothing is dot-stuffed.
pub fn write(id: u64, body_bytes: usize, sender: &str, recipients: &[String]) -> Vec<u8> {
    let body = body(id, body_bytes);
    let mut text = String::with_capacity(body.len() + 512);
    let _ = write!(
        text,
        "From: <{sender}>\r\nTo: <{}>\r\nSubject: ledger {id}\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\n\
         Message-ID: <ledger-{id}@client.test>\r\nX-Ledger: {id} {} {:016x}\r\n\r\n",
        recipients.first().map_or("", String::as_str),
        body.len(),
        checksum(&body),
    );
    let mut text = text.into_bytes();
    text.extend_from_slice(&body);
    text
}

/// What a message says of itself, as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Id in its header.
    pub id: u64,
    /// Its body is the one that was sent.
    pub whole: bool,
    /// Id that the platform gave it: the topmost `Received:` says it. Empty: there is none.
    pub queue_id: String,
}

/// Reads a message of the ledger; `None`: it is none, or too damaged to say.
pub fn read(text: &[u8]) -> Option<Found> {
    let end = text.windows(4).position(|four| four == b"\r\n\r\n")?;
    let header = String::from_utf8_lossy(&text[..end + 2]).replace("\r\n\t", " ").replace("\r\n ", " ");
    let body = &text[end + 4..];
    let mut stated = field(&header, "X-Ledger")?.split_whitespace();
    let id: u64 = stated.next()?.parse().ok()?;
    let bytes: usize = stated.next()?.parse().ok()?;
    let sum = u64::from_str_radix(stated.next()?, 16).ok()?;
    let whole = body.len() == bytes && checksum(body) == sum && body.starts_with(format!("ledger {id}\r\n").as_bytes());
    let mut words = field(&header, "Received").unwrap_or_default().split_whitespace();
    let queue_id = words.by_ref().find(|word| *word == "id").and_then(|_| words.next()).unwrap_or_default();
    Some(Found { id, whole, queue_id: queue_id.trim_end_matches(';').to_owned() })
}

/// What a delivery status notification says, as far as the ledger is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its own Message-ID.
    pub own_id: String,
    /// Queue id of the message that it is about.
    pub about: String,
    /// Ledger id of that message.
    pub id: u64,
    /// Who is reported.
    pub recipients: Vec<String>,
}

/// Reads a notification about a message of the ledger.
pub fn read_report(text: &[u8]) -> Option<Report> {
    let text = String::from_utf8_lossy(text);
    let line = |name: &str| {
        let begin = format!("{name}: ");
        text.lines().find_map(|line| line.strip_prefix(&begin)).map(|value| value.trim().to_owned())
    };
    let recipients = text.lines().filter_map(|line| line.strip_prefix("Final-Recipient: "));
    let recipients = recipients.filter_map(|value| Some(value.split_once(';')?.1.trim().to_owned())).collect();
    Some(Report {
        own_id: line("Message-ID")?,
        about: line("X-Posthouse-Message-Id")?,
        id: line("X-Ledger")?.split_whitespace().next()?.parse().ok()?,
        recipients,
    })
}

fn field<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    header.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Lines of many lengths, some with dots in front: what a text goes through on its way must give it back.
fn body(id: u64, bytes: usize) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .";
    let mut random = Random::new(id);
    let mut body = format!("ledger {id}\r\n").into_bytes();
    while body.len() < bytes {
        let length = match random.below(16) {
            0 => 0,
            1 => random.between(200, 900),
            _ => random.between(1, 100),
        };
        if random.percent(5) {
            body.extend_from_slice(&b"..."[..random.between(1, 4) as usize]);
        }
        for _ in 0..length.div_ceil(10) {
            let mut bits = random.draw();
            for _ in 0..10 {
                body.push(LETTERS[(bits & 63) as usize]);
                bits >>= 6;
            }
        }
        body.extend_from_slice(b"\r\n");
    }
    body
}

/// FNV-1a, over words of eight octets: fast enough without optimisation.
fn checksum(bytes: &[u8]) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64 ^ bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        sum = (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_one_changed_octet_is_seen() {
        let text = write(42, 3000, "a@b.test", &["c@d.test".to_owned()]);
        let received: Vec<u8> = [
            b"Received: from x ([127.0.0.1])\r\n\tby mx with ESMTP\r\n\tid 0ABC-1;\r\n\tSun, 22 Nov 2026\r\n"
                .as_slice(),
            &text,
        ]
        .concat();
        assert_eq!(read(&received), Some(Found { id: 42, whole: true, queue_id: "0ABC-1".to_owned() }));
        for at in [text.len() - 1, text.len() - 1500] {
            let mut damaged = text.clone();
            damaged[at] ^= 1;
            assert!(!read(&damaged).unwrap().whole);
        }
        assert!(!read(&text[..text.len() - 1]).unwrap().whole, "a torn end is seen");
        assert_eq!(read(b"Subject: other\r\n\r\n"), None);
    }

    #[test]
    fn a_report_says_what_it_is_about() {
        let text = "Message-ID: <r1@mx>\r\n\r\nX-Posthouse-Message-Id: q1\r\n\r\nFinal-Recipient: rfc822; x1@refused.test\r\n\
                    \r\nX-Ledger: 7 100 ff\r\n";
        let expected = Report {
            own_id: "<r1@mx>".to_owned(),
            about: "q1".to_owned(),
            id: 7,
            recipients: vec!["x1@refused.test".to_owned()],
        };
        assert_eq!(read_report(text.as_bytes()), Some(expected));
    }
}
