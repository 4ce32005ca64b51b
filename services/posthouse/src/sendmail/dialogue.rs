//! The client's side of a submission over a socket of this host: one message, one command at a time.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};

/// Octets of a reply, all its lines.
const REPLY_MAX_BYTES: u64 = 64 << 10;

/// Why a message was not taken.
#[derive(Debug)]
pub(super) enum Refusal {
    /// 4xx: try again.
    Later(Reply),
    /// 5xx.
    Never(Reply),
    /// 5xx for every recipient.
    Recipients(Vec<(String, Reply)>),
    /// The socket, or what came out of it.
    Broken(io::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Later(reply) | Self::Never(reply) => reply.fmt(f),
            Self::Recipients(refused) => {
                let list: Vec<String> = refused.iter().map(|(who, why)| format!("{who}: {why}")).collect();
                f.write_str(&list.join("; "))
            }
            Self::Broken(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// A reply: its code and its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    code: u16,
    lines: Vec<String>,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, crate::output::printable(&self.lines.join(" ")))
    }
}

impl Reply {
    fn accepted(self) -> Result<Self, Refusal> {
        match self.code {
            200..400 => Ok(self),
            400..500 => Err(Refusal::Later(self)),
            _ => Err(Refusal::Never(self)),
        }
    }
}

/// Who sends to whom, and how they want to hear of it.
#[derive(Debug, Default)]
pub(super) struct Envelope {
    pub(super) sender: String,
    pub(super) recipients: Vec<String>,
    pub(super) notify: Option<String>,
    pub(super) dsn_return: Option<String>,
    pub(super) envid: Option<String>,
}

/// A session after EHLO.
pub(super) struct Dialogue<S> {
    stream: BufReader<S>,
    hostname: String,
    extensions: Vec<String>,
}

impl<S: Read + Write> Dialogue<S> {
    pub(super) fn begin(stream: S) -> Result<Self, Refusal> {
        let mut dialogue = Self { stream: BufReader::new(stream), hostname: String::new(), extensions: Vec::new() };
        dialogue.reply()?.accepted()?;
        let answer = dialogue.command("EHLO localhost")?.accepted()?;
        let mut lines = answer.lines.into_iter();
        let first = lines.next().unwrap_or_default();
        dialogue.hostname = first.split(' ').next().unwrap_or_default().to_owned();
        dialogue.extensions = lines.map(|line| line.to_ascii_uppercase()).collect();
        Ok(dialogue)
    }

    /// The platform's host name.
    pub(super) fn hostname(&self) -> &str {
        &self.hostname
    }

    /// Submits one message and gives the recipients that were refused for good. When one of them should be tried later
    /// nothing is sent, so that the caller can try again as a whole.
    pub(super) fn submit(&mut self, envelope: &Envelope, message: &[u8]) -> Result<Vec<(String, Reply)>, Refusal> {
        self.mail(envelope, message)?.accepted()?;
        let mut refused = Vec::new();
        for recipient in &envelope.recipients {
            let mut command = format!("RCPT TO:<{}>", clean(recipient));
            if let Some(notify) = envelope.notify.as_ref().filter(|_| self.offers("DSN")) {
                command.push_str(&format!(" NOTIFY={notify}"));
            }
            match self.command(&command)?.accepted() {
                Ok(_) => {}
                Err(Refusal::Never(reply)) => refused.push((recipient.clone(), reply)),
                Err(other) => return Err(other),
            }
        }
        if refused.len() == envelope.recipients.len() {
            return Err(Refusal::Recipients(refused));
        }
        self.command("DATA")?.accepted()?;
        let stream = self.stream.get_mut();
        stream.write_all(&stuffed(message))?;
        stream.flush()?;
        self.reply()?.accepted()?;
        // The message is taken: a QUIT that fails changes nothing.
        let _ = self.command("QUIT");
        Ok(refused)
    }

    fn mail(&mut self, envelope: &Envelope, message: &[u8]) -> Result<Reply, Refusal> {
        let mut command = format!("MAIL FROM:<{}>", clean(&envelope.sender));
        if self.offers("SIZE") {
            command.push_str(&format!(" SIZE={}", message.len()));
        }
        if self.offers("8BITMIME") && !message.is_ascii() {
            command.push_str(" BODY=8BITMIME");
        }
        let addresses_are_ascii = envelope.sender.is_ascii() && envelope.recipients.iter().all(|r| r.is_ascii());
        if self.offers("SMTPUTF8") && !addresses_are_ascii {
            command.push_str(" SMTPUTF8");
        }
        if self.offers("DSN") {
            if let Some(ret) = &envelope.dsn_return {
                command.push_str(&format!(" RET={ret}"));
            }
            if let Some(envid) = &envelope.envid {
                command.push_str(&format!(" ENVID={}", xtext(envid)));
            }
        }
        self.command(&command)
    }

    fn offers(&self, keyword: &str) -> bool {
        self.extensions.iter().any(|line| line.split(' ').next() == Some(keyword))
    }

    fn command(&mut self, command: &str) -> Result<Reply, Refusal> {
        let stream = self.stream.get_mut();
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        stream.flush()?;
        self.reply()
    }

    fn reply(&mut self) -> Result<Reply, Refusal> {
        let broken = |text: &str| Refusal::Broken(io::Error::new(io::ErrorKind::InvalidData, text.to_owned()));
        let mut bounded = (&mut self.stream).take(REPLY_MAX_BYTES);
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            bounded.read_until(b'\n', &mut line)?;
            if !line.ends_with(b"\n") {
                return Err(broken("the platform hung up"));
            }
            let line = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
            let code: u16 =
                line.get(..3).and_then(|code| code.parse().ok()).ok_or_else(|| broken("that is no reply"))?;
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Reply { code, lines });
            }
        }
    }
}

/// What comes from a command line or a header must not be able to end a command.
fn clean(address: &str) -> String {
    address.chars().filter(|c| !c.is_control() && !matches!(c, '<' | '>')).collect()
}

/// RFC 3461 section 4.
fn xtext(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'!'..=b'~' if !matches!(byte, b'+' | b'=') => out.push(char::from(byte)),
            other => out.push_str(&format!("+{other:02X}")),
        }
        out
    })
}

/// RFC 5321 section 4.5.2, and the final dot. The message ends with CRLF.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + message.len() / 64 + 5);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// Plays the platform's side; keeps what it was told.
    struct Script {
        says: Cursor<Vec<u8>>,
        told: Vec<u8>,
    }

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.says.read(buffer)
        }
    }

    impl Write for Script {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            self.told.write(buffer)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn begin(says: &str) -> Result<Dialogue<Script>, Refusal> {
        let says = says.replace('\n', "\r\n").into_bytes();
        Dialogue::begin(Script { says: Cursor::new(says), told: Vec::new() })
    }

    fn envelope(recipients: &[&str]) -> Envelope {
        Envelope {
            sender: "a@x".to_owned(),
            recipients: recipients.iter().map(|text| (*text).to_owned()).collect(),
            ..Envelope::default()
        }
    }

    const HELLO: &str = "220 mx ESMTP\n250-mx.example.org hello\n250-SIZE 50\n250-8BITMIME\n250-DSN\n250 SMTPUTF8\n";

    #[test]
    fn a_message_is_submitted_with_its_parameters() {
        let says = format!("{HELLO}250 ok\n250 ok\n354 go\n250 2.0.0 queued as 1\n221 bye\n");
        let mut dialogue = begin(&says).unwrap();
        assert_eq!(dialogue.hostname(), "mx.example.org");
        let envelope = Envelope {
            notify: Some("NEVER".to_owned()),
            dsn_return: Some("HDRS".to_owned()),
            envid: Some("a b".to_owned()),
            ..envelope(&["b@é"])
        };
        let refused = dialogue.submit(&envelope, "From: é\r\n\r\n.x\r\n".as_bytes()).unwrap();
        assert!(refused.is_empty());
        let told = String::from_utf8(dialogue.stream.get_ref().told.clone()).unwrap();
        assert_eq!(
            told,
            "EHLO localhost\r\nMAIL FROM:<a@x> SIZE=16 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+20b\r\n\
             RCPT TO:<b@é> NOTIFY=NEVER\r\nDATA\r\nFrom: é\r\n\r\n..x\r\n.\r\nQUIT\r\n"
        );
    }

    #[test]
    fn refusals_are_told_apart() {
        type Expected = fn(&Result<Vec<(String, Reply)>, Refusal>) -> bool;
        let cases: [(&str, Expected); 7] = [
            ("450 later\n", |r| matches!(r, Err(Refusal::Later(_)))),
            ("550 never\n", |r| matches!(r, Err(Refusal::Never(_)))),
            ("250 ok\n250 ok\n550 who\n354 go\n250 ok\n", |r| matches!(r, Ok(refused) if refused.len() == 1)),
            ("250 ok\n550 who\n550 who\n", |r| matches!(r, Err(Refusal::Recipients(list)) if list.len() == 2)),
            ("250 ok\n250 ok\n450 later\n", |r| matches!(r, Err(Refusal::Later(_)))),
            ("250 ok\n250 ok\n250 ok\n354 go\n451 disk\n", |r| matches!(r, Err(Refusal::Later(_)))),
            ("250 ok\n250 ok\n250 ok\n354 go\n", |r| matches!(r, Err(Refusal::Broken(_)))),
        ];
        for (says, expected) in cases {
            let mut dialogue = begin(&format!("{HELLO}{says}")).unwrap();
            let result = dialogue.submit(&envelope(&["b@x", "c@x"]), b"From: a\r\n\r\n");
            assert!(expected(&result), "{says}: {result:?}");
        }
        assert!(matches!(begin("421 busy\n"), Err(Refusal::Later(_))));
        assert!(matches!(begin("nonsense\n"), Err(Refusal::Broken(_))));
        assert!(matches!(begin(&"220-x\n".repeat(20_000)), Err(Refusal::Broken(_))));
    }

    #[test]
    fn an_address_cannot_smuggle_a_command() {
        let says = format!("{HELLO}250 ok\n550 no\n");
        let mut dialogue = begin(&says).unwrap();
        let _ = dialogue.submit(&envelope(&["b@x>\r\nRSET"]), b"\r\n");
        let told = String::from_utf8(dialogue.stream.get_ref().told.clone()).unwrap();
        assert!(told.ends_with("RCPT TO:<b@xRSET>\r\n"), "{told}");
    }
}
